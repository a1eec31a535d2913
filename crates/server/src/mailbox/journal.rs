//! The last parcels this process posted, by kind and size: for status pages and reports. Not durable, and no content.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use waybill_protocol::wire::Parcel;

use super::wire::MailboxUrl;

/// Most entries that are kept; the oldest goes first.
const MOST: usize = 4096;

/// One posted parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Its place since the process began, from 1.
    pub seq: u64,
    /// Its kind's name; `other` for what is no parcel.
    pub kind: String,
    /// The mailbox it went to.
    pub to: String,
    /// Its size. Units: bytes.
    pub size_bytes: u64,
}

/// The journal of one client.
#[derive(Debug, Default)]
pub struct Journal(Mutex<(u64, VecDeque<Posted>)>);

impl Journal {
    /// Notes a parcel that a mailbox accepted.
    pub(super) fn note(&self, to: &MailboxUrl, body: &[u8]) {
        let kind = Parcel::peek_kind(body).map_or_else(|| "other".to_owned(), |kind| format!("{kind:?}"));
        let mut inner = self.0.lock().expect("nobody panics while holding the journal");
        let (last, entries) = &mut *inner;
        *last += 1;
        entries.push_back(Posted { seq: *last, kind, to: to.to_string(), size_bytes: body.len() as u64 });
        if entries.len() > MOST {
            entries.pop_front();
        }
    }

    /// What was posted after an entry, oldest first.
    pub fn after(&self, seq: u64) -> Vec<Posted> {
        let inner = self.0.lock().expect("nobody panics while holding the journal");
        inner.1.iter().filter(|posted| posted.seq > seq).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_protocol::wire::Kind;

    #[test]
    fn entries_are_numbered_and_bounded() {
        let journal = Journal::default();
        let url: MailboxUrl = format!("https://relay.example/mailbox/{}", "0".repeat(64)).parse().unwrap();
        journal.note(&url, &Parcel::pack(Kind::Grant, &1u8));
        journal.note(&url, b"noise");
        let all = journal.after(0);
        assert_eq!((all[0].kind.as_str(), all[1].kind.as_str(), all[1].size_bytes), ("Grant", "other", 5));
        for _ in 0..MOST {
            journal.note(&url, b"");
        }
        let kept = journal.after(0);
        assert_eq!((kept.len(), kept[0].seq), (MOST, 3));
        assert_eq!(journal.after(kept[MOST - 1].seq), Vec::new());
    }
}
