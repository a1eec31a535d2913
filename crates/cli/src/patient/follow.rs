//! Cases under way: `status`, `watch`, `stop`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use waybill_protocol::ids::{HospitalId, ProofId};
use waybill_protocol::messages::{EndState, Purpose, RevocationReason};
use waybill_protocol::rejection::Code;
use waybill_wallet::{CaseNumber, Notice, Outcome, Received, Stage, Summary, WalletError};

use super::session::{Session, parties, wallet_failure};
use super::stopped;
use super::words::{self, OpenView, Standing};
use crate::console::Progress;
use crate::courier::now;
use crate::failure::{Exit, Failure};

/// How often the hospitals are asked at first, and at most how seldom later.
const OFTEN: Duration = Duration::from_secs(2);
const SELDOM: Duration = Duration::from_secs(15);
/// After this time without an answer a hospital is asked again.
const OVERDUE: Duration = Duration::from_secs(60);
/// How long `status` waits for the hospitals.
const GLANCE: Duration = Duration::from_secs(8);
/// How long the authority's word is still waited for after a hospital has said no, or that it has the key.
const GRACE: Duration = Duration::from_secs(10);

/// How often in a row a destination says that it knows no such case before the proof is presented to it again.
const UNKNOWN: u32 = 3;

/// What hospitals say of cases.
type Standings = BTreeMap<(ProofId, HospitalId), Standing>;

/// Something that concerns one case.
enum Event {
    Said(HospitalId, Standing),
    Refused(Notice),
    Ended(EndState),
}

/// Reads what concerns a case.
fn event(received: &Received, number: CaseNumber, proof: Option<ProofId>) -> Option<Event> {
    match received {
        Received::Ended { case, state } if *case == number => Some(Event::Ended(*state)),
        Received::Refused { case, notice } if *case == number => Some(Event::Refused(notice.clone())),
        other => standing(other).filter(|(of, ..)| Some(*of) == proof).map(|(_, at, said)| Event::Said(at, said)),
    }
}

/// Reads what a hospital says of a case it was asked about.
fn standing(received: &Received) -> Option<(ProofId, HospitalId, Standing)> {
    let (proof, at, state, code) = match received {
        Received::Watched { hospital, proof, state, code } => (*proof, hospital, state.clone(), *code),
        Received::LoginRefused { hospital, code: Code::UnknownCase, about: Some(proof), .. } => {
            (*proof, hospital, "unknown".to_owned(), None)
        }
        Received::LoginRefused { hospital, code, about: Some(proof), .. } => {
            (*proof, hospital, "unknown".to_owned(), Some(*code))
        }
        _ => return None,
    };
    Some((proof, at.clone(), Standing { at: at.to_string(), state, code: code.map(Code::as_str) }))
}

/// `waybill patient status`.
///
/// # Errors
/// [`Failure`] when the wallet's file cannot be kept; a network that cannot be reached is said, and no failure.
pub async fn status(session: &mut Session, offline: bool) -> Result<Exit, Failure> {
    let mut standings = Standings::new();
    let watching = !session.wallet.watches().is_empty() || !session.wallet.cases().is_empty();
    if !offline && watching {
        let progress = session.console.progress("asking the hospitals");
        let asked = glance(session, &mut standings).await;
        drop(progress);
        if let Err(failure) = asked {
            session.console.note(format!("note: {failure}; what follows is what the wallet knows"));
        }
    }
    let views: Vec<OpenView> = session
        .wallet
        .cases()
        .iter()
        .map(|case| {
            let said = case
                .proof
                .iter()
                .flat_map(|proof| parties(case).into_iter().filter_map(|at| standings.get(&(*proof, at)).cloned()));
            OpenView::of(case, &said.collect::<Vec<_>>())
        })
        .collect();
    session.console.json(&views);
    if views.is_empty() {
        session.console.say("No case is open.");
    }
    for view in &views {
        session.console.say(view.text());
    }
    Ok(Exit::Success)
}

/// Asks both hospitals of every case once, and reads what has arrived meanwhile.
async fn glance(session: &mut Session, standings: &mut Standings) -> Result<(), Failure> {
    session.refresh_trust().await?;
    let mut open = 0;
    for case in session.wallet.cases().to_vec() {
        let (Some(proof), Stage::AwaitingEnd) = (case.proof, case.stage) else { continue };
        for at in parties(&case) {
            session.wallet.ask(now(), &at, Purpose::Watch { proof }).map_err(wallet_failure)?;
            open += 1;
        }
    }
    let deadline = Instant::now() + GLANCE;
    while Instant::now() < deadline {
        // Without a question there is still what has arrived while nobody looked.
        let patience = if open > 0 { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        let Some((proof, at, said)) = session.wait(patience, standing).await? else { break };
        standings.insert((proof, at), said);
        open -= 1;
        if open == 0 {
            break;
        }
    }
    Ok(())
}

/// `waybill patient watch`.
///
/// # Errors
/// [`Failure`].
pub async fn watch(session: &mut Session, case: Option<&str>, wait: Duration) -> Result<Exit, Failure> {
    let number = match session.open_case(case) {
        Ok(number) => number,
        // Somebody who looks on for the end wants to hear that it is over.
        Err(failure) => match case.and_then(|case| session.closed_case(Some(case)).ok()) {
            Some(closed) => {
                let number = closed.number;
                return ended(session, number).await;
            }
            None => return Err(failure),
        },
    };
    session.refresh_trust().await?;
    let open = session.wallet.open_case(number).map_err(wallet_failure)?;
    if open.stage < Stage::AwaitingEnd && !open.is_stopping() {
        return Err(Failure::failed(format!("case {number} has not begun to move: you have not consented yet"))
            .hint(format!("waybill patient migrate --resume {number}")));
    }
    to_the_end(session, number, wait).await
}

/// Follows a case until its signed end, for at most `wait`; says what both hospitals do meanwhile.
///
/// # Errors
/// [`Failure`] when the wallet's file cannot be kept, or for Ctrl-C, after which the case goes on without us.
pub async fn to_the_end(session: &mut Session, number: CaseNumber, wait: Duration) -> Result<Exit, Failure> {
    let followed = tokio::select! {
        followed = follow(session, number, wait) => Some(followed),
        _ = tokio::signal::ctrl_c() => None,
    };
    match followed {
        Some(followed) => followed,
        None => Err(Failure::failed(format!("you stopped looking on; case {number} goes on without you")).hint(
            format!("`waybill patient watch {number}` looks on again, `waybill patient stop {number}` stops it"),
        )),
    }
}

async fn follow(session: &mut Session, number: CaseNumber, wait: Duration) -> Result<Exit, Failure> {
    let mut follower = Follower::new(session, number);
    let mut deadline = Instant::now() + wait;
    let progress = session.console.progress("the record moves");
    while session.wallet.open_case(number).is_ok() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        follower.ask(session)?;
        match follower.hear(session, left).await? {
            Some(Event::Ended(EndState::Unacknowledged)) => break,
            Some(Event::Ended(_)) | None => {}
            // That is what a destination says that did hold the case when it was presented again.
            Some(Event::Refused(notice)) if notice.code == Code::ProofSpent && follower.presented_again => {}
            Some(Event::Refused(notice)) => {
                let again = notice.code.retryable();
                session.console.say(format!("{} says: {} ({})", notice.from, notice.code.sentence(), notice.code));
                if !again {
                    deadline = deadline.min(Instant::now() + GRACE);
                }
            }
            Some(Event::Said(at, said)) => {
                follower.told(session, &progress, at, said);
                if follower.is_unknown_there(session)? {
                    break;
                }
            }
        }
    }
    drop(progress);
    match session.wallet.open_case(number) {
        Err(_) => ended(session, number).await,
        Ok(_) => Ok(still_open(session, number, &follower.said())),
    }
}

/// Asks both hospitals of one case, ever more seldom while nothing changes.
struct Follower {
    number: CaseNumber,
    proof: Option<ProofId>,
    parties: Vec<HospitalId>,
    asked: BTreeMap<HospitalId, Instant>,
    standings: BTreeMap<HospitalId, Standing>,
    pause: Duration,
    /// How often in a row the destination said that it knows no such case.
    unknown: u32,
    presented_again: bool,
    troubled: bool,
}

impl Follower {
    fn new(session: &Session, number: CaseNumber) -> Self {
        let case = session.wallet.open_case(number).ok();
        Self {
            number,
            proof: case.and_then(|case| case.proof),
            parties: case.map(|case| parties(case).to_vec()).unwrap_or_default(),
            asked: BTreeMap::new(),
            standings: BTreeMap::new(),
            pause: OFTEN,
            unknown: 0,
            presented_again: false,
            troubled: false,
        }
    }

    /// Whether the destination does not know the case although the proof was presented to it twice: it says nothing to what it does
    /// not accept, and a letter may have been lost.
    fn is_unknown_there(&mut self, session: &mut Session) -> Result<bool, Failure> {
        let Ok(case) = session.wallet.open_case(self.number) else { return Ok(false) };
        let said = self.standings.get(&case.destination.hospital);
        if said.is_none_or(|said| said.state != "unknown") {
            self.unknown = 0;
            return Ok(false);
        }
        if self.unknown < UNKNOWN {
            return Ok(false);
        }
        if self.presented_again {
            return Ok(true);
        }
        (self.unknown, self.presented_again) = (0, true);
        session.wallet.present_again(self.number).map_err(wallet_failure)?;
        Ok(false)
    }

    /// Asks whoever has answered, or was asked too long ago.
    fn ask(&mut self, session: &mut Session) -> Result<(), Failure> {
        let Some(proof) = self.proof else { return Ok(()) };
        for at in &self.parties {
            let since = self.asked.get(at).map(Instant::elapsed);
            let pause = if session.wallet.is_asking(at, proof) { OVERDUE } else { self.pause };
            if since.is_some_and(|since| since < pause) {
                continue;
            }
            match session.wallet.ask(now(), at, Purpose::Watch { proof }) {
                Ok(_) => {}
                // A registration that has run out since does not end the case: it is followed without asking there.
                Err(WalletError::NotRegistered(_) | WalletError::RegistrationExpired(_)) => {}
                Err(error) => return Err(wallet_failure(error)),
            }
            self.asked.insert(at.clone(), Instant::now());
        }
        Ok(())
    }

    /// Waits until something concerns the case, or it is time to ask again.
    async fn hear(&mut self, session: &mut Session, left: Duration) -> Result<Option<Event>, Failure> {
        let (number, proof) = (self.number, self.proof);
        let heard = session.wait(left.min(self.pause), |received| event(received, number, proof)).await?;
        // Said once: nothing is lost, and it is tried again and again.
        let trouble = session.courier()?.trouble().map(ToString::to_string);
        if let (Some(trouble), false) = (&trouble, self.troubled) {
            session.console.note(format!("note: {trouble}; trying again"));
        }
        self.troubled = trouble.is_some();
        Ok(heard)
    }

    /// Tells people what has changed.
    fn told(&mut self, session: &Session, progress: &Progress, at: HospitalId, said: Standing) {
        let changed = self.standings.get(&at) != Some(&said);
        self.pause = if changed { OFTEN } else { (self.pause * 3 / 2).min(SELDOM) };
        if changed && said.state != "unknown" {
            progress.update(format!("{at}: {}", words::state(&said.state)));
            session.console.say(format!("{at}: {}", words::state(&said.state)));
        }
        // The source knows nothing before the destination has asked it; only the destination's word counts here.
        if said.state == "unknown" && self.parties.last() == Some(&at) {
            self.unknown += 1;
        }
        self.standings.insert(at, said);
    }

    fn said(&self) -> Vec<Standing> {
        self.parties.iter().filter_map(|at| self.standings.get(at).cloned()).collect()
    }
}

/// Says how a case ended. Filed is the only good end of a migration.
async fn ended(session: &mut Session, number: CaseNumber) -> Result<Exit, Failure> {
    stopped::ask(session, number).await?;
    let found = session.wallet.closed().iter().find(|case| case.number == number);
    let Some(closed) = found else { return Ok(Exit::Failed) };
    let summary = Summary::of(closed);
    session.console.say(summary.text().trim_end());
    session.console.say(format!("The receipt for paper: waybill patient receipt {number} --print"));
    session.console.json(&summary);
    Ok(if closed.outcome == Outcome::Ended(EndState::Filed) { Exit::Success } else { Exit::Failed })
}

fn still_open(session: &Session, number: CaseNumber, said: &[Standing]) -> Exit {
    if let Ok(case) = session.wallet.open_case(number) {
        let view = OpenView::of(case, said);
        session.console.say(view.text());
        session.console.say(format!("It is not over yet. Look on with `waybill patient watch {number}`, stop it with `waybill patient stop {number}`."));
        session.console.json(&view);
    }
    Exit::Failed
}

/// `waybill patient stop`.
///
/// # Errors
/// [`Failure`].
pub async fn stop(session: &mut Session, case: Option<&str>, wait: Duration) -> Result<Exit, Failure> {
    let number = match session.open_case(case) {
        Ok(number) => number,
        Err(failure) => match case.and_then(|case| session.closed_case(Some(case)).ok()) {
            Some(closed) => return Ok(was_stopped(session, closed.number)),
            None => return Err(failure),
        },
    };
    let stage = session.wallet.open_case(number).map_err(wallet_failure)?.stage;
    match stage {
        // Nobody holds a consent yet, so there is nothing to revoke.
        Stage::AwaitingVoucher | Stage::AwaitingProof => {
            session.wallet.forget(now(), number).map_err(wallet_failure)?;
            Ok(was_stopped(session, number))
        }
        Stage::Unacknowledged => Ok(too_late(session, number)),
        Stage::ProofHeld | Stage::AwaitingEnd => revoke(session, number, wait).await,
    }
}

async fn revoke(session: &mut Session, number: CaseNumber, wait: Duration) -> Result<Exit, Failure> {
    session.wallet.revoke(now(), number, RevocationReason::Withdrawn).map_err(wallet_failure)?;
    // An outdated trust delays reading the answer; it must not delay asking.
    let refreshed = session.refresh_trust().await;
    let progress = session.console.progress("asking the authority to stop it");
    let mut follower = Follower::new(session, number);
    follower.parties.retain(|at| session.wallet.open_case(number).is_ok_and(|case| case.destination.hospital == *at));
    let mut deadline = Instant::now() + wait;
    let mut key_is_out = false;
    while session.wallet.open_case(number).is_ok_and(|case| case.stage != Stage::Unacknowledged) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        follower.ask(session)?;
        if let Some(Event::Said(_, said)) = follower.hear(session, left).await?
            && matches!(said.state.as_str(), "key-held" | "filed" | "rejected")
            && !key_is_out
        {
            // The authority's own word follows when the destination has filed; who stops wants to know now.
            key_is_out = true;
            deadline = deadline.min(Instant::now() + GRACE);
        }
    }
    drop(progress);
    match session.wallet.open_case(number).map(|case| case.stage) {
        Err(_) => Ok(was_stopped(session, number)),
        Ok(stage) if key_is_out || stage == Stage::Unacknowledged => Ok(too_late(session, number)),
        Ok(_) => {
            let why = match refreshed {
                Err(failure) => failure,
                Ok(()) => session.courier()?.overdue(),
            };
            Err(why.hint(format!(
                "it is not known yet whether this came in time; the wish to stop is kept and sent again by `waybill patient stop {number}`"
            )))
        }
    }
}

/// Says of a case that is over whether it was stopped in time.
fn was_stopped(session: &Session, number: CaseNumber) -> Exit {
    let Some(closed) = session.wallet.closed().iter().find(|case| case.number == number) else { return Exit::Failed };
    let (in_time, sentence) = match closed.outcome {
        Outcome::Ended(EndState::Revoked) => {
            (true, "Stopped in time: the key was not released, so nothing of the record can be read.".to_owned())
        }
        Outcome::Abandoned => (true, "Given up before you had consented: nothing can move.".to_owned()),
        Outcome::Ended(EndState::Filed | EndState::Rejected | EndState::Unacknowledged) => {
            (false, format!("Too late: {} was given the key before.", closed.destination.hospital))
        }
        Outcome::Ended(EndState::Expired) | Outcome::Ended(EndState::Refused) | Outcome::Refused(_) => {
            (true, format!("It was over already, and nothing moved ({}).", closed.outcome.as_str()))
        }
    };
    session.console.say(&sentence);
    session.console.json(&json!({
        "case": number.ordinal(), "in_time": in_time, "outcome": closed.outcome.as_str(), "sentence": sentence,
        "proof": closed.proof.map(|proof| proof.to_string()),
    }));
    if in_time { Exit::Success } else { Exit::Failed }
}

/// Says of a case whose end is not signed yet that the key is out.
fn too_late(session: &Session, number: CaseNumber) -> Exit {
    let Ok(case) = session.wallet.open_case(number) else { return was_stopped(session, number) };
    let destination = &case.destination.hospital;
    let sentence = format!("Too late: {destination} was given the key before. Ask there what becomes of the record.");
    session.console.say(&sentence);
    session.console.json(&json!({
        "case": number.ordinal(), "in_time": false, "outcome": "open", "sentence": sentence,
        "proof": case.proof.map(|proof| proof.to_string()),
    }));
    Exit::Failed
}
