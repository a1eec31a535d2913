//! The source's checks of a grant, and what it may do afterwards and only then (PROTOCOL section 6.1, checks 11 to 15).

use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::Digest;
use waybill_protocol::ids::{Nonce, SessionId, Timestamp};
use waybill_protocol::log::{Checkpoint, LeafKind};
use waybill_protocol::messages::{AuthorityStatementBody, Grant, GrantBody, Standing};
use waybill_protocol::migration::SourceState;
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{CLOCK_SKEW_SECONDS, Granted, SourceCase};
use waybill_protocol::trust::Trust;

use crate::common::*;

/// A grant that the authority signs and logs, honest but for one field.
fn altered(alter: impl FnOnce(&mut Grant)) -> (World, SourceCase, GrantBody, Checkpoint) {
    let mut world = World::new();
    let m = world.migrate(0, Step::Redeeming);
    let known = world.log.checkpoint();
    let case = m.source();
    let mut grant = Grant {
        proof: case.proof,
        session: case.session,
        nonce: case.nonce,
        attempt: case.attempt,
        time: world.now,
        source: Standing::Active,
        destination: Standing::Active,
        to: id(B),
    };
    alter(&mut grant);
    let body = logged(&mut world, grant, LeafKind::GRANT, known.size);
    (world, case, body, known)
}

fn logged(world: &mut World, grant: Grant, kind: LeafKind, from: u64) -> GrantBody {
    let grant = Signed::sign(&world.network.backend, &world.authority.proof_signing, grant);
    let evidence = world.log.append(&world.network.backend, kind, &grant.id().0, [6; 16]);
    let consistency = world.log.consistency(from);
    GrantBody { grant: SignedBytes::from(&grant), evidence, consistency }
}

fn refused(expected: Code, alter: impl FnOnce(&mut Grant)) {
    let (world, case, body, _) = altered(alter);
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, body)), expected);
}

#[test]
fn an_honest_grant_is_the_right_to_read_the_record() {
    let (world, case, body, _) = altered(|_| {});
    assert!(Granted::resume(&case).is_none(), "before the grant there is no right");
    let (granted, _, (case, _)) = world.source().handle_grant(&world.stands(&case), case, body.clone()).unwrap();
    assert_eq!((granted.proof(), case.state), (case.proof, SourceState::Granted));
    assert!(Granted::resume(&case).is_some(), "after a restart the durable state is the right");
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, body)), Code::UnexpectedMessage);
}

#[test]
fn a_grant_for_another_redemption_is_refused() {
    refused(Code::GrantInvalid, |grant| grant.proof.0 = Digest([1; 32]));
    refused(Code::GrantInvalid, |grant| grant.session = SessionId(Digest([1; 32])));
    refused(Code::GrantInvalid, |grant| grant.nonce = Nonce([1; 16]));
    refused(Code::GrantInvalid, |grant| grant.attempt += 1);
    refused(Code::GrantInvalid, |grant| grant.to = id(C));
}

#[test]
fn a_grant_far_from_this_clock_is_refused_and_may_be_tried_again() {
    refused(Code::ClockSkew, |grant| grant.time = grant.time.plus(CLOCK_SKEW_SECONDS + 1));
    refused(Code::ClockSkew, |grant| grant.time = Timestamp(grant.time.0 - CLOCK_SKEW_SECONDS - 1));
    assert!(Code::ClockSkew.retryable());
    let (world, case, body, _) = altered(|grant| grant.time = grant.time.plus(CLOCK_SKEW_SECONDS));
    assert!(world.source().handle_grant(&world.stands(&case), case, body).is_ok());
}

#[test]
fn a_hospital_that_lost_its_standing_ends_the_case() {
    for standing in [Standing::Suspended, Standing::Revoked] {
        refused(Code::StandingLost, |grant| grant.source = standing);
        refused(Code::StandingLost, |grant| grant.destination = standing);
    }
}

#[test]
fn a_grant_that_the_authority_did_not_sign_is_refused() {
    let (world, case, body, _) = altered(|_| {});
    let (stranger, _) = world.stranger(B);
    let grant = resigned(&world, &stranger, &body.grant, |_| {});
    let by_another = GrantBody { grant, ..body.clone() };
    assert_eq!(
        code(world.source().handle_grant(&world.stands(&case), case.clone(), by_another)),
        Code::SignatureInvalid
    );
    let flipped = GrantBody { grant: forged(&body.grant), ..body };
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, flipped)), Code::SignatureInvalid);
}

#[test]
fn an_authority_key_whose_certificate_expired_grants_nothing() {
    let (mut world, case, _, known) = altered(|_| {});
    world.now = world.now.plus(31 * DAY);
    let grant = Grant {
        proof: case.proof,
        session: case.session,
        nonce: case.nonce,
        attempt: case.attempt,
        time: world.now,
        source: Standing::Active,
        destination: Standing::Active,
        to: id(B),
    };
    let body = logged(&mut world, grant, LeafKind::GRANT, known.size);
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, body)), Code::CertificateExpired);
}

#[test]
fn an_authority_key_that_was_revoked_since_grants_nothing() {
    let (mut world, case, body, _) = altered(|_| {});
    let crl = world.network.crl(&[world.authority_serial], NOW);
    world.a.trust.renew_crl(crl);
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, body)), Code::CertificateRevoked);
}

#[test]
fn a_grant_that_is_not_in_the_witnessed_log_is_refused() {
    let (mut world, case, body, known) = altered(|_| {});
    let grant = body.grant.parse().unwrap().peek().clone();
    let other_kind = logged(&mut world, grant.clone(), LeafKind::PROOF, known.size);
    assert_eq!(
        code(world.source().handle_grant(&world.stands(&case), case.clone(), other_kind)),
        Code::LogEvidenceInvalid
    );
    world.log.cosigners = 1;
    let unwitnessed = logged(&mut world, grant, LeafKind::GRANT, known.size);
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, unwitnessed)), Code::LogEvidenceInvalid);
}

#[test]
fn a_log_that_contradicts_what_was_seen_of_it_is_refused() {
    let (world, case, body, known) = altered(|_| {});
    let having_seen = |seen: Checkpoint| SourceCase { known: Some(seen.to_text()), ..case.clone() };
    let split = having_seen(Checkpoint { root: Digest([1; 32]), ..known.clone() });
    assert_eq!(code(world.source().handle_grant(&world.stands(&split), split, body.clone())), Code::LogInconsistent);
    let shrunk = having_seen(Checkpoint { size: known.size + 5, ..known.clone() });
    assert_eq!(code(world.source().handle_grant(&world.stands(&shrunk), shrunk, body.clone())), Code::LogInconsistent);
    let unproven = GrantBody { consistency: Vec::new(), ..body };
    assert_eq!(code(world.source().handle_grant(&world.stands(&case), case, unproven)), Code::LogInconsistent);
}

#[test]
fn nothing_is_lodged_before_the_grant_nor_without_the_authoritys_lodgement_key() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Redeeming);
    let staged = world.stage(&mut m);
    assert_eq!(
        code(world.source().handle_staged(&world.stands(&m.source()), m.source(), &staged)),
        Code::UnexpectedMessage
    );
    world.advance(&mut m, Step::Redeeming, Step::Granted);
    let staged = world.stage(&mut m);
    let crl = world.network.crl(&[], NOW);
    world.a.trust = Trust::new(id(AUTHORITY), world.network.anchor.clone(), world.log.policy(), crl);
    assert_eq!(
        code(world.source().handle_staged(&world.stands(&m.source()), m.source(), &staged)),
        Code::LodgementInvalid
    );
}

#[test]
fn a_manifest_is_sent_again_only_while_its_session_is_open() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Granted);
    assert!(world.source().resend_manifest(&m.source()).is_none());
    world.advance(&mut m, Step::Granted, Step::Lodged);
    assert!(world.source().resend_manifest(&m.source()).is_some());
    world.advance(&mut m, Step::Lodged, Step::Closed);
    assert!(world.source().resend_manifest(&m.source()).is_none());
}

#[test]
fn the_authoritys_description_counts_only_for_the_pinned_authority_and_log() {
    let world = World::new();
    let key = &world.authority.proof_signing;
    let accept = |statement, chain| {
        let crl = world.network.crl(&[], NOW);
        let mut trust = Trust::new(id(AUTHORITY), world.network.anchor.clone(), world.log.policy(), crl);
        let accepted = trust.accept_statement(&world.ctx(), &AuthorityStatementBody { statement, chain });
        accepted.map(|()| trust.lodgement_key().copied())
    };
    let honest = &world.statement;
    let own = &world.authority.chain;
    let lodgement = *world.authority.lodgement.public();
    assert_eq!(accept(honest.statement.clone(), own.clone()).unwrap(), Some(lodgement));
    assert_eq!(code(accept(forged(&honest.statement), own.clone())), Code::SignatureInvalid);
    let other = resigned(&world, key, &honest.statement, |s| s.authority = id("other.example"));
    assert_eq!(code(accept(other, own.clone())), Code::SenderWrong);
    let other = world.network.chain(Profile::ProofSigning, "other.example", key.public(), NOW).0;
    assert_eq!(code(accept(honest.statement.clone(), other)), Code::SenderWrong);
    let origin = resigned(&world, key, &honest.statement, |s| s.log_origin = "other.example/log".into());
    assert_eq!(code(accept(origin, own.clone())), Code::LogInconsistent);
    let log_key = resigned(&world, key, &honest.statement, |s| s.log_key.0 = [1; 32]);
    assert_eq!(code(accept(log_key, own.clone())), Code::LogInconsistent);
    let hospital = world.network.chain(Profile::HospitalSigning, AUTHORITY, key.public(), NOW).0;
    assert_eq!(code(accept(honest.statement.clone(), hospital)), Code::CertificateInvalid);
}
