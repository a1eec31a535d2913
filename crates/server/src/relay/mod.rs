//! The relay: an untrusted host of mailboxes for parties that only dial out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_store::{Key, Objects, Space, Store};

use crate::clock::Clock;
use crate::config::{Anchored, ConfigFile, LogConfig, MailboxConfig, ServerConfig};
use crate::mailbox::{self, Mailboxes};
use crate::net::server::Drain;
use crate::net::tls::ClientAuth;
use crate::problem::Problem;
use crate::shell::{Shell, StartError};

/// How often what nobody fetched is swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// The configuration file of a relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Where and with which certificates.
    pub server: ServerConfig,
    /// Quotas and lifetimes.
    #[serde(default)]
    pub mailboxes: MailboxConfig,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
}

impl ConfigFile for RelayConfig {
    const FILE: &'static str = "relay.toml";
}

impl Anchored for RelayConfig {
    fn anchor(&mut self, folder: &Path) {
        self.server.anchor(folder);
    }
}

/// A relay that is bound and ready to run.
pub struct Relay {
    shell: Shell,
    mailboxes: Arc<Mailboxes>,
    admin: Router,
    shutdown: CancellationToken,
}

impl Relay {
    /// Opens the data folder and binds the port; `shutdown` will end it.
    pub async fn start(
        config: &RelayConfig,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let shell = Shell::open(&config.server, ClientAuth::Optional).await?;
        let settings = config.mailboxes.settings(shell.hosts.clone());
        let (store, objects) = (shell.store.clone(), shell.objects.clone());
        let mailboxes = Mailboxes::new(store, objects, backend, clock, settings, shutdown.clone());
        let admin = waiting(shell.store.clone(), shell.objects.clone());
        Ok(Self { shell, mailboxes, admin, shutdown })
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
        let sweeper = tokio::spawn(self.mailboxes.clone().sweep_regularly(SWEEP_INTERVAL, self.shutdown.clone()));
        let drain = self.shell.serve(mailbox::router(self.mailboxes), self.admin, self.shutdown).await;
        if let Err(error) = sweeper.await {
            tracing::error!(%error, "the sweeper failed");
        }
        drain
    }
}

/// How much waits at a relay: counts, nobody's names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages not fetched yet.
    pub messages: u64,
    /// Blobs not fetched yet.
    pub blobs: u64,
    /// Bytes of objects.
    pub object_bytes: u64,
}

/// `GET /waiting` of the admin socket.
fn waiting(store: Arc<dyn Store>, objects: Arc<dyn Objects>) -> Router {
    let count = move || {
        let (store, objects) = (store.clone(), objects.clone());
        async move {
            let all = Key::empty();
            let failed = |error: &dyn std::fmt::Display| {
                tracing::error!(%error, "the relay's state cannot be read");
                Problem::unavailable()
            };
            Ok::<_, Problem>(Json(Waiting {
                mailboxes: store.count(Space::Mailbox, &all).await.map_err(|e| failed(&e))?,
                messages: store.count(Space::Mail, &all).await.map_err(|e| failed(&e))?,
                blobs: store.count(Space::Blob, &all).await.map_err(|e| failed(&e))?,
                object_bytes: objects.total_size().await.map_err(|e| failed(&e))?,
            }))
        }
    };
    Router::new().route("/waiting", get(count))
}

/// Runs a relay until `shutdown`.
pub async fn run_relay(
    config: &RelayConfig,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<Drain, StartError> {
    Ok(Relay::start(config, backend, clock, shutdown).await?.run().await)
}

#[cfg(test)]
mod tests;
