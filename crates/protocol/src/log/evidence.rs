//! Log evidence: one leaf's place in a cosigned log, as it travels beside proofs, grants and other answers of the authority.

use minicbor::{Decode, Encode};
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;
use waybill_crypto::merkle;

use super::{CheckpointPolicy, CosignedCheckpoint, LogError, MAX_PROOF_HASHES};

/// What kind of decision a leaf stands for; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct LeafKind(#[n(0)] pub u8);

/// The 32 bytes that stand in the log for one decision: SHA-256(CBOR["waybill/1 leaf", kind, message id, nonce]).
///
/// Security: the nonce, 16 random bytes that only those who hold the message learn, hides which decision a leaf is from everybody
/// else who reads the log.
#[must_use]
pub fn leaf_entry(kind: LeafKind, message_id: &Digest, nonce: &[u8; 16]) -> [u8; 32] {
    let mut encoder = minicbor::Encoder::new(Vec::with_capacity(80));
    encoder
        .array(4)
        .and_then(|e| e.str("waybill/1 leaf"))
        .and_then(|e| e.u8(kind.0))
        .and_then(|e| e.bytes(message_id.as_bytes()))
        .and_then(|e| e.bytes(nonce))
        .expect("encoding into a Vec does not fail");
    sha256(&[&encoder.into_writer()]).0
}

/// That one decision is in the log, at which place, under which cosigned checkpoint. Unverified until [`LogEvidence::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogEvidence {
    /// The leaf's index, from 0.
    #[n(0)]
    pub index: u64,
    /// The nonce inside the leaf.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// Inclusion proof, lowest hash first; at most [`MAX_PROOF_HASHES`].
    #[cbor(n(2), decode_with = "decode_path")]
    pub path: Vec<Digest>,
    /// The signed note with its cosignatures; at most [`super::MAX_NOTE_BYTES`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub checkpoint: Vec<u8>,
}

/// Decodes a path, refusing a long one before any of it is read.
fn decode_path<'b, C>(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Vec<Digest>, minicbor::decode::Error> {
    let bad = || minicbor::decode::Error::message("inclusion path");
    let count = d.array()?.and_then(|count| usize::try_from(count).ok()).ok_or_else(bad)?;
    if count > MAX_PROOF_HASHES {
        return Err(bad());
    }
    (0..count).map(|_| d.decode_with(ctx)).collect()
}

impl LogEvidence {
    /// Verifies that the decision (`kind`, `message_id`) is in the log, as a quorum of witnesses has seen it.
    ///
    /// # Errors
    /// [`LogError`]: first the cheap bounds, then the checkpoint, last the inclusion proof.
    ///
    /// Security: without this check a malicious authority could show different histories to different hospitals, and a restored
    /// backup could reopen what was spent.
    pub fn verify(
        &self,
        backend: &dyn Backend,
        policy: &CheckpointPolicy,
        kind: LeafKind,
        message_id: &Digest,
    ) -> Result<CosignedCheckpoint, LogError> {
        if self.path.len() > MAX_PROOF_HASHES {
            return Err(LogError::ProofLength);
        }
        let cosigned = policy.verify(backend, &self.checkpoint)?;
        let checkpoint = cosigned.checkpoint();
        let leaf = merkle::leaf_hash(&leaf_entry(kind, message_id, &self.nonce));
        merkle::verify_inclusion(&leaf, self.index, checkpoint.size, &self.path, &checkpoint.root).map_err(
            |error| match error {
                merkle::MerkleError::Range => LogError::Range,
                merkle::MerkleError::Length => LogError::ProofLength,
                merkle::MerkleError::Root => LogError::NotIncluded,
            },
        )?;
        Ok(cosigned)
    }
}
