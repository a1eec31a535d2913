//! Where others' mailboxes are: the authority's registry, asked over TLS and remembered for a while.
//!
//! What the hospital decides is committed with the *names* of those who must hear of it ([`Names`]); the sender looks their mailboxes
//! up when it sends. So nothing that staff or a handler decides fails because the authority cannot be reached.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Request;
use bytes::Bytes;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::migration::Recipient;

use crate::authority::http::{About, DirectoryEntry};
use crate::clock::Clock;
use crate::net::client::{ClientError, Exchange, HttpClient};
use crate::outbox::name_of;
use crate::party::{AddressBook, ServiceError};

/// How long an answer is remembered. Units: milliseconds.
const FRESH_MS: u64 = 10 * 60 * 1000;
/// Most hospitals remembered.
const MOST: usize = 10_000;
const EXCHANGE: Exchange = Exchange { timeout: Duration::from_secs(15), max_response: 64 * 1024 };

/// The registry as a hospital sees it.
pub struct Directory {
    http: HttpClient,
    url: String,
    clock: std::sync::Arc<dyn Clock>,
    authority: tokio::sync::OnceCell<String>,
    known: Mutex<BTreeMap<HospitalId, (String, u64)>>,
}

impl Directory {
    /// The registry of the authority at `url` (`https://host[:port]`).
    #[must_use]
    pub fn new(http: HttpClient, url: &str, clock: std::sync::Arc<dyn Clock>) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { http, url, clock, authority: tokio::sync::OnceCell::new(), known: Mutex::default() }
    }

    /// Fetches a public page of the authority.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self, path: &str, max_response: usize) -> Result<Bytes, ClientError> {
        let request = Request::get(format!("{}{path}", self.url)).body(Bytes::new()).map_err(|_| ClientError::Url)?;
        Ok(self.http.send(request, Exchange { max_response, ..EXCHANGE }).await?.body)
    }

    async fn authority(&self) -> Result<String, ServiceError> {
        let mailbox = self.authority.get_or_try_init(|| async {
            let body =
                self.fetch("/authority", 64 * 1024).await.map_err(|e| ServiceError::unavailable("the authority", e))?;
            let about: About =
                serde_json::from_slice(&body).map_err(|e| ServiceError::unavailable("the authority's page", e))?;
            Ok::<_, ServiceError>(about.mailbox)
        });
        mailbox.await.cloned()
    }

    async fn hospital(&self, id: &HospitalId) -> Result<Option<String>, ServiceError> {
        let now = self.clock.now_ms();
        let known = self.known.lock().expect("nobody panics while holding the directory").get(id).cloned();
        if let Some((mailbox, until)) = &known
            && *until > now
        {
            return Ok(Some(mailbox.clone()));
        }
        let body = match self.fetch(&format!("/directory/{id}"), 64 * 1024).await {
            Ok(body) => body,
            Err(error) if error.status().is_some_and(|s| s.as_u16() == 404) => return Ok(None),
            // What is under way goes on where it went, while the registry cannot be asked.
            Err(error) if known.is_some() => {
                tracing::debug!(%error, "the registry cannot be asked; the address it gave last is used");
                return Ok(known.map(|(mailbox, _)| mailbox));
            }
            Err(error) => return Err(ServiceError::unavailable("the authority's registry", error)),
        };
        let entry: DirectoryEntry =
            serde_json::from_slice(&body).map_err(|e| ServiceError::unavailable("the authority's registry", e))?;
        let mut known = self.known.lock().expect("nobody panics while holding the directory");
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id.clone(), (entry.mailbox.clone(), now.saturating_add(FRESH_MS)));
        Ok(Some(entry.mailbox))
    }
}

#[async_trait]
impl AddressBook for Directory {
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError> {
        match to {
            Recipient::Authority => self.authority().await.map(Some),
            Recipient::Hospital(id) => self.hospital(id).await,
            Recipient::Mailbox(_) => Ok(None),
        }
    }
}

/// Names instead of addresses, for what goes to parties of the registry. Security: patients are answered below these relays only.
pub struct Names(Vec<String>);

impl Names {
    /// Patients are answered below `relays`.
    #[must_use]
    pub fn new(relays: Vec<String>) -> Self {
        Self(crate::party::below(relays))
    }
}

#[async_trait]
impl AddressBook for Names {
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError> {
        Ok(match to {
            Recipient::Mailbox(url) => self.0.iter().any(|relay| url.starts_with(relay)).then(|| url.clone()),
            party => name_of(party),
        })
    }
}
