//! What stays and why, told beforehand: previews, hides, items that the hospital itself keeps back.

use super::*;
use crate::shelf::{MAX_ITEMS, Mark, WITHHELD_BY_SOURCE, rows};
use waybill_record::resource::ResourceKey;
use waybill_record::types::ResourceType;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","name":[{"family":"Lovelace"}]}"#;

fn of_patient(of_type: &str, id: &str, more: &str) -> String {
    format!(r#"{{"resourceType":"{of_type}","id":"{id}","subject":{{"reference":"Patient/p"}}{more}}}"#)
}

/// A patient with two conditions, one of which an observation names, an allergy and a report that is not final.
async fn hospital() -> (Hospital, LocalPatient) {
    let allergy = r#"{"resourceType":"AllergyIntolerance","id":"al","patient":{"reference":"Patient/p"},"code":{"text":"Peanut"}}"#;
    let items = [
        PATIENT.to_owned(),
        of_patient(
            "Condition",
            "c1",
            r#","code":{"coding":[{"code":"38341003","display":"Hypertension"}]},"onsetDateTime":"2019-05-03T10:00:00Z""#,
        ),
        of_patient("Condition", "c2", r#","code":{"text":"About a neighbour"}"#),
        of_patient("Observation", "o", r#","status":"final","hasMember":[{"reference":"Condition/c1"}]"#),
        of_patient("DiagnosticReport", "d", r#","status":"preliminary""#),
        allergy.to_owned(),
    ];
    let entries: Vec<String> = items.iter().map(|item| format!(r#"{{"resource":{item}}}"#)).collect();
    let bundle = format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{}]}}"#, entries.join(","));
    let hospital = Hospital::in_memory();
    hospital.load("bundle.json", bundle.into_bytes(), Purpose::Record).await.unwrap();
    (hospital, LocalPatient("p".to_owned()))
}

fn key(name: &str) -> ResourceKey {
    name.parse().unwrap()
}

async fn mark(hospital: &Hospital, patient: &LocalPatient, items: &[&str]) -> Result<(), ShelfError> {
    let mark = Mark { reason: "third-party".into(), by: "anna".into(), at: NOW };
    let ops = hospital.shelf.mark(patient, items.iter().map(|item| key(item)).collect(), &mark).await?;
    hospital.store.commit(Batch { name: "test", ops }).await.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_a_migration_then_does() {
    let (a, patient) = hospital().await;
    let scope = scope("types=!AllergyIntolerance;labels=*");
    let hides = Hides::parse(["Condition/c1", "Condition/none"]).unwrap();
    let preview = a.shelf.preview(&patient, &Scope::full(), &scope, &hides, NOW, 1 << 40).await.unwrap();
    assert_eq!(preview.held.iter().map(|line| line.count).sum::<u64>(), 6);
    assert_eq!(preview.offered.iter().map(|line| line.count).sum::<u64>(), 4);
    let kept: Vec<_> = preview.kept.iter().map(|k| (k.resource_type.as_str(), k.reason.as_str(), k.count)).collect();
    assert_eq!(kept, [("AllergyIntolerance", "type-not-in-scope", 1), ("Condition", "hidden", 1)]);
    let hidden: Vec<_> = preview.hidden.iter().map(|h| (h.held, h.mentioned_in.clone(), h.mentioned_total)).collect();
    assert_eq!(
        hidden,
        [(true, vec!["Observation/o reference hasMember[0].reference".to_owned()], 1), (false, Vec::new(), 0)]
    );
    assert_eq!((preview.warnings[0].resource_type.as_str(), preview.warnings[0].count), ("AllergyIntolerance", 1));
    let pending: Vec<_> = preview.pending.iter().map(|p| (p.resource_type.as_str(), p.status.as_str())).collect();
    assert_eq!(pending, [("DiagnosticReport", "preliminary")]);
    // Nothing of the look is left, and the migration itself has the same size.
    for space in [Space::Snapshot, Space::Frontier, Space::Loss] {
        assert_eq!(a.store.count(space, &Key::empty()).await.unwrap(), 0, "{space:?}");
    }
    let frozen = a.shelf.freeze_scope(session("one"), patient.clone(), scope, hides, NOW).await.unwrap();
    assert_eq!((frozen.inventory, frozen.held), (preview.offered, 6));
    assert_eq!(a.stage("one").await.unwrap().stream_bytes, preview.stream_bytes);
}

/// What was hidden is the condition; its code, its name and its note are still in four items that move.
async fn clinic() -> (Hospital, LocalPatient) {
    let coded = r#"{"coding":[{"system":"http://snomed.info/sct","code":"86406008","display":"HIV infection"}]}"#;
    let div = r#"<div xmlns=\"http://www.w3.org/1999/xhtml\">Therapy of <b>HIV</b> infection</div>"#;
    let note = r#"{"attachment":{"contentType":"text/plain","data":"S25vd24gSElWIGluZmVjdGlvbi4="}}"#;
    let other = r#"{"resourceType":"Patient","id":"q"}"#;
    let items = [
        PATIENT.to_owned(),
        other.to_owned(),
        of_patient("Condition", "hiv", &format!(r#","code":{coded}"#)),
        of_patient("Condition", "of-q", &format!(r#","code":{coded}"#)).replace("Patient/p", "Patient/q"),
        of_patient("Encounter", "e", &format!(r#","reasonCode":[{coded}]"#)),
        of_patient("MedicationRequest", "m", r#","reasonCode":[{"text":"Hiv Infection"}]"#),
        of_patient("CarePlan", "cp", &format!(r#","text":{{"div":"{div}"}}"#)),
        of_patient("DocumentReference", "n", &format!(r#","content":[{note}]"#)),
        of_patient("Observation", "o", r#","status":"final""#),
    ];
    let hospital = Hospital::in_memory();
    hospital.load("items.ndjson", items.join("\n").into_bytes(), Purpose::Record).await.unwrap();
    (hospital, LocalPatient("p".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_item_is_found_by_code_and_name_in_what_moves() {
    let (a, patient) = clinic().await;
    let hides = Hides::parse(["Condition/hiv"]).unwrap();
    let expected = [
        "CarePlan/cp text text.div",
        "DocumentReference/n text content[0].attachment.data",
        "Encounter/e code reasonCode[0].coding[0].code",
        "Encounter/e text reasonCode[0].coding[0].display",
        "MedicationRequest/m text reasonCode[0].text",
    ];
    let preview = a.shelf.preview(&patient, &Scope::full(), &Scope::full(), &hides, NOW, 1).await.unwrap();
    assert_eq!(
        (preview.hidden[0].mentioned_total, &preview.hidden[0].mentioned_in[..]),
        (4, &expected.map(str::to_owned)[..])
    );
    // The source's own report of the migration says the same.
    a.shelf.freeze_scope(session("one"), patient.clone(), Scope::full(), hides.clone(), NOW).await.unwrap();
    let row = a.store.load(Space::Loss, &rows::loss(&session("one"))).await.unwrap().unwrap();
    let loss: waybill_record::loss::LossReport = rows::decode("loss", &row.value).unwrap();
    assert_eq!(loss.still_mentioned().1, 4);
    // Whoever marks an item is told too.
    let naming = a.shelf.still_naming(&patient, &[key("Condition/hiv")]).await.unwrap();
    assert_eq!(naming.1, 4, "{:?}", naming.0);
    mark(&a, &patient, &["Condition/hiv"]).await.unwrap();
    assert_eq!(a.shelf.still_naming(&patient, &[key("Condition/hiv")]).await.unwrap().1, 4, "marked already");
    // What the hospital keeps back is not explained by what else bears its name.
    let preview = a.shelf.preview(&patient, &Scope::full(), &Scope::full(), &hides, NOW, 1).await.unwrap();
    assert_eq!((preview.hidden[0].held, preview.hidden[0].mentioned_total), (false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_at_what_one_may_not_read_is_not_answered_by_its_mentions() {
    let (a, patient) = clinic().await;
    let all = Scope::full();
    let others = Hides::parse(["Condition/of-q"]).unwrap();
    let preview = a.shelf.preview(&patient, &all, &all, &others, NOW, 1).await.unwrap();
    assert_eq!((preview.hidden[0].held, preview.hidden[0].mentioned_total), (false, 0), "another patient's");
    let hides = Hides::parse(["Condition/hiv"]).unwrap();
    let limits = scope("types=!Condition;labels=*");
    let preview = a.shelf.preview(&patient, &limits, &all, &hides, NOW, 1).await.unwrap();
    assert_eq!(
        (preview.hidden[0].held, preview.hidden[0].mentioned_total),
        (false, 0),
        "the item is beyond the limits"
    );
    let limits = scope("types=!Encounter;labels=*");
    let preview = a.shelf.preview(&patient, &limits, &all, &hides, NOW, 1).await.unwrap();
    assert_eq!(preview.hidden[0].mentioned_total, 3, "what mentions it is beyond the limits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_key_is_told_nothing_of_what_lies_outside_its_limits() {
    let (a, patient) = hospital().await;
    let limits = scope("types=Observation,DiagnosticReport,Condition;labels=*");
    let asked = scope("types=Observation,DiagnosticReport;labels=*");
    let hides = Hides::parse(["AllergyIntolerance/al", "Condition/c1"]).unwrap();
    let preview = a.shelf.preview(&patient, &limits, &asked, &hides, NOW, 1).await.unwrap();
    let held: Vec<_> = preview.held.iter().map(|line| (line.resource_type.as_str(), line.count)).collect();
    assert_eq!(held, [("Condition", 2), ("DiagnosticReport", 1), ("Observation", 1)], "no allergy, no patient");
    assert!(preview.kept.iter().all(|kept| kept.resource_type == "Condition"), "{:?}", preview.kept);
    assert!(preview.warnings.is_empty(), "a warning would tell of the allergy");
    let found: Vec<bool> = preview.hidden.iter().map(|hidden| hidden.held).collect();
    assert_eq!(found, [false, true], "a guess outside the limits is not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_listed_by_what_they_are_called() {
    let (a, patient) = hospital().await;
    let conditions = ResourceType::parse("Condition").unwrap();
    let (items, more) = a.shelf.items(&patient, &Scope::full(), conditions, None, MAX_ITEMS).await.unwrap();
    let told: Vec<_> = items.iter().map(|i| (i.id.as_str(), i.date.as_deref(), i.title.as_deref())).collect();
    assert_eq!(told, [("c1", Some("2019-05-03"), Some("Hypertension")), ("c2", None, Some("About a neighbour"))]);
    assert!(!more);
    let (items, _) = a.shelf.items(&patient, &Scope::full(), conditions, Some("c1"), MAX_ITEMS).await.unwrap();
    assert_eq!(items.len(), 1);
    let narrow = scope("types=Observation");
    assert!(
        a.shelf.items(&patient, &narrow, conditions, None, MAX_ITEMS).await.unwrap().0.is_empty(),
        "outside the key's limits"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_keeps_back_is_told_as_a_number_and_is_not_in_the_digest() {
    let (a, patient) = hospital().await;
    a.freeze("before", &patient, &Scope::full()).await.unwrap();
    let before = a.stage("before").await.unwrap();
    mark(&a, &patient, &["Condition/c2"]).await.unwrap();
    a.freeze("after", &patient, &Scope::full()).await.unwrap();
    let after = a.stage("after").await.unwrap();
    assert_ne!(before.digest_full, after.digest_full);
    assert_eq!(after.digest_full, after.digest_scope, "nothing of it is in either");
    let told: waybill_record::loss::LossReport = minicbor::decode(&after.loss).unwrap();
    assert_eq!((told.counts().withheld, told.counts().not_movable), (0, 1), "it is not the patient who keeps it back");
    let reasons = &told.reasons()[&waybill_record::loss::LossOutcome::NotMovable];
    assert_eq!(reasons.get(WITHHELD_BY_SOURCE), Some(&1));
    assert!(told.items().0.is_empty(), "a number, not the item");

    let hides = Hides::parse(["Condition/c2"]).unwrap();
    let preview = a.shelf.preview(&patient, &Scope::full(), &Scope::full(), &hides, NOW, 1).await.unwrap();
    assert!(!preview.hidden[0].held, "whether a patient's guess is right is not told");
    assert!(preview.kept.iter().any(|k| k.reason == WITHHELD_BY_SOURCE && k.count == 1));
    let conditions = ResourceType::parse("Condition").unwrap();
    let (items, _) = a.shelf.items(&patient, &Scope::full(), conditions, None, MAX_ITEMS).await.unwrap();
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["c1"]);
    let own = String::from_utf8(a.export(&patient, Which::Held).await).unwrap();
    assert!(own.contains("About a neighbour"), "the hospital keeps nothing back from itself");

    let ops = a.shelf.unmark(&patient, &[key("Condition/c2")]);
    a.store.commit(Batch { name: "test", ops }).await.unwrap();
    a.freeze("lifted", &patient, &Scope::full()).await.unwrap();
    assert_eq!(a.stage("lifted").await.unwrap().digest_full, before.digest_full);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_held_items_are_marked_and_what_still_names_them_is_told() {
    let (a, patient) = hospital().await;
    for wrong in ["Condition/none", "Patient/p"] {
        assert!(matches!(mark(&a, &patient, &[wrong]).await, Err(ShelfError::NoSuchItem)), "{wrong}");
    }
    mark(&a, &patient, &["Condition/c1"]).await.unwrap();
    let marked = a.shelf.marked(&patient).await.unwrap();
    assert_eq!((marked[0].0.to_string().as_str(), marked[0].1.by.as_str()), ("Condition/c1", "anna"));
    let naming = a.shelf.still_naming(&patient, &[key("Condition/c1")]).await.unwrap();
    assert_eq!(naming, (vec!["Observation/o".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hospital_makes_joins_the_chart_under_its_own_name_and_travels_on() {
    let (a, patient) = hospital().await;
    let own = HospitalId::parse("hospital-b.example").unwrap();
    let made = of_patient("Consent", "made", "").replace("subject", "patient");
    let ops = a.shelf.made_here(&own, &patient, &session("one"), vec![made.clone().into_bytes()]).unwrap();
    a.store.commit(Batch { name: "test", ops }).await.unwrap();
    let exported = a.export(&patient, Which::Filed(own)).await;
    assert_eq!(String::from_utf8(exported).unwrap(), format!("{made}\n"));
    assert!(a.export(&patient, Which::Filed(origin())).await.is_empty(), "not among what came from elsewhere");
    let all = String::from_utf8(a.export(&patient, Which::Held).await).unwrap();
    assert!(all.contains(&made) && all.lines().count() == 7);
}
