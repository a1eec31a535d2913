//! The messages, one file a phase. Each is a deterministic CBOR array; the order of its fields is the wire format.
//!
//! Source: docs/PROTOCOL.md section 5. Fields in bold there were found necessary by analysis: removing one gives a known attack.

mod consent;
mod delegation;
mod ending;
mod lodgement;
mod login;
mod manifest;
mod preview;
mod receipt;
mod registration;
mod transfer;

pub use consent::{Consent, Presentation, PresentationBody};
pub use delegation::{Delegation, DelegationBody, MigrationProof, ProofBundle, Terms};
pub use ending::{
    CaseStatement, EndState, Refusal, RefusalBody, Revocation, RevocationBody, RevocationReason, StatementBody,
};
pub use lodgement::{DeliveryBody, DeliveryReceipt, KeyLodgement, KeyRelease, LodgementBody, ReleaseBody};
pub use login::{LoginAnswer, LoginBody, LoginOutcome, LoginRequest, Purpose, Voucher, VoucherGrant};
pub use manifest::{Manifest, ManifestBody, ManifestPlain, TypeCount};
pub use preview::{Disclosure, HiddenItem, Item, KeptBack, PendingItems, Preview, SafetyWarning};
pub use receipt::{ImportReceipt, MAX_INNER_RECEIPT_BYTES, OutcomeClass, ReceiptBody, ReceiptDetail, ReceiptOpening};
pub use registration::{
    AuthorityStatement, AuthorityStatementBody, KeyChange, Limits, Registration, RegistrationAnswer, RegistrationBody,
    Relation,
};
pub use transfer::{Grant, GrantBody, Redeem, RedeemBody, Standing, TransferBody, TransferRequest};

use minicbor::{Decode, Encode};

use crate::wire::DecodeError;

/// The only cryptographic suite of version 1: ES256, DHKEM(X25519, HKDF-SHA256), AES-256-GCM, SHA-256.
pub const SUITE: u8 = 1;

/// The longest mailbox address. Units: bytes.
pub const MAX_MAILBOX_BYTES: usize = 512;

/// A certificate chain: leaf first, then the issuing certificate. DER.
///
/// Bytes: at most [`Chain::MAX_CERTIFICATES`] of [`Chain::MAX_CERTIFICATE_BYTES`] each.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
#[cbor(transparent)]
pub struct Chain(#[n(0)] pub Vec<minicbor::bytes::ByteVec>);

impl Chain {
    /// Leaf and issuing; a third leaves room for a cross-signed issuing certificate.
    pub const MAX_CERTIFICATES: usize = 3;
    /// Units: bytes.
    pub const MAX_CERTIFICATE_BYTES: usize = 4096;

    /// Wraps DER certificates, leaf first.
    pub fn new(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(certificates.into_iter().map(minicbor::bytes::ByteVec::from).collect())
    }

    /// The certificates as slices, when the chain has a plausible shape.
    ///
    /// # Errors
    /// [`DecodeError`] for an empty, too long or too large chain: bounded before anything is parsed.
    pub fn certificates(&self) -> Result<Vec<&[u8]>, DecodeError> {
        let plausible = !self.0.is_empty()
            && self.0.len() <= Self::MAX_CERTIFICATES
            && self.0.iter().all(|c| c.len() <= Self::MAX_CERTIFICATE_BYTES);
        if plausible {
            Ok(self.0.iter().map(|c| c.as_slice()).collect())
        } else {
            Err(DecodeError::Malformed("certificate chain"))
        }
    }
}

/// Refuses a suite other than [`SUITE`].
pub(crate) fn check_suite(suite: u8, what: &'static str) -> Result<(), DecodeError> {
    if suite == SUITE { Ok(()) } else { Err(DecodeError::Suite(what)) }
}

/// Refuses a mailbox address that is empty, too long, or not printable ASCII.
pub(crate) fn check_mailbox(address: &str, what: &'static str) -> Result<(), DecodeError> {
    let plausible = address.starts_with("https://")
        && address.len() <= MAX_MAILBOX_BYTES
        && address.bytes().all(|b| b.is_ascii_graphic());
    if plausible { Ok(()) } else { Err(DecodeError::Malformed(what)) }
}
