//! Where travelling resources still mention a hidden item: by reference, by one of its codes, or in its words.
//!
//! A [`Search`] first learns what the hidden items are called, then reads each travelling resource: coded elements, plain
//! strings, narratives without their tags, and attachments that are text. What it cannot read is [`NOT_SEARCHED`], so that
//! nothing found is never told as nothing there.

use std::collections::BTreeMap;
use std::fmt;

use crate::hides::Hides;
use crate::json::{self, Kind, Limits, Value};
use crate::resource::{MAX_RESOURCE_BYTES, ResourceKey};

mod phrases;
mod text;

use phrases::Phrases;

/// Most codes and most names that are learned of one item.
const MAX_LEARNED: usize = 64;
/// Longest path of an element in a mention. Units: bytes.
const MAX_PATH_BYTES: usize = 100;
/// What a search reads, in words for people.
pub const SEARCHED: &str =
    "references, the item's codes and names where it has any, in elements, narratives and text attachments";
/// What a search does not read, in words for people.
pub const NOT_SEARCHED: [&str; 5] = [
    "pictures, PDF and other attachments that are not text",
    "text attachments beyond their first 4 MiB",
    "content that is only linked by an address",
    "other words or other codes for the same thing, and abbreviations of two letters",
    "what lets a reader infer the item, such as its medication",
];

/// Where a resource says what it is about. Status, category and kind of document are left out: they are common to many.
const SUBJECTS: [&str; 17] = [
    "code",
    "medicationCodeableConcept",
    "vaccineCode",
    "reasonCode",
    "conclusionCode",
    "serviceType",
    "productOrService",
    "diagnosis.diagnosisCodeableConcept",
    "item.productOrService",
    "component.code",
    "condition.code",
    "contained.code",
    "activity.detail.code",
    "deviceName.name",
    "title",
    "description",
    "content.attachment.title",
];
/// Members whose strings are names of things, not words.
const NOT_WORDS: [&str; 9] =
    ["data", "fullUrl", "id", "lastUpdated", "profile", "reference", "resourceType", "system", "versionId"];

/// How a mention was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// The item is named as `Type/id`.
    Reference,
    /// One of its codes is there.
    Code,
    /// One of its names is there, in words.
    Text,
}

impl Found {
    /// The stable word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Code => "code",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One mention of a hidden item in one resource: the first place of its kind.
#[derive(Clone, PartialEq, Eq)]
pub struct Mention<'s> {
    /// The hidden item.
    pub item: &'s ResourceKey,
    /// How it was found.
    pub found: Found,
    /// The element, such as `reasonCode[0].coding[0].code`, cut at a hundred bytes.
    pub path: String,
}

impl Mention<'_> {
    /// The line a patient is told: `Type/id found path`, where the first names the resource that mentions the item.
    #[must_use]
    pub fn in_words(&self, mentioned_in: &ResourceKey) -> String {
        format!("{mentioned_in} {} {}", self.found, self.path)
    }
}

/// A line of [`Mention::in_words`] read back: the resource, how it was found, and the element.
///
/// A line without the last two is a reference whose place was not told.
#[must_use]
pub fn read_line(line: &str) -> (&str, &str, &str) {
    let mut parts = line.splitn(3, ' ');
    let mut next = |otherwise| parts.next().unwrap_or(otherwise);
    (next(""), next(Found::Reference.as_str()), next(""))
}

impl fmt::Debug for Mention<'_> {
    /// Shows the kind only: what a patient hides, and where it stands, is health data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mention({})", self.found)
    }
}

/// A search for hidden items.
///
/// Security: an item is to be learned only if whoever hides it may read it, or the answer would tell what it is.
#[derive(Default)]
pub struct Search {
    hides: Hides,
    /// System (empty where there is none) and code, to the places of the items that bear it.
    codes: BTreeMap<(String, String), Vec<usize>>,
    phrases: Phrases,
}

impl fmt::Debug for Search {
    /// Shows the number only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({} items)", self.hides.len())
    }
}

type Places = BTreeMap<(usize, Found), String>;

impl Search {
    /// A search that knows these items by their `Type/id` only.
    #[must_use]
    pub fn new(hides: &Hides) -> Self {
        Self { hides: hides.clone(), ..Self::default() }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hides.is_empty()
    }

    /// Learns from the bytes of a hidden item which codes it bears and what it is called; of other resources nothing.
    pub fn learn(&mut self, key: &ResourceKey, body: &[u8]) {
        let Ok(place) = self.hides.items().binary_search(key) else { return };
        let Some(document) = parse(body) else { return };
        let (mut codes, mut names) = (Vec::new(), Vec::new());
        for subject in SUBJECTS.iter().flat_map(|path| document.root().select(path)) {
            describe(subject, &mut codes, &mut names);
        }
        for code in codes.into_iter().take(MAX_LEARNED) {
            self.phrases.add_code(&code.1, place);
            let bearers = self.codes.entry(code).or_default();
            if bearers.last() != Some(&place) {
                bearers.push(place);
            }
        }
        for name in names.iter().take(MAX_LEARNED) {
            self.phrases.add_name(name, place);
        }
    }

    /// Where these bytes mention hidden items: for each item and each way of finding it the first place.
    ///
    /// Linear in the bytes; what cannot be parsed mentions nothing, and does not travel either.
    #[must_use]
    pub fn mentions_in(&self, body: &[u8]) -> Vec<Mention<'_>> {
        let mut places = Places::new();
        if let Some(document) = (!self.is_empty()).then(|| parse(body)).flatten() {
            for value in document.descendants().filter(|value| value.kind() == Kind::String) {
                self.read(value, &mut places);
            }
        }
        let mention = |((place, found), path)| Mention { item: &self.hides.items()[place], found, path };
        places.into_iter().map(mention).collect()
    }

    /// Reads one string: as what its key says it is.
    fn read(&self, value: Value<'_>, places: &mut Places) {
        let Some(string) = value.as_str() else { return };
        let mut note = |place: usize, found: Found| {
            places.entry((place, found)).or_insert_with(|| text::clipped(&value.path(), MAX_PATH_BYTES));
        };
        let mut words = |text: &str| {
            self.hides.named_in(text).for_each(|place| note(place, Found::Reference));
            self.phrases.find(text, &mut note);
        };
        let key = value.key().unwrap_or_default();
        match key.as_ref() {
            "data" if value.parent().is_some_and(text::is_attachment) => {
                let kind = value.parent().and_then(|parent| parent.text_of("contentType"));
                text::attachment(&string, kind.as_deref()).iter().for_each(|text| words(text));
            }
            "div" => text::markup(&string).iter().for_each(|text| words(text)),
            name if NOT_WORDS.contains(&name) => {
                self.hides.named_in(&string).for_each(|place| note(place, Found::Reference));
            }
            "code" => {
                words(&string);
                let system = value.parent().and_then(|parent| parent.text_of("system")).unwrap_or_default();
                let bearers = self.codes.get(&(system.into_owned(), string.into_owned()));
                bearers.into_iter().flatten().for_each(|place| note(*place, Found::Code));
            }
            _ => words(&string),
        }
    }
}

/// The codes and names of a string, a Coding or a CodeableConcept.
fn describe(subject: Value<'_>, codes: &mut Vec<(String, String)>, names: &mut Vec<String>) {
    if let Some(name) = subject.as_str() {
        names.push(name.into_owned());
    }
    for concept in std::iter::once(subject).chain(subject.select("coding")) {
        names.extend(["text", "display"].iter().filter_map(|name| concept.text_of(name)).map(|name| name.into_owned()));
        if let Some(code) = concept.text_of("code") {
            codes.push((concept.text_of("system").unwrap_or_default().into_owned(), code.into_owned()));
        }
    }
}

fn parse(body: &[u8]) -> Option<json::Document<'_>> {
    json::parse_within(body, Limits { bytes: MAX_RESOURCE_BYTES, ..Limits::default() }).ok()
}

#[cfg(test)]
mod tests;
