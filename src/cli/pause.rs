//! `taskd pause`: takes nothing more off a queue.

use super::output::Ending;
use super::{Context, checked};

/// Options of `taskd pause`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd pause mail

What runs already goes on. The queue stays paused over restarts, until `taskd resume`.

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
    let path = format!("/v1/queues/{}/pause", checked("queue", &args.queue)?);
    context.block_on(async {
        context.verb(&mut context.client(), &path, None).await?;
        Ok(0)
    })
}
