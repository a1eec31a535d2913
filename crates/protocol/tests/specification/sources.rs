//! The wire structures as the Rust sources declare them, written as CDDL.

use std::path::PathBuf;

/// Where wire structures are declared, below `crates/`.
const FILES: [&str; 15] = [
    "protocol/src/messages/consent.rs",
    "protocol/src/messages/delegation.rs",
    "protocol/src/messages/ending.rs",
    "protocol/src/messages/lodgement.rs",
    "protocol/src/messages/login.rs",
    "protocol/src/messages/manifest.rs",
    "protocol/src/messages/preview.rs",
    "protocol/src/messages/receipt.rs",
    "protocol/src/messages/registration.rs",
    "protocol/src/messages/transfer.rs",
    "protocol/src/wire.rs",
    "protocol/src/sealed.rs",
    "protocol/src/log/evidence.rs",
    "protocol/src/evidence/mod.rs",
    "crypto/src/keys.rs",
];

/// A file below `crates/`.
pub fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every type in the sources of all crates, tests aside, that implements a trait: the file below `crates/`, and the type.
pub fn implementing(name: &str) -> Vec<(String, String)> {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut folders, mut files) = (vec![crates.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests" && name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mark = format!("impl {name} for ");
    let implemented = files.iter().flat_map(|path| {
        let file = path.strip_prefix(&crates).unwrap().to_str().unwrap().to_owned();
        let source = read(&file);
        let source = source.split("#[cfg(test)]").next().unwrap();
        let types = source.split(&mark).skip(1);
        let types = types.map(|rest| rest.split([' ', '<', '{']).next().unwrap().to_owned());
        types.map(|implementor| (file.clone(), implementor)).collect::<Vec<_>>()
    });
    implemented.collect()
}

/// Every structure with a derived encoding: its name and the CDDL that its fields amount to.
pub fn declared() -> Vec<(String, String)> {
    let mut all: Vec<_> = FILES.iter().flat_map(|file| structures(&read(file))).collect();
    let identity = structures(&read("record/src/identity.rs"));
    all.extend(
        identity
            .into_iter()
            .filter(|(name, _)| ["Demographics", "PersonName", "PersonIdentifier"].contains(&name.as_str())),
    );
    all
}

fn structures(source: &str) -> Vec<(String, String)> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut out = Vec::new();
    let mut kind = None;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        match line {
            "#[cbor(array)]" | "#[cbor(index_only)]" | "#[cbor(flat)]" => kind = Some(line),
            _ => {}
        }
        let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) else { continue };
        let Some(kind) = kind.take() else { continue };
        let name = rest.split([' ', '<']).next().unwrap().to_owned();
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").map(str::trim).collect();
        let body: Vec<&str> = body.into_iter().filter(|line| !line.starts_with("//")).collect();
        let cddl = match kind {
            "#[cbor(array)]" => format!("[ {} ]", fields(&body).join(", ")),
            "#[cbor(index_only)]" => format!("&( {} )", numbered(&body)),
            _ => variants(&body),
        };
        out.push((name, cddl));
    }
    out
}

/// The number of an `#[n(..)]` attribute, and whether the field is a byte string.
fn attribute(line: &str) -> Option<(usize, bool)> {
    let rest = line.strip_prefix("#[n(").or_else(|| line.strip_prefix("#[cbor(n("))?;
    Some((rest[..rest.find(')')?].parse().ok()?, rest.contains("minicbor::bytes")))
}

fn fields(body: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut pending = None;
    for line in body {
        if let Some(found) = attribute(line) {
            pending = Some(found);
        } else if let Some((name, kind)) = line.split_once(": ") {
            let (number, bytes) = pending.take().expect("every field is numbered");
            assert_eq!(number, out.len(), "fields are numbered in order without gaps: {name}");
            let name = name.trim_start_matches("pub ");
            out.push(format!("{name}: {}", cddl_type(kind.trim_end_matches(','), bytes)));
        }
    }
    // An absent field at the end is left out; one before a present field is null.
    for field in out.iter_mut().rev() {
        let Some(present) = field.strip_suffix(" / null") else { break };
        *field = format!("? {present}");
    }
    out
}

fn numbered(body: &[&str]) -> String {
    let pairs = body.chunks(2).map(|pair| {
        let [attribute_line, name] = pair else { panic!("a number and a name: {pair:?}") };
        let (number, _) = attribute(attribute_line).unwrap();
        format!("{}: {number}", name.trim_end_matches(','))
    });
    pairs.collect::<Vec<_>>().join(", ")
}

fn variants(body: &[&str]) -> String {
    let mut out = Vec::new();
    let mut lines = body.iter();
    while let Some(line) = lines.next() {
        let (number, _) = attribute(line).expect("every variant is numbered");
        let name = lines.next().unwrap();
        let inner: Vec<&str> = if name.ends_with('{') {
            lines.by_ref().copied().take_while(|line| *line != "},").collect()
        } else {
            Vec::new()
        };
        let all: Vec<_> = std::iter::once(number.to_string()).chain(fields(&inner)).collect();
        out.push(format!("[ {} ]", all.join(", ")));
    }
    out.join(" / ")
}

fn cddl_type(rust: &str, bytes: bool) -> String {
    let inside = |prefix: &str| rust.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if bytes {
        let length = rust.strip_prefix("[u8; ").and_then(|rest| rest.strip_suffix(']'));
        return length.map_or_else(|| "bstr".to_owned(), |length| format!("bstr .size {length}"));
    }
    if let Some(inner) = inside("Option<") {
        return format!("{} / null", cddl_type(inner, false));
    }
    if let Some(inner) = inside("Vec<") {
        return format!("[* {}]", cddl_type(inner, false));
    }
    if let Some(inner) = inside("SignedBytes<") {
        return format!("Signed<{inner}>");
    }
    match rust {
        "String" => "tstr".to_owned(),
        other => other.trim_start_matches("super::").to_owned(),
    }
}
