//! The authority's public pages: statement, revocation list, registry, log.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::log::tiles::{TileKind, TilePath};
use waybill_protocol::wire::to_cbor;
use waybill_store::Space;

use super::engine::Engine;
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
    crl: PathBuf,
    mailbox: String,
}

type Shared = State<Arc<Pages>>;

/// The public router.
pub(super) fn public(engine: Engine, crl: PathBuf, mailbox: String) -> Router {
    let pages = Arc::new(Pages { engine, crl, mailbox });
    Router::new()
        .route("/authority", get(about))
        .route("/statement", get(statement_page))
        .route("/crl", get(crl_page))
        .route("/directory/{id}", get(directory))
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .with_state(pages)
}

async fn about(State(pages): Shared) -> Json<About> {
    let name = pages.engine.party.with_trust(|trust| trust.authority().to_string());
    Json(About { name, mailbox: pages.mailbox.clone() })
}

async fn statement_page(State(pages): Shared) -> Response {
    let statement = to_cbor(&pages.engine.keys.current().statement);
    ([(header::CONTENT_TYPE, "application/cbor")], statement).into_response()
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
    Ok(Json(super::operator::entry(&found)))
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

fn failed(error: &ServiceError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a page could not be served");
    Problem::unavailable()
}
