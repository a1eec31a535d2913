//! `waybill bench`.

use clap::Subcommand;

/// `waybill bench ...`: figures, not verdicts. A busy machine changes them, and no exit code depends on them.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure whether a hospital's answers about unknown patients and about known ones differ in time.
    EqualAnswers {
        /// How often each question is asked. More than 300 would meet the relay's limit on strangers.
        #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=300))]
        rounds: u32,
    },
}
