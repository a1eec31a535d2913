//! Every seal of `formal/messages.toml` in an honest run: opened by the key it names, bound to what it names, and by nothing else.

use waybill_crypto::digest::sha256;
use waybill_crypto::keys::HpkeSecretKey;
use waybill_protocol::messages::{
    Consent, KeyLodgement, LoginAnswer, LoginBody, ManifestPlain, PresentationBody, ProofBundle, ReceiptOpening,
    RefusalBody, RegistrationAnswer, RegistrationBody,
};
use waybill_protocol::rejection::Code;
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{SignedBytes, Unverified};
use waybill_protocol::wire::{Kind, Parcel, from_cbor};
use waybill_record::identity::Demographics;

use crate::bench::{Bench, LIMIT, reply_secret};
use crate::common::*;
use crate::table::{Seal, Table};

/// One seal of the run, with whoever is to open it and what it is bound to.
struct Found {
    sealed: SealedBytes,
    key: HpkeSecretKey,
    bound: Vec<u8>,
}

/// The ciphertexts of a seal, as the honest parties made them.
fn ciphertexts(world: &mut World, bench: &Bench, label: &str) -> Vec<SealedBytes> {
    let (m, visit) = (bench.ours.closed(), &bench.ours.visit);
    let request = m.request.as_ref().unwrap();
    let lodgement = &m.release.as_ref().unwrap().lodgement;
    let receipt = m.receipt.as_ref().unwrap();
    let one = match label {
        "registration" => visit.registration_sealed.clone(),
        "registration-answer" => visit.registration_answer_sealed.clone(),
        "login" => visit.login_sealed.clone(),
        "login-answer" => visit.login_answer_sealed.clone(),
        "proof-answer" => {
            let intent = world.authority().check_delegation(&m.delegation, &all_active).unwrap();
            let (_, effects) = world.authority().issue_proof(&intent).unwrap();
            sealed(&world.finish(leaves(&effects).remove(0))[0].parcel, Kind::ProofAnswer)
        }
        "consent" => request.consent.clone(),
        "presentation" => m.presentation.clone().unwrap(),
        "identity-claim" => request.request.parse().unwrap().peek().identity_claim.clone(),
        "manifest" => m.manifest.as_ref().unwrap().sealed.clone(),
        "key-lodgement" => m.lodgement.as_ref().unwrap().sealed.clone(),
        "record-key" => lodgement.parse().unwrap().peek().sealed_key.clone(),
        "receipt-source" => receipt.for_source.clone(),
        "receipt-patient" => receipt.for_patient.clone(),
        "rejection-detail" => return details(world, bench),
        other => panic!("the run has no seal {other}"),
    };
    vec![one]
}

/// A refusal's detail, to the destination and to the patient.
fn details(world: &World, bench: &Bench) -> Vec<SealedBytes> {
    let m = bench.ours.at(Step::Redeeming);
    let (_, to_destination) = world.source().abort(m.source(), Code::PatientUnknown);
    let to_patient = world.destination().tell_patient(&m.destination(), Code::PatientUnknown).unwrap();
    let refusals = to_destination.into_iter().take(1).chain([to_patient]).map(|effect| {
        let waybill_protocol::migration::Effect::Post(post) = effect else { panic!("a refusal is posted") };
        let body: RefusalBody = Parcel::parse(&post.parcel).unwrap().open(Kind::Refusal, "refusal").unwrap();
        body.detail.unwrap()
    });
    refusals.collect()
}

/// Keys and bindings by the words of the table.
fn found(world: &mut World, bench: &Bench, seal: &Seal) -> Vec<Found> {
    let m = bench.ours.closed();
    let visit = &bench.ours.visit;
    let session = m.session_secret.clone().unwrap();
    let (pf, tr) = (m.proof.id().as_bytes().to_vec(), m.source().session.as_bytes().to_vec());
    let hm = m.source().manifest.unwrap().parse().unwrap().message_id().as_bytes().to_vec();
    let claim = sha256(&[&pf, &session.public().0]).0.to_vec();
    let keys = match seal.to.as_str() {
        "the hospital's key in the enrolment code"
        | "the hospital's pinned key"
        | "the source's pinned key"
        | "the source's key in the presentation" => vec![world.a.identity.hpke.clone()],
        "the destination's pinned key" => vec![world.b.identity.hpke.clone()],
        "Registration.reply_key" => vec![reply_secret(&visit.registering)],
        "LoginRequest.reply_key" => vec![reply_secret(&visit.logging_in)],
        "Terms.reply_key" => vec![m.draft.reply_key()],
        "TransferRequest.session_key" => vec![session],
        "the authority's lodgement key" => vec![world.authority.lodgement.clone()],
        "Manifest.reply_key" => vec![m.reply_secret.clone().unwrap()],
        "session_key, or to the patient Terms.reply_key" => vec![session, m.draft.reply_key()],
        other => panic!("nobody in this run has {other}"),
    };
    let delegation = m.delegation.delegation.parse().unwrap().message_id();
    let bounds = match seal.bound.as_str() {
        "the hospital's id, as text bytes" | "the hospital's id" | "the source's id" => vec![A.as_bytes().to_vec()],
        "the destination's id" => vec![B.as_bytes().to_vec()],
        "id of the Registration" => vec![visit.registration.parse().unwrap().message_id().as_bytes().to_vec()],
        "id of the LoginRequest" => vec![visit.login.parse().unwrap().message_id().as_bytes().to_vec()],
        "id of the Delegation" => vec![delegation.as_bytes().to_vec()],
        "SHA-256(pf ‖ session_key)" => vec![claim],
        "tr" => vec![tr],
        "pf" => vec![pf],
        "hm" => vec![hm],
        "tr, or to the patient pf" => vec![tr, pf],
        other => panic!("nothing in this run is {other}"),
    };
    let all = ciphertexts(world, bench, &seal.label);
    assert_eq!((all.len(), all.len()), (keys.len(), bounds.len()), "{}", seal.label);
    let each = all.into_iter().zip(keys).zip(bounds);
    each.map(|((sealed, key), bound)| Found { sealed, key, bound }).collect()
}

fn is<T>(plain: &[u8]) -> bool
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    from_cbor::<T>("plaintext", plain, LIMIT).is_ok()
}

fn is_what(plaintext: &str, plain: &[u8], m: &Migration) -> bool {
    match plaintext {
        "RegistrationBody" => is::<RegistrationBody>(plain),
        "Signed<RegistrationAnswer>" => is::<SignedBytes<RegistrationAnswer>>(plain),
        "LoginBody" => is::<LoginBody>(plain),
        "Signed<LoginAnswer>" => is::<SignedBytes<LoginAnswer>>(plain),
        "ProofBundle" => is::<ProofBundle>(plain),
        "the COSE_Sign1 of a Consent" => Unverified::<Consent>::parse(plain).is_ok(),
        "PresentationBody" => is::<PresentationBody>(plain),
        "Demographics" => is::<Demographics>(plain),
        "ManifestPlain" => is::<ManifestPlain>(plain),
        "the COSE_Sign1 of a KeyLodgement" => Unverified::<KeyLodgement>::parse(plain).is_ok(),
        "K, 32 bytes" => plain == m.record_key.as_ref().unwrap().expose(),
        "ReceiptOpening" => is::<ReceiptOpening>(plain),
        "Code" => is::<Code>(plain),
        other => panic!("{other} is not known here"),
    }
}

#[test]
fn every_seal_opens_for_whom_the_table_names_and_for_nothing_else() {
    let mut world = World::new();
    let bench = Bench::new(&mut world);
    let table = Table::read();
    assert_eq!(table.seals.len(), SealPurpose::ALL.len());
    for seal in &table.seals {
        let purpose = SealPurpose::ALL.into_iter().find(|p| format!("{p:?}") == seal.purpose).unwrap();
        for Found { sealed, key, bound } in found(&mut world, &bench, seal) {
            let backend = &world.network.backend;
            let plain = sealed.open(backend, &key, purpose, &bound);
            let plain = plain.unwrap_or_else(|_| panic!("{} opens", seal.label));
            assert!(is_what(&seal.plaintext, &plain, bench.ours.closed()), "{} holds {}", seal.label, seal.plaintext);
            for other in SealPurpose::ALL.into_iter().filter(|other| *other != purpose) {
                assert!(sealed.open(backend, &key, other, &bound).is_err(), "{} opens as {other:?}", seal.label);
            }
            assert!(sealed.open(backend, &key, purpose, &[&bound[..], b"x"].concat()).is_err(), "{}", seal.label);
            assert!(sealed.open(backend, &fresh_hpke(&world), purpose, &bound).is_err(), "{}", seal.label);
        }
    }
}
