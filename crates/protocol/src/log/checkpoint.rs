//! Checkpoints: the log's statement of its size and root; and the policy that says who must have signed one.
//!
//! Source: C2SP tlog-checkpoint, tlog-cosignature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::Digest;
use waybill_crypto::merkle;

use super::note::{self, KeyName, Note, NoteKey, NoteKeyKind, NoteSigner};
use super::{LogError, MAX_PROOF_HASHES, MAX_SIGNATURES};
use crate::ids::Timestamp;

/// A log's size and root. By itself a claim of whoever wrote it; see [`CosignedCheckpoint`].
///
/// Bytes: as text three lines (origin, decimal size, base64 root). Extension lines are refused, so that a checkpoint has one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; equal to the name of its key.
    pub origin: KeyName,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

impl Checkpoint {
    /// Parses the text of a note.
    ///
    /// # Errors
    /// [`LogError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let mut lines = text.split('\n');
        let mut next = |what| lines.next().ok_or(LogError::Malformed(what));
        let origin = KeyName::parse(next("origin")?).map_err(|_| LogError::Malformed("origin"))?;
        let size = parse_size(next("size")?).ok_or(LogError::Malformed("size"))?;
        let root = STANDARD.decode(next("root")?).map_err(|_| LogError::Malformed("root"))?;
        let root = Digest::try_from(root.as_slice()).map_err(|_| LogError::Malformed("root"))?;
        if lines.next() != Some("") || lines.next().is_some() {
            return Err(LogError::Malformed("extension lines"));
        }
        Ok(Self { origin, size, root })
    }

    /// The text that log and witnesses sign.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The note with the log's signature and no cosignature yet.
    ///
    /// Security: whoever signs two checkpoints that are inconsistent has forked its log, provably and for ever; sign only what is
    /// durable.
    #[must_use]
    pub fn sign(&self, backend: &dyn Backend, signer: &NoteSigner) -> Vec<u8> {
        let text = self.to_text();
        let line = signer.sign(backend, &text, Timestamp(0));
        note::assemble(&text, &[line])
    }
}

/// A decimal number without sign and leading zeros.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

/// Reads a note that the log itself has signed, whoever else did.
///
/// # Errors
/// [`LogError`]: bounds, form, origin, and the log's signature, in this order.
pub fn open_signed(backend: &dyn Backend, log_key: &NoteKey, note: &[u8]) -> Result<(Checkpoint, Note), LogError> {
    let note = Note::parse(note)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    if checkpoint.origin != *log_key.name() {
        return Err(LogError::Origin);
    }
    if log_key.verify(backend, &note)?.is_none() {
        return Err(LogError::Unsigned);
    }
    Ok((checkpoint, note))
}

/// Why a set of keys is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The log's key is a witness key, or a witness' key a log key.
    #[error("a key of the wrong kind")]
    Kind,
    /// Two witnesses share a name or a key, or one has the log's key: they would count as one and look like two.
    #[error("two keys of the policy are the same")]
    Duplicate,
    /// The quorum is zero or larger than the number of witnesses.
    #[error("the quorum must lie between 1 and the number of witnesses")]
    Quorum,
    /// More witnesses than a note can carry signatures.
    #[error("too many witnesses")]
    TooMany,
}

/// Whose signatures make a checkpoint believable: the log's, and those of a quorum of witnesses.
///
/// Bytes: a CBOR array of the log's key, the array of witness keys, the quorum; keys as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointPolicy {
    log_key: NoteKey,
    witnesses: Vec<NoteKey>,
    quorum: usize,
}

impl CheckpointPolicy {
    /// Makes a policy. The origin is the name of the log's key.
    ///
    /// # Errors
    /// [`PolicyError`]; a policy without witnesses is refused, because then nobody could see a split view.
    pub fn new(log_key: NoteKey, witnesses: Vec<NoteKey>, quorum: usize) -> Result<Self, PolicyError> {
        if witnesses.len() >= MAX_SIGNATURES {
            return Err(PolicyError::TooMany);
        }
        if log_key.kind() != NoteKeyKind::Log || witnesses.iter().any(|key| key.kind() != NoteKeyKind::Witness) {
            return Err(PolicyError::Kind);
        }
        for (i, key) in witnesses.iter().enumerate() {
            let mut earlier = witnesses[..i].iter().chain([&log_key]);
            if earlier.any(|other| other.name() == key.name() || other.public_key() == key.public_key()) {
                return Err(PolicyError::Duplicate);
            }
        }
        if quorum == 0 || quorum > witnesses.len() {
            return Err(PolicyError::Quorum);
        }
        Ok(Self { log_key, witnesses, quorum })
    }

    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &KeyName {
        self.log_key.name()
    }

    /// The log's key.
    #[must_use]
    pub const fn log_key(&self) -> &NoteKey {
        &self.log_key
    }

    /// The witnesses whose cosignatures count.
    #[must_use]
    pub fn witnesses(&self) -> &[NoteKey] {
        &self.witnesses
    }

    /// How many of them are needed.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Verifies a signed note: form, origin, the log's signature, then the quorum of distinct witnesses.
    ///
    /// # Errors
    /// [`LogError`]. Security: a cosignature of a known witness that does not verify refuses the whole note.
    pub fn verify(&self, backend: &dyn Backend, note: &[u8]) -> Result<CosignedCheckpoint, LogError> {
        let (checkpoint, parsed) = open_signed(backend, &self.log_key, note)?;
        let mut times = Vec::with_capacity(self.witnesses.len());
        for witness in &self.witnesses {
            times.extend(witness.verify(backend, &parsed)?);
        }
        if times.len() < self.quorum {
            return Err(LogError::Quorum { found: times.len(), needed: self.quorum });
        }
        times.sort_unstable();
        let cosigned_at = times[times.len() - self.quorum];
        Ok(CosignedCheckpoint { checkpoint, cosigned_at })
    }
}

impl<C> Encode<C> for CheckpointPolicy {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.encode_with(&self.log_key, ctx)?.encode_with(&self.witnesses, ctx)?;
        e.u64(self.quorum as u64)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for CheckpointPolicy {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bad = || minicbor::decode::Error::message("checkpoint policy");
        if d.array()? != Some(3) {
            return Err(bad());
        }
        let log_key = d.decode_with(ctx)?;
        let witnesses: Vec<NoteKey> = d.decode_with(ctx)?;
        let quorum = usize::try_from(d.u64()?).map_err(|_| bad())?;
        Self::new(log_key, witnesses, quorum).map_err(|_| bad())
    }
}

/// A checkpoint that the log signed and a quorum of witnesses cosigned. Only [`CheckpointPolicy::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedCheckpoint {
    checkpoint: Checkpoint,
    cosigned_at: Timestamp,
}

impl CosignedCheckpoint {
    /// What was signed.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The latest time at or after which a whole quorum of witnesses saw this as the log's newest state (by their clocks).
    #[must_use]
    pub const fn cosigned_at(&self) -> Timestamp {
        self.cosigned_at
    }
}

/// Verifies that `new` extends `old`: same log, not smaller, and the same leaves at its beginning.
///
/// # Errors
/// [`LogError::Origin`], [`LogError::RolledBack`], [`LogError::ProofLength`] or [`LogError::Inconsistent`].
pub fn verify_consistency(old: &Checkpoint, new: &Checkpoint, proof: &[Digest]) -> Result<(), LogError> {
    if old.origin != new.origin {
        return Err(LogError::Origin);
    }
    if new.size < old.size {
        return Err(LogError::RolledBack { seen: old.size, offered: new.size });
    }
    if proof.len() > MAX_PROOF_HASHES {
        return Err(LogError::ProofLength);
    }
    merkle::verify_consistency(old.size, &old.root, new.size, &new.root, proof).map_err(|error| match error {
        merkle::MerkleError::Length => LogError::ProofLength,
        merkle::MerkleError::Range | merkle::MerkleError::Root => LogError::Inconsistent,
    })
}
