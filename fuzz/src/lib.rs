//! What is fuzzed: one function for each parser that faces the network or a file, with the properties that must hold of it.
//!
//! A target takes any bytes and says whether the parser took them. It panics when a property does not hold: nothing else is an
//! outcome. The same function is run by libFuzzer (`fuzz_targets/`) and, over every committed seed and its mutations, by an ordinary
//! test on stable Rust (`tests/replay.rs`).

pub mod cbor;
pub mod fixture;
pub mod targets;

use targets::{certificates, log, messages, record, wallet};

/// A target's name, its corpus' folder in `seeds/`, and its body.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("message", messages::message),
    ("signed", messages::signed),
    ("parcel", messages::parcel),
    ("body", messages::body),
    ("sealed", messages::sealed),
    ("evidence", messages::evidence),
    ("certificate", certificates::certificate),
    ("crl", certificates::crl),
    ("csr", certificates::csr),
    ("pem", certificates::pem),
    ("note", log::note),
    ("add_checkpoint", log::add_checkpoint),
    ("tile", log::tile),
    ("proof", log::proof),
    ("json", record::json),
    ("resource", record::resource),
    ("load", record::load),
    ("frame", record::frame),
    ("chunk", record::chunk),
    ("names", record::names),
    ("enrolment_text", wallet::enrolment_text),
    ("card_text", wallet::card_text),
    ("recovery_code", wallet::recovery_code),
    ("wallet_file", wallet::wallet_file),
    #[cfg(feature = "servers")]
    ("config", targets::servers::config),
    #[cfg(feature = "servers")]
    ("network_file", targets::servers::network_file),
    #[cfg(feature = "servers")]
    ("mailbox", targets::servers::mailbox),
    #[cfg(feature = "servers")]
    ("page", targets::servers::page),
    #[cfg(feature = "servers")]
    ("header", targets::servers::header),
];
