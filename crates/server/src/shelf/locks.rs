//! One operation at a time on one case, many cases at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use waybill_store::Key;

/// Named locks that exist while somebody holds or awaits them.
#[derive(Default)]
pub(super) struct Locks(Mutex<BTreeMap<Key, Weak<Turn<()>>>>);

impl Locks {
    /// Waits until nobody else holds this name.
    pub async fn lock(locks: &Arc<Self>, name: Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut named = locks.0.lock().expect("no holder of this lock panics");
            named.retain(|_, turn| turn.strong_count() > 0);
            let turn = named.get(&name).and_then(Weak::upgrade).unwrap_or_default();
            named.insert(name, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}
