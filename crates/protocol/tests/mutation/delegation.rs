//! What the patient delegates, what the authority proves, and the patient's word to each hospital.

use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, HpkePublicKey, SigningKey};
use waybill_protocol::authority::Intent;
use waybill_protocol::destination::PresentationVerified;
use waybill_protocol::ids::{MessageId, Nonce, ProofId, Timestamp};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    Consent, Delegation, DelegationBody, MigrationProof, Presentation, PresentationBody, ProofBundle, TransferBody,
};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};
use waybill_record::hides::Hides;

use crate::Expected::{self, Kept, Later, Refused};
use crate::bench::{Bench, logged};
use crate::common::*;
use crate::{Delivery, Held, Row, row};

const OTHER: Digest = Digest([0xee; 32]);

pub fn deliveries() -> Vec<Box<dyn Held>> {
    vec![
        Box::new(delegation()),
        Box::new(proof_at_patient()),
        Box::new(proof_at_destination()),
        Box::new(proof_at_source()),
        Box::new(consent()),
        Box::new(presentation()),
    ]
}

fn key(n: u8) -> SigningKey {
    SigningKey::derive(&[n; 32])
}

// The delegation.

fn intended(world: &World, bench: &Bench, delegation: SignedBytes<Delegation>) -> Result<Intent, Rejection> {
    let body = DelegationBody { delegation, ..bench.ours.closed().delegation.clone() };
    world.authority().check_delegation(&body, &all_active)
}

fn delegation() -> Delivery<Delegation> {
    // The wallet that delegated something else does not consent to the proof that answers this.
    let own = Later("the patient's own decision, taken for what it is", Code::UnexpectedMessage);
    let voucher = Refused(Code::VoucherInvalid);
    let delegation_invalid = Refused(Code::DelegationInvalid);
    Delivery {
        message: "Delegation",
        to: "authority",
        signer: "delegation key",
        forged: Code::DelegationInvalid,
        take: Box::new(|_, run| run.closed().delegation.delegation.clone()),
        deliver: Box::new(|world, bench, bytes| {
            intended(world, bench, bytes).map(|intent| to_cbor(&intent)).map_err(|r| r.code)
        }),
        later: Some(Box::new(|world, bench, bytes| {
            let intent = intended(world, bench, bytes).unwrap();
            let (_, effects) = world.authority().issue_proof(&intent).unwrap();
            let posts = world.finish(leaves(&effects).remove(0));
            let parcel = Parcel::parse(&posts[0].parcel).unwrap();
            let accepted = world.patient().accept_proof(&world.patient_trust, &bench.ours.closed().draft, &parcel);
            accepted.map(|_| ()).map_err(|r| r.code)
        })),
        rows: vec![
            row!(Delegation: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
            row!(Delegation: nonce = Nonce([9; 16]) => own),
            row!(Delegation: delegation_key = OTHER => delegation_invalid),
            row!(Delegation: terms.source = id(C) => voucher).same(),
            row!(Delegation: terms.destination = id(C) => own).same(),
            row!(Delegation: terms.com_source = Commitment(OTHER) => voucher),
            row!(Delegation: terms.com_destination = Commitment(OTHER) => own),
            row!(Delegation: terms.com_scope = Commitment(OTHER) => own),
            row!(Delegation: terms.com_hides = Commitment(OTHER) => own),
            row!(Delegation: |m, w| terms.not_before = m.terms.not_before.plus(1) => own).same(),
            row!(Delegation: |m, w| terms.expires = Timestamp(w.now.0 - 1) => Refused(Code::WindowInvalid)).same(),
            row!(Delegation: |m, w| terms.expires = m.terms.expires.plus(1) => own),
            row!(Delegation: terms.revocation_key = key(1).public().clone() => own),
            row!(Delegation: |m, w| terms.reply_key = *fresh_hpke(w).public() => own),
            row!(Delegation: terms.reply_key = HpkePublicKey([0; 32]) => delegation_invalid),
            row!(Delegation: reply_to = "https://relay.example/mailbox/else".into() => own).same(),
        ],
    }
}

// The proof, which the authority also logs.

/// The rows of a proof at a receiver that answers any difference with one code.
fn proof_rows(differs: Expected, issued_at: Expected) -> Vec<Row<MigrationProof>> {
    vec![
        row!(MigrationProof: suite = 2 => Refused(Code::UnknownSuite)).unsigned(Code::UnknownSuite).same(),
        row!(MigrationProof: authority = id("other.example") => Refused(Code::ProofInvalid)).same(),
        row!(MigrationProof: delegation = MessageId(OTHER) => differs),
        row!(MigrationProof: terms.source = id(C) => differs).same(),
        row!(MigrationProof: terms.destination = id(C) => differs).same(),
        row!(MigrationProof: terms.com_source = Commitment(OTHER) => differs),
        row!(MigrationProof: terms.com_destination = Commitment(OTHER) => differs),
        row!(MigrationProof: terms.com_scope = Commitment(OTHER) => differs),
        row!(MigrationProof: terms.com_hides = Commitment(OTHER) => differs),
        row!(MigrationProof: |m, w| terms.not_before = m.terms.not_before.plus(1) => differs).same(),
        row!(MigrationProof: |m, w| terms.expires = m.terms.expires.plus(1) => differs).same(),
        row!(MigrationProof: terms.revocation_key = key(1).public().clone() => differs),
        row!(MigrationProof: terms.reply_key = HpkePublicKey([9; 32]) => differs),
        row!(MigrationProof: |m, w| issued_at = m.issued_at.plus(1) => issued_at).same(),
    ]
}

fn bundle(world: &mut World, proof: SignedBytes<MigrationProof>) -> ProofBundle {
    let evidence = logged(world, LeafKind::PROOF, &proof);
    ProofBundle { proof, chain: world.authority.chain.clone(), evidence }
}

fn at_source(world: &mut World, bench: &Bench, proof: SignedBytes<MigrationProof>) -> Result<(), Code> {
    let proof = bundle(world, proof);
    let body = TransferBody { proof, ..bench.ours.closed().request.clone().unwrap() };
    world.source_checks(&body).map(|_| ()).map_err(|r| r.code)
}

fn proof_at_patient() -> Delivery<MigrationProof> {
    let issued = Later(
        "the authority's clock; what was consented to under one proof opens nothing under another",
        Code::ProofInvalid,
    );
    Delivery {
        message: "MigrationProof",
        to: "patient",
        signer: "authority",
        forged: Code::ProofInvalid,
        take: Box::new(|_, run| run.closed().proof.bundle().proof.clone()),
        deliver: Box::new(|world, bench, proof| {
            let draft = &bench.ours.closed().draft;
            let plain = to_cbor(&bundle(world, proof));
            let bound = draft.delegation.as_ref().unwrap().parse().unwrap().message_id();
            let (to, purpose) = (draft.terms.reply_key, SealPurpose::ProofAnswer);
            let sealed = SealedBytes::seal(&world.network.backend, &to, purpose, bound.as_bytes(), &plain).unwrap();
            let parcel = Parcel::parse(&Parcel::pack(Kind::ProofAnswer, &sealed)).unwrap();
            let accepted = world.patient().accept_proof(&world.patient_trust, draft, &parcel);
            accepted.map(|proof| to_cbor(&proof.id())).map_err(|r| r.code)
        }),
        later: Some(Box::new(at_source)),
        rows: proof_rows(Refused(Code::ProofMismatch), issued),
    }
}

fn proof_at_source() -> Delivery<MigrationProof> {
    Delivery {
        message: "MigrationProof",
        to: "source",
        signer: "authority",
        forged: Code::ProofInvalid,
        take: Box::new(|_, run| run.closed().proof.bundle().proof.clone()),
        deliver: Box::new(|world, bench, proof| at_source(world, bench, proof).map(|()| Vec::new())),
        later: None,
        rows: proof_rows(Refused(Code::ProofInvalid), Refused(Code::ProofInvalid)),
    }
}

fn proof_at_destination() -> Delivery<MigrationProof> {
    Delivery {
        message: "MigrationProof",
        to: "destination",
        signer: "authority",
        forged: Code::ProofInvalid,
        take: Box::new(|_, run| run.closed().proof.bundle().proof.clone()),
        deliver: Box::new(|world, bench, proof| {
            let proof = bundle(world, proof);
            let body = PresentationBody { proof, ..bench.ours.presentation(world) };
            presented(world, bench, &body).map(|_| Vec::new()).map_err(|r| r.code)
        }),
        later: None,
        rows: proof_rows(Refused(Code::PresentationInvalid), Refused(Code::PresentationInvalid)),
    }
}

// The consent, which a destination that helps would name in its request.

fn consent() -> Delivery<Consent> {
    let mismatch = Refused(Code::CommitmentMismatch);
    Delivery {
        message: "Consent",
        to: "source",
        signer: "consent key at the source",
        forged: Code::ConsentSignatureInvalid,
        take: Box::new(|world, run| {
            let (sealed, key) = (run.presentation(world).consent, &world.a.identity.hpke);
            let plain = sealed.open(&world.network.backend, key, SealPurpose::Consent, A.as_bytes());
            SignedBytes::from(plain.unwrap())
        }),
        deliver: Box::new(|world, bench, bytes| {
            let (backend, to) = (&world.network.backend, world.a.identity.keys().hpke);
            let plain = bytes.as_bytes();
            let consent = SealedBytes::seal(backend, &to, SealPurpose::Consent, A.as_bytes(), plain).unwrap();
            let honest = bench.ours.closed().request.clone().unwrap();
            let named = consent.digest();
            let request = resigned(world, &world.b.identity.signing, &honest.request, |r| r.consent = named);
            let checked = world.source_checks(&TransferBody { request, consent, ..honest });
            checked.map(|_| Vec::new()).map_err(|r| r.code)
        }),
        later: None,
        rows: vec![
            row!(Consent: proof = ProofId(OTHER) => Refused(Code::ConsentForOther)).unsigned(Code::ConsentForOther),
            row!(Consent: |m, w| pid = w.root.pid(A, 1) => mismatch).unsigned(Code::CommitmentMismatch),
            row!(Consent: pid_opening = Opening::from_bytes([9; 32]) => mismatch).unsigned(Code::CommitmentMismatch),
            row!(Consent: scope = "types=Immunization".parse().unwrap() => mismatch).same(),
            row!(Consent: scope_opening = Opening::from_bytes([9; 32]) => mismatch),
            row!(Consent: hides = Hides::parse(["Condition/c1"]).unwrap() => mismatch).same(),
            row!(Consent: hides_opening = Opening::from_bytes([9; 32]) => mismatch),
            row!(Consent: |m, w| destination = w.a.identity.keys().thumb() => Refused(Code::DestinationWrong)).same(),
        ],
    }
}

// The presentation.

fn presented(world: &World, bench: &Bench, body: &PresentationBody) -> Result<PresentationVerified, Rejection> {
    let (backend, to) = (&world.network.backend, world.b.identity.keys().hpke);
    let sealed = SealedBytes::seal(backend, &to, SealPurpose::Presentation, B.as_bytes(), &to_cbor(body)).unwrap();
    let destination = world.destination();
    let opened = destination.open_presentation(&sealed)?;
    let known = bench.registered_at_b(opened.pid());
    destination.verify_presentation(destination.verify_presenter(opened, known)?)
}

fn presentation() -> Delivery<Presentation> {
    let mismatch = Refused(Code::CommitmentMismatch);
    const PINNED: &str = "the keys that the patient pinned: whoever pins others spends their own proof";
    Delivery {
        message: "Presentation",
        to: "destination",
        signer: "consent key at the destination",
        forged: Code::ConsentSignatureInvalid,
        take: Box::new(|world, run| run.presentation(world).presentation),
        deliver: Box::new(|world, bench, presentation| {
            let body = PresentationBody { presentation, ..bench.ours.presentation(world) };
            let verified = presented(world, bench, &body).map_err(|r| r.code)?;
            let (_, (case, _)) = world.destination().open_case(verified, &world.b.patient, 1).map_err(|r| r.code)?;
            Ok(to_cbor(&(case.source_keys, case.reply_to)))
        }),
        later: Some(Box::new(|world, bench, presentation| {
            let body = PresentationBody { presentation, ..bench.ours.presentation(world) };
            let verified = presented(world, bench, &body).unwrap();
            let (secret, (case, _)) = world.destination().open_case(verified, &world.b.patient, 1).unwrap();
            let mut m = bench.ours.at(Step::Requested);
            (m.request, m.destination) = (Some(case.request.clone()), Some(case.clone()));
            world.source_checks(m.request.as_ref().unwrap()).map_err(|r| r.code)?;
            world.advance(&mut m, Step::Requested, Step::Lodged);
            let manifest = m.manifest.as_ref().unwrap();
            world.destination().handle_manifest(case, manifest, &secret, u64::MAX).map(|_| ()).map_err(|r| r.code)
        })),
        rows: vec![
            row!(Presentation: proof = ProofId(OTHER) => Refused(Code::PresentationInvalid)),
            row!(Presentation: |m, w| pid = w.root.pid(B, 1) => Refused(Code::PatientUnknown))
                .unsigned(Code::PatientUnknown)
                .swapped(Refused(Code::ConsentSignatureInvalid)),
            row!(Presentation: pid_opening = Opening::from_bytes([9; 32]) => mismatch),
            row!(Presentation: scope = "types=Immunization".parse().unwrap() => mismatch).same(),
            row!(Presentation: scope_opening = Opening::from_bytes([9; 32]) => mismatch),
            row!(Presentation: source.signing = key(1).public().clone() => Later(PINNED, Code::ManifestInvalid)).same(),
            row!(Presentation: |m, w| source.hpke = *fresh_hpke(w).public() => Later(PINNED, Code::IdentityMismatch)).same(),
            row!(Presentation: consent = OTHER => Refused(Code::PresentationInvalid)),
            row!(Presentation: reply_to = Some("https://relay.example/mailbox/else".into()) => Kept("where the patient waits"))
                .same(),
        ],
    }
}
