//! Holds docs/PROTOCOL.md to the code: every structure, the catalogue of rejections, labels and numbers. Whoever changes one side
//! alone fails here.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cddl;
#[path = "../common/table.rs"]
#[allow(dead_code, reason = "who signs is seen in an honest run")]
mod common_table;
mod models;
mod results;
#[path = "../common/samples.rs"]
#[allow(dead_code, reason = "only the message types are asked for here")]
mod samples;
mod sources;
mod table;
mod twins;

use std::collections::BTreeSet;

use cddl::{Rules, tokens};
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::Message;

const SPECIFICATION: &str = include_str!("../../../../docs/PROTOCOL.md");

/// The text of a section, from its heading to the next of the same or a higher level.
fn section(heading: &str) -> &'static str {
    let start = SPECIFICATION.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading}")) + 1;
    let level = heading.split(' ').next().unwrap().len();
    let rest = &SPECIFICATION[start..];
    let end = rest.match_indices("\n#").skip_while(|(at, _)| {
        let depth = rest[at + 1..].chars().take_while(|c| *c == '#').count();
        depth > level
    });
    let end = end.map(|(at, _)| at).next().unwrap_or(rest.len());
    &rest[..end]
}

/// The rows of the first table in a text, without its head.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let table = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

fn rules() -> Rules {
    let blocks = SPECIFICATION.split("```cddl\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    Rules::parse(&blocks.collect::<String>())
}

#[test]
fn every_structure_has_the_fields_that_its_rule_lists_in_that_order() {
    let rules = rules().0;
    for (name, expected) in sources::declared() {
        let rule = rules.get(&name).unwrap_or_else(|| panic!("{name} has no rule: {name} = {expected}"));
        assert_eq!(rule.join(" "), tokens(&expected).join(" "), "{name}");
    }
}

#[test]
fn no_rule_describes_a_structure_that_is_gone() {
    let declared: BTreeSet<String> = sources::declared().into_iter().map(|(name, _)| name).collect();
    // What has its own encoder, or is a number or a byte string in another guise.
    const BY_HAND: [&str; 31] = [
        "u8",
        "u32",
        "u64",
        "Digest",
        "ProofId",
        "SessionId",
        "ManifestId",
        "MessageId",
        "Commitment",
        "Thumb",
        "Nonce",
        "Pseudonym",
        "Opening",
        "Timestamp",
        "HospitalId",
        "VerifyingKey",
        "HpkePublicKey",
        "Ed25519PublicKey",
        "Chain",
        "RecordDigest",
        "Signed",
        "Protected",
        "Code",
        "Scope",
        "Day",
        "Hides",
        "CheckpointPolicy",
        "RevealedKey",
        "LeafKind",
        "LeafEntry",
        "HpkeInfo",
    ];
    for name in rules().0.keys() {
        assert!(declared.contains(name) || BY_HAND.contains(&name.as_str()), "{name} is in the specification only");
    }
}

#[test]
fn the_catalogue_is_the_codes() {
    let rows = rows(section("## 9 "));
    let written: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
    let coded: Vec<String> = Code::ALL
        .iter()
        .map(|c| {
            let retry = if c.retryable() { "yes" } else { "no" };
            let cells = [
                &c.number().to_string(),
                c.as_str(),
                c.stage().as_str(),
                retry,
                c.actor().as_str(),
                c.public().as_str(),
                c.sentence(),
            ];
            cells.join("|")
        })
        .collect();
    for (written, coded) in written.iter().zip(&coded) {
        assert_eq!(written, coded);
    }
    assert_eq!(written.len(), coded.len());
    let rule = rules().0.remove("Code").unwrap().join(" ");
    let expected: Vec<_> = Code::ALL.iter().map(|c| format!("{}: {}", c.as_str(), c.number())).collect();
    assert_eq!(rule, tokens(&format!("&( {} )", expected.join(", "))).join(" "));
}

struct Types(Vec<&'static str>);

impl samples::Visitor for Types {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, _: M) {
        let line = format!("| `{name}` | `{}` |", M::TYP);
        assert!(section("## 5 ").contains(&line), "section 5 lacks {line}");
        self.0.push(M::TYP);
    }
}

#[test]
fn every_message_has_its_own_type_and_a_place_in_the_table() {
    let mut types = Types(Vec::new());
    samples::visit(&mut types);
    let distinct: BTreeSet<_> = types.0.iter().collect();
    assert_eq!(distinct.len(), types.0.len());
    let of_sources = sources::declared().len();
    assert!(of_sources > types.0.len());
    let implemented = sources::implementing("Message");
    let (messages, beside): (Vec<_>, Vec<_>) =
        implemented.into_iter().partition(|(file, _)| file.starts_with("protocol/src/messages/"));
    assert_eq!(messages.len(), types.0.len(), "every message has a sample, and so its vectors");
    // Whatever else is signed with a header of ours must not pass as a message either.
    assert_eq!(beside, [("wallet/src/card.rs".to_owned(), "ContactCard".to_owned())]);
    assert!(section("## 5 ").contains("`waybill-contact-card`") && !types.0.contains(&"waybill-contact-card"));
}

struct Shown(usize);

impl samples::Visitor for Shown {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, message: M) {
        let shown = format!("{message:?}");
        let medical =
            ["Observation", "Immunization", "Condition", "AllergyIntolerance", "DiagnosticReport", "preliminary"];
        for word in medical {
            assert!(!shown.contains(word), "{name} shows what a record holds: {shown}");
        }
        // Nonces (an enrolment code is one), openings and pseudonyms count upwards in the samples, and would be lists of numbers.
        let numbers: Vec<u8> = shown.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let counts = numbers.windows(4).any(|w| w.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
        assert!(!counts, "{name} shows secret bytes: {shown}");
        self.0 += 1;
    }
}

#[test]
fn debug_of_a_message_shows_no_secret_and_nothing_of_a_record() {
    let mut shown = Shown(0);
    samples::visit(&mut shown);
    assert_eq!(shown.0, 22);
}

#[test]
fn every_seal_has_its_label_in_the_specification() {
    let source = sources::read("protocol/src/sealed.rs");
    let coded: BTreeSet<&str> = source.split('"').filter(|part| part.starts_with("waybill/1 ")).collect();
    let written: BTreeSet<&str> = rows(section("### 3.3 ")).iter().map(|row| row[0]).collect();
    assert_eq!(coded, written);
}

#[test]
fn the_leaf_kinds_are_those_of_the_log() {
    let source = sources::read("protocol/src/migration.rs");
    let coded: Vec<(String, String)> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": Self = Self("))
        .map(|(name, rest)| (rest.trim_end_matches(");").to_owned(), name.to_lowercase().replace('_', "-")))
        .collect();
    let written: Vec<(String, String)> =
        rows(section("### 7.1 ")).iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(coded, written);
}

#[test]
fn references_from_the_code_lead_somewhere() {
    for heading in [
        "### 3.4 ", "## 4 ", "## 5 ", "### 6.1 ", "### 6.2 ", "### 6.3 ", "### 6.4 ", "## 7 ", "## 8 ", "## 9 ",
        "## 10 ",
    ] {
        assert!(!section(heading).is_empty());
    }
}
