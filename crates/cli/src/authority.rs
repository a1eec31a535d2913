//! What the authority's operator does.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use waybill_crypto::certificate::files::chain_from_pem;
use waybill_crypto::certificate::{Profile, Revoked, Serial, TrustAnchor, verify_chain_offline};
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::{self, CeremonyError, Desk, Folder};
use waybill_server::authority::{AuthorityConfig, AuthorityServer};
use waybill_server::clock::{Clock, SystemClock};
use waybill_server::files;

use crate::admin::Admin;
use crate::args::{AuthorityCommand, ServeArgs};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::serve::{self, announce, ended, start_failure};
use crate::verify;

/// The configuration file's name.
pub const CONFIG: &str = "authority.toml";
/// The list of what was revoked, beside the issuing key.
const REVOKED: &str = "issuing/revoked.json";

/// Runs a command of the authority.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: AuthorityCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        AuthorityCommand::Init { folder, name } => init(&folder, &name, console),
        AuthorityCommand::Configure { folder, name, listen, public_host, witness, quorum, relay } => {
            let witnesses = witness.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            let settings = Settings {
                name,
                listen: listen.to_string(),
                public_hosts: public_host,
                witnesses,
                quorum,
                relays: relay,
            };
            let file = configure(&folder, &settings)?;
            console.result(&json!({ "config": file }), format!("wrote {}", file.display()));
            Ok(Exit::Success)
        }
        AuthorityCommand::IssueService { folder, name, service, into } => {
            issue_service(&folder, &name, &service, &into)?;
            console.result(
                &json!({ "service": service, "folder": into }),
                format!("{service} is certified in {}", into.display()),
            );
            Ok(Exit::Success)
        }
        AuthorityCommand::EnrolHospital { folder, name, requests, mailbox } => {
            let id = enrol_hospital(&folder, &name, &requests, &mailbox).await?;
            console.result(&json!({ "hospital": id, "mailbox": mailbox }), format!("{id} is certified and enrolled"));
            Ok(Exit::Success)
        }
        AuthorityCommand::Crl { folder, name, revoke } => {
            let (number, revoked) = renew_crl(&folder, &name, &revoke)?;
            let line =
                format!("revocation list {number} names {revoked} certificates; the running server serves it at once");
            console.result(&json!({ "number": number, "revoked": revoked }), line);
            Ok(Exit::Success)
        }
        AuthorityCommand::Serve(args) => serve(&args).await,
    }
}

fn ceremony_failure(error: CeremonyError) -> Failure {
    match error {
        CeremonyError::File(files::FileError::Exists { .. }) | CeremonyError::File(files::FileError::Io { .. }) => {
            Failure::environment("the ceremony stopped", error)
                .hint("use an empty folder, and check that it can be written")
        }
        CeremonyError::Name(_) => Failure::usage("the ceremony stopped").caused_by(error),
        other => Failure::failed("the ceremony stopped").caused_by(other),
    }
}

fn now() -> u64 {
    SystemClock.now_seconds()
}

/// Makes the authority's keys; gives the verifier key of its log.
///
/// # Errors
/// [`Failure`].
pub fn make_keys(folder: &Path, name: &str) -> Result<String, Failure> {
    let folder = Folder::new(folder);
    ceremony::init(&folder, name, &Native, now()).map_err(ceremony_failure)?;
    let signer = ceremony::log_signer(&folder, name).map_err(ceremony_failure)?;
    Ok(signer.public().to_string())
}

fn init(folder: &Path, name: &str, console: &Console) -> Result<Exit, Failure> {
    let log = make_keys(folder, name)?;
    let root = Folder::new(folder).root_certificate();
    console.say(format!("The keys of {name} are in {}.", folder.display()));
    console.say(format!("  root certificate  {} (give it to everybody, in person)", root.display()));
    console.say(format!("  log               {log}"));
    console.say(format!(
        "Take {} offline now; `issuing` belongs to the operator's desk, `online` to the server.",
        folder.join("root").display()
    ));
    console.json(&json!({ "name": name, "root": root, "log": log }));
    Ok(Exit::Success)
}

/// What goes into authority.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The authority's name.
    pub name: String,
    /// Where to listen.
    pub listen: String,
    /// Under which names others reach it.
    pub public_hosts: Vec<String>,
    /// URL and verifier key of each witness.
    pub witnesses: Vec<(String, String)>,
    /// How many must cosign.
    pub quorum: usize,
    /// Relays at which patients may be answered.
    pub relays: Vec<String>,
}

/// Writes authority.toml.
///
/// # Errors
/// [`Failure`].
pub fn configure(folder: &Path, settings: &Settings) -> Result<PathBuf, Failure> {
    let witnesses: Vec<_> = settings.witnesses.iter().map(|(url, key)| json!({ "url": url, "key": key })).collect();
    let relays: Vec<String> =
        settings.relays.iter().map(|url| if url.ends_with('/') { url.clone() } else { format!("{url}/") }).collect();
    write_config(
        &folder.join(CONFIG),
        &json!({
            "server": {
                "listen": settings.listen,
                "public_hosts": settings.public_hosts,
                "data": "data",
                "root": "root.pem",
                "certificate": "online/tls.pem",
                "key": "online/tls.key",
            },
            "authority": {
                "name": settings.name,
                "keys": ".",
                "quorum": settings.quorum,
                "witnesses": witnesses,
                "relays": relays,
            },
            "log": { "format": "json" },
        }),
    )
}

/// Writes a configuration file.
///
/// # Errors
/// [`Failure`].
pub fn write_config(file: &Path, config: &serde_json::Value) -> Result<PathBuf, Failure> {
    let text = toml::to_string_pretty(config).expect("the configuration is tables, texts and numbers");
    files::write_public(file, text.as_bytes())
        .map_err(|e| Failure::environment("the configuration cannot be written", e))?;
    Ok(file.to_owned())
}

/// Makes key and certificate of a relay or witness, with the root beside them.
///
/// # Errors
/// [`Failure`].
pub fn issue_service(folder: &Path, name: &str, service: &str, into: &Path) -> Result<(), Failure> {
    let folder = Folder::new(folder);
    let desk = Desk::open(&folder, name, &Native).map_err(ceremony_failure)?;
    desk.certify_service(service, into, now()).map_err(ceremony_failure)?;
    copy(&folder.root_certificate(), &into.join("root.pem"))
}

/// Copies a public file.
///
/// # Errors
/// [`Failure`].
pub fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|e| Failure::environment(format!("cannot copy {} to {}", from.display(), to.display()), e))
}

/// Certifies a hospital and enters it into the running authority's registry; gives its name.
///
/// # Errors
/// [`Failure`].
pub async fn enrol_hospital(folder: &Path, name: &str, requests: &Path, mailbox: &str) -> Result<String, Failure> {
    let place = Folder::new(folder);
    let read = |file: &str| {
        files::read(&requests.join(file)).map_err(|e| Failure::environment("a certificate request cannot be read", e))
    };
    let desk = Desk::open(&place, name, &Native).map_err(ceremony_failure)?;
    let made = desk.certify_hospital(&read("tls.csr")?, &read("signing.csr")?, now()).map_err(ceremony_failure)?;
    let write = |file: &str, text: &str| {
        let written = files::write_public(&requests.join(file), text.as_bytes());
        written.map_err(|e| Failure::environment("a certificate cannot be written", e))
    };
    write("tls.pem", &made.tls)?;
    write("signing.pem", &made.signing)?;
    copy(&place.crl(), &requests.join("crl.pem"))?;
    let admin = Admin::new(folder.join("data/admin.sock"));
    let entry = json!({ "id": made.name, "mailbox": mailbox, "standing": "active" });
    admin.post::<serde_json::Value>("/hospitals", &entry).await?;
    Ok(made.name)
}

/// What was revoked so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RevokedList {
    number: u64,
    certificates: Vec<RevokedEntry>,
}

/// One revoked certificate.
#[derive(Debug, Serialize, Deserialize)]
struct RevokedEntry {
    serial: String,
    since: u64,
}

/// Signs a fresh revocation list that also names the given certificates; gives its number and how many it names.
///
/// # Errors
/// [`Failure`].
pub fn renew_crl(folder: &Path, name: &str, revoke: &[PathBuf]) -> Result<(u64, usize), Failure> {
    let file = folder.join(REVOKED);
    let mut list = read_revoked(&file)?;
    let anchor = verify::read_root(&Folder::new(folder).root_certificate())?;
    for path in revoke {
        let serial = serial_of(&anchor, path)?;
        if !list.certificates.iter().any(|known| known.serial == serial) {
            list.certificates.push(RevokedEntry { serial, since: now() });
        }
    }
    list.number += 1;
    let revoked = list.certificates.iter().map(to_revoked).collect::<Result<Vec<_>, _>>()?;
    let text = serde_json::to_vec_pretty(&list).expect("numbers and hex are JSON");
    // First the intent, then the signature: a number is never used twice.
    files::write_public(&file, &text)
        .map_err(|e| Failure::environment("the list of revoked certificates cannot be written", e))?;
    let desk = Desk::open(&Folder::new(folder), name, &Native).map_err(ceremony_failure)?;
    desk.renew_crl(&revoked, list.number, now()).map_err(ceremony_failure)?;
    Ok((list.number, revoked.len()))
}

/// The serial number of one of our own certificates, whatever it is for.
fn serial_of(anchor: &TrustAnchor, path: &Path) -> Result<String, Failure> {
    let text = files::read(path).map_err(|e| Failure::environment("a certificate cannot be read", e))?;
    let refused = || Failure::usage(format!("{} is not a certificate chain of this authority", path.display()));
    let chain = chain_from_pem(&text).map_err(|_| refused())?;
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let profiles = [Profile::HospitalTls, Profile::HospitalSigning, Profile::ServiceTls, Profile::ProofSigning];
    let verified =
        profiles.into_iter().find_map(|profile| verify_chain_offline(&Native, anchor, &chain, profile, now()).ok());
    verified.map(|certificate| hex::encode(certificate.serial.0)).ok_or_else(refused)
}

fn to_revoked(entry: &RevokedEntry) -> Result<Revoked, Failure> {
    let serial = hex::decode(&entry.serial).ok().and_then(|bytes| bytes.try_into().ok());
    let serial = serial
        .ok_or_else(|| Failure::failed("the list of revoked certificates holds something else than serial numbers"))?;
    Ok(Revoked { serial: Serial(serial), at: entry.since })
}

fn read_revoked(file: &Path) -> Result<RevokedList, Failure> {
    if !file.exists() {
        // `init` signed number 1.
        return Ok(RevokedList { number: 1, certificates: Vec::new() });
    }
    let text =
        files::read(file).map_err(|e| Failure::environment("the list of revoked certificates cannot be read", e))?;
    serde_json::from_slice(&text).map_err(|e| Failure::environment(format!("{} does not read back", file.display()), e))
}

async fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    let (config, run) = serve::prepare::<AuthorityConfig>(args, |config| &config.log)?;
    let admin = config.server.admin_socket();
    let server = AuthorityServer::start(&config, run.backend, run.meter, run.clock, run.shutdown)
        .await
        .map_err(start_failure)?;
    announce(Some(server.address()), &admin);
    Ok(ended(server.run().await))
}
