//! What a witness' operator does.

use std::path::Path;

use serde_json::json;
use waybill_crypto::native::Native;
use waybill_server::authority::ceremony::Folder;
use waybill_server::authority::desk;
use waybill_server::clock::{Clock, SystemClock};
use waybill_server::config::ConfigFile;
use waybill_server::costs;
use waybill_server::files;
use waybill_server::witness::{LogSeen, WitnessConfig, WitnessServer, create_key};

use crate::admin::Admin;
use crate::args::{ServeArgs, WitnessCommand};
use crate::authority::write_config;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::serve::{self, announce, ended, start_failure};

/// The configuration file's name.
pub const CONFIG: &str = WitnessConfig::FILE;

/// Runs a command of a witness.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: WitnessCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        WitnessCommand::Init { folder, name, log, listen } => {
            let name = name.map_or_else(|| certified_name(&folder), Ok)?;
            let key = init(&folder, &name, &log, &listen.to_string())?;
            console.say(format!(
                "The witness' verifier key, for the authority and for everybody who trusts this witness:\n{key}"
            ));
            console.json(&json!({ "name": name, "key": key, "config": folder.join(CONFIG) }));
            Ok(Exit::Success)
        }
        WitnessCommand::Serve(args) => serve(&args).await,
        WitnessCommand::Status { folder } => status(&folder, console).await,
    }
}

async fn status(folder: &Path, console: &Console) -> Result<Exit, Failure> {
    let seen: Vec<LogSeen> = Admin::new(folder.join("data/admin.sock")).read("/logs").await?;
    for log in &seen {
        console.say(format!("{} leaves, root {}\n  of {}", log.size, log.root, log.log));
    }
    console.json(&seen);
    Ok(Exit::Success)
}

/// The name in the certificate that `authority issue-service` put into a folder.
fn certified_name(folder: &Path) -> Result<String, Failure> {
    let place = Folder::new(folder);
    let leaf = desk::anchor(&place).ok().zip(files::read(&place.join("tls.pem")).ok());
    let leaf = leaf.and_then(|(anchor, pem)| desk::read_leaf(&Native, &anchor, &pem, SystemClock.now_seconds()));
    leaf.map(|leaf| leaf.subject).ok_or_else(|| {
        Failure::usage(format!("{} has no certificate to take the name from", folder.display()))
            .hint("run `waybill authority issue-service` first, or give --name")
    })
}

/// Makes the key and witness.toml; gives the verifier key.
///
/// # Errors
/// [`Failure`]; no existing key is overwritten.
pub fn init(folder: &Path, name: &str, logs: &[String], listen: &str) -> Result<String, Failure> {
    files::make_folder(folder).map_err(|e| Failure::environment("the folder cannot be made", e))?;
    let signer = create_key(&folder.join("witness.key"), name, &Native).map_err(start_failure)?;
    write_config(
        &folder.join(CONFIG),
        &json!({
            "server": service_table(listen, &[]),
            "witness": { "name": name, "key": "witness.key", "logs": logs },
            "log": { "format": "json" },
        }),
    )?;
    Ok(signer.public().to_string())
}

/// The `[server]` table of a service whose certificate lies beside its configuration.
pub(crate) fn service_table(listen: &str, public_hosts: &[String]) -> serde_json::Value {
    json!({
        "listen": listen,
        "public_hosts": public_hosts,
        "data": "data",
        "root": "root.pem",
        "certificate": "tls.pem",
        "key": "tls.key",
    })
}

async fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    let (config, run) = serve::prepare::<WitnessConfig>(args, |config| &config.log)?;
    let admin = config.server.admin_socket();
    let server = WitnessServer::start(&config, run.backend, run.clock, run.shutdown).await.map_err(start_failure)?;
    let server = server.with_admin(costs::router(run.meter, Vec::new()));
    announce(Some(server.address()), &admin);
    Ok(ended(server.run().await))
}
