//! A process that is killed loses nothing it was told is stored, and keeps nothing half.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use waybill_store::{
    Address, Batch, DataFolder, Expect, FileObjects, Key, Objects, Op, OutboxItem, Space, SqliteOptions, SqliteStore,
    Store,
};

const FOLDER: &str = "WAYBILL_STORE_CRASH_FOLDER";
const ROWS: u64 = 40;
const WRITERS: u64 = 4;

fn row(batch: u64, n: u64) -> Key {
    Key::build().number(batch).number(n).done()
}

fn content(batch: u64) -> Bytes {
    batch.to_be_bytes().repeat(4_000).into()
}

async fn open(path: &Path) -> (SqliteStore, FileObjects) {
    let folder = DataFolder::open(path).unwrap();
    let store = SqliteStore::open(Arc::clone(&folder), SqliteOptions::default()).await.unwrap();
    (store, FileObjects::open(folder, None).unwrap())
}

/// An object first, then rows, a leaf and a message that belong together.
async fn work(store: &SqliteStore, objects: &FileObjects, batch: u64) {
    let address = objects.put(content(batch)).await.unwrap();
    let item = OutboxItem {
        to: "https://relay.example".to_owned(),
        body: batch.to_be_bytes().to_vec(),
        reply_key: batch.to_be_bytes().to_vec(),
        not_before: 0,
        deadline: 1,
        kind: "crash".to_owned(),
        blob: None,
        settle_on_delivery: false,
    };
    let rows = (0..ROWS).fold(Batch::new("crash"), |rows, n| {
        rows.put(Space::Staged, row(batch, n), address.as_bytes().to_vec(), Expect::Absent)
    });
    let leaf = Op::AppendLeaf { entry: [0; 32], note: batch.to_be_bytes().to_vec() };
    store.commit(rows.with(leaf).with(Op::Enqueue(item))).await.unwrap();
}

/// Not a test of its own: the child of the test below, which kills it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(FOLDER) else { return };
    let (store, objects) = open(Path::new(&path)).await;
    let first = store.leaf_count().await.unwrap();
    let write = |writer: u64| {
        let (store, objects) = (&store, &objects);
        async move {
            for n in 0.. {
                let batch = (first << 20) + n * WRITERS + writer;
                work(store, objects, batch).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "stored {batch}").unwrap();
                out.flush().unwrap();
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(write)).await;
}

/// Runs the child until it has acknowledged `wanted` batches, kills it, and returns all it acknowledged.
fn run_and_kill(path: &Path, wanted: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_writes_until_it_is_killed", "--exact", "--nocapture"])
        .env(FOLDER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // what was printed before the kill counts, also beyond what was waited for
        if let Some(batch) = line.unwrap().strip_prefix("stored ") {
            acknowledged.push(batch.parse().unwrap());
            if acknowledged.len() == wanted {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= wanted, "the child ended by itself");
    acknowledged
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged_and_keeps_nothing_half() {
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for wanted in [1, 7, 40, 90] {
        acknowledged.extend(run_and_kill(home.path(), wanted));
        let (store, objects) = open(home.path()).await;
        let leaves = store.leaves(0, 10_000).await.unwrap();
        let stored: Vec<_> =
            leaves.iter().map(|leaf| u64::from_be_bytes(leaf.note.as_slice().try_into().unwrap())).collect();
        for batch in &acknowledged {
            assert!(stored.contains(batch), "batch {batch} was acknowledged and is lost");
        }
        assert!(leaves.iter().zip(0..).all(|(leaf, index)| leaf.index == index), "the log has a gap");
        assert_eq!(store.count(Space::Staged, &Key::empty()).await.unwrap(), ROWS * stored.len() as u64);
        assert_eq!(store.outbox_count().await.unwrap(), stored.len() as u64);
        for batch in stored {
            let address = Address::of(&content(batch));
            assert_eq!(store.load(Space::Staged, &row(batch, 0)).await.unwrap().unwrap().value, address.as_bytes());
            assert_eq!(
                objects.get(&address).await.unwrap(),
                content(batch),
                "a row points at an object that is not whole"
            );
        }
        assert_eq!(std::fs::read_dir(home.path().join("objects/incoming")).unwrap().count(), 0);
        store.close().await;
    }
}
