//! Whole migrations: what must come out, and what must not be lost on the way.

use waybill_crypto::keys::{Digest, HpkeSecretKey};
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::messages::{EndState, LoginOutcome, RefusalBody, StatementBody};
use waybill_protocol::migration::{AuthorityState, DestinationState, Effect, Recipient, SourceState};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::source::Granted;
use waybill_protocol::wire::Kind;

use crate::common::*;

#[test]
fn a_record_migrates_and_every_party_holds_the_signed_end() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let statement = m.statement.clone().unwrap();
    assert_eq!(m.authority.state, AuthorityState::Ended(EndState::Filed));
    assert_eq!((m.source().state, m.destination().state), (SourceState::Closed, DestinationState::Closed));
    let receipt = m.source().receipt.unwrap();
    assert_eq!(Some(receipt), m.destination().receipt_opening, "the source reads what the destination wrote");
    let (patient, contact) = (world.patient(), &world.b.contact);
    let ending = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &statement).unwrap();
    assert_eq!(ending.state, EndState::Filed);
    assert_eq!(ending.receipt.unwrap().1, m.detail());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = || {
        let mut world = World::new();
        let m = world.migrate(0, Step::Closed);
        (
            waybill_protocol::wire::to_cbor(&m.source()),
            waybill_protocol::wire::to_cbor(&m.destination()),
            world.log.checkpoint(),
        )
    };
    let (one, two) = (run(), run());
    assert!(one == two, "roles and portable back end are deterministic: a failure can be replayed");
}

#[test]
fn rows_read_back_as_they_were_written_at_every_step() {
    for step in Step::ALL {
        let mut world = World::new();
        let m = world.migrate(0, step);
        reads_back(&m.authority);
        reads_back(&m.draft.terms);
        m.source.iter().for_each(reads_back);
        m.destination.iter().for_each(reads_back);
    }
}

fn reads_back<T>(value: &T)
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + PartialEq,
{
    let bytes = waybill_protocol::wire::to_cbor(value);
    let read: T = waybill_protocol::wire::from_cbor("row", &bytes, 1 << 24).unwrap();
    assert!(&read == value);
}

#[test]
fn the_same_proof_presented_again_is_spent() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let body = m.redeem.clone().unwrap();
    let (from, redeem) = world.authority().verify_redeem(&body).unwrap();
    let again = world.authority().handle_redeem(m.authority.clone(), &from, &body.chain, &redeem, &all_active);
    assert_eq!(code(again), Code::ProofSpent);
}

/// The source gives an attempt up for a reason that may pass, and tells destination and authority.
fn fail_attempt(world: &mut World, m: &mut Migration) {
    let (source, effects) = world.source().abort(m.source(), Code::ClockSkew);
    assert_eq!(source.state, SourceState::AttemptFailed);
    assert!(Granted::resume(&source).is_none(), "the right to read the record ends with the attempt");
    let bodies: Vec<RefusalBody> = effects
        .iter()
        .filter_map(|effect| if let Effect::Post(post) = effect { Some(post) } else { None })
        .map(|post| {
            let parcel = waybill_protocol::wire::Parcel::parse(&post.parcel).unwrap();
            parcel.open(Kind::Refusal, "refusal").unwrap()
        })
        .collect();
    let [to_destination, to_authority] = bodies.as_slice() else { panic!("two refusals") };
    let (authority, effects) = world.authority().handle_refusal(m.authority.clone(), to_authority).unwrap();
    for leaf in leaves(&effects) {
        world.finish(leaf);
    }
    let (destination, _) =
        world.destination().handle_refusal(m.destination(), to_destination, Some(&m.secret())).unwrap();
    assert_eq!(destination.state, DestinationState::AttemptFailed);
    (m.source, m.authority, m.destination) = (Some(source), authority, Some(destination));
}

fn next_attempt(world: &mut World, m: &mut Migration) {
    let (secret, (case, effects)) = world.destination().next_attempt(m.destination(), &world.b.patient).unwrap();
    m.request = Some(posted(&effects, Kind::TransferRequest).open(Kind::TransferRequest, "request").unwrap());
    (m.destination, m.session_secret) = (Some(case), Some(secret));
}

#[test]
fn a_failed_attempt_is_followed_by_one_with_fresh_keys() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Lodged);
    let before = m.clone();
    fail_attempt(&mut world, &mut m);
    assert_eq!((m.authority.state, m.authority.attempt), (AuthorityState::Issued, 2));
    next_attempt(&mut world, &mut m);
    assert_ne!(m.destination().session, before.destination().session);
    assert!(m.secret().public() != before.secret().public());
    world.advance(&mut m, Step::Requested, Step::Closed);
    assert_eq!(m.authority.state, AuthorityState::Ended(EndState::Filed));
}

#[test]
fn nothing_of_a_failed_attempt_counts_in_the_next() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Lodged);
    // A destination that kept going: its receipt for the first attempt is signed and was never used.
    let mut old = m.clone();
    world.advance(&mut old, Step::Lodged, Step::Delivered);
    fail_attempt(&mut world, &mut m);
    next_attempt(&mut world, &mut m);
    world.advance(&mut m, Step::Requested, Step::Granted);
    let lodgement = old.source().lodgement.unwrap();
    let replayed = world.authority().handle_lodgement(m.authority.clone(), &lodgement, &all_active);
    assert_eq!(code(replayed), Code::AttemptInvalid, "else it would stand where the new one belongs");
    let replayed = world.authority().handle_delivery(m.authority.clone(), old.delivery.as_ref().unwrap(), &all_active);
    assert_eq!(code(replayed), Code::AttemptInvalid);
    let replayed = world.source().handle_grant(&world.stands(&m.source()), m.source(), old.grant.clone().unwrap());
    assert_eq!(code(replayed), Code::UnexpectedMessage);
    let replayed =
        world.destination().handle_manifest(m.destination(), old.manifest.as_ref().unwrap(), &m.secret(), u64::MAX);
    assert_eq!(code(replayed), Code::UnexpectedMessage);
    world.advance(&mut m, Step::Granted, Step::Closed);
}

#[test]
fn a_grant_of_the_first_attempt_does_not_serve_the_second() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Granted);
    let old = m.grant.clone().unwrap();
    fail_attempt(&mut world, &mut m);
    next_attempt(&mut world, &mut m);
    world.advance(&mut m, Step::Requested, Step::Redeeming);
    assert_eq!(code(world.source().handle_grant(&world.stands(&m.source()), m.source(), old)), Code::GrantInvalid);
}

#[test]
fn another_attempt_is_made_only_after_one_failed() {
    for step in [Step::Requested, Step::Delivered, Step::Released, Step::Filed, Step::Closed] {
        let mut world = World::new();
        let m = world.migrate(0, step);
        let again = world.destination().next_attempt(m.destination(), &world.b.patient);
        assert_eq!(code(again), Code::UnexpectedMessage, "{step:?}");
    }
}

#[test]
fn two_patients_messages_do_not_mix() {
    // Two cases between the same hospitals in the same state, every answer of one offered to the other.
    let mut world = World::new();
    let mut one = world.migrate(0, Step::Redeeming);
    let mut two = world.migrate(1, Step::Redeeming);
    world.advance(&mut two, Step::Redeeming, Step::Granted);
    let grant = world.source().handle_grant(&world.stands(&one.source()), one.source(), two.grant.clone().unwrap());
    assert_eq!(code(grant), Code::GrantInvalid);
    world.advance(&mut one, Step::Redeeming, Step::Granted);
    world.advance(&mut two, Step::Granted, Step::Lodged);
    let other = two.source().lodgement.unwrap();
    let lodged = world.authority().handle_lodgement(one.authority.clone(), &other, &all_active);
    assert_eq!(code(lodged), Code::LodgementInvalid);
    let manifest = two.manifest.as_ref().unwrap();
    let taken = world.destination().handle_manifest(one.destination(), manifest, &one.secret(), u64::MAX);
    assert_eq!(code(taken), Code::UnexpectedMessage);
    world.advance(&mut one, Step::Granted, Step::Delivered);
    world.advance(&mut two, Step::Lodged, Step::Released);
    let released = world.destination().handle_release(one.destination(), two.release.clone().unwrap(), &one.secret());
    assert_eq!(code(released), Code::ReleaseInvalid);
    let delivered =
        world.authority().handle_delivery(one.authority.clone(), two.delivery.as_ref().unwrap(), &all_active);
    assert_eq!(code(delivered), Code::SenderWrong);
    world.advance(&mut one, Step::Delivered, Step::Filed);
    world.advance(&mut two, Step::Released, Step::Closed);
    let receipt = world.authority().handle_receipt(one.authority.clone(), two.receipt.as_ref().unwrap());
    assert_eq!(code(receipt), Code::SenderWrong);
    let statement: StatementBody = two.statement.clone().unwrap();
    assert_eq!(code(world.source().handle_statement(one.source(), statement.clone(), None)), Code::UnknownCase);
    assert_eq!(code(world.destination().handle_statement(one.destination(), statement)), Code::UnknownCase);
}

#[test]
fn two_cases_of_one_source_that_overtake_each_other_are_both_granted() {
    // The log grows between a redemption and its grant, and the source has seen that by the other case.
    let mut world = World::new();
    let mut one = world.migrate(0, Step::Redeeming);
    let mut two = world.migrate(1, Step::Redeeming);
    world.advance(&mut two, Step::Redeeming, Step::Closed);
    world.advance(&mut one, Step::Redeeming, Step::Closed);
}

#[test]
fn a_case_that_ends_tells_everybody() {
    let mut world = World::new();
    let m = world.prove(0);
    world.now = m.authority.terms.expires.plus(1);
    let (case, effects) = world.authority().handle_deadline(m.authority).unwrap();
    let AuthorityCase { terms, .. } = case;
    let posts = world.finish(leaves(&effects).remove(0));
    let to: Vec<_> = posts.iter().map(|post| post.to.clone()).collect();
    let expected =
        [Recipient::Hospital(terms.source), Recipient::Hospital(terms.destination), Recipient::Mailbox(REPLY.into())];
    assert_eq!(to, expected);
    assert_ne!(m.proof.id().0, Digest([0; 32]));
}

#[test]
fn the_source_serves_one_session_a_proof_unless_it_declared_the_attempt_failed() {
    use waybill_protocol::source::{Admission, SourceCase, admit};
    let mut world = World::new();
    let case = world.migrate(0, Step::Lodged).source();
    let spent = |case: &SourceCase, attempt| admit(Some(case), attempt).unwrap_err().code == Code::ProofSpent;
    assert_eq!(admit(None, 1).unwrap(), Admission::First);
    for state in [SourceState::AwaitingReview, SourceState::Redeeming, SourceState::Granted, SourceState::Lodged] {
        assert!(spent(&SourceCase { state, ..case.clone() }, case.attempt + 1), "{state:?}");
    }
    for state in [SourceState::Refused, SourceState::Closed] {
        assert!(spent(&SourceCase { state, ..case.clone() }, case.attempt + 1), "{state:?}");
    }
    let failed = SourceCase { state: SourceState::AttemptFailed, ..case.clone() };
    assert_eq!(admit(Some(&failed), case.attempt + 1).unwrap(), Admission::Next);
    assert!(spent(&failed, case.attempt) && spent(&failed, case.attempt + 2));
}

/// The answer to a login, as it was posted, and the id of the request that it is bound to.
fn answered_login(world: &World) -> (SealedBytes, [u8; 32]) {
    let (patient, registrar) = (world.patient(), world.registrar());
    let (exchange, login) = patient.login(&world.a.contact, preview_all(), REPLY).unwrap();
    let opened = registrar.open_login(&sealed(&login, Kind::Login)).unwrap();
    let verified = registrar.verify_login(opened, Some(&world.a.registered)).unwrap();
    let answer = registrar.answer_login(&verified, LoginOutcome::Preview { preview: preview() }).unwrap();
    let answer = posted(&[answer], Kind::LoginAnswer);
    assert!(patient.accept_login(&exchange, &world.a.contact, &answer).is_ok());
    (answer.open(Kind::LoginAnswer, "answer").unwrap(), *exchange.request().as_bytes())
}

#[test]
fn no_lasting_key_opens_what_is_sealed_to_one_time_keys() {
    // Whoever recorded everything has every lasting key later on.
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let lasting = [world.a.identity.hpke.clone(), world.b.identity.hpke.clone(), world.authority.lodgement.clone()];
    let lodgement = m.source().lodgement.unwrap().parse().unwrap().peek().clone();
    let (tr, hm) = (m.source().session, m.source().manifest.unwrap().parse().unwrap().message_id());
    let receipt = m.receipt.as_ref().unwrap();
    let (answer, login) = answered_login(&world);
    let recorded = [
        (&m.manifest.as_ref().unwrap().sealed, SealPurpose::Manifest, tr.as_bytes(), Some(m.secret())),
        (&lodgement.sealed_key, SealPurpose::RecordKey, hm.as_bytes(), Some(m.secret())),
        (&receipt.for_source, SealPurpose::ReceiptSource, hm.as_bytes(), m.reply_secret.clone()),
        (&receipt.for_patient, SealPurpose::ReceiptPatient, hm.as_bytes(), Some(m.draft.reply_key())),
        (&answer, SealPurpose::LoginAnswer, &login, None),
    ];
    for (sealed, purpose, bound, one_time) in recorded {
        let opens = |key: &HpkeSecretKey| sealed.open(&world.network.backend, key, purpose, bound).is_ok();
        assert!(one_time.is_none_or(|key| opens(&key)), "{purpose:?} opens for whom it is");
        assert!(!lasting.iter().any(opens), "{purpose:?} opens under a lasting key");
    }
}
