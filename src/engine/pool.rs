//! Pools and the children in their slots: asked for eagerly, replaced when they are old, with patience when
//! they do not start or do not stay.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::child::Child;
use super::command::{Command, Note};
use super::event::{ChildKey, SlotId};
use super::held::{Killed, Stage};
use super::plan::Recycle;
use super::recycle::{Memory, Replaced};
use super::slot::Slot;
use crate::model::outcome::Outcome;
use crate::model::time::Mono;

/// A child that lived shorter than this failed to stay, in milliseconds.
const SHORT_LIFE_MS: u64 = 10_000;

/// An idle child that was told to end gets so long, in milliseconds.
pub const END_MS: u64 = 5_000;

/// A child that was asked for says that it is ready within this time, in milliseconds; then it is killed.
pub const READY_MS: u64 = 60_000;

/// Longest pause between two starts, in milliseconds.
const MAX_PAUSE_MS: u64 = 30_000;

/// What could not be started is shown so long after it should have been tried again, in milliseconds: where
/// nobody waits for it, nobody finds out.
const STALE_MS: u64 = 5_000;

/// A pool: what is known beside its slots.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Why programs cannot be started.
    trouble: Option<String>,
    /// Programs cannot be started for now: nothing is dispatched before this time.
    pub(super) hold_until: Mono,
    tries: u32,
    /// Users whose children could not be started.
    users: BTreeMap<String, Refusal>,
    /// Where its queues stand in the stride order.
    pub(super) pass: u64,
    /// When what none of its children serves is looked at again.
    pub(super) unserved_at: Mono,
    /// Children that were replaced.
    pub(super) replaced: Replaced,
}

/// Children of a user that could not be started.
#[derive(Debug)]
struct Refusal {
    times: u32,
    not_before: Mono,
    why: String,
}

/// A child that came, as it is told.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) child: ChildKey,
    pub(super) slot: SlotId,
    pub(super) user: String,
    pub(super) generation: u64,
    pub(super) adopted: bool,
    pub(super) age_ms: u64,
}

impl Pool {
    /// Whether starting children as this user has to wait.
    pub(super) fn is_held(&self, user: &str, now: Mono) -> bool {
        self.users.get(user).is_some_and(|r| r.not_before > now)
    }

    /// Every time at which something may be tried again.
    pub(super) fn holds(&self) -> impl Iterator<Item = Mono> + '_ {
        self.users.values().map(|r| r.not_before).chain([self.hold_until, self.unserved_at])
    }
}

/// The pause after so many failures in a row; the first one is free where `quick`.
fn pause(failures: u32, quick: bool) -> u64 {
    match failures.saturating_sub(u32::from(quick)) {
        0 => 0,
        n => (100_u64 << (n - 1).min(12)).min(MAX_PAUSE_MS),
    }
}

/// When something is tried again, for people.
fn again(at: Mono, now: Mono) -> String {
    match at.since(now) {
        0 => "it is being tried again".to_owned(),
        ms if ms < 1_000 => format!("it is tried again in {ms} ms"),
        ms => format!("it is tried again in {} s", ms.div_ceil(1_000)),
    }
}

impl Engine {
    /// Slots as the settings want them.
    pub(super) fn plan_slots(&mut self) {
        let plan = std::sync::Arc::clone(&self.plan);
        for (name, pool) in &plan.pools {
            self.pools.entry(name.clone()).or_default();
            for index in 0..pool.processes {
                let id = SlotId { pool: name.clone(), index };
                let slot =
                    self.slots.entry(id).or_insert_with(|| Slot::new(pool.user.clone(), plan.generation));
                pool.user.clone_into(&mut slot.user);
            }
        }
        for (id, slot) in &mut self.slots {
            slot.surplus = plan.pools.get(&id.pool).is_none_or(|p| id.index >= p.processes);
            slot.generation = plan.generation;
        }
        self.drop_surplus();
        self.pools.retain(|name, _| plan.pools.contains_key(name));
    }

    fn drop_surplus(&mut self) {
        self.slots.retain(|_, s| !(s.surplus && s.children.is_empty() && s.asked.is_none()));
    }

    pub(super) fn child_up(&mut self, arrival: Arrival) {
        let Arrival { child, slot, user, generation, adopted, age_ms } = arrival;
        let now = self.now.mono;
        let pool = self.plan.pools.get(&slot.pool);
        let place = self
            .slots
            .entry(slot.clone())
            .or_insert_with(|| Slot { surplus: true, ..Slot::new(user.clone(), self.plan.generation) });
        place.children.push(child);
        if adopted && !place.surplus {
            user.clone_into(&mut place.user);
        } else if !adopted {
            place.asked = None;
        }
        let recycle = pool.map_or(Recycle::default(), |p| p.recycle);
        // How many runs it had is known to nobody any more: one that may have a single run had it, the others
        // are counted anew.
        let taken = u64::from(adopted && recycle.max_tasks == Some(1));
        let reserved = user != pool.map_or("", |p| p.user.as_str());
        let c = Child {
            slot,
            user,
            generation,
            ready: None,
            capacity: 0,
            tasks: Vec::new(),
            runs: BTreeSet::new(),
            strangers: BTreeSet::new(),
            owed: BTreeSet::new(),
            ending: false,
            // Adopted ones have a deadline of their own.
            kill_at: (!adopted).then(|| now.plus(READY_MS)),
            killed: false,
            refused: false,
            reserved,
            unnamed: adopted,
            fault: None,
            born: Mono(now.0.saturating_sub(age_ms)),
            taken,
            last_end: None,
            memory: Memory::default(),
            recycle,
            due: None,
        };
        self.children.insert(child, c);
    }

    pub(super) fn child_ready(
        &mut self,
        child: ChildKey,
        capacity: u32,
        tasks: Vec<String>,
        resume: bool,
        out: &mut Vec<Command>,
    ) {
        let now = self.now.mono;
        let Some(c) = self.children.get_mut(&child) else { return };
        if c.unnamed && !resume {
            // What it held is lost, as the program says by that.
            self.kill(child, Killed::Beside, "it lived under an earlier daemon and cannot be adopted", out);
            return;
        }
        if c.ready.is_none() && !c.ending {
            c.kill_at = None;
        }
        c.ready.get_or_insert(now);
        c.capacity = capacity.max(1);
        c.tasks = tasks;
        let (slot, user) = (c.slot.clone(), c.user.clone());
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            pool.users.remove(&user);
        }
        if self.slots.get(&slot).is_some_and(|s| !s.unstable) {
            self.calm(&slot, out);
        }
    }

    /// A slot has a child that works.
    fn calm(&mut self, id: &SlotId, out: &mut Vec<Command>) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.failures = 0;
        slot.unstable = false;
        let had = slot.trouble.take().is_some();
        if had && !self.slots_of(&id.pool).any(|(_, s)| s.trouble.is_some()) {
            let text = "the pool has all its children again".to_owned();
            out.push(Command::Note(Note::Child { slot: id.clone(), text, fault: false }));
        }
    }

    pub(super) fn spawn_failed(&mut self, id: &SlotId, error: &str, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let default_user = self.plan.pools.get(&id.pool).map(|p| p.user.clone()).unwrap_or_default();
        // A child of an earlier request may have come meanwhile.
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(user) = slot.asked.take() else { return };
        slot.failures = slot.failures.saturating_add(1);
        slot.not_before = now.plus(pause(slot.failures, false));
        let mut text = format!("cannot start a child: {error}");
        if user != default_user {
            text = format!("cannot start a child as {user}: {error}");
        }
        let has_one = slot.children.iter().any(|k| self.children.get(k).is_some_and(|c| c.user == user));
        if user != default_user && !has_one {
            // Only messages of that user wait; the slot serves the others meanwhile, with the child that was to
            // make room where that is still there.
            if let Some(pool) = self.pools.get_mut(&id.pool) {
                let refusal = pool.users.entry(user).or_insert(Refusal {
                    times: 0,
                    not_before: now,
                    why: String::new(),
                });
                refusal.times = refusal.times.saturating_add(1);
                refusal.not_before = now.plus(pause(refusal.times, false));
                refusal.why.clone_from(&text);
            }
            slot.user = default_user;
        } else {
            slot.trouble = Some(text.clone());
        }
        self.drop_surplus();
        out.push(Command::Note(Note::Child { slot: id.clone(), text, fault: true }));
    }

    /// What an outcome says about starting programs in this pool; the pause, where they cannot be.
    pub(super) fn spawn_trouble(
        &mut self,
        name: &str,
        again: bool,
        outcome: &Outcome,
        out: &mut Vec<Command>,
    ) -> Option<u64> {
        let now = self.now.mono;
        let pool = self.pools.get_mut(name)?;
        if !again {
            if outcome.started.is_some() && pool.tries > 0 {
                pool.tries = 0;
                pool.trouble = None;
            }
            return None;
        }
        pool.tries = pool.tries.saturating_add(1);
        let ms = pause(pool.tries, false);
        pool.hold_until = now.plus(ms);
        let why = outcome.failure.as_ref().map_or("", |f| f.message.as_str());
        let text = format!("cannot start programs for now: {why}");
        if pool.trouble.is_none() {
            let slot = SlotId { pool: name.to_owned(), index: 0 };
            out.push(Command::Note(Note::Child { slot, text: text.clone(), fault: true }));
        }
        pool.trouble = Some(text);
        Some(ms)
    }

    /// A child did what no child may: it is killed, and its slot waits before it starts another one.
    pub(super) fn child_broken(&mut self, child: ChildKey, why: &str, out: &mut Vec<Command>) {
        if let Some(c) = self.children.get_mut(&child) {
            c.fault.get_or_insert_with(|| why.to_owned());
        }
        self.kill(child, Killed::Beside, why, out);
    }

    pub(super) fn child_down(
        &mut self,
        child: ChildKey,
        how: &str,
        out_of_memory: bool,
        out: &mut Vec<Command>,
    ) {
        let Some(c) = self.children.remove(&child) else { return };
        self.unmeasured.remove(&child);
        self.adopted_down(child, &c, out_of_memory);
        // Its runs find it gone: what they occupied went with it.
        for token in &c.runs {
            self.lose(*token, how, out_of_memory, out);
        }
        let now = self.now.mono;
        let asked = (c.ending || c.killed) && c.fault.is_none();
        let how = if out_of_memory { format!("{how}, out of memory") } else { how.to_owned() };
        if !asked && self.stop.is_none() {
            let text = format!("child ended: {how}");
            out.push(Command::Note(Note::Child { slot: c.slot.clone(), text, fault: true }));
        }
        if (!asked || c.killed)
            && let Some(pool) = self.pools.get_mut(&c.slot.pool)
        {
            pool.replaced.faults = pool.replaced.faults.saturating_add(1);
        }
        let Some(slot) = self.slots.get_mut(&c.slot) else { return };
        slot.children.retain(|k| *k != child);
        if asked {
            // One that had its share of runs worked well.
            if slot.unstable && !c.killed && c.taken > 0 {
                self.calm(&c.slot, out);
            }
        } else {
            if c.fault.is_none() && now.since(c.born) >= SHORT_LIFE_MS {
                slot.failures = 0;
            } else {
                slot.failures = slot.failures.saturating_add(1);
                slot.unstable = true;
            }
            slot.not_before = now.plus(pause(slot.failures, true));
            if let Some(fault) = c.fault {
                slot.trouble = Some(format!("its child was killed: {fault}"));
            } else if slot.failures > 1 {
                slot.trouble = Some(format!("children do not stay: {how}"));
            }
        }
        self.drop_surplus();
    }

    /// A child that takes nothing new and is to go once it is idle.
    pub(super) fn is_retired(&self, child: ChildKey) -> bool {
        let slot = self.children.get(&child).and_then(|c| self.slots.get(&c.slot));
        slot.is_none_or(|s| s.is_retired(child, &self.children))
    }

    /// Kills a child and all it started.
    pub(super) fn kill(&mut self, child: ChildKey, why: Killed, text: &str, out: &mut Vec<Command>) {
        let Some(c) = self.children.get_mut(&child) else { return };
        c.kill_at = None;
        if std::mem::replace(&mut c.killed, true) {
            return;
        }
        out.push(Command::End { child, kill: true });
        out.push(Command::Note(Note::Child {
            slot: c.slot.clone(),
            text: format!("killed: {text}"),
            fault: true,
        }));
        for token in &c.runs {
            if let Some(Stage::Running(run)) = self.held.get_mut(token).map(|h| &mut h.stage) {
                run.killed.get_or_insert(why);
            }
        }
    }

    pub(super) fn pump_children(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let late = |c: &Child| c.kill_at.is_some_and(|at| at <= now);
        let late: Vec<ChildKey> = self.children.iter().filter(|(_, c)| late(c)).map(|(k, _)| *k).collect();
        for child in late {
            let unready = self.children.get(&child).is_some_and(|c| c.ready.is_none() && !c.ending);
            if unready {
                let why = format!("it did not say that it is ready within {} s", READY_MS / 1_000);
                self.child_broken(child, &why, out);
            } else {
                self.kill(child, Killed::Beside, "it did not end when it was told to", out);
            }
        }
        if self.may_spawn() {
            self.ask_for_children(out);
        }
        if self.is_live() && self.stop.is_none() {
            self.calm_slots(out);
            self.let_go(out);
        }
    }

    /// Asks for the children that slots have not, and for the successors of those that are due.
    fn ask_for_children(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let live = self.is_live();
        for (id, slot) in &mut self.slots {
            if slot.not_before > now || !slot.may_start(&self.children) {
                continue;
            }
            let taker = slot.taker(&self.children).map(|(k, c)| (k, c.is_due(now)));
            // Whom a daemon before this one left is not replaced before it is known what it holds.
            let wanted = match taker {
                None => live || slot.children.is_empty(),
                Some((_, due)) => live && due.is_some(),
            };
            if !wanted {
                continue;
            }
            if let Some((child, due)) = taker
                && let Some(c) = self.children.get_mut(&child)
            {
                c.due = c.due.or(due);
            }
            slot.asked = Some(slot.user.clone());
            out.push(Command::Spawn { slot: id.clone(), user: slot.user.clone() });
        }
    }

    /// Tells children to end that take no more runs and hold none.
    fn let_go(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let idle = |c: &Child| !c.ending && !c.killed && !c.unnamed && c.is_idle() && c.owed.is_empty();
        let goes = |s: &Slot, k: ChildKey| {
            self.children.get(&k).is_some_and(idle) && s.is_retired(k, &self.children)
        };
        let gone: Vec<ChildKey> = self
            .slots
            .values()
            .flat_map(|s| s.children.iter().copied().filter(move |k| goes(s, *k)))
            .collect();
        for child in gone {
            self.note_recycled(child, out);
            if let Some(c) = self.children.get_mut(&child) {
                c.ending = true;
                c.kill_at = Some(now.plus(END_MS));
                out.push(Command::End { child, kill: false });
            }
        }
    }

    /// Since when a slot that had trouble has a child that lasts; `None` where it has not.
    fn calm_at(&self, slot: &Slot) -> Option<Mono> {
        let (_, c) = slot.taker(&self.children).filter(|_| slot.unstable)?;
        Some(c.ready?.plus(SHORT_LIFE_MS))
    }

    fn calm_slots(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let calm = |s: &Slot| s.unstable && self.calm_at(s).is_some_and(|at| at <= now);
        let calm: Vec<SlotId> =
            self.slots.iter().filter(|(_, s)| calm(s)).map(|(id, _)| id.clone()).collect();
        for id in calm {
            self.calm(&id, out);
        }
    }

    fn may_spawn(&self) -> bool {
        !self.is_booting() && self.stop.is_none()
    }

    pub(super) fn children_deadline(&self) -> Option<Mono> {
        let now = self.now.mono;
        let kills = self.children.values().filter_map(|c| c.kill_at);
        let spawns = |s: &Slot| {
            if !s.may_start(&self.children) {
                return None;
            }
            match s.taker(&self.children) {
                Some((_, c)) if c.is_due(now).is_none() => c.due_at(now),
                _ => Some(s.not_before).filter(|at| *at > now),
            }
        };
        let spawns = self.slots.values().filter(|_| self.may_spawn()).filter_map(spawns);
        let live = self.is_live() && self.stop.is_none();
        let calms = self.slots.values().filter(|_| live).filter_map(|s| self.calm_at(s));
        kills.chain(spawns).chain(calms).min()
    }

    /// Why a pool has fewer children than it should, or none that can do anything.
    pub(super) fn trouble(&self, name: &str) -> Option<String> {
        let now = self.now.mono;
        let pool = self.pools.get(name)?;
        if let Some(trouble) = pool.trouble.as_ref().filter(|_| pool.hold_until.plus(STALE_MS) > now) {
            return Some(format!("{trouble}; {}", again(pool.hold_until, now)));
        }
        let bad: Vec<&Slot> =
            self.slots_of(name).map(|(_, s)| s).filter(|s| s.trouble.is_some() && !s.surplus).collect();
        if let Some(first) = bad.iter().max_by_key(|s| s.failures) {
            let (all, _) = self.slots_in(name);
            let at = bad.iter().map(|s| s.not_before).min().unwrap_or_default();
            let trouble = first.trouble.as_deref().unwrap_or_default();
            return Some(format!("{trouble} ({} of {all} slots); {}", bad.len(), again(at, now)));
        }
        let fresh = |r: &&Refusal| r.not_before.plus(STALE_MS) > now;
        let refusal = pool.users.values().find(fresh)?;
        Some(format!("{}; {}", refusal.why, again(refusal.not_before, now)))
    }

    /// Of this pool: slots, slots with something running.
    pub(super) fn slots_in(&self, pool: &str) -> (usize, usize) {
        let slots = || self.slots_of(pool).filter(|(_, s)| !s.surplus);
        (slots().count(), slots().filter(|(_, s)| s.load(&self.children) > 0).count())
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
