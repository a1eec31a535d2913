//! What servers and commands read: configuration files, the network file, addresses and control messages of mailboxes, headers.

use std::path::Path;

use minicbor::{Decode, Encode};
use waybill_cli::network_file::NetworkFile;
use waybill_cli::when;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_server::authority::AuthorityConfig;
use waybill_server::config::Anchored;
use waybill_server::hospital::HospitalConfig;
use waybill_server::hospital::preflight::http_date;
use waybill_server::mailbox::wire::{
    CreateRequest, Letter, MAX_CONTROL_BYTES, MailboxId, MailboxUrl, Session, SessionRequest,
};
use waybill_server::problem::ProblemDocument;
use waybill_server::relay::RelayConfig;
use waybill_server::witness::WitnessConfig;

use super::choose;
use crate::{cbor, fixture};

/// The configuration of one kind of server: the first byte says which, the rest is the file.
pub fn config(data: &[u8]) -> bool {
    const KINDS: &[fn(&str) -> bool] =
        &[reads::<AuthorityConfig>, reads::<HospitalConfig>, reads::<RelayConfig>, reads::<WitnessConfig>];
    let Some((read, bytes)) = choose(data, KINDS) else { return false };
    std::str::from_utf8(bytes).is_ok_and(read)
}

fn reads<T: serde::de::DeserializeOwned + Anchored>(text: &str) -> bool {
    let Ok(mut config) = toml::from_str::<T>(text) else { return false };
    config.anchor(Path::new("/somewhere"));
    true
}

/// A network file: what is taken is written and read back the same.
pub fn network_file(data: &[u8]) -> bool {
    let Some(file) = std::str::from_utf8(data).ok().and_then(|text| NetworkFile::parse(text).ok()) else {
        return false;
    };
    let again = NetworkFile::parse(&file.to_text()).expect("what is written reads back");
    assert_eq!(again, file);
    assert!(file.fingerprint().is_ok() && file.policy().is_ok() && file.relay_host().is_ok() && file.trust().is_ok());
    true
}

/// What mailboxes and their owners say to each other: the first byte names it, the rest are its bytes.
pub fn mailbox(data: &[u8]) -> bool {
    const KINDS: &[fn(&[u8]) -> bool] = &[
        address,
        control::<CreateRequest>,
        control::<SessionRequest>,
        control::<Session>,
        control::<Vec<Letter>>,
        problem,
    ];
    choose(data, KINDS).is_some_and(|(read, bytes)| read(bytes))
}

fn address(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Ok(id) = text.parse::<MailboxId>() {
        assert_eq!(id.to_string(), text, "a mailbox has one name");
    }
    let Ok(url) = text.parse::<MailboxUrl>() else { return false };
    assert_eq!(url.to_string(), text, "an address has one form");
    assert_eq!(MailboxUrl::new(url.host(), url.id()).as_ref(), Ok(&url));
    assert!(
        !url.host().contains(['@', '/', '?', '#', '\\']) && text.len() <= 512,
        "an address that means another host"
    );
    true
}

fn control<T>(bytes: &[u8]) -> bool
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let Ok(value) = from_cbor::<T>("control", bytes, MAX_CONTROL_BYTES) else { return false };
    assert!(cbor::is_deterministic(bytes), "two encodings");
    assert_eq!(to_cbor(&value), bytes);
    true
}

fn problem(bytes: &[u8]) -> bool {
    let Ok(problem) = serde_json::from_slice::<ProblemDocument>(bytes) else { return false };
    let text = serde_json::to_vec(&problem).expect("texts and a number");
    assert!(serde_json::from_slice::<ProblemDocument>(&text).is_ok(), "a problem reads back");
    true
}

/// Dates of answers, and the spans and ends that people type.
pub fn header(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let date = http_date(text);
    assert!(date.is_none_or(|seconds| seconds < 253_402_300_800), "a date after the year 9999: {date:?}");
    let until = when::until(text, Timestamp(fixture::NOW));
    if let Some(end) = until {
        assert!(!when::moment(end).is_empty());
    }
    date.is_some() || until.is_some()
}
