//! Wakes cases when their deadlines come.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use waybill_crypto::keys::Digest;
use waybill_store::{Area, Timer};

use super::{Party, ServiceError};

/// Somebody with deadlines.
#[async_trait]
pub trait Sleeper: Send + Sync {
    /// The deadline of a case has come. The handler clears or moves the timer in the batch that acts on it.
    async fn wake(&self, case: Digest) -> Result<(), ServiceError>;
}

/// Longest sleep, so that a clock that was set back is noticed. Units: milliseconds.
const LONGEST_MS: u64 = 60_000;

/// Wakes cases until shutdown.
pub async fn run(party: Party, sleeper: Arc<dyn Sleeper>, shutdown: CancellationToken) {
    let mut changed = party.store.changed(Area::Timers);
    loop {
        changed.borrow_and_update();
        let now = party.clock.now_ms();
        match party.store.timers_due(now, 100).await {
            Ok(due) => {
                for timer in due {
                    wake(&*sleeper, &timer).await;
                }
            }
            Err(error) => tracing::error!(%error, "deadlines cannot be read"),
        }
        let next = party
            .store
            .timers_wake()
            .await
            .ok()
            .flatten()
            .map_or(LONGEST_MS, |at| at.saturating_sub(party.clock.now_ms()));
        // A timer that stays due after its handler failed is looked at again in a second, not in a spin.
        let pause = Duration::from_millis(next.clamp(1_000, LONGEST_MS));
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = changed.changed() => tokio::time::sleep(Duration::from_millis(50)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn wake(sleeper: &dyn Sleeper, timer: &Timer) {
    let Ok(case) = <[u8; 32]>::try_from(timer.payload.as_slice()) else {
        tracing::error!("a timer names no case");
        return;
    };
    if let Err(error) = sleeper.wake(Digest(case)).await {
        tracing::warn!(%error, "a deadline could not be acted on; it is tried again");
    }
}
