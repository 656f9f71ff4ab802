//! What the engine knows, for `taskd status`, `queues` and metrics. Read-only.

use super::Engine;
use super::event::{ChildKey, SlotId};
use super::held::{Held, Stage};
use super::recycle::Replaced;
use crate::model::message::Token;
use crate::model::name::MessageId;
use crate::model::time::Mono;

/// Everything at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By name.
    pub pools: Vec<PoolView>,
    /// By name.
    pub queues: Vec<QueueView>,
    /// Messages that ended SUCCESS in this life of the daemon.
    pub succeeded: u64,
    /// Messages that ended FAILURE or DEAD.
    pub failed: u64,
    /// Nothing new is taken off the queues.
    pub draining: bool,
    /// A shutdown is under way.
    pub stopping: bool,
    /// Memory pressure above the bound, in hundredths of a percent: nothing new starts.
    pub pressure: Option<u32>,
    /// The children of an earlier daemon are being taken over (or not told yet).
    pub adopting: bool,
    /// What the store fails with.
    pub store_fault: Option<String>,
    /// Outcomes that the store does not have yet.
    pub unsettled: usize,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Slots it should have.
    pub slots: usize,
    /// Slots with something running.
    pub busy: usize,
    /// Why it has fewer children than it should, and when that is tried to be mended.
    pub degraded: Option<String>,
    /// Children that were replaced since the daemon started.
    pub replaced: Replaced,
    /// Its children, those that are to go included.
    pub children: Vec<ChildView>,
}

/// A child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// Its key.
    pub child: ChildKey,
    /// Its place.
    pub slot: SlotId,
    /// Its user; empty: whoever runs taskd.
    pub user: String,
    /// The generation of its settings.
    pub generation: u64,
    /// It takes runs.
    pub ready: bool,
    /// It takes no more and goes once it is idle.
    pub retired: bool,
    /// Another child of its slot is still there, which it replaces.
    pub successor: bool,
    /// Runs it was given.
    pub taken: u64,
    /// How long it has lived, in milliseconds.
    pub age_ms: u64,
    /// Memory of it and of all below it, in bytes, where it was measured.
    pub memory: Option<u64>,
    /// What it runs.
    pub runs: Vec<RunView>,
}

/// An attempt under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// The message.
    pub id: MessageId,
    /// Its task.
    pub task: String,
    /// Its queue.
    pub queue: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Handed over (or adopted) then.
    pub since: Mono,
    /// Its main process, once it is known.
    pub pid: Option<u32>,
    /// Its child.
    pub child: ChildKey,
}

/// A queue, as this node holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Attempts that run.
    pub running: u32,
    /// Leased and not started.
    pub buffered: usize,
    /// This node was told to pause it.
    pub paused: bool,
}

fn run_view(held: &Held) -> Option<RunView> {
    let Stage::Running(run) = &held.stage else { return None };
    Some(RunView {
        id: held.message.id.clone(),
        task: held.message.task.clone(),
        queue: held.message.queue.clone(),
        attempt: held.attempt,
        since: run.since,
        pid: run.pid,
        child: run.child,
    })
}

impl Engine {
    /// Everything at once.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            pools: self.plan.pools.keys().map(|name| self.pool_view(name)).collect(),
            queues: self.plan.queues.keys().map(|name| self.queue_view(name)).collect(),
            succeeded: self.succeeded,
            failed: self.failed,
            draining: self.draining,
            stopping: self.stop.is_some(),
            pressure: self.pressure,
            adopting: !self.is_live(),
            store_fault: self.store.fault.clone(),
            unsettled: self.unsettled(),
        }
    }

    /// Whether nothing runs and nothing is known to wait that could be started.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let open = |q: &super::queue::Queue| q.leasing || q.may_have && !q.paused && !self.draining;
        self.held.is_empty() && !self.queues.values().any(open)
    }

    /// The running attempt of a message, if it runs on this node.
    #[must_use]
    pub fn run_info(&self, id: &MessageId) -> Option<RunView> {
        self.by_id.get(id).and_then(|t| self.held.get(t)).and_then(run_view)
    }

    /// Whether this node holds a lease on a message.
    #[must_use]
    pub fn holds(&self, id: &MessageId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Memory pressure above the bound, in hundredths of a percent: nothing new starts.
    #[must_use]
    pub const fn pressure(&self) -> Option<u32> {
        self.pressure
    }

    /// What the store last failed with, until it does something right.
    #[must_use]
    pub fn store_fault(&self) -> Option<&str> {
        self.store.fault.as_deref()
    }

    /// How many attempts run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.held.values().filter(|h| matches!(h.stage, Stage::Running(_) | Stage::Starting { .. })).count()
    }

    /// How many messages this node holds a lease on; bounded by slots and windows.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The message of a run that goes on here: output and progress lines name only the run.
    #[must_use]
    pub fn run_of_key(&self, run: &str) -> Option<RunView> {
        let token: Token = super::token_of(run)?;
        self.held.get(&token).and_then(run_view)
    }

    fn pool_view(&self, name: &str) -> PoolView {
        let (slots, busy) = self.slots_in(name);
        let children = self.children.iter().filter(|(_, c)| c.slot.pool == name);
        let children = children.map(|(key, c)| ChildView {
            child: *key,
            slot: c.slot.clone(),
            user: c.user.clone(),
            generation: c.generation,
            ready: c.ready.is_some(),
            retired: c.ending || c.killed || self.is_retired(*key),
            successor: self.slots.get(&c.slot).is_some_and(|s| s.children.iter().any(|k| k < key)),
            taken: c.taken,
            age_ms: self.now.mono.since(c.born),
            memory: c.memory.bytes,
            runs: c.runs.iter().filter_map(|t| self.held.get(t)).filter_map(run_view).collect(),
        });
        let degraded = self.trouble(name);
        let replaced = self.pools.get(name).map(|p| p.replaced).unwrap_or_default();
        PoolView { name: name.to_owned(), slots, busy, degraded, replaced, children: children.collect() }
    }

    fn queue_view(&self, name: &str) -> QueueView {
        let q = self.queues.get(name);
        QueueView {
            name: name.to_owned(),
            running: q.map_or(0, |q| q.running),
            buffered: q.map_or(0, |q| q.window.len()),
            paused: q.is_some_and(|q| q.paused),
        }
    }
}
