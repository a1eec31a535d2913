//! `waybill bench`: figures, of one check alone and over real processes.

mod equal_answers;
mod front_desk;
mod welch;

use waybill_crypto::backend::Backend as _;
use waybill_crypto::native::Native;

use crate::args::BenchCommand;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Runs the command.
///
/// # Errors
/// [`Failure`] when a figure could not be measured.
pub async fn run(command: BenchCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        BenchCommand::EqualAnswers { rounds, checks } => equal_answers::run(checks, rounds, console).await,
    }
}

/// One of the six orders of three, at random.
fn order() -> [usize; 3] {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut byte = [0];
    Native.random(&mut byte);
    ORDERS[usize::from(byte[0]) % ORDERS.len()]
}
