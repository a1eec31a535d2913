//! What every server is made of: a data folder, a TLS listener, an admin socket, health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use waybill_store::{DataFolder, FileObjects, Key, OpenError, Space, SqliteOptions, SqliteStore, Store};

use crate::config::{RELOAD_INTERVAL, ServerConfig};
use crate::net::counters::WireCounters;
use crate::net::server::{BindError, Drain, Server, ServerOptions};
use crate::net::tls::{ClientAuth, ServerTls, TlsError};
use crate::net::unix::{AdminSocket, UnixError};
use crate::problem::Problem;

/// A server cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder.
    #[error("the data folder cannot be opened")]
    Store(#[from] OpenError),
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] UnixError),
    /// A key or certificate file.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The witnesses know more of an authority's log than its store does, or too few of them answer.
    #[error(transparent)]
    Log(#[from] crate::authority::sequencer::StartError),
    /// A setting that cannot be used; says which.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
}

/// A server that is bound and has its store open, but serves nothing yet.
pub struct Shell {
    /// Rows.
    pub store: Arc<SqliteStore>,
    /// Objects.
    pub objects: Arc<FileObjects>,
    /// Names in URLs that lead here.
    pub hosts: Vec<String>,
    server: Server,
    admin: AdminSocket,
    tls: Arc<ServerTls>,
}

impl Shell {
    /// Opens the data folder, reads the certificates, and binds the port and the admin socket.
    pub async fn open(config: &ServerConfig, client_auth: ClientAuth) -> Result<Self, StartError> {
        let tls = ServerTls::load(config.tls_files(), client_auth)?;
        let folder = DataFolder::open(&config.data)?;
        let server = Server::bind(config.listen, ServerOptions::default()).await?;
        let admin = AdminSocket::bind(&config.admin_socket()).await?;
        let store = Arc::new(SqliteStore::open(folder.clone(), SqliteOptions::default()).await?);
        let objects = Arc::new(FileObjects::open(folder, None)?);
        let hosts = match config.public_hosts.as_slice() {
            [] => vec![server.address().to_string(), format!("localhost:{}", server.address().port())],
            named => named.to_vec(),
        };
        Ok(Self { store, objects, hosts, server, admin, tls })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Serves `public` over TLS and `admin` over the socket, each with health routes, until `shutdown`; then closes the store.
    pub async fn serve(self, public: Router, admin: Router, shutdown: CancellationToken) -> Drain {
        let health = health(self.store.clone(), shutdown.clone());
        let (public_counters, admin_counters) = (self.server.counters(), self.admin.counters());
        let address = self.server.address();
        let public = public.merge(health.clone());
        let admin = admin.merge(health).merge(own_status(public_counters, admin_counters, address));
        let watching = tokio::spawn(self.tls.clone().watch(RELOAD_INTERVAL, shutdown.clone()));
        tracing::info!(%address, "serving");
        let (drain, _) = tokio::join!(
            self.server.serve(public, self.tls, shutdown.clone()),
            self.admin.serve(admin, shutdown.clone())
        );
        if let Err(error) = watching.await {
            tracing::error!(%error, "watching the certificates failed");
        }
        self.store.close().await;
        if let Drain::Cut(connections) = drain {
            tracing::warn!(connections, "the drain deadline cut connections");
        }
        drain
    }
}

/// `GET /health/live` and `GET /health/ready`; ready means that the store answers and no shutdown has begun.
pub fn health(store: Arc<dyn Store>, shutdown: CancellationToken) -> Router {
    let ready = move || {
        let (store, shutdown) = (store.clone(), shutdown.clone());
        async move {
            let probe = Key::build().text("ready").done();
            let load = tokio::time::timeout(Duration::from_secs(5), store.load(Space::Setting, &probe));
            if !shutdown.is_cancelled() && matches!(load.await, Ok(Ok(_))) {
                "ready\n".into_response()
            } else {
                not_ready()
            }
        }
    };
    Router::new().route("/health/live", get(|| async { "live\n" })).route("/health/ready", get(ready))
}

fn not_ready() -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "the server is not ready")
        .with_retry_after(1)
        .into_response()
}

/// `GET /metrics` and `GET /status` of the admin socket.
fn own_status(public: Arc<WireCounters>, admin: Arc<WireCounters>, address: SocketAddr) -> Router {
    let metrics = {
        let public = public.clone();
        move || async move {
            let text = public.counts().prometheus("public") + &admin.counts().prometheus("admin");
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
        }
    };
    let status = move || async move {
        let counts = public.counts();
        Json(serde_json::json!({
            "address": address,
            "received_bytes": counts.received_bytes,
            "sent_bytes": counts.sent_bytes,
            "requests": counts.requests,
        }))
    };
    Router::new().route("/metrics", get(metrics)).route("/status", get(status))
}
