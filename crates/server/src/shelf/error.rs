//! What can go wrong on the shelf, by whose fault.

use waybill_record::closure::ClosureError;
use waybill_record::load::LoadError;
use waybill_record::pool::PoolError;
use waybill_store::{CommitError, ObjectError, StoreError};

/// Why an operation on the shelf failed.
///
/// What a peer did wrong is no error here but a [`waybill_protocol::rejection::Code`] in the result.
///
/// Security: names rules and places, never values of a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// The store could not be read.
    #[error("the store of records cannot be read")]
    Store(#[from] StoreError),
    /// The store could not be written; what was done so far is done again next time.
    #[error("the store of records cannot be written")]
    Commit(#[from] CommitError),
    /// An object is missing, damaged or cannot be written.
    #[error("an object of a record cannot be stored or read")]
    Object(#[from] ObjectError),
    /// A row that this program wrote cannot be read again.
    #[error("a row of {0} is damaged; restore the store from a backup")]
    Damaged(&'static str),
    /// The input of a load is not a record.
    #[error(transparent)]
    Load(LoadError),
    /// The hospital holds no such patient.
    #[error("no such patient is held here")]
    NoSuchPatient,
    /// The resource given as a patient is not one that can be registered.
    #[error("the patient cannot be registered: {0}")]
    NotAPatient(&'static str),
    /// Another patient is registered under this id.
    #[error("another patient is registered under this id; nothing was overwritten")]
    PatientDiffers,
    /// The grant belongs to another case.
    #[error("the grant is for another case")]
    WrongCase,
    /// There is no snapshot of this session.
    #[error("there is no snapshot of this session; freeze the record first")]
    NotFrozen,
    /// The record fills more chunks than a leaf list can name.
    #[error("the record is larger than {limit_bytes} bytes, the most that one transfer carries; narrow its scope")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A chunk of this session has not arrived.
    #[error("chunks of this session are missing")]
    Incomplete,
    /// This session was filed before.
    #[error("the record of this session was filed before")]
    AlreadyFiled,
    /// No such item is held of this patient, or waits in quarantine.
    #[error("no such item is held of this patient")]
    NoSuchItem,
    /// More items are kept back than a record can lose silently.
    #[error("at most {} items of one patient can be kept back", super::MAX_MARKS)]
    TooManyMarks,
    /// An item in quarantine cannot be filed.
    #[error("the item cannot be filed: {0}; discard it, or let the source correct it and send it again")]
    StillUnfit(&'static str),
    /// Sealing or framing our own record failed: our own mistake.
    #[error("the record cannot be written as a stream: {0}")]
    Stream(String),
    /// The reader of an export went away.
    #[error("the export cannot be written")]
    Export(#[source] std::io::Error),
    /// The caller went away.
    #[error("the operation was cancelled")]
    Cancelled,
}

impl ShelfError {
    /// Whether the disk or quota is full: the case stays as it is and goes on when there is room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Commit(CommitError::Full(_)) | Self::Object(ObjectError::Full(_)))
    }
}

impl From<ShelfError> for PoolError {
    fn from(error: ShelfError) -> Self {
        Self(Box::new(error))
    }
}

impl From<PoolError> for ShelfError {
    /// Takes back the error that the record code carried for us.
    fn from(error: PoolError) -> Self {
        match error.0.downcast::<ShelfError>() {
            Ok(ours) => *ours,
            Err(_) => Self::Damaged("resources"),
        }
    }
}

impl From<LoadError> for ShelfError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Pool(error) => error.into(),
            error => Self::Load(error),
        }
    }
}

impl From<ClosureError> for ShelfError {
    fn from(error: ClosureError) -> Self {
        match error {
            ClosureError::NoSuchPatient => Self::NoSuchPatient,
            ClosureError::Pool(error) => error.into(),
        }
    }
}
