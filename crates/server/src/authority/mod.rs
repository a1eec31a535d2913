//! The authority as a server: mailbox, engine, log, and the public pages everybody reads.

pub mod ceremony;
pub mod desk;
pub mod engine;
pub mod http;
pub mod keys;
pub mod operator;
pub mod registry;
pub mod renewal;
pub mod revoked;
pub mod sequencer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waybill_crypto::backend::Backend;
use waybill_crypto::metered::Meter;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::{CheckpointPolicy, NoteKey};
use waybill_protocol::trust::Ctx;

use crate::clock::Clock;
use crate::config::{Anchored, ConfigFile, LogConfig, MailboxConfig, ServerConfig};
use crate::costs;
use crate::mailbox::{self, LocalInbox, MailboxClient, MailboxId, MailboxUrl, Mailboxes, Quota, receive_loop};
use crate::net::client::{ClientOptions, HttpClient};
use crate::net::peer::PartyName;
use crate::net::server::Drain;
use crate::net::tls::{ClientAuth, ClientTls};
use crate::outbox::{FullMailboxes, Sender, SenderOptions};
use crate::party::{Letters, Party, deadlines, read_trust, sweep};
use crate::shell::{Shell, StartError};
use crate::witness::{Cosigner, WitnessClient};

use ceremony::Folder;
use engine::Engine;
use keys::{OnlineFiles, OnlineKeys};
use operator::Operator;
use registry::Registry;
use renewal::Renewals;
use sequencer::Sequencer;

/// What the authority's own mailbox holds unless the configuration says otherwise: it is emptied at once, and holds no blobs.
const OWN_QUOTA: Quota = Quota { messages: 20_000, message_bytes: 1 << 30, blobs: 0, blob_bytes: 0 };
/// How often revocation list and certificates on disk are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// The configuration file of an authority.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// Where and with which certificates.
    pub server: ServerConfig,
    /// Who it is and whom it asks.
    pub authority: AuthorityTable,
    /// Quotas of its own mailbox.
    #[serde(default)]
    pub mailboxes: MailboxConfig,
    /// Logs of the process.
    #[serde(default)]
    pub log: LogConfig,
}

/// The `[authority]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityTable {
    /// Its registered name.
    pub name: String,
    /// The folder that `authority init` made.
    pub keys: PathBuf,
    /// How many witnesses must cosign.
    pub quorum: usize,
    /// The witnesses.
    pub witnesses: Vec<WitnessEntry>,
    /// Relays below which patients may be answered (`https://host[:port]/`).
    pub relays: Vec<String>,
    /// How long to gather leaves before a checkpoint. Units: milliseconds.
    #[serde(default = "default_gather")]
    pub gather_milliseconds: u64,
}

/// One witness.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessEntry {
    /// `https://host[:port]`.
    pub url: String,
    /// Its verifier key (`name+id+base64`).
    pub key: String,
}

fn default_gather() -> u64 {
    5
}

impl ConfigFile for AuthorityConfig {
    const FILE: &'static str = "authority.toml";
}

impl Anchored for AuthorityConfig {
    fn anchor(&mut self, folder: &Path) {
        self.server.anchor(folder);
        self.authority.keys = folder.join(&self.authority.keys);
    }
}

/// An authority that is bound, and whose log no witness has seen further than its own store.
pub struct AuthorityServer {
    shell: Shell,
    engine: Engine,
    sequencer: Sequencer,
    mailboxes: Arc<Mailboxes>,
    inbox: LocalInbox,
    client: MailboxClient,
    operator: Operator,
    tls: Arc<ClientTls>,
    meter: Meter,
    shutdown: CancellationToken,
}

impl AuthorityServer {
    /// Opens everything and asks the witnesses whether this store is the newest.
    ///
    /// # Errors
    /// [`StartError`]; `log-behind-witness` for a store restored from an old copy.
    pub async fn start(
        config: &AuthorityConfig,
        backend: Arc<dyn Backend>,
        meter: Meter,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let table = &config.authority;
        let folder = Folder::new(&table.keys);
        let bad = |what: &dyn std::fmt::Display| StartError::Config(what.to_string());
        let name = HospitalId::parse(&table.name).map_err(|e| bad(&e))?;
        let signer = ceremony::log_signer(&folder, &table.name).map_err(|e| bad(&e))?;
        let witnesses: Vec<(String, NoteKey)> = table
            .witnesses
            .iter()
            .map(|w| Ok((w.url.clone(), w.key.parse()?)))
            .collect::<Result<_, waybill_protocol::log::LogError>>()
            .map_err(|e| bad(&e))?;
        let witness_keys = witnesses.iter().map(|(_, key)| key.clone()).collect();
        let policy = CheckpointPolicy::new(signer.public().clone(), witness_keys, table.quorum).map_err(|e| bad(&e))?;
        let files = OnlineFiles { folder: folder.clone(), name: name.clone(), log: signer.public().clone() };
        let ctx = Ctx { now: Timestamp(clock.now_seconds()), backend: backend.as_ref() };
        let current = files.read(&ctx)?;
        let mut trust = read_trust(
            backend.as_ref(),
            ctx.now,
            name.clone(),
            &folder.root_certificate(),
            &crate::files::read(&folder.crl())?,
            &current.keys.chain,
            policy,
        )?;
        trust.accept_statement(&ctx, &current.statement).map_err(|e| bad(&e))?;

        let shell = Shell::open(&config.server, ClientAuth::Optional).await?;
        let party = Party {
            store: shell.store.clone(),
            objects: shell.objects.clone(),
            clock: clock.clone(),
            backend: backend.clone(),
            trust: Arc::new(RwLock::new(trust)),
        };
        let registry = Registry::new(party.clone(), table.relays.clone());
        let engine = Engine { party, keys: OnlineKeys::new(current), registry };
        let tls = ClientTls::load(config.server.tls_files())?;
        let http = HttpClient::new(tls.clone(), ClientOptions::default());
        let witnesses: Vec<WitnessClient> = witnesses
            .into_iter()
            .map(|(url, key)| WitnessClient::new(http.clone(), backend.clone(), &url, key))
            .collect();
        let gather = Duration::from_millis(table.gather_milliseconds);
        let cosigners = witnesses.iter().map(|w| Arc::new(w.clone()) as Arc<dyn Cosigner>).collect();
        let sequencer = Sequencer { engine: engine.clone(), signer, witnesses: cosigners, gather };
        sequencer.verify_not_rolled_back().await?;
        let (mailboxes, inbox) =
            own_mailbox(config, &folder, &shell, backend.clone(), clock.clone(), &shutdown).await?;
        let (started, store, objects) = (ctx.now, shell.store.clone(), shell.objects.clone());
        let client = MailboxClient::new(http, backend.clone(), clock);
        let operator = Operator { engine: engine.clone(), files, witnesses, store, objects, started };
        Ok(Self { shell, engine, sequencer, mailboxes, inbox, client, operator, tls, meter, shutdown })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.shell.address()
    }

    /// Serves until the shutdown signal, then drains.
    pub async fn run(self) -> Drain {
        let Self { shell, engine, sequencer, mailboxes, inbox, client, operator, tls, meter, shutdown } = self;
        let tasks = TaskTracker::new();
        let counters = client.http().counters();
        let files = operator.files.clone();
        let public = http::public(engine.clone(), files.crl(), crate::mailbox::Inbox::url(&inbox).to_string())
            .merge(renewal::public(Renewals::new(engine.clone())))
            .merge(mailbox::posting_router(mailboxes, crate::mailbox::Inbox::url(&inbox).id()));
        let admin = operator::router(operator)
            .merge(costs::router(meter, vec![counters]))
            .merge(costs::parcels(client.journal()));
        let sender = Arc::new(Sender {
            store: engine.party.store.clone(),
            objects: engine.party.objects.clone(),
            client,
            book: None,
            backend: engine.party.backend.clone(),
            clock: engine.party.clock.clone(),
            options: SenderOptions::default(),
            full: FullMailboxes::default(),
        });
        tasks.spawn(sender.run(shutdown.clone()));
        tasks.spawn(sequencer.run(shutdown.clone()));
        tasks.spawn(sweep::run(engine.party.clone(), shutdown.clone()));
        tasks.spawn(reload(engine.clone(), files, shutdown.clone()));
        tasks.spawn(tls.watch(crate::config::RELOAD_INTERVAL, shutdown.clone()));
        tasks.spawn(deadlines::run(engine.party.clone(), Arc::new(engine.clone()), shutdown.clone()));
        tasks.spawn(receive_loop(Arc::new(inbox), Arc::new(Letters(engine)), shutdown.clone()));
        tasks.close();
        let (drain, ()) = tokio::join!(shell.serve(public, admin, shutdown), tasks.wait());
        drain
    }
}

/// The operator renews list and certificates on disk; a stale list would stop the authority from believing any hospital.
async fn reload(engine: Engine, files: OnlineFiles, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELOAD_INTERVAL) => {}
        }
        if let Err(error) = files.reload(&engine.party, &engine.keys) {
            tracing::error!(error = &error as &dyn std::error::Error, "what was renewed on disk is refused");
        }
    }
}

async fn own_mailbox(
    config: &AuthorityConfig,
    folder: &Folder,
    shell: &Shell,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> Result<(Arc<Mailboxes>, LocalInbox), StartError> {
    let key = crate::files::read_signing_key(&folder.join("online/mailbox.key"))?;
    let mut settings = config.mailboxes.settings(shell.hosts.clone());
    settings.large = config.mailboxes.large.unwrap_or(OWN_QUOTA);
    let mailboxes =
        Mailboxes::new(shell.store.clone(), shell.objects.clone(), backend, clock, settings, shutdown.clone());
    let own = PartyName::own(&config.authority.name);
    mailboxes.create_own(key.public(), &own).await.map_err(|e| StartError::Config(e.to_string()))?;
    let url =
        MailboxUrl::new(&shell.hosts[0], MailboxId::of(key.public())).map_err(|e| StartError::Config(e.to_string()))?;
    Ok((mailboxes.clone(), LocalInbox::new(mailboxes, url)))
}
