//! Children that are replaced, programs of the user's, memory and its pressure: what must hold.

use std::collections::BTreeSet;

use taskd::engine::command::RunOrder;
use taskd::engine::event::{ChildKey, Event, SlotId};
use taskd::model::message::Record;
use taskd::model::op::{Op, Settle};
use taskd::model::outcome::Cause;
use taskd::model::state::State;

use crate::children::Child;
use crate::ledger::{Check, broken};
use crate::planted::Planted;
use crate::world::{Thing, World};

/// What only this daemon knows of.
#[derive(Default)]
pub struct Known {
    /// Slots that a child was asked for.
    pub asked: BTreeSet<SlotId>,
    /// Slots whose next child is to be of another user than their pool's, unless it could not be started.
    pub foreign: BTreeSet<SlotId>,
    /// Children that said they are ready.
    pub ready: BTreeSet<u64>,
    /// Children that refused a run.
    pub refused: BTreeSet<u64>,
    /// Children of an earlier daemon that said all they hold.
    pub named: BTreeSet<u64>,
    /// Children of an earlier daemon.
    pub adopted: BTreeSet<u64>,
    /// Children it was told of.
    pub told: BTreeSet<u64>,
    /// Children whose memory is being measured.
    pub measuring: BTreeSet<u64>,
}

impl World {
    /// Children of a slot that this daemon takes for alive.
    fn known_in(&self, slot: &SlotId) -> impl Iterator<Item = (u64, Option<&Child>)> {
        let told = self.known.told.iter().filter(|c| !self.gone.contains(c));
        let of = |c: &u64| self.slot_of.get(c) == Some(slot);
        told.copied().filter(of).map(|c| (c, self.children.get(&c))).collect::<Vec<_>>().into_iter()
    }

    /// 28: never more than one successor, and never more than three children in a slot.
    pub fn spawn_is_right(&mut self, slot: &SlotId, user: &str) -> Check {
        if !self.known.asked.insert(slot.clone()) {
            return broken("28 one_successor", format!("{slot:?} gets two children at once"));
        }
        if self.plan.pools.get(&slot.pool).is_some_and(|p| p.user == user) {
            self.known.foreign.remove(slot);
        } else {
            self.known.foreign.insert(slot.clone());
        }
        let known: Vec<_> = self.known_in(slot).collect();
        let coming = known.iter().filter(|(id, c)| {
            c.is_some_and(|c| c.user == user && c.generation == self.plan.generation && !c.ending)
                && !self.known.ready.contains(id)
                && !self.corpses.contains_key(id)
        });
        let (coming, all) = (coming.count(), known.len());
        if coming > 0 || all > 2 {
            return broken("28 one_successor", format!("{slot:?}: {coming} are coming, {all} there"));
        }
        if self.bug == Some(Planted::EndsBeforeItsSuccessor) {
            let idle = known.iter().find(|(_, c)| c.is_some_and(|c| c.runs.is_empty() && !c.ending));
            if let Some((child, _)) = idle {
                self.end_is_right(*child)?;
                return self.launcher_ends(ChildKey(*child), false);
            }
        }
        Ok(())
    }

    /// 30: a child that might go on is let go only when another one of its slot is ready.
    pub fn end_is_right(&self, child: u64) -> Check {
        let Some(c) = self.children.get(&child) else { return Ok(()) };
        let Some(pool) = self.plan.pools.get(&c.slot.pool) else { return Ok(()) };
        let may_go = c.generation < self.plan.generation
            || c.slot.index >= pool.processes
            || pool.recycle.max_tasks.is_some()
            || c.user != pool.user
            || self.stopping
            || self.known.refused.contains(&child);
        let replaced = self.known_in(&c.slot).any(|(id, _)| id > child && self.known.ready.contains(&id));
        // It makes room for one of another user, or did.
        let other = |r: &Record| !r.state.is_final() && r.message.task == "root";
        // It waited for a commit first, and who wanted the other user ended meanwhile: that child comes all the same.
        // Where it could not be started, nobody has to make room.
        let foreign = self.known_in(&c.slot).any(|(_, o)| o.is_none_or(|o| o.user != c.user))
            || self.known.foreign.contains(&c.slot);
        if may_go || replaced || foreign || self.model.records().any(other) {
            return Ok(());
        }
        broken("30 never_short", format!("child {child} of {:?} is let go before its successor", c.slot))
    }

    /// 29: no child takes more runs than it may. A new daemon counts anew, but not to one.
    pub fn runs_are_counted(&mut self, child: u64, order: &RunOrder) -> Check {
        let token = order.run.parse::<i64>().unwrap_or(-1);
        let life = self.order_life.get(&token).copied().unwrap_or(0);
        let Some(c) = self.children.get_mut(&child) else { return Ok(()) };
        let recycle = self.plans[&c.generation].pools.get(&c.slot.pool).map(|p| p.recycle);
        let Some(max) = recycle.and_then(|r| r.max_tasks) else { return Ok(()) };
        let life = if max == 1 { 0 } else { life };
        let n = c.begun.entry(life).or_insert(0);
        *n += 1;
        if *n > max {
            return broken("29 max_tasks_is_strict", format!("child {child} takes run {n} of at most {max}"));
        }
        Ok(())
    }

    /// 27: once a successor is ready, the older child takes nothing new. 32: nothing starts under pressure.
    pub fn hand_over_is_right(&mut self, child: u64, order: &RunOrder) -> Check {
        let token = order.run.parse::<i64>().unwrap_or(-1);
        self.order_life.insert(token, self.life + 1);
        let plan = &self.plans[&order.generation];
        let early =
            plan.tasks.get(&order.message.task).is_some_and(|t| t.acks == taskd::model::task::Acks::Early);
        // Its place was chosen before the store was asked whether it may start.
        let early = early || self.watch.was_asked(token);
        if self.pressed && !early {
            return broken("32 nothing_starts_under_pressure", format!("{}", order.message.id));
        }
        let Some(c) = self.children.get(&child) else { return Ok(()) };
        let takes = |id: u64, n: Option<&Child>| {
            let n = n.filter(|n| n.user == c.user && n.generation == self.plan.generation && !n.ending)?;
            let max = self.plans[&n.generation].pools.get(&n.slot.pool)?.recycle.max_tasks;
            let spent = max.is_some() || self.known.refused.contains(&id) || self.corpses.contains_key(&id);
            (id > child && self.known.ready.contains(&id) && !spent).then_some(id)
        };
        let newer = self.known_in(&c.slot).find_map(|(id, n)| takes(id, n));
        if let Some(newer) = newer.filter(|_| !early) {
            let id = &order.message.id;
            return broken("27 the_successor_takes_over", format!("{id} goes to {child}, not to {newer}"));
        }
        Ok(())
    }

    /// 26: one question about a child at a time.
    pub fn measure(&mut self, child: ChildKey) -> Check {
        if !self.known.measuring.insert(child.0) {
            return broken("26 one_question_at_a_time", format!("child {}", child.0));
        }
        let delay = self.rng.between(1, 200);
        let life = self.life;
        self.at(delay, Thing::Measured { life, child: child.0 });
        Ok(())
    }

    pub fn measured(&mut self, child: u64) -> Check {
        let Some(bytes) = self.children.get(&child).map(|c| c.memory) else { return Ok(()) };
        self.known.measuring.remove(&child);
        if self.gone.contains(&child) {
            return Ok(());
        }
        self.step(Event::Measured { child: ChildKey(child), bytes })
    }

    /// 24: a program of the user's does not run beyond its hard limit while a daemon lives. Called where a
    /// run ends by itself.
    pub fn limit_was_kept(&self, child: u64, run: &str) -> Check {
        let Some(r) = self.children.get(&child).and_then(|c| c.runs.get(run)) else { return Ok(()) };
        let (true, Some(limit)) = (r.worker && r.life == self.life && self.engine.is_some(), r.limit_ms)
        else {
            return Ok(());
        };
        let lasted = self.now.mono.0 - r.began;
        if lasted > limit {
            return broken("24 a_limit_ends_a_run", format!("{} ran {lasted} ms of at most {limit}", r.id));
        }
        Ok(())
    }

    /// A child is killed: those of its runs that have nothing to do with it are noted.
    pub fn note_companions(&mut self, child: u64) {
        let Some(c) = self.children.get(&child) else { return };
        let now = self.now.mono.0;
        let overdue = |r: &crate::children::Run| {
            r.worker && r.life == self.life && r.limit_ms.is_some_and(|l| r.began + l <= now + 20)
        };
        if !c.runs.values().any(overdue) {
            return;
        }
        let others = c.runs.iter().filter(|(_, r)| !overdue(r));
        let tokens: Vec<i64> = others.filter_map(|(run, _)| run.parse().ok()).collect();
        self.companions.extend(tokens);
    }

    /// 25: a run whose child was killed for another run is no loss. 31: `on_memory` is applied as often as
    /// its rule says, and no more.
    pub fn ends_are_just(&mut self, op: &Op, before: &Record) -> Check {
        let (token, lost) = match op {
            Op::Settle(s) => (s.token, s.lost),
            Op::Defer { token, lost, .. } => (*token, *lost),
            _ => return Ok(()),
        };
        let id = &before.message.id;
        if lost && self.companions.contains(&token.0) {
            return broken("25 companions_are_not_lost", format!("{id}"));
        }
        let Op::Settle(s) = op else { return Ok(()) };
        self.memory_rule_holds(s, before)
    }

    fn memory_rule_holds(&self, s: &Settle, before: &Record) -> Check {
        let id = &before.message.id;
        let plan = self.plan_of_run(&Op::Settle(Box::new(s.clone())));
        let rule = plan.tasks.get(&before.message.task).and_then(|t| t.limits.on_memory.as_ref());
        let left = rule.is_some_and(|r| before.message.memory_retries < r.max);
        if s.memory.is_some() && !left {
            return broken("31 on_memory_is_bounded", format!("{id}: {:?}", before.message.memory_retries));
        }
        let canceled = self.ledger.stories.get(id.as_str()).is_some_and(|s| s.canceled.is_some());
        if s.outcome.cause == Cause::Memory
            && left
            && !canceled
            && s.state != State::Revoked
            && s.memory.is_none()
        {
            return broken("31 on_memory_is_used", format!("{id} became {}", s.state));
        }
        Ok(())
    }
}
