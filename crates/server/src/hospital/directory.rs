//! Where others' mailboxes are: the authority's registry, asked over TLS and remembered for a while.

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
    relays: Vec<String>,
    authority: tokio::sync::OnceCell<String>,
    known: Mutex<BTreeMap<HospitalId, (String, u64)>>,
}

impl Directory {
    /// The registry of the authority at `url` (`https://host[:port]`); patients are answered below `relays` only.
    #[must_use]
    pub fn new(http: HttpClient, url: &str, clock: std::sync::Arc<dyn Clock>, relays: Vec<String>) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        let relays = crate::party::below(relays);
        Self { http, url, clock, relays, authority: tokio::sync::OnceCell::new(), known: Mutex::default() }
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
        if let Some((mailbox, until)) = self.known.lock().expect("nobody panics while holding the directory").get(id)
            && *until > now
        {
            return Ok(Some(mailbox.clone()));
        }
        let body = match self.fetch(&format!("/directory/{id}"), 64 * 1024).await {
            Ok(body) => body,
            Err(error) if error.status().is_some_and(|s| s.as_u16() == 404) => return Ok(None),
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
            Recipient::Mailbox(url) => Ok(self.relays.iter().any(|relay| url.starts_with(relay)).then(|| url.clone())),
        }
    }
}
