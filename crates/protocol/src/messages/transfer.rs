//! The destination's request, and the source's redemption of the proof at the authority.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey};

use super::{Chain, ProofBundle};
use crate::ids::{HospitalId, Nonce, ProofId, SessionId, Timestamp};
use crate::log::LogEvidence;
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};

/// Destination -> source, signed by the destination. Its message id is `tr`, the session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TransferRequest {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// **Hash of the sealed consent.**
    #[n(1)]
    pub consent: Digest,
    /// ek: the destination's one-time HPKE key for this session.
    #[n(2)]
    pub session_key: HpkePublicKey,
    /// Which attempt this is, from 1.
    #[n(3)]
    pub attempt: u32,
    /// Freshness.
    #[n(4)]
    pub nonce: Nonce,
    /// When.
    #[n(5)]
    pub time: Timestamp,
    /// Name, birth date, sex and identifiers of the destination's local patient, sealed to the source.
    #[n(6)]
    pub identity_claim: SealedBytes,
    /// **The sender's keys: their thumb must be the one the consent names.**
    #[n(7)]
    pub keys: HospitalKeys,
}

impl Message for TransferRequest {
    const TYP: &'static str = "waybill-transfer-request";
    const MAX_BYTES: usize = 64 * 1024;
}

/// What is posted to the source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TransferBody {
    /// The signed request.
    #[n(0)]
    pub request: SignedBytes<TransferRequest>,
    /// The destination's signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
    /// The proof.
    #[n(2)]
    pub proof: ProofBundle,
    /// The consent, which only the source can open.
    #[n(3)]
    pub consent: SealedBytes,
}

/// Source -> authority, signed by the source: "I am about to release; is the proof still good?"
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Redeem {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// **The session.**
    #[n(1)]
    pub session: SessionId,
    /// **Freshness of the answer.**
    #[n(2)]
    pub nonce: Nonce,
    /// The attempt.
    #[n(3)]
    pub attempt: u32,
    /// Size of the newest log checkpoint the source knows: the answer proves that the log only grew since.
    #[n(4)]
    pub known_log_size: u64,
}

impl Message for Redeem {
    const TYP: &'static str = "waybill-redeem";
}

/// What is posted to the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RedeemBody {
    /// The signed request.
    #[n(0)]
    pub redeem: SignedBytes<Redeem>,
    /// The source's signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
}

/// A hospital's standing at the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// May send and receive.
    #[n(0)]
    Active,
    /// For the time being, not.
    #[n(1)]
    Suspended,
    /// Never again.
    #[n(2)]
    Revoked,
}

/// Authority -> source, signed by the authority: the proof is now spent on this session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Grant {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// **The session.**
    #[n(1)]
    pub session: SessionId,
    /// **The nonce of the Redeem.**
    #[n(2)]
    pub nonce: Nonce,
    /// The attempt.
    #[n(3)]
    pub attempt: u32,
    /// The authority's clock when it swapped the state.
    #[n(4)]
    pub time: Timestamp,
    /// The source's standing now.
    #[n(5)]
    pub source: Standing,
    /// The destination's standing now.
    #[n(6)]
    pub destination: Standing,
    /// The hospital the proof is now bound to receive at.
    #[n(7)]
    pub to: HospitalId,
}

impl Message for Grant {
    const TYP: &'static str = "waybill-grant";
}

/// What is posted to the source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct GrantBody {
    /// The signed grant.
    #[n(0)]
    pub grant: SignedBytes<Grant>,
    /// Its place in the log.
    #[n(1)]
    pub evidence: LogEvidence,
    /// Consistency proof from the log size the source named.
    #[n(2)]
    pub consistency: Vec<Digest>,
}
