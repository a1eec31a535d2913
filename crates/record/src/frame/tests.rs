use super::*;
use proptest::prelude::*;
use waybill_crypto::digest::sha256;
use waybill_crypto::lthash::SaltSecret;

fn body(key: &str, filler: usize) -> Vec<u8> {
    let (name, id) = key.split_once('/').unwrap();
    format!(r#"{{"resourceType":"{name}","id":"{id}","x":"{}"}}"#, "y".repeat(filler)).into_bytes()
}

fn stream(items: &[(&str, usize)]) -> (Vec<u8>, FrameTotals) {
    let mut writer = FrameWriter::new(Vec::new()).unwrap();
    for (name, filler) in items {
        let (key, bytes) = (name.parse::<ResourceKey>().unwrap(), body(name, *filler));
        writer.push(&key, None, Salt::from_bytes([7; 16]), &bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8], piece: usize) -> Result<(Vec<FramedResource>, FrameTotals), FrameError> {
    let mut reader = FrameReader::new();
    let mut found = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        for resource in reader.feed(part) {
            found.push(resource?);
        }
    }
    Ok((found, reader.finish()?))
}

/// Frames by hand, so that wrong ones can be made.
fn framed(heads: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (head, body) in heads {
        stream.extend_from_slice(&u16::try_from(head.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(head);
        stream.extend_from_slice(body);
    }
    stream.resize(usize::try_from(padme(stream.len() as u64)).unwrap(), 0);
    stream
}

fn header() -> (Vec<u8>, &'static [u8]) {
    (minicbor::to_vec(Head::Header).unwrap(), b"")
}

fn resource(name: &str, length: u64) -> Vec<u8> {
    let salt = Salt::from_bytes([1; 16]);
    minicbor::to_vec(Head::Resource { key: name.parse().unwrap(), version: None, salt, length }).unwrap()
}

fn end(resources: u64, resource_bytes: u64) -> (Vec<u8>, &'static [u8]) {
    (minicbor::to_vec(Head::End { resources, resource_bytes }).unwrap(), b"")
}

fn refusal(stream: &[u8]) -> FrameError {
    read(stream, 7).unwrap_err()
}

#[test]
fn what_is_written_is_read_whatever_the_pieces() {
    let items = [("Condition/a", 10), ("Condition/b", 0), ("Patient/a", 70_000)];
    let (bytes, totals) = stream(&items);
    assert_eq!(bytes.len() as u64, totals.padded_bytes);
    assert_eq!(totals.padded_bytes, padme(totals.content_bytes));
    for piece in [1, 2, 3, 1000, usize::MAX >> 1] {
        let (found, seen) = read(&bytes, piece).unwrap();
        assert_eq!(seen, totals);
        assert_eq!(found.len(), 3);
        for (item, (name, filler)) in found.iter().zip(items) {
            assert_eq!(item.bytes, body(name, filler));
            assert_eq!(item.verify_body().unwrap().key().to_string(), name);
        }
    }
}

#[test]
fn an_empty_record_is_a_stream_too() {
    let (bytes, totals) = stream(&[]);
    assert_eq!(read(&bytes, 5).unwrap(), (vec![], totals));
}

#[test]
fn the_writer_refuses_disorder_repetition_and_giants() {
    let mut writer = FrameWriter::new(Vec::new()).unwrap();
    let (first, second): (ResourceKey, ResourceKey) = ("Condition/a".parse().unwrap(), "Patient/a".parse().unwrap());
    let salt = Salt::from_bytes([0; 16]);
    writer.push(&second, None, salt, b"{}").unwrap();
    assert!(matches!(writer.push(&first, None, salt, b"{}"), Err(FrameWriteError::Order)));
    assert!(matches!(writer.push(&second, None, salt, b"{}"), Err(FrameWriteError::Order)));
    let later: ResourceKey = "Patient/b".parse().unwrap();
    let giant = vec![0; MAX_RESOURCE_BYTES + 1];
    assert!(matches!(writer.push(&later, None, salt, &giant), Err(FrameWriteError::TooLarge)));
}

#[test]
fn every_rule_of_the_stream_has_its_refusal() {
    let (good, _) = stream(&[("Condition/a", 3)]);
    assert_eq!(refusal(&[]), FrameError::Truncated);
    assert_eq!(refusal(&good[..good.len() / 2]), FrameError::Truncated);
    assert_eq!(refusal(&framed(&[header()])[..20]), FrameError::Truncated);
    assert_eq!(refusal(&[0, 0]), FrameError::HeadLength);
    assert_eq!(refusal(&[2, 1]), FrameError::HeadLength);
    assert_eq!(refusal(&framed(&[end(0, 0)])), FrameError::Header);
    assert_eq!(refusal(&framed(&[(b"junk".to_vec(), b"")])), FrameError::Header);
    let other = (minicbor::to_vec((0, "waybill/2 record")).unwrap(), &b""[..]);
    assert_eq!(refusal(&framed(&[other])), FrameError::Header);
    assert_eq!(refusal(&framed(&[header(), header()])), FrameError::SecondHeader);
    assert_eq!(refusal(&framed(&[header(), (b"junk".to_vec(), b"")])), FrameError::Head);
    let long_form = (vec![0x83, 0x02, 0x18, 0x00, 0x00], &b""[..]);
    assert_eq!(refusal(&framed(&[header(), long_form])), FrameError::Head);
    let trailing = ([end(0, 0).0, vec![0]].concat(), &b""[..]);
    assert_eq!(refusal(&framed(&[header(), trailing])), FrameError::Head);
    let giant = resource("Condition/a", MAX_RESOURCE_BYTES as u64 + 1);
    assert_eq!(refusal(&framed(&[header(), (giant, b"")])), FrameError::TooLarge);
    assert_eq!(refusal(&framed(&[header(), (resource("Condition/a", u64::MAX), b"")])), FrameError::TooLarge);
    let (a, b) = (resource("Condition/a", 2), resource("Condition/b", 2));
    assert_eq!(refusal(&framed(&[header(), (b.clone(), b"{}"), (a.clone(), b"{}")])), FrameError::Order);
    assert_eq!(refusal(&framed(&[header(), (a.clone(), b"{}"), (a.clone(), b"{}")])), FrameError::Order);
    assert_eq!(refusal(&framed(&[header(), (a.clone(), b"{}"), end(2, 2)])), FrameError::Totals);
    assert_eq!(refusal(&framed(&[header(), (a.clone(), b"{}"), end(1, 3)])), FrameError::Totals);
    assert!(read(&framed(&[header(), (a, b"{}"), (b, b"{}"), end(2, 4)]), 9).is_ok());
}

#[test]
fn padding_is_zero_and_of_the_one_right_length() {
    let (good, totals) = stream(&[("Condition/a", 4000)]);
    assert!(totals.padded_bytes > totals.content_bytes, "the example has padding");
    assert_eq!(refusal(&good[..good.len() - 1]), FrameError::PaddingLength);
    assert_eq!(refusal(&[good.as_slice(), &[0]].concat()), FrameError::PaddingLength);
    let mut marked = good.clone();
    *marked.last_mut().unwrap() = 1;
    assert_eq!(refusal(&marked), FrameError::Padding);
    assert_eq!(refusal(&[good.as_slice(), &good].concat()), FrameError::Padding);
}

#[test]
fn a_refused_or_abandoned_stream_stays_refused() {
    let (good, _) = stream(&[("Condition/a", 3), ("Condition/b", 3)]);
    let mut reader = FrameReader::new();
    assert!(reader.feed(&good).next().is_some_and(|first| first.is_ok()));
    assert_eq!(reader.feed(&[0]).next(), Some(Err(FrameError::Abandoned)));
    assert_eq!(reader.finish(), Err(FrameError::Abandoned));
    let mut reader = FrameReader::new();
    assert_eq!(reader.feed(&[0, 0]).next(), Some(Err(FrameError::HeadLength)));
    assert_eq!(reader.feed(&good).next(), Some(Err(FrameError::HeadLength)));
}

#[test]
fn a_body_must_be_what_its_head_names() {
    let item = |bytes: &[u8]| FramedResource {
        key: "Condition/a".parse().unwrap(),
        version: Some(ResourceId::parse("2").unwrap()),
        salt: Salt::from_bytes([0; 16]),
        bytes: bytes.to_vec(),
    };
    assert!(item(br#"{"resourceType":"Condition","id":"a","meta":{"versionId":"2"}}"#).verify_body().is_ok());
    for other in [
        &br#"{"resourceType":"Condition","id":"b","meta":{"versionId":"2"}}"#[..],
        br#"{"resourceType":"Consent","id":"a","meta":{"versionId":"2"}}"#,
        br#"{"resourceType":"Condition","id":"a","meta":{"versionId":"3"}}"#,
        br#"{"resourceType":"Condition","id":"a"}"#,
    ] {
        assert_eq!(item(other).verify_body(), Err(BodyError::OtherResource));
    }
    let spaced = br#"{"resourceType":"Condition", "id":"a","meta":{"versionId":"2"}}"#;
    assert_eq!(item(spaced).verify_body(), Err(BodyError::NotCompact));
    assert!(matches!(item(b"{").verify_body(), Err(BodyError::Resource(_))));
    assert!(!format!("{:?}", item(spaced)).contains("id"));
}

#[test]
fn a_salt_belongs_to_one_version_of_one_resource_of_one_record() {
    let (secret, foreign) = (SaltSecret::from_bytes([7; 32]), SaltSecret::from_bytes([8; 32]));
    let salts = Salts::new(&secret, b"patient");
    let (a, b): (ResourceKey, ResourceKey) = ("Condition/a".parse().unwrap(), "Condition/b".parse().unwrap());
    let (one, two) = (sha256(&[b"1"]), sha256(&[b"2"]));
    let (first, second) = (ResourceId::parse("1").unwrap(), ResourceId::parse("2").unwrap());
    let base = salts.salt(&a, Some(&first), &one);
    assert_eq!(base, salts.salt(&a, Some(&first), &one));
    for other in [
        salts.salt(&b, Some(&first), &one),
        salts.salt(&a, Some(&second), &one),
        salts.salt(&a, None, &one),
        salts.salt(&a, Some(&first), &two),
        Salts::new(&secret, b"other").salt(&a, Some(&first), &one),
        Salts::new(&foreign, b"patient").salt(&a, Some(&first), &one),
    ] {
        assert_ne!(base, other);
    }
    assert_eq!(format!("{salts:?} {base:?}"), "Salts(..) Salt(..)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
        let _ = read(&bytes, piece);
    }

    #[test]
    fn a_changed_byte_never_goes_unnoticed_in_heads(at in 0usize..200, flip in 1u8..) {
        let (mut bytes, _) = stream(&[("Condition/a", 3), ("Patient/b", 3)]);
        let expected = read(&bytes, 1000).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(found) = read(&bytes, 1000) {
            prop_assert_ne!(found, expected);
        }
    }
}
