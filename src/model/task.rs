//! A declared task: everything the engine, the runner and the API need to know of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::params::Param;

/// How a task is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// `command`: a text for `/bin/sh -c`; arguments never pass through the shell's parser.
    Command(String),
    /// `exec`: argv; `{name}` is replaced inside its element.
    Exec(Vec<String>),
    /// Run by the resident worker of its queue's pool.
    Worker,
}

/// What the task gets on stdin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    None,
    /// One JSON object: `id`, `task`, `queue`, `attempt`, `args`, `kwargs`.
    Json,
}

/// What becomes the result of a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    /// The trimmed stdout, as a string.
    #[default]
    Stdout,
    /// Stdout parsed as JSON; anything else is a failure.
    Json,
    /// Nothing.
    None,
}

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// With its outcome: it runs again when its attempt is lost.
    #[default]
    Late,
    /// At its start: a lost attempt is a FAILURE, it never runs twice.
    Early,
}

/// When and how often a failed task is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Retries after the first attempt; 0: only on `retry_on`, exit 75 never retries either.
    pub max_retries: u32,
    /// First (or fixed) delay, in milliseconds.
    pub delay_ms: u64,
    /// Double the delay at each retry.
    pub backoff: bool,
    /// Upper bound of the delay, in milliseconds.
    pub backoff_max_ms: u64,
    /// Full jitter: draw the delay between 0 and what it would be.
    pub jitter: bool,
    /// Exit codes that ask for a retry; empty: any failure does.
    pub retry_on: Vec<i32>,
    /// Exit codes that are a success, besides 0.
    pub success_on: Vec<i32>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 0,
            delay_ms: 10_000,
            backoff: false,
            backoff_max_ms: 600_000,
            jitter: true,
            retry_on: Vec::new(),
            success_on: Vec::new(),
        }
    }
}

/// Limits and surroundings of the process; the runner's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// `environment`.
    pub environment: BTreeMap<String, String>,
    /// `pass_environment`: names taken over from the daemon's environment.
    pub pass_environment: Vec<String>,
    /// `environment_file`: read by the runner at each start, as systemd's EnvironmentFile=.
    pub environment_file: Option<String>,
    /// `working_directory`; default: `/`.
    pub working_directory: Option<String>,
    /// `umask`; default 0o022.
    pub umask: Option<u32>,
    /// `nice`, -20 to 19 (below 0 only where taskd is root).
    pub nice: Option<i32>,
    /// `limit_nofile`.
    pub limit_nofile: Option<u64>,
}

/// A declared task with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// How it is run.
    pub program: Program,
    /// Declared parameters in declared order; positional arguments bind to them in this order.
    pub params: Vec<Param>,
    /// Its own queue; absent: routes, then the default queue.
    pub queue: Option<String>,
    /// Priority of messages that name none, 0 to 9.
    pub priority: u8,
    /// Retries.
    pub retry: RetryPolicy,
    /// After this many milliseconds `soft_signal` is sent.
    pub soft_time_limit_ms: Option<u64>,
    /// After this many milliseconds everything is killed.
    pub time_limit_ms: Option<u64>,
    /// Signal of the soft limit; default SIGTERM (15).
    pub soft_signal: i32,
    /// `acks`.
    pub acks: Acks,
    /// No result is kept.
    pub ignore_result: bool,
    /// What becomes the result.
    pub result: ResultKind,
    /// Bound of the result, in bytes.
    pub result_max_size: u64,
    /// The record is dropped this long after the final state, in milliseconds.
    pub result_expires_ms: u64,
    /// Messages that name no `expires` get one this long after they were accepted.
    pub expires_ms: Option<u64>,
    /// `stdin`.
    pub stdin: Stdin,
    /// Values may begin with `-` even where a placeholder begins its element.
    pub allow_dash: bool,
    /// `--` stands between the argv and appended positional arguments.
    pub dash_dash: bool,
    /// The user it runs as; absent: its pool's.
    pub user: Option<String>,
    /// Who may enqueue it (`@group`, user names); absent: whoever `[access] enqueue` names.
    pub allow: Option<Vec<String>>,
    /// Whether a message from a shared broker may run it.
    pub remote: bool,
    /// Disabled tasks are refused at enqueue.
    pub enabled: bool,
    /// Process surroundings.
    pub surroundings: Surroundings,
}
