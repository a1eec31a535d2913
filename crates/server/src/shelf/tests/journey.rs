//! Records that arrive: whole, in parts, from two places, byte for byte.

use super::*;
use crate::shelf::rows;
use waybill_protocol::messages::OutcomeClass;
use waybill_record::digest::Inventory;
use waybill_record::loss::{LossOutcome, LossReport};

async fn whole_journey(from: Hospital, to: Hospital) {
    let ((a, patient), (b, theirs)) = pair(from, to, 120).await;
    let everything = Scope::full();
    let (manifest, result) = migrate("one", (&a, &patient), (&b, &theirs), &everything).await;
    assert_eq!(result.filing.outcome, OutcomeClass::Filed);
    let detail = &result.filing.detail;
    assert_eq!((detail.offered, detail.quarantined), (detail.filed, 0));
    assert_eq!(detail.inventory, manifest.inventory);
    assert_eq!(a.shelf.inventory(&patient).await.unwrap(), manifest.inventory);
    assert_eq!(detail.digest, manifest.digest_scope.short());
    assert_eq!(manifest.digest_scope, manifest.digest_full);
    let held = a.export(&patient, Which::Held).await;
    assert_eq!(held, b.export(&theirs, Which::Filed(origin())).await);
    assert_eq!(held, a.export(&patient, Which::Scope(session("one"))).await);
    assert!(held.len() > 800_000, "two attachments are too large for a row");
    assert_eq!(b.shelf.filed_digest(&theirs, &origin()).await.unwrap(), manifest.digest_full);
    let loss: LossReport = minicbor::decode(&detail.loss).unwrap();
    loss.verify_filed().unwrap();
    assert_eq!(loss.counts().filed, detail.filed);
    assert_eq!(b.shelf.loss_report(&session("one")).await.unwrap(), Some(loss));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_byte_for_byte_in_memory() {
    whole_journey(Hospital::in_memory(), Hospital::in_memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_byte_for_byte_on_disk() {
    whole_journey(Hospital::on_disk().await, Hospital::on_disk().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_and_the_rest_add_up_to_the_whole() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 120).await;
    let (part, rest) = (scope("types=Observation,Condition;labels=*"), scope("types=!Observation,!Condition;labels=*"));
    let (first, _) = migrate("part", (&a, &patient), (&b, &theirs), &part).await;
    let held = a.shelf.loss_report(&session("part")).await.unwrap().unwrap().counts();
    assert!(held.withheld > 0 && held.held == held.offered + held.withheld + held.not_movable);
    assert_ne!(b.shelf.filed_digest(&theirs, &origin()).await.unwrap(), first.digest_full);
    let (second, _) = migrate("rest", (&a, &patient), (&b, &theirs), &rest).await;
    assert_eq!(first.digest_full, second.digest_full);
    assert_eq!(first.digest_scope.combined(&second.digest_scope), second.digest_full);
    assert_eq!(b.shelf.filed_digest(&theirs, &origin()).await.unwrap(), second.digest_full);
    assert_eq!(a.export(&patient, Which::Held).await, b.export(&theirs, Which::Filed(origin())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_chart_already_is_filed_and_not_stored_twice() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 40).await;
    let (_, first) = migrate("one", (&a, &patient), (&b, &theirs), &Scope::full()).await;
    let (manifest, second) = migrate("two", (&a, &patient), (&b, &theirs), &Scope::full()).await;
    assert_eq!(first.filing.detail.filed, second.filing.detail.filed);
    assert_eq!(b.shelf.filed_digest(&theirs, &origin()).await.unwrap(), manifest.digest_full);
    assert_eq!(a.export(&patient, Which::Held).await, b.export(&theirs, Which::Filed(origin())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_patients_resources_stay_and_are_listed() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 60).await;
    let (other, bytes) = sample(1, 60, 0);
    a.load("other", bytes, Purpose::Record).await.unwrap();
    let link = format!(
        r#"{{"resourceType":"List","id":"both","status":"current","mode":"working","subject":{{"reference":"Patient/{}"}},"entry":[{{"item":{{"reference":"Patient/{}"}}}}]}}"#,
        patient.0, other.0
    );
    a.load("link", link.into_bytes(), Purpose::Context).await.unwrap();
    migrate("one", (&a, &patient), (&b, &theirs), &Scope::full()).await;
    let text = String::from_utf8(b.export(&theirs, Which::Filed(origin())).await).unwrap();
    assert!(!text.lines().any(|line| line.contains(&format!(r#""id":"{}""#, other.0))), "the other patient travelled");
    let loss = a.shelf.loss_report(&session("one")).await.unwrap().unwrap();
    assert!(loss.items().0.iter().any(|item| item.id == other.0 && item.outcome == LossOutcome::NotMovable));
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_items_stay_and_the_destination_is_not_told_which() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 60).await;
    let text = String::from_utf8(a.export(&patient, Which::Held).await).unwrap();
    let id = |line: &str| line.split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let condition = id(text.lines().find(|line| line.starts_with(r#"{"resourceType":"Condition""#)).unwrap());
    let hides = Hides::parse([format!("Condition/{condition}").as_str()]).unwrap();
    let frozen = a.shelf.freeze_scope(session("h"), patient.clone(), Scope::full(), hides, NOW).await.unwrap();
    assert_eq!(frozen.withheld, 1);
    let ours = a.shelf.loss_report(&session("h")).await.unwrap().unwrap();
    assert_eq!(ours.items().0.iter().find(|item| item.id == condition).unwrap().reason, "hidden");
    let told: LossReport = minicbor::decode(&frozen.loss).unwrap();
    assert_eq!(told.items().0.len(), 0);
    assert_eq!(told.reasons()[&LossOutcome::Withheld].keys().collect::<Vec<_>>(), ["withheld"]);
    assert_eq!(told.still_mentioned().1, 0);
    let staged = a.stage("h").await.unwrap();
    let manifest = manifest("h", &staged);
    carry(&a, &b, &manifest).await;
    let result = file(&b, &theirs, &Scope::full(), &manifest, keys("h", &staged)).await.unwrap();
    commit(&b, &result).await;
    let arrived = String::from_utf8(b.export(&theirs, Which::Filed(origin())).await).unwrap();
    assert_eq!(arrived.lines().count() + 1, text.lines().count());
    assert!(!arrived.contains(&format!(r#""id":"{condition}""#)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_does_not_follow_the_record() {
    let a = Hospital::in_memory();
    let (patient, bytes) = sample(0, 30, 0);
    a.load("sample", bytes, Purpose::Record).await.unwrap();
    a.freeze("one", &patient, &Scope::full()).await.unwrap();
    let before = a.export(&patient, Which::Scope(session("one"))).await;
    let later = format!(
        r#"{{"resourceType":"Flag","id":"later","status":"active","code":{{"text":"x"}},"subject":{{"reference":"Patient/{}"}}}}"#,
        patient.0
    );
    a.load("later", later.into_bytes(), Purpose::Context).await.unwrap();
    a.freeze("one", &patient, &Scope::full()).await.unwrap();
    assert_eq!(a.export(&patient, Which::Scope(session("one"))).await, before);
    assert_ne!(a.export(&patient, Which::Held).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_filed_travels_on_with_the_hospitals_own_record() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 40).await;
    migrate("one", (&a, &patient), (&b, &theirs), &Scope::full()).await;
    let own = format!(
        r#"{{"resourceType":"Flag","id":"own","status":"active","code":{{"text":"x"}},"subject":{{"reference":"Patient/{}"}}}}"#,
        theirs.0
    );
    b.load("own", own.into_bytes(), Purpose::Context).await.unwrap();
    let c = Hospital::in_memory();
    let third = register(&b, &theirs, &c).await;
    let (_, result) = migrate("two", (&b, &theirs), (&c, &third), &Scope::full()).await;
    assert_eq!(result.filing.outcome, OutcomeClass::Filed);
    let (held, arrived) = (b.export(&theirs, Which::Held).await, c.export(&third, Which::Filed(origin())).await);
    assert_eq!(held, arrived);
    let first = a.export(&patient, Which::Held).await;
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    // The record of the first hospital, the second one's own Patient and the flag.
    assert_eq!(lines(&arrived), lines(&first) + 2);
    // Without the first hospital's Patient nobody could tell that both ids are one person.
    b.freeze("three", &theirs, &scope("types=Flag,Observation;labels=*")).await.unwrap();
    let loss = b.shelf.loss_report(&session("three")).await.unwrap().unwrap();
    assert!(loss.reasons()[&LossOutcome::NotMovable].contains_key("patient-left-out"));
    assert_eq!(loss.counts().offered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_counts_and_overwrites_nothing() {
    let a = Hospital::in_memory();
    let (patient, bytes) = sample(0, 30, 1);
    let first = a.load("sample", bytes.clone(), Purpose::Record).await.unwrap();
    assert_eq!(first.filed.total().count, first.report.filed);
    assert_eq!(a.shelf.patients(None, 10).await.unwrap().first(), Some(&patient));
    let again = a.load("sample", bytes, Purpose::Record).await.unwrap();
    assert_eq!((again.report.filed, again.filed), (0, Inventory::default()));
    let other = format!(r#"{{"resourceType":"Patient","id":"{}","gender":"unknown"}}"#, patient.0);
    let before = a.export(&patient, Which::Held).await;
    assert!(matches!(a.load("other", other.clone().into_bytes(), Purpose::Record).await, Err(ShelfError::Load(_))));
    assert!(matches!(a.shelf.register_local(other.as_bytes()).await, Err(ShelfError::PatientDiffers)));
    assert_eq!(a.export(&patient, Which::Held).await, before);
    assert!(a.shelf.demographics(&patient).await.unwrap().birth_date.is_some());
    let nobody = LocalPatient("nobody".to_owned());
    assert!(matches!(a.shelf.demographics(&nobody).await, Err(ShelfError::NoSuchPatient)));
    assert!(matches!(a.shelf.inventory(&nobody).await, Err(ShelfError::NoSuchPatient)));
    assert!(matches!(a.shelf.register_local(b"{}").await, Err(ShelfError::NotAPatient(_))));
    let group = br#"{"resourceType":"Group","id":"g"}"#;
    assert!(matches!(a.shelf.register_local(group).await, Err(ShelfError::NotAPatient(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_leaves_the_records_and_nothing_else() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 40).await;
    let (before, source) = (a.objects.total_size().await.unwrap(), a.export(&patient, Which::Held).await);
    migrate("one", (&a, &patient), (&b, &theirs), &Scope::full()).await;
    assert!(a.objects.total_size().await.unwrap() > before);
    for hospital in [&a, &b] {
        hospital.shelf.discard(&session("one")).await.unwrap();
        hospital.shelf.discard(&session("one")).await.unwrap();
        for space in [Space::Snapshot, Space::Staged, Space::Filed, Space::Frontier] {
            assert_eq!(hospital.store.count(space, &Key::empty()).await.unwrap(), 0, "{space:?}");
        }
    }
    assert_eq!(a.objects.total_size().await.unwrap(), before);
    assert_eq!(b.objects.total_size().await.unwrap(), before);
    assert_eq!(a.export(&patient, Which::Held).await, source);
    assert_eq!(b.export(&theirs, Which::Filed(origin())).await, source);
    assert!(b.store.count(Space::Chart, &rows::chart(&theirs, origin().as_str())).await.unwrap() > 0);
}
