//! Every attack of the table against real processes, and that the command fails when one is not refused as declared.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene shall say where")]

mod documents;

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;
use waybill_cli::attack;
use waybill_cli::attack::outcome::{Attack, stage_of};
use waybill_protocol::rejection::Code;

fn waybill<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waybill")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The attacks of which `docs/ATTACKS.md` says that no record bytes could be measured.
fn unmeasured() -> BTreeSet<&'static str> {
    let document = include_str!("../../../../docs/ATTACKS.md");
    let (_, after) = document.split_once("so that there are none to measure: ").unwrap();
    let (list, _) = after.split_once(".\n").unwrap();
    list.split('`').skip(1).step_by(2).collect()
}

/// Plays a table of attacks and holds every row to its declaration.
fn plays(table: &'static [Attack]) {
    let names = table.iter().map(|attack| attack.name);
    let output = waybill(["--json", "attack"].into_iter().chain(names).chain(["--parallel", "1"]));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(rows.len(), table.len());
    for (row, attack) in rows.iter().zip(table) {
        assert_eq!(row["name"], attack.name);
        assert_eq!(row["rejected"], true, "{row}");
        if unmeasured().contains(attack.name) {
            assert_eq!((&row["record_bytes_read"], &row["twin_bytes_read"]), (&Value::Null, &Value::Null), "{row}");
        } else {
            assert_eq!(row["record_bytes_read"], 0, "{row}");
            assert!(row["twin_bytes_read"].as_u64() > Some(0), "what was read of the twin is measured alike: {row}");
        }
        assert_eq!(row["twin_succeeded"], true, "{row}");
        assert_eq!(row["as_expected"], true, "{row}");
        assert_eq!(row["failure"], Value::Null, "{row}");
        assert!(row["took_seconds"].is_number());
        let tries = row["tries"].as_array().unwrap();
        assert_eq!(tries.len(), attack.tries.len());
        for (seen, declared) in tries.iter().zip(attack.tries) {
            assert_eq!((seen["by"].as_str(), seen["code"].as_str()), (Some(declared.by), Some(declared.code)), "{row}");
            assert_eq!(seen["stage"], stage_of(declared.code));
            assert!(!seen["shown_by"].as_str().unwrap().is_empty(), "{row}");
            assert!(row["code"].as_str().unwrap().contains(declared.code));
        }
    }
}

#[test]
fn whoever_asks_for_too_much_is_refused() {
    plays(attack::asking::TABLE);
}

#[test]
fn a_source_that_sends_something_else_is_refused() {
    plays(attack::sending::TABLE);
}

#[test]
fn nothing_reaches_b_that_it_did_not_ask_for() {
    plays(attack::presenting::TABLE);
}

#[test]
fn the_authority_decides_nothing_on_its_own() {
    plays(attack::deciding::TABLE);
}

#[test]
fn the_counter_and_the_wallet_hold() {
    plays(attack::counter::TABLE);
}

#[test]
fn what_must_stay_unknown_does() {
    plays(attack::privacy::TABLE);
}

#[test]
fn what_was_said_before_changes_nothing_in_any_state() {
    plays(attack::replay::TABLE);
}

#[test]
fn altered_evidence_blames_nobody() {
    plays(attack::again::TABLE);
}

#[test]
fn bytes_that_are_not_what_they_claim_are_refused() {
    plays(attack::wire::TABLE);
}

#[test]
fn an_attack_that_is_refused_for_another_reason_fails_the_command() {
    let output = waybill(["--json", "attack", "malformed-parcels", "--expect", "hospital-a:proof-expired"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expected proof-expired by hospital-a"), "{}", stderr(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&rows[0]["rejected"], &rows[0]["as_expected"]), (&Value::Bool(true), &Value::Bool(false)));
}

#[test]
fn unknown_names_are_told_and_the_list_is_the_table() {
    let output = waybill(["attack", "second-sesion"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("waybill attack list"), "{}", stderr(&output));
    let output = waybill(["--json", "attack", "list"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let listed: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, attack::all().map(|attack| attack.name.to_owned()).collect::<Vec<_>>());
}

#[test]
fn names_are_unique_and_codes_are_the_catalogues_or_have_a_stage_of_their_own() {
    let names: BTreeSet<_> = attack::all().map(|attack| attack.name).collect();
    assert_eq!(names.len(), attack::all().count());
    for tried in attack::all().flat_map(|attack| attack.tries) {
        let known = Code::ALL.iter().any(|code| code.as_str() == tried.code);
        assert!(known || stage_of(tried.code) != "http" || HTTP.contains(&tried.code), "{}", tried.code);
    }
}

/// Problem documents' codes that are not the catalogue's.
const HTTP: [&str; 5] = ["slow-body", "unknown-mailbox", "not-found", "certificate-needed", "unusable-input"];

/// One line of `docs/ATTACKS.md`.
fn line(attack: &Attack) -> String {
    let mut refusals: Vec<String> = Vec::new();
    for tried in attack.tries {
        let refusal = format!("`{}` ({})", tried.code, tried.by);
        if !refusals.contains(&refusal) {
            refusals.push(refusal);
        }
    }
    let Attack { name, what, attacker, stopped_by, .. } = attack;
    format!("| `{name}` | {what} | {attacker} | {stopped_by} | {} |", refusals.join(", "))
}

#[test]
fn the_document_is_the_table() {
    let document = include_str!("../../../../docs/ATTACKS.md");
    let lines: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = attack::all().map(line).collect();
    assert_eq!(lines, expected.iter().map(String::as_str).collect::<Vec<_>>());
}
