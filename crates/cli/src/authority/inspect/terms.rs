//! What of a record can be searched for: names, identifiers, values, words, ids, types, counts.

use std::collections::{BTreeMap, BTreeSet};

use waybill_record::json::{self, Value};

/// Terms below this many bits of entropy are found by chance: they prove nothing either way.
const LEAST_BITS: f64 = 24.0;
/// Shortest term, and shortest word of a narrative. Units: characters.
const SHORTEST: usize = 6;
const SHORTEST_WORD: usize = 9;
/// Members whose values are vocabulary of the standard, the same for everybody.
const VOCABULARY: &[&str] = &[
    "system",
    "url",
    "profile",
    "versionId",
    "status",
    "use",
    "unit",
    "contentType",
    "language",
    "lastUpdated",
    "type",
    "intent",
    "mode",
    "gender",
    "source",
];

/// One term, of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// `name`, `identifier`, `id`, `value`, `word`, `type`, `count`, `pseudonym`, `given`.
    pub kind: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they are text, which may appear in other encodings and cases.
    pub is_text: bool,
}

impl Term {
    /// How it is shown; pseudonyms and counts are bytes, and bytes are not shown.
    pub fn label(&self) -> String {
        if self.is_text {
            String::from_utf8_lossy(&self.bytes).into_owned()
        } else {
            format!("({} of {} bytes)", self.kind, self.bytes.len())
        }
    }

    /// A low estimate of its entropy. Units: bits.
    pub fn bits(&self) -> f64 {
        if self.is_text { text_bits(&self.bytes) } else { self.bytes.len() as f64 * 8.0 }
    }
}

/// A low estimate of a text's entropy: letters of either case, and digits that are often the same. Units: bits.
pub fn text_bits(text: &[u8]) -> f64 {
    let digits = text.iter().filter(|b| b.is_ascii_digit() || b.is_ascii_punctuation()).count() as f64;
    digits * 3.0 + (text.len() as f64 - digits) * 4.0
}

/// The terms of a search, and what was too short to be one.
#[derive(Debug, Default)]
pub struct Terms {
    /// What is searched for.
    pub terms: BTreeSet<Term>,
    /// What was left out because it would be found by chance.
    pub too_short: BTreeSet<String>,
    counts: BTreeMap<String, u64>,
}

impl Terms {
    /// Adds a text, unless it is too short.
    pub fn add(&mut self, kind: &'static str, text: &str) {
        let term = Term { kind, bytes: text.trim().as_bytes().to_vec(), is_text: true };
        if text.trim().chars().count() < SHORTEST || term.bits() < LEAST_BITS {
            self.too_short.insert(text.trim().to_owned());
        } else {
            self.terms.insert(term);
        }
    }

    /// Adds bytes, such as a pseudonym.
    pub fn add_bytes(&mut self, kind: &'static str, bytes: &[u8]) {
        self.terms.insert(Term { kind, bytes: bytes.to_vec(), is_text: false });
    }

    /// Adds everything of a record: NDJSON, a Bundle, or one resource.
    ///
    /// # Errors
    /// [`json::JsonError`] of the first line that is no JSON.
    pub fn add_record(&mut self, bytes: &[u8]) -> Result<(), json::JsonError> {
        if let Ok(whole) = json::parse(bytes) {
            self.add_values(whole.root());
        } else {
            for line in bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                self.add_values(json::parse(line)?.root());
            }
        }
        Ok(())
    }

    /// Turns the counts by type into terms, as an inventory holds them: the type's name in CBOR, then the number.
    pub fn finish(&mut self) {
        for (name, count) in std::mem::take(&mut self.counts) {
            let mut encoder = minicbor::Encoder::new(Vec::new());
            let encoded = encoder.str(&name).and_then(|e| e.u64(count)).is_ok();
            if encoded {
                self.add_bytes("count", encoder.writer());
            }
            self.add("type", &name);
        }
    }

    fn add_values(&mut self, root: Value<'_>) {
        for value in root.descendants() {
            let key = value.key().map(|key| key.into_owned()).unwrap_or_default();
            match value.as_str() {
                Some(text) => self.add_text(value, &key, &text),
                None if value.token().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                    self.add("value", value.token());
                }
                None => {}
            }
        }
    }

    fn add_text(&mut self, value: Value<'_>, key: &str, text: &str) {
        if key == "resourceType" {
            *self.counts.entry(text.to_owned()).or_insert(0) += 1;
            return;
        }
        if VOCABULARY.contains(&key) {
            return;
        }
        let path = value.path();
        if path.contains("name") && !path.contains("xtension") {
            self.add("name", text);
        } else if path.contains("dentifier") {
            self.add("identifier", text);
        } else if key == "id" {
            self.add("id", text);
        } else if key == "reference" {
            self.add("id", text.rsplit('/').next().unwrap_or(text));
        } else if key == "data" {
            // The beginning of an attachment is enough to know it by.
            self.add("value", &text[..text.len().min(40)]);
        } else if text.contains(char::is_whitespace) && text.len() > 24 {
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() >= SHORTEST_WORD);
            words.take(40).for_each(|word| self.add("word", word));
        } else {
            self.add("value", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_its_names_numbers_and_words_and_leaves_out_what_is_common() {
        let mut terms = Terms::default();
        let record = br#"{"resourceType":"Patient","id":"0aef753f-17d5","name":[{"family":"Okonkwo-Lovelace"}],"gender":"female","identifier":[{"system":"urn:x","value":"S000001-0"}],"birthDate":"1947-12-04"}
{"resourceType":"Observation","status":"final","valueQuantity":{"value":8.4030000000,"unit":"mg"},"note":[{"text":"suffers from hypercholesterolemia"}],"n":3}"#;
        terms.add_record(record).unwrap();
        terms.finish();
        let has = |kind: &str, text: &str| terms.terms.iter().any(|t| t.kind == kind && t.bytes == text.as_bytes());
        for (kind, text) in [
            ("name", "Okonkwo-Lovelace"),
            ("identifier", "S000001-0"),
            ("id", "0aef753f-17d5"),
            ("value", "1947-12-04"),
            ("value", "8.4030000000"),
            ("word", "hypercholesterolemia"),
            ("type", "Observation"),
        ] {
            assert!(has(kind, text), "{kind} {text}");
        }
        assert!(terms.too_short.contains("3"), "a small number proves nothing");
        assert!(!terms.terms.iter().any(|t| t.label() == "female" || t.label() == "final"));
        assert!(terms.terms.iter().any(|t| t.kind == "count" && t.bytes.ends_with(&[1])));
    }
}
