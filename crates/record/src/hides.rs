//! The particular items a patient hides, and how a hidden item is found again where other resources name it.

use crate::resource::{ResourceKey, ResourceProblem};
use minicbor::{Decode, Encode};
use thiserror::Error;

/// The most items that one delegation may hide.
pub const MAX_HIDES: usize = 10_000;
/// The longest id of a FHIR resource, in bytes.
const MAX_ID_BYTES: usize = 64;

/// A list of hidden items: sorted, without repetition, at most [`MAX_HIDES`].
///
/// Bytes: CBOR array of arrays `[type, id]`; an unsorted or repeated list is refused.
///
/// Security: opened to the source only; the destination must not learn what is hidden.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hides(Vec<ResourceKey>);

/// Why a list of hidden items was refused; never shows the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HidesError {
    /// An item is not written `Type/id` with an R4 type and an id of 1 to 64 letters, digits, `-` and `.`.
    #[error("item {0}: write Type/id, with a FHIR R4 type and an id of 1 to 64 letters, digits, `-` and `.`")]
    Item(usize),
    /// More items than one delegation may hide.
    #[error("at most {MAX_HIDES} items can be hidden at once")]
    TooMany,
}

impl std::fmt::Debug for Hides {
    /// Shows the number only: what a patient hides is the most private part of a delegation.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hides({} items)", self.0.len())
    }
}

impl Hides {
    /// A list from names in any order; repetitions count once.
    ///
    /// Errors: [`HidesError::TooMany`].
    pub fn new(items: impl IntoIterator<Item = ResourceKey>) -> Result<Self, HidesError> {
        let mut list: Vec<ResourceKey> = items.into_iter().take(MAX_HIDES + 1).collect();
        if list.len() > MAX_HIDES {
            return Err(HidesError::TooMany);
        }
        list.sort_unstable();
        list.dedup();
        Ok(Self(list))
    }

    /// A list from texts `Type/id`.
    ///
    /// Errors: [`HidesError`] with the number of the item, from 1.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, HidesError> {
        let parsed = items.into_iter().take(MAX_HIDES + 1).enumerate();
        let parsed = parsed.map(|(index, text)| text.parse().map_err(|_: ResourceProblem| HidesError::Item(index + 1)));
        Self::new(parsed.collect::<Result<Vec<ResourceKey>, HidesError>>()?)
    }

    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of hidden items.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The hidden items in order.
    pub fn items(&self) -> &[ResourceKey] {
        &self.0
    }

    /// Whether this resource is hidden.
    pub fn contains(&self, resource_type: &str, id: &str) -> bool {
        self.place(resource_type, id).is_some()
    }

    /// Whether any text of these bytes (a reference, a url, a narrative) still names a hidden item as `Type/id`.
    ///
    /// Linear in the bytes, whatever the number of items; JSON escapes are undone first. A hidden item that is merely
    /// described in words is not found.
    pub fn mentioned_in(&self, bytes: &[u8]) -> bool {
        !self.0.is_empty() && any_string(bytes, &mut |text| self.named_in(text).next().is_some())
    }

    /// Which hidden items any text of these bytes names, sorted, each once; as [`Hides::mentioned_in`].
    pub fn mentions_in(&self, bytes: &[u8]) -> Vec<&ResourceKey> {
        let mut found = Vec::new();
        if !self.0.is_empty() {
            any_string(bytes, &mut |text| {
                found.extend(self.named_in(text));
                false
            });
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|place| &self.0[place]).collect()
    }

    /// The places of the items that a text names.
    pub(crate) fn named_in(&self, text: &str) -> impl Iterator<Item = usize> {
        let bytes = text.as_bytes();
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').filter_map(move |(slash, _)| {
            let letters = bytes[..slash].iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let length = bytes[slash + 1..].iter().take(MAX_ID_BYTES + 1).take_while(|byte| is_id_byte(**byte)).count();
            let id = &text[slash + 1..slash + 1 + length];
            let name = &text[slash - letters..slash];
            self.place(name, id).or_else(|| self.place(name, id.trim_end_matches(['.', '-'])))
        })
    }

    fn place(&self, resource_type: &str, id: &str) -> Option<usize> {
        self.0.binary_search_by(|item| (item.resource_type.as_str(), item.id.as_str()).cmp(&(resource_type, id))).ok()
    }
}

/// Whether a resource is hidden; see [`Hides::contains`].
pub fn hidden(hides: &Hides, resource_type: &str, id: &str) -> bool {
    hides.contains(resource_type, id)
}

/// Whether a resource still names a hidden item; see [`Hides::mentioned_in`].
pub fn mentions(hides: &Hides, bytes: &[u8]) -> bool {
    hides.mentioned_in(bytes)
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

/// Whether any JSON string token of the bytes satisfies a test; never fails, whatever the bytes.
///
/// A lexer without a stack: it needs to know where strings begin and end, not what holds them.
fn any_string(bytes: &[u8], test: &mut dyn FnMut(&str) -> bool) -> bool {
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(|byte| *byte == b'"').map(|offset| at + offset) {
        let (mut end, mut escaped) = (start + 1, false);
        while end < bytes.len() && bytes[end] != b'"' {
            escaped |= bytes[end] == b'\\';
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        if end >= bytes.len() {
            return false;
        }
        let found = if escaped {
            serde_json::from_slice::<String>(&bytes[start..=end]).is_ok_and(|text| test(&text))
        } else {
            std::str::from_utf8(&bytes[start + 1..end]).is_ok_and(&mut *test)
        };
        if found {
            return true;
        }
        at = end + 1;
    }
    false
}

impl<C> Encode<C> for Hides {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        for item in &self.0 {
            e.array(2)?.str(item.resource_type.as_str())?.str(item.id.as_str())?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Hides {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let count = d.array()?.and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= MAX_HIDES);
        let count = count.ok_or_else(|| minicbor::decode::Error::message("at most 10000 hidden items"))?;
        let mut items: Vec<ResourceKey> = Vec::new();
        for _ in 0..count {
            if d.array()? != Some(2) {
                return Err(minicbor::decode::Error::message("a hidden item is an array of type and id"));
            }
            let item = ResourceKey::new(d.str()?, d.str()?)
                .map_err(|_| minicbor::decode::Error::message("not a type and an id of FHIR R4"))?;
            if items.last().is_some_and(|last| *last >= item) {
                return Err(minicbor::decode::Error::message("hidden items are sorted and without repetition"));
            }
            items.push(item);
        }
        Ok(Self(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hides(items: &[&str]) -> Hides {
        Hides::parse(items.iter().copied()).unwrap()
    }

    #[test]
    fn hidden_items_are_found_by_type_and_id_together() {
        let list = hides(&["Condition/c1", "Observation/o.2", "Condition/c1"]);
        assert_eq!(list.len(), 2);
        assert!(hidden(&list, "Condition", "c1") && list.contains("Observation", "o.2"));
        assert!(!list.contains("Observation", "c1") && !list.contains("Condition", "c"));
    }

    #[test]
    fn malformed_items_are_refused_by_number() {
        let long = format!("Condition/{}", "a".repeat(65));
        for bad in ["Condition", "Condition/", "Nonsense/1", "Condition/a b", "Condition/a/b", long.as_str()] {
            assert_eq!(Hides::parse(["Patient/p", bad]), Err(HidesError::Item(2)), "{bad}");
        }
        let many: Vec<String> = (0..=MAX_HIDES).map(|n| format!("Condition/{n}")).collect();
        assert_eq!(Hides::parse(many.iter().map(String::as_str)), Err(HidesError::TooMany));
        assert_eq!(Hides::parse(many.iter().skip(1).map(String::as_str)).unwrap().len(), MAX_HIDES);
    }

    #[test]
    fn mentions_are_found_in_every_form_of_reference_and_in_text() {
        let list = hides(&["Condition/c1", "Condition/c2"]);
        for resource in [
            r#"{"reasonReference":[{"reference":"Condition/c1"}]}"#,
            r#"{"a":{"reference":"https://a.example/fhir/Condition/c2/_history/3"}}"#,
            r#"{"reference":"Condition\/c1"}"#,
            r#"{"reference":"\u0043ondition/c1"}"#,
            r#"{"text":{"div":"<div>see Condition/c1.</div>"}}"#,
            r#"{"contained":[{"x":["Condition/c1#part"]}]}"#,
        ] {
            assert!(mentions(&list, resource.as_bytes()), "{resource}");
        }
        for resource in [
            r#"{"reference":"Condition/c11"}"#,
            r#"{"reference":"XCondition/c1"}"#,
            r#"{"reference":"Condition/c1-x"}"#,
            r#"{"reference":"Condition", "id":"c1"}"#,
            r#"{"reference":"Condition/C1"}"#,
            r#"{"reference":"Condition/c1"#,
        ] {
            assert!(!mentions(&list, resource.as_bytes()), "{resource}");
        }
        assert!(!mentions(&Hides::default(), br#"{"reference":"Condition/c1"}"#));
    }

    #[test]
    fn each_item_that_is_named_is_told_once() {
        let list = hides(&["Condition/c1", "Condition/c2", "Observation/o"]);
        let body = br#"{"a":"Condition/c2 and Condition/c1.","b":["Condition/c1"]}"#;
        let found: Vec<String> = list.mentions_in(body).into_iter().map(ToString::to_string).collect();
        assert_eq!(found, ["Condition/c1", "Condition/c2"]);
        assert!(list.mentions_in(b"{}").is_empty() && Hides::default().mentions_in(body).is_empty());
    }

    #[test]
    fn bytes_round_trip_and_only_sorted_lists_are_read() {
        let list = hides(&["Observation/b", "Condition/a"]);
        let bytes = minicbor::to_vec(&list).unwrap();
        assert_eq!(minicbor::decode::<Hides>(&bytes).unwrap(), list);
        let refused = |items: &[(&str, &str)]| minicbor::decode::<Hides>(&minicbor::to_vec(items).unwrap()).is_err();
        assert!(!refused(&[("Condition", "a"), ("Observation", "b")]));
        assert!(refused(&[("Observation", "b"), ("Condition", "a")]));
        assert!(refused(&[("Condition", "a"), ("Condition", "a")]));
        assert!(refused(&[("Nonsense", "a")]));
        let many: Vec<(String, String)> = (0..=MAX_HIDES).map(|n| ("Condition".into(), format!("{n:05}"))).collect();
        assert!(minicbor::decode::<Hides>(&minicbor::to_vec(&many).unwrap()).is_err());
        assert!(minicbor::decode::<Hides>(&minicbor::to_vec(&many[1..]).unwrap()).is_ok());
    }

    #[test]
    fn debug_shows_no_item() {
        let list = hides(&["Condition/secret-item"]);
        assert!(!format!("{list:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\"\\\\/é.Condtion1]{0,60}") {
            let list = hides(&["Condition/1"]);
            let _ = mentions(&list, &bytes);
            let _ = mentions(&list, text.as_bytes());
            let _ = minicbor::decode::<Hides>(&bytes);
        }
    }
}
