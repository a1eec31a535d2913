//! Holds `formal/messages.toml` to the Rust types and their encoder, to the CDDL and the tables of docs/PROTOCOL.md, and to the seals
//! of the code. Who really signs and opens, and which place a field has in the bytes, is seen in an honest run: `tests/mutation`.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::data::Type;
use waybill_protocol::signed::Message;
use waybill_protocol::wire::to_cbor;

use super::common_table::{Field, Table};
use super::{cddl, rows, rules, samples, section, sources};

/// The rules of the CDDL by name, as tokens.
type Rules = BTreeMap<String, Vec<String>>;

/// One entry of a group: its name (none for a bare value), whether it may be absent, and its type.
struct Entry {
    name: Option<String>,
    optional: bool,
    of: Vec<String>,
}

/// Splits tokens at a separator that stands outside all brackets.
fn split<'a>(tokens: &'a [String], separator: &str) -> Vec<&'a [String]> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "[" | "{" | "(" | "<" => depth += 1,
            "]" | "}" | ")" | ">" => depth -= 1,
            other if depth == 0 && other == separator => {
                parts.push(&tokens[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    parts
}

/// The entries of a rule that is one array.
fn entries(tokens: &[String]) -> Vec<Entry> {
    let [open, inner @ .., close] = tokens else { panic!("{tokens:?} is no array") };
    assert_eq!((open.as_str(), close.as_str()), ("[", "]"));
    let entry = |tokens: &[String]| {
        let question = tokens[0] == "?";
        let tokens = &tokens[usize::from(question)..];
        let named = tokens.get(1).is_some_and(|t| t == ":");
        let of = tokens[if named { 2 } else { 0 }..].to_vec();
        let null = of.ends_with(&["/".to_owned(), "null".to_owned()]);
        Entry { name: named.then(|| tokens[0].clone()), optional: question || null, of }
    };
    split(inner, ",").into_iter().map(entry).collect()
}

/// The fields of an array rule, as the table would list them.
fn listed(table: &Table, tokens: &[String]) -> Vec<Field> {
    let inside = |of: &[String]| match of {
        [one] => (table.structures.iter().any(|s| &s.name == one) || table.choices.iter().any(|c| &c.name == one))
            .then(|| one.clone()),
        _ => None,
    };
    let fields = entries(tokens).into_iter().filter_map(|e| {
        let of = inside(&e.of);
        Some(Field { name: e.name?, optional: e.optional, of })
    });
    fields.collect()
}

#[test]
fn the_table_lists_the_fields_of_the_cddl_and_of_the_rust_declarations() {
    let (table, rules) = (Table::read(), rules().0);
    let declared = sources::declared();
    let messages = table.messages.iter().map(|m| (&m.name, &m.fields));
    for (name, fields) in messages.chain(table.structures.iter().map(|s| (&s.name, &s.fields))) {
        assert_eq!(fields, &listed(&table, &rules[name]), "{name} in docs/PROTOCOL.md");
        let (_, rust) = declared.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no Rust type {name}"));
        assert_eq!(fields, &listed(&table, &cddl::tokens(rust)), "{name} in Rust");
    }
    for choice in &table.choices {
        let (_, rust) = declared.iter().find(|(n, _)| n == &choice.name).unwrap();
        for tokens in [rules[&choice.name].clone(), cddl::tokens(rust)] {
            let variants: Vec<_> = split(&tokens, "/").into_iter().map(|v| listed(&table, v)).collect();
            assert_eq!(choice.variants, variants, "{}", choice.name);
            let numbers: Vec<_> = split(&tokens, "/").into_iter().map(|v| entries(v).remove(0).of.concat()).collect();
            assert_eq!(numbers, (0..variants.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_table_looks_into_every_structure_that_a_message_signs() {
    // An array of named fields, or a choice of such, that is a field's own type. What a list repeats is not altered one by one.
    let (table, rules) = (Table::read(), rules().0);
    for message in &table.messages {
        for entry in entries(&rules[&message.name]) {
            let [of] = entry.of.as_slice() else { continue };
            let structured = rules.get(of).is_some_and(|tokens| {
                tokens.first().is_some_and(|t| t == "[") && tokens.iter().any(|t| t == ":") && by_field(of)
            });
            let field = message.fields.iter().find(|f| Some(&f.name) == entry.name.as_ref()).unwrap();
            assert_eq!(field.of.is_some(), structured, "{}.{}", message.name, field.name);
        }
    }
}

/// Scope and hides are one value each to the protocol, and so is a ciphertext.
fn by_field(of: &str) -> bool {
    !["Scope", "Hides", "SealedBytes"].contains(&of)
}

struct Samples<'a> {
    table: &'a Table,
    rules: Rules,
    seen: Vec<&'static str>,
}

impl samples::Visitor for Samples<'_> {
    fn visit<M: Message + Clone + std::fmt::Debug>(&mut self, name: &'static str, message: M) {
        let listed = self.table.message(name);
        assert_eq!(listed.tag, M::TYP, "{name}");
        // Generic CBOR: one array, an element for each field, in the encoding that the field's rule allows.
        let bytes = to_cbor(&message);
        let mut decoder = minicbor::Decoder::new(&bytes);
        let length = decoder.array().unwrap().unwrap();
        assert_eq!(length, listed.fields.len() as u64, "{name} encodes as many elements as the table has fields");
        for entry in entries(&self.rules[name]) {
            let found = class(decoder.datatype().unwrap());
            assert!(classes(&self.rules, &entry.of).contains(found), "{name}.{:?} is encoded as {found}", entry.name);
            decoder.skip().unwrap();
        }
        assert_eq!(decoder.position(), bytes.len());
        self.seen.push(name);
    }
}

#[test]
fn the_encoder_writes_what_the_table_lists_and_the_cddl_allows() {
    let table = Table::read();
    let mut samples = Samples { table: &table, rules: rules().0, seen: Vec::new() };
    samples::visit(&mut samples);
    let listed: BTreeSet<_> = table.messages.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(samples.seen.into_iter().collect::<BTreeSet<_>>(), listed);
}

fn class(found: Type) -> &'static str {
    match found {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => "unsigned",
        Type::Bytes => "bytes",
        Type::String => "text",
        Type::Array => "array",
        Type::Bool => "bool",
        Type::Null => "null",
        other => panic!("{other} occurs in no message"),
    }
}

/// The classes of encodings that a type allows.
fn classes(rules: &Rules, of: &[String]) -> BTreeSet<&'static str> {
    let mut out = BTreeSet::new();
    for option in split(of, "/") {
        match option[0].as_str() {
            "[" => drop(out.insert("array")),
            "&" | "uint" => drop(out.insert("unsigned")),
            "bstr" => drop(out.insert("bytes")),
            "tstr" => drop(out.insert("text")),
            "bool" => drop(out.insert("bool")),
            "null" => drop(out.insert("null")),
            name => out.extend(classes(rules, &rules[name])),
        }
    }
    out
}

#[test]
fn the_tables_of_the_specification_say_who_sends_what_to_whom() {
    let table = Table::read();
    let written: Vec<Vec<&str>> = rows(section("## 5 "));
    let listed: Vec<String> =
        table.messages.iter().map(|m| format!("{} | {} | {} → {}", m.name, m.tag, m.from, m.to)).collect();
    let written: Vec<String> = written.iter().map(|row| row[..3].join(" | ").replace('`', "")).collect();
    assert_eq!(written, listed);
}

#[test]
fn the_seals_are_those_of_the_specification_and_of_the_code() {
    let table = Table::read();
    let listed: Vec<String> = table
        .seals
        .iter()
        .map(|s| format!("waybill/1 {} | {} | {} | {}", s.label, s.to, s.bound, s.plaintext))
        .collect();
    let written: Vec<String> = rows(section("### 3.3 ")).iter().map(|row| row.join(" | ")).collect();
    assert_eq!(written, listed);
    let source = sources::read("protocol/src/sealed.rs");
    for seal in &table.seals {
        let line = format!("Self::{} => \"waybill/1 {}\",", seal.purpose, seal.label);
        assert!(source.contains(&line), "no {line}");
    }
    assert_eq!(source.matches("=> \"waybill/1 ").count(), table.seals.len());
}

/// The seals around a message inside a type, outermost first; none when it is not in there.
fn path(table: &Table, rules: &Rules, of: &[String], place: &str, target: &str) -> Option<Vec<String>> {
    let words = of.join(" ");
    if words.starts_with("SealedBytes") {
        let seal = table
            .seals
            .iter()
            .find(|s| s.place.iter().any(|p| p == place))
            .unwrap_or_else(|| panic!("no seal fills {place}"));
        let inside = match seal.plaintext.strip_prefix("the COSE_Sign1 of a ") {
            Some(message) => format!("Signed<{message}>"),
            None => seal.plaintext.split(',').next().unwrap().to_owned(),
        };
        let inner = path(table, rules, &cddl::tokens(&inside), "", target)?;
        return Some(std::iter::once(seal.label.clone()).chain(inner).collect());
    }
    if words == format!("Signed < {target} >") {
        return Some(Vec::new());
    }
    let inside = of.iter().filter(|word| rules.contains_key(*word) && *word != "Signed");
    inside.into_iter().find_map(|rule| {
        let body = &rules[rule];
        split(body, "/").into_iter().filter(|option| option.first().is_some_and(|t| t == "[")).find_map(|option| {
            entries(option).into_iter().find_map(|entry| {
                let place = format!("{rule}.{}", entry.name.as_deref().unwrap_or(""));
                path(table, rules, &entry.of, &place, target)
            })
        })
    })
}

#[test]
fn every_message_travels_in_its_parcel_under_the_seals_listed() {
    let (table, rules) = (Table::read(), rules().0);
    let parcels = rows(section("## 4 "));
    for message in &table.messages {
        let Some(kind) = &message.parcel else {
            assert!(message.sealed.is_empty() && message.name == "AuthorityStatement", "{}", message.name);
            continue;
        };
        let row = parcels.iter().find(|row| row[0] == kind).unwrap_or_else(|| panic!("no parcel {kind}"));
        let body = row[3].strip_prefix("SealedBytes of ").map_or(row[3], |_| "SealedBytes");
        let found = path(&table, &rules, &cddl::tokens(body), kind, &message.name);
        assert_eq!(found.as_ref(), Some(&message.sealed), "{} in {kind}", message.name);
        // The first parcel that carries it: none that is listed before has it.
        let earlier = parcels.iter().take_while(|row| row[0] != kind);
        for row in earlier {
            let body = row[3].strip_prefix("SealedBytes of ").map_or(row[3], |_| "SealedBytes");
            assert_eq!(
                path(&table, &rules, &cddl::tokens(body), row[0], &message.name),
                None,
                "{} in {}",
                message.name,
                row[0]
            );
        }
    }
    // What a sealed parcel holds is what its seal says.
    for row in parcels.iter().filter(|row| row[3].starts_with("SealedBytes of ")) {
        let seal = table.seals.iter().find(|s| s.place == [row[0]]).unwrap_or_else(|| panic!("{} has no seal", row[0]));
        assert_eq!(row[3], format!("SealedBytes of {}", seal.plaintext));
    }
}
