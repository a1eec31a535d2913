//! How cases end other than well, and the signed statement with which every case ends.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::Digest;

use super::{Chain, ReceiptBody};
use crate::ids::{MessageId, ProofId, SessionId, Timestamp};
use crate::log::LogEvidence;
use crate::rejection::Code;
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};

/// Why somebody revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RevocationReason {
    /// The patient changed their mind.
    #[n(0)]
    Withdrawn,
    /// A key may be in other hands.
    #[n(1)]
    KeyCompromised,
    /// The hospital will not take part.
    #[n(2)]
    HospitalDeclines,
}

/// Holder -> authority, source and destination; or a hospital named in the proof, with its own key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Revocation {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// Why.
    #[n(1)]
    pub reason: RevocationReason,
    /// When.
    #[n(2)]
    pub time: Timestamp,
}

impl Message for Revocation {
    const TYP: &'static str = "waybill-revocation";
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RevocationBody {
    /// The signed revocation.
    #[n(0)]
    pub revocation: SignedBytes<Revocation>,
    /// The hospital's chain, when a hospital revokes; empty when the holder does.
    #[n(1)]
    pub chain: Chain,
}

/// Source -> destination and authority (before release), or authority -> patient (for a delegation): no, and the public reason.
///
/// Security: the code is the generic one; the full code travels sealed to the verified counterpart.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Refusal {
    /// What is refused: a proof's id, or a delegation's.
    #[n(0)]
    pub subject: Digest,
    /// The session, where there is one.
    #[n(1)]
    pub session: Option<SessionId>,
    /// The attempt, where there is one; 0 otherwise.
    #[n(2)]
    pub attempt: u32,
    /// The public code.
    #[n(3)]
    pub code: Code,
    /// Whether another attempt under the same proof may follow.
    #[n(4)]
    pub retry: bool,
    /// When.
    #[n(5)]
    pub time: Timestamp,
}

impl Message for Refusal {
    const TYP: &'static str = "waybill-refusal";
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RefusalBody {
    /// The signed refusal.
    #[n(0)]
    pub refusal: SignedBytes<Refusal>,
    /// The signer's chain.
    #[n(1)]
    pub chain: Chain,
    /// The full code, sealed to the verified counterpart.
    #[n(2)]
    pub detail: Option<SealedBytes>,
}

/// The states a case ends in (docs/PROTOCOL.md section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum EndState {
    /// The destination has filed the record.
    #[n(0)]
    Filed,
    /// The destination had the key and rejected the record.
    #[n(1)]
    Rejected,
    /// The key was released and no receipt came before the deadline. A late receipt still closes the case.
    #[n(2)]
    Unacknowledged,
    /// Revoked before the key was released.
    #[n(3)]
    Revoked,
    /// Its time ran out before the key was released.
    #[n(4)]
    Expired,
    /// The source refused, finally.
    #[n(5)]
    Refused,
}

impl EndState {
    /// The stable word for pages, reports and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filed => "filed",
            Self::Rejected => "rejected",
            Self::Unacknowledged => "unacknowledged",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

/// Authority -> everybody: how the case ended, signed by the proof-signing key and logged.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CaseStatement {
    /// The case.
    #[n(0)]
    pub proof: ProofId,
    /// How it ended.
    #[n(1)]
    pub state: EndState,
    /// The message that caused it: receipt, revocation or refusal; none for deadlines.
    #[n(2)]
    pub cause: Option<MessageId>,
    /// The authority's clock.
    #[n(3)]
    pub time: Timestamp,
}

impl Message for CaseStatement {
    const TYP: &'static str = "waybill-case-statement";
}

/// What is posted: the statement, its place in the log, and the receipt where there is one (with the reader's own sealed part).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct StatementBody {
    /// The signed statement.
    #[n(0)]
    pub statement: SignedBytes<CaseStatement>,
    /// Its place in the log.
    #[n(1)]
    pub evidence: LogEvidence,
    /// The destination's receipt, for Filed and Rejected.
    #[n(2)]
    pub receipt: Option<ReceiptBody>,
}
