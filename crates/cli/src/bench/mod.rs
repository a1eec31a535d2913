//! `waybill bench`: figures over real processes.

mod equal_answers;
mod welch;

use crate::args::BenchCommand;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Runs the command.
///
/// # Errors
/// [`Failure`] when a figure could not be measured; what a figure says never fails the command.
pub async fn run(command: BenchCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        BenchCommand::EqualAnswers { rounds } => equal_answers::run(rounds, console).await,
    }
}
