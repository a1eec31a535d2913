//! A witness as a pure state machine, and the log's side of the exchange.
//!
//! A witness remembers, for one log, the newest checkpoint it cosigned, and cosigns another only if that one extends it. The caller
//! keeps the state and must make the new one durable, by compare-and-swap against the old, *before* the cosignature leaves.
//! Source: C2SP tlog-witness, `add-checkpoint`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::Digest;
use waybill_crypto::merkle;

use super::checkpoint::{Checkpoint, open_signed, parse_size};
use super::note::{self, KeyName, Note, NoteKey, NoteSigner};
use super::{LogError, MAX_NOTE_BYTES, MAX_PROOF_HASHES};
use crate::ids::Timestamp;

/// The largest `add-checkpoint` body: the size line, the proof, an empty line, the note.
pub const MAX_ADD_CHECKPOINT_BYTES: usize = 32 + MAX_PROOF_HASHES * 45 + MAX_NOTE_BYTES;

/// The content type of a 409 answer, whose body is the witness' size.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// What a witness remembers of one log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct WitnessState {
    /// Leaves of the newest cosigned checkpoint.
    #[n(0)]
    pub size: u64,
    /// Its root.
    #[n(1)]
    pub root: Digest,
}

impl Default for WitnessState {
    fn default() -> Self {
        Self { size: 0, root: merkle::empty_root() }
    }
}

/// A parsed `add-checkpoint` request; nothing about it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the log believes the witness has.
    pub old_size: u64,
    /// Consistency proof from there.
    pub proof: Vec<Digest>,
    /// The new signed checkpoint.
    pub note: Vec<u8>,
}

impl AddCheckpoint {
    /// The body of the request.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            head.push_str(&STANDARD.encode(hash.as_bytes()));
            head.push('\n');
        }
        head.push('\n');
        [head.as_bytes(), &self.note].concat()
    }

    /// Parses the body of a request.
    ///
    /// # Errors
    /// [`WitnessRefusal::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, WitnessRefusal> {
        let bad = |what| WitnessRefusal::Malformed(LogError::Malformed(what));
        if body.len() > MAX_ADD_CHECKPOINT_BYTES {
            return Err(WitnessRefusal::Malformed(LogError::TooLarge));
        }
        let cut = body.windows(2).position(|pair| pair == b"\n\n").ok_or_else(|| bad("request"))?;
        let head = std::str::from_utf8(&body[..cut]).map_err(|_| bad("request"))?;
        let mut lines = head.split('\n');
        let size = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_size);
        let old_size = size.ok_or_else(|| bad("old size"))?;
        let mut proof = Vec::new();
        for line in lines {
            let hash = STANDARD.decode(line).ok().and_then(|bytes| Digest::try_from(bytes.as_slice()).ok());
            proof.push(hash.ok_or_else(|| bad("proof"))?);
            if proof.len() > MAX_PROOF_HASHES {
                return Err(WitnessRefusal::Malformed(LogError::ProofLength));
            }
        }
        Ok(Self { old_size, proof, note: body[cut + 2..].to_vec() })
    }

    /// Which log the request says it is of, so that the caller can load that log's key and state.
    ///
    /// # Errors
    /// [`WitnessRefusal::Malformed`].
    pub fn origin(&self) -> Result<KeyName, WitnessRefusal> {
        let note = Note::parse(&self.note).map_err(WitnessRefusal::Malformed)?;
        Ok(Checkpoint::parse(note.text()).map_err(WitnessRefusal::Malformed)?.origin)
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WitnessRefusal {
    /// The request has another form.
    #[error("the request is malformed")]
    Malformed(#[source] LogError),
    /// A log this witness does not know.
    #[error("this log is not known here")]
    UnknownLog,
    /// Not signed by the log's key.
    #[error("the checkpoint is not signed by the log")]
    Unsigned(#[source] LogError),
    /// The old size is larger than the checkpoint's.
    #[error("the old size is larger than the checkpoint's")]
    Backwards,
    /// The witness remembers another size. The log asks again from there, or has lost leaves.
    #[error("the witness has seen {0} leaves")]
    Stale(u64),
    /// The same size with another root: the log shows two histories.
    #[error("another root at the same size of {0} leaves")]
    Forked(u64),
    /// The checkpoint is not shown to extend what the witness has seen.
    #[error("the checkpoint does not extend the one cosigned before")]
    Inconsistent(#[source] LogError),
}

impl WitnessRefusal {
    /// The HTTP status that C2SP tlog-witness gives to this refusal.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Backwards => 400,
            Self::UnknownLog => 404,
            Self::Unsigned(_) => 403,
            Self::Stale(_) | Self::Forked(_) => 409,
            Self::Inconsistent(_) => 422,
        }
    }

    /// The body of a 409 answer: the witness' size and a line feed, under [`SIZE_CONTENT_TYPE`].
    #[must_use]
    pub fn size_body(&self) -> Option<String> {
        match self {
            Self::Stale(size) | Self::Forked(size) => Some(format!("{size}\n")),
            _ => None,
        }
    }
}

/// A decision to cosign: first make `state` durable, then answer `line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// What the witness must remember from now on.
    pub state: WitnessState,
    /// The cosignature line, the body of the 200 answer.
    pub line: String,
}

/// Decides about one `add-checkpoint` request. Checks in the order of C2SP tlog-witness.
///
/// `log_key` is the key known for the request's origin; a caller who knows none answers [`WitnessRefusal::UnknownLog`].
///
/// # Errors
/// [`WitnessRefusal`]; the state does not change.
pub fn handle_add_checkpoint(
    state: &WitnessState,
    log_key: &NoteKey,
    request: &AddCheckpoint,
    now: Timestamp,
    signer: &NoteSigner,
    backend: &dyn Backend,
) -> Result<Cosigned, WitnessRefusal> {
    let (checkpoint, note) = open_signed(backend, log_key, &request.note).map_err(|error| match error {
        LogError::Origin => WitnessRefusal::UnknownLog,
        LogError::Unsigned | LogError::Signature(_) => WitnessRefusal::Unsigned(error),
        other => WitnessRefusal::Malformed(other),
    })?;
    // MUST: "If the old size is larger than the checkpoint size, 400".
    if request.old_size > checkpoint.size {
        return Err(WitnessRefusal::Backwards);
    }
    // MUST: "The witness MUST check that the old size matches the size of the latest checkpoint it cosigned", else 409.
    if request.old_size != state.size {
        return Err(WitnessRefusal::Stale(state.size));
    }
    // MUST: same size, other root: 409.
    if checkpoint.size == state.size && checkpoint.root != state.root {
        return Err(WitnessRefusal::Forked(state.size));
    }
    // MUST: the proof verifies, else 422.
    let old = Checkpoint { origin: checkpoint.origin.clone(), size: state.size, root: state.root };
    super::verify_consistency(&old, &checkpoint, &request.proof).map_err(WitnessRefusal::Inconsistent)?;
    let line = signer.sign(backend, note.text(), now);
    Ok(Cosigned { state: WitnessState { size: checkpoint.size, root: checkpoint.root }, line })
}

/// The log's side: appends a witness' 200 answer to the note it was asked about, keeping it only if it is that witness' cosignature.
///
/// # Errors
/// [`LogError`]; a witness that answers nonsense must not spoil the note for the others.
pub fn accept_cosignature(
    backend: &dyn Backend,
    witness: &NoteKey,
    note: &[u8],
    answer: &[u8],
) -> Result<Vec<u8>, LogError> {
    let text = Note::parse(note)?.text().to_owned();
    let alone = Note::parse(&[text.as_bytes(), b"\n", answer].concat())?;
    if witness.verify(backend, &alone)?.is_none() {
        return Err(LogError::Quorum { found: 0, needed: 1 });
    }
    note::append_signatures(note, answer, witness)
}

/// The log's side: reads the size from a witness' 409 answer and compares it with the log's own.
///
/// Returns the size from which to prove consistency and ask again.
///
/// # Errors
/// [`LogError::RolledBack`] when the witness has seen more leaves than the log has: the log was restored from an old copy and must
/// refuse to serve; [`LogError::Malformed`] when the answer is no size.
pub fn judge_conflict(own_size: u64, answer: &[u8]) -> Result<u64, LogError> {
    let text = std::str::from_utf8(answer).ok().and_then(|text| text.strip_suffix('\n'));
    let seen = text.and_then(parse_size).ok_or(LogError::Malformed("size"))?;
    if seen > own_size { Err(LogError::RolledBack { seen, offered: own_size }) } else { Ok(seen) }
}
