//! What every back end guarantees.

use crate::{
    Address, Area, Batch, CommitError, Committed, DueItem, Key, Leaf, ObjectError, Op, OutboxId, Space, StoreError,
    Timer, Versioned,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::ops::Range;
use tokio::sync::watch;

/// Most rows of one page; a larger limit is cut to this.
pub const MAX_PAGE: usize = 10_000;

/// Largest object that `get` and `range` hand out in one piece: a resource of 64 MiB with some room.
pub const MAX_OBJECT_IN_MEMORY: u64 = 65 * 1024 * 1024;

/// Bytes on their way into an object.
pub type ByteStream<'a> = BoxStream<'a, std::io::Result<Bytes>>;

/// Rows, outbox, timers and leaves of one party.
///
/// Guarantees: a batch is all or nothing; when `commit` returns `Ok` the batch survives the end of the process and of the
/// machine's power; batches are serializable (each sees all that were acknowledged before it was handed in); a read sees every
/// batch acknowledged before the read began. Pages of one scan are not one snapshot.
///
/// Trust: holds health data and keys in clear; whoever reads the folder reads them.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads a row.
    async fn load(&self, space: Space, key: &Key) -> Result<Option<Versioned>, StoreError>;

    /// Reads up to `limit` rows under `prefix` after the key `after`, ordered by key bytes; fewer than `limit` means the end.
    async fn scan(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError>;

    /// As `scan`, without the values.
    async fn keys(&self, space: Space, prefix: &Key, after: Option<&Key>, limit: usize)
    -> Result<Vec<Key>, StoreError>;

    /// Counts the rows under `prefix`.
    async fn count(&self, space: Space, prefix: &Key) -> Result<u64, StoreError>;

    /// Runs a batch: all of it or nothing.
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError>;

    /// Outbox items whose time has come and whose deadline has not, those due longest first. Units: Unix milliseconds.
    async fn outbox_due(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError>;

    /// As `outbox_due`, but at most `per_host` of one host (see [`OutboxItem::host`]), so that what waits for a slow one hides nobody
    /// else's.
    async fn outbox_due_by_host(&self, now: u64, per_host: usize, limit: usize) -> Result<Vec<DueItem>, StoreError>;

    /// Outbox items whose deadline has passed; they stay until withdrawn or settled.
    async fn outbox_expired(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError>;

    /// When the next outbox item is due (or was due), whatever its deadline; nothing when the outbox is empty of items with
    /// `deadline > now`.
    async fn outbox_wake(&self, now: u64) -> Result<Option<u64>, StoreError>;

    /// How many items are in the outbox.
    async fn outbox_count(&self) -> Result<u64, StoreError>;

    /// Notes a delivery attempt (see [`Op::Attempted`]).
    async fn outbox_attempted(&self, id: OutboxId, next_at: u64, delivered: bool) -> Result<(), CommitError> {
        let batch = Batch::new("outbox-attempted").with(Op::Attempted { id, next_at, delivered });
        self.commit(batch).await.map(|_| ())
    }

    /// Timers whose time has come, earliest first; they stay until cleared or set again.
    async fn timers_due(&self, now: u64, limit: usize) -> Result<Vec<Timer>, StoreError>;

    /// When the earliest timer is due.
    async fn timers_wake(&self) -> Result<Option<u64>, StoreError>;

    /// Leaves from index `from` on, in order.
    async fn leaves(&self, from: u64, limit: usize) -> Result<Vec<Leaf>, StoreError>;

    /// How many leaves there are, which is the index of the next.
    async fn leaf_count(&self) -> Result<u64, StoreError>;

    /// Watches an area: the count grows after each commit that touches it.
    fn changed(&self, area: Area) -> watch::Receiver<u64>;
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub address: Address,
    /// Its length.
    pub size_bytes: u64,
}

/// Objects under the SHA-256 of their bytes.
///
/// Guarantees: a put is durable when it returns and atomic (an object is there whole or not at all); putting the same
/// bytes again changes nothing, and repairs a damaged copy; every byte handed out was checked against the address, so damage is an error and never silence.
///
/// Trust: holds what callers put, sealed or not.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores `bytes` under their address.
    async fn put(&self, bytes: Bytes) -> Result<Address, ObjectError>;

    /// Stores a stream of at most `limit_bytes`, refusing it when it does not hash to `expected`; memory does not grow with it.
    async fn put_stream(
        &self,
        stream: ByteStream<'_>,
        limit_bytes: u64,
        expected: Option<Address>,
    ) -> Result<Stored, ObjectError>;

    /// Reads a whole object of at most [`MAX_OBJECT_IN_MEMORY`] bytes.
    async fn get(&self, address: &Address) -> Result<Bytes, ObjectError>;

    /// Reads part of an object of any size; the whole of it is hashed on the way, so the cost is one pass over it.
    async fn range(&self, address: &Address, range: Range<u64>) -> Result<Bytes, ObjectError>;

    /// The length of an object, nothing when absent.
    async fn size(&self, address: &Address) -> Result<Option<u64>, ObjectError>;

    /// Whether the object is there.
    async fn exists(&self, address: &Address) -> Result<bool, ObjectError> {
        Ok(self.size(address).await?.is_some())
    }

    /// Deletes an object; returns whether it was there.
    async fn delete(&self, address: &Address) -> Result<bool, ObjectError>;

    /// Addresses after `after`, in order, at most `limit`.
    async fn list(&self, after: Option<&Address>, limit: usize) -> Result<Vec<Address>, ObjectError>;

    /// Bytes of all objects together.
    async fn total_size(&self) -> Result<u64, ObjectError>;
}
