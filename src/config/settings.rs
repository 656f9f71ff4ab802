//! The checked config with every default filled in: immutable, handed by the launcher to the daemon and
//! (in parts) to the runners through sealed memfds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cron::{Expr, SolarEvent, Timing, Wrong, Zone};
use crate::model::name;
use crate::model::schedule::{CatchUp, Overlap};
use crate::model::task::{IoClass, Limits, OUTSIDE, Surroundings, Task};
use crate::model::workflow::Declared;

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
    /// `[dead]`.
    #[serde(default)]
    pub dead: Dead,
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
    /// `[schedules.NAME]`.
    #[serde(default)]
    pub schedules: BTreeMap<String, Schedule>,
    /// `[workflows.NAME]`.
    #[serde(default)]
    pub workflows: BTreeMap<String, Declared>,
    /// `[notify]`; who is told stands in the tasks.
    #[serde(default)]
    pub notify: Notify,
    /// The hard limit of open files of a launcher that is root, filled in by it: what is above must be set
    /// before a runner gives root up. Absent: nothing is above it, or nothing can be done about it.
    #[serde(default)]
    pub hard_nofile: Option<u64>,
}

/// Who an attempt runs as; what is absent is that of whoever runs taskd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub user: Option<String>,
    /// The primary group; absent: the user's own.
    pub group: Option<String>,
    /// Groups beside those of the user.
    pub supplementary_groups: Vec<String>,
}

impl Identity {
    /// As one string, different for different ones: `USER` where no group is named, else
    /// `USER:GROUP+EXTRA+…`.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = escaped(self.user.as_deref().unwrap_or_default());
        if self.group.is_some() || !self.supplementary_groups.is_empty() {
            key.push(':');
            key.push_str(&escaped(self.group.as_deref().unwrap_or_default()));
        }
        for group in &self.supplementary_groups {
            key.push('+');
            key.push_str(&escaped(group));
        }
        key
    }
}

/// A name without the characters that part the names of a key.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            ':' | '+' | '#' | '%' => text.push_str(&format!("%{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// `[taskd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taskd {
    /// This node's name; default: the host name.
    pub node: String,
    /// `embedded`, or an address that [`crate::config::redis::Address`] reads. It may hold a password: it is shown
    /// by [`crate::config::redis::shown`] alone.
    pub broker: String,
    /// `broker` (the broker's own store), `none`, or an address as that of the broker.
    pub results: String,
    /// A Redis server may be used that drops keys when its memory is full.
    #[serde(default)]
    pub allow_eviction: bool,
    /// The embedded store, output spool, lock and instance id; default `/var/lib/taskd`.
    pub state_dir: PathBuf,
    /// The control socket; default `/run/taskd/taskd.sock`.
    pub socket: PathBuf,
    /// Time zone name for times given without one; absent: the system's.
    pub timezone: Option<String>,
    /// Nothing new starts while PSI memory pressure (`some avg10`) is above this many hundredths of a percent.
    #[serde(default)]
    pub max_memory_pressure: Option<u32>,
    /// What running attempts get at a warm shutdown, in milliseconds; default 30 s.
    pub shutdown_grace_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// The daemon's own user; absent: `taskd` where the launcher is root and that user exists.
    pub user: Option<String>,
}

/// `[notify]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Lines of output that a notice repeats; default 50.
    pub output_lines: u32,
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

/// `[dead]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// Dead letters are kept this long, in milliseconds; default 30 days.
    pub expires_ms: u64,
    /// At most this many dead letters are kept; default 10,000.
    pub max_records: u64,
}

impl Default for Dead {
    fn default() -> Self {
        Self { expires_ms: 30 * 86_400_000, max_records: 10_000 }
    }
}

/// `[access]`: user names, `@group` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Who may read everything; default `@taskd-users`.
    pub read: Vec<String>,
    /// Who may enqueue; default `@taskd-users`.
    pub enqueue: Vec<String>,
    /// Who may do everything; default `root`. The user taskd was started by always may.
    pub admin: Vec<String>,
    /// What `celery inspect` and `celery control` may do over a broker that Celery shares; default true.
    #[serde(default)]
    pub celery_control: CeleryControl,
}

/// `celery_control` of `[access]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeleryControl {
    /// Nothing: requests are not answered.
    No,
    /// Look.
    Read,
    /// Everything: whoever can write to the broker can delete its queues as well.
    #[default]
    Yes,
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
    /// Default group of its tasks.
    #[serde(default)]
    pub group: Option<String>,
    /// Default supplementary groups of its tasks.
    #[serde(default)]
    pub supplementary_groups: Vec<String>,
    /// When its children are replaced.
    #[serde(default)]
    pub recycle: Recycle,
    /// The program that runs its tasks, where it has one.
    #[serde(default)]
    pub worker: Option<Worker>,
}

/// When children are replaced though nothing is wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycle {
    /// `max_tasks_per_child`: never more than this many runs.
    pub max_tasks: Option<u64>,
    /// `max_memory_per_child`, in bytes: after a run that leaves the child and all below it above this.
    pub max_memory: Option<u64>,
    /// `max_child_age`, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// `max_child_idle`, in milliseconds: after that long without a run, if it ever had one.
    pub max_idle_ms: Option<u64>,
}

/// `[pools.NAME] worker` and what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The Celery app whose tasks it runs (`celery_app`): the program is a Python then, which is given taskd's own
    /// module as its script.
    #[serde(default)]
    pub celery_app: Option<String>,
    /// One process loads that app and the children are forked from it (`preload`).
    #[serde(default)]
    pub preload: bool,
    /// Surroundings of the process.
    pub surroundings: crate::model::task::Surroundings,
    /// Hard limits of one child.
    pub limits: crate::model::task::Limits,
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
    /// How often they start at most.
    #[serde(default)]
    pub rate: Option<crate::model::limit::RateLimit>,
    /// At most this many wait (scheduled ones included); then enqueue is refused.
    pub max_length: Option<u64>,
    /// Celery workers drain it too: a message for a task that is unknown here goes back to it.
    #[serde(default)]
    pub shared: bool,
}

/// `[[routes]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A glob over task names (`*` crosses dots).
    pub task: String,
    /// Where they go.
    pub queue: String,
}

/// `[schedules.NAME]`: exactly one of `cron`, `every_ms` and `solar` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// The task that it enqueues; else it has a workflow.
    pub task: Option<String>,
    /// The workflow that it launches.
    pub workflow: Option<String>,
    /// A crontab(5) expression.
    pub cron: Option<String>,
    /// How often, in milliseconds.
    pub every_ms: Option<u64>,
    /// With `every_ms`: at multiples of it, not after the last end.
    pub align: bool,
    /// An event of the sun.
    pub solar: Option<String>,
    /// Degrees north.
    pub latitude: Option<String>,
    /// Degrees east.
    pub longitude: Option<String>,
    /// The zone of `cron`; absent: the system's.
    pub timezone: Option<String>,
    /// What happens while a message of it has not ended.
    pub overlap: Overlap,
    /// What happens to times that were missed.
    pub catch_up: CatchUp,
    /// It fires later by a part of this, in milliseconds.
    pub splay_ms: u64,
    /// Positional arguments.
    pub args: Vec<serde_json::Value>,
    /// Keyword arguments.
    pub kwargs: serde_json::Map<String, serde_json::Value>,
    /// Another queue than the task's.
    pub queue: Option<String>,
    /// Another priority than the task's.
    pub priority: Option<u8>,
    /// Its messages expire so long after they were stored, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Whether it fires.
    pub enabled: bool,
    /// It pauses after so many failures in a row.
    pub pause_after_failures: Option<u32>,
}

impl Schedule {
    /// When it is planned; absent for one that follows its own ends. `zone`: that of an expression without one
    /// of its own; absent too: the system's.
    ///
    /// # Errors
    /// An expression, a zone or an event that the check would have refused, or that the system knows no more.
    pub fn timing(&self, zone: Option<&str>) -> Result<Option<Timing>, Wrong> {
        if let Some(text) = &self.cron {
            let zone = match self.timezone.as_deref().or(zone) {
                Some(name) => Zone::named(name)?,
                None => Zone::system(),
            };
            return Ok(Some(Timing::Cron { expr: Expr::parse(text)?, zone }));
        }
        if let Some(name) = &self.solar {
            let event = SolarEvent::named(name).ok_or_else(|| Wrong {
                message: format!("names no event of the sun: {name:?}"),
                help: "`taskd check` lists them".to_owned(),
                span: None,
            })?;
            let degrees = |text: &Option<String>| text.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0.0);
            let (latitude, longitude) = (degrees(&self.latitude), degrees(&self.longitude));
            return Ok(Some(Timing::Solar { event, latitude, longitude }));
        }
        Ok(self.every_ms.filter(|_| self.align).map(|ms| Timing::Every { ms }))
    }
}

impl Pool {
    /// A pool with every key but its size left at the default.
    #[must_use]
    pub fn new(name: &str, processes: u32) -> Self {
        Self {
            name: name.to_owned(),
            processes,
            user: None,
            group: None,
            supplementary_groups: Vec::new(),
            recycle: Recycle::default(),
            worker: None,
        }
    }
}

impl Taskd {
    /// The addresses of Redis that are named, of the broker first; each once.
    #[must_use]
    pub fn addresses(&self) -> Vec<super::redis::Address> {
        let mut found: Vec<super::redis::Address> = Vec::new();
        for text in [&self.broker, &self.results] {
            // What is no address of Redis is a word or somebody else's; what is wrong the check has refused.
            if let Ok(address) = super::redis::Address::parse(text)
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
        found
    }
}

impl Settings {
    /// Each task and each resident worker: its table in the config (`[tasks.NAME]`, `[pools.NAME]`), and what it
    /// runs in.
    pub fn surroundings(&self) -> impl Iterator<Item = (String, &Surroundings, &Limits)> {
        let tasks = self.tasks.values().map(|t| (format!("[tasks.{}]", t.name), &t.surroundings, &t.limits));
        let workers = self.pools.values().filter_map(|p| Some((&p.name, p.worker.as_ref()?)));
        tasks.chain(workers.map(|(name, w)| (format!("[pools.{name}]"), &w.surroundings, &w.limits)))
    }

    /// The declaration of a task of this name ([`crate::model::task::find`]).
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&Task> {
        crate::model::task::find(&self.tasks, name)
    }

    /// The tasks of which a fire of this schedule makes messages, in the order of the steps.
    pub fn tasks_of<'a>(&'a self, schedule: &'a Schedule) -> impl Iterator<Item = &'a str> {
        let workflow = schedule.workflow.as_ref().and_then(|name| self.workflows.get(name));
        let steps = workflow.into_iter().flat_map(|w| &w.steps).map(|step| step.message.task.as_str());
        schedule.task.as_deref().into_iter().chain(steps)
    }

    /// Whether a schedule fires: it is enabled, and so is every task that it runs.
    #[must_use]
    pub fn fires(&self, schedule: &Schedule) -> bool {
        let runs = |name: &str| self.task(name).is_some_and(|task| task.enabled);
        schedule.enabled && self.tasks_of(schedule).all(runs)
    }

    /// The queue of a message of this task: its own `queue`, else the first route that matches, else `default`.
    #[must_use]
    pub fn route<'a>(&'a self, task: &'a Task) -> &'a str {
        if let Some(q) = &task.queue {
            return q;
        }
        self.routes
            .iter()
            .find(|r| name::glob_matches(&r.task, &task.name))
            .map_or(if task.external { OUTSIDE } else { DEFAULT }, |r| r.queue.as_str())
    }

    /// Queues from which Celery workers take what taskd sends: those of external tasks, and shared ones.
    #[must_use]
    pub fn outside(&self) -> BTreeSet<String> {
        let shared = self.queues.values().filter(|q| q.shared).map(|q| q.name.clone());
        let external = self.tasks.values().filter(|task| task.external);
        let routed = self.routes.iter().map(|r| &r.queue).filter(|q| !self.queues.contains_key(*q)).cloned();
        shared.chain(external.map(|task| self.route(task).to_owned())).chain(routed).collect()
    }

    /// Whether an external task may go to this queue: Celery workers take from it.
    #[must_use]
    pub fn takes_outside(&self, queue: &str) -> bool {
        self.queues.get(queue).is_none_or(|q| q.shared) && self.outside().contains(queue)
    }

    /// Who this task's attempts run as in this pool; without a task: who its tasks run as that name nobody.
    /// Meant for settings that the launcher has filled users into.
    #[must_use]
    pub fn identity(pool: &Pool, task: Option<&Task>) -> Identity {
        // A resident worker is one process for all tasks of its pool.
        let task = task.filter(|_| pool.worker.is_none());
        let own = task.map(|t| &t.supplementary_groups).filter(|groups| !groups.is_empty());
        Identity {
            user: task.and_then(|t| t.user.clone()).or_else(|| pool.user.clone()),
            group: task.and_then(|t| t.group.clone()).or_else(|| pool.group.clone()),
            supplementary_groups: own.unwrap_or(&pool.supplementary_groups).clone(),
        }
    }

    /// Names the runners of this pool that may run this task: those of the same user and groups, and where
    /// it needs something that only root can set up, those of this task alone (`…#TASK`).
    #[must_use]
    pub fn runner_key(&self, pool: &Pool, task: &Task) -> String {
        let key = Self::identity(pool, Some(task)).key();
        if pool.worker.is_none() && self.needs_root_before(task) {
            return format!("{key}#{}", escaped(&task.name));
        }
        key
    }

    /// Whether this task asks for what can be set up only before root is given up: a negative nice value,
    /// the realtime class, a higher hard limit of open files.
    #[must_use]
    pub fn needs_root_before(&self, task: &Task) -> bool {
        let asked = &task.surroundings;
        asked.nice.is_some_and(|n| n < 0)
            || asked.io_class == Some(IoClass::Realtime)
            || asked.limit_nofile.zip(self.hard_nofile).is_some_and(|(wanted, hard)| wanted > hard)
    }

    /// Whether a message of this task runs as the same user in this queue as in the task's own: no runner takes it
    /// otherwise.
    #[must_use]
    pub fn runs_alike(&self, task: &Task, queue: &str) -> bool {
        let key = |queue: &str| self.pool_of(queue).map(|pool| self.runner_key(pool, task));
        task.external || key(queue) == key(self.route(task))
    }

    /// The pool that drains this queue.
    #[must_use]
    pub fn pool_of(&self, queue: &str) -> Option<&Pool> {
        self.queues.get(queue).and_then(|q| self.pools.get(&q.pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::Program;

    fn identity(user: &str, group: &str, more: &[&str]) -> Identity {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let more = more.iter().map(|g| (*g).to_owned()).collect();
        Identity { user: named(user), group: named(group), supplementary_groups: more }
    }

    #[test]
    fn keys_are_readable_and_never_the_same_for_two() {
        assert_eq!(identity("www", "", &[]).key(), "www");
        assert_eq!(identity("www", "web", &["adm", "tty"]).key(), "www:web+adm+tty");
        assert_eq!(identity("", "", &[]).key(), "");
        let names = ["", "a", "b", "a:b", "a+b", "%3a", "a#t"];
        let mut seen = std::collections::BTreeMap::new();
        for user in names {
            for group in names {
                for more in [&[][..], &["a"], &["b"], &["a", "b"], &["a+b"], &["b#t"]] {
                    let made = identity(user, group, more);
                    if let Some(other) = seen.insert(made.key(), made.clone()) {
                        panic!("{made:?} and {other:?} have the same key");
                    }
                }
            }
        }
    }

    #[test]
    fn a_tasks_own_words_go_before_its_pools() {
        let mut pool = Pool::new("p", 1);
        pool.user = Some("low".to_owned());
        pool.group = Some("web".to_owned());
        pool.supplementary_groups = vec!["adm".to_owned()];
        let mut task = Task::new("t", Program::Command("true".to_owned()));
        let key = |pool: &Pool, task: &Task| Settings::identity(pool, Some(task)).key();
        assert_eq!(key(&pool, &task), "low:web+adm");
        task.user = Some("high".to_owned());
        task.supplementary_groups = vec!["tty".to_owned()];
        assert_eq!(key(&pool, &task), "high:web+tty");
        assert_eq!(Settings::identity(&pool, None).key(), "low:web+adm");
    }
}
