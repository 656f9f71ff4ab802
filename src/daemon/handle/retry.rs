//! `retry`: a new life for a message that is final.

use super::cancel::not_yours;
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
                let task = &record.message.task;
                if !d.settings.tasks.contains_key(task) {
                    let what = format!("{id} cannot run again: no task is named {task} any more");
                    return asker.error(Error::new(ErrorKind::UnknownTask, what));
                }
                d.ask(Ask::Retry(MessageId(id.clone())), Box::new(move |_, told| answer(asker, &id, told)));
            }
            Ok(Reply::Record(Some(record))) if asker.may_see(&record) => asker.error(not_yours("retry")),
            Ok(Reply::Record(_)) => asker.error(no_such_message(&id)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

fn answer(asker: Asker, id: &str, told: Told) {
    match told {
        Told::Retried { record: None, .. } => asker.error(no_such_message(id)),
        Told::Retried { record: Some(record), not_final: true } => asker.error(
            Error::new(
                ErrorKind::Conflict,
                format!("{id} is {}, only a final message can run again", record.state),
            )
            .hint(format!("`taskd why {id}` says what it waits for")),
        ),
        Told::Retried { record: Some(record), .. } => asker.json(&Done {
            message: format!("{id} waits in queue {} again, its counters begin anew", record.message.queue),
            ..Done::default()
        }),
        Told::Fault(fault) => asker.error(store_error(&fault)),
        Told::Stopping => asker.error(stopping()),
        _ => asker.error(mismatch()),
    }
}
