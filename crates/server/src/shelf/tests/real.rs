//! The 29 real (synthetic) patients beside the repository, when they are there.

use std::path::{Path, PathBuf};

use super::*;
use waybill_protocol::messages::OutcomeClass;
use waybill_record::load::Source;

fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no real records at {}", path.display());
    None
}

fn folder(path: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Box<dyn Source + Send>> {
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_string_lossy().into_owned();
    files.retain(|file| name(file).ends_with(".json") && wanted(&name(file)));
    let source = |file: &PathBuf| MemorySource {
        name: name(file),
        folder: Some(path.display().to_string()),
        bytes: std::fs::read(file).unwrap(),
    };
    files.iter().map(|file| Box::new(source(file)) as _).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_real_patient_arrives_byte_for_byte() {
    let Some(data) = data() else { return };
    let a = Hospital::in_memory();
    let context = folder(&data.join("synthea-2021"), |name| name.starts_with("0-"));
    a.shelf.load(context, Purpose::Context, quiet()).await.unwrap();
    let mut records = folder(&data.join("synthea-2021"), |name| !name.starts_with("0-"));
    for part in ["synthea-2019", "hl7-r4-examples", "ips"] {
        records.extend(folder(&data.join(part), |_| true));
    }
    let loaded = a.shelf.load(records, Purpose::Record, quiet()).await.unwrap();
    assert_eq!(loaded.report.patients.len(), 29);
    let patients = a.shelf.patients(None, 100).await.unwrap();
    assert!(patients.len() >= 29);
    for id in &loaded.report.patients {
        let patient = LocalPatient(id.as_str().to_owned());
        let b = Hospital::in_memory();
        let theirs = register(&a, &patient, &b).await;
        let (manifest, result) = migrate(id.as_str(), (&a, &patient), (&b, &theirs), &Scope::full()).await;
        assert_eq!(result.filing.outcome, OutcomeClass::Filed, "{:?}", result.filing.detail.code);
        assert_eq!((result.filing.detail.filed, result.filing.detail.quarantined), (result.filing.detail.offered, 0));
        assert_eq!(result.filing.detail.digest, manifest.digest_full.short());
        let arrived = b.export(&theirs, Which::Filed(origin())).await;
        assert!(arrived == a.export(&patient, Which::Held).await, "the record of {id} differs");
        a.shelf.discard(&session(id.as_str())).await.unwrap();
    }
}
