//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit codes:
  0  everything went as it should
  1  the thing itself failed or was refused
  2  the command line or an input makes no sense
  3  a file, a port, a disk or a process does not do what it should";

/// Moves health records between hospitals under the patient's delegation.
#[derive(Debug, Parser)]
#[command(name = "waybill", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print one JSON document on standard output, and nothing else.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole network on this machine and migrate records through it, before your eyes.
    Demo(DemoArgs),
    /// Judge a file of evidence offline: which sentence of the case is proven by which signature.
    Verify(VerifyArgs),
    /// Write generated patients (FHIR R4), the same for the same seed.
    Sample(SampleArgs),
    /// The authority: keys, certificates, server.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// A witness of the authority's log.
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// A relay: mailboxes for parties that only dial out.
    #[command(subcommand)]
    Relay(RelayCommand),
    /// A hospital: keys, records, patients, cases, server.
    #[command(subcommand)]
    Hospital(HospitalCommand),
}

const SCOPE_HELP: &str = "Clauses joined by `;`, all of which must hold:
  types=Immunization,AllergyIntolerance   only these resource types; `types=!Observation` all but these; `types=*`
  from=2015-01-01  to=2020-12             first and last day, each a FHIR date
  undated=include|exclude                 what carries no date; excluded when there is a from or to, unless said
  labels=R,none  labels=*                 sensitivity labels, `none` for unlabelled; without this clause none,L,M,N,U
The whole record is `types=*;labels=*`, which is also what moves without --scope.";

/// `waybill demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A record for hospital A: a Bundle, one resource, NDJSON, a folder of these, or a quoted glob. Repeatable; every patient found is
    /// migrated. Without it a record is generated.
    #[arg(long, value_name = "PATH")]
    pub record: Vec<String>,
    /// Shared resources (hospitals, practitioners) to load into A first. Repeatable.
    #[arg(long, value_name = "PATH", requires = "record")]
    pub context: Vec<String>,
    /// Migrate only this patient (FHIR id). Repeatable.
    #[arg(long, value_name = "ID")]
    pub patient: Vec<String>,
    /// Which part of the record to move, for example `types=Immunization,AllergyIntolerance;from=2015-01-01`.
    #[arg(long, value_name = "EXPR", long_help = SCOPE_HELP)]
    pub scope: Option<String>,
    /// Write records, evidence, loss reports and report.json to this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Leave the servers running at the end and say how to use them.
    #[arg(long)]
    pub keep: bool,
}

/// `waybill verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The evidence file.
    pub evidence: PathBuf,
    /// The authority's root certificate (PEM). Without it, `authority-root.pem` beside the evidence or in the folder above.
    #[arg(long, value_name = "PEM")]
    pub root: Option<PathBuf>,
    /// The verifier key of the authority's log. Without it the log and the witnesses are those that the file names.
    #[arg(long, value_name = "VKEY", requires = "witness")]
    pub log: Option<String>,
    /// The verifier key of a witness; may be given again.
    #[arg(long, value_name = "VKEY", requires = "log")]
    pub witness: Vec<String>,
    /// How many of the witnesses must have seen a checkpoint; without it, all.
    #[arg(long, value_name = "N", requires = "log")]
    pub quorum: Option<usize>,
}

/// `waybill sample`.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Where to write; a folder when more than one patient is asked for.
    pub out: PathBuf,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many patients.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub patients: u64,
    /// Resources of each patient, without attachments.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub resources: u64,
    /// Attachments of each patient.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub attachments: u64,
    /// Size of each attachment, at most 40 MiB. Units: bytes.
    #[arg(long, default_value_t = 200_000)]
    pub attachment_bytes: u64,
    /// The form.
    #[arg(long, value_enum, default_value_t = Form::Bundle)]
    pub form: Form,
}

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A transaction Bundle.
    Bundle,
    /// One resource a line.
    Ndjson,
}

/// How a server process runs.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "TOML")]
    pub config: PathBuf,
    /// Stop when standard input closes: for a parent process that wants no orphans.
    #[arg(long)]
    pub supervised: bool,
}

/// `waybill authority ...`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Make the root, issuing, proof-signing, lodgement and log keys in an empty folder.
    Init {
        /// The folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
    },
    /// Write authority.toml: where to listen, which witnesses and relays.
    Configure {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// The name (`host` or `host:port`) under which others reach it; repeatable.
        #[arg(long, value_name = "HOST")]
        public_host: Vec<String>,
        /// A witness: its URL and its verifier key. Repeatable.
        #[arg(long, value_names = ["URL", "KEY"], num_args = 2, required = true)]
        witness: Vec<String>,
        /// How many witnesses must cosign.
        #[arg(long, default_value_t = 1)]
        quorum: usize,
        /// A relay at which patients may be answered (`https://host[:port]/`). Repeatable.
        #[arg(long, value_name = "URL", required = true)]
        relay: Vec<String>,
    },
    /// Make key and certificate of a relay or a witness.
    IssueService {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// The service's name.
        #[arg(long)]
        service: String,
        /// Where to put tls.pem, tls.key and root.pem.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Certify a hospital from its two certificate requests, and enter it into the running authority's registry.
    EnrolHospital {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// The folder that holds tls.csr and signing.csr; the chains are put beside them.
        #[arg(long, value_name = "DIR")]
        requests: PathBuf,
        /// The hospital's mailbox URL.
        #[arg(long, value_name = "URL")]
        mailbox: String,
    },
    /// Sign a fresh revocation list.
    Crl {
        /// The authority's folder.
        folder: PathBuf,
        /// The authority's name.
        #[arg(long)]
        name: String,
        /// Revoke the certificate in this file as well. Repeatable.
        #[arg(long, value_name = "PEM")]
        revoke: Vec<PathBuf>,
    },
    /// Run the authority.
    Serve(ServeArgs),
}

/// `waybill witness ...`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make the witness' key and write witness.toml.
    Init {
        /// The folder; tls.pem, tls.key and root.pem come from `authority issue-service`.
        folder: PathBuf,
        /// The witness' name.
        #[arg(long)]
        name: String,
        /// The verifier key of a log to witness (`name+id+base64`). Repeatable.
        #[arg(long, value_name = "KEY", required = true)]
        log: Vec<String>,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Run the witness.
    Serve(ServeArgs),
}

/// `waybill relay ...`.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Write relay.toml.
    Init {
        /// The folder; tls.pem, tls.key and root.pem come from `authority issue-service`.
        folder: PathBuf,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// The name (`host` or `host:port`) under which others reach it; repeatable.
        #[arg(long, value_name = "HOST")]
        public_host: Vec<String>,
    },
    /// Run the relay.
    Serve(ServeArgs),
}

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
