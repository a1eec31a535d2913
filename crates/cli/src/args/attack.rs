//! `waybill attack`.

use clap::Args;

use crate::attack::outcome::Expectation;

/// `waybill attack`.
#[derive(Debug, Args)]
pub struct AttackArgs {
    /// Names of attacks, `all` of them, or `list` to see what there is.
    #[arg(required = true, value_name = "NAME|all|list")]
    pub names: Vec<String>,
    /// How many networks run at once.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub parallel: usize,
    /// Expect this refusal (`hospital-a:proof-spent`) instead of the declared ones: shows that the command can fail.
    #[arg(long, value_name = "PARTY:CODE")]
    pub expect: Option<Expectation>,
}
