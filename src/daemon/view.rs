//! Records and settings as the API shows them.

use super::state::Daemon;
use crate::config::values;
use crate::control::api::{MessageView, TaskView, UniqueView};
use crate::engine::rate::Limited;
use crate::model::message::Record;
use crate::model::outcome::{Cause, Outcome};
use crate::model::params::{Param, ParamType};
use crate::model::state::State;
use crate::model::task::{Program, Task};
use crate::model::unique::{Holds, Unique};
use crate::model::workflow::{Head, Stage, StepSeen};

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
        unique: m.unique.as_ref().map(|claim| UniqueView {
            key: claim.key.clone(),
            holds: claim.holds,
            period_ms: claim.period_ms,
            on_conflict: claim.on_conflict,
        }),
        workflow: m.step.as_ref().map(|s| s.workflow.0.clone()),
        node: record.started.map(|_| d.settings.taskd.node.clone()),
    }
}

/// A workflow as if it were one message: its results in order, or what kept it from having them.
#[must_use]
pub fn workflow(head: &Head, ends: Vec<StepSeen>, cut: bool) -> MessageView {
    let state = head.state();
    let single = ends.len() == 1;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(ends.len());
    for end in ends {
        outcomes.push(end.outcome.unwrap_or_else(|| match end.stage {
            Stage::Ended(State::Success) => well(None),
            _ => Outcome::of_cause(Cause::Revoked, "it did not run, or nothing is kept of it"),
        }));
    }
    let mut outcome = None;
    if state.is_final() {
        let failed = outcomes.iter().position(|o| !o.success);
        let mut shown = match failed.filter(|_| state != State::Success) {
            Some(at) => outcomes.get(at).cloned().unwrap_or_else(|| well(None)),
            None if single => outcomes.first().cloned().unwrap_or_else(|| well(None)),
            None => well(None),
        };
        if !single {
            shown.truncated = cut;
            shown.result = Some(outcomes.into_iter().map(|o| o.result.unwrap_or_default()).collect());
        }
        outcome = Some(shown);
    }
    MessageView {
        id: head.id.0.clone(),
        task: head.name.clone(),
        queue: String::new(),
        state,
        args: Vec::new(),
        kwargs: serde_json::Map::new(),
        priority: 0,
        attempt: 0,
        retries: 0,
        losses: 0,
        memory_retries: 0,
        memory_max: None,
        uid: head.uid,
        schedule: None,
        planned: None,
        enqueued: head.launched.0,
        due: None,
        expires: None,
        started: None,
        finished: head.finished.map(|t| t.0),
        waited_ms: None,
        pid: None,
        progress: None,
        outcome,
        unique: None,
        workflow: Some(head.id.0.clone()),
        node: None,
    }
}

fn well(result: Option<serde_json::Value>) -> Outcome {
    let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
    (outcome.success, outcome.failure, outcome.result) = (true, None, result);
    outcome
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
        limits: limits(d, task),
        enabled: task.enabled,
        unique: task.unique.as_ref().map(unique),
    }
}

fn unique(u: &Unique) -> String {
    let key = if u.key.is_empty() { "all arguments".to_owned() } else { u.key.join(", ") };
    let holds = match u.holds {
        Holds::Both => "queued and running",
        other => other.word(),
    };
    let period = u.period_ms.map(|ms| format!(", {} at most", values::show_duration(ms))).unwrap_or_default();
    format!("{key} while {holds}{period}, {}", u.on_conflict.word())
}

/// What limits a task, in words.
fn limits(d: &Daemon, task: &Task) -> Vec<String> {
    let throttle = &task.throttle;
    let each = |each: bool| throttle.key.as_ref().filter(|_| each).map(|key| format!(" for each {key}"));
    let in_force = d.engine.rate(&Limited::Task(task.name.clone()));
    let rate = in_force.and_then(|in_force| in_force.rate);
    let rate = rate.map(|rate| format!("{rate}{}", each(throttle.rate_each).unwrap_or_default()));
    let places = throttle
        .concurrency
        .map(|n| format!("{n} at once{}", each(throttle.concurrency_each).unwrap_or_default()));
    rate.into_iter().chain(places).collect()
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
