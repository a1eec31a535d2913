//! What servers and commands read: configuration files, the network file, addresses and control messages of mailboxes, pages, headers.

use std::path::Path;

use minicbor::{Decode, Encode};
use waybill_cli::network_file::NetworkFile;
use waybill_cli::when;
use waybill_protocol::ids::Timestamp;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_server::authority::AuthorityConfig;
use waybill_server::authority::http::{About, DirectoryEntry};
use waybill_server::authority::renewal::{DeskAnswer, RenewalRequest, RenewalState, WaitingRenewal};
use waybill_server::authority::revoked::RevokedList;
use waybill_server::config::Anchored;
use waybill_server::hospital::HospitalConfig;
use waybill_server::hospital::audit::Place;
use waybill_server::hospital::incarnation::Outside;
use waybill_server::hospital::preflight::http_date;
use waybill_server::mailbox::wire::{
    CreateRequest, Letter, MAX_CONTROL_BYTES, MailboxId, MailboxUrl, Session, SessionRequest,
};
use waybill_server::problem::ProblemDocument;
use waybill_server::relay::RelayConfig;
use waybill_server::witness::WitnessConfig;
use waybill_store::Address;

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
        json::<ProblemDocument>,
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

/// What authority, hospitals and desks say to each other beside the protocol, and keep in small files: the first byte names it.
pub fn page(data: &[u8]) -> bool {
    const KINDS: &[fn(&[u8]) -> bool] = &[
        json::<About>,
        json::<DirectoryEntry>,
        json::<RenewalRequest>,
        json::<RenewalState>,
        json::<Vec<WaitingRenewal>>,
        json::<DeskAnswer>,
        json::<RevokedList>,
        control::<Outside>,
        place,
        blob,
    ];
    choose(data, KINDS).is_some_and(|(read, bytes)| read(bytes))
}

/// What is read of JSON is written in a form that reads back the same.
fn json<T: serde::de::DeserializeOwned + serde::Serialize>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).expect("texts and numbers");
    let again: T = serde_json::from_slice(&written).expect("what is written reads back");
    assert_eq!(serde_json::to_vec(&again).expect("texts and numbers"), written);
    true
}

/// Where the next page of an audit trail begins.
fn place(bytes: &[u8]) -> bool {
    let Some((text, place)) = std::str::from_utf8(bytes).ok().and_then(|text| Some((text, Place::parse(text)?))) else {
        return false;
    };
    assert_eq!(place.to_text(), text, "a place has one form");
    true
}

/// The name of a blob.
fn blob(bytes: &[u8]) -> bool {
    let Some((text, address)) =
        std::str::from_utf8(bytes).ok().and_then(|text| Some((text, Address::parse(text).ok()?)))
    else {
        return false;
    };
    assert_eq!(address.to_string(), text, "a blob has one name");
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
