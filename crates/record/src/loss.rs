//! What did not arrive, and why: the loss report, which every case ends with.
//!
//! `loss-report.json` is this report in JSON. Its names are stable:
//!
//! | name | meaning |
//! |---|---|
//! | `format` | always `waybill-loss-report/1` |
//! | `held`, `offered`, `withheld`, `not_movable`, `filed`, `quarantined` | numbers of resources |
//! | `by_type` | the same six numbers for each resource type |
//! | `reasons` | for each of `withheld`, `not_movable`, `quarantined`: how many for each reason code |
//! | `items` | `type`, `id`, `outcome`, `reason` of the first 1,000 that did not arrive; `items_total` counts all |
//! | `unresolved` | `from`, `path`, `reason` of the first 1,000 references that lead nowhere; `unresolved_total` counts all |
//! | `still_mentioned` | `Type/id` of the first 1,000 travelling resources that name a hidden item; `still_mentioned_total` counts all |
//!
//! Always `held = offered + withheld + not_movable`; once a case is filed also `offered = filed + quarantined`.
//!
//! The destination is told numbers of what was withheld, never items: it fills `items` with what it quarantined only.

mod wire;

use crate::resource::ResourceKey;
use crate::types::ResourceType;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// The most items that a report lists of each kind; totals are always exact.
pub const MAX_LISTED_ITEMS: usize = 1_000;
/// The most reason codes of one outcome.
const MAX_REASONS: usize = 64;
/// The longest reason code or path, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// The name and version of the JSON form.
pub const LOSS_REPORT_FORMAT: &str = "waybill-loss-report/1";

/// What became of a resource that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum LossOutcome {
    /// The scope or a hide kept it at the source.
    #[n(0)]
    Withheld,
    /// It may not travel with this patient.
    #[n(1)]
    NotMovable,
    /// It arrived but could not be filed.
    #[n(2)]
    Quarantined,
}

/// The numbers of resources by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct LossCounts {
    /// In the patient's closure at the source.
    #[n(0)]
    pub held: u64,
    /// Sent: in scope and movable.
    #[n(1)]
    pub offered: u64,
    /// Kept at the source by scope or hides.
    #[n(2)]
    pub withheld: u64,
    /// Kept at the source because they are not this patient's alone.
    #[n(3)]
    pub not_movable: u64,
    /// Filed at the destination.
    #[n(4)]
    pub filed: u64,
    /// Arrived, but not filed.
    #[n(5)]
    pub quarantined: u64,
}

/// One resource that did not arrive.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct LossItem {
    /// The resource type.
    #[n(0)]
    #[serde(rename = "type")]
    pub resource_type: String,
    /// The logical id.
    #[n(1)]
    pub id: String,
    /// What became of it.
    #[n(2)]
    pub outcome: LossOutcome,
    /// The reason code.
    #[n(3)]
    pub reason: String,
}

/// A reference that leads nowhere.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct UnresolvedReference {
    /// `Type/id` of the resource that holds the reference.
    #[n(0)]
    pub from: String,
    /// The path of the element.
    #[n(1)]
    pub path: String,
    /// The reason code.
    #[n(2)]
    pub reason: String,
}

impl std::fmt::Debug for LossItem {
    /// Names type and reason only: ids of a record do not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LossItem({}, {:?}, {})", self.resource_type, self.outcome, self.reason)
    }
}

impl std::fmt::Debug for UnresolvedReference {
    /// Names path and reason only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnresolvedReference({}, {})", self.path, self.reason)
    }
}

impl std::fmt::Debug for LossReport {
    /// Shows the counts only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LossReport").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// The loss report of one case.
///
/// Bytes: CBOR array in the order of the fields; maps are arrays of `[key, value]` ascending by key.
///
/// Security: health data; travels sealed to the source and to the patient only.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct LossReport {
    format: &'static str,
    #[serde(flatten)]
    counts: LossCounts,
    by_type: BTreeMap<&'static str, LossCounts>,
    reasons: BTreeMap<LossOutcome, BTreeMap<String, u64>>,
    items: Vec<LossItem>,
    items_total: u64,
    unresolved: Vec<UnresolvedReference>,
    unresolved_total: u64,
    still_mentioned: Vec<String>,
    still_mentioned_total: u64,
}

/// The counts of a report contradict each other: resources would be lost without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LossError {
    /// `held` is not `offered + withheld + not_movable`.
    #[error("held differs from offered + withheld + not_movable")]
    Held,
    /// `offered` is not `filed + quarantined`.
    #[error("offered differs from filed + quarantined")]
    Offered,
}

impl Default for LossReport {
    fn default() -> Self {
        Self::new()
    }
}

impl LossReport {
    /// A report of nothing.
    pub fn new() -> Self {
        Self {
            format: LOSS_REPORT_FORMAT,
            counts: LossCounts::default(),
            by_type: BTreeMap::new(),
            reasons: BTreeMap::new(),
            items: Vec::new(),
            items_total: 0,
            unresolved: Vec::new(),
            unresolved_total: 0,
            still_mentioned: Vec::new(),
            still_mentioned_total: 0,
        }
    }

    /// Counts a resource that is held and sent.
    pub fn offer(&mut self, key: &ResourceKey) {
        self.count(key.resource_type, 1, |counts| [&mut counts.held, &mut counts.offered]);
    }

    /// Counts a resource that is held and that scope or hides keep back.
    pub fn withhold(&mut self, key: &ResourceKey, reason: &str) {
        self.count(key.resource_type, 1, |counts| [&mut counts.held, &mut counts.withheld]);
        self.lose(key, LossOutcome::Withheld, reason);
    }

    /// Counts a resource that is held and may not travel.
    pub fn leave(&mut self, key: &ResourceKey, reason: &str) {
        self.count(key.resource_type, 1, |counts| [&mut counts.held, &mut counts.not_movable]);
        self.lose(key, LossOutcome::NotMovable, reason);
    }

    /// Counts a resource that was filed.
    pub fn file(&mut self, key: &ResourceKey) {
        self.count(key.resource_type, 1, |counts| [&mut counts.filed]);
    }

    /// Counts a resource that arrived but was not filed.
    pub fn quarantine(&mut self, key: &ResourceKey, reason: &str) {
        self.count(key.resource_type, 1, |counts| [&mut counts.quarantined]);
        self.lose(key, LossOutcome::Quarantined, reason);
    }

    /// Takes over numbers that the source signed, without items: how the destination knows what stayed behind.
    pub fn add_kept_back(&mut self, resource_type: ResourceType, outcome: LossOutcome, reason: &str, number: u64) {
        match outcome {
            LossOutcome::Withheld => self.count(resource_type, number, |c| [&mut c.held, &mut c.withheld]),
            LossOutcome::NotMovable => self.count(resource_type, number, |c| [&mut c.held, &mut c.not_movable]),
            LossOutcome::Quarantined => self.count(resource_type, number, |c| [&mut c.quarantined]),
        }
        self.add_reason(outcome, reason, number);
        self.items_total = self.items_total.saturating_add(number);
    }

    /// Notes a reference that leads nowhere.
    pub fn note_unresolved(&mut self, from: &ResourceKey, path: &str, reason: &str) {
        self.unresolved_total += 1;
        if self.unresolved.len() < MAX_LISTED_ITEMS {
            let (path, reason) = (clipped(path), clipped(reason));
            self.unresolved.push(UnresolvedReference { from: from.to_string(), path, reason });
        }
    }

    /// Notes a travelling resource that still names a hidden item.
    ///
    /// Security: only in the report of the source and of the patient; it tells that something is hidden.
    pub fn note_still_mentioned(&mut self, key: &ResourceKey) {
        self.still_mentioned_total += 1;
        if self.still_mentioned.len() < MAX_LISTED_ITEMS {
            self.still_mentioned.push(key.to_string());
        }
    }

    /// The same report without its lists: every number stays, for where the lists have no room.
    #[must_use]
    pub fn without_lists(&self) -> Self {
        Self { items: Vec::new(), unresolved: Vec::new(), still_mentioned: Vec::new(), ..self.clone() }
    }

    /// Checks that no resource is unaccounted for before the transfer.
    ///
    /// Errors: [`LossError::Held`].
    pub fn verify_held(&self) -> Result<(), LossError> {
        let holds = |counts: &LossCounts| {
            let sum = counts.offered.checked_add(counts.withheld).and_then(|sum| sum.checked_add(counts.not_movable));
            sum == Some(counts.held)
        };
        if holds(&self.counts) && self.by_type.values().all(holds) { Ok(()) } else { Err(LossError::Held) }
    }

    /// Checks that no resource is unaccounted for after the transfer.
    ///
    /// Errors: [`LossError`].
    pub fn verify_filed(&self) -> Result<(), LossError> {
        let holds = |counts: &LossCounts| counts.filed.checked_add(counts.quarantined) == Some(counts.offered);
        self.verify_held()?;
        if holds(&self.counts) && self.by_type.values().all(holds) { Ok(()) } else { Err(LossError::Offered) }
    }

    /// All types together.
    pub fn counts(&self) -> LossCounts {
        self.counts
    }

    /// The counts by type, in order.
    pub fn by_type(&self) -> &BTreeMap<&'static str, LossCounts> {
        &self.by_type
    }

    /// How often each reason code occurs, by outcome.
    pub fn reasons(&self) -> &BTreeMap<LossOutcome, BTreeMap<String, u64>> {
        &self.reasons
    }

    /// The listed items and how many there are in all.
    pub fn items(&self) -> (&[LossItem], u64) {
        (&self.items, self.items_total)
    }

    /// The listed unresolved references and how many there are in all.
    pub fn unresolved(&self) -> (&[UnresolvedReference], u64) {
        (&self.unresolved, self.unresolved_total)
    }

    /// The listed resources that name a hidden item, and how many there are in all.
    pub fn still_mentioned(&self) -> (&[String], u64) {
        (&self.still_mentioned, self.still_mentioned_total)
    }

    fn count<const N: usize>(
        &mut self,
        resource_type: ResourceType,
        number: u64,
        fields: impl Fn(&mut LossCounts) -> [&mut u64; N],
    ) {
        let counts = self.by_type.entry(resource_type.as_str()).or_default();
        fields(counts).into_iter().chain(fields(&mut self.counts)).for_each(|field| {
            *field = field.saturating_add(number);
        });
    }

    fn lose(&mut self, key: &ResourceKey, outcome: LossOutcome, reason: &str) {
        self.add_reason(outcome, reason, 1);
        self.items_total += 1;
        if self.items.len() < MAX_LISTED_ITEMS {
            let resource_type = key.resource_type.as_str().to_owned();
            self.items.push(LossItem { resource_type, id: key.id.to_string(), outcome, reason: clipped(reason) });
        }
    }

    /// Reasons beyond the bound are counted together, so that the sum stays exact.
    fn add_reason(&mut self, outcome: LossOutcome, reason: &str, number: u64) {
        let reasons = self.reasons.entry(outcome).or_default();
        let reason = clipped(reason);
        let full = reasons.len() + 1 >= MAX_REASONS && !reasons.contains_key(&reason);
        let count = reasons.entry(if full { "other".to_owned() } else { reason }).or_default();
        *count = count.saturating_add(number);
    }
}

/// A text within the bound of a report.
fn clipped(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
