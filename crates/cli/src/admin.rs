//! Talks to a running server over its admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use waybill_server::net::unix::{self, UnixError};

use crate::failure::Failure;

/// Longest wait for an answer: loading or exporting a large record takes its time.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Largest answer. Units: bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One server's admin socket.
#[derive(Debug, Clone)]
pub struct Admin {
    socket: PathBuf,
    role: Option<String>,
    user: Option<String>,
}

/// The part of an RFC 9457 problem document that people read.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

impl Admin {
    /// The server behind a socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), role: None, user: None }
    }

    /// Acts in a role (`registrar`, `records-officer`, ...) instead of the usual one of each action.
    #[must_use]
    pub fn acting(self, role: Option<String>) -> Self {
        Self { role, ..self }
    }

    /// Acts for somebody, where the server lets us.
    #[must_use]
    pub fn for_user(self, user: Option<String>) -> Self {
        Self { user, ..self }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`, answered with JSON.
    ///
    /// # Errors
    /// [`Failure`]: not running, refused, or an answer of another shape.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.decode(path, &self.exchange(Method::GET, path, Bytes::new()).await?)
    }

    /// `GET` of something that may not exist.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        match self.send(Method::GET, path, Bytes::new()).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => self.decode(path, &succeeded(status, body)?).map(Some),
        }
    }

    /// `GET`, answered with bytes.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn read_bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// `POST` of JSON, answered with JSON.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("what we post is made of maps, lists and numbers");
        self.post_bytes(path, body.into()).await
    }

    /// `POST` of JSON about something that may not exist.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn post_found<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Option<T>, Failure> {
        let body = serde_json::to_vec(body).expect("what we post is made of maps, lists and numbers");
        match self.send(Method::POST, path, body.into()).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => self.decode(path, &succeeded(status, body)?).map(Some),
        }
    }

    /// `POST` of bytes, answered with JSON; an empty answer reads as `null`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, Failure> {
        self.decode(path, &self.exchange(Method::POST, path, body).await?)
    }

    fn decode<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, Failure> {
        let answer = if answer.is_empty() { b"null" } else { answer };
        serde_json::from_slice(answer).map_err(|error| {
            Failure::environment(format!("the answer to {path} has another shape than expected"), error)
                .hint("use the same version of waybill for the command and for the server")
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let (status, body) = self.send(method, path, body).await?;
        succeeded(status, body)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let mut target = path.to_owned();
        for (name, value) in [("role", &self.role), ("user", &self.user)] {
            if let Some(value) = value {
                let separator = if target.contains('?') { '&' } else { '?' };
                target = format!("{target}{separator}{name}={}", escaped(value));
            }
        }
        let request = Request::builder().method(method).uri(target).header("content-type", "application/json");
        let request = request.body(body).map_err(|e| Failure::usage(format!("`{path}` is no path")).caused_by(e))?;
        unix::request(&self.socket, request, PATIENCE, MAX_ANSWER_BYTES).await.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: UnixError) -> Failure {
        let hint = match &error {
            UnixError::NotRunning(_) => {
                "start the server with its `serve` command, or name its data folder with --data"
            }
            UnixError::Timeout(_) => "look at the server's log",
            _ => "check the socket's path and its permissions: only the owner of the server may use it",
        };
        Failure::environment("the server cannot be reached", error).hint(hint)
    }
}

/// A value as it may stand in a query (RFC 3986 section 2.1).
#[must_use]
pub fn escaped(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(one).collect()
}

fn succeeded(status: StatusCode, body: Bytes) -> Result<Bytes, Failure> {
    if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
}

/// What the server says, as its problem document says it.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let text = match (problem.title.is_empty(), problem.detail.is_empty()) {
        (true, true) => format!("the server answers {status}"),
        (false, true) => problem.title,
        (true, false) => problem.detail,
        (false, false) => format!("{}: {}", problem.title, problem.detail),
    };
    if status.is_server_error() {
        Failure::environment(text, status.to_string()).hint("look at the server's log")
    } else {
        Failure::failed(text)
    }
}

/// A member of a JSON answer, or `null`.
#[must_use]
pub fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[tokio::test]
    async fn a_server_that_is_down_is_named_with_what_to_do() {
        let admin = Admin::new("/nowhere/admin.sock");
        let failure = admin.read::<Value>("/status").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Environment);
        assert!(failure.to_string().contains("/nowhere/admin.sock"), "{failure}");
        assert!(failure.advice().unwrap().contains("serve"));
    }

    #[test]
    fn what_is_typed_stays_one_value_of_a_query() {
        assert_eq!(escaped("anna-1_~.x"), "anna-1_~.x");
        assert_eq!(escaped("a&role=auditor ü"), "a%26role%3Dauditor%20%C3%BC");
    }

    #[test]
    fn a_problem_document_is_told_as_it_stands() {
        let failure = refused(StatusCode::CONFLICT, br#"{"title":"no","detail":"because"}"#);
        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Failed, "no: because"));
        assert_eq!(refused(StatusCode::BAD_GATEWAY, b"<html>").exit, Exit::Environment);
    }
}
