//! `taskd schedules resume`: goes on with what is planned from now on.

use super::super::output::Ending;
use super::super::{Context, checked};

/// Options of `taskd schedules resume`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules resume nightly

What was planned during the pause is left out, whatever catch_up says, and failures in a row are counted anew.

EXIT CODES
  0    done
  69   no such schedule; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// The schedule's name
    #[arg(value_name = "SCHEDULE")]
    pub name: String,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = format!("/v1/schedules/{}/resume", checked("schedule", &args.name)?);
    context.block_on(async {
        context.verb(&mut context.client(), &path, None).await?;
        Ok(0)
    })
}
