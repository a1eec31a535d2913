//! The authority's keys are made here, and hospitals and services certified. Runs at the operator's terminal, never in the
//! server: the root and issuing keys live where no public listener does.

use std::path::{Path, PathBuf};

use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{
    PemLabel, chain_to_pem, from_pem, root_key_from_pkcs8, root_key_to_pkcs8, to_pem,
};
use waybill_crypto::certificate::{
    CertificateRequest, IssueError, Issuer, KeySigner, PartyName, Profile, RequestError, Revoked, RootKey, Serial,
    Subject, issue_root, verify_csr,
};
use waybill_crypto::keys::{Ed25519SecretKey, SigningKey};
use waybill_protocol::log::{KeyName, NoteKeyKind, NoteSigner};
use zeroize::Zeroizing;

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

fn name(text: &str) -> Result<PartyName, CeremonyError> {
    PartyName::parse(text).map_err(|_| CeremonyError::Name(text.to_owned()))
}

fn pem(label: PemLabel, der: &[u8]) -> Zeroizing<String> {
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

    let desk = Desk {
        folder: folder.clone(),
        backend,
        authority: authority.to_owned(),
        key: issuing_key,
        certificate: issuing.der,
    };
    for (file, profile) in [("proof-signing", Profile::ProofSigning), ("tls", Profile::ServiceTls)] {
        let key = backend.generate_signing_key();
        let chain = desk.issue(profile, &party, &key, profile == Profile::ServiceTls, now)?;
        files::write_signing_key(&folder.join(&format!("online/{file}.key")), &key)?;
        files::write_public(&folder.join(&format!("online/{file}.pem")), chain.as_bytes())?;
    }
    files::write_secret(&folder.join("online/lodgement.key"), &backend.generate_hpke_key().to_bytes())?;
    let mut seed = Zeroizing::new([0; 32]);
    backend.random(seed.as_mut_slice());
    files::write_secret(&folder.join("online/log.key"), &seed)?;
    files::write_signing_key(&folder.join("online/mailbox.key"), &backend.generate_signing_key())?;
    desk.renew_crl(&[], 1, now)
}

/// The log's signer.
///
/// # Errors
/// [`CeremonyError`].
pub fn log_signer(folder: &Folder, authority: &str) -> Result<NoteSigner, CeremonyError> {
    let key: Ed25519SecretKey = files::read_log_key(&folder.join("online/log.key"))?;
    Ok(NoteSigner::new(log_name(authority)?, NoteKeyKind::Log, key))
}

/// The operator's desk: the issuing key at work.
pub struct Desk<'a> {
    folder: Folder,
    backend: &'a dyn Backend,
    authority: String,
    key: SigningKey,
    certificate: Vec<u8>,
}

/// A hospital's two chains, in PEM, leaf first.
pub struct HospitalCertificates {
    /// The hospital's name.
    pub name: String,
    /// For its TLS client and server.
    pub tls: String,
    /// For its messages.
    pub signing: String,
}

impl<'a> Desk<'a> {
    /// Opens the desk of an authority that was initialised.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn open(folder: &Folder, authority: &str, backend: &'a dyn Backend) -> Result<Self, CeremonyError> {
        let key = files::read_signing_key(&folder.join("issuing/issuing.key"))?;
        let certificate = files::read_certificate(&folder.join("issuing/issuing.pem"))?;
        Ok(Self { folder: folder.clone(), backend, authority: authority.to_owned(), key, certificate })
    }

    fn issue(
        &self,
        profile: Profile,
        name: &PartyName,
        key: &SigningKey,
        loopback: bool,
        now: u64,
    ) -> Result<String, CeremonyError> {
        self.certify(&Subject { profile, name, public_key: key.public(), loopback }, now)
    }

    fn certify(&self, subject: &Subject<'_>, now: u64) -> Result<String, CeremonyError> {
        let signer = KeySigner { backend: self.backend, key: &self.key };
        let crl_url = crl_url(&self.authority);
        let issuer = Issuer::new(self.backend, &signer, &self.certificate, &crl_url)?;
        let prepared = issuer.prepare(subject, now, subject.profile.max_lifetime_seconds())?;
        self.record_intent(subject.name.as_str(), &prepared.serial(), prepared.to_be_signed())?;
        let issued = issuer.sign(&prepared)?;
        Ok(chain_to_pem(&[&issued.der, &self.certificate]).expect("two certificates fit a file"))
    }

    /// What is about to be signed is on disk before it is signed.
    fn record_intent(&self, name: &str, serial: &Serial, to_be_signed: &[u8]) -> Result<(), CeremonyError> {
        let folder = self.folder.join("issuing/intents");
        files::make_folder(&folder)?;
        let file = folder.join(format!("{}-{}.tbs", hex::encode(serial.0), hex::encode(name)));
        Ok(files::write_private(&file, to_be_signed)?)
    }

    /// Makes key and certificate for a service (relay, witness) into `folder/tls.key` and `folder/tls.pem`.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn certify_service(&self, service: &str, folder: &Path, now: u64) -> Result<(), CeremonyError> {
        files::make_folder(folder)?;
        let key = self.backend.generate_signing_key();
        let chain = self.issue(Profile::ServiceTls, &name(service)?, &key, true, now)?;
        files::write_signing_key(&folder.join("tls.key"), &key)?;
        Ok(files::write_public(&folder.join("tls.pem"), chain.as_bytes())?)
    }

    /// Certifies a hospital from its two requests, whose proofs of possession are verified here.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn certify_hospital(
        &self,
        tls_csr: &[u8],
        signing_csr: &[u8],
        now: u64,
    ) -> Result<HospitalCertificates, CeremonyError> {
        let read = |bytes: &[u8]| -> Result<CertificateRequest, CeremonyError> {
            let der = from_pem(PemLabel::Request, bytes).map_err(|_| RequestError::Malformed)?;
            Ok(verify_csr(self.backend, &der)?)
        };
        let (tls, signing) = (read(tls_csr)?, read(signing_csr)?);
        let pair = tls.profile == Profile::HospitalTls && signing.profile == Profile::HospitalSigning;
        if !pair || tls.name != signing.name || tls.public_key == signing.public_key {
            return Err(CeremonyError::Pair);
        }
        let certify = |request: &CertificateRequest| {
            let subject = Subject {
                profile: request.profile,
                name: &request.name,
                public_key: &request.public_key,
                loopback: request.loopback,
            };
            self.certify(&subject, now)
        };
        Ok(HospitalCertificates {
            name: tls.name.as_str().to_owned(),
            tls: certify(&tls)?,
            signing: certify(&signing)?,
        })
    }

    /// Signs a revocation list over everything revoked so far.
    ///
    /// # Errors
    /// [`CeremonyError`].
    pub fn renew_crl(&self, revoked: &[Revoked], number: u64, now: u64) -> Result<(), CeremonyError> {
        let signer = KeySigner { backend: self.backend, key: &self.key };
        let crl_url = crl_url(&self.authority);
        let issuer = Issuer::new(self.backend, &signer, &self.certificate, &crl_url)?;
        let der = issuer.issue_crl(revoked, number, now)?;
        Ok(files::write_public(&self.folder.crl(), pem(PemLabel::Crl, &der).as_bytes())?)
    }
}

/// Reads the offline root key, for the day a new issuing certificate is needed.
///
/// # Errors
/// [`CeremonyError`].
pub fn read_root_key(folder: &Folder) -> Result<RootKey, CeremonyError> {
    let path = folder.join("root/root.key");
    let der = from_pem(PemLabel::PrivateKey, &files::read(&path)?).ok();
    let key = der.and_then(|der| root_key_from_pkcs8(&der).ok());
    Ok(key.ok_or(FileError::Content { path, what: "a P-384 private key in PKCS#8 PEM" })?)
}
