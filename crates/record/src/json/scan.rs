//! The scanner itself: bytes in, a table of nodes out.

use std::borrow::Cow;

use super::{JsonError, JsonProblem, Kind, Limits, NONE, Node, error};

/// One pass over a text; the stack is on the heap and bounded.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    nodes: Vec<Node>,
    open: Vec<u32>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Self { bytes, at: 0, limits, nodes: Vec::new(), open: Vec::new() }
    }
}

impl Scanner<'_> {
    /// Scans exactly one value and the space around it.
    pub(super) fn scan(mut self) -> Result<Vec<Node>, JsonError> {
        self.scan_value()?;
        Ok(self.nodes)
    }

    fn scan_value(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        loop {
            // A value must stand here; a container that is not empty leaves us at its first value.
            if self.value()? {
                continue;
            }
            loop {
                self.skip_space();
                let Some(&container) = self.open.last() else {
                    return if self.at == self.bytes.len() { Ok(()) } else { error(self.at, JsonProblem::Trailing) };
                };
                let is_object = self.nodes[container as usize].kind == Kind::Object;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.skip_space();
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if is_object => self.close()?,
                    b']' if !is_object => self.close()?,
                    _ => return error(self.at, JsonProblem::Unexpected),
                }
            }
        }
    }

    fn peek(&self) -> Result<u8, JsonError> {
        self.bytes.get(self.at).copied().ok_or(JsonError { offset: self.at, problem: JsonProblem::Truncated })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize, is_key: bool) -> Result<(), JsonError> {
        if self.nodes.len() >= self.limits.nodes {
            return error(start, JsonProblem::TooMany);
        }
        let after = self.nodes.len() as u32 + 1;
        let parent = self.open.last().copied().unwrap_or(NONE);
        self.nodes.push(Node { kind, is_key, start: start as u32, end: end as u32, after, parent });
        Ok(())
    }

    /// Scans one value; true if it opened a container and stands before its first value.
    fn value(&mut self) -> Result<bool, JsonError> {
        let start = self.at;
        match self.peek()? {
            b'{' => self.open(Kind::Object),
            b'[' => self.open(Kind::Array),
            b'"' => {
                self.string()?;
                self.push(Kind::String, start, self.at, false)?;
                Ok(false)
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                self.push(Kind::Number, start, self.at, false)?;
                Ok(false)
            }
            b't' => self.word(b"true", Kind::True),
            b'f' => self.word(b"false", Kind::False),
            b'n' => self.word(b"null", Kind::Null),
            _ => error(start, JsonProblem::Unexpected),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<bool, JsonError> {
        let rest = &self.bytes[self.at..];
        if !rest.starts_with(word) {
            let truncated = word.starts_with(rest);
            return error(self.at, if truncated { JsonProblem::Truncated } else { JsonProblem::Unexpected });
        }
        self.push(kind, self.at, self.at + word.len(), false)?;
        self.at += word.len();
        Ok(false)
    }

    fn open(&mut self, kind: Kind) -> Result<bool, JsonError> {
        if self.open.len() >= self.limits.depth {
            return error(self.at, JsonProblem::TooDeep);
        }
        let index = self.nodes.len() as u32;
        self.push(kind, self.at, self.at, false)?;
        self.open.push(index);
        self.at += 1;
        self.skip_space();
        match (self.peek()?, kind) {
            (b'}', Kind::Object) | (b']', Kind::Array) => {
                self.close()?;
                Ok(false)
            }
            (_, Kind::Object) => {
                self.key()?;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Scans `"key" :` and the space after it.
    fn key(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek()? != b'"' {
            return error(start, JsonProblem::Unexpected);
        }
        self.string()?;
        self.push(Kind::String, start, self.at, true)?;
        self.skip_space();
        if self.peek()? != b':' {
            return error(self.at, JsonProblem::Unexpected);
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn close(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let index = self.open.pop().expect("close is reached only inside a container") as usize;
        self.nodes[index].end = self.at as u32;
        self.nodes[index].after = self.nodes.len() as u32;
        if self.nodes[index].kind == Kind::Object { self.refuse_duplicate_keys(index) } else { Ok(()) }
    }

    fn refuse_duplicate_keys(&self, object: usize) -> Result<(), JsonError> {
        let after = self.nodes[object].after as usize;
        let mut keys: Vec<(Cow<'_, [u8]>, u32)> = Vec::new();
        let mut at = object + 1;
        while at < after {
            let key = self.nodes[at];
            keys.push((unescape_bytes(&self.bytes[key.start as usize + 1..key.end as usize - 1]), key.start));
            at = self.nodes[at + 1].after as usize;
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => error(pair[1].1 as usize, JsonProblem::DuplicateKey),
            None => Ok(()),
        }
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                0..=0x1f => return error(self.at, JsonProblem::ControlCharacter),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => match self.code_unit(start)? {
                0xd800..=0xdbff => {
                    if !self.bytes[self.at..].starts_with(b"\\u") {
                        return error(start, JsonProblem::LoneSurrogate);
                    }
                    self.at += 1;
                    match self.code_unit(start)? {
                        0xdc00..=0xdfff => Ok(()),
                        _ => error(start, JsonProblem::LoneSurrogate),
                    }
                }
                0xdc00..=0xdfff => error(start, JsonProblem::LoneSurrogate),
                _ => Ok(()),
            },
            _ => error(start, JsonProblem::Escape),
        }
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self, start: usize) -> Result<u16, JsonError> {
        let digits = self
            .bytes
            .get(self.at + 1..self.at + 5)
            .ok_or(JsonError { offset: self.bytes.len(), problem: JsonProblem::Truncated })?;
        self.at += 5;
        hex_unit(digits).ok_or(JsonError { offset: start, problem: JsonProblem::Escape })
    }

    fn digits(&mut self, start: usize) -> Result<(), JsonError> {
        let first = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at > first {
            return Ok(());
        }
        match self.bytes.get(self.at) {
            None => error(self.at, JsonProblem::Truncated),
            Some(_) => error(start, JsonProblem::Number),
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.bytes.get(self.at) {
                return error(start, JsonProblem::Number);
            }
        } else {
            self.digits(start)?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits(start)?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits(start)?;
        }
        Ok(())
    }
}

fn hex_unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |unit, &digit| Some(unit << 4 | (digit as char).to_digit(16)? as u16))
}

/// Unescapes the inside of a string that the scanner has accepted.
pub(super) fn unescape_bytes(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = raw.iter().position(|&byte| byte == b'\\') else { return Cow::Borrowed(raw) };
    let mut plain = raw[..first].to_vec();
    let mut at = first;
    let unit = |at: usize| raw.get(at + 2..at + 6).and_then(hex_unit).unwrap_or(0xfffd);
    while at < raw.len() {
        if raw[at] != b'\\' {
            plain.push(raw[at]);
            at += 1;
            continue;
        }
        let mut length = 2;
        let character = match raw[at + 1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let units = [unit(at), if at + 12 <= raw.len() { unit(at + 6) } else { 0 }];
                let is_pair = (0xd800..0xdc00).contains(&units[0]);
                length = if is_pair { 12 } else { 6 };
                let used = if is_pair { &units[..] } else { &units[..1] };
                char::decode_utf16(used.iter().copied()).next().and_then(Result::ok).unwrap_or('\u{fffd}')
            }
            other => other as char,
        };
        plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += length;
    }
    Cow::Owned(plain)
}
