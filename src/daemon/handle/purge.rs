//! `purge`: ends everything that waits in a queue.

use super::{Asker, mismatch, pause, store_error};
use crate::control::api::{self, Done};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;

/// What runs goes on; what waits or is scheduled becomes REVOKED.
pub fn handle(d: &mut Daemon, asker: Asker, queue: String) {
    if let Err(e) = pause::known(d, &queue) {
        return asker.error(e);
    }
    d.ask(
        Ask::Purge { queue: queue.clone() },
        Box::new(move |_, told| match told {
            Told::Purged(count) => {
                let message = format!("{} of queue {queue} canceled", api::count(count, "message"));
                asker.json(&Done { message, count: Some(count), ..Done::default() });
            }
            Told::Fault(fault) => asker.error(store_error(&fault)),
            _ => asker.error(mismatch()),
        }),
    );
}
