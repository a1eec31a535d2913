//! A store in memory, for tests and simulation: the same guarantees except durability.

mod objects;

pub use objects::MemoryObjects;

use crate::batch::Promoted;
use crate::{
    Area, Batch, Changes, CommitError, Committed, DueItem, Expect, Key, Leaf, MAX_PAGE, Op, OutboxId, OutboxItem,
    Space, Store, StoreError, Timer, Versioned,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// A [`Store`] in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    failures: Mutex<VecDeque<CommitError>>,
    changes: Changes,
}

type Rows = BTreeMap<Key, Versioned>;

struct State {
    spaces: Vec<Rows>,
    outbox: BTreeMap<OutboxId, Queued>,
    timers: BTreeMap<Key, Timer>,
    leaves: Vec<Leaf>,
    sequence: u64,
}

#[derive(Clone)]
struct Queued {
    due: DueItem,
    next_at: u64,
    sequence: u64,
}

/// How to take back one step of a batch that fails later.
enum Undo {
    Row(Space, Key, Option<Versioned>),
    Item(OutboxId, Option<Queued>),
    Timer(Key, Option<Timer>),
    Leaf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            spaces: Space::ALL.iter().map(|_| Rows::new()).collect(),
            outbox: BTreeMap::new(),
            timers: BTreeMap::new(),
            leaves: Vec::new(),
            sequence: 0,
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a later commit fail with `error` without doing anything; calls queue up, one commit each.
    pub fn fail_next(&self, error: CommitError) {
        self.failures.lock().expect("no holder of this lock panics").push_back(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

fn under<'a>(rows: &'a Rows, prefix: &'a Key, after: Option<&Key>) -> impl Iterator<Item = (&'a Key, &'a Versioned)> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.clone()),
        _ => Bound::Included(prefix.clone()),
    };
    rows.range((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix))
}

impl State {
    fn put(&mut self, undo: &mut Vec<Undo>, space: Space, key: Key, row: Option<Versioned>) {
        let rows = &mut self.spaces[space.index()];
        let before = match row {
            Some(row) => rows.insert(key.clone(), row),
            None => rows.remove(&key),
        };
        undo.push(Undo::Row(space, key, before));
    }

    fn put_item(&mut self, undo: &mut Vec<Undo>, id: OutboxId, item: Option<Queued>) {
        let before = match item {
            Some(item) => self.outbox.insert(id, item),
            None => self.outbox.remove(&id),
        };
        undo.push(Undo::Item(id, before));
    }

    fn put_timer(&mut self, undo: &mut Vec<Undo>, key: Key, timer: Option<Timer>) {
        let before = match timer {
            Some(timer) => self.timers.insert(key.clone(), timer),
            None => self.timers.remove(&key),
        };
        undo.push(Undo::Timer(key, before));
    }

    /// The version of the row now (0 when absent), if it is as expected.
    fn expect(&self, space: Space, key: &Key, expect: Expect) -> Result<u64, CommitError> {
        let version = self.spaces[space.index()].get(key).map_or(0, |row| row.version);
        let met = match expect {
            Expect::Any => true,
            Expect::Absent => version == 0,
            Expect::Version(wanted) => version != 0 && version == wanted,
        };
        if met { Ok(version) } else { Err(CommitError::Conflict { space, key: key.clone(), expect }) }
    }

    fn copy(&mut self, undo: &mut Vec<Undo>, from: (Space, &Key), to: (Space, &Key), and_delete: bool) -> Promoted {
        let mut promoted = Promoted::default();
        let found: Vec<_> =
            under(&self.spaces[from.0.index()], from.1, None).map(|(k, row)| (k.clone(), row.value.clone())).collect();
        for (key, value) in found {
            let mut target = to.1.as_bytes().to_vec();
            target.extend_from_slice(&key.as_bytes()[from.1.as_bytes().len()..]);
            let target = Key::from_bytes(target);
            if self.spaces[to.0.index()].contains_key(&target) {
                promoted.already_held += 1;
            } else {
                promoted.moved += 1;
                self.put(undo, to.0, target, Some(Versioned { version: 1, value }));
            }
            if and_delete {
                self.put(undo, from.0, key, None);
            }
        }
        promoted
    }

    fn enqueue(&mut self, undo: &mut Vec<Undo>, item: OutboxItem) {
        let id = item.id();
        if !self.outbox.contains_key(&id) {
            self.sequence += 1;
            let next_at = item.not_before;
            let due = DueItem { id, item, attempts: 0, delivered: false };
            self.put_item(undo, id, Some(Queued { due, next_at, sequence: self.sequence }));
        }
    }

    fn attempted(&mut self, undo: &mut Vec<Undo>, id: OutboxId, next_at: u64, delivered: bool) {
        let Some(mut queued) = self.outbox.get(&id).cloned() else { return };
        if delivered && queued.due.item.settle_on_delivery {
            return self.put_item(undo, id, None);
        }
        queued.due.attempts += 1;
        queued.due.delivered |= delivered;
        queued.next_at = next_at;
        self.put_item(undo, id, Some(queued));
    }

    fn apply(&mut self, undo: &mut Vec<Undo>, done: &mut Committed, op: Op) -> Result<(), CommitError> {
        match op {
            Op::Put { space, key, value, expect } => {
                let version = self.expect(space, &key, expect)? + 1;
                self.put(undo, space, key, Some(Versioned { version, value }));
            }
            Op::Delete { space, key, expect } => {
                self.expect(space, &key, expect)?;
                self.put(undo, space, key, None);
            }
            Op::Require { space, key, expect } => {
                self.expect(space, &key, expect)?;
            }
            Op::Promote { from_space, from_prefix, to_space, to_prefix } => {
                done.promoted.push(self.copy(undo, (from_space, &from_prefix), (to_space, &to_prefix), true));
            }
            Op::Copy { from_space, from_prefix, to_space, to_prefix } => {
                done.promoted.push(self.copy(undo, (from_space, &from_prefix), (to_space, &to_prefix), false));
            }
            Op::DeletePrefix { space, prefix } => {
                let keys: Vec<_> =
                    under(&self.spaces[space.index()], &prefix, None).map(|(key, _)| key.clone()).collect();
                keys.into_iter().for_each(|key| self.put(undo, space, key, None));
            }
            Op::Enqueue(item) => self.enqueue(undo, item),
            Op::Settle { reply_key } => {
                let waiting = self.outbox.values().filter(|queued| queued.due.item.reply_key == reply_key);
                let ids: Vec<_> = waiting.map(|queued| queued.due.id).collect();
                ids.into_iter().for_each(|id| self.put_item(undo, id, None));
            }
            Op::Withdraw { id } => self.put_item(undo, id, None),
            Op::Attempted { id, next_at, delivered } => self.attempted(undo, id, next_at, delivered),
            Op::SetTimer(timer) => self.put_timer(undo, timer.key.clone(), Some(timer)),
            Op::ClearTimer { key } => self.put_timer(undo, key, None),
            Op::AppendLeaf { entry, note } => {
                let index = self.leaves.len() as u64;
                self.leaves.push(Leaf { index, entry, note });
                undo.push(Undo::Leaf);
                done.leaf_indexes.push(index);
            }
        }
        Ok(())
    }

    fn undo(&mut self, steps: Vec<Undo>) {
        for step in steps.into_iter().rev() {
            match step {
                Undo::Row(space, key, before) => {
                    let rows = &mut self.spaces[space.index()];
                    match before {
                        Some(row) => rows.insert(key, row),
                        None => rows.remove(&key),
                    };
                }
                Undo::Item(id, before) => {
                    match before {
                        Some(item) => self.outbox.insert(id, item),
                        None => self.outbox.remove(&id),
                    };
                }
                Undo::Timer(key, before) => {
                    match before {
                        Some(timer) => self.timers.insert(key, timer),
                        None => self.timers.remove(&key),
                    };
                }
                Undo::Leaf => {
                    self.leaves.pop();
                }
            }
        }
    }

    fn outbox(&self, limit: usize, wanted: impl Fn(&Queued) -> bool) -> Vec<DueItem> {
        let mut found: Vec<_> = self.outbox.values().filter(|queued| wanted(queued)).collect();
        found.sort_by_key(|queued| (queued.next_at, queued.sequence));
        found.into_iter().take(limit).map(|queued| queued.due.clone()).collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, space: Space, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.state().spaces[space.index()].get(key).cloned())
    }

    async fn scan(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let state = self.state();
        let rows = under(&state.spaces[space.index()], prefix, after);
        Ok(rows.take(limit.min(MAX_PAGE)).map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    async fn keys(
        &self,
        space: Space,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let state = self.state();
        let rows = under(&state.spaces[space.index()], prefix, after);
        Ok(rows.take(limit.min(MAX_PAGE)).map(|(key, _)| key.clone()).collect())
    }

    async fn count(&self, space: Space, prefix: &Key) -> Result<u64, StoreError> {
        Ok(under(&self.state().spaces[space.index()], prefix, None).count() as u64)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        batch.check().map_err(CommitError::Invalid)?;
        if let Some(error) = self.failures.lock().expect("no holder of this lock panics").pop_front() {
            return Err(error);
        }
        let areas = Area::touched(&batch.ops);
        let mut done = Committed::default();
        let mut state = self.state();
        let mut undo = Vec::new();
        for op in batch.ops {
            if let Err(error) = state.apply(&mut undo, &mut done, op) {
                state.undo(undo);
                return Err(error);
            }
        }
        drop(state);
        self.changes.notify(areas);
        Ok(done)
    }

    async fn outbox_due(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        Ok(self.state().outbox(limit.min(MAX_PAGE), |queued| queued.next_at <= now && queued.due.item.deadline > now))
    }

    async fn outbox_due_by_host(&self, now: u64, per_host: usize, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        let mut due = self.state().outbox(usize::MAX, |queued| queued.next_at <= now && queued.due.item.deadline > now);
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        due.retain(|due| {
            let taken = taken.entry(due.item.host().to_owned()).or_default();
            *taken += 1;
            *taken <= per_host
        });
        due.truncate(limit.min(MAX_PAGE));
        Ok(due)
    }

    async fn outbox_expired(&self, now: u64, limit: usize) -> Result<Vec<DueItem>, StoreError> {
        Ok(self.state().outbox(limit.min(MAX_PAGE), |queued| queued.due.item.deadline <= now))
    }

    async fn outbox_wake(&self, now: u64) -> Result<Option<u64>, StoreError> {
        let state = self.state();
        let live = state.outbox.values().filter(|queued| queued.due.item.deadline > now);
        Ok(live.map(|queued| queued.next_at).min())
    }

    async fn outbox_count(&self) -> Result<u64, StoreError> {
        Ok(self.state().outbox.len() as u64)
    }

    async fn timers_due(&self, now: u64, limit: usize) -> Result<Vec<Timer>, StoreError> {
        let mut due: Vec<_> = self.state().timers.values().filter(|timer| timer.at <= now).cloned().collect();
        due.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
        due.truncate(limit.min(MAX_PAGE));
        Ok(due)
    }

    async fn timers_wake(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.state().timers.values().map(|timer| timer.at).min())
    }

    async fn leaves(&self, from: u64, limit: usize) -> Result<Vec<Leaf>, StoreError> {
        let state = self.state();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(state.leaves.iter().skip(from).take(limit.min(MAX_PAGE)).cloned().collect())
    }

    async fn leaf_count(&self) -> Result<u64, StoreError> {
        Ok(self.state().leaves.len() as u64)
    }

    fn changed(&self, area: Area) -> watch::Receiver<u64> {
        self.changes.subscribe(area)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::conformance::store(async || MemoryStore::new()).await;
        crate::conformance::objects(async |quota: Option<u64>| MemoryObjects::with_quota(quota.unwrap_or(u64::MAX)))
            .await;
    }

    #[tokio::test]
    async fn an_injected_failure_fails_one_commit_and_stores_nothing() {
        let store = MemoryStore::new();
        let key = Key::build().text("a").done();
        let put = Batch::new("put").put(Space::Case, key.clone(), vec![], Expect::Any);
        store.fail_next(CommitError::Closed);
        assert!(matches!(store.commit(put.clone()).await, Err(CommitError::Closed)));
        assert_eq!(store.load(Space::Case, &key).await.unwrap(), None);
        store.commit(put).await.unwrap();
    }
}
