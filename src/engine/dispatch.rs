//! Which message gets which slot: strict queues first, the others by weight, each queue within its limit.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use super::command::Command;
use super::event::{ChildKey, SlotId};
use super::plan::Plan;
use crate::model::message::Token;
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;
use crate::model::time::Mono;

/// What none of the children serves goes back to its queue after so long, in milliseconds: it must not keep
/// what comes behind it from running.
const UNSERVED_MS: u64 = 1_000;

/// And comes again after so long, in milliseconds.
const UNSERVED_AGAIN_MS: u64 = 10_000;

/// Where a message can go now.
enum Place {
    /// This child is free and runs as its user.
    Child(ChildKey),
    /// A free slot was set to its user; its child comes.
    Coming,
    /// Nowhere yet.
    None,
    /// No child of the pool serves its task.
    Unserved,
}

impl Engine {
    pub(super) fn dispatch(&mut self, out: &mut Vec<Command>) {
        if !self.is_live() || self.stop.is_some() || self.pressure.is_some() || self.is_clogged() {
            return;
        }
        let plan = Arc::clone(&self.plan);
        for pool in plan.pools.keys() {
            if self.pools.get(pool).is_some_and(|p| p.hold_until > self.now.mono) {
                continue;
            }
            let mut passed_over = BTreeSet::new();
            while self.has_free(pool) && self.dispatch_one(&plan, pool, &mut passed_over, out) {}
        }
    }

    /// Looks at one message of this pool; false when there is none (left) to look at.
    fn dispatch_one(
        &mut self,
        plan: &Plan,
        pool: &str,
        passed_over: &mut BTreeSet<Token>,
        out: &mut Vec<Command>,
    ) -> bool {
        let Some((queue, token)) = self.next_message(plan, pool, passed_over) else { return false };
        let Some(held) = self.held.get(&token) else {
            passed_over.insert(token);
            return true;
        };
        if held.message.expires.is_some_and(|e| e <= self.now.wall) {
            self.unqueue(&queue, token);
            let why = "it had not started when its `expires` passed";
            let outcome = Outcome::of_cause(Cause::Expired, why);
            self.settle_waiting(token, State::Expired, outcome, out);
            return true;
        }
        if !self.may_start(&queue, token, passed_over, out) {
            return true;
        }
        let Some(held) = self.held.get(&token) else { return true };
        let default_user = plan.pools.get(pool).map_or("", |p| p.user.as_str());
        let task = plan.task(&held.message.task);
        let user = task.and_then(|t| t.user.as_deref()).unwrap_or(default_user).to_owned();
        let waits_since = held.received;
        match self.place(pool, &user, &held.message.task.clone()) {
            Place::Child(child) => {
                self.unqueue(&queue, token);
                if let Some(q) = plan.queues.get(&queue)
                    && let Some(state) = self.queues.get_mut(&queue)
                {
                    if !q.strict
                        && let Some(p) = self.pools.get_mut(pool)
                    {
                        p.pass = p.pass.max(state.pass);
                    }
                    state.advance(q.weight);
                }
                self.begin(token, child, out);
            }
            Place::Unserved if waits_since.plus(UNSERVED_MS) <= self.now.mono => {
                self.unqueue(&queue, token);
                self.back(token, Some(self.now.wall.plus(UNSERVED_AGAIN_MS)), out);
            }
            Place::Unserved => {
                passed_over.insert(token);
                let (at, now) = (waits_since.plus(UNSERVED_MS), self.now.mono);
                if let Some(p) = self.pools.get_mut(pool) {
                    p.unserved_at = if p.unserved_at > now { p.unserved_at.min(at) } else { at };
                }
            }
            Place::Coming | Place::None => {
                passed_over.insert(token);
            }
        }
        true
    }

    /// The queue whose turn it is, and its first message that was not looked at yet.
    fn next_message(
        &self,
        plan: &Plan,
        pool: &str,
        passed_over: &BTreeSet<Token>,
    ) -> Option<(String, Token)> {
        let mut best: Option<((bool, u64, &str), Token)> = None;
        let mut dry: Option<&str> = None;
        for (name, q) in &self.queues {
            let Some(p) = plan.queues.get(name).filter(|p| p.pool == pool) else { continue };
            if q.paused || p.concurrency.is_some_and(|c| q.running >= c) || self.limits.closed.holds(name) {
                continue;
            }
            // A strict queue whose window ran dry for the moment that a lease takes keeps its turn.
            if p.strict && q.window.is_empty() && q.may_have && dry.is_none() {
                dry = Some(name);
            }
            let Some(token) = q.window.iter().find(|t| !passed_over.contains(t)) else { continue };
            let key = (!p.strict, if p.strict { 0 } else { q.pass }, name.as_str());
            if best.as_ref().is_none_or(|(b, _)| key < *b) {
                best = Some((key, *token));
            }
        }
        best.filter(|((weighted, _, name), _)| dry.is_none_or(|dry| !weighted && *name < dry))
            .map(|((_, _, name), token)| (name.to_owned(), token))
    }

    pub(super) fn unqueue(&mut self, queue: &str, token: Token) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.window.retain(|t| *t != token);
        }
    }

    pub(super) fn slots_of<'a>(
        &'a self,
        pool: &'a str,
    ) -> impl Iterator<Item = (&'a SlotId, &'a super::slot::Slot)> + 'a {
        let first = SlotId { pool: pool.to_owned(), index: 0 };
        self.slots.range(first..).take_while(move |(id, _)| id.pool == pool)
    }

    fn has_free(&self, pool: &str) -> bool {
        self.slots_of(pool).any(|(_, s)| s.free(&self.children).is_some())
    }

    /// Finds a place for a run as this user, where the fewest run, or makes one by setting an idle slot to
    /// that user.
    fn place(&mut self, pool: &str, user: &str, task: &str) -> Place {
        let (mut best, mut other, mut coming, mut strange) = (None, None, false, false);
        for (id, slot) in self.slots_of(pool) {
            let free = slot.free(&self.children);
            if slot.user == user {
                let serves = slot.taker(&self.children).map(|(_, c)| c.serves(task));
                strange |= serves == Some(false);
                match free {
                    Some((child, _, load)) if serves == Some(true) => {
                        if best.is_none_or(|(least, _)| load < least) {
                            best = Some((load, child));
                        }
                    }
                    _ => coming |= slot.is_coming(&self.children),
                }
            } else if let Some((_, c, 0)) = free
                && other.is_none()
                && !(c.reserved && self.is_wanted(pool, &c.user))
            {
                other = Some(id.clone());
            }
        }
        if let Some((_, child)) = best {
            return Place::Child(child);
        }
        if strange && !self.is_served(pool, task) {
            return Place::Unserved;
        }
        if self.pools.get(pool).is_some_and(|p| p.is_held(user, self.now.mono)) {
            return Place::None;
        }
        // One slot on its way is enough: when it is there, or another wants one, this is looked at anew.
        if coming {
            return Place::Coming;
        }
        match other.and_then(|id| self.slots.get_mut(&id)) {
            Some(slot) => {
                user.clone_into(&mut slot.user);
                // One that had to make room for another user may still be there.
                match slot.free(&self.children) {
                    Some((child, c, _)) if c.serves(task) => Place::Child(child),
                    _ => Place::Coming,
                }
            }
            None => Place::None,
        }
    }

    /// Whether a child of this pool serves a task, or may when it is there.
    pub(super) fn is_served(&self, pool: &str, task: &str) -> bool {
        self.slots_of(pool).filter(|(_, s)| !s.surplus).any(|(_, s)| {
            s.newest(&self.children).is_none_or(|c| c.ready.is_none())
                || s.taker(&self.children).is_none_or(|(_, c)| c.serves(task))
        })
    }

    /// Whether a message that could start now needs a child of this user.
    fn is_wanted(&self, pool: &str, user: &str) -> bool {
        let default_user = self.plan.pools.get(pool).map_or("", |p| p.user.as_str());
        let queues = self.queues.iter().filter(|(name, q)| {
            let plan = self.plan.queues.get(*name);
            plan.is_some_and(|p| p.pool == pool && p.concurrency.is_none_or(|c| q.running < c))
        });
        queues.flat_map(|(_, q)| &q.window).filter_map(|t| self.held.get(t)).any(|held| {
            let task = self.plan.task(&held.message.task);
            task.and_then(|t| t.user.as_deref()).unwrap_or(default_user) == user
        })
    }

    /// Pools that breathe, and users whose children could not be started, while somebody waits for them.
    pub(super) fn dispatch_deadline(&self) -> Option<Mono> {
        let gated = self.stop.is_some() || self.pressure.is_some();
        if !self.is_live() || gated || self.queues.values().all(|q| q.window.is_empty()) {
            return None;
        }
        let now = self.now.mono;
        self.pools.values().flat_map(super::pool::Pool::holds).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use crate::engine::command::Command;
    use crate::engine::event::{Ask, AskKey, ChildKey, Event};

    #[test]
    fn a_message_overtakes_what_was_leased_before_it() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        let order = [("hold", 0), ("low1", 0), ("low2", 0), ("low3", 1), ("high", 9), ("middle", 5)];
        for (id, priority) in order {
            bed.enqueue_first(id, priority);
        }
        let mut ran = Vec::new();
        for _ in order {
            let run = bed.running().pop().unwrap();
            ran.push(bed.message_of(&run));
            bed.succeed(&run);
        }
        assert_eq!(ran, ["hold", "high", "middle", "low3", "low1", "low2"]);
    }

    #[test]
    fn weights_share_the_slots_and_strict_goes_first() {
        let mut bed = Bed::with(|p| {
            p.pools.get_mut("default").unwrap().processes = 1;
            for (name, weight, strict) in [("a", 3, false), ("b", 1, false), ("s", 1, true)] {
                let q = p.queues.get("default").cloned().unwrap();
                p.queues.insert(name.into(), super::super::plan::QueuePlan { weight, strict, ..q });
            }
        });
        bed.step(Event::Ask { key: AskKey(900), ask: Ask::Drain { on: true } });
        for i in 0..8 {
            for queue in ["a", "b"] {
                bed.enqueue_in(&format!("{queue}{i}"), queue);
            }
        }
        bed.enqueue_in("s0", "s");
        bed.take();
        bed.step(Event::Ask { key: AskKey(901), ask: Ask::Drain { on: false } });
        let mut order = String::new();
        for _ in 0..9 {
            let run = bed.running().pop().unwrap();
            order.push(bed.message_of(&run).chars().next().unwrap());
            bed.succeed(&run);
        }
        // Also while only `a` had been leased: a strict queue keeps its turn until its lease has answered.
        assert_eq!(order.find('s'), Some(0), "{order}");
        let a = order.matches('a').count();
        assert!((5..=7).contains(&a), "weight 3 to 1 gave {order}");
    }

    #[test]
    fn a_queue_stays_within_its_concurrency() {
        let mut bed = Bed::with(|p| {
            p.pools.get_mut("default").unwrap().processes = 4;
            p.queues.get_mut("default").unwrap().concurrency = Some(2);
        });
        for i in 0..6 {
            bed.enqueue(&format!("m{i}"));
        }
        assert_eq!(bed.running().len(), 2);
        let run = bed.running().pop().unwrap();
        bed.succeed(&run);
        assert_eq!(bed.running().len(), 2);
    }

    #[test]
    fn a_message_that_expired_in_the_window_is_not_started() {
        let mut bed = Bed::with(|p| p.pools.get_mut("default").unwrap().processes = 1);
        bed.enqueue("first");
        bed.enqueue_expiring("second", bed.wall().plus(1_000));
        let run = bed.running().pop().unwrap();
        bed.pass(2_000);
        bed.succeed(&run);
        assert!(bed.running().is_empty());
        assert_eq!(bed.state("second"), crate::model::state::State::Expired);
    }

    #[test]
    fn runs_are_spread_over_the_workers_that_serve_them() {
        let mut bed = Bed::bare(|p| {
            p.pools.get_mut("default").unwrap().worker = true;
            p.tasks.insert("other".into(), super::super::testbed::task("other"));
        });
        bed.capacity = 4;
        bed.serves = vec!["t*".into()];
        bed.come(1, 0);
        bed.serves = Vec::new();
        bed.come(2, 1);
        for i in 0..4 {
            bed.enqueue(&format!("m{i}"));
        }
        let on =
            |bed: &Bed, child| (0..4).filter(|i| bed.child_of(&format!("m{i}")) == ChildKey(child)).count();
        assert_eq!((on(&bed, 1), on(&bed, 2)), (2, 2));
        for i in 0..2 {
            bed.enqueue_task(&format!("o{i}"), "other");
            assert_eq!(bed.child_of(&format!("o{i}")), ChildKey(2), "the other one does not serve it");
        }
        bed.enqueue("m4");
        assert_eq!(bed.child_of("m4"), ChildKey(1), "the fewest run there");
    }

    #[test]
    fn what_no_worker_serves_says_so_and_does_not_hold_up_what_is_behind_it() {
        let mut bed = Bed::bare(|p| {
            let pool = p.pools.get_mut("default").unwrap();
            (pool.worker, pool.processes) = (true, 1);
            p.tasks.insert("other".into(), super::super::testbed::task("other"));
        });
        bed.serves = vec!["t".into()];
        bed.come(1, 0);
        for i in 0..9 {
            bed.enqueue_task(&format!("o{i}"), "other");
        }
        bed.enqueue("m");
        let why = |bed: &mut Bed| bed.ask(Ask::Why(crate::model::name::MessageId("o0".into())));
        assert!(
            format!("{:?}", why(&mut bed))
                .contains("no worker of the pool default says that it serves other")
        );
        bed.pass(5_000);
        assert_eq!(bed.state("m"), crate::model::state::State::Running, "it had its turn");
        assert!(format!("{:?}", why(&mut bed)).contains("no worker of the pool default"));
        bed.serves = Vec::new();
        let ready = bed.ready(ChildKey(1));
        let run = bed.running().pop().unwrap();
        bed.succeed(&run);
        bed.step(ready);
        bed.enqueue_task("o9", "other");
        assert_eq!(bed.child_of("o9"), ChildKey(1), "it says that it serves everything now");
    }

    #[test]
    fn nothing_starts_under_memory_pressure_and_why_says_so() {
        let mut bed = Bed::with(|p| p.max_memory_pressure = Some(2_000));
        bed.step(Event::Pressure(Some(4_321)));
        bed.enqueue("m");
        assert!(bed.running().is_empty());
        let why = format!("{:?}", bed.ask(Ask::Why(crate::model::name::MessageId("m".into()))));
        assert!(why.contains("43.21 %") && why.contains("max_memory_pressure = 20.00 %"), "{why}");
        assert!(!bed.engine.is_idle(), "somebody has to look when it is over");
        bed.step(Event::Pressure(None));
        assert_eq!(bed.running().len(), 1);
    }

    #[test]
    fn another_user_takes_an_idle_slot_and_replaces_its_child() {
        let mut bed = Bed::with(|p| {
            p.pools.get_mut("default").unwrap().processes = 1;
            let t = p.tasks.get("t").cloned().unwrap();
            p.tasks.insert("as-root".into(), crate::model::task::Task { user: Some("root".into()), ..t });
        });
        bed.enqueue_task("m", "as-root");
        let commands = bed.log();
        assert!(commands.iter().any(|c| matches!(c, Command::End { kill: false, .. })));
        assert!(commands.iter().any(|c| matches!(c, Command::Spawn { user, .. } if user == "root")));
        assert_eq!(bed.running().len(), 1);
    }
}
