//! The rows of the shelf: their keys and their bytes.
//!
//! | space | key | value |
//! |---|---|---|
//! | `Resource` | `"local", type, id` | [`Held`] |
//! | `Reference` | `"local", target type, target id, type, id` | empty |
//! | `Reference` | `"object", address, holder` and `"holds", holder, address` | empty: which rows need an object |
//! | `Identifier` | `"id", SHA-256(system, value), type, id` and `"alias", SHA-256(url), type, id` | empty |
//! | `Frontier` | work, `"known" / "queue"`, ... and work, `"name"`, ... | scratch of one closure or load |
//! | `Snapshot` | `"row", session, type, id, origin` and `"meta", session` | [`SnapshotRow`], summary |
//! | `Staged` | `"sealed" / "arrived", session, index` and `"leaves", session` | address of the chunk or leaf list |
//! | `Filed` | `"in", session, type, id, SHA-256` and `"set-aside", session, type, id` | [`Held`], [`SetAside`] |
//! | `Chart` | `"row", patient, origin, type, id, SHA-256`, `"origin", patient, origin`, `"filed", session` | [`Held`], [`Origin`], empty |
//! | `Quarantine` | `patient, origin, session, type, id` | [`SetAside`] |
//!
//! Nothing in `Resource` and `Chart` is ever overwritten. A resource filed from elsewhere lies under the chart it was filed for
//! and the hospital it came from, so that ids of two hospitals never meet.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use waybill_crypto::digest::Digest;
use waybill_protocol::ids::{HospitalId, SessionId};
use waybill_protocol::registrar::LocalPatient;
use waybill_record::resource::ResourceKey;
use waybill_store::{Address, Hasher, Key, KeyBuilder};

use super::error::ShelfError;

/// Bodies above this length are objects, those up to it lie in their row.
pub(super) const MAX_INLINE_BYTES: usize = 128 * 1024;

/// One version of a resource: its body in the row or, above [`MAX_INLINE_BYTES`], in the object of its hash.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Held {
    #[n(0)]
    pub sha256: Digest,
    #[n(1)]
    pub size_bytes: u64,
    #[n(2)]
    pub version: Option<String>,
    #[n(3)]
    pub inline: Option<ByteVec>,
    /// The salt it came with, for resources filed from elsewhere.
    #[n(4)]
    pub salt: Option<ByteVec>,
}

impl Held {
    /// Where the body is when it is not in the row.
    pub fn address(&self) -> Address {
        Address::from_bytes(*self.sha256.as_bytes())
    }

    /// The salt of a filed resource.
    pub fn salt(&self) -> Result<[u8; 16], ShelfError> {
        let salt = self.salt.as_ref().and_then(|salt| salt.as_slice().try_into().ok());
        salt.ok_or(ShelfError::Damaged("filed resources"))
    }
}

/// What a snapshot says about one resource it reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Verdict {
    #[n(0)]
    Offered,
    #[n(1)]
    Withheld,
    #[n(2)]
    NotMovable,
}

/// One resource of a snapshot; the body only where it is offered.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(super) struct SnapshotRow {
    #[n(0)]
    pub verdict: Verdict,
    /// The stable code of the reason, where it stays.
    #[n(1)]
    pub reason: Option<String>,
    /// Hash of the bytes, where they were read.
    #[n(2)]
    pub sha256: Option<Digest>,
    /// The frozen body, where it is offered.
    #[n(3)]
    pub held: Option<Held>,
}

/// One resource that arrived and waits for a person.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(super) struct SetAside {
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub held: Held,
}

/// What came to a chart from one hospital so far.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Origin {
    /// The ids under which that hospital knows the patient, sorted.
    #[n(0)]
    pub patient_ids: Vec<String>,
    /// The session that brought something last.
    #[n(1)]
    pub session: SessionId,
}

pub(super) fn encode<T: Encode<()>>(row: &T) -> Vec<u8> {
    minicbor::to_vec(row).expect("encoding into a Vec does not fail")
}

pub(super) fn decode<T: for<'b> Decode<'b, ()>>(what: &'static str, bytes: &[u8]) -> Result<T, ShelfError> {
    minicbor::decode(bytes).map_err(|_| ShelfError::Damaged(what))
}

fn resource(builder: KeyBuilder, key: &ResourceKey) -> KeyBuilder {
    builder.text(key.resource_type.as_str()).text(key.id.as_str())
}

/// Reads the `type, id` that follow a prefix.
pub(super) fn resource_after(key: &Key, prefix: &Key, what: &'static str) -> Result<ResourceKey, ShelfError> {
    let damaged = || ShelfError::Damaged(what);
    let mut parts = key.read_after(prefix).ok_or_else(damaged)?;
    let (name, id) = (parts.text().map_err(|_| damaged())?, parts.text().map_err(|_| damaged())?);
    ResourceKey::new(&name, &id).map_err(|_| damaged())
}

/// Extends a prefix by `type, id`.
pub(super) fn under(prefix: &Key, key: &ResourceKey) -> Key {
    resource(prefix.extend(), key).done()
}

/// Extends a prefix by `type, id, SHA-256`.
pub(super) fn under_version(prefix: &Key, key: &ResourceKey, sha256: &Digest) -> Key {
    resource(prefix.extend(), key).fixed(sha256.as_bytes()).done()
}

pub(super) fn locals() -> Key {
    Key::build().text("local").done()
}

pub(super) fn referrers(target: &ResourceKey) -> Key {
    resource(Key::build().text("local"), target).done()
}

pub(super) fn identifier(system: &str, value: &str) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(&(system.len() as u64).to_be_bytes());
    hasher.update(system.as_bytes());
    hasher.update(value.as_bytes());
    Key::build().text("id").fixed(hasher.finish().as_bytes()).done()
}

pub(super) fn alias(url: &str) -> Key {
    Key::build().text("alias").fixed(Address::of(url.as_bytes()).as_bytes()).done()
}

pub(super) fn object(address: &Address) -> Key {
    Key::build().text("object").fixed(address.as_bytes()).done()
}

pub(super) fn object_holder(address: &Address, holder: &Key) -> Key {
    object(address).extend().bytes(holder.as_bytes()).done()
}

pub(super) fn holds(holder: &Key) -> Key {
    Key::build().text("holds").bytes(holder.as_bytes()).done()
}

pub(super) fn snapshot_rows(session: &SessionId) -> Key {
    Key::build().text("row").fixed(session.as_bytes()).done()
}

pub(super) fn snapshot_meta(session: &SessionId) -> Key {
    Key::build().text("meta").fixed(session.as_bytes()).done()
}

/// Chunks sealed here and on their way out.
pub(super) fn sealed(session: &SessionId) -> Key {
    Key::build().text("sealed").fixed(session.as_bytes()).done()
}

/// Chunks that arrived.
pub(super) fn arrived(session: &SessionId) -> Key {
    Key::build().text("arrived").fixed(session.as_bytes()).done()
}

pub(super) fn leaf_list(session: &SessionId) -> Key {
    Key::build().text("leaves").fixed(session.as_bytes()).done()
}

pub(super) fn chunk(prefix: &Key, index: u64) -> Key {
    prefix.extend().number(index).done()
}

pub(super) fn incoming(session: &SessionId) -> Key {
    Key::build().text("in").fixed(session.as_bytes()).done()
}

pub(super) fn set_aside(session: &SessionId) -> Key {
    Key::build().text("set-aside").fixed(session.as_bytes()).done()
}

pub(super) fn chart(patient: &LocalPatient, origin: &str) -> Key {
    Key::build().text("row").text(&patient.0).text(origin).done()
}

pub(super) fn origins(patient: &LocalPatient) -> Key {
    Key::build().text("origin").text(&patient.0).done()
}

pub(super) fn origin(patient: &LocalPatient, origin: &HospitalId) -> Key {
    origins(patient).extend().text(origin.as_str()).done()
}

pub(super) fn filed_mark(session: &SessionId) -> Key {
    Key::build().text("filed").fixed(session.as_bytes()).done()
}

pub(super) fn quarantine(patient: &LocalPatient, origin: &HospitalId) -> Key {
    Key::build().text(&patient.0).text(origin.as_str()).done()
}

pub(super) fn loss(session: &SessionId) -> Key {
    Key::build().fixed(session.as_bytes()).done()
}

/// Who keeps an object alive.
pub(super) fn local_holder() -> Key {
    locals()
}

pub(super) fn snapshot_holder(session: &SessionId) -> Key {
    snapshot_rows(session)
}

pub(super) fn filing_holder(session: &SessionId) -> Key {
    incoming(session)
}
