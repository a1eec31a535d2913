//! Holds the formal models to `formal/messages.toml`.
//!
//! A model says in its header, for every message it speaks of, which fields it carries, in order, and which it cuts and why:
//!
//! ```text
//! @message TransferRequest as Trequest: proof, consent, session_key, keys.signing
//! @cut TransferRequest: attempt, nonce, time, identity_claim, keys.hpke: one attempt; ...
//! ```
//!
//! `keys.signing` is a part of `keys`. A name repeated stands for several components of one field; cutting a field of which parts are
//! carried cuts the rest of it. The body must then have the tag (in ProVerif, without `as`, the constructor of that name) with exactly that
//! many components wherever it has it, and where a component is a variable that is named as a field of the message, it stands in that
//! field's place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::common_table::{Table, repository};

const FOLDERS: [(&str, &str); 3] = [("scyther", "spdl"), ("proverif", "pv"), ("verifpal", "vp")];

pub(super) struct Model {
    pub(super) name: String,
    pub(super) text: String,
}

pub(super) fn models() -> Vec<Model> {
    let mut out = Vec::new();
    for (folder, suffix) in FOLDERS {
        let Ok(files) = std::fs::read_dir(repository("formal").join(folder)) else { continue };
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|e| e == suffix)) {
            let name = format!("{folder}/{}", file.file_name().unwrap().to_str().unwrap());
            out.push(Model { name, text: std::fs::read_to_string(&file).unwrap() });
        }
    }
    assert!(!out.is_empty());
    out
}

/// What a header says of one message.
#[derive(Debug, PartialEq, Eq)]
struct Carried {
    message: String,
    tag: String,
    fields: Vec<String>,
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(|name| name.trim().to_owned()).collect()
}

impl Model {
    /// The lines that begin with a keyword, without comment signs.
    pub(super) fn header(&self, keyword: &str) -> Vec<&str> {
        self.text
            .lines()
            .map(|line| line.trim().trim_start_matches("//").trim_start_matches("(*").trim_end_matches("*)").trim())
            .filter_map(|line| line.strip_prefix(keyword))
            .collect()
    }

    fn carried(&self) -> Vec<Carried> {
        let read = |line: &&str| {
            let (head, fields) = line.split_once(": ").unwrap_or_else(|| panic!("{}: {line}", self.name));
            let (message, tag) = head.split_once(" as ").unwrap_or((head, head));
            Carried { message: message.to_owned(), tag: tag.to_owned(), fields: names(fields) }
        };
        self.header("@message ").iter().map(read).collect()
    }

    fn cut(&self) -> BTreeMap<String, Vec<String>> {
        let mut cut: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.header("@cut ") {
            let parts: Vec<_> = line.splitn(3, ": ").collect();
            let [message, fields, reason] = parts.as_slice() else {
                panic!("{}: `@cut {line}` is not a message, its fields and the reason", self.name)
            };
            assert!(!reason.trim().is_empty(), "{}: {message} is cut without a reason", self.name);
            cut.entry((*message).to_owned()).or_default().extend(names(fields));
        }
        cut
    }

    /// The model as it is: without comments, and so without the lines of its twins and settings.
    fn body(&self) -> String {
        let mut text = self.text.clone();
        if self.name.starts_with("proverif") {
            while let Some(from) = text.find("(*") {
                let to = text[from..].find("*)").map_or(text.len(), |at| from + at + 2);
                text.replace_range(from..to, " ");
            }
        }
        text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
    }
}

/// Every place that the table knows inside a message, in order: `terms`, then `terms.source` and so on.
fn places(table: &Table, message: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for field in table.fields(message)? {
        out.push(field.name.clone());
        let inside = table.inside(field).into_iter().flatten();
        out.extend(inside.map(|inner| format!("{}.{}", field.name, inner.name)));
    }
    Some(out)
}

/// What a header leaves unsaid, or says wrongly, of a message.
fn wrong(table: &Table, message: &str, carried: &[String], cut: &[String]) -> Vec<String> {
    let Some(places) = places(table, message) else { return vec![format!("the table has no {message}")] };
    let mut out = Vec::new();
    let at = |name: &String| places.iter().position(|place| place == name);
    for name in carried.iter().chain(cut) {
        if at(name).is_none() {
            out.push(format!("{message} has no {name}"));
        }
    }
    let known: Vec<_> = carried.iter().filter(|name| at(name).is_some()).collect();
    for pair in known.windows(2) {
        if at(pair[0]) > at(pair[1]) {
            out.push(format!("{message}: {} stands before {}", pair[0], pair[1]));
        }
    }
    for name in cut.iter().filter(|name| carried.contains(name)) {
        out.push(format!("{message}: {name} is carried and cut"));
    }
    let said: BTreeSet<&String> = carried.iter().chain(cut).collect();
    for field in table.fields(message).unwrap() {
        if said.contains(&field.name) {
            continue;
        }
        // Of a choice, one variant is enough: the others are not what is sent.
        let inside = table.inside(field);
        let covers = |fields: &&[super::common_table::Field]| {
            fields.iter().all(|inner| said.contains(&format!("{}.{}", field.name, inner.name)))
        };
        if !inside.iter().any(covers) {
            out.push(format!("{message}: {} is neither carried nor cut", field.name));
        }
    }
    out
}

#[test]
fn every_model_carries_or_cuts_every_field_of_its_messages_in_the_tables_order() {
    let table = Table::read();
    let mut found = Vec::new();
    for model in models() {
        let (carried, cut) = (model.carried(), model.cut());
        assert!(!carried.is_empty(), "{} names no message", model.name);
        for said in &carried {
            let cut = cut.get(&said.message).cloned().unwrap_or_default();
            found.extend(
                wrong(&table, &said.message, &said.fields, &cut).iter().map(|w| format!("{}: {w}", model.name)),
            );
        }
        for message in cut.keys().filter(|message| carried.iter().all(|c| &c.message != *message)) {
            found.push(format!("{}: {message} is cut and not carried", model.name));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The components of the list that is open at `from`: up to the bracket that closes it (a macro's semicolon), split at its commas.
fn components(text: &str, from: usize) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0, from, Vec::new());
    for (at, c) in text[from..].char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' | ';' if depth == 0 => {
                out.push(text[start..from + at].trim());
                return out;
            }
            ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..from + at].trim());
                start = from + at + 1;
            }
            _ => {}
        }
    }
    panic!("a list is not closed: {}", &text[from..text.len().min(from + 60)])
}

/// Where a word stands, and not as a part of another.
fn occurrences(text: &str, word: &str) -> Vec<usize> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '\'');
    text.match_indices(word)
        .filter(|(at, _)| !part(text[..*at].chars().next_back()) && !part(text[at + word.len()..].chars().next()))
        .map(|(at, _)| at)
        .collect()
}

/// What follows a tag, wherever it is used: a constant that heads a list, or a constructor.
fn uses<'a>(model: &str, body: &'a str, tag: &str) -> Vec<Vec<&'a str>> {
    let mut out = Vec::new();
    for at in occurrences(body, tag) {
        let after = at + tag.len();
        let statement = |ends: &[char]| body[body[..at].rfind(ends).map_or(0, |end| end + 1)..at].trim_start();
        if statement(&[';']).starts_with("const ") || statement(&[';', '\n']).starts_with("const ") {
            continue;
        }
        let rest = body[after..].trim_start();
        if rest.starts_with('(') {
            out.push(components(body, after + body[after..].find('(').unwrap() + 1));
        } else if rest.starts_with(',') {
            let list = components(body, after + body[after..].find(',').unwrap() + 1);
            out.push(list.into_iter().flat_map(|value| expanded(body, value)).collect());
        } else {
            panic!("{model}: {tag} is used in a way that this test does not read");
        }
    }
    out
}

/// The components that a component is: those of a macro that is a bare list, and itself for all else, a macro that is a message included.
fn expanded<'a>(body: &'a str, value: &'a str) -> Vec<&'a str> {
    let Some(at) = body.find(&format!("macro {value} = ")) else { return vec![value] };
    let list = components(body, at + "macro  = ".len() + value.len());
    let message = body.lines().filter(|line| line.starts_with("const ") && line.ends_with(": Tag;"));
    let message = message.flat_map(|line| names(&line["const ".len()..line.len() - ": Tag;".len()]));
    if message.into_iter().any(|tag| tag == list[0]) {
        vec![value]
    } else {
        list.into_iter().flat_map(|value| expanded(body, value)).collect()
    }
}

/// The short names that the models give to fields.
const SHORT: [(&str, &str); 13] = [
    ("pf", "proof"),
    ("tr", "session"),
    ("hm", "manifest"),
    ("hd", "delegation"),
    ("p", "pid"),
    ("t", "delegation_key"),
    ("ek", "session_key"),
    ("wk", "reply_key"),
    ("kc", "key_commitment"),
    ("cA", "com_source"),
    ("cB", "com_destination"),
    ("cS", "com_scope"),
    ("cH", "com_hides"),
];

/// The field that a component is named after, if it is a variable, its hash, or a test for it.
fn named_after(value: &str) -> Option<&str> {
    let value = value.trim_start_matches('=');
    let value = value.strip_prefix("h(").and_then(|inner| inner.strip_suffix(')')).unwrap_or(value);
    let value = value.split(':').next().unwrap().trim_end_matches(|c: char| c.is_ascii_digit());
    let value = ["_a", "_b", "_c", "_h", "_p"].iter().find_map(|role| value.strip_suffix(role)).unwrap_or(value);
    let plain = value.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| SHORT.iter().find(|(short, _)| *short == value).map_or(value, |(_, field)| field))
}

/// The components that are named after a field in whose place they do not stand.
fn misplaced(fields: &[String], values: &[&str]) -> Vec<String> {
    let last = |field: &String| field.rsplit('.').next().unwrap().to_owned();
    let elsewhere = |(field, value): (&String, &&str)| {
        let name = named_after(value)?;
        (last(field) != name && fields.iter().any(|other| last(other) == name)).then(|| format!("{value} as {field}"))
    };
    fields.iter().zip(values).filter_map(elsewhere).collect()
}

/// Verifpal has no tags: what is signed is a HASH, in place or by name, of which the message must be in the header. It hashes at most five
/// values at once, so that a HASH inside counts as one value or as its values. For each signature, both lists.
fn signed_lists<'a>(model: &str, body: &'a str) -> Vec<[Vec<&'a str>; 2]> {
    let one = |at: usize| {
        let signed = components(body, at + body[at..].find('(').unwrap() + 1)[1];
        let assigned = format!("\t{signed} = HASH(");
        let list = if signed.starts_with("HASH(") {
            components(signed, "HASH(".len())
        } else {
            let at = body.find(&assigned).unwrap_or_else(|| panic!("{model}: what is {signed}, which is signed?"));
            components(body, at + assigned.len())
        };
        let inside = |value: &'a str| match value.starts_with("HASH(") {
            true => components(value, "HASH(".len()),
            false => vec![value],
        };
        let flat = list.iter().flat_map(|value| inside(value)).collect();
        [list, flat]
    };
    ["SIGN", "SIGNVERIF"].into_iter().flat_map(|word| occurrences(body, word)).map(one).collect()
}

fn hold_signatures(model: &str, body: &str, carried: &[Carried]) -> Vec<String> {
    let signatures = signed_lists(model, body);
    let is = |lists: &[Vec<&str>; 2], said: &Carried| {
        lists.iter().any(|list| list.len() == said.fields.len() && misplaced(&said.fields, list).is_empty())
    };
    let unsaid = signatures.iter().filter(|lists| carried.iter().all(|said| !is(lists, said)));
    let unused = carried.iter().filter(|said| signatures.iter().all(|lists| !is(lists, said)));
    let unsaid = unsaid.map(|lists| format!("{model}: a signature over {:?}, and no such header", lists[0]));
    unsaid.chain(unused.map(|c| format!("{model}: no signature is over {} as its header has it", c.message))).collect()
}

#[test]
fn every_model_has_each_message_with_the_components_of_its_header_in_their_places() {
    let table = Table::read();
    for model in models() {
        let (carried, body) = (model.carried(), model.body());
        if model.name.starts_with("verifpal") {
            let found = hold_signatures(&model.name, &body, &carried);
            assert!(found.is_empty(), "\n{}", found.join("\n"));
            continue;
        }
        for said in &carried {
            let uses = uses(&model.name, &body, &said.tag);
            let declared = usize::from(body.contains(&format!("fun {}(", said.tag)));
            assert!(uses.len() > declared, "{} never uses {}", model.name, said.tag);
            for values in uses {
                let (name, message, count) = (&model.name, &said.message, said.fields.len());
                assert_eq!(values.len(), count, "{name}: {message} has {count} components by its header: {values:?}");
                assert_eq!(misplaced(&said.fields, &values), Vec::<String>::new(), "{name}: {message} ({values:?})");
            }
        }
        // Nothing that looks like a message goes without a header; commitments and thumbs (section 3.4) are none.
        let labels = |tag: &String| ["Tcom", "Tthumb"].contains(&tag.as_str());
        for line in body.lines() {
            let constants = line.trim().strip_suffix(": Tag;").and_then(|line| line.strip_prefix("const "));
            let constructor =
                line.trim().strip_prefix("fun ").and_then(|line| line.split_once('(')).map(|(name, _)| name);
            let constructor = constructor.filter(|name| table.fields(name).is_some());
            for tag in constants.map(names).unwrap_or_default().into_iter().chain(constructor.map(str::to_owned)) {
                assert!(
                    labels(&tag) || carried.iter().any(|c| c.tag == tag),
                    "{} has {tag} and no header for it",
                    model.name
                );
            }
        }
    }
}

#[test]
fn the_tests_of_headers_and_bodies_see_what_is_wrong() {
    let table = Table::read();
    let wrong = |carried: &str, cut: &str| wrong(&table, "TransferRequest", &names(carried), &names(cut)).len();
    let cut = "attempt, nonce, time, identity_claim";
    assert_eq!(wrong("proof, consent, session_key, keys", cut), 0);
    assert_eq!(wrong("proof, consent, session_key, keys.signing, keys.hpke", cut), 0);
    assert_eq!(wrong("proof, consent, session_key, keys.signing", &format!("{cut}, keys")), 0, "the rest of the keys");
    assert_eq!(wrong("proof, consent, session_key, keys.signing", cut), 1, "the other key is not accounted for");
    assert_eq!(wrong("proof, session_key, keys", cut), 1, "a field is missing");
    assert_eq!(wrong("consent, proof, session_key, keys", cut), 1, "the order");
    assert_eq!(wrong("proof, consent, session_key, keys, extra", cut), 1, "no such field");
    assert_eq!(wrong("proof, consent, session_key, keys, keys.sign", cut), 1, "no such part");
    assert_eq!(wrong("proof, consent, session_key, keys, time", cut), 2, "carried and cut, and out of order");
    let sizes = |model: &str, body: &str, tag: &str| uses(model, body, tag).iter().map(Vec::len).collect::<Vec<_>>();
    let body = "const Tx, Ty: Tag; send_1(A, B, {Tx, a, f(b, c), {d}k}sk(A)); recv(h(Tx, a, b));";
    assert_eq!(sizes("scyther/x", body, "Tx"), [3, 2]);
    let body = "const Tx, Ty: Tag;\nmacro both = h(a), h(b);\nmacro y = Ty, both;\nmacro x = {Tx, y, both, c}sk(A);\n";
    assert_eq!((sizes("scyther/x", body, "Tx"), sizes("scyther/x", body, "Ty")), (vec![4], vec![2]));
    assert_eq!(sizes("proverif/x", "fun X(host, key): bitstring [data]. let X(=a, b, (c, d)) = m in", "X"), [2, 3]);
    assert_eq!(sizes("proverif/x", "fun f(key): key.\nconst Tx, Ty: bitstring.\nout(c, (Tx, a, b)).", "Tx"), [2]);
    let body = "\tm = HASH(HASH(a, b, c), d)\n\ts = SIGN(k, m)\n\t_ = SIGNVERIF(v, HASH(a, HASH(b)), s)?\n";
    let sizes: Vec<_> = signed_lists("verifpal/x", body).iter().map(|lists| [lists[0].len(), lists[1].len()]).collect();
    assert_eq!(sizes, [[2, 4], [2, 2]]);
    let carried = |fields: &str| Carried { message: "M".into(), tag: "M".into(), fields: names(fields) };
    assert_eq!(hold_signatures("verifpal/x", body, &[carried("a, b, c, d"), carried("a, b")]).len(), 0);
    assert_eq!(hold_signatures("verifpal/x", body, &[carried("a, b, c, d")]).len(), 1, "a signature without a header");
    assert_eq!(
        hold_signatures("verifpal/x", body, &[carried("a, b"), carried("a, b, c")]).len(),
        1,
        "nothing of that size"
    );
}

#[test]
fn the_test_of_components_sees_two_that_changed_places() {
    let lodgement = names("proof, manifest, session, sealed_key");
    assert_eq!(misplaced(&lodgement, &["=pf", "=hm", "=tr", "k"]), Vec::<String>::new());
    assert_eq!(misplaced(&lodgement, &["=pf", "=tr", "=hm", "k"]), ["=tr as manifest", "=hm as session"]);
    assert_eq!(misplaced(&lodgement, &["proof", "h(session)", "h(manifest)", "sealedkey"]).len(), 2);
    assert_eq!(misplaced(&lodgement, &["manifest_b", "proof_b", "session", "sealed_key_c"]).len(), 2);
    assert_eq!(
        misplaced(&names("delegation, terms.source, terms.reply_key"), &["d", "wk", "a"]),
        ["wk as terms.source"]
    );
    assert_eq!(misplaced(&names("authority, delegation, terms"), &["hC", "n", "terms"]), Vec::<String>::new());
    let carried = Carried { message: "M".into(), tag: "M".into(), fields: lodgement };
    let body = |list: &str| format!("\ts = SIGN(k, HASH({list}))\n");
    let found = |list: &str| hold_signatures("verifpal/x", &body(list), std::slice::from_ref(&carried)).len();
    assert_eq!(found("proof, manifest, session, sealed_key"), 0);
    assert_eq!(found("proof, session, manifest, sealed_key"), 2, "a signature without a header, a header without one");
}
