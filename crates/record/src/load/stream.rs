//! Cuts an input into the resources and entries it consists of, holding one of them at a time.
//!
//! A file is a Bundle, one resource, or NDJSON (one resource a line, blank lines allowed). Which of them it is is found
//! by a first reading that keeps nothing ([`shape`]); [`walk`] then hands out piece by piece. Every piece is bounded in
//! size while it is cut out, and scanned strictly afterwards by whoever receives it.

use std::io::{self, BufRead, BufReader};

use super::{LoadError, Place, Source};
use crate::json::{self, JsonError, JsonProblem, Limits};
use crate::resource::{MAX_RESOURCE_BYTES, ResourceProblem};

/// The largest entry of a Bundle: a resource of the largest size with white space and what stands around it.
const MAX_PIECE_BYTES: usize = MAX_RESOURCE_BYTES + (8 << 20);
/// The largest key, `resourceType` or `type` kept while looking for the shape.
const MAX_NAME_BYTES: usize = 256;

/// What an input file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing but white space.
    Empty,
    /// A Bundle of this type.
    Bundle(String),
    /// One resource.
    Single,
    /// One resource a line.
    Lines,
}

/// A piece of an input, as it stands.
pub(super) enum Piece<'a> {
    /// A resource by itself.
    Resource(&'a [u8]),
    /// An element of `Bundle.entry`.
    Entry(&'a [u8]),
}

/// Finds out what a source is, keeping nothing of it.
pub(super) fn shape(source: &dyn Source) -> Result<Shape, LoadError> {
    let mut cutter = Cutter::open(source)?;
    cutter.skip_space()?;
    let Some(first) = cutter.peek()? else { return Ok(Shape::Empty) };
    if first != b'{' {
        let place = Place { source: source.name().to_owned(), entry: None };
        return Err(LoadError::Resource { place, problem: ResourceProblem::NotAnObject });
    }
    let start_line = cutter.line;
    let (mut is_bundle, mut bundle_type) = (false, String::new());
    cutter.bump();
    cutter.members(|cutter, key| {
        let mut kept = Vec::new();
        let is_name = matches!(key, "resourceType" | "type") && cutter.peek()? == Some(b'"');
        cutter.value(is_name.then_some(&mut kept), MAX_NAME_BYTES)?;
        let text = json::parse(&kept).ok().and_then(|document| document.root().as_str().map(|t| t.into_owned()));
        match (key, text) {
            ("resourceType", Some(text)) => is_bundle = text == "Bundle",
            ("type", Some(text)) => bundle_type = text,
            _ => {}
        }
        Ok(())
    })?;
    let is_one_line = cutter.line == start_line;
    cutter.skip_space()?;
    match (cutter.peek()?, is_one_line && cutter.line > start_line) {
        (None, _) if is_bundle => Ok(Shape::Bundle(bundle_type)),
        (None, _) => Ok(Shape::Single),
        (Some(_), true) => Ok(Shape::Lines),
        (Some(_), false) => Err(cutter.fail(JsonProblem::Trailing)),
    }
}

/// Hands out the pieces of a source of a known shape in order.
pub(super) fn walk(
    source: &dyn Source,
    shape: &Shape,
    each: &mut dyn FnMut(Place, Piece<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut cutter = Cutter::open(source)?;
    match shape {
        Shape::Empty => Ok(()),
        Shape::Bundle(_) => walk_bundle(&mut cutter, each),
        Shape::Single | Shape::Lines => walk_values(&mut cutter, *shape == Shape::Lines, each),
    }
}

fn walk_values(
    cutter: &mut Cutter<'_>,
    is_lines: bool,
    each: &mut dyn FnMut(Place, Piece<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut kept = Vec::new();
    let mut last_line = 0;
    loop {
        cutter.skip_space()?;
        if cutter.peek()?.is_none() {
            return Ok(());
        }
        let line = cutter.line;
        if is_lines && line == last_line {
            return Err(cutter.fail(JsonProblem::Trailing));
        }
        kept.clear();
        cutter.value(Some(&mut kept), MAX_PIECE_BYTES)?;
        if is_lines && cutter.line != line {
            return Err(cutter.fail(JsonProblem::Unexpected));
        }
        last_line = line;
        let place = Place { source: cutter.source.name().to_owned(), entry: is_lines.then_some(line) };
        each(place, Piece::Resource(&kept))?;
    }
}

fn walk_bundle(
    cutter: &mut Cutter<'_>,
    each: &mut dyn FnMut(Place, Piece<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    cutter.skip_space()?;
    cutter.bump();
    let mut kept = Vec::new();
    let mut seen = Vec::new();
    cutter.members(|cutter, key| {
        if seen.iter().any(|other| other == key) {
            return Err(cutter.fail(JsonProblem::DuplicateKey));
        }
        if seen.len() >= 64 {
            return Err(cutter.fail(JsonProblem::TooMany));
        }
        seen.push(key.to_owned());
        if key == "entry" && cutter.peek()? == Some(b'[') {
            return walk_entries(cutter, &mut kept, each);
        }
        kept.clear();
        cutter.value(Some(&mut kept), MAX_PIECE_BYTES)?;
        let at = cutter.offset() - kept.len() as u64;
        parse(&kept).map(drop).map_err(|e| cutter.fail_at(at + e.offset as u64, e.problem))
    })?;
    cutter.skip_space()?;
    if cutter.peek()?.is_some() { Err(cutter.fail(JsonProblem::Trailing)) } else { Ok(()) }
}

fn walk_entries(
    cutter: &mut Cutter<'_>,
    kept: &mut Vec<u8>,
    each: &mut dyn FnMut(Place, Piece<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    cutter.bump();
    cutter.skip_space()?;
    if cutter.peek()? == Some(b']') {
        cutter.bump();
        return Ok(());
    }
    let mut number = 0;
    loop {
        number += 1;
        cutter.skip_space()?;
        kept.clear();
        cutter.value(Some(kept), MAX_PIECE_BYTES)?;
        each(Place { source: cutter.source.name().to_owned(), entry: Some(number) }, Piece::Entry(kept))?;
        cutter.skip_space()?;
        match cutter.peek()? {
            Some(b',') => cutter.bump(),
            Some(b']') => {
                cutter.bump();
                return Ok(());
            }
            Some(_) => return Err(cutter.fail(JsonProblem::Unexpected)),
            None => return Err(cutter.fail(JsonProblem::Truncated)),
        }
    }
}

/// Scans a piece strictly; pieces may be a little larger than a resource.
pub(super) fn parse(piece: &[u8]) -> Result<json::Document<'_>, JsonError> {
    json::parse_within(piece, Limits { bytes: MAX_PIECE_BYTES, ..Limits::default() })
}

/// A cursor over a reader that can cut out one JSON value without knowing its length.
struct Cutter<'s> {
    source: &'s dyn Source,
    reader: BufReader<Box<dyn io::Read + 's>>,
    at: usize,
    before: u64,
    /// Line of the cursor, from 1.
    line: u64,
}

impl<'s> Cutter<'s> {
    fn open(source: &'s dyn Source) -> Result<Self, LoadError> {
        let reader = source.open().map_err(|e| LoadError::Read { source_name: source.name().to_owned(), source: e })?;
        let reader = BufReader::with_capacity(64 << 10, reader);
        Ok(Self { source, reader, at: 0, before: 0, line: 1 })
    }

    fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    fn fail(&self, problem: JsonProblem) -> LoadError {
        self.fail_at(self.offset(), problem)
    }

    fn fail_at(&self, offset: u64, problem: JsonProblem) -> LoadError {
        LoadError::Json { source_name: self.source.name().to_owned(), offset, problem }
    }

    fn peek(&mut self) -> Result<Option<u8>, LoadError> {
        if self.at == self.reader.buffer().len() {
            self.reader.consume(self.at);
            self.before += self.at as u64;
            self.at = 0;
            loop {
                match self.reader.fill_buf() {
                    Ok(_) => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        return Err(LoadError::Read { source_name: self.source.name().to_owned(), source: e });
                    }
                }
            }
        }
        Ok(self.reader.buffer().get(self.at).copied())
    }

    /// Steps over the byte that was peeked.
    fn bump(&mut self) {
        self.line += u64::from(self.reader.buffer()[self.at] == b'\n');
        self.at += 1;
    }

    fn skip_space(&mut self) -> Result<(), LoadError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek()? {
            self.bump();
        }
        Ok(())
    }

    /// Goes through the members of an object whose brace was passed; `each` must consume the value.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &str) -> Result<(), LoadError>) -> Result<(), LoadError> {
        let mut key = Vec::new();
        self.skip_space()?;
        if self.peek()? == Some(b'}') {
            self.bump();
            return Ok(());
        }
        loop {
            self.skip_space()?;
            let at = self.offset();
            if self.peek()? != Some(b'"') {
                return Err(self.fail(JsonProblem::Unexpected));
            }
            key.clear();
            self.value(Some(&mut key), MAX_NAME_BYTES)?;
            let document = parse(&key).map_err(|e| self.fail_at(at + e.offset as u64, e.problem))?;
            let name = document.root().as_str().unwrap_or_default().into_owned();
            self.skip_space()?;
            if self.peek()? != Some(b':') {
                return Err(self.fail(JsonProblem::Unexpected));
            }
            self.bump();
            self.skip_space()?;
            each(self, &name)?;
            self.skip_space()?;
            match self.peek()? {
                Some(b',') => self.bump(),
                Some(b'}') => {
                    self.bump();
                    return Ok(());
                }
                Some(_) => return Err(self.fail(JsonProblem::Unexpected)),
                None => return Err(self.fail(JsonProblem::Truncated)),
            }
        }
    }

    /// Cuts out one value by its brackets and quotes only; whoever keeps it scans it strictly.
    fn value(&mut self, mut kept: Option<&mut Vec<u8>>, limit: usize) -> Result<(), LoadError> {
        let mut cut = Cut::default();
        loop {
            let Some(_) = self.peek()? else {
                return if cut.is_scalar { Ok(()) } else { Err(self.fail(JsonProblem::Truncated)) };
            };
            let buffer = &self.reader.buffer()[self.at..];
            let (length, ended, lines) = cut.advance(buffer);
            if let Some(kept) = kept.as_deref_mut() {
                if kept.len() + length > limit {
                    return Err(self.fail(JsonProblem::TooLong));
                }
                kept.extend_from_slice(&buffer[..length]);
            }
            self.at += length;
            self.line += lines;
            if ended {
                return if cut.is_empty { Err(self.fail(JsonProblem::Unexpected)) } else { Ok(()) };
            }
        }
    }
}

/// The state of cutting out one value.
struct Cut {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    /// A number or word, which ends where something else begins.
    is_scalar: bool,
    is_empty: bool,
}

impl Default for Cut {
    fn default() -> Self {
        Self { depth: 0, in_string: false, is_escaped: false, is_scalar: false, is_empty: true }
    }
}

impl Cut {
    /// Takes bytes of the value: how many, whether it ended with them, and the line ends among them.
    fn advance(&mut self, buffer: &[u8]) -> (usize, bool, u64) {
        let mut lines = 0;
        for (at, &byte) in buffer.iter().enumerate() {
            lines += u64::from(byte == b'\n');
            if self.in_string {
                if self.is_escaped {
                    self.is_escaped = false;
                } else if byte == b'\\' {
                    self.is_escaped = true;
                } else if byte == b'"' {
                    self.in_string = false;
                    if self.depth == 0 {
                        return (at + 1, true, lines);
                    }
                }
                continue;
            }
            if self.is_scalar || self.depth == 0 {
                if matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r') {
                    return (at, true, lines - u64::from(byte == b'\n'));
                }
                self.is_empty = false;
            }
            match byte {
                b'"' if !self.is_scalar => self.in_string = true,
                b'{' | b'[' if !self.is_scalar => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true, lines);
                    }
                }
                _ => self.is_scalar |= self.depth == 0,
            }
        }
        (buffer.len(), false, lines)
    }
}
