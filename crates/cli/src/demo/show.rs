//! The report, for people.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::report::{Kept, PatientReport, Report};
use crate::console::Console;

fn table<const N: usize>(header: [&str; N], words: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn say_table(console: &Console, title: &str, table: &Table) {
    console.say(format!("\n{title}"));
    console.say(table.lines().map(|line| format!("  {}", line.trim_end())).collect::<Vec<_>>().join("\n"));
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// What loading did.
pub(super) fn loads(console: &Console, loads: &[Value], patients: usize) {
    let sum = |name: &str| loads.iter().filter_map(|load| load[name].as_u64()).sum::<u64>();
    console.say(format!(
        "Hospital A holds {} resources; patients found: {patients}; references that lead nowhere: {}; differing from what was held: {}.",
        sum("filed"),
        sum("unresolved"),
        sum("differing"),
    ));
}

/// One patient in one line.
pub(super) fn line(console: &Console, report: &PatientReport) {
    console.say(format!(
        "  {}: {} of {} resources, {}, {:.2} s, cryptography {:.2} ms{}",
        report.outcome,
        report.filed,
        report.held,
        size(report.record_bytes),
        report.seconds,
        report.crypto_cpu_us / 1000.0,
        if report.is_good() { "" } else { "  <-- not as it should be" },
    ));
}

/// One patient in full.
pub(super) fn patient(console: &Console, report: &PatientReport) {
    console.say(format!(
        "\nOutcome: {}{}",
        report.outcome,
        report.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default()
    ));
    let mut counts = table(["resources", "held", "in scope", "moved", "withheld", "not movable", "quarantined"], 1);
    for (name, c) in &report.types {
        counts.add_row([
            name.clone(),
            c.held.to_string(),
            c.offered.to_string(),
            c.filed.to_string(),
            c.withheld.to_string(),
            c.not_movable.to_string(),
            c.quarantined.to_string(),
        ]);
    }
    let all = [report.held, report.offered, report.filed, report.withheld, report.not_movable, report.quarantined];
    counts.add_row(std::iter::once("all".to_owned()).chain(all.map(|n| n.to_string())));
    say_table(console, "What became of the record", &counts);
    for (outcome, reasons) in &report.reasons {
        for (reason, count) in reasons {
            console.say(format!("  {outcome}: {reason} ({count})"));
        }
    }
    console.say(format!(
        "\nRecord {}, sealed as {} in {} chunks",
        size(report.record_bytes),
        size(report.stream_bytes),
        report.chunks
    ));
    console.say(format!("  digest at A  {}", report.digest_source));
    console.say(format!("  digest at B  {}", report.digest_destination));
    messages(console, report);
    cryptography(console, report);
    evidence(console, report);
}

fn messages(console: &Console, report: &PatientReport) {
    let mut messages = table(["message", "from", "to", "bytes"], 3);
    for message in report.messages.iter().filter(|message| message.phase != "replay") {
        messages.add_row([message.name.clone(), message.from.clone(), message.to.clone(), message.bytes.to_string()]);
    }
    say_table(console, "Protocol messages", &messages);
    console.say(format!("  On the wire, each byte once, TLS and chunks included: {}", size(report.wire_bytes)));
}

fn cryptography(console: &Console, report: &PatientReport) {
    let mut sums: BTreeMap<(&str, &str), (u64, f64)> = BTreeMap::new();
    for line in &report.crypto {
        let sum = sums.entry((&line.party, &line.operation)).or_default();
        *sum = (sum.0 + line.count, sum.1 + line.cpu_us);
    }
    let mut costs = table(["party", "operation", "times", "CPU us"], 2);
    for ((party, operation), (count, cpu_us)) in &sums {
        costs.add_row([(*party).to_owned(), (*operation).to_owned(), count.to_string(), format!("{cpu_us:.0}")]);
    }
    say_table(console, "CPU of the protocol's cryptography", &costs);
    console.say(format!(
        "  all parties {:.2} ms, of that login to proof {:.2} ms; beside it: record bytes {:.2} ms, mailbox keys {:.2} ms, both registrations {:.2} ms",
        report.crypto_cpu_us / 1000.0,
        report.crypto_cpu_us_login_to_proof / 1000.0,
        report.record_cpu_us / 1000.0,
        report.mailbox_cpu_us / 1000.0,
        report.crypto_cpu_us_registration / 1000.0,
    ));
}

fn evidence(console: &Console, report: &PatientReport) {
    if let Some(evidence) = &report.evidence {
        let proven = evidence.verdict.sentences.iter().filter(|s| s.finding == "proven").count();
        let finding = if evidence.verdict.holds { "holds" } else { "does NOT hold" };
        console.say(format!("\nEvidence: {}, {proven} sentences proven offline; it {finding}.", size(evidence.bytes)));
        if let Some(file) = &evidence.file {
            console.say(format!("  waybill verify {file}"));
        }
    }
    if let Some(replay) = &report.replay {
        let finding = if replay.refused { "refused" } else { "NOT refused" };
        console.say(format!("The same proof presented again: {finding} by {} ({}).", replay.by, replay.code));
    }
    for invariant in &report.invariants {
        console.say(format!("  [{}] {}", if invariant.holds { "ok" } else { "BROKEN" }, invariant.name));
    }
}

/// Everything together.
pub(super) fn summary(console: &Console, report: &Report, out: Option<&Path>) {
    let good = report.patients.iter().filter(|patient| patient.is_good()).count();
    let average = |value: fn(&PatientReport) -> f64| {
        report.patients.iter().map(value).sum::<f64>() / report.patients.len().max(1) as f64
    };
    let published = report.published;
    console.say(format!(
        "\n{good} of {} patients migrated as they should, in {:.1} s.",
        report.patients.len(),
        report.seconds
    ));
    console.say(format!(
        "Login to proof: {:.2} ms of cryptography and {:.0} bits on average here; the published schemes claim {} ms and {} bits \
         (without signatures of the patient, without a log, without sealing to anybody).",
        average(|p| p.crypto_cpu_us_login_to_proof) / 1000.0,
        average(|p| p.login_to_proof_bytes as f64 * 8.0),
        published.login_to_proof_cpu_ms,
        published.login_to_proof_bits,
    ));
    if let Some(out) = out {
        console.say(format!("Everything printed, and more, is in {}.", out.join("report.json").display()));
    }
    for failure in &report.failures {
        console.say(format!("NOT as it should be: {failure}"));
    }
}

/// How to reach what is left running.
pub(super) fn kept(console: &Console, kept: &Kept) {
    let folder = &kept.folder;
    console.say("\nThe servers are still running:");
    let mut pids = Vec::new();
    for server in &kept.servers {
        let pid = server.pid.map_or_else(String::new, |pid| pid.to_string());
        let listen = server.listen.map_or_else(|| "no port".to_owned(), |address| format!("https://{address}"));
        console.say(format!("  {:<20} process {pid:<8} {listen:<26} log {}", server.name, server.log));
        pids.push(pid);
    }
    console.say(format!("Folders, keys and configurations: {folder}"));
    console.say("For example:");
    console.say(format!("  waybill hospital cases {folder}/hospital-a"));
    console.say(format!("  waybill hospital import-record {folder}/hospital-a RECORD.json"));
    console.say(format!("  waybill hospital enrol-patient {folder}/hospital-a --patient ID"));
    console.say(format!("  waybill patient init --network {folder}/network.toml"));
    console.say(format!("Stop them with:\n  kill {} && rm -r {folder}", pids.join(" ")));
}
