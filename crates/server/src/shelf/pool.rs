//! The hospital's own records as the loader and the closure see them.

use std::collections::BTreeMap;

use waybill_crypto::digest::{Digest, sha256};
use waybill_record::digest::Inventory;
use waybill_record::load::{FileOutcome, LoadIndex, LoadedResource, Sink};
use waybill_record::pool::{Pool, PoolError};
use waybill_record::reference::Identifier;
use waybill_record::resource::ResourceKey;
use waybill_record::types::ResourceType;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::bridge::{Bridge, Writer};
use super::error::ShelfError;
use super::rows::{self, Held};

/// Names of a load kept in memory before they are moved to the store.
const MAX_NAMES_IN_MEMORY: usize = 20_000;

/// Resources, references and identifiers of the partition `local`.
pub(super) struct LocalPool<'a> {
    bridge: &'a Bridge,
    /// What was filed through this value.
    pub filed: Inventory,
}

impl<'a> LocalPool<'a> {
    pub fn new(bridge: &'a Bridge) -> Self {
        Self { bridge, filed: Inventory::default() }
    }

    /// The row of a resource.
    pub fn held(&self, key: &ResourceKey) -> Result<Option<Held>, ShelfError> {
        let row = self.bridge.load(Space::Resource, &rows::under(&rows::locals(), key))?;
        row.map(|row| rows::decode("resources", &row.value)).transpose()
    }

    fn under(
        &self,
        space: Space,
        prefix: &Key,
        base: &Key,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, ShelfError> {
        let after = after.map(|after| rows::under(base, after));
        let keys = self.bridge.keys(space, prefix, after.as_ref(), limit)?;
        keys.iter().map(|key| rows::resource_after(key, base, "indexes of resources")).collect()
    }
}

impl Pool for LocalPool<'_> {
    fn bytes(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>, PoolError> {
        let held = self.held(key)?;
        Ok(held.map(|held| self.bridge.body(&held)).transpose()?)
    }

    fn holds(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.bridge.exists(Space::Resource, &rows::under(&rows::locals(), key))?)
    }

    fn referrers(
        &self,
        target: &ResourceKey,
        of_type: Option<ResourceType>,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, PoolError> {
        let base = rows::referrers(target);
        let prefix = of_type.map_or_else(|| base.clone(), |name| base.extend().text(name.as_str()).done());
        Ok(self.under(Space::Reference, &prefix, &base, after, limit)?)
    }

    fn by_identifier(&self, of_type: ResourceType, identifier: &Identifier) -> Result<Vec<ResourceKey>, PoolError> {
        let base = rows::identifier(&identifier.system, &identifier.value);
        let prefix = base.extend().text(of_type.as_str()).done();
        Ok(self.under(Space::Identifier, &prefix, &base, None, 2)?)
    }

    fn by_alias(&self, url: &str) -> Result<Vec<ResourceKey>, PoolError> {
        let base = rows::alias(url);
        Ok(self.under(Space::Identifier, &base, &base, None, 2)?)
    }
}

impl Sink for LocalPool<'_> {
    /// Files a batch in one transaction, unless its bodies exceed what one transaction holds; running it again changes nothing.
    fn file(&mut self, batch: Vec<LoadedResource>) -> Result<Vec<FileOutcome>, PoolError> {
        let mut writer = Writer::new(self.bridge, "shelf-load");
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut seen = BTreeMap::new();
        for loaded in batch {
            let key = loaded.resource.key().clone();
            let hash = sha256(&[loaded.resource.bytes()]);
            let held = match seen.get(&key) {
                Some(hash) => Some(*hash),
                None => self.held(&key)?.map(|held| held.sha256),
            };
            outcomes.push(match held {
                None => FileOutcome::Filed,
                Some(other) if other == hash => FileOutcome::AlreadyHeld,
                Some(_) => FileOutcome::Different,
            });
            if held.is_none() {
                seen.insert(key.clone(), hash);
                self.filed.add(key.resource_type, loaded.resource.bytes().len() as u64);
                file_one(&mut writer, &key, hash, loaded)?;
            }
        }
        writer.flush()?;
        Ok(outcomes)
    }
}

/// Indexes come before the resource: a crash in between leaves index rows that the next run writes again, never a resource
/// that cannot be found.
fn file_one(
    writer: &mut Writer<'_>,
    key: &ResourceKey,
    hash: Digest,
    loaded: LoadedResource,
) -> Result<(), ShelfError> {
    for target in &loaded.targets {
        writer.put(Space::Reference, rows::under(&rows::referrers(target), key), Vec::new())?;
    }
    for identifier in &loaded.identifiers {
        let base = rows::identifier(&identifier.system, &identifier.value);
        writer.put(Space::Identifier, rows::under(&base, key), Vec::new())?;
    }
    for alias in &loaded.aliases {
        writer.put(Space::Identifier, rows::under(&rows::alias(alias), key), Vec::new())?;
    }
    let version = loaded.resource.version().map(|version| version.as_str().to_owned());
    let bytes = loaded.resource.into_bytes();
    let held = writer.hold(&rows::local_holder(), bytes, Some(hash), version.as_deref(), None)?;
    writer.put(Space::Resource, rows::under(&rows::locals(), key), rows::encode(&held))
}

/// The names of one load: in memory while they are few, in scratch rows beyond that.
pub(super) struct StoreIndex<'a> {
    bridge: &'a Bridge,
    work: Key,
    max_in_memory: usize,
    fresh: BTreeMap<[u8; 32], Vec<ResourceKey>>,
    has_spilled: bool,
}

impl<'a> StoreIndex<'a> {
    /// An empty index; what an interrupted load left under the same name is thrown away.
    pub fn new(bridge: &'a Bridge, work: Key) -> Result<Self, ShelfError> {
        Self::with_memory(bridge, work, MAX_NAMES_IN_MEMORY)
    }

    pub(super) fn with_memory(bridge: &'a Bridge, work: Key, max_in_memory: usize) -> Result<Self, ShelfError> {
        let index = Self { bridge, work, max_in_memory, fresh: BTreeMap::new(), has_spilled: false };
        index.clear()?;
        Ok(index)
    }

    /// Throws the scratch rows away.
    pub fn clear(&self) -> Result<(), ShelfError> {
        if self.bridge.exists(Space::Frontier, &self.work)? {
            let op = Op::DeletePrefix { space: Space::Frontier, prefix: self.work.clone() };
            self.bridge.commit(Batch::new("shelf-names-clear").with(op))?;
        }
        Ok(())
    }

    fn find_hash(&self, name: [u8; 32]) -> Result<Vec<ResourceKey>, ShelfError> {
        if let Some(found) = self.fresh.get(&name) {
            return Ok(found.clone());
        }
        if !self.has_spilled {
            return Ok(Vec::new());
        }
        let Some(row) = self.bridge.load(Space::Frontier, &self.work.extend().fixed(&name).done())? else {
            return Ok(Vec::new());
        };
        let keys: Vec<String> = rows::decode("names of a load", &row.value)?;
        keys.iter().map(|key| key.parse().map_err(|_| ShelfError::Damaged("names of a load"))).collect()
    }

    fn spill(&mut self) -> Result<(), ShelfError> {
        let rows: Vec<_> = std::mem::take(&mut self.fresh).into_iter().collect();
        self.has_spilled = true;
        for part in rows.chunks(5_000) {
            let put = |(name, keys): &([u8; 32], Vec<ResourceKey>)| Op::Put {
                space: Space::Frontier,
                key: self.work.extend().fixed(name).done(),
                value: rows::encode(&keys.iter().map(ToString::to_string).collect::<Vec<_>>()),
                expect: Expect::Any,
            };
            self.bridge.commit(Batch { name: "shelf-names", ops: part.iter().map(put).collect() })?;
        }
        Ok(())
    }
}

impl LoadIndex for StoreIndex<'_> {
    fn insert(&mut self, name: &str, key: &ResourceKey) -> Result<(), PoolError> {
        let name = *sha256(&[name.as_bytes()]).as_bytes();
        let mut found = self.find_hash(name)?;
        if found.len() < 2 && !found.contains(key) {
            found.push(key.clone());
            self.fresh.insert(name, found);
        }
        if self.fresh.len() >= self.max_in_memory {
            self.spill()?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Vec<ResourceKey>, PoolError> {
        Ok(self.find_hash(*sha256(&[name.as_bytes()]).as_bytes())?)
    }
}
