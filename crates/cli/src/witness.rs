//! What a witness' operator does.

use std::path::Path;

use serde_json::json;
use waybill_crypto::native::Native;
use waybill_server::costs;
use waybill_server::files;
use waybill_server::witness::{WitnessConfig, WitnessServer, create_key};

use crate::args::{ServeArgs, WitnessCommand};
use crate::authority::write_config;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::serve::{self, announce, ended, start_failure};

/// The configuration file's name.
pub const CONFIG: &str = "witness.toml";

/// Runs a command of a witness.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: WitnessCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        WitnessCommand::Init { folder, name, log, listen } => {
            let key = init(&folder, &name, &log, &listen.to_string())?;
            console.say(format!(
                "The witness' verifier key, for the authority and for everybody who trusts this witness:\n{key}"
            ));
            console.json(&json!({ "name": name, "key": key, "config": folder.join(CONFIG) }));
            Ok(Exit::Success)
        }
        WitnessCommand::Serve(args) => serve(&args).await,
    }
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
