//! The states of a case, party by party, and the effects a handler asks its shell for.
//!
//! | party | states |
//! |---|---|
//! | authority | `Issued -> Redeemed -> Lodged -> KeyReleased -> Filed / Rejected`; `KeyReleased -> Unacknowledged` at the deadline (a late receipt still closes it); `Redeemed / Lodged -> Issued` (next attempt, source-signed); before `KeyReleased`: `-> Revoked / Expired / Refused` |
//! | source | `Received -> AwaitingReview? -> Redeeming -> Granted -> Lodged -> Closed`; before `Lodged`: `-> Refused` |
//! | destination | `Requested -> Receiving -> Delivered -> KeyHeld -> Filed / Rejected -> Closed`; before `KeyHeld`: `-> AttemptFailed -> Requested` |
//!
//! Source: docs/PROTOCOL.md section 8. A state lists the only inputs it accepts; everything else is `unexpected-message`.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::Digest;

use crate::ids::{HospitalId, MessageId, Nonce, ProofId, Timestamp};
use crate::log::LeafKind;
use crate::messages::EndState;
use crate::wire::Kind;

/// The authority's states, in order of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(flat)]
pub enum AuthorityState {
    /// The proof is signed and logged; nobody has redeemed it.
    #[n(0)]
    Issued,
    /// The source has redeemed it for one session.
    #[n(1)]
    Redeemed,
    /// The source has lodged the record key.
    #[n(2)]
    Lodged,
    /// The key went out against a delivery receipt. No revocation beyond this point.
    #[n(3)]
    KeyReleased,
    /// Over.
    #[n(4)]
    Ended(#[n(0)] EndState),
}

/// The source's states, in order of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum SourceState {
    /// A person must compare the two patients first.
    #[n(0)]
    AwaitingReview,
    /// Everything checked here; the authority is asked.
    #[n(1)]
    Redeeming,
    /// The authority granted: the record is frozen and staged now.
    #[n(2)]
    Granted,
    /// Manifest and chunks are out, the key is lodged.
    #[n(3)]
    Lodged,
    /// This attempt failed; another may follow.
    #[n(4)]
    AttemptFailed,
    /// Refused before anything left.
    #[n(5)]
    Refused,
    /// Over, with the authority's signed statement.
    #[n(6)]
    Closed,
}

impl SourceState {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingReview => "awaiting-review",
            Self::Redeeming => "redeeming",
            Self::Granted => "granted",
            Self::Lodged => "lodged",
            Self::AttemptFailed => "attempt-failed",
            Self::Refused => "refused",
            Self::Closed => "closed",
        }
    }
}

/// The destination's states, in order of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum DestinationState {
    /// The source has been asked.
    #[n(0)]
    Requested,
    /// The manifest is here, chunks are arriving.
    #[n(1)]
    Receiving,
    /// Every chunk is here; the receipt for the ciphertext is out.
    #[n(2)]
    Delivered,
    /// The key is here; the record is being checked and filed.
    #[n(3)]
    KeyHeld,
    /// The record is in the store.
    #[n(4)]
    Filed,
    /// The record was turned away, with a code.
    #[n(5)]
    Rejected,
    /// Over, with the authority's signed statement.
    #[n(6)]
    Closed,
    /// The source gave this attempt up; the next one is made at the case's deadline.
    #[n(7)]
    AttemptFailed,
}

impl DestinationState {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Receiving => "receiving",
            Self::Delivered => "delivered",
            Self::KeyHeld => "key-held",
            Self::Filed => "filed",
            Self::Rejected => "rejected",
            Self::Closed => "closed",
            Self::AttemptFailed => "attempt-failed",
        }
    }
}

/// Where a parcel goes. Hospitals and authority are looked up by the shell, so that no address comes from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(flat)]
pub enum Recipient {
    /// A hospital's registered mailbox.
    #[n(0)]
    Hospital(#[n(0)] HospitalId),
    /// The authority's mailbox.
    #[n(1)]
    Authority,
    /// A patient's reply mailbox. Security: the shell posts only below relays it is configured to know.
    #[n(2)]
    Mailbox(#[n(0)] String),
}

/// What an outgoing parcel waits for: posting it again stops when this is settled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Awaits {
    /// The case or exchange.
    #[n(0)]
    pub subject: Digest,
    /// The kind of the answer.
    #[n(1)]
    pub answer: Kind,
}

/// A parcel to post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// To whom.
    pub to: Recipient,
    /// The parcel's bytes.
    pub parcel: Vec<u8>,
    /// Posted again until this is settled; `None`: the mailbox's own acknowledgement is enough.
    pub awaits: Option<Awaits>,
}

/// A log leaf whose answer goes out once a cosigned checkpoint covers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Leaf {
    /// The case.
    #[n(0)]
    pub case: ProofId,
    /// What is logged.
    #[n(1)]
    pub kind: LeafKind,
    /// Which message.
    #[n(2)]
    pub message: MessageId,
    /// Makes the leaf unguessable.
    #[n(3)]
    pub nonce: Nonce,
    /// What goes out then.
    #[n(4)]
    pub answer: crate::authority::Answer,
}

/// The leaves of the log (docs/PROTOCOL.md section 7): one kind for every message that moves the authority's state.
impl LeafKind {
    /// A migration proof was issued.
    pub const PROOF: Self = Self(1);
    /// A proof was spent on a session.
    pub const GRANT: Self = Self(2);
    /// A record key was lodged.
    pub const LODGEMENT: Self = Self(3);
    /// The ciphertext was received.
    pub const DELIVERY: Self = Self(4);
    /// The key was released.
    pub const RELEASE: Self = Self(5);
    /// An attempt failed; the proof is open again.
    pub const ATTEMPT_FAILED: Self = Self(6);
    /// The case ended.
    pub const STATEMENT: Self = Self(7);
}

/// What a handler asks its shell to do, in the same transaction as the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put a parcel in the outbox.
    Post(Post),
    /// The awaited answer came.
    Settle(Awaits),
    /// Append a leaf to the log (authority only).
    Log(Box<Leaf>),
    /// Wake this case at that time; replaces the case's earlier deadline.
    Deadline(Timestamp),
    /// The case needs no deadline any more.
    NoDeadline,
}

/// Shorthand for a parcel that waits for an answer.
pub(crate) fn post(to: Recipient, parcel: Vec<u8>, subject: Digest, answer: Kind) -> Effect {
    Effect::Post(Post { to, parcel, awaits: Some(Awaits { subject, answer }) })
}

/// Shorthand for a parcel that waits for nothing.
pub(crate) fn tell(to: Recipient, parcel: Vec<u8>) -> Effect {
    Effect::Post(Post { to, parcel, awaits: None })
}

/// Shorthand for an answer that came.
pub(crate) fn settle(subject: Digest, answer: Kind) -> Effect {
    Effect::Settle(Awaits { subject, answer })
}
