//! What the wallet compares before it consents (PROTOCOL section 6.4).

use waybill_crypto::keys::{Digest, HpkePublicKey, SigningKey};
use waybill_protocol::ids::MessageId;
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    Consent, MigrationProof, PresentationBody, ProofBundle, SUITE, Terms, TransferBody, VoucherGrant,
};
use waybill_protocol::patient::Draft;
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes, Unverified};
use waybill_protocol::wire::{Kind, Parcel, from_cbor, to_cbor};

use crate::common::*;

const OTHER: Digest = Digest([0xee; 32]);

/// A proof that the real authority signs and logs, honest but for one field, as it reaches the wallet.
fn answer(
    world: &mut World,
    draft: &Draft,
    kind: LeafKind,
    alter: impl FnOnce(&mut MigrationProof),
    to: Option<HpkePublicKey>,
) -> Parcel {
    let delegation = draft.delegation.as_ref().unwrap().parse().unwrap().message_id();
    let mut proof = MigrationProof {
        suite: SUITE,
        authority: id(AUTHORITY),
        delegation,
        terms: draft.terms.clone(),
        issued_at: world.now,
    };
    alter(&mut proof);
    let proof = Signed::sign(&world.network.backend, &world.authority.proof_signing, proof);
    let evidence = world.log.append(&world.network.backend, kind, &proof.id().0, [1; 16]);
    let bundle = ProofBundle { proof: SignedBytes::from(&proof), chain: world.authority.chain.clone(), evidence };
    let to = to.unwrap_or(draft.terms.reply_key);
    let backend = &world.network.backend;
    let sealed =
        SealedBytes::seal(backend, &to, SealPurpose::ProofAnswer, delegation.as_bytes(), &to_cbor(&bundle)).unwrap();
    Parcel::parse(&Parcel::pack(Kind::ProofAnswer, &sealed)).unwrap()
}

#[test]
fn a_proof_that_differs_in_any_field_from_the_delegation_is_refused() {
    let mut world = World::new();
    let (draft, _) = world.delegate(0);
    let honest = answer(&mut world, &draft, LeafKind::PROOF, |_| {}, None);
    assert!(world.patient().accept_proof(&world.patient_trust, &draft, &honest).is_ok());
    let alterations: [fn(&mut Terms); 10] = [
        |t| t.source = id(C),
        |t| t.destination = id(C),
        |t| t.com_source.0 = OTHER,
        |t| t.com_destination.0 = OTHER,
        |t| t.com_scope.0 = OTHER,
        |t| t.com_hides.0 = OTHER,
        |t| t.not_before = t.not_before.plus(1),
        |t| t.expires = t.expires.plus(1),
        |t| t.revocation_key = SigningKey::derive(&[1; 32]).public().clone(),
        |t| t.reply_key = HpkePublicKey([9; 32]),
    ];
    for (n, alter) in alterations.into_iter().enumerate() {
        let parcel = answer(&mut world, &draft, LeafKind::PROOF, |p| alter(&mut p.terms), None);
        let accepted = world.patient().accept_proof(&world.patient_trust, &draft, &parcel);
        assert_eq!(code(accepted), Code::ProofMismatch, "alteration {n}");
    }
    let other = MessageId(OTHER);
    let parcel = answer(&mut world, &draft, LeafKind::PROOF, |p| p.delegation = other, None);
    let accepted = world.patient().accept_proof(&world.patient_trust, &draft, &parcel);
    assert_eq!(code(accepted), Code::ProofMismatch, "the delegation answered");
}

#[test]
fn a_proof_that_is_not_logged_or_not_for_this_draft_is_refused() {
    let mut world = World::new();
    let (draft, _) = world.delegate(0);
    let unlogged = answer(&mut world, &draft, LeafKind::GRANT, |_| {}, None);
    let accept = |world: &World, draft: &Draft, parcel: &Parcel| {
        world.patient().accept_proof(&world.patient_trust, draft, parcel).map(|_| ())
    };
    assert_eq!(code(accept(&world, &draft, &unlogged)), Code::LogEvidenceInvalid);
    let other = *fresh_hpke(&world).public();
    let elsewhere = answer(&mut world, &draft, LeafKind::PROOF, |_| {}, Some(other));
    assert_eq!(code(accept(&world, &draft, &elsewhere)), Code::UnexpectedMessage);
    let other_authority = answer(&mut world, &draft, LeafKind::PROOF, |p| p.authority = id("other.example"), None);
    assert_eq!(code(accept(&world, &draft, &other_authority)), Code::ProofInvalid);
    let (second, _) = world.delegate(1);
    let honest = answer(&mut world, &draft, LeafKind::PROOF, |_| {}, None);
    assert_eq!(code(accept(&world, &second, &honest)), Code::UnexpectedMessage);
}

#[test]
fn a_voucher_that_is_not_what_was_asked_for_is_not_delegated_with() {
    let mut world = World::new();
    let (mut draft, body) = world.delegate(0);
    let patient = world.patient();
    let alterations: [&dyn Fn(&mut waybill_protocol::messages::Voucher); 3] =
        [&|v| v.delegation_key = OTHER, &|v| v.com_source.0 = OTHER, &|v| v.source = id(B)];
    // The honest voucher of the same run passes; each alteration, signed by the pinned key all the same, does not.
    let source = &world.a.contact;
    assert!(patient.delegate(&mut draft, source, body.voucher.clone(), REPLY).is_ok());
    for alter in alterations {
        let voucher = resigned(&world, &world.a.identity.signing, &body.voucher.voucher, alter);
        let grant = VoucherGrant { voucher, chain: body.voucher.chain.clone() };
        assert_eq!(code(patient.delegate(&mut draft, source, grant, REPLY)), Code::VoucherInvalid);
    }
    let by_another = resigned(&world, &world.stranger(A).0, &body.voucher.voucher, |_| {});
    let grant = VoucherGrant { voucher: by_another, chain: body.voucher.chain };
    assert_eq!(code(patient.delegate(&mut draft, source, grant, REPLY)), Code::VoucherInvalid);
}

#[test]
fn two_delegations_of_one_patient_share_nothing_that_the_authority_sees() {
    let mut world = World::new();
    let (one, two) = (world.delegate(0), world.delegate(1));
    let seen = |(draft, body): &(Draft, waybill_protocol::messages::DelegationBody)| {
        let t = &draft.terms;
        let voucher = body.voucher.voucher.parse().unwrap().peek().clone();
        let delegation = body.delegation.parse().unwrap().peek().clone();
        [
            t.com_source.0.0.to_vec(),
            t.com_destination.0.0.to_vec(),
            t.com_scope.0.0.to_vec(),
            t.com_hides.0.0.to_vec(),
            t.revocation_key.as_sec1().to_vec(),
            t.reply_key.0.to_vec(),
            body.key.as_sec1().to_vec(),
            delegation.nonce.0.to_vec(),
            voucher.delegation_key.0.to_vec(),
        ]
    };
    for (a, b) in seen(&one).iter().zip(&seen(&two)) {
        assert_ne!(a, b);
    }
}

#[test]
fn a_delegation_tells_neither_a_pseudonym_nor_what_opens_its_commitments() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let backend = &world.network.backend;
    let presented = m.presentation.as_ref().unwrap();
    let plain = presented.open(backend, &world.b.identity.hpke, SealPurpose::Presentation, B.as_bytes()).unwrap();
    let body: PresentationBody = from_cbor("presentation", &plain, 1 << 22).unwrap();
    let presentation = body.presentation.parse().unwrap().peek().clone();
    let TransferBody { consent, proof, .. } = m.request.as_ref().unwrap();
    let told_a = consent.open(backend, &world.a.identity.hpke, SealPurpose::Consent, A.as_bytes()).unwrap();
    let consent = Unverified::<Consent>::parse(&told_a).unwrap().peek().clone();
    let at_authority = [to_cbor(&m.delegation), to_cbor(proof)].concat();
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    for (told, what) in [
        (&told_a, to_cbor(&consent.pid)),
        (&told_a, to_cbor(&consent.pid_opening)),
        (&told_a, to_cbor(&consent.scope_opening)),
        (&told_a, to_cbor(&consent.hides_opening)),
        (&plain, to_cbor(&presentation.pid)),
        (&plain, to_cbor(&presentation.pid_opening)),
        (&plain, to_cbor(&presentation.scope_opening)),
    ] {
        assert!(holds(told, &what), "it is told to whom it is for");
        assert!(!holds(&at_authority, &what), "and to nobody else");
    }
}

#[test]
fn the_destinations_refusal_is_read_with_its_sealed_detail_and_a_strangers_is_not() {
    let mut world = World::new();
    let m = world.migrate(0, Step::Requested);
    let effect = world.destination().tell_patient(&m.destination(), Code::PatientUnknown).unwrap();
    let body = posted(&[effect], Kind::Refusal).open(Kind::Refusal, "refusal").unwrap();
    let accept = |body: &waybill_protocol::messages::RefusalBody| {
        world.patient().accept_refusal(&world.patient_trust, &m.draft, m.proof.id().0, &world.b.contact, body)
    };
    assert_eq!(accept(&body).unwrap(), Code::PatientUnknown);
    let refusal = resigned(&world, &world.stranger(B).0, &body.refusal, |_| {});
    assert_eq!(code(accept(&waybill_protocol::messages::RefusalBody { refusal, ..body })), Code::SignatureInvalid);
}
