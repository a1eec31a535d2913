//! An HTTP server (1.1 and 2 over TLS 1.3) that bounds connections, headers, times and its own ending.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::counters::WireCounters;
use super::middleware;
use super::peer::{Party, PartyName, Peer, network_of};
use super::stream::WireStream;
use super::tls::ServerTls;

/// Bounds of one server.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Name of this endpoint in logs and metrics.
    pub endpoint: &'static str,
    /// Most connections at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Most connections at once from one address; more are dropped.
    pub max_connections_per_ip: usize,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest time for the header of a request (HTTP/1.1) to arrive.
    pub header_timeout: Duration,
    /// A connection on which no byte moves for this long is closed; must exceed the longest long poll.
    pub idle_timeout: Duration,
    /// Longest handling of one request, body included.
    pub request_timeout: Duration,
    /// How long requests under way may take to finish after the shutdown signal.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            endpoint: "public",
            max_connections: 1024,
            max_connections_per_ip: 256,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            request_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Largest header block of a request. Units: bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// HTTP/2 flow-control windows, so that one blob travels without waiting for window updates. Units: bytes.
pub(super) const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A server cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("port {} of {} is in use by another process; stop it or configure another `listen` address", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// The process may not open this port.
    #[error("not allowed to listen on {0}; use a port above 1023 or grant the right to bind low ports")]
    Forbidden(SocketAddr),
    /// The address is not one of this machine's.
    #[error("{0} is not an address of this machine; configure another `listen` address")]
    NotLocal(SocketAddr),
    /// Something else.
    #[error("cannot listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Every request under way was answered.
    Complete,
    /// The drain deadline cut this many connections.
    Cut(usize),
}

/// A bound listener, so that the caller knows the port before anything is served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    options: ServerOptions,
    counters: Arc<WireCounters>,
}

impl Server {
    /// Binds `address`; port 0 picks a free one.
    pub async fn bind(address: SocketAddr, options: ServerOptions) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::PermissionDenied => BindError::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal(address),
            _ => BindError::Other { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| BindError::Other { address, source })?;
        Ok(Self { listener, address, options, counters: WireCounters::shared() })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters of this server.
    pub fn counters(&self) -> Arc<WireCounters> {
        self.counters.clone()
    }

    /// Serves `router` until `shutdown`, then drains.
    pub async fn serve(self, router: Router, tls: Arc<ServerTls>, shutdown: CancellationToken) -> Drain {
        let router =
            middleware::wrap(router, self.options.endpoint, self.counters.clone(), self.options.request_timeout);
        let shared = Arc::new(Shared {
            router,
            tls,
            options: self.options,
            counters: self.counters,
            slots: Arc::new(Semaphore::new(self.options.max_connections)),
            per_ip: Mutex::new(BTreeMap::new()),
            drain: Draining::new(shutdown.clone()),
        });
        loop {
            let slot = tokio::select! {
                () = shutdown.cancelled() => break,
                slot = shared.slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => shared.clone().spawn(stream, address, slot),
                Err(error) => {
                    // Out of descriptors, or a connection that was gone before it was accepted: wait a little, never spin.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        shared.drain.finish(self.options.drain_timeout).await
    }
}

/// Connections under way, and the two signals that end them: finish what you do, and stop.
#[derive(Debug)]
pub(super) struct Draining {
    tasks: TaskTracker,
    pub(super) finish: CancellationToken,
    pub(super) cut: CancellationToken,
}

impl Draining {
    pub(super) fn new(finish: CancellationToken) -> Self {
        Self { tasks: TaskTracker::new(), finish, cut: CancellationToken::new() }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cut.cancelled() => {}
            }
        });
    }

    pub(super) async fn finish(&self, within: Duration) -> Drain {
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait()).await.is_ok() {
            return Drain::Complete;
        }
        let cut = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        Drain::Cut(cut)
    }
}

struct Shared {
    router: Router,
    tls: Arc<ServerTls>,
    options: ServerOptions,
    counters: Arc<WireCounters>,
    slots: Arc<Semaphore>,
    per_ip: Mutex<BTreeMap<IpAddr, usize>>,
    drain: Draining,
}

/// One of an address's connections; gives its place back when dropped.
struct IpSlot {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Drop for IpSlot {
    fn drop(&mut self) {
        let mut per_ip = self.shared.per_ip.lock().expect("no panic happens under this lock");
        if let Some(count) = per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

impl Shared {
    fn ip_slot(self: &Arc<Self>, ip: IpAddr) -> Option<IpSlot> {
        let ip = network_of(ip);
        let mut per_ip = self.per_ip.lock().expect("no panic happens under this lock");
        let count = per_ip.entry(ip).or_insert(0);
        if *count >= self.options.max_connections_per_ip {
            return None;
        }
        *count += 1;
        Some(IpSlot { shared: self.clone(), ip })
    }

    fn spawn(self: Arc<Self>, stream: TcpStream, address: SocketAddr, slot: tokio::sync::OwnedSemaphorePermit) {
        let Some(ip_slot) = self.ip_slot(address.ip()) else {
            self.counters.refused_connection();
            return;
        };
        self.counters.connection();
        let shared = self.clone();
        self.drain.spawn(async move {
            let _slots = (slot, ip_slot);
            shared.connection(stream, address).await;
        });
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // Small messages must not wait for the peer's delayed acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stream = WireStream::new(stream, self.counters.clone(), self.options.idle_timeout);
        let acceptor = TlsAcceptor::from(self.tls.config());
        let handshake = tokio::time::timeout(self.options.handshake_timeout, acceptor.accept(stream));
        let stream = tokio::select! {
            () = self.drain.finish.cancelled() => return,
            result = handshake => match result {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    self.counters.failed_handshake();
                    tracing::debug!(%error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    self.counters.failed_handshake();
                    return;
                }
            },
        };
        let (_, session) = stream.get_ref();
        let chain = session
            .peer_certificates()
            .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect::<Vec<_>>());
        let party = chain.and_then(|chain| {
            let name = PartyName::from_verified_leaf(chain.first()?)?;
            Some(Party { name, chain })
        });
        let version = if session.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
        let peer = Peer { address: Some(address), party, user: None };
        serve_connection(stream, version, peer, self.router.clone(), self.options.header_timeout, &self.drain.finish)
            .await;
    }
}

/// HTTP version of one connection, settled before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// Serves one connection until the peer ends it or, after `finish`, until the requests under way are answered.
pub(super) async fn serve_connection<S>(
    stream: S,
    version: Version,
    peer: Peer,
    router: Router,
    header_timeout: Duration,
    finish: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let io = TokioIo::new(stream);
    let result = match version {
        Version::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_headers(MAX_HEADERS);
            builder.max_buf_size(64 * 1024);
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            tokio::select! {
                result = connection.as_mut() => result,
                () = finish.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Version::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_header_list_size(MAX_HEADER_BYTES).max_concurrent_streams(MAX_STREAMS);
            builder.initial_stream_window_size(STREAM_WINDOW_BYTES);
            builder.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            tokio::select! {
                result = connection.as_mut() => result,
                () = finish.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
