//! Where an attack plays: a fresh network of real processes, the files of all its parties, and what can be seen from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use waybill_crypto::certificate::files::{PemLabel, from_pem};
use waybill_crypto::certificate::{Crl, TrustAnchor};
use waybill_crypto::keys::SigningKey;
use waybill_crypto::native::Native;
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::messages::{AuthorityStatementBody, Chain};
use waybill_protocol::rejection::Code;
use waybill_protocol::trust::{Ctx, Trust};
use waybill_protocol::wire::from_cbor;
use waybill_record::identity::Demographics;
use waybill_record::sample::{Generator, SampleForm, SampleSize};
use waybill_server::clock::SystemClock;
use waybill_server::files;
use waybill_server::mailbox::wire::Session;
use waybill_server::mailbox::{Letter, MailboxClient, MailboxId, MailboxUrl};
use waybill_server::net::client::{Answer, ClientError, ClientOptions, Exchange, HttpClient};
use waybill_server::net::tls::{ClientTls, IdentityFiles, TlsFiles};

use super::outcome::Seen;
use crate::courier::now;
use crate::demo::children::{Servant, Tie};
use crate::demo::network::{AUTHORITY, Network};
use crate::demo::watch::{CaseView, case};
use crate::failure::Failure;
use crate::{demo, hospital};

/// Longest wait for something that must happen. A machine may be busy; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// How often something is looked at.
const EVERY: Duration = Duration::from_millis(15);
/// Resources of a record: enough for several types, few enough to be quick.
const RECORD: SampleSize = SampleSize { resources: 24, attachments: 0, attachment_bytes: 0 };
/// Largest page of the authority. Units: bytes.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// What a server says when it refuses a parcel for good.
const REFUSED: &str = "a parcel was refused";

/// Turns whatever went wrong into a failure of the attack itself, which is neither a refusal nor a success.
pub trait OrFail<T> {
    /// # Errors
    /// [`Failure`] saying `what` could not be done.
    fn or_fail(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(what).caused_by(error))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, what: &str) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::failed(what))
    }
}

/// A generated patient whose record lies at hospital A.
pub struct Sample {
    /// FHIR id at A.
    pub id: String,
    /// Local id at B.
    pub at_b: String,
    /// Name, birth date, sex, identifiers.
    pub demographics: Demographics,
    /// The record, one resource each, as hospital A exports it.
    pub lines: Vec<Vec<u8>>,
}

/// A mailbox whose key we hold.
pub struct Mailbox {
    /// Where it is.
    pub url: MailboxUrl,
    /// Its key.
    pub key: SigningKey,
    session: Session,
    after: Option<u64>,
}

impl Mailbox {
    /// The next letter, left where it is; `None` when none came in time.
    ///
    /// # Errors
    /// [`Failure`] when the host does not answer.
    pub async fn next(&mut self, scene: &Scene, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(Duration::from_secs(2));
            let letters = scene.client.messages(&self.url, &self.session, self.after, wait).await;
            let letters: Vec<Letter> = letters.or_fail("a mailbox cannot be read")?;
            if let Some(letter) = letters.into_iter().next() {
                self.after = Some(letter.seq);
                return Ok(Some(letter.body));
            }
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Removes every letter, so that whoever reads this mailbox next finds none of them.
    ///
    /// # Errors
    /// [`Failure`] when the host does not answer.
    pub async fn empty(&self, scene: &Scene) -> Result<(), Failure> {
        loop {
            let letters = scene.client.messages(&self.url, &self.session, None, Duration::ZERO).await;
            let letters = letters.or_fail("a mailbox cannot be read")?;
            if letters.is_empty() {
                return Ok(());
            }
            for letter in letters {
                let removed = scene.client.acknowledge(&self.url, &self.session, letter.seq).await;
                removed.or_fail("a letter cannot be removed")?;
            }
        }
    }

    /// A blob beside the letters, once it is there.
    ///
    /// # Errors
    /// [`Failure`] when it does not come in time.
    pub async fn blob(&self, scene: &Scene, address: &waybill_store::Address) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match scene.client.blob(&self.url, &self.session, address).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.status() == Some(404) && Instant::now() < deadline => {}
                Err(error) => return Err(Failure::failed("a chunk did not come").caused_by(error)),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// A running network with everything an attacker may hold of it.
pub struct Scene {
    /// The processes.
    pub network: Network,
    /// Speaks to mailbox hosts.
    pub client: MailboxClient,
    /// This program, to start further servers from.
    pub program: PathBuf,
    people: AtomicU64,
    posted: Mutex<Vec<(MailboxUrl, Vec<u8>)>>,
}

impl Scene {
    /// Starts a network below `folder`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open(program: &Path, folder: &Path) -> Result<Self, Failure> {
        let network = Network::start(program, folder, Tie::Supervised, &mut |_| {}).await?;
        let tls = ClientTls::load(TlsFiles { root: network.root(), identity: None, crl: None });
        let http = HttpClient::new(tls.or_fail("the root certificate cannot be used")?, ClientOptions::default());
        let client = MailboxClient::new(http, Arc::new(Native), Arc::new(SystemClock));
        let (people, posted) = (AtomicU64::new(0), Mutex::default());
        let scene = Self { network, client, program: program.to_owned(), people, posted };
        scene.keep_ports()?;
        Ok(scene)
    }

    /// A server that is started again listens where the others know it.
    fn keep_ports(&self) -> Result<(), Failure> {
        let network = &self.network;
        let servers = [(&network.authority, "authority"), (&network.witness, "witness"), (&network.relay, "relay")];
        for (servant, role) in servers {
            let address = servant.ready.listen.or_fail("a server does not say where it listens")?;
            let file = self.folder(role).join(format!("{role}.toml"));
            let text = fs::read_to_string(&file).or_fail("a configuration cannot be read")?;
            let fixed = text.replace("127.0.0.1:0", &address.to_string());
            fs::write(&file, fixed).or_fail("a configuration cannot be written")?;
        }
        Ok(())
    }

    /// Clock and primitives for a role function.
    #[must_use]
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx { now: now(), backend: &Native }
    }

    /// Speaks to mailbox hosts with the TLS certificate of a hospital.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn client_of(&self, hospital: &str) -> Result<MailboxClient, Failure> {
        let keys = self.folder(hospital).join("keys");
        let identity = IdentityFiles { certificate: keys.join("tls.pem"), key: keys.join("tls.key") };
        let tls = ClientTls::load(TlsFiles { root: self.network.root(), identity: Some(identity), crl: None });
        let http = HttpClient::new(tls.or_fail("a hospital's certificate cannot be used")?, ClientOptions::default());
        Ok(MailboxClient::new(http, Arc::new(Native), Arc::new(SystemClock)))
    }

    /// The folder of `authority`, `witness`, `relay`, `hospital-a` or `hospital-b`.
    #[must_use]
    pub fn folder(&self, party: &str) -> PathBuf {
        self.network.folder().join(party)
    }

    /// The process of a party.
    pub fn servant(&mut self, party: &str) -> &mut Servant {
        match party {
            "authority" => &mut self.network.authority,
            "witness" => &mut self.network.witness,
            "relay" => &mut self.network.relay,
            "hospital-a" => &mut self.network.a,
            _ => &mut self.network.b,
        }
    }

    /// Kills every process: what an attack leaves behind need not be drained.
    ///
    /// # Errors
    /// [`Failure`] when the operating system refuses.
    pub fn end(mut self) -> Result<(), Failure> {
        for party in ["hospital-a", "hospital-b", "authority", "witness", "relay"] {
            self.servant(party).kill()?;
        }
        Ok(())
    }

    /// A public page of the authority.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn page(&self, path: &str) -> Result<Bytes, ClientError> {
        let request = Request::get(format!("{}{path}", self.network.authority_url()));
        Ok(self.http(request.body(Bytes::new()).map_err(|_| ClientError::Url)?).await?.body)
    }

    /// One HTTP exchange with a server of the network.
    ///
    /// # Errors
    /// [`ClientError`], also for every status but 2xx.
    pub async fn http(&self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let exchange = Exchange { timeout: PATIENCE, max_response: MAX_PAGE_BYTES };
        self.client.http().send(request, exchange).await
    }

    /// What an honest party of this network believes.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn trust(&self) -> Result<Trust, Failure> {
        let (root, issuing) = (self.network.root(), self.folder("authority").join("issuing/issuing.pem"));
        let anchor = TrustAnchor::from_der(&files::read_certificate(&root).or_fail("the root cannot be read")?);
        let anchor = anchor.or_fail("the root is none")?;
        let issuing = files::read_certificate(&issuing).or_fail("the issuing certificate cannot be read")?;
        let issuer = anchor.verify_issuer(&issuing, now().0).or_fail("the issuing certificate is none")?;
        let crl = from_pem(PemLabel::Crl, &self.page("/crl").await.or_fail("no revocation list")?);
        let crl = Crl::parse_and_verify(&Native, &crl.or_fail("no revocation list")?, &issuer);
        let name = HospitalId::parse(AUTHORITY).expect("the authority's name is well formed");
        let mut trust = Trust::new(name, anchor, self.network.policy()?, crl.or_fail("the revocation list is none")?);
        trust
            .accept_statement(&self.ctx(), &self.statement().await?)
            .or_fail("the authority's statement is refused")?;
        Ok(trust)
    }

    /// What the authority says of its keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn statement(&self) -> Result<AuthorityStatementBody, Failure> {
        let page = self.page("/statement").await.or_fail("no authority statement")?;
        from_cbor("authority statement", &page, MAX_PAGE_BYTES).or_fail("the authority's statement does not decode")
    }

    /// Posts a parcel as anybody could.
    ///
    /// # Errors
    /// [`Failure`] when the host does not take it.
    pub async fn post(&self, to: &MailboxUrl, parcel: Vec<u8>) -> Result<(), Failure> {
        let kept = (to.clone(), parcel.clone());
        self.client.post(to, parcel.into()).await.or_fail("a parcel cannot be posted")?;
        self.posted.lock().expect("nobody panics while holding what was posted").push(kept);
        Ok(())
    }

    /// Everything posted so far with [`Self::post`], with the mailbox it went to: what a relay could have kept of a patient's words.
    #[must_use]
    pub fn posted(&self) -> Vec<(MailboxUrl, Vec<u8>)> {
        self.posted.lock().expect("nobody panics while holding what was posted").clone()
    }

    /// Makes or opens the mailbox of a key at the relay.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn mailbox(&self, key: SigningKey) -> Result<Mailbox, Failure> {
        let url = MailboxUrl::new(self.network.relay_host(), MailboxId::of(key.public())).or_fail("no mailbox URL")?;
        self.client.create(&url, &key).await.or_fail("a mailbox cannot be made")?;
        let session = self.client.open_session(&url, &key).await.or_fail("a mailbox cannot be opened")?;
        Ok(Mailbox { url, key, session, after: None })
    }

    /// A hospital's own mailbox, opened with its key.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn mailbox_of(&self, hospital: &str) -> Result<Mailbox, Failure> {
        let key = files::read_signing_key(&self.folder(hospital).join("keys/mailbox.key"));
        let key = key.or_fail("a mailbox key cannot be read")?;
        let url = MailboxUrl::new(self.network.relay_host(), MailboxId::of(key.public())).or_fail("no mailbox URL")?;
        let session = self.client.open_session(&url, &key).await.or_fail("a mailbox cannot be opened")?;
        Ok(Mailbox { url, key, session, after: None })
    }

    /// Where parcels for a party are posted.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn address(&self, party: &str) -> Result<MailboxUrl, Failure> {
        if party == "authority" {
            let key = files::read_signing_key(&self.folder("authority").join("online/mailbox.key"));
            let host = self.network.authority_url().trim_start_matches("https://").to_owned();
            let id = MailboxId::of(key.or_fail("a mailbox key cannot be read")?.public());
            return MailboxUrl::new(&host, id).or_fail("no mailbox URL");
        }
        let key = files::read_signing_key(&self.folder(party).join("keys/mailbox.key"));
        let id = MailboxId::of(key.or_fail("a mailbox key cannot be read")?.public());
        MailboxUrl::new(self.network.relay_host(), id).or_fail("no mailbox URL")
    }

    /// A party's signing chain as it lies in its folder.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn chain(&self, party: &str) -> Result<Chain, Failure> {
        files::read_chain(&self.folder(party).join("keys/signing.pem")).or_fail("a chain cannot be read")
    }

    fn log_file(&self, party: &str) -> PathBuf {
        self.network.folder().join(format!("logs/{party}.log"))
    }

    /// How much a party has logged so far: what comes later is the answer to what is posted next.
    #[must_use]
    pub fn mark(&self, party: &str) -> u64 {
        fs::metadata(self.log_file(party)).map_or(0, |meta| meta.len())
    }

    /// What a party has logged since a mark.
    #[must_use]
    pub fn logged(&self, party: &str, mark: u64) -> String {
        let text = fs::read(self.log_file(party)).unwrap_or_default();
        let new = text.get(usize::try_from(mark).unwrap_or(usize::MAX)..).unwrap_or_default();
        String::from_utf8_lossy(new).into_owned()
    }

    /// The codes with which a party has refused parcels since a mark, in order.
    #[must_use]
    pub fn refusals(&self, party: &str, mark: u64) -> Vec<Code> {
        let new = self.logged(party, mark);
        let code = |line: &str| -> Option<Code> {
            let event: Value = serde_json::from_str(line).ok()?;
            let refused = event.get("message")?.as_str()? == REFUSED;
            let code = event.get("code").filter(|_| refused)?.as_str()?;
            Code::ALL.iter().find(|known| known.as_str() == code).copied()
        };
        new.lines().filter_map(code).collect()
    }

    /// The first refusal of a party since a mark; `None` when none came in time.
    pub async fn refusal(&self, party: &str, mark: u64, patience: Duration) -> Option<Code> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(code) = self.refusals(party, mark).first() {
                return Some(*code);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What a party's log says of what was posted since a mark.
    pub async fn seen(&self, party: &str, mark: u64) -> Seen {
        match self.refusal(party, mark, PATIENCE).await {
            Some(code) => Seen::refused(party, code, "log"),
            None => Seen::Passed(format!("{party} refused nothing")),
        }
    }

    /// Posts a parcel to a party and says how it refuses it.
    ///
    /// # Errors
    /// [`Failure`] when its host does not take the parcel.
    pub async fn try_post(&self, party: &str, parcel: Vec<u8>) -> Result<Seen, Failure> {
        let mark = self.mark(party);
        self.post(&self.address(party)?, parcel).await?;
        Ok(self.seen(party, mark).await)
    }

    /// A case at a hospital, once it satisfies a condition; the last view when it never did.
    ///
    /// # Errors
    /// [`Failure`] when the hospital does not answer.
    pub async fn case(
        &self,
        hospital: &str,
        proof: &ProofId,
        until: impl Fn(&CaseView) -> bool,
    ) -> Result<Option<CaseView>, Failure> {
        let (admin, deadline) = (self.network.admin(hospital), Instant::now() + PATIENCE);
        loop {
            let view = case(&admin, proof).await?;
            if view.as_ref().is_some_and(&until) || Instant::now() >= deadline {
                return Ok(view);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether a case has reached its signed end `filed` at both hospitals.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn is_filed(&self, proof: &ProofId) -> Result<bool, Failure> {
        let ended = |view: &CaseView| view.ended.is_some();
        let mut filed = true;
        for hospital in ["hospital-a", "hospital-b"] {
            let view = self.case(hospital, proof, ended).await?;
            filed &= view.and_then(|view| view.ended).as_deref() == Some("filed");
        }
        Ok(filed)
    }

    /// A generated patient: the record is loaded at A, and B registers the same person as a local patient.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn admit(&self) -> Result<Sample, Failure> {
        let index = self.people.fetch_add(1, Ordering::Relaxed);
        // Even numbers: the generator links patient n to patient n + 1, who must not be another attack's.
        let patient = Generator::new(7).patient(index * 2, RECORD);
        let folder = self.network.folder();
        let (bundle, held) = (folder.join(format!("bundle-{index}.json")), folder.join(format!("held-{index}")));
        let mut sink = fs::File::create_new(&bundle).or_fail("a record cannot be written")?;
        patient.write(SampleForm::TransactionBundle, &mut sink).or_fail("a record cannot be written")?;
        let a = self.network.admin("hospital-a");
        hospital::load(&a, &[bundle], false).await?;
        hospital::export(&a, &patient.id(), None, &held).await?;
        let at_b = format!("b-{index:05}");
        let local = demo::records::registration_of(&held, &patient.id(), &at_b)?;
        let demographics = Demographics::from_patient(&local).or_fail("the patient has no demographics")?;
        self.network.admin("hospital-b").post_bytes::<Value>("/patients", local.into()).await?;
        let text = fs::read(&held).or_fail("an export cannot be read")?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        Ok(Sample { id: patient.id(), at_b, demographics, lines })
    }

    /// Bytes of the admitted patients' names, birth dates and ids that lie readable in the files of those who may know nothing:
    /// authority, relay and witness.
    ///
    /// # Errors
    /// [`Failure`] for a file that cannot be read.
    pub fn readable_elsewhere(&self) -> Result<u64, Failure> {
        let people = self.people.load(Ordering::Relaxed);
        let ids: Vec<String> = (0..people).map(|n| Generator::new(7).patient(n * 2, RECORD).id()).collect();
        let readable = |party: &str| -> Result<u64, Failure> {
            let files = read_all(&self.folder(party))?;
            Ok(files.iter().flat_map(|bytes| ids.iter().map(|id| occurrences(bytes, id.as_bytes()))).sum())
        };
        // The control: where they may be known, the same search finds them.
        if people > 0 && readable("hospital-a")? == 0 {
            return Err(Failure::failed("the search for patients' ids does not even find them at hospital A"));
        }
        ["authority", "relay", "witness"].into_iter().map(readable).sum()
    }
}

/// Every file below a folder.
///
/// # Errors
/// [`Failure`].
pub fn read_all(folder: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut contents = Vec::new();
    for entry in fs::read_dir(folder).or_fail("a folder cannot be read")? {
        let entry = entry.or_fail("a folder cannot be read")?;
        let kind = entry.file_type().or_fail("a folder cannot be read")?;
        if kind.is_dir() {
            contents.extend(read_all(&entry.path())?);
        } else if kind.is_file() {
            match fs::read(entry.path()) {
                Ok(bytes) => contents.push(bytes),
                // A running server makes and removes files of its store.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::environment("a file cannot be read", error)),
            }
        }
    }
    Ok(contents)
}

/// Bytes of `text` that are part of an occurrence of `word`.
#[must_use]
pub fn occurrences(text: &[u8], word: &[u8]) -> u64 {
    let hits = text.windows(word.len().max(1)).filter(|window| *window == word).count();
    (hits * word.len()) as u64
}

/// A hospital's id.
#[must_use]
pub fn id(name: &str) -> HospitalId {
    HospitalId::parse(name).expect("the names of this network are well formed")
}

/// A mailbox URL that was written by a party of the network.
///
/// # Errors
/// [`Failure`].
pub fn url(text: &str) -> Result<MailboxUrl, Failure> {
    MailboxUrl::from_str(text).or_fail("no mailbox URL")
}
