//! Whether two cases of an authority share anything that other cases do not: that would link two delegations of one patient.
//!
//! Every row that belongs to a case is taken apart, down to the byte strings inside byte strings, and every value of at least 8
//! bytes is collected. What all cases between the same two hospitals share is public; so are the hospitals' own names and
//! certificates, and the hashes of the public log. Anything else that two cases share and a third does not is a link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minicbor::Decoder;
use minicbor::data::Type;
use serde::Serialize;
use waybill_crypto::merkle;
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};
use waybill_store::DumpedRow;

use super::places;
use crate::failure::Failure;

/// Shorter values are shared by chance. Units: bytes.
const SHORTEST: usize = 8;
/// Byte strings are taken apart to this depth.
const DEEPEST: usize = 12;
/// Logs up to this size are known hash by hash.
const HASHED_LEAVES: usize = 4096;

/// What was compared, and what links.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Linkability {
    /// Cases found.
    pub cases: usize,
    /// Cases that could be compared: at least three between the same two hospitals.
    pub compared: usize,
    /// Distinct values of at least 8 bytes taken out of their rows.
    pub values: usize,
    /// Values that two cases share and a third does not.
    pub links: Vec<Link>,
}

/// Two cases that share a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The cases (hex).
    pub cases: [String; 2],
    /// In which columns of which tables the value lies.
    pub places: Vec<String>,
    /// Its length; the value itself is not shown. Units: bytes.
    pub bytes: usize,
}

type Values = BTreeMap<Vec<u8>, BTreeSet<String>>;

/// Compares the cases in an authority's database; nothing when the file holds none.
pub async fn compare(database: &Path) -> Result<Linkability, Failure> {
    let mut rows = Vec::new();
    places::rows(database, &mut |row| rows.push(row)).await?;
    Ok(link(&rows))
}

/// Finds the links among rows.
pub fn link(rows: &[DumpedRow]) -> Linkability {
    let cases = cases(rows);
    let names = names(rows, &cases);
    let public = public_hashes(rows);
    let mut groups: BTreeMap<(String, String), Vec<(String, Values)>> = BTreeMap::new();
    let (mut all, mut result) = (BTreeSet::new(), Linkability { cases: cases.len(), ..Linkability::default() });
    for (id, hospitals) in &cases {
        let mut values = Values::new();
        for row in rows.iter().filter(|row| row.values.iter().any(|(_, bytes)| contains(bytes, id))) {
            for (column, bytes) in &row.values {
                collect(bytes, &format!("{}.{column}", row.table), 0, &mut values);
            }
        }
        values.retain(|value, _| !public.contains(value) && !names.iter().any(|name| contains(value, name.as_bytes())));
        all.extend(values.keys().cloned());
        groups.entry(hospitals.clone()).or_default().push((hex::encode(id), values));
    }
    result.values = all.len();
    for group in groups.values().filter(|group| group.len() >= 3) {
        result.compared += group.len();
        result.links.extend(links_of(group));
    }
    result
}

fn links_of(group: &[(String, Values)]) -> Vec<Link> {
    let mut links = Vec::new();
    for (at, (first, of_first)) in group.iter().enumerate() {
        for (second, of_second) in &group[at + 1..] {
            for (value, places) in of_first.iter().filter(|(value, _)| of_second.contains_key(*value)) {
                if group.iter().all(|(_, values)| values.contains_key(value)) {
                    continue;
                }
                let places = places.union(&of_second[value]).cloned().collect();
                links.push(Link { cases: [first.clone(), second.clone()], places, bytes: value.len() });
            }
        }
    }
    links
}

fn column<'a>(row: &'a DumpedRow, name: &str) -> Option<&'a [u8]> {
    row.values.iter().find(|(column, _)| column == name).map(|(_, bytes)| bytes.as_slice())
}

/// Each case with its two hospitals.
fn cases(rows: &[DumpedRow]) -> Vec<(Vec<u8>, (String, String))> {
    let of_table = rows.iter().filter(|row| row.table == "space_case");
    let case = |row: &DumpedRow| {
        let case: AuthorityCase = from_cbor("case", column(row, "value")?, MAX_PARCEL_BYTES).ok()?;
        let hospitals = (case.terms.source.to_string(), case.terms.destination.to_string());
        Some((case.id.as_bytes().to_vec(), hospitals))
    };
    of_table.filter_map(case).collect()
}

/// Names that the authority is meant to know: the hospitals', and its own, which every checkpoint carries.
fn names(rows: &[DumpedRow], cases: &[(Vec<u8>, (String, String))]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = cases.iter().flat_map(|(_, (a, b))| [a.clone(), b.clone()]).collect();
    for row in rows.iter().filter(|row| row.table == "space_case") {
        let case: Option<AuthorityCase> =
            column(row, "value").and_then(|v| from_cbor("case", v, MAX_PARCEL_BYTES).ok());
        names.extend(case.and_then(|case| case.proof.parse().ok()).map(|proof| proof.peek().authority.to_string()));
    }
    names
}

/// The hashes of the public log: of every subtree that a proof of any size could name.
fn public_hashes(rows: &[DumpedRow]) -> BTreeSet<Vec<u8>> {
    let entries = rows.iter().filter(|row| row.table == "leaves").filter_map(|row| {
        let index: u64 = std::str::from_utf8(column(row, "leaf_index")?).ok()?.parse().ok()?;
        Some((index, column(row, "entry")?.to_vec()))
    });
    let entries: BTreeMap<u64, Vec<u8>> = entries.collect();
    let leaves: Vec<_> = entries.values().take(HASHED_LEAVES).map(|entry| merkle::leaf_hash(entry)).collect();
    let mut public: BTreeSet<Vec<u8>> = entries.into_values().collect();
    public.insert(merkle::empty_root().0.to_vec());
    for start in 0..leaves.len() {
        // A subtree begins at a multiple of its width, which is a power of two; the last one of a log may be narrower.
        let widest = if start == 0 { leaves.len() } else { 1 << start.trailing_zeros() };
        let mut builder = merkle::TreeBuilder::new();
        for leaf in leaves[start..].iter().take(widest) {
            builder.append(*leaf);
            public.insert(builder.root().0.to_vec());
        }
    }
    public
}

/// Collects a value, and what is inside it when it is CBOR.
fn collect(bytes: &[u8], place: &str, depth: usize, values: &mut Values) {
    if bytes.len() < SHORTEST || depth > DEEPEST {
        return;
    }
    values.entry(bytes.to_vec()).or_default().insert(place.to_owned());
    let (mut decoder, mut strings) = (Decoder::new(bytes), Vec::new());
    if walk(&mut decoder, 0, &mut strings).is_none() || decoder.position() != bytes.len() {
        return;
    }
    for inner in strings.into_iter().filter(|inner| inner.len() < bytes.len()) {
        collect(inner, place, depth + 1, values);
        let text = std::str::from_utf8(inner).unwrap_or_default();
        for part in text.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() >= SHORTEST) {
            values.entry(part.as_bytes().to_vec()).or_default().insert(place.to_owned());
        }
    }
}

/// Every byte string and text of one CBOR item; nothing when it is none.
fn walk<'a>(decoder: &mut Decoder<'a>, depth: usize, strings: &mut Vec<&'a [u8]>) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let inside = match decoder.datatype().ok()? {
        Type::Bytes => {
            strings.push(decoder.bytes().ok()?);
            0
        }
        Type::String => {
            strings.push(decoder.str().ok()?.as_bytes());
            0
        }
        Type::Array => decoder.array().ok()??,
        Type::Map => decoder.map().ok()??.checked_mul(2)?,
        Type::Tag => {
            decoder.tag().ok()?;
            1
        }
        _ => {
            decoder.skip().ok()?;
            0
        }
    };
    for _ in 0..inside {
        walk(decoder, depth + 1, strings)?;
    }
    Some(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(values: &[&[u8]]) -> (String, Values) {
        let mut collected = Values::new();
        let mut encoder = minicbor::Encoder::new(Vec::new());
        encoder.array(values.len() as u64).unwrap();
        for value in values {
            encoder.bytes(value).unwrap();
        }
        // As a parcel in a row: a byte string inside a byte string.
        let mut outer = minicbor::Encoder::new(Vec::new());
        outer.array(1).unwrap().bytes(encoder.writer()).unwrap();
        collect(outer.writer(), "space_case.value", 0, &mut collected);
        (String::new(), collected)
    }

    #[test]
    fn a_value_that_two_cases_share_and_a_third_does_not_is_a_link() {
        let (public, own) = ([1_u8; 32], |n: u8| [n; 32]);
        let unlinked = [case(&[&public, &own(2)]), case(&[&public, &own(3)]), case(&[&public, &own(4)])];
        assert_eq!(links_of(&unlinked), []);
        // The planted link: one pseudonym in two of three cases, two byte strings deep.
        let pseudonym = [9_u8; 16];
        let linked =
            [case(&[&public, &own(2), &pseudonym]), case(&[&public, &own(3), &pseudonym]), case(&[&public, &own(4)])];
        let links = links_of(&linked);
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].bytes, links[0].places.as_slice()), (16, &["space_case.value".to_owned()][..]));
    }
}
