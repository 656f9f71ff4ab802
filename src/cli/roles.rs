//! The hidden roles that the launcher starts this program in: `@daemon` and `@runner`.

use std::process::ExitCode;

use crate::daemon;
use crate::observe::log;
use crate::process::{launcher, runner, title};

/// Runs a role: the word after the `@`.
#[must_use]
pub fn run(role: &str) -> ExitCode {
    let result = match role {
        "daemon" => launcher::daemon_start().map(daemon::start::run),
        "runner" => launcher::runner_start()
            .map(|(part, socket, launcher)| runner::serve(part, socket, launcher, &mut title::set)),
        other => Err(format!("there is no role @{other}")),
    };
    result.unwrap_or_else(|why| {
        log::say(&why);
        ExitCode::from(70)
    })
}
