//! The patient's commands, against real hospitals and a real authority.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{program, stderr, waybill};
use crate::scene::{A, B, PASSPHRASE, Scene, patient_command};

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_moves_a_record_with_commands_alone() {
    let scene = Scene::new(&["--resources", "40", "--attachments", "1"]).await;
    let code = scene.wallet("wallet", &[]);
    let hospitals = scene.patient("wallet", &["hospitals"]);
    assert_eq!((&hospitals[0]["hospital"], &hospitals[1]["hospital"]), (&json!(A), &json!(B)));
    assert_eq!((&hospitals[0]["relation"], &hospitals[0]["expired"]), (&json!("self"), &json!(false)));
    assert_eq!(hospitals[0]["limits"], json!({ "scope": "types=*;undated=include;labels=*", "destinations": [] }));

    let moved = scene.patient("wallet", &["migrate", "--from", "hospital-a", "--to", "hospital-b", "--yes"]);
    assert_eq!((&moved["outcome"], &moved["case"]), (&json!("filed"), &json!(1)));
    assert_eq!((&moved["source"], &moved["destination"]), (&json!(A), &json!(B)));
    assert!(moved["receipt"]["filed"].as_u64().unwrap() > 30, "{moved}");
    assert_eq!(moved["receipt"]["offered"], moved["receipt"]["filed"]);
    assert_eq!(scene.patient("wallet", &["status"]), json!([]));
    let history = scene.patient("wallet", &["history"]);
    assert_eq!((history.as_array().unwrap().len(), &history[0]["outcome"]), (1, &json!("filed")));

    let receipt = scene.patient("wallet", &["receipt", "--offline"]);
    assert_eq!(receipt["verdict"]["holds"], true);
    assert_eq!((&receipt["verdict"]["end"], &receipt["proof"]), (&json!("filed"), &moved["proof"]));
    assert_eq!(receipt["looked"], Value::Null);
    let page = scene.text("wallet", &["receipt", "--print", "--offline", "1"]);
    for part in ["Receipt for a health record", A, B, "has filed your record", "[ok] ", "Patient (", "fingerprint"] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 80 && line == line.trim_end()), "{page}");

    let evidence = scene.path("evidence.cbor");
    scene.patient("wallet", &["evidence", "--out", evidence.to_str().unwrap()]);
    let verdict = waybill(["verify", evidence.to_str().unwrap()]);
    assert_eq!(verdict.status.code(), Some(0), "{}", stderr(&verdict));
    assert_eq!(scene.ends("wallet", 3, &["evidence", "--out", evidence.to_str().unwrap()]).0, Value::Null);

    let (late, _) = scene.ends("wallet", 1, &["stop", "1"]);
    assert_eq!((&late["in_time"], &late["outcome"]), (&json!(false), &json!("filed")));
    assert!(late["sentence"].as_str().unwrap().starts_with("Too late"));
    recovered_without_any_server(scene, &code);
}

/// Every server is stopped: what recovers now asks nobody.
fn recovered_without_any_server(scene: Scene, code: &str) {
    let cards = scene.path("cards.txt");
    scene.text("wallet", &["hospitals", "--card", "--out", cards.to_str().unwrap()]);
    let paper = scene.path("paper.txt");
    scene.text("wallet", &["paper", paper.to_str().unwrap()]);
    let network = scene.path("network.toml");
    let Scene { network: servers, folder, .. } = scene;
    servers.stop();
    let file = folder.path().join("code.txt");
    std::fs::write(&file, code.to_lowercase()).unwrap();
    let recover = |wallet: &str, args: &[&str]| -> Value {
        let mut command = patient_command(&folder.path().join(wallet));
        let output =
            command.args(["--json", "recover", "--network", network.to_str().unwrap()]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let bare = recover("bare", &["--code-file", file.to_str().unwrap()]);
    assert_eq!(bare["hospitals"], json!([]));
    let args = ["--code-file", file.to_str().unwrap(), "--card", cards.to_str().unwrap()];
    assert_eq!(recover("with-cards", &args)["hospitals"], json!([A, B]));
    assert_eq!(recover("from-paper", &["--code-file", paper.to_str().unwrap()])["hospitals"], json!([A, B]));
    let list = |wallet: &str| {
        let output = patient_command(&folder.path().join(wallet)).args(["--json", "hospitals"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(list("from-paper"), list("wallet"));
    // A typing error is located, and a card of another wallet is not taken.
    let mistyped = code.replacen(&code[..1], if code.starts_with('0') { "1" } else { "0" }, 1);
    std::fs::write(&file, mistyped).unwrap();
    let mut command = patient_command(&folder.path().join("mistyped"));
    let args = ["recover", "--network", network.to_str().unwrap(), "--code-file", file.to_str().unwrap()];
    let output = command.args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("typing error in group 1"), "{}", stderr(&output));
    assert!(!folder.path().join("mistyped").exists());
    let mut command = patient_command(&folder.path().join("other"));
    assert!(command.args(["init", "--network", network.to_str().unwrap()]).output().unwrap().status.success());
    let output = patient_command(&folder.path().join("other")).args(["--json", "paper"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "nothing is overwritten: {}", stderr(&output));
    std::fs::remove_file(&file).unwrap();
    assert!(patient_command(&folder.path().join("other")).arg("paper").arg(&file).output().unwrap().status.success());
    let mut command = patient_command(&folder.path().join("mixed"));
    command.args(["recover", "--network", network.to_str().unwrap(), "--code-file", file.to_str().unwrap()]);
    let output = command.arg("--card").arg(&cards).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not made by this wallet"), "{}", stderr(&output));
    assert!(!folder.path().join("mixed").exists(), "a wallet with half its hospitals would look whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_that_waits_for_a_person_says_so_and_is_stopped_in_time() {
    let scene = Scene::new(&["--resources", "10", "--attachments", "0"]).await;
    scene.wallet("wallet", &["gender"]);
    let args = ["migrate", "--from", A, "--to", B, "--yes", "--wait", "12s"];
    let (open, _) = scene.ends("wallet", 1, &args);
    assert_eq!(
        (&open["outcome"], &open["stage"], &open["who"]),
        (&json!("open"), &json!("awaiting-end"), &json!("source"))
    );
    let says = |state: &Value| state["standings"].as_array().unwrap().iter().any(|s| s["state"] == "awaiting-review");
    assert!(says(&open), "{open}");
    let status = scene.patient("wallet", &["status"]);
    assert_eq!((status.as_array().unwrap().len(), &status[0]["case"]), (1, &json!(1)));
    assert!(says(&status[0]) && status[0]["waits_for"].as_str().unwrap().contains("compare the two patients"));
    let offline = scene.patient("wallet", &["status", "--offline"]);
    assert_eq!(offline[0]["standings"], json!([]));

    let stopped = scene.patient("wallet", &["stop"]);
    assert_eq!((&stopped["in_time"], &stopped["outcome"]), (&json!(true), &json!("revoked")));
    let proof = stopped["proof"].as_str().unwrap();
    let receipt = scene.patient("wallet", &["receipt", "--offline"]);
    assert_eq!((&receipt["verdict"]["holds"], &receipt["verdict"]["end"]), (&json!(true), &json!("revoked")));
    assert_eq!(scene.patient("wallet", &["stop", "1"])["in_time"], true, "asked again, it says the same");
    let (watched, _) = scene.ends("wallet", 1, &["watch", &proof[..8]]);
    assert_eq!(watched["outcome"], "revoked");
    // A stopped case cannot be released any more.
    for _ in 0..100 {
        let case = scene.staff("hospital-a", &["case", "HOME", proof]);
        if case["state"] == "closed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.staff_output("hospital-a", &["approve", "HOME", proof]).status.code(), Some(1));
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_has_left_sealed_is_stopped_before_its_key() {
    let mut scene = Scene::new(&["--resources", "20", "--attachments", "24", "--attachment-bytes", "1000000"]).await;
    scene.wallet("wallet", &[]);
    let mut running = scene.begin("wallet", &["migrate", "--from", A, "--to", B, "--yes"]);
    running.until("You consent");
    // B is gone as soon as A has its request: everything A sends lies sealed at the relay.
    let admin = scene.network.admin("hospital-a");
    loop {
        let cases: Vec<Value> = admin.read("/cases").await.unwrap();
        if !cases.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scene.network.b.kill().unwrap();
    running.kill();
    let proof = loop {
        let cases = scene.staff("hospital-a", &["cases", "HOME"]);
        if let Some(case) = cases.as_array().unwrap().iter().find(|case| case["state"] == "lodged") {
            break case["proof"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let stopped = scene.patient("wallet", &["stop"]);
    assert_eq!((&stopped["in_time"], &stopped["outcome"]), (&json!(true), &json!("revoked")));
    assert_eq!(stopped["proof"], proof.as_str());
    // B comes back, finds every byte, and never gets the key.
    scene.network.b.restart().unwrap();
    let ended = loop {
        let case = scene.staff("hospital-b", &["case", "HOME", &proof]);
        if case["ended"].is_string() {
            break case;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(ended["ended"], "revoked");
    let out = scene.path("filed.ndjson");
    let args = ["export-record", "HOME", "--patient", "at-b", "--filed-from", A, "--out", out.to_str().unwrap()];
    let exported = scene.staff_output("hospital-b", &args);
    let resources =
        serde_json::from_slice::<Value>(&exported.stdout).map_or(0, |json| json["resources"].as_u64().unwrap());
    assert_eq!(resources, 0, "nothing of the record is filed");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_migration_goes_on_where_it_was() {
    let mut scene = Scene::new(&["--resources", "15", "--attachments", "0"]).await;
    scene.wallet("wallet", &[]);
    // Without B no case ends, whatever was reached when the power was cut.
    scene.network.b.kill().unwrap();
    for line in ["vouches for a fresh key", "logged proof says in every field", "You consent"] {
        let args: &[&str] = if line.starts_with("vouches") {
            &["migrate", "--from", A, "--to", B, "--yes"]
        } else {
            &["migrate", "--resume", "--yes"]
        };
        let mut running = scene.begin("wallet", args);
        if line == "You consent" {
            // It may have consented in the turn before.
            running.until("Going on with case 1");
            let (_, said) = scene.ends("wallet", 3, &["status"]);
            assert!(said.contains("in use") && said.contains("Ctrl-C"), "{said}");
        } else {
            running.until(if line.starts_with("vouches") { line } else { "Going on with case 1" });
        }
        running.kill();
    }
    scene.network.b.restart().unwrap();
    let moved = scene.patient("wallet", &["migrate", "--resume", "1"]);
    assert_eq!((&moved["case"], &moved["outcome"]), (&json!(1), &json!("filed")));
    assert_eq!(
        scene.patient("wallet", &["history"]).as_array().unwrap().len(),
        1,
        "one case, however often it went on"
    );
    let (_, said) = scene.ends("wallet", 2, &["migrate", "--resume", "1"]);
    assert!(said.contains("no open case 1"), "{said}");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_and_begins_nothing() {
    let scene = Scene::new(&["--resources", "40", "--attachments", "0"]).await;
    let network = scene.path("network.toml");
    let network = network.to_str().unwrap();
    let said = |code: i32, args: &[&str], part: &str| {
        let (json, said) = scene.ends("wallet", code, args);
        let told: Value = serde_json::from_str(said.trim().lines().last().unwrap_or_default()).unwrap_or_default();
        let (error, next) = (told["error"].as_str().unwrap_or_default(), told["try"].as_str().unwrap_or_default());
        assert!(!error.is_empty() && !next.is_empty() && told["exit"] == code, "{args:?}: {said}");
        assert!(error.contains(part) || next.contains(part), "{args:?}: {said}");
        assert_eq!(json, Value::Null, "{args:?}");
    };
    said(3, &["status"], "there is no wallet");
    said(3, &["init", "--network", "/nowhere.toml"], "network file cannot be read");
    let made = scene.patient("wallet", &["init", "--network", network]);
    assert_eq!(made["fingerprint"].as_str().unwrap().split(' ').count(), 16);
    assert_eq!(made["authority_reached"], true);
    said(3, &["init", "--network", network], "exists already");
    said(1, &["migrate", "--from", A, "--to", B, "--yes"], "registered at no hospital");
    said(1, &["watch"], "no case is open");
    said(1, &["receipt"], "no case of this wallet is over");
    said(2, &["receipt", "7"], "no case 7");

    let code = scene.code("hospital-a", &scene.local);
    said(2, &["enrol", &code[..code.len() - 3]], "incomplete or mistyped");
    said(2, &["enrol", "HELLO"], "WAYBILL1:");
    scene.patient("wallet", &["enrol", &code.to_lowercase()]);
    said(1, &["enrol", &code, "--wait", "3s"], "no answer came in time");
    let file = scene.path("code.txt");
    let at_b = scene.arrive_at_b(&[]);
    std::fs::write(&file, format!("the picture\n\n{}\ngood once\n", scene.code("hospital-b", &at_b))).unwrap();
    assert_eq!(scene.patient("wallet", &["enrol", file.to_str().unwrap()])["hospital"], B);

    said(2, &["migrate", "--from", "hospital", "--to", B, "--yes"], "more than one hospital");
    said(2, &["migrate", "--from", "nowhere", "--to", B, "--yes"], "not registered at `nowhere`");
    said(2, &["migrate", "--from", A, "--to", B, "--until", "yesterday", "--yes"], "no end of a delegation");
    said(2, &["migrate", "--from", A, "--to", B, "--until", "91d", "--yes"], "within 90 days");
    said(2, &["migrate", "--from", A, "--to", B, "--scope", "types=Imunization", "--yes"], "did you mean");
    said(2, &["migrate", "--from", A, "--to", B, "--hide", "Condition", "--yes"], "--hide cannot be read");
    said(2, &["migrate", "--from", A, "--to", B], "nobody can be asked");
    let without_allergies =
        ["migrate", "--from", A, "--to", B, "--scope", "types=!AllergyIntolerance;labels=*", "--yes"];
    said(1, &without_allergies, "AllergyIntolerance");
    assert_eq!(scene.patient("wallet", &["history"]), json!([]), "nothing was begun");
    let moved = scene.patient("wallet", &[&without_allergies[..], &["--withhold-safety"]].concat());
    assert_eq!(moved["outcome"], "filed");
    assert!(moved["receipt"]["types"].as_array().unwrap().iter().all(|t| t["type"] != "AllergyIntolerance"));
    passphrases(&scene);
    scene.network.stop();
}

fn passphrases(scene: &Scene) {
    let wallet = scene.path("wallet");
    let run = |passphrase: Option<&str>, args: &[&str]| {
        let mut command = patient_command(&wallet);
        match passphrase {
            Some(passphrase) => command.env("WAYBILL_PASSPHRASE", passphrase),
            None => command.env_remove("WAYBILL_PASSPHRASE"),
        };
        command.args(args).output().unwrap()
    };
    let wrong = run(Some("wrong horse battery"), &["history"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("the passphrase is wrong") && stderr(&wrong).contains("recover"));
    let none = run(None, &["history"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("WAYBILL_PASSPHRASE"), "{}", stderr(&none));
    let file = scene.path("passphrase.txt");
    std::fs::write(&file, "another one altogether\n").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(run(None, &["history", "--passphrase-file", file]).status.code(), Some(1));
    assert!(run(Some(PASSPHRASE), &["passphrase", "--new-passphrase-file", file]).status.success());
    assert!(run(None, &["history", "--passphrase-file", file]).status.success());
    assert_eq!(run(Some(PASSPHRASE), &["history"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_not_removed_while_its_case_is_open() {
    let scene = Scene::new(&["--resources", "5", "--attachments", "0"]).await;
    scene.wallet("wallet", &["gender"]);
    scene.ends("wallet", 1, &["migrate", "--from", A, "--to", B, "--yes", "--wait", "2s"]);
    let (_, said) = scene.ends("wallet", 1, &["remove", "--yes"]);
    assert!(said.contains("still open"), "{said}");
    assert!(scene.path("wallet").exists());
    scene.patient("wallet", &["stop"]);
    let (_, said) = scene.ends("wallet", 2, &["remove"]);
    assert!(said.contains("--yes"), "{said}");
    scene.patient("wallet", &["remove", "--yes"]);
    assert!(!scene.path("wallet").exists() && !scene.path("wallet.lock").exists());
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_stay_is_shown_before_anything_is_signed() {
    let scene = Scene::new(&["--resources", "40", "--attachments", "0"]).await;
    scene.wallet("wallet", &[]);
    let all = scene.patient("wallet", &["preview", "--at", A, "--to", B]);
    let count = |view: &Value, name: &str, what: &str| view["types"][name][what].as_u64().unwrap_or(0);
    assert!(count(&all, "Condition", "held") > 1 && count(&all, "Condition", "held_bytes") > 100, "{all}");
    assert_eq!(count(&all, "Condition", "held"), count(&all, "Condition", "moves"));
    assert_eq!((&all["warnings"], &all["hidden"]), (&json!([]), &json!([])));
    assert_eq!((&all["destination"]["hospital"], &all["destination"]["fits"]), (&json!(B), &json!(true)));
    assert!(all["stream_bytes"].as_u64().unwrap() <= all["largest_bytes"].as_u64().unwrap());

    // Some condition is still named by something that travels.
    let conditions = scene.patient("wallet", &["items", "--at", "hospital-a", "Condition"]);
    let items = conditions["items"].as_array().unwrap().clone();
    assert_eq!((items.len() as u64, &conditions["more"]), (count(&all, "Condition", "held"), &json!(false)));
    assert!(items.iter().all(|item| item["title"].is_string()), "a person recognises them: {conditions}");
    let names: Vec<&str> = items.iter().map(|item| item["item"].as_str().unwrap()).collect();
    let hides: Vec<&str> = names.iter().flat_map(|name| ["--hide", name]).collect();
    let hidden = scene.patient("wallet", &[&["preview", "--at", A][..], &hides].concat());
    let mentioned = hidden["hidden"].as_array().unwrap().iter().find(|h| h["mentioned_total"].as_u64() > Some(0));
    let name = mentioned.expect("some condition is mentioned elsewhere")["item"].as_str().unwrap().to_owned();
    let one = scene.patient("wallet", &["preview", "--at", A, "--hide", &name]);
    assert_eq!(count(&one, "Condition", "moves") + 1, count(&all, "Condition", "moves"));
    assert_eq!(one["types"]["Condition"]["stays"]["hidden"], 1);
    let said = scene.text("wallet", &["preview", "--at", A, "--hide", &name, "--hide", "Condition/none-such"]);
    assert!(said.contains(&format!("Hidden: {name} - STILL MENTIONED in")), "{said}");
    assert!(said.contains("holds no such item"), "{said}");
    assert!(said.contains("NOT looked into: pictures, PDF"), "{said}");
    let first = &one["hidden"][0]["mentions"][0];
    assert!(["reference", "code", "text"].contains(&first["found"].as_str().unwrap()), "{one}");
    assert!(!first["at"].as_str().unwrap().is_empty() && one["not_searched"].as_array().unwrap().len() > 2, "{one}");

    // An allergy is not left behind by the way.
    let allergies = scene.patient("wallet", &["items", "--at", A, "AllergyIntolerance", "--most", "1"]);
    assert_eq!((allergies["items"].as_array().unwrap().len(), &allergies["more"]), (1, &json!(true)));
    let allergy = allergies["items"][0]["item"].as_str().unwrap();
    let warned = scene.patient("wallet", &["preview", "--at", A, "--hide", allergy]);
    assert_eq!(warned["warnings"], json!([{ "type": "AllergyIntolerance", "count": 1 }]));
    let migrate = ["migrate", "--from", A, "--to", B, "--yes", "--hide"];
    let (_, said) = scene.ends("wallet", 1, &[&migrate[..], &[allergy]].concat());
    assert!(said.contains("1 AllergyIntolerance") && said.contains("--withhold-safety"), "{said}");
    // A mistyped item would move, and its owner would believe that it stayed.
    let (_, said) = scene.ends("wallet", 1, &[&migrate[..], &[&name, "--hide", "Condition/none-such"]].concat());
    assert!(said.contains("holds no such item of yours to hide: Condition/none-such"), "{said}");
    assert!(said.contains("waybill patient items"), "{said}");
    assert_eq!(scene.patient("wallet", &["history"]), json!([]));

    let moved = scene.patient("wallet", &[&migrate[..], &[name.as_str()]].concat());
    assert_eq!((&moved["outcome"], &moved["hidden"]), (&json!("filed"), &json!([name])));
    assert_eq!((&moved["hide_not_held"], &moved["hide_unconfirmed"]), (&json!([]), &json!([])));
    let reasons = moved["receipt"]["reasons"].as_array().unwrap();
    // The destination knows that something was kept back, never why; that is what the source had said.
    assert!(reasons.contains(&json!({ "outcome": "withheld", "reason": "withheld", "count": 1 })), "{moved}");
    assert_eq!(moved["foretold"], json!([{ "type": "Condition", "reason": "hidden", "count": 1 }]));
    let receipt = scene.patient("wallet", &["receipt"]);
    assert_eq!(receipt["looked"]["unknown"], json!([]));
    let looked = receipt["looked"]["entries"].as_array().unwrap();
    for at in [A, B] {
        assert!(looked.iter().any(|look| look["at"] == at && look["case"] == moved["proof"]), "{receipt}");
    }
    let (_, said) = scene.ends("wallet", 2, &["items", "--at", A, "Diagnosis"]);
    assert!(said.contains("no FHIR resource type"), "{said}");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_decides_within_the_limits_of_the_key_and_no_further() {
    let scene = Scene::new(&["--resources", "40", "--attachments", "0"]).await;
    let network = scene.path("network.toml");
    scene.patient("child", &["init", "--network", network.to_str().unwrap()]);
    let wish = json!({
        "local": scene.local, "relation": "guardian", "scope": "types=Immunization;labels=*", "destinations": [B], "key_days": 30,
    });
    scene.patient("child", &["enrol", &scene.limited_code("hospital-a", &wish).await]);
    let at_b = scene.arrive_at_b(&[]);
    scene.patient("child", &["enrol", &scene.code("hospital-b", &at_b)]);
    let hospitals = scene.patient("child", &["hospitals"]);
    assert_eq!(hospitals[0]["relation"], "guardian");
    assert_eq!(hospitals[0]["limits"]["destinations"], json!([B]));
    assert!(hospitals[0]["limits"]["scope"].as_str().unwrap().starts_with("types=Immunization;"), "{hospitals}");
    let (_, said) = scene.ends("child", 1, &["migrate", "--from", A, "--to", B, "--yes", "--withhold-safety"]);
    assert!(said.contains("may decide only for types=Immunization") && said.contains("narrower --scope"), "{said}");
    assert_eq!(scene.patient("child", &["history"]), json!([]));
    let scope = "types=Immunization;labels=*";
    let args = ["migrate", "--from", A, "--to", B, "--scope", scope, "--yes", "--withhold-safety"];
    let moved = scene.patient("child", &args);
    assert_eq!(moved["outcome"], "filed");
    assert!(moved["receipt"]["types"].as_array().unwrap().iter().all(|t| t["type"] == "Immunization"), "{moved}");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_wallet_is_struck_out_at_the_counter_and_a_new_one_goes_on() {
    let scene = Scene::new(&["--resources", "10", "--attachments", "0"]).await;
    scene.wallet("stolen", &["gender"]);
    let migrate = ["migrate", "--from", A, "--to", B, "--yes", "--wait", "4s"];
    let (open, _) = scene.ends("stolen", 1, &migrate);
    let admin = scene.network.admin("hospital-a");
    let path = format!("/patients/{}/keys", scene.local);
    let withdrawn: Value = admin.post(&format!("{path}/withdraw"), &json!({ "reason": "stolen" })).await.unwrap();
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["stopped_cases"]), (&json!(1), &json!([open["proof"]])));
    let (ended, _) = scene.ends("stolen", 1, &["watch", "1", "--wait", "60s"]);
    assert!(["revoked", "refused"].contains(&ended["outcome"].as_str().unwrap()), "{ended}");

    // The same person with a new wallet: other keys, another pseudonym, the same local patient.
    let network = scene.path("network.toml");
    scene.patient("fresh", &["init", "--network", network.to_str().unwrap()]);
    scene.patient("fresh", &["enrol", &scene.code("hospital-a", &scene.local)]);
    scene.patient("fresh", &["enrol", &scene.code("hospital-b", "at-b")]);
    let keys: Value = admin.read(&path).await.unwrap();
    assert_eq!(keys.as_array().unwrap().len(), 1, "the old key is gone: {keys}");
    let (open, _) = scene.ends("fresh", 1, &migrate);
    let proof = open["proof"].as_str().unwrap();
    scene.staff("hospital-a", &["approve", "HOME", proof]);
    assert_eq!(scene.patient("fresh", &["watch"])["outcome"], "filed");
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_another_wallet_asked_for_is_told_aloud() {
    let scene = Scene::new(&["--resources", "10", "--attachments", "0"]).await;
    scene.wallet("mine", &[]);
    let migrate = ["migrate", "--from", A, "--to", B, "--yes"];
    let mine = scene.patient("mine", &migrate);
    let before = scene.patient("mine", &["disclosures"]);
    assert_eq!((&before["not_asked_for"], &before["unknown"]), (&json!([]), &json!([])));

    // A registrar who is not honest gives somebody else codes for the same patient.
    let network = scene.path("network.toml");
    scene.patient("thief", &["init", "--network", network.to_str().unwrap()]);
    scene.patient("thief", &["enrol", &scene.code("hospital-a", &scene.local)]);
    scene.patient("thief", &["enrol", &scene.code("hospital-b", "at-b")]);
    let stolen = scene.patient("thief", &migrate);
    assert_eq!(stolen["outcome"], "filed");

    // The receipt of a case that was over long before tells of it, and so does the list.
    let receipt = scene.patient("mine", &["receipt"]);
    let entries = receipt["looked"]["entries"].as_array().unwrap();
    assert!(entries.iter().all(|look| look["case"] == mine["proof"] || look["case"].is_null()), "{receipt}");
    let list = scene.patient("mine", &["disclosures"]);
    for told in [&receipt["looked"]["not_asked_for"], &list["not_asked_for"]] {
        let told = told.as_array().unwrap();
        for (at, with, action) in [(A, B, "record-sent"), (B, A, "record-received")] {
            let case = told.iter().find(|case| case["at"] == at).unwrap_or_else(|| panic!("{at}: {told:?}"));
            assert_eq!((&case["case"], &case["transferred"]), (&stolen["proof"], &json!(true)));
            assert_eq!(case["counterpart"], with);
            assert!(case["actions"].as_array().unwrap().contains(&json!(action)), "{case}");
        }
        assert_eq!(told.len(), 2);
    }
    let times: Vec<_> =
        list["hospitals"][0]["entries"].as_array().unwrap().iter().map(|e| e["number"].as_u64()).collect();
    assert!(times.len() > 5 && times.is_sorted_by(|a, b| a > b), "newest first: {times:?}");
    assert_eq!(list["hospitals"][0]["older"], 0);
    for args in [&["receipt", "--print"][..], &["disclosures", "--at", "hospital-a"]] {
        let said = scene.text("mine", args);
        assert!(said.contains("RECORD MOVED, NOT ASKED FOR BY THIS WALLET"), "{said}");
    }
    scene.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_that_staff_stopped_says_which_hospitals_staff() {
    let scene = Scene::new(&["--resources", "5", "--attachments", "0"]).await;
    scene.wallet("wallet", &["gender"]);
    for (number, at, hospital) in [("1", A, "hospital-a"), ("2", B, "hospital-b")] {
        let (open, _) = scene.ends("wallet", 1, &["migrate", "--from", A, "--to", B, "--yes", "--wait", "4s"]);
        let proof = open["proof"].as_str().unwrap();
        scene.staff(hospital, &["abort", "HOME", proof, "--reason", "a mistake"]);
        let (ended, _) = scene.ends("wallet", 1, &["watch", number, "--wait", "60s"]);
        assert!(["revoked", "refused"].contains(&ended["outcome"].as_str().unwrap()), "{ended}");
        assert_eq!((&ended["code"], &ended["stopped_by"]), (&json!("stopped-by-staff"), &json!(at)), "{ended}");
        let receipt = scene.patient("wallet", &["receipt", "--offline"]);
        assert_eq!((&receipt["code"], &receipt["stopped_by"]), (&json!("stopped-by-staff"), &json!(at)), "it is kept");
    }
    scene.network.stop();
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "init",
        "enrol",
        "hospitals",
        "preview",
        "items",
        "migrate",
        "status",
        "watch",
        "stop",
        "receipt",
        "disclosures",
        "history",
        "evidence",
        "recover",
        "paper",
        "remove",
        "passphrase",
    ] {
        let output = std::process::Command::new(program()).args(["patient", command, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("--wallet") && text.len() > 400, "{command}: {text}");
    }
    let output = waybill(["patient", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["Lost the wallet", "Stolen", "Exit codes", "WAYBILL_PASSPHRASE"] {
        assert!(text.contains(part), "{part}");
    }
}
