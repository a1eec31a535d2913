//! The authority's shell, as `crates/server/src/authority/engine.rs` and `sequencer.rs` do it: load, call the role, commit, answer.

use waybill_protocol::authority::{Answer, Authority, AuthorityCase, Transition};
use waybill_protocol::log::LeafKind;
use waybill_protocol::messages::{
    DeliveryBody, DeliveryReceipt, EndState, LodgementBody, ReceiptBody, RedeemBody, RefusalBody, RevocationBody,
};
use waybill_protocol::migration::{AuthorityState, Effect, Recipient};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::Kind;

use crate::bench::Bench;
use crate::common::{A, id};
use crate::things::{Entry, Kept, Letter, Log, Mark, Outcome, Says, message, short};
use crate::twins::Twin;

/// What surrounds a step: clock, registry, and the mistake of a twin.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    pub late: bool,
    pub suspended: bool,
    pub twin: Option<Twin>,
}

impl Around {
    pub fn is(&self, twin: Twin) -> bool {
        self.twin == Some(twin)
    }
}

/// The authority takes a letter; nothing when it is refused and nobody hears of it.
pub fn takes(bench: &Bench, around: Around, case: &AuthorityCase, letter: &Letter) -> Option<Outcome> {
    let backend = bench.backend("authority", letter.id, 0);
    let late = around.late && !around.is(Twin::ClockStands);
    let role = bench.authority(late, &backend);
    let standing = Bench::standing(around.suspended && !around.is(Twin::StandingNotAsked));
    let (parcel, case) = (letter.parcel(), as_read(around, case.clone()));
    match letter.kind {
        Kind::Redeem => redeem(&role, around, case, &parcel.open(letter.kind, "redeem").ok()?),
        Kind::KeyLodgement => {
            let body: LodgementBody = parcel.open(letter.kind, "lodgement").ok()?;
            let lodgement = role.open_lodgement(&body).ok()?;
            let case =
                if around.is(Twin::DeliveryInvented) { with_invented_delivery(&role, case, &body)? } else { case };
            step(around, role.handle_lodgement(case, &lodgement, &standing), &[Kind::CaseStatement])
        }
        Kind::DeliveryReceipt => {
            let body: DeliveryBody = parcel.open(letter.kind, "delivery").ok()?;
            step(around, role.handle_delivery(case, &body, &standing), &[Kind::KeyRelease, Kind::CaseStatement])
        }
        Kind::ImportReceipt => {
            let body: ReceiptBody = parcel.open(letter.kind, "receipt").ok()?;
            step(around, role.handle_receipt(case, &body), &[Kind::CaseStatement])
        }
        Kind::Revocation => {
            let body: RevocationBody = parcel.open(letter.kind, "revocation").ok()?;
            step(around, role.handle_revocation(case, &body), &[Kind::CaseStatement])
        }
        Kind::Refusal => {
            let body: RefusalBody = parcel.open(letter.kind, "refusal").ok()?;
            step(around, role.handle_refusal(case, &body), &[Kind::CaseStatement])
        }
        _ => None,
    }
}

fn redeem(role: &Authority<'_>, around: Around, case: AuthorityCase, body: &RedeemBody) -> Option<Outcome> {
    let (from, redeem) = role.verify_redeem(body).ok()?;
    let said = redeem.message();
    if case.has_granted(said) {
        return Some(Outcome { repeats: vec![Kind::Grant], ..Outcome::default() });
    }
    let standing = Bench::standing(around.suspended && !around.is(Twin::StandingNotAsked));
    match role.handle_redeem(case, &from, &body.chain, &redeem, &standing) {
        Ok(transition) => Some(committed(around, transition)),
        Err(rejection) => {
            let (proof, session, to) = (said.proof, said.session, Recipient::Hospital(id(A)));
            let refusal = role.refuse(to, proof.0, Some(session), said.attempt, rejection.code);
            let mut outcome = Outcome::default();
            effects(&mut outcome, vec![refusal]);
            Some(outcome)
        }
    }
}

/// A message that verifies but comes too late is a repetition: the answers it waits for are sent again.
fn step(around: Around, result: Result<Transition, Rejection>, answers: &[Kind]) -> Option<Outcome> {
    match result {
        Ok(transition) => Some(committed(around, transition)),
        Err(late) if matches!(late.code, Code::UnexpectedMessage | Code::ProofRevoked | Code::ProofExpired) => {
            Some(Outcome { repeats: answers.to_vec(), ..Outcome::default() })
        }
        Err(_) => None,
    }
}

/// The case's deadline has come.
pub fn wakes(bench: &Bench, around: Around, case: &AuthorityCase) -> Option<Outcome> {
    let backend = bench.backend("authority-deadline", case.session.map_or(0, |s| short(&s.0)), 0);
    let role = bench.authority(around.late && !around.is(Twin::ClockStands), &backend);
    let mut case = case.clone();
    if around.is(Twin::EndNotKept) && case.release.is_some() {
        case.state = AuthorityState::KeyReleased;
    }
    role.handle_deadline(case).map(|transition| committed(around, transition))
}

/// Says what a leaf stands for, now that a cosigned checkpoint covers it.
pub fn answers(bench: &Bench, around: Around, log: &Log, index: usize) -> Outcome {
    let mut answer = log.value[index].leaf.answer.clone();
    if let (true, Answer::Statement { receipt, .. }) = (around.is(Twin::ReceiptLeftOut), &mut answer) {
        *receipt = None;
    }
    let known = answer.known_log_size().unwrap_or(0);
    let (evidence, consistency) = bench.evidence(log, index, known);
    let backend = bench.backend("answer", log.id, 0);
    let posts = bench.authority(around.late, &backend).finish(answer, evidence, consistency).unwrap();
    let mut outcome = Outcome::default();
    effects(&mut outcome, posts.into_iter().map(Effect::Post).collect());
    let statement = outcome.posts.iter().find(|(letter, _)| letter.kind == Kind::CaseStatement);
    if statement.is_some_and(|(letter, _)| !bench.patient_reads(around.late, letter)) {
        outcome.marks.push(Mark::PatientMisled);
    }
    outcome
}

/// What a role asks for, as operations of one batch.
pub fn effects(outcome: &mut Outcome, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Post(post) => {
                let awaits = post.awaits.as_ref().map(crate::things::awaits_name);
                outcome.posts.extend(Letter::new(&post).map(|letter| (letter, awaits)));
            }
            Effect::Settle(awaits) => outcome.settles.push(crate::things::awaits_name(&awaits)),
            Effect::Log(leaf) => outcome.leaves.push(Entry { leaf: *leaf, says: Says::default() }),
            Effect::Deadline(at) => outcome.timer = Some(Some(at.0)),
            Effect::NoDeadline => outcome.timer = Some(None),
        }
    }
}

fn committed(around: Around, (case, asked): Transition) -> Outcome {
    let mut outcome = Outcome::default();
    effects(&mut outcome, asked);
    for entry in &mut outcome.leaves {
        let kind = entry.kind();
        entry.says.session = case.session.filter(|_| kind != LeafKind::STATEMENT).map(|session| short(&session.0));
        entry.says.logged = Some(short(&entry.leaf.message.0));
        entry.says.end = match (kind, case.state) {
            (LeafKind::STATEMENT, AuthorityState::Ended(end)) => Some(end),
            _ => None,
        };
        if matches!(kind, LeafKind::GRANT | LeafKind::RELEASE) {
            outcome.marks.extend(around.late.then_some(Mark::Late));
            outcome.marks.extend(around.suspended.then_some(Mark::Suspended));
        }
    }
    outcome.authority = Some(Kept::new(case));
    outcome
}

/// The row as the shell reads it.
fn as_read(around: Around, mut case: AuthorityCase) -> AuthorityCase {
    if around.is(Twin::StatusFromCache) && case.state == AuthorityState::Ended(EndState::Revoked) {
        case.state = match (&case.session, &case.lodgement) {
            (None, _) => AuthorityState::Issued,
            (_, None) => AuthorityState::Redeemed,
            (_, Some(_)) => AuthorityState::Lodged,
        };
    }
    if around.is(Twin::ReleaseForgotten) && case.state == AuthorityState::KeyReleased {
        (case.state, case.delivery) = (AuthorityState::Lodged, None);
    }
    case
}

/// A row in which the destination's receipt lies that the destination never gave.
fn with_invented_delivery(
    role: &Authority<'_>,
    mut case: AuthorityCase,
    body: &LodgementBody,
) -> Option<AuthorityCase> {
    let lodgement = message(&role.open_lodgement(body).ok()?);
    let said = DeliveryReceipt {
        proof: case.id,
        manifest: lodgement.manifest,
        session: lodgement.session,
        time: role.ctx.now,
    };
    let signed = Signed::sign(role.ctx.backend, &role.keys.proof_signing, said);
    case.delivery = Some(SignedBytes::from(&signed));
    Some(case)
}

/// The state that the log's leaves add up to.
pub fn fold(log: &Log) -> AuthorityState {
    let mut state = AuthorityState::Issued;
    for entry in &log.value {
        state = match (entry.kind(), state) {
            (LeafKind::GRANT, _) => AuthorityState::Redeemed,
            (LeafKind::LODGEMENT, _) => AuthorityState::Lodged,
            (LeafKind::RELEASE, _) => AuthorityState::KeyReleased,
            (LeafKind::ATTEMPT_FAILED, _) => AuthorityState::Issued,
            (LeafKind::STATEMENT, before) => entry.says.end.map_or(before, AuthorityState::Ended),
            (_, before) => before,
        };
    }
    state
}

/// The message that a leaf stands for, by name.
pub fn logged(entry: &Entry) -> u64 {
    short(&entry.leaf.message.0)
}
