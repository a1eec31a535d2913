//! The doors through which a case reaches the shelf: a grant or a manifest of another case opens neither.

use super::*;
use waybill_crypto::keys::{Digest, HospitalKeys, KeyId, Thumb};
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::Nonce;
use waybill_protocol::log::LogEvidence;
use waybill_protocol::messages::{Chain, GrantBody, OutcomeClass, ProofBundle, TransferBody};
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::source::{Granted, SourceCase};

fn proof(number: u8) -> ProofId {
    ProofId(Digest([number; 32]))
}

fn evidence() -> LogEvidence {
    LogEvidence { index: 0, nonce: [0; 16], path: Vec::new(), checkpoint: Vec::new() }
}

fn hospital_keys() -> HospitalKeys {
    let (signing, hpke) = (Native.generate_signing_key(), Native.generate_hpke_key());
    HospitalKeys { signing: signing.public().clone(), hpke: *hpke.public() }
}

fn request(keys: &HospitalKeys) -> TransferBody {
    TransferBody {
        request: SignedBytes::from(Vec::new()),
        chain: Chain::default(),
        proof: ProofBundle { proof: SignedBytes::from(Vec::new()), chain: Chain::default(), evidence: evidence() },
        consent: SealedBytes::seal(&Native, &keys.hpke, SealPurpose::Consent, b"", b"").unwrap(),
    }
}

fn source_case(number: u8, local: &LocalPatient, scope: &Scope) -> SourceCase {
    let keys = hospital_keys();
    SourceCase {
        proof: proof(number),
        session: session("one"),
        state: SourceState::Granted,
        local: local.clone(),
        destination: HospitalId::parse("hospital-b.example").unwrap(),
        session_key: keys.hpke,
        attempt: 1,
        scope: scope.clone(),
        hides: Hides::default(),
        expires: NOW,
        request: request(&keys),
        nonce: Nonce([0; 16]),
        grant: Some(GrantBody { grant: SignedBytes::from(Vec::new()), evidence: evidence(), consistency: Vec::new() }),
        manifest: None,
        lodgement: None,
        code: None,
        statement: None,
        receipt: None,
        manifest_parcel: None,
        known: None,
        redeemed_at: NOW,
        chain: None,
        own: Thumb(Digest([0; 32])),
        consent_key: KeyId([0; 16]),
        review_by: None,
        destination_keys: keys,
    }
}

fn destination_case(name: &str, number: u8, local: &LocalPatient, scope: &Scope) -> DestinationCase {
    let keys = hospital_keys();
    DestinationCase {
        proof: proof(number),
        session: session(name),
        state: DestinationState::KeyHeld,
        local: local.clone(),
        source: origin(),
        scope: scope.clone(),
        attempt: 1,
        expires: NOW,
        patient_key: keys.hpke,
        request: request(&keys),
        manifest: None,
        delivery: None,
        release: None,
        receipt: None,
        receipt_opening: None,
        code: None,
        statement: None,
        revealed_key: None,
        reply_to: None,
        source_chain: None,
        own: Thumb(Digest([0; 32])),
        presenter: KeyId([0; 16]),
        source_keys: keys,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_is_served_only_under_its_own_grant_and_manifest() {
    let ((a, patient), (b, theirs)) = pair(Hospital::in_memory(), Hospital::in_memory(), 20).await;
    let part = scope("types=Patient,Observation;labels=*");
    let (case, other) = (source_case(1, &patient, &part), source_case(2, &patient, &part));
    let granted = Granted::resume(&case).unwrap();
    assert!(matches!(a.shelf.freeze(&granted, &other, NOW).await, Err(ShelfError::WrongCase)));
    assert!(matches!(a.stage("one").await, Err(ShelfError::NotFrozen)));
    let frozen = a.shelf.freeze(&granted, &case, NOW).await.unwrap();
    assert!(frozen.withheld > 0, "the scope of the case decides");
    let staged = a.stage("one").await.unwrap();
    let manifest = manifest("one", &staged);
    carry(&a, &b, &manifest).await;
    let file =
        async |case: DestinationCase| b.shelf.file(&case, &manifest, keys("one", &staged), native(), quiet()).await;
    for wrong in [destination_case("two", 1, &theirs, &part), destination_case("one", 2, &theirs, &part)] {
        assert!(matches!(file(wrong).await, Err(ShelfError::WrongCase)));
    }
    let narrow = scope("types=Patient;labels=*");
    let rejected = file(destination_case("one", 1, &theirs, &narrow)).await.unwrap();
    assert_eq!(rejected.filing.outcome, OutcomeClass::Rejected, "the scope of the case decides");
    let filed = file(destination_case("one", 1, &theirs, &part)).await.unwrap();
    assert_eq!((filed.filing.outcome, filed.filing.detail.filed), (OutcomeClass::Filed, frozen.offered));
}
