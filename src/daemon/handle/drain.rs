//! `drain`: takes nothing new off any queue; enqueue goes on.

use super::{Asker, mismatch};
use crate::control::api::{self, Done};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;

/// On, or off again.
pub fn handle(d: &mut Daemon, asker: Asker, off: bool) {
    d.draining = !off;
    d.ask(
        Ask::Drain { on: !off },
        Box::new(move |d, told| match told {
            Told::Done => {
                let running = d.running();
                let message = if off {
                    "messages are taken off the queues again".to_owned()
                } else {
                    {
                        let attempts = api::count(running as u64, "attempt");
                        format!("nothing new is started, {attempts} still running (undo: taskd drain --off)")
                    }
                };
                asker.json(&Done { message, count: u64::try_from(running).ok(), ..Done::default() });
            }
            _ => asker.error(mismatch()),
        }),
    );
}
