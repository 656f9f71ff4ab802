//! `stop`: ends taskd; what runs gets `shutdown_grace` and goes back to its queue after it.

use super::Asker;
use crate::control::api::{self, Done};
use crate::daemon::state::Daemon;
use crate::engine::event::Event;
use crate::process::launch::ToLauncher;

/// Warm, or at once. The launcher is told first, so that it bounds the time and tells systemd.
pub fn handle(d: &mut Daemon, asker: Asker, now: bool) {
    let running = d.running();
    let grace = d.settings.taskd.shutdown_grace_ms;
    let message = if running == 0 || now {
        "taskd is stopping".to_owned()
    } else {
        {
            let attempts = api::count(running as u64, "attempt");
            format!("taskd is stopping, with {} s for {attempts} to end", grace / 1000)
        }
    };
    asker.json(&Done { message, count: u64::try_from(running).ok(), ..Done::default() });
    let extend_ms = if now { 0 } else { grace };
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    d.launcher.send(ToLauncher::Draining { extend_ms, running });
    d.stopping = true;
    d.step(Event::Stop { now });
}
