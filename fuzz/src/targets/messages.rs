//! Messages, parcels, sealed parts, evidence: what `waybill-protocol` reads from the network and from its own rows.

use minicbor::{Decode, Encode};
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::VerifyingKey;
use waybill_crypto::native::Native;
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::destination::{DestinationCase, RevealedKey};
use waybill_protocol::evidence::{self, Evidence, MAX_EVIDENCE_BYTES};
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::log::tiles::LogEdge;
use waybill_protocol::log::witness::WitnessState;
use waybill_protocol::log::{CheckpointPolicy, LogEvidence, NoteKey};
use waybill_protocol::messages::*;
use waybill_protocol::migration::Leaf;
use waybill_protocol::patient::{Contact, Draft, Enrolment, Exchange};
use waybill_protocol::registrar::{Attestation, EnrolmentCode, Registered};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{EXTERNAL_AAD, Message, SignedBytes, Unverified};
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::{DecodeError, Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_record::digest::Inventory;
use waybill_record::hides::Hides;
use waybill_record::identity::Demographics;
use waybill_record::loss::LossReport;
use waybill_record::scope::Scope;

use super::choose;
use crate::{cbor, fixture};

/// Calls a macro with every signed message there is; a corpus names them by their place in this list, so that it only grows.
macro_rules! with_messages {
    ($each:ident) => {
        $each! {
            Registration, RegistrationAnswer, KeyChange, AuthorityStatement, LoginRequest, LoginAnswer,
            Voucher, Delegation, MigrationProof, Consent, Presentation, TransferRequest,
            Redeem, Grant, Manifest, KeyLodgement, DeliveryReceipt, KeyRelease,
            ImportReceipt, CaseStatement, Revocation, Refusal
        }
    };
}

macro_rules! table {
    ($($message:ident),*) => {
        /// The `typ` of every message, in the order of the corpus.
        pub const TYPES: &[&str] = &[$($message::TYP),*];
        const PAYLOADS: &[fn(&[u8]) -> bool] = &[$(payload_of::<$message>),*];
        const SIGNED: &[fn(&[u8]) -> Option<Vec<u8>>] = &[$(signed_as::<$message>),*];
    };
}
with_messages!(table);

/// A message's payload: the first byte names the message, the rest is its CBOR.
pub fn message(data: &[u8]) -> bool {
    choose(data, PAYLOADS).is_some_and(|(read, payload)| read(payload))
}

/// The payload decodes and checks out exactly if the envelope around it, written here by hand, parses.
fn payload_of<M: Message>(payload: &[u8]) -> bool {
    let envelope = envelope(M::TYP, payload);
    let decoded = from_cbor::<M>(M::TYP, payload, M::MAX_BYTES).and_then(|m| m.check().map(|()| m));
    let parsed = Unverified::<M>::parse(&envelope);
    let (message, parsed) = match (decoded, parsed) {
        (Ok(message), Ok(parsed)) => (message, parsed),
        (Ok(_), Err(DecodeError::TooLarge { size_bytes, limit_bytes, .. })) => {
            assert!(size_bytes == envelope.len() && limit_bytes == M::MAX_BYTES && size_bytes > limit_bytes);
            return false;
        }
        (Err(_), Err(_)) => return false,
        (decoded, parsed) => panic!("{}: alone {:?}, signed {:?}", M::TYP, decoded.err(), parsed.err()),
    };
    assert!(cbor::is_deterministic(payload), "{}: two encodings", M::TYP);
    assert_eq!(to_cbor(&message), payload, "{}: reads back", M::TYP);
    assert_eq!(to_cbor(parsed.peek()), payload, "{}: reads back signed", M::TYP);
    assert_eq!(parsed.message_id().0, sha256(&[&sig_structure(M::TYP, payload)]), "{}: its id", M::TYP);
    let takers = SIGNED.iter().filter(|read| read(&envelope).is_some()).count();
    assert_eq!(takers, 1, "{}: an envelope is one message's", M::TYP);
    true
}

/// Key id of the envelopes written here.
const KID: [u8; 16] = [0x4b; 16];

/// PROTOCOL section 3.2, by hand.
fn protected(typ: &str) -> Vec<u8> {
    let mut out = vec![0xa3, 0x01, 0x26, 0x04, 0x50];
    out.extend(KID);
    out.push(0x10);
    out.extend(to_cbor(&typ));
    out
}

fn bstr(bytes: &[u8]) -> Vec<u8> {
    to_cbor(&minicbor::bytes::ByteVec::from(bytes.to_vec()))
}

fn envelope(typ: &str, payload: &[u8]) -> Vec<u8> {
    [&[0xd2, 0x84], &bstr(&protected(typ))[..], &[0xa0], &bstr(payload), &bstr(&[1; 64])].concat()
}

fn sig_structure(typ: &str, payload: &[u8]) -> Vec<u8> {
    [&[0x84], &to_cbor(&"Signature1")[..], &bstr(&protected(typ)), &bstr(EXTERNAL_AAD), &bstr(payload)].concat()
}

/// A COSE_Sign1 as it arrives. At most one message's reader takes it, and keeps it to the byte.
pub fn signed(data: &[u8]) -> bool {
    let takers: Vec<Vec<u8>> = SIGNED.iter().filter_map(|read| read(data)).collect();
    assert!(takers.len() <= 1, "one envelope, two messages");
    takers.iter().for_each(|payload| assert!(cbor::is_deterministic(payload), "two encodings"));
    !takers.is_empty()
}

/// The payload, when these are the bytes of such a message.
fn signed_as<M: Message>(data: &[u8]) -> Option<Vec<u8>> {
    let parsed = Unverified::<M>::parse(data).ok()?;
    assert!(data.len() <= M::MAX_BYTES);
    assert_eq!(SignedBytes::<M>::from(data.to_vec()).as_bytes(), data);
    let payload = to_cbor(parsed.peek());
    if let Ok(verified) = parsed.verify(fixture::backend(), fixture::signing_key().public()) {
        assert_eq!(verified.bytes(), data, "{}: what was verified is what arrived", M::TYP);
    }
    Some(payload)
}

/// A parcel, and the body of its kind.
pub fn parcel(data: &[u8]) -> bool {
    let Ok(parcel) = Parcel::parse(data) else { return false };
    assert!(data.len() <= MAX_PARCEL_BYTES && cbor::is_deterministic(data));
    assert_eq!(to_cbor(&parcel), data, "a parcel reads back");
    assert_eq!(Parcel::peek_kind(data), Some(parcel.kind), "what peeking says is what parsing says");
    match parcel.kind {
        Kind::Registration
        | Kind::RegistrationAnswer
        | Kind::Login
        | Kind::LoginAnswer
        | Kind::ProofAnswer
        | Kind::Presentation => opens::<SealedBytes>(&parcel),
        Kind::Delegation => opens::<DelegationBody>(&parcel),
        Kind::TransferRequest => opens::<TransferBody>(&parcel),
        Kind::Redeem => opens::<RedeemBody>(&parcel),
        Kind::Grant => opens::<GrantBody>(&parcel),
        Kind::Manifest => opens::<ManifestBody>(&parcel),
        Kind::KeyLodgement => opens::<LodgementBody>(&parcel),
        Kind::DeliveryReceipt => opens::<DeliveryBody>(&parcel),
        Kind::KeyRelease => opens::<ReleaseBody>(&parcel),
        Kind::ImportReceipt => opens::<ReceiptBody>(&parcel),
        Kind::CaseStatement => opens::<StatementBody>(&parcel),
        Kind::Revocation => opens::<RevocationBody>(&parcel),
        Kind::Refusal => opens::<RefusalBody>(&parcel),
    }
}

fn opens<T>(parcel: &Parcel) -> bool
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let opened = parcel.open::<T>(parcel.kind, "body");
    if let Ok(body) = &opened {
        assert_eq!(Parcel::pack(parcel.kind, body), to_cbor(parcel), "packing undoes opening");
    }
    opened.is_ok()
}

macro_rules! bodies {
    ($($body:ty),* $(,)?) => {
        const BODIES: &[fn(&[u8]) -> bool] = &[$(canonical::<$body>),*];
        /// The structures of the target [`body`], in the order of the corpus.
        pub const BODY_NAMES: &[&str] = &[$(stringify!($body)),*];
    };
}

// What travels inside parcels and seals, and what parties keep in their rows. A corpus names them by their place: append only.
bodies!(
    SealedBytes,
    Chain,
    LogEvidence,
    DelegationBody,
    TransferBody,
    RedeemBody,
    GrantBody,
    ManifestBody,
    LodgementBody,
    DeliveryBody,
    ReleaseBody,
    ReceiptBody,
    StatementBody,
    RevocationBody,
    RefusalBody,
    RegistrationBody,
    LoginBody,
    AuthorityStatementBody,
    ProofBundle,
    PresentationBody,
    ManifestPlain,
    ReceiptOpening,
    ReceiptDetail,
    VoucherGrant,
    Terms,
    Purpose,
    LoginOutcome,
    Preview,
    Limits,
    Demographics,
    LossReport,
    Inventory,
    Scope,
    Hides,
    Enrolment,
    Contact,
    Draft,
    Exchange,
    EnrolmentCode,
    Attestation,
    Registered,
    AuthorityCase,
    SourceCase,
    DestinationCase,
    RevealedKey,
    Leaf,
    CheckpointPolicy,
    NoteKey,
    WitnessState,
    LogEdge,
    HospitalId,
    Nonce,
    Timestamp,
    Code,
    VerifyingKey,
);

/// Any other structure: the first byte names it, the rest is its CBOR.
pub fn body(data: &[u8]) -> bool {
    choose(data, BODIES).is_some_and(|(read, bytes)| read(bytes))
}

fn canonical<T>(bytes: &[u8]) -> bool
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let Ok(value) = from_cbor::<T>("body", bytes, MAX_PARCEL_BYTES) else { return false };
    assert!(cbor::is_deterministic(bytes), "two encodings of one {}", std::any::type_name::<T>());
    assert_eq!(to_cbor(&value), bytes);
    true
}

/// A sealed part (the first byte names its purpose), and the rest as a plaintext that somebody seals to us.
pub fn sealed(data: &[u8]) -> bool {
    let Some((&purpose, bytes)) = choose(data, &SealPurpose::ALL) else { return false };
    let (backend, key, bound) = (fixture::backend(), fixture::hpke_key(), fixture::SEAL_BOUND);
    let other = SealPurpose::ALL.iter().copied().find(|other| *other != purpose).expect("there are several");
    let arrived = from_cbor::<SealedBytes>("sealed", bytes, MAX_PARCEL_BYTES).ok();
    let opened = arrived.and_then(|sealed| {
        assert_eq!(to_cbor(&sealed), bytes);
        let plain = sealed.open(backend, key, purpose, &bound).ok()?;
        assert_eq!(plain.len() + 16, sealed.size_bytes());
        assert!(sealed.open(backend, key, other, &bound).is_err(), "sealed for one purpose, opened for another");
        assert!(sealed.open(backend, key, purpose, &[0; 32]).is_err(), "sealed for one id, opened for another");
        Some(())
    });
    let made = SealedBytes::seal(backend, key.public(), purpose, &bound, bytes).expect("the key is a point");
    let made: SealedBytes = from_cbor("sealed", &to_cbor(&made), usize::MAX).expect("what is sealed reads back");
    assert_eq!(made.open(backend, key, purpose, &bound).as_deref(), Ok(bytes), "what is sealed opens");
    opened.is_some()
}

/// An evidence file as it is found; and once more with a checksum that fits, so that the judge gets to see it. Taken means: it holds.
pub fn evidence(data: &[u8]) -> bool {
    let Ok(file) = Evidence::parse(data) else { return false };
    assert!(data.len() <= MAX_EVIDENCE_BYTES && cbor::is_deterministic(data));
    assert_eq!(to_cbor(&file), data, "a file reads back");
    let whole = file.to_bytes();
    assert_eq!(whole[..whole.len() - 32], data[..data.len() - 32], "only the checksum is made anew");
    let file = Evidence::parse(&whole).expect("a file with its own checksum parses");
    // The server's back end: it verifies several times faster, and a judge verifies some twenty signatures.
    let verdict = evidence::judge(&Native, fixture::evidence_anchor(), None, &file);
    let mut merged = file.clone();
    merged.merge(file.clone());
    assert_eq!(merged, file, "a file adds nothing to itself");
    // The corpus is of one honest case that was filed. Nobody can sign anything else in the parties' names.
    assert!(verdict.liar.as_deref() != Some("hospital-a.example"), "an honest source is blamed");
    assert!(verdict.liar.is_none() || file.revealed_key.is_some(), "somebody is blamed without a revealed key");
    assert!(matches!(verdict.end, None | Some(EndState::Filed)), "another end: {:?}", verdict.end);
    verdict.holds()
}
