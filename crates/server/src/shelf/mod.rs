//! A hospital's records on its store: loading, freezing, staging, receiving, filing, exporting.
//!
//! The record code is synchronous and asks traits for what it needs; the stores are asynchronous. Every operation here runs
//! on a thread for blocking work, holds one resource or one chunk at a time, and writes bounded batches, so memory does not
//! grow with the record. What it writes before the end is scratch that the same operation clears and does again: after a
//! crash, a full disk or a dropped future the caller simply calls again.
//!
//! Source: PROTOCOL sections 6 and 7. The rows are listed in `rows.rs`.

mod bridge;
mod discard;
mod error;
mod export;
mod file;
mod freeze;
mod frontier;
mod incoming;
mod load;
mod locks;
mod made;
mod pool;
mod preview;
mod quarantine;
mod receive;
mod rows;
mod stage;
mod withheld;

pub use error::ShelfError;
pub use export::Which;
pub use file::FilingResult;
pub use freeze::SnapshotSummary;
pub use load::Loaded;
pub use preview::{MAX_ITEMS, MAX_PREVIEWED_HIDES};
pub use quarantine::Quarantined;
pub use receive::ReceiveError;
pub use stage::{MAX_RECORD_BYTES, SealedChunk};
pub use withheld::{MAX_MARKS, Mark, WITHHELD_BY_SOURCE};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::RwLock;
use waybill_crypto::lthash::SaltSecret;
use waybill_protocol::messages::TypeCount;
use waybill_record::digest::Inventory;
use waybill_store::{Key, Objects, Store};

use bridge::Bridge;
use locks::Locks;

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Resources handled.
    pub resources: u64,
    /// Bytes handled. Units: bytes.
    pub size_bytes: u64,
    /// Bytes in all, where that is known. Units: bytes.
    pub total_bytes: Option<u64>,
}

/// Who is told about progress; called often and from another thread, so it must be quick.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// The records of one hospital.
///
/// Security: holds health data in clear; so does the folder behind the stores. One value per data folder: it is what
/// keeps two operations on one case apart.
pub struct Shelf {
    store: Arc<dyn Store>,
    objects: Arc<dyn Objects>,
    salts: Arc<SaltSecret>,
    gate: Arc<RwLock<()>>,
    locks: Arc<Locks>,
    scratch: AtomicU64,
}

impl Shelf {
    /// The shelf on two stores; `salts` is a lasting secret of the hospital, so that digests of successive migrations add up.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, objects: Arc<dyn Objects>, salts: SaltSecret) -> Self {
        Self {
            store,
            objects,
            salts: Arc::new(salts),
            gate: Arc::default(),
            locks: Arc::default(),
            scratch: AtomicU64::new(0),
        }
    }

    /// Runs blocking work under a lock, on a thread of its own; dropping the future stops it at its next step.
    async fn run<T: Send + 'static>(
        &self,
        lock: Key,
        work: impl FnOnce(&Bridge) -> Result<T, ShelfError> + Send + 'static,
    ) -> Result<T, ShelfError> {
        let turn = Locks::lock(&self.locks, lock).await;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _stop = CancelOnDrop(Arc::clone(&cancelled));
        let bridge = Bridge {
            store: Arc::clone(&self.store),
            objects: Arc::clone(&self.objects),
            gate: Arc::clone(&self.gate),
            handle: Handle::current(),
            cancelled,
        };
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&bridge)
        });
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ShelfError::Cancelled),
        }
    }

    /// A name for scratch rows that no other running operation uses; each clears what an earlier process left.
    fn scratch(&self) -> Key {
        Key::build().text("scratch").number(self.scratch.fetch_add(1, Ordering::Relaxed)).done()
    }
}

/// Tells the thread that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The counts of an inventory as messages carry them.
fn type_counts(inventory: &Inventory) -> Vec<TypeCount> {
    let line = |(name, tally): (waybill_record::types::ResourceType, waybill_record::digest::Tally)| TypeCount {
        resource_type: name.as_str().to_owned(),
        count: tally.count,
        size_bytes: tally.bytes,
    };
    inventory.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
