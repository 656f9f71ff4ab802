//! `taskd run`: the launcher, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ConfigFile, Context, home, output};
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
  taskd --user run

Without --user it is the system's: /etc/taskd.toml, /var/lib/taskd, /run/taskd. With --user it is your
own: $XDG_CONFIG_HOME/taskd.toml and taskd.d/ (~/.config), $XDG_STATE_HOME/taskd (~/.local/state) and
$XDG_RUNTIME_DIR/taskd/taskd.sock, and nobody but you may use it unless [access] says so.

SIGTERM or SIGINT ends it once running tasks had [taskd] shutdown_grace; a second one does not wait for
them, a third one or SIGQUIT ends everything at once. SIGHUP reloads the config. As process 1 of a
container it reaps whatever is left to it, and leaves what it did not start alone.

EXIT CODES
  0    ended as it was asked to
  1    ended at once, or running tasks did not end in time
  70   a fault of taskd, or a daemon that died again and again
  74   the store is damaged, missing or of a newer taskd, or cannot be read or written
  75   the store, the socket or another instance is in the way for now
  78   the config has faults; the broker can never be one; another node of the broker has this name")]
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
    let source = source(args, context);
    // Root's own start is the launcher's alone to judge; anybody else's may be a mistake.
    if !nix::unistd::geteuid().is_root() {
        let loaded = config::load(&source, &Env::real());
        let refusal = home::refusal(&source, loaded.as_ref().map(|l| &l.settings));
        if let Some(refusal) = refusal {
            return output::report(&refusal, context.json);
        }
    }
    launcher::run(of(source))
}

/// What the launcher works with.
#[must_use]
pub fn options(args: Args, context: &Context) -> LauncherOptions {
    of(source(args, context))
}

fn source(args: Args, context: &Context) -> Source {
    let found = Source::find(args.config.config, &context.home);
    found.with_flags(args.state_dir, context.socket_flag.clone()).to_serve()
}

fn of(source: Source) -> LauncherOptions {
    let load = move || match config::load(&source, &Env::real().starting()) {
        Ok(loaded) => home::make(&source, &loaded.settings).map(|()| loaded.settings),
        Err(report) => Err(report.render(false)),
    };
    LauncherOptions::new(Box::new(load), Box::new(config::changes), Target::detect())
}
