//! X.509 certificates of the network: six exact profiles, requests, issuing, revocation, and chains of fixed shape.
//!
//! A chain is always root, issuing, leaf. DER is read and written by `x509-cert` and `der`; what a certificate must look like is
//! decided by [`lint`], which both the issuer asks (about a twin signed by a throwaway key, before the real key signs) and every
//! verifier. Path validation is our own because the shape is fixed, usages are private, and each refusal is a type; a test holds
//! it beside the path validation of rustls.
//!
//! - [`profile`]: who may use a key for what
//! - [`issue`]: certificates; [`request`]: certificate requests; [`revocation`]: revocation lists
//! - [`chain`]: from bytes to a [`VerifiedCertificate`]
//! - [`root`]: the P-384 key of the offline root
//! - [`files`]: PEM, PKCS#8 and what rustls takes

pub mod chain;
mod encoding;
pub mod files;
pub mod issue;
pub mod lint;
pub mod profile;
pub mod request;
pub mod revocation;
pub mod root;

#[cfg(test)]
mod tests;

pub use chain::{
    CertificateError, ChainCache, Link, TrustAnchor, VerifiedCertificate, VerifiedIssuer, verify_chain,
    verify_chain_offline,
};
pub use issue::{CertificateSigner, IssueError, Issued, Issuer, KeySigner, PreparedCertificate, Subject, issue_root};
pub use lint::{LintFailure, lint};
pub use profile::{PartyName, PartyNameError, Profile};
pub use request::{CertificateRequest, RequestError, create_csr, verify_csr};
pub use revocation::{Crl, CrlError, Revoked};
pub use root::{RootKey, RootPublicKey};

use crate::encoding::byte_newtype;

byte_newtype! {
    /// A certificate's serial number: 126 random bits.
    ///
    /// Bytes: 16, of which the first lies in 40..7f, so that its DER form is positive and has one length.
    Serial, 16
}

/// The largest certificate and request that is parsed.
///
/// Units: bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 4096;

/// The largest revocation list that is parsed: room for more than 20,000 serials.
///
/// Units: bytes.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;

/// How far before its making a certificate's validity begins, for clocks that are behind.
///
/// Units: seconds.
pub const BACKDATE_SECONDS: u64 = 5 * 60;

/// How long a revocation list is valid: a weekend must not stop the network.
///
/// Units: seconds.
pub const CRL_LIFETIME_SECONDS: u64 = 7 * 24 * 60 * 60;
