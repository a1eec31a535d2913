//! Issuing: first a twin of the certificate, signed by a throwaway key, is linted; only then does the real key sign.
//!
//! [`Issuer::prepare`] does the first half, so that the caller can store what it is about to sign; [`Issuer::sign`] the second.

use der::Encode;
use der::asn1::OctetString;
use thiserror::Error;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::time::Validity;

use super::encoding::{self, SubjectKey, ToBeSigned};
use super::lint::{self, LintFailure, lint};
use super::profile::{PartyName, Profile};
use super::root::{RootKey, RootPublicKey};
use super::{BACKDATE_SECONDS, Serial};
use crate::backend::{Backend, PrimitiveError};
use crate::keys::{SigningKey, VerifyingKey};

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueError {
    /// The twin does not match its profile; the real key has signed nothing.
    #[error("the certificate would not match its profile")]
    Lint(#[from] LintFailure),
    /// The issuer's certificate is not one that may sign this.
    #[error("the issuer's certificate may not issue this profile")]
    Issuer,
    /// The signer's key is not the one in the issuer's certificate.
    #[error("the signing key is not that of the issuer's certificate")]
    Key,
    /// The certificate would outlive its issuer's.
    #[error("the certificate would outlive its issuer")]
    Outlives,
    /// A name, time or URL has no DER form.
    #[error("a value has no DER form")]
    Encoding,
    /// The signer refused or failed.
    #[error("the signer failed")]
    Signer(#[from] PrimitiveError),
}

impl From<der::Error> for IssueError {
    fn from(_: der::Error) -> Self {
        Self::Encoding
    }
}

/// A key that signs certificates: in a file today, in a hardware module later.
pub trait CertificateSigner: Send + Sync {
    /// The public key, as SEC1 uncompressed point: 65 bytes for P-256, 97 for P-384.
    fn public_point(&self) -> Vec<u8>;
    /// An ECDSA signature over the message with the hash of the curve (SHA-256, SHA-384), in DER.
    ///
    /// # Errors
    /// [`PrimitiveError`] when the key cannot sign.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PrimitiveError>;
}

impl CertificateSigner for RootKey {
    fn public_point(&self) -> Vec<u8> {
        self.public().as_sec1().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PrimitiveError> {
        Self::sign(self, message)
    }
}

/// An issuing key in memory, together with the back end that signs.
#[derive(Clone, Copy)]
pub struct KeySigner<'a> {
    /// Signs.
    pub backend: &'a dyn Backend,
    /// The key.
    pub key: &'a SigningKey,
}

impl CertificateSigner for KeySigner<'_> {
    fn public_point(&self) -> Vec<u8> {
        self.key.public().as_sec1().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PrimitiveError> {
        let signature = self.backend.sign(self.key, message);
        encoding::signature_to_der(&signature).map_err(|_| PrimitiveError::Signature)
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// For what.
    pub profile: Profile,
    /// Who.
    pub name: &'a PartyName,
    /// The key, made where it lives; its possession was proven by the request.
    pub public_key: &'a VerifyingKey,
    /// Whether it also names `localhost` and 127.0.0.1: every [`Profile::ServiceTls`] certificate must, no other may.
    pub loopback: bool,
}

/// A certificate that passed its lint as a twin and that the real key may sign. Only [`Issuer::prepare`] makes one.
#[derive(Debug, Clone)]
pub struct PreparedCertificate {
    to_be_signed: Vec<u8>,
    profile: Profile,
    serial: Serial,
    not_after: u64,
}

impl PreparedCertificate {
    /// The serial number, for the intent that is stored before signing.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The exact bytes that will be signed.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        &self.to_be_signed
    }
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: Serial,
    /// Its end, in unix seconds.
    pub not_after: u64,
}

/// One issuing certificate and the key behind it.
pub struct Issuer<'a> {
    backend: &'a dyn Backend,
    signer: &'a dyn CertificateSigner,
    name: Name,
    key: SubjectKey,
    profile: Profile,
    not_after: u64,
    crl_url: &'a str,
}

impl<'a> Issuer<'a> {
    /// Joins a signer with its certificate: a root (which issues [`Profile::Issuing`] only) or an issuing certificate.
    ///
    /// `crl_url` is the `https://` place of the revocation list that leaves name.
    ///
    /// # Errors
    /// [`IssueError::Issuer`] when the certificate is neither, [`IssueError::Key`] when the signer has another key.
    pub fn new(
        backend: &'a dyn Backend,
        signer: &'a dyn CertificateSigner,
        certificate: &[u8],
        crl_url: &'a str,
    ) -> Result<Self, IssueError> {
        let read = |profile| lint::lint_form(certificate, profile).map(|linted| (linted, profile));
        let (linted, profile) =
            read(Profile::Issuing).or_else(|_| read(Profile::Root)).map_err(|_| IssueError::Issuer)?;
        let point = match &linted.key {
            SubjectKey::P256(key) => key.as_sec1().to_vec(),
            SubjectKey::P384(key) => key.as_sec1().to_vec(),
        };
        if signer.public_point() != point {
            return Err(IssueError::Key);
        }
        let name = encoding::common_name(&linted.subject)?;
        Ok(Self { backend, signer, name, key: linted.key, profile, not_after: linted.not_after, crl_url })
    }

    pub(super) const fn backend(&self) -> &'a dyn Backend {
        self.backend
    }

    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    pub(super) const fn key(&self) -> &SubjectKey {
        &self.key
    }

    pub(super) const fn profile(&self) -> Profile {
        self.profile
    }

    /// Signs with the real key and verifies what came back, so that a faulty signer is noticed here.
    pub(super) fn sign_bytes(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, IssueError> {
        let signature = self.signer.sign(to_be_signed)?;
        verify_signature(self.backend, &self.key, to_be_signed, &signature)?;
        Ok(encoding::assemble(to_be_signed, self.key.algorithm(), &signature)?)
    }

    /// Builds a certificate and lints its throwaway-signed twin. The real key is not used.
    ///
    /// `now` and `lifetime_seconds` give the validity: from [`BACKDATE_SECONDS`] before now to `now + lifetime_seconds`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn prepare(
        &self,
        subject: &Subject<'_>,
        now: u64,
        lifetime_seconds: u64,
    ) -> Result<PreparedCertificate, IssueError> {
        let may_issue = match self.profile {
            Profile::Root => subject.profile == Profile::Issuing,
            _ => subject.profile.path_length().is_none(),
        };
        if !may_issue {
            return Err(IssueError::Issuer);
        }
        let not_after = now.saturating_add(lifetime_seconds);
        if not_after > self.not_after {
            return Err(IssueError::Outlives);
        }
        let content = Content {
            profile: subject.profile,
            subject: subject.name,
            key: SubjectKey::P256(subject.public_key.clone()),
            loopback: subject.loopback,
            issuer: &self.name,
            issuer_key: &self.key,
            crl_url: self.crl_url,
            now,
            not_after,
        };
        content.prepare(self.backend)
    }

    /// Signs what was prepared.
    ///
    /// # Errors
    /// [`IssueError::Signer`] when the signer fails, or returns a signature that does not verify.
    pub fn sign(&self, prepared: &PreparedCertificate) -> Result<Issued, IssueError> {
        let der = self.sign_bytes(&prepared.to_be_signed)?;
        lint::lint_form(&der, prepared.profile)?;
        Ok(Issued { der, serial: prepared.serial, not_after: prepared.not_after })
    }

    /// Prepares and signs in one step, where nothing needs to be stored in between.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, subject: &Subject<'_>, now: u64, lifetime_seconds: u64) -> Result<Issued, IssueError> {
        self.sign(&self.prepare(subject, now, lifetime_seconds)?)
    }
}

/// Makes the self-signed certificate of a root, after a lint of its twin.
///
/// # Errors
/// [`IssueError`].
pub fn issue_root(
    backend: &dyn Backend,
    signer: &dyn CertificateSigner,
    name: &PartyName,
    now: u64,
    lifetime_seconds: u64,
) -> Result<Issued, IssueError> {
    let public = RootPublicKey::from_sec1(&signer.public_point())?;
    let key = SubjectKey::P384(public);
    let own_name = encoding::common_name(name)?;
    let content = Content {
        profile: Profile::Root,
        subject: name,
        key: key.clone(),
        loopback: false,
        issuer: &own_name,
        issuer_key: &key,
        crl_url: "",
        now,
        not_after: now.saturating_add(lifetime_seconds),
    };
    let prepared = content.prepare(backend)?;
    let signature = signer.sign(&prepared.to_be_signed)?;
    verify_signature(backend, &key, &prepared.to_be_signed, &signature)?;
    let der = encoding::assemble(&prepared.to_be_signed, key.algorithm(), &signature)?;
    lint::lint_form(&der, Profile::Root)?;
    Ok(Issued { der, serial: prepared.serial, not_after: prepared.not_after })
}

pub(super) fn verify_signature(
    backend: &dyn Backend,
    key: &SubjectKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), PrimitiveError> {
    match key {
        SubjectKey::P384(key) => key.verify(message, signature),
        SubjectKey::P256(key) => {
            let signature = encoding::signature_from_der(signature).ok_or(PrimitiveError::Signature)?;
            backend.verify(key, message, &signature)
        }
    }
}

/// Everything that a certificate will say.
struct Content<'a> {
    profile: Profile,
    subject: &'a PartyName,
    key: SubjectKey,
    loopback: bool,
    issuer: &'a Name,
    issuer_key: &'a SubjectKey,
    crl_url: &'a str,
    now: u64,
    not_after: u64,
}

impl Content<'_> {
    fn prepare(&self, backend: &dyn Backend) -> Result<PreparedCertificate, IssueError> {
        let mut serial = [0; 16];
        backend.random(&mut serial);
        serial[0] = (serial[0] & 0x7f) | 0x40;
        let serial = Serial(serial);
        let to_be_signed = self.to_be_signed(&serial)?;
        let (signature, throwaway) = match self.issuer_key {
            SubjectKey::P384(_) => {
                let key = RootKey::generate(backend);
                (key.sign(&to_be_signed)?, SubjectKey::P384(key.public().clone()))
            }
            SubjectKey::P256(_) => {
                let key = backend.generate_signing_key();
                let public = SubjectKey::P256(key.public().clone());
                (KeySigner { backend, key: &key }.sign(&to_be_signed)?, public)
            }
        };
        verify_signature(backend, &throwaway, &to_be_signed, &signature)?;
        let twin = encoding::assemble(&to_be_signed, throwaway.algorithm(), &signature)?;
        lint(&twin, self.profile, self.now)?;
        Ok(PreparedCertificate { to_be_signed, profile: self.profile, serial, not_after: self.not_after })
    }

    fn to_be_signed(&self, serial: &Serial) -> der::Result<Vec<u8>> {
        let not_before = self.now.saturating_sub(BACKDATE_SECONDS);
        let tbs = ToBeSigned {
            version: 2,
            serial_number: encoding::serial_number(serial)?,
            signature: encoding::algorithm_identifier(self.issuer_key.algorithm()),
            issuer: self.issuer.clone(),
            validity: Validity::new(encoding::time(not_before)?, encoding::time(self.not_after)?),
            subject: encoding::common_name(self.subject)?,
            subject_public_key_info: self.key.to_spki()?,
            extensions: self.extensions()?,
        };
        tbs.to_der()
    }

    fn extensions(&self) -> der::Result<Vec<Extension>> {
        let path_length = self.profile.path_length();
        let constraints = BasicConstraints { ca: path_length.is_some(), path_len_constraint: path_length };
        let usage = match path_length {
            Some(_) => KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign),
            None => KeyUsage(KeyUsages::DigitalSignature.into()),
        };
        let mut extensions = vec![
            encoding::extension(encoding::BASIC_CONSTRAINTS, true, &constraints.to_der()?)?,
            encoding::extension(encoding::KEY_USAGE, true, &usage.to_der()?)?,
        ];
        extensions.extend(usage_and_name(self.profile, self.subject, self.loopback)?);
        let subject_key_id = SubjectKeyIdentifier(OctetString::new(self.key.key_id())?);
        extensions.push(encoding::extension(encoding::SUBJECT_KEY_ID, false, &subject_key_id.to_der()?)?);
        if self.profile != Profile::Root {
            extensions.push(authority_key_id(self.issuer_key)?);
        }
        if path_length.is_none() {
            let place = DistributionPointName::FullName(vec![encoding::uri(self.crl_url)?]);
            let point = DistributionPoint { distribution_point: Some(place), reasons: None, crl_issuer: None };
            let points = CrlDistributionPoints(vec![point]);
            extensions.push(encoding::extension(encoding::CRL_POINTS, false, &points.to_der()?)?);
        }
        Ok(extensions)
    }
}

/// The authority key identifier for what this key signs.
pub(super) fn authority_key_id(issuer_key: &SubjectKey) -> der::Result<Extension> {
    let id = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer_key.key_id())?),
        authority_cert_issuer: None,
        authority_cert_serial_number: None,
    };
    encoding::extension(encoding::AUTHORITY_KEY_ID, false, &id.to_der()?)
}

/// The extensions that requests carry too: extended key usage and alternative names.
pub(super) fn usage_and_name(profile: Profile, name: &PartyName, loopback: bool) -> der::Result<Vec<Extension>> {
    let mut extensions = Vec::new();
    if let Some((usages, critical)) = profile.extended_usage() {
        let value = encoding::extended_usage(usages)?;
        extensions.push(encoding::extension(encoding::EXTENDED_KEY_USAGE, critical, &value)?);
    }
    let mut names = Vec::new();
    if let Some(prefix) = profile.uri_prefix() {
        names.push(encoding::uri(&format!("{prefix}{name}"))?);
    }
    if profile.is_tls() {
        names.push(encoding::dns_name(name.as_str())?);
        if loopback {
            names.push(encoding::dns_name("localhost")?);
            names.push(GeneralName::from(std::net::IpAddr::from([127, 0, 0, 1])));
        }
    }
    if !names.is_empty() {
        let value = SubjectAltName(names).to_der()?;
        extensions.push(encoding::extension(encoding::ALTERNATIVE_NAME, false, &value)?);
    }
    Ok(extensions)
}
