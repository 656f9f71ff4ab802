//! The part of the settings that the engine decides by. Built by the daemon at start and at each reload.

use std::collections::BTreeMap;

use crate::model::op::Retention;
use crate::model::task::Task;

/// Everything the engine decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What running attempts get at a warm shutdown, in milliseconds.
    pub shutdown_grace_ms: u64,
    /// Retention of finished records.
    pub retention: Retention,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Slots.
    pub processes: u32,
    /// Default user of its tasks; empty: whoever runs taskd.
    pub user: String,
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
    /// At most this many wait.
    pub max_length: Option<u64>,
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
            shutdown_grace_ms: 30_000,
            retention: Retention { age_ms: 86_400_000, count: 100_000 },
        }
    }
}
