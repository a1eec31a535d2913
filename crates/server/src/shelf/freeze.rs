//! Freezing: what exactly one case exports, decided once and kept until the case closes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use waybill_crypto::lthash::{Element, RecordDigest, SaltSecret};
use waybill_protocol::ids::{SessionId, Timestamp};
use waybill_protocol::messages::TypeCount;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::source::{Granted, SourceCase};
use waybill_record::closure::{Dangling, Decision, Frontier, Reached, Visitor, close};
use waybill_record::digest::Inventory;
use waybill_record::facts::facts;
use waybill_record::hides::Hides;
use waybill_record::loss::{LossOutcome, LossReport, MAX_LISTED_ITEMS};
use waybill_record::mentions::{Mention, Search};
use waybill_record::resource::ResourceKey;
use waybill_record::scope::{self, Scope, WithheldReason};
use waybill_record::types::ResourceType;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::bridge::{Bridge, Writer};
use super::error::ShelfError;
use super::frontier::StoreFrontier;
use super::load::{origins_of, patient_id};
use super::pool::LocalPool;
use super::rows::{self, Held, SnapshotRow, Verdict};
use super::withheld::{WITHHELD_BY_SOURCE, marks_of};
use super::{Shelf, type_counts};

/// Decisions read from the frontier at once.
const PAGE: usize = 500;
/// The reason a resource filed from elsewhere stays when the hospital's own record uses its type and id otherwise.
const ID_IN_USE: &str = "id-in-use";
/// The reason what another hospital filed stays when that hospital's Patient does not travel with it: the destination
/// could not tell that both ids are one person.
const PATIENT_LEFT_OUT: &str = "patient-left-out";
/// What the destination is told of everything withheld: scope and hides must not be told apart.
const WITHHELD: &str = "withheld";

/// A frozen record in numbers; always `held = offered + withheld + not_movable`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SnapshotSummary {
    /// When it was frozen.
    #[n(0)]
    pub snapshot_at: Timestamp,
    /// Resources reached in all.
    #[n(1)]
    pub held: u64,
    /// In scope: these travel.
    #[n(2)]
    pub offered: u64,
    /// Kept back by scope or hides.
    #[n(3)]
    pub withheld: u64,
    /// Not this patient's alone.
    #[n(4)]
    pub not_movable: u64,
    /// What travels, by type, ascending.
    #[n(5)]
    pub inventory: Vec<TypeCount>,
    /// Digest of what travels.
    #[n(6)]
    pub digest_scope: RecordDigest,
    /// Digest of all that could.
    #[n(7)]
    pub digest_full: RecordDigest,
    /// The loss report as far as the destination is told: numbers of what stays, never items. CBOR.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub loss: Vec<u8>,
}

impl std::fmt::Debug for SnapshotSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotSummary({} of {} resources)", self.offered, self.held)
    }
}

impl Shelf {
    /// Freezes the record of a granted case: what travels, what is withheld, what cannot travel, and the bytes of the first.
    ///
    /// Later changes of the record do not reach the snapshot. A session that was frozen before keeps its snapshot.
    ///
    /// # Errors
    /// [`ShelfError::WrongCase`] when the grant is another case's, [`ShelfError::NoSuchPatient`].
    pub async fn freeze(
        &self,
        granted: &Granted,
        case: &SourceCase,
        now: Timestamp,
    ) -> Result<SnapshotSummary, ShelfError> {
        if granted.proof() != case.proof {
            return Err(ShelfError::WrongCase);
        }
        self.freeze_scope(case.session, case.local.clone(), case.scope.clone(), case.hides.clone(), now).await
    }

    /// Freezes without a grant: for what stays inside the hospital.
    pub(super) async fn freeze_scope(
        &self,
        session: SessionId,
        patient: LocalPatient,
        scope: Scope,
        hides: Hides,
        now: Timestamp,
    ) -> Result<SnapshotSummary, ShelfError> {
        self.freeze_cut(session, Cut::travelling(patient, scope, hides), now, Unobserved)
            .await
            .map(|(summary, _)| summary)
    }

    /// Freezes what a cut says, under the eyes of an observer, which is given back.
    pub(super) async fn freeze_cut<O: Observer + Send + 'static>(
        &self,
        session: SessionId,
        cut: Cut,
        now: Timestamp,
        mut observer: O,
    ) -> Result<(SnapshotSummary, O), ShelfError> {
        let salts = Arc::clone(&self.salts);
        self.run(Key::build().fixed(session.as_bytes()).done(), move |bridge| {
            let freezer = Freezer::start(bridge, &salts, session, cut, &mut observer)?;
            let summary = match freezer {
                Start::Frozen(summary) => *summary,
                Start::Fresh(freezer) => freezer.freeze(now)?,
            };
            Ok((summary, observer))
        })
        .await
    }
}

/// What is cut out of a patient's record, and how.
pub(super) struct Cut {
    pub patient: LocalPatient,
    pub scope: Scope,
    pub hides: Hides,
    /// Whether the source's own marks keep items back: in everything but what stays inside the hospital.
    pub respects_marks: bool,
    /// Whether bodies are kept: without them a snapshot can be counted, not sent.
    pub keeps_bodies: bool,
    /// Items that travelling resources are searched for, although they are not hidden; nothing for those that are.
    pub sought: Option<Hides>,
}

impl Cut {
    /// What may leave the hospital.
    pub fn travelling(patient: LocalPatient, scope: Scope, hides: Hides) -> Self {
        Self { patient, scope, hides, respects_marks: true, keeps_bodies: true, sought: None }
    }
}

/// Somebody who is told of each resource while a record is frozen.
pub(super) trait Observer {
    /// A resource was decided: its bytes where they were read, and why it stays, nothing if it travels.
    fn seen(&mut self, key: &ResourceKey, held: Option<&Held>, body: Option<&[u8]>, stays: Option<(LossOutcome, &str)>);

    /// Whether what this hidden item is called may be looked for: whoever is told of mentions learns what it is.
    fn may_learn(&self, _: &[u8]) -> bool {
        true
    }

    /// A travelling resource mentions what was sought.
    fn mentions(&mut self, _: &ResourceKey, _: &[u8], _: &[Mention<'_>]) {}
}

/// For those who need the snapshot only.
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn seen(&mut self, _: &ResourceKey, _: Option<&Held>, _: Option<&[u8]>, _: Option<(LossOutcome, &str)>) {}
}

/// The summary of a session that is frozen.
pub(super) fn summary(bridge: &Bridge, session: &SessionId) -> Result<Option<SnapshotSummary>, ShelfError> {
    let row = bridge.load(Space::Snapshot, &rows::snapshot_meta(session))?;
    row.map(|row| rows::decode("snapshots", &row.value)).transpose()
}

enum Start<'a> {
    Frozen(Box<SnapshotSummary>),
    Fresh(Box<Freezer<'a>>),
}

/// A freeze under way.
struct Freezer<'a> {
    bridge: &'a Bridge,
    writer: Writer<'a>,
    salts: &'a SaltSecret,
    session: SessionId,
    rows: Key,
    cut: Cut,
    observer: &'a mut dyn Observer,
    /// What the hospital itself keeps back.
    marks: BTreeSet<ResourceKey>,
    /// Looks for what is hidden in what travels.
    search: Search,
    inventory: Inventory,
    digest_scope: RecordDigest,
    digest_full: RecordDigest,
    /// The hospital's own report, with items.
    loss: LossReport,
    /// What the destination is told: how many of which type stay, and why.
    kept_back: BTreeMap<(ResourceType, LossOutcome, String), u64>,
}

impl<'a> Freezer<'a> {
    fn start(
        bridge: &'a Bridge,
        salts: &'a SaltSecret,
        session: SessionId,
        cut: Cut,
        observer: &'a mut dyn Observer,
    ) -> Result<Start<'a>, ShelfError> {
        if let Some(summary) = summary(bridge, &session)? {
            return Ok(Start::Frozen(Box::new(summary)));
        }
        let rows = rows::snapshot_rows(&session);
        let clear = Op::DeletePrefix { space: Space::Snapshot, prefix: rows.clone() };
        bridge.commit(Batch::new("shelf-freeze-clear").with(clear))?;
        bridge.release(&rows::snapshot_holder(&session))?;
        let search = Search::new(cut.sought.as_ref().unwrap_or(&cut.hides));
        let marks = if cut.respects_marks { marks_of(bridge, &cut.patient)? } else { BTreeSet::new() };
        Ok(Start::Fresh(Box::new(Self {
            bridge,
            writer: Writer::new(bridge, "shelf-freeze"),
            salts,
            session,
            rows,
            cut,
            observer,
            marks,
            search,
            inventory: Inventory::default(),
            digest_scope: RecordDigest::new(),
            digest_full: RecordDigest::new(),
            loss: LossReport::new(),
            kept_back: BTreeMap::new(),
        })))
    }

    fn freeze(mut self, now: Timestamp) -> Result<SnapshotSummary, ShelfError> {
        let work = Key::build().text("freeze").fixed(self.session.as_bytes()).done();
        let pool = LocalPool::new(self.bridge);
        let mut frontier = StoreFrontier::new(self.bridge, work)?;
        let mut dangling = DanglingList::default();
        close(&patient_id(&self.cut.patient)?, &pool, &mut frontier, &mut dangling)?;
        self.learn(&pool, &frontier)?;
        self.add_own(&pool, &frontier)?;
        self.add_charts()?;
        let told = self.told(&dangling)?;
        let counts = self.loss.counts();
        let summary = SnapshotSummary {
            snapshot_at: now,
            held: counts.held,
            offered: counts.offered,
            withheld: counts.withheld,
            not_movable: counts.not_movable,
            inventory: type_counts(&self.inventory),
            digest_scope: self.digest_scope,
            digest_full: self.digest_full,
            loss: rows::encode(&told),
        };
        frontier.clear()?;
        // The summary is the mark that the snapshot is whole.
        let batch = Batch::new("shelf-frozen")
            .put(Space::Snapshot, rows::snapshot_meta(&self.session), rows::encode(&summary), Expect::Any)
            .put(Space::Loss, rows::loss(&self.session), rows::encode(&self.loss), Expect::Any);
        self.bridge.commit(batch)?;
        Ok(summary)
    }

    /// Reads what is sought before anything else, to know what it is called: of this patient's own record only, and of
    /// what the hospital keeps back only where that is what is sought.
    fn learn(&mut self, pool: &LocalPool<'_>, frontier: &StoreFrontier<'_>) -> Result<(), ShelfError> {
        let sought = self.cut.sought.as_ref().unwrap_or(&self.cut.hides);
        let origins = if sought.is_empty() { Vec::new() } else { origins_of(self.bridge, &self.cut.patient)? };
        for key in sought.items() {
            self.bridge.check()?;
            if self.cut.sought.is_none() && self.marks.contains(key) {
                continue;
            }
            let own = matches!(frontier.decision(key)?, Some(Decision::Movable { .. }));
            let mut found: Vec<Held> = if own { pool.held(key)?.into_iter().collect() } else { Vec::new() };
            for (origin, _) in &origins {
                let chart = rows::under(&rows::chart(&self.cut.patient, origin), key);
                let row = self.bridge.first(Space::Chart, &chart)?;
                found.extend(row.map(|row| rows::decode::<Held>("charts", &row)).transpose()?);
            }
            for held in found {
                let body = self.bridge.body(&held)?;
                if self.observer.may_learn(&body) {
                    self.search.learn(key, &body);
                }
            }
        }
        Ok(())
    }

    fn add_own(&mut self, pool: &LocalPool<'_>, frontier: &StoreFrontier<'_>) -> Result<(), ShelfError> {
        let mut after = None;
        loop {
            let page = frontier.decided(after.as_ref(), PAGE)?;
            for (key, decision) in &page {
                self.bridge.check()?;
                match decision {
                    Decision::NotMovable(reason) => {
                        let held = pool.held(key)?;
                        self.observer.seen(key, held.as_ref(), None, Some((LossOutcome::NotMovable, reason.code())));
                        self.leave(key, "", reason.code(), None)?;
                    }
                    Decision::Movable { .. } => {
                        let held = pool.held(key)?.ok_or(ShelfError::Damaged("resources"))?;
                        self.consider(key, "", held)?;
                    }
                }
            }
            if page.len() < PAGE {
                return self.writer.flush();
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }

    /// What was filed from elsewhere travels too, under the ids it came with, unless they are in use already.
    fn add_charts(&mut self) -> Result<(), ShelfError> {
        for (origin, about) in origins_of(self.bridge, &self.cut.patient)? {
            let prefix = rows::chart(&self.cut.patient, &origin);
            let travels = self.loss.counts().offered == 0 || self.patients_travel(&prefix, &about.patient_ids)?;
            let bridge = self.bridge;
            let mut last = None;
            bridge.for_each(Space::Chart, &prefix, &mut |key, row| {
                let resource = rows::resource_after(&key, &prefix, "charts")?;
                let held: Held = rows::decode("charts", &row)?;
                let earlier = if last.as_ref() == Some(&resource) { None } else { self.earlier(&resource)? };
                match earlier {
                    Some(row) if row.sha256 == Some(held.sha256) => {}
                    None if last.as_ref() != Some(&resource) && travels => self.consider(&resource, &origin, held)?,
                    None if last.as_ref() != Some(&resource) => {
                        self.stay(&resource, &origin, PATIENT_LEFT_OUT, &held, None)?;
                    }
                    _ => self.stay(&resource, &origin, ID_IN_USE, &held, None)?,
                }
                last = Some(resource);
                Ok(())
            })?;
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Whether every Patient resource of another hospital's part is offered.
    fn patients_travel(&self, prefix: &Key, ids: &[String]) -> Result<bool, ShelfError> {
        for id in ids {
            let key = ResourceKey::new("Patient", id).map_err(|_| ShelfError::Damaged("charts"))?;
            let Some(row) = self.bridge.first(Space::Chart, &rows::under(prefix, &key))? else { return Ok(false) };
            let held: Held = rows::decode("charts", &row)?;
            if self.decide(&key, &self.bridge.body(&held)?) != Ok(None) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The row of a resource that an earlier part of the record has.
    fn earlier(&self, key: &ResourceKey) -> Result<Option<SnapshotRow>, ShelfError> {
        let row = self.bridge.first(Space::Snapshot, &rows::under(&self.rows, key))?;
        row.map(|row| rows::decode("snapshots", &row)).transpose()
    }

    /// Why the patient keeps a resource back, nothing if it travels; an error when the bytes cannot be read.
    fn decide(&self, key: &ResourceKey, body: &[u8]) -> Result<Option<WithheldReason>, ()> {
        if self.cut.hides.contains(key.resource_type.as_str(), key.id.as_str()) {
            return Ok(Some(WithheldReason::Hidden));
        }
        match self.cut.scope.decide(&facts(body).map_err(|_| ())?) {
            scope::Decision::InScope => Ok(None),
            scope::Decision::Withheld(reason) => Ok(Some(reason)),
        }
    }

    fn consider(&mut self, key: &ResourceKey, origin: &str, mut held: Held) -> Result<(), ShelfError> {
        let body = self.bridge.body(&held)?;
        if self.marks.contains(key) {
            return self.stay(key, origin, WITHHELD_BY_SOURCE, &held, Some(&body));
        }
        let Ok(withheld) = self.decide(key, &body) else {
            return self.stay(key, origin, "unreadable", &held, Some(&body));
        };
        let (resource_type, id, version) = (key.resource_type.as_str(), key.id.as_str(), held.version.as_deref());
        let salt = self.salts.salt(self.cut.patient.0.as_bytes(), resource_type, id, version, &held.sha256);
        let element = Element { salt, resource_type, id, version, sha256: held.sha256 };
        self.digest_full.add(&element);
        let (verdict, reason, sha256) = match withheld {
            None => (Verdict::Offered, None, Some(held.sha256)),
            Some(reason) => (Verdict::Withheld, Some(reason.code().to_owned()), Some(held.sha256)),
        };
        let stays = reason.as_deref().map(|reason| (LossOutcome::Withheld, reason));
        self.observer.seen(key, Some(&held), Some(&body), stays);
        if let Some(reason) = &reason {
            self.loss.withhold(key, reason);
            self.keep_back(key, LossOutcome::Withheld, WITHHELD);
            return self.write(key, origin, &SnapshotRow { verdict, reason: Some(reason.clone()), sha256, held: None });
        }
        self.digest_scope.add(&element);
        self.inventory.add(key.resource_type, held.size_bytes);
        self.loss.offer(key);
        let mut mentions = self.search.mentions_in(&body);
        // What is sought without being hidden travels, and names itself.
        mentions.retain(|mention| mention.item != key);
        if !mentions.is_empty() {
            self.loss.note_still_mentioned(key);
            self.observer.mentions(key, &body, &mentions);
        }
        if !self.cut.keeps_bodies {
            return self.write(key, origin, &SnapshotRow { verdict, reason, sha256, held: None });
        }
        held.salt = Some(ByteVec::from(salt.as_ref().to_vec()));
        self.writer.share(&rows::snapshot_holder(&self.session), &held);
        self.write(key, origin, &SnapshotRow { verdict, reason, sha256, held: Some(held) })
    }

    /// A resource whose bytes are known stays, and it is not the patient who keeps it back.
    fn stay(
        &mut self,
        key: &ResourceKey,
        origin: &str,
        reason: &str,
        held: &Held,
        body: Option<&[u8]>,
    ) -> Result<(), ShelfError> {
        self.observer.seen(key, Some(held), body, Some((LossOutcome::NotMovable, reason)));
        self.leave(key, origin, reason, Some(held))
    }

    fn leave(&mut self, key: &ResourceKey, origin: &str, reason: &str, held: Option<&Held>) -> Result<(), ShelfError> {
        self.loss.leave(key, reason);
        self.keep_back(key, LossOutcome::NotMovable, reason);
        let (reason, sha256) = (Some(reason.to_owned()), held.map(|held| held.sha256));
        self.write(key, origin, &SnapshotRow { verdict: Verdict::NotMovable, reason, sha256, held: None })
    }

    fn keep_back(&mut self, key: &ResourceKey, outcome: LossOutcome, reason: &str) {
        *self.kept_back.entry((key.resource_type, outcome, reason.to_owned())).or_default() += 1;
    }

    fn write(&mut self, key: &ResourceKey, origin: &str, row: &SnapshotRow) -> Result<(), ShelfError> {
        let key = rows::under(&self.rows, key).extend().text(origin);
        // Two versions of one resource in one chart need two rows.
        let key = match (row.verdict, row.sha256) {
            (Verdict::NotMovable, Some(sha256)) => key.fixed(sha256.as_bytes()).done(),
            _ => key.done(),
        };
        self.writer.put(Space::Snapshot, key, rows::encode(row))
    }

    /// Notes what leads nowhere, and makes the part of the report that the destination is told.
    ///
    /// Security: an unresolved reference names the resource it stands in, so of withheld ones nothing is told.
    fn told(&mut self, dangling: &DanglingList) -> Result<LossReport, ShelfError> {
        let mut told = LossReport::new();
        for ((resource_type, outcome, reason), number) in &self.kept_back {
            told.add_kept_back(*resource_type, *outcome, reason, *number);
        }
        for dangling in &dangling.listed {
            let (from, path, reason) = (&dangling.from, &dangling.path, dangling.reason.code());
            self.loss.note_unresolved(from, path, reason);
            if self.earlier(from)?.is_some_and(|row| row.verdict == Verdict::Offered) {
                told.note_unresolved(from, path, reason);
            }
        }
        // Beyond the lists only the numbers grow; which of these travel is known only when everything does.
        if let Some(last) = dangling.listed.last() {
            let is_whole = self.loss.counts().withheld == 0;
            for _ in 0..dangling.unlisted {
                self.loss.note_unresolved(&last.from, &last.path, last.reason.code());
                if is_whole {
                    told.note_unresolved(&last.from, &last.path, last.reason.code());
                }
            }
        }
        Ok(told)
    }
}

/// The first references that lead nowhere.
#[derive(Default)]
struct DanglingList {
    listed: Vec<Dangling>,
    unlisted: u64,
}

impl Visitor for DanglingList {
    fn decided(&mut self, _: &Reached, _: Decision) {}

    fn dangling(&mut self, dangling: Dangling) {
        if self.listed.len() < MAX_LISTED_ITEMS {
            self.listed.push(dangling);
        } else {
            self.unlisted += 1;
        }
    }
}
