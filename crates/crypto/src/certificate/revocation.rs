//! Revocation lists (RFC 5280 section 5): one full list of the issuing key, valid for a week.

use std::collections::BTreeSet;

use der::asn1::{ObjectIdentifier, Uint};
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::certificate::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber};

use super::chain::VerifiedIssuer;
use super::encoding::{self, SubjectKey};
use super::issue::{IssueError, Issuer, authority_key_id, verify_signature};
use super::profile::Profile;
use super::{CRL_LIFETIME_SECONDS, MAX_CRL_BYTES, Serial};
use crate::backend::Backend;

/// One revoked certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// Which.
    pub serial: Serial,
    /// Since when, in unix seconds.
    pub at: u64,
}

/// Why a revocation list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CrlError {
    /// Larger than [`MAX_CRL_BYTES`].
    #[error("the revocation list is too large")]
    TooLarge,
    /// Not a list in DER, or not of the one form made here.
    #[error("not a revocation list of the expected form")]
    Malformed,
    /// Another issuer's list.
    #[error("the revocation list is another issuer's")]
    Issuer,
    /// The signature does not verify.
    #[error("the revocation list is not signed by its issuer")]
    Signature,
}

impl Issuer<'_> {
    /// Signs the list of everything revoked, valid from `this_update` for [`CRL_LIFETIME_SECONDS`].
    ///
    /// `number` grows with each list. The order of `revoked` does not matter.
    ///
    /// # Errors
    /// [`IssueError`]; [`IssueError::Issuer`] for an issuer that is a root.
    pub fn issue_crl(&self, revoked: &[Revoked], number: u64, this_update: u64) -> Result<Vec<u8>, IssueError> {
        if self.profile() != Profile::Issuing {
            return Err(IssueError::Issuer);
        }
        let to_be_signed = self.crl_content(revoked, number, this_update)?;
        let der = self.sign_bytes(&to_be_signed)?;
        // The list must be readable by those it is for before it leaves.
        parse(self.backend(), &der, self.name(), self.key()).map_err(|_| IssueError::Encoding)?;
        Ok(der)
    }

    fn crl_content(&self, revoked: &[Revoked], number: u64, this_update: u64) -> der::Result<Vec<u8>> {
        let sorted: BTreeSet<Revoked> = revoked.iter().copied().collect();
        let mut seen = BTreeSet::new();
        let entries: Result<Vec<_>, der::Error> = sorted
            .iter()
            .filter(|entry| seen.insert(entry.serial))
            .map(|entry| {
                Ok(RevokedCert {
                    serial_number: encoding::serial_number(&entry.serial)?,
                    revocation_date: encoding::time(entry.at)?,
                    crl_entry_extensions: None,
                })
            })
            .collect();
        let entries = entries?;
        let tbs: TbsCertList = TbsCertList {
            version: Version::V2,
            signature: encoding::algorithm_identifier(self.key().algorithm()),
            issuer: self.name().clone(),
            this_update: encoding::time(this_update)?,
            next_update: Some(encoding::time(this_update.saturating_add(CRL_LIFETIME_SECONDS))?),
            revoked_certificates: (!entries.is_empty()).then_some(entries),
            crl_extensions: Some(extensions(self.key(), number)?),
        };
        tbs.to_der()
    }
}

/// A revocation list whose issuer's signature verified. Only [`Crl::parse_and_verify`] makes one.
#[derive(Debug, Clone)]
pub struct Crl {
    issuer_key_id: [u8; 20],
    number: u64,
    this_update: u64,
    next_update: u64,
    revoked: BTreeSet<Serial>,
}

impl Crl {
    /// Reads a list that `issuer` signed. Says nothing about its age; see [`super::verify_chain`].
    ///
    /// # Errors
    /// [`CrlError`].
    pub fn parse_and_verify(backend: &dyn Backend, der: &[u8], issuer: &VerifiedIssuer) -> Result<Self, CrlError> {
        let name = encoding::common_name(issuer.name()).map_err(|_| CrlError::Issuer)?;
        parse(backend, der, &name, &SubjectKey::P256(issuer.public_key().clone()))
    }

    /// The number, which grows with each list: a caller keeps the list with the largest.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When it was made, in unix seconds.
    #[must_use]
    pub const fn this_update(&self) -> u64 {
        self.this_update
    }

    /// Until when it may be used, in unix seconds.
    #[must_use]
    pub const fn next_update(&self) -> u64 {
        self.next_update
    }

    /// Whether a serial is on the list.
    #[must_use]
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains(serial)
    }

    /// Whether the issuer with this key identifier made the list.
    pub(super) fn is_of(&self, issuer_key_id: &[u8; 20]) -> bool {
        self.issuer_key_id == *issuer_key_id
    }
}

fn parse(backend: &dyn Backend, der: &[u8], issuer: &x509_cert::name::Name, key: &SubjectKey) -> Result<Crl, CrlError> {
    if der.len() > MAX_CRL_BYTES {
        return Err(CrlError::TooLarge);
    }
    let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).map_err(|_| CrlError::Malformed)?;
    if list.to_der().ok().as_deref() != Some(der) {
        return Err(CrlError::Malformed);
    }
    let content = &list.tbs_cert_list;
    if content.issuer != *issuer {
        return Err(CrlError::Issuer);
    }
    let algorithm = encoding::algorithm_identifier(key.algorithm());
    if content.version != Version::V2 || content.signature != algorithm || list.signature_algorithm != algorithm {
        return Err(CrlError::Malformed);
    }
    let number = read_extensions(content, key)?;
    let to_be_signed = content.to_der().map_err(|_| CrlError::Malformed)?;
    let signature = list.signature.as_bytes().ok_or(CrlError::Signature)?;
    verify_signature(backend, key, &to_be_signed, signature).map_err(|_| CrlError::Signature)?;
    let next_update = content.next_update.ok_or(CrlError::Malformed)?;
    let revoked: Option<BTreeSet<Serial>> = content
        .revoked_certificates
        .iter()
        .flatten()
        // An entry extension could mean "removed from the list": nothing but plain entries is understood.
        .map(|entry| entry.crl_entry_extensions.is_none().then(|| encoding::read_serial(&entry.serial_number))?)
        .collect();
    Ok(Crl {
        issuer_key_id: key.key_id(),
        number,
        this_update: content.this_update.to_unix_duration().as_secs(),
        next_update: next_update.to_unix_duration().as_secs(),
        revoked: revoked.ok_or(CrlError::Malformed)?,
    })
}

/// What a list carries besides its entries: whose it is, and its number.
fn extensions(key: &SubjectKey, number: u64) -> der::Result<Vec<Extension>> {
    let number = CrlNumber(Uint::new(&number.to_be_bytes())?);
    Ok(vec![authority_key_id(key)?, encoding::extension(encoding::CRL_NUMBER, false, &number.to_der()?)?])
}

/// Exactly two extensions, neither critical: the issuer's key identifier and the number. A partial or indirect list has others.
fn read_extensions(content: &TbsCertList, key: &SubjectKey) -> Result<u64, CrlError> {
    let value = |oid: ObjectIdentifier| {
        let found = content.crl_extensions.iter().flatten().find(|extension| extension.extn_id == oid);
        found.filter(|extension| !extension.critical).map(|extension| extension.extn_value.as_bytes())
    };
    if content.crl_extensions.as_ref().map_or(0, Vec::len) != 2 {
        return Err(CrlError::Malformed);
    }
    let id = value(encoding::AUTHORITY_KEY_ID).and_then(|value| AuthorityKeyIdentifier::from_der(value).ok());
    let id = id.and_then(|id| id.key_identifier).ok_or(CrlError::Malformed)?;
    if id.as_bytes() != key.key_id() {
        return Err(CrlError::Issuer);
    }
    let number = value(encoding::CRL_NUMBER).and_then(|value| CrlNumber::from_der(value).ok());
    let number = number.ok_or(CrlError::Malformed)?;
    let mut bytes = [0; 8];
    let digits = number.0.as_bytes();
    let start = 8_usize.checked_sub(digits.len()).ok_or(CrlError::Malformed)?;
    bytes[start..].copy_from_slice(digits);
    let number = u64::from_be_bytes(bytes);
    // Nothing but these two, in this order and encoding.
    let expected = extensions(key, number).map_err(|_| CrlError::Malformed)?;
    if content.crl_extensions.as_ref() == Some(&expected) { Ok(number) } else { Err(CrlError::Malformed) }
}
