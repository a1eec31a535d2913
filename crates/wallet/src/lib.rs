//! The patient's wallet: keys, pinned hospitals and open cases in one encrypted file, and every action as one step.
//!
//! No network in here. A step gives an [`Errand`] (a parcel and the mailbox to post it to); what arrives in the mailboxes that
//! [`Wallet::watches`] names is handed to [`Wallet::receive`]. Every step is durable before its errand is given out, so the
//! wallet may be killed between any two of them: [`Wallet::errands`] and [`Wallet::watches`] say what is still to be done.
//!
//! - [`recovery`]: the printed code that restores every lasting key
//! - [`enrolment`]: the text and QR code a hospital hands over in person; [`card`]: what was pinned there, on paper
//! - [`file`]: the encrypted file
//! - [`wallet`]: the steps; [`receive`] the way back
//! - [`summary`]: what became of a record, in words

pub mod card;
pub mod enrolment;
mod error;
mod evidence;
pub mod file;
mod mailbox;
pub mod receive;
pub mod recovery;
mod state;
pub mod summary;
mod text_code;
mod trust;
pub mod wallet;

#[cfg(test)]
mod tests;

pub use card::CardError;
pub use enrolment::{EnrolmentError, enrolment_text, parse_enrolment, qr_terminal};
pub use error::WalletError;
pub use file::{FileError, WalletFile};
pub use mailbox::{MailboxName, RelayError, RelayHost, Watch};
pub use receive::{Ignored, Received};
pub use recovery::{RecoveryCode, RecoveryError};
pub use state::{Case, CaseNumber, ClosedCase, Errand, ErrandId, Notice, Outcome, Party, Stage};
pub use summary::Summary;
pub use trust::TrustSettings;
pub use wallet::{Settings, Wallet};
