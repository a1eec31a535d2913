//! What a relay's operator does.

use std::path::{Path, PathBuf};

use serde_json::json;
use waybill_server::config::ConfigFile;
use waybill_server::costs;
use waybill_server::files;
use waybill_server::relay::{Relay, RelayConfig, Waiting};

use crate::admin::Admin;
use crate::args::{RelayCommand, ServeArgs};
use crate::authority::write_config;
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::serve::{self, announce, ended, start_failure};
use crate::witness::service_table;

/// The configuration file's name.
pub const CONFIG: &str = RelayConfig::FILE;

/// Runs a command of a relay.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: RelayCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        RelayCommand::Init { folder, listen, public_host } => {
            let file = init(&folder, &listen.to_string(), &public_host)?;
            console.result(&json!({ "config": file }), format!("wrote {}", file.display()));
            Ok(Exit::Success)
        }
        RelayCommand::Serve(args) => serve(&args).await,
        RelayCommand::Status { folder } => {
            let waiting: Waiting = Admin::new(folder.join("data/admin.sock")).read("/waiting").await?;
            let Waiting { mailboxes, messages, blobs, object_bytes } = &waiting;
            let line =
                format!("{mailboxes} mailboxes; {messages} messages and {blobs} blobs wait, {object_bytes} bytes");
            console.result(&waiting, line);
            Ok(Exit::Success)
        }
    }
}

/// Writes relay.toml.
///
/// # Errors
/// [`Failure`].
pub fn init(folder: &Path, listen: &str, public_hosts: &[String]) -> Result<PathBuf, Failure> {
    files::make_folder(folder).map_err(|e| Failure::environment("the folder cannot be made", e))?;
    let config = json!({ "server": service_table(listen, public_hosts), "log": { "format": "json" } });
    write_config(&folder.join(CONFIG), &config)
}

async fn serve(args: &ServeArgs) -> Result<Exit, Failure> {
    let (config, run) = serve::prepare::<RelayConfig>(args, |config| &config.log)?;
    let admin = config.server.admin_socket();
    let server = Relay::start(&config, run.backend, run.clock, run.shutdown).await.map_err(start_failure)?;
    let server = server.with_admin(costs::router(run.meter, Vec::new()));
    announce(Some(server.address()), &admin);
    Ok(ended(server.run().await))
}
