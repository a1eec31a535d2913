//! Every message of a case, again, at every later state: refused, or without any effect.

use waybill_crypto::keys::Digest;
use waybill_protocol::ids::SessionId;
use waybill_protocol::messages::{DeliveryBody, RedeemBody};
use waybill_protocol::migration::Effect;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::source::Received;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

use crate::common::*;

/// A replay must leave the row as it is and put nothing in the log; posting an answer once more would be harmless, and none does.
fn harmless<T>(what: &str, before: &T, after: Result<(T, Vec<Effect>), Rejection>)
where
    T: minicbor::Encode<()>,
{
    if let Ok((after, effects)) = after {
        assert!(to_cbor(before) == to_cbor(&after), "{what} changed the row");
        assert!(effects.iter().all(|e| !matches!(e, Effect::Log(_) | Effect::Post(_))), "{what} had an effect");
    }
}

/// Offers all that was sent until now to everybody whom it was for.
fn replay_everything(world: &World, m: &Migration, step: Step) {
    let authority = world.authority();
    let what = |message: &str| format!("{message} at {step:?}");
    if let (Some(body), true) = (&m.redeem, step >= Step::Granted) {
        let (from, redeem) = authority.verify_redeem(body).unwrap();
        let again = authority.handle_redeem(m.authority.clone(), &from, &body.chain, &redeem, &all_active);
        harmless(&what("redeem"), &m.authority, again);
    }
    if let Some(body) = &m.lodgement {
        let lodgement = authority.open_lodgement(body).unwrap();
        harmless(
            &what("lodgement"),
            &m.authority,
            authority.handle_lodgement(m.authority.clone(), &lodgement, &all_active),
        );
    }
    if let (Some(body), true) = (&m.delivery, step >= Step::Released) {
        harmless(&what("delivery"), &m.authority, authority.handle_delivery(m.authority.clone(), body, &all_active));
    }
    if let (Some(body), true) = (&m.receipt, step >= Step::Closed) {
        harmless(&what("receipt"), &m.authority, authority.handle_receipt(m.authority.clone(), body));
    }
    if let Some(source) = &m.source {
        replay_at_source(world, m, source, &what);
    }
    if let Some(destination) = &m.destination {
        replay_at_destination(world, m, destination, step, &what);
    }
}

fn replay_at_source(
    world: &World,
    m: &Migration,
    case: &waybill_protocol::source::SourceCase,
    what: &dyn Fn(&str) -> String,
) {
    let role = world.source();
    if let Some(grant) = &m.grant {
        let again =
            role.handle_grant(&world.stands(case), case.clone(), grant.clone()).map(|(_, _, transition)| transition);
        harmless(&what("grant"), case, again);
    }
    if let Some(statement) = &m.statement {
        harmless(
            &what("statement"),
            case,
            role.handle_statement(case.clone(), statement.clone(), m.reply_secret.as_ref()),
        );
    }
    // A request seen before passes the checks again; its session and proof name the row that is there already.
    let body = m.request.as_ref().unwrap();
    let received = Received::parse(&Parcel::parse(&Parcel::pack(Kind::TransferRequest, body)).unwrap()).unwrap();
    assert_eq!((received.proof(), received.session(), received.attempt()), (case.proof, case.session, case.attempt));
}

fn replay_at_destination(
    world: &World,
    m: &Migration,
    case: &waybill_protocol::destination::DestinationCase,
    step: Step,
    what: &dyn Fn(&str) -> String,
) {
    let role = world.destination();
    if let (Some(manifest), true) = (&m.manifest, step >= Step::Delivered) {
        harmless(&what("manifest"), case, role.handle_manifest(case.clone(), manifest, &m.secret(), u64::MAX));
    }
    if let Some(release) = &m.release {
        let again = role.handle_release(case.clone(), release.clone(), &m.secret()).map(|(_, transition)| transition);
        harmless(&what("release"), case, again);
    }
    if let Some(statement) = &m.statement {
        harmless(&what("statement"), case, role.handle_statement(case.clone(), statement.clone()));
    }
}

#[test]
fn every_message_again_at_every_later_state_is_refused_or_harmless() {
    let mut world = World::new();
    let mut m = world.prove(0);
    for (from, to) in Step::ALL.iter().zip(&Step::ALL[1..]) {
        world.advance(&mut m, *from, *to);
        replay_everything(&world, &m, *to);
    }
}

#[test]
fn a_presentation_again_names_the_same_case() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Closed);
    let role = world.destination();
    let opened = role.open_presentation(m.presentation.as_ref().unwrap()).unwrap();
    let presenter = role.verify_presenter(opened, Some(&world.b.registered)).unwrap();
    let verified = role.verify_presentation(presenter).unwrap();
    assert_eq!(verified.proof(), m.proof.id(), "the row that the shell finds occupied");
    assert_ne!(verified.proof().0, Digest([0; 32]));
}

#[test]
fn every_message_of_the_future_is_refused_too() {
    // The messages of a finished case, offered to the rows of its earlier steps.
    let mut last = World::new();
    let done = last.migrate(0, Step::Closed);
    for step in [Step::Proof, Step::Requested, Step::Redeeming, Step::Granted] {
        let mut world = World::new();
        let m = world.migrate(0, step);
        let authority = world.authority();
        let lodgement = authority.open_lodgement(done.lodgement.as_ref().unwrap()).unwrap();
        if step < Step::Granted {
            let refused = authority.handle_lodgement(m.authority.clone(), &lodgement, &all_active);
            assert_eq!(code(refused), Code::UnexpectedMessage, "{step:?}");
            let delivery = done.delivery.as_ref().unwrap();
            let refused = authority.handle_delivery(m.authority.clone(), delivery, &all_active);
            assert_eq!(code(refused), Code::UnexpectedMessage, "{step:?}");
        }
        let refused = authority.handle_receipt(m.authority.clone(), done.receipt.as_ref().unwrap());
        assert_eq!(code(refused), Code::UnexpectedMessage, "{step:?}");
        if let Some(case) = &m.destination {
            let release = done.release.clone().unwrap();
            let refused = world.destination().handle_release(case.clone(), release, &m.secret());
            assert_eq!(code(refused), Code::UnexpectedMessage, "{step:?}");
        }
    }
}

#[test]
fn once_a_key_was_released_no_other_session_of_the_proof_gets_one() {
    // Source and destination both help: they sign whatever another session would take.
    let mut world = World::new();
    let m = world.migrate(0, Step::Released);
    let (authority, other) = (world.authority(), SessionId(Digest([1; 32])));
    let (a, b) = (&world.a.identity.signing, &world.b.identity.signing);
    let honest = m.redeem.as_ref().unwrap();
    let asked = RedeemBody { redeem: resigned(&world, a, &honest.redeem, |r| r.session = other), ..honest.clone() };
    let (from, redeem) = authority.verify_redeem(&asked).unwrap();
    let again = authority.handle_redeem(m.authority.clone(), &from, &asked.chain, &redeem, &all_active);
    assert_eq!(code(again), Code::ProofSpent);
    let lodgement = resigned(&world, a, &m.source().lodgement.unwrap(), |l| l.session = other);
    let again = authority.handle_lodgement(m.authority.clone(), &lodgement, &all_active);
    assert_eq!(code(again), Code::UnexpectedMessage);
    let honest = m.delivery.as_ref().unwrap();
    let delivery = resigned(&world, b, &honest.delivery, |d| d.session = other);
    let again = authority.handle_delivery(m.authority, &DeliveryBody { delivery, ..honest.clone() }, &all_active);
    assert_eq!(code(again), Code::UnexpectedMessage);
}
