//! The sealed, signed list of what travels.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HpkePublicKey};
use waybill_crypto::lthash::RecordDigest;

use super::Chain;
use crate::ids::{ProofId, SessionId, Timestamp};
use crate::sealed::SealedBytes;
use crate::signed::{Message, SignedBytes};
use crate::wire::DecodeError;

/// Resources of one type: how many, how large.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct TypeCount {
    /// FHIR resource type.
    #[n(0)]
    pub resource_type: String,
    /// How many.
    #[n(1)]
    pub count: u64,
    /// Sum of their exact bytes.
    #[n(2)]
    pub size_bytes: u64,
}

waybill_crypto::opaque_debug!(TypeCount);

/// Source -> destination, signed by the source and **verified with thumb_A**, sealed to the session key.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Manifest {
    /// **The proof.**
    #[n(0)]
    pub proof: ProofId,
    /// **The session.**
    #[n(1)]
    pub session: SessionId,
    /// When the record was frozen.
    #[n(2)]
    pub snapshot_at: Timestamp,
    /// What travels, by type, ascending.
    #[n(3)]
    pub inventory: Vec<TypeCount>,
    /// Length of the plaintext stream with its padding. Units: bytes.
    #[n(4)]
    pub stream_bytes: u64,
    /// Plaintext bytes of every chunk but the last.
    #[n(5)]
    pub chunk_bytes: u32,
    /// How many chunks.
    #[n(6)]
    pub chunk_count: u64,
    /// Address of the blob that lists the chunks' leaf hashes.
    #[n(7)]
    pub leaf_list: Digest,
    /// Root of the Merkle tree over the chunks.
    #[n(8)]
    pub merkle_root: Digest,
    /// Commits to the record key: no ciphertext opens under two.
    #[n(9)]
    pub key_commitment: Digest,
    /// Homomorphic digest of what travels.
    #[n(10)]
    pub digest_scope: RecordDigest,
    /// Homomorphic digest of all of the patient's record that could travel; the difference is what was withheld.
    #[n(11)]
    pub digest_full: RecordDigest,
    /// CBOR of the source's part of the loss report: withheld, not movable, unresolved, pending.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub loss: Vec<u8>,
    /// A's one-time reply key, to which B seals A's copy of the receipt.
    #[n(13)]
    pub reply_key: HpkePublicKey,
}

impl Message for Manifest {
    const TYP: &'static str = "waybill-manifest";
    const MAX_BYTES: usize = 2 * 1024 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        let ascending = self.inventory.windows(2).all(|w| w[0].resource_type < w[1].resource_type);
        let chunked =
            self.chunk_bytes > 0 && self.chunk_count == self.stream_bytes.div_ceil(u64::from(self.chunk_bytes)).max(1);
        if ascending && chunked { Ok(()) } else { Err(DecodeError::Malformed(Self::TYP)) }
    }
}

// Counts by type are health data.
impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest(proof {}, session {})", self.proof, self.session)
    }
}

/// The plaintext of what is posted to the destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ManifestPlain {
    /// The signed manifest.
    #[n(0)]
    pub manifest: SignedBytes<Manifest>,
    /// The source's signing certificate and issuing certificate: with them the destination can show who signed.
    #[n(1)]
    pub chain: Chain,
}

/// What is posted to the destination: the session in the clear (which one-time key opens it), the signed manifest sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ManifestBody {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// [`ManifestPlain`], sealed to the session key.
    #[n(1)]
    pub sealed: SealedBytes,
}
