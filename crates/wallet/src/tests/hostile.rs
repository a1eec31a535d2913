//! What happens when somebody does not keep to the rules.

use super::world::{a, b, id};
use super::*;
use crate::WalletError;
use crate::mailbox::MailboxName;
use crate::receive::Ignored;
use crate::state::{Outcome, Party, Stage};
use crate::trust::TrustSettings;
use waybill_crypto::keys::Digest;
use waybill_protocol::messages::{MigrationProof, ProofBundle, SUITE};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

fn ignored(received: &[Received]) -> bool {
    received.iter().all(|r| matches!(r, Received::Ignored(_)))
}

#[test]
fn strangers_parcels_are_counted_and_change_nothing() {
    let mut world = World::new();
    let (mut wallet, _) = delegated(&mut world);
    let mailbox = wallet.cases()[0].mailbox();
    let (stage, errands) = (wallet.cases()[0].stage, wallet.errands().to_vec());
    let letters: [Vec<u8>; 5] = [
        Vec::new(),
        b"garbage".to_vec(),
        Parcel::pack(Kind::ProofAnswer, &0u8),
        Parcel::pack(Kind::Grant, &0u8),
        world.refusal(&a(), Digest([1; 32]), Code::Malformed),
    ];
    for letter in &letters {
        let received = wallet.receive(NOW, mailbox, letter).unwrap();
        assert!(ignored(std::slice::from_ref(&received)), "{received:?}");
    }
    let unknown = wallet.receive(NOW, MailboxName(Digest([0; 32])), &Parcel::pack(Kind::Login, &0u8)).unwrap();
    assert!(matches!(unknown, Received::Ignored(Ignored::Unwatched)));
    assert_eq!(wallet.ignored(), 6);
    assert_eq!((wallet.cases()[0].stage, wallet.errands()), (stage, &errands[..]));
}

#[test]
fn answers_that_come_twice_change_nothing() {
    let mut world = World::new();
    let (mut wallet, _) = delegated(&mut world);
    let letters = post_all(&mut world, &mut wallet);
    deliver(&mut wallet, &letters);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Duplicate]));
    wallet.consent(NOW, wallet.cases()[0].number).unwrap();
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Duplicate]));
    assert_eq!(wallet.cases()[0].stage, Stage::AwaitingEnd);
    post_all(&mut world, &mut wallet);
    let proof = wallet.cases()[0].proof.unwrap();
    world.release(proof);
    let letters = world.end(proof, OutcomeClass::Filed);
    deliver(&mut wallet, &letters);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Duplicate]));
    assert_eq!(wallet.closed().len(), 1);
}

#[test]
fn an_answer_under_another_key_than_the_pinned_one_registers_nothing() {
    let mut world = World::new();
    let mut wallet = world.wallet();
    let mut enrolment = world.enrolment(&a());
    wallet.enrol(NOW, &enrolment).unwrap();
    let letters = post_all(&mut world, &mut wallet);
    // The same code shown with another hospital's signing key: what A answers is then nobody's.
    enrolment.keys.signing = world.hospitals[&b()].identity.keys().signing;
    wallet.enrol(NOW, &enrolment).unwrap();
    let watch = wallet.watches().remove(0);
    let errand = wallet.errands()[0].clone();
    let answers = world.post(&errand);
    let received = wallet.receive(NOW, watch.mailbox, &answers[0].1).unwrap();
    assert!(matches!(received, Received::Ignored(Ignored::NotOurs(Code::SignatureInvalid))), "{received:?}");
    let old = wallet.receive(NOW, watch.mailbox, &letters[0].1).unwrap();
    assert!(matches!(old, Received::Ignored(_)), "an answer to an earlier request");
    assert!(wallet.contacts().is_empty());
}

#[test]
fn a_hospital_that_refuses_a_registration_is_heard() {
    let world = World::new();
    let mut wallet = world.wallet();
    wallet.enrol(NOW, &world.enrolment(&a())).unwrap();
    let request = wallet.state.registrations[0].exchange.request().0;
    let mailbox = wallet.watches()[0].mailbox;
    let forged = wallet.receive(NOW, mailbox, &world.refusal(&b(), request, Code::CodeInvalid)).unwrap();
    assert!(matches!(forged, Received::Ignored(_)));
    let other = wallet.receive(NOW, mailbox, &world.refusal(&a(), Digest([1; 32]), Code::CodeInvalid)).unwrap();
    assert!(matches!(other, Received::Ignored(_)));
    let refused = wallet.receive(NOW, mailbox, &world.refusal(&a(), request, Code::CodeInvalid)).unwrap();
    assert!(matches!(refused, Received::RegistrationRefused { code: Code::CodeInvalid, .. }));
    assert!(wallet.watches().is_empty() && wallet.errands().is_empty());
}

#[test]
fn a_refused_voucher_can_be_asked_for_again_or_ends_the_case() {
    let mut world = World::new();
    let mut wallet = registered(&mut world);
    let (number, _) = wallet.delegate(NOW, &a(), &b(), wish()).unwrap();
    let request = wallet.state.logins[0].exchange.request().0;
    let mailbox = wallet.state.logins[0].mailbox.name();
    let refused = wallet.receive(NOW, mailbox, &world.refusal(&a(), request, Code::LoginStale)).unwrap();
    assert!(matches!(refused, Received::LoginRefused { code: Code::LoginStale, case: Some(_), .. }), "{refused:?}");
    assert_eq!(wallet.cases()[0].stage, Stage::AwaitingVoucher);
    wallet = world.restart(wallet);
    wallet.retry_voucher(NOW, number).unwrap();
    wallet.retry_voucher(NOW, number).unwrap();
    assert_eq!((wallet.state.logins.len(), wallet.errands().len()), (1, 1));
    let request = wallet.state.logins[0].exchange.request().0;
    let mailbox = wallet.state.logins[0].mailbox.name();
    wallet.receive(NOW, mailbox, &world.refusal(&a(), request, Code::LoginRefused)).unwrap();
    assert_eq!(wallet.closed()[0].outcome, Outcome::Refused(Code::LoginRefused));
    assert!(wallet.watches().iter().all(|watch| watch.mailbox != mailbox));
}

/// A proof in the wallet's mailbox that the authority signed over changed terms.
fn forged_proof(world: &mut World, wallet: &Wallet, change: impl Fn(&mut MigrationProof), logged: bool) -> Vec<u8> {
    let case = &wallet.cases()[0];
    let delegation = case.draft().delegation.as_ref().unwrap().parse().unwrap().message_id();
    let mut proof = MigrationProof {
        suite: SUITE,
        authority: id("authority.example"),
        delegation,
        terms: case.draft().terms.clone(),
        issued_at: NOW,
    };
    change(&mut proof);
    let proof = Signed::sign(&*world.backend, &world.keys.proof_signing, proof);
    let intent = waybill_protocol::authority::Intent {
        delegation_key: Digest([3; 32]),
        proof: proof.message().clone(),
        reply_to: String::new(),
    };
    let transition = world.authority(NOW).issue_proof(&intent).unwrap();
    let answers = world.settle(NOW, transition);
    let sealed: SealedBytes = Parcel::parse(&answers[0].1).unwrap().open(Kind::ProofAnswer, "proof").unwrap();
    let reply = case.draft().reply_key();
    let plain = sealed.open(&*world.backend, &reply, SealPurpose::ProofAnswer, &intent.proof.delegation.0.0);
    let mut bundle: ProofBundle = minicbor::decode(&plain.unwrap()).unwrap();
    if !logged {
        bundle.evidence.index += 1;
    }
    bundle.proof = if logged { bundle.proof } else { SignedBytes::from(&proof) };
    let key = reply.public();
    let sealed =
        SealedBytes::seal(&*world.backend, key, SealPurpose::ProofAnswer, delegation.as_bytes(), &to_cbor(&bundle));
    Parcel::pack(Kind::ProofAnswer, &sealed.unwrap())
}

#[test]
fn a_proof_that_says_something_else_or_is_not_logged_is_never_consented_to() {
    let mut world = World::new();
    let (mut wallet, number) = delegated(&mut world);
    let mailbox = wallet.cases()[0].mailbox();
    let later = |proof: &mut MigrationProof| proof.terms.expires = proof.terms.expires.plus(1);
    let widened = |proof: &mut MigrationProof| proof.terms.com_scope = proof.terms.com_hides;
    let redirected = |proof: &mut MigrationProof| proof.terms.destination = id("hospital-c.example");
    let changes: [&dyn Fn(&mut MigrationProof); 3] = [&later, &widened, &redirected];
    for change in changes {
        let letter = forged_proof(&mut world, &wallet, change, true);
        let received = wallet.receive(NOW, mailbox, &letter).unwrap();
        assert!(matches!(received, Received::ProofRefused { code: Code::ProofMismatch, .. }), "{received:?}");
    }
    let letter = forged_proof(&mut world, &wallet, |_| (), false);
    let received = wallet.receive(NOW, mailbox, &letter).unwrap();
    assert!(matches!(received, Received::ProofRefused { code: Code::LogEvidenceInvalid, .. }), "{received:?}");
    wallet = world.restart(wallet);
    assert_eq!(wallet.cases()[0].notices.len(), 2, "each kind of wrong is noted once");
    assert!(matches!(wallet.consent(NOW, number), Err(WalletError::WrongStage { .. })));
    let letter = forged_proof(&mut world, &wallet, |_| (), true);
    assert!(
        matches!(wallet.receive(NOW, mailbox, &letter).unwrap(), Received::Proof { .. }),
        "the right one still counts"
    );
}

#[test]
fn a_receipt_under_another_hospitals_key_does_not_end_the_case() {
    let mut world = World::new();
    let (mut wallet, _) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    world.release(proof);
    let genuine = world.end(proof, OutcomeClass::Filed);
    let parcel = Parcel::parse(&genuine[0].1).unwrap();
    let mut body: waybill_protocol::messages::StatementBody = parcel.open(Kind::CaseStatement, "statement").unwrap();
    body.receipt = Some(world.receipt(proof, OutcomeClass::Filed, &a()).1);
    let forged = Parcel::pack(Kind::CaseStatement, &body);
    let mailbox = wallet.cases()[0].mailbox();
    let received = wallet.receive(NOW, mailbox, &forged).unwrap();
    assert!(matches!(received, Received::Ignored(Ignored::NotOurs(Code::ReceiptInvalid))), "{received:?}");
    body.receipt = None;
    let received = wallet.receive(NOW, mailbox, &Parcel::pack(Kind::CaseStatement, &body)).unwrap();
    assert!(matches!(received, Received::Ignored(Ignored::NotOurs(Code::ReceiptInvalid))), "{received:?}");
    assert_eq!(wallet.cases().len(), 1);
    assert!(matches!(deliver(&mut wallet, &genuine)[..], [Received::Ended { .. }]));
}

#[test]
fn an_inner_receipt_that_does_not_open_ends_the_case_and_is_noted() {
    let mut world = World::new();
    let (mut wallet, _) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    world.release(proof);
    let genuine = world.end(proof, OutcomeClass::Filed);
    let parcel = Parcel::parse(&genuine[0].1).unwrap();
    let mut body: waybill_protocol::messages::StatementBody = parcel.open(Kind::CaseStatement, "statement").unwrap();
    let receipt = body.receipt.as_mut().unwrap();
    receipt.for_patient = receipt.for_source.clone();
    let mailbox = wallet.cases()[0].mailbox();
    let received = wallet.receive(NOW, mailbox, &Parcel::pack(Kind::CaseStatement, &body)).unwrap();
    assert!(matches!(received, Received::Ended { .. }), "the signed outer receipt decides: {received:?}");
    let closed = &wallet.closed()[0];
    assert!(closed.receipt.is_none());
    let notice = closed.notices.last().unwrap();
    assert_eq!((&notice.from, notice.code), (&Party::Hospital(b()), Code::ReceiptInvalid));
}

#[test]
fn refusals_before_the_proof_end_the_case_and_later_ones_are_noted() {
    let mut world = World::new();
    let (mut wallet, _) = delegated(&mut world);
    let mailbox = wallet.cases()[0].mailbox();
    let delegation = wallet.cases()[0].draft().delegation.as_ref().unwrap().parse().unwrap().message_id().0;
    let repeated = world.authority_refusal(delegation, Code::DelegationRepeated);
    assert!(matches!(wallet.receive(NOW, mailbox, &repeated).unwrap(), Received::Refused { .. }));
    assert!(matches!(wallet.receive(NOW, mailbox, &repeated).unwrap(), Received::Duplicate));
    assert_eq!(wallet.cases()[0].stage, Stage::AwaitingProof, "posted twice is not refused");
    let other = world.authority_refusal(Digest([9; 32]), Code::HospitalSuspended);
    assert!(ignored(&[wallet.receive(NOW, mailbox, &other).unwrap()]), "about another delegation");
    let refusal = world.authority_refusal(delegation, Code::HospitalSuspended);
    assert!(matches!(wallet.receive(NOW, mailbox, &refusal).unwrap(), Received::Refused { .. }));
    assert_eq!(wallet.closed()[0].outcome, Outcome::Refused(Code::HospitalSuspended));

    drop(wallet);
    std::fs::remove_file(world.path()).unwrap();
    let (mut wallet, _) = presented(&mut world);
    let (mailbox, proof) = (wallet.cases()[0].mailbox(), wallet.cases()[0].proof.unwrap());
    let refusal = world.refusal(&a(), proof.0, Code::ConsentRefused);
    let received = wallet.receive(NOW, mailbox, &refusal).unwrap();
    let Received::Refused { notice, .. } = received else { panic!("{received:?}") };
    assert_eq!((notice.from, notice.code), (Party::Hospital(a()), Code::ConsentRefused));
    assert_eq!(wallet.cases()[0].stage, Stage::AwaitingEnd, "the authority's statement ends it");
}

#[test]
fn an_expired_voucher_is_asked_for_again_and_the_case_goes_on() {
    let mut world = World::new();
    let (mut wallet, number) = delegated(&mut world);
    let first = wallet.cases()[0].draft().delegation.as_ref().unwrap().parse().unwrap().message_id().0;
    for _ in 0..2 {
        // The delegation arrived too late: the authority records nothing and says so.
        let errand = wallet.errands()[0].id;
        wallet.posted(errand).unwrap();
        let mailbox = wallet.cases()[0].mailbox();
        let delegation = wallet.cases()[0].draft().delegation.as_ref().unwrap().parse().unwrap().message_id().0;
        let expired = world.authority_refusal(delegation, Code::VoucherExpired);
        let received = wallet.receive(NOW, mailbox, &expired).unwrap();
        assert!(matches!(received, Received::Refused { .. }), "{received:?}");
        assert_eq!(wallet.cases()[0].stage, Stage::AwaitingVoucher);
        assert!(ignored(&[wallet.receive(NOW, mailbox, &expired).unwrap()]), "about a delegation that is no more");
        wallet = world.restart(wallet);
        wallet.retry_voucher(NOW, number).unwrap();
        let letters = post_all(&mut world, &mut wallet);
        assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Vouched { .. }]));
    }
    let last = wallet.cases()[0].draft().delegation.as_ref().unwrap().parse().unwrap().message_id().0;
    assert_ne!(first, last);
    let letters = post_all(&mut world, &mut wallet);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Proof { .. }]));
}

#[test]
fn what_cannot_be_judged_yet_is_kept_for_a_fresh_revocation_list() {
    let mut world = World::new();
    let (mut wallet, _) = delegated(&mut world);
    let letters = post_all(&mut world, &mut wallet);
    let mailbox = wallet.cases()[0].mailbox();
    let stale = NOW.plus(8 * 86_400);
    for _ in 0..2 {
        let received = wallet.receive(stale, mailbox, &letters[0].1).unwrap();
        assert!(matches!(received, Received::NeedsFreshTrust(Code::CrlStale)), "{received:?}");
        wallet = world.restart(wallet);
    }
    assert_eq!(wallet.cases()[0].stage, Stage::AwaitingProof);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Proof { .. }]));
}

#[test]
fn trust_is_pinned_once_and_renewed_only_from_the_same_root() {
    let (world, other) = (World::new(), World::new());
    let mut wallet = world.wallet();
    let impostor = TrustSettings { root: other_root(), ..other.trust_settings() };
    assert!(matches!(wallet.set_trust(impostor), Err(WalletError::OtherAuthority)));
    let renamed = TrustSettings { authority: id("other.example"), ..world.trust_settings() };
    assert!(matches!(wallet.set_trust(renamed), Err(WalletError::OtherAuthority)));
    let nonsense = TrustSettings { root: vec![0], ..world.trust_settings() };
    assert!(matches!(wallet.set_trust(nonsense), Err(WalletError::TrustInvalid(_))));
    wallet.set_trust(TrustSettings { authority_mailbox: "https://x".to_owned(), ..world.trust_settings() }).unwrap();
    for place in [10, world.crl.len() - 1] {
        let mut crl = world.crl.clone();
        crl[place] ^= 1;
        assert!(wallet.renew_trust(NOW, &crl, &world.statement).is_err());
    }
    assert!(wallet.renew_trust(NOW, &world.crl, b"").is_err());
    assert!(wallet.renew_trust(NOW, &world.crl, &world.statement).is_ok());
}

/// The root of another authority of the same name.
fn other_root() -> Vec<u8> {
    let backend = waybill_crypto::portable::Portable::from_seed([77; 32]);
    let key = waybill_crypto::certificate::RootKey::generate(&backend);
    let name = waybill_crypto::certificate::PartyName::parse("authority.example").unwrap();
    waybill_crypto::certificate::issue_root(&backend, &key, &name, NOW.0, 86_400 * 365).unwrap().der
}
