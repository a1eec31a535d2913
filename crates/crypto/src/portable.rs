//! The back end of vectors, simulation and browsers: RustCrypto, injected randomness, RFC 6979.
//!
//! Same seed and same calls in the same order give the same bytes.

use std::sync::{Mutex, PoisonError};

use aes_gcm::{Aes256Gcm, KeyInit as _, aead::AeadInOut as _};
use ed25519_dalek::Signer as _;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _, aead::AesGcm256, kdf::HkdfSha256};
use p256::ecdsa::signature::Verifier as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    backend::{Backend, PrimitiveError, Sealed},
    keys::{Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey, VerifyingKey},
};

type Kem = hpke::kem::X25519HkdfSha256;

/// RustCrypto over a seeded ChaCha20 generator.
pub struct Portable {
    rng: Mutex<ChaCha20Rng>,
}

impl Portable {
    /// Security: everything this back end draws follows from `seed`; outside tests and simulation it comes from the
    /// platform's secure source.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { rng: Mutex::new(ChaCha20Rng::from_seed(seed)) }
    }

    fn with_rng<T>(&self, draw: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        // A generator has no invariant that a panic elsewhere could have broken.
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Portable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Portable(redacted)")
    }
}

impl Backend for Portable {
    fn random(&self, out: &mut [u8]) {
        self.with_rng(|rng| rng.fill_bytes(out));
    }

    fn sign(&self, key: &SigningKey, message: &[u8]) -> Signature {
        let key = p256::ecdsa::SigningKey::from_slice(key.to_scalar_bytes().as_slice())
            .expect("a SigningKey holds a scalar in range");
        let signature: p256::ecdsa::Signature = key.sign(message);
        Signature(signature.to_bytes().into()).normalised()
    }

    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &Signature) -> Result<(), PrimitiveError> {
        if !signature.is_low_s() {
            return Err(PrimitiveError::Signature);
        }
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key.as_sec1()).map_err(|_| PrimitiveError::Key)?;
        let signature =
            p256::ecdsa::Signature::from_slice(signature.as_bytes()).map_err(|_| PrimitiveError::Signature)?;
        key.verify(message, &signature).map_err(|_| PrimitiveError::Signature)
    }

    fn generate_signing_key(&self) -> SigningKey {
        let mut seed = Zeroizing::new([0; 32]);
        self.random(seed.as_mut_slice());
        SigningKey::derive(&seed)
    }

    fn generate_hpke_key(&self) -> HpkeSecretKey {
        let mut secret = Zeroizing::new([0; 32]);
        self.random(secret.as_mut_slice());
        HpkeSecretKey::from_bytes(&secret)
    }

    fn seal(&self, to: &HpkePublicKey, info: &[u8], plaintext: &[u8]) -> Result<Sealed, PrimitiveError> {
        let to = <Kem as hpke::Kem>::PublicKey::from_bytes(to.as_bytes()).map_err(|_| PrimitiveError::Key)?;
        let (enc, ciphertext) = self
            .with_rng(|rng| {
                hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Kem>(
                    &OpModeS::Base,
                    &to,
                    info,
                    plaintext,
                    b"",
                    rng,
                )
            })
            .map_err(|_| PrimitiveError::Key)?;
        Ok(Sealed { enc: enc.to_bytes().into(), ciphertext })
    }

    fn open(&self, key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError> {
        let key =
            <Kem as hpke::Kem>::PrivateKey::from_bytes(key.to_bytes().as_slice()).map_err(|_| PrimitiveError::Seal)?;
        let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(&sealed.enc).map_err(|_| PrimitiveError::Seal)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(&OpModeR::Base, &key, &enc, info, &sealed.ciphertext, b"")
            .map_err(|_| PrimitiveError::Seal)
    }

    fn aead_seal(&self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; 16] {
        Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), aad, in_out.into())
            .expect("callers seal far less than 64 GiB at once")
            .into()
    }

    fn aead_open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), PrimitiveError> {
        let opened =
            Aes256Gcm::new(key.into()).decrypt_inout_detached(nonce.into(), aad, (&mut *in_out).into(), tag.into());
        opened.map_err(|_| {
            in_out.zeroize();
            PrimitiveError::Aead
        })
    }

    fn ed25519_sign(&self, key: &Ed25519SecretKey, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::SigningKey::from_bytes(&key.to_bytes()).sign(message).to_bytes()
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519PublicKey,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), PrimitiveError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| PrimitiveError::Signature)?;
        key.verify(message, &ed25519_dalek::Signature::from_bytes(signature)).map_err(|_| PrimitiveError::Signature)
    }
}
