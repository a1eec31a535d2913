//! Test vectors of the protocol, `vectors/protocol-*.json` at the root of the repository.
//!
//! Made from fixed keys with the portable back end, and compared each time; `WAYBILL_WRITE_VECTORS=1` writes them instead: a
//! difference in version control is then a change of the protocol. The COSE profile is written here a second time, by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/samples.rs"]
mod samples;

use std::path::PathBuf;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use samples::{Visitor, counting, hpke_key, signing_key};
use serde_json::{Value, json};
use waybill_crypto::backend::{Backend as _, Sealed};
use waybill_crypto::digest::sha256;
use waybill_crypto::portable::Portable;
use waybill_protocol::log::{LeafKind, leaf_entry};
use waybill_protocol::messages::*;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Message, Signed, Unverified};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

fn backend() -> Portable {
    Portable::from_seed([0; 32])
}

fn check(name: &str, actual: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(format!("protocol-{name}.json"));
    if std::env::var_os("WAYBILL_WRITE_VECTORS").is_some() {
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(actual).unwrap())).unwrap();
        return;
    }
    let published: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(&published == actual, "vectors/protocol-{name}.json says otherwise");
}

// PROTOCOL section 3.2, by hand.

fn protected(alg: i8, typ: &str) -> Vec<u8> {
    let kid = &sha256(&[signing_key().public().as_sec1()]).0[..16];
    let mut e = minicbor::Encoder::new(Vec::new());
    e.map(3).unwrap().u8(1).unwrap().i8(alg).unwrap().u8(4).unwrap().bytes(kid).unwrap();
    e.u8(16).unwrap().str(typ).unwrap();
    e.into_writer()
}

fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut e = minicbor::Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap().bytes(protected).unwrap();
    e.bytes(b"waybill/1").unwrap().bytes(payload).unwrap();
    e.into_writer()
}

fn cose(alg: i8, typ: &str, payload: &[u8]) -> Vec<u8> {
    let protected = protected(alg, typ);
    let signature = backend().sign(&signing_key(), &to_be_signed(&protected, payload));
    let mut e = minicbor::Encoder::new(vec![0xd2]);
    e.array(4).unwrap().bytes(&protected).unwrap().map(0).unwrap().bytes(payload).unwrap().bytes(&signature.0).unwrap();
    e.into_writer()
}

struct Messages(Vec<Value>);

impl Visitor for Messages {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, message: M) {
        let payload = to_cbor(&message);
        let signed = Signed::sign(&backend(), &signing_key(), message);
        assert_eq!(signed.bytes(), cose(-7, M::TYP, &payload), "{name}: the profile written twice");
        let read: Unverified<M> = Unverified::parse(signed.bytes()).unwrap();
        assert_eq!(to_cbor(read.peek()), payload, "{name} reads back");
        let tbs = to_be_signed(&protected(-7, M::TYP), &payload);
        assert_eq!(read.message_id().0, sha256(&[&tbs]));
        read.verify(&backend(), signing_key().public()).unwrap();
        self.0.push(json!({
            "message": name,
            "typ": M::TYP,
            "payload": hex::encode(&payload),
            "to_be_signed": hex::encode(&tbs),
            "message_id": signed.id().to_string(),
            "signed": hex::encode(signed.bytes()),
        }));
    }
}

#[test]
fn messages() {
    let mut made = Messages(Vec::new());
    samples::visit(&mut made);
    let key = json!({
        "seed": hex::encode(counting::<32>(0)),
        "public_sec1": hex::encode(signing_key().public().as_sec1()),
    });
    check("messages", &json!({ "signing_key": key, "external_aad": "waybill/1", "messages": made.0 }));
}

/// What a reader who holds the right key says of these bytes.
fn refusal<M: Message>(bytes: &[u8]) -> Code {
    let refused = Unverified::<M>::parse(bytes).map_err(Rejection::from).and_then(|unverified| {
        unverified.verify(&backend(), signing_key().public()).map_err(|_| Rejection::from(Code::SignatureInvalid))
    });
    refused.map(|_| ()).expect_err("a negative vector is refused").code
}

struct Negatives(Vec<Value>);

impl Visitor for Negatives {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, message: M) {
        let payload = to_cbor(&message);
        let good = cose(-7, M::TYP, &payload);
        let last = good.len() - 1;
        let mut flipped = good.clone();
        flipped[last] ^= 1;
        let mut altered = payload.clone();
        let in_payload = altered.len() - 1;
        altered[in_payload] ^= 1;
        let replaced = replace(&good, &payload, &altered);
        let mut extra = payload.clone();
        extra[0] += 1;
        extra.push(0);
        let mut missing = payload.clone();
        missing[0] -= 1;
        let long_header = [&[0x98, payload[0] & 0x1f], &payload[1..]].concat();
        let indefinite = [&[0x9f], &payload[1..], &[0xff]].concat();
        let other_typ = if M::TYP == "waybill-grant" { "waybill-redeem" } else { "waybill-grant" };
        let mut cases = vec![
            ("a flipped bit in the signature", flipped, Code::SignatureInvalid),
            ("a further field", cose(-7, M::TYP, &extra), Code::NotCanonical),
            ("a missing field", cose(-7, M::TYP, &missing), refusal::<M>(&cose(-7, M::TYP, &missing))),
            ("a length in two bytes", cose(-7, M::TYP, &long_header), Code::NotCanonical),
            ("an indefinite length", cose(-7, M::TYP, &indefinite), Code::NotCanonical),
            ("the type of another message", cose(-7, other_typ, &payload), Code::UnexpectedMessage),
            ("another algorithm", cose(-8, M::TYP, &payload), Code::UnknownSuite),
            ("the last byte missing", good[..last].to_vec(), Code::Malformed),
            ("a byte too many", [&good[..], &[0]].concat(), Code::NotCanonical),
            ("no bytes", Vec::new(), Code::Malformed),
        ];
        // A payload whose last byte is free to change stays well formed, and only the signature tells.
        if Unverified::<M>::parse(&replaced).is_ok() {
            cases.push(("a flipped bit in the payload", replaced, Code::SignatureInvalid));
        }
        if payload[1] == SUITE && M::TYP != "waybill-refusal" {
            let mut unknown = payload.clone();
            unknown[1] = 2;
            cases.push(("an unknown suite", cose(-7, M::TYP, &unknown), Code::UnknownSuite));
        }
        assert!(matches!(cases[2].2, Code::Malformed | Code::NotCanonical), "{name}");
        for (what, bytes, code) in cases {
            assert_eq!(refusal::<M>(&bytes), code, "{name}: {what}");
            self.0.push(json!({ "message": name, "what": what, "bytes": hex::encode(&bytes), "code": code.as_str() }));
        }
        assert_eq!(refusal::<M>(&vec![0; M::MAX_BYTES + 1]), Code::TooLarge, "{name}: sizes before anything else");
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn negative() {
    let mut made = Negatives(Vec::new());
    samples::visit(&mut made);
    check(
        "negative",
        &json!({ "read_with_public_sec1": hex::encode(signing_key().public().as_sec1()), "cases": made.0 }),
    );
}

/// PROTOCOL section 3.3: every purpose with its label.
pub const PURPOSES: [(SealPurpose, &str); 14] = [
    (SealPurpose::Registration, "waybill/1 registration"),
    (SealPurpose::RegistrationAnswer, "waybill/1 registration-answer"),
    (SealPurpose::Login, "waybill/1 login"),
    (SealPurpose::LoginAnswer, "waybill/1 login-answer"),
    (SealPurpose::ProofAnswer, "waybill/1 proof-answer"),
    (SealPurpose::Consent, "waybill/1 consent"),
    (SealPurpose::Presentation, "waybill/1 presentation"),
    (SealPurpose::IdentityClaim, "waybill/1 identity-claim"),
    (SealPurpose::Manifest, "waybill/1 manifest"),
    (SealPurpose::KeyLodgement, "waybill/1 key-lodgement"),
    (SealPurpose::RecordKey, "waybill/1 record-key"),
    (SealPurpose::ReceiptSource, "waybill/1 receipt-source"),
    (SealPurpose::ReceiptPatient, "waybill/1 receipt-patient"),
    (SealPurpose::RejectionDetail, "waybill/1 rejection-detail"),
];

#[test]
fn sealed() {
    let (backend, key) = (backend(), hpke_key());
    let bound = counting::<32>(0x70);
    let cases = PURPOSES.map(|(purpose, label)| {
        let info = to_cbor(&(label, ByteVec::from(bound.to_vec())));
        let sealed = SealedBytes::seal(&backend, key.public(), purpose, &bound, b"waybill").unwrap();
        let wire = to_cbor(&sealed);
        let mut d = minicbor::Decoder::new(&wire);
        assert_eq!(d.array().unwrap(), Some(2));
        let enc: [u8; 32] = d.bytes().unwrap().try_into().unwrap();
        let ciphertext = d.bytes().unwrap().to_vec();
        // Opened by the primitive under the info written here: the label and its binding are what this file says.
        let opened = backend.open(&key, &info, &Sealed { enc, ciphertext: ciphertext.clone() }).unwrap();
        assert_eq!(opened, b"waybill");
        assert_eq!(sealed.digest(), sha256(&[&wire]));
        for (other, _) in PURPOSES.iter().filter(|(other, _)| *other != purpose) {
            assert!(sealed.open(&backend, &key, *other, &bound).is_err(), "{label} opens as {other:?}");
        }
        assert!(sealed.open(&backend, &key, purpose, &[0; 32]).is_err(), "{label} opens for another id");
        json!({
            "info": hex::encode(info),
            "label": label,
            "bound": hex::encode(bound),
            "sealed": hex::encode(&wire),
            "digest": sealed.digest().to_string(),
        })
    });
    let secret = hex::encode(counting::<32>(0x20));
    check("sealed", &json!({ "secret_key": secret, "plaintext": hex::encode("waybill"), "sealed": cases }));
}

fn parcel<T>(kind: Kind, name: &str, body: &T) -> Value
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let bytes = Parcel::pack(kind, body);
    let read = Parcel::parse(&bytes).unwrap();
    let opened: T = read.open(kind, "body").unwrap();
    assert!(to_cbor(&opened) == to_cbor(body), "{name} reads back");
    let wrong = if kind == Kind::Login { Kind::Grant } else { Kind::Login };
    assert!(read.open::<T>(wrong, "body").is_err(), "{name} is no other kind");
    for cut in [1, read.body.len() / 2, read.body.len() - 1] {
        let mut short = read.clone();
        short.body.truncate(cut);
        assert!(short.open::<T>(kind, "body").is_err(), "{name} cut at {cut}");
    }
    let number = to_cbor(&kind)[0];
    json!({ "kind": number, "name": format!("{kind:?}"), "body": name, "parcel": hex::encode(bytes) })
}

#[test]
fn parcels() {
    use samples::{chain, digest, log_evidence, sealed, signed};
    use waybill_protocol::ids::{ProofId, SessionId};
    let proof = || ProofBundle { proof: signed(), chain: chain(), evidence: log_evidence() };
    let receipt = || ReceiptBody { receipt: signed(), chain: chain(), for_source: sealed(), for_patient: sealed() };
    let key = signing_key().public().clone();
    let voucher = VoucherGrant { voucher: signed(), chain: chain() };
    // Absent fields at the end are left out, those before a present one are null (PROTOCOL section 3.1).
    let bare = RefusalBody { refusal: signed(), chain: chain(), detail: None };
    assert_eq!(to_cbor(&bare)[0], 0x82);
    let all = [
        parcel(Kind::Registration, "SealedBytes", &sealed()),
        parcel(Kind::RegistrationAnswer, "SealedBytes", &sealed()),
        parcel(Kind::Login, "SealedBytes", &sealed()),
        parcel(Kind::LoginAnswer, "SealedBytes", &sealed()),
        parcel(Kind::Delegation, "DelegationBody", &DelegationBody { delegation: signed(), key, voucher }),
        parcel(Kind::ProofAnswer, "SealedBytes", &sealed()),
        parcel(Kind::Presentation, "SealedBytes", &sealed()),
        parcel(
            Kind::TransferRequest,
            "TransferBody",
            &TransferBody { request: signed(), chain: chain(), proof: proof(), consent: sealed() },
        ),
        parcel(Kind::Redeem, "RedeemBody", &RedeemBody { redeem: signed(), chain: chain() }),
        parcel(
            Kind::Grant,
            "GrantBody",
            &GrantBody { grant: signed(), evidence: log_evidence(), consistency: vec![digest(0x63)] },
        ),
        parcel(Kind::Manifest, "ManifestBody", &ManifestBody { session: SessionId(digest(0x21)), sealed: sealed() }),
        parcel(Kind::KeyLodgement, "LodgementBody", &LodgementBody { proof: ProofId(digest(0x19)), sealed: sealed() }),
        parcel(Kind::DeliveryReceipt, "DeliveryBody", &DeliveryBody { delivery: signed(), chain: chain() }),
        parcel(
            Kind::KeyRelease,
            "ReleaseBody",
            &ReleaseBody { release: signed(), lodgement: signed(), evidence: log_evidence() },
        ),
        parcel(Kind::ImportReceipt, "ReceiptBody", &receipt()),
        parcel(
            Kind::CaseStatement,
            "StatementBody",
            &StatementBody { statement: signed(), evidence: log_evidence(), receipt: Some(receipt()) },
        ),
        parcel(Kind::Revocation, "RevocationBody", &RevocationBody { revocation: signed(), chain: Chain::default() }),
        parcel(
            Kind::Refusal,
            "RefusalBody",
            &RefusalBody { refusal: signed(), chain: chain(), detail: Some(sealed()) },
        ),
    ];
    assert_eq!(all.len(), 18, "every kind");
    let entry = leaf_entry(LeafKind::PROOF, &digest(0x19), &counting(0x60));
    let leaf = json!({
        "kind": 1,
        "message_id": digest(0x19).to_string(),
        "nonce": hex::encode(counting::<16>(0x60)),
        "entry": hex::encode(entry),
    });
    check(
        "parcels",
        &json!({ "note": "signed messages inside are placeholders d284", "parcels": all, "log_leaf": leaf }),
    );
}
