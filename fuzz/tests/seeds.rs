//! Where the committed seeds come from: the published vectors, a whole case played in memory, the generator of records, and our own
//! encoders.
//!
//! `WAYBILL_WRITE_VECTORS=1 cargo test --package waybill-fuzz --test seeds` writes them; without it nothing is written, and
//! `tests/replay.rs` tells whether those committed are still taken. Only files that are named `ok-` (to be taken) and
//! `no-` (to be refused, or only looked at) are replaced: what a fuzzer found stays, under the name `found-`.
//!
//! A root signs with fresh randomness, so certificates in chains, and evidence, are new bytes each time they are written.

#[path = "../../crates/protocol/tests/common/mod.rs"]
mod common;
mod corpus;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use waybill_crypto::certificate::{
    CertificateSigner as _, Issuer, PartyName, Profile, Subject, TrustAnchor, issue_root,
};
use waybill_fuzz::fixture;

/// Seeds by target and name.
#[derive(Default)]
pub struct Seeds(BTreeMap<(&'static str, String), Vec<u8>>);

impl Seeds {
    /// One seed; two of one name would be one file.
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        let before = self.0.insert((target, name.to_owned()), bytes.into());
        assert!(before.is_none(), "{target}/{name} twice");
    }

    /// One seed of a target whose first byte chooses among several readers.
    fn add_of(&mut self, target: &'static str, name: &str, which: usize, bytes: &[u8]) {
        self.add(target, name, [&[u8::try_from(which).unwrap()], bytes].concat());
    }
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

/// Whether the certificates in `fixtures/` are what today's code calls a root and an issuing certificate.
fn fixtures_hold() -> bool {
    let anchor = TrustAnchor::from_der(fixture::ROOT);
    anchor.is_ok_and(|anchor| anchor.verify_issuer(fixture::ISSUING, fixture::NOW).is_ok())
}

fn write_fixtures() {
    let (backend, root_key) = (fixture::backend(), fixture::root_key());
    assert_eq!(root_key.public_point().len(), 97);
    let name = PartyName::parse(fixture::AUTHORITY).unwrap();
    let root = issue_root(backend, &root_key, &name, fixture::BEGAN, 10 * 365 * fixture::DAY).unwrap().der;
    let key = fixture::issuing_key().public();
    let subject = Subject { profile: Profile::Issuing, name: &name, public_key: key, loopback: false };
    let issuer = Issuer::new(backend, &root_key, &root, fixture::CRL_URL).unwrap();
    let issuing = issuer.issue(&subject, fixture::BEGAN, 365 * fixture::DAY).unwrap().der;
    fs::write(folder("fixtures/root.der"), root).unwrap();
    fs::write(folder("fixtures/issuing.der"), issuing).unwrap();
}

#[test]
fn seeds_can_be_made() {
    let writes = std::env::var_os("WAYBILL_WRITE_VECTORS").is_some();
    if !fixtures_hold() {
        assert!(writes, "fixtures/ holds no root and issuing certificate of today's form");
        write_fixtures();
        panic!("fixtures/ was written anew: run this once more");
    }
    let made = corpus::make();
    assert!(made.0.len() > 200);
    if !writes {
        return;
    }
    for (target, _) in waybill_fuzz::TARGETS {
        let folder = folder("seeds").join(target);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("ok-") || name.starts_with("no-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
    for ((target, name), bytes) in made.0 {
        let known = waybill_fuzz::TARGETS.iter().any(|(other, _)| *other == target);
        if known {
            fs::write(folder("seeds").join(target).join(name), bytes).unwrap();
        }
    }
}
