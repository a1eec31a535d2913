//! Holds the formal models to `formal/messages.toml`, and `formal/RESULTS.md` to the models.
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
//! many components wherever it has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::common_table::{Table, repository};

const FOLDERS: [(&str, &str); 3] = [("scyther", "spdl"), ("proverif", "pv"), ("verifpal", "vp")];

struct Model {
    name: String,
    text: String,
}

fn models() -> Vec<Model> {
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
    fn header(&self, keyword: &str) -> Vec<&str> {
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

/// How many components follow a tag, wherever it is used: a constant that heads a list, or a constructor.
fn sizes(model: &str, body: &str, tag: &str) -> Vec<usize> {
    let mut out = Vec::new();
    for at in occurrences(body, tag) {
        let after = at + tag.len();
        let statement = |ends: &[char]| body[body[..at].rfind(ends).map_or(0, |end| end + 1)..at].trim_start();
        if statement(&[';']).starts_with("const ") || statement(&[';', '\n']).starts_with("const ") {
            continue;
        }
        let rest = body[after..].trim_start();
        if rest.starts_with('(') {
            let list = components(body, after + body[after..].find('(').unwrap() + 1);
            out.push(list.len());
        } else if rest.starts_with(',') {
            let list = components(body, after + body[after..].find(',').unwrap() + 1);
            out.push(list.iter().map(|value| expanded(body, value)).sum());
        } else {
            panic!("{model}: {tag} is used in a way that this test does not read");
        }
    }
    out
}

/// How many components a component is: those of a macro that is a bare list, and one for all else, a macro that is a message included.
fn expanded(body: &str, value: &str) -> usize {
    let Some(at) = body.find(&format!("macro {value} = ")) else { return 1 };
    let list = components(body, at + "macro  = ".len() + value.len());
    let message = body.lines().filter(|line| line.starts_with("const ") && line.ends_with(": Tag;"));
    let message = message.flat_map(|line| names(&line["const ".len()..line.len() - ": Tag;".len()]));
    if message.into_iter().any(|tag| tag == list[0]) { 1 } else { list.iter().map(|value| expanded(body, value)).sum() }
}

/// Verifpal has no tags: what is signed is a HASH, in place or by name, of which the first message of that size must be in the header. It
/// hashes at most five values at once, so that a HASH inside counts as one value or as its values. For each signature, both counts.
fn signed_sizes(model: &str, body: &str) -> Vec<[usize; 2]> {
    let hash = |value: &str| value.starts_with("HASH(").then(|| components(value, "HASH(".len()).len());
    let one = |at: usize| {
        let signed = components(body, at + body[at..].find('(').unwrap() + 1)[1];
        let assigned = format!("\t{signed} = HASH(");
        let list = if signed.starts_with("HASH(") {
            components(signed, "HASH(".len())
        } else {
            let at = body.find(&assigned).unwrap_or_else(|| panic!("{model}: what is {signed}, which is signed?"));
            components(body, at + assigned.len())
        };
        [list.len(), list.iter().map(|value| hash(value).unwrap_or(1)).sum()]
    };
    ["SIGN", "SIGNVERIF"].into_iter().flat_map(|word| occurrences(body, word)).map(one).collect()
}

fn hold_signatures(model: &str, body: &str, carried: &[Carried]) -> Vec<String> {
    let sizes = signed_sizes(model, body);
    let unsaid = sizes.iter().filter(|sizes| carried.iter().all(|c| !sizes.contains(&c.fields.len())));
    let unused = carried.iter().filter(|c| sizes.iter().all(|sizes| !sizes.contains(&c.fields.len())));
    let unsaid = unsaid
        .map(|sizes| format!("{model}: a signature over {} or {} values, and no such header", sizes[0], sizes[1]));
    unsaid
        .chain(unused.map(|c| format!("{model}: no signature is over the {} values of {}", c.fields.len(), c.message)))
        .collect()
}

#[test]
fn every_model_has_each_message_with_as_many_components_as_its_header_says() {
    let table = Table::read();
    for model in models() {
        let (carried, body) = (model.carried(), model.body());
        if model.name.starts_with("verifpal") {
            let found = hold_signatures(&model.name, &body, &carried);
            assert!(found.is_empty(), "\n{}", found.join("\n"));
            continue;
        }
        for said in &carried {
            let sizes = sizes(&model.name, &body, &said.tag);
            let declared = usize::from(body.contains(&format!("fun {}(", said.tag)));
            assert!(sizes.len() > declared, "{} never uses {}", model.name, said.tag);
            assert!(
                sizes.iter().all(|size| *size == said.fields.len()),
                "{}: {} carries {} components by its header, and {sizes:?} in the model",
                model.name,
                said.message,
                said.fields.len()
            );
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
    let body = "const Tx, Ty: Tag; send_1(A, B, {Tx, a, f(b, c), {d}k}sk(A)); recv(h(Tx, a, b));";
    assert_eq!(sizes("scyther/x", body, "Tx"), [3, 2]);
    let body = "const Tx, Ty: Tag;\nmacro both = h(a), h(b);\nmacro y = Ty, both;\nmacro x = {Tx, y, both, c}sk(A);\n";
    assert_eq!((sizes("scyther/x", body, "Tx"), sizes("scyther/x", body, "Ty")), (vec![4], vec![2]));
    assert_eq!(sizes("proverif/x", "fun X(host, key): bitstring [data]. let X(=a, b, (c, d)) = m in", "X"), [2, 3]);
    assert_eq!(sizes("proverif/x", "fun f(key): key.\nconst Tx, Ty: bitstring.\nout(c, (Tx, a, b)).", "Tx"), [2]);
    let body = "\tm = HASH(HASH(a, b, c), d)\n\ts = SIGN(k, m)\n\t_ = SIGNVERIF(v, HASH(a, HASH(b)), s)?\n";
    assert_eq!(signed_sizes("verifpal/x", body), [[2, 4], [2, 2]]);
    let carried = |fields: &str| Carried { message: "M".into(), tag: "M".into(), fields: names(fields) };
    assert_eq!(hold_signatures("verifpal/x", body, &[carried("a, b, c, d"), carried("a, b")]).len(), 0);
    assert_eq!(hold_signatures("verifpal/x", body, &[carried("a, b, c, d")]).len(), 1, "a signature without a header");
    assert_eq!(
        hold_signatures("verifpal/x", body, &[carried("a, b"), carried("a, b, c")]).len(),
        1,
        "nothing of that size"
    );
}

// The results.

struct Section<'a> {
    name: &'a str,
    text: &'a str,
}

fn sections(results: &str) -> Vec<Section<'_>> {
    let parts = results.split("\n## ").skip(1);
    parts.map(|text| Section { name: text.lines().next().unwrap(), text }).collect()
}

/// What a file of results must not say of models with these names and digests.
fn stale(results: &str, models: &[(String, String)]) -> Vec<String> {
    let sections = sections(results);
    let mut out = Vec::new();
    for (name, digest) in models {
        let of: Vec<_> = sections.iter().filter(|s| s.name == name).collect();
        match of.as_slice() {
            [one] if one.text.contains(&format!("\n`sha256 {digest}`")) => {}
            [_] => out.push(format!("{name} has changed since it was run: formal/run {name}")),
            _ => out.push(format!("{name} has {} sections: formal/run {name}", of.len())),
        }
    }
    for section in &sections {
        if models.iter().all(|(name, _)| name != section.name) {
            out.push(format!("{} is gone", section.name));
        }
        out.extend(unsound(section).into_iter().map(|line| format!("{}: {line}", section.name)));
    }
    out
}

/// The rows that speak against the protocol or against a twin. A time-out is said as such and claims nothing.
fn unsound<'a>(section: &Section<'a>) -> Vec<&'a str> {
    let mut twins = false;
    let mut out = Vec::new();
    for line in section.text.lines().filter(|line| line.starts_with("| ")) {
        if line.starts_with("| property |") || line.starts_with("| broken twin |") {
            twins = line.starts_with("| broken twin |");
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let good = if twins {
            // One word for each property that the twin must break. Of an equivalence ProVerif never says that it is false: it shows a
            // trace that tells the two sides apart.
            let trace = "attack found: a trace tells the sides apart (ProVerif says 'cannot be proved')";
            cells[3].split(", ").all(|said| ["attack found", "time-out", trace].iter().any(|word| said.ends_with(word)))
        } else {
            ["holds", "holds within the bound", "reached", "time-out"].contains(&cells[2])
        };
        if !good || line.contains("does not occur") || line.contains("no such property") {
            out.push(line);
        }
    }
    out
}

#[test]
fn the_results_are_those_of_the_models_as_they_are() {
    let results = std::fs::read_to_string(repository("formal/RESULTS.md")).unwrap();
    let digest = |model: &Model| waybill_crypto::digest::sha256(&[model.text.as_bytes()]).to_string();
    let models: Vec<_> = models().iter().map(|model| (model.name.clone(), digest(model))).collect();
    let found = stale(&results, &models);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_test_of_the_results_sees_what_is_wrong() {
    let digest = "ab".repeat(32);
    let results = |hash: &str, holds: &str, twin: &str| {
        format!(
            "# T\n\n## scyther/x.spdl\n\n`sha256 {hash}`, run on 2026-01-01\n\n| property | setting | result | seconds | twins |\n\
             |---|---|---|---|---|\n| P (`p`) | as it is | {holds} | 0.1 | t |\n\n\
             | broken twin | what | must break | result | seconds |\n|---|---|---|---|---|\n| t | w | p | {twin} | 0.1 |\n"
        )
    };
    let models = [("scyther/x.spdl".to_owned(), digest.clone())];
    let found = |hash: &str, holds: &str, twin: &str| stale(&results(hash, holds, twin), &models).len();
    assert_eq!(found(&digest, "holds", "p: attack found"), 0);
    assert_eq!(found(&digest, "time-out", "p: time-out"), 0);
    assert_eq!(found(&"cd".repeat(32), "holds", "p: attack found"), 1, "another text was run");
    for verdict in ["fail", "attack found", "no answer", "does not occur", "no such property"] {
        assert_eq!(found(&digest, verdict, "p: attack found"), 1, "{verdict}");
    }
    for verdict in ["p: NOT BROKEN", "p: no such property", "p: attack found, q: does not occur"] {
        assert_eq!(found(&digest, "holds", verdict), 1, "{verdict}");
    }
    assert_eq!(stale(&results(&digest, "holds", "p: attack found"), &[]).len(), 1, "a model that is gone");
    assert_eq!(stale("# T\n", &models).len(), 1, "a model that was never run");
}
