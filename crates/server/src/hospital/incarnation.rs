//! Whether this process goes on with what the last one left, or with an older copy of it.
//!
//! A database that was restored from a backup knows sessions that went on without it. It starts a new **incarnation**: one-time keys are
//! destroyed, every open session is ended with `session-lost` towards its counterpart, unused enrolment codes are void. Spent proofs stay
//! spent: by our own rows where the backup has them, by the authority's compare-and-swap where it has not.
//!
//! How it shows: a backup is marked as one; and the folder of one-time keys, which no backup holds, says how often this incarnation was
//! started and how long its audit trail was. A database behind that is an old one.

use std::io;

use minicbor::{Decode, Encode};
use waybill_protocol::ids::{Nonce, ProofId};
use waybill_protocol::migration::{DestinationState, Effect, SourceState};
use waybill_protocol::rejection::Code;
use waybill_protocol::wire::{MAX_PARCEL_BYTES, from_cbor, to_cbor};
use waybill_store::{Batch, Expect, Key, Op, Space};

use super::audit::{Actor, AuditRow, event};
use super::engine::{Engine, of_source};
use crate::party::{ServiceError, run_again};

/// What the database says of its incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Incarnation {
    /// Its name.
    #[n(0)]
    pub id: Nonce,
    /// How often it was started.
    #[n(1)]
    pub starts: u64,
}

/// What the folder of one-time keys says of it: never part of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Outside {
    /// As in the database.
    #[n(0)]
    pub incarnation: Incarnation,
    /// How long the audit trail was at least.
    #[n(1)]
    pub audit_rows: u64,
}

/// What a start finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: a new hospital.
    First,
    /// What the last process left.
    Same(Incarnation),
    /// Something older, or something else; why that is so.
    Older(&'static str),
}

/// Compares database and folder; a pure function.
#[must_use]
pub fn compare(inside: Option<Incarnation>, is_backup: bool, outside: Option<Outside>, audit_rows: u64) -> Found {
    match (inside, outside) {
        _ if is_backup => Found::Older("the database is a backup"),
        (None, None) => Found::First,
        (None, Some(_)) => Found::Older("the database is another one than before"),
        (Some(_), None) => Found::Older("the folder of one-time keys is missing or empty"),
        (Some(inside), Some(outside)) if inside.id != outside.incarnation.id => {
            Found::Older("database and one-time keys belong to different incarnations")
        }
        (Some(inside), Some(outside)) if inside.starts < outside.incarnation.starts => {
            Found::Older("the database is older than the one-time keys: it was started fewer times")
        }
        // The database is written first, so it may be ahead by the one start that was interrupted.
        (Some(inside), Some(outside)) if inside.starts > outside.incarnation.starts + 1 => {
            Found::Older("the folder of one-time keys is older than the database")
        }
        (Some(_), Some(outside)) if audit_rows < outside.audit_rows => {
            Found::Older("the database is older than the one-time keys: its audit trail is shorter")
        }
        (Some(inside), Some(_)) => Found::Same(inside),
    }
}

fn row() -> Key {
    Key::build().text("incarnation").done()
}

/// The row that marks a copy as one.
#[must_use]
pub fn backup_mark() -> Key {
    Key::build().text("backup").done()
}

fn folder(error: io::Error) -> ServiceError {
    ServiceError::unavailable("the one-time key folder", error)
}

impl Engine {
    /// Enters the incarnation this process works in, before anything is received or sent; gives why it is a new one, if it is.
    ///
    /// # Errors
    /// [`ServiceError`]; called again it goes on where it was.
    pub async fn enter(&self) -> Result<Option<&'static str>, ServiceError> {
        let store = &self.party.store;
        let inside = match store.load(Space::Setting, &row()).await? {
            Some(found) => Some(
                from_cbor("incarnation", &found.value, MAX_PARCEL_BYTES)
                    .map_err(|_| ServiceError::Corrupt("incarnation"))?,
            ),
            None => None,
        };
        let is_backup = store.load(Space::Setting, &backup_mark()).await?.is_some();
        let outside = self.one_time.outside().map_err(folder)?;
        let fresh = || Incarnation { id: Nonce::random(self.party.backend.as_ref()), starts: 1 };
        let (next, older) = match compare(inside, is_backup, outside, store.leaf_count().await?) {
            Found::First => (fresh(), None),
            Found::Same(inside) => (Incarnation { starts: inside.starts + 1, ..inside }, None),
            Found::Older(why) => {
                self.end_older_sessions().await?;
                (fresh(), Some(why))
            }
        };
        let mut ops = vec![
            Op::Put { space: Space::Setting, key: row(), value: to_cbor(&next), expect: Expect::Any },
            Op::Delete { space: Space::Setting, key: backup_mark(), expect: Expect::Any },
        ];
        if let Some(why) = older {
            ops.push(Op::DeletePrefix { space: Space::Enrolment, prefix: Key::empty() });
            ops.extend(self.audit(AuditRow::new(Actor::System, event::NEW_INCARNATION).with_note(why)));
        }
        store.commit(Batch { name: "incarnation", ops }).await?;
        self.note_outside(next).await?;
        Ok(older)
    }

    async fn note_outside(&self, incarnation: Incarnation) -> Result<(), ServiceError> {
        let audit_rows = self.party.store.leaf_count().await?;
        self.one_time.note_outside(&Outside { incarnation, audit_rows }).map_err(folder)
    }

    /// Notes outside the database how far it is, so that an older copy shows as one.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn note_progress(&self) -> Result<(), ServiceError> {
        match self.one_time.outside().map_err(folder)? {
            Some(outside) => self.note_outside(outside.incarnation).await,
            None => Ok(()),
        }
    }

    async fn end_older_sessions(&self) -> Result<(), ServiceError> {
        self.one_time.destroy_all().map_err(folder)?;
        for id in self.open_cases().await? {
            run_again(|| self.end_older_session(&id)).await?;
        }
        Ok(())
    }

    /// A session of which we do not know how it went on is dead; the case may go on with another attempt.
    async fn end_older_session(&self, id: &ProofId) -> Result<(), ServiceError> {
        if let Some((case, version)) = self.source_case(id).await? {
            let is_open = matches!(
                case.state,
                SourceState::AwaitingReview | SourceState::Redeeming | SourceState::Granted | SourceState::Lodged
            );
            if !is_open {
                return Ok(());
            }
            let (case, mut effects) = self.as_source("Refusal", case.own, |s| s.abort(case, Code::SessionLost));
            effects.push(Effect::Deadline(case.expires.plus(1)));
            let ops = self.audit(of_source(&case, Actor::System, event::CASE_STOPPED).with_code(case.code));
            return self.save_source("session-lost", &case, Expect::Version(version), ops, effects).await;
        }
        match self.destination_case(id).await? {
            Some((case, version))
                if matches!(
                    case.state,
                    DestinationState::Requested | DestinationState::Receiving | DestinationState::Delivered
                ) =>
            {
                self.lose_session(case, version).await
            }
            // One whose key is held finds that it can no longer open it, and says so in its receipt.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(id: u8, starts: u64) -> Option<Incarnation> {
        Some(Incarnation { id: Nonce([id; 16]), starts })
    }

    fn outside(id: u8, starts: u64, audit_rows: u64) -> Option<Outside> {
        inside(id, starts).map(|incarnation| Outside { incarnation, audit_rows })
    }

    #[test]
    fn only_what_the_last_process_left_is_gone_on_with() {
        assert_eq!(compare(None, false, None, 0), Found::First);
        let same = Found::Same(Incarnation { id: Nonce([1; 16]), starts: 3 });
        assert_eq!(compare(inside(1, 3), false, outside(1, 3, 7), 7), same);
        assert_eq!(compare(inside(1, 3), false, outside(1, 2, 7), 9), same, "a start was interrupted");
        for (inside, is_backup, outside, rows) in [
            (inside(1, 3), true, outside(1, 3, 7), 7),
            (None, false, outside(1, 3, 7), 0),
            (inside(1, 3), false, None, 7),
            (inside(1, 3), false, outside(2, 3, 7), 7),
            (inside(1, 3), false, outside(1, 4, 7), 7),
            (inside(1, 5), false, outside(1, 3, 7), 7),
            (inside(1, 3), false, outside(1, 3, 7), 6),
        ] {
            assert!(matches!(compare(inside, is_backup, outside, rows), Found::Older(_)), "{inside:?} {outside:?}");
        }
    }
}
