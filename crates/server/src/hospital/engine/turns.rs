//! What one patient may ask of the front desk: how often, how much at once, and what is kept of a walk for the page after it.
//!
//! A preview and a list of items walk a whole record. They are made beside the letters, a few at once and one a patient, so that a
//! patient who asks again and again waits for themselves. All of this is in memory: a letter whose answer is not committed is still in
//! the mailbox, and after a restart it is taken up again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use waybill_protocol::messages::Item;
use waybill_protocol::registrar::LocalPatient;
use waybill_record::types::ResourceType;

use crate::limits::{Rate, RateLimiter};

/// Walks at once.
const RUNNING: usize = 2;
/// Walks of one patient that run or wait.
const MOST_EACH: usize = 3;
/// Walks that run or wait in all: even the last is answered while its login is young.
const MOST: usize = 32;
/// What one patient may ask; watching a case costs nothing and is not counted.
const RATE: Rate = Rate { burst: 60, per_minute: 6 };
/// Patients whose rates are remembered.
const MAX_RATED: usize = 65_536;
/// Walks that are kept for their following pages.
const KEPT: usize = 8;
/// How long a walk is kept. Units: milliseconds.
const KEPT_MS: u64 = 60_000;
/// Items of one walk that are kept.
pub(super) const WINDOW: usize = 10_000;

/// A walk's items in the order of their ids, after one; and whether more follow them.
pub(super) struct Walk {
    pub(super) patient: LocalPatient,
    /// The scope that was listed, as text.
    pub(super) scope: String,
    pub(super) of_type: ResourceType,
    pub(super) after: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) more: bool,
    pub(super) at_ms: u64,
}

impl Walk {
    /// At most `most` items after one, and whether there are more; `None` when this walk does not reach there.
    pub(super) fn page(&self, after: Option<&str>, most: usize) -> Option<(Vec<Item>, bool)> {
        if after < self.after.as_deref() {
            return None;
        }
        let from = self.items.partition_point(|item| after.is_some_and(|after| item.id.as_str() <= after));
        let rest = &self.items[from..];
        if rest.is_empty() && self.more {
            return None;
        }
        Some((rest.iter().take(most).cloned().collect(), rest.len() > most || self.more))
    }
}

struct State {
    /// How many walks of each patient run or wait, and the lock that lets one run.
    patients: BTreeMap<LocalPatient, (usize, Arc<tokio::sync::Mutex<()>>)>,
    waiting: usize,
    /// Logins that are being answered: the same one twice at once is answered once.
    logins: BTreeSet<[u8; 16]>,
    walks: Vec<Arc<Walk>>,
}

struct Inner {
    state: Mutex<State>,
    running: Arc<Semaphore>,
    rate: RateLimiter<LocalPatient>,
}

/// The turns at the front desk.
#[derive(Clone)]
pub struct Turns(Arc<Inner>);

impl Default for Turns {
    fn default() -> Self {
        let (patients, logins) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Inner {
            state: Mutex::new(State { patients, waiting: 0, logins, walks: Vec::new() }),
            running: Arc::new(Semaphore::new(RUNNING)),
            rate: RateLimiter::new(RATE, MAX_RATED),
        }))
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns(patients redacted)")
    }
}

/// A login that is being answered.
pub(super) struct Answering(Turns, [u8; 16]);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.state().logins.remove(&self.1);
    }
}

/// A place among the walks that run or wait.
struct Place(Turns, LocalPatient);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if let Some((count, _)) = state.patients.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.patients.remove(&self.1);
            }
        }
    }
}

/// The right to walk a patient's record now. The fields are given back in this order, the place last.
pub(in crate::hospital) struct Turn {
    _running: OwnedSemaphorePermit,
    _alone: OwnedMutexGuard<()>,
    _place: Place,
}

impl Turns {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while holding the turns")
    }

    /// Begins to answer a login; `None` while the same one is being answered.
    pub(super) fn begin(&self, nonce: [u8; 16]) -> Option<Answering> {
        self.state().logins.insert(nonce).then(|| Answering(self.clone(), nonce))
    }

    /// Counts a question of a patient; false when there were too many.
    pub(super) fn admits(&self, patient: &LocalPatient, now_ms: u64) -> bool {
        self.0.rate.take(patient, now_ms).is_ok()
    }

    /// Waits for the right to walk a patient's record; `None` at once when too many wait already.
    pub(in crate::hospital) async fn wait(&self, patient: &LocalPatient) -> Option<Turn> {
        let (place, lock) = self.place(patient)?;
        // First alone, then running: who waits for their own earlier walk takes no room from others.
        let alone = lock.lock_owned().await;
        let running = self.0.running.clone().acquire_owned().await.expect("the semaphore is never closed");
        Some(Turn { _running: running, _alone: alone, _place: place })
    }

    /// How many walks run or wait.
    #[cfg(test)]
    pub(in crate::hospital) fn waiting(&self) -> usize {
        self.state().waiting
    }

    fn place(&self, patient: &LocalPatient) -> Option<(Place, Arc<tokio::sync::Mutex<()>>)> {
        let mut state = self.state();
        let held = state.patients.get(patient).map_or(0, |(count, _)| *count);
        if state.waiting >= MOST || held >= MOST_EACH {
            return None;
        }
        state.waiting += 1;
        let (count, lock) = state.patients.entry(patient.clone()).or_default();
        *count += 1;
        let lock = lock.clone();
        Some((Place(self.clone(), patient.clone()), lock))
    }

    /// Keeps a walk for its following pages; the oldest gives way.
    pub(super) fn keep(&self, walk: Walk) {
        let mut state = self.state();
        state.walks.retain(|kept| {
            walk.at_ms < kept.at_ms.saturating_add(KEPT_MS)
                && (&kept.patient, &kept.scope, kept.of_type) != (&walk.patient, &walk.scope, walk.of_type)
        });
        if state.walks.len() >= KEPT {
            state.walks.remove(0);
        }
        state.walks.push(Arc::new(walk));
    }

    /// A kept walk of a patient's items of a type within a scope.
    pub(super) fn kept(
        &self,
        patient: &LocalPatient,
        scope: &str,
        of_type: ResourceType,
        now_ms: u64,
    ) -> Option<Arc<Walk>> {
        let is_it = |walk: &&Arc<Walk>| {
            (&walk.patient, walk.scope.as_str(), walk.of_type) == (patient, scope, of_type)
                && now_ms < walk.at_ms.saturating_add(KEPT_MS)
        };
        self.state().walks.iter().find(is_it).cloned()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn patient(name: &str) -> LocalPatient {
        LocalPatient(name.to_owned())
    }

    #[tokio::test]
    async fn one_patient_waits_for_themselves_and_nobody_else_does() {
        let turns = Turns::default();
        let a = patient("a");
        let first = turns.wait(&a).await.unwrap();
        let (mut second, mut third) = (Box::pin(turns.wait(&a)), Box::pin(turns.wait(&a)));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert!(turns.wait(&a).now_or_never().unwrap().is_none(), "a fourth is refused at once");
        let other = turns.wait(&patient("b")).now_or_never().unwrap().unwrap();
        assert!(turns.wait(&patient("c")).now_or_never().is_none(), "two walks at once");
        drop(first);
        assert!((&mut second).now_or_never().unwrap().is_some());
        drop((other, second, third));
        assert!(turns.state().patients.is_empty() && turns.state().waiting == 0, "nothing is left behind");
    }

    #[test]
    fn questions_of_one_patient_are_counted() {
        let turns = Turns::default();
        let admitted = (0..100).filter(|_| turns.admits(&patient("a"), 0)).count();
        assert_eq!(admitted, 60);
        assert!(turns.admits(&patient("b"), 0));
        assert!(turns.admits(&patient("a"), 10_000));
    }

    #[test]
    fn a_walk_gives_its_pages_for_a_minute() {
        let turns = Turns::default();
        let conditions = ResourceType::parse("Condition").unwrap();
        let item = |id: &str| Item { id: id.to_owned(), date: None, title: None };
        let walk = |name: &str, more| Walk {
            patient: patient(name),
            scope: "all".to_owned(),
            of_type: conditions,
            after: None,
            items: ["a", "b", "c"].map(item).to_vec(),
            more,
            at_ms: 0,
        };
        turns.keep(walk("p", false));
        let kept = turns.kept(&patient("p"), "all", conditions, 59_999).unwrap();
        assert_eq!(kept.page(Some("a"), 1).unwrap(), (vec![item("b")], true));
        assert_eq!(kept.page(Some("b"), 1).unwrap(), (vec![item("c")], false));
        assert_eq!(kept.page(Some("c"), 1).unwrap(), (Vec::new(), false));
        assert!(walk("p", true).page(Some("c"), 1).is_none(), "more lies beyond what was kept");
        assert!(turns.kept(&patient("p"), "all", conditions, 60_000).is_none());
        assert!(turns.kept(&patient("q"), "all", conditions, 0).is_none());
        assert!(turns.kept(&patient("p"), "narrow", conditions, 0).is_none());
        for number in 0..KEPT {
            turns.keep(walk(&number.to_string(), false));
        }
        assert!(turns.kept(&patient("p"), "all", conditions, 0).is_none(), "the oldest gave way");
    }
}
