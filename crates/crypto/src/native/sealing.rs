//! HPKE base mode, single shot (RFC 9180 section 6.1), for the one suite of the protocol.
//!
//! Written out over aws-lc's X25519 because the ready-made ones either parse the secret key again at every call or compute
//! in portable code; the RFC's vectors and the other back end hold it.

use aws_lc_rs::{
    aead::{Aad, Nonce},
    agreement::{UnparsedPublicKey, X25519, agree},
};
use zeroize::Zeroizing;

use super::cipher;
use crate::{
    backend::{PrimitiveError, Sealed},
    hkdf,
    keys::{HpkePublicKey, HpkeSecretKey},
};

/// "KEM" || DHKEM(X25519, HKDF-SHA256).
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
/// "HPKE" || DHKEM(X25519, HKDF-SHA256) || HKDF-SHA256 || AES-256-GCM.
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";
const VERSION: &[u8] = b"HPKE-v1";
const TAG_LEN: usize = 16;

/// LabeledExtract, RFC 9180 section 4.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
    hkdf::extract_parts(salt, &[VERSION, suite, label, ikm])
}

/// LabeledExpand, RFC 9180 section 4.
fn labeled_expand<const N: usize>(prk: &[u8; 32], suite: &[u8], label: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let length = (N as u16).to_be_bytes();
    hkdf::expand_parts(prk, &[&length, VERSION, suite, label, info])
}

/// The shared secret of Encap and Decap, RFC 9180 section 4.1; the agreement refuses an all-zero result (section 7.1.4).
fn shared_secret(
    secret: &HpkeSecretKey,
    peer: &[u8; 32],
    enc: &[u8; 32],
    recipient: &HpkePublicKey,
) -> Option<Zeroizing<[u8; 32]>> {
    let mut context = [0; 64];
    context[..32].copy_from_slice(enc);
    context[32..].copy_from_slice(recipient.as_bytes());
    agree(secret.parsed(), UnparsedPublicKey::new(&X25519, peer), (), |dh| {
        let prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh);
        Ok(labeled_expand(&prk, KEM_SUITE, b"shared_secret", &context))
    })
    .ok()
}

/// Key and first nonce, RFC 9180 section 5.1 with mode_base.
fn key_schedule(shared_secret: &[u8; 32], info: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 12]>) {
    let mut context = [0; 65];
    context[1..33].copy_from_slice(labeled_extract(SUITE, b"", b"psk_id_hash", b"").as_slice());
    context[33..].copy_from_slice(labeled_extract(SUITE, b"", b"info_hash", info).as_slice());
    let secret = labeled_extract(SUITE, shared_secret, b"secret", b"");
    (labeled_expand(&secret, SUITE, b"key", &context), labeled_expand(&secret, SUITE, b"base_nonce", &context))
}

/// Seals under a given ephemeral key, which must be fresh. The protocol's aad is empty; the RFC's vectors have one.
pub(super) fn seal(
    ephemeral: &HpkeSecretKey,
    to: &HpkePublicKey,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, PrimitiveError> {
    let enc = *ephemeral.public().as_bytes();
    let shared = shared_secret(ephemeral, to.as_bytes(), &enc, to).ok_or(PrimitiveError::Key)?;
    let (key, nonce) = key_schedule(&shared, info);
    let mut ciphertext = Vec::with_capacity(plaintext.len() + TAG_LEN);
    ciphertext.extend_from_slice(plaintext);
    cipher(&key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut ciphertext)
        .map_err(|_| PrimitiveError::Seal)?;
    Ok(Sealed { enc, ciphertext })
}

/// Opens what [`seal`] made.
pub(super) fn open(key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError> {
    let shared = shared_secret(key, &sealed.enc, &sealed.enc, key.public()).ok_or(PrimitiveError::Seal)?;
    let (key, nonce) = key_schedule(&shared, info);
    let mut plaintext = sealed.ciphertext.clone();
    let length = cipher(&key)
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut plaintext)
        .map_err(|_| PrimitiveError::Seal)?
        .len();
    plaintext.truncate(length);
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::parse_hex;

    fn key(text: &str) -> HpkeSecretKey {
        HpkeSecretKey::from_bytes(&parse_hex(text).unwrap())
    }

    /// RFC 9180's published vectors (test-vectors.json, mode 0, kem 32, kdf 1, aead 2, encryption 0).
    #[test]
    fn official_vector_of_our_suite() {
        let recipient =
            HpkePublicKey(parse_hex("ac66bae9ffa270cf4a89ed9f274e30c0456babae2572aaaf002ff0d8884ab018").unwrap());
        let ephemeral = key("28e212563a8b6f068af7ff17400ff1baf23612b7a738bbaf5dfb321b2b5b431a");
        let sealed =
            seal(&ephemeral, &recipient, b"Ode on a Grecian Urn", b"Count-0", b"Beauty is truth, truth beauty")
                .unwrap();
        assert_eq!(
            hex::encode(sealed.ciphertext),
            "23ded2d5d90ea89d975dac4792b297240f194952d7421aacbff0474100052b6bb8aa58d18ef6c42b6960e2e28f"
        );
    }

    /// RFC 9180 appendix A.1.1: the same KEM, seen from both sides.
    #[test]
    fn rfc_9180_a_1_1_shared_secret() {
        let recipient = key("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        assert_eq!(recipient.public().to_string(), "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d");
        let ephemeral = key("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736");
        let enc = ephemeral.public();
        assert_eq!(enc.to_string(), "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let expected = "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc";
        let sender =
            shared_secret(&ephemeral, recipient.public().as_bytes(), enc.as_bytes(), recipient.public()).unwrap();
        let receiver = shared_secret(&recipient, enc.as_bytes(), enc.as_bytes(), recipient.public()).unwrap();
        assert_eq!(hex::encode(*sender), expected);
        assert_eq!(hex::encode(*receiver), expected);
    }
}
