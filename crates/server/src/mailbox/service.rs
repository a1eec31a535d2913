//! The mailbox service itself, without HTTP: what a host does for owners and senders.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::VerifyingKey;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::{Address, Batch, CommitError, Expect, Key, ObjectError, Objects, Op, Space, Store, StoreError};

use super::rows::{
    BlobRow, Class, MAX_BLOB_ROW_BYTES, MailboxRow, address_of, blob_key, mail_key, mailbox_key, next_seq, owner_key,
    owner_prefix, reference_key, references_prefix, same_mail_key, seq_of,
};
use super::sessions::{SessionRefusal, Sessions};
use super::waiting::Waiting;
use super::wire::{
    CreateRequest, Letter, MAX_BLOB_BYTES, MAX_LETTERS, MAX_LETTERS_BYTES, MAX_MESSAGE_BYTES, MAX_WAIT_SECONDS,
    MailboxId, Quota, Session, SessionRequest, TIME_WINDOW_SECONDS, create_payload, session_payload,
};
use crate::clock::Clock;
use crate::limits::{Rate, RateLimiter};
use crate::net::peer::{Origin, PartyName, Peer};

/// Most addresses whose rates are remembered.
const MAX_RATED: usize = 65_536;
/// Locks that a mailbox or an object may fall on.
const STRIPES: usize = 64;
/// Most bytes of bodies held in memory on their way to disk. Units: KiB.
const BODY_BUDGET_KIB: usize = 256 * 1024;

/// How a host keeps mailboxes.
#[derive(Debug, Clone)]
pub struct MailboxSettings {
    /// The names (`host[:port]`) under which this host is reached; signatures made for another host are refused.
    pub hosts: Vec<String>,
    /// Quota of mailboxes made without a certificate.
    pub small: Quota,
    /// Quota of mailboxes made by a party with a certificate.
    pub large: Quota,
    /// How long a small mailbox lives; making it again renews it. Units: seconds.
    pub small_lifetime_seconds: u64,
    /// How long a message or blob waits before it is swept. Units: seconds.
    pub retention_seconds: u64,
    /// Most mailboxes in all.
    pub max_mailboxes: u64,
    /// Most mailboxes of one party.
    pub max_per_party: u64,
    /// How often one address without a certificate may post.
    pub post_rate: Rate,
    /// How often one address without a certificate may make mailboxes or sessions.
    pub control_rate: Rate,
}

impl MailboxSettings {
    /// Sane bounds for a host reached as `hosts`.
    pub fn for_hosts(hosts: Vec<String>) -> Self {
        Self {
            hosts,
            small: Quota { messages: 256, message_bytes: 32 << 20, blobs: 16, blob_bytes: 16 << 20 },
            large: Quota { messages: 100_000, message_bytes: 4 << 30, blobs: 65_536, blob_bytes: 64 << 30 },
            small_lifetime_seconds: 90 * 86_400,
            retention_seconds: 90 * 86_400,
            max_mailboxes: 1_000_000,
            max_per_party: 64,
            post_rate: Rate { burst: 600, per_minute: 3_000 },
            control_rate: Rate { burst: 300, per_minute: 600 },
        }
    }
}

/// Why a mailbox operation was refused.
#[derive(Debug, Error)]
pub enum MailboxError {
    /// No such mailbox here.
    #[error("there is no such mailbox here")]
    Unknown,
    /// No such message or blob.
    #[error("there is no such message or blob")]
    Absent,
    /// The key is not the mailbox', or the signature does not verify, or was made for another host or time.
    #[error("the proof of the mailbox' key is refused: {0}")]
    Proof(&'static str),
    /// No token, or one that is not for this mailbox or has expired.
    #[error("a session of this mailbox is needed")]
    Session,
    /// A blob from somebody without a certificate.
    #[error("a blob is taken from a party with a certificate only")]
    Certificate,
    /// Too many requests, readers or sessions.
    #[error("too many requests")]
    TooMany {
        /// When to come back. Units: seconds.
        retry_after_seconds: u64,
    },
    /// The mailbox, the host or its disk is full.
    #[error("the mailbox or its host is full")]
    Full,
    /// Larger than allowed.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The blob is not what its address says.
    #[error("the bytes have another SHA-256 than announced")]
    HashMismatch,
    /// Many writers at once; come back.
    #[error("the mailbox is busy")]
    Busy,
    /// A stored row or object is damaged.
    #[error("stored data is damaged")]
    Damaged,
    /// The store does not answer.
    #[error("the store is unavailable")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for MailboxError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy(_) => Self::Busy,
            other => Self::Store(Box::new(other)),
        }
    }
}

impl From<CommitError> for MailboxError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full(_) => Self::Full,
            CommitError::Busy(_) | CommitError::Conflict { .. } => Self::Busy,
            other => Self::Store(Box::new(other)),
        }
    }
}

impl From<ObjectError> for MailboxError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::NotFound(_) => Self::Absent,
            ObjectError::Damaged(_) => Self::Damaged,
            ObjectError::Full(_) => Self::Full,
            other => Self::Store(Box::new(other)),
        }
    }
}

/// A host of mailboxes over a store and an object folder **of its own**: objects are deleted with the last mailbox that names
/// them, so a folder shared with other uses would lose theirs.
pub struct Mailboxes {
    pub(super) store: Arc<dyn Store>,
    pub(super) objects: Arc<dyn Objects>,
    backend: Arc<dyn Backend>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: MailboxSettings,
    pub(super) sessions: Sessions,
    waiting: Waiting,
    mailbox_locks: Vec<Mutex<()>>,
    object_locks: Vec<Mutex<()>>,
    body_budget: Semaphore,
    post_rate: RateLimiter<IpAddr>,
    control_rate: RateLimiter<IpAddr>,
    shutdown: CancellationToken,
}

impl Mailboxes {
    /// A host; long polls end when `shutdown` is cancelled.
    pub fn new(
        store: Arc<dyn Store>,
        objects: Arc<dyn Objects>,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        settings: MailboxSettings,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let stripes = || (0..STRIPES).map(|_| Mutex::new(())).collect();
        Arc::new(Self {
            store,
            objects,
            backend,
            clock,
            post_rate: RateLimiter::new(settings.post_rate, MAX_RATED),
            control_rate: RateLimiter::new(settings.control_rate, MAX_RATED),
            settings,
            sessions: Sessions::default(),
            waiting: Waiting::default(),
            mailbox_locks: stripes(),
            object_locks: stripes(),
            body_budget: Semaphore::new(BODY_BUDGET_KIB),
            shutdown,
        })
    }

    /// Waits until there is memory for a body of at most `size_bytes`.
    pub(super) async fn reserve(&self, size_bytes: usize) -> SemaphorePermit<'_> {
        let kib = u32::try_from(size_bytes.div_ceil(1024).clamp(1, BODY_BUDGET_KIB)).expect("the budget fits 32 bits");
        self.body_budget.acquire_many(kib).await.expect("the semaphore is never closed")
    }

    /// Counts a post against its sender's address; parties with a certificate are bounded by quotas alone.
    pub(super) fn admit_post(&self, peer: &Peer) -> Result<(), MailboxError> {
        self.admit(&self.post_rate, peer)
    }

    /// Counts a control request (create, session) against its sender's address.
    pub(super) fn admit_control(&self, peer: &Peer) -> Result<(), MailboxError> {
        self.admit(&self.control_rate, peer)
    }

    fn admit(&self, rate: &RateLimiter<IpAddr>, peer: &Peer) -> Result<(), MailboxError> {
        match peer.origin() {
            Origin::Network(network) => rate
                .take(&network, self.clock.now_ms())
                .map_err(|retry_after_seconds| MailboxError::TooMany { retry_after_seconds }),
            Origin::Party(_) | Origin::Local => Ok(()),
        }
    }

    /// Makes a mailbox, or renews it when it exists; returns whether it is new.
    pub async fn create(
        &self,
        id: &MailboxId,
        request: &CreateRequest,
        party: Option<&PartyName>,
    ) -> Result<bool, MailboxError> {
        if MailboxId::of(&request.public_key) != *id {
            return Err(MailboxError::Proof("the key is not this mailbox'"));
        }
        self.verify_time(request.time)?;
        let signed = |host: &String| {
            let payload = create_payload(id, host, request.time);
            self.backend.verify(&request.public_key, &payload, &request.signature).is_ok()
        };
        if !self.settings.hosts.iter().any(signed) {
            return Err(MailboxError::Proof("the signature does not verify for this host"));
        }
        self.keep(id, &request.public_key, party).await
    }

    /// Makes a mailbox of this process itself; whoever holds the `Mailboxes` needs to prove nothing.
    pub async fn create_own(&self, key: &VerifyingKey, own_name: &PartyName) -> Result<MailboxId, MailboxError> {
        let id = MailboxId::of(key);
        self.keep(&id, key, Some(own_name)).await?;
        Ok(id)
    }

    async fn keep(&self, id: &MailboxId, key: &VerifyingKey, party: Option<&PartyName>) -> Result<bool, MailboxError> {
        let _lock = self.lock_mailbox(id).await;
        let found = self.store.load(Space::Mailbox, &mailbox_key(id)).await?;
        let small_until = Some(self.clock.now_seconds() + self.settings.small_lifetime_seconds);
        let (mut row, expect) = match &found {
            Some(found) => (decode_row(&found.value)?, Expect::Version(found.version)),
            None => {
                self.verify_room(party).await?;
                (new_row(key), Expect::Absent)
            }
        };
        let mut batch = Batch::new("mailbox-create");
        match party {
            Some(name) if row.owner.is_none() => {
                self.verify_party_room(name).await?;
                (row.class, row.expires_at, row.owner) = (Class::Large, None, Some(name.to_string()));
                batch = batch.put(Space::Unique, owner_key(name.as_str(), id), Vec::new(), Expect::Any);
            }
            None if row.class == Class::Small => row.expires_at = small_until,
            _ => {}
        }
        batch = batch.put(Space::Mailbox, mailbox_key(id), to_cbor(&row), expect);
        self.store.commit(batch).await?;
        Ok(found.is_none())
    }

    async fn verify_room(&self, party: Option<&PartyName>) -> Result<(), MailboxError> {
        let held = self.store.count(Space::Mailbox, &Key::empty()).await?;
        if held >= self.settings.max_mailboxes && party.is_none() { Err(MailboxError::Full) } else { Ok(()) }
    }

    async fn verify_party_room(&self, party: &PartyName) -> Result<(), MailboxError> {
        let held = self.store.count(Space::Unique, &owner_prefix(party.as_str())).await?;
        if held >= self.settings.max_per_party { Err(MailboxError::Full) } else { Ok(()) }
    }

    fn verify_time(&self, time: u64) -> Result<(), MailboxError> {
        if self.clock.now_seconds().abs_diff(time) > TIME_WINDOW_SECONDS {
            return Err(MailboxError::Proof("the time lies more than 5 minutes from this host's clock"));
        }
        Ok(())
    }

    /// Opens a session for whoever proves the mailbox' key.
    pub async fn open_session(
        &self,
        id: &MailboxId,
        request: &SessionRequest,
        origin: Origin,
    ) -> Result<Session, MailboxError> {
        let (row, _) = self.load_mailbox(id).await?;
        self.verify_time(request.time)?;
        let signed = |host: &String| {
            let payload = session_payload(id, host, request.time, &request.nonce);
            self.backend.verify(&row.public_key, &payload, &request.signature).is_ok()
        };
        if !self.settings.hosts.iter().any(signed) {
            return Err(MailboxError::Proof("the signature does not verify for this host"));
        }
        let now = self.clock.now_seconds();
        match self.sessions.open(self.backend.as_ref(), *id, *request.nonce, origin, now) {
            Ok((token, expires_at)) => Ok(Session { token: token.into(), expires_at }),
            Err(SessionRefusal::Replayed) => Err(MailboxError::Proof("the nonce was used before")),
            Err(SessionRefusal::Crowded) => Err(MailboxError::TooMany { retry_after_seconds: 60 }),
        }
    }

    /// Checks a bearer token.
    pub(super) fn verify_token(&self, id: &MailboxId, token: &[u8; 32]) -> Result<(), MailboxError> {
        if self.sessions.admits(id, token, self.clock.now_seconds()) { Ok(()) } else { Err(MailboxError::Session) }
    }

    /// Puts a message into a mailbox; durable when it returns. The same bytes wait once.
    pub async fn post(&self, id: &MailboxId, body: Bytes) -> Result<(), MailboxError> {
        if body.len() > MAX_MESSAGE_BYTES {
            return Err(MailboxError::TooLarge(MAX_MESSAGE_BYTES));
        }
        let same = same_mail_key(id, &sha256(&[&body]));
        {
            let _lock = self.lock_mailbox(id).await;
            let (mut row, version) = self.load_mailbox(id).await?;
            if self.store.load(Space::Unique, &same).await?.is_some() {
                return Ok(());
            }
            let quota = self.quota(&row);
            row.messages += 1;
            row.message_bytes += body.len() as u64;
            if row.messages > quota.messages || row.message_bytes > quota.message_bytes {
                return Err(MailboxError::Full);
            }
            row.last_seq = next_seq(row.last_seq, self.clock.now_ms());
            let batch = Batch::new("mailbox-post")
                .put(Space::Mail, mail_key(id, row.last_seq), body.into(), Expect::Absent)
                .put(Space::Unique, same, to_cbor(&row.last_seq), Expect::Absent)
                .put(Space::Mailbox, mailbox_key(id), to_cbor(&row), Expect::Version(version));
            self.store.commit(batch).await?;
        }
        self.waiting.wake(id);
        Ok(())
    }

    /// Waits up to `wait` for messages after `after`; an empty answer means nothing came.
    pub async fn messages(
        &self,
        id: &MailboxId,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Letter>, MailboxError> {
        self.load_mailbox(id).await?;
        let too_many = MailboxError::TooMany { retry_after_seconds: 5 };
        let waiter = self.waiting.enter(*id).ok_or(too_many)?;
        let wait = wait.min(Duration::from_secs(MAX_WAIT_SECONDS));
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Listening starts before looking, so that a message posted in between wakes this reader.
            let mut posted = std::pin::pin!(waiter.notify.notified());
            posted.as_mut().enable();
            let letters = self.waiting_letters(id, after).await?;
            if !letters.is_empty() {
                return Ok(letters);
            }
            tokio::select! {
                () = posted => {}
                () = tokio::time::sleep_until(deadline) => return Ok(letters),
                () = self.shutdown.cancelled() => return Ok(letters),
            }
        }
    }

    async fn waiting_letters(&self, id: &MailboxId, after: Option<u64>) -> Result<Vec<Letter>, MailboxError> {
        let after = after.map(|seq| mail_key(id, seq));
        let keys = self.store.keys(Space::Mail, &mailbox_key(id), after.as_ref(), MAX_LETTERS).await?;
        let mut letters = Vec::with_capacity(keys.len());
        let mut size_bytes = 0;
        for key in keys {
            let seq = seq_of(id, &key).ok_or(MailboxError::Damaged)?;
            // A row that is gone was acknowledged by another reader meanwhile.
            let Some(found) = self.store.load(Space::Mail, &key).await? else { continue };
            size_bytes += found.value.len();
            if size_bytes > MAX_LETTERS_BYTES && !letters.is_empty() {
                break;
            }
            letters.push(Letter { seq, body: found.value });
        }
        Ok(letters)
    }

    /// Removes a message its owner has dealt with; the same bytes posted later wait again.
    pub async fn acknowledge(&self, id: &MailboxId, seq: u64) -> Result<(), MailboxError> {
        let _lock = self.lock_mailbox(id).await;
        let (mut row, version) = self.load_mailbox(id).await?;
        let key = mail_key(id, seq);
        let Some(found) = self.store.load(Space::Mail, &key).await? else { return Err(MailboxError::Absent) };
        row.messages = row.messages.saturating_sub(1);
        row.message_bytes = row.message_bytes.saturating_sub(found.value.len() as u64);
        let batch = Batch::new("mailbox-acknowledge")
            .delete(Space::Mail, key, Expect::Any)
            .delete(Space::Unique, same_mail_key(id, &sha256(&[&found.value])), Expect::Any)
            .put(Space::Mailbox, mailbox_key(id), to_cbor(&row), Expect::Version(version));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Puts a party's blob beside the messages; durable when it returns.
    pub async fn put_blob(
        &self,
        id: &MailboxId,
        address: &Address,
        bytes: Bytes,
        from: &PartyName,
    ) -> Result<(), MailboxError> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(MailboxError::TooLarge(MAX_BLOB_BYTES));
        }
        self.verify_blob_room(id, address, bytes.len() as u64).await?;
        let size_bytes = bytes.len() as u64;
        // The object's lock spans file and row, so that nobody deletes the file between them.
        let _object = self.lock_object(address).await;
        let stream = futures::stream::iter([Ok(bytes)]);
        match self.objects.put_stream(Box::pin(stream), MAX_BLOB_BYTES as u64, Some(*address)).await {
            Err(ObjectError::Mismatch { .. }) => return Err(MailboxError::HashMismatch),
            other => other?,
        };
        let _lock = self.lock_mailbox(id).await;
        let (mut row, version) = self.load_mailbox(id).await?;
        if self.store.load(Space::Blob, &blob_key(id, address)).await?.is_some() {
            return Ok(());
        }
        let quota = self.quota(&row);
        row.blobs += 1;
        row.blob_bytes += size_bytes;
        if row.blobs > quota.blobs || row.blob_bytes > quota.blob_bytes {
            self.delete_unreferenced(address).await?;
            return Err(MailboxError::Full);
        }
        let blob = BlobRow { size_bytes, put_at: self.clock.now_seconds(), from: Some(from.to_string()) };
        let batch = Batch::new("mailbox-blob")
            .put(Space::Blob, blob_key(id, address), to_cbor(&blob), Expect::Absent)
            .put(Space::Unique, reference_key(address, id), Vec::new(), Expect::Any)
            .put(Space::Mailbox, mailbox_key(id), to_cbor(&row), Expect::Version(version));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Refuses a blob early, before its bytes are read; the decision falls again when they are there. One that is held already needs
    /// no room: senders repeat themselves.
    pub(super) async fn verify_blob_room(
        &self,
        id: &MailboxId,
        address: &Address,
        size_bytes: u64,
    ) -> Result<(), MailboxError> {
        let (row, _) = self.load_mailbox(id).await?;
        if self.has_blob(id, address).await? {
            return Ok(());
        }
        let quota = self.quota(&row);
        if row.blobs >= quota.blobs || row.blob_bytes + size_bytes > quota.blob_bytes {
            return Err(MailboxError::Full);
        }
        Ok(())
    }

    /// Whether the mailbox holds the blob already.
    pub async fn has_blob(&self, id: &MailboxId, address: &Address) -> Result<bool, MailboxError> {
        Ok(self.store.load(Space::Blob, &blob_key(id, address)).await?.is_some())
    }

    /// Reads a blob of the mailbox.
    pub async fn blob(&self, id: &MailboxId, address: &Address) -> Result<Bytes, MailboxError> {
        if !self.has_blob(id, address).await? {
            return Err(MailboxError::Absent);
        }
        Ok(self.objects.get(address).await?)
    }

    /// Removes a blob from the mailbox.
    pub async fn delete_blob(&self, id: &MailboxId, address: &Address) -> Result<(), MailboxError> {
        let _object = self.lock_object(address).await;
        let _lock = self.lock_mailbox(id).await;
        let (mut row, version) = self.load_mailbox(id).await?;
        let key = blob_key(id, address);
        let Some(found) = self.store.load(Space::Blob, &key).await? else { return Err(MailboxError::Absent) };
        let blob: BlobRow =
            from_cbor("blob row", &found.value, MAX_BLOB_ROW_BYTES).map_err(|_| MailboxError::Damaged)?;
        row.blobs = row.blobs.saturating_sub(1);
        row.blob_bytes = row.blob_bytes.saturating_sub(blob.size_bytes);
        let batch = Batch::new("mailbox-blob-delete")
            .delete(Space::Blob, key, Expect::Any)
            .delete(Space::Unique, reference_key(address, id), Expect::Any)
            .put(Space::Mailbox, mailbox_key(id), to_cbor(&row), Expect::Version(version));
        self.store.commit(batch).await?;
        self.delete_unreferenced(address).await
    }

    /// Deletes an object that no mailbox names; the caller holds the object's lock.
    async fn delete_unreferenced(&self, address: &Address) -> Result<(), MailboxError> {
        if self.store.keys(Space::Unique, &references_prefix(address), None, 1).await?.is_empty() {
            self.objects.delete(address).await?;
        }
        Ok(())
    }

    /// Removes a mailbox with everything in it.
    pub async fn delete(&self, id: &MailboxId) -> Result<(), MailboxError> {
        self.load_mailbox(id).await?;
        while let Some(key) = self.store.keys(Space::Blob, &mailbox_key(id), None, 1).await?.first() {
            let address = address_of(id, key).ok_or(MailboxError::Damaged)?;
            self.delete_blob(id, &address).await?;
        }
        let _lock = self.lock_mailbox(id).await;
        let (row, version) = self.load_mailbox(id).await?;
        let mut batch = Batch::new("mailbox-delete")
            .delete(Space::Mailbox, mailbox_key(id), Expect::Version(version))
            .with(Op::DeletePrefix { space: Space::Mail, prefix: mailbox_key(id) })
            .with(Op::DeletePrefix {
                space: Space::Unique,
                prefix: Key::build().text("mail").fixed(id.as_bytes()).done(),
            });
        if let Some(owner) = &row.owner {
            batch = batch.delete(Space::Unique, owner_key(owner, id), Expect::Any);
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    pub(super) fn quota(&self, row: &MailboxRow) -> Quota {
        match row.class {
            Class::Small => self.settings.small,
            Class::Large => self.settings.large,
        }
    }

    /// Loads a mailbox that exists; one that has expired lives until it is swept.
    pub(super) async fn load_mailbox(&self, id: &MailboxId) -> Result<(MailboxRow, u64), MailboxError> {
        let found = self.store.load(Space::Mailbox, &mailbox_key(id)).await?.ok_or(MailboxError::Unknown)?;
        Ok((decode_row(&found.value)?, found.version))
    }

    async fn lock_mailbox(&self, id: &MailboxId) -> MutexGuard<'_, ()> {
        self.mailbox_locks[usize::from(id.as_bytes()[0]) % STRIPES].lock().await
    }

    async fn lock_object(&self, address: &Address) -> MutexGuard<'_, ()> {
        self.object_locks[usize::from(address.as_bytes()[0]) % STRIPES].lock().await
    }
}

fn new_row(key: &VerifyingKey) -> MailboxRow {
    MailboxRow {
        public_key: key.clone(),
        class: Class::Small,
        expires_at: None,
        last_seq: 0,
        messages: 0,
        message_bytes: 0,
        blobs: 0,
        blob_bytes: 0,
        owner: None,
    }
}

pub(super) fn decode_row(value: &[u8]) -> Result<MailboxRow, MailboxError> {
    from_cbor("mailbox row", value, 1024).map_err(|_| MailboxError::Damaged)
}
