//! `taskd resume`: takes messages off a paused queue again.

use super::output::Ending;
use super::{Context, checked};

/// Options of `taskd resume`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd resume mail

EXIT CODES
  0    done
  69   no such queue; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// The queue's name
    #[arg(value_name = "QUEUE")]
    pub queue: String,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = format!("/v1/queues/{}/resume", checked("queue", &args.queue)?);
    context.block_on(async {
        context.verb(&mut context.client(), &path, None).await?;
        Ok(0)
    })
}
