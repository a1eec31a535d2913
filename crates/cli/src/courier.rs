//! Carries a wallet's parcels: posts its errands, reads its reply mailboxes, and renews what it knows of the authority.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{FutureExt, select_all};
use http::Request;
use waybill_crypto::certificate::files::{PemLabel, from_pem, to_pem};
use waybill_crypto::metered::scope;
use waybill_crypto::native::Native;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::wire::{Kind, Parcel};
use waybill_server::authority::http::About;
use waybill_server::clock::{Clock, SystemClock};
use waybill_server::mailbox::wire::Session;
use waybill_server::mailbox::{Letter, MailboxClient, MailboxUrl};
use waybill_server::net::client::{ClientError, ClientOptions, Exchange, HttpClient};
use waybill_server::net::tls::{ClientTls, TlsFiles};
use waybill_wallet::{MailboxName, Party, Received, Wallet, Watch};

use crate::failure::{Exit, Failure};

/// Largest page of the authority. Units: bytes.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
const PAGE: Exchange = Exchange { timeout: Duration::from_secs(20), max_response: MAX_PAGE_BYTES };
/// How long one look into the mailboxes waits.
const POLL: Duration = Duration::from_secs(20);
/// How long it waits while something could not be posted.
const AGAIN: Duration = Duration::from_secs(2);
/// Pause after a host did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// A parcel that the wallet sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The kind of message.
    pub kind: Kind,
    /// To whom it went; `None` for what came to the wallet.
    pub to: Option<Party>,
    /// The parcel.
    pub parcel: Vec<u8>,
}

/// An opened mailbox.
struct Open {
    url: MailboxUrl,
    session: Session,
    after: Option<u64>,
}

/// Carries parcels for one wallet.
pub struct Courier {
    client: MailboxClient,
    authority: String,
    open: BTreeMap<MailboxName, Open>,
    carried: Vec<Carried>,
    /// What kept it from posting or reading, last time; it is tried again until the patience is over.
    trouble: Option<Failure>,
}

/// The time.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(SystemClock.now_seconds())
}

fn exchange_failure(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::environment(what, error)
        .hint("check the connection and try again; the wallet has kept what is still to be sent")
}

fn address_failure(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::failed("an address in the wallet is none").caused_by(error)
}

impl Courier {
    /// A courier that trusts servers under the given root certificate file; the authority is at `https://host[:port]`.
    ///
    /// # Errors
    /// [`Failure`] for a file that is no certificate.
    pub fn new(root: &std::path::Path, authority: &str) -> Result<Self, Failure> {
        let tls = ClientTls::load(TlsFiles { root: root.to_owned(), identity: None, crl: None });
        let tls = tls.map_err(|e| Failure::environment("the root certificate cannot be used", e))?;
        let http = HttpClient::new(tls, ClientOptions::default());
        // The keys of mailboxes are admission to a host, not the protocol: they are not counted with it.
        let client = MailboxClient::new(http, Arc::new(Native), Arc::new(SystemClock));
        let authority = authority.trim_end_matches('/').to_owned();
        Ok(Self { client, authority, open: BTreeMap::new(), carried: Vec::new(), trouble: None })
    }

    /// As [`Self::new`], with the root certificate in DER, as a wallet keeps it.
    ///
    /// # Errors
    /// [`Failure`] for bytes that are no certificate.
    pub fn trusting(root: &[u8], authority: &str) -> Result<Self, Failure> {
        let cannot = |e| Failure::environment("no temporary file can be written", e);
        let mut file = tempfile::NamedTempFile::new().map_err(cannot)?;
        let pem = to_pem(PemLabel::Certificate, root)
            .map_err(|e| Failure::failed("the wallet's root certificate is none").caused_by(e))?;
        file.write_all(pem.as_bytes()).and_then(|()| file.flush()).map_err(cannot)?;
        Self::new(file.path(), authority)
    }

    /// Everything carried so far.
    #[must_use]
    pub fn carried(&self) -> &[Carried] {
        &self.carried
    }

    /// Bytes on the wire so far, sent and received, TLS included.
    #[must_use]
    pub fn wire_bytes(&self) -> (u64, u64) {
        let counts = self.client.http().counters().counts();
        (counts.sent_bytes, counts.received_bytes)
    }

    async fn page(&self, path: &str) -> Result<Bytes, ClientError> {
        let request =
            Request::get(format!("{}{path}", self.authority)).body(Bytes::new()).map_err(|_| ClientError::Url)?;
        Ok(self.client.http().send(request, PAGE).await?.body)
    }

    /// What the authority says of itself: its name and its mailbox.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn about(&self) -> Result<About, Failure> {
        let page = self.page("/authority").await.map_err(|e| exchange_failure("the authority does not answer", e))?;
        serde_json::from_slice(&page)
            .map_err(|e| Failure::failed("the authority's page has another shape than expected").caused_by(e))
    }

    /// Fetches the revocation list and the authority's statement, and hands them to the wallet.
    ///
    /// # Errors
    /// [`Failure`] when the authority does not answer, or the wallet refuses what it says.
    pub async fn renew_trust(&self, wallet: &mut Wallet) -> Result<(), Failure> {
        let crl = self.page("/crl").await.map_err(|e| exchange_failure("the revocation list cannot be fetched", e))?;
        let statement = self
            .page("/statement")
            .await
            .map_err(|e| exchange_failure("the authority's statement cannot be fetched", e))?;
        let crl = from_pem(PemLabel::Crl, &crl)
            .map_err(|e| Failure::failed("the authority serves no revocation list").caused_by(e))?;
        let renewed = scope("AuthorityStatement", || wallet.renew_trust(now(), &crl, &statement));
        renewed.map_err(|e| Failure::failed("the wallet refuses what the authority says of itself").caused_by(e))
    }

    /// Posts everything the wallet wants posted; the mailbox for the answer is made first. Every parcel is tried, also after one
    /// whose host did not answer: a revocation must not wait for the slowest of three.
    ///
    /// # Errors
    /// [`Failure`] when a host does not answer; what was not posted is posted the next time.
    pub async fn post(&mut self, wallet: &mut Wallet) -> Result<(), Failure> {
        let mut first = Ok(());
        for watch in wallet.watches() {
            let opened = self.open(&watch).await;
            first = first.and(opened);
        }
        for errand in wallet.errands().to_vec() {
            if !self.open.contains_key(&errand.answer) {
                continue;
            }
            let url: MailboxUrl = errand.address.parse().map_err(address_failure)?;
            match self.client.post(&url, errand.parcel.clone().into()).await {
                Ok(()) => {
                    wallet.posted(errand.id).map_err(wallet_failure)?;
                    self.carried.push(Carried { kind: errand.kind, to: Some(errand.to), parcel: errand.parcel });
                }
                Err(error) => {
                    let what = format!("{:?} could not be posted to {}", errand.kind, errand.to);
                    first = first.and(Err(exchange_failure(&what, error)));
                }
            }
        }
        first
    }

    async fn open(&mut self, watch: &Watch) -> Result<(), Failure> {
        if self.open.contains_key(&watch.mailbox) {
            return Ok(());
        }
        let url: MailboxUrl = watch.address.parse().map_err(address_failure)?;
        let failed = |e| exchange_failure("a reply mailbox cannot be opened", e);
        self.client.create(&url, &watch.key).await.map_err(failed)?;
        let session = self.client.open_session(&url, &watch.key).await.map_err(failed)?;
        self.open.insert(watch.mailbox, Open { url, session, after: None });
        Ok(())
    }

    /// Posts and reads until something arrives that means something to the wallet.
    ///
    /// # Errors
    /// [`Failure`] after `patience` without an answer, or when the wallet's file cannot be written.
    pub async fn next(&mut self, wallet: &mut Wallet, patience: Duration) -> Result<Received, Failure> {
        match self.poll(wallet, patience).await? {
            Some(received) => Ok(received),
            None => Err(self.overdue()),
        }
    }

    /// Which host could not be reached, the last time it was tried.
    #[must_use]
    pub fn trouble(&self) -> Option<&Failure> {
        self.trouble.as_ref()
    }

    /// Why nothing came: the last trouble with a host, or nobody answered.
    pub fn overdue(&mut self) -> Failure {
        self.trouble.take().unwrap_or_else(|| {
            Failure::failed("no answer came in time")
                .hint("the answer is kept at the relay: run the command again later, or ask whether the hospital is connected")
        })
    }

    /// Posts and reads for at most `patience`; `None` when nothing came that means something to the wallet. A host that does not
    /// answer is tried again until then: nothing is lost by waiting.
    ///
    /// # Errors
    /// [`Failure`] when the wallet's file cannot be written, or the wallet waits for nothing.
    pub async fn poll(&mut self, wallet: &mut Wallet, patience: Duration) -> Result<Option<Received>, Failure> {
        let deadline = Instant::now() + patience;
        self.trouble = None;
        loop {
            match self.post(wallet).await {
                Ok(()) => {}
                Err(failure) if failure.exit == Exit::Environment => self.trouble = Some(failure),
                Err(failure) => return Err(failure),
            }
            if wallet.watches().is_empty() {
                return Err(Failure::failed("the wallet waits for nothing"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // What could not be posted is not kept waiting for as long as an answer is.
            let wait = left.min(if self.trouble.is_some() { AGAIN } else { POLL });
            let Some((mailbox, letters)) = self.look(wallet, wait).await? else {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                continue;
            };
            for letter in letters {
                match self.hand_in(wallet, mailbox, letter).await? {
                    // It stays in the mailbox and is read again.
                    Some(Received::NeedsFreshTrust(_)) => {
                        tokio::time::sleep(PAUSE).await;
                        match self.renew_trust(wallet).await {
                            Err(failure) if failure.exit != Exit::Environment => return Err(failure),
                            Err(failure) => self.trouble = Some(failure),
                            Ok(()) => {}
                        }
                        break;
                    }
                    Some(received) => return Ok(Some(received)),
                    None => {}
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Waits up to `wait` (whole seconds) until one of the watched mailboxes holds letters.
    async fn look(&mut self, wallet: &Wallet, wait: Duration) -> Result<Option<(MailboxName, Vec<Letter>)>, Failure> {
        let names: Vec<MailboxName> = wallet.watches().iter().map(|watch| watch.mailbox).collect();
        let client = &self.client;
        let looks: Vec<_> = self
            .open
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, open)| {
                async move { (*name, client.messages(&open.url, &open.session, open.after, wait).await) }.boxed()
            })
            .collect();
        if looks.is_empty() {
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        }
        let (first, _, others) = select_all(looks).await;
        // Empty answers come together when the wait is over: one of the others may have a letter.
        let mut answers = vec![first];
        answers.extend(others.into_iter().filter_map(FutureExt::now_or_never));
        let mut found = None;
        for (name, letters) in answers {
            match letters {
                Ok(letters) if letters.is_empty() => {}
                Ok(letters) => found = found.or(Some((name, letters))),
                // The session has ended, or the host has forgotten it; the next round proves the key again.
                Err(error) if matches!(error.status(), Some(401 | 404)) => drop(self.open.remove(&name)),
                Err(error) if error.is_retryable() => {
                    self.trouble = Some(exchange_failure("a reply mailbox cannot be read", error));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(exchange_failure("a reply mailbox cannot be read", error)),
            }
        }
        Ok(found)
    }

    /// Hands a letter to the wallet and removes it from the mailbox once its meaning is durable.
    async fn hand_in(
        &mut self,
        wallet: &mut Wallet,
        mailbox: MailboxName,
        letter: Letter,
    ) -> Result<Option<Received>, Failure> {
        let kind = Parcel::peek_kind(&letter.body);
        let label = kind.map_or("Letter", label_of);
        let received = scope(label, || wallet.receive(now(), mailbox, &letter.body)).map_err(wallet_failure)?;
        if matches!(received, Received::NeedsFreshTrust(_)) {
            return Ok(Some(received));
        }
        if let Some(open) = self.open.get_mut(&mailbox) {
            open.after = Some(letter.seq);
            // What is not acknowledged comes again and is a duplicate then.
            let _ = self.client.acknowledge(&open.url, &open.session, letter.seq).await;
        }
        match received {
            Received::Ignored(_) | Received::Duplicate => Ok(None),
            other => {
                if let Some(kind) = kind {
                    self.carried.push(Carried { kind, to: None, parcel: letter.body });
                }
                Ok(Some(other))
            }
        }
    }
}

fn wallet_failure(error: waybill_wallet::WalletError) -> Failure {
    Failure::environment("the wallet cannot go on", error)
}

/// The label under which a received message's cost is counted.
fn label_of(kind: Kind) -> &'static str {
    match kind {
        Kind::RegistrationAnswer => "RegistrationAnswer",
        Kind::LoginAnswer => "LoginAnswer",
        Kind::ProofAnswer => "ProofAnswer",
        Kind::CaseStatement => "CaseStatement",
        Kind::Refusal => "Refusal",
        _ => "Letter",
    }
}
