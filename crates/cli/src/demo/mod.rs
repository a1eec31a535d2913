//! `waybill demo`: a whole network on this machine, and real migrations through it.

pub mod children;
pub mod costs;
pub mod migrate;
pub mod network;
pub mod person;
pub mod records;
pub mod report;
mod show;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use waybill_record::sample::{Generator, SampleForm, SampleSize};
use waybill_record::scope::Scope;

use crate::args::DemoArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::verify::{ROOT_FILE, read_root};
use crate::{authority, hospital, inputs};

use children::Tie;
use migrate::{Files, Stageplay};
use network::Network;
use report::{FORMAT, PUBLISHED, Report};

/// The generated record of a demo without `--record`.
const SAMPLE: SampleSize = SampleSize { resources: 240, attachments: 3, attachment_bytes: 400_000 };
/// The record of the relative whom it names; the generator links patients 0 and 1.
const RELATIVE: SampleSize = SampleSize { resources: 20, attachments: 0, attachment_bytes: 0 };
const SAMPLE_SEED: u64 = 2026;
/// Up to this many patients, every stage and table is shown; above, one line each.
const TOLD_IN_FULL: usize = 3;
/// What a run writes into a patient's folder.
const PATIENT_FILES: [&str; 4] = ["source.ndjson", "destination.ndjson", "evidence.cbor", "loss-report.json"];

/// What was asked for, checked before anything starts.
struct Plan {
    scope: Scope,
    records: Vec<PathBuf>,
    context: Vec<PathBuf>,
    out: Option<PathBuf>,
}

impl Plan {
    fn new(args: &DemoArgs) -> Result<Self, Failure> {
        let scope = args.scope.as_deref().map_or_else(|| Ok(Scope::full()), str::parse);
        let scope = scope.map_err(|e| {
            Failure::usage("--scope cannot be read")
                .caused_by(e)
                .hint("waybill demo --help says what a scope is made of")
        })?;
        let out = args.out.as_deref().map(std::path::absolute).transpose();
        let out = out.map_err(|e| Failure::usage("--out is no path").caused_by(e))?;
        if let Some(out) = &out {
            std::fs::create_dir_all(out)
                .map_err(|e| Failure::environment(format!("cannot make {}", out.display()), e))?;
        }
        Ok(Self { scope, records: inputs::absolute(&args.record)?, context: inputs::absolute(&args.context)?, out })
    }

    /// What went wrong can be looked up in the logs, which are otherwise gone with the network.
    fn keep_logs(&self, work: &Path) {
        let Some(kept) = self.out.as_ref().map(|out| out.join("logs")) else { return };
        let logs = std::fs::read_dir(work.join("logs")).into_iter().flatten().flatten();
        for log in logs {
            // The failure itself is what matters; a log that cannot be kept must not hide it.
            let _ = std::fs::create_dir_all(&kept).and_then(|()| std::fs::copy(log.path(), kept.join(log.file_name())));
        }
    }

    /// Where a patient's files go. A folder that was used before is used again.
    fn files(&self, work: &Path, patient: &str) -> Result<Files, Failure> {
        let (folder, kept) = match &self.out {
            Some(out) => (out.join(patient), true),
            None => (work.join("patients").join(patient), false),
        };
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::environment(format!("cannot make {}", folder.display()), e))?;
        for name in PATIENT_FILES {
            let file = folder.join(name);
            if file.exists() {
                std::fs::remove_file(&file)
                    .map_err(|e| Failure::environment(format!("cannot replace {}", file.display()), e))?;
            }
        }
        Ok(Files { folder, kept })
    }
}

/// Runs the demo; ends every process it started, however it ends.
///
/// # Errors
/// [`Failure`]: exit code 1 when anything did not go as it should, 2 and 3 for what kept it from starting.
pub async fn run(args: DemoArgs, console: &Console) -> Result<Exit, Failure> {
    let plan = Plan::new(&args)?;
    let work =
        TempDir::with_prefix("waybill-").map_err(|e| Failure::environment("no temporary folder can be made", e))?;
    let program = std::env::current_exe().map_err(|e| Failure::environment("this program cannot find itself", e))?;
    let signals = |kind| signal(kind).map_err(|e| Failure::environment("signals cannot be watched", e));
    let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    let begun = Instant::now();
    let tie = if args.keep { Tie::Detached } else { Tie::Supervised };
    let played = async {
        let progress = console.progress("setting up");
        let network = Network::start(&program, work.path(), tie, &mut |step| progress.update(step)).await?;
        drop(progress);
        let seconds = begun.elapsed().as_secs_f64();
        console.say(format!("An authority, a witness, a relay and two hospitals are running ({seconds:.1} s)."));
        let report = play(&plan, &args, &network, console, begun).await?;
        Ok((network, report))
    };
    let played = tokio::select! {
        played = played => played,
        _ = interrupt.recv() => Err(Failure::failed("interrupted; every server was stopped")),
        _ = terminate.recv() => Err(Failure::failed("terminated; every server was stopped")),
    };
    if !matches!(&played, Ok((_, report)) if report.ok) {
        plan.keep_logs(work.path());
    }
    let (network, report) = played?;
    if let Some(out) = &plan.out {
        let text = serde_json::to_vec_pretty(&report).expect("a report is made of maps, lists and numbers");
        std::fs::write(out.join("report.json"), text)
            .map_err(|e| Failure::environment("cannot write report.json", e))?;
    }
    console.json(&report);
    show::summary(console, &report, plan.out.as_deref());
    if let Some(kept) = &report.kept {
        show::kept(console, kept);
    }
    if args.keep {
        network.release();
        let _ = work.keep();
    } else {
        network.stop();
    }
    if report.ok { Ok(Exit::Success) } else { Err(Failure::failed(report.failures.join("\n       "))) }
}

async fn play(
    plan: &Plan,
    args: &DemoArgs,
    network: &Network,
    console: &Console,
    begun: Instant,
) -> Result<Report, Failure> {
    let (loads, patients) = load(plan, args, network, console).await?;
    if let Some(out) = &plan.out {
        authority::copy(&network.root(), &out.join(ROOT_FILE))?;
    }
    let (root, policy) = (read_root(&network.root())?, network.policy()?);
    let in_full = patients.len() <= TOLD_IN_FULL;
    let stageplay = Stageplay { network, scope: &plan.scope, root: &root, policy: &policy, console, verbose: in_full };
    let mut report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION"),
        ok: false,
        scope: plan.scope.to_string(),
        loads,
        patients: Vec::with_capacity(patients.len()),
        failures: Vec::new(),
        published: PUBLISHED,
        seconds: 0.0,
        kept: args.keep.then(|| network.kept()),
    };
    for (index, id) in patients.iter().enumerate() {
        console.say(format!("\nPatient {id} ({} of {})", index + 1, patients.len()));
        let files = plan.files(network.folder(), id)?;
        let patient = stageplay.migrate(id, index, &files).await;
        if in_full {
            show::patient(console, &patient);
        } else {
            show::line(console, &patient);
        }
        report.failures.extend(patient.complaint());
        report.patients.push(patient);
    }
    report.ok = report.failures.is_empty() && !report.patients.is_empty();
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Loads context and records into A; gives what A reported and the patients to migrate.
async fn load(
    plan: &Plan,
    args: &DemoArgs,
    network: &Network,
    console: &Console,
) -> Result<(Vec<Value>, Vec<String>), Failure> {
    let admin = network.admin("hospital-a");
    let mut loads = Vec::new();
    let progress = console.progress("loading into hospital A");
    if !plan.context.is_empty() {
        loads.push(hospital::load(&admin, &plan.context, true).await?);
    }
    let records = if plan.records.is_empty() { samples(network.folder())? } else { plan.records.clone() };
    loads.push(hospital::load(&admin, &records, false).await?);
    drop(progress);
    let mut patients: Vec<String> = loads
        .iter()
        .flat_map(|load| load["patients"].as_array().into_iter().flatten())
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    patients.sort();
    patients.dedup();
    show::loads(console, &loads, patients.len());
    if !args.patient.is_empty() {
        if let Some(missing) = args.patient.iter().find(|id| !patients.contains(id)) {
            return Err(Failure::usage(format!("no patient {missing} was found in the records"))
                .hint(format!("there are: {}", patients.join(", "))));
        }
        patients.retain(|id| args.patient.contains(id));
    } else if plan.records.is_empty() {
        let own = Generator::new(SAMPLE_SEED).patient(0, SAMPLE).id();
        patients.retain(|id| *id == own);
    }
    Ok((loads, patients))
}

/// The generated patient and a relative, whom the record names and whose own record must stay.
fn samples(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let generator = Generator::new(SAMPLE_SEED);
    let write = |(index, size): (u64, SampleSize)| {
        let path = folder.join(format!("generated-{index}.json"));
        let mut sink = std::io::BufWriter::new(std::fs::File::create_new(&path)?);
        generator.patient(index, size).write(SampleForm::TransactionBundle, &mut sink)?;
        std::io::Write::flush(&mut sink)?;
        Ok(path)
    };
    let paths: std::io::Result<Vec<PathBuf>> = [(0, SAMPLE), (1, RELATIVE)].into_iter().map(write).collect();
    paths.map_err(|e| Failure::environment("the generated record cannot be written", e))
}
