//! Certificate requests (PKCS#10): the key is made where it lives, and the request proves that whoever asks has it.

use der::asn1::{Any, BitString, SetOfVec};
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::request::{CertReq, CertReqInfo, Version};

use super::MAX_CERTIFICATE_BYTES;
use super::encoding::{self, SubjectKey};
use super::issue::{CertificateSigner as _, KeySigner, usage_and_name};
use super::profile::{PartyName, Profile};
use crate::backend::Backend;
use crate::keys::{SigningKey, VerifyingKey};

/// extensionRequest (RFC 2985 section 5.4.2).
const EXTENSION_REQUEST: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Too large, or not PKCS#10 in DER.
    #[error("not a certificate request")]
    Malformed,
    /// The subject is not a single common name that is a party's name.
    #[error("the request's subject is not a party's name")]
    Name,
    /// The key is not a P-256 key.
    #[error("the request's key is not a P-256 key")]
    Key,
    /// The request asks for other extensions than its profile has.
    #[error("the request is for another use")]
    Usage,
    /// Whoever made the request does not have the key.
    #[error("the request does not prove possession of its key")]
    Possession,
}

/// A request whose proof of possession verified. Only [`verify_csr`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateRequest {
    /// Who asks. A claim until a registrar has confirmed it.
    pub name: PartyName,
    /// For what.
    pub profile: Profile,
    /// The key.
    pub public_key: VerifyingKey,
    /// Whether `localhost` and 127.0.0.1 are asked for as well.
    pub loopback: bool,
}

/// Makes a request in DER for a leaf certificate.
///
/// # Errors
/// [`RequestError::Usage`] for a profile that is no leaf's, and for loopback names in any but a service's certificate or none in one.
pub fn create_csr(
    backend: &dyn Backend,
    key: &SigningKey,
    name: &PartyName,
    profile: Profile,
    loopback: bool,
) -> Result<Vec<u8>, RequestError> {
    if profile.path_length().is_some() || loopback != (profile == Profile::ServiceTls) {
        return Err(RequestError::Usage);
    }
    build(backend, key, name, profile, loopback).map_err(|_| RequestError::Malformed)
}

fn build(
    backend: &dyn Backend,
    key: &SigningKey,
    name: &PartyName,
    profile: Profile,
    loopback: bool,
) -> der::Result<Vec<u8>> {
    let asked = Any::encode_from(&usage_and_name(profile, name, loopback)?)?;
    let attribute = Attribute { oid: EXTENSION_REQUEST, values: SetOfVec::try_from(vec![asked])? };
    let info = CertReqInfo {
        version: Version::V1,
        subject: encoding::common_name(name)?,
        public_key: SubjectKey::P256(key.public().clone()).to_spki()?,
        attributes: SetOfVec::try_from(vec![attribute])?,
    };
    let signature = KeySigner { backend, key }.sign(&info.to_der()?).map_err(|_| der::ErrorKind::Failed)?;
    let algorithm = encoding::algorithm_identifier(encoding::ECDSA_SHA256);
    CertReq { info, algorithm, signature: BitString::from_bytes(&signature)? }.to_der()
}

/// Verifies a request: form, name, key, that it asks for exactly what a leaf profile has, and the proof of possession.
///
/// # Errors
/// [`RequestError`].
pub fn verify_csr(backend: &dyn Backend, der: &[u8]) -> Result<CertificateRequest, RequestError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(RequestError::Malformed);
    }
    let request = CertReq::from_der(der).map_err(|_| RequestError::Malformed)?;
    if request.to_der().ok().as_deref() != Some(der) {
        return Err(RequestError::Malformed);
    }
    let name = encoding::read_common_name(&request.info.subject).ok_or(RequestError::Name)?;
    let Some(SubjectKey::P256(public_key)) = SubjectKey::from_spki(&request.info.public_key) else {
        return Err(RequestError::Key);
    };
    let (profile, loopback) = asked_profile(&request.info, &name).ok_or(RequestError::Usage)?;
    let signature = request.signature.as_bytes().and_then(encoding::signature_from_der);
    let signature = encoding::with_low_s(signature.ok_or(RequestError::Possession)?);
    let info = request.info.to_der().map_err(|_| RequestError::Malformed)?;
    if request.algorithm != encoding::algorithm_identifier(encoding::ECDSA_SHA256) {
        return Err(RequestError::Possession);
    }
    backend.verify(&public_key, &info, &signature).map_err(|_| RequestError::Possession)?;
    Ok(CertificateRequest { name, profile, public_key, loopback })
}

/// The leaf profile whose extensions are exactly those asked for. A TLS request without loopback names is a hospital's.
fn asked_profile(info: &CertReqInfo, name: &PartyName) -> Option<(Profile, bool)> {
    let mut attributes = info.attributes.iter();
    let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return None };
    let mut values = attribute.values.iter();
    let (EXTENSION_REQUEST, Some(value), None) = (attribute.oid, values.next(), values.next()) else { return None };
    let asked: Vec<Extension> = value.decode_as().ok()?;
    [
        (Profile::HospitalTls, false),
        (Profile::HospitalSigning, false),
        (Profile::ProofSigning, false),
        (Profile::ServiceTls, true),
    ]
    .into_iter()
    .find(|(profile, loopback)| usage_and_name(*profile, name, *loopback).is_ok_and(|expected| expected == asked))
}
