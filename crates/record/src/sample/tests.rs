use super::*;
use crate::closure::{Findings, MemoryFrontier, close};
use crate::hides::Hides;
use crate::load::{MemorySource, Purpose, Source, load};
use crate::pool::{MemoryIndex, MemoryPool, Pool};
use crate::resource::{Resource, ResourceId};
use crate::{facts, json};
use std::collections::BTreeSet;

const SIZE: SampleSize = SampleSize { resources: 60, attachments: 2, attachment_bytes: 1000 };

fn written(patient: &SamplePatient, form: SampleForm) -> (Vec<u8>, SampleCounts) {
    let mut bytes = Vec::new();
    let counts = patient.write(form, &mut bytes).unwrap();
    (bytes, counts)
}

fn lines(bytes: &[u8]) -> Vec<Resource> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Resource::parse(line).unwrap())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    for form in [SampleForm::Ndjson, SampleForm::TransactionBundle] {
        let one = written(&Generator::new(1).patient(0, SIZE), form).0;
        assert_eq!(one, written(&Generator::new(1).patient(0, SIZE), form).0);
        assert_ne!(one, written(&Generator::new(2).patient(0, SIZE), form).0);
        assert_ne!(one, written(&Generator::new(1).patient(1, SIZE), form).0);
    }
}

#[test]
fn every_line_is_a_compact_resource_and_the_counts_are_right() {
    let patient = Generator::new(3).patient(4, SIZE);
    let (bytes, counts) = written(&patient, SampleForm::Ndjson);
    let resources = lines(&bytes);
    assert_eq!(counts, SampleCounts { own: 64, shared: SHARED.len() as u64 });
    assert_eq!(resources.len() as u64, counts.own + counts.shared);
    let compact: usize = resources.iter().map(|resource| resource.bytes().len() + 1).sum();
    assert_eq!(compact, bytes.len(), "nothing is lost by reading");
    let keys: BTreeSet<_> = resources.iter().map(|resource| resource.key().clone()).collect();
    assert_eq!(keys.len(), resources.len(), "ids are unique");
    assert!(keys.contains(&format!("Patient/{}", patient.id()).parse().unwrap()));
    assert_eq!(keys.iter().filter(|key| key.resource_type.as_str() == "Patient").count(), 1);
    assert!(resources.iter().all(|resource| facts::facts(resource.bytes()).is_ok()));
}

#[test]
fn every_reference_leads_somewhere_but_the_one_to_the_relative() {
    let patient = Generator::new(3).patient(4, SIZE);
    let resources = lines(&written(&patient, SampleForm::Ndjson).0);
    let held: BTreeSet<String> = resources.iter().map(|resource| resource.key().to_string()).collect();
    let relative = format!("Patient/{}", Generator::new(3).patient(5, SIZE).id());
    let mut missing = BTreeSet::new();
    for resource in &resources {
        let document = json::parse(resource.bytes()).unwrap();
        for value in document.descendants().filter(|value| value.key().is_some_and(|key| key == "reference")) {
            let reference = value.as_str().unwrap().into_owned();
            if !reference.starts_with('#') && !held.contains(&reference) {
                missing.insert(reference);
            }
        }
    }
    assert_eq!(missing, BTreeSet::from([relative]));
}

#[test]
fn the_bundle_has_both_kinds_of_reference_and_says_the_same() {
    let patient = Generator::new(3).patient(4, SIZE);
    let bundle = written(&patient, SampleForm::TransactionBundle).0;
    let document = json::parse(&bundle).unwrap();
    let text = document.text();
    assert!(text.contains("Practitioner?identifier=https://sample.example/practitioner|PR-"));
    assert!(text.contains(r#""ifNoneExist":"identifier=https://sample.example/organization|ORG-1""#));
    let mut named: Vec<(String, String)> = document
        .root()
        .select("entry")
        .into_iter()
        .map(|entry| {
            let resource = entry.member("resource").unwrap();
            let id = resource.text_of("id").unwrap();
            assert_eq!(entry.text_of("fullUrl").unwrap(), format!("urn:uuid:{id}"));
            (format!("urn:uuid:{id}"), format!("{}/{id}", resource.text_of("resourceType").unwrap()))
        })
        .collect();
    named.push(("https://none".into(), String::new()));
    let mut resolved = text.to_owned();
    for (urn, key) in &named {
        resolved = resolved.replace(&format!(r#""reference":"{urn}""#), &format!(r#""reference":"{key}""#));
        resolved = resolved.replace(&format!(r#""url":"{urn}""#), &format!(r#""url":"{key}""#));
    }
    let plain = lines(&written(&patient, SampleForm::Ndjson).0);
    let same = plain.iter().filter(|line| resolved.contains(std::str::from_utf8(line.bytes()).unwrap())).count();
    let conditional = plain.iter().filter(|line| {
        let text = std::str::from_utf8(line.bytes()).unwrap();
        ["Practitioner/", "Organization/", "Location/"]
            .iter()
            .any(|name| text.contains(&format!(r#""reference":"{name}"#)))
    });
    assert_eq!(same + conditional.count(), plain.len());
}

#[test]
fn what_is_difficult_in_records_is_present() {
    let size = SampleSize { resources: 600, ..SIZE };
    let text = String::from_utf8(written(&Generator::new(1).patient(0, size), SampleForm::Ndjson).0).unwrap();
    for wanted in [
        ":1.10,",
        ":1E-22,",
        ":-1.000000000000000000E+245,",
        "\"_birthDate\"",
        "\"contained\"",
        "xmlns=",
        "\\u2013",
        "\"security\"",
        "\"Provenance\"",
        "\"Binary/",
        "familymemberhistory-patient-record",
        "\"code\":\"R\"",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert!(!text.is_ascii());
}

#[test]
fn attachments_have_exactly_the_size_that_was_asked_for() {
    for bytes in [0, 1, 2, 3, 48 * 1024, 100_001] {
        let size = SampleSize { resources: 1, attachments: 1, attachment_bytes: bytes };
        let resources = lines(&written(&Generator::new(1).patient(0, size), SampleForm::Ndjson).0);
        let binary = resources.iter().find(|resource| resource.resource_type().as_str() == "Binary").unwrap();
        let document = json::parse(binary.bytes()).unwrap();
        let data = document.root().text_of("data").unwrap().into_owned();
        let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
        assert_eq!(data.len() % 4, 0);
        assert_eq!((data.len() / 4 * 3 - padding) as u64, bytes);
    }
}

#[test]
fn shared_resources_alone_are_those_of_every_patient() {
    let generator = Generator::new(9);
    let mut shared = Vec::new();
    let counts = generator.write_shared(SampleForm::Ndjson, &mut shared).unwrap();
    assert_eq!((counts.own, lines(&shared).len() as u64), (0, counts.shared));
    for index in 0..3 {
        assert!(written(&generator.patient(index, SIZE), SampleForm::Ndjson).0.starts_with(&shared));
    }
}

#[test]
fn hidden_conditions_are_mentioned_elsewhere() {
    let resources = lines(&written(&Generator::new(3).patient(4, SIZE), SampleForm::Ndjson).0);
    let condition = resources.iter().find(|resource| resource.resource_type().as_str() == "Condition").unwrap();
    let hides = Hides::new([condition.key().clone()]).unwrap();
    assert!(resources.iter().filter(|resource| hides.mentioned_in(resource.bytes())).count() >= 3);
}

/// Loads both patients of a seed in one form.
fn loaded(form: SampleForm) -> MemoryPool {
    let mut pool = MemoryPool::default();
    for index in [4, 5] {
        let bytes = written(&Generator::new(3).patient(index, SIZE), form).0;
        let source = MemorySource { name: "sample".to_owned(), folder: None, bytes };
        let sources: [&dyn Source; 1] = [&source];
        let report = load(&sources, Purpose::Record, &mut MemoryIndex::default(), &mut pool).unwrap();
        assert_eq!((report.unresolved_count, report.differing_count, report.ids_assigned), (0, 0, 0));
    }
    pool
}

#[test]
fn a_loaded_bundle_gives_the_bytes_of_the_lines() {
    let (bundle, plain) = (loaded(SampleForm::TransactionBundle), loaded(SampleForm::Ndjson));
    let keys: Vec<_> = plain.keys().cloned().collect();
    assert_eq!(bundle.keys().cloned().collect::<Vec<_>>(), keys);
    assert_eq!(keys.len(), 2 * 64 + SHARED.len());
    for key in keys {
        let of = |pool: &MemoryPool| String::from_utf8(pool.bytes(&key).unwrap().unwrap()).unwrap();
        assert_eq!(of(&bundle), of(&plain));
    }
}

#[test]
fn the_closure_is_the_whole_patient_without_the_relative() {
    let pool = loaded(SampleForm::TransactionBundle);
    let patient = Generator::new(3).patient(4, SIZE);
    let (mut frontier, mut findings) = (MemoryFrontier::default(), Findings::default());
    let id = ResourceId::parse(&patient.id()).unwrap();
    let summary = close(&id, &pool, &mut frontier, &mut findings).unwrap();
    let own = patient.write(SampleForm::Ndjson, &mut Vec::new()).unwrap().own;
    assert!((own + 1..=own + SHARED.len() as u64).contains(&summary.movable_count()));
    let relative = format!("Patient/{}", Generator::new(3).patient(5, SIZE).id());
    let left: BTreeSet<String> = findings.not_movable.iter().map(|(reached, _)| reached.key.to_string()).collect();
    assert!(left.contains(&relative), "the relative is listed");
    assert_eq!(summary.movable[&crate::types::ResourceType::PATIENT].0, 1);
}
