//! The back end of servers: aws-lc.

mod sealing;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    encoding::AsBigEndian as _,
    rand::{self, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, UnparsedPublicKey},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    backend::{Backend, PrimitiveError, Sealed},
    keys::{Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey, VerifyingKey},
};

/// aws-lc, with the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

/// AES-256-GCM under `key`.
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"))
}

impl Backend for Native {
    fn random(&self, out: &mut [u8]) {
        rand::fill(out).expect("the operating system has randomness");
    }

    fn sign(&self, key: &SigningKey, message: &[u8]) -> Signature {
        let signature =
            key.pair().sign(&SystemRandom::new(), message).expect("a parsed key signs whatever the message is");
        Signature::try_from(signature.as_ref()).expect("a fixed P-256 signature has 64 bytes").normalised()
    }

    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &Signature) -> Result<(), PrimitiveError> {
        if !signature.is_low_s() {
            return Err(PrimitiveError::Signature);
        }
        key.parsed().verify_sig(message, signature.as_bytes()).map_err(|_| PrimitiveError::Signature)
    }

    fn generate_signing_key(&self) -> SigningKey {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("the operating system has randomness");
        let scalar = pair.private_key().as_be_bytes().expect("a generated key has a scalar");
        let scalar = Zeroizing::new(scalar.as_ref().try_into().expect("a P-256 scalar has 32 bytes"));
        SigningKey::from_pair(scalar, pair).expect("a generated key lies on the curve")
    }

    fn generate_hpke_key(&self) -> HpkeSecretKey {
        let mut secret = Zeroizing::new([0; 32]);
        self.random(secret.as_mut_slice());
        HpkeSecretKey::from_bytes(&secret)
    }

    fn seal(&self, to: &HpkePublicKey, info: &[u8], plaintext: &[u8]) -> Result<Sealed, PrimitiveError> {
        sealing::seal(&self.generate_hpke_key(), to, info, b"", plaintext)
    }

    fn open(&self, key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError> {
        sealing::open(key, info, sealed)
    }

    fn aead_seal(&self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; 16] {
        cipher(key)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), in_out)
            .expect("callers seal far less than 64 GiB at once")
            .as_ref()
            .try_into()
            .expect("a GCM tag has 16 bytes")
    }

    fn aead_open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), PrimitiveError> {
        let opened = cipher(key)
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), tag, in_out)
            .is_ok();
        if !opened {
            in_out.zeroize();
            return Err(PrimitiveError::Aead);
        }
        Ok(())
    }

    fn ed25519_sign(&self, key: &Ed25519SecretKey, message: &[u8]) -> [u8; 64] {
        key.pair().sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519PublicKey,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), PrimitiveError> {
        UnparsedPublicKey::new(&ED25519, key.as_bytes())
            .verify(message, signature)
            .map_err(|_| PrimitiveError::Signature)
    }
}
