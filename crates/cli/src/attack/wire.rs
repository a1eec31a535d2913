//! Attacks with bytes: bodies that are too much, too slow or not what they claim, names that look like paths, and TLS of yesterday.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Method, Request};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel};
use waybill_server::mailbox::MailboxId;
use waybill_server::net::client::ClientError;
use waybill_server::net::tls::{ClientTls, TlsFiles};
use waybill_server::net::unix;
use waybill_server::problem::ProblemDocument;

use super::hands::Patient;
use super::outcome::{Attack, Finding, Seen, Try};
use super::scene::{OrFail as _, PATIENCE, Scene};
use crate::failure::Failure;

const A: &str = "hospital-a";
const RELAY: &str = "relay";
const AUTHORITY: &str = "authority";
/// X25519MLKEM768 in a ClientHello.
const HYBRID: [u8; 2] = [0x11, 0xec];

/// The attacks of this file.
pub const TABLE: &[Attack] = &[
    Attack {
        name: "oversized-bodies",
        what: "bodies that are too large, never end, or come too slowly",
        attacker: "anybody who reaches a port",
        stopped_by: "limits of size and time before anything is parsed (3.1, 4)",
        tries: &[
            Try::new("a message of 4 MiB and a byte", RELAY, "too-large"),
            Try::new("the same to the authority", AUTHORITY, "too-large"),
            Try::new("a control body of 64 KiB", RELAY, "too-large"),
            Try::new("a message that never ends", RELAY, "too-large"),
            Try::new("a control body of a byte a second", RELAY, "slow-body"),
        ],
        run: |scene| oversized(scene).boxed_local(),
    },
    Attack {
        name: "malformed-parcels",
        what: "parcels that are nested, not in the one encoding, of another version or kind, or cut off",
        attacker: "anybody who may post",
        stopped_by: "one deterministic encoding, decoded and encoded again (3.1)",
        tries: &[
            Try::new("ten thousand arrays in each other, to A", A, "malformed"),
            Try::new("the same as a request's body", A, "malformed"),
            Try::new("a number longer than it need be", A, "not-canonical"),
            Try::new("an array of indefinite length", A, "not-canonical"),
            Try::new("a byte after the end", A, "not-canonical"),
            Try::new("another version", A, "unknown-version"),
            Try::new("a kind that is none", A, "malformed"),
            Try::new("a kind that A takes from nobody", A, "unexpected-message"),
            Try::new("ten thousand arrays, to the authority", AUTHORITY, "malformed"),
            Try::new("a number longer than it need be, to the authority", AUTHORITY, "not-canonical"),
            Try::new("ten thousand arrays, to B", "hospital-b", "malformed"),
        ],
        run: |scene| malformed(scene).boxed_local(),
    },
    Attack {
        name: "hostile-records",
        what: "FHIR files with a key twice, nested without end, with a path for an id, or not JSON at all",
        attacker: "whoever supplies records to a hospital",
        stopped_by: "one parser with limits; ids of FHIR's own shape, never used as paths",
        tries: &[
            Try::new("a key that occurs twice", A, "unusable-input"),
            Try::new("ten thousand arrays in each other", A, "unusable-input"),
            Try::new("an id that is a path", A, "unusable-input"),
            Try::new("bytes that are no UTF-8", A, "unusable-input"),
        ],
        run: |scene| hostile(scene).boxed_local(),
    },
    Attack {
        name: "names-as-paths",
        what: "ids that climb out of their folder: mailboxes, blobs, hospitals, tiles, cases, patients",
        attacker: "anybody who reaches a port, and a careless member of staff",
        stopped_by: "every id has one shape and is a row's key, never a file's name",
        tries: &[
            Try::new("a mailbox", RELAY, "unknown-mailbox"),
            Try::new("a blob", RELAY, "malformed"),
            Try::new("a hospital", AUTHORITY, "not-found"),
            Try::new("a tile of the log", AUTHORITY, "not-found"),
            Try::new("a case", A, "not-found"),
            Try::new("a patient", A, "patient-unknown"),
        ],
        run: |scene| paths(scene).boxed_local(),
    },
    Attack {
        name: "blobs-of-strangers",
        what: "junk beside the messages, to fill the room that records need, and the authority used as a relay",
        attacker: "anybody who reaches a port",
        stopped_by: "blobs are taken from parties with a certificate only; the authority takes messages for itself and nothing else (4)",
        tries: &[
            Try::new("a blob into B's mailbox", RELAY, "certificate-needed"),
            Try::new("a blob into the authority's mailbox", AUTHORITY, "not-found"),
            Try::new("a mailbox at the authority", AUTHORITY, "not-found"),
        ],
        run: |scene| strangers(scene).boxed_local(),
    },
    Attack {
        name: "downgraded-tls",
        what: "TLS 1.2 only, and the hybrid group stripped from the client's offer on its way",
        attacker: "whoever stands between client and server",
        stopped_by: "servers speak TLS 1.3 only; its transcript covers the offer. X25519 alone is served when a client offers \
                     nothing better: nothing rests on TLS",
        tries: &[
            Try::new("a client of TLS 1.2", RELAY, "tls-alert"),
            Try::new("an offer without the hybrid group", "client", "tls-broken"),
        ],
        run: |scene| downgraded(scene).boxed_local(),
    },
];

/// How a server answered.
fn answered(by: &str, result: Result<(), ClientError>) -> Seen {
    match result {
        Ok(()) => Seen::Passed(format!("{by} accepted it")),
        Err(ClientError::Status { problem: Some(problem), .. }) => {
            Seen::refused(by, problem.code(), "problem document")
        }
        Err(other) => Seen::Passed(format!("{other}")),
    }
}

async fn send(scene: &Scene, by: &str, method: Method, target: String, body: Vec<u8>) -> Result<Seen, Failure> {
    let request = Request::builder().method(method).uri(target).body(Bytes::from(body)).or_fail("no request")?;
    Ok(answered(by, scene.http(request).await.map(|_| ())))
}

/// A TLS connection that speaks HTTP/1.1, to send what no HTTP library sends.
async fn raw(scene: &Scene, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let stream = TcpStream::connect(host).await.or_fail("no connection")?;
    tls_over(scene, stream, true).await
}

async fn tls_over(
    scene: &Scene,
    stream: TcpStream,
    http1: bool,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let tls = ClientTls::load(TlsFiles { root: scene.network.root(), identity: None, crl: None });
    let mut config = (*tls.or_fail("no TLS")?.config()).clone();
    if http1 {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    let name = ServerName::try_from("127.0.0.1".to_owned()).or_fail("no name")?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.or_fail("no handshake")
}

/// Reads an answer of HTTP/1.1 and says which problem it names.
async fn problem<R: AsyncReadExt + Unpin>(by: &str, reader: &mut R) -> Seen {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(PATIENCE, reader.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some(at) = text.find("urn:waybill:problem:") {
            let code: String = text[at + 20..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if text.len() > at + 20 + code.len() {
                return Seen::refused(by, code, "problem document");
            }
        }
        if read == 0 {
            break;
        }
    }
    Seen::Passed(format!("an answer of {} bytes without a problem", answer.len()))
}

async fn endless(scene: &Scene, mailbox: &str, host: &str) -> Result<Seen, Failure> {
    let (mut reader, mut writer) = tokio::io::split(raw(scene, host).await?);
    let head =
        format!("POST /mailbox/{mailbox}/messages HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let flood = async {
        writer.write_all(head.as_bytes()).await?;
        let chunk = [b"10000\r\n".as_slice(), &[0; 65_536], b"\r\n"].concat();
        loop {
            writer.write_all(&chunk).await?;
        }
        #[allow(unreachable_code, reason = "names the error type of the block")]
        Ok::<(), std::io::Error>(())
    };
    let answer = problem(RELAY, &mut reader);
    tokio::pin!(answer);
    tokio::select! {
        seen = &mut answer => Ok(seen),
        // The server has stopped reading; its answer may still be on its way.
        _ = flood => Ok(answer.await),
    }
}

async fn slow(scene: &Scene, mailbox: &str, host: &str) -> Result<Seen, Failure> {
    let (mut reader, mut writer) = tokio::io::split(raw(scene, host).await?);
    let head = format!("PUT /mailbox/{mailbox} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 500\r\n\r\n");
    let drip = async {
        writer.write_all(head.as_bytes()).await?;
        loop {
            writer.write_all(b"x").await?;
            writer.flush().await?;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        #[allow(unreachable_code, reason = "names the error type of the block")]
        Ok::<(), std::io::Error>(())
    };
    let answer = problem(RELAY, &mut reader);
    tokio::pin!(answer);
    tokio::select! {
        seen = &mut answer => Ok(seen),
        _ = drip => Ok(answer.await),
    }
}

async fn oversized(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (to, authority) = (scene.address(A)?, scene.address(AUTHORITY)?);
    let (mailbox, host) = (to.id().to_string(), scene.network.relay_host().to_owned());
    let large = vec![0; MAX_PARCEL_BYTES + 1];
    let seen = vec![
        send(scene, RELAY, Method::POST, format!("{to}/messages"), large.clone()).await?,
        send(scene, AUTHORITY, Method::POST, format!("{authority}/messages"), large).await?,
        send(scene, RELAY, Method::PUT, to.to_string(), vec![0; 64 * 1024]).await?,
        endless(scene, &mailbox, &host).await?,
        slow(scene, &mailbox, &host).await?,
    ];
    let (_, twin) = patient.migrate(scene).await?;
    Ok(Finding::new(seen, None, twin, "an honest migration right after it is filed"))
}

async fn malformed(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let nested = vec![0x81; 10_000];
    let mut inside = vec![0x83, 1, 8, 0x59, 0x27, 0x10];
    inside.extend(&nested);
    let honest = Parcel::pack(Kind::Login, &7u8);
    let long = vec![0x83, 0x18, 1, 3, 0x41, 7];
    let tries: Vec<(&str, Vec<u8>)> = vec![
        (A, nested.clone()),
        (A, inside),
        (A, long.clone()),
        (A, vec![0x9f, 1, 3, 0x41, 7, 0xff]),
        (A, [honest.as_slice(), &[0]].concat()),
        (A, vec![0x83, 2, 3, 0x41, 7]),
        (A, vec![0x83, 1, 0x18, 99, 0x41, 7]),
        (A, Parcel::pack(Kind::Redeem, &7u8)),
        (AUTHORITY, nested.clone()),
        (AUTHORITY, long),
        ("hospital-b", nested),
    ];
    let mut seen = Vec::new();
    for (party, parcel) in tries {
        seen.push(scene.try_post(party, parcel).await?);
    }
    let (_, twin) = patient.migrate(scene).await?;
    Ok(Finding::new(seen, None, twin, "an honest migration right after it is filed"))
}

/// One exchange over a hospital's admin socket, with the problem's code.
async fn admin(scene: &Scene, method: Method, path: &str, body: Vec<u8>) -> Result<Seen, Failure> {
    let socket = scene.folder(A).join("data/admin.sock");
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Bytes::from(body)).or_fail("no request")?;
    let (status, body) = unix::request(&socket, request, PATIENCE, 1 << 20).await.or_fail("A does not answer")?;
    if status.is_success() {
        return Ok(Seen::Passed("A accepted it".to_owned()));
    }
    let problem: ProblemDocument = serde_json::from_slice(&body).or_fail("no problem document")?;
    Ok(Seen::refused(A, problem.code(), "problem document"))
}

async fn hostile(scene: &mut Scene) -> Result<Finding, Failure> {
    let deep =
        format!("{{\"resourceType\":\"Basic\",\"id\":\"x\",\"code\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let records: [Vec<u8>; 4] = [
        br#"{"resourceType":"Patient","id":"p-1","gender":"male","gender":"female"}"#.to_vec(),
        deep.into_bytes(),
        br#"{"resourceType":"Patient","id":"../../etc/passwd"}"#.to_vec(),
        b"{\"resourceType\":\"Patient\",\"id\":\"p-2\",\"name\":[{\"family\":\"\xff\xfe\"}]}".to_vec(),
    ];
    let mut seen = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let file = scene.network.folder().join(format!("hostile-{number}.json"));
        std::fs::write(&file, record).or_fail("a file cannot be written")?;
        let load = json!({ "inputs": [file], "kind": "record" });
        seen.push(admin(scene, Method::POST, "/load", load.to_string().into_bytes()).await?);
    }
    let twin = !scene.admit().await?.lines.is_empty();
    Ok(Finding::new(seen, None, twin, "an honest record is loaded right after it"))
}

async fn strangers(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (b, authority) = (scene.address("hospital-b")?, scene.address(AUTHORITY)?);
    let (junk, stranger) = (vec![7], Native.generate_signing_key());
    let blob = waybill_store::Address::of(&junk);
    let mailbox = format!("{}/mailbox/{}", scene.network.authority_url(), MailboxId::of(stranger.public()));
    let seen = vec![
        send(scene, RELAY, Method::PUT, format!("{b}/blobs/{blob}"), junk.clone()).await?,
        send(scene, AUTHORITY, Method::PUT, format!("{authority}/blobs/{blob}"), junk.clone()).await?,
        send(scene, AUTHORITY, Method::PUT, mailbox, junk).await?,
    ];
    let (_, twin) = patient.migrate(scene).await?;
    Ok(Finding::new(seen, None, twin, "an honest migration right after it is filed"))
}

async fn paths(scene: &mut Scene) -> Result<Finding, Failure> {
    let patient = Patient::register(scene).await?;
    let (relay, authority) = (scene.network.relay_host().to_owned(), scene.network.authority_url().to_owned());
    let climb = "..%2F..%2F..%2Fetc%2Fpasswd";
    let mailbox = scene.address(A)?;
    let code = json!({ "local": "../../etc/passwd", "relation": "self" });
    let seen = vec![
        send(scene, RELAY, Method::POST, format!("https://{relay}/mailbox/{climb}/messages"), vec![1]).await?,
        send(scene, RELAY, Method::PUT, format!("{mailbox}/blobs/{climb}"), vec![1]).await?,
        send(scene, AUTHORITY, Method::GET, format!("{authority}/directory/{climb}"), Vec::new()).await?,
        send(scene, AUTHORITY, Method::GET, format!("{authority}/tile/{climb}"), Vec::new()).await?,
        admin(scene, Method::GET, &format!("/cases/{climb}"), Vec::new()).await?,
        admin(scene, Method::POST, "/enrolment-codes", code.to_string().into_bytes()).await?,
    ];
    let (_, twin) = patient.migrate(scene).await?;
    Ok(Finding::new(seen, None, twin, "an honest migration right after it is filed"))
}

/// A ClientHello of TLS 1.2: no `supported_versions`.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x42; 32]);
    // No session, one cipher suite (ECDHE-ECDSA-AES128-GCM-SHA256), no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let groups = [0x00, 0x0a, 0x00, 0x06, 0x00, 0x04, 0x00, 0x1d, 0x00, 0x17];
    let formats = [0x00, 0x0b, 0x00, 0x02, 0x01, 0x00];
    let signatures = [0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04];
    let extensions = [groups.as_slice(), &formats, &signatures].concat();
    body.extend(u16::try_from(extensions.len()).expect("a few extensions").to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).expect("a short hello");
    let mut record = vec![0x16, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

async fn tls_1_2(host: &str) -> Result<Seen, Failure> {
    let mut stream = TcpStream::connect(host).await.or_fail("no connection")?;
    stream.write_all(&hello_of_tls_1_2()).await.or_fail("no connection")?;
    let mut answer = [0; 7];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
    read.or_fail("no answer in time")?.or_fail("no answer")?;
    // A fatal alert: protocol_version (70) or handshake_failure (40).
    Ok(match answer {
        [0x15, _, _, 0, 2, 2, 70 | 40] => Seen::refused(RELAY, "tls-alert", "fatal alert"),
        other => Seen::Passed(format!("it answers {other:02x?}")),
    })
}

/// Passes one connection on; with `strip`, the client's offer arrives without the hybrid group.
async fn middle(listener: TcpListener, server: String, strip: bool) -> std::io::Result<()> {
    let (mut client, _) = listener.accept().await?;
    let mut upstream = TcpStream::connect(server).await?;
    let mut head = [0; 5];
    client.read_exact(&mut head).await?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    client.read_exact(&mut hello).await?;
    if strip {
        for at in 0..hello.len() - 1 {
            if hello[at..at + 2] == HYBRID {
                hello[at..at + 2].copy_from_slice(&[0x6a, 0x6a]);
            }
        }
    }
    upstream.write_all(&head).await?;
    upstream.write_all(&hello).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(|_| ())
}

/// A handshake through somebody in the middle; gives the group that was agreed on.
async fn through(scene: &Scene, strip: bool) -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.or_fail("no port")?;
    let address = listener.local_addr().or_fail("no port")?;
    let proxy = middle(listener, scene.network.relay_host().to_owned(), strip);
    let client = async {
        let stream = TcpStream::connect(address).await.or_fail("no connection")?;
        let stream = tls_over(scene, stream, false).await?;
        let group = stream.get_ref().1.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        Ok(group.unwrap_or_default())
    };
    tokio::select! {
        group = client => group,
        ended = async { drop(proxy.await); std::future::pending::<Result<String, Failure>>().await } => ended,
    }
}

async fn downgraded(scene: &mut Scene) -> Result<Finding, Failure> {
    let mut seen = vec![tls_1_2(scene.network.relay_host()).await?];
    seen.push(match through(scene, true).await {
        Ok(group) => Seen::Passed(format!("agreed on {group}")),
        Err(_) => Seen::refused("client", "tls-broken", "the client's handshake"),
    });
    let group = through(scene, false).await?;
    Ok(Finding::new(seen, None, group.contains("MLKEM"), "the same connection, left alone, agrees on the hybrid group"))
}
