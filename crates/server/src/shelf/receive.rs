//! Receiving: each chunk verified on arrival against the leaf list, the list against the signed manifest.

use bytes::Bytes;
use waybill_crypto::digest::{Digest, sha256};
use waybill_crypto::stream::{CHUNK_SIZE, HEADER_LEN, merkle_root};
use waybill_protocol::messages::Manifest;
use waybill_store::{Address, Batch, Expect, Key, Space, Store};

use super::Shelf;
use super::error::ShelfError;
use super::rows;
use super::stage::{MAX_LEAVES, SealedChunk, address};

/// Keys looked at once while looking for what is missing.
const PAGE: usize = 1_000;

/// Why a blob is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The manifest announces chunks of another size or too many; no list can match it.
    #[error("the manifest announces a stream that cannot be carried")]
    Manifest,
    /// The list is not the one the manifest names, or does not lead to its root.
    #[error("the leaf list is not the manifest's")]
    LeafList,
    /// The list has to come first.
    #[error("the leaf list has not arrived")]
    NoLeafList,
    /// The blob is none of this session's chunks. It is ignored; the right one may still come.
    #[error("the blob is not a chunk of this session")]
    NotAChunk,
    /// The stores failed.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

impl Shelf {
    /// The one blob to ask for first: the list of the chunks' leaves.
    ///
    /// # Errors
    /// [`ReceiveError::Manifest`].
    pub fn expected_leaf_list(manifest: &Manifest) -> Result<Address, ReceiveError> {
        let fits = manifest.chunk_bytes as usize == CHUNK_SIZE && manifest.chunk_count <= MAX_LEAVES as u64;
        if fits { Ok(Address::from_bytes(*manifest.leaf_list.as_bytes())) } else { Err(ReceiveError::Manifest) }
    }

    /// Takes the leaf list: its hash, length and Merkle root are the manifest's.
    ///
    /// # Errors
    /// [`ReceiveError`]; nothing is stored of a list that does not match.
    pub async fn take_leaf_list(&self, manifest: &Manifest, list: Bytes) -> Result<(), ReceiveError> {
        let address = Self::expected_leaf_list(manifest)?;
        if Address::of(&list) != address || list.len() as u64 != manifest.chunk_count * 32 {
            return Err(ReceiveError::LeafList);
        }
        if merkle_root(&leaves(&list)) != manifest.merkle_root {
            return Err(ReceiveError::LeafList);
        }
        self.objects.put(list).await.map_err(ShelfError::from)?;
        let key = rows::leaf_list(&manifest.session);
        let batch = Batch::new("shelf-leaves").put(Space::Staged, key, address.as_bytes().to_vec(), Expect::Any);
        self.store.commit(batch).await.map_err(ShelfError::from)?;
        Ok(())
    }

    /// Takes a chunk: its header names a place, and its hash is the leaf of that place. Durable when this returns.
    ///
    /// # Errors
    /// [`ReceiveError`]; nothing is stored of a blob that does not match.
    pub async fn take_blob(&self, manifest: &Manifest, blob: Bytes) -> Result<u64, ReceiveError> {
        let session = &manifest.session;
        let list = self.leaf_list(session).await?.ok_or(ReceiveError::NoLeafList)?;
        let list = self.objects.get(&list).await.map_err(ShelfError::from)?;
        let index = blob.get(1..HEADER_LEN - 4).and_then(|index| index.try_into().ok()).map(u64::from_be_bytes);
        let index = index.ok_or(ReceiveError::NotAChunk)?;
        let leaf = usize::try_from(index).ok().and_then(|at| list.get(at.checked_mul(32)?..)?.get(..32));
        if leaf != Some(sha256(&[&blob]).as_bytes()) {
            return Err(ReceiveError::NotAChunk);
        }
        let address = self.objects.put(blob).await.map_err(ShelfError::from)?;
        let key = rows::chunk(&rows::arrived(session), index);
        let batch = Batch::new("shelf-arrived").put(Space::Staged, key, address.as_bytes().to_vec(), Expect::Any);
        self.store.commit(batch).await.map_err(ShelfError::from)?;
        Ok(index)
    }

    /// Chunks that have not arrived, in order, after one, at most `limit`: what a resumed transfer asks for.
    ///
    /// # Errors
    /// [`ReceiveError::NoLeafList`] before the list is here.
    pub async fn missing(
        &self,
        manifest: &Manifest,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, ReceiveError> {
        let list = self.leaf_list(&manifest.session).await?.ok_or(ReceiveError::NoLeafList)?;
        let list = self.objects.get(&list).await.map_err(ShelfError::from)?;
        let leaves = leaves(&list);
        let prefix = rows::arrived(&manifest.session);
        let mut next = after.map_or(0, |after| after.saturating_add(1));
        let (mut missing, mut last) = (Vec::new(), after.map(|after| rows::chunk(&prefix, after)));
        loop {
            let page = self.store.keys(Space::Staged, &prefix, last.as_ref(), PAGE).await.map_err(ShelfError::from)?;
            let is_last = page.len() < PAGE;
            let here = page.iter().filter_map(|key| index_of(key, &prefix)).map(Some).chain(is_last.then_some(None));
            for arrived in here {
                let end = arrived.unwrap_or(leaves.len() as u64);
                let gap = (next..end).filter_map(|index| chunk(&leaves, index));
                missing.extend(gap.take(limit - missing.len()));
                next = end.saturating_add(1);
            }
            if is_last || missing.len() >= limit {
                return Ok(missing);
            }
            last = page.into_iter().next_back();
        }
    }

    /// The Merkle root once every chunk is here and durable, nothing before: what the delivery receipt is signed for.
    ///
    /// # Errors
    /// [`ReceiveError::Shelf`].
    pub async fn delivered(&self, manifest: &Manifest) -> Result<Option<Digest>, ReceiveError> {
        if self.leaf_list(&manifest.session).await?.is_none() {
            return Ok(None);
        }
        let here = count(self.store.as_ref(), &rows::arrived(&manifest.session)).await?;
        if here != manifest.chunk_count || !self.missing(manifest, None, 1).await?.is_empty() {
            return Ok(None);
        }
        let list = self.leaf_list(&manifest.session).await?.ok_or(ReceiveError::NoLeafList)?;
        let list = self.objects.get(&list).await.map_err(ShelfError::from)?;
        Ok(Some(merkle_root(&leaves(&list))))
    }
}

async fn count(store: &dyn Store, prefix: &Key) -> Result<u64, ShelfError> {
    Ok(store.count(Space::Staged, prefix).await?)
}

fn leaves(list: &[u8]) -> Vec<Digest> {
    list.as_chunks::<32>().0.iter().map(|leaf| Digest(*leaf)).collect()
}

fn chunk(leaves: &[Digest], index: u64) -> Option<SealedChunk> {
    let leaf = leaves.get(usize::try_from(index).ok()?)?;
    Some(SealedChunk { index, address: Address::from_bytes(*leaf.as_bytes()) })
}

fn index_of(key: &Key, prefix: &Key) -> Option<u64> {
    key.read_after(prefix)?.number().ok()
}

/// The object of an arrived chunk.
pub(super) fn arrived(row: Option<Vec<u8>>) -> Result<Address, ShelfError> {
    address(&row.ok_or(ShelfError::Incomplete)?)
}
