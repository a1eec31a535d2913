//! Who waits for which mailbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::wire::MailboxId;

/// Most readers that wait for one mailbox at once.
const MAX_WAITERS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    mailboxes: Mutex<BTreeMap<MailboxId, (Arc<Notify>, usize)>>,
}

/// One reader's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    waiting: &'a Waiting,
    id: MailboxId,
    pub(super) notify: Arc<Notify>,
}

impl Waiting {
    /// Takes a place, unless too many wait already.
    pub(super) fn enter(&self, id: MailboxId) -> Option<Waiter<'_>> {
        let mut mailboxes = self.mailboxes.lock().expect("no panic happens under this lock");
        let (notify, count) = mailboxes.entry(id).or_default();
        if *count >= MAX_WAITERS {
            return None;
        }
        *count += 1;
        Some(Waiter { waiting: self, id, notify: notify.clone() })
    }

    /// Wakes everybody who waits for `id`.
    pub(super) fn wake(&self, id: &MailboxId) {
        if let Some((notify, _)) = self.mailboxes.lock().expect("no panic happens under this lock").get(id) {
            notify.notify_waiters();
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut mailboxes = self.waiting.mailboxes.lock().expect("no panic happens under this lock");
        if let Some((_, count)) = mailboxes.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                mailboxes.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let waiting = Waiting::default();
        let key = waybill_crypto::keys::Digest([1; 32]);
        let id: MailboxId = key.to_string().parse().unwrap();
        let mut places: Vec<_> = (0..MAX_WAITERS).map(|_| waiting.enter(id).unwrap()).collect();
        assert!(waiting.enter(id).is_none());
        places.pop();
        assert!(waiting.enter(id).is_some());
        drop(places);
        assert!(waiting.mailboxes.lock().unwrap().is_empty());
    }
}
