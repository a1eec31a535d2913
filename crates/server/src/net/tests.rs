use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request as AxumRequest};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::{ClientError, ClientOptions, Exchange, HttpClient};
use super::peer::Peer;
use super::server::{BindError, Drain, Server, ServerOptions};
use super::testing::{TestAuthority, socket_path, start};
use super::tls::{ClientAuth, ClientTls, IdentityFiles, ServerTls, TlsError, TlsFiles};
use super::unix::{self, AdminSocket, UnixError};
use crate::limits::{BodyLimit, read_body};

const EXCHANGE: Exchange = Exchange { timeout: Duration::from_secs(20), max_response: 1024 };

async fn who(Extension(peer): Extension<Peer>) -> String {
    peer.name().map(ToString::to_string).unwrap_or_default()
}

async fn measure(request: AxumRequest) -> Response {
    let limit = BodyLimit { max_bytes: 100_000, timeout: Duration::from_millis(200) };
    match read_body(request.into_body(), limit).await {
        Ok(body) => body.len().to_string().into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn router() -> Router {
    Router::new()
        .route("/who", get(who))
        .route("/measure", post(measure))
        .route("/large", get(|| async { vec![7u8; 4096] }))
        .route("/panic", get(panic_handler))
}

async fn panic_handler() -> Response {
    panic!("a handler's bug")
}

fn fetch(url: String) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn peer_is_named_by_its_certificate_and_anonymous_without_one() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::Optional, None), ServerOptions::default()).await;
    let named = authority.client(Some(authority.issue("hospital-a.example", 7)));
    assert_eq!(named.send(fetch(server.url("/who")), EXCHANGE).await.unwrap().body, "hospital-a.example");
    let anonymous = authority.client(None);
    assert_eq!(anonymous.send(fetch(server.url("/who")), EXCHANGE).await.unwrap().body, "");
    let (server_counts, client_counts) = (server.counters.counts(), named.counters().counts());
    assert_eq!(client_counts.requests, 1);
    assert_eq!(server_counts.requests, 2);
    assert!(client_counts.sent_bytes > 1000, "the hybrid key share alone is longer");
    assert!(server_counts.received_bytes > client_counts.sent_bytes);
}

#[tokio::test]
async fn certificate_is_required_where_asked() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::Required, None), ServerOptions::default()).await;
    let error = authority.client(None).send(fetch(server.url("/who")), EXCHANGE).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. } | ClientError::Broken { .. }), "{error:?}");
    let other = TestAuthority::new();
    let stranger = authority.client(Some(other.issue("hospital-a.example", 7)));
    let error = stranger.send(fetch(server.url("/who")), EXCHANGE).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. } | ClientError::Broken { .. }), "{error:?}");
    assert_eq!(server.counters.counts().requests, 0);
}

#[tokio::test]
async fn server_of_another_root_is_refused() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let server = start(router(), other.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let error = authority.client(None).send(fetch(server.url("/who")), EXCHANGE).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn revoked_certificate_is_refused_after_a_reload_also_on_resumption() {
    let authority = TestAuthority::new();
    let crl = authority.revoke(&[], (2999, 1, 1));
    let tls = authority.server_tls(ClientAuth::Required, Some(crl));
    let server = start(router(), tls.clone(), ServerOptions::default()).await;
    let client_tls = authority.client_tls(Some(authority.issue("hospital-a.example", 7)));
    let client = || HttpClient::new(client_tls.clone(), ClientOptions::default());
    client().send(fetch(server.url("/who")), EXCHANGE).await.unwrap();
    authority.revoke(&[7], (2999, 1, 1));
    tls.reload().unwrap();
    client().send(fetch(server.url("/who")), EXCHANGE).await.unwrap_err();
    authority.revoke(&[], (2024, 2, 1));
    tls.reload().unwrap();
    client().send(fetch(server.url("/who")), EXCHANGE).await.expect_err("an expired list refuses everybody");
    authority.revoke(&[], (2999, 1, 1));
    tls.reload().unwrap();
    client().send(fetch(server.url("/who")), EXCHANGE).await.unwrap();
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let authority = TestAuthority::new();
    let crl = authority.revoke(&[], (2999, 1, 1));
    let tls = authority.server_tls(ClientAuth::Required, Some(crl));
    let before = tls.config();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(tls.clone().watch(Duration::from_millis(5), shutdown.clone()));
    tokio::task::yield_now().await;
    authority.revoke(&[7, 8, 9], (2999, 1, 1));
    while Arc::ptr_eq(&before, &tls.config()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(authority.root()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap_err();
}

#[tokio::test]
async fn hybrid_key_exchange_is_what_two_of_us_use() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(authority.client_tls(None).config());
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    let of_tls13 = [
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    assert!(of_tls13.contains(&suite), "{suite:?}");
}

#[tokio::test]
async fn material_that_does_not_fit_is_named() {
    let authority = TestAuthority::new();
    let (one, two) = (authority.issue("a.example", 1), authority.issue("b.example", 2));
    let load = |root, identity| ServerTls::load(TlsFiles { root, identity, crl: None }, ClientAuth::None).unwrap_err();
    let mixed = IdentityFiles { certificate: one.certificate.clone(), key: two.key };
    assert!(matches!(load(authority.root(), Some(mixed)), TlsError::Refused { what: "certificate and key", .. }));
    assert!(matches!(load(authority.root(), None), TlsError::NoIdentity));
    let swapped = IdentityFiles { certificate: one.key.clone(), key: one.key.clone() };
    assert!(matches!(load(authority.root(), Some(swapped)), TlsError::Pem { .. }));
    let missing = TlsFiles { root: authority.folder.path().join("none.pem"), identity: None, crl: None };
    assert!(matches!(ClientTls::load(missing).unwrap_err(), TlsError::Read { .. }));
}

#[tokio::test]
async fn oversized_and_slow_bodies_and_answers_are_refused() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let client = authority.client(None);
    let body = |size: usize| Request::post(server.url("/measure")).body(Bytes::from(vec![0; size])).unwrap();
    assert_eq!(client.send(body(100_000), EXCHANGE).await.unwrap().body, "100000");
    let error = client.send(body(100_001), EXCHANGE).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::PAYLOAD_TOO_LARGE));
    let error = client.send(fetch(server.url("/large")), EXCHANGE).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit: 1024, .. }));

    let mut raw = raw_http1(&authority, server.address).await;
    raw.write_all(b"POST /measure HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123").await.unwrap();
    assert!(read_some(&mut raw).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn slow_and_oversized_headers_end_the_connection() {
    let authority = TestAuthority::new();
    let options = ServerOptions { header_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let server = start(router(), authority.server_tls(ClientAuth::None, None), options).await;
    let mut raw = raw_http1(&authority, server.address).await;
    raw.write_all(b"GET /who HTTP/1.1\r\nhost:").await.unwrap();
    let answer = read_some(&mut raw).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");

    let mut raw = raw_http1(&authority, server.address).await;
    let flood = format!("GET /who HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(128 * 1024));
    // The server may close before it has read everything.
    let _ = raw.write_all(flood.as_bytes()).await;
    let answer = read_some(&mut raw).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.counters.counts().requests, 0);
}

type RawStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn raw_http1(authority: &TestAuthority, address: std::net::SocketAddr) -> RawStream {
    let mut config = (*authority.client_tls(None).config()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

async fn read_some(stream: &mut RawStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap_or(0);
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let authority = TestAuthority::new();
    let options = ServerOptions { max_connections_per_ip: 1, ..ServerOptions::default() };
    let server = start(router(), authority.server_tls(ClientAuth::None, None), options).await;
    let first = raw_http1(&authority, server.address).await;
    let client = authority.client(None);
    client.send(fetch(server.url("/who")), EXCHANGE).await.unwrap_err();
    assert_eq!(server.counters.counts().refused_connections, 1);
    drop(first);
    while client.send(fetch(server.url("/who")), EXCHANGE).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn no_answer_is_for_a_cache() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let answer = authority.client(None).send(fetch(server.url("/who")), EXCHANGE).await.unwrap();
    assert_eq!(answer.headers.get("cache-control").unwrap(), "no-store");
}

#[tokio::test]
async fn panic_and_unknown_path_become_problems() {
    let authority = TestAuthority::new();
    let server = start(router(), authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let client = authority.client(None);
    let code = |error: ClientError| match error {
        ClientError::Status { status, problem, .. } => (status.as_u16(), problem.unwrap().code().to_owned()),
        other => panic!("{other:?}"),
    };
    let error = client.send(fetch(server.url("/panic")), EXCHANGE).await.unwrap_err();
    assert_eq!(code(error), (500, "internal".to_owned()));
    let error = client.send(fetch(server.url("/nowhere")), EXCHANGE).await.unwrap_err();
    assert_eq!(code(error), (404, "not-found".to_owned()));
    let error = client.send(fetch(server.url("/measure")), EXCHANGE).await.unwrap_err();
    assert_eq!(code(error), (405, "method".to_owned()));
    assert_eq!(server.counters.counts().panics, 1);
}

fn gate(entered: Arc<Notify>, release: Arc<Notify>) -> Router {
    let handler = move || {
        let (entered, release) = (entered.clone(), release.clone());
        async move {
            entered.notify_one();
            release.notified().await;
            "answered"
        }
    };
    Router::new().route("/gate", get(handler))
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way_and_accepts_nothing_new() {
    let authority = TestAuthority::new();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gate = gate(entered.clone(), release.clone());
    let server = start(gate, authority.server_tls(ClientAuth::None, None), ServerOptions::default()).await;
    let (client, request) = (authority.client(None), fetch(server.url("/gate")));
    let pending = tokio::spawn(async move { client.send(request, EXCHANGE).await });
    entered.notified().await;
    server.shutdown.cancel();
    loop {
        match authority.client(None).send(fetch(server.url("/gate")), EXCHANGE).await {
            Err(ClientError::Refused { .. }) => break,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    release.notify_one();
    assert_eq!(pending.await.unwrap().unwrap().body, "answered");
    assert_eq!(server.task.await.unwrap(), Drain::Complete);
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let authority = TestAuthority::new();
    let entered = Arc::new(Notify::new());
    let options = ServerOptions { drain_timeout: Duration::from_millis(20), ..ServerOptions::default() };
    let gate = gate(entered.clone(), Arc::new(Notify::new()));
    let server = start(gate, authority.server_tls(ClientAuth::None, None), options).await;
    let (client, request) = (authority.client(None), fetch(server.url("/gate")));
    let pending = tokio::spawn(async move { client.send(request, EXCHANGE).await });
    entered.notified().await;
    server.shutdown.cancel();
    assert_eq!(server.task.await.unwrap(), Drain::Cut(1));
    assert!(matches!(pending.await.unwrap().unwrap_err(), ClientError::Broken { .. }));
}

#[tokio::test]
async fn port_in_use_and_foreign_address_are_named() {
    let first = Server::bind("127.0.0.1:0".parse().unwrap(), ServerOptions::default()).await.unwrap();
    let error = Server::bind(first.address(), ServerOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains(&first.address().port().to_string()), "{error}");
    assert!(matches!(error, BindError::InUse(_)));
    let error = Server::bind("192.0.2.1:0".parse().unwrap(), ServerOptions::default()).await.unwrap_err();
    assert!(matches!(error, BindError::NotLocal(_)), "{error:?}");
}

#[tokio::test]
async fn server_that_is_down_and_bad_urls_are_named() {
    let authority = TestAuthority::new();
    let free = Server::bind("127.0.0.1:0".parse().unwrap(), ServerOptions::default()).await.unwrap();
    let url = format!("https://{}/who", free.address());
    drop(free);
    let client = authority.client(None);
    assert!(matches!(client.send(fetch(url), EXCHANGE).await.unwrap_err(), ClientError::Refused { .. }));
    let plain = client.send(fetch("http://127.0.0.1/who".to_owned()), EXCHANGE).await;
    assert!(matches!(plain.unwrap_err(), ClientError::Url));
}

#[tokio::test]
async fn admin_socket_serves_its_owner_and_refuses_a_second_server() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(folder.path());
    let ask = || Request::post("/measure").body(Bytes::from_static(b"12345")).unwrap();
    let request = |path| async move { unix::request(path, ask(), Duration::from_secs(10), 1024).await };
    assert!(matches!(request(&path).await.unwrap_err(), UnixError::NotRunning(_)));
    // What a crashed process leaves behind: a socket nobody serves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = AdminSocket::bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(AdminSocket::bind(&path).await.unwrap_err(), UnixError::InUse(_)));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(socket.serve(router(), shutdown.clone()));
    let (status, body) = request(&path).await.unwrap();
    assert_eq!((status, body), (StatusCode::OK, Bytes::from_static(b"5")));
    shutdown.cancel();
    assert_eq!(task.await.unwrap(), Drain::Complete);
    assert!(!path.exists());
}
