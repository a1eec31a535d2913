//! The one door to the primitives that need keys or randomness, and its types.
//!
//! Everything above this crate asks a [`Backend`]; there are two, [`crate::native`] for servers and [`crate::portable`] for
//! vectors, simulation and browsers, and a differential test holds them equal on every operation.

use thiserror::Error;

use crate::keys::{
    Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey, VerifyingKey,
};

/// A primitive refused its input. Says only which primitive: the reasons would be an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PrimitiveError {
    /// ECDSA or Ed25519 verification failed, or the signature has a high `s` (see [`Signature`]).
    #[error("the signature does not verify")]
    Signature,
    /// A key is not a valid point or scalar of its group.
    #[error("the key is malformed")]
    Key,
    /// An HPKE ciphertext does not open under this key and info.
    #[error("the sealed message does not open")]
    Seal,
    /// An AEAD ciphertext does not open under this key, nonce and additional data.
    #[error("the ciphertext does not open")]
    Aead,
}

/// An HPKE ciphertext (RFC 9180 base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Encapsulated key, 32 bytes.
    pub enc: [u8; 32],
    /// Ciphertext followed by the 16-byte tag.
    pub ciphertext: Vec<u8>,
}

/// The primitives, object-safe, so that one value serves as both algorithm provider and source of randomness.
pub trait Backend: Send + Sync {
    /// Fills `out` with random bytes (operating system in `native`, the injected generator in `portable`).
    fn random(&self, out: &mut [u8]);
    /// ES256 over SHA-256(message), low-s normalised.
    fn sign(&self, key: &SigningKey, message: &[u8]) -> Signature;
    /// Verifies ES256; refuses high-s.
    fn verify(&self, key: &VerifyingKey, message: &[u8], signature: &Signature) -> Result<(), PrimitiveError>;
    /// A fresh P-256 key.
    fn generate_signing_key(&self) -> SigningKey;
    /// A fresh X25519 HPKE key.
    fn generate_hpke_key(&self) -> HpkeSecretKey;
    /// HPKE base mode, single shot, empty aad.
    fn seal(&self, to: &HpkePublicKey, info: &[u8], plaintext: &[u8]) -> Result<Sealed, PrimitiveError>;
    /// Opens what [`Backend::seal`] made.
    fn open(&self, key: &HpkeSecretKey, info: &[u8], sealed: &Sealed) -> Result<Vec<u8>, PrimitiveError>;
    /// AES-256-GCM in place; returns the 16-byte tag.
    fn aead_seal(&self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; 16];
    /// AES-256-GCM in place; on error `in_out` holds no plaintext.
    fn aead_open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), PrimitiveError>;
    /// Ed25519 (log checkpoints, witness cosignatures).
    fn ed25519_sign(&self, key: &Ed25519SecretKey, message: &[u8]) -> [u8; 64];
    /// Ed25519 verification.
    fn ed25519_verify(
        &self,
        key: &Ed25519PublicKey,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), PrimitiveError>;
}
