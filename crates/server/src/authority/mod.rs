//! The authority as a server: mailbox, engine, log, and the public pages everybody reads.

pub mod ceremony;
pub mod engine;
pub mod http;
pub mod registry;
pub mod sequencer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waybill_crypto::backend::Backend;
use waybill_crypto::metered::Meter;
use waybill_protocol::authority::AuthorityKeys;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::{CheckpointPolicy, NoteKey};
use waybill_protocol::messages::{AuthorityStatement, AuthorityStatementBody, SUITE};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::trust::Ctx;

use crate::clock::Clock;
use crate::config::{Anchored, LogConfig, MailboxConfig, ServerConfig};
use crate::costs;
use crate::files;
use crate::mailbox::{self, LocalInbox, MailboxClient, MailboxId, MailboxUrl, Mailboxes, receive_loop};
use crate::net::client::{ClientOptions, HttpClient};
use crate::net::peer::PartyName;
use crate::net::server::Drain;
use crate::net::tls::{ClientAuth, ClientTls};
use crate::outbox::{Sender, SenderOptions};
use crate::party::{Letters, Party, deadlines, read_crl, read_trust, sweep};
use crate::shell::{Shell, StartError};
use crate::witness::WitnessClient;

use ceremony::Folder;
use engine::Engine;
use registry::Registry;
use sequencer::Sequencer;

/// How often the revocation list on disk is looked at.
const CRL_INTERVAL: Duration = Duration::from_secs(60);

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
    statement: AuthorityStatementBody,
    meter: Meter,
    crl: PathBuf,
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
        let keys = read_keys(&folder)?;
        let ctx = Ctx { now: Timestamp(clock.now_seconds()), backend: backend.as_ref() };
        let mut trust = read_trust(
            backend.as_ref(),
            ctx.now,
            name.clone(),
            &folder.root_certificate(),
            &files::read(&folder.crl())?,
            &keys.chain,
            policy,
        )?;
        let statement = describe(&ctx, &name, &keys, &signer);
        trust.accept_statement(&ctx, &statement).map_err(|e| bad(&e))?;

        let shell = Shell::open(&config.server, ClientAuth::Optional).await?;
        let party = Party {
            store: shell.store.clone(),
            objects: shell.objects.clone(),
            clock: clock.clone(),
            backend: backend.clone(),
            trust: Arc::new(RwLock::new(trust)),
        };
        let registry = Registry::new(party.clone(), table.relays.clone());
        let engine = Engine { party, keys: Arc::new(keys), registry };
        let http = HttpClient::new(ClientTls::load(config.server.tls_files())?, ClientOptions::default());
        let witnesses = witnesses
            .into_iter()
            .map(|(url, key)| WitnessClient::new(http.clone(), backend.clone(), &url, key))
            .collect();
        let gather = Duration::from_millis(table.gather_milliseconds);
        let sequencer = Sequencer { engine: engine.clone(), signer, witnesses, gather };
        sequencer.verify_not_rolled_back().await.map_err(|e| bad(&e))?;
        let (mailboxes, inbox) =
            own_mailbox(config, &folder, &shell, backend.clone(), clock.clone(), &shutdown).await?;
        let client = MailboxClient::new(http, backend, clock);
        Ok(Self { shell, engine, sequencer, mailboxes, inbox, client, statement, meter, crl: folder.crl(), shutdown })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.shell.address()
    }

    /// Serves until the shutdown signal, then drains.
    pub async fn run(self) -> Drain {
        let Self { shell, engine, sequencer, mailboxes, inbox, client, statement, meter, crl, shutdown } = self;
        let tasks = TaskTracker::new();
        let counters = client.http().counters();
        let public =
            http::public(engine.clone(), &statement, crl.clone(), crate::mailbox::Inbox::url(&inbox).to_string())
                .merge(mailbox::router(mailboxes));
        let admin = http::admin(engine.clone())
            .merge(costs::router(meter, vec![counters]))
            .merge(costs::parcels(client.journal()));
        let sender = Arc::new(Sender {
            store: engine.party.store.clone(),
            objects: engine.party.objects.clone(),
            client,
            backend: engine.party.backend.clone(),
            clock: engine.party.clock.clone(),
            options: SenderOptions::default(),
        });
        tasks.spawn(sender.run(shutdown.clone()));
        tasks.spawn(sequencer.run(shutdown.clone()));
        tasks.spawn(sweep::run(engine.party.clone(), shutdown.clone()));
        tasks.spawn(reload_crl(engine.clone(), crl.clone(), shutdown.clone()));
        tasks.spawn(deadlines::run(engine.party.clone(), Arc::new(engine.clone()), shutdown.clone()));
        tasks.spawn(receive_loop(Arc::new(inbox), Arc::new(Letters(engine)), shutdown.clone()));
        tasks.close();
        let (drain, ()) = tokio::join!(shell.serve(public, admin, shutdown), tasks.wait());
        drain
    }
}

/// The operator renews the list on disk; a stale one would stop the authority from believing any hospital.
async fn reload_crl(engine: Engine, path: PathBuf, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CRL_INTERVAL) => {}
        }
        let party = &engine.party;
        let renewed = files::read(&path).map_err(StartError::from).and_then(|pem| {
            party
                .with_trust(|t| read_crl(party.backend.as_ref(), party.ctx().now, t.anchor(), &pem, &engine.keys.chain))
        });
        match renewed {
            Ok(crl) => party.renew_crl(crl),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the revocation list on disk is refused")
            }
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
    let key = files::read_signing_key(&folder.join("online/mailbox.key"))?;
    let settings = config.mailboxes.settings(shell.hosts.clone());
    let mailboxes =
        Mailboxes::new(shell.store.clone(), shell.objects.clone(), backend, clock, settings, shutdown.clone());
    let own = PartyName::own(&config.authority.name);
    mailboxes.create_own(key.public(), &own).await.map_err(|e| StartError::Config(e.to_string()))?;
    let url =
        MailboxUrl::new(&shell.hosts[0], MailboxId::of(key.public())).map_err(|e| StartError::Config(e.to_string()))?;
    Ok((mailboxes.clone(), LocalInbox::new(mailboxes, url)))
}

fn read_keys(folder: &Folder) -> Result<AuthorityKeys, StartError> {
    Ok(AuthorityKeys {
        proof_signing: files::read_signing_key(&folder.join("online/proof-signing.key"))?,
        lodgement: files::read_hpke_key(&folder.join("online/lodgement.key"))?,
        chain: files::read_chain(&folder.join("online/proof-signing.pem"))?,
    })
}

fn describe(
    ctx: &Ctx<'_>,
    name: &HospitalId,
    keys: &AuthorityKeys,
    log: &waybill_protocol::log::NoteSigner,
) -> AuthorityStatementBody {
    let statement = AuthorityStatement {
        suite: SUITE,
        authority: name.clone(),
        lodgement_key: *keys.lodgement.public(),
        log_origin: log.public().name().as_str().to_owned(),
        log_key: *log.public().public_key(),
        time: ctx.now,
    };
    let signed = Signed::sign(ctx.backend, &keys.proof_signing, statement);
    AuthorityStatementBody { statement: SignedBytes::from(&signed), chain: keys.chain.clone() }
}
