//! The long work of a hospital's cases: freeze and stage, receive, file, clean up.
//!
//! Each piece is driven by the case's durable state and may be run again at any point: a restart looks through the open cases
//! and goes on. One task a case and at most [`PARALLEL`] at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;
use waybill_crypto::metered::scope;
use waybill_crypto::stream::RecordKey;
use waybill_protocol::destination::{DestinationCase, Filing, rejection_detail};
use waybill_protocol::ids::{ManifestId, ProofId, SessionId};
use waybill_protocol::messages::{Manifest, OutcomeClass};
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::rejection::Code;
use waybill_protocol::source::{Granted, SourceCase};
use waybill_store::{Area, Expect, Key, Op, OutboxItem, Space};

use super::audit::{Actor, event};
use super::engine::{Engine, arrived_op, of_destination, of_source, once};
use super::fhir;
use crate::mailbox::{Inbox, InboxError};
use crate::party::effects::PATIENCE_MS;
use crate::party::{ServiceError, run_again};
use crate::shelf::{OnProgress, Progress, ReceiveError, Shelf, ShelfError};

/// Most cases exported, filed or cleaned at once.
const PARALLEL: usize = 4;
/// Most cases received at once.
const RECEIVING: usize = 256;
/// Blobs of one outbox batch.
pub(super) const BLOBS: usize = 512;
/// How long a destination waits for a chunk that does not come before it asks the source again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Which stage a case is in, and how far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stage {
    /// `freezing`, `staging`, `receiving`, `filing`.
    pub name: &'static str,
    /// How far.
    pub progress: Progress,
}

/// How far each case's work is, for status pages. Not durable: the states are.
#[derive(Clone, Default)]
pub struct Stages(Arc<Mutex<BTreeMap<ProofId, Stage>>>);

impl Stages {
    /// Where a case's work stands.
    #[must_use]
    pub fn find(&self, id: &ProofId) -> Option<Stage> {
        self.0.lock().expect("nobody panics while holding the stages").get(id).copied()
    }

    fn set(&self, id: ProofId, name: &'static str, progress: Progress) {
        self.0.lock().expect("nobody panics while holding the stages").insert(id, Stage { name, progress });
    }

    fn clear(&self, id: &ProofId) {
        self.0.lock().expect("nobody panics while holding the stages").remove(id);
    }

    fn on(&self, id: ProofId, name: &'static str) -> OnProgress {
        let stages = self.clone();
        stages.set(id, name, Progress::default());
        Arc::new(move |progress| stages.set(id, name, progress))
    }
}

/// The row that finds a case by its session.
#[must_use]
pub fn session_row(session: &SessionId) -> Key {
    Key::build().text("session").fixed(session.as_bytes()).done()
}

/// Makes a destination's case findable by its session.
#[must_use]
pub fn session_op(case: &DestinationCase) -> Op {
    let (key, value) = (session_row(&case.session), case.proof.as_bytes().to_vec());
    Op::Put { space: Space::Unique, key, value, expect: Expect::Any }
}

/// Under which name the source keeps its one-time reply key: a slot of its own beside the session's.
#[must_use]
pub fn reply_slot(case: &SourceCase) -> Digest {
    sha256(&[b"waybill/1 reply slot", case.session.as_bytes()])
}

/// The worker of a hospital.
pub struct Worker {
    /// The hospital.
    pub engine: Engine,
    /// Its mailbox, where chunks arrive.
    pub inbox: Arc<dyn Inbox>,
    /// Progress.
    pub stages: Stages,
}

/// What there is to do for a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Export,
    Receive,
    File,
    CleanSource,
    CleanDestination,
}

impl Worker {
    /// Works until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changed = self.engine.party.store.changed(Area::Space(Space::Case));
        let tasks = TaskTracker::new();
        // Receiving waits for others, so it has turns of its own: a source that sends nothing must not stop the rest.
        let (limit, receiving) = (Arc::new(Semaphore::new(PARALLEL)), Arc::new(Semaphore::new(RECEIVING)));
        let under_way: Arc<Mutex<BTreeMap<ProofId, Job>>> = Arc::default();
        loop {
            changed.borrow_and_update();
            match self.jobs().await {
                Ok(jobs) => {
                    for (id, job) in jobs {
                        let fresh =
                            under_way.lock().expect("nobody panics while holding the jobs").insert(id, job).is_none();
                        if fresh {
                            let turns = if job == Job::Receive { receiving.clone() } else { limit.clone() };
                            let (worker, under_way) = (self.clone(), under_way.clone());
                            let shutdown = shutdown.clone();
                            tasks.spawn(async move {
                                let _turn = turns.acquire().await;
                                tokio::select! {
                                    () = shutdown.cancelled() => {}
                                    () = worker.work(id, job) => {}
                                }
                                under_way.lock().expect("nobody panics while holding the jobs").remove(&id);
                                worker.stages.clear(&id);
                            });
                        }
                    }
                }
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "open cases cannot be read"),
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = changed.changed() => {}
                // A job that ended while its case was being changed is found here at the latest.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// The open cases, by what their state asks for. Closed cases that are cleaned leave the list of open ones.
    async fn jobs(&self) -> Result<Vec<(ProofId, Job)>, ServiceError> {
        let mut jobs = Vec::new();
        for id in self.engine.open_cases().await? {
            jobs.extend(self.job_of(&id).await?.map(|job| (id, job)));
        }
        Ok(jobs)
    }

    async fn job_of(&self, id: &ProofId) -> Result<Option<Job>, ServiceError> {
        if let Some((case, _)) = self.engine.source_case(id).await? {
            return Ok(match case.state {
                SourceState::Granted => Some(Job::Export),
                SourceState::Closed | SourceState::Refused | SourceState::AttemptFailed => Some(Job::CleanSource),
                _ => None,
            });
        }
        let Some((case, _)) = self.engine.destination_case(id).await? else { return Ok(None) };
        Ok(match case.state {
            DestinationState::Receiving => Some(Job::Receive),
            DestinationState::KeyHeld => Some(Job::File),
            DestinationState::Closed => Some(Job::CleanDestination),
            DestinationState::Rejected if case.receipt.is_none() => Some(Job::CleanDestination),
            _ => None,
        })
    }

    async fn work(&self, id: ProofId, job: Job) {
        let mut pause = Duration::from_millis(200);
        loop {
            let result = match job {
                Job::Export => self.export(id).await,
                Job::Receive => self.receive(id).await,
                Job::File => self.file(id).await,
                Job::CleanSource | Job::CleanDestination => self.clean(id).await,
            };
            match result {
                Ok(()) => return,
                Err(error) if error.retryable() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, case = %id, ?job, "work waits");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(60));
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, case = %id, ?job, "work stopped");
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    return;
                }
            }
        }
    }

    /// Source: freeze, stage, sign the manifest, lodge the key; then the chunks go out.
    pub(super) async fn export(&self, id: ProofId) -> Result<(), ServiceError> {
        let engine = &self.engine;
        let Some((case, _)) = engine.source_case(&id).await? else { return Ok(()) };
        // The right to read the record: only a case that the authority granted has it.
        let Some(granted) = Granted::resume(&case) else { return Ok(()) };
        match engine.consent_stands(&case).await {
            Err(ServiceError::Rejected(_)) => return engine.stop_unconsented(&id).await,
            other => drop(other?),
        }
        self.stages.set(id, "freezing", Progress::default());
        let staged = match self.stage(&granted, &case).await {
            Err(error) if matches!(error, ShelfError::NoSuchPatient | ShelfError::TooLarge { .. }) => {
                let code = if matches!(error, ShelfError::NoSuchPatient) {
                    Code::RecordMissing
                } else {
                    Code::ManifestTooLarge
                };
                return self.abort(id, code).await;
            }
            other => other?,
        };
        let lodged = run_again(|| async {
            let Some((now, version)) = engine.source_case(&id).await? else { return Ok(()) };
            if now.state != SourceState::Granted || now.session != case.session {
                return Ok(());
            }
            let (stands, required) = match engine.consent_stands(&now).await {
                Err(ServiceError::Rejected(_)) => return engine.stop_unconsented(&id).await,
                other => other?,
            };
            let (case, effects) = engine.as_source("Manifest", now.own, |s| s.handle_staged(&stands, now, &staged))?;
            let blobs = blob_items(engine, &case).await?;
            let mut ops = self.split(blobs).await?;
            ops.extend(required);
            // This is the disclosure: from here on the record is on its way.
            let (count, bytes) = (staged.inventory.iter().map(|t| t.count).sum::<u64>(), staged.stream_bytes);
            let row = of_source(&case, Actor::System, event::RECORD_SENT);
            ops.extend(engine.audit(row.with_note(&format!("{count} resources, {bytes} bytes"))));
            engine.save_source("lodged", &case, Expect::Version(version), ops, effects).await
        })
        .await;
        match lodged {
            // The destination's one-time key is no point: nobody could ever read the record.
            Err(ServiceError::Rejected(rejection)) => self.abort(id, rejection.code).await,
            other => other,
        }
    }

    async fn stage(
        &self,
        granted: &Granted,
        case: &SourceCase,
    ) -> Result<waybill_protocol::source::Staged, ShelfError> {
        let engine = &self.engine;
        let now = engine.party.ctx().now;
        engine.shelf.freeze(granted, case, now).await?;
        let reply = scope("KeyLodgement", || engine.party.backend.generate_hpke_key());
        let slot = reply_slot(case);
        engine.one_time.keep(&slot, &reply).map_err(ShelfError::Export)?;
        let mut key = zeroize::Zeroizing::new([0; 32]);
        engine.party.backend.random(key.as_mut_slice());
        let on = self.stages.on(case.proof, "staging");
        let key = RecordKey::from_bytes(*key);
        engine.shelf.stage(&case.session, engine.party.backend.clone(), key, *reply.public(), on).await
    }

    /// Very many blobs do not fit one batch: all but the last part go out before the manifest, which harms nobody.
    async fn split(&self, mut ops: Vec<Op>) -> Result<Vec<Op>, ServiceError> {
        while ops.len() > BLOBS {
            let rest = ops.split_off(BLOBS);
            let batch = waybill_store::Batch { name: "blobs", ops };
            self.engine.party.store.commit(batch).await?;
            ops = rest;
        }
        Ok(ops)
    }

    async fn abort(&self, id: ProofId, code: Code) -> Result<(), ServiceError> {
        run_again(|| async {
            let Some((case, version)) = self.engine.source_case(&id).await? else { return Ok(()) };
            if case.state != SourceState::Granted {
                return Ok(());
            }
            let (case, effects) = self.engine.as_source("Refusal", case.own, |s| s.abort(case, code));
            let ops = self.engine.audit(of_source(&case, Actor::System, event::CASE_STOPPED).with_code(case.code));
            self.engine.save_source("aborted", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }

    /// Destination: fetch the leaf list and every chunk, each verified on arrival, then sign for the ciphertext.
    async fn receive(&self, id: ProofId) -> Result<(), ServiceError> {
        let engine = &self.engine;
        let Some((case, _)) = engine.destination_case(&id).await? else { return Ok(()) };
        if case.state != DestinationState::Receiving {
            return Ok(());
        }
        let (_, manifest) = engine.as_destination("Manifest", case.own, |d| d.manifest_of(&case))?;
        let root = match engine.shelf.delivered(&manifest).await {
            Ok(None) => self.fetch(&case, &manifest).await,
            other => other.map_err(refused),
        };
        let root = match root {
            Ok(Some(root)) => root,
            // The session is over, or another one serves the case now.
            Ok(None) => return Ok(()),
            // Blobs are named by their content: what does not fit the manifest now never will.
            Err(ServiceError::Rejected(rejection)) => return self.give_up(id, rejection.code).await,
            Err(error) => return Err(error),
        };
        run_again(|| async {
            let Some((now, version)) = engine.destination_case(&id).await? else { return Ok(()) };
            if now.state != DestinationState::Receiving || now.session != case.session {
                return Ok(());
            }
            let (case, effects) =
                engine.as_destination("DeliveryReceipt", now.own, |d| d.handle_delivered(now, &root))?;
            engine.save_destination("delivered", &case, Expect::Version(version), Vec::new(), effects).await
        })
        .await
    }

    async fn give_up(&self, id: ProofId, code: Code) -> Result<(), ServiceError> {
        run_again(|| async {
            let Some((case, version)) = self.engine.destination_case(&id).await? else { return Ok(()) };
            if case.state != DestinationState::Receiving {
                return Ok(());
            }
            let (case, effects) = self.engine.as_destination("Refusal", case.own, |d| d.give_up(case, code));
            let ops = self.engine.audit(of_destination(&case, Actor::System, event::CASE_STOPPED).with_code(case.code));
            self.engine.save_destination("gave-up", &case, Expect::Version(version), ops, effects).await
        })
        .await
    }

    /// Fetches what is missing; `None` when the case has moved on meanwhile.
    async fn fetch(&self, case: &DestinationCase, manifest: &Manifest) -> Result<Option<Digest>, ServiceError> {
        let shelf = &self.engine.shelf;
        if matches!(shelf.missing(manifest, None, 1).await, Err(ReceiveError::NoLeafList)) {
            let list = Shelf::expected_leaf_list(manifest).map_err(refused)?;
            let Some(bytes) = self.blob(case, &list).await? else { return Ok(None) };
            shelf.take_leaf_list(manifest, bytes).await.map_err(refused)?;
            self.inbox.delete_blob(&list).await.map_err(inbox)?;
        }
        let mut progress = Progress { total_bytes: Some(manifest.stream_bytes), ..Progress::default() };
        let mut after = None;
        loop {
            let missing = shelf.missing(manifest, after, BLOBS).await.map_err(refused)?;
            if missing.is_empty() {
                return shelf.delivered(manifest).await.map_err(refused);
            }
            for chunk in missing {
                let Some(bytes) = self.blob(case, &chunk.address).await? else { return Ok(None) };
                progress.size_bytes += bytes.len() as u64;
                shelf.take_blob(manifest, bytes).await.map_err(refused)?;
                self.inbox.delete_blob(&chunk.address).await.map_err(inbox)?;
                after = Some(chunk.index);
                self.stages.set(case.proof, "receiving", progress);
            }
        }
    }

    /// Waits for a blob as long as its session is the case's. When it does not come, the source is asked again: the relay may
    /// have lost it.
    async fn blob(
        &self,
        case: &DestinationCase,
        address: &waybill_store::Address,
    ) -> Result<Option<bytes::Bytes>, ServiceError> {
        let (mut pause, mut waited) = (Duration::from_millis(10), Duration::ZERO);
        loop {
            match self.inbox.blob(address).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(InboxError::NoBlob) => {}
                Err(error) => return Err(inbox(error)),
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_secs(1));
            if waited >= Duration::from_secs(1) {
                let now = self.engine.destination_case(&case.proof).await?;
                let goes_on = |(now, _): &(DestinationCase, u64)| {
                    now.state == DestinationState::Receiving && now.session == case.session
                };
                if !now.as_ref().is_some_and(goes_on) {
                    return Ok(None);
                }
            }
            if waited > ASK_AGAIN {
                waited = Duration::ZERO;
                let ask = self.engine.as_destination("TransferRequest", case.own, |d| d.ask(case));
                self.engine.commit("asked-again", &case.proof.0, Vec::new(), vec![once(ask)]).await?;
            }
        }
    }

    /// Destination: open, verify and stage every resource; then rows, receipt and "filed" in one transaction.
    async fn file(&self, id: ProofId) -> Result<(), ServiceError> {
        let engine = &self.engine;
        let Some((case, version)) = engine.destination_case(&id).await? else { return Ok(()) };
        if case.state != DestinationState::KeyHeld {
            return Ok(());
        }
        let (id_of, manifest) = engine.as_destination("Manifest", case.own, |d| d.manifest_of(&case))?;
        let secret = engine.one_time_key(&case.session.0)?;
        let keys =
            secret.and_then(|secret| engine.as_destination("KeyRelease", case.own, |d| d.stream_keys(&case, &secret)));
        let Some(keys) = keys else {
            // The key was released and can no longer be opened (this store was restored from a backup): say so, signed.
            let filing =
                Filing { detail: rejection_detail(&manifest, Code::SessionLost), outcome: OutcomeClass::Rejected };
            let (case, effects) =
                engine.as_destination("ImportReceipt", case.own, |d| d.handle_filed(case, &filing))?;
            let ops = engine.audit(of_destination(&case, Actor::System, event::RECORD_RECEIVED).with_code(case.code));
            return engine.save_destination("unreadable", &case, Expect::Version(version), ops, effects).await;
        };
        let on = self.stages.on(id, "filing");
        let result = engine.shelf.file(&case, &manifest, keys, engine.party.backend.clone(), on).await?;
        let (case, effects) =
            engine.as_destination("ImportReceipt", case.own, |d| d.handle_filed(case, &result.filing))?;
        let mut ops = result.ops;
        ops.extend(self.about_filing(&case, (id_of, &manifest), &result.filing)?);
        engine.save_destination("filed", &case, Expect::Version(version), ops, effects).await
    }

    /// What is written down about a record that was filed or turned away, in the same transaction: the audit row, and for a filed one a
    /// Provenance and the patient's Consent as part of the chart.
    fn about_filing(
        &self,
        case: &DestinationCase,
        manifest: (ManifestId, &Manifest),
        filing: &Filing,
    ) -> Result<Vec<Op>, ServiceError> {
        let (engine, detail) = (&self.engine, &filing.detail);
        let row = of_destination(case, Actor::System, event::RECORD_RECEIVED).with_code(case.code);
        let mut ops = engine.audit(row.with_note(&format!("{} of {} resources filed", detail.filed, detail.offered)));
        if filing.outcome == OutcomeClass::Filed {
            let own = &engine.identities.current().id;
            let made = fhir::made_for(own, case, manifest, detail, engine.party.ctx().now);
            ops.extend(engine.shelf.made_here(own, &case.local, &case.session, made)?);
            ops.push(arrived_op(&case.proof));
        }
        Ok(ops)
    }

    /// The session is over: its one-time key and staged ciphertext are destroyed, chunks still queued are withdrawn, and the
    /// case leaves the list of open ones, unless a next attempt has put it there again meanwhile.
    pub(super) async fn clean(&self, id: ProofId) -> Result<(), ServiceError> {
        let (engine, store) = (&self.engine, &self.engine.party.store);
        let Some(listed) = store.load(Space::Setting, &open_row(&id)).await? else { return Ok(()) };
        let session = match (engine.source_case(&id).await?, engine.destination_case(&id).await?) {
            (Some((case, _)), _) => {
                engine.destroy_one_time(&reply_slot(&case))?;
                case.session
            }
            (None, Some((case, _))) => {
                engine.destroy_one_time(&case.session.0)?;
                case.session
            }
            (None, None) => return Ok(()),
        };
        store
            .commit(waybill_store::Batch::new("chunks-settled").with(Op::Settle { reply_key: chunks_key(&session) }))
            .await?;
        engine.shelf.discard(&session).await?;
        let batch = waybill_store::Batch::new("case-cleaned");
        let batch = batch.delete(Space::Setting, open_row(&id), Expect::Version(listed.version));
        match store.commit(batch).await {
            Err(waybill_store::CommitError::Conflict { .. }) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }
}

/// What settles the chunks of a session that are still queued.
pub(super) fn chunks_key(session: &SessionId) -> Vec<u8> {
    [b"chunks", session.as_bytes().as_slice()].concat()
}

fn open_row(id: &ProofId) -> Key {
    Key::build().text("open").fixed(id.as_bytes()).done()
}

/// Puts a case on the list of open ones, where the worker finds it, also after a restart.
#[must_use]
pub fn open_op(id: &ProofId) -> Op {
    Op::Put { space: Space::Setting, key: open_row(id), value: id.as_bytes().to_vec(), expect: Expect::Any }
}

/// One outbox item a chunk, and one for the leaf list.
pub(super) async fn blob_items(engine: &Engine, case: &SourceCase) -> Result<Vec<Op>, ServiceError> {
    let to = waybill_protocol::migration::Recipient::Hospital(case.destination.clone());
    let Some(to) = engine.book.mailbox(&to).await? else { return Ok(Vec::new()) };
    let now = engine.party.clock.now_ms();
    let item = |address| {
        Op::Enqueue(OutboxItem {
            to: to.clone(),
            body: Vec::new(),
            reply_key: chunks_key(&case.session),
            not_before: now,
            deadline: now.saturating_add(PATIENCE_MS),
            kind: "chunk".to_owned(),
            blob: Some(address),
            settle_on_delivery: true,
        })
    };
    let mut ops: Vec<Op> = engine.shelf.leaf_list(&case.session).await?.map(item).into_iter().collect();
    let mut after = None;
    loop {
        let page = engine.shelf.blobs(&case.session, after, BLOBS).await?;
        let Some(last) = page.last() else { return Ok(ops) };
        after = Some(last.index);
        ops.extend(page.iter().map(|chunk| item(chunk.address)));
    }
}

fn inbox(error: InboxError) -> ServiceError {
    ServiceError::unavailable("the mailbox", error)
}

/// A manifest that cannot be served, or chunks that are not the ones it names, end the attempt; the environment passes.
fn refused(error: ReceiveError) -> ServiceError {
    match error {
        ReceiveError::Shelf(error) => error.into(),
        ReceiveError::NoLeafList => ServiceError::Raced,
        _ => ServiceError::Rejected(Code::ManifestInvalid.into()),
    }
}

impl From<ShelfError> for ServiceError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Damaged(what) => Self::Corrupt(what),
            ShelfError::NoSuchPatient => Self::Rejected(Code::PatientUnknown.into()),
            error => Self::unavailable("the records", error),
        }
    }
}
