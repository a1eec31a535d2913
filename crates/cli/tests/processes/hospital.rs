//! A hospital's own work with real processes: a doubt and its review, a restore from a backup in mid-case, the audit trail on both
//! sides, and what becomes of items about third parties.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use waybill_cli::courier::now;
use waybill_cli::demo::children::Tie;
use waybill_cli::demo::network::{HOSPITAL_A, HOSPITAL_B, Network};
use waybill_cli::demo::person::{ANSWER, Person};
use waybill_cli::demo::records::registration_of;
use waybill_cli::hospital;
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::messages::{EndState, Purpose};
use waybill_protocol::patient::Wish;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;
use waybill_wallet::Received;

use crate::common::{program, sample, stderr, waybill};

fn run(args: &[&str]) -> Value {
    let output = waybill(["--json"].iter().chain(args));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ndjson(args: &[&str]) -> Vec<Value> {
    let output = waybill(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Waits until the only case of a hospital is in a state and attempt.
fn wait_for(home: &str, state: &str, attempt: u64) -> Value {
    loop {
        let cases = run(&["hospital", "cases", home]);
        let found = cases
            .as_array()
            .unwrap()
            .iter()
            .find(|case| case["state"] == state && case["attempt"].as_u64().is_some_and(|found| found >= attempt));
        if let Some(case) = found {
            return case.clone();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Lets a process stand still, or go on.
fn signal(name: &str, process: u32) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(sent.success());
}

struct Scene {
    network: Network,
    person: Person,
    homes: [String; 2],
    patient: String,
}

/// A network with one patient, whom the two hospitals do not certainly know as one person.
async fn scene(folder: &Path) -> Scene {
    let network = Network::start(&program(), folder, Tie::Supervised, &mut |_| {}).await.unwrap();
    let homes = ["hospital-a", "hospital-b"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let record = sample(folder, &["--resources", "12", "--attachments", "0"]);
    let loaded = hospital::load(&network.admin("hospital-a"), &[record], false).await.unwrap();
    let patient = loaded["patients"][0].as_str().unwrap().to_owned();
    let source = folder.join("source.ndjson");
    hospital::export(&network.admin("hospital-a"), &patient, None, &source).await.unwrap();
    let mut shown: Value = serde_json::from_slice(&registration_of(&source, &patient, "b-1").unwrap()).unwrap();
    shown["birthDate"] = json!(shown["birthDate"].as_str().unwrap()[..4]);
    let body = serde_json::to_vec(&shown).unwrap();
    network.admin("hospital-b").post_bytes::<Value>("/patients", body.into()).await.unwrap();
    let mut person = Person::new(&network, &folder.join("patient.wallet"), &patient).await.unwrap();
    person.register(&network, "hospital-a", &patient).await.unwrap();
    person.register(&network, "hospital-b", "b-1").await.unwrap();
    Scene { network, person, homes, patient }
}

async fn consent(person: &mut Person) -> ProofId {
    let id = |name| HospitalId::parse(name).unwrap();
    let (scope, hides) = (Scope::full(), Hides::default());
    let wish = Wish { scope, hides, not_before: now(), expires: now().plus(86_400) };
    let (number, _) = person.wallet.delegate(now(), &id(HOSPITAL_A), &id(HOSPITAL_B), wish).unwrap();
    assert!(matches!(person.courier.next(&mut person.wallet, ANSWER).await.unwrap(), Received::Vouched { .. }));
    let Received::Proof { proof, .. } = person.courier.next(&mut person.wallet, ANSWER).await.unwrap() else {
        panic!("a proof was asked for")
    };
    person.wallet.consent(now(), number).unwrap();
    proof
}

/// What staff at both hospitals does meanwhile, on a thread of its own: commands are processes.
fn restore_and_release(mut network: Network, folder: PathBuf, [a, b]: [String; 2]) -> Network {
    let waiting = wait_for(&a, "awaiting-review", 1);
    assert_eq!(
        (&waiting["queue"], &waiting["who_must_act"]),
        (&json!("needs-identity-check"), &json!("records-officer"))
    );
    let proof = waiting["proof"].as_str().unwrap();
    let case = run(&["hospital", "case", &a, proof]);
    assert_eq!(case["identity"]["differences"], json!(["birth date: inexact"]));
    let copy = folder.join("copy");
    run(&["hospital", "backup", &a, copy.to_str().unwrap()]);
    let one_time = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().contains("incarnation");
    assert!(!files(&copy).iter().any(one_time), "nothing of the one-time folder is in a backup");
    network.a.kill().unwrap();
    std::fs::rename(folder.join("hospital-a/data"), folder.join("lost")).unwrap();
    std::fs::rename(&copy, folder.join("hospital-a/data")).unwrap();
    network.a.restart().unwrap();
    let trail = run(&["hospital", "audit", &a]);
    let actions: Vec<&str> = trail.as_array().unwrap().iter().filter_map(|row| row["action"].as_str()).collect();
    assert!(actions.contains(&"new-incarnation"), "{actions:?}");
    // The session of before is dead; the case goes on with the next attempt, and a person decides again.
    let again = wait_for(&a, "awaiting-review", 2);
    assert_eq!(again["proof"].as_str(), Some(proof));
    run(&["hospital", "approve", &a, proof]);
    let _ = b;
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_restored_in_mid_case_ends_the_old_session_and_files_the_next_once() {
    let folder = tempfile::tempdir().unwrap();
    let Scene { network, mut person, homes, patient } = scene(folder.path()).await;
    let proof = consent(&mut person).await;
    let (place, staffed) = (folder.path().to_owned(), homes.clone());
    let staff = tokio::task::spawn_blocking(move || restore_and_release(network, place, staffed));
    let received = person.courier.next(&mut person.wallet, Duration::from_secs(600)).await.unwrap();
    assert!(matches!(received, Received::Ended { state: EndState::Filed, .. }), "{received:?}");
    let network = staff.await.unwrap();
    let [a, b] = &homes;
    let proof = proof.to_string();
    let ready = wait_for(b, "closed", 2);
    assert_eq!((&ready["queue"], &ready["ended"]), (&json!("ready"), &json!("filed")));

    // Both sides tell of the same disclosure.
    let event = |home: &str, code: &str| {
        let events = ndjson(&["hospital", "audit", home, "--case", &proof, "--fhir"]);
        let found: Vec<Value> = events.into_iter().filter(|event| event["type"]["code"] == code).collect();
        assert_eq!(found.len(), 1, "one {code}");
        found.into_iter().next().unwrap()
    };
    let (sent, received) = (event(a, "110106"), event(b, "110107"));
    assert_eq!(sent["entity"][1]["what"]["identifier"]["value"], json!(proof));
    assert_eq!(sent["entity"][1]["what"], received["entity"][1]["what"]);
    assert_eq!(sent["entity"][0]["what"]["reference"], json!(format!("Patient/{patient}")));
    assert_eq!(received["entity"][0]["what"]["reference"], json!("Patient/b-1"));

    // What was made at B joined the chart with the record.
    let out = folder.path().join("made.ndjson");
    run(&["hospital", "export-record", b, "--patient", "b-1", "--made-here", "--out", out.to_str().unwrap()]);
    let made: Vec<Value> =
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = made.iter().filter_map(|resource| resource["resourceType"].as_str()).collect();
    assert_eq!(types, ["Consent", "Provenance"]);
    assert_eq!(made[1]["entity"][0]["what"]["identifier"]["value"], json!(proof));
    assert_eq!(run(&["hospital", "audit", b, "--verify"])["holds"], json!(true));

    let late = waybill(["hospital", "abort", a, &proof, "--reason", "too late"]);
    assert_eq!(late.status.code(), Some(1), "{}", stderr(&late));
    assert!(stderr(&late).contains("`closed`, ended `filed`"), "{}", stderr(&late));
    takes_evidence_and_reconciles(folder.path(), &homes, &proof);
    let checks = run(&["hospital", "preflight", a]);
    let verdict = |name: &str| {
        let found = checks.as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        found["verdict"].as_str().unwrap().to_owned()
    };
    for name in ["keys", "signing certificate", "clock", "authority", "relay", "mailbox", "records", "one-time keys"] {
        assert_eq!(verdict(name), "good", "{name}: {checks}");
    }
    network.stop();
}

/// What staff does when a case is over: evidence that anybody can judge, what did not move, and the look at what came.
fn takes_evidence_and_reconciles(folder: &Path, homes: &[String; 2], proof: &str) {
    for (number, home) in homes.iter().enumerate() {
        let out = folder.join(format!("evidence-{number}"));
        let out = out.to_str().unwrap();
        let written = run(&["hospital", "evidence", home, proof, "--out", out]);
        let judged = run(&["verify", out, "--root", written["root"].as_str().unwrap()]);
        assert_eq!(judged["holds"], json!(true), "{judged}");
        let twice = waybill(["hospital", "evidence", home, proof, "--out", out]);
        assert_eq!(twice.status.code(), Some(3), "{}", stderr(&twice));
        let loss = run(&["hospital", "loss", home, proof]);
        assert_eq!(loss["offered"], loss["held"], "the whole record moved");
        let text = waybill(["hospital", "loss", home, proof]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("not movable"));
        assert_eq!(
            text.contains("quarantined"),
            number == 1,
            "the source filed nothing, and says no number of it: {text}"
        );
        for command in ["evidence", "loss"] {
            let mut args = vec!["hospital", command, home, proof, "--as", "clinician"];
            args.extend((command == "evidence").then_some(["--out", "unwritten"]).into_iter().flatten());
            assert_eq!(waybill(&args).status.code(), Some(1), "the policy decides");
        }
        let trail = run(&["hospital", "audit", home, "--case", proof]);
        let actions: Vec<&str> = trail.as_array().unwrap().iter().filter_map(|row| row["action"].as_str()).collect();
        assert!(actions.contains(&"read-evidence") && actions.contains(&"read-loss"), "{actions:?}");
    }
    let b = &homes[1];
    let listed = run(&["hospital", "cases", b, "--open", "--as", "clinician"]);
    assert_eq!((&listed[0]["proof"], &listed[0]["who_must_act"]), (&json!(proof), &json!("clinician")));
    let officer = waybill(["hospital", "reconcile", b, proof, "--as", "records-officer"]);
    assert_eq!(officer.status.code(), Some(1), "{}", stderr(&officer));
    run(&["hospital", "reconcile", b, proof]);
    assert_eq!(run(&["hospital", "cases", b, "--open"]), json!([]));
    assert_eq!(run(&["hospital", "cases", b])[0]["queue"], json!("reconciled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_keeps_items_about_third_parties_back_and_stops_a_stolen_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let Scene { network, mut person, homes, patient } = scene(folder.path()).await;
    let [a, _] = &homes;
    let record = std::fs::read_to_string(folder.path().join("source.ndjson")).unwrap();
    let items = record.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut others = items
        .filter(|item| item["resourceType"] != "Patient")
        .map(|item| format!("{}/{}", item["resourceType"].as_str().unwrap(), item["id"].as_str().unwrap()));
    let item = others.next().unwrap();
    let kept = run(&["hospital", "withhold", a, "--patient", &patient, &item]);
    assert_eq!(kept["withheld"], json!(1));
    let listed = run(&["hospital", "withhold", a, "--patient", &patient]);
    assert_eq!((&listed[0]["item"], &listed[0]["reason"]), (&json!(item), &json!("third-party")));
    let unknown = waybill(["hospital", "withhold", a, "--patient", &patient, "Condition/none"]);
    assert_eq!(unknown.status.code(), Some(1));
    let registrar = waybill(["hospital", "withhold", a, "--as", "registrar", "--patient", &patient, &item]);
    assert!(stderr(&registrar).contains("no rule gives this role"), "{}", stderr(&registrar));

    let proof = consent(&mut person).await.to_string();
    let home = a.clone();
    let staff = tokio::task::spawn_blocking(move || {
        let waiting = wait_for(&home, "awaiting-review", 1);
        let keys = run(&["hospital", "keys", "list", &home, "--patient", &patient]);
        assert_eq!(keys.as_array().unwrap().len(), 1);
        // A thief does not wait until the authority answers again.
        let authority = network.authority.pid().unwrap();
        signal("STOP", authority);
        let withdraw = || run(&["hospital", "keys", "withdraw", &home, "--patient", &patient, "--reason", "stolen"]);
        let (withdrawn, again) = (withdraw(), withdraw());
        assert_eq!((&again["withdrawn"], &again["withdrawn_before"]), (&json!(0), &json!(1)));
        assert_eq!(again["stopped_cases"], withdrawn["stopped_cases"]);
        let late = waybill(["hospital", "approve", &home, waiting["proof"].as_str().unwrap()]);
        assert_eq!(late.status.code(), Some(1));
        assert!(stderr(&late).contains("`refused`"), "{}", stderr(&late));
        signal("CONT", authority);
        (network, withdrawn)
    });
    let received = person.courier.next(&mut person.wallet, Duration::from_secs(600)).await.unwrap();
    let (network, withdrawn) = staff.await.unwrap();
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["stopped_cases"]), (&json!(1), &json!([proof])));
    let stopped = matches!(&received, Received::Refused { .. } | Received::Ended { state: EndState::Revoked, .. });
    assert!(stopped, "{received:?}");
    network.stop();
}

/// A changes its keys while a case waits for its staff, who then lets the case go on.
fn change_keys_and_release(mut network: Network, folder: PathBuf, a: String) -> Network {
    let waiting = wait_for(&a, "awaiting-review", 1);
    let settings = std::fs::read_to_string(folder.join("hospital-a/hospital.toml")).unwrap();
    let mailbox = settings.lines().find_map(|line| line.strip_prefix("mailbox = ")).unwrap().trim_matches('"');
    let made = run(&["hospital", "change-keys", &a]);
    let (requests, desk) = (made["requests"].as_str().unwrap(), folder.join("authority"));
    let desk = desk.to_str().unwrap();
    let enrol =
        ["authority", "enrol-hospital", desk, "--requests", requests, "--mailbox", mailbox, "--replace", "--yes"];
    assert_eq!(run(&enrol)["thumbprints"], made["thumbprints"], "both sides see the same to compare");
    run(&["hospital", "enrol", &a, "--certificates", requests]);
    network.a.restart().unwrap();
    run(&["hospital", "approve", &a, waiting["proof"].as_str().unwrap()]);
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_in_mid_case_leaves_the_case_alone_and_reaches_the_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let Scene { network, mut person, homes: [a, _], .. } = scene(folder.path()).await;
    let keys = |person: &Person| person.wallet.contacts().iter().map(|c| c.keys.thumb()).collect::<Vec<_>>();
    let before = keys(&person);
    consent(&mut person).await;
    let place = folder.path().to_owned();
    let staff = tokio::task::spawn_blocking(move || change_keys_and_release(network, place, a));
    let received = person.courier.next(&mut person.wallet, Duration::from_secs(600)).await.unwrap();
    assert!(matches!(received, Received::Ended { state: EndState::Filed, .. }), "{received:?}");
    let network = staff.await.unwrap();
    assert_eq!(keys(&person), before, "nobody has told the wallet yet");
    let purpose = Purpose::Preview { scope: Scope::full(), hides: Hides::default() };
    person.wallet.ask(now(), &HospitalId::parse(HOSPITAL_A).unwrap(), purpose).unwrap();
    let received = person.courier.next(&mut person.wallet, ANSWER).await.unwrap();
    assert!(matches!(received, Received::Preview { .. }), "{received:?}");
    let after = keys(&person);
    assert_ne!(after[0], before[0], "the old key named the new one, and the wallet pinned it");
    assert_eq!(after[1], before[1]);
    network.stop();
}
