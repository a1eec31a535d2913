//! The hospitals' shells, as `crates/server/src/hospital/engine/` and `work.rs` do it.

use waybill_crypto::keys::HpkeSecretKey;
use waybill_protocol::destination::{DestinationCase, Filing, rejection_detail};
use waybill_protocol::messages::{
    GrantBody, ManifestBody, OutcomeClass, ReceiptDetail, RefusalBody, ReleaseBody, Revocation, RevocationBody,
    RevocationReason, StatementBody,
};
use waybill_protocol::migration::{DestinationState, Effect, Post, Recipient, SourceState};
use waybill_protocol::registrar::{ConsentKey, HospitalIdentity, Registered};
use waybill_protocol::rejection::{Code, Rejection};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::source::{Admission, ConsentStands, Granted, Received, SourceCase, admit};
use waybill_protocol::trust::Ctx;
use waybill_protocol::wire::{Kind, Parcel};

use crate::authority::{Around, effects};
use crate::bench::{Bench, forger};
use crate::common::{A, B, REVIEW_SECONDS, id};
use crate::things::{Kept, Letter, Mark, Outcome, message, short};
use crate::twins::Twin;

/// What a hospital does of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The source freezes, stages, signs the manifest, lodges the key.
    Export,
    /// The destination has every chunk and signs for them.
    Receive,
    /// The destination files the record.
    File,
    /// The destination finds that the record is not what the manifest says.
    Reject,
    /// The deadline of the case: the next attempt, or the authority is asked for the end.
    Wake,
    /// Staff stops the case.
    Stop,
    /// A person at the source compared the two patients and vouches for them.
    Approve,
    /// The one-time key is gone: cleaned away, or lost with the folder it was in.
    LoseKey,
}

type SourceTransition = (SourceCase, Vec<Effect>);
type DestinationTransition = (DestinationCase, Vec<Effect>);

/// A source with what its store holds beside the case.
pub struct SourceSide<'a> {
    pub case: Option<&'a SourceCase>,
    pub known: &'a str,
    /// How often it began anew.
    pub life: u8,
}

/// A destination with what its store holds beside the case.
pub struct DestinationSide<'a> {
    pub case: Option<&'a DestinationCase>,
    pub one_time: bool,
    pub life: u8,
}

fn of_source((case, asked): SourceTransition) -> Outcome {
    let mut outcome = Outcome { source: Some(Kept::new(case)), ..Outcome::default() };
    effects(&mut outcome, asked);
    outcome
}

fn of_destination((case, asked): DestinationTransition) -> Outcome {
    let mut outcome = Outcome { destination: Some(Kept::new(case)), ..Outcome::default() };
    effects(&mut outcome, asked);
    outcome
}

fn only(asked: Vec<Effect>) -> Outcome {
    let mut outcome = Outcome::default();
    effects(&mut outcome, asked);
    outcome
}

/// A hospital's own revocation, to each who must hear of it.
fn decline(
    ctx: Ctx<'_>,
    own: &HospitalIdentity,
    case: waybill_protocol::ids::ProofId,
    to: Vec<Recipient>,
) -> Vec<Effect> {
    let said = Revocation { proof: case, reason: RevocationReason::HospitalDeclines, time: ctx.now };
    let signed = Signed::sign(ctx.backend, &own.signing, said);
    let body = RevocationBody { revocation: SignedBytes::from(&signed), chain: own.chain.clone() };
    let parcel = Parcel::pack(Kind::Revocation, &body);
    to.into_iter().map(|to| Effect::Post(Post { to, parcel: parcel.clone(), awaits: None })).collect()
}

/// The source takes a letter.
pub fn source_takes(bench: &Bench, around: Around, side: &SourceSide<'_>, letter: &Letter) -> Option<Outcome> {
    if letter.kind == Kind::TransferRequest {
        return requested(bench, around, side, letter);
    }
    let case = side.case?.clone();
    let backend = bench.backend("source", short(&case.session.0), side.life);
    let role = bench.source(around.late, &backend);
    let parcel = letter.parcel();
    match letter.kind {
        Kind::Grant if case.state != SourceState::Redeeming => None,
        Kind::Grant => granted(bench, around, side, &parcel.open(letter.kind, "grant").ok()?),
        Kind::CaseStatement => {
            let body: StatementBody = parcel.open(letter.kind, "statement").ok()?;
            let reply = bench.stage(case.session).reply;
            let case = if around.is(Twin::SourceForgetsEnd) { SourceCase { statement: None, ..case } } else { case };
            role.handle_statement(case, body, Some(&reply)).ok().map(of_source)
        }
        Kind::Revocation => {
            let body: RevocationBody = parcel.open(letter.kind, "revocation").ok()?;
            role.handle_revocation(case, &body).ok().map(of_source)
        }
        Kind::Refusal => {
            let body: RefusalBody = parcel.open(letter.kind, "refusal").ok()?;
            role.handle_refusal(case, &body).ok().map(of_source)
        }
        _ => None,
    }
}

fn granted(bench: &Bench, around: Around, side: &SourceSide<'_>, body: &GrantBody) -> Option<Outcome> {
    let mut case = side.case?.clone();
    let stands = stands(bench, around, &case)?;
    let own = (case.session, case.nonce, case.attempt);
    if around.is(Twin::GrantOfAnotherSession) {
        let said = message(&body.grant);
        (case.session, case.nonce, case.attempt) = (said.session, said.nonce, said.attempt);
    }
    let backend = bench.backend("grant", short(&case.session.0), side.life);
    let (_, seen, (mut case, asked)) =
        bench.source(around.late, &backend).handle_grant(&stands, case, body.clone()).ok()?;
    (case.session, case.nonce, case.attempt) = own;
    let newest = seen.checkpoint();
    let mut outcome = of_source((case, asked));
    if newest.size > Bench::checkpoint(side.known).size {
        outcome.known = Some(Kept::new(newest.to_text()));
    }
    Some(outcome)
}

fn requested(bench: &Bench, around: Around, side: &SourceSide<'_>, letter: &Letter) -> Option<Outcome> {
    let received = Received::parse(&letter.parcel()).ok()?;
    let (proof, session, attempt) = (received.proof(), received.session(), received.attempt());
    let backend = bench.backend("request", short(&session.0), side.life);
    let role = bench.source(around.late, &backend);
    let sender = role.verify_sender(received).ok()?;
    if let Some(case) = side.case.filter(|case| case.session == session) {
        return role.resend_manifest(case).map(|again| only(vec![again]));
    }
    let (to, seal_to) = (sender.sender().clone(), *sender.session_key());
    let world = bench.world(around.late);
    let opened = || -> Result<SourceTransition, Rejection> {
        let checked = role.verify_proof(sender)?;
        let parties = role.verify_parties(checked)?;
        let opened = role.open_consent(role.verify_window(parties)?)?;
        let known = world.a.registered_at(&world.root, opened.pid());
        let forged = known.filter(|_| around.is(Twin::ForgerRegistered)).map(|known| with_forger(known, world));
        let consent = role.verify_consent(opened, forged.as_ref().or(known))?;
        let (Admission::First | Admission::Next) = admit(side.case, attempt)?;
        let checked = role.compare_identity(consent, &world.a.patient)?;
        let (mut case, mut asked) = role.open_case(checked, Some(&Bench::checkpoint(side.known)), REVIEW_SECONDS);
        if around.is(Twin::ReviewOverlooked) {
            case.state = SourceState::Redeeming;
            asked.push(role.redeem(&case));
        }
        Ok((case, asked))
    };
    match opened() {
        Ok(transition) => Some(of_source(transition)),
        Err(rejection) => Some(only(role.refuse(proof, session, 0, &to, &seal_to, rejection.code))),
    }
}

/// Nobody withdraws a key here: whoever was believed when the case was opened still is.
fn stands(bench: &Bench, around: Around, case: &SourceCase) -> Option<ConsentStands> {
    let world = bench.world(around.late);
    let known = &world.a.registered;
    let registered = if around.is(Twin::ForgerRegistered) { with_forger(known, world) } else { known.clone() };
    ConsentStands::verify(case, &[registered]).ok()
}

fn with_forger(known: &Registered, world: &crate::common::World) -> Registered {
    let mut registered = known.clone();
    let forged = ConsentKey { key: forger(world).public().clone(), ..registered.keys[0].clone() };
    registered.keys.push(forged);
    registered
}

/// The source acts of its own accord.
pub fn source_does(bench: &Bench, around: Around, side: &SourceSide<'_>, step: Step) -> Option<Outcome> {
    let case = side.case?.clone();
    let backend = bench.backend("source-step", short(&case.session.0), side.life);
    let role = bench.source(around.late, &backend);
    let ctx = Ctx { now: role.ctx.now, backend: &backend };
    let (proof, own) = (case.proof, &bench.world(around.late).a.identity);
    match step {
        Step::Export => {
            Granted::resume(&case)?;
            let mut stage = bench.stage(case.session);
            if around.is(Twin::StagedTwice) {
                stage.staged.key = waybill_crypto::stream::RecordKey::random(&backend);
            }
            let consented = short(&case.request.consent.digest()) == bench.consent;
            let marks = (!consented).then_some(Mark::Unconsented).into_iter().collect();
            role.handle_staged(&stands(bench, around, &case)?, case, &stage.staged)
                .ok()
                .map(|made| Outcome { marks, ..of_source(made) })
        }
        Step::Stop => match case.state {
            SourceState::AwaitingReview | SourceState::Redeeming | SourceState::Granted => {
                let (case, mut asked) = role.abort(case, Code::StoppedByStaff);
                asked.extend(decline(ctx, own, proof, vec![Recipient::Authority]));
                asked.push(Effect::Deadline(case.expires.plus(1)));
                Some(of_source((case, asked)))
            }
            SourceState::Lodged | SourceState::AttemptFailed => {
                let to = vec![Recipient::Authority, Recipient::Hospital(id(B))];
                let case = SourceCase { code: Some(Code::StoppedByStaff), ..case };
                Some(of_source((case, decline(ctx, own, proof, to))))
            }
            SourceState::Refused | SourceState::Closed => None,
        },
        Step::Approve => {
            let made =
                role.approve_review(&stands(bench, around, &case)?, case, Some(&Bench::checkpoint(side.known))).ok()?;
            Some(Outcome { approved: true, ..of_source(made) })
        }
        Step::Wake => {
            let ask = decline(ctx, own, proof, vec![Recipient::Authority]);
            let Some((case, mut asked)) = role.handle_overdue(case) else { return Some(only(ask)) };
            asked.push(Effect::Deadline(case.expires.plus(1)));
            asked.extend(ask);
            Some(of_source((case, asked)))
        }
        _ => None,
    }
}

/// The destination takes a letter.
pub fn destination_takes(
    bench: &Bench,
    around: Around,
    side: &DestinationSide<'_>,
    letter: &Letter,
) -> Option<Outcome> {
    if letter.kind == Kind::Presentation {
        return presented(bench, around, side, letter);
    }
    let case = side.case?.clone();
    let backend = bench.backend("destination", short(&case.session.0), side.life);
    let role = bench.destination(around.late, &backend);
    let secret = side.one_time.then(|| bench.one_time(case.session));
    let parcel = letter.parcel();
    match letter.kind {
        Kind::Manifest => {
            let body: ManifestBody = parcel.open(letter.kind, "manifest").ok()?;
            if case.state != DestinationState::Requested || case.session != body.session {
                return None;
            }
            let Some(secret) = secret else { return Some(of_destination(role.give_up(case, Code::SessionLost))) };
            role.handle_manifest(case, &body, &secret, u64::MAX).ok().map(of_destination)
        }
        Kind::KeyRelease if case.state != DestinationState::Delivered => None,
        Kind::KeyRelease => {
            let body: ReleaseBody = parcel.open(letter.kind, "release").ok()?;
            let Some(secret) = secret else { return role.hold_without_key(case, body).ok().map(of_destination) };
            let session = short(&case.session.0);
            let (keys, transition) = role.handle_release(case, body, &secret).ok()?;
            Some(Outcome { opened: keys.map(|_| session), ..of_destination(transition) })
        }
        Kind::CaseStatement => {
            let body: StatementBody = parcel.open(letter.kind, "statement").ok()?;
            let forgets = around.is(Twin::DestinationForgetsEnd);
            let case = if forgets { DestinationCase { statement: None, ..case } } else { case };
            role.handle_statement(case, body).ok().map(of_destination)
        }
        Kind::Revocation => {
            let body: RevocationBody = parcel.open(letter.kind, "revocation").ok()?;
            role.handle_revocation(case, &body).ok().map(of_destination)
        }
        Kind::Refusal => {
            let body: RefusalBody = parcel.open(letter.kind, "refusal").ok()?;
            role.handle_refusal(case, &body, secret.as_ref()).ok().map(of_destination)
        }
        _ => None,
    }
}

/// Keeps a session's one-time key, then its case.
fn with_key(bench: &Bench, (secret, transition): (HpkeSecretKey, DestinationTransition)) -> Outcome {
    bench.keep_one_time(transition.0.session, secret);
    Outcome { one_time: Some(true), ..of_destination(transition) }
}

fn presented(bench: &Bench, around: Around, side: &DestinationSide<'_>, letter: &Letter) -> Option<Outcome> {
    if side.case.is_some() {
        return None;
    }
    let world = bench.world(around.late);
    let backend = bench.backend("presented", letter.id, side.life);
    let role = bench.destination(around.late, &backend);
    let opened = role.open_presentation(&letter.parcel().open(letter.kind, "presentation").ok()?).ok()?;
    let registered = world.b.registered_at(&world.root, opened.pid());
    let verified = role.verify_presentation(role.verify_presenter(opened, registered).ok()?).ok()?;
    role.open_case(verified, &world.b.patient, 1).ok().map(|made| with_key(bench, made))
}

/// The destination acts of its own accord.
pub fn destination_does(bench: &Bench, around: Around, side: &DestinationSide<'_>, step: Step) -> Option<Outcome> {
    let case = side.case?.clone();
    let backend = bench.backend("destination-step", short(&case.session.0), side.life);
    let role = bench.destination(around.late, &backend);
    let ctx = Ctx { now: role.ctx.now, backend: &backend };
    let (proof, own) = (case.proof, &bench.world(around.late).b.identity);
    match step {
        Step::Receive if case.state == DestinationState::Receiving => {
            let root = bench.stage(case.session).root;
            role.handle_delivered(case, &root).ok().map(of_destination)
        }
        Step::File | Step::Reject => files(bench, around, side, step),
        Step::Wake if case.state == DestinationState::AttemptFailed => {
            let patient = &bench.world(around.late).b.patient;
            role.next_attempt(case, patient).ok().map(|made| with_key(bench, made))
        }
        Step::Wake => Some(only(decline(ctx, own, proof, vec![Recipient::Authority]))),
        Step::Stop => {
            let to = vec![Recipient::Authority, Recipient::Hospital(id(A))];
            let expires = case.expires;
            let (case, mut asked) = match case.state {
                DestinationState::Requested | DestinationState::Receiving | DestinationState::AttemptFailed => {
                    role.give_up(case, Code::StoppedByStaff)
                }
                DestinationState::Delivered => {
                    (DestinationCase { code: Some(Code::StoppedByStaff), ..case }, Vec::new())
                }
                _ => return None,
            };
            asked.extend(decline(ctx, own, proof, to));
            asked.push(Effect::Deadline(expires.plus(1)));
            Some(of_destination((case, asked)))
        }
        Step::LoseKey => side.one_time.then(|| Outcome { one_time: Some(false), ..Outcome::default() }),
        _ => None,
    }
}

/// Rows, receipt and "filed" in one batch.
fn files(bench: &Bench, around: Around, side: &DestinationSide<'_>, step: Step) -> Option<Outcome> {
    let mut case = side.case?.clone();
    let backend = bench.backend("filing", short(&case.session.0), side.life);
    let role = bench.destination(around.late, &backend);
    if around.is(Twin::FiledBeforeKey) && case.state == DestinationState::Delivered {
        case.state = DestinationState::KeyHeld;
    }
    if case.state != DestinationState::KeyHeld {
        return None;
    }
    let (_, manifest) = role.manifest_of(&case).ok()?;
    let held = side.one_time
        && (around.is(Twin::FiledBeforeKey) || role.stream_keys(&case, &bench.one_time(case.session)).is_some());
    let refused = |code| Filing { detail: rejection_detail(&manifest, code), outcome: OutcomeClass::Rejected };
    let filing = match (held, step) {
        (false, Step::File) => refused(Code::SessionLost),
        (false, _) => return None,
        (true, Step::Reject) => refused(Code::DigestMismatch),
        (true, _) => {
            let digest = waybill_crypto::lthash::RecordDigest::default().short();
            let (inventory, loss) = (manifest.inventory.clone(), manifest.loss.clone());
            let detail = ReceiptDetail { inventory, offered: 1, filed: 1, quarantined: 0, digest, code: None, loss };
            Filing { detail, outcome: OutcomeClass::Filed }
        }
    };
    let stored = filing.outcome == OutcomeClass::Filed && !around.is(Twin::FiledWithoutStoring);
    role.handle_filed(case, &filing).ok().map(|made| Outcome { stored, ..of_destination(made) })
}
