//! What the end of an attempt means: exit code, signal, limit or cancel, and output become an outcome, and an
//! outcome a line of the protocol.

use nix::libc;
use serde_json::{Map, Value};

use super::supervision::Excess;
use crate::model::outcome::{CancelReason, Cause, Failure, Outcome, RetryAsked, Usage};
use crate::model::params::Bound;
use crate::model::task::{ResultKind, Task};
use crate::model::time::Wall;
use crate::process::descendants::Status;
use crate::process::launch::LeafUsage;
use crate::process::protocol::{Detail, FromChild, MAX_LINE, Run};

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be run again.
pub const TRY_AGAIN: i32 = 75;

/// Kind of the failure where `tasks_max` was exceeded and no control group refused the processes.
pub const TASKS_MAX: &str = "TasksMaxExceeded";

/// Why taskd ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The soft limit's signal was sent.
    Soft,
    /// The hard limit passed.
    Hard,
    /// The daemon or a person said so.
    Canceled(CancelReason),
    /// It was found beyond a limit that no control group enforces.
    Beyond(Excess),
}

/// What is known of an attempt that is over.
#[derive(Debug)]
pub struct Facts {
    /// Why taskd ended it, if it did.
    pub ending: Option<Ending>,
    /// How the main process ended; absent where it could not be ended.
    pub status: Option<Status>,
    /// What it used.
    pub usage: Usage,
    /// When it started.
    pub started: Wall,
    /// Something of it is left that SIGKILL does not end.
    pub stuck: bool,
    /// What its control group counted, where it had one.
    pub leaf: Option<LeafUsage>,
    /// Its `memory_max`, in bytes.
    pub memory_max: Option<u64>,
}

impl Facts {
    /// The figures of the attempt: those of its control group where that counted them, which also knows of
    /// what nobody waited for.
    fn usage(&self) -> Usage {
        let mut usage = self.usage.clone();
        if let Some(leaf) = &self.leaf {
            if leaf.user_us + leaf.system_us > 0 {
                usage.user_us = leaf.user_us;
                usage.system_us = leaf.system_us;
            }
            usage.memory_peak = leaf.memory_peak;
            usage.tasks_peak = leaf.tasks_peak;
            usage.read_bytes = leaf.read_bytes;
            usage.written_bytes = leaf.written_bytes;
            // Both kill what is left, and each sees some of it die.
            usage.killed_leftovers = usage.killed_leftovers.max(leaf.killed);
        }
        usage
    }

    /// The kernel ended it, or something it needed, for want of memory. One that reached its own good end is
    /// no such case: then it was a leftover.
    fn out_of_memory(&self, task: &Task) -> bool {
        let good = |code: i32| code == 0 || task.retry.success_on.contains(&code);
        self.leaf.as_ref().is_some_and(|leaf| leaf.out_of_memory)
            && !matches!(self.status, Some(Status::Exited(code)) if good(code))
    }
}

/// What was kept of its output.
#[derive(Debug, Default)]
pub struct Printed {
    /// Trimmed head of stdout.
    pub stdout: Vec<u8>,
    /// There was more of it.
    pub truncated: bool,
    /// Last lines of stderr.
    pub stderr: String,
    /// Bytes that were not copied.
    pub dropped: u64,
}

/// The outcome of an attempt.
#[must_use]
pub fn outcome(task: &Task, facts: Facts, printed: Printed) -> Outcome {
    let mut usage = facts.usage();
    usage.dropped_output = printed.dropped;
    let ended = |cause: Cause, message: String| {
        let mut outcome = Outcome::of_cause(cause, message);
        if let Some(failure) = &mut outcome.failure {
            failure.traceback.clone_from(&printed.stderr);
            if facts.stuck {
                failure.message.push_str("; a process of it does not die, even of SIGKILL");
            }
        }
        outcome
    };
    let after = format!("after {}", seconds(usage.wall_ms));
    let mut outcome = match (facts.ending, facts.status) {
        (Some(Ending::Soft), _) => {
            ended(Cause::TimeLimit { soft: true }, format!("soft_time_limit: ended {after}"))
        }
        (Some(Ending::Hard) | Some(Ending::Canceled(CancelReason::TimeLimit)), _) => {
            ended(Cause::TimeLimit { soft: false }, format!("time_limit: killed {after}"))
        }
        (Some(Ending::Canceled(CancelReason::Revoked)), _) => {
            ended(Cause::Revoked, format!("canceled {after}"))
        }
        (Some(Ending::Canceled(CancelReason::Interrupted)), _) => {
            ended(Cause::Interrupted, format!("interrupted {after}"))
        }
        (Some(Ending::Beyond(Excess::Memory { limit, found })), _) => ended(
            Cause::Memory,
            format!("memory_max: killed {after}, {} in use where {} are allowed", bytes(found), bytes(limit)),
        ),
        (Some(Ending::Beyond(Excess::Tasks { limit, found })), _) => {
            let message = format!(
                "tasks_max: killed {after}, {found} or more processes and threads where {limit} are allowed"
            );
            let mut failed = ended(Cause::Signal { signal: libc::SIGKILL, core: false }, message);
            if let Some(failure) = &mut failed.failure {
                TASKS_MAX.clone_into(&mut failure.kind);
            }
            failed
        }
        (None, _) if facts.out_of_memory(task) => {
            let limit = facts.memory_max.map_or_else(String::new, |max| format!(" of {}", bytes(max)));
            let peak = usage.memory_peak.map_or_else(String::new, |peak| format!(" (peak {})", bytes(peak)));
            ended(Cause::Memory, format!("memory_max{limit}: killed by the kernel {after}{peak}"))
        }
        (None, Some(Status::Signaled { signal, core })) => {
            ended(Cause::Signal { signal, core }, format!("killed by {}", signal_name(signal)))
        }
        (None, Some(Status::Exited(code))) if code == 0 || task.retry.success_on.contains(&code) => {
            success(task, code, &printed)
        }
        (None, Some(Status::Exited(code))) => {
            let mut failed = ended(Cause::Exit { code }, format!("exit code {code}"));
            let asks = code == TRY_AGAIN || task.retry.retry_on.contains(&code);
            failed.retry = asks.then(RetryAsked::default);
            failed
        }
        // Only an attempt that was given up has neither, and only one that was being ended is given up.
        (None, None) => ended(Cause::WorkerLost, "its main process is lost".to_owned()),
    };
    outcome.usage = usage;
    outcome.started = Some(facts.started);
    outcome
}

fn success(task: &Task, code: i32, printed: &Printed) -> Outcome {
    let mut outcome = Outcome {
        cause: Cause::Exit { code },
        success: true,
        retry: None,
        result: None,
        truncated: false,
        failure: None,
        usage: Usage::default(),
        started: None,
        celery: None,
    };
    if task.ignore_result {
        return outcome;
    }
    match task.result {
        ResultKind::None => {}
        ResultKind::Stdout => {
            outcome.result = Some(Value::from(String::from_utf8_lossy(&printed.stdout)));
            outcome.truncated = printed.truncated;
        }
        ResultKind::Json => {
            let parsed = if printed.truncated {
                Err(format!("stdout is longer than the {} bytes of a result", task.result_max_size))
            } else {
                serde_json::from_slice(&printed.stdout).map_err(|e| format!("stdout is not JSON: {e}"))
            };
            match parsed {
                Ok(value) => outcome.result = Some(value),
                Err(why) => {
                    outcome.success = false;
                    outcome.failure = Some(Failure {
                        kind: "ResultNotJson".to_owned(),
                        message: format!("exit code {code}, but {why}"),
                        traceback: printed.stderr.clone(),
                    });
                }
            }
        }
    }
    outcome
}

/// The outcome as a line of the protocol; [`FromChild::into_outcome`] is its inverse.
#[must_use]
pub fn line(run: &str, outcome: Outcome) -> Vec<u8> {
    let encoded = super::outbound::encode(&message(run, outcome.clone()));
    if encoded.len() <= MAX_LINE {
        return encoded;
    }
    // A result of control characters can grow sixfold as JSON: what would break the protocol is left out.
    let cut = Outcome { result: None, truncated: true, ..outcome };
    super::outbound::encode(&message(run, cut))
}

fn message(run: &str, outcome: Outcome) -> FromChild {
    let run = run.to_owned();
    let Outcome { cause, success, retry, result, truncated, failure, usage, started, celery: _ } = outcome;
    let detail = Some(Box::new(Detail { cause, usage, started, truncated }));
    if success {
        return FromChild::Success { run, result, detail, celery: None };
    }
    if let Some(RetryAsked { delay_ms, .. }) = retry {
        let (own, back, args, kwargs) = (false, false, None, None);
        return FromChild::Retry { run, delay_ms, detail, failure, own, back, args, kwargs, celery: None };
    }
    let Failure { kind, message, traceback } = failure.unwrap_or_default();
    FromChild::Failure { run, kind, message, traceback, retry: None, detail, celery: None }
}

/// What a task with `stdin = "json"` reads: one object on one line.
#[must_use]
pub fn stdin(run: &Run, bound: &Bound) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("id".to_owned(), Value::from(run.id.as_str()));
    object.insert("task".to_owned(), Value::from(run.task.as_str()));
    object.insert("queue".to_owned(), Value::from(run.queue.as_str()));
    object.insert("attempt".to_owned(), Value::from(run.attempt));
    object.insert("args".to_owned(), Value::from(bound.args.clone()));
    object.insert("kwargs".to_owned(), Value::from(bound.kwargs.clone()));
    let mut bytes = serde_json::to_vec(&object).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |named| format!("{} ({signal})", named.as_str()))
}

/// As the config writes sizes, where that is exact enough.
fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{n} bytes"),
        10_240..10_485_760 => format!("{} KiB", n >> 10),
        _ => format!("{} MiB", n >> 20),
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
