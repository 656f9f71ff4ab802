//! What the API asks, one file a command.

use super::state::Daemon;
use crate::control::api::{Answer, Call, Error, ErrorKind, Peer, Request, Rights};
use crate::model::message::Record;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Reply};
use crate::model::time::Wall;
use crate::model::workflow::Look;

pub mod cancel;
pub mod dead;
pub mod drain;
pub mod enqueue;
pub mod list;
pub mod logs;
pub mod notify;
pub mod pause;
pub mod purge;
pub mod queues;
pub mod rate;
pub mod reload;
pub mod result;
pub mod retry;
pub mod schedules;
pub mod show;
pub mod status;
pub mod stop;
pub mod store;
pub mod tasks;
pub mod why;
pub mod workflow;

/// Who asks, and where the answer goes.
pub struct Asker {
    /// By whom.
    pub peer: Peer,
    /// What the peer may do.
    pub rights: Rights,
    /// Where the answer goes.
    pub answer: tokio::sync::oneshot::Sender<Answer>,
}

impl Asker {
    /// Answers with a value.
    pub fn json<T: serde::Serialize>(self, value: &T) {
        let answer = match serde_json::to_string(value) {
            Ok(text) => Answer::Json(text),
            Err(e) => {
                Answer::Error(Error::new(ErrorKind::Internal, format!("the answer cannot be written: {e}")))
            }
        };
        let _ = self.answer.send(answer);
    }

    /// Answers with an error.
    pub fn error(self, error: Error) {
        let _ = self.answer.send(Answer::Error(error));
    }

    /// Answers with a fault of the store.
    pub fn fault(self, fault: &Fault) {
        self.error(store_error(fault));
    }

    /// Whether this peer may see (and end) this message: who may read, and who enqueued it.
    #[must_use]
    pub fn may_see(&self, record: &Record) -> bool {
        self.rights.admin || self.rights.read || self.owns(record)
    }

    /// Whether this peer enqueued this message.
    #[must_use]
    pub fn owns(&self, record: &Record) -> bool {
        record.message.uid == Some(self.peer.uid)
    }
}

/// A store's fault as the API words it.
#[must_use]
pub fn store_error(fault: &Fault) -> Error {
    match fault {
        Fault::Again(why) | Fault::Reconnect(why) => {
            Error::new(ErrorKind::Unavailable, format!("the store cannot do this now: {why}"))
                .hint("try again; with the same --id a repeat is safe")
        }
        Fault::Refused(why) | Fault::Poison(why) => {
            Error::new(ErrorKind::Internal, format!("the store refused this: {why}"))
        }
    }
}

/// The same answer for an id that is not there and for one that is not this peer's to see.
#[must_use]
pub fn no_such_message(id: &str) -> Error {
    Error::new(ErrorKind::UnknownMessage, format!("no message with the id {id}"))
        .hint("finished messages are forgotten after [results] expires; `taskd list` shows what is known")
}

/// Looks a message up and goes on with it, if this peer may see it.
fn with_record(
    d: &mut Daemon,
    asker: Asker,
    id: &str,
    then: impl FnOnce(&mut Daemon, Asker, Box<Record>) + 'static,
) {
    let id = id.to_owned();
    let op = Op::Get { id: MessageId(id.clone()) };
    d.read(
        op,
        Box::new(move |d, reply| match reply {
            Ok(Reply::Record(Some(record))) if asker.may_see(&record) => then(d, asker, record),
            Ok(Reply::Record(_)) => asker.error(no_such_message(&id)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

/// Hands a call to its command.
pub fn dispatch(d: &mut Daemon, call: Call) {
    let Call { request, peer, rights, answer } = call;
    let asker = Asker { peer, rights, answer };
    match request {
        Request::Enqueue(list) => enqueue::handle(d, asker, list),
        Request::Message { id } => result::handle(d, asker, id, 0),
        Request::Result { id, wait_ms } => result::handle(d, asker, id, wait_ms),
        Request::Logs { id, follow } => logs::handle(d, asker, id, follow),
        Request::Why { id } => why::handle(d, asker, id),
        Request::Cancel { id } => cancel::handle(d, asker, id),
        Request::Retry { id } => retry::handle(d, asker, id),
        Request::Launch(body) => workflow::handle(d, asker, *body),
        Request::Show { id, from, limit, results } => {
            show::handle(d, asker, Look { id: MessageId(id), from, limit, results });
        }
        Request::CancelWorkflow { id } => workflow::cancel(d, asker, id),
        Request::RetryWorkflow { id } => workflow::retry(d, asker, id),
        Request::Workflows => workflow::list(d, asker),
        Request::List(query) => list::handle(d, asker, &query),
        Request::Dead(query) => dead::list(d, asker, &query),
        Request::DeadExport(query) => dead::export(d, asker, &query),
        Request::DeadRetry(body) => dead::retry(d, asker, body),
        Request::DeadPurge(body) => dead::purge(d, asker, body),
        Request::Status => status::handle(d, asker),
        Request::Queues => queues::handle(d, asker),
        Request::Tasks => tasks::handle(d, asker),
        Request::Pause { queue, paused } => pause::handle(d, asker, queue, paused),
        Request::Rate { name, queue, body } => rate::handle(d, asker, name, queue, body),
        Request::Notify(body) => notify::handle(d, asker, &body),
        Request::Purge { queue } => purge::handle(d, asker, queue),
        Request::Schedules => schedules::list(d, asker),
        Request::Planned { name, most } => schedules::planned(d, asker, name.as_deref(), most),
        Request::RunSchedule { name, id } => schedules::run(d, asker, &name, id),
        Request::PauseSchedule { name, paused } => schedules::pause(d, asker, name, paused),
        Request::Rewind { name, to, dry } => schedules::rewind(d, asker, name, Wall(to), dry),
        Request::Reload { binary } => reload::handle(d, asker, binary),
        Request::Drain { off } => drain::handle(d, asker, off),
        Request::Stop { now } => stop::handle(d, asker, now),
        Request::Backup => store::backup(d, asker),
        Request::Verify => store::verify(d, asker),
        Request::Export { leave_workflows } => store::export(d, asker, leave_workflows),
        Request::Import(list) => store::import(d, asker, list),
    }
}

/// An answer of the engine that does not fit the question.
#[must_use]
pub fn mismatch() -> Error {
    Error::new(ErrorKind::Internal, "the engine gave an answer to another question; please report this")
}

/// This daemon hands over to that of a new program.
#[must_use]
pub fn handing_over() -> Error {
    Error::new(ErrorKind::Stopping, "taskd is being replaced by a new version").hint("try again")
}

/// taskd has settled everything and takes nothing more.
#[must_use]
pub fn stopping() -> Error {
    Error::new(ErrorKind::Stopping, "taskd is stopping").hint("try again when it is back")
}
