//! What travels between a mailbox' owner and its host.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, Signature, VerifyingKey};
use waybill_protocol::wire::to_cbor;

/// Largest message. Units: bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Largest blob: a sealed chunk of 1 MiB with room for its frame. Units: bytes.
pub const MAX_BLOB_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// Largest control body (create, session). Units: bytes.
pub const MAX_CONTROL_BYTES: usize = 1024;
/// Most messages of one answer.
pub const MAX_LETTERS: usize = 64;
/// Most message bytes of one answer; a single message always fits. Units: bytes.
pub const MAX_LETTERS_BYTES: usize = 8 * 1024 * 1024;
/// Most entries of one list of blobs.
pub const MAX_BLOB_ENTRIES: usize = 1_000;
/// Largest list of blobs. Units: bytes.
pub const MAX_BLOB_LIST_BYTES: usize = MAX_BLOB_ENTRIES * 512;
/// Longest long poll. Units: seconds.
pub const MAX_WAIT_SECONDS: u64 = 30;
/// How far a signed time may lie from the host's clock. Units: seconds.
pub const TIME_WINDOW_SECONDS: u64 = 300;

/// The name of a mailbox: SHA-256 of its owner's 65-byte SEC1 key; lower-case hex in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct MailboxId(#[n(0)] Digest);

impl MailboxId {
    /// The mailbox of a key.
    pub fn of(key: &VerifyingKey) -> Self {
        Self(sha256(&[key.as_sec1()]))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MailboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for MailboxId {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // One mailbox has one name, so upper case is refused.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(UrlError);
        }
        text.parse().map(Self).map_err(|_| UrlError)
    }
}

/// A text is not a mailbox URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a mailbox URL of the form https://host[:port]/mailbox/<64 hex digits>")]
pub struct UrlError;

/// Where a mailbox is: `https://host[:port]/mailbox/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxUrl {
    host: String,
    id: MailboxId,
}

impl MailboxUrl {
    /// A mailbox at `host` (`name[:port]`, lower case).
    ///
    /// Errors: when `host` is not an authority without user information.
    pub fn new(host: &str, id: MailboxId) -> Result<Self, UrlError> {
        format!("https://{host}/mailbox/{id}").parse()
    }

    /// Host and port as written in the URL: what signatures to the host name it by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The mailbox.
    pub fn id(&self) -> MailboxId {
        self.id
    }

    pub(crate) fn join(&self, tail: &str) -> String {
        format!("{self}{tail}")
    }
}

impl fmt::Display for MailboxUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}/mailbox/{}", self.host, self.id)
    }
}

impl FromStr for MailboxUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > 512 {
            return Err(UrlError);
        }
        let rest = text.strip_prefix("https://").ok_or(UrlError)?;
        let (host, path) = rest.split_once('/').ok_or(UrlError)?;
        let id = path.strip_prefix("mailbox/").ok_or(UrlError)?.parse()?;
        let uri: Uri = format!("https://{host}/").parse().map_err(|_| UrlError)?;
        let authority = uri.authority().ok_or(UrlError)?;
        let plain =
            authority.as_str() == host && !host.contains('@') && !host.bytes().any(|byte| byte.is_ascii_uppercase());
        if !plain || authority.host().is_empty() || (authority.host() != host && authority.port_u16().is_none()) {
            return Err(UrlError);
        }
        Ok(Self { host: host.to_owned(), id })
    }
}

/// Asks a host to keep a mailbox: `PUT /mailbox/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CreateRequest {
    /// The owner's key; its hash is the mailbox' name.
    #[n(0)]
    pub public_key: VerifyingKey,
    /// Unix time. Units: seconds.
    #[n(1)]
    pub time: u64,
    /// ES256 over [`create_payload`].
    #[n(2)]
    pub signature: Signature,
}

/// Proves the mailbox' key for a session: `POST /mailbox/{id}/session`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SessionRequest {
    /// Unix time. Units: seconds.
    #[n(0)]
    pub time: u64,
    /// Random, used once.
    #[n(1)]
    pub nonce: ByteArray<16>,
    /// ES256 over [`session_payload`].
    #[n(2)]
    pub signature: Signature,
}

/// What a session request is answered with.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Session {
    /// Bearer token; 32 random bytes, hex in the `Authorization` header.
    #[n(0)]
    pub token: ByteArray<32>,
    /// Unix time. Units: seconds.
    #[n(1)]
    pub expires_at: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Session(token redacted, expires_at {})", self.expires_at)
    }
}

/// One waiting message.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Letter {
    /// Place in the mailbox; grows, with gaps.
    #[n(0)]
    pub seq: u64,
    /// The opaque parcel.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Letter(seq {}, {} bytes)", self.seq, self.body.len())
    }
}

/// Numbers of what one mailbox holds, or may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cbor(array)]
pub struct Quota {
    /// Messages.
    #[n(0)]
    pub messages: u64,
    /// Bytes of messages.
    #[n(1)]
    pub message_bytes: u64,
    /// Blobs.
    #[n(2)]
    pub blobs: u64,
    /// Bytes of blobs.
    #[n(3)]
    pub blob_bytes: u64,
}

/// How full a mailbox is: `GET /mailbox/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Fill {
    /// What it holds.
    #[n(0)]
    pub held: Quota,
    /// What it may hold.
    #[n(1)]
    pub most: Quota,
}

impl Fill {
    /// The fullest of the four, in hundredths of what may be held.
    pub fn percent(&self) -> u64 {
        let (held, most) = (&self.held, &self.most);
        let pairs = [
            (held.messages, most.messages),
            (held.message_bytes, most.message_bytes),
            (held.blobs, most.blobs),
            (held.blob_bytes, most.blob_bytes),
        ];
        pairs.iter().map(|(held, most)| held.saturating_mul(100) / (*most).max(1)).max().unwrap_or(0)
    }
}

/// One waiting blob: `GET /mailbox/{id}/blobs`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct BlobEntry {
    /// Its SHA-256.
    #[n(0)]
    pub address: ByteArray<32>,
    /// Its size. Units: bytes.
    #[n(1)]
    pub size_bytes: u64,
    /// When it was put. Unix seconds.
    #[n(2)]
    pub put_at: u64,
    /// The party whose certificate it came with; the host's word for it.
    #[n(3)]
    pub from: Option<String>,
}

/// The bytes a [`CreateRequest`] signs: CBOR of ("waybill/1 mailbox", id, host, time).
pub fn create_payload(id: &MailboxId, host: &str, time: u64) -> Vec<u8> {
    to_cbor(&("waybill/1 mailbox", id, host, time))
}

/// The bytes a [`SessionRequest`] signs: CBOR of ("waybill/1 mailbox session", host, id, time, nonce).
pub fn session_payload(id: &MailboxId, host: &str, time: u64, nonce: &[u8; 16]) -> Vec<u8> {
    to_cbor(&("waybill/1 mailbox session", host, id, time, ByteArray::from(*nonce)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip_and_other_forms_are_refused() {
        let id = "ab".repeat(32);
        for host in ["relay.example", "relay.example:8443", "127.0.0.1:1", "[::1]:443"] {
            let text = format!("https://{host}/mailbox/{id}");
            let url: MailboxUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), url.host()), (text, host));
        }
        let bad = [
            format!("http://relay.example/mailbox/{id}"),
            format!("https://relay.example/mailbox/{}", id.to_uppercase()),
            format!("https://Relay.example/mailbox/{id}"),
            format!("https://user@relay.example/mailbox/{id}"),
            format!("https://relay.example/mailbox/{id}/messages"),
            format!("https://relay.example:99999/mailbox/{id}"),
            format!("https:///mailbox/{id}"),
            "https://relay.example/mailbox/ab".to_owned(),
            format!("https://{}/mailbox/{id}", "a".repeat(600)),
        ];
        for text in bad {
            assert_eq!(text.parse::<MailboxUrl>(), Err(UrlError), "{text}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let session = Session { token: ByteArray::from([7; 32]), expires_at: 5 };
        assert!(!format!("{session:?}").contains("07"));
        assert!(!format!("{:?}", Letter { seq: 1, body: b"secret".to_vec() }).contains("115"));
    }
}
