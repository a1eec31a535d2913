//! Whether two cases of an authority share anything that other cases do not: that would link two delegations of one patient.
//!
//! Every row that belongs to a case is taken apart, down to the byte strings inside byte strings, and every value of at least 8
//! bytes is collected. Public are the hospitals' own names, certificates and keys, the words of the protocol, and the signed notes
//! and hashes of the log. What is left is compared with cases of the same kind: between the same two hospitals, come to the same
//! state by the same messages. A value that all cases of a kind have, or none, belongs to the kind. A value that some of a kind of at
//! least three have and others lack belongs to a case; another case that has it as well is linked to it, unless that one's whole kind
//! has it. A kind of fewer than three cases cannot tell its own values from a patient's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minicbor::Decoder;
use minicbor::data::Type;
use serde::Serialize;
use waybill_crypto::keys::VerifyingKey;
use waybill_crypto::merkle;
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};
use waybill_server::authority::operator::state_word;
use waybill_server::authority::registry::Enrolled;
use waybill_store::DumpedRow;

use super::places;
use crate::failure::Failure;

/// Shorter values are shared by chance. Units: bytes.
const SHORTEST: usize = 8;
/// A row whose key ends in a case's value of at least this length is that case's as well. Units: bytes.
const LEADING: usize = 16;
/// Byte strings are taken apart to this depth.
const DEEPEST: usize = 12;
/// Logs up to this size are known hash by hash.
const HASHED_LEAVES: usize = 1 << 16;
/// Fewer cases of a kind cannot tell what belongs to the kind from what belongs to a patient.
const FEWEST: usize = 3;
/// What parts a signed note's text from its signatures (C2SP signed-note).
const NOTE_SIGNATURES: &str = "\n\n\u{2014} ";
/// What the public key in a certificate begins with: an uncompressed point of P-256 follows (RFC 5480).
const SPKI_PREFIX: [u8; 26] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// How every word of the protocol begins that is signed or sealed with a message.
const VOCABULARY: &[u8] = b"waybill";

/// What was compared, and what links.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Linkability {
    /// Cases found.
    pub cases: usize,
    /// Cases of a kind of at least three, or named with another of the same kind.
    pub compared: usize,
    /// How many cases of each kind there are.
    pub kinds: Vec<KindCount>,
    /// Distinct values of at least 8 bytes taken out of their rows.
    pub values: usize,
    /// Values that two cases share and a third of the same kind does not.
    pub links: Vec<Link>,
}

/// What must be alike in two cases for their rows to hold the same kinds of values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kind {
    /// The hospital that gave.
    pub source: String,
    /// The hospital that received.
    pub destination: String,
    /// Where the case stands.
    pub state: &'static str,
    /// In which attempt.
    pub attempt: u32,
    /// Which of its messages the authority holds.
    pub messages: Vec<&'static str>,
}

/// The cases of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// Of what kind they are.
    #[serde(flatten)]
    pub kind: Kind,
    /// How many.
    pub cases: usize,
    /// Whether they are enough to be compared.
    pub compared: bool,
}

/// Cases that share a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The cases (hex), at least two.
    pub cases: Vec<String>,
    /// In which columns of which tables the value lies.
    pub places: Vec<String>,
    /// Its length; the value itself is not shown. Units: bytes.
    pub bytes: usize,
}

type Values = BTreeMap<Vec<u8>, BTreeSet<String>>;

/// A case with what its rows hold.
struct Case {
    id: String,
    values: Values,
}

/// What may lie in any case: it says nothing of a patient.
struct Public {
    hashes: BTreeSet<Vec<u8>>,
    /// Whatever contains one of these is public as a whole; what else is inside it is looked at by itself.
    marks: BTreeSet<Vec<u8>>,
}

impl Public {
    fn of(rows: &[DumpedRow], cases: &[(Vec<u8>, Kind)]) -> Self {
        let mut marks: BTreeSet<Vec<u8>> = names(rows, cases).into_iter().map(String::into_bytes).collect();
        marks.extend(certified_keys(rows));
        marks.extend(hospital_mailboxes(rows));
        Self { hashes: public_hashes(rows), marks }
    }

    fn has(&self, value: &[u8]) -> bool {
        value.starts_with(VOCABULARY)
            || self.hashes.contains(value)
            || self.marks.iter().any(|mark| contains(value, mark))
    }
}

/// Compares the cases in an authority's database; nothing when the file holds none.
pub async fn compare(database: &Path) -> Result<Linkability, Failure> {
    let mut rows = Vec::new();
    places::rows(database, &mut |row| rows.push(row)).await?;
    Ok(link(&rows))
}

/// Compares two cases (hex) of one patient with one of another: whatever the first two share and the other does not.
///
/// # Errors
/// [`Failure`] with exit code 2 for a case that is no hex or of which no row speaks.
pub async fn compare_named(database: &Path, link: [&str; 2], other: &str) -> Result<Linkability, Failure> {
    let mut rows = Vec::new();
    places::rows(database, &mut |row| rows.push(row)).await?;
    link_named(&rows, [link[0], link[1], other])
}

fn link_named(rows: &[DumpedRow], named: [&str; 3]) -> Result<Linkability, Failure> {
    let cases = cases(rows);
    let public = Public::of(rows, &cases);
    let (mut group, mut kinds) = (Vec::new(), Vec::new());
    for case in named {
        let id = hex::decode(case).map_err(|e| Failure::usage("a case is named by its id in hex").caused_by(e))?;
        let values = if id.len() < SHORTEST { Values::new() } else { values_of(rows, &id, &public) };
        let (hexed, kind) = (hex::encode(&id), cases.iter().find(|(known, _)| *known == id).map(|(_, kind)| kind));
        if values.is_empty() || group.iter().any(|known: &Case| known.id == hexed) {
            return Err(Failure::usage(format!("{case} is no case of this authority, or is named twice")));
        }
        kinds.push(kind);
        group.push(Case { id: hexed, values });
    }
    // Otherwise what any case of their kind has would count as theirs.
    if !kinds[..2].contains(&kinds[2]) {
        return Err(Failure::usage(
            "the case of the other patient is of another kind than both: it would prove nothing",
        )
        .hint("name one between the same hospitals that ended as one of the two did"));
    }
    let values = group.iter().flat_map(|case| case.values.keys()).collect::<BTreeSet<_>>().len();
    let (ours, other) = (&group[..2], &group[2].values);
    let shared = ours[0].values.keys().filter(|value| ours[1].values.contains_key(*value));
    let links = shared.filter(|value| !other.contains_key(*value)).map(|value| link_by(value, &[&ours[0], &ours[1]]));
    let links = links.collect();
    Ok(Linkability { cases: named.len(), compared: named.len(), kinds: Vec::new(), values, links })
}

fn link_by(value: &[u8], cases: &[&Case]) -> Link {
    let places: BTreeSet<&String> = cases.iter().flat_map(|case| &case.values[value]).collect();
    Link {
        cases: cases.iter().map(|case| case.id.clone()).collect(),
        places: places.into_iter().cloned().collect(),
        bytes: value.len(),
    }
}

/// Every value in the rows that speak of a case, and in the rows that those lead to, such as its intent's.
fn values_of(rows: &[DumpedRow], id: &[u8], public: &Public) -> Values {
    let speaks = |row: &DumpedRow| row.values.iter().any(|(_, bytes)| contains(bytes, id));
    let (own, rest): (Vec<&DumpedRow>, Vec<&DumpedRow>) = rows.iter().partition(|row| speaks(row));
    let mut values = Values::new();
    own.into_iter().for_each(|row| collect_row(row, &mut values));
    values.retain(|value, _| !public.has(value));
    let leads = |row: &&DumpedRow| {
        let key = column(row, "key").unwrap_or_default();
        (LEADING..=key.len()).any(|length| values.contains_key(&key[key.len() - length..]))
    };
    let led: Vec<&DumpedRow> = rest.into_iter().filter(leads).collect();
    led.into_iter().for_each(|row| collect_row(row, &mut values));
    values.retain(|value, _| !public.has(value));
    values
}

fn collect_row(row: &DumpedRow, values: &mut Values) {
    for (column, bytes) in &row.values {
        collect(bytes, &format!("{}.{column}", row.table), 0, values);
    }
}

/// Finds the links among rows.
pub fn link(rows: &[DumpedRow]) -> Linkability {
    let cases = cases(rows);
    let public = Public::of(rows, &cases);
    let mut groups: BTreeMap<Kind, Vec<Case>> = BTreeMap::new();
    for (id, kind) in &cases {
        let case = Case { id: hex::encode(id), values: values_of(rows, id, &public) };
        groups.entry(kind.clone()).or_default().push(case);
    }
    let all: BTreeSet<&Vec<u8>> = groups.values().flatten().flat_map(|case| case.values.keys()).collect();
    let values = all.len();
    let count = |(kind, group): (&Kind, &Vec<Case>)| {
        let (cases, compared) = (group.len(), group.len() >= FEWEST);
        KindCount { kind: kind.clone(), cases, compared }
    };
    let kinds: Vec<KindCount> = groups.iter().map(count).collect();
    let compared = kinds.iter().filter(|kind| kind.compared).map(|kind| kind.cases).sum();
    let groups: Vec<&[Case]> = groups.values().map(Vec::as_slice).collect();
    Linkability { cases: cases.len(), compared, kinds, values, links: links_of(&groups) }
}

/// The links among cases by kind.
fn links_of(kinds: &[&[Case]]) -> Vec<Link> {
    let compared = kinds.iter().filter(|kind| kind.len() >= FEWEST).copied();
    let values: BTreeSet<&Vec<u8>> = compared.flatten().flat_map(|case| case.values.keys()).collect();
    let mut links = Vec::new();
    for value in values {
        let (mut own, mut few) = (Vec::new(), Vec::new());
        for kind in kinds {
            let holders: Vec<&Case> = kind.iter().filter(|case| case.values.contains_key(value)).collect();
            match kind.len() {
                size if size < FEWEST => few.extend(holders),
                size if holders.len() < size => own.extend(holders),
                // The whole kind has it: it is the kind's.
                _ => {}
            }
        }
        // Of a case of a small kind it is known only that it shares what is some other case's own.
        if !own.is_empty() && own.len() + few.len() >= 2 {
            own.extend(few);
            links.push(link_by(value, &own));
        }
    }
    links
}

fn column<'a>(row: &'a DumpedRow, name: &str) -> Option<&'a [u8]> {
    row.values.iter().find(|(column, _)| column == name).map(|(_, bytes)| bytes.as_slice())
}

/// Each case with its kind.
fn cases(rows: &[DumpedRow]) -> Vec<(Vec<u8>, Kind)> {
    stored(rows).map(|case| (case.id.as_bytes().to_vec(), kind_of(&case))).collect()
}

fn stored(rows: &[DumpedRow]) -> impl Iterator<Item = AuthorityCase> + '_ {
    let of_table = rows.iter().filter(|row| row.table == "space_case");
    of_table.filter_map(|row| from_cbor("case", column(row, "value")?, MAX_PARCEL_BYTES).ok())
}

fn kind_of(case: &AuthorityCase) -> Kind {
    let held = [
        ("session", case.session.is_some()),
        ("grant", case.grant.is_some()),
        ("lodgement", case.lodgement.is_some()),
        ("delivery", case.delivery.is_some()),
        ("release", case.release.is_some()),
        ("statement", case.statement.is_some()),
    ];
    Kind {
        source: case.terms.source.to_string(),
        destination: case.terms.destination.to_string(),
        state: state_word(case.state),
        attempt: case.attempt,
        messages: held.into_iter().filter(|(_, held)| *held).map(|(name, _)| name).collect(),
    }
}

/// Names that the authority is meant to know: the hospitals', and its own, which every checkpoint carries.
fn names(rows: &[DumpedRow], cases: &[(Vec<u8>, Kind)]) -> BTreeSet<String> {
    let hospitals = cases.iter().flat_map(|(_, kind)| [kind.source.clone(), kind.destination.clone()]);
    let proofs = stored(rows).filter_map(|case| case.proof.parse().ok());
    hospitals.chain(proofs.map(|proof| proof.peek().authority.to_string())).collect()
}

/// The mailboxes of the directory that everybody may read, and what their last part is by itself.
fn hospital_mailboxes(rows: &[DumpedRow]) -> Vec<Vec<u8>> {
    let settings = rows.iter().filter(|row| row.table == "space_setting");
    let enrolled = settings.filter_map(|row| {
        let hospital: Enrolled = from_cbor("hospital", column(row, "value")?, MAX_PARCEL_BYTES).ok()?;
        hospital.mailbox.rsplit('/').next().map(|id| id.as_bytes().to_vec())
    });
    enrolled.filter(|id| id.len() >= SHORTEST).collect()
}

/// Every key that a certificate carries, and the name that signed messages give it: hospitals' and the authority's own, whatever keys
/// they had over time. A patient's keys are in no certificate.
fn certified_keys(rows: &[DumpedRow]) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for bytes in rows.iter().flat_map(|row| &row.values).map(|(_, bytes)| bytes) {
        for (at, _) in bytes.windows(SPKI_PREFIX.len()).enumerate().filter(|(_, part)| **part == SPKI_PREFIX) {
            let point = bytes.get(at + SPKI_PREFIX.len()..).and_then(|rest| rest.get(..65));
            let Some(key) = point.and_then(|point| VerifyingKey::from_sec1(point).ok()) else { continue };
            keys.extend([key.as_sec1().to_vec(), key.kid().0.to_vec()]);
        }
    }
    keys
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
        // A signed note is the log's, and public: cases that were logged together have it in common.
        let text = std::str::from_utf8(inner).ok().filter(|text| !text.contains(NOTE_SIGNATURES)).unwrap_or_default();
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

    fn case(values: &[&[u8]]) -> Case {
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
        Case { id: hex::encode(values[0]), values: collected }
    }

    fn row(table: &str, key: &[u8], values: &[&[u8]]) -> DumpedRow {
        let mut encoder = minicbor::Encoder::new(Vec::new());
        encoder.array(values.len() as u64).unwrap();
        for value in values {
            encoder.bytes(value).unwrap();
        }
        let values = vec![("key".to_owned(), key.to_vec()), ("value".to_owned(), encoder.into_writer())];
        DumpedRow { table: table.to_owned(), values }
    }

    #[test]
    fn two_named_cases_are_linked_by_what_their_rows_share_and_by_what_these_lead_to() {
        let (id, intent, public, pseudonym) = (|n: u8| [n; 32], |n: u8| [0x40 + n; 32], [0xaa; 32], [0xbb; 16]);
        let hexed = [1, 2, 3].map(|n| hex::encode(id(n)));
        let named = [&*hexed[0], &*hexed[1], &*hexed[2]];
        let mut rows: Vec<_> = (1..=3).map(|n| row("space_case", &id(n), &[&public, &intent(n)])).collect();
        rows.extend((1..=3).map(|n| row("space_unique", &intent(n), &[&[0x80 + n; 32]])));
        let clean = link_named(&rows, named).unwrap();
        assert_eq!((clean.compared, clean.links), (3, vec![]));
        // Planted where only the intent leads: the row itself does not name the case.
        for n in [1, 2] {
            rows[2 + n as usize] = row("space_unique", &intent(n), &[&[0x80 + n; 32], &pseudonym]);
        }
        let linked = link_named(&rows, named).unwrap();
        assert_eq!(linked.links.len(), 1);
        assert_eq!((linked.links[0].bytes, &*linked.links[0].places[0]), (16, "space_unique.value"));
        // What the other patient's case has as well links nobody.
        rows[5] = row("space_unique", &intent(3), &[&pseudonym]);
        assert_eq!(link_named(&rows, named).unwrap().links, []);
        assert!(link_named(&rows, [named[0], named[0], named[2]]).is_err(), "a case shares everything with itself");
        assert!(link_named(&rows, [named[0], &hex::encode([9; 32]), named[2]]).is_err());
    }

    #[test]
    fn a_value_that_two_cases_share_and_a_third_of_their_kind_does_not_is_a_link() {
        let (public, own) = ([1_u8; 32], |n: u8| [n; 32]);
        let unlinked = [case(&[&own(2), &public]), case(&[&own(3), &public]), case(&[&own(4), &public])];
        assert_eq!(links_of(&[&unlinked]), []);
        // The planted link: one pseudonym in two of three cases, two byte strings deep.
        let pseudonym = [9_u8; 16];
        let linked =
            [case(&[&own(2), &public, &pseudonym]), case(&[&own(3), &public, &pseudonym]), case(&[&own(4), &public])];
        let links = links_of(&[&linked]);
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].bytes, links[0].places.as_slice()), (16, &["space_case.value".to_owned()][..]));
        assert_eq!(links[0].cases, [hex::encode(own(2)), hex::encode(own(3))]);
        assert_eq!(links_of(&[&linked[..2]]), [], "two cases alone prove nothing");
    }

    #[test]
    fn what_a_kind_of_case_has_by_itself_links_nobody_and_a_patients_value_links_across_kinds() {
        let own = |n: u8| [n; 32];
        let (both, of_filed, of_revoked, pseudonym) = ([0xa0_u8; 32], [0xa1_u8; 32], [0xa2_u8; 32], [0xb0_u8; 16]);
        let filed = |n: u8, more: &[&[u8]]| case(&[&[&own(n)[..], &both, &of_filed], more].concat());
        let revoked = |n: u8, more: &[&[u8]]| case(&[&[&own(n)[..], &both, &of_revoked], more].concat());
        let ids = |links: &[Link]| links.iter().map(|link| link.cases.clone()).collect::<Vec<_>>();
        let hexed = |list: &[u8]| list.iter().map(|n| hex::encode(own(*n))).collect::<Vec<_>>();
        // Three filed cases of one patient and one of another, and one that was revoked: they share what such cases share.
        let plain = [filed(1, &[]), filed(2, &[]), filed(3, &[]), filed(4, &[])];
        let one = [revoked(5, &[])];
        assert_eq!(links_of(&[&plain, &one]), []);
        // A patient's value in a filed case and in the revoked one, which is alone of its kind.
        let marked = [filed(1, &[&pseudonym]), filed(2, &[]), filed(3, &[]), filed(4, &[])];
        let alone = [revoked(5, &[&pseudonym])];
        assert_eq!(ids(&links_of(&[&marked, &alone])), [hexed(&[1, 5])]);
        assert_eq!(links_of(&[&marked, &one]), []);
        // Between two kinds of which each could be compared by itself, and in each only one case has it.
        let several = [revoked(5, &[&pseudonym]), revoked(6, &[]), revoked(7, &[])];
        assert_eq!(ids(&links_of(&[&marked, &several])), [hexed(&[1, 5])]);
        // All of a kind have it: it is the kind's own, whichever single case of another kind has it, too.
        let all = [5, 6, 7].map(|n| revoked(n, &[&pseudonym]));
        assert_eq!(links_of(&[&marked, &all]), []);
        assert_eq!(
            ids(&links_of(&[&[filed(1, &[&pseudonym]), filed(2, &[&pseudonym]), filed(3, &[])], &all])),
            [hexed(&[1, 2])]
        );
    }

    #[test]
    fn certified_keys_words_and_signed_notes_are_public_whatever_else_changes_with_time() {
        use waybill_crypto::backend::Backend as _;
        let [certified, patients] = [(); 2].map(|()| waybill_crypto::native::Native.generate_signing_key());
        let id = |n: u8| [n; 32];
        let der = [&b"leaf"[..], &certified.public().to_spki_der(), b"rest"].concat();
        let note =
            b"authority.example/log\n7\nAAAAAAAAAAAA=\n\n\xe2\x80\x94 authority.example/log bbbbbbbbbbbbbbbbbbbb\n";
        let public = Public::of(&[row("space_case", &id(9), &[&der])], &[]);
        assert!(public.has(&certified.public().kid().0) && public.has(&der) && public.has(b"waybill-grant"));
        assert!(!public.has(&patients.public().kid().0) && !public.has(patients.public().as_sec1()));
        let values = values_of(&[row("space_case", &id(1), &[&id(1), note])], &id(1), &public);
        assert!(!values.contains_key(&b"bbbbbbbbbbbbbbbbbbbb"[..]), "a signature of the log");
        let values =
            values_of(&[row("space_case", &id(1), &[&id(1), b"https://relay/mailbox/bbbbbbbb"])], &id(1), &public);
        assert!(values.contains_key(&b"bbbbbbbb"[..]), "any other text is taken apart");
    }
}
