//! The log's side of a witness.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_protocol::log::witness::{AddCheckpoint, accept_cosignature};
use waybill_protocol::log::{LogError, NoteKey};

use crate::net::client::{ClientError, Exchange, HttpClient};

const EXCHANGE: Exchange = Exchange { timeout: Duration::from_secs(15), max_response: 16 * 1024 };

/// What a witness said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAnswer {
    /// It cosigned: the note with its verified cosignature appended.
    Cosigned(Vec<u8>),
    /// It remembers another size; the raw answer, for `witness::judge_conflict`.
    Conflict(Vec<u8>),
}

/// A witness did not answer as it should.
#[derive(Debug, Error)]
pub enum WitnessClientError {
    /// The exchange failed, or the witness refuses.
    #[error("the witness refuses or cannot be reached")]
    Exchange(#[from] ClientError),
    /// Its cosignature is not one.
    #[error("the witness' answer is not its cosignature")]
    Cosignature(#[source] LogError),
}

/// Asks one witness.
#[derive(Clone)]
pub struct WitnessClient {
    http: HttpClient,
    backend: Arc<dyn Backend>,
    url: String,
    key: NoteKey,
}

impl WitnessClient {
    /// The witness at `url` (`https://host[:port]`, without a path) whose cosignatures verify under `key`.
    pub fn new(http: HttpClient, backend: Arc<dyn Backend>, url: &str, key: NoteKey) -> Self {
        Self { http, backend, url: url.trim_end_matches('/').to_owned(), key }
    }

    /// The witness' key.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it answers at all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reach(&self) -> Result<(), ClientError> {
        let get = Request::get(format!("{}/health/live", self.url)).body(Bytes::new()).map_err(|_| ClientError::Url)?;
        let short = Exchange { timeout: Duration::from_secs(5), ..EXCHANGE };
        self.http.send(get, short).await.map(|_| ())
    }
}

/// Who can be asked for a cosignature: a witness over the network, or one in this process.
#[async_trait]
pub trait Cosigner: Send + Sync {
    /// Offers a checkpoint.
    ///
    /// # Errors
    /// [`WitnessClientError`].
    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<WitnessAnswer, WitnessClientError>;
}

#[async_trait]
impl Cosigner for WitnessClient {
    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<WitnessAnswer, WitnessClientError> {
        let post = Request::post(format!("{}/add-checkpoint", self.url))
            .body(Bytes::from(request.to_bytes()))
            .map_err(|_| ClientError::Url)?;
        match self.http.send(post, EXCHANGE).await {
            Ok(answer) => accept_cosignature(self.backend.as_ref(), &self.key, &request.note, &answer.body)
                .map(WitnessAnswer::Cosigned)
                .map_err(WitnessClientError::Cosignature),
            Err(ClientError::Status { status: StatusCode::CONFLICT, body, .. }) => {
                Ok(WitnessAnswer::Conflict(body.to_vec()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
