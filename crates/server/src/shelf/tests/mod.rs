//! Two hospitals' shelves against each other, in memory and on disk.

mod cases;
mod faults;
mod journey;
mod kept;
mod real;
mod refusals;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use tokio::sync::watch;
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::{Digest, sha256};
use waybill_crypto::lthash::SaltSecret;
use waybill_crypto::native::Native;
use waybill_crypto::stream::{RecordKey, StreamKeys};
use waybill_protocol::ids::{HospitalId, ProofId, SessionId, Timestamp};
use waybill_protocol::messages::Manifest;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::source::Staged;
use waybill_record::hides::Hides;
use waybill_record::load::{MemorySource, Purpose};
use waybill_record::sample::{Generator, SampleForm, SampleSize};
use waybill_record::scope::Scope;
use waybill_store::*;

use super::file::Target;
use super::{FilingResult, Loaded, OnProgress, Shelf, ShelfError, Which};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn quiet() -> OnProgress {
    Arc::new(|_| {})
}

fn native() -> Arc<dyn Backend> {
    Arc::new(Native)
}

fn origin() -> HospitalId {
    HospitalId::parse("hospital-a.example").unwrap()
}

fn session(name: &str) -> SessionId {
    SessionId(sha256(&[name.as_bytes()]))
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

/// A hospital with its stores in reach of the test.
struct Hospital {
    shelf: Shelf,
    store: Arc<Flaky>,
    objects: Arc<dyn Objects>,
    _folder: Option<tempfile::TempDir>,
}

impl Hospital {
    fn of(store: Arc<dyn Store>, objects: Arc<dyn Objects>, folder: Option<tempfile::TempDir>) -> Self {
        let store = Arc::new(Flaky { store, left: AtomicI64::new(i64::MAX) });
        let shelf = Shelf::new(Arc::clone(&store) as _, Arc::clone(&objects), SaltSecret::from_bytes([7; 32]));
        Self { shelf, store, objects, _folder: folder }
    }

    fn in_memory() -> Self {
        Self::of(Arc::new(MemoryStore::new()), Arc::new(MemoryObjects::default()), None)
    }

    async fn on_disk() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("data")).unwrap();
        let objects = FileObjects::open(Arc::clone(&data), None).unwrap();
        let store = SqliteStore::open(data, SqliteOptions::default()).await.unwrap();
        Self::of(Arc::new(store), Arc::new(objects), Some(folder))
    }

    async fn load(&self, name: &str, bytes: Vec<u8>, purpose: Purpose) -> Result<Loaded, ShelfError> {
        let source = MemorySource { name: name.to_owned(), folder: None, bytes };
        self.shelf.load(vec![Box::new(source)], purpose, quiet()).await
    }

    async fn export(&self, patient: &LocalPatient, which: Which) -> Vec<u8> {
        let mut out = Vec::new();
        self.shelf.export_ndjson(patient, which, &mut out).await.unwrap();
        out
    }

    async fn freeze(&self, name: &str, patient: &LocalPatient, scope: &Scope) -> Result<(), ShelfError> {
        let hides = Hides::default();
        self.shelf.freeze_scope(session(name), patient.clone(), scope.clone(), hides, NOW).await.map(drop)
    }

    async fn stage(&self, name: &str) -> Result<Staged, ShelfError> {
        let key = RecordKey::random(&Native);
        self.shelf.stage(&session(name), native(), key, *Native.generate_hpke_key().public(), quiet()).await
    }
}

/// The manifest a source would sign over what it staged.
fn manifest(name: &str, staged: &Staged) -> Manifest {
    Manifest {
        proof: ProofId(Digest([1; 32])),
        session: session(name),
        snapshot_at: staged.snapshot_at,
        inventory: staged.inventory.clone(),
        stream_bytes: staged.stream_bytes,
        chunk_bytes: staged.chunk_bytes,
        chunk_count: staged.chunk_count,
        leaf_list: staged.leaf_list,
        merkle_root: staged.merkle_root,
        key_commitment: staged.key_commitment,
        digest_scope: staged.digest_scope.clone(),
        digest_full: staged.digest_full.clone(),
        loss: staged.loss.clone(),
        reply_key: staged.reply_key,
    }
}

fn keys(name: &str, staged: &Staged) -> StreamKeys {
    StreamKeys::derive(&session(name).0, &staged.key)
}

/// Carries every chunk from one shelf to the other, asking only for what is missing.
async fn carry(from: &Hospital, to: &Hospital, manifest: &Manifest) {
    let list = Shelf::expected_leaf_list(manifest).unwrap();
    to.shelf.take_leaf_list(manifest, from.objects.get(&list).await.unwrap()).await.unwrap();
    loop {
        let missing = to.shelf.missing(manifest, None, 3).await.unwrap();
        if missing.is_empty() {
            break;
        }
        assert_eq!(to.shelf.delivered(manifest).await.unwrap(), None);
        for chunk in missing {
            let blob = from.objects.get(&chunk.address).await.unwrap();
            assert_eq!(to.shelf.take_blob(manifest, blob).await.unwrap(), chunk.index);
        }
    }
    assert_eq!(to.shelf.delivered(manifest).await.unwrap(), Some(manifest.merkle_root));
}

async fn file(
    to: &Hospital,
    patient: &LocalPatient,
    scope: &Scope,
    manifest: &Manifest,
    keys: StreamKeys,
) -> Result<FilingResult, ShelfError> {
    let target = Target { local: patient.clone(), source: origin(), scope: scope.clone() };
    to.shelf.file_for(target, manifest.clone(), keys, native(), quiet()).await
}

async fn commit(to: &Hospital, result: &FilingResult) {
    to.store.commit(Batch { name: "case", ops: result.ops.clone() }).await.unwrap();
}

/// The whole way of one patient.
async fn migrate(
    name: &str,
    from: (&Hospital, &LocalPatient),
    to: (&Hospital, &LocalPatient),
    scope: &Scope,
) -> (Manifest, FilingResult) {
    from.0.freeze(name, from.1, scope).await.unwrap();
    let staged = from.0.stage(name).await.unwrap();
    let manifest = manifest(name, &staged);
    carry(from.0, to.0, &manifest).await;
    let result = file(to.0, to.1, scope, &manifest, keys(name, &staged)).await.unwrap();
    commit(to.0, &result).await;
    (manifest, result)
}

fn sample(index: u64, resources: u64, attachments: u64) -> (LocalPatient, Vec<u8>) {
    let size = SampleSize { resources, attachments, attachment_bytes: 300_000 };
    let patient = Generator::new(11).patient(index, size);
    let mut bytes = Vec::new();
    patient.write(SampleForm::TransactionBundle, &mut bytes).unwrap();
    (LocalPatient(patient.id()), bytes)
}

/// A source with one generated patient, and a destination where the same person is registered under another id.
async fn pair(from: Hospital, to: Hospital, resources: u64) -> ((Hospital, LocalPatient), (Hospital, LocalPatient)) {
    let (patient, bytes) = sample(0, resources, 2);
    from.load("sample", bytes, Purpose::Record).await.unwrap();
    let theirs = register(&from, &patient, &to).await;
    ((from, patient), (to, theirs))
}

/// Registers at `to` the person whom `from` knows, under the id `mrn-1`.
async fn register(from: &Hospital, patient: &LocalPatient, to: &Hospital) -> LocalPatient {
    let held = String::from_utf8(from.export(patient, Which::Held).await).unwrap();
    let line = held.lines().find(|line| line.contains(r#""resourceType":"Patient""#)).unwrap();
    let line = line.replacen(&format!(r#""id":"{}""#, patient.0), r#""id":"mrn-1""#, 1);
    to.shelf.register_local(line.as_bytes()).await.unwrap()
}

/// A store whose disk is full after some commits.
struct Flaky {
    store: Arc<dyn Store>,
    left: AtomicI64,
}

impl Flaky {
    fn fail_after(&self, commits: i64) {
        self.left.store(commits, Ordering::SeqCst);
    }

    fn heal(&self) {
        self.fail_after(i64::MAX);
    }
}

#[async_trait]
impl Store for Flaky {
    async fn load(&self, space: Space, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.store.load(space, key).await
    }

    async fn scan(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.scan(space, prefix, after, limit).await
    }

    async fn keys(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.store.keys(space, prefix, after, limit).await
    }

    async fn count(&self, space: Space, prefix: &Key) -> Result<u64, StoreError> {
        self.store.count(space, prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(CommitError::Full(Arc::new(std::io::Error::other("the test's disk is full"))));
        }
        self.store.commit(batch).await
    }

    async fn outbox_due(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        self.store.outbox_due(now, limit).await
    }

    async fn outbox_due_by_host(&self, now: u64, per_host: usize, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        self.store.outbox_due_by_host(now, per_host, limit).await
    }

    async fn outbox_expired(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        self.store.outbox_expired(now, limit).await
    }

    async fn outbox_wake(&self, now: u64) -> Result<Option<u64>, StoreError> {
        self.store.outbox_wake(now).await
    }

    async fn outbox_count(&self) -> Result<u64, StoreError> {
        self.store.outbox_count().await
    }

    async fn timers_due(&self, now: u64, limit: usize) -> Result<Vec<Timer>, StoreError> {
        self.store.timers_due(now, limit).await
    }

    async fn timers_wake(&self) -> Result<Option<u64>, StoreError> {
        self.store.timers_wake().await
    }

    async fn leaves(&self, from: u64, limit: usize) -> Result<Vec<Leaf>, StoreError> {
        self.store.leaves(from, limit).await
    }

    async fn leaf_count(&self) -> Result<u64, StoreError> {
        self.store.leaf_count().await
    }

    fn changed(&self, area: Area) -> watch::Receiver<u64> {
        self.store.changed(area)
    }
}
