//! What the authority's operator does.

mod enrol;
pub mod inspect;
mod log;
mod renew;
mod standing;
mod status;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::{self, CeremonyError, Folder};
use waybill_server::authority::desk::{self, Desk, read_leaf};
use waybill_server::authority::{AuthorityConfig, AuthorityServer};
use waybill_server::clock::{Clock, SystemClock};
use waybill_server::config::ConfigFile;
use waybill_server::files;

pub use self::enrol::{enrol_hospital, say_thumbprints, thumbprints};
use crate::admin::Admin;
use crate::args::{AuthorityCommand, ServeArgs};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::network_file::NetworkFile;
use crate::serve::{self, announce, ended, start_failure};

/// The configuration file's name.
pub const CONFIG: &str = AuthorityConfig::FILE;

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
                name: named(&folder, name)?,
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
        AuthorityCommand::IssueIssuing { folder, root_key } => issue_issuing(&folder, &root_key, console),
        AuthorityCommand::IssueService { folder, name, service, into } => {
            issue_service(&folder, &named(&folder, name)?, &service, &into)?;
            console.result(
                &json!({ "service": service, "folder": into }),
                format!("{service} is certified in {}", into.display()),
            );
            Ok(Exit::Success)
        }
        AuthorityCommand::EnrolHospital(args) => enrol::run(&args, console).await,
        AuthorityCommand::SuspendHospital(one) => standing::suspend(&one, console).await,
        AuthorityCommand::ResumeHospital(one) => standing::resume(&one, console).await,
        AuthorityCommand::RevokeHospital(one) => standing::revoke(&one, console).await,
        AuthorityCommand::Crl { folder, name, revoke, revoke_all_of } => {
            let (number, revoked) = renew_crl(&folder, &named(&folder, name)?, &revoke, revoke_all_of.as_deref())?;
            let line =
                format!("revocation list {number} names {revoked} certificates; the running server serves it at once");
            console.result(&json!({ "number": number, "revoked": revoked }), line);
            Ok(Exit::Success)
        }
        AuthorityCommand::Renew(args) => renew::run(&args, console).await,
        AuthorityCommand::Status { folder } => status::run(&folder, console).await,
        AuthorityCommand::Log(args) => log::run(&args, console).await,
        AuthorityCommand::Inspect(args) => inspect::run(&args, console).await,
        AuthorityCommand::Network { folder, out, relay } => network(&folder, &out, relay, console).await,
        AuthorityCommand::Backup { folder, to, with_desk } => backup(&folder, &to, with_desk, console).await,
        AuthorityCommand::Serve(args) => serve(&args).await,
    }
}

/// The authority's name: given, or as its own certificates say it.
fn named(folder: &Path, name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name),
        None => desk::authority_name(&Folder::new(folder), now()).map_err(|e| {
            ceremony_failure(e)
                .hint("run this in the authority's folder or name it; `waybill authority init` makes one")
        }),
    }
}

/// The door to the running authority of a folder.
fn admin(folder: &Path) -> Admin {
    Admin::new(folder.join("data/admin.sock"))
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

fn issue_issuing(folder: &Path, root_key: &Path, console: &Console) -> Result<Exit, Failure> {
    let place = Folder::new(folder);
    let until = ceremony::issue_issuing(&place, root_key, &Native, now()).map_err(ceremony_failure)?;
    let file = place.join("issuing/issuing.pem");
    console.say(format!("{} is good for {} days.", file.display(), (until - now()) / 86_400));
    console.say("Bring it to the desk and take the root key offline again; then, at the desk:");
    console.say("  waybill authority renew --force   certifies the online keys under it (name relay and witness with --service)");
    console.json(&json!({ "issuing": file, "until": until }));
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

/// Signs a fresh revocation list that also names the given certificates, and everything that was ever prepared for one holder; gives
/// its number and how many it names.
///
/// # Errors
/// [`Failure`].
pub fn renew_crl(folder: &Path, name: &str, revoke: &[PathBuf], all_of: Option<&str>) -> Result<(u64, usize), Failure> {
    let place = Folder::new(folder);
    let anchor = desk::anchor(&place).map_err(ceremony_failure)?;
    let mut serials = Vec::new();
    for path in revoke {
        let text = files::read(path).map_err(|e| Failure::environment("a certificate cannot be read", e))?;
        let leaf = read_leaf(&Native, &anchor, &text, now());
        serials.push(leaf.map(|leaf| leaf.serial).ok_or_else(|| {
            Failure::usage(format!(
                "{} is not a certificate chain of this authority that is still good",
                path.display()
            ))
        })?);
    }
    let desk = Desk::open(&place, name, &Native).map_err(ceremony_failure)?;
    if let Some(holder) = all_of {
        let theirs = desk.serials_of(holder).map_err(ceremony_failure)?;
        if theirs.is_empty() {
            return Err(Failure::failed(format!("this desk never certified {holder}"))
                .hint("`waybill authority status` lists whom it certified"));
        }
        serials.extend(theirs);
    }
    desk.renew_crl(&serials, now()).map_err(ceremony_failure)
}

/// Writes the file that tells hospitals and wallets whom to believe.
async fn network(folder: &Path, out: &Path, relay: Option<String>, console: &Console) -> Result<Exit, Failure> {
    let (config, url, log) = log::public_view(folder).await?;
    let first = config.authority.relays.first().map(|url| url.trim_start_matches("https://").trim_end_matches('/'));
    let relay = relay.or_else(|| first.map(str::to_owned)).unwrap_or_default();
    let root = files::read_certificate(&config.server.root);
    let root = root.map_err(|e| Failure::environment("the root certificate cannot be read", e))?;
    let file = NetworkFile {
        name: config.authority.name.clone(),
        url,
        mailbox: None,
        relay,
        log,
        witnesses: config.authority.witnesses.iter().map(|witness| witness.key.clone()).collect(),
        quorum: config.authority.quorum,
        root: NetworkFile::root_to_pem(&root)?,
    };
    file.write(out)?;
    let fingerprint = file.fingerprint()?;
    console.say(format!("wrote {}; whoever takes it compares this, in person:\n  {fingerprint}", out.display()));
    console.json(&json!({ "network": out, "fingerprint": fingerprint }));
    Ok(Exit::Success)
}

/// Copies the running authority's data, its online keys, public files and configuration.
async fn backup(folder: &Path, to: &Path, with_desk: bool, console: &Console) -> Result<Exit, Failure> {
    let cannot = |e| Failure::environment(format!("the backup in {} was not made", to.display()), e);
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty", to.display())).hint("name a new folder"));
    }
    files::make_folder(to).map_err(|e| Failure::environment("the backup's folder cannot be made", e))?;
    let data = fs::canonicalize(to).map_err(cannot)?.join("data");
    let made: waybill_server::authority::operator::BackupMade =
        admin(folder).post("/backup", &json!({ "to": data })).await?;
    for file in [CONFIG, "root.pem", "crl.pem"] {
        copy(&folder.join(file), &to.join(file))?;
    }
    let parts: &[&str] =
        if with_desk { &["online", "issuing", "issuing/intents", "issuing/issued"] } else { &["online"] };
    for part in parts {
        files::make_folder(&to.join(part)).map_err(|e| Failure::environment("the backup was not made", e))?;
        for entry in fs::read_dir(folder.join(part)).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            if entry.file_type().map_err(cannot)?.is_file() {
                // The copy has the permissions of the file: private stays private.
                copy(&entry.path(), &to.join(part).join(entry.file_name()))?;
            }
        }
    }
    console.say(format!("The backup in {} holds {} leaves and {} objects.", to.display(), made.leaves, made.objects));
    console.say(
        "It holds private keys: keep it as they are kept. It can be served only while no witness has seen more leaves.",
    );
    console.json(&json!({ "folder": to, "leaves": made.leaves, "objects": made.objects, "with_desk": with_desk }));
    Ok(Exit::Success)
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
