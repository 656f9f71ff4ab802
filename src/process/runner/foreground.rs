//! One attempt in the foreground, without a daemon: `taskd exec`.
//!
//! Two processes share it, so that it ends whole whichever is killed: the one that was called only waits and
//! passes signals on, its child supervises the attempt. When the first is killed the second sees the end of
//! their socket and ends everything; when the second is killed, all that it looked after falls to the first.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::attempt::{Attempt, Kit, StartError};
use super::verdict::Printed;
use crate::model::message::Message;
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::task::{ResultKind, Task};
use crate::process::descendants;
use crate::process::held::Held;
use crate::process::protocol::Run;
use crate::process::signals::Signals;
use crate::process::spawn::Stdio;

/// Runs a declared task once, with the limits and the environment it would have in a runner, its output on
/// our own stdout and stderr (so there is no result). SIGINT or SIGTERM cancel it, a second one kills it. `held` is
/// what it may be given of secrets.
///
/// The caller must have no children of its own: all that is found below it is taken for the attempt's.
#[must_use]
pub fn run_once(task: &Task, message: &Message, node: &str, instance: &str, held: &Held) -> Outcome {
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return failed(format!("no signal descriptor: {e}")),
    };
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(e) => return failed(format!("no socket: {e}")),
    };
    if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
        return failed(e.to_string());
    }
    // SAFETY: the child goes on with this thread alone. It waits for no lock of another one: `taskd exec` has
    // a single thread, and the allocator is made safe for a fork by the C library.
    match unsafe { fork() } {
        Err(e) => failed(format!("no new process: {e}")),
        Ok(ForkResult::Parent { child }) => {
            drop(theirs);
            watch(child, &signals, ours)
        }
        Ok(ForkResult::Child) => {
            drop(ours);
            // A Ctrl-C is for the other one, who passes it on.
            let _ = setsid();
            let outcome = supervise(task, message, (node, instance, held), &signals, &theirs);
            let text = serde_json::to_vec(&outcome).unwrap_or_default();
            // Nobody reads it where the other one was killed.
            let _ = (&theirs).write_all(&text);
            // SAFETY: leaves without running anything that the other process would run again.
            unsafe { libc::_exit(0) }
        }
    }
}

fn failed(why: String) -> Outcome {
    Outcome::of_cause(Cause::SpawnFailed, why)
}

/// Waits for the outcome and passes signals on.
fn watch(child: Pid, signals: &Signals, mut socket: UnixStream) -> Outcome {
    let mut text = Vec::new();
    loop {
        let mut fds =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        let told = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        let came = signals.take();
        if came.terminate || came.interrupt {
            let _ = kill(child, if came.terminate { Signal::SIGTERM } else { Signal::SIGINT });
        }
        // It is said in one piece, at the end.
        if told {
            let _ = socket.read_to_end(&mut text);
            break;
        }
    }
    let outcome = serde_json::from_slice(&text);
    let _ = nix::sys::wait::waitpid(child, None);
    outcome.unwrap_or_else(|_| {
        end_all();
        Outcome::of_cause(Cause::WorkerLost, "the process that looked after it was killed")
    })
}

/// Kills and reaps all descendants; those that do not die are left after a while.
fn end_all() {
    for _ in 0..1_000 {
        descendants::kill_all();
        while let Ok(Some(_)) = descendants::reap(-1) {}
        if descendants::reap(-1).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the attempt to its end. `other` is readable once the other process is gone.
fn supervise(
    task: &Task,
    message: &Message,
    (node, instance, held): (&str, &str, &Held),
    signals: &Signals,
    other: &UnixStream,
) -> Outcome {
    // What goes to a terminal can be no result.
    let task = Arc::new(Task { result: ResultKind::None, ..task.clone() });
    let kit = match Kit::new(node, instance, held.clone()) {
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
        passes: false,
        retries: 0,
        headers: serde_json::Map::new(),
        celery: None,
    };
    let mut attempt = match Attempt::start(&kit, &task, &run, Instant::now(), Stdio::Inherit, None) {
        Ok((attempt, _)) => attempt,
        Err(StartError::Arguments(faults)) => return Outcome::of_cause(Cause::Rejected, faults.join("; ")),
        Err(StartError::Environment(why)) => return failed(why),
        Err(StartError::Spawn(e)) => return failed(e.to_string()),
    };
    let mut told = false;
    let mut alone = false;
    while !attempt.is_over() {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if !alone {
            fds.push(PollFd::new(other.as_fd(), PollFlags::POLLIN));
        }
        if let Some(pipe) = attempt.feed_pipe() {
            fds.push(PollFd::new(pipe, PollFlags::POLLOUT));
        }
        // Whatever the answer is, both are looked at without waiting.
        let _ = poll(&mut fds, super::timeout(attempt.deadline()));
        let now = Instant::now();
        if !alone && fds.get(1).and_then(PollFd::any).unwrap_or(false) {
            alone = true;
            attempt.cancel(CancelReason::Revoked, now);
            attempt.kill(now);
            descendants::kill_all();
        }
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
