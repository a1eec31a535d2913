//! A strict JSON scanner that remembers where every token lies, because what is signed and delivered is the source text.
//!
//! No value is ever converted on the way: `1.10`, `1E-22` and a 40-digit decimal stay the bytes they were. The scanner
//! makes one flat table of nodes (a start, an end and an extent each) over the caller's bytes; a [`Value`] is a cursor in it.
//!
//! Security: input is hostile. Depth, node count and size are bounded before memory is taken, the scanner holds its own
//! stack, and whatever two readers could read differently (duplicate keys, lone surrogates, invalid UTF-8, a byte order
//! mark, text after the value) is refused.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

mod scan;

use scan::{Scanner, unescape_bytes};

/// The default bound on nesting.
pub const MAX_DEPTH: usize = 64;
/// The default bound on values in one document: a node takes 24 bytes, so the table stays below 100 MB.
pub const MAX_NODES: usize = 4_000_000;

/// What a document may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of objects and arrays.
    pub depth: usize,
    /// Values of any kind.
    pub nodes: usize,
    /// Bytes of text.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: MAX_DEPTH, nodes: MAX_NODES, bytes: 80 << 20 }
    }
}

/// Text that is not the JSON we accept.
///
/// Security: names a place and a rule, never a value of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct JsonError {
    /// Bytes before the problem.
    pub offset: usize,
    /// The rule that was broken.
    pub problem: JsonProblem,
}

/// The rule of JSON, or of this scanner, that a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// The text ends inside a value.
    #[error("the text ends too early")]
    Truncated,
    /// A byte that cannot stand here.
    #[error("unexpected byte")]
    Unexpected,
    /// A byte order mark in front.
    #[error("a byte order mark, which JSON does not allow")]
    ByteOrderMark,
    /// Not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// A control character that had to be escaped.
    #[error("a raw control character in a string")]
    ControlCharacter,
    /// An escape that JSON does not know.
    #[error("an invalid escape")]
    Escape,
    /// Half of a UTF-16 pair.
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// A malformed number.
    #[error("a malformed number")]
    Number,
    /// The same key twice in one object.
    #[error("a key that stands twice in one object")]
    DuplicateKey,
    /// Nested deeper than allowed.
    #[error("nested too deeply")]
    TooDeep,
    /// More values than allowed.
    #[error("too many values")]
    TooMany,
    /// More bytes than allowed.
    #[error("too many bytes")]
    TooLong,
    /// Something follows the value.
    #[error("text after the value")]
    Trailing,
}

fn error<T>(offset: usize, problem: JsonProblem) -> Result<T, JsonError> {
    Err(JsonError { offset, problem })
}

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{...}`
    Object,
    /// `[...]`
    Array,
    /// `"..."`
    String,
    /// Digits, as they stand.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// One value of the table. A key is the string node just before its value.
#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    is_key: bool,
    start: u32,
    end: u32,
    /// Index just after the last node inside this one.
    after: u32,
    /// The container, or `u32::MAX` at the root.
    parent: u32,
}

const NONE: u32 = u32::MAX;

/// A scanned text.
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

waybill_crypto::opaque_debug!(Document<'_>);

/// A cursor to one value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    index: u32,
}

/// Scans a text within the default [`Limits`].
///
/// # Errors
/// [`JsonError`] with the byte offset and the rule.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, JsonError> {
    parse_within(bytes, Limits::default())
}

/// Scans a text within given limits.
///
/// # Errors
/// [`JsonError`] with the byte offset and the rule.
pub fn parse_within(bytes: &[u8], limits: Limits) -> Result<Document<'_>, JsonError> {
    if bytes.len() > limits.bytes.min(NONE as usize - 1) {
        return error(limits.bytes, JsonProblem::TooLong);
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return error(0, JsonProblem::ByteOrderMark);
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| JsonError { offset: e.valid_up_to(), problem: JsonProblem::Utf8 })?;
    Ok(Document { text, nodes: Scanner::new(bytes, limits).scan()? })
}

/// Removes the insignificant white space of a text and keeps every token as it stands, so that a resource is one line.
///
/// # Errors
/// [`JsonError`] if the text is not JSON.
pub fn compact(bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    let document = parse(bytes)?;
    Ok(document.root().compact().into_owned())
}

/// Writes a text as a JSON string, quotes included, escaping only what must be escaped.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", character as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Replaces spans of a text, leaving every other byte as it was.
///
/// The edits must be in order and must not overlap; an empty span inserts.
#[must_use]
pub fn splice(bytes: &[u8], edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut at = 0;
    for (span, new) in edits {
        debug_assert!(span.start >= at, "edits are in order");
        out.extend_from_slice(&bytes[at..span.start]);
        out.extend_from_slice(new);
        at = span.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

impl<'a> Document<'a> {
    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// The text that was scanned.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Every value at any depth in the order of the text, the root first (keys are not values).
    pub fn descendants(&self) -> impl Iterator<Item = Value<'_>> {
        self.root().descendants()
    }
}

impl<'d> Value<'d> {
    fn node(self) -> Node {
        self.document.nodes[self.index as usize]
    }

    fn at_index(self, index: u32) -> Value<'d> {
        Value { document: self.document, index }
    }

    /// What kind of value this is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// Where the value stands in the text, quotes and braces included.
    #[must_use]
    pub fn span(self) -> Range<usize> {
        let node = self.node();
        node.start as usize..node.end as usize
    }

    /// The value's own text, exactly as it stands.
    #[must_use]
    pub fn token(self) -> &'d str {
        &self.document.text[self.span()]
    }

    /// The unescaped string, if this is one.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        let token = self.token();
        let raw = &token[1..token.len() - 1];
        if !raw.contains('\\') {
            return Some(Cow::Borrowed(raw));
        }
        let plain = unescape_bytes(raw.as_bytes()).into_owned();
        Some(Cow::Owned(
            String::from_utf8(plain).expect("the scanner accepted this string, and escapes give whole characters"),
        ))
    }

    /// The value's text without insignificant white space.
    #[must_use]
    pub fn compact(self) -> Cow<'d, [u8]> {
        let token = self.token().as_bytes();
        let mut out: Option<Vec<u8>> = None;
        let (mut in_string, mut escaped) = (false, false);
        for (at, &byte) in token.iter().enumerate() {
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                out.get_or_insert_with(|| token[..at].to_vec());
                continue;
            } else {
                in_string = byte == b'"';
            }
            if let Some(out) = &mut out {
                out.push(byte);
            }
        }
        out.map_or(Cow::Borrowed(token), Cow::Owned)
    }

    /// The members of an object in the order of the text; nothing for other kinds.
    pub fn members(self) -> impl Iterator<Item = (Cow<'d, str>, Value<'d>)> {
        self.children().filter(move |_| self.kind() == Kind::Object).filter_map(|child| Some((child.key()?, child)))
    }

    /// The elements of an array in order; nothing for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Value<'d>> {
        self.children().filter(move |_| self.kind() == Kind::Array)
    }

    /// The values directly inside.
    pub fn children(self) -> impl Iterator<Item = Value<'d>> {
        let after = self.node().after;
        let mut at = self.index + 1;
        std::iter::from_fn(move || {
            if at < after && self.at_index(at).node().is_key {
                at += 1;
            }
            let child = (at < after).then(|| self.at_index(at))?;
            at = child.node().after;
            Some(child)
        })
    }

    /// This value and every value inside it, in the order of the text.
    pub fn descendants(self) -> impl Iterator<Item = Value<'d>> {
        (self.index..self.node().after).map(move |index| self.at_index(index)).filter(|value| !value.node().is_key)
    }

    /// The key under which this value stands, if it is a member of an object.
    #[must_use]
    pub fn key(self) -> Option<Cow<'d, str>> {
        self.key_value().and_then(Value::as_str)
    }

    /// The key as a token with its place in the text.
    #[must_use]
    pub fn key_value(self) -> Option<Value<'d>> {
        let before = self.index.checked_sub(1).map(|index| self.at_index(index))?;
        before.node().is_key.then_some(before)
    }

    /// The object or array around this value.
    #[must_use]
    pub fn parent(self) -> Option<Value<'d>> {
        let parent = self.node().parent;
        (parent != NONE).then(|| self.at_index(parent))
    }

    /// The member of an object with this name.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Value<'d>> {
        self.members().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The string in the member with this name.
    #[must_use]
    pub fn text_of(self, name: &str) -> Option<Cow<'d, str>> {
        self.member(name)?.as_str()
    }

    /// Every value at a dotted path such as `participant.actor.reference`, going through arrays on the way and at the end.
    ///
    /// An empty path gives the value itself.
    #[must_use]
    pub fn select(self, path: &str) -> Vec<Value<'d>> {
        let mut found = self.flattened();
        for name in path.split('.').filter(|name| !name.is_empty()) {
            found = found.into_iter().filter_map(|value| value.member(name)).flat_map(Value::flattened).collect();
        }
        found
    }

    fn flattened(self) -> Vec<Value<'d>> {
        if self.kind() != Kind::Array {
            return vec![self];
        }
        self.elements().flat_map(Value::flattened).collect()
    }

    /// The value's place as `Type.path` readers know it: `participant[1].actor.reference`.
    #[must_use]
    pub fn path(self) -> String {
        let mut steps = Vec::new();
        let mut at = self;
        while let Some(parent) = at.parent() {
            match at.key() {
                Some(key) => steps.push(key.into_owned()),
                None => steps.push(format!("[{}]", parent.children().take_while(|c| c.index != at.index).count())),
            }
            at = parent;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }
}

impl fmt::Debug for Value<'_> {
    /// Shows kind and place only: a record's values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.kind(), self.span())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
