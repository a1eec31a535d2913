//! The loop that reads a mailbox and hands its letters to a handler.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::inbox::{Disposal, Inbox, InboxError, LetterHandler};
use super::wire::Letter;

/// How long one read waits for messages.
const WAIT: Duration = Duration::from_secs(25);
/// Backoff after failures and for letters that must be looked at again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Most letters that are dealt with beside the loop.
const BESIDE: usize = 64;

/// Reads `inbox` until `shutdown`: long polls, hands each letter to `handler`, removes what is done, backs off when the host is away.
///
/// A letter left for later is shown again after a pause; those behind it are dealt with meanwhile. A letter that takes long is dealt
/// with beside the loop. It is removed only when it is done, as every other, so that after a crash it is there again.
pub async fn receive_loop(inbox: Arc<dyn Inbox>, handler: Arc<dyn LetterHandler>, shutdown: CancellationToken) {
    let mut reading = Reading { inbox, handler, after: None, beside: JoinSet::new(), under_way: BTreeSet::new() };
    let mut pause = FIRST_PAUSE;
    loop {
        let inbox = reading.inbox.clone();
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(done) = reading.beside.join_next(), if !reading.beside.is_empty() => Ok(reading.finished(done)),
            letters = inbox.letters(reading.after, WAIT) => match letters {
                Ok(letters) => reading.deal_with(letters, &shutdown).await,
                Err(error) => Err(error),
            },
        };
        let calm = match outcome {
            Ok(all_done) => all_done,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the mailbox cannot be read; trying again");
                false
            }
        };
        if calm {
            pause = FIRST_PAUSE;
            continue;
        }
        reading.after = None;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Reading {
    inbox: Arc<dyn Inbox>,
    handler: Arc<dyn LetterHandler>,
    /// Everything up to here is done, or under way.
    after: Option<u64>,
    /// What is dealt with beside the loop; each tells its letter, and whether it is done and removed.
    beside: JoinSet<(u64, bool)>,
    under_way: BTreeSet<u64>,
}

impl Reading {
    /// Returns whether all letters are done or under way.
    async fn deal_with(&mut self, letters: Vec<Letter>, shutdown: &CancellationToken) -> Result<bool, InboxError> {
        let mut all_done = true;
        for letter in letters {
            if shutdown.is_cancelled() {
                return Ok(false);
            }
            let seq = letter.seq;
            if self.under_way.contains(&seq) {
                // Shown again because one before it was left for later.
            } else if self.handler.takes_long(&letter) {
                all_done &= self.begin(letter, shutdown).await;
            } else if self.handler.handle(&letter).await == Disposal::Later {
                // The others do not wait for it: handlers bear any order.
                all_done = false;
            } else {
                self.inbox.acknowledge(seq).await?;
            }
            if all_done {
                self.after = Some(seq);
            }
        }
        Ok(all_done)
    }

    /// Deals with a letter beside the loop; false when one that made room for it must be shown again.
    async fn begin(&mut self, letter: Letter, shutdown: &CancellationToken) -> bool {
        let mut calm = true;
        while self.beside.len() >= BESIDE {
            tokio::select! {
                () = shutdown.cancelled() => return false,
                Some(done) = self.beside.join_next() => calm &= self.finished(done),
            }
        }
        let (inbox, handler, seq) = (self.inbox.clone(), self.handler.clone(), letter.seq);
        self.under_way.insert(seq);
        self.beside.spawn(async move {
            let is_done = handler.handle(&letter).await == Disposal::Done;
            (seq, is_done && inbox.acknowledge(seq).await.is_ok())
        });
        calm
    }

    /// Returns whether a letter is done; otherwise it is shown again.
    fn finished(&mut self, done: Result<(u64, bool), JoinError>) -> bool {
        match done {
            Ok((seq, is_done)) => {
                self.under_way.remove(&seq);
                is_done
            }
            Err(error) => {
                tracing::error!(%error, "dealing with a letter panicked");
                // Which letter it was is unknown; with nothing else under way all marks are stale.
                if self.beside.is_empty() {
                    self.under_way.clear();
                }
                false
            }
        }
    }
}
