//! Filing: every resource of an arrived record opened, checked and put where one transaction makes it part of the chart.

use std::sync::Arc;

use waybill_crypto::backend::Backend;
use waybill_crypto::stream::{StreamKeys, open_chunk};
use waybill_protocol::destination::{DestinationCase, Filing, rejection_detail};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::messages::{Manifest, OutcomeClass, ReceiptDetail};
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::rejection::Code;
use waybill_record::compartment::Relation;
use waybill_record::digest::{Inventory, RecordTally};
use waybill_record::facts::{ResourceFacts, facts};
use waybill_record::frame::{FrameReader, FramedResource};
use waybill_record::identity::{Demographics, IdentityMatch};
use waybill_record::json;
use waybill_record::loss::LossReport;
use waybill_record::resource::{MAX_RESOURCE_BYTES, ResourceKey};
use waybill_record::scope::{Decision, Scope};
use waybill_record::types::ResourceType;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::bridge::{Bridge, Writer};
use super::error::ShelfError;
use super::incoming::{IncomingPool, first_owner};
use super::load::{demographics, origins_of, patient_id};
use super::receive::arrived;
use super::rows::{self, Held, Origin, SetAside};
use super::{OnProgress, Progress, Shelf, type_counts};

/// The reason an item is set aside when nobody can say whom it is about.
const OWNER_UNKNOWN: &str = "owner-unknown";
/// The reason an item is set aside when its facts cannot be read.
const UNREADABLE: &str = "unreadable";

/// What filing gave.
#[derive(Debug)]
pub struct FilingResult {
    /// For [`waybill_protocol::destination::Destination::handle_filed`].
    pub filing: Filing,
    /// Belong into the same batch as the case's new state: with them the record becomes part of the chart, or is gone.
    pub ops: Vec<Op>,
}

/// Why filing stops before its end.
enum Stop {
    /// The record is turned away.
    Reject(Code),
    /// Something here failed; filing can be tried again.
    Fail(ShelfError),
}

impl<E: Into<ShelfError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.into())
    }
}

impl Shelf {
    /// Opens, checks and files the record of a session, all but the last step: the operations given back make it visible.
    ///
    /// Checked of each resource: that it is what its frame names, inside the scope, about this patient. Checked of the whole:
    /// order, totals, padding, counts and bytes by type, digest, all against the signed manifest. After a crash it is called again
    /// and begins anew.
    ///
    /// # Errors
    /// [`ShelfError`] for what failed here, to be tried again ([`ShelfError::is_full`]); what the source did wrong is a rejected
    /// [`Filing`].
    pub async fn file(
        &self,
        case: &DestinationCase,
        manifest: &Manifest,
        keys: StreamKeys,
        backend: Arc<dyn Backend>,
        progress: OnProgress,
    ) -> Result<FilingResult, ShelfError> {
        if manifest.session != case.session || manifest.proof != case.proof {
            return Err(ShelfError::WrongCase);
        }
        let target = Target { local: case.local.clone(), source: case.source.clone(), scope: case.scope.clone() };
        self.file_for(target, manifest.clone(), keys, backend, progress).await
    }

    pub(super) async fn file_for(
        &self,
        target: Target,
        manifest: Manifest,
        keys: StreamKeys,
        backend: Arc<dyn Backend>,
        progress: OnProgress,
    ) -> Result<FilingResult, ShelfError> {
        self.run(Key::build().fixed(manifest.session.as_bytes()).done(), move |bridge| {
            if bridge.exists(Space::Chart, &rows::filed_mark(&manifest.session))? {
                return Err(ShelfError::AlreadyFiled);
            }
            clear(bridge, &manifest)?;
            let ours = demographics(bridge, &target.local)?;
            let mut filer = Filer::new(bridge, &target, &manifest, ours);
            match filer.file(&keys, backend.as_ref(), &progress) {
                Ok(()) => filer.filed(),
                Err(Stop::Reject(code)) => Ok(rejected(&manifest, code)),
                Err(Stop::Fail(error)) => Err(error),
            }
        })
        .await
    }
}

/// Where an arrived record belongs, and how much of it may be there.
pub(super) struct Target {
    pub local: LocalPatient,
    pub source: HospitalId,
    pub scope: Scope,
}

/// Throws away what an interrupted filing left.
fn clear(bridge: &Bridge, manifest: &Manifest) -> Result<(), ShelfError> {
    bridge.commit(Batch { name: "shelf-file-clear", ops: clear_ops(manifest).into() })?;
    bridge.release(&rows::filing_holder(&manifest.session))
}

fn clear_ops(manifest: &Manifest) -> [Op; 2] {
    [rows::incoming(&manifest.session), rows::set_aside(&manifest.session)]
        .map(|prefix| Op::DeletePrefix { space: Space::Filed, prefix })
}

fn rejected(manifest: &Manifest, code: Code) -> FilingResult {
    let detail = rejection_detail(manifest, code);
    FilingResult { filing: Filing { detail, outcome: OutcomeClass::Rejected }, ops: clear_ops(manifest).into() }
}

/// A filing under way.
struct Filer<'a> {
    bridge: &'a Bridge,
    target: &'a Target,
    manifest: &'a Manifest,
    ours: Demographics,
    writer: Writer<'a>,
    /// Everything that arrived, set aside or not: this is what the manifest describes.
    arrived: RecordTally,
    filed: Inventory,
    /// The ids of the Patient resources that arrived, all of them our patient.
    patient_ids: Vec<String>,
    /// Whom the first resource with an owner names, for records without a Patient resource.
    first_owner: Option<String>,
    loss: LossReport,
}

impl<'a> Filer<'a> {
    fn new(bridge: &'a Bridge, target: &'a Target, manifest: &'a Manifest, ours: Demographics) -> Self {
        Self {
            bridge,
            target,
            manifest,
            ours,
            writer: Writer::new(bridge, "shelf-file"),
            arrived: RecordTally::new(),
            filed: Inventory::default(),
            patient_ids: Vec::new(),
            first_owner: None,
            loss: LossReport::new(),
        }
    }

    fn file(&mut self, keys: &StreamKeys, backend: &dyn Backend, progress: &OnProgress) -> Result<(), Stop> {
        self.loss = minicbor::decode(&self.manifest.loss).map_err(|_| Stop::Reject(Code::ManifestInvalid))?;
        self.read_stream(keys, backend, progress)?;
        self.writer.flush()?;
        let manifest = self.manifest;
        if type_counts(self.arrived.inventory()) != manifest.inventory
            || *self.arrived.digest() != manifest.digest_scope
        {
            return Err(Stop::Reject(Code::DigestMismatch));
        }
        self.check_owners()?;
        self.writer.flush()?;
        self.loss.verify_filed().map_err(|_| Stop::Reject(Code::ManifestInvalid))
    }

    fn read_stream(&mut self, keys: &StreamKeys, backend: &dyn Backend, progress: &OnProgress) -> Result<(), Stop> {
        let (session, count) = (&self.manifest.session, self.manifest.chunk_count);
        let prefix = rows::arrived(session);
        let mut reader = FrameReader::new();
        let mut done = Progress { total_bytes: Some(self.manifest.stream_bytes), ..Progress::default() };
        for index in 0..count {
            self.bridge.check()?;
            let row = self.bridge.load(Space::Staged, &rows::chunk(&prefix, index))?;
            let mut blob = Vec::from(self.bridge.object(&arrived(row.map(|row| row.value))?)?);
            let plain = open_chunk(backend, keys, &session.0, index, index + 1 == count, &mut blob)
                .map_err(|_| Stop::Reject(Code::StreamInvalid))?;
            for framed in reader.feed(plain) {
                let framed = framed.map_err(|_| Stop::Reject(Code::StreamInvalid))?;
                self.take(framed)?;
                done.resources += 1;
            }
            done.size_bytes += plain.len() as u64;
            progress(done);
        }
        let totals = reader.finish().map_err(|_| Stop::Reject(Code::StreamInvalid))?;
        let is_whole = totals.padded_bytes == self.manifest.stream_bytes;
        if is_whole { Ok(()) } else { Err(Stop::Reject(Code::StreamInvalid)) }
    }

    /// One resource: into the digest whatever it is, then to the chart or aside.
    fn take(&mut self, framed: FramedResource) -> Result<(), Stop> {
        let hash = self.arrived.add(&framed.key, framed.version.as_ref(), framed.salt, &framed.bytes);
        self.loss.offer(&framed.key);
        let read = match framed.verify_body() {
            Ok(_) => facts(&framed.bytes).map_err(|_| UNREADABLE),
            Err(error) => Err(error.code()),
        };
        let named = ResourceFacts { resource_type: framed.key.resource_type, clinical_date: None, labels: Vec::new() };
        let outside = match &read {
            Ok(facts) => self.target.scope.decide(facts) != Decision::InScope,
            // Nothing but the type is known of it, and even that must be allowed.
            Err(_) => !allows_type(&self.target.scope, &named),
        };
        if outside {
            return Err(Stop::Reject(Code::OutOfScope));
        }
        let reason = read.err();
        if reason.is_none() {
            self.note_patient(&framed)?;
        }
        let (key, salt) = (framed.key, *framed.salt.as_bytes());
        let version = framed.version.as_ref().map(|version| version.as_str());
        let holder = rows::filing_holder(&self.manifest.session);
        let held = self.writer.hold(&holder, framed.bytes, Some(hash), version, Some(salt))?;
        match reason {
            None => {
                let row = rows::under_version(&rows::incoming(&self.manifest.session), &key, &hash);
                self.writer.put(Space::Filed, row, rows::encode(&held))?;
            }
            Some(reason) => self.set_aside(&key, reason, held)?,
        }
        Ok(())
    }

    fn set_aside(&mut self, key: &ResourceKey, reason: &str, held: Held) -> Result<(), ShelfError> {
        self.loss.quarantine(key, reason);
        let row = SetAside { reason: reason.to_owned(), held };
        self.writer.put(Space::Filed, rows::under(&rows::set_aside(&self.manifest.session), key), rows::encode(&row))
    }

    /// A Patient resource in the record must be our patient: nothing may be attached to somebody else.
    fn note_patient(&mut self, framed: &FramedResource) -> Result<(), Stop> {
        if framed.key.resource_type != ResourceType::PATIENT {
            if self.first_owner.is_none() {
                let document = parse(&framed.bytes)?;
                let owner = first_owner(&document, framed.key.resource_type);
                self.first_owner = owner.map(|id| id.as_str().to_owned());
            }
            return Ok(());
        }
        let theirs = Demographics::from_patient(&framed.bytes).map_err(|_| Stop::Reject(Code::WrongPatient))?;
        if matches!(self.ours.compare(&theirs), IdentityMatch::Mismatch(..)) {
            return Err(Stop::Reject(Code::WrongPatient));
        }
        self.patient_ids.push(framed.key.id.as_str().to_owned());
        Ok(())
    }

    /// Checks again that everything is about the patient: a second reading, because ownership may follow references.
    fn check_owners(&mut self) -> Result<(), Stop> {
        if self.patient_ids.is_empty() {
            self.patient_ids.extend(self.first_owner.take());
        }
        let ours = patient_id(&self.target.local)?;
        let patient = |id| ResourceKey { resource_type: ResourceType::PATIENT, id };
        let mut patients = Vec::new();
        for id in &self.patient_ids {
            patients.push(ResourceKey::new("Patient", id).map_err(|_| ShelfError::Damaged("filed resources"))?);
        }
        if patients.is_empty() {
            patients.push(patient(ours));
        }
        let prefix = rows::incoming(&self.manifest.session);
        let bridge = self.bridge;
        let pool = IncomingPool { bridge, space: Space::Filed, prefix: prefix.clone(), patients };
        let mut stop = None;
        bridge.for_each(Space::Filed, &prefix, &mut |row, value| {
            if stop.is_none() {
                stop = self.check_owner(&pool, &prefix, row, &value)?;
            }
            Ok(())
        })?;
        stop.map_or(Ok(()), |code| Err(Stop::Reject(code)))
    }

    fn check_owner(
        &mut self,
        pool: &IncomingPool<'_>,
        prefix: &Key,
        row: Key,
        value: &[u8],
    ) -> Result<Option<Code>, ShelfError> {
        let key = rows::resource_after(&row, prefix, "filed resources")?;
        let held: Held = rows::decode("filed resources", value)?;
        let body = self.bridge.body(&held)?;
        match pool.relation(&parse(&body)?)? {
            Relation::Own | Relation::Supporting => {
                self.filed.add(key.resource_type, held.size_bytes);
                self.loss.file(&key);
            }
            Relation::Unknown => {
                self.writer.delete(Space::Filed, row);
                self.set_aside(&key, OWNER_UNKNOWN, held)?;
            }
            Relation::Shared | Relation::Another | Relation::NamesAnother => return Ok(Some(Code::WrongPatient)),
        }
        Ok(None)
    }

    fn filed(self) -> Result<FilingResult, ShelfError> {
        let (case, session) = (self.target, &self.manifest.session);
        let (offered, filed) = (self.arrived.inventory().total().count, self.filed.total().count);
        let loss = rows::encode(&self.loss);
        let detail = ReceiptDetail {
            inventory: type_counts(&self.filed),
            offered,
            filed,
            quarantined: offered - filed,
            digest: self.arrived.digest().short(),
            code: None,
            loss: loss.clone(),
        };
        let known =
            origins_of(self.bridge, &case.local)?.into_iter().find(|(origin, _)| origin == case.source.as_str());
        let mut patient_ids = known.map(|(_, origin)| origin.patient_ids).unwrap_or_default();
        patient_ids.extend(self.patient_ids);
        patient_ids.sort();
        patient_ids.dedup();
        let origin = rows::encode(&Origin { patient_ids, session: *session });
        let put = |space, key, value| Op::Put { space, key, value, expect: Expect::Any };
        let aside = rows::quarantine(&case.local, &case.source).extend().fixed(session.as_bytes()).done();
        let promote = |from_prefix, to_space, to_prefix| Op::Promote {
            from_space: Space::Filed,
            from_prefix,
            to_space,
            to_prefix,
        };
        let ops = vec![
            promote(rows::incoming(session), Space::Chart, rows::chart(&case.local, case.source.as_str())),
            promote(rows::set_aside(session), Space::Quarantine, aside),
            put(Space::Chart, rows::origin(&case.local, &case.source), origin),
            put(Space::Chart, rows::filed_mark(session), Vec::new()),
            put(Space::Loss, rows::loss(session), loss),
        ];
        Ok(FilingResult { filing: Filing { detail, outcome: OutcomeClass::Filed }, ops })
    }
}

/// Whether a scope allows a type at all.
fn allows_type(scope: &Scope, named: &ResourceFacts) -> bool {
    use waybill_record::scope::WithheldReason::TypeNotInScope;
    scope.decide(named) != Decision::Withheld(TypeNotInScope)
}

pub(super) fn parse(body: &[u8]) -> Result<json::Document<'_>, ShelfError> {
    let limits = json::Limits { bytes: MAX_RESOURCE_BYTES, ..json::Limits::default() };
    json::parse_within(body, limits).map_err(|_| ShelfError::Damaged("filed resources"))
}
