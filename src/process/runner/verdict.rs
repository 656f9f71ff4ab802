//! What the end of an attempt means: exit code, signal, limit or cancel, and output become an outcome, and an
//! outcome a line of the protocol.

use serde_json::{Map, Value};

use crate::model::outcome::{CancelReason, Cause, Failure, Outcome, RetryAsked, Usage};
use crate::model::params::Bound;
use crate::model::task::{ResultKind, Task};
use crate::model::time::Wall;
use crate::process::descendants::Status;
use crate::process::protocol::{Detail, FromChild, MAX_LINE, Run};

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be run again.
pub const TRY_AGAIN: i32 = 75;

/// Why taskd ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The soft limit's signal was sent.
    Soft,
    /// The hard limit passed.
    Hard,
    /// The daemon or a person said so.
    Canceled(CancelReason),
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
    let mut usage = facts.usage;
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
    let Outcome { cause, success, retry, result, truncated, failure, usage, started } = outcome;
    let detail = Some(Box::new(Detail { cause, usage, started, truncated }));
    if success {
        return FromChild::Success { run, result, detail };
    }
    if let Some(RetryAsked { delay_ms }) = retry {
        return FromChild::Retry { run, delay_ms, detail, failure };
    }
    let Failure { kind, message, traceback } = failure.unwrap_or_default();
    FromChild::Failure { run, kind, message, traceback, retry: None, detail }
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

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
