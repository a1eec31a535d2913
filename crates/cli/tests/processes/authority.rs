//! The authority by hand, restored from an old copy, and inspected.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::common::{sample, stderr, waybill};
use crate::scene::Scene;

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// A command of the authority's operator that must succeed, as JSON.
fn operator(args: &[&str]) -> Value {
    let output = waybill([&["--json", "authority"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    json_of(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Gives the case's id.
fn migrate(scene: &Scene, wallet: &str, scope: &[&str]) -> String {
    let args = [&["migrate", "--from", "hospital-a", "--to", "hospital-b", "--yes"], scope].concat();
    let moved = scene.patient(wallet, &args);
    assert_eq!(moved["outcome"], "filed", "{moved}");
    moved["proof"].as_str().expect("a case that is filed has a proof").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_restored_from_an_old_copy_refuses_to_serve() {
    let mut scene = Scene::new(&["--resources", "20", "--attachments", "0"]).await;
    let home = scene.network.folder().join("authority");
    let desk = text(&home).to_owned();
    scene.wallet("wallet", &[]);
    migrate(&scene, "wallet", &["--scope", "types=Observation", "--withhold-safety"]);
    let (saved, old) = (scene.path("checkpoint"), scene.path("old"));
    let before = operator(&["log", &desk, "--verify", "--save", text(&saved)]);
    let backup = operator(&["backup", &desk, text(&old)]);
    assert!(backup["leaves"].as_u64().unwrap() > 0);
    assert!(old.join("online/log.key").exists() && !old.join("root").exists() && !old.join("issuing").exists());

    migrate(&scene, "wallet", &["--scope", "types=!Observation", "--withhold-safety"]);
    let after = operator(&["log", &desk, "--verify", "--since", text(&saved)]);
    assert_eq!(after["since"], before["size"]);
    assert!(after["size"].as_u64() > before["size"].as_u64() && after["tiles_compared"].as_u64() > Some(0));
    let status = operator(&["status", &desk]);
    assert_eq!((&status["cases"], &status["witnesses"][0]["unreachable"]), (&json!({ "filed": 2 }), &Value::Null));
    assert_eq!(status["log"]["cosigned_size"], after["size"]);

    scene.network.authority.kill().unwrap();
    std::fs::rename(home.join("data"), home.join("newest")).unwrap();
    copy_folder(&old.join("data"), &home.join("data"));
    let refused = waybill(["authority", "serve", &desk]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let said = format!("{} leaves, a witness has seen {}", before["size"], after["size"]);
    assert!(
        stderr(&refused).contains("log-behind-witness") && stderr(&refused).contains(&said),
        "{}",
        stderr(&refused)
    );
    std::fs::remove_dir_all(home.join("data")).unwrap();
    std::fs::rename(home.join("newest"), home.join("data")).unwrap();
    scene.network.authority.restart().unwrap();
    // A saved checkpoint of a longer log than the one shown is a rollback, to any reader.
    assert_eq!(operator(&["log", &desk, "--verify"])["size"], after["size"]);
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_renews_its_certificates_while_it_runs_and_only_for_its_own_keys() {
    let scene = Scene::new(&["--resources", "20", "--attachments", "0"]).await;
    let home = scene.network.folder().join("authority");
    let desk = text(&home).to_owned();
    let a = scene.network.admin("hospital-a");
    let keys = scene.network.folder().join("hospital-a/keys");
    let read = |name: &str| std::fs::read(keys.join(name)).unwrap();
    let before = ["tls.pem", "signing.pem", "tls.key", "signing.key"].map(read);
    let look = async || a.post::<Value>("/renewal", &json!({})).await.unwrap();
    assert_eq!(look().await["renewal"], "asked");
    assert_eq!(look().await["renewal"], "asked", "the desk has not answered");
    let suspended = operator(&["suspend-hospital", "hospital-a.example", "--folder", &desk]);
    assert_eq!(suspended["standing"], "suspended");
    a.post::<Value>("/renewal", &json!({})).await.expect_err("a suspended hospital renews nothing");
    operator(&["resume-hospital", "hospital-a.example", "--folder", &desk]);
    // The root signs the issuing key again: everything that is certified from now on hangs on the new certificate.
    let issuing = || std::fs::read(home.join("issuing/issuing.pem")).unwrap();
    let first = issuing();
    operator(&["issue-issuing", &desk, "--root-key", text(&home.join("root/root.key"))]);
    assert_ne!(issuing(), first);
    let pass = operator(&["renew", &desk, "--force"]);
    assert_eq!(pass["hospitals"], json!([{ "hospital": "hospital-a.example", "renewed": true, "reason": null }]));
    assert_eq!(look().await["renewal"], "renewed");
    let after = ["tls.pem", "signing.pem", "tls.key", "signing.key"].map(read);
    assert!(before[0] != after[0] && before[1] != after[1], "both chains are new");
    assert_eq!((&before[2], &before[3]), (&after[2], &after[3]), "the keys are not");
    let under = |chain: &[u8], issuer: &[u8]| chain.ends_with(issuer);
    assert!(under(&before[1], &first) && under(&after[1], &issuing()), "the hospital's chain hangs on the new one");
    // What the old certificate's serial was is on the list now: what goes on working is the renewed one.
    let old = scene.path("old.pem");
    for chain in &before[..2] {
        std::fs::write(&old, chain).unwrap();
        operator(&["crl", &desk, "--revoke", text(&old)]);
    }
    scene.wallet("wallet", &[]);
    migrate(&scene, "wallet", &[]);
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_is_changed_and_certificates_are_renewed_and_revoked_by_command() {
    let scene = Scene::new(&["--resources", "5", "--attachments", "0"]).await;
    let home = scene.network.folder().join("authority");
    let desk = text(&home).to_owned();
    let standing = |name: &str| {
        let status = operator(&["status", &desk]);
        let hospitals = status["hospitals"].as_array().unwrap().clone();
        hospitals.iter().find(|h| h["id"] == name).unwrap()["standing"].as_str().unwrap().to_owned()
    };
    let b = "hospital-b.example";
    let network = scene.path("by-authority.toml");
    let written = operator(&["network", &desk, "--out", text(&network)]);
    let by_network = scene.network.network_file().unwrap();
    let read = waybill_cli::network_file::NetworkFile::read(&network).unwrap();
    assert_eq!(written["fingerprint"], by_network.fingerprint().unwrap());
    assert_eq!(read, waybill_cli::network_file::NetworkFile { mailbox: None, ..by_network });
    operator(&["suspend-hospital", b, "--folder", &desk]);
    assert_eq!(standing(b), "suspended");
    operator(&["resume-hospital", b, "--folder", &desk]);
    assert_eq!(standing(b), "active");
    let first = operator(&["renew", &desk]);
    assert!(first["own"].as_array().unwrap().iter().all(|own| own["renewed"] == false), "nothing is due: {first}");
    let relay = scene.network.folder().join("relay");
    let forced = operator(&["renew", &desk, "--force", "--service", text(&relay)]);
    assert!(forced["own"].as_array().unwrap().iter().all(|own| own["renewed"] == true), "{forced}");
    let number = forced["crl"].as_u64().unwrap();
    assert_eq!(operator(&["status", &desk])["crl"]["number"], number, "the running server has it");
    let revoked = operator(&["revoke-hospital", b, "--folder", &desk]);
    assert_eq!((&revoked["certificates"], &revoked["crl"]), (&json!(2), &json!(number + 1)));
    assert_eq!(standing(b), "revoked");
    let again = waybill(["authority", "resume-hospital", b, "--folder", &desk]);
    assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
    let nobody = waybill(["authority", "suspend-hospital", "nobody.example", "--folder", &desk]);
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    let waiting = waybill(["--json", "relay", "status", text(&relay)]);
    assert!(json_of(&waiting)["mailboxes"].as_u64().unwrap() >= 2);
    let witness = scene.network.folder().join("witness");
    assert!(json_of(&waybill(["--json", "witness", "status", text(&witness)]))[0]["size"].is_u64());
    scene.network.stop();
}

/// New keys and requests under a name, as JSON.
fn init(scene: &Scene, folder: &str, name: &str) -> Value {
    let (folder, network) = (scene.path(folder), scene.path("network.toml"));
    let made = waybill(["--json", "hospital", "init", text(&folder), "--name", name, "--network", text(&network)]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    json_of(&made)
}

/// Asks the desk to certify requests; gives exit code, JSON and standard error.
fn enrol(desk: &str, requests: &str, mailbox: &str, more: &[&str]) -> (i32, Value, String) {
    let args = ["--json", "authority", "enrol-hospital", desk, "--requests", requests, "--mailbox", mailbox];
    let output = waybill(args.iter().chain(more));
    (output.status.code().unwrap(), json_of(&output), stderr(&output))
}

/// A hospital as the registry has it.
fn entry(desk: &str, name: &str) -> Value {
    let hospitals = operator(&["status", desk])["hospitals"].as_array().unwrap().clone();
    hospitals.into_iter().find(|hospital| hospital["id"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_enrolled_is_not_given_away_in_silence() {
    let scene = Scene::new(&["--resources", "5", "--attachments", "0"]).await;
    let desk = text(&scene.network.folder().join("authority")).to_owned();
    // A stranger's requests under A's name.
    let a = entry(&desk, "hospital-a.example");
    let stranger = init(&scene, "stranger", "hospital-a.example");
    let (requests, mailbox) = (stranger["requests"].as_str().unwrap(), stranger["mailbox"].as_str().unwrap());
    let (code, _, said) = enrol(&desk, requests, mailbox, &["--yes"]);
    assert!(code == 1 && said.contains("enrolled already") && said.contains("--replace"), "{said}");
    let (code, _, said) = enrol(&desk, requests, mailbox, &["--yes", "--replace", "--hospital", "hospital-b.example"]);
    assert!(code == 1 && said.contains("not of hospital-b.example"), "{said}");
    let (code, _, said) = enrol(&desk, requests, mailbox, &["--replace"]);
    assert!(code == 2 && said.contains("--yes"), "nobody was asked: {said}");
    assert!(!Path::new(requests).join("tls.pem").exists() && !Path::new(requests).join("signing.pem").exists());
    assert_eq!(entry(&desk, "hospital-a.example"), a);
    // An operator who insists is obeyed, but not in silence.
    let (code, made, said) = enrol(&desk, requests, mailbox, &["--replace", "--yes"]);
    assert_eq!((code, &made["thumbprints"], &made["replaced"]), (0, &stranger["thumbprints"], &a), "{said}");
    let status = operator(&["status", &desk]);
    let keys: BTreeSet<_> = status["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["holder"] == "hospital-a.example" && c["use"] == "hospital signing")
        .map(|c| c["key"].as_str().unwrap())
        .collect();
    assert!(keys.len() == 2 && keys.contains(stranger["thumbprints"]["signing"].as_str().unwrap()), "{keys:?}");
    assert!(status["attention"].to_string().contains("hospital-a.example has good certificates of 2 keys"), "{status}");
    let log = std::fs::read_to_string(scene.network.folder().join("logs/authority.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("was replaced")), "{log}");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_revoked_key_or_name_comes_back() {
    let scene = Scene::new(&["--resources", "5", "--attachments", "0"]).await;
    let desk = text(&scene.network.folder().join("authority")).to_owned();
    // B is suspended, enrolled again with the keys it has, and stays suspended.
    let b = "hospital-b.example";
    let held = entry(&desk, b)["mailbox"].as_str().unwrap().to_owned();
    let old = scene.network.folder().join("hospital-b/keys");
    operator(&["suspend-hospital", b, "--folder", &desk]);
    let (code, made, said) = enrol(&desk, text(&old), &held, &["--replace", "--yes"]);
    assert_eq!((code, &made["standing"]), (0, &json!("suspended")), "{said}");
    assert_eq!(entry(&desk, b)["standing"], "suspended");
    // Its keys were stolen: every certificate of them ends, and none is made again.
    assert_eq!(operator(&["crl", &desk, "--revoke-all-of", b])["revoked"], 4);
    let (code, _, said) = enrol(&desk, text(&old), &held, &["--replace", "--yes"]);
    assert!(code == 1 && said.contains("certificate was revoked"), "{said}");
    let fresh = init(&scene, "fresh", b);
    let (requests, mailbox) = (fresh["requests"].as_str().unwrap(), fresh["mailbox"].as_str().unwrap());
    let (code, made, said) = enrol(&desk, requests, mailbox, &["--replace", "--yes", "--hospital", b]);
    assert_eq!((code, &made["standing"], &made["mailbox"]), (0, &json!("suspended"), &json!(mailbox)), "{said}");
    assert_eq!(operator(&["resume-hospital", b, "--folder", &desk])["standing"], "active");

    // A revocation is for good, whatever keys come.
    operator(&["revoke-hospital", b, "--folder", &desk]);
    let last = init(&scene, "last", b);
    for requests in [last["requests"].as_str().unwrap(), requests] {
        let (code, _, said) = enrol(&desk, requests, mailbox, &["--replace", "--yes"]);
        assert!(code == 1 && said.contains("revoked"), "{said}");
    }
    assert!(!Path::new(last["requests"].as_str().unwrap()).join("tls.pem").exists());
    assert_eq!(entry(&desk, b)["standing"], "revoked");
    let unknown = waybill(["authority", "crl", &desk, "--revoke-all-of", "nobody.example"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", stderr(&unknown));
    scene.network.stop();
}

/// Asks until it is so; a machine may be busy, but not for ever.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never came to this: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_suspended_in_mid_case_gets_no_key_and_the_case_ends_refused() {
    let scene = Scene::new(&["--resources", "12", "--attachments", "0"]).await;
    let home = scene.network.folder().join("authority");
    let desk = text(&home).to_owned();
    let b = "hospital-b.example";
    // A person at A has to compare the two patients: there the case waits for as long as this test needs.
    scene.wallet("wallet", &["gender"]);
    let (open, _) =
        scene.ends("wallet", 1, &["migrate", "--from", "hospital-a", "--to", "hospital-b", "--yes", "--wait", "2s"]);
    assert_eq!(open["outcome"], "open", "{open}");
    let at_a = || scene.staff("hospital-a", &["cases", "HOME"])[0].clone();
    until("A waits for its staff", || at_a()["state"] == "awaiting-review").await;
    let proof = at_a()["proof"].as_str().unwrap().to_owned();

    operator(&["suspend-hospital", b, "--folder", &desk]);
    scene.staff("hospital-a", &["approve", "HOME", &proof]);
    let log = scene.network.folder().join("logs/authority.log");
    until("the authority refuses", || std::fs::read_to_string(&log).unwrap().contains("standing-lost")).await;
    let cases = operator(&["status", &desk])["cases"].clone();
    assert!(cases.get("key-released").is_none() && cases.get("filed").is_none(), "no key has gone: {cases}");

    // Standing lost is final for this proof: the source says so, signed, and a resumed hospital needs a new delegation.
    until("A has refused", || at_a()["code"] == "standing-lost").await;
    operator(&["resume-hospital", b, "--folder", &desk]);
    let (ended, _) = scene.ends("wallet", 1, &["watch", &proof[..8]]);
    assert_eq!(ended["outcome"], "refused", "{ended}");
    until("the authority has ended it", || operator(&["status", &desk])["cases"] == json!({ "refused": 1 })).await;
    scene.network.stop();
}

/// A second patient, who exists at A and arrives at B, where their sex is not known: A's staff must compare the two.
fn second_patient(scene: &Scene, record: &Path) {
    let loaded = scene.staff("hospital-a", &["import-record", "HOME", text(record)]);
    let local = loaded["patients"][0].as_str().unwrap().to_owned();
    let network = scene.path("network.toml");
    scene.patient("other", &["init", "--network", text(&network)]);
    scene.patient("other", &["enrol", &scene.code("hospital-a", &local)]);
    let out = scene.path("other.ndjson");
    scene.staff("hospital-a", &["export-record", "HOME", "--patient", &local, "--out", text(&out)]);
    let lines = std::fs::read_to_string(&out).unwrap();
    let mut patient = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|r| r["resourceType"] == "Patient" && r["id"] == local.as_str())
        .unwrap();
    patient
        .as_object_mut()
        .unwrap()
        .retain(|name, _| ["resourceType", "identifier", "name", "birthDate"].contains(&name.as_str()));
    patient["id"] = json!("other-at-b");
    let file = scene.path("other-at-b.json");
    std::fs::write(&file, patient.to_string()).unwrap();
    let loaded = scene.staff("hospital-b", &["import-record", "HOME", text(&file)]);
    scene.patient("other", &["enrol", &scene.code("hospital-b", loaded["patients"][0].as_str().unwrap())]);
}

/// Begins a case of the second patient, which waits for A's staff; gives its id.
async fn begin_second(scene: &Scene) -> String {
    scene.ends("other", 1, &["migrate", "--from", "hospital-a", "--to", "hospital-b", "--yes", "--wait", "2s"]);
    let waiting = || {
        let cases = scene.staff("hospital-a", &["cases", "HOME"]).as_array().unwrap().clone();
        cases.into_iter().find(|case| case["state"] == "awaiting-review")
    };
    until("A waits for its staff", || waiting().is_some()).await;
    waiting().unwrap()["proof"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_relay_and_witness_hold_nothing_of_a_record_and_link_no_cases() {
    let mut scene = Scene::new(&["--resources", "60", "--attachments", "1"]).await;
    let record = scene.path("record.ndjson");
    scene.staff("hospital-a", &["export-record", "HOME", "--patient", &scene.local, "--out", text(&record)]);
    scene.wallet("wallet", &[]);
    let first = migrate(&scene, "wallet", &[]);
    let second = migrate(&scene, "wallet", &["--scope", "types=Observation", "--withhold-safety"]);
    let others = tempfile::tempdir().unwrap();
    let other = sample(others.path(), &["--seed", "77", "--resources", "10", "--attachments", "0"]);
    second_patient(&scene, &other);
    let stopped = begin_second(&scene).await;
    assert_eq!(scene.patient("other", &["stop"])["outcome"], "revoked");
    let stranger = begin_second(&scene).await;
    scene.staff("hospital-a", &["approve", "HOME", &stranger]);
    assert_eq!(scene.patient("other", &["watch", &stranger[..8]])["outcome"], "filed");
    migrate(&scene, "wallet", &["--scope", "types=Condition", "--withhold-safety"]);
    // Nothing changes any more, also not in write-ahead logs.
    for servant in
        [&mut scene.network.authority, &mut scene.network.relay, &mut scene.network.witness, &mut scene.network.b]
    {
        servant.kill().unwrap();
    }
    let at = |name: &str| text(&scene.network.folder().join(name)).to_owned();
    let (authority, relay, witness, logs) = (at("authority"), at("relay"), at("witness"), at("logs"));
    let (a, b) = (at("hospital-a"), at("hospital-b"));
    let inspect = |control: &str, more: &[&str]| {
        let args = [
            "--json",
            "authority",
            "inspect",
            &authority,
            "--also",
            &relay,
            "--also",
            &witness,
            "--also",
            &logs,
            "--search",
            "--record",
            text(&record),
            "--pseudonyms-of",
            &b,
            "--control",
            control,
        ];
        waybill(args.iter().chain(more))
    };
    let clean = inspect(&b, &[]);
    let report = json_of(&clean);
    assert_eq!(clean.status.code(), Some(0), "{} {:#}", stderr(&clean), report["search"]["found"]);
    let (terms, control) = (&report["search"]["terms"], &report["search"]["control"]["found"]);
    for kind in ["name", "identifier", "id", "value", "word", "type", "count", "pseudonym"] {
        assert!(terms[kind].as_u64() > Some(0) && control[kind].as_u64() > Some(0), "{kind}: {terms} {control}");
    }
    let links = &report["linkability"];
    // Four were filed, three of one patient and one of another; the one that was revoked is alone of its kind.
    assert_eq!((&links["cases"], &links["compared"], &links["links"]), (&json!(5), &json!(4), &json!([])), "{links:#}");
    let kinds: Vec<_> = links["kinds"].as_array().unwrap().iter().map(|k| (&k["state"], &k["compared"])).collect();
    assert_eq!(kinds, [(&json!("filed"), &json!(true)), (&json!("revoked"), &json!(false))], "{links:#}");
    assert!(links["values"].as_u64() > Some(50), "rows were taken apart: {links}");
    assert!(Path::new(&a).exists());
    // Whoever knows whose the cases are and asks for just these finds nothing more.
    let named =
        waybill(["--json", "authority", "inspect", &authority, "--link", &first, &second, "--other", &stranger]);
    let links = &json_of(&named)["linkability"];
    assert_eq!(named.status.code(), Some(0), "{} {links:#}", stderr(&named));
    assert_eq!((&links["compared"], &links["links"]), (&json!(3), &json!([])), "{links:#}");
    let kindless = waybill(["authority", "inspect", &authority, "--link", &first, &second, "--other", &stopped]);
    assert_eq!(kindless.status.code(), Some(2), "what filed cases share is no link: {}", stderr(&kindless));
    let unknown = waybill(["authority", "inspect", &authority, "--link", &first, &first, "--other", &stranger]);
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));

    // A control that holds nothing of the record makes the search worthless, and it says so.
    let blind = inspect(&witness, &[]);
    assert_eq!(blind.status.code(), Some(1));
    assert!(stderr(&blind).contains("the control finds nothing"), "{}", stderr(&blind));
    // The check can fail: an identifier of the record, in base64, in a file of the authority.
    let line = std::fs::read_to_string(&record).unwrap();
    let patient = line.lines().find(|line| line.contains("\"Patient\"")).unwrap();
    let patient: Value = serde_json::from_str(patient).unwrap();
    let identifier = patient["identifier"][0]["value"].as_str().unwrap();
    let leak =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("patient {identifier} was here"));
    std::fs::write(Path::new(&authority).join("data/leak"), leak).unwrap();
    let leaked = inspect(&b, &[]);
    assert_eq!(leaked.status.code(), Some(1));
    let out = String::from_utf8_lossy(&leaked.stdout).into_owned();
    assert!(!out.contains(identifier), "a finding does not repeat what was found");
    let shown = inspect(&b, &["--show-terms"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(identifier), "unless that was asked for");
    let found = &json_of(&leaked)["search"]["found"];
    assert!(
        found.as_array().unwrap().iter().any(|f| f["kind"] == "identifier" && f["encoding"] == "base64"),
        "{found}"
    );
    scene.network.stop();
}
