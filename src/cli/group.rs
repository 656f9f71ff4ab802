//! `taskd group`: steps all at once.

use crate::control::api::WorkflowBody;

use super::output::Ending;
use super::segments::{self, GRAMMAR};
use super::{Context, ending, workflow};

/// Options of `taskd group`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd group resize --each size=400,800,1600
  taskd group report month=1 -- report month=2
  printf '%s\\n' '{{\"user_id\":1}}' '{{\"user_id\":2}}' | taskd group send_email --batch -
  taskd group --wait sum --each 'numbers:=[1,2,3,4]' --chunk 2

The result of a group is the list of the results of its members, in their order. It prints the id of the
workflow, for `taskd show`, `result`, `cancel` and `retry`.

MANY CALLS OF ONE TASK
  --each KEY=A,B,C         one call for each value; KEY:=[JSON, …] for other values than strings
  --batch FILE             one for each line of JSON: an object is keyword arguments, an array positional
                           ones, anything else one positional argument; - is stdin
  --chunk N                with these: one call for N values, which are given as one list

{GRAMMAR}

{}
EXIT CODES WITH --wait
{}", workflow::LAUNCH_CODES, ending::CODES))]
pub struct Args {
    /// What holds for the whole.
    #[command(flatten)]
    pub launch: workflow::Launching,
    /// The members: TASK ARGUMENTS… -- TASK ARGUMENTS…
    #[arg(value_name = "STEPS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let mut group = Vec::new();
    for segment in segments::read(&args.words)? {
        group.extend(segment.members()?);
    }
    let body = WorkflowBody { group: Some(group), ..WorkflowBody::default() };
    args.launch.launch(body, context)
}
