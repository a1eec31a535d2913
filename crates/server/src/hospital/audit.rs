//! The audit trail: who did what to whose record, in which case; append-only, and chained so that a change shows.
//!
//! | space | key | value |
//! |---|---|---|
//! | `Audit` | `"row", milliseconds, id` | [`AuditRow`] |
//! | `Audit` | `"patient", patient, milliseconds, id` and `"case", proof, milliseconds, id` | empty: finds rows |
//! | leaves | SHA-256 of the row, with the row's key as note | one a row, in the order of the commits |
//!
//! A row is written in the batch of the change it records. The store appends leaves and never changes one, so the chain over
//! them ([`verify`]) shows a row that was altered, removed or slipped in, to whoever noted an earlier head.

use std::sync::atomic::{AtomicU32, Ordering};

use minicbor::{Decode, Encode};
use serde::Serialize;
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::policy::Role;
use waybill_protocol::registrar::LocalPatient;
use waybill_protocol::rejection::Code;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};
use waybill_store::{Expect, Key, MAX_PAGE, Op, Space, Store};

use super::staff::{Denied, Member};
use crate::party::ServiceError;

/// Rows and leaves read at once.
const PAGE: usize = 500;
/// Rows that this process made.
static MADE: AtomicU32 = AtomicU32::new(0);
/// Longest note. Units: bytes.
const MAX_NOTE_BYTES: usize = 1_000;

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(flat)]
#[serde(tag = "who", rename_all = "kebab-case")]
pub enum Actor {
    /// A member of staff.
    #[n(0)]
    Staff {
        /// Which.
        #[n(0)]
        user: String,
        /// In which role; empty when it is not known.
        #[n(1)]
        role: String,
    },
    /// The patient, or who speaks for them, with a wallet.
    #[n(1)]
    Patient,
    /// The other hospital of the case.
    #[n(2)]
    Hospital,
    /// The authority.
    #[n(3)]
    Authority,
    /// The server by itself: a deadline, work that goes on.
    #[n(4)]
    System,
}

impl From<&Member> for Actor {
    fn from(member: &Member) -> Self {
        Self::Staff { user: member.user.clone(), role: member.role.as_str().to_owned() }
    }
}

impl Actor {
    /// The stable word for what a patient is told: the role of staff, never their names.
    #[must_use]
    pub fn role(&self) -> &str {
        match self {
            Self::Staff { role, .. } if Role::parse(role).is_some() => role,
            Self::Staff { .. } => "staff",
            Self::Patient => "patient",
            Self::Hospital => "hospital",
            Self::Authority => "authority",
            Self::System => "system",
        }
    }
}

/// What happened besides what staff does, whose words are [`waybill_protocol::policy::Action`]'s.
pub mod event {
    /// A patient's key was registered.
    pub const KEY_REGISTERED: &str = "key-registered";
    /// The hospital vouched for a patient's delegation key.
    pub const VOUCHED: &str = "vouched";
    /// A patient was told what is held.
    pub const PREVIEWED: &str = "previewed";
    /// A patient was told the names of items.
    pub const ITEMS_LISTED: &str = "items-listed";
    /// A patient was told who looked.
    pub const DISCLOSURES_LISTED: &str = "disclosures-listed";
    /// A patient presented a proof here.
    pub const PRESENTED: &str = "presented";
    /// Another hospital asked for a record.
    pub const REQUESTED: &str = "requested";
    /// A person must compare the two patients.
    pub const REVIEW_OPENED: &str = "review-opened";
    /// Nobody did in time.
    pub const REVIEW_OVERDUE: &str = "review-overdue";
    /// A record left for another hospital: at the source.
    pub const RECORD_SENT: &str = "record-sent";
    /// A record from another hospital was filed or turned away: at the destination.
    pub const RECORD_RECEIVED: &str = "record-received";
    /// A case ended without anything having left or arrived.
    pub const CASE_STOPPED: &str = "case-stopped";
    /// The authority signed how a case ended.
    pub const CASE_ENDED: &str = "case-ended";
    /// The hospital goes on from a backup: what was open is dead.
    pub const NEW_INCARNATION: &str = "new-incarnation";
}

/// What was done, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct AuditRow {
    /// When. Units: Unix milliseconds.
    #[n(0)]
    pub time_ms: u64,
    /// Who.
    #[n(1)]
    pub actor: Actor,
    /// What: a word of [`event`] or of an [`waybill_protocol::policy::Action`].
    #[n(2)]
    pub action: String,
    /// `done`, `denied`, or the code it ended with.
    #[n(3)]
    pub outcome: String,
    /// Whose record.
    #[n(4)]
    #[serde(serialize_with = "local")]
    pub patient: Option<LocalPatient>,
    /// In which case.
    #[n(5)]
    #[serde(serialize_with = "proof")]
    pub case: Option<ProofId>,
    /// The other hospital.
    #[n(6)]
    #[serde(serialize_with = "hospital")]
    pub counterpart: Option<HospitalId>,
    /// What else is worth knowing: numbers, a reason. Never content of a record.
    #[n(7)]
    pub note: Option<String>,
}

fn local<S: serde::Serializer>(patient: &Option<LocalPatient>, s: S) -> Result<S::Ok, S::Error> {
    patient.as_ref().map(|patient| &patient.0).serialize(s)
}

fn proof<S: serde::Serializer>(proof: &Option<ProofId>, s: S) -> Result<S::Ok, S::Error> {
    proof.map(|proof| proof.to_string()).serialize(s)
}

fn hospital<S: serde::Serializer>(id: &Option<HospitalId>, s: S) -> Result<S::Ok, S::Error> {
    id.as_ref().map(HospitalId::as_str).serialize(s)
}

impl AuditRow {
    /// Something that was done.
    #[must_use]
    pub fn new(actor: Actor, action: &str) -> Self {
        Self {
            time_ms: 0,
            actor,
            action: action.to_owned(),
            outcome: "done".to_owned(),
            patient: None,
            case: None,
            counterpart: None,
            note: None,
        }
    }

    /// Something that was not permitted.
    #[must_use]
    pub fn denied(denied: &Denied, action: &str) -> Self {
        let role = denied.role.map_or_else(String::new, |role| role.as_str().to_owned());
        let actor = Actor::Staff { user: denied.user.clone(), role };
        Self { outcome: "denied".to_owned(), ..Self::new(actor, action) }.with_note(denied.reason)
    }

    /// Whose record.
    #[must_use]
    pub fn of(self, patient: &LocalPatient) -> Self {
        Self { patient: Some(patient.clone()), ..self }
    }

    /// In which case, with whom.
    #[must_use]
    pub fn in_case(self, proof: ProofId, counterpart: &HospitalId) -> Self {
        Self { case: Some(proof), counterpart: Some(counterpart.clone()), ..self }
    }

    /// With which code it ended.
    #[must_use]
    pub fn with_code(mut self, code: Option<Code>) -> Self {
        if let Some(code) = code {
            code.as_str().clone_into(&mut self.outcome);
        }
        self
    }

    /// What else is worth knowing.
    #[must_use]
    pub fn with_note(self, note: &str) -> Self {
        let mut end = note.len().min(MAX_NOTE_BYTES);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        Self { note: Some(note[..end].to_owned()), ..self }
    }

    /// The operations that write this down, for the batch of the change it records.
    #[must_use]
    pub fn ops(mut self, now_ms: u64, backend: &dyn Backend) -> Vec<Op> {
        self.time_ms = now_ms;
        // Rows of one millisecond stay in the order in which they were made; the rest tells those of two processes apart.
        let mut id = [0; 8];
        backend.random(&mut id[4..]);
        id[..4].copy_from_slice(&MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let place = |prefix: Key| prefix.extend().number(now_ms).fixed(&id).done();
        let (value, key) = (to_cbor(&self), place(rows()));
        let put = |key, value| Op::Put { space: Space::Audit, key, value, expect: Expect::Absent };
        let mut ops = vec![Op::AppendLeaf { entry: entry(&value).0, note: key.as_bytes().to_vec() }, put(key, value)];
        ops.extend(self.patient.iter().map(|patient| put(place(of_patient(patient)), Vec::new())));
        ops.extend(self.case.iter().map(|case| put(place(of_case(case)), Vec::new())));
        ops
    }
}

fn rows() -> Key {
    Key::build().text("row").done()
}

fn of_patient(patient: &LocalPatient) -> Key {
    Key::build().text("patient").text(&patient.0).done()
}

fn of_case(case: &ProofId) -> Key {
    Key::build().text("case").fixed(case.as_bytes()).done()
}

fn entry(row: &[u8]) -> Digest {
    sha256(&[b"waybill/1 audit row", row])
}

/// Which rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// A patient's.
    Patient(LocalPatient),
    /// A case's.
    Case(ProofId),
}

/// A row's place in the order of time, for the next page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Place {
    /// Units: Unix milliseconds.
    #[n(0)]
    pub time_ms: u64,
    /// Tells rows of one millisecond apart.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub id: [u8; 8],
}

impl Place {
    /// The place in hex, as routes and answers write it.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{:016x}{}", self.time_ms, hex::encode(self.id))
    }

    /// Reads what [`Place::to_text`] wrote, and nothing else: a place has one text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, id) = (text.get(..16)?, text.get(16..)?);
        let id = hex::decode(id).ok()?.try_into().ok()?;
        let place = Self { time_ms: u64::from_str_radix(time, 16).ok()?, id };
        (place.to_text() == text).then_some(place)
    }
}

/// Rows after a place, oldest first, at most `limit`.
///
/// # Errors
/// [`ServiceError`].
pub async fn read(
    store: &dyn Store,
    which: &Which,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<(Place, AuditRow)>, ServiceError> {
    let prefix = match which {
        Which::All => rows(),
        Which::Patient(patient) => of_patient(patient),
        Which::Case(case) => of_case(case),
    };
    let after = after.map(|place| prefix.extend().number(place.time_ms).fixed(&place.id).done());
    let keys = store.keys(Space::Audit, &prefix, after.as_ref(), limit).await?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let place = place_of(&key, &prefix)?;
        let key = rows().extend().number(place.time_ms).fixed(&place.id).done();
        let row = store.load(Space::Audit, &key).await?.ok_or(ServiceError::Corrupt("audit"))?;
        let row = from_cbor("audit row", &row.value, MAX_PARCEL_BYTES).map_err(|_| ServiceError::Corrupt("audit"))?;
        found.push((place, row));
    }
    Ok(found)
}

/// A patient's rows with their numbers, which begin at 1 and grow with time, after a number.
///
/// # Errors
/// [`ServiceError`].
pub async fn read_numbered(
    store: &dyn Store,
    patient: &LocalPatient,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, AuditRow)>, ServiceError> {
    let (prefix, mut skipped, mut last) = (of_patient(patient), 0, None);
    while skipped < after {
        let page = usize::try_from(after - skipped).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let keys = store.keys(Space::Audit, &prefix, last.as_ref(), page).await?;
        let Some(key) = keys.last() else { return Ok(Vec::new()) };
        (skipped, last) = (skipped + keys.len() as u64, Some(key.clone()));
    }
    let place = last.map(|key| place_of(&key, &prefix)).transpose()?;
    let rows = read(store, &Which::Patient(patient.clone()), place, limit).await?;
    Ok(rows.into_iter().zip(after + 1..).map(|((_, row), number)| (number, row)).collect())
}

fn place_of(key: &Key, prefix: &Key) -> Result<Place, ServiceError> {
    let mut parts = key.read_after(prefix).ok_or(ServiceError::Corrupt("audit"))?;
    match (parts.number(), parts.fixed::<8>()) {
        (Ok(time_ms), Ok(id)) => Ok(Place { time_ms, id }),
        _ => Err(ServiceError::Corrupt("audit")),
    }
}

/// What a walk along the chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Rows in the chain.
    pub rows: u64,
    /// SHA-256 over the head before and the next row's, from zeros: an auditor who notes it sees later whether rows were changed.
    pub head: String,
    /// Rows that are gone or say something else than what was chained.
    pub altered: u64,
    /// Rows that no link leads to.
    pub unlinked: u64,
}

impl Chain {
    /// Whether every row is what was chained.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.altered == 0 && self.unlinked == 0
    }
}

/// Walks along the chain and compares every row with its link.
///
/// # Errors
/// [`ServiceError`].
pub async fn verify(store: &dyn Store) -> Result<Chain, ServiceError> {
    let mut chain = Chain { rows: 0, head: String::new(), altered: 0, unlinked: 0 };
    let mut head = Digest([0; 32]);
    loop {
        let page = store.leaves(chain.rows, PAGE).await?;
        for leaf in &page {
            head = sha256(&[&head.0, &leaf.entry]);
            let row = store.load(Space::Audit, &Key::from_bytes(leaf.note.clone())).await?;
            if row.is_none_or(|row| entry(&row.value).0 != leaf.entry) {
                chain.altered += 1;
            }
        }
        chain.rows += page.len() as u64;
        if page.len() < PAGE {
            break;
        }
    }
    // Rows that came while we walked have their links, too.
    let (rows, links) = (store.count(Space::Audit, &rows()).await?, store.leaf_count().await?);
    chain.unlinked = rows.saturating_sub(links);
    chain.head = hex::encode(head.0);
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::native::Native;
    use waybill_store::{Batch, MemoryStore};

    async fn write(store: &MemoryStore, row: AuditRow, now_ms: u64) {
        store.commit(Batch { name: "test", ops: row.ops(now_ms, &Native) }).await.unwrap();
    }

    fn row(action: &str) -> AuditRow {
        AuditRow::new(Actor::System, action)
    }

    #[tokio::test]
    async fn rows_are_found_by_patient_and_case_in_the_order_of_time() {
        let store = MemoryStore::new();
        let (anna, proof) = (LocalPatient("anna".to_owned()), ProofId(Digest([1; 32])));
        let other = HospitalId::parse("hospital-b.example").unwrap();
        write(&store, row("third").of(&anna), 30).await;
        write(&store, row("first").of(&anna).in_case(proof, &other), 10).await;
        write(&store, row("second"), 20).await;
        let actions = async |which: &Which, after, limit| {
            let rows = read(&store, which, after, limit).await.unwrap();
            (rows.iter().map(|(_, row)| row.action.clone()).collect::<Vec<_>>(), rows.last().map(|(place, _)| *place))
        };
        assert_eq!(actions(&Which::All, None, 10).await.0, ["first", "second", "third"]);
        let of_anna = Which::Patient(anna);
        let (first, place) = actions(&of_anna, None, 1).await;
        assert_eq!(first, ["first"]);
        let place = Place::parse(&place.unwrap().to_text());
        assert_eq!(actions(&of_anna, place, 10).await.0, ["third"]);
        assert_eq!(actions(&Which::Case(proof), None, 10).await.0, ["first"]);
        assert!(Place::parse("zz").is_none());
        assert!(Place::parse("+000018f000000000011223344556677").is_none(), "a number with a sign");
        assert!(Place::parse("0000018F000000000011223344556677").is_none(), "a second text of one place");
    }

    #[tokio::test]
    async fn what_was_altered_removed_or_slipped_in_shows() {
        let store = MemoryStore::new();
        for number in 0..3 {
            write(&store, row("something"), number).await;
        }
        let whole = verify(&store).await.unwrap();
        assert!(whole.holds() && whole.rows == 3);
        let key = store.keys(Space::Audit, &rows(), None, 1).await.unwrap().remove(0);
        let first = store.load(Space::Audit, &key).await.unwrap().unwrap().value;
        let put = |value: Vec<u8>| Batch::new("test").put(Space::Audit, key.clone(), value, Expect::Any);
        store.commit(put(to_cbor(&row("something else")))).await.unwrap();
        let altered = verify(&store).await.unwrap();
        assert_eq!((altered.altered, altered.head), (1, whole.head.clone()));
        store.commit(Batch::new("test").delete(Space::Audit, key.clone(), Expect::Any)).await.unwrap();
        assert_eq!(verify(&store).await.unwrap().altered, 1);
        store.commit(put(first)).await.unwrap();
        assert!(verify(&store).await.unwrap().holds());
        let slipped = rows().extend().number(1).fixed(&[9; 8]).done();
        store.commit(Batch::new("test").put(Space::Audit, slipped, to_cbor(&row("x")), Expect::Any)).await.unwrap();
        assert_eq!(verify(&store).await.unwrap().unlinked, 1);
        write(&store, row("something"), 9).await;
        assert_ne!(verify(&store).await.unwrap().head, whole.head);
    }
}
