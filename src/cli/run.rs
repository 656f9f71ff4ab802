//! `taskd run`: the launcher, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ConfigFile, Context};
use crate::config::{self, Env, Source};
use crate::observe::log::Target;
use crate::process::launcher::{self, LauncherOptions};

/// Options of `taskd run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd run
  taskd run --config ./taskd.toml
  taskd run --config ./taskd.toml --state-dir ./state --socket ./taskd.sock

SIGTERM ends it once running tasks had [taskd] shutdown_grace; SIGHUP reloads the config.

EXIT CODES
  0    ended as it was asked to
  70   a fault of taskd, or a daemon that died again and again
  74   the store is damaged, missing or of a newer taskd, or cannot be read or written
  75   the store, the socket or another instance is in the way for now
  78   the config has faults")]
pub struct Args {
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Keep the store here instead of in [taskd] state_dir
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args, context: &Context) -> ExitCode {
    launcher::run(options(args, context))
}

/// What the launcher works with.
#[must_use]
pub fn options(args: Args, context: &Context) -> LauncherOptions {
    let source = Source::find(args.config.config).with_flags(args.state_dir, context.socket_flag.clone());
    let load = move || match config::load(&source, &Env::real().starting()) {
        Ok(loaded) => Ok(loaded.settings),
        Err(report) => Err(report.render(false)),
    };
    LauncherOptions::new(Box::new(load), Box::new(config::changes), Target::detect())
}
