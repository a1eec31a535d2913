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
        /// The relay that keeps its mailbox (`host[:port]`).
        #[arg(long, value_name = "HOST")]
        relay: String,
        /// The authority's URL (`https://host[:port]`).
        #[arg(long, value_name = "URL")]
        authority: String,
        /// The authority's name.
        #[arg(long)]
        authority_name: String,
        /// The authority's root certificate, checked in person.
        #[arg(long, value_name = "PEM")]
        root: PathBuf,
        /// The verifier key of the authority's log.
        #[arg(long, value_name = "KEY")]
        log: String,
        /// The verifier key of a witness. Repeatable.
        #[arg(long, value_name = "KEY", required = true)]
        witness: Vec<String>,
        /// How many witnesses must have cosigned what this hospital accepts.
        #[arg(long, default_value_t = 1)]
        quorum: usize,
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
        /// In what capacity the wallet's owner acts.
        #[arg(long, default_value = "self")]
        relation: String,
    },
    /// List the patients by their local ids.
    Patients {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
    },
    /// List the cases.
    Cases {
        /// The hospital.
        #[command(flatten)]
        at: AtHospital,
    },
    /// Show one case.
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
