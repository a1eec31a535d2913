//! TLS 1.3 configurations for servers and clients, reloadable without a restart.
//!
//! Only TLS 1.3; key exchange X25519MLKEM768 first, then X25519 and P-256. Trust is one root, the authority's: public roots are
//! never consulted. Revocation is checked on end certificates against the configured list, and an expired list refuses
//! everybody (a list is valid 7 days).

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Longest chain file entry count: leaf and issuing certificate, with room for a cross-signed one.
const MAX_CHAIN: usize = 4;
/// Largest PEM file that is read.
const MAX_PEM_BYTES: u64 = 8 * 1024 * 1024;

/// Where TLS material lies; all files are PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's root certificate: the only trust anchor.
    pub root: PathBuf,
    /// Own certificate chain (leaf first) and PKCS#8 key.
    pub identity: Option<IdentityFiles>,
    /// Revocation list of the issuing certificate. Without one nothing is checked for revocation.
    pub crl: Option<PathBuf>,
}

/// An own certificate and its key.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// Certificate chain, leaf first, without the root.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// What a server asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing: clients stay anonymous.
    None,
    /// A certificate is verified when shown.
    Optional,
    /// No connection without a certificate.
    Required,
}

/// TLS material is missing, unreadable or contradictory.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any such file should be.
    #[error("{path} is larger than {MAX_PEM_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not the PEM that was expected.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// A server has no certificate of its own.
    #[error("a server needs a certificate and a key")]
    NoIdentity,
    /// Certificate, key, root or revocation list are refused.
    #[error("the TLS material is refused: {what}")]
    Refused {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A server's TLS configuration, replaced as a whole on reload.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    client_auth: ClientAuth,
    current: RwLock<Arc<ServerConfig>>,
}

/// A client's TLS configuration, replaced as a whole on reload.
#[derive(Debug)]
pub struct ClientTls {
    files: TlsFiles,
    current: RwLock<Arc<ClientConfig>>,
}

impl ServerTls {
    /// Reads the files and checks that they fit together.
    pub fn load(files: TlsFiles, client_auth: ClientAuth) -> Result<Arc<Self>, TlsError> {
        let config = server_config(&files, client_auth)?;
        Ok(Arc::new(Self { files, client_auth, current: RwLock::new(Arc::new(config)) }))
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().expect("no panic happens under this lock").clone()
    }

    /// Reads the files again; on error the old configuration stays.
    ///
    /// Security: resumption state goes with the old configuration, so a client revoked by the new list cannot resume.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(server_config(&self.files, self.client_auth)?);
        *self.current.write().expect("no panic happens under this lock") = config;
        Ok(())
    }

    /// Reloads whenever a file changes, looking every `every`, until `shutdown`.
    pub async fn watch(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        let paths = self.files.paths();
        watch_files(paths, every, shutdown, || self.reload()).await;
    }
}

impl ClientTls {
    /// Reads the files and checks that they fit together.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let config = client_config(&files)?;
        Ok(Arc::new(Self { files, current: RwLock::new(Arc::new(config)) }))
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current.read().expect("no panic happens under this lock").clone()
    }

    /// Reads the files again; on error the old configuration stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(client_config(&self.files)?);
        *self.current.write().expect("no panic happens under this lock") = config;
        Ok(())
    }

    /// Reloads whenever a file changes, looking every `every`, until `shutdown`.
    pub async fn watch(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        let paths = self.files.paths();
        watch_files(paths, every, shutdown, || self.reload()).await;
    }
}

impl TlsFiles {
    fn paths(&self) -> Vec<PathBuf> {
        let identity = self.identity.iter().flat_map(|files| [files.certificate.clone(), files.key.clone()]);
        std::iter::once(self.root.clone()).chain(identity).chain(self.crl.clone()).collect()
    }
}

/// Size and time of each file: what a change is noticed by.
fn stamps(paths: &[PathBuf]) -> Vec<Option<(u64, SystemTime)>> {
    let stamp = |meta: Metadata| meta.modified().ok().map(|time| (meta.len(), time));
    paths.iter().map(|path| std::fs::metadata(path).ok().and_then(stamp)).collect()
}

async fn watch_files(
    paths: Vec<PathBuf>,
    every: Duration,
    shutdown: CancellationToken,
    reload: impl Fn() -> Result<(), TlsError>,
) {
    let mut seen = stamps(&paths);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let now = stamps(&paths);
        if now == seen {
            continue;
        }
        match reload() {
            Ok(()) => {
                tracing::info!("TLS material reloaded");
                seen = now;
            }
            // Certificate and key are two files: between their replacements they do not fit, so the next look tries again.
            Err(error) => tracing::warn!(%error, "TLS material changed but is refused; the old one stays in use"),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    Arc::new(provider)
}

fn refused<E>(what: &'static str) -> impl FnOnce(E) -> TlsError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| TlsError::Refused { what, source: Box::new(source) }
}

fn server_config(files: &TlsFiles, client_auth: ClientAuth) -> Result<ServerConfig, TlsError> {
    let identity = files.identity.as_ref().ok_or(TlsError::NoIdentity)?;
    let (chain, key) = read_identity(identity)?;
    let provider = provider();
    let verifier = client_verifier(files, client_auth, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused("protocol version"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(refused("certificate and key"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 2;
    Ok(config)
}

fn client_verifier(
    files: &TlsFiles,
    client_auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if client_auth == ClientAuth::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(read_root(&files.root)?, provider.clone());
    if let Some(path) = &files.crl {
        builder =
            builder.with_crls(read_crls(path)?).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    if client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(refused("root or revocation list"))
}

fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let mut verifier = WebPkiServerVerifier::builder_with_provider(read_root(&files.root)?, provider.clone());
    if let Some(path) = &files.crl {
        verifier =
            verifier.with_crls(read_crls(path)?).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    let verifier = verifier.build().map_err(refused("root or revocation list"))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused("protocol version"))?
        .with_webpki_verifier(verifier);
    let mut config = match &files.identity {
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(refused("certificate and key"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_PEM_BYTES {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(read)
}

fn read_root(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let root = CertificateDer::from_pem_slice(&read_file(path)?)
        .map_err(|_| TlsError::Pem { path: path.to_owned(), what: "certificate" })?;
    let mut store = RootCertStore::empty();
    store.add(root).map_err(refused("root certificate"))?;
    Ok(Arc::new(store))
}

fn read_identity(files: &IdentityFiles) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let pem = |what| TlsError::Pem { path: files.certificate.clone(), what };
    let text = read_file(&files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).take(MAX_CHAIN + 1).collect();
    let chain = chain.map_err(|_| pem("certificate"))?;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(pem("certificate chain of 1 to 4 certificates"));
    }
    let key = PrivateKeyDer::from_pem_slice(&Zeroizing::new(read_file(&files.key)?))
        .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
    Ok((chain, key))
}

fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = read_file(path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).take(MAX_CHAIN).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(TlsError::Pem { path: path.to_owned(), what: "revocation list" }),
    }
}
