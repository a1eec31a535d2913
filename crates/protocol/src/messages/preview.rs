//! What a hospital tells its own patient about their record, sealed in the answer to a login.
//!
//! Security: health data; only inside [`super::LoginAnswer`], sealed to a key of that one exchange. Lists are bounded by whoever
//! makes them and by the size of the answer; totals are exact.

use minicbor::{Decode, Encode};

use super::TypeCount;
use crate::ids::{HospitalId, ProofId, Timestamp};

/// What a hospital holds of a patient, and what a scope and hides would make of it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Preview {
    /// When it was counted.
    #[n(0)]
    pub at: Timestamp,
    /// Everything that is held, by type, ascending.
    #[n(1)]
    pub held: Vec<TypeCount>,
    /// What would travel, by type, ascending.
    #[n(2)]
    pub offered: Vec<TypeCount>,
    /// What would stay, by type and reason, ascending.
    #[n(3)]
    pub kept: Vec<KeptBack>,
    /// Each hidden item of the question, in its order.
    #[n(4)]
    pub hidden: Vec<HiddenItem>,
    /// Types whose absence can do harm, of which something would stay by scope or hide.
    #[n(5)]
    pub warnings: Vec<SafetyWarning>,
    /// Results and documents that are not final yet.
    #[n(6)]
    pub pending: Vec<PendingItems>,
    /// What would travel, padded. Units: bytes.
    #[n(7)]
    pub stream_bytes: u64,
    /// The largest record that this hospital sends or accepts. Units: bytes.
    #[n(8)]
    pub largest_bytes: u64,
}

waybill_crypto::opaque_debug!(Preview);

/// How many resources of a type stay for one reason.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct KeptBack {
    /// FHIR resource type.
    #[n(0)]
    pub resource_type: String,
    /// The reason code of the loss report.
    #[n(1)]
    pub reason: String,
    /// How many.
    #[n(2)]
    pub count: u64,
}

waybill_crypto::opaque_debug!(KeptBack);

/// What becomes of one item that the patient would hide. An id is redacted in `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct HiddenItem {
    /// `Type/id`.
    #[n(0)]
    pub item: String,
    /// Whether there is such an item in the record at all.
    #[n(1)]
    pub held: bool,
    /// The first places where travelling resources still mention it: `Type/id`, then how it was found and in which element.
    #[n(2)]
    pub mentioned_in: Vec<String>,
    /// How many travelling resources still mention it.
    #[n(3)]
    pub mentioned_total: u64,
}

waybill_crypto::opaque_debug!(HiddenItem);

/// Resources of a type that a clinician must not miss, and that would stay.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SafetyWarning {
    /// FHIR resource type: an allergy, a medication, an alert.
    #[n(0)]
    pub resource_type: String,
    /// How many would stay.
    #[n(1)]
    pub count: u64,
}

waybill_crypto::opaque_debug!(SafetyWarning);

/// Resources that are still to change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct PendingItems {
    /// FHIR resource type.
    #[n(0)]
    pub resource_type: String,
    /// The status that says so (`preliminary`, `registered`, ...).
    #[n(1)]
    pub status: String,
    /// How many.
    #[n(2)]
    pub count: u64,
}

waybill_crypto::opaque_debug!(PendingItems);

/// One item of the record as its patient recognises it. Redacted in `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Item {
    /// The logical id.
    #[n(0)]
    pub id: String,
    /// Its clinical date, `YYYY-MM-DD`, where it has one.
    #[n(1)]
    pub date: Option<String>,
    /// What it is called there, where it says so.
    #[n(2)]
    pub title: Option<String>,
}

waybill_crypto::opaque_debug!(Item);

/// One event of the audit trail that concerns this patient's record: who looked, and why.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Disclosure {
    /// Its number in the patient's list, ascending.
    #[n(0)]
    pub number: u64,
    /// When.
    #[n(1)]
    pub time: Timestamp,
    /// The role that acted, or `patient`, or `system`.
    #[n(2)]
    pub role: String,
    /// What was done.
    #[n(3)]
    pub action: String,
    /// The case it was done for.
    #[n(4)]
    pub case: Option<ProofId>,
    /// The other hospital of that case.
    #[n(5)]
    pub counterpart: Option<HospitalId>,
    /// Whether it succeeded, was denied or failed.
    #[n(6)]
    pub outcome: String,
}

waybill_crypto::opaque_debug!(Disclosure);
