use bytes::Bytes;
use waybill_crypto::native::Native;
use waybill_store::Address;

use super::*;
use crate::clock::SystemClock;
use crate::mailbox::{MailboxClient, MailboxId, MailboxUrl};
use crate::net::client::{Exchange, HttpClient};
use crate::net::server::BindError;
use crate::net::testing::TestAuthority;
use crate::net::unix;

const EXCHANGE: Exchange = Exchange { timeout: Duration::from_secs(10), max_response: 65_536 };

fn config(authority: &TestAuthority, listen: &str) -> RelayConfig {
    let identity = authority.issue("relay.example", 5);
    let server = ServerConfig {
        listen: listen.parse().unwrap(),
        public_hosts: Vec::new(),
        data: authority.folder.path().join("relay"),
        root: authority.root(),
        certificate: identity.certificate,
        key: identity.key,
        crl: None,
        admin_socket: None,
    };
    RelayConfig { server, mailboxes: MailboxConfig::default(), log: LogConfig::default() }
}

async fn start(config: &RelayConfig) -> Result<(Relay, CancellationToken), StartError> {
    let shutdown = CancellationToken::new();
    let relay = Relay::start(config, Arc::new(Native), Arc::new(SystemClock), shutdown.clone()).await?;
    Ok((relay, shutdown))
}

fn get(url: String) -> axum::http::Request<Bytes> {
    axum::http::Request::get(url).body(Bytes::new()).unwrap()
}

async fn body(http: &HttpClient, url: String) -> Bytes {
    http.send(get(url), EXCHANGE).await.unwrap().body
}

#[tokio::test]
async fn relay_keeps_mail_and_blobs_over_a_restart() {
    let authority = TestAuthority::new();
    let config = config(&authority, "127.0.0.1:0");
    let http = authority.client(None);
    let client = MailboxClient::new(http.clone(), Arc::new(Native), Arc::new(SystemClock));
    let key = Native.generate_signing_key();
    let url = |address: SocketAddr| MailboxUrl::new(&address.to_string(), MailboxId::of(key.public())).unwrap();

    let (relay, shutdown) = start(&config).await.unwrap();
    let address = relay.address();
    let task = tokio::spawn(relay.run());
    assert_eq!(body(&http, format!("https://{address}/health/live")).await, "live\n");
    assert_eq!(body(&http, format!("https://{address}/health/ready")).await, "ready\n");
    client.create(&url(address), &key).await.unwrap();
    client.post(&url(address), Bytes::from("parcel")).await.unwrap();
    let chunk = Address::of(b"chunk");
    let hospital = authority.client(Some(authority.issue("hospital-a.example", 9)));
    let hospital = MailboxClient::new(hospital, Arc::new(Native), Arc::new(SystemClock));
    hospital.put_blob(&url(address), &chunk, Bytes::from("chunk")).await.unwrap();
    let ask = get("/metrics".to_owned());
    let (status, metrics) =
        unix::request(&config.server.admin_socket(), ask, Duration::from_secs(10), 65_536).await.unwrap();
    assert!(status.is_success());
    assert!(String::from_utf8_lossy(&metrics).contains("waybill_requests_total{endpoint=\"public\"} 5"));
    let metrics = http.send(get(format!("https://{address}/metrics")), EXCHANGE).await;
    assert_eq!(metrics.unwrap_err().status().unwrap().as_u16(), 404, "metrics are for the admin socket only");
    shutdown.cancel();
    assert_eq!(task.await.unwrap(), Drain::Complete);

    let (relay, shutdown) = start(&config).await.unwrap();
    let address = relay.address();
    let task = tokio::spawn(relay.run());
    let session = client.open_session(&url(address), &key).await.unwrap();
    let letters = client.messages(&url(address), &session, None, Duration::ZERO).await.unwrap();
    assert_eq!(letters[0].body, b"parcel");
    assert_eq!(client.blob(&url(address), &session, &chunk).await.unwrap(), "chunk");
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn second_relay_on_the_port_or_the_folder_is_refused() {
    let authority = TestAuthority::new();
    let first = config(&authority, "127.0.0.1:0");
    let (relay, _) = start(&first).await.unwrap();
    let mut same_port = config(&authority, &relay.address().to_string());
    same_port.server.data = authority.folder.path().join("elsewhere");
    assert!(matches!(start(&same_port).await.err().unwrap(), StartError::Bind(BindError::InUse(_))));
    assert!(matches!(start(&first).await.err().unwrap(), StartError::Store(_)));
}
