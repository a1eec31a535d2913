//! The model: everything that can happen in a state, and what comes of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};
use waybill_protocol::log::witness::judge_conflict;
use waybill_protocol::messages::EndState;
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::wire::Kind;

use crate::authority::{self, Around};
use crate::bench::Bench;
use crate::bounds::{Bounds, Clock};
use crate::hospitals::{self, DestinationSide, SourceSide, Step};
use crate::state::{Action, Slow, State, Work};
use crate::things::{Outcome, Party};
use crate::twins::Twin;

/// The model: a network, what can happen in it, and the mistake that its shell makes.
pub struct Waybill {
    bench: Arc<Bench>,
    pub bounds: Bounds,
    pub twin: Option<Twin>,
    /// States from which an end was reached.
    pub recovered: Mutex<HashSet<u64>>,
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
    pub fn outcome(&self, state: &State, party: Party, work: &Work) -> Option<Arc<Outcome>> {
        let extra = match party {
            Party::Source => state.known.id,
            Party::Destination => u64::from(state.one_time),
            Party::Authority => 0,
        };
        let own = u64::from(matches!(work, Work::Own(_)));
        let asked = (
            self.twin_at(party),
            party,
            [state.row(party), extra, own],
            work.name(),
            (state.late, state.suspended, state.lives[party as usize]),
        );
        self.bench.remember(asked, || self.run(state, party, work))
    }

    fn twin_at(&self, party: Party) -> Option<Twin> {
        self.twin.filter(|twin| twin.alters(party))
    }

    fn around(&self, state: &State, party: Party) -> Around {
        Around { late: state.late, suspended: state.suspended, twin: self.twin_at(party) }
    }

    fn run(&self, state: &State, party: Party, work: &Work) -> Option<Outcome> {
        let (bench, around, life) = (&*self.bench, self.around(state, party), state.lives[party as usize]);
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
    pub fn commit(&self, state: &mut State, party: Party, outcome: &Outcome) {
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
        if let Some(timer) = outcome.timer.filter(|timer| timer.is_some() || !self.is(Twin::EndNotKept)) {
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
            if let Err(at) = state.outbox.binary_search_by_key(&(party, awaits, letter.id), |(p, a, l)| (*p, *a, l.id))
            {
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
            let newest =
                sent.into_iter().find(|answer| answer.posts.first().is_some_and(|(first, _)| first.kind == *kind));
            newest.iter().flat_map(|answer| &answer.posts).for_each(|(letter, _)| state.post(letter));
        }
    }

    /// What a leaf is answered by.
    fn answered(&self, state: &State, index: usize) -> Arc<Outcome> {
        let asked = (
            self.twin_at(Party::Authority),
            Party::Authority,
            [state.log.id, index as u64, 2],
            0,
            (state.late, false, 0),
        );
        self.bench
            .remember(asked, || {
                Some(authority::answers(&self.bench, self.around(state, Party::Authority), &state.log, index))
            })
            .unwrap()
    }

    fn answer(&self, state: &mut State, index: usize) {
        let outcome = self.answered(state, index);
        self.send(state, Party::Authority, &outcome);
        let new = outcome.marks.iter().filter(|mark| !state.marks.contains(mark)).copied().collect::<Vec<_>>();
        state.marks.extend(new);
    }

    /// A checkpoint over all leaves; then the answers in order, until one posts something.
    pub fn publish(&self, state: &mut State) {
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
    pub fn steps(&self, state: &State, attempts: u32) -> Vec<(Party, Step)> {
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
        let works: Vec<_> = works
            .chain(self.steps(state, bounds.attempts).into_iter().map(|(party, step)| (party, Work::Own(step))))
            .collect();
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
