//! What is done at a hospital: set up, run, load and export here; what its staff decides in [`staff`].

mod cases;
mod staff;

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use serde_json::{Value, json};
use waybill_crypto::native::Native;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::patient::Enrolment;
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::from_cbor;
use waybill_server::clock::{Clock as _, SystemClock};
use waybill_server::files;
use waybill_server::hospital::{self, HospitalConfig, HospitalServer, key_change};
use waybill_server::mailbox::{MailboxId, MailboxUrl};

use crate::admin::{Admin, member};
use crate::args::{AtHospital, HospitalCommand, ServeArgs};
use crate::authority::{self, copy, write_config};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::inputs;
use crate::network_file::NetworkFile;
use crate::serve::{self, announce, start_failure};

/// The configuration file's name.
pub const CONFIG: &str = "hospital.toml";
/// Largest enrolment code in hex. Units: bytes.
const MAX_ENROLMENT_BYTES: usize = 4096;

/// Runs a command of a hospital.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: HospitalCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        HospitalCommand::Init {
            folder,
            name,
            network,
            relay,
            authority,
            authority_name,
            root,
            log,
            witness,
            quorum,
        } => {
            let (settings, root) = match network {
                Some(file) => Settings::of_network(name, &NetworkFile::read(&file)?, relay, quorum),
                None => {
                    let root = root.unwrap_or_default();
                    let pem = files::read(&root)
                        .map_err(|e| Failure::environment("the root certificate cannot be read", e))?;
                    let settings = Settings {
                        name,
                        relay: relay.unwrap_or_default(),
                        authority: authority.unwrap_or_default(),
                        authority_name: authority_name.unwrap_or_default(),
                        log: log.unwrap_or_default(),
                        witnesses: witness,
                        quorum: quorum.unwrap_or(1),
                    };
                    (settings, String::from_utf8_lossy(&pem).into_owned())
                }
            };
            let mailbox = init_with_root(&folder, &settings, &root)?;
            console.say(format!("Keys and requests are in {}. For the authority:", folder.join("keys").display()));
            console.say(format!("  tls.csr, signing.csr\n  mailbox {mailbox}"));
            let thumbprints = show_thumbprints(&folder.join("keys"), console)?;
            console.json(&json!({
                "name": settings.name, "requests": folder.join("keys"), "mailbox": mailbox, "thumbprints": thumbprints,
            }));
            Ok(Exit::Success)
        }
        HospitalCommand::Enrol { at, certificates } => {
            enrol(&at.folder, &certificates)?;
            console.result(
                &json!({ "enrolled": true }),
                "the certificates are in place; start the hospital with `hospital serve`",
            );
            Ok(Exit::Success)
        }
        HospitalCommand::ChangeKeys { folder } => {
            let requests = change_keys(&folder)?;
            console.say(format!("New keys and requests are in {}. For the authority:", requests.display()));
            console.say("  tls.csr, signing.csr; then `hospital enrol` with that folder, and start the server again");
            let thumbprints = show_thumbprints(&requests, console)?;
            console.json(&json!({ "requests": requests, "thumbprints": thumbprints }));
            Ok(Exit::Success)
        }
        HospitalCommand::Serve(args) => serve(&args).await,
        HospitalCommand::ImportRecord { at, paths, context } => import(&at, &paths, context, console).await,
        HospitalCommand::ExportRecord { at, patient, filed_from, made_here, out } => {
            let out = absolute(&out)?;
            let lines = if made_here {
                staff::export_made_here(&at.admin(), &patient, &out).await?
            } else {
                export(&at.admin(), &patient, filed_from.as_deref(), &out).await?
            };
            console
                .result(&json!({ "resources": lines, "file": out }), format!("{lines} resources in {}", out.display()));
            Ok(Exit::Success)
        }
        HospitalCommand::Preflight { folder } => staff::preflight(&folder, console).await,
        HospitalCommand::Patients { at } => {
            let patients = patients(&at.admin()).await?;
            console.result(&patients, patients.join("\n"));
            Ok(Exit::Success)
        }
        command => staff::run(command, console).await,
    }
}

/// Shows what the authority's operator is read aloud, and gives it as JSON.
fn show_thumbprints(requests: &Path, console: &Console) -> Result<Value, Failure> {
    let thumbprints = authority::thumbprints(requests)?;
    console.say("The authority's operator sees these thumbprints; compare them in person:");
    authority::say_thumbprints(&thumbprints, *console);
    Ok(json!({ "tls": thumbprints[0].to_string(), "signing": thumbprints[1].to_string() }))
}

/// A path as the server sees it.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::usage("the name is no path").caused_by(e))
}

/// A case's id goes into a path, so it must be what it should be.
fn checked(proof: &str) -> Result<&str, Failure> {
    let plausible = proof.len() == 64 && proof.bytes().all(|b| b.is_ascii_hexdigit());
    if plausible {
        Ok(proof)
    } else {
        Err(Failure::usage("a case is named by 64 hex digits").hint("list them with `waybill hospital cases`"))
    }
}

/// What goes into hospital.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hospital's name.
    pub name: String,
    /// The relay that keeps its mailbox.
    pub relay: String,
    /// The authority's URL.
    pub authority: String,
    /// The authority's name.
    pub authority_name: String,
    /// The verifier key of its log.
    pub log: String,
    /// The verifier keys of the witnesses this hospital believes.
    pub witnesses: Vec<String>,
    /// How many of them must have cosigned.
    pub quorum: usize,
}

impl Settings {
    /// What a network file says, with the root certificate in PEM.
    fn of_network(name: String, network: &NetworkFile, relay: Option<String>, quorum: Option<usize>) -> (Self, String) {
        let settings = Self {
            name,
            relay: relay.unwrap_or_else(|| network.relay.clone()),
            authority: network.url.clone(),
            authority_name: network.name.clone(),
            log: network.log.clone(),
            witnesses: network.witnesses.clone(),
            quorum: quorum.unwrap_or(network.quorum),
        };
        (settings, network.root.clone())
    }
}

/// Makes keys, requests and hospital.toml; gives the mailbox' URL.
///
/// # Errors
/// [`Failure`]; no existing key is overwritten.
pub fn init(folder: &Path, settings: &Settings, root: &Path) -> Result<String, Failure> {
    let pem = files::read(root).map_err(|e| Failure::environment("the root certificate cannot be read", e))?;
    init_with_root(folder, settings, &String::from_utf8_lossy(&pem))
}

fn init_with_root(folder: &Path, settings: &Settings, root: &str) -> Result<String, Failure> {
    let keys = folder.join("keys");
    hospital::init(&keys, &settings.name, &Native).map_err(start_failure)?;
    files::write_public(&keys.join("root.pem"), root.as_bytes())
        .map_err(|e| Failure::environment("the root certificate cannot be written", e))?;
    let key = files::read_signing_key(&keys.join("mailbox.key"))
        .map_err(|e| Failure::environment("the mailbox key cannot be read", e))?;
    let mailbox = MailboxUrl::new(&settings.relay, MailboxId::of(key.public()));
    let mailbox =
        mailbox.map_err(|e| Failure::usage(format!("`{}` is not a relay's host", settings.relay)).caused_by(e))?;
    write_config(
        &folder.join(CONFIG),
        &json!({
            "hospital": {
                "name": settings.name,
                "keys": "keys",
                "data": "data",
                "one_time": "one-time",
                "mailbox": mailbox.to_string(),
                "relays": [format!("https://{}/", settings.relay)],
            },
            "authority": {
                "name": settings.authority_name,
                "url": settings.authority,
                "root": "keys/root.pem",
                "log": settings.log,
                "witnesses": settings.witnesses,
                "quorum": settings.quorum,
            },
            "log": { "format": "json" },
        }),
    )?;
    Ok(mailbox.to_string())
}

/// The hospital's name, as its configuration has it.
fn name_of(folder: &Path) -> Result<String, Failure> {
    let config: HospitalConfig = waybill_server::config::load(&folder.join(CONFIG))
        .map_err(|e| Failure::usage("the hospital's configuration cannot be used").caused_by(e))?;
    Ok(config.hospital.name)
}

/// Makes new keys and requests beside the old; gives the folder of the requests.
///
/// # Errors
/// [`Failure`]; keys of an unfinished change are not overwritten.
pub fn change_keys(folder: &Path) -> Result<PathBuf, Failure> {
    key_change::prepare(&folder.join("keys"), &name_of(folder)?, &Native).map_err(start_failure)
}

/// Takes the chains that the authority gave back; with new keys beside them, these as well.
///
/// # Errors
/// [`Failure`].
pub fn enrol(folder: &Path, certificates: &Path) -> Result<(), Failure> {
    let keys = folder.join("keys");
    if key_change::is_prepared(&keys) {
        for file in ["tls.pem", "signing.pem"] {
            let (from, to) = (certificates.join(file), keys.join("next").join(file));
            if from != to && from.exists() {
                copy(&from, &to)?;
            }
        }
        let ctx = Ctx { now: Timestamp(SystemClock.now_seconds()), backend: &Native };
        return key_change::adopt(&keys, &name_of(folder)?, &ctx).map_err(start_failure);
    }
    for file in ["tls.pem", "signing.pem"] {
        let (from, to) = (certificates.join(file), folder.join("keys").join(file));
        if from != to {
            copy(&from, &to)?;
        }
    }
    Ok(())
}

impl AtHospital {
    /// The hospital's admin socket, in the role and for the person asked for.
    fn admin(&self) -> Admin {
        let role = self.role.and_then(|role| role.to_possible_value()).map(|role| role.get_name().to_owned());
        // A hospital that cannot be configured cannot run either: then the usual place says that nobody listens.
        let config = waybill_server::config::load::<HospitalConfig>(&self.folder.join(CONFIG));
        let socket = config.map_or_else(|_| self.folder.join("data/admin.sock"), |config| config.admin_socket());
        Admin::new(socket).acting(role).for_user(self.user.clone())
    }
}

/// Every local patient, page by page.
async fn patients(admin: &Admin) -> Result<Vec<String>, Failure> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().map(|last| format!("?after={last}")).unwrap_or_default();
        let page: Vec<String> = admin.read(&format!("/patients{after}")).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    let (config, run) = serve::prepare::<HospitalConfig>(args, |config| &config.log)?;
    let admin = config.admin_socket();
    let server =
        HospitalServer::start(&config, run.backend, run.meter, run.clock, run.shutdown).await.map_err(start_failure)?;
    announce(None, &admin);
    server.run().await;
    Ok(Exit::Success)
}

async fn import(at: &AtHospital, paths: &[String], context: bool, console: &Console) -> Result<Exit, Failure> {
    let progress = console.progress("loading");
    let report = load(&at.admin(), &inputs::absolute(paths)?, context).await?;
    drop(progress);
    let number = |name: &str| member(&report, name).as_u64().unwrap_or(0);
    console.say(format!(
        "{} resources read, {} filed, {} held before; {} references lead nowhere; {} resources differ from what is held",
        number("read"), number("filed"), number("already_held"), number("unresolved"), number("differing"),
    ));
    for patient in member(&report, "patients").as_array().into_iter().flatten().filter_map(Value::as_str) {
        console.say(format!("patient {patient}"));
    }
    console.json(&report);
    Ok(Exit::Success)
}

/// Loads records, or with `context` shared resources, into a running hospital.
///
/// # Errors
/// [`Failure`].
pub async fn load(admin: &Admin, inputs: &[PathBuf], context: bool) -> Result<Value, Failure> {
    let kind = if context { "context" } else { "record" };
    admin.post("/load", &json!({ "inputs": inputs, "kind": kind })).await
}

/// Writes a patient's record to a new file; gives the number of resources.
///
/// # Errors
/// [`Failure`]; no existing file is overwritten.
pub async fn export(admin: &Admin, patient: &str, filed_from: Option<&str>, out: &Path) -> Result<u64, Failure> {
    let mut body = json!({ "patient": patient, "which": "held", "path": out });
    if let Some(origin) = filed_from {
        body["which"] = json!("filed");
        body["origin"] = json!(origin);
    }
    written(admin, &body, out).await
}

/// Has the server write an export to a new file.
async fn written(admin: &Admin, body: &Value, out: &Path) -> Result<u64, Failure> {
    if out.exists() {
        let there = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Failure::environment(format!("{} is not overwritten", out.display()), there)
            .hint("name a file that does not exist yet"));
    }
    let answer: Option<Value> = admin.post_found("/export", body).await?;
    let answer = answer.ok_or_else(|| {
        Failure::failed("no such patient is held here").hint("list the patients with `waybill hospital patients`")
    })?;
    Ok(member(&answer, "resources").as_u64().unwrap_or(0))
}

/// Makes a one-time enrolment code for a patient held there.
///
/// # Errors
/// [`Failure`].
pub async fn enrolment_code(admin: &Admin, local: &str, relation: &str) -> Result<Enrolment, Failure> {
    let answer: Value = admin.post("/enrolment-codes", &json!({ "local": local, "relation": relation })).await?;
    let text = member(&answer, "enrolment").as_str().unwrap_or_default();
    let decoded = hex::decode(text).ok().and_then(|bytes| from_cbor("enrolment", &bytes, MAX_ENROLMENT_BYTES).ok());
    decoded.ok_or_else(|| Failure::failed("the hospital's enrolment code does not read back"))
}
