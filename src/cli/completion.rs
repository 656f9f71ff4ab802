//! `taskd completion`: the script that makes a shell ask this program (the role `@complete`).

use super::Context;
use super::output::{self, Ending};

/// The scripts, as the package installs them.
const BASH: &str = include_str!("../../packaging/completions/taskd.bash");
const ZSH: &str = include_str!("../../packaging/completions/_taskd");
const FISH: &str = include_str!("../../packaging/completions/taskd.fish");

/// A shell that taskd completes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// bash 4.0 or newer, with or without bash-completion
    Bash,
    /// zsh with its completion system (compinit)
    Zsh,
    /// fish 3.0 or newer
    Fish,
}

/// Options of `taskd completion`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  source <(taskd completion bash)
  taskd completion zsh > /usr/local/share/zsh/site-functions/_taskd
  taskd completion fish > ~/.config/fish/completions/taskd.fish

Debian's package brings these scripts along. They ask the taskd of the PATH at each call, so they need not
be printed again after an upgrade; names of tasks, parameters, queues and messages come from the running
daemon, if this user may read them.

EXIT CODES
  0    printed")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &Args, _context: &Context) -> Ending {
    output::print(match args.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    })?;
    Ok(0)
}
