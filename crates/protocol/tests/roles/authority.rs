//! The authority's checks (PROTOCOL section 6.3).

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::{Digest, SigningKey};
use waybill_protocol::authority::{AuthorityCase, RECEIPT_DEADLINE_SECONDS};
use waybill_protocol::ids::{HospitalId, ManifestId, MessageId, Nonce, ProofId, SessionId, Timestamp};
use waybill_protocol::messages::{
    Chain, DelegationBody, EndState, OutcomeClass, RedeemBody, Refusal, RefusalBody, Revocation, RevocationBody,
    RevocationReason, Standing, Terms, Voucher, VoucherGrant,
};
use waybill_protocol::migration::{AuthorityState, Effect};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel};

use crate::common::*;

const OTHER: Digest = Digest([0xee; 32]);

fn sign<M: waybill_protocol::signed::Message>(world: &World, key: &SigningKey, message: M) -> SignedBytes<M> {
    SignedBytes::from(&Signed::sign(&world.network.backend, key, message))
}

// Delegations.

fn delegated(alter: impl FnOnce(&mut DelegationBody, &mut World)) -> Result<(), Code> {
    let mut world = World::new();
    let (_, mut body) = world.delegate(0);
    alter(&mut body, &mut world);
    world.authority().check_delegation(&body, &all_active).map(|_| ()).map_err(|r| r.code)
}

fn delegation_refused(expected: Code, alter: impl FnOnce(&mut DelegationBody, &mut World)) {
    assert_eq!(delegated(alter), Err(expected));
}

/// The delegation with other terms, signed by its own key, with a voucher that fits them.
fn with_terms(body: &mut DelegationBody, world: &World, alter: impl FnOnce(&mut Terms)) {
    let key = world.root.delegation_key(0);
    body.delegation = resigned(world, &key, &body.delegation, |d| alter(&mut d.terms));
}

fn with_voucher(body: &mut DelegationBody, world: &World, alter: impl FnOnce(&mut Voucher)) {
    body.voucher.voucher = resigned(world, &world.a.identity.signing, &body.voucher.voucher, alter);
}

#[test]
fn an_honest_delegation_becomes_an_intent_under_its_unique_row() {
    let mut world = World::new();
    let (draft, body) = world.delegate(0);
    let intent = world.authority().check_delegation(&body, &all_active).unwrap();
    assert_eq!(intent.delegation_key, body.key.thumbprint(), "one delegation per key, ever: the row the shell inserts");
    assert_eq!(intent.proof.terms, draft.terms);
    let again = world.authority().check_delegation(&body, &all_active).unwrap();
    assert_eq!(again.delegation_key, intent.delegation_key, "the same delegation again meets the same row");
}

#[test]
fn a_delegation_that_its_own_key_did_not_sign_is_refused() {
    delegation_refused(Code::DelegationInvalid, |body, _| body.delegation = forged(&body.delegation));
    delegation_refused(Code::DelegationInvalid, |body, _| body.key = SigningKey::derive(&[1; 32]).public().clone());
    // Signed by the key beside it, but naming another: the voucher would vouch for somebody else.
    delegation_refused(Code::DelegationInvalid, |body, world| {
        let key = SigningKey::derive(&[1; 32]);
        body.delegation = resigned(world, &key, &body.delegation, |_| {});
        body.key = key.public().clone();
    });
}

#[test]
fn a_reply_key_that_takes_no_seal_is_refused_before_a_proof_is_logged() {
    delegation_refused(Code::DelegationInvalid, |body, world| {
        with_terms(body, world, |terms| terms.reply_key.0 = [0; 32]);
    });
}

#[test]
fn a_voucher_that_vouches_for_anything_else_is_refused() {
    delegation_refused(Code::VoucherInvalid, |body, world| with_voucher(body, world, |v| v.delegation_key = OTHER));
    delegation_refused(Code::VoucherInvalid, |body, world| with_voucher(body, world, |v| v.com_source.0 = OTHER));
    delegation_refused(Code::VoucherInvalid, |body, world| with_voucher(body, world, |v| v.source = id(B)));
    delegation_refused(Code::VoucherInvalid, |body, _| body.voucher.voucher = forged(&body.voucher.voucher));
    // Another hospital vouches under its own name and key.
    delegation_refused(Code::VoucherInvalid, |body, world| {
        let voucher = resigned(world, &world.b.identity.signing, &body.voucher.voucher, |v| v.source = id(B));
        body.voucher = VoucherGrant { voucher, chain: world.b.identity.chain.clone() };
    });
    // ... or under the source's name.
    delegation_refused(Code::VoucherInvalid, |body, world| {
        let voucher = resigned(world, &world.b.identity.signing, &body.voucher.voucher, |_| {});
        body.voucher = VoucherGrant { voucher, chain: world.b.identity.chain.clone() };
    });
    delegation_refused(Code::CertificateInvalid, |body, world| {
        let key = world.a.identity.signing.public();
        body.voucher.chain = world.network.chain(Profile::HospitalTls, A, key, NOW).0;
    });
}

#[test]
fn a_voucher_serves_until_its_last_second() {
    delegation_refused(Code::VoucherExpired, |body, world| {
        let last = body.voucher.voucher.parse().unwrap().peek().not_after;
        world.now = last.plus(1);
    });
    assert_eq!(delegated(|body, world| world.now = body.voucher.voucher.parse().unwrap().peek().not_after), Ok(()));
}

#[test]
fn a_proof_that_does_not_read_back_is_not_signed() {
    let mut world = World::new();
    let (_, body) = world.delegate(0);
    let mut intent = world.authority().check_delegation(&body, &all_active).unwrap();
    assert!(world.authority().issue_proof(&intent).is_ok());
    // As a row that a bug wrote: longer than any proof that a party would read.
    intent.proof.terms.expires = intent.proof.terms.not_before.plus(90 * DAY + 1);
    assert_eq!(code(world.authority().issue_proof(&intent)), Code::Malformed);
}

#[test]
fn hospitals_must_be_known_and_in_good_standing() {
    let mut world = World::new();
    let (_, body) = world.delegate(0);
    for (hospital, standing, expected) in [
        (A, None, Code::HospitalUnknown),
        (B, None, Code::HospitalUnknown),
        (A, Some(Standing::Suspended), Code::HospitalSuspended),
        (B, Some(Standing::Revoked), Code::HospitalSuspended),
    ] {
        let of = |asked: &HospitalId| if asked == &id(hospital) { standing } else { Some(Standing::Active) };
        assert_eq!(code(world.authority().check_delegation(&body, &of)), expected);
    }
}

#[test]
fn a_delegation_that_is_over_or_runs_too_long_is_refused() {
    delegation_refused(Code::WindowInvalid, |body, world| {
        let now = world.now;
        with_terms(body, world, |terms| (terms.not_before, terms.expires) = (Timestamp(now.0 - 2), now));
    });
    // Each delegation runs at most 90 days, and does not end later than 90 days from now.
    delegation_refused(Code::WindowInvalid, |body, world| {
        let from = world.now.plus(10);
        with_terms(body, world, |terms| (terms.not_before, terms.expires) = (from, from.plus(90 * DAY)));
    });
    // Too long by itself: refused as a message, before anything about it is believed.
    delegation_refused(Code::Malformed, |body, world| {
        with_terms(body, world, |terms| terms.expires = terms.not_before.plus(90 * DAY + 1));
    });
    for (from, seconds) in [(Timestamp(NOW.0 - 2), 3), (NOW, 90 * DAY)] {
        let taken = delegated(|body, world| {
            assert_eq!(world.now, NOW);
            with_terms(body, world, |terms| (terms.not_before, terms.expires) = (from, from.plus(seconds)));
        });
        assert_eq!(taken, Ok(()), "the shortest and the longest");
    }
}

// Redemption.

fn redeem_body(
    world: &World,
    m: &Migration,
    alter: impl FnOnce(&mut waybill_protocol::messages::Redeem),
) -> RedeemBody {
    let honest = m.redeem.clone().unwrap();
    RedeemBody { redeem: resigned(world, &world.a.identity.signing, &honest.redeem, alter), chain: honest.chain }
}

fn redeem(
    world: &World,
    case: AuthorityCase,
    body: &RedeemBody,
    standing: &dyn Fn(&HospitalId) -> Option<Standing>,
) -> Result<AuthorityCase, Rejection> {
    let (from, signed) = world.authority().verify_redeem(body)?;
    world.authority().handle_redeem(case, &from, &body.chain, &signed, standing).map(|(case, _)| case)
}

#[test]
fn a_proof_is_spent_once() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let honest = m.redeem.clone().unwrap();
    let spent = redeem(&world, m.authority.clone(), &honest, &all_active).unwrap();
    assert_eq!(code(redeem(&world, spent.clone(), &honest, &all_active)), Code::ProofSpent);
    let other = redeem_body(&world, &m, |r| r.session = SessionId(OTHER));
    assert_eq!(code(redeem(&world, spent.clone(), &other, &all_active)), Code::ProofSpent);
    // The same question gets the same answer again; any other does not.
    assert!(spent.has_granted(honest.redeem.parse().unwrap().peek()));
    assert!(!spent.has_granted(other.redeem.parse().unwrap().peek()));
    let renonced = redeem_body(&world, &m, |r| r.nonce = Nonce([1; 16]));
    assert!(!spent.has_granted(renonced.redeem.parse().unwrap().peek()));
}

#[test]
fn only_the_source_redeems_and_only_this_proof() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let by_destination = RedeemBody {
        redeem: resigned(&world, &world.b.identity.signing, &m.redeem.as_ref().unwrap().redeem, |_| {}),
        chain: world.b.identity.chain.clone(),
    };
    assert_eq!(code(redeem(&world, m.authority.clone(), &by_destination, &all_active)), Code::SenderWrong);
    let elsewhere = redeem_body(&world, &m, |r| r.proof = ProofId(OTHER));
    assert_eq!(code(redeem(&world, m.authority.clone(), &elsewhere, &all_active)), Code::SenderWrong);
    let mut flipped = m.redeem.clone().unwrap();
    flipped.redeem = forged(&flipped.redeem);
    assert_eq!(code(redeem(&world, m.authority.clone(), &flipped, &all_active)), Code::SignatureInvalid);
    world.authority_trust.renew_crl(world.network.crl(&[world.a.serial], NOW));
    let honest = m.redeem.clone().unwrap();
    assert_eq!(code(redeem(&world, m.authority, &honest, &all_active)), Code::CertificateRevoked);
}

#[test]
fn a_hospital_speaks_under_its_certified_key_and_not_under_one_that_it_brings() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let key = SigningKey::derive(&[1; 32]);
    // The same name and use under a root that is not the authority's; and the source's true certificate beside another key.
    let own = Network::new(2).chain(Profile::HospitalSigning, A, key.public(), NOW).0;
    for (chain, redeemed, vouched) in [
        (own, Code::CertificateInvalid, Code::CertificateInvalid),
        (world.a.identity.chain.clone(), Code::SignatureInvalid, Code::VoucherInvalid),
    ] {
        let asked = resigned(&world, &key, &m.redeem.as_ref().unwrap().redeem, |_| {});
        let body = RedeemBody { redeem: asked, chain: chain.clone() };
        assert_eq!(code(redeem(&world, m.authority.clone(), &body, &all_active)), redeemed);
        delegation_refused(vouched, |body, world| {
            let voucher = resigned(world, &key, &body.voucher.voucher, |_| {});
            body.voucher = VoucherGrant { voucher, chain };
        });
    }
}

#[test]
fn what_ended_is_not_redeemed() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let honest = m.redeem.clone().unwrap();
    for (end, expected) in [
        (EndState::Revoked, Code::ProofRevoked),
        (EndState::Expired, Code::ProofExpired),
        (EndState::Refused, Code::ProofSpent),
        (EndState::Filed, Code::ProofSpent),
    ] {
        let ended = AuthorityCase { state: AuthorityState::Ended(end), ..m.authority.clone() };
        assert_eq!(code(redeem(&world, ended, &honest, &all_active)), expected);
    }
}

#[test]
fn attempts_never_go_back() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let second = AuthorityCase { attempt: 2, ..m.authority.clone() };
    let honest = m.redeem.clone().unwrap();
    assert_eq!(code(redeem(&world, second, &honest, &all_active)), Code::AttemptInvalid);
}

#[test]
fn redemption_keeps_to_the_window_by_the_authoritys_clock() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let honest = m.redeem.clone().unwrap();
    world.now = Timestamp(m.authority.terms.not_before.0 - 1);
    assert_eq!(code(redeem(&world, m.authority.clone(), &honest, &all_active)), Code::ProofNotYetValid);
    world.now = m.authority.terms.not_before;
    assert!(redeem(&world, m.authority.clone(), &honest, &all_active).is_ok(), "the first second");
    world.now = m.authority.terms.expires;
    // The list of that day, so that nothing but the window refuses.
    world.authority_trust.renew_crl(world.network.crl(&[], world.now));
    assert!(redeem(&world, m.authority.clone(), &honest, &all_active).is_ok(), "the last");
    world.now = world.now.plus(1);
    assert_eq!(code(redeem(&world, m.authority, &honest, &all_active)), Code::ProofExpired);
}

#[test]
fn a_hospital_that_lost_its_standing_gets_no_grant() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let honest = m.redeem.clone().unwrap();
    for hospital in [A, B] {
        for standing in [None, Some(Standing::Suspended), Some(Standing::Revoked)] {
            let of = |asked: &HospitalId| if asked == &id(hospital) { standing } else { Some(Standing::Active) };
            assert_eq!(code(redeem(&world, m.authority.clone(), &honest, &of)), Code::StandingLost);
        }
    }
}

// The exchange of key for receipt.

#[test]
fn a_lodgement_must_open_and_be_the_redeemers() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Lodged);
    let honest = m.source().lodgement.unwrap();
    let before = AuthorityCase { state: AuthorityState::Redeemed, lodgement: None, ..m.authority.clone() };
    let take = |lodgement: &SignedBytes<_>| world.authority().handle_lodgement(before.clone(), lodgement, &all_active);
    assert!(take(&honest).is_ok());
    assert_eq!(code(take(&forged(&honest))), Code::LodgementInvalid);
    let by_destination = resigned(&world, &world.b.identity.signing, &honest, |_| {});
    assert_eq!(code(take(&by_destination)), Code::LodgementInvalid);
    let same_name = resigned(&world, &world.stranger(A).0, &honest, |_| {});
    assert_eq!(code(take(&same_name)), Code::LodgementInvalid);
    let key = &world.a.identity.signing;
    let elsewhere = resigned(&world, key, &honest, |l| l.proof = ProofId(OTHER));
    assert_eq!(code(take(&elsewhere)), Code::LodgementInvalid);
    let earlier_attempt = resigned(&world, key, &honest, |l| l.session = SessionId(OTHER));
    assert_eq!(code(take(&earlier_attempt)), Code::AttemptInvalid);

    let again = world.authority().handle_lodgement(m.authority.clone(), &honest, &all_active);
    assert_eq!(code(again), Code::UnexpectedMessage, "one lodgement an attempt");
    let unredeemed = world.prove(3).authority;
    assert_eq!(code(world.authority().handle_lodgement(unredeemed, &honest, &all_active)), Code::UnexpectedMessage);

    let mut body = m.lodgement.take().unwrap();
    body.proof = ProofId(OTHER);
    assert_eq!(code(world.authority().open_lodgement(&body)), Code::LodgementInvalid, "the seal is bound to its case");

    world.authority_trust.renew_crl(world.network.crl(&[world.a.serial], NOW));
    let revoked = world.authority().handle_lodgement(before, &honest, &all_active);
    assert_eq!(code(revoked), Code::CertificateRevoked, "revoked after it redeemed");
}

#[test]
fn a_delivery_receipt_must_be_the_destinations_for_this_case_and_session() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let honest = m.delivery.clone().unwrap();
    let take =
        |body| world.authority().handle_delivery(m.authority.clone(), &body, &all_active).map(|(case, _)| case.state);
    assert_eq!(take(honest.clone()).unwrap(), AuthorityState::KeyReleased);
    let with = |delivery| waybill_protocol::messages::DeliveryBody { delivery, ..honest.clone() };
    let key = &world.b.identity.signing;
    assert_eq!(code(take(with(forged(&honest.delivery)))), Code::SignatureInvalid);
    let elsewhere = resigned(&world, key, &honest.delivery, |d| d.proof = ProofId(OTHER));
    assert_eq!(code(take(with(elsewhere))), Code::SenderWrong);
    let earlier_attempt = resigned(&world, key, &honest.delivery, |d| d.session = SessionId(OTHER));
    assert_eq!(code(take(with(earlier_attempt))), Code::AttemptInvalid);
    let other_manifest = resigned(&world, key, &honest.delivery, |d| d.manifest = ManifestId(OTHER));
    assert_eq!(code(take(with(other_manifest))), Code::LodgementMismatch);
    let by_source = waybill_protocol::messages::DeliveryBody {
        delivery: resigned(&world, &world.a.identity.signing, &honest.delivery, |_| {}),
        chain: world.a.identity.chain.clone(),
    };
    assert_eq!(code(take(by_source)), Code::SenderWrong);
}

#[test]
fn whichever_comes_first_the_key_waits_for_the_other() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Granted);
    let mut ahead = m.clone();
    world.advance(&mut ahead, Step::Granted, Step::Delivered);
    // The receipt overtakes the lodgement.
    let delivery = ahead.delivery.clone().unwrap();
    let (case, effects) = world.authority().handle_delivery(m.authority.clone(), &delivery, &all_active).unwrap();
    assert_eq!((case.state, leaves(&effects).len()), (AuthorityState::Redeemed, 1), "logged, and nothing is released");
    assert_eq!(code(world.authority().handle_delivery(case.clone(), &delivery, &all_active)), Code::UnexpectedMessage);
    let (case, effects) =
        world.authority().handle_lodgement(case, &ahead.source().lodgement.unwrap(), &all_active).unwrap();
    assert_eq!((case.state, leaves(&effects).len()), (AuthorityState::KeyReleased, 2), "lodgement and release");
    m.authority = case;
}

#[test]
fn nothing_is_exchanged_after_the_proofs_last_second() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    world.now = m.authority.terms.expires;
    world.authority_trust.renew_crl(world.network.crl(&[], world.now));
    let delivery = m.delivery.as_ref().unwrap();
    assert!(world.authority().handle_delivery(m.authority.clone(), delivery, &all_active).is_ok(), "in it, it is");
    world.now = world.now.plus(1);
    let late = world.authority().handle_delivery(m.authority.clone(), m.delivery.as_ref().unwrap(), &all_active);
    assert_eq!(code(late), Code::ProofExpired);
    let (case, effects) = world.authority().handle_deadline(m.authority.clone()).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Expired));
    assert_eq!(leaves(&effects).len(), 1, "the end is logged");
    let after = world.authority().handle_delivery(case, m.delivery.as_ref().unwrap(), &all_active);
    assert_eq!(code(after), Code::ProofExpired);
}

#[test]
fn a_hospital_that_lost_its_standing_since_the_grant_exchanges_nothing() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let lodgement = m.source().lodgement.unwrap();
    let before = AuthorityCase { state: AuthorityState::Redeemed, lodgement: None, ..m.authority.clone() };
    for hospital in [A, B] {
        let of = |asked: &HospitalId| Some(if asked == &id(hospital) { Standing::Suspended } else { Standing::Active });
        let delivered = world.authority().handle_delivery(m.authority.clone(), m.delivery.as_ref().unwrap(), &of);
        assert_eq!(code(delivered), Code::StandingLost, "{hospital}");
        let mut complete = before.clone();
        complete.delivery = m.destination().delivery;
        let lodged = world.authority().handle_lodgement(complete, &lodgement, &of);
        assert_eq!(code(lodged), Code::StandingLost, "{hospital}");
    }
}

// Receipts and deadlines.

#[test]
fn a_receipt_must_be_the_destinations_for_the_released_manifest() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let honest = m.receipt.clone().unwrap();
    let take = |receipt| {
        let body = waybill_protocol::messages::ReceiptBody { receipt, ..honest.clone() };
        world.authority().handle_receipt(m.authority.clone(), &body).map(|(case, _)| case.state)
    };
    let key = &world.b.identity.signing;
    assert_eq!(take(honest.receipt.clone()).unwrap(), AuthorityState::Ended(EndState::Filed));
    let rejected = resigned(&world, key, &honest.receipt, |r| r.outcome = OutcomeClass::Rejected);
    assert_eq!(take(rejected).unwrap(), AuthorityState::Ended(EndState::Rejected));
    assert_eq!(code(take(forged(&honest.receipt))), Code::SignatureInvalid);
    let elsewhere = resigned(&world, key, &honest.receipt, |r| r.proof = ProofId(OTHER));
    assert_eq!(code(take(elsewhere)), Code::SenderWrong);
    let other_manifest = resigned(&world, key, &honest.receipt, |r| r.manifest = ManifestId(OTHER));
    assert_eq!(code(take(other_manifest)), Code::ReceiptInvalid);
    let by_source = waybill_protocol::messages::ReceiptBody {
        receipt: resigned(&world, &world.a.identity.signing, &honest.receipt, |_| {}),
        chain: world.a.identity.chain.clone(),
        ..honest.clone()
    };
    assert_eq!(code(world.authority().handle_receipt(m.authority.clone(), &by_source)), Code::SenderWrong);
    let early = AuthorityCase { state: AuthorityState::Lodged, ..m.authority.clone() };
    assert_eq!(code(world.authority().handle_receipt(early, &honest)), Code::UnexpectedMessage);
}

#[test]
fn silence_ends_unacknowledged_and_a_late_receipt_still_closes() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let released = world.now;
    assert_eq!(RECEIPT_DEADLINE_SECONDS, 7 * DAY);
    world.now = released.plus(RECEIPT_DEADLINE_SECONDS - 1);
    assert!(world.authority().handle_deadline(m.authority.clone()).is_none(), "not yet due");
    world.now = released.plus(RECEIPT_DEADLINE_SECONDS);
    let (case, _) = world.authority().handle_deadline(m.authority.clone()).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Unacknowledged));
    assert!(world.authority().handle_deadline(case.clone()).is_none(), "an ended case has no deadline");
    world.authority_trust.renew_crl(world.network.crl(&[], world.now));
    let receipt = m.receipt.clone().unwrap();
    let (case, effects) = world.authority().handle_receipt(case, &receipt).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Filed));
    assert!(effects.contains(&Effect::NoDeadline));
    assert_eq!(code(world.authority().handle_receipt(case, &receipt)), Code::UnexpectedMessage);
}

#[test]
fn a_proof_that_nobody_redeems_expires() {
    let mut world = World::new();
    let m = world.prove(0);
    world.now = m.authority.terms.expires;
    assert!(world.authority().handle_deadline(m.authority.clone()).is_none());
    world.now = world.now.plus(1);
    let (case, _) = world.authority().handle_deadline(m.authority).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Expired));
}

// Revocation and refusal.

fn revocation(world: &World, key: &SigningKey, proof: ProofId, chain: Chain) -> RevocationBody {
    let revocation = Revocation { proof, reason: RevocationReason::Withdrawn, time: world.now };
    RevocationBody { revocation: sign(world, key, revocation), chain }
}

#[test]
fn holder_and_hospitals_revoke_until_the_key_is_released() {
    for step in [Step::Proof, Step::Granted, Step::Lodged] {
        let mut world = World::new();
        let m = world.migrate(0, step);
        let (a, b) = (&world.a.identity, &world.b.identity);
        let holder = world.root.revocation_key(0);
        for body in [
            revocation(&world, &holder, m.proof.id(), Chain::default()),
            revocation(&world, &a.signing, m.proof.id(), a.chain.clone()),
            revocation(&world, &b.signing, m.proof.id(), b.chain.clone()),
        ] {
            let (case, effects) = world.authority().handle_revocation(m.authority.clone(), &body).unwrap();
            assert_eq!(case.state, AuthorityState::Ended(EndState::Revoked));
            assert_eq!(leaves(&effects).len(), 1, "a revocation is logged and told to everybody");
        }
    }
    let mut world = World::new();
    let m = world.migrate(0, Step::Released);
    let body = revocation(&world, &world.root.revocation_key(0), m.proof.id(), Chain::default());
    assert_eq!(code(world.authority().handle_revocation(m.authority, &body)), Code::UnexpectedMessage, "too late");
}

#[test]
fn what_the_wallet_posts_stops_its_own_case() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let parcel = world.patient().revoke(&m.draft, m.proof.id(), RevocationReason::Withdrawn);
    let body: RevocationBody = Parcel::parse(&parcel).unwrap().open(Kind::Revocation, "revocation").unwrap();
    let (case, _) = world.authority().handle_revocation(m.authority, &body).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Revoked));
    let late = world.authority().handle_delivery(case, m.delivery.as_ref().unwrap(), &all_active);
    assert_eq!(code(late), Code::ProofRevoked, "and says why nothing is exchanged any more");
}

#[test]
fn nobody_else_revokes() {
    let mut world = World::new();
    let m = world.prove(0);
    let take = |body| world.authority().handle_revocation(m.authority.clone(), &body);
    let key = world.network.backend.generate_signing_key();
    assert_eq!(code(take(revocation(&world, &key, m.proof.id(), Chain::default()))), Code::SignatureInvalid);
    let another_delegation = world.root.revocation_key(1);
    let body = revocation(&world, &another_delegation, m.proof.id(), Chain::default());
    assert_eq!(code(take(body)), Code::SignatureInvalid);
    // Nor does the patient's own lasting key, which would link the case to its pseudonym.
    let consent_key = world.root.consent_key(A, 0);
    let body = revocation(&world, &consent_key, m.proof.id(), Chain::default());
    assert_eq!(code(take(body)), Code::SignatureInvalid);
    let (stranger, chain) = world.stranger(C);
    assert_eq!(code(take(revocation(&world, &stranger, m.proof.id(), chain))), Code::SenderWrong);
    let holder = world.root.revocation_key(0);
    assert_eq!(code(take(revocation(&world, &holder, ProofId(OTHER), Chain::default()))), Code::SenderWrong);
}

fn refusal(world: &World, m: &Migration, alter: impl FnOnce(&mut Refusal)) -> RefusalBody {
    let mut refusal = Refusal {
        subject: m.proof.id().0,
        session: m.authority.session,
        attempt: m.authority.attempt,
        code: Code::ConsentRefused,
        retry: false,
        time: world.now,
    };
    alter(&mut refusal);
    RefusalBody {
        refusal: sign(world, &world.a.identity.signing, refusal),
        chain: world.a.identity.chain.clone(),
        detail: None,
    }
}

#[test]
fn the_source_refuses_finally_or_for_one_attempt() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Lodged);
    let take = |body: RefusalBody| world.authority().handle_refusal(m.authority.clone(), &body);
    let (case, _) = take(refusal(&world, &m, |_| {})).unwrap();
    assert_eq!(case.state, AuthorityState::Ended(EndState::Refused));
    let (case, effects) = take(refusal(&world, &m, |r| r.retry = true)).unwrap();
    assert_eq!((case.state, case.attempt), (AuthorityState::Issued, 2));
    assert!(case.session.is_none() && case.grant.is_none() && case.lodgement.is_none() && case.delivery.is_none());
    assert_eq!(leaves(&effects).len(), 1, "a failed attempt is logged: a restored backup cannot forget it");

    assert_eq!(code(take(refusal(&world, &m, |r| r.subject = OTHER))), Code::SenderWrong);
    assert_eq!(code(take(refusal(&world, &m, |r| r.attempt += 1))), Code::AttemptInvalid);
    assert_eq!(code(take(refusal(&world, &m, |r| r.session = Some(SessionId(OTHER))))), Code::AttemptInvalid);
    let mut flipped = refusal(&world, &m, |_| {});
    flipped.refusal = forged(&flipped.refusal);
    assert_eq!(code(take(flipped)), Code::SignatureInvalid);
    let mut by_destination = refusal(&world, &m, |_| {});
    by_destination.refusal = resigned(&world, &world.b.identity.signing, &by_destination.refusal, |_| {});
    by_destination.chain = world.b.identity.chain.clone();
    assert_eq!(code(take(by_destination)), Code::SenderWrong);
    let released = AuthorityCase { state: AuthorityState::KeyReleased, ..m.authority.clone() };
    let late = world.authority().handle_refusal(released, &refusal(&world, &m, |_| {}));
    assert_eq!(code(late), Code::UnexpectedMessage, "after the release only a receipt or the deadline ends it");
}

#[test]
fn a_refusal_that_overtakes_its_redemption_keeps_it_from_being_spent() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let early = refusal(&world, &m, |r| r.retry = true);
    let (case, _) = world.authority().handle_refusal(m.authority.clone(), &early).unwrap();
    assert_eq!((case.state, case.attempt), (AuthorityState::Issued, 2));
    let late = redeem(&world, case.clone(), m.redeem.as_ref().unwrap(), &all_active);
    assert_eq!(code(late), Code::AttemptInvalid);
    assert_eq!(code(world.authority().handle_refusal(case, &early)), Code::AttemptInvalid, "and counts once");
}

#[test]
fn a_receipt_whose_sealed_parts_are_too_large_is_refused() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Filed);
    let backend = &world.network.backend;
    let large = vec![0; waybill_protocol::messages::MAX_INNER_RECEIPT_BYTES];
    let purpose = waybill_protocol::sealed::SealPurpose::ReceiptSource;
    let sealed =
        waybill_protocol::sealed::SealedBytes::seal(backend, fresh_hpke(&world).public(), purpose, &[], &large);
    let sealed = sealed.unwrap();
    let honest = m.receipt.clone().unwrap();
    for body in [
        waybill_protocol::messages::ReceiptBody { for_source: sealed.clone(), ..honest.clone() },
        waybill_protocol::messages::ReceiptBody { for_patient: sealed, ..honest },
    ] {
        assert_eq!(code(world.authority().handle_receipt(m.authority.clone(), &body)), Code::ReceiptInvalid);
    }
}

#[test]
fn a_refusal_by_the_authority_is_signed_and_shows_the_public_code_only() {
    let world = World::new();
    let to = waybill_protocol::migration::Recipient::Authority;
    let Effect::Post(post) = world.authority().refuse(to, OTHER, None, 0, Code::PatientUnknown) else {
        panic!("a refusal is posted");
    };
    let body: RefusalBody = Parcel::parse(&post.parcel).unwrap().open(Kind::Refusal, "refusal").unwrap();
    let ctx = world.ctx();
    let signed = world.patient_trust.verify_authority(&ctx, &body.refusal).unwrap();
    assert_eq!(signed.message().code, Code::ConsentRefused);
    assert_ne!(MessageId(OTHER), signed.id());
}
