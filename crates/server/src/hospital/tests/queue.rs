//! Cases as staff and time decide them, and what becomes of them after a restore.

use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::wire::Parcel;

use super::common::{A, B, DAY, Migration, Step, demographics};
use super::*;
use crate::hospital::engine::Queue;
use crate::hospital::incarnation::backup_mark;
use crate::party::deadlines::Sleeper as _;

/// A request whose two patients are not certainly one person.
fn doubtful(world: &mut World) -> Migration {
    world.b.patient = demographics("patient-at-b", "Lovelace", "1815");
    world.migrate(1, Step::Requested)
}

fn request(m: &Migration) -> Vec<u8> {
    Parcel::pack(Kind::TransferRequest, m.request.as_ref().unwrap())
}

async fn source(house: &House, m: &Migration) -> SourceCase {
    house.engine.source_case(&m.proof.id()).await.unwrap().unwrap().0
}

#[tokio::test]
async fn a_doubt_goes_to_a_person_who_sees_both_patients_and_releases() {
    let mut world = World::new();
    let m = doubtful(&mut world);
    let house = House::new(&world, &world.a).await;
    house.engine.handle(&request(&m)).await.unwrap();
    let case = source(&house, &m).await;
    let entry = house.engine.queue_of_source(&case);
    assert_eq!((entry.queue, entry.who), (Queue::NeedsIdentityCheck, Some("records-officer")));
    assert_eq!(entry.due, Some(NOW.plus(common::REVIEW_SECONDS)));
    assert!(house.kinds().await.is_empty(), "the authority is not asked before a person decided");
    let both = house.engine.both_patients(&officer("anna"), &m.proof.id()).await.unwrap();
    assert_eq!(
        (both.ours.birth_date.as_deref(), both.theirs.birth_date.as_deref()),
        (Some("1815-12-10"), Some("1815"))
    );
    assert_eq!(both.differences, ["birth date: inexact"]);
    house.engine.approve(&officer("anna"), &m.proof.id()).await.unwrap();
    assert_eq!(source(&house, &m).await.state, SourceState::Redeeming);
    assert_eq!(house.kinds().await, [("authority".to_owned(), Kind::Redeem)]);
    assert_eq!(refused(house.engine.approve(&officer("anna"), &m.proof.id()).await), Code::UnexpectedMessage);
    let shown = house.trail().await;
    assert_eq!(shown.iter().filter(|row| row.action == "review-identity").count(), 2, "looking and deciding");
}

#[tokio::test]
async fn a_review_that_nobody_made_in_time_refuses_the_case() {
    let mut world = World::new();
    let m = doubtful(&mut world);
    let house = House::new(&world, &world.a).await;
    house.engine.handle(&request(&m)).await.unwrap();
    house.turn(NOW.plus(common::REVIEW_SECONDS));
    house.engine.wake(m.proof.id().0).await.unwrap();
    assert_eq!(source(&house, &m).await.state, SourceState::AwaitingReview, "its last second is not over");
    house.sent().await;
    house.turn(NOW.plus(common::REVIEW_SECONDS + 1));
    house.engine.wake(m.proof.id().0).await.unwrap();
    let case = source(&house, &m).await;
    assert_eq!((case.state, case.code), (SourceState::Refused, Some(Code::ReviewOverdue)));
    let expected = [("authority", Kind::Revocation), ("authority", Kind::Refusal), (B, Kind::Refusal)];
    assert_eq!(house.kinds().await, expected.map(|(to, kind)| (to.to_owned(), kind)));
    assert_eq!(refused(house.engine.approve(&officer("anna"), &m.proof.id()).await), Code::UnexpectedMessage);
    assert!(house.actions().await.contains(&("review-overdue".into(), "review-overdue".into())));
}

#[tokio::test]
async fn staff_stops_a_case_until_the_key_is_released() {
    let mut world = World::new();
    let (early, late, over) =
        (world.migrate(1, Step::Granted), world.migrate(2, Step::Lodged), world.migrate(3, Step::Closed));
    let house = House::new(&world, &world.a).await;
    for m in [&early, &late, &over] {
        house.put_source(&m.source()).await;
    }
    house.engine.abort(&officer("anna"), &early.proof.id(), "a mistake").await.unwrap();
    let case = source(&house, &early).await;
    assert_eq!((case.state, case.code), (SourceState::Refused, Some(Code::StoppedByStaff)));
    house.sent().await;
    house.engine.abort(&officer("anna"), &late.proof.id(), "a mistake").await.unwrap();
    assert_eq!(source(&house, &late).await.state, SourceState::Lodged, "the authority decides");
    let expected = [("authority", Kind::Revocation), (B, Kind::Revocation)];
    assert_eq!(house.kinds().await, expected.map(|(to, kind)| (to.to_owned(), kind)));
    let too_late = house.engine.abort(&officer("anna"), &over.proof.id(), "a mistake").await;
    assert_eq!(refused(too_late), Code::UnexpectedMessage);
    assert!(house.sent().await.is_empty());
    let refusal = house.engine.refuse(&officer("anna"), &late.proof.id(), "not one person").await;
    assert_eq!(refused(refusal), Code::UnexpectedMessage, "the manifest is out");
}

#[tokio::test]
async fn the_destination_stops_too_and_tells_source_authority_and_patient() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Requested);
    let house = House::new(&world, &world.b).await;
    house.put_destination(&m.destination()).await;
    house.engine.abort(&officer("anna"), &m.proof.id(), "not ours").await.unwrap();
    let (case, _) = house.engine.destination_case(&m.proof.id()).await.unwrap().unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::StoppedByStaff)));
    let sent = house.kinds().await;
    for (to, kind) in [(A, Kind::Refusal), ("authority", Kind::Revocation), ("patient", Kind::Refusal)] {
        assert!(sent.contains(&(to.to_owned(), kind)), "{to} {kind:?}");
    }
}

#[tokio::test]
async fn a_request_that_comes_again_and_again_does_not_send_the_record_each_time() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Lodged);
    let house = House::new(&world, &world.a).await;
    house.put_source(&m.source()).await;
    let request = request(&m);
    house.engine.handle(&request).await.unwrap();
    assert_eq!(house.kinds().await, [(B.to_owned(), Kind::Manifest)]);
    house.engine.handle(&request).await.unwrap();
    assert!(house.sent().await.is_empty(), "within the pause nothing is sent");
    house.turn(NOW.plus(61));
    house.engine.handle(&request).await.unwrap();
    assert_eq!(house.kinds().await, [(B.to_owned(), Kind::Manifest)]);
    house.engine.resend(&officer("anna"), &m.proof.id()).await.unwrap();
    assert_eq!(house.kinds().await, [(B.to_owned(), Kind::Manifest)], "staff need not wait");
}

#[tokio::test]
async fn resending_posts_what_each_state_waits_for() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Delivered);
    let house = House::new(&world, &world.b).await;
    house.put_destination(&m.destination()).await;
    house.engine.resend(&officer("anna"), &m.proof.id()).await.unwrap();
    assert_eq!(house.kinds().await, [("authority".to_owned(), Kind::DeliveryReceipt)]);
    let requested = world.migrate(2, Step::Requested);
    house.put_destination(&requested.destination()).await;
    house.engine.resend(&officer("anna"), &requested.proof.id()).await.unwrap();
    assert_eq!(house.kinds().await, [(A.to_owned(), Kind::TransferRequest)]);
    let closed = world.migrate(3, Step::Closed);
    house.put_destination(&closed.destination()).await;
    assert_eq!(refused(house.engine.resend(&officer("anna"), &closed.proof.id()).await), Code::UnexpectedMessage);
}

#[tokio::test]
async fn what_is_past_its_proof_without_an_end_is_overdue() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Lodged);
    let house = House::new(&world, &world.a).await;
    let entry = house.engine.queue_of_source(&m.source());
    assert_eq!((entry.queue, entry.who), (Queue::WaitingForCounterpart, Some("destination")));
    house.turn(NOW.plus(8 * DAY));
    assert_eq!(house.engine.queue_of_source(&m.source()).queue, Queue::Overdue);
}

/// A restored hospital ends what was open, destroys what was secret, and lets nothing be used twice.
#[tokio::test]
async fn a_hospital_from_a_backup_is_a_new_incarnation() {
    let mut world = World::new();
    let (at_b, at_a) = (world.migrate(1, Step::Requested), world.migrate(2, Step::Lodged));
    let (b, a) = (House::new(&world, &world.b).await, House::new(&world, &world.a).await);
    assert_eq!(b.engine.enter().await.unwrap(), None);
    assert_eq!(b.engine.enter().await.unwrap(), None, "an ordinary restart changes nothing");
    b.put_destination(&at_b.destination()).await;
    b.engine.one_time.keep(&at_b.destination().session.0, &at_b.secret()).unwrap();
    let mark = |house: &House| {
        let store = house.store.clone();
        async move { store.commit(Batch::new("test").put(Space::Setting, backup_mark(), vec![1], Expect::Any)).await }
    };
    mark(&b).await.unwrap();
    assert!(b.engine.enter().await.unwrap().unwrap().contains("backup"));
    assert!(
        b.engine.one_time.find(&at_b.destination().session.0).unwrap().is_none(),
        "no key outlives its incarnation"
    );
    assert!(b.kinds().await.contains(&(A.to_owned(), Kind::Refusal)), "the source hears that the session is lost");
    let (case, _) = b.engine.destination_case(&at_b.proof.id()).await.unwrap().unwrap();
    assert_eq!(case.code, Some(Code::SessionLost));
    assert_eq!(b.engine.enter().await.unwrap(), None, "once is enough");

    a.put_source(&at_a.source()).await;
    a.engine.enter().await.unwrap();
    let wish = crate::hospital::engine::CodeWish {
        local: a.local.clone(),
        relation: waybill_protocol::messages::Relation::OneSelf,
        limits: waybill_protocol::messages::Limits::none(),
        key_expires: NOW.plus(DAY),
    };
    a.engine.issue_code(&officer("anna"), wish).await.unwrap();
    mark(&a).await.unwrap();
    a.engine.enter().await.unwrap();
    let case = source(&a, &at_a).await;
    assert_eq!((case.state, case.code), (SourceState::AttemptFailed, Some(Code::SessionLost)));
    let sent = a.kinds().await;
    assert!(sent.contains(&(B.to_owned(), Kind::Refusal)) && sent.contains(&("authority".to_owned(), Kind::Refusal)));
    assert_eq!(a.store.count(Space::Enrolment, &Key::empty()).await.unwrap(), 0, "a used code may not come back");
    // The same request again is an old session: only the next attempt may open one.
    a.engine.handle(&request(&at_a)).await.unwrap();
    assert!(a.sent().await.is_empty());
    assert_eq!(source(&a, &at_a).await.state, SourceState::AttemptFailed);
}

#[tokio::test]
async fn one_time_keys_that_are_gone_or_ahead_show_an_older_database() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    house.engine.enter().await.unwrap();
    house.engine.note(AuditRow::new(audit::Actor::System, "something")).await.unwrap();
    house.engine.note_progress().await.unwrap();
    let outside = house.engine.one_time.outside().unwrap().unwrap();
    assert_eq!(outside.audit_rows, 1);
    let ahead = crate::hospital::incarnation::Outside { audit_rows: 2, ..outside };
    house.engine.one_time.note_outside(&ahead).unwrap();
    assert!(house.engine.enter().await.unwrap().unwrap().contains("older"));
    assert!(house.actions().await.iter().any(|(action, _)| action == "new-incarnation"));
}

/// A mailbox that nobody asks.
struct Nowhere(crate::mailbox::MailboxUrl);

#[async_trait]
impl crate::mailbox::Inbox for Nowhere {
    fn url(&self) -> &crate::mailbox::MailboxUrl {
        &self.0
    }
    async fn letters(
        &self,
        _: Option<u64>,
        _: std::time::Duration,
    ) -> Result<Vec<crate::mailbox::Letter>, crate::mailbox::InboxError> {
        Ok(Vec::new())
    }
    async fn acknowledge(&self, _: u64) -> Result<(), crate::mailbox::InboxError> {
        Ok(())
    }
    async fn blob(&self, _: &waybill_store::Address) -> Result<bytes::Bytes, crate::mailbox::InboxError> {
        Err(crate::mailbox::InboxError::NoBlob)
    }
    async fn delete_blob(&self, _: &waybill_store::Address) -> Result<(), crate::mailbox::InboxError> {
        Ok(())
    }
    async fn blobs(
        &self,
        _: Option<&waybill_store::Address>,
    ) -> Result<Vec<crate::mailbox::BlobEntry>, crate::mailbox::InboxError> {
        Ok(Vec::new())
    }
}

/// When a session is over, its chunks that are still queued are withdrawn, its one-time key is destroyed, and the case leaves the list of
/// open ones; letters of the same case are not touched.
#[tokio::test]
async fn what_is_left_of_a_session_goes_when_it_is_over() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Closed);
    let house = House::new(&world, &world.a).await;
    let case = m.source();
    house.put_source(&case).await;
    let slot = crate::hospital::work::reply_slot(&case);
    house.engine.one_time.keep(&slot, m.reply_secret.as_ref().unwrap()).unwrap();
    let item = |reply_key: Vec<u8>, blob: Option<[u8; 32]>| {
        Op::Enqueue(waybill_store::OutboxItem {
            to: B.to_owned(),
            body: if blob.is_some() { Vec::new() } else { Parcel::pack(Kind::Manifest, &m.manifest.clone().unwrap()) },
            reply_key,
            not_before: 0,
            deadline: u64::MAX / 4,
            kind: "test".to_owned(),
            blob: blob.map(waybill_store::Address::from_bytes),
            settle_on_delivery: true,
        })
    };
    let chunks = crate::hospital::work::chunks_key(&case.session);
    let ops = vec![item(chunks, Some([1; 32])), item(vec![1], Some([2; 32])), item(vec![2], None)];
    house.store.commit(Batch { name: "test", ops }).await.unwrap();
    let url = crate::mailbox::MailboxUrl::new(
        "relay.example",
        crate::mailbox::MailboxId::of(world.a.identity.signing.public()),
    );
    let worker = crate::hospital::work::Worker {
        engine: house.engine.clone(),
        inbox: Arc::new(Nowhere(url.unwrap())),
        stages: crate::hospital::work::Stages::default(),
    };
    worker.clean(m.proof.id()).await.unwrap();
    assert!(house.engine.one_time.find(&slot).unwrap().is_none());
    assert_eq!(house.store.outbox_count().await.unwrap(), 2, "only this session's chunks are withdrawn");
    assert!(house.engine.open_cases().await.unwrap().is_empty());
    worker.clean(m.proof.id()).await.unwrap();
}
