//! The checked config with every default filled in: immutable, handed by the launcher to the daemon and
//! (in parts) to the runners through sealed memfds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::name;
use crate::model::task::Task;

/// The name of the pool and of the queue that exist when the config names none.
pub const DEFAULT: &str = "default";

/// Everything the file says, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Raised by one at each reload; `run` names it.
    pub generation: u64,
    /// `[taskd]`.
    pub taskd: Taskd,
    /// `[results]`.
    pub results: Results,
    /// `[access]`.
    pub access: Access,
    /// `[pools.NAME]`; `default` always exists.
    pub pools: BTreeMap<String, Pool>,
    /// `[queues.NAME]`; `default` always exists, and so does every queue a task or a route names.
    pub queues: BTreeMap<String, Queue>,
    /// `[[routes]]`, first match wins.
    pub routes: Vec<Route>,
    /// `[tasks.NAME]`.
    pub tasks: BTreeMap<String, Task>,
}

/// `[taskd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taskd {
    /// This node's name; default: the host name.
    pub node: String,
    /// `embedded` in this version.
    pub broker: String,
    /// `broker` (the broker's own store) or `none` in this version.
    pub results: String,
    /// The embedded store, output spool, lock and instance id; default `/var/lib/taskd`.
    pub state_dir: PathBuf,
    /// The control socket; default `/run/taskd/taskd.sock`.
    pub socket: PathBuf,
    /// Time zone name for times given without one; absent: the system's.
    pub timezone: Option<String>,
    /// What running attempts get at a warm shutdown, in milliseconds; default 30 s.
    pub shutdown_grace_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// The daemon's own user; absent: `taskd` where the launcher is root and that user exists.
    pub user: Option<String>,
}

/// `[results]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Finished records are kept this long, in milliseconds; default 1 day.
    pub expires_ms: u64,
    /// Bound of one result, in bytes; default 64 KiB.
    pub max_size: u64,
    /// At most this many finished records are kept; default 100,000 (`max_records`).
    pub max_records: u64,
    /// Bound of the output spool of one attempt, in bytes; default 1 MiB (`output_max_size`).
    pub output_max_size: u64,
    /// Bytes of output a second that a child may copy to the daemon; default 256 KiB (`output_rate`).
    pub output_rate: u64,
}

/// `[access]`: user names, `@group` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Who may read everything; default `@taskd-users`.
    pub read: Vec<String>,
    /// Who may enqueue; default `@taskd-users`.
    pub enqueue: Vec<String>,
    /// Who may do everything; default `root`. The user taskd was started by always may.
    pub admin: Vec<String>,
}

/// `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Children, 1 to 1,000; default: number of CPUs.
    pub processes: u32,
    /// Default user of its tasks; absent: `taskd-run` where the launcher is root and that user exists.
    pub user: Option<String>,
}

/// `[queues.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The pool that drains it; default `default`.
    pub pool: String,
    /// Share of slots while several queues of a pool wait, 1 to 1,000; default 1.
    pub weight: u32,
    /// Goes before every queue of its pool that is not strict.
    pub strict: bool,
    /// At most this many run at once.
    pub concurrency: Option<u32>,
    /// At most this many wait (scheduled ones included); then enqueue is refused.
    pub max_length: Option<u64>,
}

/// `[[routes]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A glob over task names (`*` crosses dots).
    pub task: String,
    /// Where they go.
    pub queue: String,
}

impl Settings {
    /// The queue of a message of this task: its own `queue`, else the first route that matches, else `default`.
    #[must_use]
    pub fn route<'a>(&'a self, task: &'a Task) -> &'a str {
        if let Some(q) = &task.queue {
            return q;
        }
        self.routes
            .iter()
            .find(|r| name::glob_matches(&r.task, &task.name))
            .map_or(DEFAULT, |r| r.queue.as_str())
    }

    /// The user of this task's attempts if its messages wait in `queue`: its own, else the pool's; absent:
    /// whoever runs taskd. Meant for settings that the launcher has filled users into.
    #[must_use]
    pub fn user_of<'a>(&'a self, task: &'a Task, queue: &str) -> Option<&'a str> {
        task.user.as_deref().or_else(|| self.pool_of(queue)?.user.as_deref())
    }

    /// The pool that drains this queue.
    #[must_use]
    pub fn pool_of(&self, queue: &str) -> Option<&Pool> {
        self.queues.get(queue).and_then(|q| self.pools.get(&q.pool))
    }
}
