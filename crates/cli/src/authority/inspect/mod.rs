//! placeholder
use crate::args::InspectArgs;
use crate::console::Console;
use crate::failure::{Exit, Failure};
pub(super) async fn run(_args: &InspectArgs, _console: &Console) -> Result<Exit, Failure> { Ok(Exit::Success) }
