//! Records into the hospital, and the patients in it.

use std::collections::BTreeMap;

use waybill_protocol::messages::TypeCount;
use waybill_protocol::registrar::LocalPatient;
use waybill_record::closure::{Dangling, Decision, Frontier, Reached, Visitor, close};
use waybill_record::digest::Inventory;
use waybill_record::identity::Demographics;
use waybill_record::load::{FileOutcome, LoadReport, LoadedResource, Purpose, Sink, Source, load};
use waybill_record::pool::{Pool, PoolError};
use waybill_record::reference::Identifier;
use waybill_record::resource::{Resource, ResourceId, ResourceKey};
use waybill_record::types::ResourceType;
use waybill_store::{Key, Space};

use super::bridge::Bridge;
use super::error::ShelfError;
use super::frontier::StoreFrontier;
use super::pool::{LocalPool, StoreIndex};
use super::rows::{self, Held, Origin};
use super::{OnProgress, Progress, Shelf};

/// What a load did.
#[derive(Debug)]
pub struct Loaded {
    /// Numbers and lists, patients, unresolved references.
    pub report: LoadReport,
    /// What is held now and was not before, by type.
    pub filed: Inventory,
}

impl Shelf {
    /// Loads inputs together into the hospital's own records; references may lead from any of them to any other.
    ///
    /// Nothing held is ever overwritten, and what is held already is only counted: a load that failed or was interrupted is
    /// simply run again.
    ///
    /// # Errors
    /// [`ShelfError::Load`] for malformed input (found before anything is filed), a record without a patient, or content about a
    /// patient that differs from what is held.
    pub async fn load(
        &self,
        inputs: Vec<Box<dyn Source + Send>>,
        purpose: Purpose,
        progress: OnProgress,
    ) -> Result<Loaded, ShelfError> {
        let work = self.scratch();
        // One load at a time: what is a duplicate depends on what was filed before.
        self.run(Key::build().text("load").done(), move |bridge| {
            let mut index = StoreIndex::new(bridge, work)?;
            let mut pool = Reporting { pool: LocalPool::new(bridge), progress };
            let sources: Vec<&dyn Source> = inputs.iter().map(|input| input.as_ref() as &dyn Source).collect();
            let report = load(&sources, purpose, &mut index, &mut pool);
            index.clear()?;
            let report = report?;
            report.require_no_lost_findings()?;
            Ok(Loaded { report, filed: pool.pool.filed })
        })
        .await
    }

    /// The hospital's patients in order of their ids, after one, at most `limit`.
    ///
    /// # Errors
    /// [`ShelfError::Store`].
    pub async fn patients(&self, after: Option<&LocalPatient>, limit: usize) -> Result<Vec<LocalPatient>, ShelfError> {
        let prefix = rows::locals().extend().text(ResourceType::PATIENT.as_str()).done();
        let after = after.map(|after| prefix.extend().text(&after.0).done());
        let keys = self.store.keys(Space::Resource, &prefix, after.as_ref(), limit).await?;
        let patient = |key: &Key| rows::resource_after(key, &rows::locals(), "resources");
        keys.iter().map(|key| Ok(LocalPatient(patient(key)?.id.as_str().to_owned()))).collect()
    }

    /// Name, birth date, sex and identifiers of a patient.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`].
    pub async fn demographics(&self, patient: &LocalPatient) -> Result<Demographics, ShelfError> {
        let patient = patient.clone();
        self.run(self.scratch(), move |bridge| demographics(bridge, &patient)).await
    }

    /// What the hospital holds of a patient that could travel, by type.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`].
    pub async fn inventory(&self, patient: &LocalPatient) -> Result<Vec<TypeCount>, ShelfError> {
        let (patient, work) = (patient.clone(), self.scratch());
        self.run(work.clone(), move |bridge| {
            let mut frontier = StoreFrontier::new(bridge, work)?;
            // The walk keeps its findings in numbers only; the lists belong to a freeze.
            let summary = close(&patient_id(&patient)?, &LocalPool::new(bridge), &mut frontier, &mut Silent)?;
            let mut counts = summary.movable;
            add_charts(bridge, &patient, &frontier, &mut counts)?;
            frontier.clear()?;
            let line = |(name, (count, size_bytes)): (ResourceType, (u64, u64))| TypeCount {
                resource_type: name.as_str().to_owned(),
                count,
                size_bytes,
            };
            Ok(counts.into_iter().map(line).collect())
        })
        .await
    }

    /// Registers a patient who comes from elsewhere: their Patient resource becomes one of the hospital's own records.
    ///
    /// # Errors
    /// [`ShelfError::NotAPatient`]; [`ShelfError::PatientDiffers`] when the id is taken.
    pub async fn register_local(&self, patient: &[u8]) -> Result<LocalPatient, ShelfError> {
        let resource =
            Resource::parse(patient).map_err(|_| ShelfError::NotAPatient("it is not a resource with an id"))?;
        if resource.resource_type() != ResourceType::PATIENT {
            return Err(ShelfError::NotAPatient("it is a resource of another type"));
        }
        self.run(Key::build().text("load").done(), move |bridge| {
            let local = LocalPatient(resource.id().as_str().to_owned());
            let mut pool = LocalPool::new(bridge);
            let loaded = LoadedResource::index(resource, &pool)?;
            match pool.file(vec![loaded])?.first() {
                Some(FileOutcome::Different) | None => Err(ShelfError::PatientDiffers),
                Some(FileOutcome::Filed | FileOutcome::AlreadyHeld) => Ok(local),
            }
        })
        .await
    }
}

/// A pool that tells about its progress.
struct Reporting<'a> {
    pool: LocalPool<'a>,
    progress: OnProgress,
}

impl Pool for Reporting<'_> {
    fn bytes(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>, PoolError> {
        self.pool.bytes(key)
    }

    fn holds(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        self.pool.holds(key)
    }

    fn referrers(
        &self,
        target: &ResourceKey,
        of_type: Option<ResourceType>,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, PoolError> {
        self.pool.referrers(target, of_type, after, limit)
    }

    fn by_identifier(&self, of_type: ResourceType, identifier: &Identifier) -> Result<Vec<ResourceKey>, PoolError> {
        self.pool.by_identifier(of_type, identifier)
    }

    fn by_alias(&self, url: &str) -> Result<Vec<ResourceKey>, PoolError> {
        self.pool.by_alias(url)
    }
}

impl Sink for Reporting<'_> {
    fn file(&mut self, batch: Vec<LoadedResource>) -> Result<Vec<FileOutcome>, PoolError> {
        let outcomes = self.pool.file(batch)?;
        let filed = self.pool.filed.total();
        (self.progress)(Progress { resources: filed.count, size_bytes: filed.bytes, total_bytes: None });
        Ok(outcomes)
    }
}

/// A visitor for those who want the numbers only.
struct Silent;

impl Visitor for Silent {
    fn decided(&mut self, _: &Reached, _: Decision) {}

    fn dangling(&mut self, _: Dangling) {}
}

/// The id under which the record code knows a local patient.
pub(super) fn patient_id(patient: &LocalPatient) -> Result<ResourceId, ShelfError> {
    ResourceId::parse(&patient.0).map_err(|_| ShelfError::NoSuchPatient)
}

/// Name, birth date, sex and identifiers from the patient's own resource.
pub(super) fn demographics(bridge: &Bridge, patient: &LocalPatient) -> Result<Demographics, ShelfError> {
    let key = ResourceKey { resource_type: ResourceType::PATIENT, id: patient_id(patient)? };
    let held = LocalPool::new(bridge).held(&key)?.ok_or(ShelfError::NoSuchPatient)?;
    Demographics::from_patient(&bridge.body(&held)?).map_err(|_| ShelfError::Damaged("patients"))
}

/// The hospitals from which something was filed into a chart.
pub(super) fn origins_of(bridge: &Bridge, patient: &LocalPatient) -> Result<Vec<(String, Origin)>, ShelfError> {
    let (prefix, mut found) = (rows::origins(patient), Vec::new());
    bridge.for_each(Space::Chart, &prefix, &mut |key, row| {
        let name = key.read_after(&prefix).and_then(|mut parts| parts.text().ok());
        found.push((name.ok_or(ShelfError::Damaged("charts"))?, rows::decode("charts", &row)?));
        Ok(())
    })?;
    Ok(found)
}

/// Adds what was filed from elsewhere, unless the hospital's own record has a resource of that type and id.
fn add_charts(
    bridge: &Bridge,
    patient: &LocalPatient,
    own: &StoreFrontier<'_>,
    counts: &mut BTreeMap<ResourceType, (u64, u64)>,
) -> Result<(), ShelfError> {
    for (origin, _) in origins_of(bridge, patient)? {
        let prefix = rows::chart(patient, &origin);
        let mut last = None;
        bridge.for_each(Space::Chart, &prefix, &mut |key, row| {
            let resource = rows::resource_after(&key, &prefix, "charts")?;
            if last.as_ref() != Some(&resource) && !own.is_known(&resource)? {
                let held: Held = rows::decode("charts", &row)?;
                let entry = counts.entry(resource.resource_type).or_default();
                *entry = (entry.0 + 1, entry.1 + held.size_bytes);
            }
            last = Some(resource);
            Ok(())
        })?;
    }
    Ok(())
}
