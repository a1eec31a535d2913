//! `waybill bench`.

use clap::Subcommand;

/// `waybill bench ...`: figures. A busy machine changes them; exit code 1 says that two things that must look alike were told apart.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure whether a hospital's answers about unknown patients and about known ones differ in time.
    EqualAnswers {
        /// How often each question is asked. More than 300 would meet the relay's limit on strangers.
        #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=300))]
        rounds: u32,
        /// How often the check of a signature is measured alone, in this process.
        #[arg(long, value_name = "N", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
        checks: u32,
    },
}
