//! Content addresses: the SHA-256 of the bytes they name.

use std::fmt;
use waybill_crypto::digest;

/// The name of an object: the SHA-256 of its bytes.
///
/// Bytes: 32; as text, 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 32]);

/// A text that is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object address is 64 lowercase hexadecimal digits")]
pub struct AddressError;

impl Address {
    /// Takes 32 bytes that are already known to be a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the text form; upper case is refused, so that one object has one name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(AddressError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| AddressError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// SHA-256 over bytes that arrive in pieces.
pub struct Hasher(digest::Hasher);

impl Hasher {
    /// An empty hash.
    pub fn new() -> Self {
        Self(digest::Hasher::new())
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The address of everything appended.
    pub fn finish(self) -> Address {
        Address(*self.0.finish().as_bytes())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sha256_and_round_trip() {
        let address = Address::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(address.to_string(), text);
        assert_eq!(Address::parse(text), Ok(address));
    }

    #[test]
    fn one_object_has_one_name() {
        assert_eq!(Address::parse(&Address::of(b"abc").to_string().to_uppercase()), Err(AddressError));
        assert_eq!(Address::parse("ba78"), Err(AddressError));
        assert_eq!(Address::parse(&"g".repeat(64)), Err(AddressError));
    }
}
