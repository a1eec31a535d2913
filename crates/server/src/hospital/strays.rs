//! Blobs in the own mailbox that no open session waits for: found, named in the log and thrown away, so that what nobody fetches
//! does not take the room that records need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waybill_protocol::migration::DestinationState as State;
use waybill_store::Address;

use super::engine::Engine;
use crate::mailbox::Inbox;
use crate::party::ServiceError;

/// How often the mailbox is looked through.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long a blob may lie before anybody is known to wait for it: its manifest may still be on its way. Units: seconds.
const PATIENCE_SECONDS: u64 = 3600;

/// Looks through the mailbox again and again until shutdown.
pub async fn run(engine: Engine, inbox: Arc<dyn Inbox>, shutdown: CancellationToken) {
    loop {
        match discard(&engine, inbox.as_ref()).await {
            Ok(gone) => {
                for (from, count) in gone {
                    tracing::warn!(from, count, "chunks that no open case waits for were thrown out of the mailbox");
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the mailbox could not be looked through");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Throws away every old blob whose sender is not the source of a case that still receives; tells how many of whom.
///
/// A source's chunks may come before its manifest names them, so it is the sender that decides, not the address.
///
/// # Errors
/// [`ServiceError`]; what was thrown away before stays so.
pub(super) async fn discard(engine: &Engine, inbox: &dyn Inbox) -> Result<BTreeMap<String, u64>, ServiceError> {
    let awaited = awaited(engine).await?;
    let oldest = engine.party.clock.now_seconds().saturating_sub(PATIENCE_SECONDS);
    let unavailable = |error| ServiceError::unavailable("the mailbox", error);
    let (mut gone, mut after) = (BTreeMap::new(), None);
    loop {
        let page = inbox.blobs(after.as_ref()).await.map_err(unavailable)?;
        let Some(last) = page.last() else { return Ok(gone) };
        after = Some(Address::from_bytes(*last.address));
        for entry in page {
            let is_awaited = entry.from.as_ref().is_some_and(|from| awaited.contains(from));
            if !is_awaited && entry.put_at < oldest {
                inbox.delete_blob(&Address::from_bytes(*entry.address)).await.map_err(unavailable)?;
                *gone.entry(entry.from.unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
            }
        }
    }
}

/// The sources of the cases in which a record may still come.
async fn awaited(engine: &Engine) -> Result<BTreeSet<String>, ServiceError> {
    let mut sources = BTreeSet::new();
    for id in engine.open_cases().await? {
        let Some((case, _)) = engine.destination_case(&id).await? else { continue };
        if matches!(case.state, State::Requested | State::Receiving | State::AttemptFailed) {
            sources.insert(case.source.as_str().to_owned());
        }
    }
    Ok(sources)
}
