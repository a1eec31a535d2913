//! A pooled HTTPS client that counts its bytes, bounds what it reads and names what went wrong.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::HeaderMap;
use axum::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::counters::WireCounters;
use super::server::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use super::stream::WireStream;
use super::tls::ClientTls;
use crate::problem::ProblemDocument;

/// Largest problem document that is read.
const MAX_PROBLEM_BYTES: usize = 16 * 1024;

/// Bounds of one client.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Longest TCP connection and TLS handshake together.
    pub connect_timeout: Duration,
    /// A connection on which no byte moves for this long is closed; must exceed the longest long poll.
    pub idle_timeout: Duration,
    /// How long an unused connection is kept.
    pub keep_idle: Duration,
    /// Most unused connections kept for one host.
    pub max_idle_per_host: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            keep_idle: Duration::from_secs(60),
            max_idle_per_host: 8,
        }
    }
}

/// Bounds of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// From the first byte sent to the last byte read.
    pub timeout: Duration,
    /// Most bytes of a successful answer.
    pub max_response: usize,
}

/// A successful answer (status 2xx).
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

waybill_crypto::opaque_debug!(Answer);

/// An exchange did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not an `https` URL with a host.
    #[error("not an https URL with a host")]
    Url,
    /// The host refused the connection: the server is down or the port wrong.
    #[error("{host} refuses connections; is the server running?")]
    Refused {
        /// Host and port.
        host: String,
    },
    /// The host cannot be reached or its name not resolved.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS failed: unknown root, expired or revoked certificate, wrong name, or our own certificate is refused.
    #[error("TLS with {host} failed")]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {host} in time")]
    Timeout {
        /// Host and port.
        host: String,
    },
    /// The answer is larger than the caller accepts.
    #[error("the answer of {host} is larger than {limit} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// The exchange broke off; whether it took effect is unknown.
    #[error("the exchange with {host} broke off")]
    Broken {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered with another status than 2xx.
    #[error("the server answers {status}{}", .problem.as_ref().map(|problem| format!(": {}", problem.title)).unwrap_or_default())]
    Status {
        /// The status.
        status: StatusCode,
        /// What it says, when it says it as RFC 9457 asks.
        problem: Option<Box<ProblemDocument>>,
        /// The raw body, bounded, for protocols that define their own error bodies.
        body: Bytes,
        /// `Retry-After`, when given. Units: seconds.
        retry_after_seconds: Option<u64>,
    },
}

impl ClientError {
    /// The status, when the server gave one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url | Self::TooLarge { .. } => false,
            Self::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 425 | 429),
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => true,
        }
    }
}

/// A pooled HTTPS client.
#[derive(Debug, Clone)]
pub struct HttpClient {
    inner: Client<Connector, Full<Bytes>>,
    counters: Arc<WireCounters>,
}

impl HttpClient {
    /// A client that trusts and shows what `tls` says.
    pub fn new(tls: Arc<ClientTls>, options: ClientOptions) -> Self {
        let counters = WireCounters::shared();
        let connector = Connector { tls, counters: counters.clone(), options };
        let inner = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.keep_idle)
            .pool_max_idle_per_host(options.max_idle_per_host)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(16 * 1024)
            // A path that died silently shows within half a minute, also under a long poll.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build(connector);
        Self { inner, counters }
    }

    /// The counters of this client.
    pub fn counters(&self) -> Arc<WireCounters> {
        self.counters.clone()
    }

    /// Sends one request and reads the whole answer within `exchange`.
    pub async fn send(&self, request: Request<Bytes>, exchange: Exchange) -> Result<Answer, ClientError> {
        let host = host_of(request.uri())?;
        self.counters.request();
        let result = tokio::time::timeout(exchange.timeout, self.exchange(&host, request, exchange.max_response)).await;
        let result = result.unwrap_or_else(|_| Err(ClientError::Timeout { host }));
        if let Err(error) = &result
            && error.status().is_none()
        {
            self.counters.failed_request();
        }
        result
    }

    async fn exchange(&self, host: &str, request: Request<Bytes>, max_response: usize) -> Result<Answer, ClientError> {
        let response = self.inner.request(request.map(Full::new)).await.map_err(|error| connect_error(host, error))?;
        let (parts, body) = response.into_parts();
        let limit = if parts.status.is_success() { max_response } else { MAX_PROBLEM_BYTES };
        let body = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(ClientError::TooLarge { host: host.to_owned(), limit });
            }
            Err(source) => return Err(ClientError::Broken { host: host.to_owned(), source }),
        };
        if parts.status.is_success() {
            return Ok(Answer { status: parts.status, headers: parts.headers, body });
        }
        let retry_after = parts.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Err(ClientError::Status {
            status: parts.status,
            problem: serde_json::from_slice(&body).ok(),
            body,
            retry_after_seconds: retry_after,
        })
    }
}

fn host_of(uri: &Uri) -> Result<String, ClientError> {
    let host = uri.host().ok_or(ClientError::Url)?;
    if uri.scheme_str() != Some("https") {
        return Err(ClientError::Url);
    }
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

fn connect_error(host: &str, error: legacy::Error) -> ClientError {
    let host = host.to_owned();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(failure) = current.downcast_ref::<ConnectFailure>() {
            return failure.to_client_error(host);
        }
        // A refusal of our certificate arrives with the first read of TLS 1.3, after the connection is made.
        if let Some(io_error) = current.downcast_ref::<io::Error>()
            && let Some(tls) = io_error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return ClientError::Tls { host, source: io::Error::new(io_error.kind(), tls.clone()) };
        }
        cause = current.source();
    }
    ClientError::Broken { host, source: Box::new(error) }
}

/// What a connector can report; an own type so that it can be found again behind the pool's error.
#[derive(Debug, Error)]
enum ConnectFailure {
    #[error("bad URL")]
    Url,
    #[error("connecting takes too long")]
    Timeout,
    #[error("TCP")]
    Tcp(#[source] io::Error),
    #[error("TLS")]
    Tls(#[source] io::Error),
}

impl ConnectFailure {
    fn to_client_error(&self, host: String) -> ClientError {
        let copy = |error: &io::Error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => io::Error::new(error.kind(), tls.clone()),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        match self {
            Self::Url => ClientError::Url,
            Self::Timeout => ClientError::Timeout { host },
            Self::Tcp(error) if error.kind() == io::ErrorKind::ConnectionRefused => ClientError::Refused { host },
            Self::Tcp(error) => ClientError::Unreachable { host, source: copy(error) },
            Self::Tls(error) => ClientError::Tls { host, source: copy(error) },
        }
    }
}

/// Opens counted TLS connections for the pool.
#[derive(Debug, Clone)]
struct Connector {
    tls: Arc<ClientTls>,
    counters: Arc<WireCounters>,
    options: ClientOptions,
}

impl Service<Uri> for Connector {
    type Response = ClientStream;
    type Error = ConnectFailure;
    type Future = BoxFuture<'static, Result<ClientStream, ConnectFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let timeout = connector.options.connect_timeout;
            tokio::time::timeout(timeout, connector.connect(uri)).await.unwrap_or(Err(ConnectFailure::Timeout))
        })
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<ClientStream, ConnectFailure> {
        let host = uri.host().ok_or(ConnectFailure::Url)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.clone()).map_err(|_| ConnectFailure::Url)?;
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(ConnectFailure::Tcp)?;
        stream.set_nodelay(true).map_err(ConnectFailure::Tcp)?;
        self.counters.connection();
        let stream = WireStream::new(stream, self.counters.clone(), self.options.idle_timeout);
        let stream = TlsConnector::from(self.tls.config()).connect(name, stream).await.map_err(|error| {
            self.counters.failed_handshake();
            ConnectFailure::Tls(error)
        })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(ClientStream { io: TokioIo::new(stream), http2 })
    }
}

/// One connection of the pool.
struct ClientStream {
    io: TokioIo<TlsStream<WireStream<TcpStream>>>,
    http2: bool,
}

impl Connection for ClientStream {
    fn connected(&self) -> Connected {
        if self.http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buf)
    }
}

impl hyper::rt::Write for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
