//! `tasks`: what is declared.

use super::Asker;
use crate::daemon::state::Daemon;
use crate::daemon::view;
use crate::model::notice::RESERVED;

/// Every declared task, by name; taskd's own cannot be enqueued.
pub fn handle(d: &mut Daemon, asker: Asker) {
    let declared = d.settings.tasks.values().filter(|t| !t.name.starts_with(RESERVED));
    asker.json(&declared.map(|t| view::task(d, t)).collect::<Vec<_>>());
}
