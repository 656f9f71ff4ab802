//! `notify test`: a sample on the way that a real notice takes.

use super::Asker;
use super::enqueue::{Asked, answer, unknown_task};
use crate::control::api::{Error, ErrorKind, NotifyBody};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::event::Ask;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::notice::Notice;
use crate::model::state::State;

/// One message for each who would be told.
pub fn handle(d: &mut Daemon, asker: Asker, body: &NotifyBody) {
    let Some(task) = d.settings.task(&body.task) else {
        return asker.error(unknown_task(d, &body.task));
    };
    let Some(rule) = task.tell.rule(body.kind) else {
        let kind = body.kind.name();
        let what = format!("nobody is told of this: task {} has no target for {kind}", body.task);
        let hint = format!(
            "set on_{} in [tasks.{}] or [notify]",
            if kind == "missed" { "failure" } else { kind },
            body.task
        );
        return asker.error(Error::new(ErrorKind::Conflict, what).hint(hint));
    };
    let now = clock::now().wall;
    let sample = |target: &String| {
        let id = MessageId(uuid::Uuid::now_v7().to_string());
        let notice = Notice::sample(target.clone(), body.kind, &body.task, now);
        Message { uid: Some(asker.peer.uid), ..notice.message(id) }
    };
    let messages: Vec<Message> = rule.targets.iter().map(sample).collect();
    let asked = messages.iter().map(|_| Asked { state: State::Waiting, call: None }).collect();
    d.ask(Ask::Enqueue(messages), Box::new(move |_, told| answer(asker, told, asked, &|_| None)));
}
