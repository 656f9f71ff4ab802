//! `taskd schedules`: what is planned, when, and how it went.

use clap::Subcommand;

use super::Context;
use super::output::Ending;

mod explain;
mod list;
mod next;
mod pause;
mod resume;
mod rewind;
mod run;
mod time;

/// Options of `taskd schedules`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules
  taskd schedules list --json | jq -r '.[] | select(.paused) | .name'
  taskd schedules next -n 5
  taskd schedules run nightly --wait
  taskd schedules explain \"0 3 * * 1-5\" --tz Europe/Berlin

Without a command it lists the declared schedules: when each is next, in its own zone, and how it went last.

EXIT CODES
  0    done
  64   there is no such time zone or time
  65   an expression is wrong
  69   no such schedule; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the declared schedules, as without a command
    List(list::Args),
    /// Show planned times to come
    Next(next::Args),
    /// Enqueue the task, or launch the workflow, of a schedule now, beside its plan
    Run(run::Args),
    /// Let planned times pass until it is resumed
    Pause(pause::Args),
    /// Go on with what is planned from now on
    Resume(resume::Args),
    /// Forget that it fired after a time, so that catch_up applies from there
    Rewind(rewind::Args),
    /// Say in words what an expression means, and when it is next
    Explain(explain::Args),
}

impl Args {
    /// Whether it asks no daemon.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self.command, Some(Command::Explain(_)))
    }
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says; what was asked for cannot be understood; stdout cannot be written.
pub fn run(args: &Args, context: &Context) -> Ending {
    match &args.command {
        None | Some(Command::List(_)) => list::run(context),
        Some(Command::Next(args)) => next::run(args, context),
        Some(Command::Run(args)) => run::run(args, context),
        Some(Command::Pause(args)) => pause::run(args, context),
        Some(Command::Resume(args)) => resume::run(args, context),
        Some(Command::Rewind(args)) => rewind::run(args, context),
        Some(Command::Explain(args)) => explain::run(args, context),
    }
}
