//! Signed notes, their keys and signatures.
//!
//! Source: C2SP signed-note (Ed25519 type 0x01) and tlog-cosignature (`cosignature/v1`, type 0x04).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minicbor::{Decode, Encode};
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Ed25519PublicKey, Ed25519SecretKey};

use super::{LogError, MAX_NOTE_BYTES, MAX_SIGNATURES};
use crate::ids::Timestamp;

/// Longest key name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Longest raw signature of a line that is kept: key id, time, Ed25519 signature. Longer ones belong to algorithms not known here.
const MAX_SIGNATURE_BYTES: usize = 4 + 8 + 64;

/// The name of a log or a witness, for example `authority.example/log`.
///
/// Bytes: 1 to 128 of UTF-8 without white space, control characters and plus signs. Source: C2SP signed-note.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`LogError::Note`] when the text has another shape.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(bad) {
            return Err(LogError::Note("key name"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a note key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKeyKind {
    /// A log's key: Ed25519 over the note's text (type 0x01).
    Log,
    /// A witness' key: Ed25519 over a time and the note's text (`cosignature/v1`, type 0x04).
    Witness,
}

impl NoteKeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Log),
            0x04 => Some(Self::Witness),
            _ => None,
        }
    }
}

/// The public key of a log or a witness, with its name.
///
/// Bytes: as text `<name>+<key id, 8 hexadecimal digits>+<base64 of kind byte and key>` (the `vkey` of C2SP signed-note), in CBOR
/// that text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoteKey {
    name: KeyName,
    kind: NoteKeyKind,
    key: Ed25519PublicKey,
}

impl NoteKey {
    /// Names a public key.
    #[must_use]
    pub const fn new(name: KeyName, kind: NoteKeyKind, key: Ed25519PublicKey) -> Self {
        Self { name, kind, key }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> NoteKeyKind {
        self.kind
    }

    /// The key itself.
    #[must_use]
    pub const fn public_key(&self) -> &Ed25519PublicKey {
        &self.key
    }

    /// The first 4 bytes of SHA-256(name || 0A || kind || key). A hint only: never trusted without the signature.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        let digest = sha256(&[self.name.0.as_bytes(), b"\n", &[self.kind.byte()], self.key.as_bytes()]);
        [digest.0[0], digest.0[1], digest.0[2], digest.0[3]]
    }

    /// Finds this key's signature in a note and verifies it.
    ///
    /// Returns `None` when the note has no line of this key; otherwise the (latest) time a witness states, zero for a log's key.
    ///
    /// # Errors
    /// [`LogError::Signature`] when a line names this key and does not verify (C2SP signed-note: such a note is rejected).
    pub fn verify(&self, backend: &dyn Backend, note: &Note) -> Result<Option<Timestamp>, LogError> {
        let key_id = self.key_id();
        let mut verified = None;
        for line in note.signatures.iter().filter(|line| line.name == self.name && line.key_id == key_id) {
            let time = self.verify_line(backend, &note.text, line)?;
            verified = Some(verified.map_or(time, |earlier: Timestamp| earlier.max(time)));
        }
        Ok(verified)
    }

    fn verify_line(&self, backend: &dyn Backend, text: &str, line: &SignatureLine) -> Result<Timestamp, LogError> {
        let refused = || LogError::Signature(self.name.clone());
        match self.kind {
            NoteKeyKind::Log => {
                let signature: &[u8; 64] = line.signature.as_slice().try_into().map_err(|_| refused())?;
                backend.ed25519_verify(&self.key, text.as_bytes(), signature).map_err(|_| refused())?;
                Ok(Timestamp(0))
            }
            NoteKeyKind::Witness => {
                let (time, signature) = line.signature.split_first_chunk::<8>().ok_or_else(refused)?;
                let signature: &[u8; 64] = signature.try_into().map_err(|_| refused())?;
                let time = Timestamp(u64::from_be_bytes(*time));
                let message = cosigned_message(time, text);
                backend.ed25519_verify(&self.key, &message, signature).map_err(|_| refused())?;
                Ok(time)
            }
        }
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 33];
        bytes[0] = self.kind.byte();
        bytes[1..].copy_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.key_id()), STANDARD.encode(bytes))
    }
}

impl FromStr for NoteKey {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let bad = || LogError::Note("key");
        let mut parts = text.splitn(3, '+');
        let name = KeyName::parse(parts.next().ok_or_else(bad)?)?;
        let key_id = parts.next().ok_or_else(bad)?;
        let bytes = STANDARD.decode(parts.next().ok_or_else(bad)?).map_err(|_| bad())?;
        let (kind, key) = bytes.split_first().ok_or_else(bad)?;
        let kind = NoteKeyKind::from_byte(*kind).ok_or_else(bad)?;
        let key = Self { name, kind, key: Ed25519PublicKey::try_from(key).map_err(|_| bad())? };
        if hex::encode(key.key_id()) == key_id { Ok(key) } else { Err(LogError::Note("key id")) }
    }
}

impl<C> Encode<C> for NoteKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NoteKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(|_| minicbor::decode::Error::message("note key"))
    }
}

/// The secret key of a log or a witness. Security: `Debug` shows the public half only.
#[derive(Debug, Clone)]
pub struct NoteSigner {
    public: NoteKey,
    secret: Ed25519SecretKey,
}

impl NoteSigner {
    /// Names a secret key.
    #[must_use]
    pub fn new(name: KeyName, kind: NoteKeyKind, secret: Ed25519SecretKey) -> Self {
        Self { public: NoteKey::new(name, kind, *secret.public()), secret }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &NoteKey {
        &self.public
    }

    /// One signature line over the note's text, with its line feed; `now` is the time a witness states and a log does not use.
    #[must_use]
    pub fn sign(&self, backend: &dyn Backend, text: &str, now: Timestamp) -> String {
        let mut bytes = self.public.key_id().to_vec();
        match self.public.kind {
            NoteKeyKind::Log => bytes.extend(backend.ed25519_sign(&self.secret, text.as_bytes())),
            NoteKeyKind::Witness => {
                bytes.extend(now.0.to_be_bytes());
                bytes.extend(backend.ed25519_sign(&self.secret, &cosigned_message(now, text)));
            }
        }
        format!("\u{2014} {} {}\n", self.public.name, STANDARD.encode(bytes))
    }
}

/// What a witness signs. Source: C2SP tlog-cosignature.
fn cosigned_message(time: Timestamp, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {}\n{text}", time.0).into_bytes()
}

/// One signature of a note; not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine {
    name: KeyName,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

/// A parsed signed note; nothing about it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Parses a signed note.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] (checked first) or [`LogError::Note`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(LogError::TooLarge);
        }
        let all = std::str::from_utf8(bytes).map_err(|_| LogError::Note("not UTF-8"))?;
        if all.chars().any(|c| c < ' ' && c != '\n') {
            return Err(LogError::Note("control character"));
        }
        let cut = all.rfind("\n\n").ok_or(LogError::Note("no signatures"))?;
        let (text, lines) = (&all[..=cut], &all[cut + 2..]);
        if !lines.ends_with('\n') {
            return Err(LogError::Note("last line is not ended"));
        }
        let signatures = parse_signature_lines(lines)?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text that is signed, with its last line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Parses signature lines, each ended by a line feed: the end of a note, or a witness' answer.
fn parse_signature_lines(lines: &str) -> Result<Vec<SignatureLine>, LogError> {
    let mut signatures = Vec::new();
    for line in lines.split_terminator('\n') {
        if signatures.len() == MAX_SIGNATURES {
            return Err(LogError::TooLarge);
        }
        let bad = || LogError::Note("signature line");
        let (name, encoded) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')).ok_or_else(bad)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| bad())?;
        let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        if signature.is_empty() {
            return Err(bad());
        }
        let kept = if bytes.len() > MAX_SIGNATURE_BYTES { &[][..] } else { signature };
        signatures.push(SignatureLine { name: KeyName::parse(name)?, key_id: *key_id, signature: kept.to_vec() });
    }
    if signatures.is_empty() { Err(LogError::Note("no signatures")) } else { Ok(signatures) }
}

/// Puts signature lines under a text.
///
/// Bytes: the text, which ends with a line feed, an empty line, the lines.
#[must_use]
pub fn assemble(text: &str, lines: &[String]) -> Vec<u8> {
    let mut note = format!("{text}\n");
    for line in lines {
        note.push_str(line);
    }
    note.into_bytes()
}

/// Appends those lines of a witness' answer that are of that witness' key, whose signature the caller has verified.
///
/// # Errors
/// [`LogError`] when the answer is not signature lines only, or the result is no longer within bounds.
pub(super) fn append_signatures(note: &[u8], answer: &[u8], witness: &NoteKey) -> Result<Vec<u8>, LogError> {
    let answer = std::str::from_utf8(answer).map_err(|_| LogError::Note("not UTF-8"))?;
    let lines = parse_signature_lines(answer)?;
    let mut extended = note.to_vec();
    for (line, text) in lines.iter().zip(answer.split_inclusive('\n')) {
        if line.name == witness.name && line.key_id == witness.key_id() {
            extended.extend_from_slice(text.as_bytes());
        }
    }
    Note::parse(&extended)?;
    Ok(extended)
}
