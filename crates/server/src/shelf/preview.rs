//! What a migration would move, told to the patient before anything is delegated; and the names of the items they may hide.
//!
//! Both are computed by the same code as a freeze, under a scratch name and without keeping a body, so that what is told is what
//! would happen.

use std::collections::BTreeMap;

use waybill_crypto::digest::sha256;
use waybill_protocol::ids::{SessionId, Timestamp};
use waybill_protocol::messages::{HiddenItem, Item, KeptBack, PendingItems, Preview, SafetyWarning, TypeCount};
use waybill_protocol::registrar::LocalPatient;
use waybill_record::facts::{clinical_date_paths, facts};
use waybill_record::frame::FrameMeter;
use waybill_record::hides::Hides;
use waybill_record::json::{self, Value};
use waybill_record::loss::LossOutcome;
use waybill_record::mentions::Mention;
use waybill_record::resource::{MAX_RESOURCE_BYTES, ResourceId, ResourceKey};
use waybill_record::scope::{self, Scope};
use waybill_record::types::{ResourceType, SAFETY_TYPES};
use waybill_store::{Batch, Expect, Space};

use super::Shelf;
use super::error::ShelfError;
use super::freeze::{Cut, Observer, SnapshotSummary};
use super::rows::{self, Held};
use super::stage::MAX_RECORD_BYTES;
use super::withheld::WITHHELD_BY_SOURCE;

/// Items of one page; a page fits an answer of 512 KiB several times.
pub const MAX_ITEMS: usize = 500;
/// Longest title of an item. Units: bytes.
const MAX_TITLE_BYTES: usize = 160;
/// Mentions that are told of one hidden item.
const MAX_MENTIONS: usize = 20;
/// Mentions that are told in one preview.
const MAX_MENTIONS_IN_ALL: usize = 1_000;
/// Most hidden items that one preview tells about: each takes its line of the answer.
pub const MAX_PREVIEWED_HIDES: usize = 2_000;

/// Statuses that say that something is still to come.
const PENDING: [&str; 18] = [
    "arrived",
    "booked",
    "draft",
    "in-progress",
    "issued",
    "partial",
    "pending",
    "planned",
    "preliminary",
    "preparation",
    "proposed",
    "ready",
    "received",
    "registered",
    "requested",
    "scheduled",
    "triaged",
    "waitlist",
];
/// Orders are pending while they are active; a medication or a care plan that is active is simply in force.
const ORDERS: [&str; 4] = ["DeviceRequest", "NutritionOrder", "ServiceRequest", "SupplyRequest"];
/// Where a resource says what it is, the most telling first.
const TITLES: [&str; 10] = [
    "code",
    "medicationCodeableConcept",
    "vaccineCode",
    "type",
    "title",
    "description",
    "serviceType",
    "category",
    "class",
    "name",
];

impl Shelf {
    /// What a migration of this scope without these items would move, and what it would leave; `largest_bytes` is the largest record
    /// that the hospital takes or sends.
    ///
    /// Security: of what lies outside `allowed`, the limits of the key that asks, nothing is told, not even that it is held.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`].
    pub async fn preview(
        &self,
        patient: &LocalPatient,
        allowed: &Scope,
        scope: &Scope,
        hides: &Hides,
        now: Timestamp,
        largest_bytes: u64,
    ) -> Result<Preview, ShelfError> {
        let cut = Cut::travelling(patient.clone(), scope.clone(), hides.clone());
        let (summary, previewer) = self.look(cut, now, Previewer::new(allowed, hides)).await?;
        Ok(previewer.finish(&summary, largest_bytes.min(MAX_RECORD_BYTES)))
    }

    /// At most `most` items of one type within a scope that the patient may hide, in order of their ids, after one; and whether there
    /// are more.
    ///
    /// What the hospital itself keeps back is not among them.
    ///
    /// # Errors
    /// [`ShelfError::NoSuchPatient`].
    pub async fn items(
        &self,
        patient: &LocalPatient,
        scope: &Scope,
        of_type: ResourceType,
        after: Option<&str>,
        most: usize,
    ) -> Result<(Vec<Item>, bool), ShelfError> {
        let cut = Cut::travelling(patient.clone(), scope.clone(), Hides::default());
        let lister = Lister { of_type, after: after.map(str::to_owned), most, items: BTreeMap::new() };
        let (_, mut lister) = self.look(cut, Timestamp(0), lister).await?;
        let more = lister.items.len() > most;
        if more {
            lister.items.pop_last();
        }
        Ok((lister.items.into_values().collect(), more))
    }

    /// Walks a cut without keeping anything of it.
    pub(super) async fn look<O: Observer + Send + 'static>(
        &self,
        cut: Cut,
        now: Timestamp,
        observer: O,
    ) -> Result<(SnapshotSummary, O), ShelfError> {
        let session = SessionId(sha256(&[b"waybill/1 look", self.scratch().as_bytes()]));
        // What a look of an earlier process left under this name is of another patient.
        self.discard(&session).await?;
        let found = self.freeze_cut(session, Cut { keeps_bodies: false, ..cut }, now, observer).await;
        self.discard(&session).await?;
        let batch = Batch::new("shelf-look").delete(Space::Loss, rows::loss(&session), Expect::Any);
        self.store.commit(batch).await?;
        found
    }
}

/// Counts what a preview tells.
struct Previewer {
    /// What the key that asks may see.
    allowed: Scope,
    held: BTreeMap<ResourceType, (u64, u64)>,
    kept: BTreeMap<(ResourceType, String), u64>,
    /// By hidden item: whether it is held, its mentions, and in how many resources there are any.
    hidden: BTreeMap<ResourceKey, (bool, Vec<String>, u64)>,
    warnings: BTreeMap<ResourceType, u64>,
    pending: BTreeMap<(ResourceType, String), u64>,
    meter: FrameMeter,
    /// Mentions told so far.
    mentions: usize,
}

impl Previewer {
    fn new(allowed: &Scope, hides: &Hides) -> Self {
        let hidden = hides.items().iter().map(|item| (item.clone(), (false, Vec::new(), 0))).collect();
        Self {
            allowed: allowed.clone(),
            held: BTreeMap::new(),
            kept: BTreeMap::new(),
            hidden,
            warnings: BTreeMap::new(),
            pending: BTreeMap::new(),
            meter: FrameMeter::default(),
            mentions: 0,
        }
    }

    fn finish(self, summary: &SnapshotSummary, largest_bytes: u64) -> Preview {
        let held = |(name, (count, size_bytes)): (ResourceType, (u64, u64))| TypeCount {
            resource_type: name.as_str().to_owned(),
            count,
            size_bytes,
        };
        let hidden = |(item, (held, mentioned_in, mentioned_total)): (ResourceKey, (bool, Vec<String>, u64))| {
            HiddenItem { item: item.to_string(), held, mentioned_in, mentioned_total }
        };
        let name = |name: ResourceType| name.as_str().to_owned();
        Preview {
            at: summary.snapshot_at,
            held: self.held.into_iter().map(held).collect(),
            offered: summary.inventory.clone(),
            kept: self
                .kept
                .into_iter()
                .map(|((of_type, reason), count)| KeptBack { resource_type: name(of_type), reason, count })
                .collect(),
            hidden: self.hidden.into_iter().map(hidden).collect(),
            warnings: self
                .warnings
                .into_iter()
                .map(|(of_type, count)| SafetyWarning { resource_type: name(of_type), count })
                .collect(),
            pending: self
                .pending
                .into_iter()
                .map(|((of_type, status), count)| PendingItems { resource_type: name(of_type), status, count })
                .collect(),
            stream_bytes: self.meter.finish().padded_bytes,
            largest_bytes,
        }
    }

    /// Whether the key that asks may see this at all; what cannot be read is nobody's but the patient's own.
    fn may_tell(&self, body: Option<&[u8]>) -> bool {
        let read = || body.and_then(|body| facts(body).ok());
        self.allowed.is_full() || read().is_some_and(|facts| self.allowed.decide(&facts) == scope::Decision::InScope)
    }

    fn travels(&mut self, key: &ResourceKey, held: &Held, body: &[u8]) {
        let version = held.version.as_deref().and_then(|version| ResourceId::parse(version).ok());
        self.meter.add(key, version.as_ref(), held.size_bytes);
        if let Some(status) = pending_status(key.resource_type, body) {
            *self.pending.entry((key.resource_type, status)).or_default() += 1;
        }
    }
}

impl Observer for Previewer {
    fn may_learn(&self, body: &[u8]) -> bool {
        self.may_tell(Some(body))
    }

    fn mentions(&mut self, key: &ResourceKey, body: &[u8], mentions: &[Mention<'_>]) {
        if !self.may_tell(Some(body)) {
            return;
        }
        let mut last = None;
        for mention in mentions {
            let Some((_, told, total)) = self.hidden.get_mut(mention.item) else { continue };
            *total += u64::from(last != Some(mention.item));
            last = Some(mention.item);
            if told.len() < MAX_MENTIONS && self.mentions < MAX_MENTIONS_IN_ALL {
                told.push(mention.in_words(key));
                self.mentions += 1;
            }
        }
    }

    fn seen(
        &mut self,
        key: &ResourceKey,
        held: Option<&Held>,
        body: Option<&[u8]>,
        stays: Option<(LossOutcome, &str)>,
    ) {
        if !self.may_tell(body) {
            return;
        }
        let entry = self.held.entry(key.resource_type).or_default();
        *entry = (entry.0 + 1, entry.1 + held.map_or(0, |held| held.size_bytes));
        // That the hospital itself keeps an item back is told as a number; whether it is one the patient names, is not.
        let is_secret = stays.is_some_and(|(_, reason)| reason == WITHHELD_BY_SOURCE);
        if let Some((is_held, ..)) = self.hidden.get_mut(key).filter(|_| !is_secret) {
            *is_held = true;
        }
        match (stays, held, body) {
            (Some((outcome, reason)), ..) => {
                *self.kept.entry((key.resource_type, reason.to_owned())).or_default() += 1;
                if outcome == LossOutcome::Withheld && SAFETY_TYPES.contains(&key.resource_type.as_str()) {
                    *self.warnings.entry(key.resource_type).or_default() += 1;
                }
            }
            (None, Some(held), Some(body)) => self.travels(key, held, body),
            (None, ..) => {}
        }
    }
}

/// Lists items of one type, the first `most` after one and one more.
struct Lister {
    of_type: ResourceType,
    after: Option<String>,
    most: usize,
    items: BTreeMap<String, Item>,
}

impl Observer for Lister {
    fn seen(&mut self, key: &ResourceKey, _: Option<&Held>, body: Option<&[u8]>, stays: Option<(LossOutcome, &str)>) {
        let is_due = self.after.as_deref().is_none_or(|after| key.id.as_str() > after);
        let (true, Some(body), None) = (key.resource_type == self.of_type && is_due, body, stays) else { return };
        let id = key.id.as_str().to_owned();
        let (date, title) = described(key.resource_type, body);
        self.items.insert(id.clone(), Item { id, date, title });
        if self.items.len() > self.most + 1 {
            self.items.pop_last();
        }
    }
}

fn parse(body: &[u8]) -> Option<json::Document<'_>> {
    let limits = json::Limits { bytes: MAX_RESOURCE_BYTES, ..json::Limits::default() };
    json::parse_within(body, limits).ok()
}

/// The status of a resource that says that something is still to come.
fn pending_status(of_type: ResourceType, body: &[u8]) -> Option<String> {
    let document = parse(body)?;
    let root = document.root();
    let is_pending = |status: &str| {
        PENDING.contains(&status) || (ORDERS.contains(&of_type.as_str()) && matches!(status, "active" | "on-hold"))
    };
    let status = if of_type.as_str() == "DocumentReference" { "docStatus" } else { "status" };
    root.text_of(status).map(|status| status.into_owned()).filter(|status| is_pending(status))
}

/// The clinical date of a resource, as it is written, and what it is called.
fn described(of_type: ResourceType, body: &[u8]) -> (Option<String>, Option<String>) {
    let Some(document) = parse(body) else { return (None, None) };
    let root = document.root();
    let date = clinical_date_paths(of_type.as_str())
        .iter()
        .flat_map(|path| root.select(path))
        .find_map(|value| value.as_str())
        .map(|date| clipped(&date, 10));
    let title = TITLES.iter().filter_map(|name| root.member(name)).find_map(title_of);
    (date, title.map(|title| clipped(&title, MAX_TITLE_BYTES)))
}

/// The text of a CodeableConcept, else a display, else the first code; a list counts by its first item.
fn title_of(value: Value<'_>) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.into_owned());
    }
    let value = value.elements().next().unwrap_or(value);
    let coding = value.member("coding").and_then(|coding| coding.elements().next()).unwrap_or(value);
    let text = value.text_of("text").or_else(|| coding.text_of("display")).or_else(|| coding.text_of("code"));
    text.map(|text| text.into_owned())
}

/// A text of at most so many bytes, without control characters.
fn clipped(text: &str, bytes: usize) -> String {
    let mut clipped = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if clipped.len() + character.len_utf8() > bytes {
            break;
        }
        clipped.push(character);
    }
    clipped
}
