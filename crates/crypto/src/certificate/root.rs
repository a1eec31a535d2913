//! The P-384 key of the offline root: the one key of this curve, used some few times in its life.
//!
//! With the `native` feature aws-lc computes; without it RustCrypto's `p384` does, with the deterministic nonces of RFC 6979.

use std::fmt;

use zeroize::Zeroizing;

use crate::backend::{Backend, PrimitiveError};

/// The public key of a root.
///
/// Bytes: SEC1 uncompressed, 97 (04 || x || y).
#[derive(Clone, PartialEq, Eq)]
pub struct RootPublicKey([u8; 97]);

impl RootPublicKey {
    /// Parses the uncompressed SEC1 form.
    ///
    /// # Errors
    /// [`PrimitiveError::Key`] for another length or form, or a point off the curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, PrimitiveError> {
        let sec1: [u8; 97] = bytes.try_into().map_err(|_| PrimitiveError::Key)?;
        if sec1[0] != 4 || p384::PublicKey::from_sec1_bytes(&sec1).is_err() {
            return Err(PrimitiveError::Key);
        }
        Ok(Self(sec1))
    }

    /// The uncompressed SEC1 form.
    #[must_use]
    pub const fn as_sec1(&self) -> &[u8; 97] {
        &self.0
    }

    /// Verifies ECDSA with SHA-384, the signature in DER.
    ///
    /// # Errors
    /// [`PrimitiveError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), PrimitiveError> {
        #[cfg(feature = "native")]
        {
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1, self.0)
                .verify(message, signature)
                .map_err(|_| PrimitiveError::Signature)
        }
        #[cfg(not(feature = "native"))]
        {
            self.verify_portable(message, signature)
        }
    }

    #[cfg(any(test, not(feature = "native")))]
    pub(super) fn verify_portable(&self, message: &[u8], signature: &[u8]) -> Result<(), PrimitiveError> {
        use p384::ecdsa::signature::Verifier as _;

        let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| PrimitiveError::Key)?;
        let signature = p384::ecdsa::Signature::from_der(signature).map_err(|_| PrimitiveError::Signature)?;
        key.verify(message, &signature).map_err(|_| PrimitiveError::Signature)
    }
}

impl fmt::Debug for RootPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootPublicKey({})", hex::encode(self.0))
    }
}

/// The secret key of a root.
///
/// Security: redacted in `Debug`, wiped on drop; belongs on a machine without a network, in use only while it signs.
#[derive(Clone)]
pub struct RootKey {
    scalar: Zeroizing<[u8; 48]>,
    public: RootPublicKey,
}

impl RootKey {
    /// A fresh key from the back end's generator.
    #[must_use]
    pub fn generate(backend: &dyn Backend) -> Self {
        let mut scalar = Zeroizing::new([0; 48]);
        loop {
            backend.random(&mut *scalar);
            if let Ok(key) = Self::from_scalar_bytes(&scalar) {
                return key;
            }
        }
    }

    /// Takes the secret scalar, 48 bytes big-endian.
    ///
    /// # Errors
    /// [`PrimitiveError::Key`] unless it lies in 1..n.
    pub fn from_scalar_bytes(scalar: &[u8; 48]) -> Result<Self, PrimitiveError> {
        let secret = p384::SecretKey::from_slice(scalar).map_err(|_| PrimitiveError::Key)?;
        let public = RootPublicKey::from_sec1(&secret.public_key().to_sec1_bytes())?;
        Ok(Self { scalar: Zeroizing::new(*scalar), public })
    }

    /// The secret scalar, 48 bytes big-endian. Security: for sealed storage only.
    #[must_use]
    pub fn to_scalar_bytes(&self) -> Zeroizing<[u8; 48]> {
        self.scalar.clone()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &RootPublicKey {
        &self.public
    }

    /// Signs with ECDSA and SHA-384; the signature in DER.
    ///
    /// # Errors
    /// [`PrimitiveError::Key`] when the library refuses, which it does not for a key that was made here.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PrimitiveError> {
        #[cfg(feature = "native")]
        {
            use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};

            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                self.scalar.as_slice(),
                &self.public.0,
            )
            .map_err(|_| PrimitiveError::Key)?;
            let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), message);
            Ok(signature.map_err(|_| PrimitiveError::Key)?.as_ref().to_vec())
        }
        #[cfg(not(feature = "native"))]
        {
            self.sign_portable(message)
        }
    }

    #[cfg(any(test, not(feature = "native")))]
    pub(super) fn sign_portable(&self, message: &[u8]) -> Result<Vec<u8>, PrimitiveError> {
        use p384::ecdsa::signature::Signer as _;

        let key = p384::ecdsa::SigningKey::from_slice(self.scalar.as_slice()).map_err(|_| PrimitiveError::Key)?;
        let signature: p384::ecdsa::DerSignature = key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(redacted)")
    }
}
