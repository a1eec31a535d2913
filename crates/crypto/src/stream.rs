//! The sealed stream: a record as chunks that each verify on arrival.
//!
//! One AES pass and one SHA-256 pass a chunk; nothing here grows with the stream but one hash a tree level. Source: PROTOCOL section 5,
//! "Stream".

use std::{fmt, ops::Range};

use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    backend::Backend,
    digest::{Digest, sha256},
    encoding::secret_newtype,
    hkdf,
};

/// The Merkle tree over chunks: append leaf by leaf, memory O(log n).
pub use crate::merkle::TreeBuilder as MerkleBuilder;
/// The Merkle root over leaves in memory; node = SHA-256(01 || left || right), RFC 6962 shape.
pub use crate::merkle::root as merkle_root;

/// Plaintext bytes of every chunk but the last, which has 0 to this many.
pub const CHUNK_SIZE: usize = 1 << 20;
/// Length of the AES-GCM tag.
pub const TAG_LEN: usize = 16;
/// Length of what precedes the ciphertext in a blob.
pub const HEADER_LEN: usize = 13;
/// Length of the longest blob.
pub const MAX_BLOB_LEN: usize = HEADER_LEN + CHUNK_SIZE + TAG_LEN;
/// The most chunks one key seals.
pub const MAX_CHUNKS: u64 = 1 << 32;

secret_newtype! {
    /// K, the key of one staged record. Security: a re-export of a changed record takes a fresh one, never the same nonces.
    RecordKey
}

/// A chunk was not sealed or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// A chunk index of 2^32 or above.
    #[error("the stream has more than 2^32 chunks")]
    TooManyChunks,
    /// A plaintext above [`CHUNK_SIZE`], or below it in a chunk that is not the last.
    #[error("the chunk has a length that its place does not allow")]
    Length,
    /// The header names another format, index or length.
    #[error("the chunk's header does not fit its place in the stream")]
    Header,
    /// The ciphertext was not sealed under this key for this session, index and last flag.
    #[error("the chunk does not open")]
    Seal,
}

/// What seals one stream.
///
/// PRK = HKDF-Extract(salt = session, K), expanded with "waybill/1 key" (32), "waybill/1 iv" (12), "waybill/1 commit" (32).
/// Security: redacted in `Debug`, wiped on drop.
#[derive(Clone)]
pub struct StreamKeys {
    key: Zeroizing<[u8; 32]>,
    iv: [u8; 12],
    commitment: Digest,
}

impl StreamKeys {
    /// Derives the keys of a session's stream.
    #[must_use]
    pub fn derive(session: &Digest, record_key: &RecordKey) -> Self {
        let prk = hkdf::extract(session.as_bytes(), record_key.expose());
        Self {
            key: hkdf::expand(&prk, b"waybill/1 key"),
            iv: *hkdf::expand(&prk, b"waybill/1 iv"),
            commitment: Digest(*hkdf::expand(&prk, b"waybill/1 commit")),
        }
    }

    /// Commits to K and session.
    ///
    /// Security: AES-GCM alone does not commit to its key: one ciphertext can be made that opens under two. The manifest carries
    /// this value, and a receiver that compares it is sure of the one key.
    #[must_use]
    pub const fn commitment(&self) -> Digest {
        self.commitment
    }

    /// Whether these are the keys that were committed to, compared in constant time.
    #[must_use]
    pub fn match_commitment(&self, committed: &Digest) -> bool {
        self.commitment.0.ct_eq(&committed.0).into()
    }

    fn nonce(&self, index: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}

impl Drop for StreamKeys {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl fmt::Debug for StreamKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKeys(redacted, commitment {})", self.commitment)
    }
}

/// A sealed chunk, as it lies in stores and travels.
///
/// Bytes: 00 || index (8, big-endian) || length of ciphertext and tag (4, big-endian) || ciphertext || tag (16). Their SHA-256 is
/// both the leaf of the Merkle tree and the address of the blob.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    bytes: Vec<u8>,
    leaf: Digest,
}

impl Blob {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Leaf hash and address.
    #[must_use]
    pub const fn leaf(&self) -> Digest {
        self.leaf
    }

    /// The bytes, moved out.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes, leaf {})", self.bytes.len(), self.leaf)
    }
}

/// session (32) || index (8, big-endian) || 1 if last, else 0.
fn additional_data(session: &Digest, index: u64, last: bool) -> [u8; 41] {
    let mut aad = [0; 41];
    aad[..32].copy_from_slice(session.as_bytes());
    aad[32..40].copy_from_slice(&index.to_be_bytes());
    aad[40] = u8::from(last);
    aad
}

fn header(index: u64, sealed_len: usize) -> [u8; HEADER_LEN] {
    let length = u32::try_from(sealed_len).expect("a sealed chunk is little longer than 1 MiB");
    let mut header = [0; HEADER_LEN];
    header[1..9].copy_from_slice(&index.to_be_bytes());
    header[9..].copy_from_slice(&length.to_be_bytes());
    header
}

/// Only the last chunk may be short, so that every stream has one cutting and a missing end shows.
const fn check_place(index: u64, last: bool, plaintext_len: usize) -> Result<(), StreamError> {
    if index >= MAX_CHUNKS {
        return Err(StreamError::TooManyChunks);
    }
    if plaintext_len > CHUNK_SIZE || (!last && plaintext_len < CHUNK_SIZE) {
        return Err(StreamError::Length);
    }
    Ok(())
}

/// Seals the plaintext in `buf` as chunk `index`; an empty stream is one empty last chunk.
///
/// `buf` is left empty. A buffer with a capacity of [`MAX_BLOB_LEN`] is sealed where it lies.
///
/// Errors: [`StreamError::TooManyChunks`], [`StreamError::Length`]. Security: never seal two plaintexts for one key and index; the
/// caller persists what it sealed before any byte leaves.
pub fn seal_chunk(
    backend: &dyn Backend,
    keys: &StreamKeys,
    session: &Digest,
    index: u64,
    last: bool,
    buf: &mut Vec<u8>,
) -> Result<Blob, StreamError> {
    check_place(index, last, buf.len())?;
    let mut bytes = std::mem::take(buf);
    let length = bytes.len();
    bytes.reserve_exact(HEADER_LEN + TAG_LEN);
    bytes.splice(..0, header(index, length + TAG_LEN));
    let aad = additional_data(session, index, last);
    let tag = backend.aead_seal(&keys.key, &keys.nonce(index), &aad, &mut bytes[HEADER_LEN..]);
    bytes.extend_from_slice(&tag);
    let leaf = leaf(&bytes);
    Ok(Blob { bytes, leaf })
}

/// The leaf of a blob, and its address: SHA-256 of its bytes, whose first byte 00 keeps it apart from a tree node.
#[must_use]
pub fn leaf(blob: &[u8]) -> Digest {
    sha256(&[blob])
}

/// Opens chunk `index` in place and says where in `blob` the plaintext lies.
///
/// Errors: [`StreamError`]; on [`StreamError::Seal`] the ciphertext is wiped. Security: checks what a holder of the key can check; that the
/// blob is the one of the signed manifest is for its leaf and the Merkle root to show, before this is called.
pub fn open_chunk_range(
    backend: &dyn Backend,
    keys: &StreamKeys,
    session: &Digest,
    index: u64,
    last: bool,
    blob: &mut [u8],
) -> Result<Range<usize>, StreamError> {
    let sealed_len = blob.len().checked_sub(HEADER_LEN).ok_or(StreamError::Header)?;
    let length = sealed_len.checked_sub(TAG_LEN).ok_or(StreamError::Header)?;
    check_place(index, last, length)?;
    if blob[..HEADER_LEN] != header(index, sealed_len) {
        return Err(StreamError::Header);
    }
    let range = HEADER_LEN..HEADER_LEN + length;
    let tag = blob[range.end..].try_into().expect("what is left is the tag");
    let aad = additional_data(session, index, last);
    backend
        .aead_open(&keys.key, &keys.nonce(index), &aad, &mut blob[range.clone()], &tag)
        .map_err(|_| StreamError::Seal)?;
    Ok(range)
}

/// Opens chunk `index` in place and returns the plaintext; see [`open_chunk_range`].
///
/// Errors: [`StreamError`].
pub fn open_chunk<'b>(
    backend: &dyn Backend,
    keys: &StreamKeys,
    session: &Digest,
    index: u64,
    last: bool,
    blob: &'b mut [u8],
) -> Result<&'b [u8], StreamError> {
    let range = open_chunk_range(backend, keys, session, index, last, blob)?;
    Ok(&blob[range])
}

/// The padded length of `len` bytes: Padmé (Nikitin et al., PETS 2019), which leaks O(log log len) bits for at most 12 % overhead.
#[must_use]
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    // Bits that a length may keep: as many as it takes to write the exponent.
    let kept = exponent.checked_ilog2().map_or(0, |bits| bits + 1);
    let mask = (1_u64 << (exponent - kept.min(exponent))) - 1;
    // Saturates only for lengths near 2^64, which no stream has.
    len.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests;
