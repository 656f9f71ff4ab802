//! A command of the engine -> the adapter that does it.

use std::time::Duration;

use super::notes;
use super::state::{Daemon, RunInfo};
use crate::engine::command::{Command, Note, RunOrder};
use crate::engine::event::ChildKey;
use crate::model::message::Delivery;
use crate::model::op::{Fault, Op, Reply};
use crate::model::state::State;
use crate::model::time::Mono;
use crate::observe::fields::STORE_FAULT;
use crate::process::launch::{ChildId, Slot, ToLauncher};
use crate::process::protocol::{Run, ToChild};

/// Attempts of a dead letter whose output is kept as long as the letter.
const KEPT_ATTEMPTS: u32 = 5;

/// Does what the engine wants done.
pub fn perform(d: &mut Daemon, command: Command) {
    match command {
        Command::Broker(ticket, mut op) => {
            if let Op::Settle(settle) = &mut op {
                super::notices::fill(d, settle);
            }
            d.submit(ticket, op);
        }
        Command::Spawn { slot, user } => {
            let slot = Slot { pool: slot.pool, index: slot.index };
            d.launcher.send(ToLauncher::Spawn { slot, user });
        }
        Command::End { child, kill } => {
            if kill {
                d.launcher.send(ToLauncher::End { child: ChildId(child.0), kill: true });
            } else if let Some(living) = d.children.get(&child) {
                living.link.finish();
            }
        }
        Command::Measure { child } => d.launcher.send(ToLauncher::Measure { child: ChildId(child.0) }),
        Command::Run { child, run } => start(d, child, *run),
        Command::Cancel { child, run, reason } => {
            if let Some(living) = d.children.get(&child) {
                if let Some(info) = d.runs.get_mut(&run) {
                    info.canceled = Some(reason);
                }
                living.link.send(&ToChild::Cancel { run, reason });
            }
        }
        Command::Settled { child, run } => {
            if let Some(info) = d.runs.remove(&run)
                && info.printed
            {
                d.spool.close(&info.id, info.attempt);
            }
            d.tell_settled(child, run);
        }
        Command::Answer { key, answer } => d.answer(key, answer),
        Command::Note(note) => noted(d, &note),
        Command::Finished => d.finished = true,
    }
}

fn start(d: &mut Daemon, child: ChildKey, order: RunOrder) {
    // What was printed up to now is not this run's.
    super::worker_output::drain(d, child, None);
    let now = super::clock::now();
    let Some(living) = d.children.get(&child) else { return };
    let message = order.message;
    let has_app = super::broker::has_app(&d.settings, &message.queue);
    let passes = message.step.as_ref().is_some_and(|s| s.passes);
    let info = RunInfo {
        id: message.id.0.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        attempt: order.attempt,
        passes,
        child,
        pid: None,
        since: now.mono,
        began: now.wall,
        begun: false,
        canceled: None,
        printed: false,
        dropped: 0,
        progress: None,
        ended: false,
    };
    living.link.send(&ToChild::Run(Box::new(Run {
        run: order.run.clone(),
        generation: order.generation,
        id: message.id.0,
        task: message.task,
        queue: message.queue,
        args: message.args,
        kwargs: message.kwargs,
        attempt: order.attempt,
        deadline_ms: order.deadline_ms,
        soft_deadline_ms: order.soft_deadline_ms,
        memory_retries: message.memory_retries,
        passes,
        retries: message.retries,
        // A runner has no use for them.
        headers: if living.child.worker { message.headers } else { serde_json::Map::new() },
        celery: message.celery.filter(|_| has_app).and_then(|sent| match *sent {
            serde_json::Value::String(envelope) => crate::celery::handed::of(&envelope).map(Box::new),
            given => Some(Box::new(given)),
        }),
    })));
    d.runs.insert(order.run, info);
}

/// Runs that a daemon before this one started: their children name them soon, or did already.
pub fn recovered(d: &mut Daemon, deliveries: &[Delivery]) {
    for delivery in deliveries.iter().filter(|x| x.started) {
        let run = crate::engine::run_key(delivery.token);
        let now = super::clock::now();
        let info = RunInfo {
            id: delivery.message.id.0.clone(),
            task: delivery.message.task.clone(),
            queue: delivery.message.queue.clone(),
            attempt: delivery.attempt,
            passes: delivery.message.step.as_ref().is_some_and(|s| s.passes),
            child: ChildKey(0),
            pid: None,
            since: now.mono,
            began: now.wall,
            begun: true,
            canceled: None,
            printed: true,
            dropped: 0,
            progress: None,
            ended: false,
        };
        let id = delivery.message.id.clone();
        if let Some(info) = d.adopted.found(&run, info) {
            d.runs.insert(run.clone(), info);
        }
        d.read(Op::Get { id }, Box::new(move |d, reply| began(d, &run, reply)));
    }
}

/// The store knows when a run began that a daemon before this one started.
fn began(d: &mut Daemon, run: &str, reply: Result<Reply, Fault>) {
    if let Ok(Reply::Record(Some(record))) = reply
        && let (Some(started), Some(info)) = (record.started, d.runs.get_mut(run))
    {
        let now = super::clock::now();
        info.began = started;
        info.since = Mono(now.mono.0.saturating_sub(now.wall.since(started)));
    }
}

fn noted(d: &mut Daemon, note: &Note) {
    super::peer::note(d, note);
    match note {
        Note::Ended { id, state, outcome, attempt, .. } => {
            if *state == State::Dead {
                keep_output(d, id.as_str(), *attempt);
            }
            d.totals.dropped_output += outcome.usage.dropped_output;
            if *state == State::Success {
                d.totals.succeeded += 1;
            } else {
                d.totals.failed += 1;
            }
            if state.is_final() {
                d.waiters.wake(id.as_str());
            }
        }
        Note::Dropped { id, .. } | Note::Workflow { id, .. } | Note::Over { id, .. } => {
            d.waiters.wake(id.as_str())
        }
        Note::Recycled { child, .. } => {
            let pid = d.children.get(child).map(|living| living.child.pid);
            return notes::recycled(note, pid);
        }
        // What goes on is told by `Daemon::look_at_store`.
        Note::Store(None) => return,
        Note::Store(Some(_)) if d.engine.store_fault().is_some() => return,
        Note::Store(Some(why)) => return tracing::error!(MESSAGE_ID = STORE_FAULT, "the store: {why}"),
        _ => {}
    }
    notes::log(note);
}

/// How long output is kept, in milliseconds: as long as the records it belongs to.
fn output_expires_ms(d: &Daemon) -> u64 {
    let own = d.settings.tasks.values().map(|t| t.result_expires_ms).max().unwrap_or(0);
    own.max(d.settings.results.expires_ms)
}

/// Drops output that is older than the records it belongs to.
pub fn collect_output(d: &Daemon) {
    d.spool.collect(Duration::from_millis(output_expires_ms(d)));
}

/// A dead letter is kept for longer than other records; the output of its latest attempts stays with it.
fn keep_output(d: &Daemon, id: &str, attempt: u32) {
    let longer = d.settings.dead.expires_ms.saturating_sub(output_expires_ms(d));
    for n in attempt.saturating_sub(KEPT_ATTEMPTS - 1).max(1)..=attempt {
        d.spool.keep(id, n, Duration::from_millis(longer));
    }
}
