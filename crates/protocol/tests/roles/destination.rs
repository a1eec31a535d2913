//! The destination's checks (PROTOCOL section 6.2), one alteration a check.

use waybill_crypto::backend::Backend as _;
use waybill_crypto::certificate::Profile;
use waybill_crypto::keys::{Digest, HpkeSecretKey, SigningKey};
use waybill_protocol::destination::{DestinationCase, Filing};
use waybill_protocol::ids::{ManifestId, MessageId, ProofId, SessionId, Timestamp};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    Chain, KeyLodgement, KeyRelease, Limits, Manifest, ManifestBody, ManifestPlain, OutcomeClass, ReleaseBody,
};
use waybill_protocol::migration::DestinationState;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::to_cbor;

use crate::common::*;

const OTHER: ProofId = ProofId(Digest([0xee; 32]));

fn checked(alter: impl FnOnce(&mut Forge, &mut World)) -> Result<(), Code> {
    let mut world = World::new();
    let mut forge = Forge::honest(&world);
    alter(&mut forge, &mut world);
    let sealed = forge.presentation(&mut world);
    presented(&world, &sealed).map_err(|rejection| rejection.code)
}

fn presented(world: &World, sealed: &SealedBytes) -> Result<(), Rejection> {
    let destination = world.destination();
    let opened = destination.open_presentation(sealed)?;
    let known = world.b.registered_at(&world.root, opened.pid());
    let presenter = destination.verify_presenter(opened, known)?;
    destination.verify_presentation(presenter).map(|_| ())
}

fn refused(expected: Code, alter: impl FnOnce(&mut Forge, &mut World)) {
    assert_eq!(checked(alter), Err(expected));
}

#[test]
fn an_honest_presentation_passes() {
    assert_eq!(checked(|_, _| {}), Ok(()));
}

// Check 1: it opens.

#[test]
fn a_presentation_sealed_to_another_is_refused() {
    refused(Code::PresentationInvalid, |forge, world| forge.presentation_to = *fresh_hpke(world).public());
    refused(Code::PresentationInvalid, |forge, _| forge.presentation_bound = A.to_owned());
    let world = World::new();
    let to = world.b.identity.keys().hpke;
    let junk =
        SealedBytes::seal(&world.network.backend, &to, SealPurpose::Presentation, B.as_bytes(), b"no message").unwrap();
    assert_eq!(code(presented(&world, &junk)), Code::Malformed);
}

// Check 2: who presents.

#[test]
fn a_presenter_who_is_not_registered_is_refused() {
    refused(Code::PatientUnknown, |forge, world| {
        let pid = world.root.pid(B, 1);
        forge.terms.com_destination = commitment("pid-destination", &forge.presentation.pid_opening, &to_cbor(&pid));
        forge.presentation.pid = pid;
    });
    refused(Code::ConsentSignatureInvalid, |forge, world| {
        forge.presentation_key = world.network.backend.generate_signing_key();
    });
    refused(Code::ConsentKeyExpired, |_, world| {
        world.b.registered.keys[0].expires = Timestamp(world.now.0 - 1);
    });
}

// Checks 3 to 7: the proof, its parties and time, what it commits to, the consent beside it.

#[test]
fn a_proof_that_is_not_the_authoritys_or_not_in_the_log_is_refused() {
    refused(Code::ProofInvalid, |forge, world| forge.proof_key = world.network.backend.generate_signing_key());
    refused(Code::LogEvidenceInvalid, |forge, _| forge.leaf = LeafKind::STATEMENT);
    refused(Code::LogEvidenceInvalid, |forge, _| forge.cosigners = 1);
}

#[test]
fn a_presentation_of_another_proof_than_the_one_beside_it_is_refused() {
    refused(Code::PresentationInvalid, |forge, _| forge.presentation_proof = Some(OTHER));
}

#[test]
fn a_proof_for_another_destination_is_refused() {
    refused(Code::ProofNotForUs, |forge, _| forge.terms.destination = id(C));
}

#[test]
fn a_proof_outside_its_window_is_refused() {
    refused(Code::ProofNotYetValid, |forge, world| forge.terms.not_before = world.now.plus(1));
    refused(Code::ProofExpired, |forge, world| forge.terms.expires = Timestamp(world.now.0 - 1));
    assert_eq!(checked(|forge, world| forge.terms.not_before = world.now), Ok(()), "the first second is inside");
    assert_eq!(checked(|forge, world| forge.terms.expires = world.now), Ok(()), "so is the last");
}

#[test]
fn a_presentation_that_does_not_open_the_proofs_commitments_is_refused() {
    refused(Code::CommitmentMismatch, |forge, _| forge.presentation.pid_opening = forge.consent.pid_opening.clone());
    refused(Code::CommitmentMismatch, |forge, _| forge.presentation.scope = "types=Immunization".parse().unwrap());
    refused(Code::CommitmentMismatch, |forge, _| forge.presentation.scope_opening = forge.consent.pid_opening.clone());
}

#[test]
fn another_patients_presentation_of_this_proof_is_refused() {
    // Somebody else, honestly registered at B, presents a proof that is not theirs.
    refused(Code::CommitmentMismatch, |forge, _| {
        forge.terms.com_destination = commitment("pid-destination", &forge.presentation.pid_opening, &[0x40]);
    });
}

#[test]
fn a_consent_other_than_the_one_the_presentation_names_is_refused() {
    refused(Code::PresentationInvalid, |forge, _| forge.presentation_consent = Some(Digest([1; 32])));
}

// The manifest.

/// A manifest, honest but for one field, signed and sealed as the arguments say.
fn manifest(
    alter: impl FnOnce(&mut Manifest),
    signer: Option<SigningKey>,
    to: Option<HpkeSecretKey>,
    bound: Option<SessionId>,
) -> (World, Migration, ManifestBody) {
    manifest_with_chain(alter, signer, to, bound, |world| world.a.identity.chain.clone())
}

fn manifest_with_chain(
    alter: impl FnOnce(&mut Manifest),
    signer: Option<SigningKey>,
    to: Option<HpkeSecretKey>,
    bound: Option<SessionId>,
    chain: impl FnOnce(&World) -> Chain,
) -> (World, Migration, ManifestBody) {
    let mut world = World::new();
    let m = world.migrate(0, Step::Lodged);
    let honest = m.source().manifest.unwrap().parse().unwrap().peek().clone();
    let mut manifest = honest;
    alter(&mut manifest);
    let signer = signer.unwrap_or_else(|| world.a.identity.signing.clone());
    let signed = Signed::sign(&world.network.backend, &signer, manifest);
    let session = m.destination().session;
    let to = to.unwrap_or_else(|| m.secret());
    let bound = bound.unwrap_or(session);
    let backend = &world.network.backend;
    let plain = ManifestPlain { manifest: SignedBytes::from(&signed), chain: chain(&world) };
    let sealed =
        SealedBytes::seal(backend, to.public(), SealPurpose::Manifest, bound.as_bytes(), &to_cbor(&plain)).unwrap();
    (world, m, ManifestBody { session, sealed })
}

fn take(world: &World, m: &Migration, body: &ManifestBody, limit: u64) -> Result<DestinationCase, Rejection> {
    world.destination().handle_manifest(m.destination(), body, &m.secret(), limit).map(|(case, _)| case)
}

#[test]
fn a_manifest_of_another_session_signer_or_seal_is_refused() {
    let (world, m, body) = manifest(|_| {}, None, None, None);
    let case = take(&world, &m, &body, 1 << 20).unwrap();
    assert_eq!(case.state, DestinationState::Receiving);
    let taken = world.destination().handle_manifest(case, &body, &m.secret(), 1 << 20);
    assert_eq!(code(taken), Code::UnexpectedMessage, "a second manifest");

    let other = SessionId(Digest([1; 32]));
    let elsewhere = ManifestBody { session: other, ..body };
    assert_eq!(code(take(&world, &m, &elsewhere, 1 << 20)), Code::UnexpectedMessage);
    for (world, m, body) in [
        manifest(|m| m.proof = OTHER, None, None, None),
        manifest(|m| m.session = SessionId(Digest([1; 32])), None, None, None),
        manifest(|_| {}, Some(SigningKey::derive(&[1; 32])), None, None),
        manifest(|_| {}, None, Some(HpkeSecretKey::from_bytes(&[1; 32])), None),
        manifest(|_| {}, None, None, Some(other)),
    ] {
        assert_eq!(code(take(&world, &m, &body, 1 << 20)), Code::ManifestInvalid);
    }
}

#[test]
fn a_manifest_under_another_certificate_of_the_sources_name_is_refused() {
    // The patient pinned a key; a certificate that a malicious authority makes for the same name does not count.
    let world = World::new();
    let (key, _) = world.stranger(A);
    let (world, m, body) = manifest(|_| {}, Some(key), None, None);
    assert_eq!(code(take(&world, &m, &body, 1 << 20)), Code::ManifestInvalid);
}

#[test]
fn a_manifest_whose_chain_does_not_certify_the_pinned_source_is_refused() {
    // Evidence would lack what convicts: the chain must be the source's, for this key and this use.
    let refused = |expected: Code, chain: &dyn Fn(&World) -> Chain| {
        let (world, m, body) = manifest_with_chain(|_| {}, None, None, None, chain);
        assert_eq!(code(take(&world, &m, &body, 1 << 20)), expected);
    };
    refused(Code::ManifestInvalid, &|world| world.b.identity.chain.clone());
    refused(Code::ManifestInvalid, &|world| world.stranger(A).1);
    refused(Code::ManifestInvalid, &|world| {
        world.network.chain(Profile::HospitalSigning, C, world.a.identity.signing.public(), NOW).0
    });
    refused(Code::CertificateInvalid, &|world| {
        world.network.chain(Profile::HospitalTls, A, world.a.identity.signing.public(), NOW).0
    });
}

#[test]
fn a_record_larger_than_the_destination_takes_is_refused_before_it_travels() {
    let (world, m, body) = manifest(|_| {}, None, None, None);
    assert_eq!(code(take(&world, &m, &body, 33)), Code::ManifestTooLarge);
    assert!(take(&world, &m, &body, 34).is_ok());
}

#[test]
fn a_delivery_receipt_is_signed_only_for_the_manifests_own_root() {
    let (world, m, body) = manifest(|_| {}, None, None, None);
    let case = take(&world, &m, &body, 1 << 20).unwrap();
    let wrong = world.destination().handle_delivered(case.clone(), &Digest([1; 32]));
    assert_eq!(code(wrong), Code::UnexpectedMessage);
    let root = waybill_crypto::stream::leaf(m.chunk.as_ref().unwrap());
    let (case, _) = world.destination().handle_delivered(case, &root).unwrap();
    assert_eq!(code(world.destination().handle_delivered(case, &root)), Code::UnexpectedMessage);
    assert_eq!(code(world.destination().handle_delivered(m.destination(), &root)), Code::UnexpectedMessage);
}

// The release of the key.

struct ReleaseParts {
    lodgement: KeyLodgement,
    lodgement_key: SigningKey,
    release: Box<dyn FnOnce(&mut KeyRelease)>,
    release_key: SigningKey,
    leaf: LeafKind,
    cosigners: usize,
}

/// A release, honest but for one part.
fn release(alter: impl FnOnce(&mut ReleaseParts, &World)) -> (World, Migration, ReleaseBody) {
    let mut world = World::new();
    let m = world.migrate(0, Step::Delivered);
    let mut parts = ReleaseParts {
        lodgement: m.source().lodgement.unwrap().parse().unwrap().peek().clone(),
        lodgement_key: world.a.identity.signing.clone(),
        release: Box::new(|_| {}),
        release_key: world.authority.proof_signing.clone(),
        leaf: LeafKind::RELEASE,
        cosigners: 2,
    };
    alter(&mut parts, &world);
    let backend = &world.network.backend;
    let lodgement = Signed::sign(backend, &parts.lodgement_key, parts.lodgement);
    let delivery = m.destination().delivery.unwrap().parse().unwrap().message_id();
    let mut release = KeyRelease { proof: m.proof.id(), lodgement: lodgement.id(), delivery, time: world.now };
    (parts.release)(&mut release);
    let release = Signed::sign(backend, &parts.release_key, release);
    world.log.cosigners = parts.cosigners;
    let evidence = world.log.append(&world.network.backend, parts.leaf, &release.id().0, [2; 16]);
    let body = ReleaseBody { release: SignedBytes::from(&release), lodgement: SignedBytes::from(&lodgement), evidence };
    (world, m, body)
}

fn release_refused(expected: Code, alter: impl FnOnce(&mut ReleaseParts, &World)) {
    let (world, m, body) = release(alter);
    assert_eq!(code(world.destination().handle_release(m.destination(), body, &m.secret())), expected);
}

#[test]
fn an_honest_release_opens_the_key_once() {
    let (world, m, body) = release(|_, _| {});
    let (keys, (case, _)) = world.destination().handle_release(m.destination(), body.clone(), &m.secret()).unwrap();
    assert!(keys.is_some());
    assert_eq!(case.state, DestinationState::KeyHeld);
    assert_eq!(code(world.destination().handle_release(case, body, &m.secret())), Code::UnexpectedMessage);
}

#[test]
fn a_release_that_the_authority_did_not_sign_or_log_is_refused() {
    release_refused(Code::SignatureInvalid, |parts, _| parts.release_key = SigningKey::derive(&[1; 32]));
    release_refused(Code::LogEvidenceInvalid, |parts, _| parts.leaf = LeafKind::GRANT);
    release_refused(Code::LogEvidenceInvalid, |parts, _| parts.cosigners = 1);
}

#[test]
fn a_lodgement_that_the_pinned_source_did_not_sign_is_refused() {
    release_refused(Code::LodgementInvalid, |parts, _| parts.lodgement_key = SigningKey::derive(&[1; 32]));
    release_refused(Code::LodgementInvalid, |parts, world| parts.lodgement_key = world.stranger(A).0);
}

#[test]
fn a_release_bound_to_anything_else_is_refused() {
    let other = MessageId(Digest([1; 32]));
    release_refused(Code::ReleaseInvalid, |parts, _| parts.release = Box::new(|r| r.proof = OTHER));
    release_refused(Code::ReleaseInvalid, |parts, _| parts.release = Box::new(move |r| r.lodgement = other));
    release_refused(Code::ReleaseInvalid, |parts, _| parts.release = Box::new(move |r| r.delivery = other));
    release_refused(Code::ReleaseInvalid, |parts, _| parts.lodgement.proof = OTHER);
    release_refused(Code::ReleaseInvalid, |parts, _| parts.lodgement.session = SessionId(Digest([1; 32])));
    release_refused(Code::ReleaseInvalid, |parts, _| parts.lodgement.manifest = ManifestId(Digest([1; 32])));
}

#[test]
fn a_wrong_key_ends_the_case_with_a_signed_rejection_and_the_revealed_one_time_key() {
    let (world, m, body) = release(|parts, world| {
        // Sealed for another manifest: it does not open as this one's key.
        let secret = fresh_hpke(world);
        let sealed = SealedBytes::seal(&world.network.backend, secret.public(), SealPurpose::RecordKey, &[], &[7; 32]);
        parts.lodgement.sealed_key = sealed.unwrap();
    });
    let (keys, (case, effects)) = world.destination().handle_release(m.destination(), body, &m.secret()).unwrap();
    assert!(keys.is_none());
    assert_eq!((case.state, case.code), (DestinationState::Rejected, Some(Code::WrongKeyLodged)));
    assert!(case.revealed_key.is_some());
    posted(&effects, waybill_protocol::wire::Kind::ImportReceipt);
}

#[test]
fn a_receipt_is_signed_only_once_the_key_is_here() {
    let mut world = World::new();
    let mut m = world.migrate(0, Step::Delivered);
    let filing = Filing { detail: m.detail(), outcome: OutcomeClass::Filed };
    assert_eq!(code(world.destination().handle_filed(m.destination(), &filing)), Code::UnexpectedMessage);
    world.advance(&mut m, Step::Delivered, Step::Filed);
    assert_eq!(code(world.destination().handle_filed(m.destination(), &filing)), Code::UnexpectedMessage);
}

#[test]
fn a_key_decides_no_more_than_its_limits_at_the_destination() {
    let limited = |scope: &str| {
        let limits = Limits { scope: scope.parse().unwrap(), destinations: Vec::new() };
        checked(move |_, world| world.b.registered.keys[0].limits = limits)
    };
    assert_eq!(limited("types=*;labels=*"), Ok(()));
    assert_eq!(limited("types=Immunization"), Err(Code::ConsentLimit), "the honest presentation is for more");
}
