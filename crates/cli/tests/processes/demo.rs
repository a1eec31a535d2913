//! Whole migrations over real sockets with the real processes.

use std::path::Path;
use std::time::Duration;

use crate::common::{program, sample, stderr, waybill};
use serde_json::Value;
use waybill_cli::console::Console;
use waybill_cli::demo::children::{Servant, Tie};
use waybill_cli::demo::migrate::{Files, Stageplay};
use waybill_cli::demo::network::Network;
use waybill_cli::demo::report::PatientReport;
use waybill_cli::hospital;
use waybill_cli::verify::{judge_bytes, read_root};
use waybill_crypto::lthash::RecordDigest;
use waybill_record::scope::Scope;

fn number(patient: &Value, name: &str) -> u64 {
    patient[name].as_u64().unwrap_or_else(|| panic!("{name} is no number"))
}

#[test]
fn two_patients_are_filed_byte_for_byte_and_their_evidence_bears_no_flipped_bit() {
    let folder = tempfile::tempdir().unwrap();
    let records =
        sample(folder.path(), &["--patients", "2", "--resources", "40", "--attachments", "1", "--form", "ndjson"]);
    let out = folder.path().join("out");
    let output = waybill(["demo", "--json", "--record", records.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("standard output is one JSON document");
    assert_eq!(report, serde_json::from_slice::<Value>(&std::fs::read(out.join("report.json")).unwrap()).unwrap());
    assert_eq!(report["ok"], true);
    let patients = report["patients"].as_array().unwrap();
    let filed = patients.iter().filter(|p| p["outcome"] == "filed").count();
    assert!(filed >= 2 && filed == patients.len(), "{filed} of {}", patients.len());
    for patient in patients {
        assert_eq!(number(patient, "offered"), number(patient, "filed") + number(patient, "quarantined"));
        let kept = number(patient, "withheld") + number(patient, "not_movable");
        assert_eq!(number(patient, "held"), number(patient, "offered") + kept);
        assert_eq!(patient["digest_source"], patient["digest_destination"]);
        assert_eq!(patient["replay"]["code"], "proof-spent");
        assert!(patient["crypto_cpu_us"].as_f64().unwrap() > patient["crypto_cpu_us_login_to_proof"].as_f64().unwrap());
        assert!(number(patient, "wire_bytes") > number(patient, "record_bytes"));
        for name in [
            "Login",
            "Delegation",
            "ProofAnswer",
            "Presentation",
            "Redeem",
            "Grant",
            "Manifest",
            "KeyRelease",
            "ImportReceipt",
        ] {
            assert!(patient["messages"].as_array().unwrap().iter().any(|m| m["name"] == name), "{name} is not listed");
        }
        let home = out.join(patient["id"].as_str().unwrap());
        let read = |name: &str| std::fs::read(home.join(name)).unwrap();
        assert_eq!(read("source.ndjson"), read("destination.ndjson"));
        assert_eq!(read("source.ndjson").iter().filter(|b| **b == b'\n').count() as u64, number(patient, "filed"));
    }
    flipped_bits_are_noticed(&out, &out.join(patients[0]["id"].as_str().unwrap()));
}

fn flipped_bits_are_noticed(out: &Path, home: &Path) {
    let good = home.join("evidence.cbor");
    let output = waybill(["verify", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bytes = std::fs::read(&good).unwrap();
    let root = read_root(&out.join("authority-root.pem")).unwrap();
    let step = (bytes.len() / 300).max(1);
    for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let verdict = judge_bytes(&bad, &root, None);
        assert!(!verdict.holds && verdict.failed_check.is_some(), "byte {at} was flipped and the evidence still holds");
    }
    let file = home.join("flipped.cbor");
    for at in [5, bytes.len() / 2, bytes.len() - 2] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        std::fs::write(&file, bad).unwrap();
        let output =
            waybill(["verify", file.to_str().unwrap(), "--root", out.join("authority-root.pem").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "byte {at}");
        assert!(stderr(&output).contains("check `"), "the failed check is named: {}", stderr(&output));
    }
    assert_eq!(waybill(["verify", "--root", good.to_str().unwrap(), good.to_str().unwrap()]).status.code(), Some(3));
}

struct Stage {
    network: Network,
    folder: tempfile::TempDir,
    patient: String,
}

/// A network whose hospital A holds one generated patient.
async fn stage(options: &[&str]) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let record = sample(folder.path(), options);
    let work = folder.path().join("network");
    let network = Network::start(&program(), &work, Tie::Supervised, &mut |_| {}).await.unwrap();
    let loaded = hospital::load(&network.admin("hospital-a"), &[record], false).await.unwrap();
    let patient = loaded["patients"][0].as_str().unwrap().to_owned();
    Stage { network, folder, patient }
}

impl Stage {
    async fn migrate(&self, scope: &str, index: usize) -> PatientReport {
        let files = Files { folder: self.folder.path().join(format!("files-{index}")), kept: true };
        std::fs::create_dir(&files.folder).unwrap();
        let scope: Scope = scope.parse().unwrap();
        let (root, console) = (read_root(&self.network.root()).unwrap(), Console::new(true));
        let policy = self.network.policy().unwrap();
        let play = Stageplay {
            network: &self.network,
            scope: &scope,
            root: &root,
            policy: &policy,
            console: &console,
            verbose: false,
        };
        let report = play.migrate(&self.patient, index, &files).await;
        assert!(report.is_good(), "{:?} {:?}", report.complaint(), report.invariants);
        report
    }
}

fn digest(state: &str) -> RecordDigest {
    RecordDigest::from_bytes(&hex::decode(state).unwrap().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_and_the_rest_add_up_to_the_whole() {
    let stage = stage(&["--resources", "60", "--attachments", "1"]).await;
    let part = stage.migrate("types=Observation,Condition;labels=*", 0).await;
    let rest = stage.migrate("types=!Observation,!Condition;labels=*", 1).await;
    assert!(part.offered > 0 && rest.offered > 0 && part.withheld == rest.offered && rest.withheld == part.offered);
    let mut sum = digest(&part.digest_states.scope);
    sum.combine(&digest(&rest.digest_states.scope));
    assert_eq!(hex::encode(sum.to_bytes()), part.digest_states.full);
    assert_eq!(part.digest_states.full, rest.digest_states.full);
    stage.network.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_killed_in_mid_transfer_completes_after_its_restart() {
    let mut stage = stage(&["--resources", "30", "--attachments", "24", "--attachment-bytes", "1000000"]).await;
    let work = stage.network.folder().to_owned();
    let admin = stage.network.admin("hospital-b");
    // The network gives its process away, so that it can be killed while the network is in use.
    let config = work.join("hospital-b/hospital.toml");
    stage.network.b.kill().unwrap();
    let start = || {
        Servant::start(&program(), "hospital", "hospital B", &config, &work.join("logs/b.log"), Tie::Supervised)
            .unwrap()
    };
    let mut b = start();
    let killer = async {
        loop {
            let cases: Vec<Value> = admin.read("/cases").await.unwrap();
            if let Some(proof) = cases.first().and_then(|case| case["proof"].as_str()) {
                let case: Value = admin.read(&format!("/cases/{proof}")).await.unwrap();
                let state = case["state"].as_str().unwrap().to_owned();
                if case["stage"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0) {
                    b.kill().unwrap();
                    assert_eq!(state, "receiving", "the transfer was over before it could be interrupted");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    b.restart().unwrap();
                    return state;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (report, state) = tokio::join!(stage.migrate("types=*;labels=*", 0), killer);
    assert_eq!((report.outcome.as_str(), state.as_str()), ("filed", "receiving"));
    drop(b);
    stage.network.stop();
}
