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

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::event::{Event, SlotId};
    use crate::engine::plan::Recycle;

    fn one(recycle: Recycle) -> Bed {
        let mut bed = Bed::bare(|p| {
            let pool = p.pools.get_mut("default").unwrap();
            (pool.processes, pool.recycle) = (1, recycle);
        });
        come(&mut bed, 1);
        bed.take();
        bed
    }

    /// The child that was asked for comes and is ready.
    fn come(bed: &mut Bed, child: u64) {
        up(bed, child);
        ready(bed, child);
    }

    fn up(bed: &mut Bed, child: u64) {
        let slot = SlotId { pool: "default".into(), index: 0 };
        let (user, child) = ("run".into(), ChildKey(child));
        bed.step(Event::ChildUp { child, slot, user, generation: 1, adopted: false, age_ms: 0 });
    }

    fn ready(bed: &mut Bed, child: u64) {
        let event = bed.ready(ChildKey(child));
        bed.step(event);
    }

    fn run(bed: &mut Bed, id: &str) -> String {
        bed.enqueue(id);
        bed.running().pop().unwrap()
    }

    fn spawns(log: &[Command]) -> usize {
        log.iter().filter(|c| matches!(c, Command::Spawn { .. })).count()
    }

    fn ended(log: &[Command]) -> Option<ChildKey> {
        log.iter().find_map(|c| if let Command::End { child, .. } = c { Some(*child) } else { None })
    }

    fn reasons(log: &[Command]) -> Vec<(Reason, u64)> {
        let of = |c: &Command| match c {
            Command::Note(Note::Recycled { reason, runs, .. }) => Some((*reason, *runs)),
            _ => None,
        };
        log.iter().filter_map(of).collect()
    }

    #[test]
    fn the_successor_is_asked_for_with_the_last_run_and_takes_the_next_one() {
        let mut bed = one(Recycle { max_tasks: Some(2), ..Recycle::default() });
        let a = run(&mut bed, "a");
        bed.succeed(&a);
        assert_eq!(spawns(&bed.take()), 0);
        let b = run(&mut bed, "b");
        assert_eq!(spawns(&bed.take()), 1, "with the run, not after it");
        bed.enqueue("c");
        come(&mut bed, 2);
        assert_eq!(bed.running().len(), 1, "one slot runs one thing");
        bed.succeed(&b);
        let log = bed.take();
        assert_eq!((ended(&log), reasons(&log)), (Some(ChildKey(1)), vec![(Reason::MaxTasks, 2)]));
        assert_eq!(bed.child_of("c"), ChildKey(2));
        assert_eq!(bed.engine.view().pools[0].replaced.max_tasks, 1);
    }

    #[test]
    fn a_child_that_used_its_runs_up_takes_none_although_its_successor_fails() {
        let mut bed = one(Recycle { max_tasks: Some(1), ..Recycle::default() });
        let a = run(&mut bed, "a");
        bed.enqueue("b");
        let slot = SlotId { pool: "default".into(), index: 0 };
        bed.step(Event::SpawnFailed { slot, error: "EAGAIN".into() });
        bed.succeed(&a);
        assert!(bed.running().is_empty());
        let trouble = bed.engine.view().pools[0].degraded.clone().unwrap();
        assert!(trouble.contains("EAGAIN") && trouble.contains("tried again in 100 ms"), "{trouble}");
        bed.take();
        bed.pass(100);
        assert_eq!(spawns(&bed.take()), 1);
        come(&mut bed, 2);
        assert_eq!(bed.child_of("b"), ChildKey(2));
        assert_eq!(bed.engine.view().pools[0].degraded, None);
    }

    #[test]
    fn an_old_child_works_until_its_successor_is_ready() {
        let mut bed = one(Recycle { max_age_ms: Some(5_000), ..Recycle::default() });
        bed.pass(4_999);
        assert_eq!(spawns(&bed.take()), 0);
        bed.pass(1);
        let log = bed.take();
        assert_eq!((spawns(&log), ended(&log)), (1, None));
        let slot = SlotId { pool: "default".into(), index: 0 };
        bed.step(Event::SpawnFailed { slot, error: "EAGAIN".into() });
        let a = run(&mut bed, "a");
        bed.succeed(&a);
        bed.pass(100);
        up(&mut bed, 2);
        let b = run(&mut bed, "b");
        assert_eq!(bed.child_of("b"), ChildKey(1));
        ready(&mut bed, 2);
        assert_eq!(ended(&bed.log()), None, "it runs something");
        bed.succeed(&b);
        let log = bed.take();
        assert_eq!((ended(&log), reasons(&log)), (Some(ChildKey(1)), vec![(Reason::MaxAge, 2)]));
        run(&mut bed, "c");
        assert_eq!(bed.child_of("c"), ChildKey(2));
    }

    #[test]
    fn a_child_is_idle_only_after_a_run() {
        let mut bed = one(Recycle { max_idle_ms: Some(1_000), ..Recycle::default() });
        bed.pass(60_000);
        assert_eq!(spawns(&bed.take()), 0);
        let a = run(&mut bed, "a");
        bed.succeed(&a);
        bed.pass(999);
        assert_eq!(spawns(&bed.take()), 0);
        bed.pass(1);
        assert_eq!(spawns(&bed.take()), 1);
        come(&mut bed, 2);
        assert_eq!(reasons(&bed.take()), [(Reason::MaxIdle, 1)]);
        bed.pass(60_000);
        assert_eq!(spawns(&bed.take()), 0, "its successor had nothing to do yet");
    }

    #[test]
    fn memory_is_asked_for_after_a_run_and_what_is_above_its_bound_is_replaced() {
        let mut bed = one(Recycle { max_memory: Some(1_000), ..Recycle::default() });
        let asked = |log: &[Command]| log.iter().filter(|c| matches!(c, Command::Measure { .. })).count();
        for (id, bytes, successors) in [("a", 999, 0), ("b", 1_000, 0), ("c", 1_001, 1)] {
            let r = run(&mut bed, id);
            bed.succeed(&r);
            assert_eq!(asked(&bed.log()), 1, "{id}");
            bed.step(Event::Measured { child: ChildKey(1), bytes });
            assert_eq!(spawns(&bed.take()), successors, "{id}");
        }
        assert_eq!(bed.engine.view().pools[0].children[0].memory, Some(1_001));
        come(&mut bed, 2);
        assert_eq!(reasons(&bed.take()), [(Reason::MaxMemory, 3)]);
    }

    #[test]
    fn a_busy_child_is_measured_once_a_second() {
        let mut bed = one(Recycle { max_memory: Some(1_000), ..Recycle::default() });
        for i in 0..30 {
            bed.enqueue(&format!("m{i}"));
        }
        let mut asked = 0;
        for _ in 0..25 {
            let r = bed.running().pop().unwrap();
            bed.pass(100);
            bed.succeed(&r);
            let n = bed.take().iter().filter(|c| matches!(c, Command::Measure { .. })).count();
            if n > 0 {
                bed.step(Event::Measured { child: ChildKey(1), bytes: 1 });
            }
            asked += n;
        }
        assert_eq!(asked, 3);
    }

    #[test]
    fn two_children_of_a_slot_are_adopted_and_the_newer_one_takes_over() {
        let mut bed = Bed::booting(|p| p.pools.get_mut("default").unwrap().processes = 1);
        for child in [1, 2] {
            let slot = SlotId { pool: "default".into(), index: 0 };
            let (user, child) = ("run".into(), ChildKey(child));
            bed.step(Event::ChildUp { child, slot, user, generation: 1, adopted: true, age_ms: 7 });
        }
        bed.step(Event::Adopt { children_lost: false, fresh: false });
        for child in [2, 1] {
            ready(&mut bed, child);
            bed.step(Event::Resumed { child: ChildKey(child) });
        }
        let log = bed.take();
        assert_eq!((ended(&log), spawns(&log)), (Some(ChildKey(1)), 0));
        run(&mut bed, "a");
        assert_eq!(bed.child_of("a"), ChildKey(2));
    }
}
