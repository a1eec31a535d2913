//! Change signals, so that shells wait instead of polling.

use crate::{Op, Space};
use std::collections::BTreeSet;
use tokio::sync::watch;

/// A part of the store whose changes can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Items were enqueued or settled.
    Outbox,
    /// Timers were set or cleared.
    Timers,
    /// Leaves were appended.
    Leaves,
    /// Rows of this space were written or deleted.
    Space(Space),
}

/// One counter an area; it grows after each commit that touched the area.
///
/// A signal says "look again", not what changed, and is not kept over a restart.
pub struct Changes {
    areas: Vec<watch::Sender<u64>>,
}

impl Area {
    const fn index(self) -> usize {
        match self {
            Area::Outbox => 0,
            Area::Timers => 1,
            Area::Leaves => 2,
            Area::Space(space) => 3 + space.index(),
        }
    }

    /// The areas that `ops` touch.
    pub(crate) fn touched(ops: &[Op]) -> BTreeSet<Area> {
        let mut areas = BTreeSet::new();
        for op in ops {
            match op {
                Op::Put { space, .. } | Op::Delete { space, .. } | Op::DeletePrefix { space, .. } => {
                    areas.insert(Area::Space(*space));
                }
                Op::Promote { from_space, to_space, .. } => {
                    areas.insert(Area::Space(*from_space));
                    areas.insert(Area::Space(*to_space));
                }
                Op::Copy { to_space, .. } => {
                    areas.insert(Area::Space(*to_space));
                }
                Op::Require { .. } => {}
                Op::Enqueue(_) | Op::Settle { .. } | Op::Withdraw { .. } | Op::Attempted { .. } => {
                    areas.insert(Area::Outbox);
                }
                Op::SetTimer(_) | Op::ClearTimer { .. } => {
                    areas.insert(Area::Timers);
                }
                Op::AppendLeaf { .. } => {
                    areas.insert(Area::Leaves);
                }
            }
        }
        areas
    }
}

impl Changes {
    /// Counters at zero.
    pub fn new() -> Self {
        Self { areas: (0..3 + Space::ALL.len()).map(|_| watch::Sender::new(0)).collect() }
    }

    /// Watches an area; the current count is seen already.
    pub fn subscribe(&self, area: Area) -> watch::Receiver<u64> {
        self.areas[area.index()].subscribe()
    }

    /// Tells the watchers of every area in `areas`.
    pub fn notify(&self, areas: impl IntoIterator<Item = Area>) {
        for area in areas {
            self.areas[area.index()].send_modify(|count| *count += 1);
        }
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}
