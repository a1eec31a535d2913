//! A network of real processes with patients whose every step is a command.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use waybill_cli::demo::children::Tie;
use waybill_cli::demo::network::Network;
use waybill_cli::network_file::NetworkFile;
use waybill_crypto::digest::sha256;
use waybill_protocol::wire::from_cbor;
use waybill_wallet::enrolment_text;

use crate::common::{program, sample, stderr};

/// What opens every wallet of a scene.
pub const PASSPHRASE: &str = "correct horse battery";
/// Hospital A's name.
pub const A: &str = "hospital-a.example";
/// Hospital B's name.
pub const B: &str = "hospital-b.example";

/// A running network whose hospital A holds one generated patient.
pub struct Scene {
    pub network: Network,
    pub folder: tempfile::TempDir,
    /// The patient's local id at A.
    pub local: String,
}

impl Scene {
    /// Starts it; `options` are those of `waybill sample`.
    pub async fn new(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let record = sample(folder.path(), options);
        let work = folder.path().join("network");
        let network = Network::start(&program(), &work, Tie::Supervised, &mut |_| {}).await.unwrap();
        // Without the authority's mailbox, which a wallet then asks for.
        let file = NetworkFile { mailbox: None, ..network.network_file().unwrap() };
        file.write(&folder.path().join("network.toml")).unwrap();
        let mut scene = Self { network, folder, local: String::new() };
        let loaded = scene.staff("hospital-a", &["import-record", "HOME", record.to_str().unwrap()]);
        scene.local = loaded["patients"][0].as_str().unwrap().to_owned();
        scene
    }

    /// A path below the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of a hospital's staff; `HOME` stands for its folder.
    pub fn staff(&self, hospital: &str, args: &[&str]) -> Value {
        let output = self.staff_output(hospital, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, whatever becomes of it.
    pub fn staff_output(&self, hospital: &str, args: &[&str]) -> Output {
        let home = self.network.folder().join(hospital);
        let args = args.iter().map(|arg| if *arg == "HOME" { home.to_str().unwrap() } else { arg });
        Command::new(program()).args(["--json", "hospital"]).args(args).output().unwrap()
    }

    /// The one-time code of a hospital for its patient.
    pub fn code(&self, hospital: &str, local: &str) -> String {
        let made = self.staff(hospital, &["enrol-patient", "HOME", "--patient", local]);
        made["code"].as_str().unwrap().to_owned()
    }

    /// The one-time code that two members of staff attest after seeing the patient sign a form.
    pub async fn attested_code(&self, hospital: &str, local: &str, form: &Path) -> String {
        let form = hex::encode(sha256(&[&std::fs::read(form).unwrap()]).0);
        let admin = self.network.admin(hospital);
        let wish = json!({ "local": local, "relation": "registrar-attested", "form": form });
        let half: Value = admin.post("/attestations?user=first-registrar", &wish).await.unwrap();
        let number = half["attestation"].as_str().unwrap();
        let path = format!("/attestations/{number}?user=second-registrar");
        code_text(&admin.post(&path, &wish).await.unwrap())
    }

    /// The one-time code for a key with limits, as the hospital's registrar wishes it.
    pub async fn limited_code(&self, hospital: &str, wish: &Value) -> String {
        code_text(&self.network.admin(hospital).post("/enrolment-codes", wish).await.unwrap())
    }

    /// Registers the patient at B's counter as a new local patient; without what is left out, B cannot be sure who it is.
    pub fn arrive_at_b(&self, left_out: &[&str]) -> String {
        let out = self.path("at-a.ndjson");
        let _ = std::fs::remove_file(&out);
        self.staff("hospital-a", &["export-record", "HOME", "--patient", &self.local, "--out", out.to_str().unwrap()]);
        let text = std::fs::read_to_string(out).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut patient =
            lines.into_iter().find(|r| r["resourceType"] == "Patient" && r["id"] == self.local.as_str()).unwrap();
        let own = patient.as_object_mut().unwrap();
        own.retain(|name, _| {
            ["resourceType", "identifier", "name", "gender", "birthDate"].contains(&name.as_str())
                && !left_out.contains(&name.as_str())
        });
        own.insert("id".to_owned(), json!("at-b"));
        let file = self.path("at-b.json");
        std::fs::write(&file, patient.to_string()).unwrap();
        let loaded = self.staff("hospital-b", &["import-record", "HOME", file.to_str().unwrap()]);
        loaded["patients"][0].as_str().unwrap().to_owned()
    }

    /// A wallet registered at both hospitals, made by commands; gives its recovery code.
    pub fn wallet(&self, name: &str, left_out_at_b: &[&str]) -> String {
        let network = self.path("network.toml");
        let made = self.patient(name, &["init", "--network", network.to_str().unwrap()]);
        self.patient(name, &["enrol", &self.code("hospital-a", &self.local)]);
        let at_b = self.arrive_at_b(left_out_at_b);
        self.patient(name, &["enrol", &self.code("hospital-b", &at_b)]);
        made["recovery_code"].as_str().unwrap().to_owned()
    }

    /// A command of a patient, which must succeed, as JSON.
    pub fn patient(&self, wallet: &str, args: &[&str]) -> Value {
        let output = self.output(wallet, &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("standard output is one JSON document")
    }

    /// A command of a patient that must end with a code; gives its JSON (`null` for none) and standard error.
    pub fn ends(&self, wallet: &str, code: i32, args: &[&str]) -> (Value, String) {
        let output = self.output(wallet, &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        let out = &output.stdout;
        let json = if out.is_empty() { Value::Null } else { serde_json::from_slice(out).expect("one JSON document") };
        (json, stderr(&output))
    }

    /// A command of a patient, as people see it.
    pub fn text(&self, wallet: &str, args: &[&str]) -> String {
        let output = self.output(wallet, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command of a patient, whatever becomes of it.
    pub fn output(&self, wallet: &str, args: &[&str]) -> Output {
        self.command(wallet, args).output().unwrap()
    }

    /// A command of a patient that is read line by line.
    pub fn begin(&self, wallet: &str, args: &[&str]) -> Running {
        let mut child = self.command(wallet, args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines: Box::new(lines) }
    }

    fn command(&self, wallet: &str, args: &[&str]) -> Command {
        let mut command = patient_command(&self.path(wallet));
        command.args(args);
        command
    }
}

/// `waybill patient` with a wallet and its passphrase, for whom nobody sits at a terminal.
pub fn patient_command(wallet: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("patient").env("WAYBILL_WALLET", wallet).env("WAYBILL_PASSPHRASE", PASSPHRASE).stdin(Stdio::null());
    command
}

fn code_text(answer: &Value) -> String {
    let bytes = hex::decode(answer["enrolment"].as_str().unwrap()).unwrap();
    enrolment_text(&from_cbor("enrolment", &bytes, bytes.len()).unwrap())
}

/// A command under way; killed when dropped.
pub struct Running {
    child: Child,
    lines: Box<dyn BufRead>,
}

impl Running {
    /// Reads on until a line holds a text.
    pub fn until(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended before it said `{text}`");
        }
    }

    /// Kills it without warning, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
