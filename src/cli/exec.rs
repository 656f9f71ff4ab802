//! `taskd exec`: a declared task once, in the foreground, to debug it.

use std::process::ExitCode;

use super::arguments::Arguments;
use super::output::{self, Failure};
use super::{ConfigFile, Context};

/// Options of `taskd exec`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd exec clean_logs
  taskd exec send_email user_id=42 --config ./taskd.toml
  taskd exec resize -- photo.jpg 800

Binds the arguments, the environment, the directory and the limits as a runner does; output goes to
this terminal. Nothing is enqueued or stored, and no retry follows.

EXIT CODES
  0-255    the task's own code
  128+n    it died of signal n
  124      a time limit ended it
  126      its program could not be started
  64, 65   an argument cannot be understood, or does not fit the task
  69       no such task
  77       this user may not become the task's user
  78       the config has faults")]
pub struct Args {
    /// The task's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: Arguments,
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(_args: Args, context: &Context) -> ExitCode {
    output::report(&Failure::internal("exec is not wired"), context.json)
}
