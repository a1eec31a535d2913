//! Request, redemption, grant, manifest.

use waybill_crypto::keys::{Digest, SigningKey};
use waybill_crypto::lthash::RecordDigest;
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::{HospitalId, Nonce, ProofId, SessionId};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    Grant, GrantBody, Manifest, ManifestBody, ManifestPlain, Redeem, RedeemBody, Standing, TransferBody,
    TransferRequest, TypeCount,
};
use waybill_protocol::migration::Effect;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::source::CLOCK_SKEW_SECONDS;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

use crate::Expected::{Kept, Later, Refused};
use crate::bench::{Bench, logged};
use crate::common::*;
use crate::{Delivery, Held, row};

const OTHER: Digest = Digest([0xee; 32]);

pub fn deliveries() -> Vec<Box<dyn Held>> {
    vec![Box::new(request()), Box::new(redeem()), Box::new(grant()), Box::new(manifest())]
}

// The request.

fn requested(bench: &Bench, request: SignedBytes<TransferRequest>) -> TransferBody {
    TransferBody { request, ..bench.ours.closed().request.clone().unwrap() }
}

fn request() -> Delivery<TransferRequest> {
    let own = Later("the destination's own: whatever is different, it is another session", Code::UnexpectedMessage);
    Delivery {
        message: "TransferRequest",
        to: "source",
        signer: "destination",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().request.as_ref().unwrap().request.clone()),
        deliver: Box::new(|world, bench, bytes| {
            world.source_checks(&requested(bench, bytes)).map(|_| Vec::new()).map_err(|r| r.code)
        }),
        // The source serves the session it was asked for; the destination waits for the one it asked for.
        later: Some(Box::new(|world, bench, bytes| {
            let mut m = bench.ours.at(Step::Requested);
            m.request = Some(requested(bench, bytes));
            world.advance(&mut m, Step::Requested, Step::Lodged);
            let (case, manifest) = (bench.ours.at(Step::Requested).destination(), m.manifest.as_ref().unwrap());
            let taken = world.destination().handle_manifest(case, manifest, &m.secret(), u64::MAX);
            taken.map(|_| ()).map_err(|r| r.code)
        })),
        rows: vec![
            row!(TransferRequest: proof = ProofId(OTHER) => Refused(Code::ProofInvalid)),
            row!(TransferRequest: consent = OTHER => Refused(Code::ConsentForOther)),
            row!(TransferRequest: |m, w| session_key = *fresh_hpke(w).public() => Refused(Code::IdentityMismatch)),
            row!(TransferRequest: attempt = 2 => own).same(),
            row!(TransferRequest: nonce = Nonce([9; 16]) => own),
            row!(TransferRequest: |m, w| time = m.time.plus(1) => own).same(),
            row!(TransferRequest: |m, w| identity_claim = {
                let (backend, to) = (&w.network.backend, w.a.identity.keys().hpke);
                SealedBytes::seal(backend, &to, SealPurpose::IdentityClaim, &[9; 32], &to_cbor(&w.b.patient)).unwrap()
            } => Refused(Code::IdentityMismatch)),
            row!(TransferRequest: keys.signing = SigningKey::derive(&[1; 32]).public().clone() => Refused(Code::SenderWrong)).same(),
            row!(TransferRequest: |m, w| keys.hpke = *fresh_hpke(w).public() => Refused(Code::DestinationWrong)).same(),
        ],
    }
}

// Redemption and grant.

fn redeemed(
    world: &World,
    bench: &Bench,
    redeem: SignedBytes<Redeem>,
) -> Result<(AuthorityCase, Vec<Effect>), Rejection> {
    let m = bench.ours.at(Step::Redeeming);
    let body = RedeemBody { redeem, ..m.redeem.unwrap() };
    let (from, redeem) = world.authority().verify_redeem(&body)?;
    world.authority().handle_redeem(m.authority, &from, &body.chain, &redeem, &all_active)
}

fn redeem() -> Delivery<Redeem> {
    let own = Later("the source's own question, which it finds in the grant", Code::GrantInvalid);
    Delivery {
        message: "Redeem",
        to: "authority",
        signer: "source",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().redeem.as_ref().unwrap().redeem.clone()),
        deliver: Box::new(|world, bench, bytes| redeemed(world, bench, bytes).map(|_| Vec::new()).map_err(|r| r.code)),
        later: Some(Box::new(|world, bench, bytes| {
            let (_, effects) = redeemed(world, bench, bytes).unwrap();
            let posts = world.finish(leaves(&effects).remove(0));
            let grant: GrantBody = Parcel::parse(&posts[0].parcel).unwrap().open(Kind::Grant, "grant").unwrap();
            let taken = world.source().handle_grant(
                &world.stands(&bench.ours.at(Step::Redeeming).source()),
                bench.ours.at(Step::Redeeming).source(),
                grant,
            );
            taken.map(|_| ()).map_err(|r| r.code)
        })),
        rows: vec![
            row!(Redeem: proof = ProofId(OTHER) => Refused(Code::SenderWrong)),
            row!(Redeem: session = SessionId(OTHER) => own),
            row!(Redeem: nonce = Nonce([9; 16]) => own),
            row!(Redeem: attempt = 0 => Refused(Code::AttemptInvalid)).same(),
            row!(Redeem: attempt = 2 => own),
            row!(Redeem: |m, w| known_log_size = m.known_log_size - 1
                => Later("what the source knows of the log; it wants the log to have grown from there", Code::LogInconsistent)),
        ],
    }
}

fn grant() -> Delivery<Grant> {
    let invalid = Refused(Code::GrantInvalid);
    let skew = Refused(Code::ClockSkew);
    Delivery {
        message: "Grant",
        to: "source",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().grant.as_ref().unwrap().grant.clone()),
        deliver: Box::new(|world, bench, grant| {
            let evidence = logged(world, LeafKind::GRANT, &grant);
            let m = bench.ours.at(Step::Redeeming);
            let known = m.redeem.as_ref().unwrap().redeem.parse().unwrap().peek().known_log_size;
            let body = GrantBody { grant, evidence, consistency: world.log.consistency(known) };
            let (_, _, (case, _)) =
                world.source().handle_grant(&world.stands(&m.source()), m.source(), body).map_err(|r| r.code)?;
            Ok(to_cbor(&case.grant.unwrap().grant))
        }),
        later: None,
        rows: vec![
            row!(Grant: proof = ProofId(OTHER) => invalid),
            row!(Grant: session = SessionId(OTHER) => invalid),
            row!(Grant: nonce = Nonce([9; 16]) => invalid),
            row!(Grant: attempt = 2 => invalid).same(),
            row!(Grant: |m, w| time = w.now.plus(CLOCK_SKEW_SECONDS + 1) => skew).same(),
            row!(Grant: |m, w| time = waybill_protocol::ids::Timestamp(w.now.0 - CLOCK_SKEW_SECONDS - 1) => skew),
            row!(Grant: |m, w| time = w.now.plus(CLOCK_SKEW_SECONDS) => Kept("the authority's clock, as far as ours agrees")),
            row!(Grant: source = Standing::Suspended => Refused(Code::StandingLost)).same(),
            row!(Grant: destination = Standing::Revoked => Refused(Code::StandingLost)).same(),
            row!(Grant: to = id(C) => invalid).same(),
        ],
    }
}

// The manifest.

fn described(world: &World, bench: &Bench, manifest: SignedBytes<Manifest>) -> Result<DestinationCase, Rejection> {
    let m = bench.ours.at(Step::Lodged);
    let plain = to_cbor(&ManifestPlain { manifest, chain: world.a.identity.chain.clone() });
    let (session, secret) = (m.destination().session, m.secret());
    let (backend, to) = (&world.network.backend, secret.public());
    let sealed = SealedBytes::seal(backend, to, SealPurpose::Manifest, session.as_bytes(), &plain).unwrap();
    let body = ManifestBody { session, sealed };
    world.destination().handle_manifest(m.destination(), &body, &secret, 1 << 40).map(|(case, _)| case)
}

/// A manifest other than the one that the lodgement names is received for, and not exchanged for the key.
fn exchanged(world: &mut World, bench: &Bench, bytes: SignedBytes<Manifest>) -> Result<(), Code> {
    let case = described(world, bench, bytes).unwrap();
    let m = bench.ours.at(Step::Lodged);
    let root = waybill_crypto::stream::leaf(m.chunk.as_ref().unwrap());
    let (_, effects) = world.destination().handle_delivered(case, &root).map_err(|r| r.code)?;
    let body = posted(&effects, Kind::DeliveryReceipt).open(Kind::DeliveryReceipt, "delivery").unwrap();
    let standing = |_: &HospitalId| Some(Standing::Active);
    world.authority().handle_delivery(m.authority, &body, &standing).map(|_| ()).map_err(|r| r.code)
}

fn digest_of_nothing_but_one() -> RecordDigest {
    let mut bytes = [0; RecordDigest::LEN];
    bytes[0] = 1;
    RecordDigest::from_bytes(&bytes)
}

fn manifest() -> Delivery<Manifest> {
    let invalid = Refused(Code::ManifestInvalid);
    let malformed = Refused(Code::Malformed);
    let own =
        Later("what the source says of the record; its lodgement names this manifest only", Code::LodgementMismatch);
    let chunks = Later("the root under which the chunks arrive, or do not", Code::UnexpectedMessage);
    Delivery {
        message: "Manifest",
        to: "destination",
        signer: "source",
        forged: Code::ManifestInvalid,
        take: Box::new(|_, run| run.closed().source().manifest.unwrap()),
        deliver: Box::new(|world, bench, bytes| {
            described(world, bench, bytes).map(|case| to_cbor(&case.manifest.unwrap())).map_err(|r| r.code)
        }),
        later: Some(Box::new(exchanged)),
        rows: vec![
            row!(Manifest: proof = ProofId(OTHER) => invalid),
            row!(Manifest: session = SessionId(OTHER) => invalid),
            row!(Manifest: |m, w| snapshot_at = m.snapshot_at.plus(1) => own).same(),
            row!(Manifest: inventory = vec![TypeCount { resource_type: "Patient".into(), count: 2, size_bytes: 34 }] => own)
                .same(),
            row!(Manifest: |m, w| inventory = [m.inventory.clone(), m.inventory.clone()].concat() => malformed)
                .unsigned(Code::Malformed),
            row!(Manifest: |m, w| stream_bytes = m.stream_bytes + 1 => own).same(),
            row!(Manifest: stream_bytes = 1 << 21 => malformed).unsigned(Code::Malformed),
            row!(Manifest: |m, w| chunk_bytes = m.chunk_bytes / 2 => own).same(),
            row!(Manifest: chunk_bytes = 0 => malformed).unsigned(Code::Malformed),
            row!(Manifest: chunk_count = 2 => malformed).unsigned(Code::Malformed).same(),
            row!(Manifest: leaf_list = OTHER => own).same(),
            row!(Manifest: merkle_root = OTHER => chunks),
            row!(Manifest: key_commitment = OTHER => own),
            row!(Manifest: digest_scope = digest_of_nothing_but_one() => own).same(),
            row!(Manifest: digest_full = digest_of_nothing_but_one() => own).same(),
            row!(Manifest: loss = vec![0x81, 0x00] => own).same(),
            row!(Manifest: |m, w| reply_key = *fresh_hpke(w).public() => own),
        ],
    }
}
