//! `taskd chord`: members all at once, and a body with the list of their results.

use crate::control::api::WorkflowBody;
use crate::control::canvas::Chord;

use super::output::{Ending, Failure};
use super::segments::{self, GRAMMAR};
use super::{Context, ending, workflow};

/// Options of `taskd chord`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd chord resize --each size=400,800,1600 --body publish album=7
  taskd chord --wait count file=a -- count file=b --body sum
  taskd chord fetch --batch urls.ndjson --body index --on-error continue

The body runs once, after the last member, with the list of their results in their order as its first
argument: as JSON, so a program needs stdin = \"json\" in its task. When a member fails, the body fails too, without having run, unless it says --on-error continue.
Members are as in `taskd group` (--each, --batch, --chunk); what follows --body is the body's step.
It prints the id of the workflow, for `taskd show`, `result`, `cancel` and `retry`.

{GRAMMAR}

{}
EXIT CODES WITH --wait
{}", workflow::LAUNCH_CODES, ending::CODES))]
pub struct Args {
    /// What holds for the whole.
    #[command(flatten)]
    pub launch: workflow::Launching,
    /// The members and the body: TASK ARGUMENTS… -- TASK ARGUMENTS… --body TASK ARGUMENTS…
    #[arg(value_name = "STEPS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let at = args.words.iter().position(|w| w == "--body");
    let Some((members, body)) = at.and_then(|at| args.words.split_at_checked(at)) else {
        return Err(Failure::usage("a chord has a body: --body TASK ARGUMENTS…"));
    };
    let mut bodies = segments::steps(body.get(1..).unwrap_or_default())?.into_iter();
    let (Some(body), None) = (bodies.next(), bodies.next()) else {
        return Err(Failure::usage("a chord has one body").hint("`taskd chain` goes on with more steps"));
    };
    let mut header = Vec::new();
    for segment in segments::read(members)? {
        header.extend(segment.members()?);
    }
    let body = WorkflowBody { chord: Some(Chord { header, body }), ..WorkflowBody::default() };
    args.launch.launch(body, context)
}
