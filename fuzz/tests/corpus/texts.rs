//! Seeds of what is short: the log's texts, names, codes on paper, the wallet's file, configuration.

use data_encoding::BASE32_NOPAD;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HospitalKeys};
use waybill_crypto::merkle;
use waybill_crypto::passphrase::{self, Cost};
use waybill_crypto::pseudonym::RootSecret;
use waybill_fuzz::fixture;
use waybill_fuzz::targets::wallet::{PASSPHRASE, settings, wallet};
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::log::tiles::{LogEdge, TileKind, TileSet};
use waybill_protocol::log::witness::AddCheckpoint;
use waybill_protocol::log::{Checkpoint, note};
use waybill_protocol::messages::{Limits, Relation};
use waybill_protocol::patient::{Contact, Enrolment};
use waybill_protocol::wire::to_cbor;
use waybill_wallet::{RecoveryCode, Wallet, WalletFile, enrolment_text};

use crate::Seeds;

pub fn add(seeds: &mut Seeds) {
    log(seeds);
    names(seeds);
    codes(seeds);
    wallet_files(seeds);
    servers(seeds);
}

fn log(seeds: &mut Seeds) {
    let (backend, signer, witness) = (fixture::backend(), fixture::log_signer(), fixture::witness_signer());
    let entries: Vec<[u8; 32]> = (0..5).map(|n| [n; 32]).collect();
    let first = LogEdge::empty().append(&entries[..3]);
    let second = first.edge.append(&entries[3..]);
    let mut tiles = TileSet::new();
    for (path, bytes) in first.tiles.iter().chain(&second.tiles) {
        let kind = if path.id.kind == TileKind::Entries { "bundle" } else { "hashes" };
        seeds.add("tile", &format!("ok-{kind}-{}", path.width), bytes.clone());
        seeds.add("tile", &format!("ok-name-{kind}-{}", path.width), path.to_string());
        if path.id.kind != TileKind::Entries {
            tiles.insert(path.id, bytes).unwrap();
        }
    }
    seeds.add("tile", "ok-name-far", "tile/2/x001/x234/067");
    let at = |size, root| Checkpoint { origin: signer.public().name().clone(), size, root };
    let (old, new) = (at(3, first.root), at(5, second.root));
    let text = new.to_text();
    let lines = [signer.sign(backend, &text, Timestamp(0)), witness.sign(backend, &text, Timestamp(9))];
    seeds.add("note", "ok-cosigned", note::assemble(&text, &lines));
    seeds.add("note", "ok-signed", new.sign(backend, &signer));
    seeds.add("note", "no-text", text);
    seeds.add("note", "no-log-key", signer.public().to_string());
    seeds.add("note", "no-witness-key", witness.public().to_string());
    let consistency = tiles.prove_consistency(3, 5).unwrap();
    let fresh = AddCheckpoint { old_size: 0, proof: Vec::new(), note: old.sign(backend, &signer) };
    let grown = AddCheckpoint { old_size: 3, proof: consistency.clone(), note: new.sign(backend, &signer) };
    seeds.add("add_checkpoint", "ok-first", fresh.to_bytes());
    seeds.add("add_checkpoint", "ok-grown", grown.to_bytes());
    let empty = at(0, merkle::empty_root()).to_text();
    seeds.add("add_checkpoint", "no-cosignature", witness.sign(backend, &empty, Timestamp(9)));
    seeds.add("add_checkpoint", "no-conflict", "7\n");
    proofs(seeds, &tiles, &entries, second.root, first.root);
}

fn proofs(seeds: &mut Seeds, tiles: &TileSet, entries: &[[u8; 32]], root: Digest, old_root: Digest) {
    let write = |small: u64, large: u64, hashes: &[Digest]| {
        let hashes = hashes.iter().flat_map(|hash| hash.0);
        small.to_be_bytes().into_iter().chain(large.to_be_bytes()).chain(hashes).collect::<Vec<u8>>()
    };
    let path = tiles.prove_inclusion(4, 5).unwrap();
    let hashes = [&[root, merkle::leaf_hash(&entries[4])], &path[..]].concat();
    seeds.add("proof", "ok-included", write(4, 5, &hashes));
    let proof = tiles.prove_consistency(3, 5).unwrap();
    seeds.add("proof", "ok-consistent", write(3, 5, &[&[root, old_root], &proof[..]].concat()));
    seeds.add("proof", "no-far", write(u64::MAX - 1, u64::MAX, &[root, root]));
}

fn names(seeds: &mut Seeds) {
    let texts = [
        ("ok-scope-full", "types=*;undated=include;labels=*"),
        ("ok-scope", "types=Observation,Condition; from=2015-04; to=2020; undated=exclude; labels=none,N"),
        ("ok-scope-except", "types=!Binary,!DocumentReference"),
        ("ok-date", "2015-04-05"),
        ("ok-date-time", "2015-04-05T23:59:59.123-11:00"),
        ("ok-month", "2016-02"),
        ("ok-key", "Observation/o-1.b"),
        ("ok-id", "hospital-a.example"),
        ("ok-digest", "6E340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("no-reference", "https://fhir.example/r4/Patient/p/_history/3#part"),
        ("no-query", "identifier=urn%3Aoid%3A1.2|a%20b"),
        ("no-role", "records-officer"),
    ];
    for (name, text) in texts {
        seeds.add("names", name, text);
    }
}

fn contact() -> Contact {
    Contact {
        hospital: HospitalId::parse("hospital-a.example").unwrap(),
        keys: HospitalKeys { signing: fixture::signing_key().public().clone(), hpke: *fixture::hpke_key().public() },
        mailbox: format!("https://relay.example:8443/mailbox/{}", "ab".repeat(32)),
        epoch: 2,
        relation: Relation::OneSelf,
        expires: Timestamp(fixture::NOW),
        limits: Limits::none(),
    }
}

/// What stands behind a code's prefix, without its checksum.
fn content(text: &str, prefix: &str) -> Vec<u8> {
    let bytes = BASE32_NOPAD.decode(text.strip_prefix(prefix).unwrap().as_bytes()).unwrap();
    bytes[..bytes.len() - 4].to_vec()
}

fn codes(seeds: &mut Seeds) {
    let Contact { hospital, keys, mailbox, .. } = contact();
    let enrolment = Enrolment { hospital, keys, mailbox, code: Nonce([3; 16]) };
    seeds.add("enrolment_text", "ok-typed", enrolment_text(&enrolment).to_lowercase());
    seeds.add("enrolment_text", "ok-content", to_cbor(&enrolment));
    seeds.add("enrolment_text", "no-version", "WAYBILL2:AAAA");
    let card = wallet().lock().unwrap().card(&contact());
    seeds.add("card_text", "ok-content", content(&card, "WAYBILL-CARD1:"));
    seeds.add("card_text", "ok-typed", card);
    let code = RecoveryCode::new(RootSecret::from_bytes([0xa7; 32]));
    seeds.add("recovery_code", "ok-line", code.to_text().as_bytes());
    seeds.add("recovery_code", "ok-printed", code.printed().to_lowercase());
    seeds.add("recovery_code", "no-root", [&[0x5c; 32][..], &[20, 3]].concat());
}

fn wallet_files(seeds: &mut Seeds) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wallet");
    let code = RecoveryCode::new(RootSecret::from_bytes([7; 32]));
    drop(Wallet::recover(fixture::shared_backend(), &path, PASSPHRASE, settings(), &code).unwrap());
    let bytes = std::fs::read(&path).unwrap();
    seeds.add_of("wallet_file", "ok-file", 0, &bytes);
    seeds.add_of("wallet_file", "ok-undigested", 1, &bytes[..bytes.len() - 32]);
    let (_, state) = WalletFile::open(fixture::backend(), &path, PASSPHRASE).unwrap();
    seeds.add_of("wallet_file", "ok-state", 2, &state);
    let sealed = passphrase::seal(fixture::backend(), PASSPHRASE, Cost::LEAST, "wallet", b"a file key").unwrap();
    seeds.add_of("wallet_file", "ok-envelope", 3, &sealed);
}

/// What only servers and commands read; the seeds are made whether or not these are built.
fn servers(seeds: &mut Seeds) {
    let (log, witness) = (fixture::log_signer().public().to_string(), fixture::witness_signer().public().to_string());
    let server = "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"a.example\"]\ndata = \"data\"\nroot = \"/etc/root.pem\"\n\
        certificate = \"tls.crt\"\nkey = \"tls.key\"\ncrl = \"crl.pem\"\n";
    let tail = "[mailboxes]\nretention_days = 2\n[log]\nformat = \"json\"\nfilter = \"info\"\n";
    let authority = format!(
        "{server}[authority]\nname = \"authority.example\"\nkeys = \"keys\"\nquorum = 1\nrelays = []\n{tail}\
         [[authority.witnesses]]\nurl = \"https://witness.example\"\nkey = \"{witness}\"\n"
    );
    let hospital = format!(
        "[hospital]\nname = \"hospital-a.example\"\nkeys = \"keys\"\ndata = \"data\"\none_time = \"once\"\nmailbox = \"m\"\n\
         relays = [\"relay.example\"]\nreview_days = 3\n[authority]\nname = \"authority.example\"\nurl = \"https://a.example\"\n\
         root = \"root.pem\"\nlog = \"{log}\"\nwitnesses = [\"{witness}\"]\nquorum = 1\n\
         [staff]\nfront_ends = [\"web\"]\n[staff.users]\nanna = [\"auditor\"]\n"
    );
    let of_witness = format!("{server}[witness]\nname = \"witness.example\"\nkey = \"key\"\nlogs = [\"{log}\"]\n");
    let files = [
        ("authority", authority),
        ("hospital", hospital),
        ("relay", format!("{server}{tail}")),
        ("witness", of_witness),
    ];
    for (which, (name, text)) in files.iter().enumerate() {
        seeds.add_of("config", &format!("ok-{name}"), which, text.as_bytes());
    }
    let pem = waybill_crypto::certificate::files::chain_to_pem(&[fixture::ROOT]).unwrap();
    let network = format!(
        "name = \"authority.example\"\nurl = \"https://authority.example:8443\"\nrelay = \"relay.example\"\nlog = \"{log}\"\n\
         witnesses = [\"{witness}\"]\nquorum = 1\nroot = \"\"\"\n{pem}\"\"\"\n"
    );
    seeds.add("network_file", "ok-network", network);
    let address = format!("https://relay.example:8443/mailbox/{}", "ab".repeat(32));
    seeds.add_of("mailbox", "ok-address", 0, address.as_bytes());
    seeds.add_of("mailbox", "ok-address-6", 0, format!("https://[::1]:443/mailbox/{}", "0f".repeat(32)).as_bytes());
    let signature = waybill_crypto::keys::Signature([5; 64]);
    let key = fixture::signing_key().public();
    seeds.add_of("mailbox", "ok-create", 1, &to_cbor(&(key, fixture::NOW, &signature)));
    let array = |byte| minicbor::bytes::ByteVec::from(vec![byte; 16]);
    seeds.add_of("mailbox", "ok-session-request", 2, &to_cbor(&(fixture::NOW, array(1), &signature)));
    let token = minicbor::bytes::ByteVec::from(sha256(&[b"token"]).0.to_vec());
    seeds.add_of("mailbox", "ok-session", 3, &to_cbor(&(token, fixture::NOW)));
    seeds.add_of("mailbox", "ok-letters", 4, &to_cbor(&vec![(1_u64, array(2)), (9, array(3))]));
    seeds.add_of(
        "mailbox",
        "ok-problem",
        5,
        br#"{"type":"urn:waybill:problem:malformed","title":"x","status":400,"detail":"y"}"#,
    );
    let issued = r#"{"state":"issued","tls":"x","signing":"y"}"#;
    let waiting = r#"[{"hospital":"a.example","standing":"active","since":1,"request":{"tls":"x","signing":"y"}}]"#;
    let pages = [
        ("ok-about", r#"{"name":"authority.example","mailbox":"https://authority.example/mailbox/m"}"#),
        ("ok-entry", r#"{"id":"a.example","mailbox":"https://relay.example/mailbox/m","standing":"suspended"}"#),
        ("ok-request", r#"{"tls":"x","signing":"y"}"#),
        ("ok-state", issued),
        ("ok-waiting", waiting),
        ("ok-answer", r#"{"reason":"suspended"}"#),
        ("ok-revoked", r#"{"number":2,"certificates":[{"serial":"0a","since":1800000000}]}"#),
    ];
    for (kind, (name, text)) in (0..).zip(pages) {
        seeds.add_of("page", name, kind, text.as_bytes());
    }
    seeds.add_of("page", "ok-outside", 7, &to_cbor(&((array(7), 1_u64), 5_u64)));
    seeds.add_of("page", "ok-place", 8, b"0000018f000000000011223344556677");
    // Found by hand: it was read, as the place of another text.
    seeds.add_of("page", "no-place", 8, b"+000018F00000000001122334455667A");
    seeds.add_of("page", "ok-blob", 9, "ab".repeat(32).as_bytes());
    for (name, text) in [
        ("ok-date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("ok-span", "2w"),
        ("ok-day", "2027-02-28"),
        ("no-date", "Sun, 30 Feb 2024 00:00:00 GMT"),
    ] {
        seeds.add("header", name, text);
    }
}
