//! What goes wrong at the command line, and what is said about it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::{program, sample, stderr, waybill};
use serde_json::Value;
use waybill_cli::demo::children::{Servant, Tie, stop_all};
use waybill_cli::{authority, relay};

#[test]
fn what_makes_no_sense_ends_with_two_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let record = sample(folder.path(), &["--resources", "5", "--attachments", "0"]);
    let record = record.to_str().unwrap();
    for (args, said) in [
        (vec!["demo", "--record", "/nowhere.json"], "does not exist"),
        (vec!["demo", "--record", record, "--scope", "types=Imunization"], "did you mean `Immunization`"),
        (vec!["demo", "--scope", "since=2015"], "unknown clause"),
        (vec!["demo", "--context", record], "--record"),
        (vec!["hospital", "case", "/tmp", "zz"], "64 hex digits"),
        (vec!["verify", record], "root certificate is required"),
        (vec!["sample", record, "--patients", "0"], "--patients"),
    ] {
        let output = waybill(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_in_the_way_ends_with_three_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let record = sample(folder.path(), &["--resources", "5"]);
    let before = std::fs::read(&record).unwrap();
    assert_eq!(waybill(["sample", record.to_str().unwrap()]).status.code(), Some(3));
    assert_eq!(std::fs::read(&record).unwrap(), before);
    let desk = folder.path().join("authority");
    let init = ["authority", "init", desk.to_str().unwrap(), "--name", "authority.example"];
    assert_eq!(waybill(init).status.code(), Some(0));
    let key = std::fs::read(desk.join("root/root.key")).unwrap();
    let again = waybill(init);
    assert_eq!(again.status.code(), Some(3), "{}", stderr(&again));
    assert!(stderr(&again).contains("exists already"), "{}", stderr(&again));
    assert_eq!(std::fs::read(desk.join("root/root.key")).unwrap(), key);
    let output = waybill(["hospital", "cases", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("is the server running"), "{}", stderr(&output));
    let output = waybill(["relay", "serve", "--config", "/nowhere/relay.toml"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_revocation_list_grows_by_certificates_of_ours_only() {
    let folder = tempfile::tempdir().unwrap();
    let desk = folder.path().join("authority");
    authority::make_keys(&desk, "authority.example").unwrap();
    authority::issue_service(&desk, "authority.example", "relay.example", &folder.path().join("relay")).unwrap();
    let certificate = folder.path().join("relay/tls.pem");
    let first = authority::renew_crl(&desk, "authority.example", std::slice::from_ref(&certificate), None).unwrap();
    let again = authority::renew_crl(&desk, "authority.example", &[certificate], None).unwrap();
    assert_eq!((first, again), ((2, 1), (3, 1)));
    let other = folder.path().join("other");
    authority::make_keys(&other, "other.example").unwrap();
    assert!(authority::renew_crl(&desk, "authority.example", &[other.join("online/tls.pem")], None).is_err());
    assert_eq!(authority::renew_crl(&desk, "authority.example", &[], None).unwrap(), (4, 1));
}

#[test]
fn a_supervised_server_ends_with_its_parent_and_a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let desk = folder.path().join("authority");
    authority::make_keys(&desk, "authority.example").unwrap();
    let serve = |name: &str, listen: &str| {
        let home = folder.path().join(name);
        authority::issue_service(&desk, "authority.example", "relay.example", &home).unwrap();
        let config = relay::init(&home, listen, &[]).unwrap();
        let mut command = Command::new(program());
        command.args(["relay", "serve", "--supervised", "--config"]).arg(config);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = serve("first", "127.0.0.1:0");
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["ready"], true);
    let second = serve("second", ready["listen"].as_str().unwrap()).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(stderr(&second).contains("another `listen`"), "{}", stderr(&second));
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().code(), Some(0), "the pipe closed, so it drained and ended");
}

fn run(args: &[&str]) -> Value {
    let output = waybill(["--json"].iter().chain(args));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Two members of staff attest a signed form; the second says for themselves for whom and for what.
fn attest(home: &str, patient: &str, form: &str) {
    let command = |user: &str, patient: &str, more: &[&str]| {
        let mut args = vec!["--json", "hospital", "enrol-patient", home, "--user", user, "--patient", patient];
        args.extend(["--relation", "registrar-attested", "--form", form]);
        args.extend(more);
        waybill(&args)
    };
    let read = |output: &std::process::Output| -> serde_json::Value {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let half = read(&command("anna", patient, &[]));
    let number = ["--countersign", half["attestation"].as_str().unwrap()];
    let blind = command("berta", "p-1", &["--scope", "types=Immunization", number[0], number[1]]);
    assert_eq!(blind.status.code(), Some(1));
    assert!(stderr(&blind).contains("patient, scope") && !stderr(&blind).contains(patient), "{}", stderr(&blind));
    let whole = read(&command("berta", patient, &number));
    let attested = &whole["attested"];
    assert_eq!((&attested["patient"], &attested["first"]), (&serde_json::json!(patient), &serde_json::json!("anna")));
    assert!(whole["code"].as_str().unwrap().starts_with("WAYBILL1:"));
}

#[test]
fn operators_set_up_a_network_with_commands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let start = |role: &str, home: &str| {
        let config = folder.path().join(home).join(format!("{role}.toml"));
        Servant::start(&program(), role, home, &config, &folder.path().join(format!("{home}.log")), Tie::Supervised)
            .unwrap()
    };
    let url = |servant: &Servant| format!("https://{}", servant.ready.listen.unwrap());
    let (desk, name) = (path("authority"), "authority.example");
    let log = run(&["authority", "init", &desk, "--name", name])["log"].as_str().unwrap().to_owned();
    for service in ["witness", "relay"] {
        let full = format!("{service}.example");
        run(&["authority", "issue-service", &desk, "--name", name, "--service", &full, "--into", &path(service)]);
    }
    let witness_key = run(&["witness", "init", &path("witness"), "--name", "witness.example", "--log", &log]);
    let witness_key = witness_key["key"].as_str().unwrap();
    run(&["relay", "init", &path("relay")]);
    let (witness, relay) = (start("witness", "witness"), start("relay", "relay"));
    let relay_url = url(&relay);
    let (witness_url, relay_host) = (url(&witness), relay_url.trim_start_matches("https://"));
    run(&[
        "authority",
        "configure",
        &desk,
        "--name",
        name,
        "--witness",
        &witness_url,
        witness_key,
        "--relay",
        &relay_url,
    ]);
    let authority = start("authority", "authority");
    let (home, keys, root) = (path("hospital"), path("hospital/keys"), path("authority/root.pem"));
    let made = run(&[
        "hospital",
        "init",
        &home,
        "--name",
        "hospital.example",
        "--relay",
        relay_host,
        "--authority",
        &url(&authority),
        "--authority-name",
        name,
        "--root",
        &root,
        "--log",
        &log,
        "--witness",
        witness_key,
    ]);
    let mailbox = made["mailbox"].as_str().unwrap();
    run(&["authority", "enrol-hospital", &desk, "--name", name, "--requests", &keys, "--mailbox", mailbox, "--yes"]);
    run(&["hospital", "enrol", &home, "--certificates", &keys]);
    let hospital = start("hospital", "hospital");
    let record = sample(folder.path(), &["--resources", "8", "--attachments", "0"]);
    let loaded = run(&["hospital", "import-record", &home, record.to_str().unwrap()]);
    let patient = loaded["patients"][0].as_str().unwrap();
    assert_eq!(run(&["hospital", "patients", &home]), serde_json::json!([patient]));
    let code = run(&["hospital", "enrol-patient", &home, "--patient", patient]);
    assert!(code["code"].as_str().unwrap().starts_with("WAYBILL1:"));
    assert_eq!(run(&["hospital", "cases", &home]), serde_json::json!([]));
    let out = path("record.ndjson");
    let exported = run(&["hospital", "export-record", &home, "--patient", patient, "--out", &out]);
    assert_eq!(exported["resources"].as_u64().unwrap(), std::fs::read_to_string(&out).unwrap().lines().count() as u64);
    let nobody = waybill(["hospital", "export-record", &home, "--patient", "nobody", "--out", &path("nobody.ndjson")]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!folder.path().join("nobody.ndjson").exists(), "no empty export is left behind");
    let twice = waybill(["hospital", "export-record", &home, "--patient", patient, "--out", &out]);
    assert_eq!(twice.status.code(), Some(3), "a file is in the way: {}", stderr(&twice));
    assert!(stderr(&twice).contains("not overwritten") && !stderr(&twice).contains("patients"), "{}", stderr(&twice));
    let nobody = waybill(["hospital", "keys", "list", &home, "--patient", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("no such patient"), "{}", stderr(&nobody));
    attest(&home, patient, &out);
    let clinician = waybill(["hospital", "enrol-patient", &home, "--as", "clinician", "--patient", patient]);
    assert_eq!(clinician.status.code(), Some(1));
    assert!(stderr(&clinician).contains("may not"), "{}", stderr(&clinician));
    stop_all(vec![hospital, authority, relay, witness]);
}
