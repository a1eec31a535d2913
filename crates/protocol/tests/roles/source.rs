//! The source's checks of a transfer request (PROTOCOL section 6.1), one alteration a check.

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::Digest;
use waybill_protocol::ids::{ProofId, Timestamp};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{Chain, Limits, TransferBody};
use waybill_protocol::migration::{Effect, SourceState};
use waybill_protocol::registrar::{LocalPatient, Registered};
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{ConsentStands, IdentityVerdict, Received, SourceCase};
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::hides::Hides;

use crate::common::*;

fn checked(alter: impl FnOnce(&mut Forge, &mut World)) -> Result<IdentityVerdict, Code> {
    let mut world = World::new();
    let mut forge = Forge::honest(&world);
    alter(&mut forge, &mut world);
    let body = forge.request(&mut world);
    world.source_checks(&body).map(|checked| checked.verdict()).map_err(|rejection| rejection.code)
}

fn refused(expected: Code, alter: impl FnOnce(&mut Forge, &mut World)) {
    assert_eq!(checked(alter), Err(expected));
}

const OTHER: ProofId = ProofId(Digest([0xee; 32]));

#[test]
fn an_honest_request_passes() {
    assert_eq!(checked(|_, _| {}), Ok(IdentityVerdict::Same));
}

#[test]
fn another_kind_of_parcel_is_refused() {
    let mut world = World::new();
    let body = Forge::honest(&world).request(&mut world);
    let parcel = Parcel::parse(&Parcel::pack(Kind::Redeem, &body)).unwrap();
    assert_eq!(code(Received::parse(&parcel)), Code::UnexpectedMessage);
}

#[test]
fn a_request_says_what_it_is_before_it_is_believed() {
    let mut world = World::new();
    let body = Forge::honest(&world).request(&mut world);
    let mut request = body.request.parse().unwrap().peek().clone();
    request.attempt = 3;
    let request = Signed::sign(&world.network.backend, &world.b.identity.signing, request);
    let proof = request.message().proof;
    let body = TransferBody { request: SignedBytes::from(&request), ..body };
    let parcel = Parcel::parse(&Parcel::pack(Kind::TransferRequest, &body)).unwrap();
    let received = Received::parse(&parcel).unwrap();
    assert_eq!((received.proof(), received.session().0, received.attempt()), (proof, request.id().0, 3));
    let sender = world.source().verify_sender(received).unwrap();
    assert_eq!(sender.sender(), &id(B));
    let backend = &world.network.backend;
    assert!(sender.consent_opens_for(backend, &world.a.identity), "sealed to the keys that the patient pinned");
    assert!(!sender.consent_opens_for(backend, &world.b.identity), "and to no others");
}

// Check 1: the sender.

#[test]
fn an_expired_certificate_is_refused() {
    refused(Code::CertificateExpired, |forge, world| {
        let made = Timestamp(NOW.0 - 31 * DAY);
        forge.sender_chain = world.network.chain(Profile::HospitalSigning, B, forge.sender_key.public(), made).0;
    });
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    refused(Code::CertificateExpired, |forge, world| {
        forge.sender_chain =
            world.network.chain(Profile::HospitalSigning, B, forge.sender_key.public(), NOW.plus(DAY)).0;
    });
}

#[test]
fn a_revoked_certificate_is_refused() {
    refused(Code::CertificateRevoked, |_, world| {
        let crl = world.network.crl(&[world.b.serial], NOW);
        world.a.trust.renew_crl(crl);
    });
}

#[test]
fn a_stale_revocation_list_refuses_everybody() {
    refused(Code::CrlStale, |_, world| {
        let crl = world.network.crl(&[], Timestamp(NOW.0 - 8 * DAY));
        world.a.trust.renew_crl(crl);
    });
}

#[test]
fn a_certificate_for_another_use_is_refused() {
    for profile in [Profile::HospitalTls, Profile::ServiceTls, Profile::ProofSigning] {
        refused(Code::CertificateInvalid, |forge, world| {
            forge.sender_chain = world.network.chain(profile, B, forge.sender_key.public(), NOW).0;
        });
    }
}

#[test]
fn a_certificate_under_another_root_is_refused() {
    refused(Code::CertificateInvalid, |forge, _| {
        let other = Network::new(2);
        forge.sender_chain = other.chain(Profile::HospitalSigning, B, forge.sender_key.public(), NOW).0;
    });
}

#[test]
fn a_request_without_certificates_is_refused() {
    refused(Code::Malformed, |forge, _| forge.sender_chain = Chain::default());
}

#[test]
fn a_signature_that_does_not_verify_is_refused() {
    refused(Code::SignatureInvalid, |forge, _| forge.request_forged = true);
    refused(Code::SignatureInvalid, |forge, world| forge.sender_key = world.network.backend.generate_signing_key());
}

#[test]
fn a_request_that_carries_another_signing_key_than_its_certificate_is_refused() {
    // The consent names what the request carries, so only the comparison with the certificate stands in the way.
    refused(Code::SenderWrong, |forge, world| {
        forge.sender_keys.signing = world.network.backend.generate_signing_key().public().clone();
        forge.consent.destination = forge.sender_keys.thumb();
    });
}

// Check 2: the proof and its place in the log.

#[test]
fn a_proof_that_the_authority_did_not_sign_is_refused() {
    refused(Code::ProofInvalid, |forge, world| forge.proof_key = world.network.backend.generate_signing_key());
}

#[test]
fn a_proof_under_a_hospitals_certificate_is_refused() {
    refused(Code::CertificateInvalid, |forge, world| {
        forge.proof_key = world.b.identity.signing.clone();
        forge.proof_chain = world.b.identity.chain.clone();
    });
}

#[test]
fn a_proof_of_another_authority_under_the_same_root_is_refused() {
    refused(Code::ProofInvalid, |forge, world| {
        let chain = world.network.chain(Profile::ProofSigning, "other.example", forge.proof_key.public(), NOW);
        forge.proof_chain = chain.0;
    });
    refused(Code::ProofInvalid, |forge, _| forge.authority = id("other.example"));
}

#[test]
fn a_request_for_another_proof_than_the_one_beside_it_is_refused() {
    refused(Code::ProofInvalid, |forge, _| forge.request_proof = Some(OTHER));
}

#[test]
fn a_proof_that_is_not_in_the_log_is_refused() {
    refused(Code::LogEvidenceInvalid, |forge, _| forge.leaf = LeafKind::GRANT);
}

#[test]
fn a_proof_that_too_few_witnesses_have_seen_is_refused() {
    refused(Code::LogEvidenceInvalid, |forge, _| forge.cosigners = 1);
    refused(Code::LogEvidenceInvalid, |forge, _| forge.cosigners = 0);
}

// Checks 3 to 5: parties and time.

#[test]
fn a_proof_for_another_source_is_refused() {
    refused(Code::ProofNotForUs, |forge, _| forge.terms.source = id(C));
}

#[test]
fn a_sender_that_is_not_the_proofs_destination_is_refused() {
    refused(Code::SenderWrong, |forge, _| forge.terms.destination = id(C));
}

#[test]
fn another_hospital_with_a_valid_certificate_is_refused() {
    refused(Code::SenderWrong, |forge, world| {
        let (key, chain) = world.stranger(C);
        forge.sender_keys.signing = key.public().clone();
        (forge.sender_key, forge.sender_chain) = (key, chain);
        forge.consent.destination = forge.sender_keys.thumb();
    });
}

#[test]
fn a_proof_outside_its_window_is_refused() {
    refused(Code::ProofNotYetValid, |forge, world| forge.terms.not_before = world.now.plus(1));
    refused(Code::ProofExpired, |forge, world| forge.terms.expires = Timestamp(world.now.0 - 1));
    assert!(checked(|forge, world| forge.terms.not_before = world.now).is_ok(), "the first second is inside");
    assert!(checked(|forge, world| forge.terms.expires = world.now).is_ok(), "so is the last");
}

// Check 6: the consent opens.

#[test]
fn a_consent_other_than_the_one_the_request_names_is_refused() {
    refused(Code::ConsentForOther, |forge, _| forge.request_consent = Some(Digest([1; 32])));
}

#[test]
fn a_consent_sealed_to_another_is_unreadable() {
    refused(Code::ConsentUnreadable, |forge, world| forge.consent_to = *fresh_hpke(world).public());
    refused(Code::ConsentUnreadable, |forge, _| forge.consent_bound = B.to_owned());
    refused(Code::ConsentUnreadable, |forge, _| forge.consent_plain = Some(b"no message".to_vec()));
}

#[test]
fn a_consent_for_another_proof_is_refused() {
    refused(Code::ConsentForOther, |forge, _| forge.consent_proof = Some(OTHER));
}

#[test]
fn a_pseudonym_that_does_not_open_the_proofs_commitment_is_refused() {
    refused(Code::CommitmentMismatch, |forge, _| forge.consent.pid_opening = forge.presentation.pid_opening.clone());
}

#[test]
fn another_patients_pseudonym_in_this_patients_case_is_refused() {
    refused(Code::CommitmentMismatch, |forge, world| forge.consent.pid = world.root.pid(A, 1));
}

// Checks 7 to 9: who consents, to whom, to what.

#[test]
fn an_unknown_patient_is_refused_and_looks_like_any_refused_consent() {
    refused(Code::PatientUnknown, |forge, world| {
        let pid = world.root.pid(A, 1);
        forge.terms.com_source = commitment("pid-source", &forge.consent.pid_opening, &to_cbor(&pid));
        forge.consent.pid = pid;
    });
    assert_eq!(Code::PatientUnknown.public(), Code::ConsentSignatureInvalid.public());
}

#[test]
fn a_consent_under_a_key_that_is_not_registered_is_refused() {
    refused(Code::ConsentSignatureInvalid, |forge, world| {
        forge.consent_key = world.network.backend.generate_signing_key();
    });
}

#[test]
fn a_consent_whose_signature_does_not_verify_is_refused() {
    refused(Code::ConsentSignatureInvalid, |forge, _| forge.consent_forged = true);
}

#[test]
fn a_consent_key_whose_registration_expired_is_refused() {
    refused(Code::ConsentKeyExpired, |_, world| {
        world.a.registered.keys[0].expires = Timestamp(world.now.0 - 1);
    });
}

#[test]
fn a_consent_for_other_destination_keys_is_refused() {
    // A malicious authority's pairing: the real signing key with an HPKE key of its own.
    refused(Code::DestinationWrong, |forge, world| {
        let mut keys = world.b.identity.keys();
        keys.hpke = *fresh_hpke(world).public();
        forge.consent.destination = keys.thumb();
    });
    refused(Code::DestinationWrong, |forge, world| forge.sender_keys.hpke = *fresh_hpke(world).public());
}

#[test]
fn another_key_certified_in_the_destinations_name_is_refused() {
    refused(Code::DestinationWrong, |forge, world| {
        let (key, chain) = world.stranger(B);
        forge.sender_keys.signing = key.public().clone();
        (forge.sender_key, forge.sender_chain) = (key, chain);
    });
}

#[test]
fn a_scope_wider_than_the_committed_one_is_refused() {
    refused(Code::CommitmentMismatch, |forge, _| forge.consent.scope = "types=Immunization".parse().unwrap());
    refused(Code::CommitmentMismatch, |forge, _| forge.consent.scope_opening = forge.consent.pid_opening.clone());
}

#[test]
fn hides_other_than_the_committed_ones_are_refused() {
    refused(Code::CommitmentMismatch, |forge, _| forge.consent.hides = Hides::parse(["Condition/c1"]).unwrap());
    refused(Code::CommitmentMismatch, |forge, _| forge.consent.hides_opening = forge.consent.pid_opening.clone());
}

// Check 10: the same person.

#[test]
fn another_person_at_the_destination_is_refused() {
    refused(Code::IdentityMismatch, |forge, _| {
        forge.claim = to_cbor(&demographics("patient-at-b", "Lovelace", "1915-01-01"));
    });
}

#[test]
fn an_identity_claim_made_for_another_session_is_refused() {
    refused(Code::IdentityMismatch, |forge, _| forge.claim_bound = Some([8; 32]));
}

#[test]
fn an_identity_claim_that_is_none_is_refused() {
    refused(Code::Malformed, |forge, _| forge.claim = vec![0xff]);
    refused(Code::TooLarge, |forge, _| forge.claim = vec![0; 33 * 1024]);
    refused(Code::IdentityMismatch, |forge, _| {
        let mut person = demographics("patient-at-b", &"Lovelace".repeat(25), "1915-01-01");
        person.names = vec![person.names[0].clone(); 20];
        forge.claim = to_cbor(&person);
        assert!(forge.claim.len() > 4_000, "as long as a person with many names");
    });
}

#[test]
fn a_doubt_waits_for_a_person_before_the_authority_is_asked() {
    let mut world = World::new();
    let mut forge = Forge::honest(&world);
    forge.claim = to_cbor(&demographics("patient-at-b", "Lovelace", "1815"));
    let body = forge.request(&mut world);
    let checked = world.source_checks(&body).unwrap();
    assert_eq!(checked.verdict(), IdentityVerdict::Doubt);
    let (case, effects) = world.source().open_case(checked, None, REVIEW_SECONDS);
    assert_eq!((case.state, case.code), (SourceState::AwaitingReview, Some(Code::IdentityDoubt)));
    assert!(recipients(&effects, Kind::Redeem).is_empty(), "nothing is redeemed before a person has looked");
    let (approved, effects) = world.source().approve_review(&world.stands(&case), case, None).unwrap();
    assert_eq!((approved.state, approved.code), (SourceState::Redeeming, None));
    posted(&effects, Kind::Redeem);
    assert_eq!(code(world.source().approve_review(&world.stands(&approved), approved, None)), Code::UnexpectedMessage);
}

/// Between consent and release lie days. Each step that brings the record closer to leaving looks at the key again.
#[test]
fn a_key_that_was_withdrawn_meanwhile_releases_nothing() {
    let mut world = World::new();
    let case = world.migrate(0, Step::Redeeming).source();
    let none: &[Registered] = &[];
    let other = Registered { keys: world.b.registered.keys.clone(), ..world.a.registered.clone() };
    let elsewhere = Registered { local: LocalPatient("somebody-else".into()), ..world.a.registered.clone() };
    for registered in [none, &[other], &[elsewhere]] {
        assert_eq!(code(ConsentStands::verify(&case, registered)), Code::ConsentSignatureInvalid);
    }
    let mut expired = world.a.registered.clone();
    expired.keys[0].expires = Timestamp(0);
    assert!(ConsentStands::verify(&case, &[expired]).is_ok(), "what it decided it decided in time");
    // What was found of one case says nothing of another.
    let granted = world.migrate(1, Step::Granted);
    let stands = world.stands(&granted.source());
    let waiting = SourceCase { state: SourceState::AwaitingReview, ..case.clone() };
    assert_eq!(code(world.source().approve_review(&stands, waiting, None)), Code::ConsentSignatureInvalid);
    let grant = granted.grant.clone().unwrap();
    assert_eq!(code(world.source().handle_grant(&stands, case.clone(), grant)), Code::ConsentSignatureInvalid);
    let staged = world.stage(&mut granted.clone());
    let stands = world.stands(&case);
    assert_eq!(code(world.source().handle_staged(&stands, granted.source(), &staged)), Code::ConsentSignatureInvalid);
}

#[test]
fn a_key_decides_no_more_than_its_limits_at_the_source() {
    let limit = |scope: &str, destination: &str| {
        let limits = Limits { scope: scope.parse().unwrap(), destinations: vec![id(destination)] };
        checked(move |_, world| world.a.registered.keys[0].limits = limits)
    };
    assert_eq!(limit("types=*;labels=*", B), Ok(IdentityVerdict::Same));
    assert_eq!(limit("types=Immunization", B), Err(Code::ConsentLimit), "the honest request is for more");
    assert_eq!(limit("types=*;labels=*", "hospital-c.example"), Err(Code::ConsentLimit));
    assert_eq!(Code::ConsentLimit.for_counterpart(), Code::ConsentRefused);
}

#[test]
fn a_review_has_a_deadline_that_never_lies_past_the_proofs_end() {
    let mut world = World::new();
    let mut forge = Forge::honest(&world);
    forge.claim = to_cbor(&demographics("patient-at-b", "Lovelace", "1815"));
    let body = forge.request(&mut world);
    let open = |world: &World, seconds| {
        let (case, effects) = world.source().open_case(world.source_checks(&body).unwrap(), None, seconds);
        let deadline = effects.iter().find_map(|e| if let Effect::Deadline(at) = e { Some(*at) } else { None });
        (case, deadline.unwrap())
    };
    let (case, deadline) = open(&world, 60);
    assert_eq!((case.review_by, deadline), (Some(NOW.plus(60)), NOW.plus(61)));
    let (long, _) = open(&world, u64::MAX);
    assert_eq!(long.review_by, Some(long.expires));
    world.now = NOW.plus(60);
    assert!(world.source().handle_overdue(case.clone()).is_none(), "still in time");
    world.now = NOW.plus(61);
    let (approved, effects) = world.source().approve_review(&world.stands(&case), case.clone(), None).unwrap();
    assert!(effects.contains(&Effect::Deadline(case.expires.plus(1))), "from now on the proof's end counts");
    assert!(world.source().handle_overdue(approved).is_none(), "a person has looked");
    let (refused, effects) = world.source().handle_overdue(case).unwrap();
    assert_eq!((refused.state, refused.code), (SourceState::Refused, Some(Code::ReviewOverdue)));
    assert_eq!(recipients(&effects, Kind::Refusal).len(), 2, "destination and authority are told");
}
