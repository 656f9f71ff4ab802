//! `cancel`: ends a message wherever it is.

use super::{Asker, mismatch, no_such_message, stopping, store_error};
use crate::control::api::{Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::name::MessageId;
use crate::model::op::{Op, Reply};

/// Admins, and who enqueued it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    d.read(
        Op::Get { id: MessageId(id.clone()) },
        Box::new(move |d, reply| match reply {
            Ok(Reply::Record(Some(record))) if asker.rights.admin || asker.owns(&record) => {
                d.ask(Ask::Cancel(MessageId(id.clone())), Box::new(move |_, told| answer(asker, &id, told)));
            }
            Ok(Reply::Record(Some(record))) if asker.may_see(&record) => {
                asker.error(not_yours("cancel"));
            }
            Ok(Reply::Record(_)) => asker.error(no_such_message(&id)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

/// Seen, but not this peer's to change.
#[must_use]
pub fn not_yours(verb: &str) -> Error {
    Error::new(ErrorKind::Forbidden, format!("only who enqueued this message and admins may {verb} it"))
        .hint("the config's [access] admin decides")
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
