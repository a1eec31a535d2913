//! Do two texts of a resource say the same? Exact decimals, array order kept, key order ignored.
//!
//! Grades of a number: the same token; the same value in another token, which may have lost precision (`1.10` became
//! `1.1`); another value. Nothing passes through a float. Strings are compared code point by code point, after
//! unescaping and without normalisation.

mod decimal;

use crate::json::{self, JsonError, Kind, Value};
use decimal::{NumberGrade, compare_numbers};
use std::borrow::Cow;
use std::collections::BTreeMap;
use thiserror::Error;

/// The most differences that are listed; all are counted.
pub const MAX_LISTED_DIFFERENCES: usize = 100;

/// How much two texts of a resource have in common; ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Every token is the same, apart from the order of keys and the spelling of escapes.
    Same,
    /// Every value is the same, but some number is written otherwise: precision may be lost. To be reported.
    PrecisionLost,
    /// Something is missing, added or changed. A failure.
    Changed,
}

/// What differs at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The same number, written otherwise.
    PrecisionLost,
    /// Another number.
    NumberChanged,
    /// Another string.
    TextChanged,
    /// Another kind of value, or another of `true`, `false` and `null`.
    KindChanged,
    /// The right side lacks a member.
    Missing,
    /// The right side has a member that the left side lacks.
    Added,
    /// An array has another number of elements.
    LengthChanged,
}

/// One difference: where and what, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place, such as `component[1].valueQuantity.value`.
    pub path: String,
    /// What differs there.
    pub kind: DifferenceKind,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The worst of all differences.
    pub grade: Grade,
    /// The first [`MAX_LISTED_DIFFERENCES`] differences.
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub total: u64,
}

/// Why two texts could not be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompareError {
    /// The left text is not JSON.
    #[error("the left text is not valid JSON")]
    Left(#[source] JsonError),
    /// The right text is not JSON.
    #[error("the right text is not valid JSON")]
    Right(#[source] JsonError),
}

/// Where the ids of the left side went, when a server gave new ones.
pub trait IdMap {
    /// The reference as it must stand on the right side, or `None` if it stays as it is.
    ///
    /// Called with every string under the key `reference`, and with `Type/id` of the resource itself.
    fn mapped(&self, reference: &str) -> Option<String>;
}

/// What a comparison overlooks.
#[derive(Clone, Copy, Default)]
pub struct CompareOptions<'a> {
    /// Overlook `meta.versionId` and `meta.lastUpdated`, which every server replaces.
    pub ignore_server_meta: bool,
    /// Expect ids and references of the left side under other names.
    pub id_map: Option<&'a dyn IdMap>,
}

/// Compares two texts of one resource; left is what was sent, right what came back.
///
/// Errors: [`CompareError`] if a text is not JSON as this crate reads it.
pub fn compare(left: &[u8], right: &[u8], options: CompareOptions<'_>) -> Result<Comparison, CompareError> {
    let left = json::parse(left).map_err(CompareError::Left)?;
    let right = json::parse(right).map_err(CompareError::Right)?;
    let mut walk = Walk { options, found: Comparison { grade: Grade::Same, differences: Vec::new(), total: 0 } };
    walk.compare(left.root(), right.root(), &Place::Root);
    Ok(walk.found)
}

/// The way from the root to a value; becomes text only where something differs.
enum Place<'p> {
    Root,
    Member(&'p Place<'p>, &'p str),
    Element(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(Place::Root, name) => (*name).to_owned(),
            Self::Member(parent, name) => format!("{}.{name}", parent.text()),
            Self::Element(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }

    fn is_meta_of_root(&self) -> bool {
        matches!(self, Self::Member(Place::Root, "meta"))
    }
}

/// A comparison under way. Recursion is bounded by the scanner's bound on depth.
struct Walk<'a> {
    options: CompareOptions<'a>,
    found: Comparison,
}

impl Walk<'_> {
    fn note(&mut self, place: &Place<'_>, kind: DifferenceKind) {
        let grade = if kind == DifferenceKind::PrecisionLost { Grade::PrecisionLost } else { Grade::Changed };
        self.found.grade = self.found.grade.max(grade);
        self.found.total += 1;
        if self.found.differences.len() < MAX_LISTED_DIFFERENCES {
            self.found.differences.push(Difference { path: place.text(), kind });
        }
    }

    fn compare(&mut self, left: Value<'_>, right: Value<'_>, place: &Place<'_>) {
        match (left.kind(), right.kind()) {
            (Kind::Object, Kind::Object) => self.compare_objects(left, right, place),
            (Kind::Array, Kind::Array) => self.compare_arrays(left, right, place),
            (Kind::String, Kind::String) => {
                if left.as_str() != right.as_str() {
                    self.note(place, DifferenceKind::TextChanged);
                }
            }
            (Kind::Number, Kind::Number) => match compare_numbers(left.token(), right.token()) {
                NumberGrade::SameToken => {}
                NumberGrade::SameValue => self.note(place, DifferenceKind::PrecisionLost),
                NumberGrade::Changed => self.note(place, DifferenceKind::NumberChanged),
            },
            (one, other) if one == other => {}
            _ => self.note(place, DifferenceKind::KindChanged),
        }
    }

    fn compare_objects(&mut self, left: Value<'_>, right: Value<'_>, place: &Place<'_>) {
        let mut theirs: BTreeMap<Cow<'_, str>, Value<'_>> = right.members().collect();
        for (name, value) in left.members() {
            let inner = Place::Member(place, &name);
            match theirs.remove(&name) {
                _ if self.is_overlooked(place, &name) => {}
                Some(other) if self.is_moved_as_expected(left, value, other, &inner) => {}
                Some(other) => self.compare(value, other, &inner),
                None if self.is_empty_meta(value, &inner) => {}
                None => self.note(&inner, DifferenceKind::Missing),
            }
        }
        for (name, value) in theirs {
            let inner = Place::Member(place, &name);
            if !self.is_overlooked(place, &name) && !self.is_empty_meta(value, &inner) {
                self.note(&inner, DifferenceKind::Added);
            }
        }
    }

    fn compare_arrays(&mut self, left: Value<'_>, right: Value<'_>, place: &Place<'_>) {
        let (mut mine, mut theirs) = (left.elements(), right.elements());
        let mut index = 0;
        loop {
            match (mine.next(), theirs.next()) {
                (Some(left), Some(right)) => self.compare(left, right, &Place::Element(place, index)),
                (None, None) => return,
                _ => return self.note(place, DifferenceKind::LengthChanged),
            }
            index += 1;
        }
    }

    fn is_overlooked(&self, place: &Place<'_>, name: &str) -> bool {
        self.options.ignore_server_meta && place.is_meta_of_root() && matches!(name, "versionId" | "lastUpdated")
    }

    /// A `meta` with nothing in it but what is overlooked is as good as none.
    fn is_empty_meta(&self, value: Value<'_>, place: &Place<'_>) -> bool {
        place.is_meta_of_root()
            && value.kind() == Kind::Object
            && value.members().all(|(name, _)| self.is_overlooked(place, &name))
    }

    /// Whether the map names another text for this id or reference, and the right side has exactly that.
    fn is_moved_as_expected(&self, owner: Value<'_>, left: Value<'_>, right: Value<'_>, place: &Place<'_>) -> bool {
        let Some(map) = self.options.id_map else { return false };
        let (Some(mine), Some(theirs)) = (left.as_str(), right.as_str()) else { return false };
        match place {
            Place::Member(Place::Root, "id") => {
                let name = owner.text_of("resourceType").unwrap_or_default();
                map.mapped(&format!("{name}/{mine}")).is_some_and(|moved| moved == format!("{name}/{theirs}"))
            }
            Place::Member(_, "reference") => map.mapped(&mine).is_some_and(|moved| moved == theirs),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
