//! `taskd retry`: puts finished messages back into their queues.

use super::Context;
use super::cancel::each;
use super::output::Ending;

/// Options of `taskd retry`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd retry 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd list --state dead --json | jq -r '.[].id' | xargs taskd retry

The id may be that of a workflow: what failed of it begins anew, and with it what did not run because of
that; what succeeded stays. A step that is retried alone revives what failed because of it, too.
The message keeps its id and begins a new life: its counts of attempts and retries start at zero.
Every id is tried; the exit code is the highest of all.

EXIT CODES
  0    done
  64   an id cannot be one
  69   no such message; taskd is not running
  73   not possible in this state; its task is unique, and another message holds its key
  73   steps of a workflow cannot begin anew: their arguments are not kept any more
  75   not now; try again
  77   not permitted: not one's own message, and no [access] admin")]
pub struct Args {
    /// The messages
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// taskd cannot be asked at all; what it says of single ids is reported and becomes the exit code.
pub fn run(args: &Args, context: &Context) -> Ending {
    context.block_on(each(&args.ids, context, "retry"))
}
