//! `taskd schedules`: what is planned, and when.

use clap::Subcommand;

use super::Context;
use super::output::Ending;

mod explain;

/// Options of `taskd schedules`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules explain \"0 3 * * 1-5\" --tz Europe/Berlin

EXIT CODES
  0    done
  64   there is no such time zone or time
  65   the expression is wrong")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say in words what an expression means, and when it is next
    Explain(explain::Args),
}

impl Command {
    /// Whether it asks no daemon.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        match self {
            Self::Explain(_) => true,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What was asked for cannot be understood; stdout cannot be written.
pub fn run(args: &Args, context: &Context) -> Ending {
    match &args.command {
        Command::Explain(args) => explain::run(args, context),
    }
}
