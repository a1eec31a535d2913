//! Removes what has outlived its use, so that nothing grows without bound.

use std::time::Duration;

use minicbor::Decode;
use tokio_util::sync::CancellationToken;
use waybill_protocol::registrar::{EnrolmentCode, LOGIN_WINDOW_SECONDS};
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::{Party, ServiceError};

/// How often is swept.
const INTERVAL: Duration = Duration::from_secs(600);
/// Most rows of one batch.
const PAGE: usize = 1000;

/// Sweeps until shutdown.
pub async fn run(party: Party, shutdown: CancellationToken) {
    loop {
        if let Err(error) = sweep(&party).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sweeping waits");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// One pass: outbox items past their deadline, nonces past their window, enrolment codes past their time.
///
/// # Errors
/// [`ServiceError`].
pub async fn sweep(party: &Party) -> Result<(), ServiceError> {
    withdraw_expired(party).await?;
    forget_nonces(party).await?;
    forget_codes(party).await
}

async fn withdraw_expired(party: &Party) -> Result<(), ServiceError> {
    loop {
        let expired = party.store.outbox_expired(party.clock.now_ms(), PAGE).await?;
        if expired.is_empty() {
            return Ok(());
        }
        for item in &expired {
            tracing::warn!(kind = %item.item.kind, attempts = item.attempts, "gave up sending: nobody answered in time");
        }
        let ops = expired.iter().map(|item| Op::Withdraw { id: item.id }).collect();
        party.store.commit(Batch { name: "outbox-withdraw", ops }).await?;
    }
}

/// Nonces are filed under their minute; those of twice the login window ago can no longer be replayed.
async fn forget_nonces(party: &Party) -> Result<(), ServiceError> {
    let oldest = (party.clock.now_seconds().saturating_sub(4 * LOGIN_WINDOW_SECONDS)) / 60;
    forget(party, Space::Nonce, "nonces-forgotten", |key, _| key.read().number().is_ok_and(|minute| minute < oldest))
        .await
}

async fn forget_codes(party: &Party) -> Result<(), ServiceError> {
    let now = party.ctx().now;
    let is_over = |_: &Key, value: &[u8]| {
        let code = EnrolmentCode::decode(&mut minicbor::Decoder::new(value), &mut ());
        code.is_ok_and(|code| code.expires < now)
    };
    forget(party, Space::Enrolment, "codes-forgotten", is_over).await
}

async fn forget(
    party: &Party,
    space: Space,
    name: &'static str,
    is_over: impl Fn(&Key, &[u8]) -> bool,
) -> Result<(), ServiceError> {
    let mut after = None;
    loop {
        let page = party.store.scan(space, &Key::empty(), after.as_ref(), PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let over = page.iter().filter(|(key, row)| is_over(key, &row.value));
        let ops: Vec<Op> = over.map(|(key, _)| Op::Delete { space, key: key.clone(), expect: Expect::Any }).collect();
        if !ops.is_empty() {
            party.store.commit(Batch { name, ops }).await?;
        }
    }
}
