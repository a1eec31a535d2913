//! What the record code asks of a store: the pool of resources that a hospital holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::json::{self, Document};
use crate::load::{FileOutcome, LoadIndex, LoadedResource, Sink};
use crate::reference::{Identifier, LinkKind, Reference, links};
use crate::resource::{Resource, ResourceKey};
use crate::types::ResourceType;

/// The store behind a [`Pool`], [`Sink`], [`LoadIndex`] or frontier failed; the cause is the store's own error.
#[derive(Debug, thiserror::Error)]
#[error("the store of resources failed")]
pub struct PoolError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The resources a hospital holds, as the loader and the closure see them.
///
/// Guarantees asked of an implementation: what a [`Sink`] acknowledged is seen by the next call; lists are in the order
/// of [`ResourceKey`] and complete page by page; what [`Pool::bytes`] gives is exactly what was filed.
pub trait Pool {
    /// The exact bytes of a resource, if it is held.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn bytes(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>, PoolError>;

    /// Whether a resource is held.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn holds(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.bytes(key)?.is_some())
    }

    /// Who references `target` (see [`LoadedResource::targets`]), of one type or of any, after a key, at most `limit`.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn referrers(
        &self,
        target: &ResourceKey,
        of_type: Option<ResourceType>,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, PoolError>;

    /// The resources of a type that carry an identifier; two are enough to know that it is ambiguous.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn by_identifier(&self, of_type: ResourceType, identifier: &Identifier) -> Result<Vec<ResourceKey>, PoolError>;

    /// The resources that were loaded under an absolute address (see [`LoadedResource::aliases`]); two are enough.
    ///
    /// # Errors
    /// [`PoolError`] if the store fails.
    fn by_alias(&self, url: &str) -> Result<Vec<ResourceKey>, PoolError>;
}

/// The resource that a reference names, if that can be said: local by its key, absolute by a single alias.
///
/// # Errors
/// [`PoolError`] if the store fails.
pub fn resolve(reference: &Reference, pool: &dyn Pool) -> Result<Option<ResourceKey>, PoolError> {
    match reference {
        Reference::Local { key, .. } => Ok(Some(key.clone())),
        Reference::Absolute { url, .. } => {
            let mut found = pool.by_alias(url)?;
            Ok(found.pop().filter(|_| found.is_empty()))
        }
        _ => Ok(None),
    }
}

/// The keys that a resource references, sorted, each once: what a store indexes for [`Pool::referrers`].
///
/// # Errors
/// [`PoolError`] if the store fails.
pub fn targets(document: &Document<'_>, pool: &dyn Pool) -> Result<Vec<ResourceKey>, PoolError> {
    let mut found = BTreeSet::new();
    for link in links(document).filter(|link| link.kind != LinkKind::Value) {
        if let Some(key) = resolve(&link.reference(), pool)? {
            found.insert(key);
        }
    }
    Ok(found.into_iter().collect())
}

/// A pool in memory, for tests and for the patient's own tools. It grows with what it holds.
#[derive(Debug, Default)]
pub struct MemoryPool {
    resources: BTreeMap<ResourceKey, Vec<u8>>,
    referrers: BTreeMap<ResourceKey, BTreeSet<ResourceKey>>,
    identifiers: BTreeMap<(ResourceType, Identifier), BTreeSet<ResourceKey>>,
    aliases: BTreeMap<String, BTreeSet<ResourceKey>>,
}

impl MemoryPool {
    /// Files one resource as the loader would, for tests that need no loader.
    ///
    /// # Errors
    /// [`PoolError`] never; the signature is the traits'.
    pub fn insert(&mut self, resource: Resource) -> Result<FileOutcome, PoolError> {
        let document = json::parse(resource.bytes()).expect("a Resource holds JSON that was scanned when it was made");
        let targets = targets(&document, self)?;
        let identifiers = Identifier::of(document.root());
        let loaded = LoadedResource { targets, identifiers, aliases: Vec::new(), resource };
        Ok(self.file_one(loaded))
    }

    /// Every key held, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ResourceKey> {
        self.resources.keys()
    }

    fn file_one(&mut self, loaded: LoadedResource) -> FileOutcome {
        let key = loaded.resource.key().clone();
        if let Some(held) = self.resources.get(&key) {
            let same = held == loaded.resource.bytes();
            return if same { FileOutcome::AlreadyHeld } else { FileOutcome::Different };
        }
        for target in loaded.targets {
            self.referrers.entry(target).or_default().insert(key.clone());
        }
        for identifier in loaded.identifiers {
            self.identifiers.entry((key.resource_type, identifier)).or_default().insert(key.clone());
        }
        for alias in loaded.aliases {
            self.aliases.entry(alias).or_default().insert(key.clone());
        }
        self.resources.insert(key, loaded.resource.into_bytes());
        FileOutcome::Filed
    }
}

impl Pool for MemoryPool {
    fn bytes(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>, PoolError> {
        Ok(self.resources.get(key).cloned())
    }

    fn holds(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.resources.contains_key(key))
    }

    fn referrers(
        &self,
        target: &ResourceKey,
        of_type: Option<ResourceType>,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, PoolError> {
        let Some(all) = self.referrers.get(target) else { return Ok(Vec::new()) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = all.range((start, Bound::Unbounded)).filter(|key| of_type.is_none_or(|t| key.resource_type == t));
        Ok(wanted.take(limit).cloned().collect())
    }

    fn by_identifier(&self, of_type: ResourceType, identifier: &Identifier) -> Result<Vec<ResourceKey>, PoolError> {
        let found = self.identifiers.get(&(of_type, identifier.clone()));
        Ok(found.into_iter().flatten().take(2).cloned().collect())
    }

    fn by_alias(&self, url: &str) -> Result<Vec<ResourceKey>, PoolError> {
        Ok(self.aliases.get(url).into_iter().flatten().take(2).cloned().collect())
    }
}

impl Sink for MemoryPool {
    fn file(&mut self, batch: Vec<LoadedResource>) -> Result<Vec<FileOutcome>, PoolError> {
        Ok(batch.into_iter().map(|loaded| self.file_one(loaded)).collect())
    }
}

/// A load index in memory: it grows with the entries of the bundles loaded together.
#[derive(Debug, Default)]
pub struct MemoryIndex(BTreeMap<String, Vec<ResourceKey>>);

impl LoadIndex for MemoryIndex {
    fn insert(&mut self, name: &str, key: &ResourceKey) -> Result<(), PoolError> {
        let found = self.0.entry(name.to_owned()).or_default();
        if found.len() < 2 && !found.contains(key) {
            found.push(key.clone());
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Vec<ResourceKey>, PoolError> {
        Ok(self.0.get(name).cloned().unwrap_or_default())
    }
}
