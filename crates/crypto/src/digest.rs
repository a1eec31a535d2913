//! SHA-256 and its newtype.

use sha2::{Digest as _, Sha256};

use crate::encoding::byte_newtype;

byte_newtype! {
    /// A SHA-256 value: identity of a message, address of a blob, root of a tree.
    Digest, 32
}

/// SHA-256 of the concatenation of `parts`.
///
/// Security: a concatenation is not injective; callers hash CBOR or fixed-length parts.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut state = Sha256::new();
    for part in parts {
        state.update(part);
    }
    Digest(state.finalize().into())
}

/// An incremental SHA-256, for what does not lie in memory at once.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// An empty hash.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_matches_fips_180_4_and_ignores_how_the_input_is_cut() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"abc"]).to_string(), expected);
        assert_eq!(sha256(&[b"a", b"", b"bc"]).to_string(), expected);
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish().to_string(), expected);
    }

    #[test]
    fn digest_reads_back_from_hex_and_cbor_and_refuses_other_lengths() {
        let digest = sha256(&[b"x"]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("00".parse::<Digest>().is_err());
        let cbor = minicbor::to_vec(digest).unwrap();
        assert_eq!(cbor[..2], [0x58, 32]);
        assert_eq!(minicbor::decode::<Digest>(&cbor).unwrap(), digest);
        assert!(minicbor::decode::<Digest>(&[0x41, 0]).is_err());
        // The same bytes in an indefinite-length string.
        let indefinite = [&[0x5f], cbor.as_slice(), &[0xff]].concat();
        assert!(minicbor::decode::<Digest>(&indefinite).is_err());
    }
}
