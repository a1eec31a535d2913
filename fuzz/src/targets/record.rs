//! Records: JSON, resources, Bundles and NDJSON, the frames of the stream and its chunks, and the small texts in between.

use waybill_crypto::certificate::PartyName;
use waybill_crypto::keys::Digest;
use waybill_crypto::stream::{
    CHUNK_SIZE, HEADER_LEN, RecordKey, StreamKeys, TAG_LEN, leaf, open_chunk, padme, seal_chunk,
};
use waybill_protocol::ids::HospitalId;
use waybill_protocol::log::KeyName;
use waybill_protocol::policy::Role;
use waybill_protocol::wire::{from_cbor, to_cbor};
use waybill_record::closure::{ClosureError, Findings, MemoryFrontier, close};
use waybill_record::compare::{CompareOptions, Grade, compare};
use waybill_record::dates::{Day, PartialDate};
use waybill_record::facts::{FactsError, facts};
use waybill_record::frame::{FrameError, FrameReader, FrameTotals, FrameWriter, FramedResource};
use waybill_record::hides::Hides;
use waybill_record::identity::{Demographics, IdentityMatch};
use waybill_record::json::{self, JsonProblem, Kind};
use waybill_record::load::{LoadReport, MemorySource, Purpose, load as load_record};
use waybill_record::mentions::{Found, Search};
use waybill_record::pool::{MemoryIndex, MemoryPool, Pool as _};
use waybill_record::reference::{Identifier, Reference, links};
use waybill_record::resource::{Resource, ResourceId, ResourceKey};
use waybill_record::scope::Scope;
use waybill_record::types::ResourceType;

use crate::fixture;

/// JSON, against another reader: what is taken here is JSON there, what is JSON there is taken here but for the bounds.
pub fn json(data: &[u8]) -> bool {
    use JsonProblem::{DuplicateKey, TooDeep, TooMany};
    let document = match json::parse(data) {
        Ok(document) => document,
        Err(refused) => {
            let excused = matches!(refused.problem, DuplicateKey | TooDeep | TooMany);
            let other = serde_json::from_slice::<serde_json::Value>(data);
            assert!(excused || other.is_err(), "JSON, and refused: {refused}");
            return false;
        }
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(data).expect("taken, and not JSON");
    for value in document.descendants() {
        assert_eq!(&document.text()[value.span()], value.token());
        if value.kind() == Kind::String {
            let other: String = serde_json::from_str(value.token()).expect("a string here is one there");
            assert_eq!(value.as_str().as_deref(), Some(&*other), "a string means the same to both");
            let quoted = json::quote(&other);
            let again = json::parse(quoted.as_bytes()).expect("what is quoted is JSON");
            assert_eq!(again.root().as_str().as_deref(), Some(&*other), "what is quoted reads back");
        }
    }
    let compact = json::compact(data).expect("what parses is made compact");
    assert_eq!(json::compact(&compact).as_deref(), Ok(&compact[..]), "compact is compact");
    let again = json::parse(&compact).expect("compact JSON is JSON");
    let tokens = |document: &json::Document<'_>| -> Vec<(Kind, Option<String>, String)> {
        let scalar = |value: &json::Value<'_>| !matches!(value.kind(), Kind::Object | Kind::Array);
        let one = |value: json::Value<'_>| {
            (
                value.kind(),
                value.key().map(|key| key.into_owned()),
                if scalar(&value) { value.token() } else { "" }.to_owned(),
            )
        };
        document.descendants().map(one).collect()
    };
    assert_eq!(tokens(&document), tokens(&again), "compacting changes no token");
    assert_eq!(json::splice(data, &[(0..data.len(), compact.clone())]), compact);
    true
}

/// One resource, and all that is read out of it: facts, links, identifiers, demographics, dates.
pub fn resource(data: &[u8]) -> bool {
    let Ok(resource) = Resource::parse(data) else {
        // Facts, identity and mentions are read from bytes of any kind, and must not panic on them.
        let _ = (facts(data), Demographics::from_patient(data), hides().mentions_in(data));
        return false;
    };
    let bytes = resource.bytes();
    assert_eq!(Resource::parse_exact(bytes).as_ref(), Ok(&resource), "kept exactly");
    let document = json::parse(bytes).expect("a resource is JSON");
    match facts(bytes) {
        Ok(found) => {
            assert_eq!(found.resource_type, resource.resource_type(), "two readers, two types");
            let _ = Scope::full().decide(&found);
        }
        Err(refused) => assert_eq!(refused, FactsError::TooDeep, "a resource without facts"),
    }
    for link in links(&document) {
        let reference = link.reference();
        assert_eq!(reference, Reference::parse(&link.text()));
    }
    let _ = Identifier::of(document.root());
    let hides = hides();
    assert_eq!(hides.mentioned_in(bytes), !hides.mentions_in(bytes).is_empty(), "mentioned by somebody");
    let mut search = Search::new(&hides);
    search.learn(&hides.items()[0], bytes);
    let by_name = search.mentions_in(bytes).into_iter().filter(|mention| mention.found != Found::Reference);
    assert!(by_name.map(|mention| mention.item).all(|item| *item == hides.items()[0]), "only this one was learned");
    let same = compare(bytes, bytes, CompareOptions::default()).expect("JSON on both sides");
    assert_eq!((same.grade, same.total), (Grade::Same, 0), "a resource differs from itself");
    if let Ok(person) = Demographics::from_patient(bytes) {
        let wire = to_cbor(&person);
        let read: Demographics = from_cbor("demographics", &wire, wire.len()).expect("what is written reads back");
        assert_eq!(read, person);
        let same = person.compare(&person);
        assert!(!matches!(same, IdentityMatch::Mismatch(_)), "a person differs from themselves: {same:?}");
    }
    true
}

fn hides() -> Hides {
    Hides::parse(["Observation/o1", "Patient/p", "Binary/x-1.2"]).expect("keys of resources")
}

/// A file as a hospital is given it: the first byte says as what, the rest is the file.
pub fn load(data: &[u8]) -> bool {
    let Some((&kind, bytes)) = data.split_first() else { return false };
    let purpose = if kind & 1 == 0 { Purpose::Record } else { Purpose::Context };
    let folder = (kind & 2 != 0).then(|| "folder".to_owned());
    let source = MemorySource { name: "file".to_owned(), folder, bytes: bytes.to_vec() };
    let mut pool = MemoryPool::default();
    let Ok(first) = load_into(&mut pool, &source, purpose) else { return false };
    assert!(first.filed + first.already_held + first.differing_count <= first.read, "more than there is: {first:?}");
    let keys: Vec<ResourceKey> = pool.keys().cloned().collect();
    assert_eq!(keys.len() as u64, first.filed, "what is counted is held");
    for key in &keys {
        let bytes = pool.bytes(key).expect("memory").expect("listed, so held");
        let held = Resource::parse_exact(&bytes).expect("what is filed is an exact resource");
        assert_eq!(held.key(), key, "filed under its own key");
    }
    let mut other = MemoryPool::default();
    assert_eq!(load_into(&mut other, &source, purpose).as_ref().ok(), Some(&first), "loaded twice alike");
    let second = load_into(&mut pool, &source, purpose).expect("loaded once, so loaded again");
    assert_eq!(second.filed, 0, "a second loading changes something");
    for id in first.patients {
        let closed = close(&id, &pool, &mut MemoryFrontier::default(), &mut Findings::default());
        let absent = !pool.holds(&ResourceKey { resource_type: ResourceType::PATIENT, id }).expect("memory");
        match closed {
            Ok(summary) => assert!(summary.movable_count() <= keys.len() as u64),
            Err(refused) => assert!(absent && matches!(refused, ClosureError::NoSuchPatient), "{refused}"),
        }
    }
    true
}

fn load_into(
    pool: &mut MemoryPool,
    source: &MemorySource,
    purpose: Purpose,
) -> Result<LoadReport, waybill_record::load::LoadError> {
    load_record(&[source], purpose, &mut MemoryIndex::default(), pool)
}

/// The plaintext of a record stream: the first byte says how it is cut into pieces, the rest is the stream.
pub fn frame(data: &[u8]) -> bool {
    let Some((&cut, stream)) = data.split_first() else { return false };
    let (whole, ended) = frames(stream, stream.len().max(1));
    let (pieces, ended_too) = frames(stream, usize::from(cut).max(1));
    assert_eq!(whole, pieces, "cut otherwise, other resources");
    let Ok(totals) = ended else {
        assert!(ended_too.is_err(), "cut otherwise, taken");
        return false;
    };
    assert_eq!(ended_too, Ok(totals));
    let mut writer = FrameWriter::new(Vec::new()).expect("memory");
    for resource in &whole {
        writer.push(&resource.key, resource.version.as_ref(), resource.salt, &resource.bytes).expect("as it was read");
        let _ = resource.verify_body();
    }
    let (written, written_totals) = writer.finish().expect("memory");
    assert_eq!((written.as_slice(), written_totals), (stream, totals), "a stream has one encoding");
    true
}

fn frames(stream: &[u8], piece: usize) -> (Vec<FramedResource>, Result<FrameTotals, FrameError>) {
    let mut reader = FrameReader::new();
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        let fed: Vec<_> = reader.feed(piece).collect();
        for resource in fed {
            match resource {
                Ok(resource) => out.push(resource),
                Err(error) => {
                    assert_eq!(reader.finish(), Err(error), "refused once, refused for good");
                    return (out, Err(error));
                }
            }
        }
    }
    (out, reader.finish())
}

/// A blob as it arrives (its index and whether it is the last stand before it), and the same bytes as a plaintext to be sealed.
pub fn chunk(data: &[u8]) -> bool {
    let Some((head, bytes)) = data.split_first_chunk::<9>() else { return false };
    let index = u64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
    let last = head[8] & 1 == 1;
    let (backend, session) = (fixture::backend(), fixture::SESSION);
    let keys = StreamKeys::derive(&session, &RecordKey::from_bytes([9; 32]));
    // No stream is as long as 2^63 bytes.
    let (length, padded) = (index >> 1, padme(index >> 1));
    assert!(padded >= length && (length < 9 || padded - length <= length / 8), "padding adds at most 12 %");
    let mut arrived = bytes.to_vec();
    let opened = open_chunk(backend, &keys, &session, index, last, &mut arrived).map(<[u8]>::to_vec);
    if let Ok(plain) = &opened {
        let blob = seal_chunk(backend, &keys, &session, index, last, &mut plain.clone()).expect("as it was opened");
        assert_eq!(blob.as_bytes(), bytes, "a chunk has one encoding");
    }
    if bytes.len() <= CHUNK_SIZE && index < 1 << 32 {
        let blob = seal_chunk(backend, &keys, &session, index, true, &mut bytes.to_vec()).expect("a last chunk");
        assert_eq!((blob.leaf(), blob.as_bytes().len()), (leaf(blob.as_bytes()), HEADER_LEN + bytes.len() + TAG_LEN));
        for (at, last) in [(index, false), (index ^ 1, true)] {
            let mut other = blob.as_bytes().to_vec();
            assert!(open_chunk(backend, &keys, &session, at, last, &mut other).is_err(), "opens in another place");
        }
        let mut other = blob.as_bytes().to_vec();
        let again = StreamKeys::derive(&Digest([1; 32]), &RecordKey::from_bytes([9; 32]));
        assert!(open_chunk(backend, &again, &session, index, true, &mut other).is_err(), "opens under another key");
        let mut blob = blob.into_bytes();
        let plain = open_chunk(backend, &keys, &session, index, true, &mut blob).expect("what is sealed opens");
        assert_eq!(plain, bytes);
    }
    opened.is_ok()
}

/// The short texts that people, files and messages name things with. Whatever is taken is written back as it was, or in one form.
pub fn names(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut taken = false;
    if let Ok(scope) = text.parse::<Scope>() {
        taken = true;
        let written = scope.to_string();
        assert_eq!(written.parse::<Scope>().as_ref(), Ok(&scope), "a scope reads back");
        let wire = to_cbor(&scope);
        assert_eq!(from_cbor::<Scope>("scope", &wire, wire.len()).as_ref(), Ok(&scope), "a scope travels");
        assert!(scope.is_within(&scope) && scope.is_within(&everything()), "a scope goes beyond itself");
    }
    if let Ok(date) = PartialDate::parse_date_time(text) {
        taken = true;
        let (first, last) = (date.earliest(), date.latest());
        assert!(
            first <= last
                && Day::from_number(last.number()) == Ok(last)
                && Day::from_number(first.number()) == Ok(first)
        );
        assert!(
            first.to_string().starts_with(text.split('T').next().unwrap_or_default()),
            "a date begins as it is written"
        );
    }
    if let Ok(key) = text.parse::<ResourceKey>() {
        taken = true;
        assert_eq!(key.to_string(), text);
        assert_eq!(key.id, ResourceId::parse(key.id.as_str()).expect("an id"));
        let hides = Hides::parse([text]).expect("a key can be hidden");
        assert!(hides.contains(key.resource_type.as_str(), key.id.as_str()));
        assert!(
            hides.mentioned_in(format!("{{\"reference\":{}}}", json::quote(text)).as_bytes()),
            "hidden, and not found"
        );
    }
    let (hospital, party) = (HospitalId::parse(text), PartyName::parse(text));
    assert_eq!(hospital.is_ok(), party.is_ok(), "a hospital's name is a name in certificates");
    if let Ok(hospital) = &hospital {
        assert_eq!(hospital.as_str(), text);
        assert!(!text.contains(['/', '\\', '\0']) && text.len() <= 63, "a name like a path");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        taken = true;
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
    }
    if let Some(role) = Role::parse(text) {
        assert_eq!(role.as_str(), text);
    }
    let _ = (Reference::parse(text), Identifier::from_query(text), KeyName::parse(text));
    taken || hospital.is_ok()
}

/// The widest scope there is: every type, time and label.
fn everything() -> Scope {
    "types=*;labels=*".parse().expect("a scope")
}
