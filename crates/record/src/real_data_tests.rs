//! The 29 real (synthetic) patients beside the repository, when they are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::closure::{Decision, Findings, Frontier, MemoryFrontier, NotMovable, close};
use crate::pool::{MemoryIndex, MemoryPool};

fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no real records at {}", path.display());
    None
}

fn folder(path: &Path, wanted: impl Fn(&str) -> bool) -> Vec<MemorySource> {
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_string_lossy().into_owned();
    files.retain(|file| name(file).ends_with(".json") && wanted(&name(file)));
    let source = |file: &PathBuf| MemorySource {
        name: name(file),
        folder: Some(path.display().to_string()),
        bytes: std::fs::read(file).unwrap(),
    };
    files.iter().map(source).collect()
}

fn load_all(pool: &mut MemoryPool, sources: &[MemorySource], purpose: Purpose) -> LoadReport {
    let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
    load(&sources, purpose, &mut MemoryIndex::default(), pool).unwrap()
}

/// Every record, loaded into one hospital as the demo does it: context first, then all records together.
fn hospital(data: &Path) -> (MemoryPool, LoadReport) {
    let mut pool = MemoryPool::default();
    let context = folder(&data.join("synthea-2021"), |name| name.starts_with("0-"));
    assert_eq!(context.len(), 2);
    load_all(&mut pool, &context, Purpose::Context);
    let mut records = folder(&data.join("synthea-2021"), |name| !name.starts_with("0-"));
    for part in ["synthea-2019", "hl7-r4-examples", "ips"] {
        records.extend(folder(&data.join(part), |_| true));
    }
    let report = load_all(&mut pool, &records, Purpose::Record);
    (pool, report)
}

#[test]
fn all_patients_load_into_one_hospital_and_close() {
    let Some(data) = data() else { return };
    let (pool, report) = hospital(&data);
    assert_eq!(report.patients.len(), 29);
    assert_eq!(report.unresolved_count, 0, "{:?}", report.unresolved.first());
    report.require_no_lost_findings().unwrap();
    // Six organizations stand in two exports with other counters.
    assert!(report.differing.iter().all(|d| d.key.resource_type.as_str() == "Organization"), "{:?}", report.differing);
    assert_eq!(report.differing_count, 6);

    let mut owned: BTreeMap<ResourceKey, ResourceId> = BTreeMap::new();
    for patient in &report.patients {
        let (mut frontier, mut findings) = (MemoryFrontier::default(), Findings::default());
        let summary = close(patient, &pool, &mut frontier, &mut findings).unwrap();
        assert!(summary.movable_count() > 1, "{patient}");
        let decided = frontier.decided(None, usize::MAX).unwrap();
        assert!(decided.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (key, decision) in decided {
            if let Decision::Movable { is_own: true, .. } = decision {
                let other = owned.insert(key.clone(), patient.clone());
                assert_eq!(other, None, "{key} belongs to two patients");
            }
            if key.resource_type == ResourceType::PATIENT {
                let is_this = key.id == *patient;
                assert_eq!(matches!(decision, Decision::Movable { .. }), is_this, "{key} in the record of {patient}");
            }
        }
        let is_synthea = patient.as_str().len() == 36;
        if is_synthea {
            assert!(findings.dangling.is_empty(), "{patient}: {:?}", findings.dangling);
            assert!(findings.not_movable.is_empty(), "{patient}: {:?}", findings.not_movable);
        }
    }
    // Every resource that says it is about one of them is in that patient's record and in no other's.
    for key in pool.keys() {
        let bytes = pool.bytes(key).unwrap().unwrap();
        if is_about_someone(&json::parse(&bytes).unwrap()) && !owned.contains_key(key) {
            let stranger = ["ServiceRequest/myringotomy", "Bundle/father"].contains(&key.to_string().as_str());
            assert!(stranger, "{key} is in nobody's record");
        }
    }
}

#[test]
fn family_and_strangers_stay() {
    let Some(data) = data() else { return };
    let (pool, _) = hospital(&data);
    let not_movable = |id: &str| {
        let (mut frontier, mut findings) = (MemoryFrontier::default(), Findings::default());
        close(&ResourceId::parse(id).unwrap(), &pool, &mut frontier, &mut findings).unwrap();
        findings.not_movable.into_iter().map(|(reached, why)| (reached.key.to_string(), why)).collect::<Vec<_>>()
    };
    let another = |key: &str| (key.to_owned(), NotMovable::AnotherPatient);
    assert_eq!(not_movable("pat2"), [another("Patient/pat1")]);
    // The examples borrow each other's encounters: the borrowed ones stay where they belong.
    let of_pat1 = not_movable("pat1");
    assert!(of_pat1.contains(&another("Patient/pat2")) && of_pat1.contains(&another("Encounter/f001")));
    assert!(not_movable("f201").iter().all(|(key, _)| key != "Patient/f201"));
}

/// Every number of every source is held as the same token, trailing zeros and all.
#[test]
fn awkward_tokens_survive() {
    let Some(data) = data() else { return };
    let (pool, _) = hospital(&data);
    let parts = ["synthea-2021", "synthea-2019", "hl7-r4-examples", "ips"];
    let sources: Vec<_> = parts.iter().flat_map(|part| folder(&data.join(part), |_| true)).collect();
    let numbers = |bytes: &[u8]| {
        let document = stream::parse(bytes).unwrap();
        let numbers = document.descendants().filter(|value| value.kind() == json::Kind::Number);
        numbers.map(|value| value.token().to_owned()).collect::<Vec<_>>()
    };
    let mut held = BTreeMap::<String, u64>::new();
    for key in pool.keys() {
        for token in numbers(&pool.bytes(key).unwrap().unwrap()) {
            *held.entry(token).or_default() += 1;
        }
    }
    assert!(held.keys().any(|token| token.ends_with('0') && token.contains('.')), "trailing zeros");
    assert!(held.keys().any(|token| token.len() > 17), "more digits than a double has");
    for source in sources {
        for token in numbers(&source.bytes) {
            assert!(held.contains_key(&token), "{token} of {}", source.name);
        }
    }
}
