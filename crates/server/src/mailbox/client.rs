//! A mailbox host seen from outside: posting as anybody, reading as the owner.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{Method, Request, request};
use bytes::Bytes;
use minicbor::bytes::ByteArray;
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::SigningKey;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::Address;

use super::journal::Journal;
use super::wire::{
    BlobEntry, CreateRequest, Fill, Letter, MAX_BLOB_BYTES, MAX_BLOB_ENTRIES, MAX_BLOB_LIST_BYTES, MAX_CONTROL_BYTES,
    MAX_LETTERS, MAX_LETTERS_BYTES, MAX_MESSAGE_BYTES, MAX_WAIT_SECONDS, MailboxUrl, Session, SessionRequest,
    create_payload, session_payload,
};
use crate::clock::Clock;
use crate::net::client::{Answer, ClientError, Exchange, HttpClient};

/// Time for an answer beyond what a long poll waits.
const CONTROL: Exchange = Exchange { timeout: Duration::from_secs(20), max_response: MAX_CONTROL_BYTES };
const TRANSFER: Exchange = Exchange { timeout: Duration::from_secs(60), max_response: MAX_CONTROL_BYTES };
/// Sequence numbers and frames beside the message bytes of one answer.
const LETTERS_OVERHEAD: usize = MAX_LETTERS * 32;

/// A host answered something that is not its protocol, or did not answer.
#[derive(Debug, Error)]
pub enum MailboxClientError {
    /// The exchange failed or was refused.
    #[error(transparent)]
    Exchange(#[from] ClientError),
    /// The host's answer does not decode.
    #[error("the mailbox host's answer does not decode")]
    Answer,
    /// The blob's bytes are not what its address says.
    #[error("the mailbox host delivered a damaged blob")]
    Damaged,
}

impl MailboxClientError {
    /// The HTTP status, when the host gave one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Exchange(error) => error.status().map(|status| status.as_u16()),
            Self::Answer | Self::Damaged => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Exchange(error) => error.is_retryable(),
            Self::Answer | Self::Damaged => true,
        }
    }
}

/// Speaks to mailbox hosts.
#[derive(Clone)]
pub struct MailboxClient {
    http: HttpClient,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    journal: Arc<Journal>,
}

impl MailboxClient {
    /// A client over `http`.
    pub fn new(http: HttpClient, backend: Arc<dyn Backend>, clock: Arc<dyn Clock>) -> Self {
        Self { http, backend, clock, journal: Arc::default() }
    }

    /// The HTTP client below, for its counters.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// What this client and its clones have posted.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// Makes or renews the mailbox of `key`.
    pub async fn create(&self, url: &MailboxUrl, key: &SigningKey) -> Result<(), MailboxClientError> {
        let time = self.clock.now_seconds();
        let signature = self.backend.sign(key, &create_payload(&url.id(), url.host(), time));
        let request = CreateRequest { public_key: key.public().clone(), time, signature };
        self.send(Method::PUT, url.to_string(), None, to_cbor(&request).into(), CONTROL).await?;
        Ok(())
    }

    /// Posts a message; it is durable at the host when this returns.
    pub async fn post(&self, url: &MailboxUrl, body: Bytes) -> Result<(), MailboxClientError> {
        self.send(Method::POST, url.join("/messages"), None, body.clone(), TRANSFER).await?;
        self.journal.note(url, &body);
        Ok(())
    }

    /// Puts a blob, for which this client needs a certificate; it is durable at the host when this returns.
    pub async fn put_blob(&self, url: &MailboxUrl, address: &Address, bytes: Bytes) -> Result<(), MailboxClientError> {
        self.send(Method::PUT, url.join(&format!("/blobs/{address}")), None, bytes, TRANSFER).await?;
        Ok(())
    }

    /// Proves the mailbox' key and receives a token for reading.
    pub async fn open_session(&self, url: &MailboxUrl, key: &SigningKey) -> Result<Session, MailboxClientError> {
        let time = self.clock.now_seconds();
        let mut nonce = [0; 16];
        self.backend.random(&mut nonce);
        let signature = self.backend.sign(key, &session_payload(&url.id(), url.host(), time, &nonce));
        let request = SessionRequest { time, nonce: ByteArray::from(nonce), signature };
        let answer = self.send(Method::POST, url.join("/session"), None, to_cbor(&request).into(), CONTROL).await?;
        from_cbor("session", &answer.body, MAX_CONTROL_BYTES).map_err(|_| MailboxClientError::Answer)
    }

    /// Waits up to `wait` for messages after `after`.
    pub async fn messages(
        &self,
        url: &MailboxUrl,
        session: &Session,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Letter>, MailboxClientError> {
        let seconds = wait.as_secs().min(MAX_WAIT_SECONDS);
        let after = after.map(|seq| format!("&after={seq}")).unwrap_or_default();
        let max_response = MAX_LETTERS_BYTES.max(MAX_MESSAGE_BYTES) + LETTERS_OVERHEAD;
        let exchange = Exchange { timeout: Duration::from_secs(seconds + 30), max_response };
        let target = url.join(&format!("/messages?wait={seconds}{after}"));
        let answer = self.send(Method::GET, target, Some(session), Bytes::new(), exchange).await?;
        let letters: Vec<Letter> =
            from_cbor("letters", &answer.body, max_response).map_err(|_| MailboxClientError::Answer)?;
        if letters.len() > MAX_LETTERS { Err(MailboxClientError::Answer) } else { Ok(letters) }
    }

    /// Removes a message; one that is gone already is no error.
    pub async fn acknowledge(&self, url: &MailboxUrl, session: &Session, seq: u64) -> Result<(), MailboxClientError> {
        self.remove(url.join(&format!("/messages/{seq}")), session).await
    }

    /// Reads a blob and checks it against its address.
    pub async fn blob(
        &self,
        url: &MailboxUrl,
        session: &Session,
        address: &Address,
    ) -> Result<Bytes, MailboxClientError> {
        let exchange = Exchange { max_response: MAX_BLOB_BYTES, ..TRANSFER };
        let target = url.join(&format!("/blobs/{address}"));
        let answer = self.send(Method::GET, target, Some(session), Bytes::new(), exchange).await?;
        if Address::of(&answer.body) != *address {
            return Err(MailboxClientError::Damaged);
        }
        Ok(answer.body)
    }

    /// One page of the blobs that wait, after one.
    pub async fn blobs(
        &self,
        url: &MailboxUrl,
        session: &Session,
        after: Option<&Address>,
    ) -> Result<Vec<BlobEntry>, MailboxClientError> {
        let after = after.map(|address| format!("?after={address}")).unwrap_or_default();
        let exchange = Exchange { max_response: MAX_BLOB_LIST_BYTES, ..TRANSFER };
        let target = url.join(&format!("/blobs{after}"));
        let answer = self.send(Method::GET, target, Some(session), Bytes::new(), exchange).await?;
        let page: Vec<BlobEntry> =
            from_cbor("blobs", &answer.body, MAX_BLOB_LIST_BYTES).map_err(|_| MailboxClientError::Answer)?;
        if page.len() > MAX_BLOB_ENTRIES { Err(MailboxClientError::Answer) } else { Ok(page) }
    }

    /// How full the mailbox is.
    pub async fn fill(&self, url: &MailboxUrl, session: &Session) -> Result<Fill, MailboxClientError> {
        let answer = self.send(Method::GET, url.to_string(), Some(session), Bytes::new(), CONTROL).await?;
        from_cbor("fill", &answer.body, MAX_CONTROL_BYTES).map_err(|_| MailboxClientError::Answer)
    }

    /// Removes a blob; one that is gone already is no error.
    pub async fn delete_blob(
        &self,
        url: &MailboxUrl,
        session: &Session,
        address: &Address,
    ) -> Result<(), MailboxClientError> {
        self.remove(url.join(&format!("/blobs/{address}")), session).await
    }

    /// Removes the mailbox with all it holds; one that is gone already is no error.
    pub async fn delete(&self, url: &MailboxUrl, session: &Session) -> Result<(), MailboxClientError> {
        self.remove(url.to_string(), session).await
    }

    async fn remove(&self, target: String, session: &Session) -> Result<(), MailboxClientError> {
        match self.send(Method::DELETE, target, Some(session), Bytes::new(), CONTROL).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn send(
        &self,
        method: Method,
        target: String,
        session: Option<&Session>,
        body: Bytes,
        exchange: Exchange,
    ) -> Result<Answer, MailboxClientError> {
        let mut builder: request::Builder = Request::builder().method(method).uri(target);
        if let Some(session) = session {
            builder = builder.header(AUTHORIZATION, format!("Bearer {}", hex::encode(session.token.as_ref())));
        }
        let request = builder.body(body).map_err(|_| ClientError::Url)?;
        Ok(self.http.send(request, exchange).await?)
    }
}
