//! `taskd run`: the launcher, in the foreground.

use std::process::ExitCode;

use super::output::{self, Failure};
use super::{ConfigFile, Context};

/// Options of `taskd run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd run
  taskd run --config ./taskd.toml

SIGTERM ends it once running tasks had [taskd] shutdown_grace; SIGHUP reloads the config.

EXIT CODES
  0    ended as it was asked to
  70   a fault of taskd, or a daemon that died again and again
  75   the store, the socket or another instance is in the way for now
  78   the config has faults")]
pub struct Args {
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(_args: Args, context: &Context) -> ExitCode {
    output::report(&Failure::internal("run is not wired"), context.json)
}
