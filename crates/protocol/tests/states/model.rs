//! The model: the durable rows of authority, source and destination, what is under way between them, and everything that can happen.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};
use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::destination::{DestinationCase, MOST_ATTEMPTS};
use waybill_protocol::log::witness::judge_conflict;
use waybill_protocol::messages::EndState;
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::source::SourceCase;
use waybill_protocol::wire::Kind;

use crate::authority::{self, Around};
use crate::bench::{Bench, LATE};
use crate::common::NOW;
use crate::hospitals::{self, DestinationSide, SourceSide, Step};
use crate::things::{Letter, Log, Mark, Outcome, Party, Shared};
use crate::properties::is_over;
use crate::twins::Twin;

/// What the clock does, which all parties read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Still,
    /// It passes every deadline once.
    Passes,
    /// It passes every deadline and is set back, as often as it likes.
    Jumps,
}

/// What can happen in a run, beside what the parties do anyway.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Attempts that the destination makes.
    pub attempts: u32,
    pub clock: Clock,
    /// The destination is suspended, and reinstated.
    pub suspension: bool,
    /// The patient revokes.
    pub revocation: bool,
    /// The staff of either hospital stops the case.
    pub staff: bool,
    /// The destination turns a record away.
    pub rejection: bool,
    /// The destination's one-time key is lost.
    pub lost_key: bool,
    /// A request comes whose consent the patient did not sign.
    pub forgery: bool,
    /// One handler at a time may be slow: others commit before it does, or its party crashes and it never does.
    pub slow: bool,
    /// How often a party's store is restored from a backup of before the case.
    pub restores: u8,
}

/// Nothing but the parties and the network.
pub const CALM: Bounds = Bounds {
    attempts: 1,
    clock: Clock::Still,
    suspension: false,
    revocation: false,
    staff: false,
    rejection: false,
    lost_key: false,
    forgery: false,
    slow: false,
    restores: 0,
};

/// What a party takes up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    Letter(Arc<Letter>),
    Own(Step),
}

impl Work {
    fn name(&self) -> u64 {
        match self {
            Self::Letter(letter) => letter.id,
            Self::Own(step) => *step as u64,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// A party takes something up and commits.
    Do(Party, Work),
    /// A party takes something up and is slow.
    Begin(Party, Work),
    /// The slow handler commits, if the row is still the one it read.
    Commit,
    /// The party of the slow handler crashes.
    Crash,
    /// A checkpoint is cosigned, and the next answer it covers goes out.
    Publish,
    Clock,
    Suspend,
    Revoke,
    Restore(Party),
}

/// A handler that has run and not committed.
#[derive(Clone)]
pub struct Slow {
    pub party: Party,
    pub work: Work,
    pub outcome: Arc<Outcome>,
    /// The row that it read.
    pub read: u64,
}

/// One state of the whole.
#[derive(Clone)]
pub struct State {
    pub late: bool,
    pub suspended: bool,
    pub authority: Shared<AuthorityCase>,
    pub log: Arc<Log>,
    /// Leaves that a cosigned checkpoint covers and that are answered; the witnesses have seen so many.
    pub answered: usize,
    pub witnessed: usize,
    /// The authority does not serve: its witnesses have seen more than it holds.
    pub halted: bool,
    pub source: Option<Shared<SourceCase>>,
    pub known: Shared<String>,
    pub destination: Option<Shared<DestinationCase>>,
    pub one_time: bool,
    /// How often the record was made visible in the destination's store.
    pub stored: u8,
    /// A person vouched for the two patients.
    pub approved: bool,
    /// When each party's case is woken.
    pub timers: [Option<u64>; 3],
    /// How often each party's store was restored.
    pub lives: [u8; 3],
    /// Whatever was ever posted: it may come at any time, any number of times, in any order, or never.
    pub letters: Vec<Arc<Letter>>,
    /// What waits for an answer, by party and answer, and is posted again until it came.
    pub outbox: Vec<(Party, u64, Arc<Letter>)>,
    pub slow: Option<Slow>,
    // What happened, for the properties.
    pub source_ends: Vec<EndState>,
    pub destination_ends: Vec<EndState>,
    pub opened: Vec<u64>,
    pub marks: Vec<Mark>,
}

impl State {
    /// Everything that tells two states apart.
    fn key(&self) -> impl PartialEq + std::hash::Hash + '_ {
        let id = |row: &Option<u64>| row.unwrap_or(0);
        let rows = [
            self.authority.id,
            self.log.id,
            id(&self.source.as_ref().map(|row| row.id)),
            self.known.id,
            id(&self.destination.as_ref().map(|row| row.id)),
        ];
        let slow = self.slow.as_ref().map(|slow| (slow.party, slow.work.name(), slow.read));
        let ends = |ends: &[EndState]| ends.iter().fold(1_u64, |name, end| name * 8 + *end as u64);
        let flags = (self.late, self.suspended, self.halted, self.one_time, self.stored, self.approved);
        let happened = (ends(&self.source_ends), ends(&self.destination_ends), &self.opened, &self.marks);
        let mail = (&self.letters, &self.outbox);
        (rows, (self.answered, self.witnessed), flags, &self.timers, &self.lives, mail, slow, happened)
    }

    pub fn name(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(self, &mut hasher);
        std::hash::Hasher::finish(&hasher)
    }

    fn row(&self, party: Party) -> u64 {
        match party {
            Party::Authority => self.authority.id,
            Party::Source => self.source.as_ref().map_or(0, |row| row.id),
            Party::Destination => self.destination.as_ref().map_or(0, |row| row.id) ^ u64::from(self.one_time),
        }
    }

    pub fn source_state(&self) -> Option<SourceState> {
        self.source.as_ref().map(|row| row.value.state)
    }

    pub fn destination_state(&self) -> Option<DestinationState> {
        self.destination.as_ref().map(|row| row.value.state)
    }

    fn post(&mut self, letter: &Arc<Letter>) {
        if let Err(at) = self.letters.binary_search_by_key(&letter.id, |l| l.id) {
            self.letters.insert(at, letter.clone());
        }
    }

    fn is_due(&self, party: Party) -> bool {
        let now = if self.late { LATE.0 } else { NOW.0 + 60 };
        self.timers[party as usize].is_some_and(|at| at <= now)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl std::hash::Hash for State {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log: Vec<_> = self.log.value.iter().map(|entry| (entry.kind().0, entry.says.end)).collect();
        write!(
            f,
            "authority {:?}, log {log:?} answered {}, source {:?} told {:?}, destination {:?} told {:?}, stored {}, opened {:x?}, \
             letters {:?}, {:?}",
            self.authority.value.state,
            self.answered,
            self.source_state(),
            self.source_ends,
            self.destination_state(),
            self.destination_ends,
            self.stored,
            self.opened,
            self.letters,
            self.marks,
        )
    }
}

/// The model: a network, what can happen in it, and the mistake that its shell makes.
pub struct Waybill {
    bench: Arc<Bench>,
    pub bounds: Bounds,
    pub twin: Option<Twin>,
    /// States from which an end was reached.
    recovered: Mutex<HashSet<u64>>,
    properties: Vec<Property<Self>>,
}

impl Waybill {
    pub fn new(bench: &Arc<Bench>, bounds: Bounds, twin: Option<Twin>, properties: Vec<Property<Self>>) -> Self {
        Self { bench: bench.clone(), bounds, twin, recovered: Mutex::default(), properties }
    }

    /// Whether a person must compare the two patients.
    pub fn doubt(&self) -> bool {
        self.bench.doubt
    }

    fn is(&self, twin: Twin) -> bool {
        self.twin == Some(twin)
    }

    fn start(&self) -> State {
        let bench = &self.bench;
        let mut letters = vec![bench.presentation.clone()];
        letters.extend(self.bounds.forgery.then(|| bench.forged.clone()));
        letters.sort_by_key(|letter| letter.id);
        State {
            late: false,
            suspended: false,
            authority: bench.issued.clone(),
            log: bench.log.clone(),
            answered: 1,
            witnessed: 1,
            halted: false,
            source: None,
            known: bench.known.clone(),
            destination: None,
            one_time: false,
            stored: 0,
            approved: false,
            timers: [Some(bench.issued.value.terms.expires.0 + 1), None, None],
            lives: [0; 3],
            letters,
            outbox: Vec::new(),
            slow: None,
            source_ends: Vec::new(),
            destination_ends: Vec::new(),
            opened: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// What a party makes of something in this state: the role function, or what it gave for the same before.
    fn outcome(&self, state: &State, party: Party, work: &Work) -> Option<Arc<Outcome>> {
        let extra = match party {
            Party::Source => state.known.id,
            Party::Destination => u64::from(state.one_time),
            Party::Authority => 0,
        };
        let own = u64::from(matches!(work, Work::Own(_)));
        let asked = (
            self.twin,
            party,
            [state.row(party), extra, own],
            work.name(),
            (state.late, state.suspended, state.lives[party as usize]),
        );
        self.bench.remember(asked, || self.run(state, party, work))
    }

    fn around(&self, state: &State) -> Around {
        Around { late: state.late, suspended: state.suspended, twin: self.twin }
    }

    fn run(&self, state: &State, party: Party, work: &Work) -> Option<Outcome> {
        let (bench, around, life) = (&*self.bench, self.around(state), state.lives[party as usize]);
        match party {
            Party::Authority => match work {
                Work::Letter(letter) => authority::takes(bench, around, &state.authority.value, letter),
                Work::Own(_) => authority::wakes(bench, around, &state.authority.value),
            },
            Party::Source => {
                let case = state.source.as_ref().map(|row| &row.value);
                let side = SourceSide { case, known: &state.known.value, life };
                match work {
                    Work::Letter(letter) => hospitals::source_takes(bench, around, &side, letter),
                    Work::Own(step) => hospitals::source_does(bench, around, &side, *step),
                }
            }
            Party::Destination => {
                let case = state.destination.as_ref().map(|row| &row.value);
                let side = DestinationSide { case, one_time: state.one_time, life };
                match work {
                    Work::Letter(letter) => hospitals::destination_takes(bench, around, &side, letter),
                    Work::Own(step) => hospitals::destination_does(bench, around, &side, *step),
                }
            }
        }
    }

    /// One batch: rows, leaves, outbox and timer together.
    fn commit(&self, state: &mut State, party: Party, outcome: &Outcome) {
        if let Some(row) = &outcome.authority {
            state.authority = row.clone();
        }
        if let Some(row) = &outcome.source {
            let before = state.source.as_ref().and_then(|row| told(row.value.statement.as_ref()));
            let now = told(row.value.statement.as_ref());
            state.source_ends.extend(now.filter(|_| now != before));
            state.source = Some(row.clone());
        }
        if let Some(row) = &outcome.destination {
            let before = state.destination.as_ref().and_then(|row| told(row.value.statement.as_ref()));
            let now = told(row.value.statement.as_ref());
            state.destination_ends.extend(now.filter(|_| now != before));
            state.destination = Some(row.clone());
        }
        if let Some(known) = &outcome.known {
            state.known = known.clone();
        }
        state.one_time = outcome.one_time.unwrap_or(state.one_time);
        state.stored += u8::from(outcome.stored);
        state.approved |= outcome.approved;
        state.opened.extend(outcome.opened.filter(|session| !state.opened.contains(session)));
        self.append(state, outcome);
        if let Some(timer) = outcome.timer {
            state.timers[party as usize] = timer;
        }
        self.send(state, party, outcome);
        self.repeat(state, &outcome.repeats);
        let new = outcome.marks.iter().filter(|mark| !state.marks.contains(mark)).copied().collect::<Vec<_>>();
        state.marks.extend(new);
        state.marks.sort();
    }

    fn append(&self, state: &mut State, outcome: &Outcome) {
        if outcome.leaves.is_empty() {
            return;
        }
        let first = state.log.value.len();
        state.log = state.log.with(&outcome.leaves);
        if self.is(Twin::AnsweredUncosigned) {
            for index in first..state.log.value.len() {
                self.answer(state, index);
            }
        }
    }

    fn send(&self, state: &mut State, party: Party, outcome: &Outcome) {
        let settled = |(of, awaits, _): &(Party, u64, _)| *of == party && outcome.settles.contains(awaits);
        state.outbox.retain(|item| !settled(item));
        for (letter, awaits) in &outcome.posts {
            state.post(letter);
            let kept = awaits.filter(|_| !self.is(Twin::OutboxForgets));
            let Some(awaits) = kept else { continue };
            let item = (party, awaits, letter.clone());
            if let Err(at) = state.outbox.binary_search_by_key(&(party, awaits, letter.id), |(p, a, l)| (*p, *a, l.id)) {
                state.outbox.insert(at, item);
            }
        }
    }

    /// The newest answer of a kind that was sent goes out again.
    fn repeat(&self, state: &mut State, kinds: &[Kind]) {
        if self.is(Twin::AnswersOnce) {
            return;
        }
        for kind in kinds {
            let sent = (0..state.answered).rev().map(|index| self.answered(state, index));
            let newest = sent.into_iter().find(|answer| answer.posts.first().is_some_and(|(first, _)| first.kind == *kind));
            newest.iter().flat_map(|answer| &answer.posts).for_each(|(letter, _)| state.post(letter));
        }
    }

    /// What a leaf is answered by.
    fn answered(&self, state: &State, index: usize) -> Arc<Outcome> {
        let asked = (self.twin, Party::Authority, [state.log.id, index as u64, 2], 0, (state.late, false, 0));
        self.bench.remember(asked, || Some(authority::answers(&self.bench, self.around(state), &state.log, index))).unwrap()
    }

    fn answer(&self, state: &mut State, index: usize) {
        let outcome = self.answered(state, index);
        self.send(state, Party::Authority, &outcome);
        let new = outcome.marks.iter().filter(|mark| !state.marks.contains(mark)).copied().collect::<Vec<_>>();
        state.marks.extend(new);
    }

    /// A checkpoint over all leaves; then the answers in order, until one posts something.
    fn publish(&self, state: &mut State) {
        while state.answered < state.log.value.len() {
            let before = state.letters.len();
            self.answer(state, state.answered);
            state.answered += 1;
            if state.letters.len() > before {
                break;
            }
        }
        state.witnessed = state.witnessed.max(state.answered);
    }

    /// A store comes back as it was before the case. An authority asks its witnesses before it serves.
    fn restore(&self, state: &mut State, party: Party) {
        let start = self.start();
        state.lives[party as usize] += 1;
        state.outbox.retain(|(of, _, _)| *of != party);
        state.timers[party as usize] = start.timers[party as usize];
        match party {
            Party::Authority => {
                (state.authority, state.log, state.answered) = (start.authority, start.log, start.answered);
                let seen = format!("{}\n", state.witnessed);
                let own = state.log.value.len() as u64;
                state.halted = judge_conflict(own, seen.as_bytes()).is_err() && !self.is(Twin::RestoredUnchecked);
            }
            Party::Source => {
                (state.source, state.known) = (None, start.known);
                state.source_ends.clear();
            }
            Party::Destination => {
                (state.destination, state.one_time) = (None, false);
                state.destination_ends.clear();
            }
        }
    }

    /// A slow handler has run. What a twin does too early, it does here.
    fn begin(&self, state: &mut State, party: Party, work: &Work, outcome: Arc<Outcome>) {
        if self.is(Twin::StoredInFirstBatch) {
            state.stored += u8::from(outcome.stored);
        }
        if self.is(Twin::ReceiptBeforeCommit) {
            outcome.posts.iter().for_each(|(letter, _)| state.post(letter));
        }
        let mut read = state.row(party);
        if self.is(Twin::LeafInSecondBatch)
            && let Some(row) = &outcome.authority
        {
            state.authority = row.clone();
            read = row.id;
        }
        state.slow = Some(Slow { party, work: work.clone(), outcome, read });
    }

    fn finish(&self, state: &mut State, slow: &Slow) {
        state.slow = None;
        let skipped = self.is(Twin::SwapSkipped) && slow.party == Party::Authority;
        if state.row(slow.party) == slow.read || skipped {
            let mut outcome = Outcome::clone(&slow.outcome);
            outcome.stored &= !self.is(Twin::StoredInFirstBatch);
            self.commit(state, slow.party, &outcome);
        }
    }

    /// What a party may do of its own accord.
    fn steps(&self, state: &State, attempts: u32) -> Vec<(Party, Step)> {
        let (bounds, mut steps) = (&self.bounds, Vec::new());
        if !state.halted && state.is_due(Party::Authority) {
            steps.push((Party::Authority, Step::Wake));
        }
        if let Some(row) = &state.source {
            steps.extend((row.value.state == SourceState::Granted).then_some((Party::Source, Step::Export)));
            steps.extend(state.is_due(Party::Source).then_some((Party::Source, Step::Wake)));
            steps.extend(bounds.staff.then_some((Party::Source, Step::Stop)));
            let waits = row.value.state == SourceState::AwaitingReview;
            steps.extend(waits.then_some((Party::Source, Step::Approve)));
        }
        if let Some(row) = &state.destination {
            let add = |steps: &mut Vec<_>, when: bool, step| steps.extend(when.then_some((Party::Destination, step)));
            let case = &row.value;
            let held = case.state == DestinationState::KeyHeld || self.is(Twin::FiledBeforeKey);
            let over = matches!(case.state, DestinationState::Closed | DestinationState::Rejected);
            let last = case.state == DestinationState::AttemptFailed && case.attempt >= attempts;
            add(&mut steps, case.state == DestinationState::Receiving, Step::Receive);
            add(&mut steps, held, Step::File);
            add(&mut steps, held && bounds.rejection, Step::Reject);
            add(&mut steps, state.is_due(Party::Destination) && !last, Step::Wake);
            add(&mut steps, bounds.staff, Step::Stop);
            add(&mut steps, state.one_time && (bounds.lost_key && !over), Step::LoseKey);
        }
        steps
    }
}

impl Waybill {
    /// Whether the parties come to an end that all of them hold, from this state and without anything that is under way: all of it is
    /// lost, a slow handler has crashed, and from now on the network is fair. Parties post what waits for an answer, do what their
    /// rows ask for, and in the end time passes.
    ///
    /// With letters under way more is possible, not less; so nothing is missed by beginning without.
    pub fn recovers(&self, state: &State) -> bool {
        let (mut now, mut passed) = (State { letters: Vec::new(), slow: None, ..state.clone() }, Vec::new());
        // An authority that does not serve is its operator's matter, until the newest store is back.
        while !(state.halted || is_over(&now)) {
            let name = now.name();
            if self.recovered.lock().unwrap().contains(&name) {
                break;
            }
            if passed.contains(&name) {
                // Nothing new comes of it. Time may still help.
                if now.late {
                    return false;
                }
                now.late = true;
                continue;
            }
            passed.push(name);
            self.fair_round(&mut now);
        }
        self.recovered.lock().unwrap().extend(passed);
        true
    }

    fn fair_round(&self, state: &mut State) {
        let mut due: VecDeque<_> = state.outbox.iter().map(|(_, _, letter)| letter.clone()).collect();
        loop {
            while let Some(letter) = due.pop_front() {
                if let Some(outcome) = self.outcome(state, letter.to, &Work::Letter(letter.clone())) {
                    self.commit(state, letter.to, &outcome);
                    due.extend(std::mem::take(&mut state.letters));
                }
            }
            if state.answered == state.log.value.len() {
                break;
            }
            self.publish(state);
            due.extend(std::mem::take(&mut state.letters));
        }
        for (party, step) in self.steps(state, MOST_ATTEMPTS) {
            let willing = matches!(step, Step::Export | Step::Receive | Step::File | Step::Wake);
            if let Some(outcome) = self.outcome(state, party, &Work::Own(step)).filter(|_| willing) {
                self.commit(state, party, &outcome);
            }
        }
        // What was posted last is taken first in the next round; it is lost when it is not.
        let mut due: VecDeque<_> = std::mem::take(&mut state.letters).into();
        while let Some(letter) = due.pop_front() {
            if let Some(outcome) = self.outcome(state, letter.to, &Work::Letter(letter.clone())) {
                self.commit(state, letter.to, &outcome);
                due.extend(std::mem::take(&mut state.letters));
            }
        }
    }
}

fn told(statement: Option<&waybill_protocol::messages::StatementBody>) -> Option<EndState> {
    statement.map(|body| crate::things::message(&body.statement).state)
}

impl Model for Waybill {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let serves = |party| party != Party::Authority || !state.halted;
        let letters = state.letters.iter().filter(|letter| serves(letter.to)).cloned();
        let works = letters.map(|letter| (letter.to, Work::Letter(letter)));
        let works: Vec<_> =
            works.chain(self.steps(state, bounds.attempts).into_iter().map(|(party, step)| (party, Work::Own(step)))).collect();
        if bounds.slow {
            match state.slow {
                Some(_) => actions.extend([Action::Commit, Action::Crash]),
                None => actions.extend(works.iter().cloned().map(|(party, work)| Action::Begin(party, work))),
            }
        }
        actions.extend(works.into_iter().map(|(party, work)| Action::Do(party, work)));
        if state.answered < state.log.value.len() && !state.halted {
            actions.push(Action::Publish);
        }
        let may = bounds.clock == Clock::Jumps || bounds.clock == Clock::Passes && !state.late;
        actions.extend(may.then_some(Action::Clock));
        actions.extend(bounds.suspension.then_some(Action::Suspend));
        actions.extend(bounds.revocation.then_some(Action::Revoke));
        if state.lives.iter().sum::<u8>() < bounds.restores {
            actions.extend([Action::Restore(Party::Authority), Action::Restore(Party::Source)]);
            // What was filed and is lost with its store is the hospital's own backup's matter.
            actions.extend((state.stored == 0).then_some(Action::Restore(Party::Destination)));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Do(party, work) => {
                let outcome = self.outcome(state, party, &work)?;
                self.commit(&mut next, party, &outcome);
            }
            Action::Begin(party, work) => {
                let outcome = self.outcome(state, party, &work)?;
                self.begin(&mut next, party, &work, outcome);
            }
            Action::Commit => self.finish(&mut next, state.slow.as_ref()?),
            Action::Crash => next.slow = None,
            Action::Publish => self.publish(&mut next),
            Action::Clock => next.late = !next.late,
            Action::Suspend => next.suspended = !next.suspended,
            Action::Revoke => self.bench.revocations.iter().for_each(|letter| next.post(letter)),
            Action::Restore(party) => self.restore(&mut next, party),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties.clone()
    }
}
