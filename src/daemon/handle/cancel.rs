//! `cancel`: ends a message wherever it is, or a whole workflow.

use super::workflow::{self, Found, find_own};
use super::{Asker, mismatch, no_such_message, stopping, store_error};
use crate::control::api::{Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;

/// Admins, and who enqueued it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    find_own(d, asker, id.clone(), "cancel", move |d, asker, found| match found {
        Found::Message(_) => {
            d.ask(Ask::Cancel(MessageId(id.clone())), Box::new(move |_, told| answer(asker, &id, told)));
        }
        Found::Workflow(seen) => workflow::cancel_found(d, asker, &seen),
    });
}

fn answer(asker: Asker, id: &str, told: Told) {
    match told {
        Told::Canceled { record: None, .. } => asker.error(no_such_message(id)),
        Told::Canceled { record: Some(record), too_late: true, .. } => asker.error(
            Error::new(ErrorKind::Conflict, format!("{id} is {} already", record.state))
                .hint("a final state never changes; `taskd retry` runs it again"),
        ),
        Told::Canceled { ending: true, .. } => {
            let message = format!("{id} is running: its processes are being ended");
            asker.json(&Done { message, ..Done::default() });
        }
        Told::Canceled { .. } => {
            asker.json(&Done { message: format!("{id} canceled before it started"), ..Done::default() });
        }
        Told::Fault(fault) => asker.error(store_error(&fault)),
        Told::Stopping => asker.error(stopping()),
        _ => asker.error(mismatch()),
    }
}
