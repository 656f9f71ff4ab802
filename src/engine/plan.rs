//! The part of the settings that the engine decides by. Built by the daemon at start and at each reload.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use crate::cron::Timing;
use crate::model::limit::RateLimit;
use crate::model::op::Retention;
use crate::model::schedule::{CatchUp, Overlap};
use crate::model::task::Task;
use crate::model::workflow::Declared;

/// Everything the engine decides by.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Generation of the settings.
    pub generation: u64,
    /// Pools by name.
    pub pools: BTreeMap<String, PoolPlan>,
    /// Queues by name.
    pub queues: BTreeMap<String, QueuePlan>,
    /// Declared tasks by name.
    pub tasks: BTreeMap<String, Task>,
    /// `[[routes]]`: glob and queue, first match wins.
    pub routes: Vec<(String, String)>,
    /// Schedules by name.
    pub schedules: BTreeMap<String, SchedulePlan>,
    /// What running attempts get at a warm shutdown, in milliseconds.
    pub shutdown_grace_ms: u64,
    /// Nothing new starts while memory pressure is above this, in hundredths of a percent.
    pub max_memory_pressure: Option<u32>,
    /// Retention of finished records.
    pub retention: Retention,
    /// Other nodes share the store: what they take of a limit this one does not see.
    pub shared: bool,
    /// Where times of day are meant.
    pub zone: TimeZone,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Slots.
    pub processes: u32,
    /// Default user of its tasks; empty: whoever runs taskd.
    pub user: String,
    /// When its children are replaced though nothing is wrong with them.
    pub recycle: Recycle,
    /// Its children are a program of the user's: the daemon keeps their limits, and runs of any task go there.
    pub worker: bool,
}

/// When children are replaced; absent bounds never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycle {
    /// Never more than this many runs.
    pub max_tasks: Option<u64>,
    /// After a run that leaves the child and all below it above this many bytes.
    pub max_memory: Option<u64>,
    /// Older than this, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// So long without a run after the last one, in milliseconds.
    pub max_idle_ms: Option<u64>,
}

impl PoolPlan {
    /// A pool of runners that are replaced for no reason but a fault.
    #[must_use]
    pub fn new(processes: u32, user: &str) -> Self {
        Self { processes, user: user.to_owned(), recycle: Recycle::default(), worker: false }
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// Its pool.
    pub pool: String,
    /// Share of slots, at least 1.
    pub weight: u32,
    /// Before all that are not strict.
    pub strict: bool,
    /// At most this many run at once.
    pub concurrency: Option<u32>,
    /// How often its messages start at most.
    pub rate: Option<RateLimit>,
    /// At most this many wait.
    pub max_length: Option<u64>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulePlan {
    /// When.
    pub when: When,
    /// [`Self::when`] as a text: another one is another plan, which begins when it is first seen.
    pub rule: String,
    /// What it fires.
    pub target: Target,
    /// Positional arguments; this, and all down to `expires_ms`, of a task only.
    pub args: Vec<serde_json::Value>,
    /// Keyword arguments.
    pub kwargs: serde_json::Map<String, serde_json::Value>,
    /// Another queue than the task's.
    pub queue: Option<String>,
    /// Another priority than the task's.
    pub priority: Option<u8>,
    /// Its messages expire so long after they were stored, in milliseconds; absent: as the task says.
    pub expires_ms: Option<u64>,
    /// What happens while a message of it is not final.
    pub overlap: Overlap,
    /// What happens to times that were missed.
    pub catch_up: CatchUp,
    /// So much later than planned it fires on this node, in milliseconds.
    pub offset_ms: u64,
    /// It pauses after so many failures in a row.
    pub pause_after: Option<u32>,
    /// Whether it fires, and its task, or every task of its workflow, may be run.
    pub enabled: bool,
}

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// At times that are the same for everybody.
    At(Timing),
    /// At once, and so long after the last message of it ended, in milliseconds.
    After {
        /// At least 1.
        ms: u64,
    },
}

/// What a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A message of this task.
    Task(String),
    /// A workflow.
    Workflow(Declared),
}

impl Plan {
    /// Whether a program of the user's runs the messages of this queue.
    #[must_use]
    pub fn has_worker(&self, queue: &str) -> bool {
        self.queues.get(queue).and_then(|q| self.pools.get(&q.pool)).is_some_and(|p| p.worker)
    }

    /// The declaration of a task of this name ([`crate::model::task::find`]).
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&Task> {
        crate::model::task::find(&self.tasks, name)
    }
}

impl Default for Plan {
    /// Nothing at all: what an engine has before its first plan.
    fn default() -> Self {
        Self {
            generation: 0,
            pools: BTreeMap::new(),
            queues: BTreeMap::new(),
            tasks: BTreeMap::new(),
            routes: Vec::new(),
            schedules: BTreeMap::new(),
            shutdown_grace_ms: 30_000,
            max_memory_pressure: None,
            retention: Retention::default(),
            shared: false,
            zone: TimeZone::UTC,
        }
    }
}
