//! Removing what nobody fetched in time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waybill_protocol::wire::from_cbor;
use waybill_store::{Key, Space};

use super::rows::{BlobRow, MAX_BLOB_ROW_BYTES, address_of, mailbox_key, seq_of, seq_time_ms};
use super::service::{MailboxError, Mailboxes, decode_row};
use super::wire::MailboxId;

/// Rows looked at in one step.
const PAGE: usize = 256;

/// What one sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired mailboxes.
    pub mailboxes: u64,
    /// Messages past their retention.
    pub messages: u64,
    /// Blobs past their retention.
    pub blobs: u64,
}

impl Mailboxes {
    /// Removes expired mailboxes, and messages and blobs that have waited longer than the retention.
    pub async fn sweep(&self) -> Result<Swept, MailboxError> {
        self.sessions.sweep(self.clock.now_seconds());
        let mut swept = Swept::default();
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.scan(Space::Mailbox, &Key::empty(), after.as_ref(), PAGE).await?;
            for (key, found) in &page {
                let id: [u8; 32] = key.read().fixed().map_err(|_| MailboxError::Damaged)?;
                let id: MailboxId = hex::encode(id).parse().map_err(|_| MailboxError::Damaged)?;
                let row = decode_row(&found.value)?;
                if row.expires_at.is_some_and(|until| until <= self.clock.now_seconds()) {
                    self.delete(&id).await?;
                    swept.mailboxes += 1;
                } else {
                    self.sweep_mailbox(&id, &mut swept).await?;
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(swept),
            }
        }
    }

    async fn sweep_mailbox(&self, id: &MailboxId, swept: &mut Swept) -> Result<(), MailboxError> {
        let oldest_ms = self.clock.now_ms().saturating_sub(self.settings.retention_seconds * 1000);
        // Sequence numbers grow with time, so the old ones come first.
        while let Some(key) = self.store.keys(Space::Mail, &mailbox_key(id), None, 1).await?.first() {
            let seq = seq_of(id, key).ok_or(MailboxError::Damaged)?;
            if seq_time_ms(seq) >= oldest_ms {
                break;
            }
            match self.acknowledge(id, seq).await {
                Ok(()) => swept.messages += 1,
                Err(MailboxError::Absent) => {}
                Err(error) => return Err(error),
            }
        }
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.scan(Space::Blob, &mailbox_key(id), after.as_ref(), PAGE).await?;
            for (key, found) in &page {
                let blob: BlobRow =
                    from_cbor("blob row", &found.value, MAX_BLOB_ROW_BYTES).map_err(|_| MailboxError::Damaged)?;
                let address = address_of(id, key).ok_or(MailboxError::Damaged)?;
                if blob.put_at * 1000 < oldest_ms {
                    match self.delete_blob(id, &address).await {
                        Ok(()) => swept.blobs += 1,
                        Err(MailboxError::Absent) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Sweeps every `every` until `shutdown`.
    pub async fn sweep_regularly(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            match self.sweep().await {
                Ok(swept) if swept != Swept::default() => tracing::info!(?swept, "mailboxes swept"),
                Ok(_) => {}
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "sweeping mailboxes failed"),
            }
        }
    }
}
