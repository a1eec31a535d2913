//! Who has proved which mailbox' key: tokens and nonces, bounded, in memory.
//!
//! Every session is counted against where it came from: one network or one party takes a small share, and all networks together
//! leave room for parties with a certificate, so that a flood of strangers does not shut a hospital out of its mailbox.
//!
//! A restart forgets them: owners prove their keys again, and a session request caught inside TLS could be replayed for the rest
//! of its time window, which opens sealed parcels to whoever already reads inside TLS.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::Digest;

use super::wire::{MailboxId, TIME_WINDOW_SECONDS};
use crate::net::peer::Origin;

/// How long a token is good for. Units: seconds.
pub(super) const TOKEN_SECONDS: u64 = 600;
/// Most tokens of one mailbox; the oldest gives way.
const MAX_TOKENS_PER_MAILBOX: usize = 8;
/// How long a nonce is remembered: longer than a token is good for, so what bounds nonces bounds tokens. Units: seconds.
const NONCE_SECONDS: u64 = 2 * TIME_WINDOW_SECONDS + 1;

/// How many sessions of the last ten minutes are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// From one network or of one party.
    pub(super) each: usize,
    /// From everybody without a certificate.
    pub(super) strangers: usize,
    /// In all.
    pub(super) all: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { each: 2_048, strangers: 98_304, all: 131_072 }
    }
}

/// No session can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionRefusal {
    /// The nonce was used before.
    Replayed,
    /// This caller's share is used up, or everybody's.
    Crowded,
}

#[derive(Debug, Default)]
struct State {
    /// Hash of the token -> whose it is and until when; hashed so that a memory dump or a timing difference gives no token.
    tokens: BTreeMap<Digest, (MailboxId, u64)>,
    /// The tokens of each mailbox, oldest first.
    of_mailbox: BTreeMap<MailboxId, VecDeque<Digest>>,
    nonces: BTreeMap<(MailboxId, [u8; 16]), (Origin, u64)>,
    /// How many nonces each caller holds.
    held: BTreeMap<Origin, usize>,
    /// How many callers without a certificate hold.
    strangers: usize,
    /// When expired ones were last looked for.
    swept_at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    bounds: Bounds,
    state: Mutex<State>,
}

impl Sessions {
    /// Spends a nonce and hands out a token; the caller has verified the signature.
    pub(super) fn open(
        &self,
        backend: &dyn Backend,
        id: MailboxId,
        nonce: [u8; 16],
        origin: Origin,
        now: u64,
    ) -> Result<([u8; 32], u64), SessionRefusal> {
        let mut state = self.state.lock().expect("no panic happens under this lock");
        if state.nonces.contains_key(&(id, nonce)) {
            return Err(SessionRefusal::Replayed);
        }
        // Once a second at most: a flood must not make every refusal walk the table.
        if !state.has_room(&origin, self.bounds) && state.swept_at != now {
            state.sweep(now);
        }
        if !state.has_room(&origin, self.bounds) {
            return Err(SessionRefusal::Crowded);
        }
        state.strangers += usize::from(matches!(origin, Origin::Network(_)));
        *state.held.entry(origin.clone()).or_default() += 1;
        state.nonces.insert((id, nonce), (origin, now + NONCE_SECONDS));
        let mut token = [0; 32];
        backend.random(&mut token);
        let hash = sha256(&[&token]);
        let own = state.of_mailbox.entry(id).or_default();
        own.push_back(hash);
        let oldest = if own.len() > MAX_TOKENS_PER_MAILBOX { own.pop_front() } else { None };
        if let Some(oldest) = oldest {
            state.tokens.remove(&oldest);
        }
        state.tokens.insert(hash, (id, now + TOKEN_SECONDS));
        Ok((token, now + TOKEN_SECONDS))
    }

    /// Whether `token` reads mailbox `id` now.
    pub(super) fn admits(&self, id: &MailboxId, token: &[u8; 32], now: u64) -> bool {
        let state = self.state.lock().expect("no panic happens under this lock");
        state.tokens.get(&sha256(&[token])).is_some_and(|(owner, until)| owner == id && *until > now)
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&self, now: u64) {
        self.state.lock().expect("no panic happens under this lock").sweep(now);
    }
}

impl State {
    fn has_room(&self, origin: &Origin, bounds: Bounds) -> bool {
        let is_stranger = matches!(origin, Origin::Network(_));
        self.held.get(origin).is_none_or(|held| *held < bounds.each)
            && self.nonces.len() < bounds.all
            && (!is_stranger || self.strangers < bounds.strangers)
    }

    fn sweep(&mut self, now: u64) {
        self.swept_at = now;
        self.nonces.retain(|_, (_, until)| *until > now);
        self.tokens.retain(|_, (_, until)| *until > now);
        let tokens = &self.tokens;
        self.of_mailbox.retain(|_, own| {
            own.retain(|hash| tokens.contains_key(hash));
            !own.is_empty()
        });
        (self.held, self.strangers) = (BTreeMap::new(), 0);
        for (origin, _) in self.nonces.values() {
            *self.held.entry(origin.clone()).or_default() += 1;
            self.strangers += usize::from(matches!(origin, Origin::Network(_)));
        }
    }
}

#[cfg(test)]
mod tests {
    use waybill_crypto::native::Native;

    use super::*;
    use crate::net::peer::PartyName;

    fn id(byte: u8) -> MailboxId {
        Digest([byte; 32]).to_string().parse().unwrap()
    }

    fn stranger(byte: u8) -> Origin {
        Origin::Network([192, 0, 2, byte].into())
    }

    fn hospital() -> Origin {
        Origin::Party(PartyName::own("hospital-a.example"))
    }

    #[test]
    fn token_reads_its_mailbox_until_it_expires() {
        let sessions = Sessions::default();
        let (token, until) = sessions.open(&Native, id(1), [0; 16], stranger(1), 100).unwrap();
        assert!(sessions.admits(&id(1), &token, until - 1));
        assert!(!sessions.admits(&id(1), &token, until));
        assert!(!sessions.admits(&id(2), &token, 100));
        assert!(!sessions.admits(&id(1), &[0; 32], 100));
    }

    #[test]
    fn nonce_is_good_once_and_old_tokens_give_way() {
        let sessions = Sessions::default();
        let (first, _) = sessions.open(&Native, id(1), [0; 16], stranger(1), 100).unwrap();
        let again = sessions.open(&Native, id(1), [0; 16], stranger(2), 101);
        assert_eq!(again, Err(SessionRefusal::Replayed));
        let mut newest = first;
        for nonce in 1..=8 {
            newest = sessions.open(&Native, id(1), [nonce; 16], stranger(1), 101).unwrap().0;
        }
        assert!(!sessions.admits(&id(1), &first, 102));
        assert!(sessions.admits(&id(1), &newest, 102));
        sessions.sweep(100_000);
        let state = sessions.state.lock().unwrap();
        assert!(state.tokens.is_empty() && state.of_mailbox.is_empty() && state.nonces.is_empty());
        assert!(state.held.is_empty() && state.strangers == 0);
    }

    #[test]
    fn strangers_fill_their_own_share_and_leave_parties_theirs() {
        let bounds = Bounds { each: 2, strangers: 5, all: 7 };
        let sessions = Sessions { bounds, state: Mutex::default() };
        let mut nonce = 0;
        let mut open = |origin, now| {
            nonce += 1;
            sessions.open(&Native, id(nonce), [nonce; 16], origin, now).map(|_| ())
        };
        for _ in 0..2 {
            open(stranger(1), 100).unwrap();
        }
        assert_eq!(open(stranger(1), 100), Err(SessionRefusal::Crowded), "one network takes its share only");
        for network in [2, 2, 3] {
            open(stranger(network), 100).unwrap();
        }
        assert_eq!(open(stranger(4), 100), Err(SessionRefusal::Crowded), "no network takes what parties need");
        open(hospital(), 100).unwrap();
        open(hospital(), 100).unwrap();
        assert_eq!(open(hospital(), 100), Err(SessionRefusal::Crowded));
        assert_eq!(open(Origin::Local, 100), Err(SessionRefusal::Crowded), "all is bounded");
        let later = 100 + NONCE_SECONDS;
        assert_eq!(open(stranger(4), later - 1), Err(SessionRefusal::Crowded));
        open(stranger(4), later).unwrap();
        open(hospital(), later).unwrap();
    }
}
