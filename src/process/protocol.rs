//! The child protocol (version 1, frozen): newline-delimited JSON over the socket on file descriptor 3,
//! the same for runners and resident workers.
//!
//! For who writes a worker without a JSON parser: taskd's own lines begin with `op` and, where they are about a
//! run, go on with `run`; there is no white space between tokens, and a quote inside of a string is escaped.
//!
//! What the daemon adds for a resident worker, and what it does not believe:
//! - `detail` is a runner's. Of a worker's line it is ignored: the cause of a `failure` is `error` (`revoked`,
//!   `interrupted` or `time_limit` after a `cancel` of that kind), its time is measured by the daemon.
//! - `"retry":false` in a `failure` means that there is no other attempt, whatever the task's policy.
//! - A result that is a text is cut at the task's bound; any other one beyond it makes the run a failure
//!   (`ResultTooLarge`). `type`, `message` and `traceback` are cut at 256 bytes, 4 KiB and 64 KiB.
//! - `output` goes to the journal and the spool, as a line on stdout or stderr does while one run is in flight.
//! - A worker that closes its socket and does not exit within 2 s, says what is no line of this protocol, or
//!   more than [`MAX_LINE`] bytes without a newline, is killed; what it ran is `worker_lost`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::outcome::{CancelReason, Cause, CeleryEnd, Failure, NewCall, Outcome, RetryAsked, Usage};
use crate::model::time::Wall;

/// The protocol's version.
pub const VERSION: u32 = 1;

/// Longest line either way, in bytes, its newline included.
pub const MAX_LINE: usize = 16 << 20;

/// The file descriptor of the socket in a child; also in its environment as `TASKD_FD`.
pub const FD: i32 = 3;

/// From the daemon to a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ToChild {
    /// At each (re)connection, preceded by a newline that ends a torn line.
    Hello {
        /// [`VERSION`].
        v: u32,
        /// Raised at each start of a daemon under one launcher, from 1.
        epoch: u64,
    },
    /// Run this.
    Run(Box<Run>),
    /// End this run. `reason` is `revoked`, `interrupted` or `time_limit`.
    Cancel {
        /// The run.
        run: String,
        /// Why.
        reason: CancelReason,
    },
    /// The outcome of this run is committed; the child may forget it.
    Settled {
        /// The run.
        run: String,
    },
}

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Opaque key, unique per attempt; every line about it carries it.
    pub run: String,
    /// The generation of the settings that the message was checked against.
    pub generation: u64,
    /// The message's id.
    pub id: String,
    /// The task's name; the command comes from the child's own copy of the config.
    pub task: String,
    /// The queue it came from.
    pub queue: String,
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Hard limit, in milliseconds from the receipt of this line; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Soft limit, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_deadline_ms: Option<u64>,
    /// Times the message was run again by its task's `on_memory` rule: chooses among the limits that the
    /// config declares.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_retries: u32,
    /// A later step of its workflow is given its result: it is told even where the task keeps none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes: bool,
    /// Retries so far, whoever asked for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// What its client attached.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// What a Celery client sent with it ([`crate::model::message::Message::celery`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<Box<Value>>,
}

/// A stream of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// From a child to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FromChild {
    /// The answer to `hello`.
    Ready {
        /// [`VERSION`].
        v: u32,
        /// Runs it takes at once, at least 1.
        #[serde(default = "one")]
        capacity: u32,
        /// Task names it serves (globs allowed); empty: whatever it is sent.
        #[serde(default)]
        tasks: Vec<String>,
        /// Whether it can be adopted by a new daemon.
        #[serde(default)]
        resume: bool,
    },
    /// After `ready`, for each run it holds whose outcome it has not reported yet.
    Running {
        /// The run.
        run: String,
    },
    /// After `ready`, the `running` lines and all unsettled outcomes: nothing else is held.
    Resumed {},
    /// The main process of a run was started.
    Started {
        /// The run.
        run: String,
        /// Its process id, 0 where it has none of its own.
        #[serde(default)]
        pid: u32,
        /// A soft limit of the program's own, in milliseconds from this line on; the task's holds beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        soft_time_limit_ms: Option<u64>,
        /// A hard limit of the program's own, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time_limit_ms: Option<u64>,
    },
    /// How far a run is.
    Progress {
        /// The run.
        run: String,
        /// Done so far.
        #[serde(default)]
        current: u64,
        /// Of how many.
        #[serde(default)]
        total: u64,
        /// One line for people.
        #[serde(default)]
        message: String,
    },
    /// One line (or a cut of one) that a run printed; `line` as text or `data` as base64.
    Output {
        /// The run.
        run: String,
        /// Where it was printed.
        stream: Stream,
        /// The text, without its newline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<String>,
        /// The bytes where they are not UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<String>,
        /// The line goes on in the next `output` of this stream.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cut: bool,
    },
    /// A run succeeded.
    Success {
        /// The run.
        run: String,
        /// Its result.
        #[serde(default)]
        result: Option<Value>,
        /// What a runner adds: cause, usage, start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Box<Detail>>,
        /// What a task of a Celery app adds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        celery: Option<Box<CeleryEnd>>,
    },
    /// A run failed.
    Failure {
        /// The run.
        run: String,
        /// Class of the error.
        #[serde(rename = "type")]
        kind: String,
        /// One line for people.
        message: String,
        /// Traceback or tail of stderr.
        #[serde(default)]
        traceback: String,
        /// Whether the task wants to be retried; absent: by its policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<bool>,
        /// What a runner adds: cause, usage, start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Box<Detail>>,
        /// What a task of a Celery app adds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        celery: Option<Box<CeleryEnd>>,
    },
    /// A run asks to be run again.
    Retry {
        /// The run.
        run: String,
        /// After this many milliseconds; absent: by the task's policy.
        #[serde(default)]
        delay_ms: Option<u64>,
        /// What a runner adds: cause, usage, start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Box<Detail>>,
        /// The error, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// The program counts its retries itself, by `retries` of the run: `max_retries` is not asked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        own: bool,
        /// The message goes back as it is, and that is no retry.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
        /// Other positional arguments for the next attempt; with them or with `kwargs` both are replaced.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args: Option<Vec<Value>>,
        /// Other keyword arguments, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kwargs: Option<Map<String, Value>>,
        /// What a task of a Celery app adds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        celery: Option<Box<CeleryEnd>>,
    },
    /// The child does not run this; the message goes back uncounted.
    Refused {
        /// The run.
        run: String,
        /// Why.
        why: String,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn one() -> u32 {
    1
}

/// What a runner knows of an attempt beyond what a resident worker does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Why it ended.
    pub cause: Cause,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// When its main process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Wall>,
    /// The result was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl FromChild {
    /// A run that this process began.
    #[must_use]
    pub const fn started(run: String, pid: u32) -> Self {
        Self::Started { run, pid, soft_time_limit_ms: None, time_limit_ms: None }
    }

    /// The run a line is about.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::Ready { .. } | Self::Resumed {} => None,
            Self::Running { run }
            | Self::Started { run, .. }
            | Self::Progress { run, .. }
            | Self::Output { run, .. }
            | Self::Success { run, .. }
            | Self::Failure { run, .. }
            | Self::Retry { run, .. }
            | Self::Refused { run, .. } => Some(run),
        }
    }

    /// The outcome that a `success`, `failure` or `retry` line states.
    #[must_use]
    pub fn into_outcome(self) -> Option<(String, Outcome)> {
        let blank = |cause| Outcome {
            cause,
            success: false,
            retry: None,
            result: None,
            truncated: false,
            failure: None,
            usage: Usage::default(),
            started: None,
            celery: None,
        };
        let mut outcome = blank(Cause::Exit { code: 0 });
        let (run, detail) = match self {
            Self::Success { run, result, detail, celery } => {
                outcome.success = true;
                outcome.result = result;
                outcome.celery = celery;
                (run, detail)
            }
            Self::Failure { run, kind, message, traceback, retry, detail, celery } => {
                outcome.celery = celery;
                outcome.failure = Some(Failure { kind, message, traceback });
                outcome.retry = retry.unwrap_or(false).then(RetryAsked::default);
                (run, detail)
            }
            Self::Retry { run, delay_ms, detail, failure, own, back, args, kwargs, celery } => {
                outcome.failure = failure;
                outcome.celery = celery;
                let call = (args.is_some() || kwargs.is_some()).then(|| {
                    Box::new(NewCall { args: args.unwrap_or_default(), kwargs: kwargs.unwrap_or_default() })
                });
                outcome.retry = Some(RetryAsked { delay_ms, own, back, call });
                (run, detail)
            }
            _ => return None,
        };
        if let Some(d) = detail {
            outcome.cause = d.cause;
            outcome.usage = d.usage;
            outcome.started = d.started;
            outcome.truncated = d.truncated;
        }
        Some((run, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_op_and_run_for_workers_that_do_not_parse() {
        let run = serde_json::json!({"run": "7", "generation": 1, "id": "m", "task": "t", "queue": "q",
            "args": ["a \"b\""], "attempt": 1});
        let line = serde_json::to_string(&ToChild::Run(serde_json::from_value(run).unwrap())).unwrap();
        assert!(
            line.starts_with(r#"{"op":"run","run":"7","#) && line.contains(r#""args":["a \"b\""]"#),
            "{line}"
        );
        let line = serde_json::to_string(&ToChild::Hello { v: 1, epoch: 2 }).unwrap();
        assert_eq!(line, r#"{"op":"hello","v":1,"epoch":2}"#);
    }
}
