//! The text form of a scope: reading it with errors a person can act on, and writing it back.

use super::{LabelRule, MAX_SCOPE_LABELS, MAX_SCOPE_TEXT_BYTES, Scope, TypeRule, is_label_code};
use crate::dates::{DateError, Day, PartialDate};
use crate::types::{RESOURCE_TYPES, resource_type};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Why a scope text was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("scope, clause {clause}, character {position}: {kind}")]
pub struct ScopeError {
    /// The number of the clause, from 1.
    pub clause: usize,
    /// The character at which the trouble begins, from 1.
    pub position: usize,
    /// What is wrong.
    pub kind: ScopeErrorKind,
}

/// What is wrong with a scope text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScopeErrorKind {
    /// Longer than any scope can be.
    #[error("a scope has at most {MAX_SCOPE_TEXT_BYTES} bytes")]
    TooLong,
    /// Nothing between two semicolons, or nothing at all.
    #[error("empty clause; the whole record is types=*;labels=*")]
    EmptyClause,
    /// A clause without `=`.
    #[error("a clause is written name=value")]
    NoValue,
    /// A clause name that does not exist.
    #[error("unknown clause; use types, from, to, undated or labels")]
    UnknownClause,
    /// The same clause twice.
    #[error("the clause {0} is repeated; write it once, with all its values")]
    RepeatedClause(&'static str),
    /// A list with nothing in it, or nothing between two commas.
    #[error("the clause {0} has an empty value")]
    EmptyValue(&'static str),
    /// Not a type of FHIR R4.
    #[error("`{name}` is not a FHIR R4 resource type{}", Suggestion(.suggestion))]
    UnknownType {
        /// What was written, cut to 64 characters.
        name: String,
        /// The type that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// `*` beside other values.
    #[error("`*` stands alone in the clause {0}")]
    StarNotAlone(&'static str),
    /// Some types with `!`, some without.
    #[error("write `!` before every type or before none")]
    MixedExclusion,
    /// Not a date.
    #[error("{0}")]
    Date(DateError),
    /// The first day lies after the last.
    #[error("from lies after to")]
    FromAfterTo,
    /// Neither include nor exclude.
    #[error("undated is include or exclude")]
    Undated,
    /// Not a label code.
    #[error("a label is *, none or a code of letters, digits, `.`, `_`, `:` and `-` (at most 64)")]
    Label,
    /// More codes than a scope may name.
    #[error("a scope names at most {MAX_SCOPE_LABELS} label codes")]
    TooManyLabels,
}

/// Shows a suggestion as the end of a sentence.
struct Suggestion<'a>(&'a Option<&'static str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "; did you mean `{name}`?"))
    }
}

/// A piece of the text and the byte at which it begins.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Piece<'a> {
    fn trimmed(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        Self { text: self.text.trim(), at: self.at + start }
    }

    /// The parts between separators, trimmed.
    fn split(self, separator: char) -> impl Iterator<Item = Piece<'a>> {
        let mut at = self.at;
        self.text.split(separator).map(move |text| {
            let piece = Piece { text, at };
            at += text.len() + separator.len_utf8();
            piece.trimmed()
        })
    }
}

/// The clauses as they are found, each at most once.
#[derive(Default)]
struct Clauses {
    types: Option<TypeRule>,
    from: Option<Day>,
    to: Option<Day>,
    undated: Option<bool>,
    labels: Option<LabelRule>,
}

type Fault = (usize, ScopeErrorKind);

impl Clauses {
    fn read(&mut self, clause: Piece<'_>) -> Result<(), Fault> {
        if clause.text.is_empty() {
            return Err((clause.at, ScopeErrorKind::EmptyClause));
        }
        let Some((name, value)) = clause.text.split_once('=') else {
            return Err((clause.at, ScopeErrorKind::NoValue));
        };
        let value = Piece { text: value, at: clause.at + name.len() + 1 }.trimmed();
        let (name, repeated) = match name.trim() {
            "types" => ("types", self.types.is_some()),
            "from" => ("from", self.from.is_some()),
            "to" => ("to", self.to.is_some()),
            "undated" => ("undated", self.undated.is_some()),
            "labels" => ("labels", self.labels.is_some()),
            _ => return Err((clause.at, ScopeErrorKind::UnknownClause)),
        };
        if repeated {
            return Err((clause.at, ScopeErrorKind::RepeatedClause(name)));
        }
        if value.text.is_empty() {
            return Err((value.at, ScopeErrorKind::EmptyValue(name)));
        }
        let date =
            |piece: Piece<'_>| PartialDate::parse(piece.text).map_err(|error| (piece.at, ScopeErrorKind::Date(error)));
        match name {
            "types" => self.types = Some(parse_types(value)?),
            "from" => self.from = Some(date(value)?.earliest()),
            "to" => self.to = Some(date(value)?.latest()),
            "undated" => self.undated = Some(parse_undated(value)?),
            _ => self.labels = Some(parse_labels(value)?),
        }
        if self.from.zip(self.to).is_some_and(|(from, to)| from > to) {
            return Err((value.at, ScopeErrorKind::FromAfterTo));
        }
        Ok(())
    }
}

fn parse_undated(value: Piece<'_>) -> Result<bool, Fault> {
    match value.text {
        "include" => Ok(true),
        "exclude" => Ok(false),
        _ => Err((value.at, ScopeErrorKind::Undated)),
    }
}

fn parse_types(value: Piece<'_>) -> Result<TypeRule, Fault> {
    if value.text == "*" {
        return Ok(TypeRule::All);
    }
    let except = value.text.starts_with('!');
    let mut names = Vec::new();
    for item in value.split(',') {
        let name = match (item.text.strip_prefix('!'), except) {
            (Some(name), true) => name.trim_start(),
            (None, false) => item.text,
            _ if item.text.is_empty() => item.text,
            _ => return Err((item.at, ScopeErrorKind::MixedExclusion)),
        };
        match name {
            "" => return Err((item.at, ScopeErrorKind::EmptyValue("types"))),
            "*" => return Err((item.at, ScopeErrorKind::StarNotAlone("types"))),
            _ => names.push(resource_type(name).ok_or_else(|| (item.at, unknown_type(name)))?),
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(if except { TypeRule::Except(names) } else { TypeRule::Only(names) })
}

fn parse_labels(value: Piece<'_>) -> Result<LabelRule, Fault> {
    if value.text == "*" {
        return Ok(LabelRule::All);
    }
    let (mut unlabelled, mut codes) = (false, Vec::new());
    for item in value.split(',') {
        match item.text {
            "" => return Err((item.at, ScopeErrorKind::EmptyValue("labels"))),
            "*" => return Err((item.at, ScopeErrorKind::StarNotAlone("labels"))),
            "none" => unlabelled = true,
            code if is_label_code(code) => codes.push(code.to_owned()),
            _ => return Err((item.at, ScopeErrorKind::Label)),
        }
    }
    codes.sort_unstable();
    codes.dedup();
    if codes.len() > MAX_SCOPE_LABELS {
        return Err((value.at, ScopeErrorKind::TooManyLabels));
    }
    Ok(LabelRule::Only { unlabelled, codes })
}

fn unknown_type(name: &str) -> ScopeErrorKind {
    let name: String = name.chars().take(64).collect();
    let closest = RESOURCE_TYPES.iter().map(|known| (edits(&name, known), *known)).min();
    let suggestion = closest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known);
    ScopeErrorKind::UnknownType { name, suggestion }
}

/// The number of characters to insert, delete or replace, whatever their case.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<u8> = right.to_ascii_lowercase().into_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, byte) in left.to_ascii_lowercase().into_bytes().into_iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(byte != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// Reads the text form; see the module for its grammar.
    ///
    /// Errors: [`ScopeError`] naming the clause and the character.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.len() > MAX_SCOPE_TEXT_BYTES {
            return Err(ScopeError { clause: 1, position: 1, kind: ScopeErrorKind::TooLong });
        }
        let mut clauses = Clauses::default();
        for (index, clause) in (Piece { text, at: 0 }).split(';').enumerate() {
            clauses.read(clause).map_err(|(at, kind)| ScopeError {
                clause: index + 1,
                position: text[..at].chars().count() + 1,
                kind,
            })?;
        }
        let dated = clauses.from.is_some() || clauses.to.is_some();
        Ok(Self {
            types: clauses.types.unwrap_or(TypeRule::All),
            from: clauses.from,
            to: clauses.to,
            undated: clauses.undated.unwrap_or(!dated),
            labels: clauses.labels.unwrap_or_else(LabelRule::default_codes),
        })
    }
}

impl fmt::Display for Scope {
    /// Writes every clause, defaults too, so that the text means the same when defaults change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.types {
            TypeRule::All => write!(f, "types=*")?,
            TypeRule::Only(names) => write!(f, "types={}", names.join(","))?,
            TypeRule::Except(names) => write!(f, "types=!{}", names.join(",!"))?,
        }
        if let Some(from) = self.from {
            write!(f, ";from={from}")?;
        }
        if let Some(to) = self.to {
            write!(f, ";to={to}")?;
        }
        write!(f, ";undated={}", if self.undated { "include" } else { "exclude" })?;
        match &self.labels {
            LabelRule::All => write!(f, ";labels=*"),
            LabelRule::Only { unlabelled, codes } => {
                let none = unlabelled.then_some("none");
                let list: Vec<&str> = none.into_iter().chain(codes.iter().map(String::as_str)).collect();
                write!(f, ";labels={}", list.join(","))
            }
        }
    }
}
