//! `taskd drain`: takes nothing new off any queue.

use crate::control::api::DrainBody;

use super::output::Ending;
use super::{Context, body_of};

/// Options of `taskd drain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd drain
  taskd drain --off

Running tasks finish; messages can still be enqueued and wait. It holds until a restart.

EXIT CODES
  0    done
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// Take messages off the queues again
    #[arg(long)]
    pub off: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let body = body_of(&DrainBody { off: args.off })?;
    context.block_on(async {
        context.verb(&mut context.client(), "/v1/drain", Some(body)).await?;
        Ok(0)
    })
}
