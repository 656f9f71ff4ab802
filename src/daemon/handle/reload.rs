//! `reload`: the launcher reads and checks; the daemon swaps what is good, or hands the faults back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Asker;
use crate::control::api::{Answer, Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::daemon::{plan, start};
use crate::engine::event::Event;
use crate::process::launch::ToLauncher;

/// Asks the launcher; every caller so far gets the answer of the one reload.
pub fn handle(d: &mut Daemon, asker: Asker) {
    d.reloads.push(asker.answer);
    if d.reloads.len() == 1 {
        d.launcher.send(ToLauncher::Reload);
    }
}

/// New settings came: running attempts keep the definition they started with.
pub fn swapped(d: &mut Daemon, fds: Vec<OwnedFd>, changes: Vec<String>) {
    let settings = match fds.into_iter().next().map(start::settings) {
        Some(Ok(settings)) => settings,
        Some(Err(e)) => return answer(d, &Err(Error::new(ErrorKind::Internal, e))),
        None => {
            return answer(
                d,
                &Err(Error::new(ErrorKind::Internal, "the new settings came without their memfd")),
            );
        }
    };
    d.settings = Arc::new(settings);
    d.policy.send_replace(Arc::new(start::policy(&d.settings, d.start.owner)));
    if let Some(Err(e)) = d.log.as_ref().map(|log| log.set_level(&d.settings.taskd.log_level)) {
        tracing::error!("{e}");
    }
    let next = plan::plan(&d.settings);
    d.step(Event::Plan(Arc::new(next)));
    let message = if changes.is_empty() {
        "reloaded: nothing changed".to_owned()
    } else {
        format!("reloaded, generation {}", d.settings.generation)
    };
    answer(d, &Ok(Done { message, count: None, details: changes }));
}

/// The file has faults: nothing changed.
pub fn refused(d: &mut Daemon, report: &str) {
    let mut e = Error::new(ErrorKind::Config, "the config was not reloaded, the old one stays in force");
    e.details = report.lines().map(str::to_owned).collect();
    answer(d, &Err(e));
}

fn answer(d: &mut Daemon, result: &Result<Done, Error>) {
    for to in d.reloads.drain(..) {
        let answer = match result {
            Ok(done) => serde_json::to_string(done)
                .map_or_else(|e| Answer::Error(Error::new(ErrorKind::Internal, e.to_string())), Answer::Json),
            Err(e) => Answer::Error(e.clone()),
        };
        let _ = to.send(answer);
    }
}
