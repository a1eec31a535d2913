//! Why a step of the wallet could not be taken.

use thiserror::Error;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::rejection::Rejection;

use crate::card::CardError;
use crate::file::FileError;
use crate::state::{CaseNumber, Stage};

/// Why a step of the wallet could not be taken. Nothing was changed, unless it is [`WalletError::File`].
#[derive(Debug, Error)]
pub enum WalletError {
    /// The wallet file could not be read or written.
    #[error("the wallet file")]
    File(#[from] FileError),
    /// A contact card that this wallet did not make.
    #[error("the contact card")]
    Card(#[from] CardError),
    /// The rules of the protocol refuse it.
    #[error("refused")]
    Rejected(#[from] Rejection),
    /// The wallet knows no authority yet.
    #[error(
        "the wallet does not know the authority yet: give it the authority's root certificate and log policy first"
    )]
    NoTrust,
    /// What describes the authority is malformed, not signed under the pinned root, or out of date.
    #[error("what describes the authority is not acceptable: {0}")]
    TrustInvalid(&'static str),
    /// Another authority than the pinned one; changing it would let an impostor in.
    #[error("this wallet is bound to another authority; make a new wallet for another one")]
    OtherAuthority,
    /// Not registered there.
    #[error("this wallet is not registered at {0}: enrol there first")]
    NotRegistered(HospitalId),
    /// Registered once, no longer.
    #[error("the registration at {0} has expired: enrol there again, in person")]
    RegistrationExpired(HospitalId),
    /// Source and destination are one.
    #[error("source and destination are the same hospital")]
    SameHospital,
    /// Ends before it begins, or already over, or too long.
    #[error("the delegation must end after it begins, in the future, and within {max_days} days")]
    Window {
        /// The longest time a delegation may run. Units: days.
        max_days: u64,
    },
    /// No such case.
    #[error("there is no case {0} in this wallet")]
    UnknownCase(CaseNumber),
    /// The step does not belong to the case's stage.
    #[error("case {case} is {stage}: {hint}")]
    WrongStage {
        /// The case.
        case: CaseNumber,
        /// Where it stands.
        stage: Stage,
        /// What can be done instead.
        hint: &'static str,
    },
    /// A bound of the wallet is reached.
    #[error("the wallet holds {limit} {what} already: finish or forget some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}
