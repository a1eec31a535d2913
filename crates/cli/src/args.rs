//! What can be typed; the parties' own commands are in the modules.

mod attack;
mod authority;
mod bench;
mod hospital;
mod patient;

pub use attack::AttackArgs;
pub use authority::{
    AuthorityCommand, EnrolArgs, InspectArgs, LogArgs, OneHospital, RelayCommand, RenewArgs, WitnessCommand,
};
pub use bench::BenchCommand;
pub use hospital::{AtHospital, HospitalCommand, KeysCommand, QuarantineCommand, QuarantinedItem, StaffRole};
pub use patient::{MigrateArgs, PartArgs, PatientArgs, PatientCommand, WalletArgs};

use std::path::PathBuf;
use std::time::Duration;

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
    /// Attack a network of real processes, attack by attack, each beside its unattacked twin.
    Attack(AttackArgs),
    /// Measure what no test may assert: times over real processes.
    #[command(subcommand)]
    Bench(BenchCommand),
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
    /// The patient: wallet, hospitals, migrations, receipts.
    Patient(PatientArgs),
}

/// Reads a span of time such as `30s`, `10m`, `2h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    crate::when::span(text).ok_or_else(|| "write a number with s, m, h, d or w, such as 30s or 7d".to_owned())
}

pub(crate) const SCOPE_HELP: &str = "Clauses joined by `;`, all of which must hold:
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
    /// The server's folder, where its configuration file lies.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The configuration file, when it is not the usual one of the folder.
    #[arg(long, value_name = "TOML")]
    pub config: Option<PathBuf>,
    /// Stop when standard input closes: for a parent process that wants no orphans.
    #[arg(long)]
    pub supervised: bool,
}
