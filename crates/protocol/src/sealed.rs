//! Typed HPKE sealing (RFC 9180 base mode): the info string binds every ciphertext to what it is and whose it is.

use std::fmt;

use minicbor::{Decode, Encode};
use waybill_crypto::backend::{Backend, PrimitiveError, Sealed};
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, HpkePublicKey, HpkeSecretKey};

use crate::wire::to_cbor;

/// What a sealed message is: the first element of its HPKE info, so that no ciphertext can be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealPurpose {
    /// Registration request, bound to the hospital.
    Registration,
    /// Registration answer, bound to the request.
    RegistrationAnswer,
    /// Login request, bound to the hospital.
    Login,
    /// Login answer, bound to the request.
    LoginAnswer,
    /// Proof answer, bound to the delegation.
    ProofAnswer,
    /// Consent, bound to the source.
    Consent,
    /// Presentation, bound to the destination.
    Presentation,
    /// Identity claim, bound to the proof and the one-time key.
    IdentityClaim,
    /// Manifest, bound to the session.
    Manifest,
    /// Key lodgement (outer), bound to the proof.
    KeyLodgement,
    /// The record key (inner), bound to the manifest.
    RecordKey,
    /// The receipt for the source, bound to the manifest.
    ReceiptSource,
    /// The receipt for the patient, bound to the manifest.
    ReceiptPatient,
    /// A rejection's detail, bound to the session.
    RejectionDetail,
}

impl SealPurpose {
    /// Every purpose, in the order of the specification (section 3.3).
    pub const ALL: [Self; 14] = [
        Self::Registration,
        Self::RegistrationAnswer,
        Self::Login,
        Self::LoginAnswer,
        Self::ProofAnswer,
        Self::Consent,
        Self::Presentation,
        Self::IdentityClaim,
        Self::Manifest,
        Self::KeyLodgement,
        Self::RecordKey,
        Self::ReceiptSource,
        Self::ReceiptPatient,
        Self::RejectionDetail,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Registration => "waybill/1 registration",
            Self::RegistrationAnswer => "waybill/1 registration-answer",
            Self::Login => "waybill/1 login",
            Self::LoginAnswer => "waybill/1 login-answer",
            Self::ProofAnswer => "waybill/1 proof-answer",
            Self::Consent => "waybill/1 consent",
            Self::Presentation => "waybill/1 presentation",
            Self::IdentityClaim => "waybill/1 identity-claim",
            Self::Manifest => "waybill/1 manifest",
            Self::KeyLodgement => "waybill/1 key-lodgement",
            Self::RecordKey => "waybill/1 record-key",
            Self::ReceiptSource => "waybill/1 receipt-source",
            Self::ReceiptPatient => "waybill/1 receipt-patient",
            Self::RejectionDetail => "waybill/1 rejection-detail",
        }
    }

    /// The HPKE info: CBOR `[label, bound]`.
    fn info(self, bound: &[u8]) -> Vec<u8> {
        to_cbor(&(self.label(), minicbor::bytes::ByteVec::from(bound.to_vec())))
    }
}

/// An HPKE ciphertext on the wire: `[enc, ciphertext]`.
///
/// Bytes: enc 32, ciphertext = plaintext + 16.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SealedBytes {
    #[cbor(n(0), with = "minicbor::bytes")]
    enc: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    ciphertext: Vec<u8>,
}

impl SealedBytes {
    /// Seals `plaintext` to a key, for one purpose, bound to the ids it belongs to.
    ///
    /// # Errors
    /// [`PrimitiveError::Key`] for a key that is not a usable point.
    pub fn seal(
        backend: &dyn Backend,
        to: &HpkePublicKey,
        purpose: SealPurpose,
        bound: &[u8],
        plaintext: &[u8],
    ) -> Result<Self, PrimitiveError> {
        let Sealed { enc, ciphertext } = backend.seal(to, &purpose.info(bound), plaintext)?;
        Ok(Self { enc, ciphertext })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`PrimitiveError::Seal`] for another key, purpose or binding, and for any changed byte.
    pub fn open(
        &self,
        backend: &dyn Backend,
        key: &HpkeSecretKey,
        purpose: SealPurpose,
        bound: &[u8],
    ) -> Result<Vec<u8>, PrimitiveError> {
        let sealed = Sealed { enc: self.enc, ciphertext: self.ciphertext.clone() };
        backend.open(key, &purpose.info(bound), &sealed)
    }

    /// How large the ciphertext is. Units: bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.ciphertext.len()
    }

    /// SHA-256 over the sealed bytes ("hash of 3" is over these).
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&[&to_cbor(self)])
    }
}

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBytes({} bytes)", self.ciphertext.len())
    }
}
