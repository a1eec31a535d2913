//! What became of the record at the destination.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::Digest;

use super::{Chain, TypeCount};
use crate::ids::{ManifestId, ProofId, Timestamp};
use crate::rejection::Code;
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};

/// The largest sealed part of a receipt: the statement that ends a case carries two of them to three mailboxes. Units: bytes.
pub const MAX_INNER_RECEIPT_BYTES: usize = 256 * 1024;

/// All that authority and log learn of the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OutcomeClass {
    /// The record is in the destination's store.
    #[n(0)]
    Filed,
    /// It is not; the inner receipt says why.
    #[n(1)]
    Rejected,
}

/// Destination -> authority -> source and patient, signed by the destination; A and patient **verify it with thumb_B**.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ImportReceipt {
    /// **The proof.**
    #[n(0)]
    pub proof: ProofId,
    /// **The manifest.**
    #[n(1)]
    pub manifest: ManifestId,
    /// Filed or rejected.
    #[n(2)]
    pub outcome: OutcomeClass,
    /// Salted commitment to the inner receipt: both copies are the same.
    #[n(3)]
    pub commitment: Commitment,
    /// When.
    #[n(4)]
    pub time: Timestamp,
}

impl Message for ImportReceipt {
    const TYP: &'static str = "waybill-import-receipt";
}

/// The inner receipt: health data, for source and patient only.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ReceiptDetail {
    /// What was filed, by type, ascending.
    #[n(0)]
    pub inventory: Vec<TypeCount>,
    /// How many resources the manifest offered.
    #[n(1)]
    pub offered: u64,
    /// How many of them are in the destination's store.
    #[n(2)]
    pub filed: u64,
    /// How many are set aside for a person.
    #[n(3)]
    pub quarantined: u64,
    /// Short homomorphic digest of what was received. Bytes: 32.
    #[n(4)]
    pub digest: Digest,
    /// Why it was rejected, when it was.
    #[n(5)]
    pub code: Option<Code>,
    /// CBOR of the whole loss report.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub loss: Vec<u8>,
}

impl fmt::Debug for ReceiptDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptDetail(..)")
    }
}

/// The inner receipt with what opens the outer one's commitment.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ReceiptOpening {
    /// Opens the commitment of the outer receipt.
    #[n(0)]
    pub opening: Opening,
    /// CBOR of [`ReceiptDetail`], exactly as committed.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub detail: Vec<u8>,
}

impl fmt::Debug for ReceiptOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptOpening(..)")
    }
}

/// What is posted to the authority.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ReceiptBody {
    /// The signed outer receipt.
    #[n(0)]
    pub receipt: SignedBytes<ImportReceipt>,
    /// The destination's signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
    /// [`ReceiptOpening`] sealed to the source's one-time reply key. Bytes: at most [`MAX_INNER_RECEIPT_BYTES`].
    #[n(2)]
    pub for_source: SealedBytes,
    /// [`ReceiptOpening`] sealed to the delegation's reply key. Bytes: at most [`MAX_INNER_RECEIPT_BYTES`].
    #[n(3)]
    pub for_patient: SealedBytes,
}
