//! PEM, PKCS#8 and the forms that rustls takes.

use der::pem::{self, LineEnding};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::root::RootKey;
use crate::keys::SigningKey;

/// The largest PEM file that is read.
///
/// Units: bytes.
pub const MAX_PEM_BYTES: usize = 2 * 1024 * 1024;

/// The most certificates in a chain file.
const MAX_CERTIFICATES: usize = 8;

/// PrivateKeyInfo of a P-256 key up to its scalar (RFC 5208, RFC 5915), and what stands between scalar and point.
const P256_HEAD: &[u8] = &[
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
];
const P256_MIDDLE: &[u8] = &[0xa1, 0x44, 0x03, 0x42, 0x00];

/// The same for P-384.
const P384_HEAD: &[u8] = &[
    0x30, 0x81, 0xb6, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
    0x2b, 0x81, 0x04, 0x00, 0x22, 0x04, 0x81, 0x9e, 0x30, 0x81, 0x9b, 0x02, 0x01, 0x01, 0x04, 0x30,
];
const P384_MIDDLE: &[u8] = &[0xa1, 0x64, 0x03, 0x62, 0x00];

/// What a PEM block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemLabel {
    /// A certificate.
    Certificate,
    /// A certificate request.
    Request,
    /// A revocation list.
    Crl,
    /// A private key in PKCS#8.
    PrivateKey,
}

impl PemLabel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "CERTIFICATE",
            Self::Request => "CERTIFICATE REQUEST",
            Self::Crl => "X509 CRL",
            Self::PrivateKey => "PRIVATE KEY",
        }
    }
}

/// Why a file does not hold what it should. Never shows its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FileError {
    /// Larger than [`MAX_PEM_BYTES`].
    #[error("the file is too large")]
    TooLarge,
    /// Not PEM with the expected label.
    #[error("not a PEM block \"{0}\"")]
    Pem(&'static str),
    /// Not a private key of the expected curve in PKCS#8 with its public key.
    #[error("not a private key of the expected form")]
    Key,
}

/// Encodes one PEM block.
///
/// # Errors
/// [`FileError::TooLarge`] for more than [`MAX_PEM_BYTES`].
pub fn to_pem(label: PemLabel, der: &[u8]) -> Result<Zeroizing<String>, FileError> {
    if der.len() > MAX_PEM_BYTES {
        return Err(FileError::TooLarge);
    }
    let text = pem::encode_string(label.as_str(), LineEnding::LF, der);
    text.map(Zeroizing::new).map_err(|_| FileError::Pem(label.as_str()))
}

/// Decodes a file with exactly one PEM block.
///
/// # Errors
/// [`FileError`].
pub fn from_pem(label: PemLabel, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, FileError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(FileError::TooLarge);
    }
    match pem::decode_vec(text) {
        Ok((found, der)) if found == label.as_str() => Ok(Zeroizing::new(der)),
        _ => Err(FileError::Pem(label.as_str())),
    }
}

/// Encodes a chain, leaf first.
///
/// # Errors
/// [`FileError::TooLarge`].
pub fn chain_to_pem(chain: &[&[u8]]) -> Result<String, FileError> {
    chain.iter().map(|der| to_pem(PemLabel::Certificate, der).map(|text| text.to_string())).collect()
}

/// Decodes a chain file: at most 8 certificates one after the other.
///
/// # Errors
/// [`FileError`].
pub fn chain_from_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, FileError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let bad = FileError::Pem(PemLabel::Certificate.as_str());
    if text.len() > MAX_PEM_BYTES {
        return Err(FileError::TooLarge);
    }
    let text = std::str::from_utf8(text).map_err(|_| bad)?;
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if starts.is_empty() || starts.len() > MAX_CERTIFICATES {
        return Err(bad);
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| from_pem(PemLabel::Certificate, &text.as_bytes()[*start..end]).map(|der| der.to_vec()))
        .collect()
}

/// The private key in PKCS#8 with its public key, as OpenSSL and rustls write and read it.
#[must_use]
pub fn signing_key_to_pkcs8(key: &SigningKey) -> Zeroizing<Vec<u8>> {
    let scalar = key.to_scalar_bytes();
    Zeroizing::new([P256_HEAD, scalar.as_slice(), P256_MIDDLE, key.public().as_sec1()].concat())
}

/// Reads what [`signing_key_to_pkcs8`] writes.
///
/// # Errors
/// [`FileError::Key`] for another form, or a public key that is not that of the private one.
pub fn signing_key_from_pkcs8(der: &[u8]) -> Result<SigningKey, FileError> {
    let scalar: &[u8; 32] = scalar(der, P256_HEAD, 32)?.try_into().map_err(|_| FileError::Key)?;
    let key = SigningKey::from_scalar_bytes(scalar).map_err(|_| FileError::Key)?;
    if signing_key_to_pkcs8(&key).as_slice() == der { Ok(key) } else { Err(FileError::Key) }
}

/// As [`signing_key_to_pkcs8`], for a root key.
#[must_use]
pub fn root_key_to_pkcs8(key: &RootKey) -> Zeroizing<Vec<u8>> {
    let scalar = key.to_scalar_bytes();
    Zeroizing::new([P384_HEAD, scalar.as_slice(), P384_MIDDLE, key.public().as_sec1()].concat())
}

/// Reads what [`root_key_to_pkcs8`] writes.
///
/// # Errors
/// [`FileError::Key`] for another form, or a public key that is not that of the private one.
pub fn root_key_from_pkcs8(der: &[u8]) -> Result<RootKey, FileError> {
    let scalar: &[u8; 48] = scalar(der, P384_HEAD, 48)?.try_into().map_err(|_| FileError::Key)?;
    let key = RootKey::from_scalar_bytes(scalar).map_err(|_| FileError::Key)?;
    if root_key_to_pkcs8(&key).as_slice() == der { Ok(key) } else { Err(FileError::Key) }
}

fn scalar<'a>(der: &'a [u8], head: &[u8], len: usize) -> Result<&'a [u8], FileError> {
    der.strip_prefix(head).and_then(|rest| rest.get(..len)).ok_or(FileError::Key)
}

/// The key as rustls takes it.
#[must_use]
pub fn rustls_key(key: &SigningKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key_to_pkcs8(key).to_vec()))
}

/// A chain as rustls takes it.
#[must_use]
pub fn rustls_chain(chain: &[&[u8]]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}
