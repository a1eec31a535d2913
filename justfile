# Everyday commands; `just` lists them. Nothing here is needed to build or test: cargo alone does both.

default:
    @just --list

# Formatting, lints and tests: what to run before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace

# Everything that continuous integration runs
ci:
    .ci/run

# A record migrates before your eyes; arguments as `waybill demo --help` lists them
demo *arguments:
    cargo run --release -- demo {{arguments}}

# Judge an evidence file offline
verify evidence root:
    cargo run --release -- verify {{evidence}} --root {{root}}

# Write the test vectors anew: a difference in version control is then a change of the protocol
vectors:
    WAYBILL_WRITE_VECTORS=1 cargo test -p waybill-crypto --test vectors
    WAYBILL_WRITE_VECTORS=1 cargo test -p waybill-protocol --test vectors
    git diff --stat -- vectors

# Licences, bans, sources
deny:
    cargo deny --all-features check bans licenses sources
