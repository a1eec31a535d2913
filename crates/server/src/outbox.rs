//! The sender: takes what is due out of the store's outbox and posts it until it is settled.
//!
//! Nothing is lost: an item leaves the outbox only when it is settled or delivered, which is the store's decision; a crash
//! between sending and noting sends again, which mailboxes and receivers bear. Nothing spins: the task sleeps until the next item is due
//! or the outbox changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::migration::Recipient;
use waybill_store::{Area, DueItem, Objects, OutboxId, OutboxItem, Store};

use crate::clock::Clock;
use crate::mailbox::{MailboxClient, MailboxUrl};
use crate::party::AddressBook;

/// Longest sleep, as a net under a lost signal or a clock that was set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What stands for the authority where an item names its receiver.
const AUTHORITY: &str = "authority";
/// What precedes a hospital's name there.
const HOSPITAL: &str = "hospital:";

/// The receiver of an item by name, to be looked up when it is sent; a patient's mailbox has none.
#[must_use]
pub fn name_of(to: &Recipient) -> Option<String> {
    match to {
        Recipient::Authority => Some(AUTHORITY.to_owned()),
        Recipient::Hospital(id) => Some(format!("{HOSPITAL}{id}")),
        Recipient::Mailbox(_) => None,
    }
}

fn named(to: &str) -> Option<Recipient> {
    if to == AUTHORITY {
        return Some(Recipient::Authority);
    }
    HospitalId::parse(to.strip_prefix(HOSPITAL)?).ok().map(Recipient::Hospital)
}
/// Most items looked at in one turn.
const MOST_DUE: usize = 256;

/// The items that are being sent, and to which host.
type UnderWay = BTreeMap<OutboxId, String>;

/// How the sender behaves.
#[derive(Debug, Clone, Copy)]
pub struct SenderOptions {
    /// Most exchanges at once.
    pub parallel: usize,
    /// Most exchanges with one host at once, so that one that is slow leaves room for the others.
    pub per_host: usize,
    /// Pause after the first failed attempt; doubles with each. Units: milliseconds.
    pub first_retry_ms: u64,
    /// Longest pause after failures. Units: milliseconds.
    pub longest_retry_ms: u64,
    /// Pause before a delivered but unanswered item is sent again; doubles with each attempt. Units: milliseconds.
    pub resend_ms: u64,
    /// Longest pause between resends. Units: milliseconds.
    pub longest_resend_ms: u64,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self {
            parallel: 32,
            per_host: 8,
            first_retry_ms: 500,
            longest_retry_ms: 60_000,
            resend_ms: 30_000,
            longest_resend_ms: 3_600_000,
        }
    }
}

/// Which mailboxes had no room when something was last sent there, so that people learn what a transfer waits for. Not durable.
#[derive(Debug, Clone, Default)]
pub struct FullMailboxes(Arc<Mutex<BTreeSet<(String, bool)>>>);

impl FullMailboxes {
    /// Most that are remembered; one more is only told in the log.
    const MOST: usize = 1024;

    /// Whether a mailbox had no room for chunks or messages.
    #[must_use]
    pub fn holds(&self, to: &str) -> bool {
        let full = self.0.lock().expect("nobody panics while holding the full mailboxes");
        [false, true].into_iter().any(|is_blob| full.contains(&(to.to_owned(), is_blob)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().expect("nobody panics while holding the full mailboxes").is_empty()
    }

    /// Notes how an attempt ended; true when the mailbox was not known to be full before.
    fn note(&self, item: &OutboxItem, is_full: bool) -> bool {
        let mut full = self.0.lock().expect("nobody panics while holding the full mailboxes");
        let entry = (item.to.clone(), item.blob.is_some());
        if is_full && full.len() < Self::MOST {
            return full.insert(entry);
        }
        full.remove(&entry);
        false
    }
}

/// Sends what the outbox holds.
pub struct Sender {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// Where blobs to send lie.
    pub objects: Arc<dyn Objects>,
    /// How to reach mailboxes.
    pub client: MailboxClient,
    /// Where the parties are whom items name; absent where items hold addresses only.
    pub book: Option<Arc<dyn AddressBook>>,
    /// For jitter.
    pub backend: Arc<dyn Backend>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Behaviour.
    pub options: SenderOptions,
    /// What it learns of full mailboxes.
    pub full: FullMailboxes,
}

impl Sender {
    /// Sends until `shutdown`; exchanges under way are finished first.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changed = self.store.changed(Area::Outbox);
        let mut under_way = UnderWay::new();
        let mut tasks: JoinSet<OutboxId> = JoinSet::new();
        while !shutdown.is_cancelled() {
            changed.mark_unchanged();
            let started = self.start_due(&mut under_way, &mut tasks).await;
            let sleep =
                if started { self.until_next(&under_way).await } else { LONGEST_SLEEP.min(Duration::from_secs(5)) };
            tokio::select! {
                () = shutdown.cancelled() => {}
                // Only with room: otherwise the next finished exchange is what to wait for.
                _ = changed.changed(), if under_way.len() < self.options.parallel => {}
                () = tokio::time::sleep(sleep), if under_way.len() < self.options.parallel => {}
                Some(done) = tasks.join_next(), if !tasks.is_empty() => self.finished(done, &mut under_way, &tasks),
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn finished(
        &self,
        done: Result<OutboxId, tokio::task::JoinError>,
        under_way: &mut UnderWay,
        tasks: &JoinSet<OutboxId>,
    ) {
        match done {
            Ok(id) => {
                under_way.remove(&id);
            }
            Err(error) => {
                tracing::error!(%error, "sending panicked");
                // Which item it was is unknown; with nothing else under way all marks are stale.
                if tasks.is_empty() {
                    under_way.clear();
                }
            }
        }
    }

    /// Starts exchanges for due items that none is under way for, the hosts in turn; false when the store does not answer.
    async fn start_due(self: &Arc<Self>, under_way: &mut UnderWay, tasks: &mut JoinSet<OutboxId>) -> bool {
        let room = self.options.parallel.saturating_sub(under_way.len());
        if room == 0 {
            return true;
        }
        let per_host = self.options.per_host;
        // Those under way are still due, so twice as many as may run show the next ones.
        let due = match self.store.outbox_due_by_host(self.clock.now_ms(), 2 * per_host, MOST_DUE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be read");
                return false;
            }
        };
        for item in in_turn(due, under_way, per_host).into_iter().take(room) {
            under_way.insert(item.id, item.item.host().to_owned());
            let sender = self.clone();
            tasks.spawn(async move {
                let id = item.id;
                sender.attempt(item).await;
                id
            });
        }
        true
    }

    /// How long nothing is due, apart from what is under way.
    async fn until_next(&self, under_way: &UnderWay) -> Duration {
        let now = self.clock.now_ms();
        match self.store.outbox_wake(now).await {
            Ok(Some(at)) if at > now => LONGEST_SLEEP.min(Duration::from_millis(at - now)),
            // Something is due but already under way: its end wakes the loop.
            Ok(Some(_)) if !under_way.is_empty() => LONGEST_SLEEP,
            Ok(Some(_)) => Duration::from_millis(50),
            Ok(None) => LONGEST_SLEEP,
            Err(_) => Duration::from_secs(5),
        }
    }

    async fn attempt(&self, due: DueItem) {
        let delivered = match self.send(&due).await {
            Ok(()) => {
                self.full.note(&due.item, false);
                true
            }
            Err(error) => {
                if self.full.note(&due.item, error.is_full()) {
                    tracing::warn!(kind = due.item.kind, "a recipient's mailbox is full; what is for it waits");
                }
                // Kinds and causes only: addresses of mailboxes stay out of logs.
                tracing::debug!(kind = due.item.kind, attempts = due.attempts, %error, "delivery failed; it will be tried again");
                false
            }
        };
        let next_at = self.clock.now_ms().saturating_add(self.pause_ms(due.attempts, delivered));
        let next_at = next_at.min(i64::MAX as u64);
        if let Err(error) = self.store.outbox_attempted(due.id, next_at, delivered).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an attempt could not be noted; it will be repeated"
            );
            // Without the note the item is still due: this pause is what keeps the loop from spinning.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn send(&self, due: &DueItem) -> Result<(), SendError> {
        let url = self.address(&due.item.to).await?;
        match &due.item.blob {
            None => self.client.post(&url, Bytes::from(due.item.body.clone())).await.map_err(SendError::Mailbox),
            Some(address) => {
                let bytes = self.objects.get(address).await.map_err(SendError::Object)?;
                self.client.put_blob(&url, address, bytes).await.map_err(SendError::Mailbox)
            }
        }
    }

    async fn address(&self, to: &str) -> Result<MailboxUrl, SendError> {
        let (Some(book), Some(party)) = (&self.book, named(to)) else { return to.parse().map_err(|_| SendError::Url) };
        let found = book.mailbox(&party).await.map_err(SendError::Book)?.ok_or(SendError::Unknown)?;
        found.parse().map_err(|_| SendError::Url)
    }

    /// The pause after an attempt: doubling, bounded, and spread over the upper half so that senders do not march in step.
    fn pause_ms(&self, attempts: u64, delivered: bool) -> u64 {
        let (first, longest) = if delivered {
            (self.options.resend_ms, self.options.longest_resend_ms)
        } else {
            (self.options.first_retry_ms, self.options.longest_retry_ms)
        };
        let full = first.saturating_mul(1 << attempts.min(20)).min(longest).max(2);
        let mut random = [0; 8];
        self.backend.random(&mut random);
        full / 2 + u64::from_be_bytes(random) % (full / 2 + 1)
    }
}

impl SendError {
    /// Whether the mailbox had no room (507).
    fn is_full(&self) -> bool {
        matches!(self, Self::Mailbox(error) if error.status() == Some(507))
    }
}

/// What is to be started next: each item by how many exchanges its host has before it, so that the hosts take turns.
fn in_turn(due: Vec<DueItem>, under_way: &UnderWay, per_host: usize) -> Vec<DueItem> {
    let mut before: BTreeMap<String, usize> = BTreeMap::new();
    for host in under_way.values() {
        *before.entry(host.clone()).or_default() += 1;
    }
    let mut turns: Vec<(usize, DueItem)> = Vec::new();
    for item in due.into_iter().filter(|item| !under_way.contains_key(&item.id)) {
        let before = before.entry(item.item.host().to_owned()).or_default();
        if *before < per_host {
            turns.push((*before, item));
            *before += 1;
        }
    }
    turns.sort_by_key(|(before, _)| *before);
    turns.into_iter().map(|(_, item)| item).collect()
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the outbox item names no mailbox")]
    Url,
    #[error("the registry cannot be asked where the receiver's mailbox is: {0}")]
    Book(crate::party::ServiceError),
    #[error("the receiver is not in the registry")]
    Unknown,
    #[error("the mailbox refuses or cannot be reached: {0}")]
    Mailbox(crate::mailbox::client::MailboxClientError),
    #[error("the blob to send cannot be read: {0}")]
    Object(waybill_store::ObjectError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_of_the_registry_are_named_and_their_names_read_back() {
        let hospital = Recipient::Hospital(HospitalId::parse("b.example").unwrap());
        for party in [Recipient::Authority, hospital] {
            let name = name_of(&party).unwrap();
            assert!(name.parse::<MailboxUrl>().is_err(), "no name is an address");
            assert_eq!(named(&name), Some(party));
        }
        assert_eq!(name_of(&Recipient::Mailbox("https://relay.example/x".into())), None);
        for other in ["https://relay.example/x", "hospital:", "b.example", ""] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
