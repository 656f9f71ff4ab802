//! `taskd purge`: revokes everything that waits in a queue.

use super::output::Ending;
use super::{Context, checked};

/// Options of `taskd purge`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd purge low_priority

Waiting and scheduled messages become REVOKED; what runs already goes on.

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
    let path = format!("/v1/queues/{}/purge", checked("queue", &args.queue)?);
    context.block_on(async {
        context.verb(&mut context.client(), &path, None).await?;
        Ok(0)
    })
}
