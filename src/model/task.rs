//! A declared task: everything the engine, the runner and the API need to know of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limit::Throttle;
use super::notice::Tell;
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
    /// `environment`; `${credential:NAME}` stands in it as it is written.
    pub environment: BTreeMap<String, String>,
    /// `pass_environment`: names taken over from the daemon's environment.
    pub pass_environment: Vec<String>,
    /// `environment_file`: read by the runner at each start, as systemd's EnvironmentFile=.
    pub environment_file: Option<String>,
    /// `credentials`: names of those that are visible as files.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// `working_directory`; default: `/`.
    pub working_directory: Option<String>,
    /// `umask`; default 0o022.
    pub umask: Option<u32>,
    /// `nice`, -20 to 19 (below 0 only where taskd is root).
    pub nice: Option<i32>,
    /// `limit_nofile`.
    pub limit_nofile: Option<u64>,
    /// `io_class`.
    #[serde(default)]
    pub io_class: Option<IoClass>,
    /// The sandbox keys.
    #[serde(default)]
    pub sandbox: Sandbox,
}

/// `io_class`: the scheduling class of ioprio_set(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoClass {
    /// By the nice value.
    None,
    /// Before all others; only root may.
    Realtime,
    /// The usual one.
    BestEffort,
    /// Only when nobody else wants the disk.
    Idle,
}

/// `protect_system`, with systemd's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectSystem {
    /// Nothing is protected.
    #[default]
    No,
    /// `/usr` and the boot loader's directories are read-only.
    Yes,
    /// `/etc` too.
    Full,
    /// Everything but `/dev`, `/proc`, `/sys` and `read_write_paths`.
    Strict,
}

/// What an attempt is kept from, in systemd's words (systemd.exec(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// `no_new_privileges`.
    pub no_new_privileges: bool,
    /// `private_tmp`: `/tmp` and `/var/tmp` of its own, gone with the attempt.
    pub private_tmp: bool,
    /// `protect_system`.
    pub protect_system: ProtectSystem,
    /// `private_network`: a loopback interface and nothing else.
    pub private_network: bool,
    /// `read_write_paths`: writable although `protect_system` says otherwise.
    pub read_write_paths: Vec<String>,
}

impl Sandbox {
    /// Whether it asks for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it takes namespaces of its own to keep, which a unit may forbid.
    #[must_use]
    pub fn needs_namespaces(&self) -> bool {
        *self != Self { no_new_privileges: self.no_new_privileges, ..Self::default() }
    }
}

/// Hard limits of one attempt, enforced by its control group (else supervised at an interval).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory_max`, in bytes.
    pub memory_max: Option<u64>,
    /// `cpu_quota`, in percent of one CPU.
    pub cpu_quota: Option<u32>,
    /// `tasks_max`: processes and threads.
    pub tasks_max: Option<u64>,
    /// `on_memory`.
    pub on_memory: Option<OnMemory>,
}

/// `on_memory`: what follows an attempt that went beyond `memory_max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnMemory {
    /// The limit of the next attempt; absent: the same.
    pub memory_max: Option<Raise>,
    /// The queue of the next attempt; absent: the same.
    pub queue: Option<String>,
    /// How often in the life of a message, 1 to 100.
    pub max: u32,
}

/// How a limit is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Raise {
    /// To so many percent of what it was (`"2x"` is 200).
    Percent(u32),
    /// To so many bytes.
    Bytes(u64),
}

impl Limits {
    /// Whether a control group would have something to limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory_max.is_none() && self.cpu_quota.is_none() && self.tasks_max.is_none()
    }

    /// The memory limit after `on_memory` was applied so many times, in bytes; more times than its `max`
    /// count as `max`, so that nobody can ask for more than the config grants.
    #[must_use]
    pub fn memory_at(&self, times: u32) -> Option<u64> {
        let first = self.memory_max?;
        let Some(rule) = &self.on_memory else { return Some(first) };
        let times = times.min(rule.max);
        match rule.memory_max {
            Some(Raise::Bytes(bytes)) if times > 0 => Some(bytes),
            Some(Raise::Percent(percent)) => {
                let raise =
                    |n: u64| u64::try_from(u128::from(n) * u128::from(percent) / 100).unwrap_or(u64::MAX);
                Some((0..times).fold(first, |n, _| raise(n)))
            }
            _ => Some(first),
        }
    }
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
    /// `group`: its primary group; absent: its pool's, else its user's own.
    #[serde(default)]
    pub group: Option<String>,
    /// `supplementary_groups`: beside those of its user.
    #[serde(default)]
    pub supplementary_groups: Vec<String>,
    /// Hard limits of one attempt.
    #[serde(default)]
    pub limits: Limits,
    /// How often its messages start at most, and how many run at once.
    #[serde(default)]
    pub throttle: Throttle,
    /// Who may enqueue it (`@group`, user names); absent: whoever `[access] enqueue` names.
    pub allow: Option<Vec<String>>,
    /// Whether a message from a shared broker may run it.
    pub remote: bool,
    /// It is run by Celery workers, never here.
    #[serde(default)]
    pub external: bool,
    /// Disabled tasks are refused at enqueue.
    pub enabled: bool,
    /// Process surroundings.
    pub surroundings: Surroundings,
    /// `unique`: at most one message with the same arguments.
    #[serde(default)]
    pub unique: Option<super::unique::Unique>,
    /// Who is told of it.
    #[serde(default)]
    pub tell: Tell,
}

/// The queue of external tasks that nothing else names one for: Celery's own default.
pub const OUTSIDE: &str = "celery";

/// The declaration of a task of this name: its own, else that of the longest pattern (`shop.*`) that matches
/// it. Only tasks of resident workers are declared by patterns.
#[must_use]
pub fn find<'a>(tasks: &'a BTreeMap<String, Task>, name: &str) -> Option<&'a Task> {
    let pattern = || super::name::longest_pattern(tasks.keys().map(String::as_str), name);
    tasks.get(name).or_else(|| tasks.get(pattern()?))
}

impl Task {
    /// A task with every key but its name and its program left at the default.
    #[must_use]
    pub fn new(name: &str, program: Program) -> Self {
        Self {
            name: name.to_owned(),
            program,
            params: Vec::new(),
            queue: None,
            priority: 0,
            retry: RetryPolicy::default(),
            soft_time_limit_ms: None,
            time_limit_ms: None,
            soft_signal: 15,
            acks: Acks::Late,
            ignore_result: false,
            result: ResultKind::Stdout,
            result_max_size: 64 << 10,
            result_expires_ms: 86_400_000,
            expires_ms: None,
            stdin: Stdin::None,
            allow_dash: false,
            dash_dash: true,
            user: None,
            group: None,
            supplementary_groups: Vec::new(),
            limits: Limits::default(),
            throttle: Throttle::default(),
            allow: None,
            remote: true,
            external: false,
            enabled: true,
            surroundings: Surroundings::default(),
            unique: None,
            tell: Tell::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_limit_is_raised_as_often_as_the_rule_says_and_no_more() {
        let rule = |memory_max, max| Some(OnMemory { memory_max, queue: None, max });
        let limits = |on_memory| Limits { memory_max: Some(1000), on_memory, ..Limits::default() };
        let at = |l: &Limits| [0, 1, 2, 9].map(|n| l.memory_at(n).unwrap());
        assert_eq!(at(&limits(rule(Some(Raise::Percent(200)), 2))), [1000, 2000, 4000, 4000]);
        assert_eq!(at(&limits(rule(Some(Raise::Bytes(5000)), 1))), [1000, 5000, 5000, 5000]);
        assert_eq!(at(&limits(rule(None, 3))), [1000; 4]);
        assert_eq!(at(&limits(None)), [1000; 4]);
        assert_eq!(Limits::default().memory_at(3), None);
    }
}
