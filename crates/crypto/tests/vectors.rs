//! Test vectors of our own constructions, `vectors/crypto-*.json` at the root of the repository.
//!
//! Each file is made from fixed inputs; the tests make it again and compare. `WAYBILL_WRITE_VECTORS=1` writes the files instead: a
//! difference in version control is then a change of the protocol.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use serde_json::{Value, json};
use waybill_crypto::{
    backend::Backend as _,
    commitment::{Commitment, Opening},
    digest::{Digest, sha256},
    keys::{HospitalKeys, HpkeSecretKey, SigningKey},
    lthash::{Element, RecordDigest, SaltSecret},
    portable::Portable,
    pseudonym::RootSecret,
    stream::{CHUNK_SIZE, RecordKey, StreamKeys, merkle_root, open_chunk, padme, seal_chunk},
};

fn check(name: &str, actual: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(format!("crypto-{name}.json"));
    if std::env::var_os("WAYBILL_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(actual).unwrap())).unwrap();
        return;
    }
    let published: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(&published, actual, "vectors/crypto-{name}.json says otherwise");
}

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first.wrapping_add(u8::try_from(i).unwrap()))
}

#[test]
fn keys() {
    let key = SigningKey::derive(&counting(0));
    let hpke = HpkeSecretKey::from_bytes(&counting(0x20));
    let keys = HospitalKeys { signing: key.public().clone(), hpke: *hpke.public() };
    let signature = Portable::from_seed([0; 32]).sign(&key, b"waybill");
    check(
        "keys",
        &json!({
            "seed": hex::encode(counting::<32>(0)),
            "scalar": hex::encode(key.to_scalar_bytes()),
            "public_sec1": hex::encode(key.public().as_sec1()),
            "kid": key.public().kid().to_string(),
            "spki_sha256": key.public().thumbprint().to_string(),
            "message": hex::encode("waybill"),
            "signature_rfc6979_low_s": signature.to_string(),
            "hpke_secret": hex::encode(counting::<32>(0x20)),
            "hpke_public": hpke.public().to_string(),
            "thumb": keys.thumb().to_string(),
        }),
    );
}

#[test]
fn pseudonym() {
    let root = RootSecret::from_bytes(counting(0));
    let at = |hospital: &str, epoch: u32| {
        json!({
            "hospital": hospital,
            "epoch": epoch,
            "pid": hex::encode(root.pid(hospital, epoch).as_bytes()),
            "consent_public": hex::encode(root.consent_key(hospital, epoch).public().as_sec1()),
        })
    };
    let numbered = |number: u64| {
        json!({
            "number": number,
            "delegation_public": hex::encode(root.delegation_key(number).public().as_sec1()),
            "revocation_public": hex::encode(root.revocation_key(number).public().as_sec1()),
        })
    };
    check(
        "pseudonym",
        &json!({
            "root": hex::encode(root.expose()),
            "hospitals": [at("hospital-a.example", 0), at("hospital-a.example", 1), at("hospital-b.example", 0)],
            "delegations": [numbered(0), numbered(1), numbered(u64::MAX)],
        }),
    );
}

#[test]
fn commitment() {
    let of = |kind: &str, opening: [u8; 32], value: &[u8]| {
        json!({
            "kind": kind,
            "opening": hex::encode(opening),
            "value": hex::encode(value),
            "commitment": Commitment::commit(kind, &Opening::from_bytes(opening), value).0.to_string(),
        })
    };
    check("commitment", &json!([of("pid", counting(0), b"\x42\x01\x02"), of("scope", counting(0x80), b"")]));
}

/// Long plaintexts are given by their rule, long ciphertexts by their hash.
#[test]
fn stream() {
    let backend = Portable::from_seed([0; 32]);
    let session = Digest(counting(0x40));
    let record_key = RecordKey::from_bytes(counting(0));
    let keys = StreamKeys::derive(&session, &record_key);
    let of = |length: usize| {
        let plaintext: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let count = length.div_ceil(CHUNK_SIZE).max(1);
        let (mut leaves, mut first) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (from, last) = (index * CHUNK_SIZE, index + 1 == count);
            let chunk = &plaintext[from..length.min(from + CHUNK_SIZE)];
            let blob = seal_chunk(&backend, &keys, &session, index as u64, last, &mut chunk.to_vec()).unwrap();
            leaves.push(blob.leaf());
            let mut bytes = blob.into_bytes();
            if index == 0 {
                first = bytes[..bytes.len().min(64)].to_vec();
            }
            assert!(open_chunk(&backend, &keys, &session, index as u64, last, &mut bytes).unwrap() == chunk);
        }
        json!({
            "plaintext_length": length,
            "plaintext_sha256": sha256(&[&plaintext]).to_string(),
            "first_blob_first_64_bytes": hex::encode(first),
            "leaves": leaves.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "merkle_root": merkle_root(&leaves).to_string(),
        })
    };
    let padded = [0, 1, 2, 9, 100, 1000, 1 << 20, (1 << 20) + 1, 10_000_000_000];
    check(
        "stream",
        &json!({
            "session": session.to_string(),
            "record_key": hex::encode(record_key.expose()),
            "key_commitment": keys.commitment().to_string(),
            "plaintext_rule": "byte i is i mod 251",
            "streams": [of(0), of(1), of(CHUNK_SIZE), of(CHUNK_SIZE + 1)],
            "padme": padded.map(|length| json!({ "length": length, "padded": padme(length) })),
        }),
    );
}

#[test]
fn lthash() {
    let secret = SaltSecret::from_bytes(counting(0x60));
    let resources = [("Patient", "p1", Some("1")), ("Observation", "o1", None), ("Observation", "o2", None)];
    let (mut digest, mut elements) = (RecordDigest::new(), Vec::new());
    for (resource_type, id, version) in resources {
        let sha256 = sha256(&[resource_type.as_bytes(), b"/", id.as_bytes()]);
        let salt = secret.salt(b"scope", resource_type, id, version, &sha256);
        let element = Element { salt, resource_type, id, version, sha256 };
        digest.add(&element);
        let mut alone = RecordDigest::new();
        alone.add(&element);
        elements.push(json!({
            "type": resource_type,
            "id": id,
            "version": version,
            "sha256": sha256.to_string(),
            "salt": hex::encode(salt),
            "first_16_lane_bytes": hex::encode(&alone.to_bytes()[..16]),
            "short_alone": alone.short().to_string(),
        }));
    }
    check(
        "lthash",
        &json!({
            "salt_secret": hex::encode(secret.expose()),
            "salt_scope": hex::encode("scope"),
            "elements": elements,
            "sum_short": digest.short().to_string(),
            "sum_sha256": sha256(&[&digest.to_bytes()]).to_string(),
            "empty_short": RecordDigest::new().short().to_string(),
        }),
    );
}
