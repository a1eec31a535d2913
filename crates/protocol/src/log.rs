//! The authority's transparency log: what was decided is public, in one order, and the same for everybody.
//!
//! Formats are those of C2SP: tiles (`tlog-tiles`), checkpoints (`tlog-checkpoint`) as signed notes (`signed-note`), witness
//! cosignatures (`tlog-cosignature`, Ed25519, `cosignature/v1`) and the witness' one request (`tlog-witness`).
//!
//! Own code, and why: `signed_note` 0.2 knows no cosignatures, brings the older generation of the curve and hash libraries, and
//! signs by itself instead of through our back end, so that it could neither be replayed nor counted; `tlog_tiles` 0.2 reads tiles
//! by a blocking callback, while our servers read them asynchronously and then compute. The formats are short; the tests read
//! notes in the published form.
//!
//! - [`note`]: signed notes, keys and their names
//! - [`checkpoint`]: checkpoints, and the policy that says whose signatures are needed
//! - [`evidence`]: one leaf's place in a cosigned log, as it travels beside messages
//! - [`tiles`]: appending, and the proofs, over tiles
//! - [`witness`]: a witness as a pure state machine, and the log's side of that exchange

pub mod checkpoint;
pub mod evidence;
pub mod note;
pub mod tiles;
pub mod witness;

use thiserror::Error;

pub use checkpoint::{Checkpoint, CheckpointPolicy, CosignedCheckpoint, PolicyError, open_signed, verify_consistency};
pub use evidence::{LeafKind, LogEvidence, leaf_entry};
pub use note::{KeyName, NoteKey, NoteKeyKind, NoteSigner};
pub use waybill_crypto::merkle::MAX_PROOF_HASHES;

/// The most bytes a signed checkpoint has.
pub const MAX_NOTE_BYTES: usize = 8 * 1024;

/// The most signature lines a signed checkpoint has.
pub const MAX_SIGNATURES: usize = 16;

/// Why a checkpoint or a proof does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// Longer than [`MAX_NOTE_BYTES`], or more than [`MAX_SIGNATURES`] signatures.
    #[error("the checkpoint is too large")]
    TooLarge,
    /// Not a signed note.
    #[error("the signed note is malformed: {0}")]
    Note(&'static str),
    /// A signed note, but its text is not a checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Malformed(&'static str),
    /// The checkpoint of another log.
    #[error("the checkpoint is of another log")]
    Origin,
    /// The log's own signature is missing.
    #[error("the checkpoint is not signed by the log's key")]
    Unsigned,
    /// A signature line names a known key and does not verify.
    #[error("the signature of {0} does not verify")]
    Signature(KeyName),
    /// Fewer witnesses than the policy asks for have cosigned.
    #[error("{found} of {needed} needed witness cosignatures")]
    Quorum {
        /// Distinct witnesses whose cosignature verified.
        found: usize,
        /// How many the policy asks for.
        needed: usize,
    },
    /// The leaf index lies outside the tree.
    #[error("the leaf is not in a tree of this size")]
    Range,
    /// A proof has more than [`MAX_PROOF_HASHES`] hashes, or the wrong number of them.
    #[error("the proof has the wrong number of hashes")]
    ProofLength,
    /// The inclusion proof does not lead to the checkpoint's root.
    #[error("the leaf is not shown to be in the log")]
    NotIncluded,
    /// The newer checkpoint is not an extension of the older one: a split view.
    #[error("two checkpoints of the log are inconsistent")]
    Inconsistent,
    /// The checkpoint is older than one already seen.
    #[error("the log went back from {seen} leaves to {offered}")]
    RolledBack {
        /// Leaves of the checkpoint already seen.
        seen: u64,
        /// Leaves of the one offered.
        offered: u64,
    },
}

#[cfg(test)]
mod tests;
