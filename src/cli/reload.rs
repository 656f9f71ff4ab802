//! `taskd reload`: reads and checks the config again.

use super::Context;
use super::output::Ending;

/// Options of `taskd reload`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd reload
  systemctl reload taskd

A config with faults changes nothing; running tasks keep the definition they started with.

EXIT CODES
  0    the new settings are in force; what changed is printed
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] admin
  78   the config has faults, or changes what needs a restart")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(_args: &Args, context: &Context) -> Ending {
    context.block_on(async {
        context.verb(&mut context.client(), "/v1/reload", None).await?;
        Ok(0)
    })
}
