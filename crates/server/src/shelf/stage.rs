//! Staging: the frozen record as sealed chunks, durable before any byte leaves.

use std::io::{self, Write};
use std::sync::Arc;

use waybill_crypto::backend::Backend;
use waybill_crypto::digest::Digest;
use waybill_crypto::keys::HpkePublicKey;
use waybill_crypto::stream::{CHUNK_SIZE, MAX_BLOB_LEN, RecordKey, StreamKeys, merkle_root, seal_chunk};
use waybill_protocol::ids::SessionId;
use waybill_protocol::source::Staged;
use waybill_record::frame::{FrameTotals, FrameWriteError, FrameWriter, Salt};
use waybill_record::resource::ResourceId;
use waybill_store::{Address, Batch, Expect, Key, Op, Space};

use super::bridge::Bridge;
use super::error::ShelfError;
use super::freeze::summary;
use super::rows::{self, SnapshotRow, Verdict};
use super::{OnProgress, Progress, Shelf};

/// Most chunks of one transfer: their leaf hashes fit into one blob of a mailbox.
pub(super) const MAX_LEAVES: usize = CHUNK_SIZE / 32;
/// Largest record of one transfer with its padding. Units: bytes.
pub const MAX_RECORD_BYTES: u64 = (MAX_LEAVES * CHUNK_SIZE) as u64;
/// Chunks sealed before their rows and objects are written.
const GROUP: usize = 8;

/// A sealed chunk that is durable here, to be put as a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedChunk {
    /// Its place in the stream.
    pub index: u64,
    /// Its object, which is also its leaf and the blob's name.
    pub address: Address,
}

impl Shelf {
    /// Seals the frozen record of a session into durable chunks.
    ///
    /// After a crash it is called again, with a fresh key: what was sealed before is deleted first.
    ///
    /// # Errors
    /// [`ShelfError::NotFrozen`], [`ShelfError::TooLarge`].
    ///
    /// Security: `key` is used for this staging only, so no nonce repeats.
    pub async fn stage(
        &self,
        session: &SessionId,
        backend: Arc<dyn Backend>,
        key: RecordKey,
        reply_key: HpkePublicKey,
        progress: OnProgress,
    ) -> Result<Staged, ShelfError> {
        let session = *session;
        self.run(Key::build().fixed(session.as_bytes()).done(), move |bridge| {
            let frozen = summary(bridge, &session)?.ok_or(ShelfError::NotFrozen)?;
            clear(bridge, &rows::sealed(&session), &session)?;
            let keys = StreamKeys::derive(&session.0, &key);
            let sealer = Sealer::new(bridge, backend.as_ref(), &keys, session);
            let (totals, leaves) = seal_all(bridge, sealer, &session, &progress)?;
            let list: Vec<u8> = leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
            let address = Address::of(&list);
            let row = address.as_bytes().to_vec();
            let batch = Batch::new("shelf-leaves").put(Space::Staged, rows::leaf_list(&session), row, Expect::Any);
            bridge.commit(batch)?;
            bridge.put_object(list.into())?;
            Ok(Staged {
                snapshot_at: frozen.snapshot_at,
                inventory: frozen.inventory,
                stream_bytes: totals.padded_bytes,
                chunk_bytes: u32::try_from(CHUNK_SIZE).expect("a chunk has 1 MiB"),
                chunk_count: leaves.len() as u64,
                leaf_list: Digest(*address.as_bytes()),
                merkle_root: merkle_root(&leaves),
                key_commitment: keys.commitment(),
                digest_scope: frozen.digest_scope,
                digest_full: frozen.digest_full,
                loss: frozen.loss,
                key,
                reply_key,
            })
        })
        .await
    }

    /// The sealed chunks of a session in order, after one, at most `limit`; the sender puts them as blobs page by page.
    ///
    /// # Errors
    /// [`ShelfError::Store`].
    pub async fn blobs(
        &self,
        session: &SessionId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, ShelfError> {
        let prefix = rows::sealed(session);
        let after = after.map(|after| rows::chunk(&prefix, after));
        let page = self.store.scan(Space::Staged, &prefix, after.as_ref(), limit).await?;
        let chunk = |(key, row): (Key, waybill_store::Versioned)| {
            let damaged = || ShelfError::Damaged("chunks");
            let index = key.read_after(&prefix).and_then(|mut parts| parts.number().ok()).ok_or_else(damaged)?;
            Ok(SealedChunk { index, address: address(&row.value)? })
        };
        page.into_iter().map(chunk).collect()
    }

    /// The object that lists the chunks' leaves, staged or arrived.
    ///
    /// # Errors
    /// [`ShelfError::Store`].
    pub async fn leaf_list(&self, session: &SessionId) -> Result<Option<Address>, ShelfError> {
        let row = self.store.load(Space::Staged, &rows::leaf_list(session)).await?;
        row.map(|row| address(&row.value)).transpose()
    }
}

/// Reads an address row.
pub(super) fn address(row: &[u8]) -> Result<Address, ShelfError> {
    row.try_into().map(Address::from_bytes).map_err(|_| ShelfError::Damaged("chunks"))
}

/// Deletes the chunks under a prefix and the leaf list: objects first, so that no object is left that nobody names.
///
/// A chunk is sealed under the key of one session, so no other session names its object.
pub(super) fn clear(bridge: &Bridge, prefix: &Key, session: &SessionId) -> Result<(), ShelfError> {
    bridge.for_each(Space::Staged, prefix, &mut |_, row| bridge.delete_object(&address(&row)?))?;
    let list = rows::leaf_list(session);
    if let Some(row) = bridge.load(Space::Staged, &list)? {
        bridge.delete_object(&address(&row.value)?)?;
    }
    let batch = Batch::new("shelf-unstage")
        .with(Op::DeletePrefix { space: Space::Staged, prefix: prefix.clone() })
        .delete(Space::Staged, list, Expect::Any);
    bridge.commit(batch).map(drop)
}

fn seal_all(
    bridge: &Bridge,
    sealer: Sealer<'_>,
    session: &SessionId,
    progress: &OnProgress,
) -> Result<(FrameTotals, Vec<Digest>), ShelfError> {
    let prefix = rows::snapshot_rows(session);
    let mut writer = FrameWriter::new(sealer).map_err(unwrap)?;
    let mut done = Progress::default();
    bridge.for_each(Space::Snapshot, &prefix, &mut |key, row| {
        let row: SnapshotRow = rows::decode("snapshots", &row)?;
        let Some(held) = row.held.filter(|_| row.verdict == Verdict::Offered) else { return Ok(()) };
        let key = rows::resource_after(&key, &prefix, "snapshots")?;
        let version = held.version.as_deref().map(ResourceId::parse).transpose();
        let version = version.map_err(|_| ShelfError::Damaged("snapshots"))?;
        let body = bridge.body(&held)?;
        writer.push(&key, version.as_ref(), Salt::from_bytes(held.salt()?), &body).map_err(unwrap)?;
        done.resources += 1;
        done.size_bytes += held.size_bytes;
        progress(done);
        Ok(())
    })?;
    let (sealer, totals) = writer.finish().map_err(unwrap)?;
    Ok((totals, sealer.finish()?))
}

/// Takes back our own error that came through the frame writer.
fn unwrap(error: FrameWriteError) -> ShelfError {
    match error {
        FrameWriteError::Sink(error) => match error.downcast::<ShelfError>() {
            Ok(ours) => ours,
            Err(error) => ShelfError::Stream(error.to_string()),
        },
        error => ShelfError::Stream(error.to_string()),
    }
}

/// Cuts the stream into chunks and seals them; holds [`GROUP`] of them.
struct Sealer<'a> {
    bridge: &'a Bridge,
    backend: &'a dyn Backend,
    keys: &'a StreamKeys,
    session: SessionId,
    buffer: Vec<u8>,
    group: Vec<(u64, Address, Vec<u8>)>,
    leaves: Vec<Digest>,
}

impl<'a> Sealer<'a> {
    fn new(bridge: &'a Bridge, backend: &'a dyn Backend, keys: &'a StreamKeys, session: SessionId) -> Self {
        let buffer = Vec::with_capacity(MAX_BLOB_LEN);
        Self { bridge, backend, keys, session, buffer, group: Vec::new(), leaves: Vec::new() }
    }

    fn seal(&mut self, is_last: bool) -> Result<(), ShelfError> {
        if self.leaves.len() >= MAX_LEAVES {
            return Err(ShelfError::TooLarge { limit_bytes: MAX_RECORD_BYTES });
        }
        let index = self.leaves.len() as u64;
        let blob = seal_chunk(self.backend, self.keys, &self.session.0, index, is_last, &mut self.buffer)
            .map_err(|error| ShelfError::Stream(error.to_string()))?;
        self.buffer = Vec::with_capacity(MAX_BLOB_LEN);
        self.leaves.push(blob.leaf());
        self.group.push((index, Address::from_bytes(*blob.leaf().as_bytes()), blob.into_bytes()));
        if is_last || self.group.len() >= GROUP { self.write_group() } else { Ok(()) }
    }

    /// Rows before objects: a crash in between leaves rows whose objects are absent, and the next staging clears both.
    fn write_group(&mut self) -> Result<(), ShelfError> {
        let prefix = rows::sealed(&self.session);
        let mut batch = Batch::new("shelf-stage");
        for (index, address, _) in &self.group {
            let row = address.as_bytes().to_vec();
            batch = batch.put(Space::Staged, rows::chunk(&prefix, *index), row, Expect::Any);
        }
        self.bridge.commit(batch)?;
        for (_, _, bytes) in self.group.drain(..) {
            self.bridge.put_object(bytes.into())?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Digest>, ShelfError> {
        self.seal(true)?;
        Ok(self.leaves)
    }
}

impl Write for Sealer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is sealed when more comes, so that the last one is known as the last.
        if self.buffer.len() == CHUNK_SIZE {
            self.seal(false).map_err(io::Error::other)?;
        }
        let taken = bytes.len().min(CHUNK_SIZE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
