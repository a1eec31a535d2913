//! How cases end at the hospitals: statements, receipts, refusals, revocations (PROTOCOL sections 6.1, 6.2 and 8).

use waybill_crypto::keys::{Digest, SigningKey};
use waybill_protocol::destination::{DestinationCase, Filing};
use waybill_protocol::ids::{ManifestId, ProofId, SessionId};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    CaseStatement, Chain, EndState, ImportReceipt, OutcomeClass, ReceiptBody, Refusal, RefusalBody, Revocation,
    RevocationBody, RevocationReason, StatementBody,
};
use waybill_protocol::migration::{DestinationState, Effect, Recipient, SourceState};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, to_cbor};

use crate::common::*;

const OTHER: Digest = Digest([0xee; 32]);

/// A statement that the authority signs and logs.
fn statement(
    world: &mut World,
    m: &Migration,
    key: Option<&SigningKey>,
    kind: LeafKind,
    alter: impl FnOnce(&mut CaseStatement),
) -> StatementBody {
    let cause = m.receipt.as_ref().map(|r| r.receipt.parse().unwrap().message_id());
    let mut said = CaseStatement { proof: m.proof.id(), state: EndState::Filed, cause, time: world.now };
    alter(&mut said);
    let key = key.unwrap_or(&world.authority.proof_signing).clone();
    let signed = Signed::sign(&world.network.backend, &key, said);
    let evidence = world.log.append(&world.network.backend, kind, &signed.id().0, [1; 16]);
    StatementBody { statement: SignedBytes::from(&signed), evidence, receipt: m.receipt.clone() }
}

#[test]
fn a_statement_must_be_the_authoritys_about_this_case_and_in_the_log() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let stranger = SigningKey::derive(&[1; 32]);
    let cases = [
        (statement(&mut world, &m, Some(&stranger), LeafKind::STATEMENT, |_| {}), Code::SignatureInvalid),
        (statement(&mut world, &m, None, LeafKind::STATEMENT, |s| s.proof = ProofId(OTHER)), Code::UnknownCase),
        (statement(&mut world, &m, None, LeafKind::RELEASE, |_| {}), Code::LogEvidenceInvalid),
    ];
    for (body, expected) in cases {
        let reply = m.reply_secret.as_ref();
        assert_eq!(code(world.source().handle_statement(m.source(), body.clone(), reply)), expected);
        assert_eq!(code(world.destination().handle_statement(m.destination(), body.clone())), expected);
        let patient = world.patient();
        let contact = &world.b.contact;
        let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body);
        assert_eq!(code(read), expected);
    }
}

/// A receipt, honest but for one part, with the statement that goes with it.
fn with_receipt(alter: impl FnOnce(&mut Migration, &mut World)) -> (World, Migration, StatementBody) {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Filed);
    alter(&mut m, &mut world);
    let body = statement(&mut world, &m, None, LeafKind::STATEMENT, |_| {});
    (world, m, body)
}

fn alter_receipt(m: &mut Migration, world: &World, key: &SigningKey, alter: impl FnOnce(&mut ImportReceipt)) {
    let receipt = m.receipt.as_mut().unwrap();
    receipt.receipt = resigned(world, key, &receipt.receipt, alter);
}

fn both_refuse_the_receipt(alter: impl FnOnce(&mut Migration, &mut World)) {
    let (world, m, body) = with_receipt(alter);
    let read = world.source().handle_statement(m.source(), body.clone(), m.reply_secret.as_ref());
    assert_eq!(code(read), Code::ReceiptInvalid, "the source");
    let (patient, contact) = (world.patient(), &world.b.contact);
    let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body);
    assert_eq!(code(read), Code::ReceiptInvalid, "the patient");
}

#[test]
fn an_honest_receipt_is_read_by_source_and_patient_alike() {
    let (world, m, body) = with_receipt(|_, _| {});
    let (case, _) = world.source().handle_statement(m.source(), body.clone(), m.reply_secret.as_ref()).unwrap();
    let (patient, contact) = (world.patient(), &world.b.contact);
    let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body).unwrap();
    let (opening, detail) = read.receipt.unwrap();
    assert_eq!((read.state, Some(opening), detail), (EndState::Filed, case.receipt, m.detail()));
    // Without its one-time secret, lost with a restored backup, the source still closes on the outer receipt.
    let (case, _) = world.source().handle_statement(m.source(), body, None).unwrap();
    assert_eq!((case.state, case.receipt), (SourceState::Closed, None));
}

#[test]
fn a_receipt_under_another_key_of_the_destinations_name_is_refused() {
    both_refuse_the_receipt(|m, world| {
        let (key, chain) = world.stranger(B);
        alter_receipt(m, world, &key, |_| {});
        m.receipt.as_mut().unwrap().chain = chain;
    });
}

#[test]
fn a_receipt_for_another_case_or_outcome_is_refused() {
    let key = |world: &World| world.b.identity.signing.clone();
    both_refuse_the_receipt(|m, world| alter_receipt(m, world, &key(world), |r| r.proof = ProofId(OTHER)));
    both_refuse_the_receipt(|m, world| alter_receipt(m, world, &key(world), |r| r.outcome = OutcomeClass::Rejected));
    both_refuse_the_receipt(|m, _| m.receipt = None);
}

#[test]
fn a_receipt_for_another_manifest_is_refused() {
    // The source knows its own manifest; to the patient the part sealed for it does not open under another's id.
    let (world, m, body) = with_receipt(|m, world| {
        let key = world.b.identity.signing.clone();
        alter_receipt(m, world, &key, |r| r.manifest = ManifestId(OTHER));
    });
    let read = world.source().handle_statement(m.source(), body.clone(), m.reply_secret.as_ref());
    assert_eq!(code(read), Code::ReceiptInvalid);
    let (patient, contact) = (world.patient(), &world.b.contact);
    let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body).unwrap();
    assert_eq!((read.receipt, read.code), (None, Some(Code::ReceiptInvalid)));
}

/// The destination's signed receipt ends the case; what it sealed inside does not count, and both say so.
fn both_close_without_the_inner_part(alter: impl FnOnce(&mut Migration, &mut World)) {
    let (world, m, body) = with_receipt(alter);
    let (case, _) = world.source().handle_statement(m.source(), body.clone(), m.reply_secret.as_ref()).unwrap();
    let closed = (SourceState::Closed, None, Some(Code::ReceiptInvalid));
    assert_eq!((case.state, case.receipt, case.code), closed);
    let (patient, contact) = (world.patient(), &world.b.contact);
    let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body).unwrap();
    assert_eq!((read.state, read.receipt, read.code), (EndState::Filed, None, Some(Code::ReceiptInvalid)));
}

#[test]
fn an_inner_receipt_that_is_not_the_committed_one_does_not_count() {
    // The destination tells source and patient something else than it committed to.
    both_close_without_the_inner_part(|m, world| {
        let case = m.destination();
        let mut opening = case.receipt_opening.unwrap();
        opening.detail = to_cbor(&waybill_protocol::messages::ReceiptDetail { filed: 0, ..m.detail() });
        let hm = m.receipt.as_ref().unwrap().receipt.parse().unwrap().peek().manifest;
        let seal = |to: &waybill_crypto::keys::HpkePublicKey, purpose| {
            SealedBytes::seal(&world.network.backend, to, purpose, hm.as_bytes(), &to_cbor(&opening)).unwrap()
        };
        let for_source = seal(m.reply_secret.as_ref().unwrap().public(), SealPurpose::ReceiptSource);
        let for_patient = seal(&m.draft.terms.reply_key, SealPurpose::ReceiptPatient);
        m.receipt = Some(ReceiptBody { for_source, for_patient, ..m.receipt.clone().unwrap() });
    });
}

#[test]
fn the_parts_of_a_receipt_cannot_be_exchanged() {
    both_close_without_the_inner_part(|m, _| {
        let receipt = m.receipt.as_mut().unwrap();
        std::mem::swap(&mut receipt.for_source, &mut receipt.for_patient);
    });
}

#[test]
fn no_replay_changes_how_a_case_ended_but_a_late_receipt_closes_it() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let silence = statement(&mut world, &m, None, LeafKind::STATEMENT, |s| s.state = EndState::Unacknowledged);
    let filed = statement(&mut world, &m, None, LeafKind::STATEMENT, |_| {});
    let reply = m.reply_secret.as_ref();
    let (source, _) = world.source().handle_statement(m.source(), silence.clone(), reply).unwrap();
    let (destination, _) = world.destination().handle_statement(m.destination(), silence.clone()).unwrap();
    assert_eq!(destination.state, DestinationState::Filed, "whoever holds the key goes on, and answers");
    let (source, _) = world.source().handle_statement(source, filed.clone(), reply).unwrap();
    let (destination, _) = world.destination().handle_statement(destination, filed.clone()).unwrap();
    assert_eq!(destination.state, DestinationState::Closed);
    for old in [silence, filed] {
        assert_eq!(code(world.source().handle_statement(source.clone(), old.clone(), reply)), Code::UnexpectedMessage);
        assert_eq!(code(world.destination().handle_statement(destination.clone(), old)), Code::UnexpectedMessage);
    }
}

#[test]
fn a_source_that_began_anew_and_knows_no_manifest_is_told_the_end_by_the_destinations_signature() {
    // Its store was restored from before the case, the request came again, and the case went on without it.
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let anew = world.source_checks(m.request.as_ref().unwrap()).unwrap();
    let (anew, _) = world.source().open_case(anew, None, REVIEW_SECONDS);
    let (anew, _) = world.source().abort(anew, Code::ProofSpent);
    let body = statement(&mut world, &m, None, LeafKind::STATEMENT, |_| {});
    let (closed, _) = world.source().handle_statement(anew.clone(), body.clone(), None).unwrap();
    let noted = (SourceState::Closed, None, Some(Code::ReceiptInvalid));
    assert_eq!(
        (closed.state, closed.receipt, closed.code),
        noted,
        "what the receipt says of a manifest is not believed"
    );
    // Whoever else signed, of whatever else: that ends nothing.
    let key = SigningKey::derive(&[1; 32]);
    let own = world.b.identity.signing.clone();
    let refused = |key: &SigningKey, alter: fn(&mut ImportReceipt)| {
        let mut other = m.clone();
        alter_receipt(&mut other, &world, key, alter);
        let body = StatementBody { receipt: other.receipt, ..body.clone() };
        code(world.source().handle_statement(anew.clone(), body, None))
    };
    assert_eq!(refused(&key, |_| {}), Code::ReceiptInvalid);
    assert_eq!(refused(&own, |r| r.proof = ProofId(OTHER)), Code::ReceiptInvalid);
    assert_eq!(refused(&own, |r| r.outcome = OutcomeClass::Rejected), Code::ReceiptInvalid);
}

// Refusals.

fn refusal(world: &World, m: &Migration, key: &SigningKey, alter: impl FnOnce(&mut Refusal)) -> RefusalBody {
    let session = m.destination.as_ref().map(|case| case.session);
    let mut said = Refusal {
        subject: m.proof.id().0,
        session,
        attempt: 1,
        code: Code::ConsentRefused,
        retry: false,
        time: world.now,
    };
    alter(&mut said);
    let refusal = SignedBytes::from(&Signed::sign(&world.network.backend, key, said));
    RefusalBody { refusal, chain: Chain::default(), detail: None }
}

#[test]
fn the_sources_refusal_reaches_the_destination_in_full_and_the_public_in_general() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let case = m.destination();
    let key = m.request.as_ref().unwrap().request.parse().unwrap().peek().session_key;
    let effects = world.source().refuse(case.proof, case.session, 1, &id(B), &key, Code::CommitmentMismatch);
    let body: RefusalBody = posted(&effects, Kind::Refusal).open(Kind::Refusal, "refusal").unwrap();
    assert_eq!(body.refusal.parse().unwrap().peek().code, Code::ConsentRefused, "in the clear: the public code");
    let (after, told) = world.destination().handle_refusal(case.clone(), &body, Some(&m.secret())).unwrap();
    assert_eq!((after.state, after.code), (DestinationState::Rejected, Some(Code::CommitmentMismatch)));
    assert_eq!(recipients(&told, Kind::Refusal), [Recipient::Mailbox(REPLY.into())], "the patient hears of it");
    let (after, _) = world.destination().handle_refusal(case, &body, None).unwrap();
    assert_eq!(after.code, Some(Code::ConsentRefused), "without the one-time key only the public code");
    // Whether a patient is registered at the source, and under which keys, the destination does not learn either.
    for private in [Code::PatientUnknown, Code::ConsentSignatureInvalid, Code::ConsentKeyExpired] {
        let case = m.destination();
        let effects = world.source().refuse(case.proof, case.session, 1, &id(B), &key, private);
        let body: RefusalBody = posted(&effects, Kind::Refusal).open(Kind::Refusal, "refusal").unwrap();
        let (after, _) = world.destination().handle_refusal(case, &body, Some(&m.secret())).unwrap();
        assert_eq!(after.code, Some(Code::ConsentRefused), "{private}");
    }
}

#[test]
fn a_failed_attempt_pauses_longer_each_time_and_the_fifth_is_the_last() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let source = world.a.identity.signing.clone();
    let fail = |attempt| {
        let case = DestinationCase { attempt, ..m.destination() };
        let body = refusal(&world, &m, &source, |r| (r.retry, r.attempt) = (true, attempt));
        world.destination().handle_refusal(case, &body, None).unwrap()
    };
    for (attempt, pause) in [(1, 4), (2, 8), (3, 16), (4, 32)] {
        let (case, effects) = fail(attempt);
        assert_eq!(case.state, DestinationState::AttemptFailed);
        assert!(effects.contains(&Effect::Deadline(world.now.plus(pause))), "attempt {attempt}: {effects:?}");
    }
    assert_eq!(fail(5).0.state, DestinationState::Rejected);
}

#[test]
fn who_gives_up_says_so_to_the_source_and_at_the_end_to_the_patient() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let patient = [Recipient::Mailbox(REPLY.into())];
    for (why, state, told) in [
        (Code::ManifestInvalid, DestinationState::Rejected, &patient[..]),
        (Code::SessionLost, DestinationState::Requested, &[]),
    ] {
        assert_eq!(why.retryable(), told.is_empty());
        let (case, effects) = world.destination().give_up(m.destination(), why);
        assert_eq!((case.state, case.code), (state, Some(why)));
        let heard = recipients(&effects, Kind::Refusal);
        assert_eq!(heard, [&[Recipient::Hospital(id(A))], told].concat());
    }
}

#[test]
fn a_presentation_that_opens_no_case_is_answered() {
    let mut world = World::new();
    let sealed = Forge::honest(&world).presentation(&mut world);
    let destination = world.destination();
    let opened = destination.open_presentation(&sealed).unwrap();
    let known = world.b.registered_at(&world.root, opened.pid());
    let presenter = destination.verify_presenter(opened, known).unwrap();
    let verified = destination.verify_presentation(presenter).unwrap();
    let effect = destination.refuse_presentation(&verified, Code::ProofSpent).unwrap();
    let body: RefusalBody = posted(&[effect], Kind::Refusal).open(Kind::Refusal, "refusal").unwrap();
    let refusal = body.refusal.parse().unwrap().verify(&world.network.backend, world.b.identity.signing.public());
    let refusal = refusal.unwrap().into_message();
    assert_eq!((refusal.subject, refusal.code), (verified.proof().0, Code::ProofSpent.public()));
}

#[test]
fn a_sealed_detail_that_contradicts_the_signed_code_does_not_count() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let mut body = refusal(&world, &m, &world.a.identity.signing, |_| {});
    let session = m.destination().session;
    let backend = &world.network.backend;
    let to = m.secret();
    let seal = |code: Code| {
        SealedBytes::seal(backend, to.public(), SealPurpose::RejectionDetail, session.as_bytes(), &to_cbor(&code))
    };
    body.detail = Some(seal(Code::ProofSpent).unwrap());
    let (after, _) = world.destination().handle_refusal(m.destination(), &body, Some(&to)).unwrap();
    assert_eq!(after.code, Some(Code::ConsentRefused));
}

#[test]
fn only_the_pinned_source_refuses_at_the_destination() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let take = |body| world.destination().handle_refusal(m.destination(), &body, None);
    let source = world.a.identity.signing.clone();
    assert!(take(refusal(&world, &m, &source, |_| {})).is_ok());
    assert_eq!(code(take(refusal(&world, &m, &world.stranger(A).0, |_| {}))), Code::SignatureInvalid);
    assert_eq!(code(take(refusal(&world, &m, &world.authority.proof_signing, |_| {}))), Code::SignatureInvalid);
    assert_eq!(code(take(refusal(&world, &m, &source, |r| r.subject = OTHER))), Code::UnknownCase);
    assert_eq!(code(take(refusal(&world, &m, &source, |r| r.session = Some(SessionId(OTHER))))), Code::UnknownCase);
    assert_eq!(code(take(refusal(&world, &m, &source, |r| r.session = None))), Code::UnknownCase);
    let late = world.migrate(1, Step::Released);
    let body = refusal(&world, &late, &source, |_| {});
    assert_eq!(code(world.destination().handle_refusal(late.destination(), &body, None)), Code::UnexpectedMessage);
}

#[test]
fn authority_or_destination_end_a_case_at_the_source_and_nobody_else() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let take = |body| world.source().handle_refusal(m.source(), &body);
    for key in [&world.authority.proof_signing, &world.b.identity.signing] {
        let (case, effects) = take(refusal(&world, &m, key, |_| {})).unwrap();
        assert_eq!((case.state, case.code), (SourceState::Refused, Some(Code::ConsentRefused)));
        assert_eq!(
            recipients(&effects, Kind::Refusal),
            [Recipient::Hospital(id(B)), Recipient::Authority],
            "both hear of it, so that the case ends for everybody"
        );
        assert_eq!(code(take(refusal(&world, &m, key, |r| r.subject = OTHER))), Code::UnknownCase);
        assert_eq!(code(take(refusal(&world, &m, key, |r| r.session = Some(SessionId(OTHER))))), Code::UnknownCase);
    }
    assert_eq!(code(take(refusal(&world, &m, &world.stranger(B).0, |_| {}))), Code::SignatureInvalid);
    let granted = world.migrate(3, Step::Granted);
    let by_authority = refusal(&world, &granted, &world.authority.proof_signing, |_| {});
    let refused = world.source().handle_refusal(granted.source(), &by_authority);
    assert_eq!(code(refused), Code::UnexpectedMessage, "a grant is taken back by a signed end only");
    let lodged = world.migrate(1, Step::Lodged);
    let by_authority = refusal(&world, &lodged, &world.authority.proof_signing, |_| {});
    assert_eq!(code(world.source().handle_refusal(lodged.source(), &by_authority)), Code::UnexpectedMessage);
    let by_destination = refusal(&world, &lodged, &world.b.identity.signing, |_| {});
    assert!(world.source().handle_refusal(lodged.source(), &by_destination).is_ok());
    let closed = world.migrate(2, Step::Closed);
    let by_destination = refusal(&world, &closed, &world.b.identity.signing, |_| {});
    assert_eq!(code(world.source().handle_refusal(closed.source(), &by_destination)), Code::UnexpectedMessage);
}

// Revocation at the hospitals.

fn revocation(world: &World, key: &SigningKey, proof: ProofId, chain: Chain) -> RevocationBody {
    let said = Revocation { proof, reason: RevocationReason::Withdrawn, time: world.now };
    RevocationBody { revocation: SignedBytes::from(&Signed::sign(&world.network.backend, key, said)), chain }
}

#[test]
fn a_revocation_stops_both_hospitals_under_the_holders_or_the_counterparts_key_only() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let holder = world.root.revocation_key(0);
    let (a, b) = (&world.a.identity, &world.b.identity);
    let pf = m.proof.id();
    for body in [revocation(&world, &holder, pf, Chain::default()), revocation(&world, &b.signing, pf, b.chain.clone())]
    {
        let (case, _) = world.source().handle_revocation(m.source(), &body).unwrap();
        assert_eq!((case.state, case.code), (SourceState::Refused, Some(Code::ProofRevoked)));
    }
    for body in [revocation(&world, &holder, pf, Chain::default()), revocation(&world, &a.signing, pf, a.chain.clone())]
    {
        let (case, _) = world.destination().handle_revocation(m.destination(), &body).unwrap();
        assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::ProofRevoked)));
    }
    let (stranger, chain) = world.stranger(B);
    let wrong = [
        (revocation(&world, &world.root.revocation_key(1), pf, Chain::default()), Code::SignatureInvalid),
        (revocation(&world, &stranger, pf, chain), Code::SignatureInvalid),
        (revocation(&world, &holder, ProofId(OTHER), Chain::default()), Code::UnknownCase),
    ];
    for (body, expected) in wrong {
        assert_eq!(code(world.source().handle_revocation(m.source(), &body)), expected);
        assert_eq!(code(world.destination().handle_revocation(m.destination(), &body)), expected);
    }
}

#[test]
fn a_revocation_comes_too_late_at_the_source_once_it_lodged_and_at_the_destination_once_it_has_the_key() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Released);
    let body = revocation(&world, &world.root.revocation_key(0), m.proof.id(), Chain::default());
    assert_eq!(code(world.source().handle_revocation(m.source(), &body)), Code::UnexpectedMessage);
    assert_eq!(code(world.destination().handle_revocation(m.destination(), &body)), Code::UnexpectedMessage);
}

#[test]
fn once_the_destination_signed_for_the_ciphertext_the_authority_decides() {
    // The key may be on its way: neither refusal nor revocation makes the destination throw it away.
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let revoked = revocation(&world, &world.root.revocation_key(0), m.proof.id(), Chain::default());
    let (case, effects) = world.destination().handle_revocation(m.destination(), &revoked).unwrap();
    assert_eq!((case.state, case.code, effects.len()), (DestinationState::Delivered, Some(Code::ProofRevoked), 0));
    let refused = refusal(&world, &m, &world.a.identity.signing, |r| r.retry = true);
    let (case, effects) = world.destination().handle_refusal(m.destination(), &refused, None).unwrap();
    assert_eq!((case.state, effects.len()), (DestinationState::Delivered, 0));
}

#[test]
fn a_rejected_record_ends_signed_for_everybody() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Released);
    let mut detail = m.detail();
    (detail.filed, detail.code, detail.inventory) = (0, Some(Code::OutOfScope), Vec::new());
    let filing = Filing { detail, outcome: OutcomeClass::Rejected };
    let (case, effects) = world.destination().handle_filed(m.destination(), &filing).unwrap();
    assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::OutOfScope)));
    m.receipt = Some(posted(&effects, Kind::ImportReceipt).open(Kind::ImportReceipt, "receipt").unwrap());
    m.destination = Some(case);
    let body = world.end_with_receipt(&mut m);
    let (case, _) = world.source().handle_statement(m.source(), body.clone(), m.reply_secret.as_ref()).unwrap();
    assert_eq!(case.state, SourceState::Closed);
    let (patient, contact) = (world.patient(), &world.b.contact);
    let read = patient.accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body).unwrap();
    assert_eq!((read.state, read.receipt.unwrap().1.code), (EndState::Rejected, Some(Code::OutOfScope)));
}
