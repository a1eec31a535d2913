//! How mailboxes lie in the store.
//!
//! `Mailbox`: id -> [`MailboxRow`]. `Mail`: (id, seq) -> body. `Blob`: (id, address) -> [`BlobRow`].
//! `Unique`: ("mail", id, hash) -> seq, so that a message waits once; ("blob", address, id), so that an object is deleted with its
//! last reference; ("mailbox", owner, id), so that a party's mailboxes can be counted.

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, VerifyingKey};
use waybill_store::{Address, Key};

use super::wire::MailboxId;

/// What a mailbox may hold, by who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Class {
    /// Asked for without a certificate: small, expires.
    #[n(0)]
    Small,
    /// Asked for by a party with a certificate.
    #[n(1)]
    Large,
}

/// A mailbox and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct MailboxRow {
    #[n(0)]
    pub(super) public_key: VerifyingKey,
    #[n(1)]
    pub(super) class: Class,
    /// Unix seconds; `None` never expires.
    #[n(2)]
    pub(super) expires_at: Option<u64>,
    #[n(3)]
    pub(super) last_seq: u64,
    #[n(4)]
    pub(super) messages: u64,
    #[n(5)]
    pub(super) message_bytes: u64,
    #[n(6)]
    pub(super) blobs: u64,
    #[n(7)]
    pub(super) blob_bytes: u64,
    #[n(8)]
    pub(super) owner: Option<String>,
}

/// A blob in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct BlobRow {
    #[n(0)]
    pub(super) size_bytes: u64,
    /// Unix seconds.
    #[n(1)]
    pub(super) put_at: u64,
    /// The party that put it first; none in rows of an earlier version.
    #[n(2)]
    pub(super) from: Option<String>,
}

/// Largest blob row: two numbers and a DNS name. Units: bytes.
pub(super) const MAX_BLOB_ROW_BYTES: usize = 512;

/// A sequence number carries the time of its message, so that old ones are found by their keys alone.
const SEQ_BITS: u32 = 10;

/// The next sequence number after `last` at `now_ms`; grows also when the clock steps back or the mailbox was made again.
pub(super) fn next_seq(last: u64, now_ms: u64) -> u64 {
    (now_ms << SEQ_BITS).max(last + 1)
}

/// When the message of a sequence number was posted (never later than it was). Units: milliseconds.
pub(super) fn seq_time_ms(seq: u64) -> u64 {
    seq >> SEQ_BITS
}

pub(super) fn mailbox_key(id: &MailboxId) -> Key {
    Key::build().fixed(id.as_bytes()).done()
}

pub(super) fn mail_key(id: &MailboxId, seq: u64) -> Key {
    Key::build().fixed(id.as_bytes()).number(seq).done()
}

pub(super) fn seq_of(id: &MailboxId, key: &Key) -> Option<u64> {
    key.read_after(&mailbox_key(id))?.number().ok()
}

pub(super) fn blob_key(id: &MailboxId, address: &Address) -> Key {
    Key::build().fixed(id.as_bytes()).fixed(address.as_bytes()).done()
}

pub(super) fn address_of(id: &MailboxId, key: &Key) -> Option<Address> {
    key.read_after(&mailbox_key(id))?.fixed().ok().map(Address::from_bytes)
}

pub(super) fn same_mail_key(id: &MailboxId, hash: &Digest) -> Key {
    Key::build().text("mail").fixed(id.as_bytes()).fixed(hash.as_bytes()).done()
}

pub(super) fn references_prefix(address: &Address) -> Key {
    Key::build().text("blob").fixed(address.as_bytes()).done()
}

pub(super) fn reference_key(address: &Address, id: &MailboxId) -> Key {
    references_prefix(address).extend().fixed(id.as_bytes()).done()
}

pub(super) fn owner_prefix(owner: &str) -> Key {
    Key::build().text("mailbox").text(owner).done()
}

pub(super) fn owner_key(owner: &str, id: &MailboxId) -> Key {
    owner_prefix(owner).extend().fixed(id.as_bytes()).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_grow_and_tell_the_time() {
        let first = next_seq(0, 1_800_000_000_123);
        assert_eq!(seq_time_ms(first), 1_800_000_000_123);
        assert_eq!(next_seq(first, 1_800_000_000_123), first + 1);
        assert_eq!(next_seq(first, 5), first + 1, "a clock that steps back");
    }
}
