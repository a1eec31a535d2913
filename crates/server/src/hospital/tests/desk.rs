//! Registrations, logins and the keys that speak for a patient.

use waybill_crypto::digest::sha256;
use waybill_protocol::ids::Nonce;
use waybill_protocol::messages::{Limits, LoginOutcome, Purpose, Relation};
use waybill_protocol::patient::Enrolment;
use waybill_protocol::registrar::EnrolmentCode;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor};
use waybill_record::hides::Hides;

use super::common::{REPLY, preview_all};
use super::*;
use crate::hospital::engine::{CodeWish, Countersigned};

async fn ask(world: &World, house: &House, purpose: Purpose) -> LoginOutcome {
    let (exchange, login) = world.patient().login(&world.a.contact, purpose, REPLY).unwrap();
    house.engine.handle(&login).await.unwrap();
    let mut sent = house.sent().await;
    assert_eq!(sent.len(), 1);
    let (to, _, answer) = sent.remove(0);
    assert_eq!(to, "patient");
    world.patient().read_login(&exchange, &world.a.contact, &answer).unwrap().outcome
}

#[tokio::test]
async fn a_login_is_good_once() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let (_, login) = world.patient().login(&world.a.contact, preview_all(), REPLY).unwrap();
    house.engine.handle(&login).await.unwrap();
    assert_eq!(house.sent().await.len(), 1);
    assert_eq!(refused(house.engine.handle(&login).await), Code::LoginReplayed);
    house.turn(world.now.plus(200));
    assert_eq!(refused(house.engine.handle(&login).await), Code::LoginReplayed, "the next minutes, too");
    assert!(house.sent().await.is_empty(), "nothing is answered twice");
}

#[tokio::test]
async fn a_patient_who_asks_without_end_is_refused_and_nobody_else_is() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let ask_preview = || ask(&world, &house, preview_all());
    for _ in 0..60 {
        assert!(matches!(ask_preview().await, LoginOutcome::Preview { .. }));
    }
    let voucher = ask_preview().await;
    assert!(matches!(voucher, LoginOutcome::Refused { code: Code::LoginRefused }), "{voucher:?}");
    let watch = Purpose::Watch { proof: waybill_protocol::ids::ProofId(sha256(&[b"none"])) };
    let watched = ask(&world, &house, watch).await;
    assert!(matches!(watched, LoginOutcome::Refused { code: Code::UnknownCase }), "watching is not counted");
    house.turn(world.now.plus(10));
    assert!(matches!(ask_preview().await, LoginOutcome::Preview { .. }), "after a while they may ask again");
}

#[tokio::test]
async fn the_same_login_twice_at_once_is_answered_once() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let (_, login) = world.patient().login(&world.a.contact, preview_all(), REPLY).unwrap();
    let (one, two) = tokio::join!(house.engine.handle(&login), house.engine.handle(&login));
    one.unwrap();
    assert_eq!(refused(two), Code::LoginReplayed);
    assert_eq!(house.sent().await.len(), 1);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_while_its_login_waits_for_a_turn_is_told_nothing() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let (_, login) = world.patient().login(&world.a.contact, preview_all(), REPLY).unwrap();
    let turn = house.engine.turns.wait(&house.local).await.unwrap();
    let withdrawal = async {
        while house.engine.turns.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        house.engine.take_keys_away(&officer("anna"), &house.local, None, "stolen").await.unwrap();
        drop(turn);
    };
    let (answered, ()) = tokio::join!(house.engine.handle(&login), withdrawal);
    assert!(matches!(answered, Err(ServiceError::Raced)), "the letter is shown again: {answered:?}");
    assert_eq!(refused(house.engine.handle(&login).await), Code::LoginRefused);
    assert!(house.sent().await.is_empty());
}

#[tokio::test]
async fn a_patient_is_told_what_is_held_what_can_be_hidden_and_who_looked() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let hides = Hides::parse(["Condition/none"]).unwrap();
    let scope = waybill_record::scope::Scope::full();
    let LoginOutcome::Preview { preview } = ask(&world, &house, Purpose::Preview { scope, hides }).await else {
        panic!("a preview was asked for")
    };
    assert_eq!((preview.held[0].resource_type.as_str(), preview.held[0].count), ("Patient", 1));
    assert_eq!(preview.offered, preview.held);
    assert_eq!((preview.hidden[0].held, preview.hidden[0].mentioned_total), (false, 0));
    assert!(preview.stream_bytes > preview.offered[0].size_bytes);
    let items = Purpose::Items { resource_type: "Patient".into(), after: None };
    let LoginOutcome::Items { items, more } = ask(&world, &house, items).await else { panic!("items were asked for") };
    assert_eq!((items.len(), more, items[0].id.as_str()), (1, false, house.local.0.as_str()));
    let after = Purpose::Items { resource_type: "Patient".into(), after: Some(house.local.0.clone()) };
    assert!(matches!(ask(&world, &house, after).await, LoginOutcome::Items { items, .. } if items.is_empty()));
    let nonsense = Purpose::Items { resource_type: "Nonsense".into(), after: None };
    assert!(matches!(ask(&world, &house, nonsense).await, LoginOutcome::Refused { code: Code::Malformed }));
    let LoginOutcome::Disclosures { entries, more } = ask(&world, &house, Purpose::Disclosures { after: 0 }).await
    else {
        panic!("disclosures were asked for")
    };
    let told: Vec<_> = entries.iter().map(|e| (e.number, e.role.as_str(), e.action.as_str())).collect();
    assert_eq!(told, [(1, "patient", "previewed"), (2, "patient", "items-listed"), (3, "patient", "items-listed")]);
    assert!(!more);
    let LoginOutcome::Disclosures { entries, .. } = ask(&world, &house, Purpose::Disclosures { after: 2 }).await else {
        panic!("disclosures were asked for")
    };
    assert_eq!(entries.iter().map(|e| e.number).collect::<Vec<_>>(), [3, 4]);
}

fn wish(house: &House, relation: Relation) -> CodeWish {
    CodeWish { local: house.local.clone(), relation, limits: Limits::none(), key_days: Some(1) }
}

#[tokio::test]
async fn an_attested_key_takes_two_members_of_staff_and_one_form() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let (form, other) = (sha256(&[b"a signed form"]), sha256(&[b"another form"]));
    let asked = wish(&house, Relation::RegistrarAttested);
    let number = house.engine.attest(&officer("anna"), asked.clone(), form).await.unwrap();
    let alone = house.engine.countersign(&officer("anna"), &number, asked.clone(), form).await.map(drop);
    assert_eq!(refused(alone), Code::CodeInvalid);
    let another = house.engine.countersign(&officer("berta"), &number, asked.clone(), other).await.unwrap();
    assert_eq!(another, Countersigned::Differs(vec!["form"]));
    let denied = house.actions().await.into_iter().filter(|(_, outcome)| outcome == "denied").count();
    assert_eq!(denied, 2, "refusals are written down");
    let whole = house.engine.countersign(&officer("berta"), &number, asked.clone(), form).await.unwrap();
    let Countersigned::Whole { code, first, .. } = whole else { panic!("two are two") };
    assert_eq!(first, "anna");
    let again = house.engine.countersign(&officer("carla"), &number, asked, form).await.map(drop);
    assert_eq!(refused(again), Code::CodeInvalid, "an attestation is good once");
    let identity = &world.a.identity;
    let enrolment = Enrolment { hospital: identity.id.clone(), keys: identity.keys(), mailbox: "x".into(), code };
    let (_, registration) = world.patient().register(&enrolment, 0, REPLY).unwrap();
    house.engine.handle(&registration).await.unwrap();
    let keys = house.engine.keys_of(&house.local).await.unwrap();
    let attested = keys.iter().find_map(|view| view.key.attestation.clone()).expect("the key says who attested it");
    assert_eq!((attested.form, attested.staff), (form, vec!["anna".to_owned(), "berta".to_owned()]));
    assert_eq!(keys[0].key.expires, NOW.plus(86_400));
}

/// Nobody gets a colleague's signature for another patient, or for more, than the colleague says.
#[tokio::test]
async fn what_is_countersigned_is_what_was_attested() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let form = sha256(&[b"a signed form"]);
    let attested = wish(&house, Relation::RegistrarAttested);
    let number = house.engine.attest(&officer("anna"), attested.clone(), form).await.unwrap();
    let narrow = Limits { scope: "types=Immunization".parse().unwrap(), destinations: vec![hospital("b.example")] };
    let cases = [
        (CodeWish { local: LocalPatient("p-1".into()), ..attested.clone() }, vec!["patient"]),
        (CodeWish { relation: Relation::Guardian, ..attested.clone() }, vec!["relation"]),
        (CodeWish { limits: narrow, ..attested.clone() }, vec!["scope", "destinations"]),
        (CodeWish { key_days: None, ..attested.clone() }, vec!["key_days"]),
    ];
    for (meant, members) in cases {
        let outcome = house.engine.countersign(&officer("berta"), &number, meant, form).await.unwrap();
        assert_eq!(outcome, Countersigned::Differs(members));
    }
    assert_eq!(house.store.count(Space::Enrolment, &Key::empty()).await.unwrap(), 0, "nothing was made");
    let trail = house.trail().await;
    let denied: Vec<_> = trail.iter().filter(|row| row.outcome == "denied").collect();
    assert_eq!(denied.len(), 4);
    assert!(denied.iter().all(|row| !row.note.as_deref().unwrap_or_default().contains("p-1")), "members, not contents");
    house.engine.countersign(&officer("berta"), &number, attested, form).await.unwrap();
    let made = house.trail().await.into_iter().rev().find(|row| row.outcome == "done").unwrap();
    let note = made.note.unwrap();
    for part in ["RegistrarAttested", "types=*", "1 days", &form.to_string(), "anna, berta"] {
        assert!(note.contains(part), "{part}: {note}");
    }
}

#[tokio::test]
async fn a_wallet_at_an_unknown_relay_does_not_spend_its_code() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let (code, _) = house.engine.issue_code(&officer("anna"), wish(&house, Relation::OneSelf)).await.unwrap();
    let identity = &world.a.identity;
    let enrolment = Enrolment { hospital: identity.id.clone(), keys: identity.keys(), mailbox: "x".into(), code };
    let (_, elsewhere) = world.patient().register(&enrolment, 0, &format!("{ELSEWHERE}/mailbox/x")).unwrap();
    assert_eq!(refused(house.engine.handle(&elsewhere).await), Code::RegistrationInvalid);
    assert!(house.sent().await.is_empty());
    let (_, registration) = world.patient().register(&enrolment, 0, REPLY).unwrap();
    house.engine.handle(&registration).await.unwrap();
    assert_eq!(house.sent().await.len(), 1, "the code is still good");
}

#[tokio::test]
async fn a_code_carries_its_limits_and_is_kept_as_a_hash() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let limits = Limits { scope: "types=Immunization".parse().unwrap(), destinations: vec![hospital("b.example")] };
    let asked = CodeWish { limits: limits.clone(), ..wish(&house, Relation::Guardian) };
    let (code, _) = house.engine.issue_code(&officer("anna"), asked).await.unwrap();
    let rows = house.store.scan(Space::Enrolment, &Key::empty(), None, 10).await.unwrap();
    let row: EnrolmentCode = from_cbor("code", &rows[0].1.value, MAX_PARCEL_BYTES).unwrap();
    assert_eq!((row.limits, row.relation), (limits, Relation::Guardian));
    let contains = |bytes: &[u8]| bytes.windows(16).any(|window| window == code.0);
    assert!(!contains(&rows[0].1.value) && !contains(rows[0].0.as_bytes()), "the code itself is not stored");
    let nobody = CodeWish { local: LocalPatient("nobody".into()), ..wish(&house, Relation::Guardian) };
    assert!(house.engine.issue_code(&officer("anna"), nobody).await.is_err());
    assert_eq!(Nonce(code.0), code);
}
