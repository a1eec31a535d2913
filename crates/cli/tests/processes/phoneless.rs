//! A patient without any device: wallets are made at the hospitals' counters, and all that is taken home is paper.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::common::{program, stderr};
use crate::scene::{A, B, PASSPHRASE, Scene};

/// A counter's machine: a folder of its own, in which no wallet stays.
struct Counter<'a> {
    scene: &'a Scene,
    folder: std::path::PathBuf,
}

impl<'a> Counter<'a> {
    fn new(scene: &'a Scene, name: &str) -> Self {
        let folder = scene.path(name);
        std::fs::create_dir(&folder).unwrap();
        Self { scene, folder }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = std::process::Command::new(program());
        command.current_dir(&self.folder).arg("patient").args(args).env("WAYBILL_PASSPHRASE", PASSPHRASE);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn network(&self) -> String {
        self.scene.path("network.toml").to_str().unwrap().to_owned()
    }

    /// What the patient takes home, and what the counter must not keep.
    fn leave(&self, paper: &Path) {
        self.json(&["remove", "--yes"]);
        let left: Vec<_> = std::fs::read_dir(&self.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| Path::new(name).extension().is_some_and(|e| e == "txt")), "{left:?}");
        assert!(paper.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_with_nothing_but_paper_moves_a_record_and_takes_a_receipt_home() {
    let scene = Scene::new(&["--resources", "12", "--attachments", "0"]).await;
    let form = scene.path("form.pdf");
    std::fs::write(&form, "the patient's signed form, as scanned").unwrap();
    let sheet = scene.path("sheet.txt");
    let sheet_name = sheet.to_str().unwrap();

    // At A's counter: a wallet for the patient, registered on a form that two members of staff have seen signed.
    let at_a = Counter::new(&scene, "counter-a");
    at_a.json(&["init", "--network", &at_a.network()]);
    let registered = at_a.json(&["enrol", &scene.attested_code("hospital-a", &scene.local, &form).await]);
    assert_eq!((&registered["hospital"], &registered["relation"]), (&json!(A), &json!("registrar-attested")));
    at_a.json(&["paper", sheet_name]);
    at_a.leave(&sheet);
    let printed = std::fs::read_to_string(&sheet).unwrap();
    assert!(printed.contains("RECOVERY CODE") && printed.contains(&format!("CARD of {A}")), "{printed}");
    assert!(printed.lines().all(|line| line.chars().count() <= 100), "it can be printed");

    // Later, at B's counter, from the sheet alone.
    let at_b = Counter::new(&scene, "counter-b");
    let recovered = at_b.json(&["recover", "--network", &at_b.network(), "--code-file", sheet_name]);
    assert_eq!(recovered["hospitals"], json!([A]));
    let local = scene.arrive_at_b(&[]);
    at_b.json(&["enrol", &scene.attested_code("hospital-b", &local, &form).await]);
    let moved = at_b.json(&["migrate", "--from", A, "--to", B, "--yes"]);
    assert_eq!(moved["outcome"], "filed");
    assert_eq!(moved["receipt"]["filed"], moved["receipt"]["offered"]);
    let receipt = at_b.run(&["receipt", "--print"]);
    assert_eq!(receipt.status.code(), Some(0), "{}", stderr(&receipt));
    let page = String::from_utf8(receipt.stdout).unwrap();
    assert!(page.contains("has filed your record") && page.contains("none fails"), "{page}");
    at_b.leave(&sheet);
    scene.network.stop();
}
