use std::time::Duration;

use bytes::Bytes;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;
use waybill_crypto::native::Native;
use waybill_protocol::log::witness::{AddCheckpoint, judge_conflict};
use waybill_protocol::log::{Checkpoint, CheckpointPolicy};
use waybill_store::{MemoryStore, Store};

use super::*;
use crate::clock::ManualClock;
use crate::net::client::{ClientError, Exchange, HttpClient};
use crate::net::testing::TestAuthority;

fn note_signer(name: &str, kind: NoteKeyKind, seed: u8) -> NoteSigner {
    NoteSigner::new(KeyName::parse(name).unwrap(), kind, Ed25519SecretKey::from_bytes(&[seed; 32]))
}

fn checkpoint(log: &NoteSigner, size: u64, root: Digest) -> Vec<u8> {
    Checkpoint { origin: log.public().name().clone(), size, root }.sign(&Native, log)
}

fn leaf(byte: u8) -> Digest {
    sha256(&[&[0], &[byte; 32]])
}

fn node(left: Digest, right: Digest) -> Digest {
    sha256(&[&[1], left.as_bytes(), right.as_bytes()])
}

struct Fixture {
    log: NoteSigner,
    witness: Arc<Witness>,
    store: Arc<MemoryStore>,
}

fn fixture() -> Fixture {
    let log = note_signer("authority.example/log", NoteKeyKind::Log, 1);
    let store = Arc::new(MemoryStore::default());
    let logs = [(log.public().name().clone(), log.public().clone())].into_iter().collect();
    let signer = note_signer("witness.example", NoteKeyKind::Witness, 2);
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let witness = Arc::new(Witness::new(store.clone(), Arc::new(Native), clock, signer, logs));
    Fixture { log, witness, store }
}

#[tokio::test]
async fn state_is_durable_before_the_cosignature_and_damage_is_no_fresh_start() {
    let Fixture { log, witness, store } = fixture();
    let request = AddCheckpoint { old_size: 0, proof: Vec::new(), note: checkpoint(&log, 1, leaf(1)) };
    witness.add_checkpoint(&request.to_bytes()).await.unwrap();
    let rows = store.scan(waybill_store::Space::Checkpoint, &waybill_store::Key::empty(), None, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    let other = AddCheckpoint { old_size: 1, proof: Vec::new(), note: checkpoint(&log, 1, leaf(9)) };
    witness.add_checkpoint(&other.to_bytes()).await.expect_err("another root at the same size");
    let batch = waybill_store::Batch::new("test").put(
        waybill_store::Space::Checkpoint,
        rows[0].0.clone(),
        vec![0xff],
        waybill_store::Expect::Any,
    );
    store.commit(batch).await.unwrap();
    witness.add_checkpoint(&request.to_bytes()).await.expect_err("a damaged row");
}

#[tokio::test]
async fn of_two_histories_offered_at_once_one_is_cosigned() {
    let Fixture { log, witness, .. } = fixture();
    let offer = |byte| {
        let request = AddCheckpoint { old_size: 0, proof: Vec::new(), note: checkpoint(&log, 1, leaf(byte)) };
        let witness = witness.clone();
        tokio::spawn(async move { witness.add_checkpoint(&request.to_bytes()).await.is_ok() })
    };
    let offers: Vec<_> = (0..8).map(offer).collect();
    let mut cosigned = 0;
    for offer in offers {
        cosigned += usize::from(offer.await.unwrap());
    }
    assert_eq!(cosigned, 1);
}

fn config(authority: &TestAuthority, log: &NoteSigner) -> WitnessConfig {
    let identity = authority.issue("witness.example", 6);
    WitnessConfig {
        server: ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_hosts: Vec::new(),
            data: authority.folder.path().join("witness"),
            root: authority.root(),
            certificate: identity.certificate,
            key: identity.key,
            crl: None,
            admin_socket: None,
        },
        witness: WitnessKeys {
            name: "witness.example".to_owned(),
            key: authority.folder.path().join("witness.seed"),
            logs: vec![log.public().to_string()],
        },
        log: LogConfig::default(),
    }
}

async fn start(config: &WitnessConfig) -> (String, CancellationToken, tokio::task::JoinHandle<Drain>) {
    let shutdown = CancellationToken::new();
    let clock = Arc::new(crate::clock::SystemClock);
    let server = WitnessServer::start(config, Arc::new(Native), clock, shutdown.clone()).await.unwrap();
    let url = format!("https://{}", server.address());
    (url, shutdown, tokio::spawn(server.run()))
}

#[tokio::test]
async fn witness_cosigns_over_tls_remembers_over_a_restart_and_tells_its_size() {
    let authority = TestAuthority::new();
    let log = note_signer("authority.example/log", NoteKeyKind::Log, 1);
    let config = config(&authority, &log);
    let key = create_key(&config.witness.key, "witness.example", &Native).unwrap().public().clone();
    assert!(create_key(&config.witness.key, "witness.example", &Native).is_err(), "a key is never overwritten");
    let http: HttpClient = authority.client(None);

    let (url, shutdown, task) = start(&config).await;
    let client = WitnessClient::new(http.clone(), Arc::new(Native), &url, key.clone());
    let first = AddCheckpoint { old_size: 0, proof: Vec::new(), note: checkpoint(&log, 1, leaf(1)) };
    let WitnessAnswer::Cosigned(note) = client.add_checkpoint(&first).await.unwrap() else { panic!() };
    let policy = CheckpointPolicy::new(log.public().clone(), vec![key.clone()], 1).unwrap();
    policy.verify(&Native, &note).unwrap();
    policy.verify(&Native, &first.note).expect_err("without the cosignature");
    shutdown.cancel();
    task.await.unwrap();

    let (url, shutdown, task) = start(&config).await;
    let client = WitnessClient::new(http.clone(), Arc::new(Native), &url, key);
    let root = node(leaf(1), leaf(2));
    let stale = AddCheckpoint { old_size: 0, proof: Vec::new(), note: checkpoint(&log, 2, root) };
    let WitnessAnswer::Conflict(size) = client.add_checkpoint(&stale).await.unwrap() else { panic!() };
    assert_eq!(judge_conflict(2, &size).unwrap(), 1);
    let next = AddCheckpoint { old_size: 1, proof: vec![leaf(2)], note: checkpoint(&log, 2, root) };
    assert!(matches!(client.add_checkpoint(&next).await.unwrap(), WitnessAnswer::Cosigned(_)));
    let unproven = AddCheckpoint { old_size: 2, proof: Vec::new(), note: checkpoint(&log, 3, root) };
    let error = client.add_checkpoint(&unproven).await.unwrap_err();
    assert!(
        matches!(&error, WitnessClientError::Exchange(ClientError::Status { status, .. }) if status.as_u16() == 422)
    );

    let post = |body: Vec<u8>| {
        let request = axum::http::Request::post(format!("{url}/add-checkpoint")).body(Bytes::from(body)).unwrap();
        let (http, exchange) = (http.clone(), Exchange { timeout: Duration::from_secs(10), max_response: 1024 });
        async move { http.send(request, exchange).await.unwrap_err().status().unwrap().as_u16() }
    };
    assert_eq!(post(b"nonsense".to_vec()).await, 400);
    assert_eq!(post(vec![b'x'; 100_000]).await, 413);
    let foreign = note_signer("other.example/log", NoteKeyKind::Log, 3);
    let unknown = AddCheckpoint { old_size: 0, proof: Vec::new(), note: checkpoint(&foreign, 1, leaf(1)) };
    assert_eq!(post(unknown.to_bytes()).await, 404);
    let forger = note_signer("authority.example/log", NoteKeyKind::Log, 4);
    let forged = AddCheckpoint { old_size: 2, proof: Vec::new(), note: checkpoint(&forger, 2, root) };
    assert_eq!(post(forged.to_bytes()).await, 403);
    shutdown.cancel();
    task.await.unwrap();
}

#[test]
fn configured_keys_must_be_log_keys_and_distinct() {
    let log = note_signer("authority.example/log", NoteKeyKind::Log, 1).public().to_string();
    let witness = note_signer("witness.example", NoteKeyKind::Witness, 2).public().to_string();
    assert_eq!(parse_logs(std::slice::from_ref(&log)).unwrap().len(), 1);
    for bad in [vec![witness], vec![log.clone(), log], vec!["nonsense".to_owned()]] {
        assert!(matches!(parse_logs(&bad), Err(StartError::Config(_))));
    }
}
