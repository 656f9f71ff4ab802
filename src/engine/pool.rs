//! Slots and the children in them: asked for eagerly, replaced when they are old, with patience when they
//! do not start or do not stay.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::command::{Command, Note};
use super::event::{ChildKey, SlotId};
use super::held::{Killed, Stage};
use crate::model::message::Token;
use crate::model::outcome::Outcome;
use crate::model::time::Mono;

/// A child that lived shorter than this failed to stay, in milliseconds.
const SHORT_LIFE_MS: u64 = 10_000;

/// An idle child that was told to end gets so long, in milliseconds.
const END_MS: u64 = 5_000;

/// A child that was asked for says that it is ready within this time, in milliseconds; then it is killed.
const READY_MS: u64 = 60_000;

/// Longest pause between two starts, in milliseconds.
const MAX_PAUSE_MS: u64 = 30_000;

/// A pool: what is known beside its slots.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Why it has fewer children than it should.
    pub(super) trouble: Option<String>,
    /// Programs cannot be started for now: nothing is dispatched before this time.
    pub(super) hold_until: Mono,
    tries: u32,
    /// Users whose children could not be started: how often, and not before when.
    users: BTreeMap<String, (u32, Mono)>,
    /// Where its queues stand in the stride order.
    pub(super) pass: u64,
}

/// A place for one child.
#[derive(Debug)]
pub(super) struct Slot {
    /// The user its child is to run as.
    pub(super) user: String,
    state: SlotState,
    /// Starts in a row that failed or did not last.
    failures: u32,
    /// The settings do not have it any more.
    surplus: bool,
}

#[derive(Debug)]
enum SlotState {
    Empty { at: Mono },
    Spawning,
    Up(ChildKey),
}

/// A living child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) slot: SlotId,
    pub(super) user: String,
    pub(super) generation: u64,
    /// It said that it takes runs.
    pub(super) ready: bool,
    pub(super) capacity: u32,
    /// Its runs.
    pub(super) runs: BTreeSet<Token>,
    /// Runs it holds that the store does not know: told to end, they occupy it until then.
    pub(super) strangers: BTreeSet<String>,
    /// Outcomes it reported that the store does not have yet: until then it may be asked again.
    pub(super) owed: BTreeSet<Token>,
    /// It was told to end.
    pub(super) ending: bool,
    /// When it is killed.
    pub(super) kill_at: Option<Mono>,
    /// It was killed.
    pub(super) killed: bool,
    /// It refused a run that it should take.
    pub(super) refused: bool,
    /// It was started for a message of its user and had none yet.
    pub(super) reserved: bool,
    /// It lived before this daemon and did not name all that it holds yet.
    pub(super) unnamed: bool,
    since: Mono,
}

impl Pool {
    /// Whether starting children as this user has to wait.
    pub(super) fn is_held(&self, user: &str, now: Mono) -> bool {
        self.users.get(user).is_some_and(|(_, at)| *at > now)
    }

    /// Every time at which something may be tried again.
    pub(super) fn holds(&self) -> impl Iterator<Item = Mono> + '_ {
        self.users.values().map(|(_, at)| *at).chain([self.hold_until])
    }
}

impl Slot {
    fn new(user: String) -> Self {
        Self { user, state: SlotState::Empty { at: Mono(0) }, failures: 0, surplus: false }
    }

    /// Its child.
    pub(super) fn child(&self) -> Option<ChildKey> {
        if let SlotState::Up(child) = self.state { Some(child) } else { None }
    }

    /// Whether a child of its user will be there.
    pub(super) fn is_coming(&self, children: &BTreeMap<ChildKey, Child>) -> bool {
        match self.state {
            SlotState::Empty { .. } | SlotState::Spawning => !self.surplus,
            SlotState::Up(child) => {
                !self.surplus
                    && children.get(&child).is_none_or(|c| !c.ready || c.ending || c.user != self.user)
            }
        }
    }
}

impl Child {
    /// Nothing runs in it.
    pub(super) fn is_idle(&self) -> bool {
        self.runs.is_empty() && self.strangers.is_empty()
    }

    /// It takes one more run.
    pub(super) fn has_room(&self) -> bool {
        self.ready && !self.ending && self.runs.len() + self.strangers.len() < self.capacity as usize
    }
}

impl Child {
    /// A run that the store does not know is over.
    pub(super) fn stranger_ended(&mut self, run: &str) {
        if self.strangers.remove(run) && self.strangers.is_empty() && !self.ending {
            self.kill_at = None;
        }
    }
}

/// The pause after so many failures in a row; the first one is free where `quick`.
fn pause(failures: u32, quick: bool) -> u64 {
    match failures.saturating_sub(u32::from(quick)) {
        0 => 0,
        n => (100_u64 << (n - 1).min(12)).min(MAX_PAUSE_MS),
    }
}

impl Engine {
    /// Whether every slot has a child that takes runs, or is known not to get one for now.
    #[must_use]
    pub fn pools_up(&self) -> bool {
        let up = |s: &Slot| {
            s.failures > 0 || s.child().and_then(|c| self.children.get(&c)).is_some_and(|c| c.ready)
        };
        self.is_live() && self.slots.values().filter(|s| !s.surplus).all(up)
    }

    /// Slots as the settings want them.
    pub(super) fn plan_slots(&mut self) {
        for (name, pool) in &self.plan.pools {
            self.pools.entry(name.clone()).or_default();
            for index in 0..pool.processes {
                let id = SlotId { pool: name.clone(), index };
                let slot = self.slots.entry(id).or_insert_with(|| Slot::new(pool.user.clone()));
                slot.surplus = false;
                pool.user.clone_into(&mut slot.user);
            }
        }
        let plan = &self.plan;
        for (id, slot) in &mut self.slots {
            slot.surplus = plan.pools.get(&id.pool).is_none_or(|p| id.index >= p.processes);
        }
        self.slots.retain(|_, s| !(s.surplus && matches!(s.state, SlotState::Empty { .. })));
        self.pools.retain(|name, _| plan.pools.contains_key(name));
    }

    pub(super) fn child_up(
        &mut self,
        child: ChildKey,
        slot: SlotId,
        user: String,
        generation: u64,
        adopted: bool,
    ) {
        let place = self
            .slots
            .entry(slot.clone())
            .or_insert_with(|| Slot { surplus: true, ..Slot::new(user.clone()) });
        place.state = SlotState::Up(child);
        let default_user = self.plan.pools.get(&slot.pool).map_or("", |p| p.user.as_str());
        if adopted && !place.surplus {
            user.clone_into(&mut place.user);
        }
        let reserved = user != default_user;
        self.children.insert(
            child,
            Child {
                slot,
                user,
                generation,
                ready: false,
                capacity: 0,
                runs: BTreeSet::new(),
                strangers: BTreeSet::new(),
                owed: BTreeSet::new(),
                ending: false,
                // Adopted ones have a deadline of their own.
                kill_at: (!adopted).then(|| self.now.mono.plus(READY_MS)),
                killed: false,
                refused: false,
                reserved,
                unnamed: adopted,
                since: self.now.mono,
            },
        );
    }

    pub(super) fn child_ready(&mut self, child: ChildKey, capacity: u32, out: &mut Vec<Command>) {
        let Some(c) = self.children.get_mut(&child) else { return };
        if !std::mem::replace(&mut c.ready, true) && !c.ending {
            c.kill_at = None;
        }
        c.capacity = capacity.max(1);
        let slot = c.slot.clone();
        let user = c.user.clone();
        let Some(pool) = self.pools.get_mut(&slot.pool) else { return };
        pool.users.remove(&user);
        let others =
            self.slots.iter().any(|(id, s)| id.pool == slot.pool && s.failures > 0 && s.child().is_none());
        if !others && pool.hold_until <= self.now.mono && pool.trouble.take().is_some() {
            let text = "the pool has all its children again".to_owned();
            out.push(Command::Note(Note::Child { slot, text, fault: false }));
        }
    }

    pub(super) fn spawn_failed(&mut self, slot: &SlotId, error: &str, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let default_user = self.plan.pools.get(&slot.pool).map(|p| p.user.clone()).unwrap_or_default();
        // A child of an earlier request may have come meanwhile.
        let Some(s) = self.slots.get_mut(slot).filter(|s| s.child().is_none()) else { return };
        s.failures = s.failures.saturating_add(1);
        let at = now.plus(pause(s.failures, false));
        s.state = SlotState::Empty { at };
        let mut text = format!("cannot start a child: {error}");
        if s.user != default_user {
            // Only messages of that user wait; the slot serves the others meanwhile.
            text = format!("cannot start a child as {}: {error}", s.user);
            if let Some(pool) = self.pools.get_mut(&slot.pool) {
                let entry = pool.users.entry(s.user.clone()).or_insert((0, now));
                entry.0 = entry.0.saturating_add(1);
                entry.1 = now.plus(pause(entry.0, false));
            }
            s.user = default_user;
        }
        if s.surplus {
            self.slots.remove(slot);
        }
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            pool.trouble = Some(text.clone());
        }
        out.push(Command::Note(Note::Child { slot: slot.clone(), text, fault: true }));
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

    pub(super) fn child_down(&mut self, child: ChildKey, how: &str, out: &mut Vec<Command>) {
        let Some(c) = self.children.remove(&child) else { return };
        self.adopted_down(child, &c);
        // Its runs find it gone: what they occupied went with it.
        for token in &c.runs {
            self.lose(*token, how, out);
        }
        let now = self.now.mono;
        let asked = c.ending || c.killed;
        if !asked && self.stop.is_none() {
            let text = format!("child ended: {how}");
            out.push(Command::Note(Note::Child { slot: c.slot.clone(), text, fault: true }));
        }
        let Some(slot) = self.slots.get_mut(&c.slot) else { return };
        if slot.child() != Some(child) {
            return;
        }
        if asked || now.since(c.since) >= SHORT_LIFE_MS {
            slot.failures = 0;
        } else {
            slot.failures = slot.failures.saturating_add(1);
            if let Some(pool) = self.pools.get_mut(&c.slot.pool).filter(|_| slot.failures > 1) {
                pool.trouble = Some(format!("children do not stay: {how}"));
            }
        }
        slot.state = SlotState::Empty { at: now.plus(pause(slot.failures, true)) };
        if slot.surplus {
            self.slots.remove(&c.slot);
        }
    }

    /// A child that takes nothing new and is to go once it is idle.
    pub(super) fn is_retired(&self, child: ChildKey) -> bool {
        let Some(c) = self.children.get(&child) else { return true };
        let Some(slot) = self.slots.get(&c.slot) else { return true };
        slot.surplus
            || slot.child() != Some(child)
            || slot.user != c.user
            || c.generation < self.plan.generation
            || c.refused
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
        if self.is_live() && self.stop.is_none() {
            let idle = |k: &ChildKey, c: &Child| {
                !c.ending && !c.killed && c.is_idle() && c.owed.is_empty() && self.is_retired(*k)
            };
            let gone: Vec<ChildKey> =
                self.children.iter().filter(|(k, c)| idle(k, c)).map(|(k, _)| *k).collect();
            for child in gone {
                if let Some(c) = self.children.get_mut(&child) {
                    c.ending = true;
                    c.kill_at = Some(now.plus(END_MS));
                    out.push(Command::End { child, kill: false });
                }
            }
        }
        let late = |c: &Child| c.kill_at.is_some_and(|at| at <= now);
        let late: Vec<ChildKey> = self.children.iter().filter(|(_, c)| late(c)).map(|(k, _)| *k).collect();
        for child in late {
            self.kill(child, Killed::Beside, "it did not end when it was told to", out);
        }
        if self.may_spawn() {
            for (id, slot) in &mut self.slots {
                if matches!(slot.state, SlotState::Empty { at } if at <= now) && !slot.surplus {
                    slot.state = SlotState::Spawning;
                    out.push(Command::Spawn { slot: id.clone(), user: slot.user.clone() });
                }
            }
        }
    }

    fn may_spawn(&self) -> bool {
        !self.is_booting() && self.stop.is_none()
    }

    pub(super) fn children_deadline(&self) -> Option<Mono> {
        let empty = |s: &Slot| match s.state {
            SlotState::Empty { at } if !s.surplus => Some(at),
            _ => None,
        };
        let spawns = self.slots.values().filter(|_| self.may_spawn()).filter_map(empty).min();
        let kills = self.children.values().filter_map(|c| c.kill_at).min();
        spawns.into_iter().chain(kills).min()
    }

    /// Of this pool: slots, slots with something running.
    pub(super) fn slots_in(&self, pool: &str) -> (usize, usize) {
        let slots = || self.slots.iter().filter(|(id, s)| id.pool == pool && !s.surplus);
        let busy = |s: &Slot| s.child().and_then(|c| self.children.get(&c)).is_some_and(|c| !c.is_idle());
        (slots().count(), slots().filter(|(_, s)| busy(s)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::event::Event;

    #[test]
    fn pauses_grow_to_their_bound() {
        assert_eq!([0, 1, 2, 3].map(|n| pause(n, true)), [0, 0, 100, 200]);
        assert_eq!([1, 2, 9, 10, 4_000_000].map(|n| pause(n, false)), [100, 200, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn a_slot_asks_for_one_child_and_waits_longer_after_each_failure() {
        let mut bed = Bed::bare(|p| p.pools.get_mut("default").unwrap().processes = 1);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let spawns = bed.take().iter().filter(|c| matches!(c, Command::Spawn { .. })).count();
            assert_eq!(spawns, 1);
            assert!(bed.engine.pools_up() != waits.is_empty(), "a failing pool does not hold READY for ever");
            let slot = SlotId { pool: "default".into(), index: 0 };
            bed.step(Event::SpawnFailed { slot, error: "no".into() });
            let at = bed.engine.next_deadline().unwrap();
            waits.push(at.since(bed.mono()));
            bed.pass(at.since(bed.mono()));
        }
        assert_eq!(waits, [100, 200, 400, 800]);
    }

    #[test]
    fn a_lost_attempt_comes_back_and_the_third_makes_it_dead() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        bed.enqueue("m");
        for _ in 0..3 {
            assert_eq!(bed.running().len(), 1);
            bed.kill_children();
            bed.pass(30_000);
        }
        assert_eq!(bed.state("m"), crate::model::state::State::Dead);
        assert!(bed.running().is_empty());
    }

    #[test]
    fn a_reload_replaces_idle_children_at_once_and_busy_ones_after_their_attempt() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 2);
        bed.enqueue("m");
        bed.take();
        bed.reload(|_| {});
        let ended = |log: &[Command]| log.iter().filter(|c| matches!(c, Command::End { .. })).count();
        assert_eq!(ended(&bed.take()), 1, "the busy one goes on");
        let run = bed.running().pop().unwrap();
        bed.succeed(&run);
        assert_eq!(ended(&bed.take()), 1);
        assert_eq!(bed.state("m"), crate::model::state::State::Success);
        assert!(bed.engine.pools_up());
    }
}
