//! `POST /add-checkpoint`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::log::witness::{
    AddCheckpoint, MAX_ADD_CHECKPOINT_BYTES, SIZE_CONTENT_TYPE, WitnessRefusal, WitnessState, handle_add_checkpoint,
};
use waybill_protocol::log::{KeyName, NoteKey, NoteSigner};
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::{Batch, CommitError, Expect, Key, Space, Store};

use crate::clock::Clock;
use crate::limits::{BodyLimit, read_body};
use crate::problem::Problem;

const BODY: BodyLimit = BodyLimit { max_bytes: MAX_ADD_CHECKPOINT_BYTES, timeout: Duration::from_secs(10) };
/// How often a lost race is run again; each loser then sees the winner's state.
const MAX_RACES: usize = 8;

/// A witness over a store.
pub struct Witness {
    store: Arc<dyn Store>,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    signer: NoteSigner,
    logs: BTreeMap<KeyName, NoteKey>,
}

/// No cosignature.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] WitnessRefusal),
    /// The store cannot make it durable.
    #[error("the witness' store is unavailable")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Witness {
    /// A witness that cosigns for `logs` as `signer`.
    pub fn new(
        store: Arc<dyn Store>,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        signer: NoteSigner,
        logs: BTreeMap<KeyName, NoteKey>,
    ) -> Self {
        Self { store, backend, clock, signer, logs }
    }

    /// Decides about one request; the new state is durable before the cosignature line is returned.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Result<String, WitnessError> {
        let request = AddCheckpoint::parse(body)?;
        let log_key = self.logs.get(&request.origin()?).ok_or(WitnessRefusal::UnknownLog)?;
        let key = Key::build().text("witness").text(log_key.name().as_str()).done();
        let mut race = 0;
        loop {
            let (state, expect) = self.load_state(&key).await?;
            let now = Timestamp(self.clock.now_seconds());
            let decided = handle_add_checkpoint(&state, log_key, &request, now, &self.signer, self.backend.as_ref())?;
            let batch =
                Batch::new("witness-cosign").put(Space::Checkpoint, key.clone(), to_cbor(&decided.state), expect);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(decided.line),
                Err(CommitError::Conflict { .. }) if race < MAX_RACES => race += 1,
                Err(error) => return Err(WitnessError::Store(Box::new(error))),
            }
        }
    }

    async fn load_state(&self, key: &Key) -> Result<(WitnessState, Expect), WitnessError> {
        let found =
            self.store.load(Space::Checkpoint, key).await.map_err(|error| WitnessError::Store(Box::new(error)))?;
        let Some(found) = found else { return Ok((WitnessState::default(), Expect::Absent)) };
        // A damaged row must never read as "nothing seen yet".
        let state =
            from_cbor("witness state", &found.value, 64).map_err(|error| WitnessError::Store(Box::new(error)))?;
        Ok((state, Expect::Version(found.version)))
    }
}

/// What a witness has seen of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogSeen {
    /// The log's verifier key.
    pub log: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: String,
}

impl Witness {
    /// What it has seen of each of its logs.
    ///
    /// # Errors
    /// [`WitnessError::Store`].
    pub async fn seen(&self) -> Result<Vec<LogSeen>, WitnessError> {
        let mut seen = Vec::new();
        for (name, log) in &self.logs {
            let (state, _) = self.load_state(&Key::build().text("witness").text(name.as_str()).done()).await?;
            seen.push(LogSeen { log: log.to_string(), size: state.size, root: state.root.to_string() });
        }
        Ok(seen)
    }
}

/// `GET /logs` of the admin socket.
pub(super) fn admin(witness: Arc<Witness>) -> Router {
    Router::new().route("/logs", get(logs)).with_state(witness)
}

async fn logs(State(witness): State<Arc<Witness>>) -> Result<Json<Vec<LogSeen>>, Problem> {
    witness.seen().await.map(Json).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "what was seen cannot be read");
        Problem::unavailable()
    })
}

/// The witness' route.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new().route("/add-checkpoint", post(add_checkpoint)).with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let body = match read_body(body, BODY).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    match witness.add_checkpoint(&body).await {
        Ok(line) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], line).into_response(),
        Err(WitnessError::Refused(refusal)) => answer_refusal(&refusal),
        Err(error @ WitnessError::Store(_)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a checkpoint could not be remembered");
            Problem::unavailable().into_response()
        }
    }
}

fn answer_refusal(refusal: &WitnessRefusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).expect("the statuses of tlog-witness are valid");
    // MUST (tlog-witness): the body of a 409 is the witness' size alone.
    if let Some(size) = refusal.size_body() {
        return (status, [(header::CONTENT_TYPE, SIZE_CONTENT_TYPE)], size).into_response();
    }
    Problem::new(status, "checkpoint-refused", "the witness does not cosign")
        .with_detail(refusal.to_string())
        .into_response()
}
