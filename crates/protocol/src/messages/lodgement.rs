//! Fair exchange: the key is lodged, receipt is given for the ciphertext, and one step trades the one for the other.

use minicbor::{Decode, Encode};

use super::Chain;
use crate::ids::{ManifestId, MessageId, ProofId, SessionId, Timestamp};
use crate::log::LogEvidence;
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};

/// Source -> authority, signed by the source, **sealed to the authority's lodgement key**.
///
/// Security: the inner seal keeps the record key from the authority; the outer one keeps the inner ciphertext from a destination
/// that listens in and would skip its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyLodgement {
    /// **The proof.**
    #[n(0)]
    pub proof: ProofId,
    /// **The manifest.**
    #[n(1)]
    pub manifest: ManifestId,
    /// **The session**, so that what was lodged in a failed attempt cannot take the place of what is lodged in the next.
    #[n(2)]
    pub session: SessionId,
    /// The record key, sealed to the session key and bound to **the manifest**.
    #[n(3)]
    pub sealed_key: SealedBytes,
}

impl Message for KeyLodgement {
    const TYP: &'static str = "waybill-key-lodgement";
}

/// What is posted to the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LodgementBody {
    /// The case, in the clear: the seal is bound to it.
    #[n(0)]
    pub proof: ProofId,
    /// The signed lodgement, sealed.
    #[n(1)]
    pub sealed: SealedBytes,
}

/// Destination -> authority, signed by the destination: "I hold every chunk under this manifest".
///
/// Security: never counts as "record received".
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeliveryReceipt {
    /// **The proof.**
    #[n(0)]
    pub proof: ProofId,
    /// **The manifest.**
    #[n(1)]
    pub manifest: ManifestId,
    /// **The session**, for the same reason as in the lodgement.
    #[n(2)]
    pub session: SessionId,
    /// When.
    #[n(3)]
    pub time: Timestamp,
}

impl Message for DeliveryReceipt {
    const TYP: &'static str = "waybill-delivery-receipt";
}

/// What is posted to the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeliveryBody {
    /// The signed receipt.
    #[n(0)]
    pub delivery: SignedBytes<DeliveryReceipt>,
    /// The destination's signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
}

/// Authority -> destination, signed by the authority, only if lodgement and receipt name the same manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyRelease {
    /// The proof.
    #[n(0)]
    pub proof: ProofId,
    /// The lodgement released.
    #[n(1)]
    pub lodgement: MessageId,
    /// The receipt it was traded for.
    #[n(2)]
    pub delivery: MessageId,
    /// When the states were swapped.
    #[n(3)]
    pub time: Timestamp,
}

impl Message for KeyRelease {
    const TYP: &'static str = "waybill-key-release";
}

/// What is posted to the destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ReleaseBody {
    /// The signed release.
    #[n(0)]
    pub release: SignedBytes<KeyRelease>,
    /// **The whole signed lodgement.**
    #[n(1)]
    pub lodgement: SignedBytes<KeyLodgement>,
    /// The release's place in the log.
    #[n(2)]
    pub evidence: LogEvidence,
}
