//! `taskd check`: every fault of the config at once.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::{self, Failure};
use super::{ConfigFile, Context};

/// Options of `taskd check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd check
  taskd check ./taskd.toml

EXIT CODES
  0    the config has no fault
  66   the file cannot be read
  78   the config has faults; all of them are printed, with file, line and column")]
pub struct Args {
    /// The file to check instead of the one that taskd would use
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(_args: Args, context: &Context) -> ExitCode {
    output::report(&Failure::internal("check is not wired"), context.json)
}
