//! Whole cases of a wallet against the protocol's own roles.

mod flow;
mod hostile;
pub(crate) mod world;

use waybill_protocol::messages::{OutcomeClass, RevocationReason};
use waybill_protocol::patient::Wish;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

pub(crate) use self::world::NOW;
use self::world::{Letter, World};
use crate::receive::Received;
use crate::state::CaseNumber;
use crate::wallet::Wallet;

pub(crate) fn wish() -> Wish {
    Wish {
        scope: "types=Patient,Condition".parse::<Scope>().unwrap(),
        hides: Hides::parse(["Condition/c1"]).unwrap(),
        not_before: NOW,
        expires: NOW.plus(86_400),
    }
}

/// Hands letters in by the address they were posted to.
fn deliver(wallet: &mut Wallet, letters: &[Letter]) -> Vec<Received> {
    let watched = |wallet: &Wallet, address: &str| wallet.watches().into_iter().find(|w| w.address == address);
    let known =
        letters.iter().map(|(address, bytes)| (watched(wallet, address).expect("a mailbox of ours").mailbox, bytes));
    let known: Vec<_> = known.collect();
    known.into_iter().map(|(mailbox, bytes)| wallet.receive(NOW, mailbox, bytes).unwrap()).collect()
}

/// Posts everything there is to post, once.
fn post_all(world: &mut World, wallet: &mut Wallet) -> Vec<Letter> {
    let errands = wallet.errands().to_vec();
    let mut letters = Vec::new();
    for errand in errands {
        letters.extend(world.post(&errand));
        wallet.posted(errand.id).unwrap();
    }
    assert!(wallet.errands().is_empty());
    letters
}

/// A wallet registered at both hospitals.
pub(crate) fn registered(world: &mut World) -> Wallet {
    let mut wallet = world.wallet();
    for hospital in [world::a(), world::b()] {
        wallet.enrol(NOW, &world.enrolment(&hospital)).unwrap();
    }
    let letters = post_all(world, &mut wallet);
    deliver(&mut wallet, &letters);
    assert_eq!(wallet.contacts().len(), 2);
    wallet
}

/// ... with a case whose delegation is signed.
fn delegated(world: &mut World) -> (Wallet, CaseNumber) {
    let mut wallet = registered(world);
    let (number, _) = wallet.delegate(NOW, &world::a(), &world::b(), wish()).unwrap();
    let letters = post_all(world, &mut wallet);
    deliver(&mut wallet, &letters);
    (wallet, number)
}

/// ... and whose proof is here.
fn with_proof(world: &mut World) -> (Wallet, CaseNumber) {
    let (mut wallet, number) = delegated(world);
    let letters = post_all(world, &mut wallet);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Proof { .. }]), "{received:?}");
    (wallet, number)
}

/// ... and presented.
fn presented(world: &mut World) -> (Wallet, CaseNumber) {
    let (mut wallet, number) = with_proof(world);
    wallet.consent(NOW, number).unwrap();
    assert!(post_all(world, &mut wallet).is_empty());
    (wallet, number)
}
