//! `taskd chain`: steps one after the other.

use crate::control::api::WorkflowBody;
use crate::control::canvas::Canvas;

use super::output::Ending;
use super::segments::{self, GRAMMAR};
use super::{Context, ending, workflow};

/// Options of `taskd chain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd chain fetch url=https://example.com/a.png -- resize width:=800 -- publish
  taskd chain --wait build -- test --immutable -- tell_me --immutable --on-error continue
  taskd chain backup --link-error tell_me -- verify

Each step gets the result of the one before it as its first argument. When one fails, those behind it fail
too, without having run. It prints the id of the workflow, for `taskd show`, `result`, `cancel` and `retry`.

{GRAMMAR}

{}
EXIT CODES WITH --wait
{}", workflow::LAUNCH_CODES, ending::CODES))]
pub struct Args {
    /// What holds for the whole.
    #[command(flatten)]
    pub launch: workflow::Launching,
    /// The steps: TASK ARGUMENTS… -- TASK ARGUMENTS…
    #[arg(value_name = "STEPS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let steps = segments::steps(&args.words)?;
    let chain = steps.into_iter().map(|step| Canvas::Step(Box::new(step))).collect();
    let body = WorkflowBody { chain: Some(chain), ..WorkflowBody::default() };
    args.launch.launch(body, context)
}
