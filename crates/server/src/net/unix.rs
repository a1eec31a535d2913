//! The local admin interface: the same routers over a Unix domain socket that only its owner can open.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::counters::WireCounters;
use super::middleware;
use super::peer::Peer;
use super::server::{Drain, Draining, ServerOptions, Version, serve_connection};
use super::stream::WireStream;

/// Most connections of the admin socket at once.
const MAX_CONNECTIONS: usize = 64;

/// The admin socket cannot be opened or used.
#[derive(Debug, Error)]
pub enum UnixError {
    /// Another process serves this socket.
    #[error("{0} is served by another process; stop it first")]
    InUse(PathBuf),
    /// Nobody serves this socket.
    #[error("nobody listens at {0}; is the server running?")]
    NotRunning(PathBuf),
    /// The path is too long for a socket (about 100 bytes) or cannot be used.
    #[error("cannot use {path} as a socket")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The exchange broke.
    #[error("the exchange over {path} failed")]
    Exchange {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer over {0} in time")]
    Timeout(PathBuf),
}

/// A bound admin socket (mode 0600 unless it is shared); removed when serving ends.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    counters: Arc<WireCounters>,
}

impl AdminSocket {
    /// Binds `path`, replacing the socket a crashed process left behind but never one that is served.
    ///
    /// Security: between bind and chmod the socket has the mode the process' umask gives; its folder (0700) is what keeps
    /// others out.
    pub async fn bind(path: &Path) -> Result<Self, UnixError> {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(UnixError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(|source| UnixError::Path { path: path.to_owned(), source })?;
            }
            Err(_) => {}
        }
        let bad_path = |source| UnixError::Path { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(bad_path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(bad_path)?;
        Ok(Self { listener, path: path.to_owned(), counters: WireCounters::shared() })
    }

    /// Lets every local user who reaches the folder open the socket: whoever serves it decides by [`Peer::user`].
    ///
    /// # Errors
    /// [`UnixError::Path`].
    pub fn share(&self) -> Result<(), UnixError> {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o666))
            .map_err(|source| UnixError::Path { path: self.path.clone(), source })
    }

    /// The counters of this socket.
    pub fn counters(&self) -> Arc<WireCounters> {
        self.counters.clone()
    }

    /// Serves `router` until `shutdown`, then drains and removes the socket.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) -> Drain {
        let options = ServerOptions::default();
        // Admin commands such as loading a record may take long; the caller is the owner of the process.
        let router = middleware::wrap(router, "admin", self.counters.clone(), Duration::from_secs(24 * 3600));
        let drain = Draining::new(shutdown.clone());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = tokio::select! {
                () = shutdown.cancelled() => break,
                slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "accepting an admin connection failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            self.counters.connection();
            // Without credentials nobody is let in where a staff table decides.
            let user = stream.peer_cred().ok().map(|credentials| credentials.uid());
            let stream = WireStream::new(stream, self.counters.clone(), Duration::from_secs(24 * 3600));
            let (router, finish) = (router.clone(), drain.finish.clone());
            drain.spawn(async move {
                let _slot = slot;
                let peer = Peer { address: None, party: None, user };
                serve_connection(stream, Version::Http1, peer, router, options.header_timeout, &finish).await;
            });
        }
        let outcome = drain.finish(options.drain_timeout).await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "the admin socket could not be removed");
        }
        outcome
    }
}

/// Sends one request over an admin socket and reads the whole answer.
///
/// Errors: [`UnixError::NotRunning`] when nobody listens; an answer above `max_response` bytes is an exchange error.
pub async fn request(
    path: &Path,
    request: Request<Bytes>,
    timeout: Duration,
    max_response: usize,
) -> Result<(StatusCode, Bytes), UnixError> {
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => UnixError::NotRunning(path.to_owned()),
        _ => UnixError::Path { path: path.to_owned(), source },
    })?;
    tokio::time::timeout(timeout, exchange(stream, request, max_response))
        .await
        .map_err(|_| UnixError::Timeout(path.to_owned()))?
        .map_err(|source| UnixError::Exchange { path: path.to_owned(), source })
}

async fn exchange(
    stream: UnixStream,
    request: Request<Bytes>,
    max_response: usize,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let mut request = request.map(Full::new);
        request.headers_mut().entry("host").or_insert(axum::http::HeaderValue::from_static("admin"));
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max_response).collect().await?.to_bytes();
        Ok((status, body))
    }
    .await;
    driver.abort();
    answer
}
