//! What a state is made of: rows, letters, the log, and what handling a letter gives. Each is named by a part of the SHA-256 of its
//! bytes, so that two states are one exactly when every party holds the same bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use minicbor::Encode;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    EndState, GrantBody, ManifestBody, OutcomeClass, ReceiptBody, RedeemBody, ReleaseBody, StatementBody, TransferBody,
};
use waybill_protocol::migration::{Awaits, Leaf, Post, Recipient};
use waybill_protocol::signed::{Message, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

use crate::common::{A, B, id};

/// Who acts. The patient only posts: a presentation, and perhaps a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    Authority,
    Source,
    Destination,
}

/// The beginning of a digest: enough to tell things apart in a model.
pub fn short(digest: &Digest) -> u64 {
    u64::from_be_bytes(digest.0[..8].try_into().unwrap())
}

/// Something with its name.
pub struct Kept<T> {
    pub id: u64,
    pub value: T,
}

pub type Shared<T> = Arc<Kept<T>>;

impl<T: Encode<()>> Kept<T> {
    pub fn new(value: T) -> Shared<T> {
        Arc::new(Self { id: short(&sha256(&[&to_cbor(&value)])), value })
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.id.hash(hasher);
    }
}

/// What properties ask of a letter or a leaf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Says {
    /// The session it is about.
    pub session: Option<u64>,
    /// What a receipt says.
    pub outcome: Option<OutcomeClass>,
    /// What a statement says.
    pub end: Option<EndState>,
    /// The message in it that the log must show.
    pub logged: Option<u64>,
}

/// A parcel under way, for one party.
#[derive(Clone)]
pub struct Letter {
    pub id: u64,
    pub to: Party,
    pub kind: Kind,
    pub bytes: Vec<u8>,
    pub says: Says,
}

impl PartialEq for Letter {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Letter {}

impl Hash for Letter {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.id.hash(hasher);
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?} ({:04x})", self.kind, self.to, self.id >> 48)
    }
}

impl Letter {
    /// A post as a letter; none for the patient's mailbox, from which nothing comes back.
    pub fn new(post: &Post) -> Option<Arc<Self>> {
        let to = match &post.to {
            Recipient::Authority => Party::Authority,
            Recipient::Hospital(hospital) if *hospital == id(A) => Party::Source,
            Recipient::Hospital(hospital) if *hospital == id(B) => Party::Destination,
            Recipient::Hospital(_) | Recipient::Mailbox(_) => return None,
        };
        let parcel = Parcel::parse(&post.parcel).unwrap();
        let name = short(&sha256(&[&[to as u8], &post.parcel]));
        Some(Arc::new(Self { id: name, to, kind: parcel.kind, says: read(&parcel), bytes: post.parcel.clone() }))
    }

    pub fn parcel(&self) -> Parcel {
        Parcel::parse(&self.bytes).unwrap()
    }
}

pub fn message<M: Message + Clone>(bytes: &SignedBytes<M>) -> M {
    bytes.parse().unwrap().peek().clone()
}

pub fn message_name<M: Message>(bytes: &SignedBytes<M>) -> u64 {
    short(&bytes.parse().unwrap().message_id().0)
}

fn read(parcel: &Parcel) -> Says {
    let none = Says::default();
    match parcel.kind {
        Kind::TransferRequest => {
            let body: TransferBody = parcel.open(parcel.kind, "request").unwrap();
            Says { session: Some(message_name(&body.request)), ..none }
        }
        Kind::Redeem => {
            let body: RedeemBody = parcel.open(parcel.kind, "redeem").unwrap();
            Says { session: Some(short(&message(&body.redeem).session.0)), ..none }
        }
        Kind::Grant => {
            let body: GrantBody = parcel.open(parcel.kind, "grant").unwrap();
            let session = Some(short(&message(&body.grant).session.0));
            Says { session, logged: Some(message_name(&body.grant)), ..none }
        }
        Kind::Manifest => {
            let body: ManifestBody = parcel.open(parcel.kind, "manifest").unwrap();
            Says { session: Some(short(&body.session.0)), ..none }
        }
        Kind::KeyRelease => {
            let body: ReleaseBody = parcel.open(parcel.kind, "release").unwrap();
            let session = Some(short(&message(&body.lodgement).session.0));
            Says { session, logged: Some(message_name(&body.release)), ..none }
        }
        Kind::ImportReceipt => {
            let body: ReceiptBody = parcel.open(parcel.kind, "receipt").unwrap();
            Says { outcome: Some(message(&body.receipt).outcome), ..none }
        }
        Kind::CaseStatement => {
            let body: StatementBody = parcel.open(parcel.kind, "statement").unwrap();
            Says { end: Some(message(&body.statement).state), logged: Some(message_name(&body.statement)), ..none }
        }
        _ => none,
    }
}

/// One leaf of the authority's log.
#[derive(Clone)]
pub struct Entry {
    pub leaf: Leaf,
    pub says: Says,
}

impl Entry {
    pub fn kind(&self) -> LeafKind {
        self.leaf.kind
    }
}

/// The log: its leaves in order, under the name that their order gives it.
pub type Log = Kept<Vec<Entry>>;

impl Log {
    pub fn of(entries: Vec<Entry>) -> Arc<Self> {
        let name =
            entries.iter().fold(0_u64, |name, entry| short(&sha256(&[&name.to_be_bytes(), &to_cbor(&entry.leaf)])));
        Arc::new(Self { id: name, value: entries })
    }

    pub fn with(&self, more: &[Entry]) -> Arc<Self> {
        Self::of(self.value.iter().chain(more).cloned().collect())
    }
}

/// What the shell saw a role do that a state no longer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// Granted or released after the end of the proof, by the authority's clock.
    Late,
    /// Granted or released while a hospital of the case was suspended.
    Suspended,
    /// A record left under a consent that the patient did not sign.
    Unconsented,
    /// The patient cannot read a statement, or reads another end in it.
    PatientMisled,
}

/// What is awaited, by name.
pub fn awaits_name(awaits: &Awaits) -> u64 {
    short(&sha256(&[&to_cbor(awaits)]))
}

/// What handling something gives: everything of it is committed in one batch.
#[derive(Clone, Default)]
pub struct Outcome {
    pub authority: Option<Shared<waybill_protocol::authority::AuthorityCase>>,
    pub source: Option<Shared<waybill_protocol::source::SourceCase>>,
    pub destination: Option<Shared<waybill_protocol::destination::DestinationCase>>,
    /// Parcels, each with what it waits for.
    pub posts: Vec<(Arc<Letter>, Option<u64>)>,
    pub settles: Vec<u64>,
    pub leaves: Vec<Entry>,
    /// A new deadline, or none any more.
    pub timer: Option<Option<u64>>,
    /// Answers to be sent again.
    pub repeats: Vec<Kind>,
    /// The newest checkpoint that the source has seen.
    pub known: Option<Shared<String>>,
    /// Whether the destination has the one-time key of its session from now on.
    pub one_time: Option<bool>,
    /// The session whose record key the destination opened.
    pub opened: Option<u64>,
    /// The record is made visible in the destination's store.
    pub stored: bool,
    /// A person vouched for the two patients.
    pub approved: bool,
    pub marks: Vec<Mark>,
}
