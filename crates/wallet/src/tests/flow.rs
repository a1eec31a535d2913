//! What happens when everybody keeps to the rules, with and without restarts.

use super::world::{PASSPHRASE, a, b};
use super::*;
use crate::file::FileError;
use crate::state::{Notice, Outcome, Party, Stage};
use crate::{Summary, WalletError};
use std::sync::Arc;
use waybill_crypto::certificate::TrustAnchor;
use waybill_crypto::portable::Portable;
use waybill_protocol::authority::RECEIPT_DEADLINE_SECONDS;
use waybill_protocol::evidence::{Evidence, Finding, judge};
use waybill_protocol::ids::Timestamp;
use waybill_protocol::messages::{EndState, KeptBack, Purpose};
use waybill_protocol::rejection::Code;

/// One whole migration; `between` runs between any two steps.
fn migrate(between: impl Fn(&World, Wallet) -> Wallet) -> (World, Wallet) {
    let mut world = World::new();
    let mut wallet = between(&world, world.wallet());
    for hospital in [a(), b()] {
        wallet.enrol(NOW, &world.enrolment(&hospital)).unwrap();
        wallet = between(&world, wallet);
        let letters = post_all(&mut world, &mut wallet);
        wallet = between(&world, wallet);
        let received = deliver(&mut wallet, &letters);
        assert!(matches!(&received[..], [Received::Registered { keys_changed: false, .. }]), "{received:?}");
        wallet = between(&world, wallet);
    }
    let (number, _) = wallet.delegate(NOW, &a(), &b(), wish()).unwrap();
    let kept = KeptBack { resource_type: "Condition".to_owned(), reason: "hidden".to_owned(), count: 1 };
    wallet.foretell(number, vec![kept]).unwrap();
    wallet = between(&world, wallet);
    let letters = post_all(&mut world, &mut wallet);
    wallet = between(&world, wallet);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(&received[..], [Received::Vouched { .. }]), "{received:?}");
    wallet = between(&world, wallet);
    let letters = post_all(&mut world, &mut wallet);
    wallet = between(&world, wallet);
    let received = deliver(&mut wallet, &letters);
    let [Received::Proof { proof, .. }] = received[..] else { panic!("{received:?}") };
    wallet = between(&world, wallet);
    assert!(world.hospitals[&b()].presented.is_empty(), "nothing is presented before the patient consents");
    wallet.consent(NOW, number).unwrap();
    wallet = between(&world, wallet);
    assert!(post_all(&mut world, &mut wallet).is_empty());
    assert_eq!(world.hospitals[&b()].presented, [proof]);
    wallet = between(&world, wallet);
    world.release(proof);
    let letters = world.end(proof, OutcomeClass::Filed);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Ended { state: EndState::Filed, .. }]), "{received:?}");
    wallet = between(&world, wallet);
    (world, wallet)
}

fn check_filed(wallet: &Wallet) {
    assert!(wallet.cases().is_empty() && wallet.errands().is_empty());
    let [closed] = wallet.closed() else { panic!("one closed case") };
    assert_eq!(closed.outcome, Outcome::Ended(EndState::Filed));
    assert!(closed.bundle.is_some() && closed.statement.is_some() && closed.delegation.is_some());
    let summary = Summary::of(closed);
    let receipt = summary.receipt.as_ref().unwrap();
    assert_eq!((receipt.offered, receipt.filed, receipt.withheld), (1, 1, 1));
    let text = summary.text();
    for part in [
        "filed your record",
        "1  Patient (321 bytes)",
        "kept back: hidden by you",
        "You hid: Condition/c1",
        "1 Condition would stay, hidden by you",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["outcome"], "filed");
    assert_eq!(json["receipt"]["reasons"][0]["outcome"], "withheld");
    assert_eq!(json["receipt"]["types"][0]["type"], "Patient");
}

#[test]
fn a_record_moves_and_the_wallet_holds_the_evidence() {
    let (_world, wallet) = migrate(|_, wallet| wallet);
    check_filed(&wallet);
}

#[test]
fn a_closed_case_yields_evidence_that_anybody_can_judge() {
    let (world, wallet) = migrate(|world, wallet| world.restart(wallet));
    let number = wallet.closed()[0].number;
    let evidence = Evidence::parse(&wallet.evidence(number).unwrap().to_bytes()).unwrap();
    let anchor = TrustAnchor::from_der(&world.root).unwrap();
    let verdict = judge(&*world.backend, &anchor, Some(&world.policy), &evidence);
    assert!(verdict.holds(), "{:?}", verdict.first_failure());
    assert_eq!(verdict.end, Some(EndState::Filed));
    for check in ["delegation", "voucher", "proof-logged", "statement-logged", "receipt", "receipt-detail"] {
        let found = verdict.sentences.iter().find(|sentence| sentence.check == check).map(|s| s.finding);
        assert_eq!(found, Some(Finding::Proven), "{check}");
    }
    let closed = &wallet.closed()[0];
    assert_eq!(closed.scope, Some(wish().scope));
    assert_eq!(closed.hides, Some(wish().hides));
    assert_eq!((number.ordinal(), number.to_string()), (1, "1".to_owned()));
}

#[test]
fn a_question_asked_again_takes_the_place_of_the_one_before() {
    let mut world = World::new();
    let (mut wallet, _) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    let before = wallet.watches().len();
    let first = wallet.ask(NOW, &a(), Purpose::Watch { proof }).unwrap();
    let second = wallet.ask(NOW, &a(), Purpose::Watch { proof }).unwrap();
    assert_ne!(first.answer, second.answer);
    assert!(wallet.is_asking(&a(), proof) && !wallet.is_asking(&b(), proof));
    assert_eq!((wallet.watches().len(), wallet.errands().len()), (before + 1, 1));
    wallet.ask(NOW, &b(), Purpose::Watch { proof }).unwrap();
    assert_eq!(wallet.errands().len(), 2);
    // Every answer says which case it is about, also the one that knows no such case.
    let letters = post_all(&mut world, &mut wallet);
    match &deliver(&mut wallet, &letters)[..] {
        [Received::Watched { proof: of, state, .. }, Received::LoginRefused { about, code, case: None, .. }] => {
            assert_eq!((*of, state.as_str(), *about, *code), (proof, "lodged", Some(proof), Code::UnknownCase));
        }
        other => panic!("{other:?}"),
    }
    assert!(!wallet.is_asking(&a(), proof) && wallet.cases().len() == 1);
}

#[test]
fn a_wallet_that_is_killed_between_any_two_steps_goes_on() {
    let (_world, wallet) = migrate(|world, wallet| world.restart(wallet));
    check_filed(&wallet);
}

#[test]
fn an_errand_is_given_out_again_until_it_was_posted() {
    let mut world = World::new();
    let mut wallet = world.wallet();
    let errand = wallet.enrol(NOW, &world.enrolment(&a())).unwrap();
    wallet = world.restart(wallet);
    assert_eq!(wallet.errands(), std::slice::from_ref(&errand));
    world.post(&errand);
    wallet.posted(errand.id).unwrap();
    wallet.posted(errand.id).unwrap();
    wallet = world.restart(wallet);
    assert!(wallet.errands().is_empty());
    // Enrolling again replaces the registration under way, with its mailbox.
    let second = wallet.enrol(NOW, &world.enrolment(&a())).unwrap();
    assert_ne!(second.answer, errand.answer);
    assert_eq!((wallet.watches().len(), wallet.errands().len()), (1, 1));
}

#[test]
fn consent_taken_twice_gives_the_same_bytes() {
    let mut world = World::new();
    let (mut wallet, number) = with_proof(&mut world);
    let first = wallet.consent(NOW, number).unwrap();
    assert_eq!(wallet.consent(NOW, number).unwrap(), first);
    wallet.posted(first.id).unwrap();
    let again = wallet.consent(NOW, number).unwrap();
    assert_eq!(again.parcel, first.parcel);
    assert_ne!(again.id, first.id);
}

#[test]
fn a_case_that_is_over_keeps_no_secret_and_hears_that_its_proof_is_spent() {
    let (mut world, mut wallet) = migrate(|_, wallet| wallet);
    let number = wallet.closed()[0].number;
    wallet.present_again(number).unwrap();
    let letters = post_all(&mut world, &mut wallet);
    let received = deliver(&mut wallet, &letters);
    let [Received::Refused { notice, .. }] = &received[..] else { panic!("{received:?}") };
    assert_eq!(notice.code, Code::ProofSpent);
    wallet.tidy(Timestamp(NOW.0 + crate::wallet::LINGER_SECONDS)).unwrap();
    assert!(wallet.watches().is_empty());
    assert!(matches!(wallet.present_again(number), Err(WalletError::UnknownCase(_))));
}

#[test]
fn preview_and_voucher_use_mailboxes_that_nobody_saw_before() {
    let mut world = World::new();
    let mut wallet = registered(&mut world);
    let first = wallet.ask(NOW, &a(), world::preview_all()).unwrap();
    let second = wallet.ask(NOW, &a(), world::preview_all()).unwrap();
    assert_ne!(first.answer, second.answer);
    let letters = post_all(&mut world, &mut wallet);
    let received = deliver(&mut wallet, &letters);
    assert!(
        matches!(&received[..], [Received::Preview { preview, .. }, _] if preview.held[0].count == 1),
        "{received:?}"
    );
    assert!(wallet.watches().is_empty());
}

#[test]
fn a_hospitals_new_keys_are_pinned_on_the_word_of_the_old_and_cases_go_on_under_these() {
    let mut world = World::new();
    let (mut wallet, _) = presented(&mut world);
    let old = wallet.contacts()[0].keys.clone();
    let new = world.replace_keys(&a());
    wallet.ask(NOW, &a(), world::preview_all()).unwrap();
    let letters = post_all(&mut world, &mut wallet);
    deliver(&mut wallet, &letters);
    assert_eq!(wallet.contacts()[0].keys, new);
    assert_eq!(wallet.cases()[0].source.keys, old, "what began under the old keys ends under them");
}

#[test]
fn a_revoked_case_ends_revoked_and_tells_all_three() {
    let mut world = World::new();
    let (mut wallet, number) = presented(&mut world);
    let errands = wallet.revoke(NOW, number, RevocationReason::Withdrawn).unwrap();
    assert_eq!(
        errands.iter().map(|e| e.to.to_string()).collect::<Vec<_>>(),
        ["the authority", "hospital-a.example", "hospital-b.example"]
    );
    wallet = world.restart(wallet);
    let again = wallet.revoke(NOW, number, RevocationReason::KeyCompromised).unwrap();
    assert_eq!(again[0].parcel, errands[0].parcel, "one revocation, however often it is asked for");
    let letters = post_all(&mut world, &mut wallet);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Ended { state: EndState::Revoked, .. }]), "{received:?}");
    let summary = Summary::of(&wallet.closed()[0]);
    assert!(summary.receipt.is_none() && summary.sentence.starts_with("You stopped the case"), "{}", summary.sentence);
    assert_eq!((summary.stopped_by.as_deref(), summary.code), (Some("wallet"), None));
}

#[test]
fn a_case_that_others_stopped_is_not_told_as_the_patients_own_doing() {
    let mut world = World::new();
    let (mut wallet, number) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    let letters = world.declined_by(&b(), proof);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Ended { state: EndState::Revoked, .. }]), "{received:?}");
    let summary = Summary::of(&wallet.closed()[0]);
    assert!(summary.sentence.contains("not by this wallet"), "{}", summary.sentence);
    assert_eq!((summary.stopped_by, summary.code), (None, None));
    let said = Notice { from: Party::Hospital(b()), code: Code::StoppedByStaff, time: NOW };
    wallet.note_end(number, said.clone()).unwrap();
    wallet.note_end(number, said).unwrap();
    wallet = world.restart(wallet);
    let summary = Summary::of(&wallet.closed()[0]);
    let either = "The staff of hospital-a.example or hospital-b.example stopped the case";
    assert!(summary.sentence.starts_with(either), "the destination passes the source's word on: {}", summary.sentence);
    assert_eq!((summary.code, summary.stopped_by, summary.notices.len()), (Some("stopped-by-staff"), None, 1));
    let other = Notice { from: Party::Hospital(a()), code: Code::ProofRevoked, time: NOW };
    wallet.note_end(number, other).unwrap();
    let summary = Summary::of(&wallet.closed()[0]);
    assert!(summary.sentence.starts_with("The staff of hospital-b.example stopped the case"), "{}", summary.sentence);
    assert_eq!((summary.code, summary.stopped_by.as_deref()), (Some("stopped-by-staff"), Some("hospital-b.example")));
    let own = Notice { from: Party::Hospital(a()), code: Code::StoppedByStaff, time: NOW };
    wallet.note_end(number, own).unwrap();
    assert_eq!(Summary::of(&wallet.closed()[0]).stopped_by.as_deref(), Some("hospital-a.example"));
}

#[test]
fn who_has_revoked_does_not_consent_afterwards() {
    let mut world = World::new();
    let (mut wallet, number) = with_proof(&mut world);
    wallet.revoke(NOW, number, RevocationReason::Withdrawn).unwrap();
    assert!(matches!(wallet.consent(NOW, number), Err(WalletError::WrongStage { .. })));
    assert!(wallet.errands().iter().all(|errand| errand.kind == waybill_protocol::wire::Kind::Revocation));
    let letters = post_all(&mut world, &mut wallet);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Ended { state: EndState::Revoked, .. }]), "{received:?}");
    assert!(world.hospitals[&b()].presented.is_empty());
}

#[test]
fn a_receipt_that_comes_late_still_closes_the_case() {
    let mut world = World::new();
    let (mut wallet, number) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    world.release(proof);
    let mut case = world.cases[&proof].clone();
    let release = waybill_protocol::messages::KeyRelease {
        proof,
        lodgement: waybill_protocol::ids::MessageId(proof.0),
        delivery: waybill_protocol::ids::MessageId(proof.0),
        time: NOW,
    };
    let release = waybill_protocol::signed::Signed::sign(&*world.backend, &world.keys.proof_signing, release);
    case.release = Some((&release).into());
    let late = NOW.plus(RECEIPT_DEADLINE_SECONDS);
    let transition = world.authority(late).handle_deadline(case).unwrap();
    let letters = world.settle(NOW, transition);
    let received = deliver(&mut wallet, &letters);
    assert!(matches!(received[..], [Received::Ended { state: EndState::Unacknowledged, .. }]), "{received:?}");
    assert_eq!(wallet.cases()[0].stage, Stage::Unacknowledged);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Duplicate]));
    wallet = world.restart(wallet);
    let letters = world.end(proof, OutcomeClass::Filed);
    assert!(matches!(deliver(&mut wallet, &letters)[..], [Received::Ended { state: EndState::Filed, .. }]));
    assert_eq!(wallet.closed()[0].number, number);
}

#[test]
fn a_rejected_record_says_why() {
    let mut world = World::new();
    let (mut wallet, _) = presented(&mut world);
    let proof = wallet.cases()[0].proof.unwrap();
    world.release(proof);
    let letters = world.end(proof, OutcomeClass::Rejected);
    deliver(&mut wallet, &letters);
    let summary = Summary::of(&wallet.closed()[0]);
    assert_eq!((summary.outcome, summary.code), ("rejected", Some("digest-mismatch")));
    assert!(summary.text().contains(Code::DigestMismatch.sentence()));
}

#[test]
fn a_recovered_wallet_is_the_same_patient_and_never_reuses_a_delegation_key() {
    let mut world = World::new();
    let (wallet, number) = delegated(&mut world);
    let code = wallet.recovery_code();
    drop(wallet);
    let path = world.folder.path().join("recovered");
    let typed = crate::RecoveryCode::parse(&code.printed().to_lowercase()).unwrap();
    let backend = Arc::new(Portable::from_seed([99; 32]));
    let mut wallet = Wallet::recover(backend, &path, PASSPHRASE, world.settings(), &typed).unwrap();
    assert!(wallet.contacts().is_empty());
    wallet.renew_trust(NOW, &world.crl, &world.statement).unwrap();
    let before = world.hospitals[&a()].registered.clone().unwrap();
    for hospital in [a(), b()] {
        wallet.enrol(NOW, &world.enrolment(&hospital)).unwrap();
    }
    let letters = post_all(&mut world, &mut wallet);
    deliver(&mut wallet, &letters);
    let after = world.hospitals[&a()].registered.clone().unwrap();
    assert_eq!(before.keys[0].key, after.keys[0].key, "the same consent key, so the same patient");
    let (next, _) = wallet.delegate(NOW, &a(), &b(), wish()).unwrap();
    assert_ne!(next, number);
}

#[test]
fn steps_that_make_no_sense_are_refused_and_change_nothing() {
    let mut world = World::new();
    let mut wallet = registered(&mut world);
    let before = wallet.watches().len();
    assert!(matches!(wallet.delegate(NOW, &a(), &a(), wish()), Err(WalletError::SameHospital)));
    let stranger = world::id("hospital-c.example");
    assert!(matches!(wallet.delegate(NOW, &a(), &stranger, wish()), Err(WalletError::NotRegistered(_))));
    for (not_before, expires) in [(NOW.plus(10), NOW), (NOW, NOW), (NOW, NOW.plus(91 * 86_400))] {
        let wish = Wish { not_before, expires, ..wish() };
        assert!(matches!(wallet.delegate(NOW, &a(), &b(), wish), Err(WalletError::Window { max_days: 90 })));
    }
    let later = NOW.plus(6 * 365 * 86_400);
    assert!(matches!(wallet.ask(later, &a(), world::preview_all()), Err(WalletError::RegistrationExpired(_))));
    assert!(matches!(wallet.consent(NOW, CaseNumber(1)), Err(WalletError::UnknownCase(_))));
    assert_eq!((wallet.watches().len(), wallet.cases().len()), (before, 0));
    let (number, _) = wallet.delegate(NOW, &a(), &b(), wish()).unwrap();
    assert!(matches!(wallet.consent(NOW, number), Err(WalletError::WrongStage { .. })));
    assert!(matches!(wallet.revoke(NOW, number, RevocationReason::Withdrawn), Err(WalletError::WrongStage { .. })));
    wallet.forget(NOW, number).unwrap();
    assert_eq!(wallet.closed()[0].outcome, Outcome::Abandoned);
    let (mut wallet, number) = {
        drop(wallet);
        std::fs::remove_file(world.path()).unwrap();
        presented(&mut world)
    };
    assert!(matches!(wallet.forget(NOW, number), Err(WalletError::WrongStage { .. })));
    wallet.forget(NOW.plus(86_401 + RECEIPT_DEADLINE_SECONDS), number).unwrap();
}

#[test]
fn the_wrong_passphrase_opens_nothing_and_a_failed_save_changes_nothing() {
    let mut world = World::new();
    let mut wallet = registered(&mut world);
    // A folder in the way of the new file: saving fails.
    let obstacle = world.folder.path().join("wallet.new");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(matches!(wallet.delegate(NOW, &a(), &b(), wish()), Err(WalletError::File(FileError::Io { .. }))));
    assert!(wallet.cases().is_empty() && wallet.errands().is_empty() && wallet.watches().is_empty());
    std::fs::remove_dir(&obstacle).unwrap();
    wallet.delegate(NOW, &a(), &b(), wish()).unwrap();
    let backend = wallet.backend.clone();
    drop(wallet);
    let wrong = Wallet::open(backend, &world.path(), "another passphrase");
    assert!(matches!(wrong, Err(WalletError::File(FileError::WrongPassphrase))));
}

#[test]
fn debug_shows_no_secret() {
    let mut world = World::new();
    let (wallet, _) = presented(&mut world);
    let text = format!("{wallet:?} {:?} {:?} {:?}", wallet.cases(), wallet.watches(), wallet.recovery_code());
    let root = hex::encode(wallet.recovery_code().root().expose());
    assert!(!text.contains(&root[..8]) && !text.contains("Condition"), "{text}");
}
