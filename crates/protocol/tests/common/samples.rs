//! One sample of every signed message, from counting bytes: the same for everybody who reads the vectors.

use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{
    Digest, Ed25519PublicKey, HospitalKeys, HpkePublicKey, HpkeSecretKey, SigningKey, Thumb, VerifyingKey,
};
use waybill_crypto::lthash::RecordDigest;
use waybill_crypto::pseudonym::Pseudonym;
use waybill_protocol::ids::{HospitalId, ManifestId, MessageId, Nonce, ProofId, SessionId, Timestamp};
use waybill_protocol::log::LogEvidence;
use waybill_protocol::messages::*;
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::SealedBytes;
use waybill_protocol::signed::{Message, SignedBytes};
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

pub fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first.wrapping_add(u8::try_from(i % 256).unwrap()))
}

/// The key that signs every sample.
pub fn signing_key() -> SigningKey {
    SigningKey::derive(&counting(0))
}

/// The key that every sample is sealed to.
pub fn hpke_key() -> HpkeSecretKey {
    HpkeSecretKey::from_bytes(&counting(0x20))
}

pub fn digest(n: u8) -> Digest {
    Digest(counting(n))
}

fn verifying(n: u8) -> VerifyingKey {
    SigningKey::derive(&counting(n)).public().clone()
}

fn hpke(n: u8) -> HpkePublicKey {
    *HpkeSecretKey::from_bytes(&counting(n)).public()
}

fn id(text: &str) -> HospitalId {
    HospitalId::parse(text).unwrap()
}

fn keys() -> HospitalKeys {
    HospitalKeys { signing: verifying(0x31), hpke: hpke(0x32) }
}

pub fn sealed() -> SealedBytes {
    let parts =
        (minicbor::bytes::ByteArray::from(counting::<32>(0x50)), minicbor::bytes::ByteVec::from(vec![0xc1; 24]));
    from_cbor("sealed", &to_cbor(&parts), 128).unwrap()
}

fn nonce(n: u8) -> Nonce {
    Nonce(counting(n))
}

const TIME: Timestamp = Timestamp(1_800_000_000);
const MAILBOX: &str = "https://relay.example/mailbox/5Kb2";

pub fn chain() -> Chain {
    Chain::new([vec![0x30, 0x01], vec![0x30, 0x02]])
}

pub fn log_evidence() -> LogEvidence {
    LogEvidence {
        index: 5,
        nonce: counting(0x60),
        path: vec![digest(0x61), digest(0x62)],
        checkpoint: b"note".to_vec(),
    }
}

fn inventory() -> Vec<TypeCount> {
    vec![
        TypeCount { resource_type: "Observation".into(), count: 41, size_bytes: 65_537 },
        TypeCount { resource_type: "Patient".into(), count: 1, size_bytes: 900 },
    ]
}

fn preview() -> Preview {
    Preview {
        at: TIME,
        held: inventory(),
        offered: vec![TypeCount { resource_type: "Observation".into(), count: 40, size_bytes: 65_000 }],
        kept: vec![KeptBack { resource_type: "Observation".into(), reason: "hidden".into(), count: 1 }],
        hidden: vec![HiddenItem {
            item: "Observation/o1".into(),
            held: true,
            mentioned_in: vec!["DiagnosticReport/d1".into()],
            mentioned_total: 2,
        }],
        warnings: vec![SafetyWarning { resource_type: "AllergyIntolerance".into(), count: 1 }],
        pending: vec![PendingItems { resource_type: "Observation".into(), status: "preliminary".into(), count: 3 }],
        stream_bytes: 69_632,
        largest_bytes: 1 << 35,
    }
}

fn terms() -> Terms {
    Terms {
        source: id("hospital-a.example"),
        destination: id("hospital-b.example"),
        com_source: Commitment(digest(1)),
        com_destination: Commitment(digest(2)),
        com_scope: Commitment(digest(3)),
        com_hides: Commitment(digest(4)),
        not_before: TIME,
        expires: TIME.plus(86_400),
        revocation_key: verifying(0x33),
        reply_key: hpke(0x34),
    }
}

/// Whoever wants a sample of each message; called once for every message there is.
pub trait Visitor {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, message: M);
}

pub fn visit(v: &mut impl Visitor) {
    visit_front_desk(v);
    visit_delegation(v);
    visit_transfer(v);
    visit_exchange(v);
    visit_endings(v);
}

fn visit_front_desk(v: &mut impl Visitor) {
    v.visit(
        "Registration",
        Registration {
            suite: SUITE,
            hospital: id("hospital-a.example"),
            code: nonce(0x10),
            pid: Pseudonym(counting(0x11)),
            consent_key: verifying(0x35),
            reply_key: hpke(0x36),
            reply_to: MAILBOX.into(),
            nonce: nonce(0x12),
            time: TIME,
        },
    );
    v.visit(
        "RegistrationAnswer",
        RegistrationAnswer {
            request: MessageId(digest(0x13)),
            hospital: id("hospital-a.example"),
            keys: keys(),
            relation: Relation::Guardian,
            expires: TIME,
            limits: Limits {
                scope: "types=Immunization;from=2015".parse().unwrap(),
                destinations: vec![id("hospital-b.example")],
            },
        },
    );
    let purpose = Purpose::Voucher {
        delegation_key: digest(0x14),
        com_source: Commitment(digest(1)),
        opening: Opening::from_bytes(counting(0x1a)),
    };
    v.visit(
        "LoginRequest",
        LoginRequest {
            suite: SUITE,
            hospital: id("hospital-a.example"),
            pid: Pseudonym(counting(0x11)),
            nonce: nonce(0x15),
            time: TIME,
            reply_key: hpke(0x37),
            reply_to: MAILBOX.into(),
            purpose,
        },
    );
    v.visit(
        "LoginAnswer",
        LoginAnswer {
            request: MessageId(digest(0x16)),
            hospital: id("hospital-a.example"),
            time: TIME,
            outcome: LoginOutcome::Preview { preview: preview() },
            key_change: Some(SignedBytes::from(vec![0xd2, 0x84])),
        },
    );
    v.visit(
        "KeyChange",
        KeyChange {
            suite: SUITE,
            hospital: id("hospital-a.example"),
            from: Thumb(digest(0x17)),
            to: keys(),
            time: TIME,
        },
    );
    v.visit(
        "AuthorityStatement",
        AuthorityStatement {
            suite: SUITE,
            authority: id("authority.example"),
            lodgement_key: hpke(0x38),
            log_origin: "authority.example/log".into(),
            log_key: Ed25519PublicKey(counting(0x39)),
            time: TIME,
        },
    );
}

fn visit_delegation(v: &mut impl Visitor) {
    v.visit(
        "Voucher",
        Voucher {
            suite: SUITE,
            source: id("hospital-a.example"),
            delegation_key: digest(0x14),
            com_source: Commitment(digest(1)),
            not_after: TIME,
        },
    );
    v.visit(
        "Delegation",
        Delegation {
            suite: SUITE,
            nonce: nonce(0x17),
            delegation_key: digest(0x14),
            terms: terms(),
            reply_to: MAILBOX.into(),
        },
    );
    v.visit(
        "MigrationProof",
        MigrationProof {
            suite: SUITE,
            authority: id("authority.example"),
            delegation: MessageId(digest(0x18)),
            terms: terms(),
            issued_at: TIME,
        },
    );
    v.visit(
        "Consent",
        Consent {
            proof: ProofId(digest(0x19)),
            pid: Pseudonym(counting(0x11)),
            pid_opening: Opening::from_bytes(counting(0x1a)),
            scope: "types=Immunization,Observation;from=2015-01-01;labels=none,N".parse::<Scope>().unwrap(),
            scope_opening: Opening::from_bytes(counting(0x1b)),
            hides: Hides::parse(["Condition/c1", "Observation/o2"]).unwrap(),
            hides_opening: Opening::from_bytes(counting(0x1c)),
            destination: keys().thumb(),
        },
    );
    v.visit(
        "Presentation",
        Presentation {
            proof: ProofId(digest(0x19)),
            pid: Pseudonym(counting(0x1d)),
            pid_opening: Opening::from_bytes(counting(0x1e)),
            scope: Scope::full(),
            scope_opening: Opening::from_bytes(counting(0x1b)),
            source: keys(),
            consent: digest(0x1f),
            reply_to: Some(MAILBOX.into()),
        },
    );
}

fn visit_transfer(v: &mut impl Visitor) {
    v.visit(
        "TransferRequest",
        TransferRequest {
            proof: ProofId(digest(0x19)),
            consent: digest(0x1f),
            session_key: hpke(0x3a),
            attempt: 1,
            nonce: nonce(0x20),
            time: TIME,
            identity_claim: sealed(),
            keys: keys(),
        },
    );
    v.visit(
        "Redeem",
        Redeem {
            proof: ProofId(digest(0x19)),
            session: SessionId(digest(0x21)),
            nonce: nonce(0x22),
            attempt: 1,
            known_log_size: 300,
        },
    );
    v.visit(
        "Grant",
        Grant {
            proof: ProofId(digest(0x19)),
            session: SessionId(digest(0x21)),
            nonce: nonce(0x22),
            attempt: 1,
            time: TIME,
            source: Standing::Active,
            destination: Standing::Active,
            to: id("hospital-b.example"),
        },
    );
    v.visit(
        "Manifest",
        Manifest {
            proof: ProofId(digest(0x19)),
            session: SessionId(digest(0x21)),
            snapshot_at: TIME,
            inventory: inventory(),
            stream_bytes: 67_584,
            chunk_bytes: 1 << 20,
            chunk_count: 1,
            leaf_list: digest(0x23),
            merkle_root: digest(0x24),
            key_commitment: digest(0x25),
            digest_scope: RecordDigest::default(),
            digest_full: RecordDigest::default(),
            loss: vec![0x80],
            reply_key: hpke(0x3b),
        },
    );
}

fn visit_exchange(v: &mut impl Visitor) {
    v.visit(
        "KeyLodgement",
        KeyLodgement {
            proof: ProofId(digest(0x19)),
            manifest: ManifestId(digest(0x26)),
            session: SessionId(digest(0x21)),
            sealed_key: sealed(),
        },
    );
    v.visit(
        "DeliveryReceipt",
        DeliveryReceipt {
            proof: ProofId(digest(0x19)),
            manifest: ManifestId(digest(0x26)),
            session: SessionId(digest(0x21)),
            time: TIME,
        },
    );
    v.visit(
        "KeyRelease",
        KeyRelease {
            proof: ProofId(digest(0x19)),
            lodgement: MessageId(digest(0x27)),
            delivery: MessageId(digest(0x28)),
            time: TIME,
        },
    );
    v.visit(
        "ImportReceipt",
        ImportReceipt {
            proof: ProofId(digest(0x19)),
            manifest: ManifestId(digest(0x26)),
            outcome: OutcomeClass::Filed,
            commitment: Commitment(digest(0x29)),
            time: TIME,
        },
    );
}

fn visit_endings(v: &mut impl Visitor) {
    v.visit(
        "Revocation",
        Revocation { proof: ProofId(digest(0x19)), reason: RevocationReason::KeyCompromised, time: TIME },
    );
    v.visit(
        "Refusal",
        Refusal {
            subject: digest(0x19),
            session: Some(SessionId(digest(0x21))),
            attempt: 2,
            code: Code::ConsentRefused,
            retry: false,
            time: TIME,
        },
    );
    v.visit(
        "CaseStatement",
        CaseStatement {
            proof: ProofId(digest(0x19)),
            state: EndState::Filed,
            cause: Some(MessageId(digest(0x2a))),
            time: TIME,
        },
    );
}

/// Any signed message as it stands inside another structure: what is inside is not looked at when the outer one is read.
pub fn signed<M: Message>() -> SignedBytes<M> {
    SignedBytes::from(vec![0xd2, 0x84])
}
