//! What the hospital itself keeps back: items about third parties, marked by its staff before anything moves.
//!
//! The destination and the patient are told how many of which type stay, and that it was the source's decision; never which. It is
//! not the patient's hide: a hide belongs to one delegation, a mark to the record.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use waybill_protocol::ids::Timestamp;
use waybill_protocol::registrar::LocalPatient;
use waybill_record::hides::Hides;
use waybill_record::loss::LossOutcome;
use waybill_record::mentions::Mention;
use waybill_record::resource::ResourceKey;
use waybill_record::types::ResourceType;
use waybill_store::{Expect, Key, Op, Space};

use super::Shelf;
use super::bridge::Bridge;
use super::error::ShelfError;
use super::freeze::{Cut, Observer};
use super::load::{origins_of, patient_id};
use super::pool::LocalPool;
use super::rows::{self, Held};

/// Why such an item stays, in loss reports and previews.
pub const WITHHELD_BY_SOURCE: &str = "withheld-by-source";
/// Most items of one patient that can be marked.
pub const MAX_MARKS: usize = 10_000;
/// Most names of items given back at once.
const MAX_LISTED: usize = 1_000;

/// Why and by whom an item is kept back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Mark {
    /// The reason, such as `third-party`.
    #[n(0)]
    pub reason: String,
    /// Who decided.
    #[n(1)]
    pub by: String,
    /// When.
    #[n(2)]
    pub at: Timestamp,
}

fn marks(patient: &LocalPatient) -> Key {
    Key::build().text("withheld").text(&patient.0).done()
}

/// The items of a patient that the hospital keeps back.
pub(super) fn marks_of(bridge: &Bridge, patient: &LocalPatient) -> Result<BTreeSet<ResourceKey>, ShelfError> {
    let (prefix, mut found) = (marks(patient), BTreeSet::new());
    bridge.for_each(Space::Setting, &prefix, &mut |key, _| {
        found.insert(rows::resource_after(&key, &prefix, "marks")?);
        Ok(())
    })?;
    Ok(found)
}

impl Shelf {
    /// The operations that mark items, for the batch of whoever writes it down. The patient's own resource cannot be kept back: without
    /// it nothing moves.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchItem`] when one of them is not held of this patient, [`ShelfError::TooManyMarks`].
    pub async fn mark(
        &self,
        patient: &LocalPatient,
        items: Vec<ResourceKey>,
        mark: &Mark,
    ) -> Result<Vec<Op>, ShelfError> {
        let (patient, value) = (patient.clone(), rows::encode(mark));
        self.run(marks(&patient), move |bridge| {
            let mut all = marks_of(bridge, &patient)?;
            let mut ops = Vec::with_capacity(items.len());
            for item in items {
                if item.resource_type == ResourceType::PATIENT || !is_held(bridge, &patient, &item)? {
                    return Err(ShelfError::NoSuchItem);
                }
                let key = rows::under(&marks(&patient), &item);
                ops.push(Op::Put { space: Space::Setting, key, value: value.clone(), expect: Expect::Any });
                all.insert(item);
            }
            if all.len() > MAX_MARKS { Err(ShelfError::TooManyMarks) } else { Ok(ops) }
        })
        .await
    }

    /// The operations that lift marks again; an item without one is no error.
    #[must_use]
    pub fn unmark(&self, patient: &LocalPatient, items: &[ResourceKey]) -> Vec<Op> {
        let delete = |item: &ResourceKey| {
            let key = rows::under(&marks(patient), item);
            Op::Delete { space: Space::Setting, key, expect: Expect::Any }
        };
        items.iter().map(delete).collect()
    }

    /// What is kept back of a patient's record, and why.
    ///
    /// # Errors
    /// [`ShelfError::Damaged`].
    pub async fn marked(&self, patient: &LocalPatient) -> Result<Vec<(ResourceKey, Mark)>, ShelfError> {
        let prefix = marks(patient);
        let page = self.store.scan(Space::Setting, &prefix, None, MAX_MARKS).await?;
        let line = |(key, row): (Key, waybill_store::Versioned)| {
            Ok((rows::resource_after(&key, &prefix, "marks")?, rows::decode("marks", &row.value)?))
        };
        page.into_iter().map(line).collect()
    }

    /// The travelling resources that still mention an item that is kept back, by its reference, codes or names: bytes are never
    /// edited, so whoever marks should look.
    /// Gives the first thousand, and how many there are.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`].
    pub async fn still_naming(
        &self,
        patient: &LocalPatient,
        items: &[ResourceKey],
    ) -> Result<(Vec<String>, u64), ShelfError> {
        let marked = Hides::new(items.iter().cloned()).map_err(|_| ShelfError::TooManyMarks)?;
        let all = Cut::travelling(patient.clone(), waybill_record::scope::Scope::full(), Hides::default());
        let cut = Cut { sought: Some(marked), ..all };
        let (_, naming) = self.look(cut, Timestamp(0), Naming { found: Vec::new(), total: 0 }).await?;
        Ok((naming.found, naming.total))
    }
}

/// Whether an item is the hospital's own or was filed into this patient's chart.
fn is_held(bridge: &Bridge, patient: &LocalPatient, item: &ResourceKey) -> Result<bool, ShelfError> {
    patient_id(patient)?;
    if LocalPool::new(bridge).held(item)?.is_some() {
        return Ok(true);
    }
    for (origin, _) in origins_of(bridge, patient)? {
        if bridge.first(Space::Chart, &rows::under(&rows::chart(patient, &origin), item))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes what mentions marked items.
struct Naming {
    found: Vec<String>,
    total: u64,
}

impl Observer for Naming {
    fn seen(&mut self, _: &ResourceKey, _: Option<&Held>, _: Option<&[u8]>, _: Option<(LossOutcome, &str)>) {}

    fn mentions(&mut self, key: &ResourceKey, _: &[u8], _: &[Mention<'_>]) {
        self.total += 1;
        if self.found.len() < MAX_LISTED {
            self.found.push(key.to_string());
        }
    }
}
