//! `pause` and `resume`: whether messages of a queue are handed out; survives restarts.

use super::enqueue::suggestion;
use super::{Asker, mismatch, store_error};
use crate::control::api::{Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;

/// Pauses or resumes.
pub fn handle(d: &mut Daemon, asker: Asker, queue: String, paused: bool) {
    if let Err(e) = known(d, &queue) {
        return asker.error(e);
    }
    let message = if paused {
        format!("queue {queue} paused: messages are accepted and wait, what runs goes on")
    } else {
        format!("queue {queue} resumed")
    };
    d.ask(
        Ask::Pause { queue, paused },
        Box::new(move |_, told| match told {
            Told::Done => asker.json(&Done { message, ..Done::default() }),
            Told::Fault(fault) => asker.error(store_error(&fault)),
            _ => asker.error(mismatch()),
        }),
    );
}

/// # Errors
/// When no queue has this name; with the one that was probably meant.
pub fn known(d: &Daemon, queue: &str) -> Result<(), Error> {
    if d.settings.queues.contains_key(queue) {
        return Ok(());
    }
    let mut e = Error::new(ErrorKind::UnknownQueue, format!("no queue is named {queue}"));
    let near = suggestion(queue, d.settings.queues.keys().map(String::as_str));
    e.hint =
        Some(near.map_or_else(|| "`taskd queues` lists them".to_owned(), |s| format!("did you mean {s}?")));
    Err(e)
}
