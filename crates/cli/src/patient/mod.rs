//! `waybill patient`: what a patient does, one step a command.
//!
//! - [`session`]: the wallet opened, and its way to the others
//! - [`setup`]: `init`, `recover`, `enrol`, `hospitals`, `paper`, `remove`, `passphrase`
//! - [`preview`]: `preview`, `items`; [`migrate`]: `migrate`; [`follow`]: `status`, `watch`, `stop`; [`stopped`]: by whom
//! - [`receipt`]: `receipt`, `history`, `evidence`; [`disclosures`]: `disclosures`
//! - [`words`]: who must act, in words; [`paper`]: sheets and cards; [`passphrase`]: where it comes from
//!
//! Every step is durable in the wallet before it is taken, so that a command may be interrupted anywhere and the next one goes on.

pub mod disclosures;
pub mod follow;
pub mod migrate;
pub mod paper;
pub mod passphrase;
pub mod preview;
pub mod receipt;
pub mod session;
pub mod setup;
pub mod stopped;
pub mod words;

use crate::args::{PatientArgs, PatientCommand};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use session::Session;

/// Runs a command of a patient.
///
/// # Errors
/// [`Failure`].
pub async fn run(args: PatientArgs, console: &Console) -> Result<Exit, Failure> {
    let wallet = args.wallet;
    match args.command {
        PatientCommand::Init { network, paper } => setup::init(&wallet, &network, paper.as_deref(), console).await,
        PatientCommand::Recover { network, code_file, card } => {
            setup::recover(&wallet, &network, code_file.as_deref(), &card, console)
        }
        PatientCommand::Enrol { code, wait } => {
            let enrolment = setup::read_code(&code.0)?;
            setup::enrol(&mut Session::open(&wallet, console)?, &enrolment, wait).await
        }
        PatientCommand::Hospitals { card, hospital, out } => {
            setup::hospitals(&Session::open(&wallet, console)?, hospital.as_deref(), card, out.as_deref())
        }
        PatientCommand::Paper { file } => {
            paper::write(&Session::open(&wallet, console)?, &file)?;
            Ok(Exit::Success)
        }
        PatientCommand::Preview { at, to, part } => {
            preview::show(&mut Session::open(&wallet, console)?, &at, to.as_deref(), &part).await
        }
        PatientCommand::Items { at, resource_type, most } => {
            preview::items(&mut Session::open(&wallet, console)?, &at, &resource_type, most).await
        }
        PatientCommand::Migrate(args) => migrate::run(&mut Session::open(&wallet, console)?, &args).await,
        PatientCommand::Status { offline } => follow::status(&mut Session::open(&wallet, console)?, offline).await,
        PatientCommand::Watch { case, wait } => {
            follow::watch(&mut Session::open(&wallet, console)?, case.as_deref(), wait).await
        }
        PatientCommand::Stop { case, wait } => {
            follow::stop(&mut Session::open(&wallet, console)?, case.as_deref(), wait).await
        }
        PatientCommand::Receipt { case, print, offline } => {
            receipt::show(&mut Session::open(&wallet, console)?, case.as_deref(), print, offline).await
        }
        PatientCommand::Disclosures { at } => {
            disclosures::show(&mut Session::open(&wallet, console)?, at.as_deref()).await
        }
        PatientCommand::History => receipt::history(&Session::open(&wallet, console)?),
        PatientCommand::Evidence { case, out } => {
            receipt::evidence(&Session::open(&wallet, console)?, case.as_deref(), &out)
        }
        PatientCommand::Remove { yes } => setup::remove(Session::open(&wallet, console)?, &wallet.wallet, yes),
        PatientCommand::Passphrase { new_passphrase_file } => {
            setup::change_passphrase(&mut Session::open(&wallet, console)?, new_passphrase_file.as_deref())
        }
    }
}
