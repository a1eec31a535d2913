//! A hospital as a server: it dials out to its mailbox, works on its cases, and answers its own staff over a local socket.
//!
//! It needs no listening port: messages and chunks wait for it at a relay.

pub mod admin;
pub mod audit;
pub mod backup;
pub mod directory;
pub mod engine;
pub mod fhir;
pub mod identities;
pub mod incarnation;
pub mod inputs;
pub mod key_change;
pub mod onetime;
pub mod preflight;
pub mod renewal;
pub mod staff;
pub mod strays;
pub mod work;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::files::{PemLabel, to_pem};
use waybill_crypto::certificate::{PartyName, Profile, create_csr};
use waybill_crypto::lthash::SaltSecret;
use waybill_crypto::metered::Meter;
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::{CheckpointPolicy, LogError, NoteKey};
use waybill_protocol::messages::AuthorityStatementBody;
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::from_cbor;
use waybill_store::{DataFolder, FileObjects, SqliteOptions, SqliteStore};

use crate::clock::Clock;
use crate::config::{Anchored, ConfigFile, LogConfig};
use crate::costs;
use crate::files::{self, FileError};
use crate::mailbox::{Inbox, MailboxClient, MailboxUrl, RemoteInbox, receive_loop};
use crate::net::client::{ClientOptions, HttpClient};
use crate::net::tls::{ClientTls, IdentityFiles, TlsFiles};
use crate::net::unix::AdminSocket;
use crate::outbox::{FullMailboxes, Sender, SenderOptions};
use crate::party::{Letters, Party, deadlines, read_crl, read_trust, sweep};
use crate::shelf::Shelf;
use crate::shell::{StartError, health};

use admin::Admin;
use backup::Copier;
use directory::{Directory, Names};
use engine::Engine;
use identities::Identities;
use onetime::OneTimeKeys;
use renewal::Renewal;
use staff::{LocalUsers, Staff, StaffTable};
use work::{Stages, Worker};

/// The largest page of the authority that is read at start. Units: bytes.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How often the revocation list is fetched again.
const CRL_INTERVAL: Duration = Duration::from_secs(3600);
/// How often the house is kept.
const HOUSE_INTERVAL: Duration = Duration::from_secs(30);

/// The configuration file of a hospital.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HospitalConfig {
    /// Who it is and where its files lie.
    pub hospital: HospitalTable,
    /// Whom it believes.
    pub authority: AuthorityTable,
    /// Who of its staff may do what.
    #[serde(default)]
    pub staff: StaffTable,
    /// Logs of the process.
    #[serde(default)]
    pub log: LogConfig,
}

/// The `[hospital]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HospitalTable {
    /// Its registered name.
    pub name: String,
    /// The folder that `hospital init` made: keys, certificates.
    pub keys: PathBuf,
    /// Folder of the database and the objects.
    pub data: PathBuf,
    /// Folder of one-time keys; leave it out of every backup.
    pub one_time: PathBuf,
    /// Its mailbox at a relay.
    pub mailbox: String,
    /// Relays below which patients may be answered (`https://host[:port]/`).
    pub relays: Vec<String>,
    /// Admin socket; `admin.sock` in the data folder when absent.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// The largest record accepted. Units: bytes.
    #[serde(default = "default_largest")]
    pub largest_record_bytes: u64,
    /// How long a case whose two patients are not certainly one person may wait for a decision. Units: days.
    #[serde(default = "default_review")]
    pub review_days: u64,
}

fn default_review() -> u64 {
    7
}

fn default_largest() -> u64 {
    crate::shelf::MAX_RECORD_BYTES
}

/// The `[authority]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityTable {
    /// Its registered name.
    pub name: String,
    /// `https://host[:port]`.
    pub url: String,
    /// The pinned root certificate.
    pub root: PathBuf,
    /// The log's verifier key (`name+id+base64`).
    pub log: String,
    /// The witnesses' verifier keys. Whom to believe is this hospital's own choice.
    pub witnesses: Vec<String>,
    /// How many of them must have cosigned.
    pub quorum: usize,
}

impl AuthorityTable {
    /// The log policy.
    ///
    /// # Errors
    /// [`StartError::Config`].
    pub fn policy(&self) -> Result<CheckpointPolicy, StartError> {
        let bad = |what: &dyn std::fmt::Display| StartError::Config(format!("[authority]: {what}"));
        let log: NoteKey = self.log.parse().map_err(|e: LogError| bad(&e))?;
        let witnesses: Result<Vec<NoteKey>, LogError> = self.witnesses.iter().map(|w| w.parse()).collect();
        CheckpointPolicy::new(log, witnesses.map_err(|e| bad(&e))?, self.quorum).map_err(|e| bad(&e))
    }
}

impl ConfigFile for HospitalConfig {
    const FILE: &'static str = "hospital.toml";
}

impl Anchored for HospitalConfig {
    fn anchor(&mut self, folder: &Path) {
        let table = &mut self.hospital;
        for path in [&mut table.keys, &mut table.data, &mut table.one_time, &mut self.authority.root] {
            *path = folder.join(&*path);
        }
        if let Some(path) = &mut table.admin_socket {
            *path = folder.join(&*path);
        }
    }
}

impl HospitalConfig {
    /// Where the admin socket is.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.hospital.admin_socket.clone().unwrap_or_else(|| self.hospital.data.join("admin.sock"))
    }
}

/// Makes a hospital's keys in a folder and writes its two certificate requests, `tls.csr` and `signing.csr`.
///
/// # Errors
/// [`FileError`]; no existing file is overwritten. [`StartError::Config`] for a name that is none.
pub fn init(folder: &Path, name: &str, backend: &dyn Backend) -> Result<(), StartError> {
    let party = PartyName::parse(name).map_err(|e| StartError::Config(e.to_string()))?;
    files::make_folder(folder)?;
    for (file, profile) in [("tls", Profile::HospitalTls), ("signing", Profile::HospitalSigning)] {
        let key = backend.generate_signing_key();
        let csr = create_csr(backend, &key, &party, profile, false).map_err(|e| StartError::Config(e.to_string()))?;
        files::write_signing_key(&folder.join(format!("{file}.key")), &key)?;
        let pem = to_pem(PemLabel::Request, &csr).map_err(|e| StartError::Config(e.to_string()))?;
        files::write_public(&folder.join(format!("{file}.csr")), pem.as_bytes())?;
    }
    files::write_secret(&folder.join("consent.key"), &backend.generate_hpke_key().to_bytes())?;
    files::write_signing_key(&folder.join("mailbox.key"), &backend.generate_signing_key())?;
    let mut salts = zeroize::Zeroizing::new([0; 32]);
    backend.random(salts.as_mut_slice());
    Ok(files::write_secret(&folder.join("salts.key"), &salts)?)
}

/// A hospital that has opened its stores and reached its authority.
pub struct HospitalServer {
    engine: Engine,
    inbox: Arc<RemoteInbox>,
    client: MailboxClient,
    directory: Arc<Directory>,
    renewal: Arc<Renewal>,
    statement: AuthorityStatementBody,
    store: Arc<SqliteStore>,
    copier: Copier,
    socket: AdminSocket,
    staff: Staff,
    meter: Meter,
    shutdown: CancellationToken,
}

impl HospitalServer {
    /// Opens the data folder, reads keys and certificates, fetches the authority's statement and revocation list, and makes the
    /// mailbox at the relay.
    ///
    /// # Errors
    /// [`StartError`] naming the file, folder or peer.
    pub async fn start(
        config: &HospitalConfig,
        backend: Arc<dyn Backend>,
        meter: Meter,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let table = &config.hospital;
        let bad = |what: &dyn std::fmt::Display| StartError::Config(what.to_string());
        let identity = key_change::read(&table.keys, &table.name)?;
        let replaced = key_change::read_replaced(&table.keys, &table.name)?;
        let tls = TlsFiles {
            root: config.authority.root.clone(),
            identity: Some(IdentityFiles { certificate: table.keys.join("tls.pem"), key: table.keys.join("tls.key") }),
            crl: None,
        };
        let tls = ClientTls::load(tls)?;
        let http = HttpClient::new(tls.clone(), ClientOptions::default());
        let directory = Arc::new(Directory::new(http.clone(), &config.authority.url, clock.clone()));
        let fetch = |path: &'static str| {
            let directory = directory.clone();
            async move {
                directory.fetch(path, MAX_PAGE_BYTES).await.map_err(|e| {
                    bad(&format!("the authority at {} does not answer {path}: {}", config.authority.url, chain(&e)))
                })
            }
        };
        let (crl, page) = (fetch("/crl").await?, fetch("/statement").await?);
        let statement: AuthorityStatementBody =
            from_cbor("authority statement", &page, MAX_PAGE_BYTES).map_err(|e| bad(&e))?;
        let ctx = Ctx { now: Timestamp(clock.now_seconds()), backend: backend.as_ref() };
        let authority = HospitalId::parse(&config.authority.name).map_err(|e| bad(&e))?;
        let policy = config.authority.policy()?;
        let mut trust =
            read_trust(backend.as_ref(), ctx.now, authority, &config.authority.root, &crl, &identity.chain, policy)?;
        trust
            .accept_statement(&ctx, &statement)
            .map_err(|e| bad(&format!("the authority's statement is refused: {e}")))?;

        let folder = DataFolder::open(&table.data)?;
        let socket = AdminSocket::bind(&config.admin_socket()).await?;
        let staff = open_to_staff(&socket, config)?;
        let store = Arc::new(SqliteStore::open(folder.clone(), SqliteOptions::default()).await?);
        let objects = Arc::new(FileObjects::open(folder, None)?);
        let salts = SaltSecret::from_bytes(*files::read_secret(&table.keys.join("salts.key"))?);
        let party = Party {
            store: store.clone(),
            objects: objects.clone(),
            clock: clock.clone(),
            backend: backend.clone(),
            trust: Arc::new(RwLock::new(trust)),
        };
        let copier = Copier { store: store.clone(), objects: objects.clone() };
        let shelf = Arc::new(Shelf::new(store.clone(), objects, salts));
        let one_time = OneTimeKeys::open(&table.one_time)
            .map_err(|source| FileError::Io { path: table.one_time.clone(), source })?;
        let engine = Engine {
            party,
            identities: Identities::new(identity, replaced),
            review_seconds: table.review_days.saturating_mul(86_400),
            shelf,
            one_time,
            book: Arc::new(Names::new(table.relays.clone())),
            largest_stream_bytes: table.largest_record_bytes,
            resends: engine::Resends::default(),
            turns: engine::Turns::default(),
        };
        let renewal = Arc::new(Renewal {
            engine: engine.clone(),
            http: http.clone(),
            tls,
            keys: table.keys.clone(),
            authority: config.authority.url.clone(),
        });
        let entered = engine.enter().await;
        if let Some(why) = entered.map_err(|e| bad(&format!("the last sessions cannot be ended: {}", chain(&e))))? {
            tracing::warn!(why, "this is a new incarnation: what was open before is ended as lost");
        }
        let client = MailboxClient::new(http, backend, clock.clone());
        let key = Arc::new(files::read_signing_key(&table.keys.join("mailbox.key"))?);
        let url: MailboxUrl = table.mailbox.parse().map_err(|e| bad(&e))?;
        let inbox = Arc::new(RemoteInbox::new(client.clone(), url, key, clock));
        inbox
            .create()
            .await
            .map_err(|e| bad(&format!("the mailbox {} cannot be made: {}", table.mailbox, chain(&e))))?;
        Ok(Self { engine, inbox, client, directory, renewal, statement, store, copier, socket, staff, meter, shutdown })
    }

    /// Works until the shutdown signal.
    pub async fn run(self) {
        let Self {
            engine,
            inbox,
            client,
            directory,
            renewal,
            statement,
            store,
            copier,
            socket,
            staff,
            meter,
            shutdown,
        } = self;
        let (tasks, stages, full) = (TaskTracker::new(), Stages::default(), FullMailboxes::default());
        let mailbox = inbox.url().to_string();
        let own = costs::router(meter, vec![client.http().counters()])
            .merge(costs::parcels(client.journal()))
            .merge(renewal::router(renewal.clone()))
            .merge(health(store.clone(), shutdown.clone()));
        let own = admin::owner_only(own, &staff);
        let admin = admin::router(Admin {
            engine: engine.clone(),
            stages: stages.clone(),
            mailbox,
            statement,
            staff,
            copier: Some(copier),
            looks: admin::Looks::default(),
            full: full.clone(),
        })
        .merge(own);
        let sender = Arc::new(Sender {
            store: engine.party.store.clone(),
            objects: engine.party.objects.clone(),
            client,
            book: Some(directory.clone()),
            backend: engine.party.backend.clone(),
            clock: engine.party.clock.clone(),
            options: SenderOptions::default(),
            full,
        });
        let worker = Arc::new(Worker { engine: engine.clone(), inbox: inbox.clone(), stages });
        tasks.spawn(sender.run(shutdown.clone()));
        tasks.spawn(worker.run(shutdown.clone()));
        tasks.spawn(sweep::run(engine.party.clone(), shutdown.clone()));
        tasks.spawn(deadlines::run(engine.party.clone(), Arc::new(engine.clone()), shutdown.clone()));
        tasks.spawn(renewal::run(renewal, shutdown.clone()));
        tasks.spawn(renew_crl(engine.clone(), directory, shutdown.clone()));
        tasks.spawn(keep_house(engine.clone(), shutdown.clone()));
        tasks.spawn(strays::run(engine.clone(), inbox.clone(), shutdown.clone()));
        tasks.spawn(receive_loop(inbox, Arc::new(Letters(engine.clone())), shutdown.clone()));
        tasks.close();
        let (_, ()) = tokio::join!(socket.serve(admin, shutdown), tasks.wait());
        note_progress(&engine).await;
        store.close().await;
    }
}

/// With a staff table others than the owner may open the socket, and the table decides who may do what.
fn open_to_staff(socket: &AdminSocket, config: &HospitalConfig) -> Result<Staff, StartError> {
    let bad = |e: &dyn std::fmt::Display| StartError::Config(e.to_string());
    let owner = std::fs::metadata(config.admin_socket()).map_err(|e| bad(&e))?.uid();
    let staff = Staff::new(&config.staff, LocalUsers::read(Path::new("/etc/passwd")), owner).map_err(|e| bad(&e))?;
    if staff.has_table() {
        socket.share()?;
    }
    Ok(staff)
}

/// Notes how far the database is, stops what withdrawn keys decided, and forgets what nobody completed.
async fn keep_house(engine: Engine, shutdown: CancellationToken) {
    loop {
        if let Err(error) = engine.work_off_withdrawals().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cases of withdrawn keys wait to be stopped");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(HOUSE_INTERVAL) => {}
        }
        note_progress(&engine).await;
        if let Err(error) = engine.forget_attestations().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "attestations cannot be forgotten");
        }
    }
}

async fn note_progress(engine: &Engine) {
    if let Err(error) = engine.note_progress().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "progress cannot be noted beside the one-time keys");
    }
}

/// A stale list stops the hospital from believing anybody, so it is fetched long before it is stale.
async fn renew_crl(engine: Engine, directory: Arc<Directory>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CRL_INTERVAL) => {}
        }
        let fetched = directory.fetch("/crl", MAX_PAGE_BYTES).await;
        let party = &engine.party;
        let renewed = match fetched {
            Ok(pem) => party.with_trust(|trust| {
                read_crl(
                    party.backend.as_ref(),
                    party.ctx().now,
                    trust.anchor(),
                    &pem,
                    &engine.identities.current().chain,
                )
            }),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the revocation list could not be fetched");
                continue;
            }
        };
        match renewed {
            Ok(crl) => party.renew_crl(crl),
            Err(error) => tracing::error!(%error, "the fetched revocation list is refused"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
