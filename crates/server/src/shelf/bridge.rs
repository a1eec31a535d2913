//! Where the synchronous record code meets the asynchronous stores: blocking calls from a thread made for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use waybill_crypto::digest::{Digest, sha256};
use waybill_store::{Address, Batch, Committed, Expect, Key, Objects, Op, Space, Store, Versioned};

use super::error::ShelfError;
use super::rows::{self, Held, MAX_INLINE_BYTES};

/// Rows asked for at once.
const PAGE: usize = 64;
/// When a batch is written: enough rows to share one transaction, few enough to stay small.
const FLUSH_OPS: usize = 1_000;
const FLUSH_BYTES: usize = 8 << 20;

/// The stores, as blocking code sees them.
#[derive(Clone)]
pub(super) struct Bridge {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    /// Read: an object is put and not referenced yet. Write: unreferenced objects are deleted.
    pub gate: Arc<RwLock<()>>,
    pub handle: Handle,
    pub cancelled: Arc<AtomicBool>,
}

impl Bridge {
    /// Fails once the caller of the operation went away: its future was dropped, and it may start again any time.
    pub fn check(&self) -> Result<(), ShelfError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(ShelfError::Cancelled) } else { Ok(()) }
    }

    pub fn load(&self, space: Space, key: &Key) -> Result<Option<Versioned>, ShelfError> {
        Ok(self.handle.block_on(self.store.load(space, key))?)
    }

    pub fn exists(&self, space: Space, key: &Key) -> Result<bool, ShelfError> {
        Ok(!self.handle.block_on(self.store.keys(space, key, None, 1))?.is_empty())
    }

    pub fn keys(&self, space: Space, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, ShelfError> {
        Ok(self.handle.block_on(self.store.keys(space, prefix, after, limit))?)
    }

    /// The first row under a prefix.
    pub fn first(&self, space: Space, prefix: &Key) -> Result<Option<Vec<u8>>, ShelfError> {
        let page = self.handle.block_on(self.store.scan(space, prefix, None, 1))?;
        Ok(page.into_iter().next().map(|(_, row)| row.value))
    }

    pub fn commit(&self, batch: Batch) -> Result<Committed, ShelfError> {
        self.check()?;
        Ok(self.handle.block_on(self.store.commit(batch))?)
    }

    /// Calls `each` for every row under a prefix, page by page. Pages hold bodies, so they are small.
    pub fn for_each(
        &self,
        space: Space,
        prefix: &Key,
        each: &mut dyn FnMut(Key, Vec<u8>) -> Result<(), ShelfError>,
    ) -> Result<(), ShelfError> {
        let mut after = None;
        loop {
            self.check()?;
            let page = self.handle.block_on(self.store.scan(space, prefix, after.as_ref(), PAGE))?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            for (key, row) in page {
                each(key, row.value)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    pub fn put_object(&self, bytes: Bytes) -> Result<Address, ShelfError> {
        self.check()?;
        Ok(self.handle.block_on(self.objects.put(bytes))?)
    }

    pub fn object(&self, address: &Address) -> Result<Bytes, ShelfError> {
        Ok(self.handle.block_on(self.objects.get(address))?)
    }

    /// Deletes an object that may be gone already.
    pub fn delete_object(&self, address: &Address) -> Result<(), ShelfError> {
        self.check()?;
        self.handle.block_on(self.objects.delete(address))?;
        Ok(())
    }

    /// The exact bytes of a held resource.
    pub fn body(&self, held: &Held) -> Result<Vec<u8>, ShelfError> {
        match &held.inline {
            Some(inline) => Ok(inline.to_vec()),
            None => Ok(self.object(&held.address())?.to_vec()),
        }
    }

    /// Deletes everything a holder keeps alive that nobody else needs.
    pub fn release(&self, holder: &Key) -> Result<(), ShelfError> {
        let prefix = rows::holds(holder);
        while let Some(key) = self.keys(Space::Reference, &prefix, None, 1)?.pop() {
            let mut parts = key.read_after(&prefix).ok_or(ShelfError::Damaged("objects held"))?;
            let address = Address::from_bytes(parts.fixed().map_err(|_| ShelfError::Damaged("objects held"))?);
            self.release_one(holder, &address)?;
        }
        Ok(())
    }

    /// Deletes an object that a holder keeps alive, unless somebody else needs it.
    pub fn release_one(&self, holder: &Key, address: &Address) -> Result<(), ShelfError> {
        let _closed = self.handle.block_on(self.gate.write());
        let held = rows::holds(holder).extend().fixed(address.as_bytes()).done();
        let batch = Batch::new("shelf-release")
            .delete(Space::Reference, rows::object_holder(address, holder), Expect::Any)
            .delete(Space::Reference, held, Expect::Any);
        let is_last = self.keys(Space::Reference, &rows::object(address), None, 2)?.len() < 2;
        // The object goes first: a crash in between leaves a row to delete again, never an object that nobody names.
        if is_last {
            self.handle.block_on(self.objects.delete(address))?;
        }
        self.commit(batch)?;
        Ok(())
    }
}

/// Collects rows and writes them in bounded batches.
pub(super) struct Writer<'a> {
    bridge: &'a Bridge,
    name: &'static str,
    ops: Vec<Op>,
    bytes: usize,
    /// Held from the first object that was put until the rows that name it are committed.
    gate: Option<OwnedRwLockReadGuard<()>>,
}

impl<'a> Writer<'a> {
    pub fn new(bridge: &'a Bridge, name: &'static str) -> Self {
        Self { bridge, name, ops: Vec::new(), bytes: 0, gate: None }
    }

    /// Makes a body durable if it is an object, and gives what its row says.
    pub fn hold(
        &mut self,
        holder: &Key,
        bytes: Vec<u8>,
        hash: Option<Digest>,
        version: Option<&str>,
        salt: Option<[u8; 16]>,
    ) -> Result<Held, ShelfError> {
        let hash = hash.unwrap_or_else(|| sha256(&[&bytes]));
        let size_bytes = bytes.len() as u64;
        let is_inline = bytes.len() <= MAX_INLINE_BYTES;
        let inline = if is_inline {
            Some(ByteVec::from(bytes))
        } else {
            self.enter_gate();
            self.bridge.put_object(bytes.into())?;
            self.reference(&Address::from_bytes(*hash.as_bytes()), holder);
            None
        };
        let salt = salt.map(|salt| ByteVec::from(salt.to_vec()));
        Ok(Held { sha256: hash, size_bytes, version: version.map(str::to_owned), inline, salt })
    }

    /// Takes another reference to an object that is held already.
    pub fn share(&mut self, holder: &Key, held: &Held) {
        if held.inline.is_none() {
            self.enter_gate();
            self.reference(&held.address(), holder);
        }
    }

    fn enter_gate(&mut self) {
        if self.gate.is_none() {
            self.gate = Some(self.bridge.handle.block_on(Arc::clone(&self.bridge.gate).read_owned()));
        }
    }

    fn reference(&mut self, address: &Address, holder: &Key) {
        let held = rows::holds(holder).extend().fixed(address.as_bytes()).done();
        for key in [rows::object_holder(address, holder), held] {
            self.ops.push(Op::Put { space: Space::Reference, key, value: Vec::new(), expect: Expect::Any });
        }
    }

    /// Writes a row, at the latest when the batch is full.
    pub fn put(&mut self, space: Space, key: Key, value: Vec<u8>) -> Result<(), ShelfError> {
        self.bytes += key.as_bytes().len() + value.len();
        self.ops.push(Op::Put { space, key, value, expect: Expect::Any });
        if self.ops.len() >= FLUSH_OPS || self.bytes >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Deletes a row with the next batch.
    pub fn delete(&mut self, space: Space, key: Key) {
        self.ops.push(Op::Delete { space, key, expect: Expect::Any });
    }

    /// Writes what is left.
    pub fn flush(&mut self) -> Result<(), ShelfError> {
        if !self.ops.is_empty() {
            let ops = std::mem::take(&mut self.ops);
            self.bridge.commit(Batch { name: self.name, ops })?;
        }
        self.bytes = 0;
        self.gate = None;
        Ok(())
    }
}
