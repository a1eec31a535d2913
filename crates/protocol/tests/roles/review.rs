//! What a review of the finished protocol found, one test for each finding, so that none comes back.

use waybill_crypto::certificate::Profile;
use waybill_crypto::commitment::Opening;
use waybill_crypto::keys::{Digest, HospitalKeys, SigningKey};
use waybill_crypto::stream::RecordKey;
use waybill_protocol::destination::{DestinationCase, Filing, rejection_detail};
use waybill_protocol::evidence::{Evidence, Finding, Signer, Verdict, judge};
use waybill_protocol::ids::{HospitalId, SessionId, Timestamp};
use waybill_protocol::log::{CheckpointPolicy, LeafKind};
use waybill_protocol::messages::{
    AuthorityStatementBody, CaseStatement, Chain, EndState, MAX_INNER_RECEIPT_BYTES, ManifestBody, ManifestPlain,
    OutcomeClass, Purpose, ReceiptDetail, Refusal, RefusalBody, Revocation, RevocationBody, RevocationReason, Standing,
    StatementBody,
};
use waybill_protocol::migration::{AuthorityState, DestinationState, SourceState};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::CLOCK_SKEW_SECONDS;
use waybill_protocol::wire::{Kind, from_cbor, to_cbor};
use waybill_record::loss::LossReport;

use crate::common::*;

// Standing at the release.

fn without(lost: &'static str) -> impl Fn(&HospitalId) -> Option<Standing> {
    move |hospital| Some(if hospital.as_str() == lost { Standing::Suspended } else { Standing::Active })
}

#[test]
fn the_key_goes_only_while_both_hospitals_are_in_good_standing() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let delivery = m.delivery.as_ref().unwrap();
    for lost in [A, B] {
        let taken = world.authority().handle_delivery(m.authority.clone(), delivery, &without(lost));
        assert_eq!(code(taken), Code::StandingLost, "{lost}");
    }
    let nobody = |_: &HospitalId| None;
    assert_eq!(code(world.authority().handle_delivery(m.authority.clone(), delivery, &nobody)), Code::StandingLost);
    // The other order: the lodgement completes the exchange.
    let before = world.migrate(1, Step::Granted);
    let mut ahead = before.clone();
    world.advance(&mut ahead, Step::Granted, Step::Delivered);
    let (delivered, _) =
        world.authority().handle_delivery(before.authority, ahead.delivery.as_ref().unwrap(), &all_active).unwrap();
    let lodgement = ahead.source().lodgement.unwrap();
    for lost in [A, B] {
        let taken = world.authority().handle_lodgement(delivered.clone(), &lodgement, &without(lost));
        assert_eq!(code(taken), Code::StandingLost, "{lost}");
    }
    assert!(world.authority().handle_lodgement(delivered, &lodgement, &all_active).is_ok());
}

// The log view and the time of a grant.

#[test]
fn a_grant_is_held_against_what_its_own_case_knew_of_the_log() {
    let mut world = World::new();
    let mut one = world.migrate(0, Step::Redeeming);
    let mut two = world.migrate(1, Step::Redeeming);
    // The second case is granted first: the source has seen a larger log than the first case's grant proves from.
    world.advance(&mut two, Step::Redeeming, Step::Granted);
    world.advance(&mut one, Step::Redeeming, Step::Granted);
    assert_eq!((one.source().state, two.source().state), (SourceState::Granted, SourceState::Granted));
}

#[test]
fn a_grant_that_waited_long_in_a_mailbox_is_good_and_one_older_than_the_question_is_not() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Redeeming);
    let asked = m.clone();
    world.advance(&mut m, Step::Redeeming, Step::Granted);
    let body = m.grant.clone().unwrap();
    world.now = world.now.plus(3600);
    assert!(world.source().handle_grant(&world.stands(&asked.source()), asked.source(), body.clone()).is_ok());
    let mut later = asked.source();
    later.redeemed_at = Timestamp(NOW.0 + CLOCK_SKEW_SECONDS + 1);
    assert_eq!(code(world.source().handle_grant(&world.stands(&later), later, body)), Code::ClockSkew);
}

// The size of an inner receipt.

#[test]
fn a_receipt_whose_parts_are_too_large_for_a_statement_is_refused() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let key = fresh_hpke(&world);
    let sealed = |size: usize| {
        SealedBytes::seal(&world.network.backend, key.public(), SealPurpose::ReceiptSource, &[], &vec![0; size])
            .unwrap()
    };
    let honest = m.receipt.clone().unwrap();
    let take = |alter: &dyn Fn(&mut waybill_protocol::messages::ReceiptBody)| {
        let mut body = honest.clone();
        alter(&mut body);
        world.authority().handle_receipt(m.authority.clone(), &body)
    };
    assert!(take(&|body| body.for_source = sealed(MAX_INNER_RECEIPT_BYTES - 16)).is_ok());
    assert_eq!(code(take(&|body| body.for_source = sealed(MAX_INNER_RECEIPT_BYTES - 15))), Code::ReceiptInvalid);
    assert_eq!(code(take(&|body| body.for_patient = sealed(MAX_INNER_RECEIPT_BYTES - 15))), Code::ReceiptInvalid);
}

fn filed_with(world: &World, m: &Migration, loss: Vec<u8>) -> (DestinationCase, ReceiptDetail) {
    let filing = Filing { detail: ReceiptDetail { loss, ..m.detail() }, outcome: OutcomeClass::Filed };
    let (case, effects) = world.destination().handle_filed(m.destination(), &filing).unwrap();
    let body: waybill_protocol::messages::ReceiptBody =
        posted(&effects, Kind::ImportReceipt).open(Kind::ImportReceipt, "receipt").unwrap();
    assert!(body.for_source.size_bytes() <= MAX_INNER_RECEIPT_BYTES);
    assert!(world.authority().handle_receipt(m.authority.clone(), &body).is_ok());
    let detail = from_cbor("detail", &case.receipt_opening.as_ref().unwrap().detail, 1 << 20).unwrap();
    (case, detail)
}

#[test]
fn a_loss_report_too_large_to_travel_goes_without_its_lists_and_with_every_number() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Released);
    let mut report = LossReport::new();
    for n in 0..1_200 {
        let key = format!("Observation/{n:064}").parse().unwrap();
        report.withhold(&key, &"why ".repeat(60));
        report.note_unresolved(&key, &"path".repeat(60), "missing");
    }
    let whole = to_cbor(&report);
    assert!(whole.len() > MAX_INNER_RECEIPT_BYTES);
    let (_, detail) = filed_with(&world, &m, whole);
    let read: LossReport = from_cbor("loss", &detail.loss, 1 << 20).unwrap();
    assert_eq!((read.counts(), read.reasons()), (report.counts(), report.reasons()));
    assert_eq!((read.items(), read.unresolved()), ((&[][..], 1_200), (&[][..], 1_200)));
    // What the source sent instead of a report does not travel on.
    let (_, detail) = filed_with(&world, &m, vec![0xff; 1 << 20]);
    assert!(detail.loss.is_empty());
    let (_, detail) = filed_with(&world, &m, vec![0x80]);
    assert_eq!(detail.loss, [0x80], "what fits goes as it is");
}

// Certificates at their own message's time; who signed, from one party's file.

fn read_under(world: &World, policy: Option<&CheckpointPolicy>, file: &Evidence) -> Verdict {
    judge(&world.network.backend, &world.network.anchor, policy, &Evidence::parse(&file.to_bytes()).unwrap())
}

fn failed(verdict: &Verdict) -> Vec<&'static str> {
    verdict.sentences.iter().filter(|s| s.finding == Finding::Failed).map(|s| s.check).collect()
}

fn text<'a>(verdict: &'a Verdict, check: &str) -> &'a str {
    &verdict.sentences.iter().find(|s| s.check == check).unwrap().text
}

fn whole_file(world: &World, m: &Migration, own: Chain) -> Evidence {
    let policy = || world.log.policy();
    let own = Signer { keys: world.a.identity.keys(), chain: own };
    let mut file = Evidence::of_source(world.statement.clone(), policy(), &m.source(), own);
    file.merge(Evidence::of_destination(world.statement.clone(), policy(), &m.destination()));
    file.add_delegation(&m.draft, m.delegation.clone());
    file
}

#[test]
fn certificates_renewed_in_mid_case_are_each_judged_at_the_time_they_served() {
    let mut world = World::new();
    let chain = |world: &World, profile, party: &str, key: &SigningKey, at| {
        world.network.chain(profile, party, key.public(), at).0
    };
    let renew = |world: &mut World, at: Timestamp| {
        world.a.identity.chain = chain(world, Profile::HospitalSigning, A, &world.a.identity.signing, at);
        world.b.identity.chain = chain(world, Profile::HospitalSigning, B, &world.b.identity.signing, at);
        world.authority.chain = chain(world, Profile::ProofSigning, AUTHORITY, &world.authority.proof_signing, at);
        let key = world.authority.proof_signing.clone();
        let statement = resigned(world, &key, &world.statement.statement, |s| s.time = world.now);
        world.statement = AuthorityStatementBody { statement, chain: world.authority.chain.clone() };
        let (statement, ctx) = (world.statement.clone(), world.now);
        for trust in [&mut world.a.trust, &mut world.b.trust, &mut world.patient_trust] {
            let ctx = waybill_protocol::trust::Ctx { now: ctx, backend: &world.network.backend };
            trust.accept_statement(&ctx, &statement).unwrap();
        }
    };
    // One day before their certificates end, the case begins; two days later everybody has new ones.
    renew(&mut world, Timestamp(NOW.0 - 29 * DAY));
    let mut m = world.migrate(0, Step::Granted);
    let old = world.b.identity.chain.clone();
    world.now = NOW.plus(2 * DAY);
    let at = world.now;
    renew(&mut world, at);
    m.authority.redeemer = Some(world.a.identity.chain.clone());
    world.advance(&mut m, Step::Granted, Step::Closed);
    let file = whole_file(&world, &m, Chain::default());
    let verdict = read_under(&world, None, &file);
    assert!(verdict.sentences.iter().all(|s| s.finding == Finding::Proven), "{:?}", verdict.sentences);
    // A certificate that had ended, or was not yet made, when the message was signed shows nothing.
    let mut wrong = file.clone();
    wrong.request.as_mut().unwrap().chain = world.b.identity.chain.clone();
    assert!(failed(&read_under(&world, None, &wrong)).contains(&"request"));
    let mut wrong = file.clone();
    wrong.statement.as_mut().unwrap().receipt.as_mut().unwrap().chain = old;
    assert_eq!(failed(&read_under(&world, None, &wrong)), ["receipt", "receipt-detail"]);
    let mut wrong = file.clone();
    wrong.source.as_mut().unwrap().chain =
        chain(&world, Profile::HospitalSigning, A, &world.a.identity.signing, Timestamp(NOW.0 - 29 * DAY));
    assert_eq!(failed(&read_under(&world, None, &wrong)), ["source-key"]);
    // The authority's word after its last certificate ended is nobody's word.
    let mut wrong = file;
    let key = world.authority.proof_signing.clone();
    let statement = resigned(&world, &key, &wrong.authority.statement, |s| s.time = NOW);
    wrong.authority = AuthorityStatementBody { statement, chain: wrong.proof.chain.clone() };
    let fails = failed(&read_under(&world, None, &wrong));
    assert_eq!(fails, ["release", "release-logged", "statement", "statement-logged", "receipt", "receipt-detail"]);
}

/// A source that lodges another key than its manifest commits to, as far as the destination's answer.
fn wrong_key(world: &mut World) -> DestinationCase {
    let mut m = world.migrate(0, Step::Granted);
    let mut staged = world.stage(&mut m);
    staged.key = RecordKey::from_bytes([0x66; 32]);
    let (case, effects) = world.source().handle_staged(&world.stands(&m.source()), m.source(), &staged).unwrap();
    m.source = Some(case);
    m.manifest = Some(posted(&effects, Kind::Manifest).open(Kind::Manifest, "manifest").unwrap());
    m.lodgement = Some(posted(&effects, Kind::KeyLodgement).open(Kind::KeyLodgement, "lodgement").unwrap());
    world.lodge(&mut m);
    world.advance(&mut m, Step::Lodged, Step::Delivered);
    let release = world.release(&mut m);
    world.destination().handle_release(m.destination(), release, &m.secret()).unwrap().1.0
}

#[test]
fn the_destination_alone_can_convict_a_source_that_lodged_a_wrong_key() {
    let mut world = World::new();
    let case = wrong_key(&mut world);
    let file = Evidence::of_destination(world.statement.clone(), world.log.policy(), &case);
    let verdict = read_under(&world, None, &file);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    assert_eq!(verdict.liar.as_deref(), Some(A));
    assert!(text(&verdict, "source-key").ends_with("as certified by the authority."));
}

#[test]
fn a_manifest_comes_with_the_chain_of_the_key_that_signed_it() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Lodged);
    let take = |chain: Chain| -> Result<DestinationCase, Rejection> {
        let plain = ManifestPlain { manifest: m.source().manifest.unwrap(), chain };
        let session = m.destination().session;
        let (backend, to) = (&world.network.backend, m.secret());
        let bound = session.as_bytes();
        let sealed = SealedBytes::seal(backend, to.public(), SealPurpose::Manifest, bound, &to_cbor(&plain)).unwrap();
        let body = ManifestBody { session, sealed };
        world.destination().handle_manifest(m.destination(), &body, &to, u64::MAX).map(|(case, _)| case)
    };
    let chain = world.a.identity.chain.clone();
    assert_eq!(take(chain.clone()).unwrap().source_chain, Some(chain));
    assert_eq!(code(take(world.stranger(A).1)), Code::ManifestInvalid, "another key of the same name");
    let under_another_name = world.network.chain(Profile::HospitalSigning, C, world.a.identity.signing.public(), NOW).0;
    assert_eq!(code(take(under_another_name)), Code::ManifestInvalid);
    assert_eq!(code(take(Chain::default())), Code::Malformed);
}

#[test]
fn a_source_key_that_did_not_vouch_for_the_patient_is_not_the_sources() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let mut file = whole_file(&world, &m, world.a.identity.chain.clone());
    let honest = read_under(&world, None, &file);
    assert!(honest.holds() && text(&honest, "source-key").ends_with("the one that vouched for the patient."));
    // A malicious authority certifies a second key under the source's name.
    let (key, chain) = world.stranger(A);
    file.source = Some(Signer {
        keys: HospitalKeys { signing: key.public().clone(), hpke: world.a.identity.keys().hpke },
        chain,
    });
    assert_eq!(failed(&read_under(&world, None, &file)), ["source-key"]);
}

#[test]
fn the_readers_own_witnesses_count_and_the_files_are_called_the_files() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let file = whole_file(&world, &m, world.a.identity.chain.clone());
    let own = world.log.policy();
    let verdict = read_under(&world, Some(&own), &file);
    assert!(verdict.holds(), "{:?}", failed(&verdict));
    assert!(text(&verdict, "proof-logged").contains("witness-1.example"));
    assert!(!text(&verdict, "proof-logged").contains("named by this file"));
    assert!(text(&read_under(&world, None, &file), "proof-logged").contains("named by this file"));
    let reordered = own.witnesses().iter().rev().cloned().collect();
    let reordered = CheckpointPolicy::new(own.log_key().clone(), reordered, 2).unwrap();
    assert!(read_under(&world, Some(&reordered), &file).holds());
    // The file relies on fewer witnesses than the reader asks for.
    let fewer = CheckpointPolicy::new(own.log_key().clone(), own.witnesses()[..1].to_vec(), 1).unwrap();
    let mut weak = file.clone();
    weak.log = fewer.clone();
    assert!(read_under(&world, None, &weak).holds(), "without a choice of one's own the file's counts");
    assert_eq!(failed(&read_under(&world, Some(&own), &weak)), ["log-policy"]);
    assert_eq!(failed(&read_under(&world, Some(&fewer), &file)), ["log-policy"]);
    // And what the reader's witnesses did not see is not in the log.
    let other = waybill_crypto::keys::Ed25519SecretKey::from_bytes(&[77; 32]);
    let kind = waybill_protocol::log::NoteKeyKind::Witness;
    let name = waybill_protocol::log::KeyName::parse("witness-3.example").unwrap();
    let other = waybill_protocol::log::NoteSigner::new(name, kind, other).public().clone();
    let foreign = CheckpointPolicy::new(own.log_key().clone(), vec![other], 1).unwrap();
    let fails = failed(&read_under(&world, Some(&foreign), &file));
    assert_eq!(fails, ["log-policy", "proof-logged", "grant-logged", "release-logged", "statement-logged"]);
}

// Between receipt and release.

fn revocation(world: &World, m: &Migration) -> RevocationBody {
    let said = Revocation { proof: m.proof.id(), reason: RevocationReason::Withdrawn, time: world.now };
    let signed = Signed::sign(&world.network.backend, &world.root.revocation_key(0), said);
    RevocationBody { revocation: SignedBytes::from(&signed), chain: Chain::default() }
}

fn refusal(world: &World, key: &SigningKey, m: &Migration, alter: impl FnOnce(&mut Refusal)) -> RefusalBody {
    let session = m.destination.as_ref().map(|case| case.session);
    let (subject, code) = (m.proof.id().0, Code::ConsentRefused);
    let mut said = Refusal { subject, session, attempt: 1, code, retry: false, time: world.now };
    alter(&mut said);
    let refusal = SignedBytes::from(&Signed::sign(&world.network.backend, key, said));
    RefusalBody { refusal, chain: world.a.identity.chain.clone(), detail: None }
}

#[test]
fn once_the_receipt_is_out_only_the_authority_ends_the_case() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Delivered);
    let (case, effects) = world.destination().handle_revocation(m.destination(), &revocation(&world, &m)).unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Delivered, Some(Code::ProofRevoked)));
    assert!(effects.is_empty(), "the receipt is posted until it is answered");
    for retry in [false, true] {
        let body = refusal(&world, &world.a.identity.signing, &m, |r| r.retry = retry);
        let (case, effects) = world.destination().handle_refusal(m.destination(), &body, None).unwrap();
        assert_eq!((case.state, case.code), (DestinationState::Delivered, Some(Code::ConsentRefused)));
        assert!(effects.is_empty());
    }
    // The authority had released before it heard: the key counts.
    m.destination = Some(case);
    world.advance(&mut m, Step::Delivered, Step::Closed);
    assert_eq!(m.authority.state, AuthorityState::Ended(EndState::Filed));
}

#[test]
fn a_destination_that_lost_its_one_time_key_still_ends_the_case() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Delivered);
    let release = world.release(&mut m);
    let mut forgery = release.clone();
    forgery.evidence.nonce = [0; 16];
    assert_eq!(code(world.destination().hold_without_key(m.destination(), forgery)), Code::LogEvidenceInvalid);
    let mut forgery = release.clone();
    forgery.lodgement = forged(&forgery.lodgement);
    assert_eq!(code(world.destination().hold_without_key(m.destination(), forgery)), Code::LodgementInvalid);
    let (case, _) = world.destination().hold_without_key(m.destination(), release).unwrap();
    assert_eq!(case.state, DestinationState::KeyHeld);
    let (_, manifest) = world.destination().manifest_of(&case).unwrap();
    let filing = Filing { detail: rejection_detail(&manifest, Code::SessionLost), outcome: OutcomeClass::Rejected };
    let (case, effects) = world.destination().handle_filed(case, &filing).unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::SessionLost)));
    m.receipt = Some(posted(&effects, Kind::ImportReceipt).open(Kind::ImportReceipt, "receipt").unwrap());
    world.end_with_receipt(&mut m);
    assert_eq!(m.authority.state, AuthorityState::Ended(EndState::Rejected));
}

#[test]
fn a_rejection_that_is_signed_still_goes_out_after_the_deadline() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Released);
    let filing = Filing {
        detail: ReceiptDetail { code: Some(Code::OutOfScope), ..m.detail() },
        outcome: OutcomeClass::Rejected,
    };
    let (case, _) = world.destination().handle_filed(m.destination(), &filing).unwrap();
    let said = CaseStatement { proof: case.proof, state: EndState::Unacknowledged, cause: None, time: world.now };
    let signed = Signed::sign(&world.network.backend, &world.authority.proof_signing, said);
    let evidence = world.log.append(&world.network.backend, LeafKind::STATEMENT, &signed.id().0, [1; 16]);
    let body = StatementBody { statement: SignedBytes::from(&signed), evidence, receipt: None };
    let (after, effects) = world.destination().handle_statement(case.clone(), body.clone()).unwrap();
    assert_eq!(after.state, DestinationState::Rejected);
    assert!(after.statement.is_some() && effects.is_empty(), "nothing of the receipt is settled");
    // Rejected without a receipt: there is nothing more to say.
    let silent = DestinationCase { receipt: None, ..case };
    let (after, _) = world.destination().handle_statement(silent, body).unwrap();
    assert_eq!(after.state, DestinationState::Closed);
}

// Attempts and refusals.

#[test]
fn the_delayed_redemption_of_a_failed_attempt_finds_it_closed() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Redeeming);
    let redeem = m.redeem.clone().unwrap();
    let key = world.a.identity.signing.clone();
    let body = refusal(&world, &key, &m, |r| r.retry = true);
    // The refusal overtakes the redemption.
    let (case, effects) = world.authority().handle_refusal(m.authority.clone(), &body).unwrap();
    assert_eq!((case.state, case.attempt), (AuthorityState::Issued, 2));
    assert_eq!(leaves(&effects)[0].kind, LeafKind::ATTEMPT_FAILED);
    let (from, late) = world.authority().verify_redeem(&redeem).unwrap();
    let taken = world.authority().handle_redeem(case.clone(), &from, &redeem.chain, &late, &all_active);
    assert_eq!(code(taken), Code::AttemptInvalid);
    assert_eq!(code(world.authority().handle_refusal(case.clone(), &body)), Code::AttemptInvalid, "the same again");
    let (later, _) = world
        .authority()
        .handle_refusal(case, &refusal(&world, &key, &m, |r| (r.retry, r.attempt) = (true, 4)))
        .unwrap();
    assert_eq!(later.attempt, 5);
    let last = refusal(&world, &key, &m, |r| (r.retry, r.attempt) = (true, u32::MAX));
    assert_eq!(code(world.authority().handle_refusal(later, &last)), Code::AttemptInvalid);
    // Of one attempt there is one session.
    world.advance(&mut m, Step::Redeeming, Step::Granted);
    for session in [None, Some(SessionId(Digest([1; 32])))] {
        let other = refusal(&world, &key, &m, |r| r.session = session);
        assert_eq!(code(world.authority().handle_refusal(m.authority.clone(), &other)), Code::AttemptInvalid);
    }
    let (case, _) = world.authority().handle_refusal(m.authority.clone(), &refusal(&world, &key, &m, |_| {})).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Refused));
}

#[test]
fn after_its_grant_the_authority_refuses_no_more() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Granted);
    let by_authority = refusal(&world, &world.authority.proof_signing, &m, |_| {});
    assert_eq!(code(world.source().handle_refusal(m.source(), &by_authority)), Code::UnexpectedMessage);
    let by_destination = refusal(&world, &world.b.identity.signing, &m, |_| {});
    let (case, _) = world.source().handle_refusal(m.source(), &by_destination).unwrap();
    assert_eq!(case.state, SourceState::Refused);
}

// Who is registered is nobody's business.

#[test]
fn a_hospital_does_not_learn_whether_a_patient_is_registered_elsewhere() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let case = m.destination();
    let key = m.request.as_ref().unwrap().request.parse().unwrap().peek().session_key;
    for secret in [Code::PatientUnknown, Code::ConsentSignatureInvalid, Code::ConsentKeyExpired] {
        let effects = world.source().refuse(case.proof, case.session, 1, &id(B), &key, secret);
        let body: RefusalBody = posted(&effects, Kind::Refusal).open(Kind::Refusal, "refusal").unwrap();
        let (after, _) = world.destination().handle_refusal(case.clone(), &body, Some(&m.secret())).unwrap();
        assert_eq!(after.code, Some(Code::ConsentRefused), "{secret}");
    }
}

#[test]
fn a_voucher_is_given_only_for_a_commitment_to_the_pseudonym_that_asks() {
    let world = World::new();
    let patient = world.patient();
    let draft = patient.draft(0, &world.a.contact, &world.b.contact, world.wish());
    let Purpose::Voucher { delegation_key, com_source, opening } = patient.voucher_purpose(&draft) else {
        panic!("a voucher is asked for");
    };
    let ask = |purpose: Purpose| {
        let (_, login) = patient.login(&world.a.contact, purpose, REPLY).unwrap();
        let opened = world.registrar().open_login(&sealed(&login, Kind::Login)).unwrap();
        let verified = world.registrar().verify_login(opened, Some(&world.a.registered)).unwrap();
        world.registrar().issue_voucher(&verified)
    };
    assert!(ask(Purpose::Voucher { delegation_key, com_source, opening: opening.clone() }).is_ok());
    // Somebody else's pseudonym, committed to and opened in order.
    let other = patient.pid(&id(A), 1);
    let com_other = commitment("pid-source", &opening, &to_cbor(&other));
    let wrong = [(com_other, opening), (com_source, Opening::from_bytes([9; 32]))];
    for (com_source, opening) in wrong {
        assert_eq!(code(ask(Purpose::Voucher { delegation_key, com_source, opening })), Code::LoginRefused);
    }
}

// The authority's own certificate.

#[test]
fn an_authority_key_that_was_revoked_since_its_statement_says_nothing_more() {
    let mut world = World::new();
    let key = world.authority.proof_signing.clone();
    let (chain, serial) = world.network.chain(Profile::ProofSigning, AUTHORITY, key.public(), NOW);
    let statement = AuthorityStatementBody { statement: world.statement.statement.clone(), chain };
    let ctx = waybill_protocol::trust::Ctx { now: NOW, backend: &world.network.backend };
    world.a.trust.accept_statement(&ctx, &statement).unwrap();
    let mut m = world.migrate(0, Step::Redeeming);
    let before = m.source();
    world.advance(&mut m, Step::Redeeming, Step::Granted);
    world.a.trust.renew_crl(world.network.crl(&[serial], NOW));
    let body = m.grant.clone().unwrap();
    assert_eq!(
        code(world.source().handle_grant(&world.stands(&before), before.clone(), body.clone())),
        Code::CertificateRevoked
    );
    world.a.trust.renew_crl(world.network.crl(&[], NOW));
    world.now = NOW.plus(8 * DAY);
    assert_eq!(code(world.source().handle_grant(&world.stands(&before), before, body)), Code::CrlStale);
}
