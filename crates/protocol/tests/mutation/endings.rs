//! Revocation, refusal, and the signed end.

use waybill_crypto::keys::Digest;
use waybill_protocol::ids::{MessageId, ProofId, SessionId};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    CaseStatement, Chain, EndState, Refusal, RefusalBody, Revocation, RevocationBody, RevocationReason, StatementBody,
};
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::to_cbor;

use crate::Expected::{self, Kept, Refused, Unread};
use crate::bench::{Bench, Run, keys_of, logged};
use crate::common::*;
use crate::{Delivery, Held, Row, Take, row};

const OTHER: Digest = Digest([0xee; 32]);

pub fn deliveries() -> Vec<Box<dyn Held>> {
    vec![
        Box::new(revocation("revocation key", "authority")),
        Box::new(revocation("source", "authority")),
        Box::new(revocation("destination", "authority")),
        Box::new(revocation("revocation key", "source")),
        Box::new(revocation("destination", "source")),
        Box::new(revocation("revocation key", "destination")),
        Box::new(revocation("source", "destination")),
        Box::new(refusal_at_authority()),
        Box::new(refusal_at_destination()),
        Box::new(refusal_at_source("destination")),
        Box::new(refusal_at_source("authority")),
        Box::new(refusal_at_patient("destination")),
        Box::new(refusal_at_patient("authority")),
        Box::new(statement_at_source()),
        Box::new(statement_at_destination()),
        Box::new(statement_at_patient()),
    ]
}

fn chain_of(world: &World, signer: &str) -> Chain {
    match signer {
        "source" => world.a.identity.chain.clone(),
        "destination" => world.b.identity.chain.clone(),
        _ => Chain::default(),
    }
}

// Revocation.

fn revocation(signer: &'static str, to: &'static str) -> Delivery<Revocation> {
    let (elsewhere, own) = if to == "authority" {
        (Code::SenderWrong, Kept("the holder's own word, which the statement names as the cause of the end"))
    } else {
        (Code::UnknownCase, Unread("whatever the reason, and whenever it was given, the case stops"))
    };
    Delivery {
        message: "Revocation",
        to,
        signer,
        forged: Code::SignatureInvalid,
        take: Box::new(move |world, run| {
            let said =
                Revocation { proof: run.closed().proof.id(), reason: RevocationReason::Withdrawn, time: world.now };
            SignedBytes::from(&Signed::sign(&world.network.backend, &keys_of(world, signer)[0], said))
        }),
        deliver: Box::new(move |world, bench, revocation| {
            let m = bench.ours.at(Step::Redeeming);
            let body = RevocationBody { revocation, chain: chain_of(world, signer) };
            match to {
                "authority" => world
                    .authority()
                    .handle_revocation(m.authority, &body)
                    .map(|(case, _)| to_cbor(case.statement.unwrap().parse().unwrap().peek())),
                "source" => world
                    .source()
                    .handle_revocation(m.source(), &body)
                    .map(|(case, _)| to_cbor(&(case.state, case.code))),
                _ => world
                    .destination()
                    .handle_revocation(m.destination(), &body)
                    .map(|(case, _)| to_cbor(&(case.state, case.code))),
            }
            .map_err(|r| r.code)
        }),
        later: None,
        rows: vec![
            row!(Revocation: proof = ProofId(OTHER) => Refused(elsewhere)),
            row!(Revocation: reason = RevocationReason::KeyCompromised => own).same(),
            row!(Revocation: |m, w| time = m.time.plus(1) => own).same(),
        ],
    }
}

// Refusal.

fn refuses(world: &World, run: &Run, signer: &str) -> SignedBytes<Refusal> {
    let m = run.closed();
    let said = Refusal {
        subject: m.proof.id().0,
        session: Some(m.source().session),
        attempt: 1,
        code: Code::ConsentRefused,
        retry: false,
        time: world.now,
    };
    SignedBytes::from(&Signed::sign(&world.network.backend, &keys_of(world, signer)[0], said))
}

fn refusal_rows(
    subject: Code,
    session: Expected,
    attempt: Expected,
    code: Expected,
    retry: Expected,
    time: Expected,
) -> Vec<Row<Refusal>> {
    vec![
        row!(Refusal: subject = OTHER => Refused(subject)),
        row!(Refusal: session = Some(SessionId(OTHER)) => session),
        row!(Refusal: attempt = 2 => attempt).same(),
        row!(Refusal: code = Code::SessionLost => code).same(),
        row!(Refusal: retry = true => retry).same(),
        row!(Refusal: |m, w| time = m.time.plus(1) => time).same(),
    ]
}

fn refusal_at_authority() -> Delivery<Refusal> {
    let own = Kept("the source's own decision, which the statement names as the cause of the end");
    let invalid = Refused(Code::AttemptInvalid);
    Delivery {
        message: "Refusal",
        to: "authority",
        signer: "source",
        forged: Code::SignatureInvalid,
        take: Box::new(|world, run| refuses(world, run, "source")),
        deliver: Box::new(|world, bench, refusal| {
            let body = RefusalBody { refusal, chain: world.a.identity.chain.clone(), detail: None };
            let taken = world.authority().handle_refusal(bench.ours.at(Step::Lodged).authority, &body);
            let (case, _) = taken.map_err(|r| r.code)?;
            Ok(to_cbor(&(case.state, case.statement.map(|s| s.parse().unwrap().peek().clone()))))
        }),
        later: None,
        rows: refusal_rows(Code::SenderWrong, invalid, invalid, own, own, own),
    }
}

fn refusal_at_destination() -> Delivery<Refusal> {
    let own = Kept("the source's own decision");
    Delivery {
        message: "Refusal",
        to: "destination",
        signer: "source",
        forged: Code::SignatureInvalid,
        take: Box::new(|world, run| refuses(world, run, "source")),
        deliver: Box::new(|world, bench, refusal| {
            let m = bench.ours.at(Step::Requested);
            let body = RefusalBody { refusal, chain: world.a.identity.chain.clone(), detail: None };
            let taken = world.destination().handle_refusal(m.destination(), &body, Some(&m.secret()));
            taken.map(|(case, _)| to_cbor(&(case.state, case.code))).map_err(|r| r.code)
        }),
        later: None,
        rows: refusal_rows(
            Code::UnknownCase,
            Refused(Code::UnknownCase),
            Unread("the session says which attempt; the number counts only where none was opened"),
            own,
            own,
            Unread("the case stops whenever it was said"),
        ),
    }
}

fn refusal_at_source(signer: &'static str) -> Delivery<Refusal> {
    Delivery {
        message: "Refusal",
        to: "source",
        signer,
        forged: Code::SignatureInvalid,
        take: Box::new(move |world, run| refuses(world, run, signer)),
        deliver: Box::new(move |world, bench, refusal| {
            let body = RefusalBody { refusal, chain: chain_of(world, signer), detail: None };
            let taken = world.source().handle_refusal(bench.ours.at(Step::Redeeming).source(), &body);
            taken.map(|(case, _)| to_cbor(&(case.state, case.code))).map_err(|r| r.code)
        }),
        later: None,
        rows: refusal_rows(
            Code::UnknownCase,
            Refused(Code::UnknownCase),
            Unread("the session says which attempt"),
            Kept("the refusing party's own decision"),
            Unread("the source reads from the code whether another attempt may follow"),
            Unread("the case stops whenever it was said"),
        ),
    }
}

fn refusal_at_patient(signer: &'static str) -> Delivery<Refusal> {
    Delivery {
        message: "Refusal",
        to: "patient",
        signer,
        forged: Code::SignatureInvalid,
        take: Box::new(move |world, run| refuses(world, run, signer)),
        deliver: Box::new(move |world, bench, refusal| {
            let (m, contact) = (bench.ours.closed(), &world.b.contact);
            let body = RefusalBody { refusal, chain: chain_of(world, signer), detail: None };
            let read = world.patient().accept_refusal(&world.patient_trust, &m.draft, m.proof.id().0, contact, &body);
            read.map(|code| to_cbor(&code)).map_err(|r| r.code)
        }),
        later: None,
        rows: refusal_rows(
            Code::UnknownCase,
            Unread("the patient knows the case, not its sessions"),
            Unread("the patient knows the case, not its attempts"),
            Kept("the refusing party's own decision"),
            Unread("the wallet goes by the code alone"),
            Unread("the patient hears of it whenever it was said"),
        ),
    }
}

// The statement, which the authority also logs.

fn logged_statement(world: &mut World, bench: &Bench, statement: SignedBytes<CaseStatement>) -> StatementBody {
    let evidence = logged(world, LeafKind::STATEMENT, &statement);
    StatementBody { statement, evidence, ..bench.ours.closed().statement.clone().unwrap() }
}

fn end() -> Take<CaseStatement> {
    Box::new(|_, run| run.closed().statement.as_ref().unwrap().statement.clone())
}

fn statement_rows(state: Expected, other_end: Expected, rest: Expected) -> Vec<Row<CaseStatement>> {
    vec![
        row!(CaseStatement: proof = ProofId(OTHER) => Refused(Code::UnknownCase)),
        row!(CaseStatement: state = EndState::Rejected => state).same(),
        row!(CaseStatement: state = EndState::Revoked => other_end),
        row!(CaseStatement: cause = Some(MessageId(OTHER)) => rest),
        row!(CaseStatement: |m, w| time = m.time.plus(1) => rest).same(),
    ]
}

const WORD: &str = "the authority's word on the end; what it logged and signed is kept as evidence against it";

fn statement_at_source() -> Delivery<CaseStatement> {
    Delivery {
        message: "CaseStatement",
        to: "source",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: end(),
        deliver: Box::new(|world, bench, bytes| {
            let body = logged_statement(world, bench, bytes);
            let m = bench.ours.at(Step::Filed);
            let taken = world.source().handle_statement(m.source(), body, m.reply_secret.as_ref());
            let (case, _) = taken.map_err(|r| r.code)?;
            case.code.map_or_else(|| Ok(to_cbor(case.statement.unwrap().statement.parse().unwrap().peek())), Err)
        }),
        later: None,
        rows: statement_rows(Refused(Code::ReceiptInvalid), Kept(WORD), Kept(WORD)),
    }
}

fn statement_at_destination() -> Delivery<CaseStatement> {
    Delivery {
        message: "CaseStatement",
        to: "destination",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: end(),
        deliver: Box::new(|world, bench, bytes| {
            let body = logged_statement(world, bench, bytes);
            let taken = world.destination().handle_statement(bench.ours.at(Step::Filed).destination(), body);
            let (case, _) = taken.map_err(|r| r.code)?;
            Ok(to_cbor(case.statement.unwrap().statement.parse().unwrap().peek()))
        }),
        later: None,
        rows: statement_rows(Kept(WORD), Kept(WORD), Kept(WORD)),
    }
}

fn statement_at_patient() -> Delivery<CaseStatement> {
    Delivery {
        message: "CaseStatement",
        to: "patient",
        signer: "authority",
        forged: Code::SignatureInvalid,
        take: end(),
        deliver: Box::new(|world, bench, bytes| {
            let body = logged_statement(world, bench, bytes);
            let (m, contact) = (bench.ours.closed(), &world.b.contact);
            let read = world.patient().accept_statement(&world.patient_trust, &m.draft, m.proof.id(), contact, &body);
            read.map(|ending| to_cbor(&(ending.state, ending.receipt))).map_err(|r| r.code)
        }),
        later: None,
        rows: statement_rows(
            Refused(Code::ReceiptInvalid),
            Kept(WORD),
            Unread("the patient reads the end and the receipt; the evidence file has the statement whole"),
        ),
    }
}
