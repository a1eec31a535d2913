//! One's own mailbox, wherever it is kept.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Mutex;
use waybill_crypto::keys::SigningKey;
use waybill_store::Address;

use super::client::{MailboxClient, MailboxClientError};
use super::service::{MailboxError, Mailboxes};
use super::wire::{BlobEntry, Letter, MailboxUrl, Session};
use crate::clock::Clock;

/// The mailbox cannot be read now.
#[derive(Debug, Error)]
pub enum InboxError {
    /// The blob is not there (yet).
    #[error("the blob is not in the mailbox")]
    NoBlob,
    /// The remote host.
    #[error("the mailbox host cannot serve now")]
    Remote(#[source] MailboxClientError),
    /// The own store.
    #[error("the own mailbox cannot serve now")]
    Local(#[source] MailboxError),
}

/// The owner's side of a mailbox.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Where others post to.
    fn url(&self) -> &MailboxUrl;
    /// Waits up to `wait` for messages after `after`, oldest first.
    async fn letters(&self, after: Option<u64>, wait: Duration) -> Result<Vec<Letter>, InboxError>;
    /// Removes a message that has been dealt with durably.
    async fn acknowledge(&self, seq: u64) -> Result<(), InboxError>;
    /// Reads a blob; its bytes have the SHA-256 that names it.
    async fn blob(&self, address: &Address) -> Result<Bytes, InboxError>;
    /// Removes a blob that is no longer needed.
    async fn delete_blob(&self, address: &Address) -> Result<(), InboxError>;
    /// One page of the blobs that wait, in the order of their addresses, after one; an empty page is the end.
    async fn blobs(&self, after: Option<&Address>) -> Result<Vec<BlobEntry>, InboxError>;
}

/// A mailbox at a relay: dialled, with a session that renews itself and a mailbox that is made again when the relay lost it.
pub struct RemoteInbox {
    client: MailboxClient,
    url: MailboxUrl,
    key: Arc<SigningKey>,
    clock: Arc<dyn Clock>,
    session: Mutex<Option<Session>>,
}

impl RemoteInbox {
    /// The mailbox of `key` at `url`; nothing is sent before the first use.
    pub fn new(client: MailboxClient, url: MailboxUrl, key: Arc<SigningKey>, clock: Arc<dyn Clock>) -> Self {
        Self { client, url, key, clock, session: Mutex::new(None) }
    }

    /// Makes or renews the mailbox at its host.
    pub async fn create(&self) -> Result<(), InboxError> {
        self.client.create(&self.url, &self.key).await.map_err(InboxError::Remote)
    }

    /// Removes the mailbox at its host with all it holds.
    pub async fn delete(&self) -> Result<(), InboxError> {
        let session = self.session().await?;
        self.client.delete(&self.url, &session).await.map_err(InboxError::Remote)
    }

    async fn session(&self) -> Result<Session, InboxError> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref()
            && session.expires_at > self.clock.now_seconds() + 30
        {
            return Ok(session.clone());
        }
        let session = match self.client.open_session(&self.url, &self.key).await {
            Err(error) if error.status() == Some(404) => {
                tracing::warn!("the mailbox host does not know our mailbox; making it");
                self.client.create(&self.url, &self.key).await.map_err(InboxError::Remote)?;
                self.client.open_session(&self.url, &self.key).await
            }
            other => other,
        };
        let session = session.map_err(InboxError::Remote)?;
        *held = Some(session.clone());
        Ok(session)
    }

    /// After a 401 (the host restarted) or 404 (the mailbox is gone) the next use proves the key again.
    async fn forget_session(&self, error: &MailboxClientError) -> bool {
        let stale = matches!(error.status(), Some(401));
        if stale {
            *self.session.lock().await = None;
        }
        stale
    }
}

/// Runs an operation with a session, once more with a fresh one when the host has forgotten the first.
macro_rules! with_session {
    ($inbox:expr, $session:ident => $operation:expr) => {{
        let $session = $inbox.session().await?;
        match $operation.await {
            Err(error) if $inbox.forget_session(&error).await => {
                let $session = $inbox.session().await?;
                $operation.await
            }
            other => other,
        }
    }};
}

#[async_trait]
impl Inbox for RemoteInbox {
    fn url(&self) -> &MailboxUrl {
        &self.url
    }

    async fn letters(&self, after: Option<u64>, wait: Duration) -> Result<Vec<Letter>, InboxError> {
        let result = with_session!(self, session => self.client.messages(&self.url, &session, after, wait));
        if let Err(error) = &result
            && error.status() == Some(404)
        {
            *self.session.lock().await = None;
        }
        result.map_err(InboxError::Remote)
    }

    async fn acknowledge(&self, seq: u64) -> Result<(), InboxError> {
        with_session!(self, session => self.client.acknowledge(&self.url, &session, seq)).map_err(InboxError::Remote)
    }

    async fn blob(&self, address: &Address) -> Result<Bytes, InboxError> {
        let result = with_session!(self, session => self.client.blob(&self.url, &session, address));
        result.map_err(|error| if error.status() == Some(404) { InboxError::NoBlob } else { InboxError::Remote(error) })
    }

    async fn delete_blob(&self, address: &Address) -> Result<(), InboxError> {
        with_session!(self, session => self.client.delete_blob(&self.url, &session, address))
            .map_err(InboxError::Remote)
    }

    async fn blobs(&self, after: Option<&Address>) -> Result<Vec<BlobEntry>, InboxError> {
        with_session!(self, session => self.client.blobs(&self.url, &session, after)).map_err(InboxError::Remote)
    }
}

/// A mailbox in the own store: no network, woken by the post itself.
pub struct LocalInbox {
    mailboxes: Arc<Mailboxes>,
    url: MailboxUrl,
}

impl LocalInbox {
    /// The mailbox at `url`, which `mailboxes` keeps (see [`Mailboxes::create_own`]).
    pub fn new(mailboxes: Arc<Mailboxes>, url: MailboxUrl) -> Self {
        Self { mailboxes, url }
    }
}

/// A message or blob that is gone already was removed before: no error for its owner.
fn gone_is_fine(result: Result<(), MailboxError>) -> Result<(), InboxError> {
    match result {
        Ok(()) | Err(MailboxError::Absent) => Ok(()),
        Err(error) => Err(InboxError::Local(error)),
    }
}

#[async_trait]
impl Inbox for LocalInbox {
    fn url(&self) -> &MailboxUrl {
        &self.url
    }

    async fn letters(&self, after: Option<u64>, wait: Duration) -> Result<Vec<Letter>, InboxError> {
        self.mailboxes.messages(&self.url.id(), after, wait).await.map_err(InboxError::Local)
    }

    async fn acknowledge(&self, seq: u64) -> Result<(), InboxError> {
        gone_is_fine(self.mailboxes.acknowledge(&self.url.id(), seq).await)
    }

    async fn blob(&self, address: &Address) -> Result<Bytes, InboxError> {
        self.mailboxes.blob(&self.url.id(), address).await.map_err(|error| match error {
            MailboxError::Absent => InboxError::NoBlob,
            other => InboxError::Local(other),
        })
    }

    async fn delete_blob(&self, address: &Address) -> Result<(), InboxError> {
        gone_is_fine(self.mailboxes.delete_blob(&self.url.id(), address).await)
    }

    async fn blobs(&self, after: Option<&Address>) -> Result<Vec<BlobEntry>, InboxError> {
        self.mailboxes.blobs(&self.url.id(), after).await.map_err(InboxError::Local)
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// Dealt with (also: refused for good) and whatever follows from it is durable: remove it.
    Done,
    /// Cannot be dealt with now (the own store is down): leave it and show it again.
    Later,
}

/// Takes letters out of an inbox.
#[async_trait]
pub trait LetterHandler: Send + Sync {
    /// Deals with one letter; may see the same letter again.
    async fn handle(&self, letter: &Letter) -> Disposal;

    /// Whether a letter may take long: such letters are dealt with beside the loop, in no order with the others.
    fn takes_long(&self, _letter: &Letter) -> bool {
        false
    }
}
