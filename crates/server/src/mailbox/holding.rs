//! What a mailbox holds, as its owner sees it: how full it is, and which blobs wait.

use waybill_protocol::wire::from_cbor;
use waybill_store::{Address, Key, Space, Versioned};

use super::rows::{BlobRow, MAX_BLOB_ROW_BYTES, address_of, blob_key, mailbox_key};
use super::service::{MailboxError, Mailboxes};
use super::wire::{BlobEntry, Fill, MAX_BLOB_ENTRIES, MailboxId, Quota};

impl Mailboxes {
    /// The blobs of the mailbox in the order of their addresses, after one: what a transfer does not fetch is found by this alone.
    pub async fn blobs(&self, id: &MailboxId, after: Option<&Address>) -> Result<Vec<BlobEntry>, MailboxError> {
        self.load_mailbox(id).await?;
        let after = after.map(|address| blob_key(id, address));
        let page = self.store.scan(Space::Blob, &mailbox_key(id), after.as_ref(), MAX_BLOB_ENTRIES).await?;
        let entry = |(key, found): (Key, Versioned)| {
            let address = *address_of(id, &key).ok_or(MailboxError::Damaged)?.as_bytes();
            let row: BlobRow =
                from_cbor("blob row", &found.value, MAX_BLOB_ROW_BYTES).map_err(|_| MailboxError::Damaged)?;
            let BlobRow { size_bytes, put_at, from } = row;
            Ok(BlobEntry { address: address.into(), size_bytes, put_at, from })
        };
        page.into_iter().map(entry).collect()
    }

    /// What the mailbox holds and may hold.
    pub async fn fill(&self, id: &MailboxId) -> Result<Fill, MailboxError> {
        let (row, _) = self.load_mailbox(id).await?;
        let held = Quota {
            messages: row.messages,
            message_bytes: row.message_bytes,
            blobs: row.blobs,
            blob_bytes: row.blob_bytes,
        };
        Ok(Fill { held, most: self.quota(&row) })
    }
}
