//! The mailbox service over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use serde::Deserialize;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_store::Address;

use super::service::{MailboxError, Mailboxes};
use super::wire::{MAX_BLOB_BYTES, MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES, MailboxId};
use crate::limits::{BodyLimit, read_body};
use crate::net::peer::Peer;
use crate::problem::Problem;

const CONTROL: BodyLimit = BodyLimit { max_bytes: MAX_CONTROL_BYTES, timeout: Duration::from_secs(10) };
const MESSAGE: BodyLimit = BodyLimit { max_bytes: MAX_MESSAGE_BYTES, timeout: Duration::from_secs(30) };
const BLOB: BodyLimit = BodyLimit { max_bytes: MAX_BLOB_BYTES, timeout: Duration::from_secs(30) };

/// The mailbox routes; a host merges them into its own router.
pub fn router(mailboxes: Arc<Mailboxes>) -> Router {
    Router::new()
        .route("/mailbox/{id}", put(create).get(fill).delete(remove))
        .route("/mailbox/{id}/session", post(open_session))
        .route("/mailbox/{id}/messages", post(post_message).get(messages))
        .route("/mailbox/{id}/messages/{seq}", delete(acknowledge))
        .route("/mailbox/{id}/blobs", get(blobs))
        .route("/mailbox/{id}/blobs/{address}", put(put_blob).get(blob).delete(delete_blob))
        // Every handler reads its body itself, within its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(mailboxes)
}

/// The one route of a party that takes messages into its own mailbox and is no relay: no mailbox is made there, nothing but messages
/// is kept, and its owner reads from its own store.
pub fn posting_router(mailboxes: Arc<Mailboxes>, own: MailboxId) -> Router {
    Router::new()
        .route("/mailbox/{id}/messages", post(post_to_own))
        .layer(DefaultBodyLimit::disable())
        .with_state((mailboxes, own))
}

impl From<MailboxError> for Problem {
    fn from(error: MailboxError) -> Self {
        match &error {
            MailboxError::Unknown => {
                Problem::new(StatusCode::NOT_FOUND, "unknown-mailbox", "there is no such mailbox here")
            }
            MailboxError::Absent => Problem::not_found(),
            MailboxError::Proof(why) => {
                Problem::new(StatusCode::FORBIDDEN, "mailbox-proof", "the proof of the mailbox' key is refused")
                    .with_detail(*why)
            }
            MailboxError::Session => {
                Problem::new(StatusCode::UNAUTHORIZED, "mailbox-session", "a session of this mailbox is needed")
            }
            MailboxError::Certificate => Problem::new(
                StatusCode::FORBIDDEN,
                "certificate-needed",
                "a blob is taken from a party with a certificate only",
            ),
            MailboxError::TooMany { retry_after_seconds } => Problem::too_many(*retry_after_seconds),
            MailboxError::Full => {
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "mailbox-full", "the mailbox or its host is full")
                    .with_retry_after(60)
            }
            MailboxError::TooLarge(limit) => Problem::too_large(*limit),
            MailboxError::HashMismatch => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "hash-mismatch",
                "the bytes have another SHA-256 than announced",
            ),
            MailboxError::Busy => Problem::unavailable(),
            MailboxError::Damaged | MailboxError::Store(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the mailbox store failed");
                Problem::unavailable()
            }
        }
    }
}

type Answer = Result<Response, Problem>;

fn mailbox_id(text: &str) -> Result<MailboxId, Problem> {
    text.parse().map_err(|_| MailboxError::Unknown.into())
}

fn blob_address(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(|_| Problem::malformed("a blob is named by 64 lower-case hex digits"))
}

/// Reads the bearer token and checks it against the mailbox; the same answer whether or not the mailbox exists.
fn verify_session(mailboxes: &Mailboxes, id: &MailboxId, headers: &HeaderMap) -> Result<(), Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut token = [0; 32];
    bearer
        .and_then(|text| hex::decode_to_slice(text, &mut token).ok())
        .ok_or(MailboxError::Session)
        .and_then(|()| mailboxes.verify_token(id, &token))
        .map_err(Problem::from)
}

/// How large a body can become: its declared length, else the limit.
fn declared(body: &Body, max_bytes: usize) -> usize {
    body.size_hint().upper().and_then(|size| usize::try_from(size).ok()).unwrap_or(max_bytes).min(max_bytes)
}

async fn create(
    State(mailboxes): State<Arc<Mailboxes>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let id = mailbox_id(&id)?;
    mailboxes.admit_control(&peer)?;
    let body = read_body(body, CONTROL).await?;
    let request = from_cbor("create request", &body, MAX_CONTROL_BYTES)
        .map_err(|_| Problem::malformed("not a mailbox create request"))?;
    let new = mailboxes.create(&id, &request, peer.name()).await?;
    Ok(if new { StatusCode::CREATED } else { StatusCode::OK }.into_response())
}

async fn open_session(
    State(mailboxes): State<Arc<Mailboxes>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let id = mailbox_id(&id)?;
    mailboxes.admit_control(&peer)?;
    let body = read_body(body, CONTROL).await?;
    let request = from_cbor("session request", &body, MAX_CONTROL_BYTES)
        .map_err(|_| Problem::malformed("not a mailbox session request"))?;
    let session = mailboxes.open_session(&id, &request, peer.origin()).await?;
    Ok(to_cbor(&session).into_response())
}

async fn remove(State(mailboxes): State<Arc<Mailboxes>>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let id = mailbox_id(&id)?;
    verify_session(&mailboxes, &id, &headers)?;
    mailboxes.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn post_message(
    State(mailboxes): State<Arc<Mailboxes>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let id = mailbox_id(&id)?;
    mailboxes.admit_post(&peer)?;
    // An unknown mailbox is refused before its message is read.
    mailboxes.load_mailbox(&id).await?;
    let _memory = mailboxes.reserve(declared(&body, MAX_MESSAGE_BYTES)).await;
    let body = read_body(body, MESSAGE).await?;
    mailboxes.post(&id, body).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn post_to_own(
    State((mailboxes, own)): State<(Arc<Mailboxes>, MailboxId)>,
    peer: Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    if mailbox_id(&id)? != own {
        return Err(MailboxError::Unknown.into());
    }
    post_message(State(mailboxes), peer, Path(id), body).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    /// Longest wait. Units: seconds.
    #[serde(default)]
    wait: u64,
    /// Only messages after this sequence number.
    after: Option<u64>,
}

async fn messages(
    State(mailboxes): State<Arc<Mailboxes>>,
    Path(id): Path<String>,
    Query(query): Query<MessagesQuery>,
    headers: HeaderMap,
) -> Answer {
    let id = mailbox_id(&id)?;
    verify_session(&mailboxes, &id, &headers)?;
    let after = query.after.filter(|seq| *seq <= i64::MAX as u64);
    let letters = mailboxes.messages(&id, after, Duration::from_secs(query.wait)).await?;
    Ok(to_cbor(&letters).into_response())
}

async fn acknowledge(
    State(mailboxes): State<Arc<Mailboxes>>,
    Path((id, seq)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let id = mailbox_id(&id)?;
    verify_session(&mailboxes, &id, &headers)?;
    let seq = seq.parse().map_err(|_| Problem::malformed("a message is named by its number"))?;
    mailboxes.acknowledge(&id, seq).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn put_blob(
    State(mailboxes): State<Arc<Mailboxes>>,
    Extension(peer): Extension<Peer>,
    Path((id, address)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let (id, address) = (mailbox_id(&id)?, blob_address(&address)?);
    // Records come from hospitals. A stranger's blob is of no use to anybody, and nobody would ever take it out.
    let from = peer.name().ok_or(MailboxError::Certificate)?;
    mailboxes.verify_blob_room(&id, &address, body.size_hint().lower()).await?;
    let _memory = mailboxes.reserve(declared(&body, MAX_BLOB_BYTES)).await;
    let bytes = read_body(body, BLOB).await?;
    mailboxes.put_blob(&id, &address, bytes, from).await?;
    Ok(StatusCode::CREATED.into_response())
}

async fn fill(State(mailboxes): State<Arc<Mailboxes>>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let id = mailbox_id(&id)?;
    verify_session(&mailboxes, &id, &headers)?;
    Ok(to_cbor(&mailboxes.fill(&id).await?).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlobsQuery {
    /// Only blobs whose address comes after this one.
    after: Option<String>,
}

async fn blobs(
    State(mailboxes): State<Arc<Mailboxes>>,
    Path(id): Path<String>,
    Query(query): Query<BlobsQuery>,
    headers: HeaderMap,
) -> Answer {
    let id = mailbox_id(&id)?;
    verify_session(&mailboxes, &id, &headers)?;
    let after = query.after.as_deref().map(blob_address).transpose()?;
    Ok(to_cbor(&mailboxes.blobs(&id, after.as_ref()).await?).into_response())
}

async fn blob(
    State(mailboxes): State<Arc<Mailboxes>>,
    Path((id, address)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (id, address) = (mailbox_id(&id)?, blob_address(&address)?);
    verify_session(&mailboxes, &id, &headers)?;
    Ok(mailboxes.blob(&id, &address).await?.into_response())
}

async fn delete_blob(
    State(mailboxes): State<Arc<Mailboxes>>,
    Path((id, address)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (id, address) = (mailbox_id(&id)?, blob_address(&address)?);
    verify_session(&mailboxes, &id, &headers)?;
    mailboxes.delete_blob(&id, &address).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
