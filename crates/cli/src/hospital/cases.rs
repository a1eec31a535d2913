//! The list of cases, and what of one case is taken away: its evidence, and what did not move.

use std::path::Path;

use serde_json::{Value, json};
use waybill_server::files;
use waybill_server::hospital::engine::Queue;

use super::checked;
use super::staff::table;
use crate::admin::member;
use crate::args::AtHospital;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Cases asked for at once.
const PAGE: usize = 500;

/// `waybill hospital cases`: the most urgent first.
///
/// # Errors
/// [`Failure`].
pub async fn list(at: &AtHospital, open: bool, limit: usize, console: &Console) -> Result<Exit, Failure> {
    let (admin, mut cases, mut from) = (at.admin(), Vec::<Value>::new(), String::new());
    let mut is_whole = false;
    while cases.len() < limit {
        let asked = PAGE.min(limit - cases.len());
        let page: Vec<Value> = admin.read(&format!("/cases?open={open}&limit={asked}{from}")).await?;
        is_whole = page.len() < asked;
        let Some(place) = page.last().and_then(|case| member(case, "place").as_str()) else { break };
        from = format!("&after={place}");
        cases.extend(page);
        if is_whole {
            break;
        }
    }
    let urgency = |case: &Value| {
        let queue = member(case, "queue").as_str().unwrap_or_default();
        let part = Queue::ALL.iter().position(|part| part.as_str() == queue).unwrap_or(Queue::ALL.len());
        (part, member(case, "due").as_u64().unwrap_or(u64::MAX))
    };
    cases.sort_by_key(urgency);
    let columns = ["proof", "role", "counterpart", "state", "code", "queue", "who_must_act", "due"];
    console.result(&cases, table(&cases, &columns));
    if !is_whole && cases.len() == limit {
        console.note(format!("There may be more than these {limit}: list fewer with --open, or more with --limit."));
    }
    Ok(Exit::Success)
}

/// `waybill hospital evidence`: writes what the hospital holds of a case's signed messages.
///
/// # Errors
/// [`Failure`]; nothing is overwritten.
pub async fn evidence(at: &AtHospital, proof: &str, out: &Path, console: &Console) -> Result<Exit, Failure> {
    let proof = checked(proof)?;
    let bytes = at.admin().read_bytes(&format!("/cases/{proof}/evidence")).await.map_err(not_there)?;
    files::write_private(out, &bytes)
        .map_err(|e| Failure::environment(format!("{} cannot be written", out.display()), e))?;
    let root = at.folder.join("keys").join("root.pem");
    console.say(format!("{} bytes of evidence are in {}. Judge them with:", bytes.len(), out.display()));
    console.say(format!("  waybill verify {} --root {}", out.display(), root.display()));
    console.say("It may hold the opened receipt: whoever reads it learns how much of what kind moved.");
    console.json(&json!({ "case": proof, "evidence": out, "bytes": bytes.len(), "root": root }));
    Ok(Exit::Success)
}

/// `waybill hospital loss`.
///
/// # Errors
/// [`Failure`].
pub async fn loss(at: &AtHospital, proof: &str, console: &Console) -> Result<Exit, Failure> {
    let proof = checked(proof)?;
    let report: Value = at.admin().read(&format!("/cases/{proof}/loss")).await.map_err(not_there)?;
    console.json(&report);
    if console.is_json() {
        return Ok(Exit::Success);
    }
    let number = |name: &str| member(&report, name).as_u64().unwrap_or_default();
    // A source counts what it offers; what became of that only the destination can count.
    let is_filed_here = number("filed") + number("quarantined") > 0;
    let columns = ["held", "offered", "withheld", "not_movable"].into_iter();
    let columns = columns.chain(["filed", "quarantined"].into_iter().filter(|_| is_filed_here));
    let by_type = member(&report, "by_type").as_object().into_iter().flatten();
    let mut lines: Vec<Value> = by_type.map(|(name, counts)| line(name, counts)).collect();
    lines.push(line("all", &report));
    console.say(table(&lines, &["type"].into_iter().chain(columns).collect::<Vec<_>>()));
    if !is_filed_here {
        console.say("Nothing was filed here; what a destination filed is in its receipt: `waybill hospital evidence`.");
    }
    for (outcome, reasons) in member(&report, "reasons").as_object().into_iter().flatten() {
        for (reason, number) in reasons.as_object().into_iter().flatten() {
            console.say(format!("{}: {number} because of {reason}", outcome.replace('_', " ")));
        }
    }
    let listed = member(&report, "items").as_array().map_or(0, Vec::len);
    if listed > 0 {
        console.say(format!("{listed} items are named with --json."));
    }
    Ok(Exit::Success)
}

fn line(name: &str, counts: &Value) -> Value {
    let mut line = counts.clone();
    line["type"] = json!(name);
    line
}

fn not_there(failure: Failure) -> Failure {
    failure
        .hint("list the cases with `waybill hospital cases`; there is no report before the record was frozen or came")
}
