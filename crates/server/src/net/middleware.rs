//! What every request passes: an id, a log line, a time limit, and a net under panics.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::counters::WireCounters;
use super::peer::Peer;
use crate::problem::Problem;

/// Response header that names the request in logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Body limit of routes that set none of their own.
const DEFAULT_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Watch {
    endpoint: &'static str,
    counters: Arc<WireCounters>,
    timeout: Duration,
    next_id: AtomicU64,
}

/// Puts the common layers around a router.
pub(super) fn wrap(router: Router, endpoint: &'static str, counters: Arc<WireCounters>, timeout: Duration) -> Router {
    let panics = counters.clone();
    let watch = Arc::new(Watch { endpoint, counters, timeout, next_id: AtomicU64::new(1) });
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path does not take this method")
        })
        .layer(CatchPanicLayer::custom(move |panic: Box<dyn Any + Send>| answer_panic(&panics, &panic)))
        .layer(DefaultBodyLimit::max(DEFAULT_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(watch, observe))
}

fn answer_panic(counters: &WireCounters, panic: &Box<dyn Any + Send>) -> Response {
    counters.panicked();
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    // Our own invariant texts only: no message of ours formats a peer's data into a panic.
    tracing::error!(panic = text.unwrap_or("without text"), "a handler panicked");
    Problem::internal().into_response()
}

async fn observe(State(watch): State<Arc<Watch>>, request: Request, next: Next) -> Response {
    let id = watch.next_id.fetch_add(1, Ordering::Relaxed);
    let method = request.method().clone();
    // The pattern, never the path: a path names a mailbox, and a query may hold more.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let party = request.extensions().get::<Peer>().and_then(Peer::name).map(ToString::to_string).unwrap_or_default();
    let started = tokio::time::Instant::now();
    let mut response = match tokio::time::timeout(watch.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the server took too long").into_response(),
    };
    watch.counters.request();
    let status = response.status();
    if status.is_server_error() {
        watch.counters.failed_request();
    }
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if status.is_server_error() {
        tracing::warn!(endpoint = watch.endpoint, id, %method, route, party, status = status.as_u16(), elapsed_ms, "request");
    } else {
        tracing::debug!(endpoint = watch.endpoint, id, %method, route, party, status = status.as_u16(), elapsed_ms, "request");
    }
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from(id));
    // Nothing that a server of ours says is for a cache between it and its peer, or on a disk.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
