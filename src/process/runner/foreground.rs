//! One attempt in the foreground, without a daemon: `taskd exec`.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};

use super::attempt::{Attempt, Kit, StartError};
use super::verdict::Printed;
use crate::model::message::Message;
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::task::{ResultKind, Task};
use crate::process::protocol::Run;
use crate::process::signals::Signals;
use crate::process::spawn::Stdio;

/// Runs a declared task once, with the limits and the environment it would have in a runner, its output on
/// our own stdout and stderr (so there is no result). SIGINT or SIGTERM cancel it, a second one kills it.
///
/// The caller must have no children of its own: all that is found below it is taken for the attempt's.
#[must_use]
pub fn run_once(task: &Task, message: &Message, node: &str, instance: &str) -> Outcome {
    let failed = |why: String| Outcome::of_cause(Cause::SpawnFailed, why);
    // What goes to a terminal can be no result.
    let task = Arc::new(Task { result: ResultKind::None, ..task.clone() });
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return failed(format!("no signal descriptor: {e}")),
    };
    let kit = match Kit::new(node, instance) {
        Ok(kit) => kit,
        Err(e) => return failed(e.to_string()),
    };
    let run = Run {
        run: message.id.0.clone(),
        generation: 0,
        id: message.id.0.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        args: message.args.clone(),
        kwargs: message.kwargs.clone(),
        attempt: 1,
        deadline_ms: None,
        soft_deadline_ms: None,
        memory_retries: 0,
    };
    let mut attempt = match Attempt::start(&kit, &task, &run, Instant::now(), Stdio::Inherit, None) {
        Ok((attempt, _)) => attempt,
        Err(StartError::Arguments(faults)) => return Outcome::of_cause(Cause::Rejected, faults.join("; ")),
        Err(StartError::Environment(why)) => return failed(why),
        Err(StartError::Spawn(e)) => return failed(e.to_string()),
    };
    let mut told = false;
    while !attempt.is_over() {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(pipe) = attempt.feed_pipe() {
            fds.push(PollFd::new(pipe, PollFlags::POLLOUT));
        }
        // Whatever the answer is, both are looked at without waiting.
        let _ = poll(&mut fds, super::timeout(attempt.deadline()));
        let now = Instant::now();
        let came = signals.take();
        if came.terminate || came.interrupt {
            if told {
                attempt.kill(now);
            } else {
                attempt.cancel(CancelReason::Revoked, now);
            }
            told = true;
        }
        if came.child {
            attempt.on_child(now);
        }
        attempt.feed();
        attempt.tick(now);
    }
    attempt.outcome(Printed::default())
}
