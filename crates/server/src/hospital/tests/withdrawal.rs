//! Keys of a lost or stolen wallet: gone in one commit, and nothing that they decided leaves, whatever happens in between.

use std::sync::atomic::AtomicBool;

use waybill_protocol::migration::{DestinationState, SourceState};

use super::common::{Migration, Step, demographics, preview_all};
use super::*;
use crate::hospital::directory::Names;
use crate::hospital::engine::Withdrawn;

/// Somebody withdraws the patient's keys at the worst moment: when everything is checked and nothing is committed.
struct Meanwhile {
    engine: Engine,
    local: LocalPatient,
    done: AtomicBool,
}

#[async_trait]
impl AddressBook for Meanwhile {
    async fn mailbox(&self, to: &Recipient) -> Result<Option<String>, ServiceError> {
        if !self.done.swap(true, Ordering::SeqCst) {
            self.engine.take_keys_away(&officer("anna"), &self.local, None, "stolen").await?;
        }
        Book.mailbox(to).await
    }
}

/// The house in which that happens during the next commit that posts something.
fn meanwhile(house: &House) -> Engine {
    let (engine, local) = (house.engine.clone(), house.local.clone());
    let book = Arc::new(Meanwhile { engine, local, done: AtomicBool::new(false) });
    Engine { book, ..house.engine.clone() }
}

async fn withdraw(house: &House, why: &str) -> Withdrawn {
    house.engine.withdraw_keys(&officer("anna"), &house.local, None, why).await.unwrap()
}

async fn state(house: &House, m: &Migration) -> (SourceState, Option<Code>) {
    let (case, _) = house.engine.source_case(&m.proof.id()).await.unwrap().unwrap();
    (case.state, case.code)
}

const STOPPED: (SourceState, Option<Code>) = (SourceState::Refused, Some(Code::StoppedByStaff));

fn waiting(m: &Migration) -> SourceCase {
    SourceCase { state: SourceState::AwaitingReview, review_by: Some(NOW.plus(60)), ..m.source() }
}

#[tokio::test]
async fn a_withdrawn_key_stops_what_it_decided_and_speaks_no_more() {
    let mut world = World::new();
    let (redeeming, lodged) = (world.migrate(1, Step::Redeeming), world.migrate(2, Step::Lodged));
    let house = House::new(&world, &world.a).await;
    house.put_source(&redeeming.source()).await;
    house.put_source(&lodged.source()).await;
    let done = withdraw(&house, "stolen").await;
    assert_eq!((done.keys, done.before, done.stopped.len()), (1, 0, 2));
    assert!(done.too_late.is_empty() && done.waiting.is_empty());
    assert_eq!(state(&house, &redeeming).await, STOPPED);
    let sent = house.kinds().await;
    let revocations = sent.iter().filter(|(to, kind)| to == "authority" && *kind == Kind::Revocation).count();
    assert_eq!(revocations, 2, "the authority is asked to stop both");
    let (_, login) = world.patient().login(&world.a.contact, preview_all(), common::REPLY).unwrap();
    assert_eq!(refused(house.engine.handle(&login).await), Code::LoginRefused);
    assert!(house.engine.keys_of(&house.local).await.unwrap().is_empty());
    // Asked again, it says what was done, and does nothing twice.
    let again = withdraw(&house, "again").await;
    assert_eq!((again.keys, again.before, again.stopped), (0, 1, done.stopped));
    assert!(house.sent().await.is_empty());
    let stopping = house.trail().await.into_iter().filter(|row| row.action == "withdraw-keys" && row.case.is_some());
    let notes: Vec<String> = stopping.filter_map(|row| row.note).collect();
    assert!(notes.len() == 2 && notes.iter().all(|note| note.contains("stolen")), "who and why is in the trail");
    let nobody = house.engine.withdraw_keys(&officer("anna"), &LocalPatient("nobody".into()), None, "x").await;
    assert_eq!(nobody.unwrap(), Withdrawn::default());
}

#[tokio::test]
async fn a_withdrawal_that_was_interrupted_releases_nothing_and_goes_on() {
    let mut world = World::new();
    let (asked, granted) = (world.migrate(1, Step::Redeeming), world.migrate(2, Step::Granted));
    let reviewed = world.migrate(3, Step::Redeeming);
    let mut answered = asked.clone();
    world.advance(&mut answered, Step::Redeeming, Step::Granted);
    let house = House::new(&world, &world.a).await;
    house.put_source(&waiting(&reviewed)).await;
    house.put_source(&asked.source()).await;
    house.put_source(&granted.source()).await;
    // The commit is made, and the process ends there.
    house.engine.take_keys_away(&officer("anna"), &house.local, None, "stolen").await.unwrap();
    let approved = house.engine.approve(&officer("berta"), &reviewed.proof.id()).await;
    assert_eq!(refused(approved), Code::ConsentSignatureInvalid);
    house.engine.handle(&Parcel::pack(Kind::Grant, answered.grant.as_ref().unwrap())).await.unwrap();
    assert_eq!(state(&house, &asked).await, STOPPED, "a grant that comes in between lets nothing be read");
    house.worker(&world.a).export(granted.proof.id()).await.unwrap();
    assert_eq!(state(&house, &granted).await, STOPPED, "nor is anything frozen or sent");
    assert!(house.kinds().await.iter().all(|(_, kind)| matches!(kind, Kind::Refusal | Kind::Revocation)));
    assert_eq!(state(&house, &reviewed).await.0, SourceState::AwaitingReview);
    house.engine.work_off_withdrawals().await.unwrap();
    assert_eq!(state(&house, &reviewed).await, STOPPED, "the next start goes on");
    house.sent().await;
    house.engine.work_off_withdrawals().await.unwrap();
    let done = withdraw(&house, "again").await;
    assert_eq!((done.keys, done.before, done.stopped.len(), done.waiting.len()), (0, 1, 3, 0));
    assert!(house.sent().await.is_empty());
}

#[tokio::test]
async fn a_request_that_was_verified_before_a_withdrawal_is_not_saved_after_it() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Requested);
    let a = House::new(&world, &world.a).await;
    let request = Parcel::pack(Kind::TransferRequest, m.request.as_ref().unwrap());
    assert_eq!(refused(meanwhile(&a).handle(&request).await), Code::ConsentSignatureInvalid);
    assert!(a.engine.source_case(&m.proof.id()).await.unwrap().is_none());
    let b = House::new(&world, &world.b).await;
    let presentation = Parcel::pack(Kind::Presentation, m.presentation.as_ref().unwrap());
    let raced = meanwhile(&b).handle(&presentation).await;
    assert!(matches!(raced, Err(ServiceError::Raced)), "the mailbox gives it again: {raced:?}");
    assert_eq!(refused(b.engine.handle(&presentation).await), Code::ConsentSignatureInvalid);
    assert!(b.engine.destination_case(&m.proof.id()).await.unwrap().is_none());
}

/// The other order: a case that is opened while the keys are being withdrawn is on the list of what to stop.
#[tokio::test]
async fn opening_a_case_changes_the_registration_it_was_opened_under() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Requested);
    for (house, parcel) in [
        (House::new(&world, &world.a).await, Parcel::pack(Kind::TransferRequest, m.request.as_ref().unwrap())),
        (House::new(&world, &world.b).await, Parcel::pack(Kind::Presentation, m.presentation.as_ref().unwrap())),
    ] {
        let version =
            async || house.store.scan(Space::Registration, &Key::empty(), None, 9).await.unwrap()[0].1.version;
        let before = version().await;
        house.engine.handle(&parcel).await.unwrap();
        assert_ne!(version().await, before, "so the batch that withdraws the key fails, and reads again");
        assert_eq!(withdraw(&house, "stolen").await.stopped, [m.proof.id()]);
    }
}

#[tokio::test]
async fn a_withdrawal_during_an_approval_or_a_grant_wins() {
    let mut world = World::new();
    let (reviewed, asked) = (world.migrate(1, Step::Redeeming), world.migrate(2, Step::Redeeming));
    let mut answered = asked.clone();
    world.advance(&mut answered, Step::Redeeming, Step::Granted);
    let house = House::new(&world, &world.a).await;
    house.put_source(&waiting(&reviewed)).await;
    let approved = meanwhile(&house).approve(&officer("berta"), &reviewed.proof.id()).await;
    assert_eq!(refused(approved), Code::ConsentSignatureInvalid);
    assert_eq!(state(&house, &reviewed).await.0, SourceState::AwaitingReview);
    let house = House::new(&world, &world.a).await;
    house.put_source(&asked.source()).await;
    let (stands, required) = house.engine.consent_stands(&asked.source()).await.unwrap();
    house.engine.take_keys_away(&officer("anna"), &house.local, None, "stolen").await.unwrap();
    let role = house.engine.as_source("Grant", asked.source().own, |s| {
        s.handle_grant(&stands, asked.source(), answered.grant.clone().unwrap()).unwrap().2
    });
    let late = house.engine.save_source("granted", &role.0, Expect::Any, required, role.1).await;
    assert!(matches!(late, Err(ServiceError::Raced)), "a grant that was taken under the old registration is not saved");
}

/// At the destination only what the withdrawn key itself presented is stopped.
#[tokio::test]
async fn the_destination_stops_what_the_withdrawn_key_presented() {
    let mut world = World::new();
    let (theirs, others) = (world.migrate(1, Step::Requested), world.migrate(2, Step::Requested));
    let house = House::new(&world, &world.b).await;
    house.put_destination(&theirs.destination()).await;
    let other = DestinationCase { presenter: waybill_crypto::keys::KeyId([9; 16]), ..others.destination() };
    house.put_destination(&other).await;
    let late = DestinationCase { state: DestinationState::KeyHeld, ..world.migrate(3, Step::Released).destination() };
    house.put_destination(&late).await;
    let done = withdraw(&house, "stolen").await;
    assert_eq!((done.stopped, done.too_late), (vec![theirs.proof.id()], vec![late.proof]));
    let (case, _) = house.engine.destination_case(&theirs.proof.id()).await.unwrap().unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::StoppedByStaff)));
    let (case, _) = house.engine.destination_case(&other.proof).await.unwrap().unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Requested, None));
}

/// With the names of its receivers a decision needs nobody's answer; the sender looks their mailboxes up.
#[tokio::test]
async fn withdrawing_and_stopping_need_no_answer_of_the_authority() {
    let mut world = World::new();
    world.a.patient = demographics("patient-at-a", "Lovelace", "1815-12-10");
    let (one, two) = (world.migrate(1, Step::Redeeming), world.migrate(2, Step::Redeeming));
    let house = House::new(&world, &world.a).await;
    house.put_source(&waiting(&one)).await;
    house.put_source(&two.source()).await;
    let book = Arc::new(Names::new(vec!["https://relay.example".into()]));
    let engine = Engine { book, ..house.engine.clone() };
    engine.abort(&officer("anna"), &two.proof.id(), "a mistake").await.unwrap();
    let done = engine.withdraw_keys(&officer("anna"), &house.local, None, "stolen").await.unwrap();
    assert_eq!((done.stopped.len(), done.waiting.len()), (2, 0));
    let receivers: Vec<String> = house.sent().await.into_iter().map(|(to, _, _)| to).collect();
    assert!(
        receivers.contains(&"authority".to_owned()) && receivers.contains(&"hospital:hospital-b.example".to_owned())
    );
    let patient = Recipient::Mailbox("https://elsewhere.example/x".into());
    assert_eq!(engine.book.mailbox(&patient).await.unwrap(), None, "patients only below relays that are known");
}
