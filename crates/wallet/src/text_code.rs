//! Bytes as text that survives paper: a prefix, base32 in upper case, four bytes of checksum.
//!
//! All of it is in the alphanumeric mode of QR codes, which keeps them small, and it can be typed or mailed where nothing can scan.

use data_encoding::BASE32_NOPAD;
use waybill_crypto::digest::sha256;

/// Longest text that is looked at: what the largest QR code holds. Units: bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 4296;
const CHECKSUM_BYTES: usize = 4;

/// One kind of text.
pub(crate) struct TextCode {
    /// How it begins; the digit is the version.
    pub prefix: &'static str,
    /// The same without the version.
    pub family: &'static str,
    /// Separates the checksums of the kinds.
    pub domain: &'static [u8],
}

/// Why a text is not of a kind. Never carries a character of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextError {
    Prefix,
    Version,
    TooLong,
    /// From 1, spaces not counted.
    Character(usize),
    Checksum,
}

impl TextCode {
    /// The text of some bytes.
    pub(crate) fn encode(&self, content: &[u8]) -> String {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&self.checksum(content));
        format!("{}{}", self.prefix, BASE32_NOPAD.encode(&bytes))
    }

    /// The bytes of a text in any case, with any spaces and line breaks.
    pub(crate) fn decode(&self, text: &str) -> Result<Vec<u8>, TextError> {
        // Spaces are for people and do not count; what is longer even without them is not looked at.
        let compact: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_ascii_uppercase())
            .take(MAX_TEXT_BYTES + 1)
            .collect();
        if compact.len() > MAX_TEXT_BYTES {
            return Err(TextError::TooLong);
        }
        let Some(encoded) = compact.strip_prefix(self.prefix) else {
            let newer = compact
                .strip_prefix(self.family)
                .is_some_and(|rest| rest.split_once(':').is_some_and(|(version, _)| version.parse::<u32>().is_ok()));
            return Err(if newer { TextError::Version } else { TextError::Prefix });
        };
        let bytes = BASE32_NOPAD.decode(encoded.as_bytes()).map_err(|error| match error.kind {
            data_encoding::DecodeKind::Symbol => TextError::Character(self.prefix.len() + error.position + 1),
            _ => TextError::Checksum,
        })?;
        let (content, check) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TextError::Checksum)?;
        if *check == self.checksum(content) { Ok(content.to_vec()) } else { Err(TextError::Checksum) }
    }

    fn checksum(&self, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let digest = sha256(&[self.domain, content]);
        [digest.0[0], digest.0[1], digest.0[2], digest.0[3]]
    }
}
