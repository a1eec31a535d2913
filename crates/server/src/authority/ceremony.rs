//! The authority's keys are made here. Runs at the operator's terminal, never in the server: the root and issuing keys live where
//! no public listener does.

use std::path::{Path, PathBuf};

use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{PemLabel, from_pem, root_key_from_pkcs8, root_key_to_pkcs8, to_pem};
use waybill_crypto::certificate::{IssueError, Issuer, PartyName, Profile, RequestError, RootKey, Subject, issue_root};
use waybill_crypto::keys::Ed25519SecretKey;
use waybill_protocol::log::{KeyName, NoteKeyKind, NoteSigner};
use zeroize::Zeroizing;

use super::desk::{self, Desk};
use super::revoked::RevokedList;
use crate::files::{self, FileError};

/// A ceremony that did not come to its end. Nothing half-made is used: run it again in an empty folder.
#[derive(Debug, Error)]
pub enum CeremonyError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate that would not pass its lint, or a key that does not fit.
    #[error("the certificate was not signed")]
    Issue(#[from] IssueError),
    /// A request that is not what it should be.
    #[error("the certificate request is refused")]
    Request(#[from] RequestError),
    /// A name that is none.
    #[error("{0:?} is not a name: use a-z, 0-9, '-' and '.', at most 63 characters")]
    Name(String),
    /// The two requests of a hospital are not by the same hospital, or not for the two uses.
    #[error("expected one TLS and one signing request of the same hospital")]
    Pair,
    /// A renewal for a key that has no good certificate: not issued here, expired, or revoked.
    #[error("{0} asks for another key than the one it has a good certificate for; enrol it again, in person")]
    OtherKey(String),
    /// A key of which a certificate was revoked: whoever has it may be anybody.
    #[error(
        "{0} asks for a key whose certificate was revoked; it needs new keys, and a hospital makes them with `hospital init`"
    )]
    RevokedKey(String),
    /// A certificate that cannot be renewed.
    #[error("{0} is not a certificate of this authority that is still good; issue a new one")]
    Lapsed(String),
}

/// Where an authority's files lie.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at a path.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A file or folder inside.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The root certificate that everybody pins.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.join("root.pem")
    }

    /// The revocation list.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.join("crl.pem")
    }
}

/// The name of the authority's log, and of its key.
///
/// # Errors
/// [`CeremonyError::Name`].
pub fn log_name(authority: &str) -> Result<KeyName, CeremonyError> {
    KeyName::parse(&format!("{authority}/log")).map_err(|_| CeremonyError::Name(authority.to_owned()))
}

/// Where leaves say that the revocation list is.
#[must_use]
pub fn crl_url(authority: &str) -> String {
    format!("https://{authority}/crl")
}

pub(super) fn name(text: &str) -> Result<PartyName, CeremonyError> {
    PartyName::parse(text).map_err(|_| CeremonyError::Name(text.to_owned()))
}

pub(super) fn pem(label: PemLabel, der: &[u8]) -> Zeroizing<String> {
    to_pem(label, der).expect("what was just made is small")
}

/// Makes every key of an authority in an empty folder: `root/` (to be taken offline), `issuing/` (the operator's), `online/`
/// (the server's), and the public `root.pem` and `crl.pem`.
///
/// # Errors
/// [`CeremonyError`]; no existing file is overwritten.
pub fn init(folder: &Folder, authority: &str, backend: &dyn Backend, now: u64) -> Result<(), CeremonyError> {
    let party = name(authority)?;
    for part in ["root", "issuing", "online"] {
        files::make_folder(&folder.join(part))?;
    }
    let root_key = RootKey::generate(backend);
    let root = issue_root(
        backend,
        &root_key,
        &name(&format!("root.{authority}"))?,
        now,
        Profile::Root.max_lifetime_seconds(),
    )?;
    files::write_private(
        &folder.join("root/root.key"),
        pem(PemLabel::PrivateKey, &root_key_to_pkcs8(&root_key)).as_bytes(),
    )?;
    files::write_public(&folder.root_certificate(), pem(PemLabel::Certificate, &root.der).as_bytes())?;

    let issuing_key = backend.generate_signing_key();
    let crl_url = crl_url(authority);
    let by_root = Issuer::new(backend, &root_key, &root.der, &crl_url)?;
    let issuing_name = name(&format!("issuing.{authority}"))?;
    let subject =
        Subject { profile: Profile::Issuing, name: &issuing_name, public_key: issuing_key.public(), loopback: false };
    let issuing = by_root.issue(&subject, now, Profile::Issuing.max_lifetime_seconds())?;
    files::write_signing_key(&folder.join("issuing/issuing.key"), &issuing_key)?;
    files::write_public(&folder.join("issuing/issuing.pem"), pem(PemLabel::Certificate, &issuing.der).as_bytes())?;

    let office = Desk::new(folder, authority, backend, issuing_key, issuing.der);
    for (file, profile) in [("proof-signing", Profile::ProofSigning), ("tls", Profile::ServiceTls)] {
        let key = backend.generate_signing_key();
        let chain = office.issue(profile, &party, key.public(), profile == Profile::ServiceTls, now)?;
        files::write_signing_key(&folder.join(&format!("online/{file}.key")), &key)?;
        files::write_public(&folder.join(&format!("online/{file}.pem")), chain.as_bytes())?;
    }
    files::write_secret(&folder.join("online/lodgement.key"), &backend.generate_hpke_key().to_bytes())?;
    let mut seed = Zeroizing::new([0; 32]);
    backend.random(seed.as_mut_slice());
    files::write_secret(&folder.join("online/log.key"), &seed)?;
    files::write_signing_key(&folder.join("online/mailbox.key"), &backend.generate_signing_key())?;
    office.sign_crl(&RevokedList::load(folder)?, now)
}

/// The log's signer.
///
/// # Errors
/// [`CeremonyError`].
pub fn log_signer(folder: &Folder, authority: &str) -> Result<NoteSigner, CeremonyError> {
    let key: Ed25519SecretKey = files::read_log_key(&folder.join("online/log.key"))?;
    Ok(NoteSigner::new(log_name(authority)?, NoteKeyKind::Log, key))
}

/// Has the root sign another certificate for the issuing key, in the place of the one that it signed before, also when that one has
/// ended. Gives the end of the new one. Units: unix seconds.
///
/// Needs the root key's file and, in the folder, `root.pem` and `issuing/issuing.pem`: no other key. Certificates and revocation lists
/// of the issuing key stay good, for the key is the same.
///
/// # Errors
/// [`CeremonyError`]; [`CeremonyError::Lapsed`] when the root never signed the certificate in the folder.
pub fn issue_issuing(folder: &Folder, root_key: &Path, backend: &dyn Backend, now: u64) -> Result<u64, CeremonyError> {
    let root_key = read_root_key(root_key)?;
    let (root, file) = (files::read_certificate(&folder.root_certificate())?, folder.join("issuing/issuing.pem"));
    let (held, anchor) = (files::read_certificate(&file)?, desk::anchor(folder)?);
    // One that was good at some time: a step is shorter than any certificate's life.
    let years = (0..30).filter_map(|years| now.checked_sub(years * 365 * 86_400));
    let issuer = years.into_iter().find_map(|at| anchor.verify_issuer(&held, at).ok());
    let issuer = issuer.ok_or_else(|| CeremonyError::Lapsed(file.display().to_string()))?;
    let full = issuer.name().as_str();
    let crl_url = crl_url(full.strip_prefix("issuing.").unwrap_or(full));
    let by_root = Issuer::new(backend, &root_key, &root, &crl_url)?;
    let (profile, public_key) = (Profile::Issuing, issuer.public_key());
    let subject = Subject { profile, name: issuer.name(), public_key, loopback: false };
    let issued = by_root.issue(&subject, now, profile.max_lifetime_seconds())?;
    files::write_public(&file, pem(PemLabel::Certificate, &issued.der).as_bytes())?;
    Ok(now + profile.max_lifetime_seconds())
}

fn read_root_key(path: &Path) -> Result<RootKey, CeremonyError> {
    let der = from_pem(PemLabel::PrivateKey, &files::read(path)?).ok();
    let key = der.and_then(|der| root_key_from_pkcs8(&der).ok());
    let what = "a P-384 private key in PKCS#8 PEM";
    Ok(key.ok_or_else(|| FileError::Content { path: path.to_owned(), what })?)
}
