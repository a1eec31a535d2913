//! Mailboxes: where opaque parcels wait for parties that only dial out (PROTOCOL section 5, "Mailboxes").
//!
//! A mailbox is named by the SHA-256 of a P-256 key. Anybody may post into it, within bounds; only who proves the key may read.
//! Blobs (sealed chunks) lie beside the messages under their SHA-256; they are taken from parties with a certificate only. The host is untrusted: what it holds is sealed and signed,
//! and it can lose, delay or repeat things, nothing more.
//!
//! The same service runs at a relay and, for its own mailbox alone, at the authority; the same [`inbox::Inbox`] reads from either.

pub mod client;
mod holding;
pub mod inbox;
pub mod journal;
mod reading;
mod routes;
mod rows;
pub mod service;
mod sessions;
mod sweep;
#[cfg(test)]
mod tests;
mod waiting;
pub mod wire;

pub use client::MailboxClient;
pub use inbox::{Disposal, Inbox, InboxError, LetterHandler, LocalInbox, RemoteInbox};
pub use reading::receive_loop;
pub use routes::{posting_router, router};
pub use service::{MailboxError, MailboxSettings, Mailboxes};
pub use sweep::Swept;
pub use wire::{BlobEntry, Fill, Letter, MailboxId, MailboxUrl, Quota};
