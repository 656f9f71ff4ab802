//! `tasks`: what is declared.

use super::Asker;
use crate::daemon::state::Daemon;
use crate::daemon::view;

/// Every declared task, by name.
pub fn handle(d: &mut Daemon, asker: Asker) {
    asker.json(&d.settings.tasks.values().map(|t| view::task(d, t)).collect::<Vec<_>>());
}
