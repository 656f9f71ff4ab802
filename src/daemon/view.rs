//! Records and settings as the API shows them.

use super::state::Daemon;
use crate::control::api::{MessageView, TaskView};
use crate::model::message::Record;
use crate::model::params::{Param, ParamType};
use crate::model::state::State;
use crate::model::task::{Program, Task};

/// A record, with what this node knows of its running attempt.
#[must_use]
pub fn message(d: &Daemon, record: &Record) -> MessageView {
    let m = &record.message;
    let run = (record.state == State::Running)
        .then(|| record.token.and_then(|t| d.runs.get(&crate::engine::run_key(t))))
        .flatten();
    let ready = m.eta.unwrap_or(m.enqueued).max(m.enqueued);
    let started = record.outcome.as_ref().and_then(|o| o.started).or(record.started);
    MessageView {
        id: m.id.0.clone(),
        task: m.task.clone(),
        queue: m.queue.clone(),
        state: record.state,
        args: m.args.clone(),
        kwargs: m.kwargs.clone(),
        priority: m.priority,
        attempt: record.attempt,
        retries: m.retries,
        losses: record.losses,
        memory_retries: m.memory_retries,
        memory_max: d
            .settings
            .task(&m.task)
            .filter(|_| !record.state.is_final())
            .and_then(|t| t.limits.memory_at(m.memory_retries)),
        uid: m.uid,
        schedule: m.fired.as_ref().map(|f| f.schedule.clone()),
        planned: m.fired.as_ref().and_then(|f| f.planned).map(|at| at.0),
        enqueued: m.enqueued.0,
        due: record.due.map(|t| t.0),
        expires: m.expires.map(|t| t.0),
        started: started.map(|t| t.0),
        finished: record.finished.map(|t| t.0),
        waited_ms: record.started.map(|t| t.since(ready)),
        pid: run.and_then(|r| r.pid),
        progress: run.and_then(|r| r.progress.clone()),
        outcome: record.outcome.clone(),
        node: record.started.map(|_| d.settings.taskd.node.clone()),
    }
}

/// A declared task.
#[must_use]
pub fn task(d: &Daemon, task: &Task) -> TaskView {
    TaskView {
        name: task.name.clone(),
        kind: match task.program {
            Program::Command(_) => "command",
            Program::Exec(_) => "exec",
            Program::Worker => "worker",
        }
        .to_owned(),
        queue: d.settings.route(task).to_owned(),
        params: task.params.iter().map(param).collect(),
        one_of: task
            .params
            .iter()
            .filter(|p| !p.one_of.is_empty())
            .map(|p| (p.name.clone(), p.one_of.clone()))
            .collect(),
        enabled: task.enabled,
    }
}

fn param(p: &Param) -> String {
    let kind = match p.kind {
        ParamType::String => "string",
        ParamType::Int => "int",
        ParamType::Float => "float",
        ParamType::Bool => "bool",
    };
    match &p.default {
        Some(default) => format!("{}={kind}, default {default}", p.name),
        None => format!("{}={kind}", p.name),
    }
}
