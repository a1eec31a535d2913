//! A state of the whole: the durable rows of authority, source and destination, and what is under way between them.

use std::fmt;
use std::sync::Arc;

use waybill_protocol::authority::AuthorityCase;
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::messages::EndState;
use waybill_protocol::migration::{DestinationState, SourceState};
use waybill_protocol::source::SourceCase;

use crate::bench::LATE;
use crate::common::NOW;
use crate::hospitals::Step;
use crate::things::{Letter, Log, Mark, Outcome, Party, Shared};

/// The pauses between attempts are over at once.
const PAUSES_SECONDS: u64 = 60;

/// What a party takes up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    Letter(Arc<Letter>),
    Own(Step),
}

impl Work {
    pub fn name(&self) -> u64 {
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

    pub fn row(&self, party: Party) -> u64 {
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

    pub fn post(&mut self, letter: &Arc<Letter>) {
        if let Err(at) = self.letters.binary_search_by_key(&letter.id, |l| l.id) {
            self.letters.insert(at, letter.clone());
        }
    }

    pub fn is_due(&self, party: Party) -> bool {
        let now = if self.late { LATE.0 } else { NOW.0 } + PAUSES_SECONDS;
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
