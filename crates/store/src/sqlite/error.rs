//! SQLite's result codes as our errors.

use crate::{Cause, CommitError, OpenError, StoreError};
use std::path::Path;
use std::sync::Arc;

enum Kind {
    Busy,
    ReadOnly,
    Full,
    Corrupt,
    Closed,
    Other,
}

// Source: https://www.sqlite.org/rescode.html; the low byte of an extended code is the primary one
fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
            match code & 0xff {
                5 | 6 => Kind::Busy,
                3 | 8 => Kind::ReadOnly,
                11 | 26 => Kind::Corrupt,
                13 => Kind::Full,
                _ => Kind::Other,
            }
        }
        sqlx::Error::PoolTimedOut => Kind::Busy,
        sqlx::Error::PoolClosed => Kind::Closed,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Kind::Corrupt,
        _ => Kind::Other,
    }
}

pub(super) fn commit(error: sqlx::Error) -> CommitError {
    let kind = kind(&error);
    let cause: Cause = Arc::new(error);
    match kind {
        Kind::Busy => CommitError::Busy(cause),
        Kind::ReadOnly => CommitError::ReadOnly(cause),
        Kind::Full => CommitError::Full(cause),
        Kind::Corrupt => CommitError::Corrupt(cause),
        Kind::Closed => CommitError::Closed,
        Kind::Other => CommitError::Unavailable(cause),
    }
}

pub(super) fn read(error: sqlx::Error) -> StoreError {
    let kind = kind(&error);
    let cause: Cause = Arc::new(error);
    match kind {
        Kind::Busy => StoreError::Busy(cause),
        Kind::Corrupt => StoreError::Corrupt(cause),
        Kind::Closed => StoreError::Closed,
        Kind::ReadOnly | Kind::Full | Kind::Other => StoreError::Unavailable(cause),
    }
}

pub(super) fn open(path: &Path, error: sqlx::Error) -> OpenError {
    match kind(&error) {
        Kind::Corrupt => OpenError::Damaged { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), cause: Arc::new(error) },
    }
}
