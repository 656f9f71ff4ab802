//! `retry`: a new life for a message that is final.

use super::enqueue::allowed;
use super::workflow::{self, Found, find_own};
use super::{Asker, mismatch, no_such_message, stopping, store_error};
use crate::control::api::{Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::message::Record;
use crate::model::name::MessageId;
use crate::model::outcome::Cause;

/// Admins, and who enqueued it.
pub fn handle(d: &mut Daemon, asker: Asker, id: String) {
    find_own(d, asker, id.clone(), "retry", move |d, asker, found| {
        let record = match found {
            Found::Message(record) => record,
            Found::Workflow(seen) => return workflow::retry_found(d, asker, &seen),
        };
        if let Some(step) = record.message.step.as_ref().filter(|_| never_ran(&record)) {
            let what = format!("{id} never ran: what comes before it in its workflow did not end well");
            let e = Error::new(ErrorKind::Conflict, what);
            return asker.error(e.hint(format!("taskd retry {} retries the workflow", step.workflow)));
        }
        let Some(task) = d.settings.task(&record.message.task) else {
            let what = format!("{id} cannot run again: no task is named {} any more", record.message.task);
            return asker.error(Error::new(ErrorKind::UnknownTask, what));
        };
        if let Err(e) = allowed(d, &asker, task) {
            return asker.error(e);
        }
        d.ask(Ask::Retry(MessageId(id.clone())), Box::new(move |_, told| answer(asker, &id, told)));
    });
}

/// Whether a step ended because of another one.
fn never_ran(record: &Record) -> bool {
    let cause = record.outcome.as_ref().map(|o| &o.cause);
    record.attempt == 0 && matches!(cause, Some(Cause::Upstream { .. }))
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
        Told::Taken { holder, record, .. } => {
            let seen = record.is_none_or(|record| asker.may_see(&record));
            let mut e = super::enqueue::key_taken(seen.then_some(&holder), false);
            e.message = format!("{id} cannot run again now: {}", e.message);
            asker.error(e);
        }
        Told::Fault(fault) => asker.error(store_error(&fault)),
        Told::Stopping => asker.error(stopping()),
        _ => asker.error(mismatch()),
    }
}
