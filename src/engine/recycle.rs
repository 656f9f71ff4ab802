//! Children that are replaced though nothing is wrong with them: after so many runs, above so much memory,
//! after so long. What a child uses is asked of the launcher.

use super::Engine;
use super::child::Child;
use super::command::{Command, Note};
use super::event::ChildKey;
use crate::model::time::Mono;

/// A busy child is measured at most this often, in milliseconds.
const MEASURE_EVERY_MS: u64 = 1_000;

/// Why a child is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It had as many runs as it may have.
    MaxTasks,
    /// A run left it above its bound of memory.
    MaxMemory,
    /// It is too old.
    MaxAge,
    /// It had nothing to do for too long.
    MaxIdle,
}

impl Reason {
    /// The key of the config that says so.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::MaxTasks => "max_tasks_per_child",
            Self::MaxMemory => "max_memory_per_child",
            Self::MaxAge => "max_child_age",
            Self::MaxIdle => "max_child_idle",
        }
    }
}

/// How many children of a pool were replaced since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// [`Reason::MaxTasks`].
    pub max_tasks: u64,
    /// [`Reason::MaxMemory`].
    pub max_memory: u64,
    /// [`Reason::MaxAge`].
    pub max_age: u64,
    /// [`Reason::MaxIdle`].
    pub max_idle: u64,
    /// They died, were killed, or broke the protocol.
    pub faults: u64,
}

impl Replaced {
    fn count(&mut self, reason: Reason) {
        let n = match reason {
            Reason::MaxTasks => &mut self.max_tasks,
            Reason::MaxMemory => &mut self.max_memory,
            Reason::MaxAge => &mut self.max_age,
            Reason::MaxIdle => &mut self.max_idle,
        };
        *n = n.saturating_add(1);
    }
}

/// What is known of the memory of a child and of all below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// As it was measured last, in bytes.
    pub(super) bytes: Option<u64>,
    /// It was above its bound once.
    above: bool,
    /// A question is under way.
    asked: bool,
    /// When it was asked last.
    asked_at: Option<Mono>,
}

impl Memory {
    fn rests_until(&self) -> Option<Mono> {
        self.asked_at.map(|at| at.plus(MEASURE_EVERY_MS))
    }
}

impl Child {
    /// Why it is to be replaced now.
    pub(super) fn is_due(&self, now: Mono) -> Option<Reason> {
        if self.is_exhausted() {
            return Some(Reason::MaxTasks);
        }
        if self.memory.above && self.recycle.max_memory.is_some() {
            return Some(Reason::MaxMemory);
        }
        let past = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        if past(self.old_at()) {
            return Some(Reason::MaxAge);
        }
        past(self.idle_until()).then_some(Reason::MaxIdle)
    }

    fn old_at(&self) -> Option<Mono> {
        Some(self.born.plus(self.recycle.max_age_ms?))
    }

    fn idle_until(&self) -> Option<Mono> {
        Some(self.last_end.filter(|_| self.is_idle())?.plus(self.recycle.max_idle_ms?))
    }

    /// The next time at which it may be due, if nothing happens.
    pub(super) fn due_at(&self, now: Mono) -> Option<Mono> {
        self.old_at().into_iter().chain(self.idle_until()).filter(|at| *at > now).min()
    }
}

impl Engine {
    /// A run of this child ended.
    pub(super) fn run_over(&mut self, child: ChildKey) {
        let now = self.now.mono;
        if let Some(c) = self.children.get_mut(&child) {
            c.last_end = Some(now);
            if c.recycle.max_memory.is_some() {
                self.unmeasured.insert(child);
            }
        }
    }

    /// Asks how much memory children use after a run. Before the dispatch nothing of a run that is over is
    /// left in them and nothing of the next one is there yet; after it, those that stay idle are asked however
    /// short ago it was.
    pub(super) fn pump_measures(&mut self, dispatched: bool, out: &mut Vec<Command>) {
        if self.unmeasured.is_empty() {
            return;
        }
        let now = self.now.mono;
        let workers = |c: &Child| self.plan.pools.get(&c.slot.pool).is_some_and(|p| p.worker);
        let due = |c: &Child| {
            let rested = c.memory.rests_until().is_none_or(|at| at <= now);
            !c.memory.asked && if c.is_idle() { dispatched || rested } else { rested && workers(c) }
        };
        let asked: Vec<ChildKey> = self
            .unmeasured
            .iter()
            .filter(|k| self.children.get(k).is_none_or(|c| c.ending || due(c)))
            .copied()
            .collect();
        for child in asked {
            self.unmeasured.remove(&child);
            if let Some(c) = self.children.get_mut(&child).filter(|c| !c.ending && !c.killed) {
                c.memory.asked = true;
                c.memory.asked_at = Some(now);
                out.push(Command::Measure { child });
            }
        }
    }

    /// The launcher measured a child.
    pub(super) fn measured(&mut self, child: ChildKey, bytes: u64) {
        if let Some(c) = self.children.get_mut(&child) {
            c.memory.asked = false;
            c.memory.bytes = Some(bytes);
            c.memory.above |= c.recycle.max_memory.is_some_and(|max| bytes > max);
        }
    }

    /// When a busy child may be measured again.
    pub(super) fn measures_deadline(&self) -> Option<Mono> {
        let waiting = self.unmeasured.iter().filter_map(|k| self.children.get(k)).filter(|c| !c.memory.asked);
        waiting.filter_map(|c| c.memory.rests_until()).filter(|at| *at > self.now.mono).min()
    }

    /// A child is let go: says so where it is replaced for no fault.
    pub(super) fn note_recycled(&mut self, child: ChildKey, out: &mut Vec<Command>) {
        let Some(c) = self.children.get(&child) else { return };
        let Some(reason) = c.due.or_else(|| c.is_exhausted().then_some(Reason::MaxTasks)) else { return };
        if let Some(pool) = self.pools.get_mut(&c.slot.pool) {
            pool.replaced.count(reason);
        }
        out.push(Command::Note(Note::Recycled {
            slot: c.slot.clone(),
            child,
            reason,
            runs: c.taken,
            age_ms: self.now.mono.since(c.born),
            memory: c.memory.bytes,
        }));
    }
}
