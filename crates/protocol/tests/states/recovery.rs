//! Whether anything that was lost, at any moment, can keep a case from ending.

use std::collections::VecDeque;
use std::sync::Arc;

use waybill_protocol::destination::MOST_ATTEMPTS;

use crate::hospitals::Step;
use crate::model::Waybill;
use crate::properties::is_over;
use crate::state::{State, Work};
use crate::things::Letter;

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
        self.deliver(state, state.outbox.iter().map(|(_, _, letter)| letter.clone()).collect());
        for (party, step) in self.steps(state, MOST_ATTEMPTS) {
            let willing = matches!(step, Step::Export | Step::Receive | Step::File | Step::Wake);
            if let Some(outcome) = self.outcome(state, party, &Work::Own(step)).filter(|_| willing) {
                self.commit(state, party, &outcome);
            }
        }
        let posted = std::mem::take(&mut state.letters);
        self.deliver(state, posted);
    }

    /// Each letter comes once, and what is posted because of it, too.
    fn deliver(&self, state: &mut State, letters: Vec<Arc<Letter>>) {
        let mut due = VecDeque::from(letters);
        loop {
            while let Some(letter) = due.pop_front() {
                if let Some(outcome) = self.outcome(state, letter.to, &Work::Letter(letter.clone())) {
                    self.commit(state, letter.to, &outcome);
                    due.extend(std::mem::take(&mut state.letters));
                }
            }
            if state.answered == state.log.value.len() {
                return;
            }
            self.publish(state);
            due.extend(std::mem::take(&mut state.letters));
        }
    }
}
