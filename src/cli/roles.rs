//! The hidden roles that the launcher starts this program in: `@daemon`, `@runner`, `@worker`, and
//! `@upgrade-check`, in which it is tried before it replaces a running one. `@notify`, in which a runner starts
//! it to tell somebody of a task. And `@complete`, in which a shell asks it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::{Cli, Command, Context, complete, run, telling};
use crate::daemon;
use crate::observe::log;
use crate::process::{launcher, runner, title};

/// Plays a role: the word after the `@`.
#[must_use]
pub fn play(role: &str) -> ExitCode {
    let result = match role {
        "daemon" => {
            launcher::daemon_start().map(|(packets, confinement)| daemon::start::run(packets, confinement))
        }
        "runner" => launcher::runner_start().map(|start| {
            runner::serve(start.part, start.held, start.socket, start.launcher, &mut title::set)
        }),
        "worker" => return launcher::worker_main(),
        "notify" => return telling::play(),
        "upgrade-check" => return check(),
        "complete" => {
            let words = std::env::args_os().skip(2);
            return complete::play(&words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>());
        }
        other => Err(format!("there is no role @{other}")),
    };
    result.unwrap_or_else(|why| {
        log::say(&why);
        ExitCode::from(70)
    })
}

/// Whether this program can take over from the running one, which was started with the arguments that follow.
fn check() -> ExitCode {
    let line = std::env::args_os().enumerate().filter(|(n, _)| *n != 1).map(|(_, word)| word);
    match fit(line) {
        Ok(answer) => {
            // Nobody is there to be told that the answer does not arrive; without it this program is refused.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{answer}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            log::say(&why);
            ExitCode::from(launcher::EXIT_CONFIG)
        }
    }
}

fn fit(line: impl Iterator<Item = OsString>) -> Result<String, String> {
    let cli = Cli::try_parse_from(line).map_err(|e| e.to_string())?;
    let Command::Run(args) = cli.command else {
        return Err("the running taskd was not started by run".to_owned());
    };
    let context = Context::new(cli.global, false).map_err(|failure| failure.to_string())?;
    launcher::upgrade_check(&run::options(args, &context))
}
