//! The authority's public pages (statement, revocation list, registry, log) and the operator's socket.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use waybill_protocol::ids::{HospitalId, Timestamp};
use waybill_protocol::log::tiles::{TileKind, TilePath};
use waybill_protocol::messages::{AuthorityStatementBody, Standing};
use waybill_protocol::wire::to_cbor;
use waybill_store::Space;

use super::engine::Engine;
use super::registry::Enrolled;
use super::sequencer::{load_log, tile_row};
use crate::party::ServiceError;
use crate::problem::Problem;

/// What `GET /authority` says; a hint for set-up, not a source of trust.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// The authority's name.
    pub name: String,
    /// Its mailbox.
    pub mailbox: String,
}

/// What `GET /directory/{id}` says of a hospital.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// Its name.
    pub id: String,
    /// Its mailbox.
    pub mailbox: String,
    /// `active`, `suspended` or `revoked`.
    #[serde(default = "active")]
    pub standing: String,
}

fn active() -> String {
    "active".to_owned()
}

struct Pages {
    engine: Engine,
    statement: Vec<u8>,
    crl: PathBuf,
    mailbox: String,
}

type Shared = State<Arc<Pages>>;

/// The public router.
pub(super) fn public(engine: Engine, statement: &AuthorityStatementBody, crl: PathBuf, mailbox: String) -> Router {
    let pages = Arc::new(Pages { engine, statement: to_cbor(statement), crl, mailbox });
    Router::new()
        .route("/authority", get(about))
        .route("/statement", get(statement_page))
        .route("/crl", get(crl_page))
        .route("/directory/{id}", get(directory))
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .with_state(pages)
}

/// The operator's router, on the admin socket only.
pub(super) fn admin(engine: Engine) -> Router {
    Router::new().route("/hospitals", post(enrol).get(hospitals)).with_state(engine)
}

async fn about(State(pages): Shared) -> Json<About> {
    let name = pages.engine.party.with_trust(|trust| trust.authority().to_string());
    Json(About { name, mailbox: pages.mailbox.clone() })
}

async fn statement_page(State(pages): Shared) -> Response {
    ([(header::CONTENT_TYPE, "application/cbor")], pages.statement.clone()).into_response()
}

async fn crl_page(State(pages): Shared) -> Result<Response, Problem> {
    let bytes = tokio::fs::read(&pages.crl).await.map_err(|error| {
        tracing::error!(%error, "the revocation list cannot be read");
        Problem::unavailable()
    })?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], bytes).into_response())
}

async fn directory(State(pages): Shared, Path(id): Path<String>) -> Result<Json<DirectoryEntry>, Problem> {
    let id = HospitalId::parse(&id).map_err(|_| Problem::not_found())?;
    let found = pages.engine.registry.find(&id).await.map_err(|e| failed(&e))?.ok_or_else(Problem::not_found)?;
    Ok(Json(entry(&found)))
}

async fn checkpoint(State(pages): Shared) -> Result<Response, Problem> {
    let (row, _) = load_log(&pages.engine).await.map_err(|e| failed(&e))?;
    let cosigned = row.cosigned.ok_or_else(Problem::not_found)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], cosigned.note).into_response())
}

/// Serves a tile of the asked width out of its widest version.
async fn tile(State(pages): Shared, Path(path): Path<String>) -> Result<Response, Problem> {
    let path: TilePath = format!("tile/{path}").parse().map_err(|_| Problem::not_found())?;
    let found = pages.engine.party.store.load(Space::Tile, &tile_row(&path.id)).await.map_err(|e| failed(&e.into()))?;
    let entry_bytes = if path.id.kind == TileKind::Entries { 34 } else { 32 };
    let mut bytes = found.ok_or_else(Problem::not_found)?.value;
    if bytes.len() < path.width * entry_bytes {
        return Err(Problem::not_found());
    }
    bytes.truncate(path.width * entry_bytes);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn enrol(State(engine): State<Engine>, body: Bytes) -> Result<StatusCode, Problem> {
    let asked: DirectoryEntry =
        serde_json::from_slice(&body).map_err(|_| Problem::malformed("expected id, mailbox, standing"))?;
    let id = HospitalId::parse(&asked.id).map_err(|_| Problem::malformed("the id is not a hospital id"))?;
    let standing = match asked.standing.as_str() {
        "active" => Standing::Active,
        "suspended" => Standing::Suspended,
        "revoked" => Standing::Revoked,
        _ => return Err(Problem::malformed("standing is active, suspended or revoked")),
    };
    let since = Timestamp(engine.party.clock.now_seconds());
    engine.registry.put(&Enrolled { id, standing, mailbox: asked.mailbox, since }).await.map_err(|e| failed(&e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn hospitals(State(engine): State<Engine>) -> Result<Json<Vec<DirectoryEntry>>, Problem> {
    let all = engine.registry.all().await.map_err(|e| failed(&e))?;
    Ok(Json(all.iter().map(entry).collect()))
}

fn entry(hospital: &Enrolled) -> DirectoryEntry {
    let standing = match hospital.standing {
        Standing::Active => "active",
        Standing::Suspended => "suspended",
        Standing::Revoked => "revoked",
    };
    DirectoryEntry { id: hospital.id.to_string(), mailbox: hospital.mailbox.clone(), standing: standing.to_owned() }
}

fn failed(error: &ServiceError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a page could not be served");
    Problem::unavailable()
}
