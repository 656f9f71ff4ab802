//! `taskd schedules pause`: lets planned times of a schedule pass.

use super::super::output::Ending;
use super::super::{Context, checked};

/// Options of `taskd schedules pause`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules pause nightly

Planned times pass unrecorded until `taskd schedules resume`, over restarts too. What runs goes on.

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
    let path = format!("/v1/schedules/{}/pause", checked("schedule", &args.name)?);
    context.block_on(async {
        context.verb(&mut context.client(), &path, None).await?;
        Ok(0)
    })
}
