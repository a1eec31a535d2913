//! Errors as they leave a server: RFC 9457 problem documents.
//!
//! Security: a problem names a rule, never a value; nothing in it comes from a record, a key or a peer's body.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Media type of a problem document (RFC 9457 section 3).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Prefix of every problem type of this project.
pub const PROBLEM_TYPE_PREFIX: &str = "urn:waybill:problem:";

/// One refusal, as a server answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<String>,
    retry_after_seconds: Option<u64>,
}

/// A problem document as it travels; read leniently, because the other side may be newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// `urn:waybill:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What to do about it, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ProblemDocument {
    /// The short code behind the type, or the whole type when it is foreign.
    pub fn code(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_TYPE_PREFIX).unwrap_or(&self.kind)
    }
}

impl Problem {
    /// A problem with a stable `code` (kebab case) and a title that says what is wrong.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, detail: None, retry_after_seconds: None }
    }

    /// Adds what the caller can do; must hold no secret and no health data.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a `Retry-After` header. Units: seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// 404 with one uniform text, so that it does not tell what exists.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here")
    }

    /// 400 for a body or parameter that does not decode.
    pub fn malformed(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "the request does not decode").with_detail(detail)
    }

    /// 413 for a body above the route's limit.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is larger than this route accepts")
            .with_detail(format!("the limit is {limit_bytes} bytes"))
    }

    /// 408 for a body that arrives too slowly.
    pub fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "the body did not arrive in time")
    }

    /// 429 with the time to wait.
    pub fn too_many(retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "too many requests").with_retry_after(retry_after_seconds)
    }

    /// 503 when storage or another part of this server cannot serve now.
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the server cannot do this now").with_retry_after(5)
    }

    /// 500 for our own fault.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed")
    }

    /// The document that travels.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            kind: format!("{PROBLEM_TYPE_PREFIX}{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).expect("a struct of strings always serialises");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_round_trips_and_names_its_code() {
        let problem = Problem::too_large(5);
        let text = serde_json::to_string(&problem.document()).unwrap();
        let back: ProblemDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(back, problem.document());
        assert_eq!(back.code(), "too-large");
        assert_eq!(back.status, 413);
    }

    #[test]
    fn response_carries_the_media_type_and_retry_after() {
        let response = Problem::too_many(7).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_MEDIA_TYPE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }
}
