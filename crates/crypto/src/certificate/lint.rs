//! What a certificate of each profile must look like, to the last extension.
//!
//! Written apart from [`super::issue`], so that neither can be wrong alone.

use der::asn1::ObjectIdentifier;
use der::flagset::FlagSet;
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};

use super::encoding::{self, SubjectKey};
use super::profile::{PartyName, Profile};
use super::{BACKDATE_SECONDS, MAX_CERTIFICATE_BYTES, Serial};

/// How a certificate departs from its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LintFailure {
    /// Larger than [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate is too large")]
    TooLarge,
    /// Not a certificate in DER, or in another than the one encoding.
    #[error("not a certificate in DER")]
    Malformed,
    /// Not version 3, or with unique identifiers.
    #[error("not a version 3 certificate")]
    Version,
    /// The serial number is not 16 bytes in the form of [`Serial`].
    #[error("the serial number is not positive with 126 random bits")]
    Serial,
    /// Not ECDSA with the hash of the issuer's curve, or named differently inside and outside.
    #[error("the signature algorithm is not the profile's")]
    SignatureAlgorithm,
    /// The subject's key is not on the profile's curve.
    #[error("the key is not on the profile's curve")]
    SubjectKey,
    /// Subject or issuer is not a single common name of the allowed form, or the root's differ.
    #[error("subject or issuer is not a single allowed common name")]
    Name,
    /// The end lies before the beginning, or later than the profile allows.
    #[error("the lifetime is not within the profile's bounds")]
    Lifetime,
    /// The validity has not begun.
    #[error("the certificate is not yet valid")]
    NotYetValid,
    /// The validity has ended.
    #[error("the certificate has expired")]
    Expired,
    /// Basic constraints are missing, not critical, or of another path length.
    #[error("the basic constraints are not the profile's")]
    BasicConstraints,
    /// Key usage is missing, not critical, or another.
    #[error("the key usage is not the profile's")]
    KeyUsage,
    /// Extended key usage is missing, superfluous, of other criticality, or another.
    #[error("the extended key usage is not the profile's")]
    ExtendedKeyUsage,
    /// The subject key identifier is missing or not that of the key.
    #[error("the subject key identifier is not that of the key")]
    SubjectKeyId,
    /// The authority key identifier is missing or of another form.
    #[error("the authority key identifier is missing or malformed")]
    AuthorityKeyId,
    /// The alternative names are not exactly those that the profile derives from the subject.
    #[error("the alternative names are not the profile's")]
    AlternativeName,
    /// A leaf names no single HTTPS place of its revocation list, or a certificate of an issuer names one.
    #[error("the revocation list's place is not the profile's")]
    CrlPoint,
    /// An extension that no profile has, or one twice.
    #[error("an unexpected extension")]
    UnexpectedExtension,
}

/// What lint reads from a certificate on the way.
pub(super) struct Linted {
    pub certificate: Certificate,
    pub subject: PartyName,
    pub key: SubjectKey,
    pub serial: Serial,
    pub not_before: u64,
    pub not_after: u64,
    pub authority_key_id: Option<Vec<u8>>,
}

/// Compares a certificate with its profile, the validity with `now` (unix seconds). Says nothing about who signed it.
///
/// # Errors
/// The first [`LintFailure`] found.
///
/// Security: the issuer runs this on a twin signed by a throwaway key before its own key signs, every verifier on what it receives.
pub fn lint(der: &[u8], profile: Profile, now: u64) -> Result<(), LintFailure> {
    let linted = lint_form(der, profile)?;
    check_window(linted.not_before, linted.not_after, now)
}

/// Whether `now` lies in a validity; both ends belong to it (RFC 5280 section 4.1.2.5).
pub(super) const fn check_window(not_before: u64, not_after: u64, now: u64) -> Result<(), LintFailure> {
    if now < not_before {
        return Err(LintFailure::NotYetValid);
    }
    if now > not_after {
        return Err(LintFailure::Expired);
    }
    Ok(())
}

/// Everything but the present time.
pub(super) fn lint_form(der: &[u8], profile: Profile) -> Result<Linted, LintFailure> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(LintFailure::TooLarge);
    }
    let certificate = Certificate::from_der(der).map_err(|_| LintFailure::Malformed)?;
    // Verifiers hash and compare bytes, so a certificate has exactly one encoding.
    if certificate.to_der().ok().as_deref() != Some(der) {
        return Err(LintFailure::Malformed);
    }
    let tbs = certificate.tbs_certificate();
    if tbs.version() != Version::V3 || tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
        return Err(LintFailure::Version);
    }
    let serial = encoding::read_serial(tbs.serial_number()).ok_or(LintFailure::Serial)?;
    check_algorithm(&certificate, profile)?;
    let key = SubjectKey::from_spki(tbs.subject_public_key_info()).ok_or(LintFailure::SubjectKey)?;
    if matches!(key, SubjectKey::P384(_)) != (profile == Profile::Root) {
        return Err(LintFailure::SubjectKey);
    }
    let subject = encoding::read_common_name(tbs.subject()).ok_or(LintFailure::Name)?;
    let issuer = encoding::read_common_name(tbs.issuer()).ok_or(LintFailure::Name)?;
    if profile == Profile::Root && subject != issuer {
        return Err(LintFailure::Name);
    }
    let not_before = tbs.validity().not_before.to_unix_duration().as_secs();
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    let lifetime = not_after.checked_sub(not_before).ok_or(LintFailure::Lifetime)?;
    if lifetime > profile.max_lifetime_seconds() + BACKDATE_SECONDS {
        return Err(LintFailure::Lifetime);
    }
    let extensions = Extensions::new(tbs.extensions().map_or(&[][..], Vec::as_slice))?;
    extensions.check_constraints(profile)?;
    extensions.check_usages(profile)?;
    let authority_key_id = extensions.check_key_ids(profile, &key)?;
    extensions.check_alternative_name(profile, &subject)?;
    extensions.check_crl_point(profile)?;
    Ok(Linted { certificate, subject, key, serial, not_before, not_after, authority_key_id })
}

/// Reads an extension's value, in the one encoding that DER has for it: what the certificate holds as bytes its own decoder did not
/// see, and the decoders of values are lenient (a list of named bits may end with unset ones).
fn exact<'a, T>(value: &'a [u8], failure: LintFailure) -> Result<T, LintFailure>
where
    T: Decode<'a> + Encode,
{
    let read = T::from_der(value).map_err(|_| failure)?;
    if read.to_der().ok().as_deref() == Some(value) { Ok(read) } else { Err(failure) }
}

fn check_algorithm(certificate: &Certificate, profile: Profile) -> Result<(), LintFailure> {
    // Root and issuing certificates are signed by a P-384 key, leaves by a P-256 key.
    let oid = match profile.path_length() {
        Some(_) => encoding::ECDSA_SHA384,
        None => encoding::ECDSA_SHA256,
    };
    let expected = encoding::algorithm_identifier(oid);
    let named = [certificate.signature_algorithm(), certificate.tbs_certificate().signature()];
    if named.iter().all(|algorithm| **algorithm == expected) { Ok(()) } else { Err(LintFailure::SignatureAlgorithm) }
}

/// The extensions of one certificate, each at most once and each known.
struct Extensions<'a>(&'a [Extension]);

impl<'a> Extensions<'a> {
    fn new(extensions: &'a [Extension]) -> Result<Self, LintFailure> {
        let known = [
            encoding::BASIC_CONSTRAINTS,
            encoding::KEY_USAGE,
            encoding::EXTENDED_KEY_USAGE,
            encoding::ALTERNATIVE_NAME,
            encoding::SUBJECT_KEY_ID,
            encoding::AUTHORITY_KEY_ID,
            encoding::CRL_POINTS,
        ];
        // Each at most once, and in this order: one content, one encoding.
        let place = |extension: &Extension| known.iter().position(|oid| *oid == extension.extn_id);
        let places = extensions.iter().map(place).collect::<Option<Vec<_>>>();
        let ascending = places.is_some_and(|places| places.is_sorted_by(|one, next| one < next));
        if ascending { Ok(Self(extensions)) } else { Err(LintFailure::UnexpectedExtension) }
    }

    /// The value of an extension, when its criticality is as it must be.
    fn value(
        &self,
        oid: ObjectIdentifier,
        critical: bool,
        failure: LintFailure,
    ) -> Result<Option<&'a [u8]>, LintFailure> {
        match self.0.iter().find(|extension| extension.extn_id == oid) {
            None => Ok(None),
            Some(extension) if extension.critical == critical => Ok(Some(extension.extn_value.as_bytes())),
            Some(_) => Err(failure),
        }
    }

    fn check_constraints(&self, profile: Profile) -> Result<(), LintFailure> {
        let failure = LintFailure::BasicConstraints;
        let value = self.value(encoding::BASIC_CONSTRAINTS, true, failure)?.ok_or(failure)?;
        let constraints = exact::<BasicConstraints>(value, failure)?;
        let path_length = profile.path_length();
        let same = constraints.ca == path_length.is_some() && constraints.path_len_constraint == path_length;
        if same { Ok(()) } else { Err(failure) }
    }

    fn check_usages(&self, profile: Profile) -> Result<(), LintFailure> {
        let failure = LintFailure::KeyUsage;
        let value = self.value(encoding::KEY_USAGE, true, failure)?.ok_or(failure)?;
        let usage = exact::<KeyUsage>(value, failure)?;
        let expected: FlagSet<KeyUsages> = match profile.path_length() {
            Some(_) => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            None => KeyUsages::DigitalSignature.into(),
        };
        if usage.0 != expected {
            return Err(failure);
        }
        let failure = LintFailure::ExtendedKeyUsage;
        match profile.extended_usage() {
            None => self.absent(encoding::EXTENDED_KEY_USAGE, failure),
            Some((usages, critical)) => {
                let value = self.value(encoding::EXTENDED_KEY_USAGE, critical, failure)?.ok_or(failure)?;
                let found = encoding::read_extended_usage(value).ok_or(failure)?;
                if found == usages { Ok(()) } else { Err(failure) }
            }
        }
    }

    fn check_key_ids(&self, profile: Profile, key: &SubjectKey) -> Result<Option<Vec<u8>>, LintFailure> {
        let failure = LintFailure::SubjectKeyId;
        let value = self.value(encoding::SUBJECT_KEY_ID, false, failure)?.ok_or(failure)?;
        let id = exact::<SubjectKeyIdentifier>(value, failure)?;
        if id.0.as_bytes() != key.key_id() {
            return Err(failure);
        }
        let failure = LintFailure::AuthorityKeyId;
        if profile == Profile::Root {
            self.absent(encoding::AUTHORITY_KEY_ID, failure)?;
            return Ok(None);
        }
        let value = self.value(encoding::AUTHORITY_KEY_ID, false, failure)?.ok_or(failure)?;
        let id = exact::<AuthorityKeyIdentifier>(value, failure)?;
        match (id.key_identifier, id.authority_cert_issuer, id.authority_cert_serial_number) {
            (Some(key_id), None, None) if key_id.as_bytes().len() == 20 => Ok(Some(key_id.as_bytes().to_vec())),
            _ => Err(failure),
        }
    }

    fn check_alternative_name(&self, profile: Profile, subject: &PartyName) -> Result<(), LintFailure> {
        let failure = LintFailure::AlternativeName;
        let malformed = |_| failure;
        if let Some(prefix) = profile.uri_prefix() {
            let value = self.value(encoding::ALTERNATIVE_NAME, false, failure)?.ok_or(failure)?;
            let names = exact::<SubjectAltName>(value, failure)?.0;
            let uri = encoding::uri(&format!("{prefix}{subject}")).map_err(malformed)?;
            return if names == [uri] { Ok(()) } else { Err(failure) };
        }
        if !profile.is_tls() {
            return self.absent(encoding::ALTERNATIVE_NAME, failure);
        }
        rustls_pki_types::DnsName::try_from(subject.as_str()).map_err(|_| failure)?;
        let value = self.value(encoding::ALTERNATIVE_NAME, false, failure)?.ok_or(failure)?;
        let names = exact::<SubjectAltName>(value, failure)?.0;
        let own = encoding::dns_name(subject.as_str()).map_err(malformed)?;
        let (first, rest) = names.split_first().ok_or(failure)?;
        // The loopback names are what tells a service's certificate from a hospital's: without them one would pass as the other.
        let loopback = [
            encoding::dns_name("localhost").map_err(malformed)?,
            GeneralName::from(std::net::IpAddr::from([127, 0, 0, 1])),
        ];
        let expected: &[GeneralName] = if profile == Profile::ServiceTls { &loopback } else { &[] };
        if *first == own && rest == expected { Ok(()) } else { Err(failure) }
    }

    fn check_crl_point(&self, profile: Profile) -> Result<(), LintFailure> {
        let failure = LintFailure::CrlPoint;
        if profile.path_length().is_some() {
            return self.absent(encoding::CRL_POINTS, failure);
        }
        let value = self.value(encoding::CRL_POINTS, false, failure)?.ok_or(failure)?;
        let points = exact::<CrlDistributionPoints>(value, failure)?.0;
        let [point] = points.as_slice() else { return Err(failure) };
        let Some(DistributionPointName::FullName(names)) = &point.distribution_point else { return Err(failure) };
        let [GeneralName::UniformResourceIdentifier(uri)] = names.as_slice() else { return Err(failure) };
        let plain = point.reasons.is_none() && point.crl_issuer.is_none();
        if plain && uri.as_str().starts_with("https://") { Ok(()) } else { Err(failure) }
    }

    fn absent(&self, oid: ObjectIdentifier, failure: LintFailure) -> Result<(), LintFailure> {
        if self.0.iter().any(|extension| extension.extn_id == oid) { Err(failure) } else { Ok(()) }
    }
}
