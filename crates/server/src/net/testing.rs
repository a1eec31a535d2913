//! A small certificate authority and servers on free ports, for tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::{ClientOptions, HttpClient};
use super::counters::WireCounters;
use super::server::{Drain, Server, ServerOptions};
use super::tls::{ClientAuth, ClientTls, IdentityFiles, ServerTls, TlsFiles};

/// A root that issues directly; files in a temporary folder.
pub(crate) struct TestAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: tempfile::TempDir,
}

impl TestAuthority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Issues a certificate for `name`, `localhost` and 127.0.0.1.
    pub(crate) fn issue(&self, name: &str, serial: u64) -> IdentityFiles {
        let mut params = CertificateParams::new(vec![name.to_owned(), "localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix: &str| self.folder.path().join(format!("{name}-{serial}.{suffix}"));
        std::fs::write(file("crt"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        IdentityFiles { certificate: file("crt"), key: file("key") }
    }

    /// Writes a revocation list naming `serials` to `crl.pem`.
    pub(crate) fn revoke(&self, serials: &[u64], next_update: (i32, u8, u8)) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(next_update.0, next_update.1, next_update.2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("crl.pem");
        std::fs::write(&path, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    pub(crate) fn server_tls(&self, auth: ClientAuth, crl: Option<PathBuf>) -> Arc<ServerTls> {
        let files = TlsFiles { root: self.root(), identity: Some(self.issue("server.example", 1)), crl };
        ServerTls::load(files, auth).unwrap()
    }

    pub(crate) fn client_tls(&self, identity: Option<IdentityFiles>) -> Arc<ClientTls> {
        ClientTls::load(TlsFiles { root: self.root(), identity, crl: None }).unwrap()
    }

    pub(crate) fn client(&self, identity: Option<IdentityFiles>) -> HttpClient {
        HttpClient::new(self.client_tls(identity), ClientOptions::default())
    }
}

/// A server under test; stops when told, or with the test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) counters: Arc<WireCounters>,
    pub(crate) task: JoinHandle<Drain>,
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

pub(crate) async fn start(router: Router, tls: Arc<ServerTls>, options: ServerOptions) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    let (address, counters, shutdown) = (server.address(), server.counters(), CancellationToken::new());
    let task = tokio::spawn(server.serve(router, tls, shutdown.clone()));
    Running { address, shutdown, counters, task }
}

/// A path short enough for a Unix socket.
pub(crate) fn socket_path(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}
