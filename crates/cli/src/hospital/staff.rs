//! What a hospital's staff decides: patients and their keys, the queue of cases, quarantine, the audit trail.

use std::path::Path;
use std::sync::Arc;

use comfy_table::{Table, presets};
use serde_json::{Value, json};
use waybill_crypto::digest::sha256;
use waybill_crypto::native::Native;
use waybill_protocol::patient::Enrolment;
use waybill_protocol::wire::from_cbor;
use waybill_server::clock::SystemClock;
use waybill_server::hospital::HospitalConfig;
use waybill_server::hospital::preflight::{self, Verdict};
use waybill_wallet::{enrolment_text, qr_terminal};

use super::{CONFIG, MAX_ENROLMENT_BYTES, absolute, cases, checked};
use crate::admin::{Admin, escaped, member};
use crate::args::{AtHospital, HospitalCommand, KeysCommand, QuarantineCommand, QuarantinedItem};
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Largest scan of a signed form. Units: bytes.
const MAX_FORM_BYTES: u64 = 256 * 1024 * 1024;

/// Runs a command of the staff.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: HospitalCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        HospitalCommand::EnrolPatient { .. } => enrol_patient(command, console).await,
        HospitalCommand::Keys(KeysCommand::List { at, patient }) => {
            let keys: Option<Vec<Value>> = at.admin().find(&format!("/patients/{}/keys", escaped(&patient))).await?;
            let keys = keys.ok_or_else(|| {
                Failure::failed("no such patient is held here")
                    .hint("list the patients with `waybill hospital patients`")
            })?;
            let table = table(&keys, &["key", "relation", "expires", "scope", "destinations", "attested_by"]);
            console.result(&keys, table);
            Ok(Exit::Success)
        }
        HospitalCommand::Keys(KeysCommand::Withdraw { at, patient, key, reason }) => {
            let path = format!("/patients/{}/keys/withdraw", escaped(&patient));
            let answer: Value = at.admin().post(&path, &json!({ "key": key, "reason": reason })).await?;
            console.result(&answer, withdrawn(&answer));
            Ok(Exit::Success)
        }
        HospitalCommand::Withhold { at, patient, items, reason, lift } => {
            withhold(&at, &patient, &items, (&reason, lift), console).await
        }
        HospitalCommand::Quarantine(command) => quarantine(command, console).await,
        HospitalCommand::Cases { at, open, limit } => cases::list(&at, open, limit, console).await,
        HospitalCommand::Reconcile { at, proof } => {
            decide(&at, &proof, "reconcile", None, "is reconciled: the record that came was looked at", console).await
        }
        HospitalCommand::Evidence { at, proof, out } => cases::evidence(&at, &proof, &out, console).await,
        HospitalCommand::Loss { at, proof } => cases::loss(&at, &proof, console).await,
        HospitalCommand::Case { at, proof } => case(&at, checked(&proof)?, console).await,
        HospitalCommand::Approve { at, proof } => decide(&at, &proof, "approve", None, "is released", console).await,
        HospitalCommand::Refuse { at, proof, reason } => {
            decide(&at, &proof, "refuse", Some(&reason), "is refused", console).await
        }
        HospitalCommand::Abort { at, proof, reason } => {
            decide(&at, &proof, "abort", Some(&reason), "is stopped", console).await
        }
        HospitalCommand::Resend { at, proof } => {
            decide(&at, &proof, "resend", None, "was sent again what it waits for", console).await
        }
        HospitalCommand::Audit { at, verify: true, .. } => verify_audit(&at, console).await,
        HospitalCommand::Audit { at, patient, case, fhir, .. } => audit(&at, patient, case, fhir, console).await,
        HospitalCommand::Backup { at, to } => {
            let to = absolute(&to)?;
            let answer: Value = at.admin().post("/backup", &json!({ "path": to })).await?;
            let line = format!("database and {} objects are in {}", member(&answer, "objects"), to.display());
            console.say(line);
            console.say("Keys are not in it: keep those apart. One-time keys are in no backup: what is restored starts a new incarnation.");
            console.json(&answer);
            Ok(Exit::Success)
        }
        _ => unreachable!("the other commands are handled before"),
    }
}

/// A table of some members of every line.
pub(super) fn table(lines: &[Value], columns: &[&str]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(columns.iter().map(|name| name.replace('_', " ")));
    for line in lines {
        table.add_row(columns.iter().map(|name| match member(line, name) {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Number(number) if matches!(*name, "due" | "expires" | "at") => {
                number.as_u64().map_or_else(String::new, moment)
            }
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        }));
    }
    table.to_string()
}

/// A time as people read it; the end of time is none.
fn moment(seconds: u64) -> String {
    if seconds > u64::from(u32::MAX) * 4 {
        return String::new();
    }
    let text = waybill_server::hospital::fhir::instant(seconds.saturating_mul(1000));
    text.get(..16).map_or_else(String::new, |text| text.replace('T', " ") + "Z")
}

/// Writes what the hospital itself made about a patient.
///
/// # Errors
/// [`Failure`].
pub async fn export_made_here(admin: &Admin, patient: &str, out: &Path) -> Result<u64, Failure> {
    let body = json!({ "patient": patient, "which": "made-here", "path": out });
    super::written(admin, &body, out).await
}

async fn enrol_patient(command: HospitalCommand, console: &Console) -> Result<Exit, Failure> {
    let HospitalCommand::EnrolPatient { at, patient, relation, scope, destination, key_days, form, countersign } =
        command
    else {
        unreachable!("called for this command only")
    };
    let form = form.as_deref().map(digest_of).transpose()?;
    let mut body = json!({
        "local": patient, "relation": relation, "scope": scope, "destinations": destination, "key_days": key_days,
    });
    if let Some(form) = &form {
        body["form"] = json!(form);
    }
    let answer: Value = match (form, countersign) {
        (Some(_), Some(number)) => at.admin().post(&format!("/attestations/{}", escaped(&number)), &body).await?,
        (Some(_), None) => at.admin().post("/attestations", &body).await?,
        (None, _) => at.admin().post("/enrolment-codes", &body).await?,
    };
    if let Some(number) = member(&answer, "attestation").as_str() {
        console.say(format!(
            "Attested. Another member of staff completes it, saying the same for themselves (patient, relation, limits, form), with\n  --form FILE --countersign {number}"
        ));
        console.json(&answer);
        return Ok(Exit::Success);
    }
    let text = enrolment_text(&decoded(&answer)?);
    if let Ok(qr) = qr_terminal(&text) {
        console.say(qr);
    }
    console.say(&text);
    if let Some(attested) = answer.get("attested") {
        console.say(countersigned(attested));
    }
    console.say("Good once, for an hour. Hand it over in person: whoever holds it can register as this patient.");
    let mut made = json!({ "code": text });
    if let Some(attested) = answer.get("attested") {
        made["attested"] = attested.clone();
    }
    console.json(&made);
    Ok(Exit::Success)
}

/// What two members of staff attested.
fn countersigned(attested: &Value) -> String {
    let text = |name: &str| member(attested, name).as_str().unwrap_or_default().to_owned();
    let list = member(attested, "destinations").as_array().into_iter().flatten().filter_map(Value::as_str);
    let destinations: Vec<&str> = list.collect();
    let to = if destinations.is_empty() { "any hospital".to_owned() } else { destinations.join(", ") };
    let days =
        member(attested, "key_days").as_u64().map_or_else(|| "five years".to_owned(), |days| format!("{days} days"));
    format!(
        "You and {} attest: patient {}, as {}, scope {}, to {to}, for {days}, on the form {}.",
        text("first"),
        text("patient"),
        text("relation"),
        text("scope"),
        text("form"),
    )
}

/// What a withdrawal did, now or before.
fn withdrawn(answer: &Value) -> String {
    let cases = |name: &str| member(answer, name).as_array().map_or(0, Vec::len);
    let number = |name: &str| member(answer, name).as_u64().unwrap_or(0);
    let mut line = format!("{} keys withdrawn, {} cases stopped", number("withdrawn"), cases("stopped_cases"));
    for (count, what) in [
        (number("withdrawn_before"), "keys had been withdrawn before"),
        (cases("too_late_cases") as u64, "cases were over, or their key was released"),
        (cases("waiting_cases") as u64, "cases wait to be stopped, and are as soon as the store answers"),
    ] {
        if count > 0 {
            line = format!("{line}\n{count} {what}");
        }
    }
    line
}

fn decoded(answer: &Value) -> Result<Enrolment, Failure> {
    let text = member(answer, "enrolment").as_str().unwrap_or_default();
    let decoded = hex::decode(text).ok().and_then(|bytes| from_cbor("enrolment", &bytes, MAX_ENROLMENT_BYTES).ok());
    decoded.ok_or_else(|| Failure::failed("the hospital's enrolment code does not read back"))
}

/// SHA-256 of a signed form.
fn digest_of(form: &Path) -> Result<String, Failure> {
    let read = |e| Failure::environment(format!("{} cannot be read", form.display()), e);
    if std::fs::metadata(form).map_err(read)?.len() > MAX_FORM_BYTES {
        return Err(Failure::usage(format!("{} is larger than any scan of a form", form.display())));
    }
    Ok(hex::encode(sha256(&[&std::fs::read(form).map_err(read)?]).0))
}

async fn withhold(
    at: &AtHospital,
    patient: &str,
    items: &[String],
    (reason, lift): (&str, bool),
    console: &Console,
) -> Result<Exit, Failure> {
    let path = format!("/patients/{}/withheld", escaped(patient));
    if items.is_empty() {
        let marked: Vec<Value> = at.admin().read(&path).await?;
        console.result(&marked, table(&marked, &["item", "reason", "by", "at"]));
        return Ok(Exit::Success);
    }
    let body = json!({ "items": items, "reason": reason });
    if lift {
        let answer: Value = at.admin().post(&format!("{path}/lift"), &body).await?;
        console.result(&answer, format!("{} items may travel again", items.len()));
        return Ok(Exit::Success);
    }
    let answer: Value = at.admin().post(&path, &body).await?;
    console.say(format!("{} items are kept back from now on", items.len()));
    let total = member(&answer, "still_named_total").as_u64().unwrap_or(0);
    if total > 0 {
        console.say(format!(
            "{total} travelling items still mention one of them; keep those back too if they say too much:"
        ));
        for item in member(&answer, "still_named_in").as_array().into_iter().flatten().filter_map(Value::as_str) {
            console.say(format!("  {item}"));
        }
    }
    console.json(&answer);
    Ok(Exit::Success)
}

fn named(item: &QuarantinedItem) -> Value {
    json!({ "patient": item.patient, "origin": item.origin, "session": item.session, "item": item.item })
}

async fn quarantine(command: QuarantineCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        QuarantineCommand::List { at, patient } => {
            let query = patient.map(|patient| format!("?patient={}", escaped(&patient))).unwrap_or_default();
            let items: Vec<Value> = at.admin().read(&format!("/quarantine{query}")).await?;
            console.result(&items, table(&items, &["patient", "origin", "session", "item", "reason"]));
        }
        QuarantineCommand::Show { at, item } => {
            let query: Vec<String> = named(&item)
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={}", escaped(value.as_str().unwrap_or_default())))
                .collect();
            let found: Value = at.admin().read(&format!("/quarantine/item?{}", query.join("&"))).await?;
            console.say(format!("waits because: {}", member(&found, "reason").as_str().unwrap_or_default()));
            console.say(member(&found, "text").as_str().unwrap_or_default());
            console.json(&found);
        }
        QuarantineCommand::Accept { at, item } => {
            at.admin().post::<Value>("/quarantine/accept", &named(&item)).await?;
            console.result(&json!({ "accepted": item.item }), format!("{} is in the chart", item.item));
        }
        QuarantineCommand::Discard { at, item, reason } => {
            let mut body = named(&item);
            body["reason"] = json!(reason);
            at.admin().post::<Value>("/quarantine/discard", &body).await?;
            console.result(&json!({ "discarded": item.item }), format!("{} is discarded", item.item));
        }
    }
    Ok(Exit::Success)
}

async fn decide(
    at: &AtHospital,
    proof: &str,
    what: &str,
    reason: Option<&str>,
    said: &str,
    console: &Console,
) -> Result<Exit, Failure> {
    let proof = checked(proof)?;
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let done = at.admin().post::<Value>(&format!("/cases/{proof}/{what}"), &body).await;
    done.map_err(|failure| failure.hint("see where it stands with `waybill hospital case`"))?;
    let word = match what {
        "approve" => "approved",
        "refuse" => "refused",
        "abort" => "aborted",
        "reconcile" => "reconciled",
        _ => "resent",
    };
    console.result(&json!({ word: proof }), format!("case {proof} {said}"));
    Ok(Exit::Success)
}

async fn case(at: &AtHospital, proof: &str, console: &Console) -> Result<Exit, Failure> {
    let admin = at.admin();
    let mut case: Value = admin.read(&format!("/cases/{proof}")).await?;
    if member(&case, "state").as_str() == Some("awaiting-review") {
        // Whoever may not review sees the case without the people.
        match admin.read::<Value>(&format!("/cases/{proof}/identity")).await {
            Ok(both) => case["identity"] = both,
            Err(failure) => console.say(format!("the two patients are not shown: {failure}")),
        }
    }
    console.json(&case);
    if !console.is_json() {
        console.say(describe(&case));
        console.say(side_by_side(member(&case, "identity")));
    }
    Ok(Exit::Success)
}

/// A case without the long states of its digests, which are for machines, and without the people, who are shown apart.
fn describe(case: &Value) -> String {
    let mut case = case.clone();
    if let Some(manifest) = case.get_mut("manifest").and_then(Value::as_object_mut) {
        manifest.retain(|name, _| !name.ends_with("_state"));
    }
    if let Some(members) = case.as_object_mut() {
        members.remove("identity");
    }
    serde_json::to_string_pretty(&case).expect("what was read as JSON is JSON")
}

/// Both patients of a review, line by line.
fn side_by_side(identity: &Value) -> String {
    if identity.is_null() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["", "here", "there"]);
    for name in ["names", "birth_date", "sex", "identifiers"] {
        let side = |side: &str| match member(member(identity, side), name) {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            other => other.to_string(),
        };
        table.add_row([name.replace('_', " "), side("ours"), side("theirs")]);
    }
    let differences: Vec<&str> =
        member(identity, "differences").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{table}\ndiffers: {}\nRelease it with `approve`, or `refuse` it.", differences.join("; "))
}

async fn audit(
    at: &AtHospital,
    patient: Option<String>,
    case: Option<String>,
    fhir: bool,
    console: &Console,
) -> Result<Exit, Failure> {
    let admin = at.admin();
    let mut query = String::new();
    if let Some(patient) = &patient {
        query = format!("&patient={}", escaped(patient));
    }
    if let Some(case) = &case {
        query = format!("&case={}", checked(case)?);
    }
    let (mut rows, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let from = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let page: Vec<Value> = if fhir {
            let bytes = admin.read_bytes(&format!("/audit?fhir=true{query}{from}")).await?;
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let read: Result<Vec<Value>, _> = lines.map(serde_json::from_slice).collect();
            read.map_err(|e| Failure::failed("an audit event does not read back").caused_by(e))?
        } else {
            admin.read(&format!("/audit?fhir=false{query}{from}")).await?
        };
        let place = |row: &Value| {
            let place = member(row, "place").as_str().or_else(|| member(row, "id").as_str()?.strip_prefix("waybill-"));
            place.map(str::to_owned)
        };
        let Some(last) = page.last().and_then(place) else { break };
        after = Some(last);
        rows.extend(page);
    }
    if fhir {
        // NDJSON is NDJSON, whoever asks.
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        for row in &rows {
            if writeln!(out, "{row}").is_err() {
                break;
            }
        }
        return Ok(Exit::Success);
    }
    for row in &mut rows {
        let actor = member(row, "actor").clone();
        let who = member(&actor, "user").as_str().or_else(|| member(&actor, "who").as_str()).unwrap_or_default();
        row["who"] = json!(who);
    }
    console
        .result(&rows, table(&rows, &["time", "who", "action", "outcome", "patient", "case", "counterpart", "note"]));
    Ok(Exit::Success)
}

async fn verify_audit(at: &AtHospital, console: &Console) -> Result<Exit, Failure> {
    let chain: Value = at.admin().read("/audit/chain").await?;
    let holds = member(&chain, "holds").as_bool() == Some(true);
    let number = |name: &str| member(&chain, name).as_u64().unwrap_or(0);
    console.say(format!("{} rows, head {}", number("rows"), member(&chain, "head").as_str().unwrap_or_default()));
    console.say(if holds {
        "every row is what was chained; note the head, and compare it next time".to_owned()
    } else {
        format!("{} rows were altered or removed, {} slipped in", number("altered"), number("unlinked"))
    });
    console.json(&chain);
    Ok(if holds { Exit::Success } else { Exit::Failed })
}

/// Checks whether anything must be done at a hospital.
///
/// # Errors
/// [`Failure`] when its configuration cannot be read.
pub async fn preflight(folder: &Path, console: &Console) -> Result<Exit, Failure> {
    let config: HospitalConfig = waybill_server::config::load(&folder.join(CONFIG)).map_err(|e| {
        Failure::usage("the hospital's configuration cannot be used")
            .caused_by(e)
            .hint("run `waybill hospital init` first")
    })?;
    let checks = preflight::preflight(&config, Arc::new(Native), &SystemClock).await;
    let lines: Vec<Value> = checks.iter().map(|check| json!(check)).collect();
    console.result(&lines, table(&lines, &["name", "verdict", "found", "todo"]));
    Ok(if checks.iter().any(|check| check.verdict == Verdict::Act) { Exit::Failed } else { Exit::Success })
}
