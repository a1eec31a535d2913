//! What can be typed to a hospital.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ServeArgs;

/// The folder of a hospital whose server is running.
#[derive(Debug, Args)]
pub struct AtHospital {
    /// The hospital's folder.
    pub folder: PathBuf,
    /// The role to act in, for the audit trail; without it, the usual one of the action.
    #[arg(long = "as", value_enum, value_name = "ROLE")]
    pub role: Option<StaffRole>,
    /// For whom you act, where you may act for others: without a staff table, or as a front end named in it.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// One item in quarantine, as the list names it.
#[derive(Debug, Args)]
pub struct QuarantinedItem {
    /// The patient's local id.
    #[arg(long)]
    pub patient: String,
    /// The hospital it came from.
    #[arg(long, value_name = "HOSPITAL")]
    pub origin: String,
    /// The session it came in (hex).
    #[arg(long, value_name = "HEX")]
    pub session: String,
    /// `Type/id`.
    #[arg(long, value_name = "REF")]
    pub item: String,
}

/// What is done about quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List what arrived and could not be filed.
    List {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// Only this patient's.
        #[arg(long)]
        patient: Option<String>,
    },
    /// Show one item, as far as it can be read.
    Show {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The item.
        #[command(flatten)]
        item: QuarantinedItem,
    },
    /// Take an item into the chart, if it can be filed now.
    Accept {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The item.
        #[command(flatten)]
        item: QuarantinedItem,
    },
    /// Discard an item for good.
    Discard {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The item.
        #[command(flatten)]
        item: QuarantinedItem,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// What is done about the keys that speak for a patient.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the keys that speak for a patient.
    List {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The patient's local id.
        #[arg(long)]
        patient: String,
    },
    /// Withdraw one key, or all of them: the wallet was lost or stolen. Stops what they decided, as far as it has not left.
    Withdraw {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The patient's local id.
        #[arg(long)]
        patient: String,
        /// Only this key, as the list names it.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// A role of a hospital's staff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StaffRole {
    /// Registers patients.
    Registrar,
    /// Keeps the records.
    RecordsOfficer,
    /// Answers for privacy.
    PrivacyOfficer,
    /// Treats patients.
    Clinician,
    /// Looks, and changes nothing.
    Auditor,
}

/// `waybill hospital ...`.
#[derive(Debug, Subcommand)]
pub enum HospitalCommand {
    /// Make the hospital's keys, two certificate requests and hospital.toml.
    Init {
        /// The hospital's folder.
        folder: PathBuf,
        /// The hospital's name.
        #[arg(long)]
        name: String,
        /// The authority's network file, whose fingerprint was compared in person; it says all that follows.
        #[arg(long, value_name = "TOML", conflicts_with_all = ["authority", "authority_name", "root", "log", "witness"])]
        network: Option<PathBuf>,
        /// The relay that keeps its mailbox (`host[:port]`); with --network, another than the file's.
        #[arg(long, value_name = "HOST", required_unless_present = "network")]
        relay: Option<String>,
        /// The authority's URL (`https://host[:port]`).
        #[arg(long, value_name = "URL", required_unless_present = "network")]
        authority: Option<String>,
        /// The authority's name.
        #[arg(long, required_unless_present = "network")]
        authority_name: Option<String>,
        /// The authority's root certificate, checked in person.
        #[arg(long, value_name = "PEM", required_unless_present = "network")]
        root: Option<PathBuf>,
        /// The verifier key of the authority's log.
        #[arg(long, value_name = "KEY", required_unless_present = "network")]
        log: Option<String>,
        /// The verifier key of a witness. Repeatable.
        #[arg(long, value_name = "KEY", required_unless_present = "network")]
        witness: Vec<String>,
        /// How many witnesses must have cosigned what this hospital accepts; the file's number, or 1.
        #[arg(long)]
        quorum: Option<usize>,
    },
    /// Take the certificate chains that the authority gave back.
    Enrol {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The folder with tls.pem and signing.pem.
        #[arg(long, value_name = "DIR")]
        certificates: PathBuf,
    },
    /// Make new signing and consent keys and the requests for their certificates; `enrol` takes them into use.
    ///
    /// The old keys stay usable for what patients began under them, and tell them the new ones. Keys that may have been stolen are not
    /// changed but revoked: whoever holds one could name its successor.
    ChangeKeys {
        /// The hospital's folder.
        folder: PathBuf,
    },
    /// Run the hospital.
    Serve(ServeArgs),
    /// Load records into the running hospital.
    ImportRecord {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// Files, folders or globs.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Shared resources (hospitals, practitioners), not a patient's record.
        #[arg(long)]
        context: bool,
    },
    /// Write a patient's record as NDJSON: one resource a line, exact bytes, sorted by type and id.
    ExportRecord {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The patient's local id.
        #[arg(long)]
        patient: String,
        /// Only what was filed from this hospital.
        #[arg(long, value_name = "HOSPITAL")]
        filed_from: Option<String>,
        /// Only what this hospital itself made: Provenance and Consent of what was filed.
        #[arg(long, conflicts_with = "filed_from")]
        made_here: bool,
        /// Where to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a one-time enrolment code for a patient who stands at the counter, as text and QR code.
    EnrolPatient {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The patient's local id.
        #[arg(long)]
        patient: String,
        /// In what capacity the wallet's owner acts: self, guardian, deputy, executor, registrar-attested.
        #[arg(long, default_value = "self")]
        relation: String,
        /// The largest scope the key may decide about; without it, the whole record.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        /// The only hospital it may send to. Repeatable; without it, any.
        #[arg(long, value_name = "HOSPITAL")]
        destination: Vec<String>,
        /// For how many days the key speaks; without it, five years.
        #[arg(long, value_name = "DAYS")]
        key_days: Option<u64>,
        /// The signed form (a scan): two members of staff attest it, one after the other.
        #[arg(long, value_name = "FILE")]
        form: Option<PathBuf>,
        /// Complete an attestation that another member of staff began under this number, with the same patient, relation, limits and
        /// form: what differs is refused.
        #[arg(long, value_name = "NUMBER", requires = "form")]
        countersign: Option<String>,
    },
    /// See and withdraw the keys that speak for a patient.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Keep items of a record back at the source: they are about third parties.
    ///
    /// The destination and the patient are told how many of which type stay, and that it was this hospital's decision; never which. Cases
    /// whose record is frozen already are not changed. Without items, lists what is kept back.
    Withhold {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The patient's local id.
        #[arg(long)]
        patient: String,
        /// `Type/id` of each item.
        items: Vec<String>,
        /// Why.
        #[arg(long, default_value = "third-party")]
        reason: String,
        /// Let these items travel again.
        #[arg(long)]
        lift: bool,
    },
    /// What arrived and could not be filed.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Read the audit trail.
    Audit {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// Only this patient's.
        #[arg(long)]
        patient: Option<String>,
        /// Only this case's (hex).
        #[arg(long, conflicts_with = "patient")]
        case: Option<String>,
        /// As FHIR R4 AuditEvents, one a line.
        #[arg(long)]
        fhir: bool,
        /// Walk along its chain, and say whether a row was altered, removed or slipped in.
        #[arg(long, conflicts_with_all = ["patient", "case", "fhir"])]
        verify: bool,
    },
    /// Check whether anything must be done before this hospital serves, or goes on serving. Exit code 1 when something must.
    Preflight {
        /// The hospital's folder.
        folder: PathBuf,
    },
    /// Copy database and objects of the running hospital to a new folder. One-time keys are not copied.
    Backup {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The new folder.
        to: PathBuf,
    },
    /// List the patients by their local ids.
    Patients {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
    },
    /// List the cases as a work queue: what must be done first comes first, with who must do it and by when.
    Cases {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// Only what is to be done: not what is over, nor what a clinician has reconciled.
        #[arg(long)]
        open: bool,
        /// Most cases to list.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
    },
    /// Say that the record that came was looked at by who treats the patient; the case leaves the queue.
    Reconcile {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
    },
    /// Write a case's signed messages to a new file, for `waybill verify`.
    Evidence {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
        /// Where to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what of a case's record did not move, and why.
    Loss {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
    },
    /// Show one case; when it waits for an identity check, both patients side by side, to whoever may review.
    Case {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
    },
    /// Refuse a case whose record has not left: the two patients are not one person.
    Refuse {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
        /// Why, for the audit trail.
        #[arg(long, default_value = "the two patients are not one person")]
        reason: String,
    },
    /// Stop a case. Works until the record's key is released: later the authority is asked to revoke it.
    Abort {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
        /// Why, for the audit trail.
        #[arg(long)]
        reason: String,
    },
    /// Post again what a case waits for.
    Resend {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
    },
    /// Release a case that waits because the two patients are not certainly the same person.
    Approve {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
        /// The case's id (hex).
        proof: String,
    },
}
