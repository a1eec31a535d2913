//! HKDF-SHA256 (RFC 5869).

use ::hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroizing;

/// HKDF-Extract: 32 bytes of key from `ikm`, salted.
#[must_use]
pub fn extract(salt: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
    extract_parts(salt, &[ikm])
}

/// HKDF-Extract of the concatenation of `parts`.
#[must_use]
pub fn extract_parts(salt: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut state = HkdfExtract::<Sha256>::new(Some(salt));
    for part in parts {
        state.input_ikm(part);
    }
    Zeroizing::new(state.finalize().0.into())
}

/// HKDF-Expand of a uniformly random 32-byte key to `N` bytes.
#[must_use]
pub fn expand<const N: usize>(prk: &[u8; 32], info: &[u8]) -> Zeroizing<[u8; N]> {
    expand_parts(prk, &[info])
}

/// HKDF-Expand with the concatenation of `info` as its info.
#[must_use]
pub fn expand_parts<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "RFC 5869 section 2.3: L <= 255 * HashLen") };
    let mut out = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::from_prk(prk)
        .expect("a PRK of HashLen bytes is long enough")
        .expand_multi_info(info, out.as_mut_slice())
        .expect("the length was checked at compile time");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_5869_test_case_1() {
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let prk = extract(&salt, &[0x0b; 22]);
        assert_eq!(hex::encode(*prk), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let okm = expand::<42>(&prk, &hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap());
        assert_eq!(
            hex::encode(*okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }
}
