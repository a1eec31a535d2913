//! What can go wrong, by whose fault: our own (`Invalid`), a competing writer's (`Conflict`), the environment's (the rest).

use crate::{Address, BatchError, Expect, Key, Space};
use std::error::Error;
use std::sync::Arc;

/// The error of the layer below; shared because one failed disk write can fail many batches.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Our own mistake.
    #[error("the request breaks a bound of the store")]
    Invalid(#[source] BatchError),
    /// The database is damaged; restore it or let it be repaired before going on.
    #[error("the database is damaged")]
    Corrupt(#[source] Cause),
    /// Locked by someone else for too long; try again.
    #[error("the database is busy")]
    Busy(#[source] Cause),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else below us.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
}

/// Why a batch was not committed; nothing of it is stored, except as `Unavailable` says.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A row was not as expected: `Expect::Absent` means a duplicate, `Expect::Version` a lost race or a stale read.
    #[error("a row of {space:?} is not as expected")]
    Conflict {
        /// Where.
        space: Space,
        /// Which row.
        key: Key,
        /// What was expected of it.
        expect: Expect,
    },
    /// Our own mistake.
    #[error("the batch breaks a bound of the store")]
    Invalid(#[source] BatchError),
    /// No room left; free some and try again.
    #[error("the disk or the quota is full")]
    Full(#[source] Cause),
    /// The database cannot be written; check the permissions and the mount.
    #[error("the database is read-only")]
    ReadOnly(#[source] Cause),
    /// Locked by someone else for too long; try again.
    #[error("the database is busy")]
    Busy(#[source] Cause),
    /// The database is damaged; restore it before going on.
    #[error("the database is damaged")]
    Corrupt(#[source] Cause),
    /// The store was closed before the batch was taken.
    #[error("the store is closed")]
    Closed,
    /// Anything else below us. Whether the batch is stored is unknown: run it again.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
}

/// Why an object could not be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// No such object.
    #[error("there is no object {0}")]
    NotFound(Address),
    /// The stored bytes are not the ones that were put: bit rot or tampering.
    #[error("the object {0} is damaged")]
    Damaged(Address),
    /// The bytes offered have another address than the one they were announced under.
    #[error("the bytes offered as {expected} hash to {found}")]
    Mismatch {
        /// What was announced.
        expected: Address,
        /// What arrived.
        found: Address,
    },
    /// More bytes than allowed.
    #[error("the object is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A range that does not lie inside the object.
    #[error("the range lies outside the object")]
    OutOfRange,
    /// No room left.
    #[error("the disk or the quota is full")]
    Full(#[source] Cause),
    /// The folder cannot be written.
    #[error("the object folder is read-only")]
    ReadOnly(#[source] Cause),
    /// The stream that should bring the bytes broke off.
    #[error("the incoming stream failed")]
    Stream(#[source] Cause),
    /// Anything else below us.
    #[error("the object folder is unavailable")]
    Unavailable(#[source] Cause),
}

impl CommitError {
    /// Whether running the same batch again later may succeed without anybody changing it.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, CommitError::Full(_) | CommitError::Busy(_) | CommitError::Unavailable(_))
    }
}
