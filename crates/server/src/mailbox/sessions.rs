//! Who has proved which mailbox' key: tokens and nonces, bounded, in memory.
//!
//! A restart forgets them: owners prove their keys again, and a session request caught inside TLS could be replayed for the rest
//! of its time window, which opens sealed parcels to whoever already reads inside TLS.

use std::collections::BTreeMap;
use std::sync::Mutex;

use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;

use super::wire::{MailboxId, TIME_WINDOW_SECONDS};

/// How long a token is good for. Units: seconds.
pub(super) const TOKEN_SECONDS: u64 = 600;
/// Most tokens of one mailbox; the oldest gives way.
const MAX_TOKENS_PER_MAILBOX: usize = 8;
/// Most tokens, and most nonces, in all.
const MAX_ENTRIES: usize = 65_536;

/// No session can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionRefusal {
    /// The nonce was used before.
    Replayed,
    /// The tables are full.
    Crowded,
}

#[derive(Debug, Default)]
struct State {
    /// Hash of the token -> whose it is and until when; hashed so that a memory dump or a timing difference gives no token.
    tokens: BTreeMap<Digest, (MailboxId, u64)>,
    nonces: BTreeMap<(MailboxId, [u8; 16]), u64>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<State>);

impl Sessions {
    /// Spends a nonce and hands out a token; the caller has verified the signature.
    pub(super) fn open(
        &self,
        backend: &dyn Backend,
        id: MailboxId,
        nonce: [u8; 16],
        now: u64,
    ) -> Result<([u8; 32], u64), SessionRefusal> {
        let mut state = self.0.lock().expect("no panic happens under this lock");
        if state.nonces.contains_key(&(id, nonce)) {
            return Err(SessionRefusal::Replayed);
        }
        if state.nonces.len() >= MAX_ENTRIES || state.tokens.len() >= MAX_ENTRIES {
            state.nonces.retain(|_, until| *until > now);
            state.tokens.retain(|_, (_, until)| *until > now);
            if state.nonces.len() >= MAX_ENTRIES || state.tokens.len() >= MAX_ENTRIES {
                return Err(SessionRefusal::Crowded);
            }
        }
        state.nonces.insert((id, nonce), now + 2 * TIME_WINDOW_SECONDS + 1);
        let mine = |(hash, entry): (&Digest, &(MailboxId, u64))| (entry.0 == id).then_some((entry.1, *hash));
        let own: Vec<(u64, Digest)> = state.tokens.iter().filter_map(mine).collect();
        if own.len() >= MAX_TOKENS_PER_MAILBOX
            && let Some((_, oldest)) = own.iter().min()
        {
            state.tokens.remove(oldest);
        }
        let mut token = [0; 32];
        backend.random(&mut token);
        state.tokens.insert(sha256(&[&token]), (id, now + TOKEN_SECONDS));
        Ok((token, now + TOKEN_SECONDS))
    }

    /// Whether `token` reads mailbox `id` now.
    pub(super) fn admits(&self, id: &MailboxId, token: &[u8; 32], now: u64) -> bool {
        let state = self.0.lock().expect("no panic happens under this lock");
        state.tokens.get(&sha256(&[token])).is_some_and(|(owner, until)| owner == id && *until > now)
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&self, now: u64) {
        let mut state = self.0.lock().expect("no panic happens under this lock");
        state.nonces.retain(|_, until| *until > now);
        state.tokens.retain(|_, (_, until)| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use waybill_crypto::native::Native;

    use super::*;

    fn id(byte: u8) -> MailboxId {
        Digest([byte; 32]).to_string().parse().unwrap()
    }

    #[test]
    fn token_reads_its_mailbox_until_it_expires() {
        let sessions = Sessions::default();
        let (token, until) = sessions.open(&Native, id(1), [0; 16], 100).unwrap();
        assert!(sessions.admits(&id(1), &token, until - 1));
        assert!(!sessions.admits(&id(1), &token, until));
        assert!(!sessions.admits(&id(2), &token, 100));
        assert!(!sessions.admits(&id(1), &[0; 32], 100));
    }

    #[test]
    fn nonce_is_good_once_and_old_tokens_give_way() {
        let sessions = Sessions::default();
        let (first, _) = sessions.open(&Native, id(1), [0; 16], 100).unwrap();
        assert_eq!(sessions.open(&Native, id(1), [0; 16], 101), Err(SessionRefusal::Replayed));
        for nonce in 1..=8 {
            sessions.open(&Native, id(1), [nonce; 16], 101).unwrap();
        }
        assert!(!sessions.admits(&id(1), &first, 102));
        sessions.sweep(100_000);
        assert!(sessions.0.lock().unwrap().tokens.is_empty());
        assert!(sessions.0.lock().unwrap().nonces.is_empty());
    }
}
