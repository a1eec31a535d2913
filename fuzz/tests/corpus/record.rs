//! Seeds from the seeded generator of records: resources, files, streams, chunks. Nothing is taken from anybody's record.

use waybill_crypto::digest::sha256;
use waybill_crypto::stream::{RecordKey, StreamKeys, seal_chunk};
use waybill_fuzz::fixture;
use waybill_record::frame::{FrameWriter, Salt};
use waybill_record::resource::Resource;
use waybill_record::sample::{Generator, SampleForm, SampleSize};

use crate::Seeds;

const SIZE: SampleSize = SampleSize { resources: 24, attachments: 1, attachment_bytes: 30 };

fn file(form: SampleForm, size: SampleSize) -> Vec<u8> {
    let mut out = Vec::new();
    Generator::new(7).patient(0, size).write(form, &mut out).unwrap();
    out
}

pub fn add(seeds: &mut Seeds) {
    let lines = file(SampleForm::Ndjson, SIZE);
    let resources: Vec<Resource> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Resource::parse(line).unwrap())
        .collect();
    let mut types = Vec::new();
    for resource in &resources {
        let name = resource.resource_type().as_str();
        if !types.contains(&name) {
            types.push(name);
            seeds.add("resource", &format!("ok-{name}"), resource.bytes());
        }
    }
    seeds.add("resource", "no-bytes", &b"{\"resourceType\":\"Patient\",\"birthDate\":\"1815-12-10\"} "[..]);
    files(seeds);
    streams(seeds, resources);
    json(seeds);
}

fn files(seeds: &mut Seeds) {
    let small = SampleSize { resources: 6, attachments: 0, attachment_bytes: 0 };
    let (lines, bundle) = (file(SampleForm::Ndjson, small), file(SampleForm::TransactionBundle, small));
    let mut shared = Vec::new();
    Generator::new(7).write_shared(SampleForm::Ndjson, &mut shared).unwrap();
    let patient: &[u8] =
        br#"{"resourceType":"Patient","id":"p","name":[{"family":"Lovelace"}],"birthDate":"1815-12-10"}"#;
    let searches = br#"{"resourceType":"Bundle","type":"transaction","entry":[
{"fullUrl":"urn:uuid:0","resource":{"resourceType":"Patient","id":"p","identifier":[{"system":"s","value":"1"}]}},
{"resource":{"resourceType":"Observation","id":"o","subject":{"reference":"Patient?identifier=s|1"},"status":"final"}},
{"resource":{"resourceType":"Observation","subject":{"reference":"urn:uuid:0"},"code":{"text":"1.10"}}}]}"#;
    seeds.add_of("load", "ok-ndjson", 0, &lines);
    seeds.add_of("load", "ok-bundle", 0, &bundle);
    seeds.add_of("load", "ok-context", 1, &shared);
    seeds.add_of("load", "ok-single", 0, patient);
    seeds.add_of("load", "ok-searches", 0, searches);
    seeds.add_of("load", "no-bundle-in-folder", 2, searches);
}

fn streams(seeds: &mut Seeds, mut resources: Vec<Resource>) {
    resources.sort_by(|a, b| a.key().cmp(b.key()));
    resources.dedup_by(|a, b| a.key() == b.key());
    for (name, count) in [("ok-empty", 0), ("ok-few", 3), ("ok-many", resources.len())] {
        let mut writer = FrameWriter::new(Vec::new()).unwrap();
        for resource in &resources[..count] {
            let salt = Salt::from_bytes(sha256(&[resource.bytes()]).0[..16].try_into().unwrap());
            writer.push(resource.key(), resource.version(), salt, resource.bytes()).unwrap();
        }
        seeds.add_of("frame", name, 17, &writer.finish().unwrap().0);
    }
    let keys = StreamKeys::derive(&fixture::SESSION, &RecordKey::from_bytes([9; 32]));
    for (name, index, plain) in [("ok-empty", 0_u64, vec![]), ("ok-short", 5, b"a record".to_vec())] {
        let blob = seal_chunk(fixture::backend(), &keys, &fixture::SESSION, index, true, &mut plain.clone()).unwrap();
        seeds.add("chunk", name, [&index.to_be_bytes()[..], &[1], blob.as_bytes()].concat());
    }
}

fn json(seeds: &mut Seeds) {
    let texts = [
        ("ok-numbers", r#"[0,-0,1.10,1E-22,1e400,123456789012345678901234567890,0.1]"#),
        ("ok-strings", "[\"\\u00e9\",\"\\ud834\\udd1e\",\"\\\\\\/\\\"\\b\\f\\n\\r\\t\",\"é𝄞\",\"\"]"),
        ("ok-spaces", " { \"a\" : [ true , false , null ] ,\r\n\t\"b\" : { } } "),
        ("ok-scalar", "7"),
        ("no-duplicate", r#"{"a":1,"\u0061":2}"#),
        ("no-surrogate", r#""\ud834""#),
        ("no-mark", "\u{feff}{}"),
    ];
    for (name, text) in texts {
        seeds.add("json", name, text);
    }
    seeds.add("json", "ok-deep", ["[".repeat(60), "]".repeat(60)].concat());
    seeds.add("json", "no-deep", "[".repeat(10_000));
}
