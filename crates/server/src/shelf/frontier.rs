//! What a closure reached and decided: in memory while it is small, in the store beyond that.

use std::collections::{BTreeMap, VecDeque};

use minicbor::{Decode, Encode};
use waybill_record::closure::{Decision, Frontier, NotMovable, Reached};
use waybill_record::pool::PoolError;
use waybill_record::resource::ResourceKey;
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::bridge::Bridge;
use super::error::ShelfError;
use super::rows;

/// Keys kept in memory before they are moved to the store; a key takes some hundred bytes.
const MAX_IN_MEMORY: usize = 8_000;
/// Reached keys read back at once.
const PAGE: usize = 1_000;

/// A frontier whose memory does not grow with the record.
///
/// Its rows are scratch: it clears them when it begins, and an interrupted closure begins again.
pub(super) struct StoreFrontier<'a> {
    bridge: &'a Bridge,
    work: Key,
    max_in_memory: usize,
    /// Known keys that are not in the store yet, or were decided since they were written.
    fresh: BTreeMap<ResourceKey, Option<Decision>>,
    /// The next undecided keys.
    head: VecDeque<Reached>,
    /// The last undecided keys, not in the store yet. Between head and tail lie those in the store.
    tail: VecDeque<Reached>,
    next_read: u64,
    next_write: u64,
    has_spilled: bool,
}

/// A decision as stored; `None` is a key that is reached only.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    size_bytes: Option<u64>,
    #[n(1)]
    is_own: bool,
    #[n(2)]
    reason: Option<u8>,
}

const REASONS: [NotMovable; 5] = [
    NotMovable::AnotherPatient,
    NotMovable::SharedWithOthers,
    NotMovable::NamesAnotherPatient,
    NotMovable::OwnerUnknown,
    NotMovable::Unreadable,
];

impl Row {
    fn of(decision: Option<Decision>) -> Self {
        match decision {
            None => Self { size_bytes: None, is_own: false, reason: None },
            Some(Decision::Movable { size_bytes, is_own }) => {
                Self { size_bytes: Some(size_bytes), is_own, reason: None }
            }
            Some(Decision::NotMovable(reason)) => {
                let number = REASONS.iter().position(|known| *known == reason).expect("every reason is in the list");
                Self { size_bytes: None, is_own: false, reason: u8::try_from(number).ok() }
            }
        }
    }

    fn decision(&self) -> Option<Decision> {
        match (self.size_bytes, self.reason) {
            (Some(size_bytes), None) => Some(Decision::Movable { size_bytes, is_own: self.is_own }),
            (_, Some(reason)) => REASONS.get(usize::from(reason)).map(|reason| Decision::NotMovable(*reason)),
            (None, None) => None,
        }
    }
}

impl<'a> StoreFrontier<'a> {
    /// An empty frontier; `work` names its scratch rows.
    pub fn new(bridge: &'a Bridge, work: Key) -> Result<Self, ShelfError> {
        Self::with_memory(bridge, work, MAX_IN_MEMORY)
    }

    pub(super) fn with_memory(bridge: &'a Bridge, work: Key, max_in_memory: usize) -> Result<Self, ShelfError> {
        let frontier = Self {
            bridge,
            work,
            max_in_memory,
            fresh: BTreeMap::new(),
            head: VecDeque::new(),
            tail: VecDeque::new(),
            next_read: 0,
            next_write: 0,
            has_spilled: false,
        };
        frontier.clear()?;
        Ok(frontier)
    }

    /// Throws the scratch rows away.
    pub fn clear(&self) -> Result<(), ShelfError> {
        if self.bridge.exists(Space::Frontier, &self.work)? {
            let op = Op::DeletePrefix { space: Space::Frontier, prefix: self.work.clone() };
            self.bridge.commit(Batch::new("shelf-frontier-clear").with(op))?;
        }
        Ok(())
    }

    fn known(&self) -> Key {
        self.work.extend().text("known").done()
    }

    fn queue(&self) -> Key {
        self.work.extend().text("queue").done()
    }

    /// What was decided on a key, nothing if it was not reached.
    pub fn decision(&self, key: &ResourceKey) -> Result<Option<Decision>, ShelfError> {
        match self.fresh.get(key) {
            Some(decision) => Ok(*decision),
            None => Ok(self.stored(key)?.and_then(|row| row.decision())),
        }
    }

    fn stored(&self, key: &ResourceKey) -> Result<Option<Row>, ShelfError> {
        if !self.has_spilled {
            return Ok(None);
        }
        let row = self.bridge.load(Space::Frontier, &rows::under(&self.known(), key))?;
        row.map(|row| rows::decode("closures", &row.value)).transpose()
    }

    fn spill_if_full(&mut self) -> Result<(), ShelfError> {
        if self.fresh.len() < self.max_in_memory {
            return Ok(());
        }
        let mut ops = Vec::new();
        let put = |key, value| Op::Put { space: Space::Frontier, key, value, expect: Expect::Any };
        for (key, decision) in std::mem::take(&mut self.fresh) {
            ops.push(put(rows::under(&self.known(), &key), rows::encode(&Row::of(decision))));
        }
        for reached in std::mem::take(&mut self.tail) {
            let from = reached.from.map(|from| from.to_string()).unwrap_or_default();
            let value = rows::encode(&(reached.key.to_string(), from));
            ops.push(put(self.queue().extend().number(self.next_write).done(), value));
            self.next_write += 1;
        }
        self.has_spilled = true;
        for part in ops.chunks(self.max_in_memory.clamp(1, 5_000)) {
            self.bridge.commit(Batch { name: "shelf-frontier", ops: part.to_vec() })?;
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<(), ShelfError> {
        if !self.head.is_empty() {
            return Ok(());
        }
        if self.next_read == self.next_write {
            std::mem::swap(&mut self.head, &mut self.tail);
            return Ok(());
        }
        let queue = self.queue();
        let after = self.next_read.checked_sub(1).map(|last| queue.extend().number(last).done());
        let scan = self.bridge.store.scan(Space::Frontier, &queue, after.as_ref(), PAGE);
        for (_, row) in self.bridge.handle.block_on(scan).map_err(ShelfError::from)? {
            let (key, from): (String, String) = rows::decode("closures", &row.value)?;
            let parse = |text: &str| text.parse().map_err(|_| ShelfError::Damaged("closures"));
            let from = if from.is_empty() { None } else { Some(parse(&from)?) };
            self.head.push_back(Reached { key: parse(&key)?, from });
            self.next_read += 1;
        }
        if self.head.is_empty() { Err(ShelfError::Damaged("closures")) } else { Ok(()) }
    }
}

impl Frontier for StoreFrontier<'_> {
    fn reach(&mut self, key: &ResourceKey, from: Option<&ResourceKey>) -> Result<bool, PoolError> {
        if self.is_known(key)? {
            return Ok(false);
        }
        self.fresh.insert(key.clone(), None);
        self.tail.push_back(Reached { key: key.clone(), from: from.cloned() });
        self.spill_if_full()?;
        Ok(true)
    }

    fn is_known(&self, key: &ResourceKey) -> Result<bool, PoolError> {
        Ok(self.fresh.contains_key(key) || self.stored(key)?.is_some())
    }

    fn next(&mut self) -> Result<Option<Reached>, PoolError> {
        self.bridge.check()?;
        self.refill()?;
        Ok(self.head.front().cloned())
    }

    fn decide(&mut self, key: &ResourceKey, decision: Decision) -> Result<(), PoolError> {
        if self.head.front().is_some_and(|first| first.key == *key) {
            self.head.pop_front();
        }
        self.fresh.insert(key.clone(), Some(decision));
        self.spill_if_full()?;
        Ok(())
    }

    fn decided(&self, after: Option<&ResourceKey>, limit: usize) -> Result<Vec<(ResourceKey, Decision)>, PoolError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut found = BTreeMap::new();
        if self.has_spilled {
            let known = self.known();
            let mut last = after.map(|after| rows::under(&known, after));
            // Undecided rows count for the page of the store but not for ours.
            while found.len() < limit {
                let scan = self.bridge.store.scan(Space::Frontier, &known, last.as_ref(), limit);
                let page = self.bridge.handle.block_on(scan).map_err(ShelfError::from)?;
                let is_last = page.len() < limit;
                for (key, row) in page {
                    let row: Row = rows::decode("closures", &row.value)?;
                    let resource = rows::resource_after(&key, &known, "closures")?;
                    if let Some(decision) = row.decision() {
                        found.insert(resource, decision);
                    }
                    last = Some(key);
                }
                if is_last {
                    break;
                }
            }
        }
        let complete_to = found.last_key_value().filter(|_| found.len() >= limit).map(|(key, _)| key.clone());
        for (key, decision) in self.fresh.range((after.map_or(Unbounded, Excluded), Unbounded)) {
            if complete_to.as_ref().is_some_and(|end| key > end) {
                break;
            }
            if let Some(decision) = decision {
                found.insert(key.clone(), *decision);
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }
}
