//! Whom an arrived record is about, decided again by the destination on what arrived.

use waybill_record::compartment::{Relation, relation, rule};
use waybill_record::json::Document;
use waybill_record::pool::{Pool, PoolError};
use waybill_record::reference::{Identifier, Reference};
use waybill_record::resource::{ResourceId, ResourceKey};
use waybill_record::types::ResourceType;
use waybill_store::{Key, Space};

use super::bridge::Bridge;
use super::rows::{self, Held};

/// What arrived in one session, as far as it is not set aside; or what one hospital's part of a chart holds.
pub(super) struct IncomingPool<'a> {
    pub bridge: &'a Bridge,
    /// `Filed` before filing, `Chart` after it.
    pub space: Space,
    pub prefix: Key,
    /// The ids under which the source knows the patient.
    pub patients: Vec<ResourceKey>,
}

impl IncomingPool<'_> {
    /// The relation to the one person of whom the source may use several ids; the kindest counts.
    pub fn relation(&self, document: &Document<'_>) -> Result<Relation, PoolError> {
        let mut worst = Relation::Unknown;
        for patient in &self.patients {
            match relation(patient, document, self)? {
                Relation::Unknown => {}
                kind @ (Relation::Own | Relation::Supporting) => return Ok(kind),
                other => worst = other,
            }
        }
        Ok(worst)
    }
}

impl Pool for IncomingPool<'_> {
    fn bytes(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>, PoolError> {
        let Some(row) = self.bridge.first(self.space, &rows::under(&self.prefix, key))? else { return Ok(None) };
        let held: Held = rows::decode("filed resources", &row)?;
        Ok(Some(self.bridge.body(&held)?))
    }

    fn holds(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.bridge.exists(self.space, &rows::under(&self.prefix, key))?)
    }

    /// Nobody asks: the walk backward is the source's.
    fn referrers(
        &self,
        _: &ResourceKey,
        _: Option<ResourceType>,
        _: Option<&ResourceKey>,
        _: usize,
    ) -> Result<Vec<ResourceKey>, PoolError> {
        Ok(Vec::new())
    }

    /// Conditional references were resolved by the source or name nothing.
    fn by_identifier(&self, _: ResourceType, _: &Identifier) -> Result<Vec<ResourceKey>, PoolError> {
        Ok(Vec::new())
    }

    /// The source's addresses do not travel: one that ends in the name of something that arrived means that.
    fn by_alias(&self, url: &str) -> Result<Vec<ResourceKey>, PoolError> {
        let Reference::Absolute { tail: Some(key), .. } = Reference::parse(url) else { return Ok(Vec::new()) };
        let is_here = self.patients.contains(&key) || self.holds(&key)?;
        Ok(if is_here { vec![key] } else { Vec::new() })
    }
}

/// The first patient whom an owner element of a resource names.
pub(super) fn first_owner(document: &Document<'_>, resource_type: ResourceType) -> Option<ResourceId> {
    let root = document.root();
    let named = rule(resource_type)?.owner.iter().flat_map(|path| root.select(path)).find_map(|element| {
        match Reference::parse(&element.text_of("reference")?) {
            Reference::Local { key, .. } | Reference::Absolute { tail: Some(key), .. } => Some(key),
            _ => None,
        }
        .filter(|key| key.resource_type == ResourceType::PATIENT)
    });
    named.map(|key| key.id)
}
