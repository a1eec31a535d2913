//! The commands of `waybill`, as a library so that tests can drive the same network that the demo starts.
//!
//! - [`args`]: what can be typed
//! - [`serve`]: the server processes; [`authority`], [`witness`], [`relay`], [`hospital`]: what their operators do
//! - [`patient`]: what a patient does, with [`courier`] to carry it
//! - [`demo`]: a whole network, real processes and a real migration
//! - [`attack`]: the same network under attack
//! - [`bench`]: figures over real processes
//! - [`verify`]: evidence, read aloud

pub mod admin;
pub mod args;
pub mod attack;
pub mod authority;
pub mod bench;
pub mod console;
pub mod courier;
pub mod demo;
pub mod failure;
pub mod hospital;
pub mod inputs;
pub mod network_file;
pub mod patient;
pub mod relay;
pub mod sample;
pub mod serve;
pub mod verify;
pub mod when;
pub mod witness;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use console::Console;
use failure::{Exit, Failure};

/// Parses the command line, runs the command, and says what went wrong.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return console.fail(&Failure::environment("the runtime cannot start", error));
        }
    };
    let result = runtime.block_on(dispatch(cli, &console));
    // A command that reads standard input in a thread must not be waited for.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => console.fail(&failure),
    }
}

async fn dispatch(cli: Cli, console: &Console) -> Result<Exit, Failure> {
    match cli.command {
        Command::Demo(args) => demo::run(args, console).await,
        Command::Attack(args) => attack::run(args, console).await,
        Command::Bench(command) => bench::run(command, console).await,
        Command::Verify(args) => verify::run(&args, console),
        Command::Sample(args) => sample::run(&args, console),
        Command::Authority(command) => authority::run(command, console).await,
        Command::Witness(command) => witness::run(command, console).await,
        Command::Relay(command) => relay::run(command, console).await,
        Command::Hospital(command) => hospital::run(command, console).await,
        Command::Patient(args) => patient::run(args, console).await,
    }
}
