//! A whole network on one machine: authority, witness, relay and two hospitals, each a process with its own folder and keys.

use std::path::{Path, PathBuf};

use waybill_protocol::ids::HospitalId;
use waybill_protocol::log::{CheckpointPolicy, LogError, NoteKey};
use waybill_server::files;
use waybill_wallet::TrustSettings;

use super::children::{Servant, Tie, stop_all};
use super::report::{Kept, KeptServer};
use crate::admin::Admin;
use crate::failure::Failure;
use crate::network_file::{NETWORK_FILE, NetworkFile};
use crate::{authority, hospital, relay, witness};

/// The authority's name.
pub const AUTHORITY: &str = "authority.example";
/// Hospital A's name: the source.
pub const HOSPITAL_A: &str = "hospital-a.example";
/// Hospital B's name: the destination.
pub const HOSPITAL_B: &str = "hospital-b.example";
const RELAY: &str = "relay.example";
/// The witness's name.
pub const WITNESS: &str = "witness.example";

/// A running network.
#[derive(Debug)]
pub struct Network {
    folder: PathBuf,
    relay_host: String,
    authority_url: String,
    log_key: String,
    witness_key: String,
    authority_mailbox: String,
    mailboxes: [String; 2],
    /// The witness.
    pub witness: Servant,
    /// The relay.
    pub relay: Servant,
    /// The authority.
    pub authority: Servant,
    /// Hospital A, the source.
    pub a: Servant,
    /// Hospital B, the destination.
    pub b: Servant,
}

/// What is needed to start the processes of a network.
struct Starter<'a> {
    folder: &'a Path,
    program: &'a Path,
    tie: Tie,
    step: &'a mut dyn FnMut(&str),
}

impl Starter<'_> {
    fn start(&mut self, role: &str, name: &str, folder: &str, config: &str) -> Result<Servant, Failure> {
        (self.step)(&format!("starting {name}"));
        let logs = self.folder.join("logs");
        files::make_folder(&logs).map_err(|e| Failure::environment("the folder for logs cannot be made", e))?;
        let log = logs.join(format!("{folder}.log"));
        Servant::start(self.program, role, name, &self.folder.join(folder).join(config), &log, self.tie)
    }
}

fn address(servant: &Servant) -> Result<String, Failure> {
    let listen = servant
        .ready
        .listen
        .ok_or_else(|| Failure::failed(format!("{} did not say where it listens", servant.name)))?;
    Ok(listen.to_string())
}

impl Network {
    /// Makes keys, configurations and certificates below `folder`, starts every process, and enrols both hospitals.
    ///
    /// # Errors
    /// [`Failure`]; what was started by then is stopped.
    pub async fn start(program: &Path, folder: &Path, tie: Tie, step: &mut dyn FnMut(&str)) -> Result<Self, Failure> {
        let mut starter = Starter { folder, program, tie, step };
        let desk = folder.join("authority");
        (starter.step)("the authority's key ceremony");
        let log_key = authority::make_keys(&desk, AUTHORITY)?;
        authority::issue_service(&desk, AUTHORITY, WITNESS, &folder.join("witness"))?;
        authority::issue_service(&desk, AUTHORITY, RELAY, &folder.join("relay"))?;
        let any = "127.0.0.1:0";
        let witness_key = witness::init(&folder.join("witness"), WITNESS, std::slice::from_ref(&log_key), any)?;
        relay::init(&folder.join("relay"), any, &[])?;
        let witness = starter.start("witness", WITNESS, "witness", witness::CONFIG)?;
        let relay = starter.start("relay", RELAY, "relay", relay::CONFIG)?;
        let relay_host = address(&relay)?;
        let settings = authority::Settings {
            name: AUTHORITY.to_owned(),
            listen: any.to_owned(),
            public_hosts: Vec::new(),
            witnesses: vec![(format!("https://{}", address(&witness)?), witness_key.clone())],
            quorum: 1,
            relays: vec![format!("https://{relay_host}/")],
        };
        authority::configure(&desk, &settings)?;
        let authority = starter.start("authority", AUTHORITY, "authority", authority::CONFIG)?;
        let authority_url = format!("https://{}", address(&authority)?);
        let keys = hospital::Settings {
            name: String::new(),
            relay: relay_host.clone(),
            authority: authority_url.clone(),
            authority_name: AUTHORITY.to_owned(),
            log: log_key.clone(),
            witnesses: vec![witness_key.clone()],
            quorum: 1,
        };
        let (a, mailbox_a) = starter.hospital(HOSPITAL_A, "hospital-a", &keys).await?;
        let (b, mailbox_b) = starter.hospital(HOSPITAL_B, "hospital-b", &keys).await?;
        let mut network = Self {
            folder: folder.to_owned(),
            relay_host,
            authority_url,
            log_key,
            witness_key,
            authority_mailbox: String::new(),
            mailboxes: [mailbox_a, mailbox_b],
            witness,
            relay,
            authority,
            a,
            b,
        };
        network.authority_mailbox = network.find_authority_mailbox().await?;
        network.network_file()?.write(&network.folder.join(NETWORK_FILE))?;
        Ok(network)
    }

    /// What people of this network are handed: whom to believe. It is in the network's folder as `network.toml`.
    ///
    /// # Errors
    /// [`Failure`] when the root certificate cannot be read.
    pub fn network_file(&self) -> Result<NetworkFile, Failure> {
        let root = files::read_certificate(&self.root());
        let root = root.map_err(|e| Failure::environment("the root certificate cannot be read", e))?;
        Ok(NetworkFile {
            name: AUTHORITY.to_owned(),
            url: self.authority_url.clone(),
            mailbox: Some(self.authority_mailbox.clone()),
            relay: self.relay_host.clone(),
            log: self.log_key.clone(),
            witnesses: vec![self.witness_key.clone()],
            quorum: 1,
            root: NetworkFile::root_to_pem(&root)?,
        })
    }

    /// The authority's mailbox, as its public page says it.
    async fn find_authority_mailbox(&self) -> Result<String, Failure> {
        let about = crate::courier::Courier::new(&self.root(), &self.authority_url)?.about().await?;
        Ok(about.mailbox)
    }

    /// The authority's root certificate.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("authority/root.pem")
    }

    /// The network's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The relay as wallets name it.
    #[must_use]
    pub fn relay_host(&self) -> &str {
        &self.relay_host
    }

    /// The authority's URL.
    #[must_use]
    pub fn authority_url(&self) -> &str {
        &self.authority_url
    }

    /// The log and the witnesses that everybody in this network believes.
    ///
    /// # Errors
    /// [`Failure`] when a key of the network does not read back.
    pub fn policy(&self) -> Result<CheckpointPolicy, Failure> {
        let bad = |e: LogError| Failure::failed("a verifier key does not read back").caused_by(e);
        let log: NoteKey = self.log_key.parse().map_err(bad)?;
        let witness: NoteKey = self.witness_key.parse().map_err(bad)?;
        CheckpointPolicy::new(log, vec![witness], 1)
            .map_err(|e| Failure::failed("the log policy is impossible").caused_by(e))
    }

    /// What a wallet pins of the authority.
    ///
    /// # Errors
    /// [`Failure`] when a key of the network does not read back.
    pub fn trust(&self) -> Result<TrustSettings, Failure> {
        let root = files::read_certificate(&self.root());
        let root = root.map_err(|e| Failure::environment("the root certificate cannot be read", e))?;
        let name = HospitalId::parse(AUTHORITY).expect("the authority's name is well formed");
        Ok(TrustSettings::new(name, self.authority_mailbox.clone(), root, self.policy()?))
    }

    /// Who owns a mailbox; whatever belongs to no server is the patient's.
    #[must_use]
    pub fn owner_of(&self, mailbox: &str) -> &'static str {
        match mailbox {
            url if url == self.authority_mailbox => "authority",
            url if url == self.mailboxes[0] => "hospital-a",
            url if url == self.mailboxes[1] => "hospital-b",
            _ => "patient",
        }
    }

    /// The admin socket of a party: `authority`, `witness`, `relay`, `hospital-a`, `hospital-b`.
    #[must_use]
    pub fn admin(&self, party: &str) -> Admin {
        Admin::new(self.folder.join(party).join("data/admin.sock"))
    }

    /// What is running, for whoever will use or stop it.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let servers = [&self.witness, &self.relay, &self.authority, &self.a, &self.b].map(|servant| KeptServer {
            name: servant.name.clone(),
            pid: servant.pid(),
            listen: servant.ready.listen,
            admin: servant.ready.admin.clone(),
            log: servant.log.display().to_string(),
        });
        Kept { folder: self.folder.display().to_string(), servers: servers.into() }
    }

    /// Stops every process and waits for it.
    pub fn stop(self) {
        stop_all(vec![self.b, self.a, self.authority, self.relay, self.witness]);
    }

    /// Leaves every process running.
    pub fn release(self) {
        for servant in [self.b, self.a, self.authority, self.relay, self.witness] {
            servant.release();
        }
    }
}

impl Starter<'_> {
    /// A hospital makes its keys and requests, the authority certifies them, the hospital starts; gives it with its mailbox.
    async fn hospital(
        &mut self,
        name: &str,
        folder: &str,
        keys: &hospital::Settings,
    ) -> Result<(Servant, String), Failure> {
        (self.step)(&format!("enrolling {name}"));
        let (home, desk) = (self.folder.join(folder), self.folder.join("authority"));
        let settings = hospital::Settings { name: name.to_owned(), ..keys.clone() };
        let mailbox = hospital::init(&home, &settings, &desk.join("root.pem"))?;
        let requests = home.join("keys");
        authority::enrol_hospital(&desk, AUTHORITY, &requests, &mailbox).await?;
        hospital::enrol(&home, &requests)?;
        Ok((self.start("hospital", name, folder, hospital::CONFIG)?, mailbox))
    }
}
