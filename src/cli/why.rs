//! `taskd why`: why a message, or the next step of a workflow, is not running yet.

use std::time::Duration;

use crate::control::api::WhyView;
use crate::control::route::Method;

use super::output::{self, Ending};
use super::{Context, checked};

/// Options of `taskd why`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd why 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f

The id may be that of a workflow: it says which of its steps the others wait for, and why that one is not over;
`taskd show` prints all of them.

EXIT CODES
  0    printed
  69   no such message or workflow; taskd is not running
  75   not now; try again
  77   not permitted: not one's own message, and no [access] read")]
pub struct Args {
    /// The message, or the workflow
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = format!("/v1/messages/{}/why", checked("id", &args.id)?);
    context.block_on(async {
        let answer = context.client().text(Method::Get, &path, None, true, Duration::ZERO).await?;
        context.show(&answer, |view: &WhyView| format!("{}\n", output::clean(&view.why)))?;
        Ok(0)
    })
}
