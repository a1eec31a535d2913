//! Key and certificate files: private ones are made once, mode 0600, and never overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use waybill_crypto::certificate::files::{
    PemLabel, chain_from_pem, from_pem, signing_key_from_pkcs8, signing_key_to_pkcs8, to_pem,
};
use waybill_crypto::keys::{Ed25519SecretKey, HpkeSecretKey, SigningKey};
use waybill_protocol::messages::Chain;
use zeroize::Zeroizing;

/// The largest key or certificate file. Units: bytes.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A file cannot be used; names the file, never its content.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It exists already: a key is never overwritten.
    #[error("{path} exists already; nothing was overwritten (choose another folder, or move it away)")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It does not hold what it should.
    #[error("{path} does not hold {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Io { path: path.to_owned(), source },
    }
}

/// Makes a folder (mode 0700) with its parents.
///
/// # Errors
/// [`FileError::Io`].
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

/// Writes a new private file.
///
/// # Errors
/// [`FileError::Exists`], [`FileError::Io`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

/// Writes a public file, replacing it in one step.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(io_error(path))
}

/// Reads a bounded file.
///
/// # Errors
/// [`FileError::Io`], [`FileError::Content`] when it is too large.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(io_error(path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::Content { path: path.to_owned(), what: "a file of plausible size" });
    }
    Ok(bytes)
}

/// Writes a P-256 key as PKCS#8 PEM.
///
/// # Errors
/// As [`write_private`].
pub fn write_signing_key(path: &Path, key: &SigningKey) -> Result<(), FileError> {
    let pem = to_pem(PemLabel::PrivateKey, &signing_key_to_pkcs8(key));
    let pem = pem.map_err(|_| FileError::Content { path: path.to_owned(), what: "a key" })?;
    write_private(path, pem.as_bytes())
}

/// Reads a P-256 key.
///
/// # Errors
/// [`FileError`].
pub fn read_signing_key(path: &Path) -> Result<SigningKey, FileError> {
    let key = from_pem(PemLabel::PrivateKey, &read(path)?).ok().and_then(|der| signing_key_from_pkcs8(&der).ok());
    key.ok_or(FileError::Content { path: path.to_owned(), what: "a P-256 private key in PKCS#8 PEM" })
}

/// Writes 32 secret bytes as hex.
///
/// # Errors
/// As [`write_private`].
pub fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), FileError> {
    let text = Zeroizing::new(hex::encode(secret) + "\n");
    write_private(path, text.as_bytes())
}

/// Reads 32 secret bytes in hex.
///
/// # Errors
/// [`FileError`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, FileError> {
    let text = read(path)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), secret.as_mut_slice())
        .map_err(|_| FileError::Content { path: path.to_owned(), what: "64 hex digits" })?;
    Ok(secret)
}

/// Reads an HPKE key.
///
/// # Errors
/// [`FileError`].
pub fn read_hpke_key(path: &Path) -> Result<HpkeSecretKey, FileError> {
    Ok(HpkeSecretKey::from_bytes(&*read_secret(path)?))
}

/// Reads an Ed25519 key.
///
/// # Errors
/// [`FileError`].
pub fn read_log_key(path: &Path) -> Result<Ed25519SecretKey, FileError> {
    Ok(Ed25519SecretKey::from_bytes(&*read_secret(path)?))
}

/// Reads a chain file, leaf first.
///
/// # Errors
/// [`FileError`].
pub fn read_chain(path: &Path) -> Result<Chain, FileError> {
    let chain = chain_from_pem(&read(path)?);
    let chain = chain.map_err(|_| FileError::Content { path: path.to_owned(), what: "a certificate chain in PEM" })?;
    Ok(Chain::new(chain))
}

/// Reads one certificate.
///
/// # Errors
/// [`FileError`].
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, FileError> {
    let der = from_pem(PemLabel::Certificate, &read(path)?);
    der.map(|der| der.to_vec())
        .map_err(|_| FileError::Content { path: path.to_owned(), what: "one certificate in PEM" })
}
