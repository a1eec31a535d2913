//! A witness: remembers how far each log has come and cosigns only what extends it (C2SP tlog-witness).
//!
//! The decision is `waybill_protocol::log::witness`; this is its shell: one row a log, changed by compare-and-swap, durable before the
//! cosignature leaves.

pub mod client;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::Ed25519SecretKey;
use waybill_protocol::log::{KeyName, NoteKey, NoteKeyKind, NoteSigner};

use crate::clock::Clock;
use crate::config::{Anchored, ConfigFile, LogConfig, ServerConfig};
use crate::net::server::Drain;
use crate::net::tls::ClientAuth;
use crate::shell::{Shell, StartError};

pub use client::{Cosigner, WitnessAnswer, WitnessClient, WitnessClientError};
pub use service::{LogSeen, Witness, router};

/// The configuration file of a witness.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Where and with which certificates.
    pub server: ServerConfig,
    /// Who signs for whom.
    pub witness: WitnessKeys,
    /// Logs of the process.
    #[serde(default)]
    pub log: LogConfig,
}

/// The `[witness]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessKeys {
    /// The witness' name in cosignatures.
    pub name: String,
    /// File with the Ed25519 seed: 64 hex digits.
    pub key: PathBuf,
    /// The logs it witnesses, as C2SP verifier keys (`name+id+base64`).
    pub logs: Vec<String>,
}

impl ConfigFile for WitnessConfig {
    const FILE: &'static str = "witness.toml";
}

impl Anchored for WitnessConfig {
    fn anchor(&mut self, folder: &Path) {
        self.server.anchor(folder);
        self.witness.key = folder.join(&self.witness.key);
    }
}

/// Makes a fresh witness key in a new file (mode 0600) and returns the signer, whose public half logs must know.
///
/// Errors: an existing file is never overwritten.
pub fn create_key(path: &Path, name: &str, backend: &dyn Backend) -> Result<NoteSigner, StartError> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    backend.random(seed.as_mut());
    let failed =
        |error: std::io::Error| StartError::Config(format!("cannot write the key {}: {error}", path.display()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let text = zeroize::Zeroizing::new(hex::encode(*seed));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    signer(name, &seed)
}

/// Reads a witness key.
pub fn load_key(path: &Path, name: &str) -> Result<NoteSigner, StartError> {
    let text = std::fs::read_to_string(path)
        .map(zeroize::Zeroizing::new)
        .map_err(|error| StartError::Config(format!("cannot read the key {}: {error}", path.display())))?;
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), seed.as_mut())
        .map_err(|_| StartError::Config(format!("{} does not hold 64 hex digits", path.display())))?;
    signer(name, &seed)
}

fn signer(name: &str, seed: &[u8; 32]) -> Result<NoteSigner, StartError> {
    let name = KeyName::parse(name).map_err(|_| StartError::Config(format!("`{name}` is no name for a witness")))?;
    Ok(NoteSigner::new(name, NoteKeyKind::Witness, Ed25519SecretKey::from_bytes(seed)))
}

/// A witness that is bound and ready to run.
pub struct WitnessServer {
    shell: Shell,
    witness: Arc<Witness>,
    admin: Router,
    shutdown: CancellationToken,
}

impl WitnessServer {
    /// Reads the keys, opens the data folder and binds the port; `shutdown` will end it.
    pub async fn start(
        config: &WitnessConfig,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let signer = load_key(&config.witness.key, &config.witness.name)?;
        let logs = parse_logs(&config.witness.logs)?;
        let shell = Shell::open(&config.server, ClientAuth::Optional).await?;
        let witness = Arc::new(Witness::new(shell.store.clone(), backend, clock, signer, logs));
        let admin = service::admin(witness.clone());
        Ok(Self { shell, witness, admin, shutdown })
    }

    /// Adds routes to the admin socket.
    #[must_use]
    pub fn with_admin(self, routes: Router) -> Self {
        Self { admin: self.admin.merge(routes), ..self }
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.shell.address()
    }

    /// Serves until the shutdown signal, then drains.
    pub async fn run(self) -> Drain {
        self.shell.serve(router(self.witness), self.admin, self.shutdown).await
    }
}

/// Parses the configured logs; one key a log.
fn parse_logs(texts: &[String]) -> Result<BTreeMap<KeyName, NoteKey>, StartError> {
    let mut logs = BTreeMap::new();
    for text in texts {
        let bad = || StartError::Config(format!("`{text}` is not the verifier key of a log"));
        let key: NoteKey = text.parse().map_err(|_| bad())?;
        if key.kind() != NoteKeyKind::Log || logs.insert(key.name().clone(), key).is_some() {
            return Err(bad());
        }
    }
    Ok(logs)
}

/// Runs a witness until `shutdown`.
pub async fn run_witness(
    config: &WitnessConfig,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<Drain, StartError> {
    Ok(WitnessServer::start(config, backend, clock, shutdown).await?.run().await)
}
