//! The exchange of the key for a receipt, and what became of the record.

use waybill_crypto::commitment::Commitment;
use waybill_crypto::keys::Digest;
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::ids::{ManifestId, MessageId, ProofId, SessionId};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    DeliveryBody, DeliveryReceipt, ImportReceipt, KeyLodgement, KeyRelease, LodgementBody, OutcomeClass, ReceiptBody,
    ReleaseBody, StatementBody,
};
use waybill_protocol::migration::Effect;
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::SignedBytes;
use waybill_protocol::wire::{Kind, Parcel, to_cbor};

use crate::Expected::{self, Kept, Later, Refused, Unread};
use crate::bench::{Bench, logged};
use crate::common::*;
use crate::{Delivery, Held, Row, row};

const OTHER: Digest = Digest([0xee; 32]);

pub fn deliveries() -> Vec<Box<dyn Held>> {
    vec![
        Box::new(lodgement_at_authority()),
        Box::new(lodgement_at_destination()),
        Box::new(delivery()),
        Box::new(release()),
        Box::new(receipt_at_authority()),
        Box::new(receipt_at_source()),
        Box::new(receipt_at_patient()),
    ]
}

/// What the destination makes of a release; a code that it notes is its answer.
fn released(world: &World, bench: &Bench, body: ReleaseBody) -> Result<Vec<u8>, Code> {
    let m = bench.ours.at(Step::Delivered);
    let taken = world.destination().handle_release(m.destination(), body, &m.secret());
    let (_, (case, _)) = taken.map_err(|r| r.code)?;
    case.code.map_or_else(|| Ok(to_cbor(&case.release.unwrap().release)), Err)
}

/// The release that is among the authority's leaves, at the destination.
fn finished(world: &mut World, bench: &Bench, effects: &[Effect]) -> Result<(), Code> {
    let posts: Vec<_> = leaves(effects).into_iter().flat_map(|leaf| world.finish(leaf)).collect();
    let body = Parcel::parse(&posts[0].parcel).unwrap().open(Kind::KeyRelease, "release").unwrap();
    released(world, bench, body).map(|_| ())
}

// The lodgement.

fn lodged(
    world: &World,
    bench: &Bench,
    bytes: &SignedBytes<KeyLodgement>,
) -> Result<(AuthorityCase, Vec<Effect>), Rejection> {
    let m = bench.ours.at(Step::Granted);
    let (backend, to, proof) = (&world.network.backend, world.authority.lodgement.public(), m.proof.id());
    let purpose = SealPurpose::KeyLodgement;
    let sealed = SealedBytes::seal(backend, to, purpose, proof.as_bytes(), bytes.as_bytes()).unwrap();
    let opened = world.authority().open_lodgement(&LodgementBody { proof, sealed })?;
    world.authority().handle_lodgement(m.authority, &opened, &all_active)
}

fn lodgement_rows(manifest: Expected, session: Code, others: Code, key: Expected) -> Vec<Row<KeyLodgement>> {
    vec![
        row!(KeyLodgement: proof = ProofId(OTHER) => Refused(others)),
        row!(KeyLodgement: manifest = ManifestId(OTHER) => manifest),
        row!(KeyLodgement: session = SessionId(OTHER) => Refused(session)),
        row!(KeyLodgement: |m, w| sealed_key = {
            let (backend, to) = (&w.network.backend, *fresh_hpke(w).public());
            SealedBytes::seal(backend, &to, SealPurpose::RecordKey, m.manifest.as_bytes(), &[9; 32]).unwrap()
        } => key),
    ]
}

fn lodgement_at_authority() -> Delivery<KeyLodgement> {
    Delivery {
        message: "KeyLodgement",
        to: "authority",
        signer: "source",
        forged: Code::LodgementInvalid,
        take: Box::new(|world, run| {
            world.authority().open_lodgement(run.closed().lodgement.as_ref().unwrap()).unwrap()
        }),
        deliver: Box::new(|world, bench, bytes| {
            lodged(world, bench, &bytes).map(|(case, _)| to_cbor(&case.lodgement)).map_err(|r| r.code)
        }),
        later: Some(Box::new(|world, bench, bytes| {
            let (case, _) = lodged(world, bench, &bytes).unwrap();
            let delivery = bench.ours.closed().delivery.clone().unwrap();
            let taken = world.authority().handle_delivery(case, &delivery, &all_active);
            let (_, effects) = taken.map_err(|r| r.code)?;
            finished(world, bench, &effects)
        })),
        rows: lodgement_rows(
            Later("the source names a manifest, and the destination must name the same", Code::LodgementMismatch),
            Code::AttemptInvalid,
            Code::LodgementInvalid,
            Later("the authority cannot look inside; the destination can, and shows who lied", Code::WrongKeyLodged),
        ),
    }
}

/// The authority helps: it releases whatever lodgement is there.
fn lodgement_at_destination() -> Delivery<KeyLodgement> {
    Delivery {
        message: "KeyLodgement",
        to: "destination",
        signer: "source",
        forged: Code::LodgementInvalid,
        take: Box::new(|_, run| run.closed().release.as_ref().unwrap().lodgement.clone()),
        deliver: Box::new(|world, bench, lodgement| {
            let honest = bench.ours.closed().release.clone().unwrap();
            let named = lodgement.parse().unwrap().message_id();
            let release = resigned(world, &world.authority.proof_signing, &honest.release, |r| r.lodgement = named);
            let evidence = logged(world, LeafKind::RELEASE, &release);
            released(world, bench, ReleaseBody { release, lodgement, evidence })
        }),
        later: None,
        rows: lodgement_rows(
            Refused(Code::ReleaseInvalid),
            Code::ReleaseInvalid,
            Code::ReleaseInvalid,
            Refused(Code::WrongKeyLodged),
        ),
    }
}

// Delivery receipt and release.

fn delivered(
    world: &World,
    bench: &Bench,
    delivery: SignedBytes<DeliveryReceipt>,
) -> Result<(AuthorityCase, Vec<Effect>), Rejection> {
    let m = bench.ours.at(Step::Delivered);
    let body = DeliveryBody { delivery, ..m.delivery.unwrap() };
    world.authority().handle_delivery(m.authority, &body, &all_active)
}

fn delivery() -> Delivery<DeliveryReceipt> {
    Delivery {
        message: "DeliveryReceipt",
        to: "authority",
        signer: "destination",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().delivery.as_ref().unwrap().delivery.clone()),
        deliver: Box::new(|world, bench, bytes| {
            delivered(world, bench, bytes).map(|(case, _)| to_cbor(&case.delivery)).map_err(|r| r.code)
        }),
        later: Some(Box::new(|world, bench, bytes| {
            let (_, effects) = delivered(world, bench, bytes).unwrap();
            finished(world, bench, &effects)
        })),
        rows: vec![
            row!(DeliveryReceipt: proof = ProofId(OTHER) => Refused(Code::SenderWrong)),
            row!(DeliveryReceipt: manifest = ManifestId(OTHER) => Refused(Code::LodgementMismatch)),
            row!(DeliveryReceipt: session = SessionId(OTHER) => Refused(Code::AttemptInvalid)),
            row!(DeliveryReceipt: |m, w| time = m.time.plus(1)
                => Later("the destination's clock; the release names the receipt it was traded for", Code::ReleaseInvalid))
            .same(),
        ],
    }
}

fn release() -> Delivery<KeyRelease> {
    let invalid = Refused(Code::ReleaseInvalid);
    Delivery {
        message: "KeyRelease",
        to: "destination",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().release.as_ref().unwrap().release.clone()),
        deliver: Box::new(|world, bench, release| {
            let evidence = logged(world, LeafKind::RELEASE, &release);
            let lodgement = bench.ours.closed().release.as_ref().unwrap().lodgement.clone();
            released(world, bench, ReleaseBody { release, lodgement, evidence })
        }),
        later: None,
        rows: vec![
            row!(KeyRelease: proof = ProofId(OTHER) => invalid),
            row!(KeyRelease: lodgement = MessageId(OTHER) => invalid),
            row!(KeyRelease: delivery = MessageId(OTHER) => invalid),
            row!(KeyRelease: |m, w| time = m.time.plus(1) => Kept("the authority's clock, from which it counts the deadline"))
                .same(),
        ],
    }
}

// The receipt for the record.

fn receipt_at_authority() -> Delivery<ImportReceipt> {
    let own = Kept("the destination's word, which the statement names as the cause of the end");
    Delivery {
        message: "ImportReceipt",
        to: "authority",
        signer: "destination",
        forged: Code::SignatureInvalid,
        take: Box::new(|_, run| run.closed().receipt.as_ref().unwrap().receipt.clone()),
        deliver: Box::new(|world, bench, receipt| {
            let m = bench.ours.at(Step::Filed);
            let body = ReceiptBody { receipt, ..m.receipt.unwrap() };
            let (case, _) = world.authority().handle_receipt(m.authority, &body).map_err(|r| r.code)?;
            Ok(to_cbor(case.statement.unwrap().parse().unwrap().peek()))
        }),
        later: None,
        rows: vec![
            row!(ImportReceipt: proof = ProofId(OTHER) => Refused(Code::SenderWrong)),
            row!(ImportReceipt: manifest = ManifestId(OTHER) => Refused(Code::ReceiptInvalid)),
            row!(ImportReceipt: outcome = OutcomeClass::Rejected => own).same(),
            row!(ImportReceipt: commitment = Commitment(OTHER) => own),
            row!(ImportReceipt: |m, w| time = m.time.plus(1) => own).same(),
        ],
    }
}

/// The honest statement with this receipt.
fn told(bench: &Bench, receipt: SignedBytes<ImportReceipt>) -> StatementBody {
    let mut body = bench.ours.closed().statement.clone().unwrap();
    body.receipt.as_mut().unwrap().receipt = receipt;
    body
}

fn receipt_rows(time: Expected) -> Vec<Row<ImportReceipt>> {
    let invalid = Refused(Code::ReceiptInvalid);
    vec![
        row!(ImportReceipt: proof = ProofId(OTHER) => invalid),
        row!(ImportReceipt: manifest = ManifestId(OTHER) => invalid),
        row!(ImportReceipt: outcome = OutcomeClass::Rejected => invalid).same(),
        // Ends the case, whose inner receipt is noted as not to be believed.
        row!(ImportReceipt: commitment = Commitment(OTHER) => invalid),
        row!(ImportReceipt: |m, w| time = m.time.plus(1) => time).same(),
    ]
}

fn receipt_at_source() -> Delivery<ImportReceipt> {
    Delivery {
        message: "ImportReceipt",
        to: "source",
        signer: "destination",
        forged: Code::ReceiptInvalid,
        take: Box::new(|_, run| run.closed().receipt.as_ref().unwrap().receipt.clone()),
        deliver: Box::new(|world, bench, receipt| {
            let m = bench.ours.at(Step::Filed);
            let (body, reply) = (told(bench, receipt), m.reply_secret.as_ref());
            let (case, _) = world.source().handle_statement(m.source(), body, reply).map_err(|r| r.code)?;
            case.code.map_or_else(|| Ok(to_cbor(&case.statement)), Err)
        }),
        later: None,
        rows: receipt_rows(Kept(
            "the destination's clock; the judge of the evidence holds the receipt to the statement's cause",
        )),
    }
}

fn receipt_at_patient() -> Delivery<ImportReceipt> {
    Delivery {
        message: "ImportReceipt",
        to: "patient",
        signer: "destination",
        forged: Code::ReceiptInvalid,
        take: Box::new(|_, run| run.closed().receipt.as_ref().unwrap().receipt.clone()),
        deliver: Box::new(|world, bench, receipt| {
            let (m, contact) = (bench.ours.closed(), &world.b.contact);
            let body = told(bench, receipt);
            let read = world.patient().accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body);
            let ending = read.map_err(|r| r.code)?;
            ending.code.map_or_else(|| Ok(to_cbor(&(ending.state, ending.receipt))), Err)
        }),
        later: None,
        rows: receipt_rows(Unread("the destination's clock; the end is the authority's statement, with its own time")),
    }
}
