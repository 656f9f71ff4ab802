//! How an attempt ended: the cause, the result or the error, and what it used.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::MessageId;
use super::time::Wall;

/// The kind of a failure that says: the system had no process, memory or descriptor left, and starting it
/// again later may work. The message goes back uncounted, and its pool starts nothing for a while.
pub const SPAWN_AGAIN: &str = "SpawnAgain";

/// Why an attempt ended. Promise 4: it is always known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The main process exited with this code (0 to 255).
    Exit {
        /// The code.
        code: i32,
    },
    /// The main process died of this signal, sent by somebody else than taskd; or by taskd for `tasks_max`,
    /// which the failure says then (`TasksMaxExceeded`).
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
    /// The program itself said that the run failed: an exception in a resident worker.
    Error {
        /// It also said that another attempt is of no use: there is none, whatever the task's policy.
        fatal: bool,
    },
    /// `soft_time_limit` or `time_limit` passed and taskd ended it.
    TimeLimit {
        /// True when the soft limit's signal was enough.
        soft: bool,
    },
    /// It went beyond `memory_max`.
    Memory,
    /// Canceled while it ran.
    Revoked,
    /// The child that ran it died, or its node did.
    WorkerLost,
    /// The program could not be started; the error says why.
    SpawnFailed,
    /// taskd ended it for a restart or a shutdown; it runs again, uncounted.
    Interrupted,
    /// It never started: its `expires` passed.
    Expired,
    /// It never started: the message does not fit the task's declaration any more.
    Rejected,
    /// It never started: a step of its workflow that comes before it failed.
    Upstream {
        /// That step's message.
        id: MessageId,
        /// Its number.
        step: u32,
    },
}

impl Cause {
    /// The word that stands in results, logs and `TASKD_CAUSE`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Exit { .. } => "exit",
            Self::Signal { .. } => "signal",
            Self::Error { .. } => "error",
            Self::TimeLimit { .. } => "time_limit",
            Self::Memory => "memory",
            Self::Revoked => "revoked",
            Self::WorkerLost => "worker_lost",
            Self::SpawnFailed => "spawn_failed",
            Self::Interrupted => "interrupted",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Upstream { .. } => "upstream",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exit code {code}"),
            Self::Signal { signal, core } => {
                write!(f, "signal {signal}{}", if *core { " (core dumped)" } else { "" })
            }
            Self::TimeLimit { soft: true } => f.write_str("soft time limit"),
            Self::TimeLimit { soft: false } => f.write_str("time limit"),
            other => f.write_str(other.word()),
        }
    }
}

/// What an attempt used, of the kernel's accounting (wait4(2) rusage: the main process and every
/// descendant that was waited for).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Usage {
    /// From the start of the main process to its end, in milliseconds.
    pub wall_ms: u64,
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident set of any one process, in bytes; never below that of taskd's runner (a few MiB), whose
    /// image each process has until it executes its program. `memory_peak` is free of that.
    pub max_rss: u64,
    /// Largest memory of the whole attempt, in bytes (`memory.peak` of its control group); absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Bytes read from disks (`io.stat`).
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub read_bytes: u64,
    /// Bytes written to disks (`io.stat`).
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub written_bytes: u64,
    /// Most processes and threads at once (`pids.peak`); absent where the kernel does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_peak: Option<u64>,
    /// Processes that were still alive at the end of the attempt and were killed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub killed_leftovers: u32,
    /// Bytes of output that were not copied to the spool or the journal (rate bound, full socket).
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub dropped_output: u64,
}

impl Usage {
    /// Whether more than the time was measured: a run in a resident worker shares its process with others.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.user_us > 0 || self.system_us > 0 || self.max_rss > 0
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero64(n: &u64) -> bool {
    *n == 0
}

/// An error in the words of the program (or of taskd, for `spawn_failed` and the like).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// The class of the error: an exception's name, or `ExitCode`, `Signal`, `SpawnFailed`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    pub message: String,
    /// Traceback, or the tail of stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceback: String,
}

/// The end of one attempt, as the child reported it or as taskd found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Outcome {
    /// Why it ended.
    pub cause: Cause,
    /// Whether the task's declaration calls this a success (exit 0, `success_on`, a worker's `success`).
    pub success: bool,
    /// Whether the program asked to be run again (exit 75, `retry_on`, a worker's `retry`), and after
    /// how many milliseconds if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryAsked>,
    /// The result of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The result was cut at `max_size`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The error of anything but a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// When the main process was started (wall clock); absent where nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub started: Option<Wall>,
    /// What a task of a Celery app says beside that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<Box<CeleryEnd>>,
}

impl Outcome {
    /// Cuts a result of more than so many bytes where it is a text; one of any other kind turns it into a failure that
    /// says so.
    pub fn bound_result(&mut self, most: u64) {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match &mut self.result {
            None => {}
            Some(Value::String(text)) => {
                self.truncated = text.len() > most;
                if self.truncated {
                    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                    text.truncate(end);
                }
            }
            Some(value) => {
                let size = super::message::json_len(value);
                if size > most {
                    self.success = false;
                    self.result = None;
                    self.cause = Cause::Error { fatal: false };
                    self.failure = Some(Failure {
                        kind: "ResultTooLarge".to_owned(),
                        message: format!(
                            "the task succeeded, but its result is {size} bytes of JSON, more than the {most} bytes of a result (`max_size` of [results])"
                        ),
                        traceback: String::new(),
                    });
                }
            }
        }
    }
}

/// What Celery's own result of a call has that an [`Outcome`] has no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CeleryEnd {
    /// The exception, as clients are to raise it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<Raised>,
    /// Tasks that the call sent, as `children` of a result has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Value>,
    /// Errbacks of the call, by their index, that were called where it ran: they are not to be sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errbacks: Vec<u32>,
    /// The task raised `Ignore`: what is stored under its id is somebody else's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
}

/// An exception of Python.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Raised {
    /// The module of its class.
    #[serde(default)]
    pub module: String,
    /// Its class.
    #[serde(rename = "type", default)]
    pub class: String,
    /// What it is made with.
    #[serde(default)]
    pub args: Vec<Value>,
}

/// The program asked for another attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RetryAsked {
    /// After this many milliseconds; absent: by the task's own retry policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The program counts its retries itself, by the number that it was told: the task's `max_retries` is not asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// The message goes back as it is, and that is no retry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
    /// What the next attempt is called with, if that is something else. On its way only: the message has it then.
    #[serde(skip)]
    #[schemars(skip)]
    pub call: Option<Box<NewCall>>,
}

/// Other arguments for the next attempt of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewCall {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map<String, Value>,
}

impl Outcome {
    /// Why it ended, in a word or two: the cause, or the class of the error that the program itself named.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.cause, &self.failure) {
            (Cause::Error { .. }, Some(failure)) if !failure.kind.is_empty() => failure.kind.clone(),
            (cause, _) => cause.to_string(),
        }
    }

    /// An outcome that taskd itself states: nothing ran to its end.
    #[must_use]
    pub fn of_cause(cause: Cause, message: impl Into<String>) -> Self {
        let kind = match &cause {
            Cause::Exit { .. } => "ExitCode",
            Cause::Signal { .. } => "Signal",
            Cause::Error { .. } => "Error",
            Cause::TimeLimit { soft: true } => "SoftTimeLimitExceeded",
            Cause::TimeLimit { soft: false } => "TimeLimitExceeded",
            Cause::Memory => "MemoryLimitExceeded",
            Cause::Revoked => "TaskRevoked",
            Cause::WorkerLost => "WorkerLost",
            Cause::SpawnFailed => "SpawnFailed",
            Cause::Interrupted => "Interrupted",
            Cause::Expired => "Expired",
            Cause::Rejected => "Rejected",
            Cause::Upstream { .. } => "UpstreamFailed",
        };
        Self {
            cause,
            success: false,
            retry: None,
            result: None,
            truncated: false,
            failure: Some(Failure {
                kind: kind.to_owned(),
                message: message.into(),
                traceback: String::new(),
            }),
            usage: Usage::default(),
            started: None,
            celery: None,
        }
    }
}

/// Why a running attempt is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// A person or a client said so.
    Revoked,
    /// Shutdown: the attempt goes back to its queue, uncounted.
    Interrupted,
    /// A time limit that the daemon enforces (resident workers).
    TimeLimit,
}
