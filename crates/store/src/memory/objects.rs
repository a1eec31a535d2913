//! Objects in memory.

use crate::{Address, ByteStream, Hasher, MAX_OBJECT_IN_MEMORY, MAX_PAGE, ObjectError, Objects, Stored};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};

/// [`Objects`] in memory, with an optional quota.
pub struct MemoryObjects {
    objects: Mutex<BTreeMap<Address, Bytes>>,
    quota_bytes: u64,
}

impl Default for MemoryObjects {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryObjects {
    /// An empty set without quota.
    pub fn new() -> Self {
        Self::with_quota(u64::MAX)
    }

    /// An empty set that is full at `quota_bytes`.
    pub fn with_quota(quota_bytes: u64) -> Self {
        Self { objects: Mutex::default(), quota_bytes }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Address, Bytes>> {
        self.objects.lock().expect("no holder of this lock panics")
    }

    fn insert(&self, address: Address, bytes: Bytes) -> Result<(), ObjectError> {
        let mut objects = self.objects();
        if objects.contains_key(&address) {
            return Ok(());
        }
        let used: u64 = objects.values().map(|object| object.len() as u64).sum();
        if used + bytes.len() as u64 > self.quota_bytes {
            return Err(ObjectError::Full(Arc::new(std::io::Error::from(std::io::ErrorKind::QuotaExceeded))));
        }
        objects.insert(address, bytes);
        Ok(())
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put(&self, bytes: Bytes) -> Result<Address, ObjectError> {
        let address = Address::of(&bytes);
        self.insert(address, bytes)?;
        Ok(address)
    }

    async fn put_stream(
        &self,
        mut stream: ByteStream<'_>,
        limit_bytes: u64,
        expected: Option<Address>,
    ) -> Result<Stored, ObjectError> {
        let mut hasher = Hasher::new();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| ObjectError::Stream(Arc::new(error)))?;
            if (bytes.len() + piece.len()) as u64 > limit_bytes {
                return Err(ObjectError::TooLarge { limit_bytes });
            }
            hasher.update(&piece);
            bytes.extend_from_slice(&piece);
        }
        let (address, size_bytes) = (hasher.finish(), bytes.len() as u64);
        if let Some(expected) = expected.filter(|expected| *expected != address) {
            return Err(ObjectError::Mismatch { expected, found: address });
        }
        self.insert(address, bytes.into())?;
        Ok(Stored { address, size_bytes })
    }

    async fn get(&self, address: &Address) -> Result<Bytes, ObjectError> {
        let bytes = self.objects().get(address).cloned().ok_or(ObjectError::NotFound(*address))?;
        if bytes.len() as u64 > MAX_OBJECT_IN_MEMORY {
            return Err(ObjectError::TooLarge { limit_bytes: MAX_OBJECT_IN_MEMORY });
        }
        Ok(bytes)
    }

    async fn range(&self, address: &Address, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let bytes = self.objects().get(address).cloned().ok_or(ObjectError::NotFound(*address))?;
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(ObjectError::OutOfRange);
        }
        if range.end - range.start > MAX_OBJECT_IN_MEMORY {
            return Err(ObjectError::TooLarge { limit_bytes: MAX_OBJECT_IN_MEMORY });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn size(&self, address: &Address) -> Result<Option<u64>, ObjectError> {
        Ok(self.objects().get(address).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, address: &Address) -> Result<bool, ObjectError> {
        Ok(self.objects().remove(address).is_some())
    }

    async fn list(&self, after: Option<&Address>, limit: usize) -> Result<Vec<Address>, ObjectError> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let objects = self.objects();
        Ok(objects.range((start, Bound::Unbounded)).map(|(address, _)| *address).take(limit.min(MAX_PAGE)).collect())
    }

    async fn total_size(&self) -> Result<u64, ObjectError> {
        Ok(self.objects().values().map(|object| object.len() as u64).sum())
    }
}
