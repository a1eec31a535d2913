//! References as FHIR writes them, and where they stand in a resource.

use std::borrow::Cow;
use std::fmt;

use crate::json::{Document, Kind, Value};
use crate::resource::ResourceKey;
use crate::types::ResourceType;

/// What a reference string says, before anything is looked up.
#[derive(Clone, PartialEq, Eq)]
pub enum Reference {
    /// `#id`: a contained resource of the same resource.
    Contained(String),
    /// `Type/id` or `Type/id/_history/version`.
    Local {
        /// What it names here.
        key: ResourceKey,
        /// Whether it pins a version.
        is_versioned: bool,
    },
    /// `http(s)://...`
    Absolute {
        /// The address without version and fragment.
        url: String,
        /// What its last two segments would name, if they are a type and an id.
        tail: Option<ResourceKey>,
    },
    /// `urn:uuid:...` or `urn:oid:...`, without fragment.
    Urn(String),
    /// `Type?query`: a search in place of a name.
    Conditional {
        /// The type searched.
        resource_type: ResourceType,
        /// The one identifier asked for, if the query is that and nothing else.
        identifier: Option<Identifier>,
    },
    /// Anything else.
    Unusable,
}

waybill_crypto::opaque_debug!(Reference);

impl Reference {
    /// Reads a reference string.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(id) = text.strip_prefix('#') {
            return Self::Contained(id.to_owned());
        }
        if text.starts_with("urn:") {
            return Self::Urn(text.split('#').next().unwrap_or(text).to_owned());
        }
        let is_absolute = text.starts_with("http://") || text.starts_with("https://");
        let plain = text.split('#').next().unwrap_or(text);
        let (name, is_versioned) = match plain.rsplit_once("/_history/") {
            Some((name, _)) => (name, true),
            None => (plain, false),
        };
        if is_absolute {
            let mut segments = name.rsplitn(3, '/');
            let (id, kind) = (segments.next().unwrap_or(""), segments.next().unwrap_or(""));
            return Self::Absolute { url: name.to_owned(), tail: ResourceKey::new(kind, id).ok() };
        }
        if let Some((name, query)) = text.split_once('?') {
            let Some(resource_type) = ResourceType::parse(name) else { return Self::Unusable };
            return Self::Conditional { resource_type, identifier: Identifier::from_query(query) };
        }
        name.parse().map_or(Self::Unusable, |key| Self::Local { key, is_versioned })
    }
}

/// A business identifier: the pair by which hospitals know a thing.
///
/// Security: a patient's identifiers are health data, so `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier {
    /// The naming system, empty if there is none.
    pub system: String,
    /// The value within the system.
    pub value: String,
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identifier(..)")
    }
}

impl Identifier {
    /// Reads `identifier=system|value`, the only conditional query whose answer does not depend on a server's search.
    #[must_use]
    pub fn from_query(query: &str) -> Option<Self> {
        let token = query.strip_prefix("identifier=")?;
        if token.contains('&') || token.contains(',') {
            return None;
        }
        let (system, value) = token.split_once('|')?;
        let (system, value) = (percent_decode(system)?, percent_decode(value)?);
        (!value.is_empty()).then_some(Self { system, value })
    }

    /// The identifiers in the `identifier` element of a resource.
    #[must_use]
    pub fn of(root: Value<'_>) -> Vec<Self> {
        let mut found: Vec<Self> = root
            .select("identifier")
            .into_iter()
            .filter_map(|identifier| {
                let value = identifier.text_of("value").filter(|value| !value.is_empty())?.into_owned();
                Some(Self { system: identifier.text_of("system").unwrap_or_default().into_owned(), value })
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3)?;
            let digit = |byte: u8| (byte as char).to_digit(16);
            plain.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
            at += 3;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(plain).ok()
}

/// What kind of element a link stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// `Reference.reference`.
    Reference,
    /// A `url` of an attachment (any `url` that is not an extension's name).
    Url,
    /// A `valueUri` or `valueUrl` of an extension or parameter: rewritten when it names an entry, never followed.
    Value,
}

/// A string of a resource that may name another resource.
#[derive(Debug, Clone, Copy)]
pub struct Link<'d> {
    /// The string.
    pub value: Value<'d>,
    /// What it stands in.
    pub kind: LinkKind,
}

impl<'d> Link<'d> {
    /// The string, unescaped.
    #[must_use]
    pub fn text(&self) -> Cow<'d, str> {
        self.value.as_str().unwrap_or_default()
    }

    /// What the string says. A URL that cannot name a resource reads as [`Reference::Unusable`].
    #[must_use]
    pub fn reference(&self) -> Reference {
        let reference = Reference::parse(&self.text());
        match (&reference, self.kind) {
            (Reference::Contained(_) | Reference::Conditional { .. }, LinkKind::Url | LinkKind::Value) => {
                Reference::Unusable
            }
            _ => reference,
        }
    }
}

/// Every link anywhere in a resource, contained resources and extensions included, in the order of the text.
pub fn links<'d>(document: &'d Document<'d>) -> impl Iterator<Item = Link<'d>> {
    document.descendants().filter(|value| value.kind() == Kind::String).filter_map(link)
}

fn link(value: Value<'_>) -> Option<Link<'_>> {
    // The unescaped key: a reference must not hide behind an escape in its own name.
    let kind = match &*value.key()? {
        "reference" => LinkKind::Reference,
        "url" if !names_itself(value) => LinkKind::Url,
        "valueUri" | "valueUrl" => LinkKind::Value,
        _ => return None,
    };
    Some(Link { value, kind })
}

/// Whether a `url` is the name of an extension or of a definition rather than an address.
fn names_itself(url: Value<'_>) -> bool {
    let Some(parent) = url.parent() else { return false };
    let key = parent.parent().and_then(Value::key);
    matches!(key.as_deref(), Some("extension" | "modifierExtension")) || parent.member("resourceType").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn key(text: &str) -> ResourceKey {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let local = |text: &str, is_versioned| Reference::Local { key: key(text), is_versioned };
        let absolute = |url: &str, tail: Option<&str>| Reference::Absolute { url: url.into(), tail: tail.map(key) };
        assert_eq!(Reference::parse("#a"), Reference::Contained("a".into()));
        assert_eq!(Reference::parse("Patient/1"), local("Patient/1", false));
        assert_eq!(Reference::parse("Patient/1/_history/2"), local("Patient/1", true));
        assert_eq!(Reference::parse("Patient/1#p"), local("Patient/1", false));
        assert_eq!(
            Reference::parse("https://h/f/Patient/1/_history/2"),
            absolute("https://h/f/Patient/1", Some("Patient/1"))
        );
        assert_eq!(Reference::parse("http://h/x.pdf"), absolute("http://h/x.pdf", None));
        assert_eq!(Reference::parse("urn:uuid:1#2"), Reference::Urn("urn:uuid:1".into()));
        for text in ["", "Patient", "Pateint/1", "Patient/a b", "Patient/1/2", "Nobody?identifier=a|b"] {
            assert_eq!(Reference::parse(text), Reference::Unusable, "{text}");
        }
    }

    #[test]
    fn conditional_queries_are_read_only_when_unmistakable() {
        let identifier = |text: &str| match Reference::parse(text) {
            Reference::Conditional { identifier, .. } => identifier.map(|i| (i.system, i.value)),
            other => panic!("{other:?}"),
        };
        let pair = |system: &str, value: &str| Some((system.to_owned(), value.to_owned()));
        assert_eq!(identifier("Practitioner?identifier=http://n|99"), pair("http://n", "99"));
        assert_eq!(identifier("Practitioner?identifier=http%3A%2F%2Fn|9%7C9"), pair("http://n", "9|9"));
        assert_eq!(identifier("Practitioner?identifier=|99"), pair("", "99"));
        for text in [
            "identifier=99",
            "name=a",
            "identifier=a|b&active=true",
            "identifier=a|b,a|c",
            "identifier=a|",
            "identifier=%zz|b",
        ] {
            assert_eq!(identifier(&format!("Practitioner?{text}")), None, "{text}");
        }
    }

    #[test]
    fn links_are_found_wherever_they_stand() {
        let text = br#"{"extension":[{"url":"http://e","valueReference":{"reference":"A"}},{"url":"u","valueUri":"B"}],
            "contained":[{"subject":{"refer\u0065nce":"C"}}],"content":[{"attachment":{"url":"D"}}],"x":{"reference":{"y":"no"}},
            "identifier":[{"system":"urn:ietf:rfc:3986","value":"urn:uuid:no"}]}"#;
        let document = json::parse(text).unwrap();
        let found: Vec<_> = links(&document).map(|link| (link.text().into_owned(), link.kind)).collect();
        let expected =
            [("A", LinkKind::Reference), ("B", LinkKind::Value), ("C", LinkKind::Reference), ("D", LinkKind::Url)];
        assert_eq!(found, expected.map(|(text, kind)| (text.to_owned(), kind)));
    }

    #[test]
    fn identifiers_are_read_and_hidden() {
        let document =
            json::parse(br#"{"identifier":[{"system":"s","value":"v"},{"value":"w"},{"system":"s"}]}"#).unwrap();
        let found = Identifier::of(document.root());
        assert_eq!(found.iter().map(|i| (&*i.system, &*i.value)).collect::<Vec<_>>(), [("", "w"), ("s", "v")]);
        assert!(!format!("{found:?}").contains('v'));
    }
}
