//! Every committed seed and a bounded number of its mutations, through the same functions as libFuzzer, on stable Rust.
//!
//! The mutations are the same in every run. `WAYBILL_FUZZ_RUNS` asks for another number of them for each target.

use std::fs;
use std::path::{Path, PathBuf};

use waybill_fuzz::{TARGETS, Target};

/// Mutations of each target's seeds together, where nothing else is asked.
const RUNS: usize = 4_000;
/// No mutation is longer. Units: bytes.
const MAX_BYTES: usize = 64 * 1024;

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A target's seeds by name, in order.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("seeds").join(target);
    names_in(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// Says which input it was, should a target not come back from it.
struct Blame<'a> {
    target: &'a str,
    what: String,
    input: &'a [u8],
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}, {}; the input in hex:\n{}", self.target, self.what, hex::encode(self.input));
        }
    }
}

fn run((target, body): Target, what: String, input: &[u8]) -> bool {
    let _blame = Blame { target, what, input };
    body(input)
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// One to four small changes; `other` lends a piece.
fn mutate(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    const TELLING: [u8; 12] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x18, 0x9f, 0xf6, b'\n', b'"', b'{', b'/'];
    let mut out = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        let length = 1 + random.below(16);
        let end = out.len().min(at + length);
        match random.below(8) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = TELLING[random.below(TELLING.len())],
            2 if !out.is_empty() => out[at] = out[at].wrapping_add(if random.below(2) == 0 { 1 } else { 0xff }),
            3 => drop(out.drain(at..end)),
            4 => out.insert(at.min(out.len()), TELLING[random.below(TELLING.len())]),
            5 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let piece = other[from..other.len().min(from + 4 * length)].to_vec();
                out.splice(at..end, piece);
            }
            _ => out.truncate(at + length),
        }
    }
    out.truncate(MAX_BYTES);
    out
}

fn replay(target: Target, runs: usize) {
    let seeds = seeds(target.0);
    for (name, bytes) in &seeds {
        let taken = run(target, format!("seed {name}"), bytes);
        // What is written as good must stay good: a corpus that no parser takes any more tests nothing.
        assert!(taken || !name.starts_with("ok-"), "seeds/{}/{name} is refused; see tests/seeds.rs", target.0);
    }
    assert!(seeds.iter().any(|(name, _)| name.starts_with("ok-")), "{} has no seed that it takes", target.0);
    let mut random = Random(0x5761_7962_696c_6c31);
    for number in 0..runs {
        let (name, seed) = &seeds[number % seeds.len()];
        let other = &seeds[random.below(seeds.len())].1;
        let input = mutate(&mut random, seed, other);
        run(target, format!("seed {name}, mutation {number}"), &input);
    }
}

#[test]
fn every_seed_and_its_mutations_keep_the_properties() {
    let runs = std::env::var("WAYBILL_FUZZ_RUNS").map_or(RUNS, |text| text.parse().expect("a number of mutations"));
    std::thread::scope(|scope| {
        let threads: Vec<_> = TARGETS
            .iter()
            .map(|target| {
                let began = std::time::Instant::now();
                let body = move || {
                    replay(*target, runs);
                    println!("{:>16}  {} mutations in {:.1?}", target.0, runs, began.elapsed());
                };
                (target.0, scope.spawn(body))
            })
            .collect();
        let failed: Vec<_> =
            threads.into_iter().filter_map(|(name, thread)| thread.join().err().map(|_| name)).collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

/// What libFuzzer runs and what the test replays are the same list, each with its corpus.
#[test]
fn every_target_has_a_binary_and_a_corpus() {
    let mut names: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let is_here = |name: &String| cfg!(feature = "servers") || !names_of_servers(&manifest).contains(name);
    let binaries = names_in(&folder("fuzz_targets")).into_iter().map(|file| file.replace(".rs", "")).filter(is_here);
    assert_eq!(binaries.collect::<Vec<_>>(), names, "fuzz_targets/ and TARGETS");
    assert_eq!(names_in(&folder("seeds")).into_iter().filter(is_here).collect::<Vec<_>>(), names, "seeds/ and TARGETS");
    for name in &names {
        let binary = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(binary.contains(&format!("::{name}(data)")), "{name}.rs runs another target");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "Cargo.toml knows no binary {name}");
    }
    let sizes = names.iter().flat_map(|name| seeds(name)).map(|(_, bytes)| bytes.len());
    assert!(sizes.sum::<usize>() < 1 << 20, "the corpus is to stay small");
}

/// The binaries that need the feature `servers`.
fn names_of_servers(manifest: &str) -> Vec<String> {
    let blocks = manifest.split("[[bin]]").filter(|block| block.contains("\"servers\"") && block.contains("path"));
    let name = |block: &str| block.split("name = \"").nth(1)?.split('"').next().map(str::to_owned);
    blocks.filter_map(name).collect()
}
