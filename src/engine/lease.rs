//! Taking messages off the store: a bounded window per queue, refilled when it is half empty, and only
//! while the store may have more.

use super::Engine;
use super::command::Command;
use super::held::Held;
use super::settle::rejected;
use super::store::Pending;
use crate::model::message::{Delivery, Token};
use crate::model::op::{Fault, Op, Reply};
use crate::model::state::State;
use crate::model::time::Mono;

impl Engine {
    pub(super) fn pump_leases(&mut self, out: &mut Vec<Command>) {
        if self.is_live() && self.store.recover.is_due(self.now.mono) && !self.store.leasing() {
            // A failed lease may have taken place: what the store holds for this node and the engine
            // does not know is given back. No lease may be under way, or it would look like one of those.
            self.store.recover.submitted();
            self.submit(Pending::Recover, Op::Recover, out);
        }
        if !self.may_lease() {
            return;
        }
        let mut wanted = Vec::new();
        for (name, q) in &self.queues {
            let Some(plan) = self.plan.queues.get(name) else { continue };
            let Some(pool) = self.plan.pools.get(&plan.pool) else { continue };
            let window = q.window_size(pool.processes);
            let half = q.window.len() * 2 < window;
            let room = if half { window - q.window.len() } else { 0 };
            // Up to twice the window where something goes before what is in it: order is worth the memory.
            let credit = room.max(q.urgent.min((2 * window).saturating_sub(q.window.len())));
            let held = self.limits.closed.holds(name);
            if q.may_have && !q.leasing && !q.paused && !held && credit > 0 && self.has_child(&plan.pool) {
                wanted.push((name.clone(), credit as u32));
            }
        }
        for (queue, credit) in wanted {
            if let Some(q) = self.queues.get_mut(&queue) {
                q.leasing = true;
                q.raised = false;
                q.urgent = 0;
                q.ask(self.now.mono);
            }
            let skip = self.tasks_to_skip(&queue);
            let op = Op::Lease { queue: queue.clone(), credit, now: self.now.wall, skip };
            self.submit(Pending::Lease { queue, credit }, op, out);
        }
    }

    fn may_lease(&self) -> bool {
        self.is_live()
            && self.stop.is_none()
            && !self.draining
            && self.pressure.is_none()
            && !self.store.recover.is_open()
            && !self.is_clogged()
    }

    /// A pool whose children cannot be started takes nothing off the store.
    fn has_child(&self, pool: &str) -> bool {
        self.slots_of(pool).any(|(_, s)| !s.children.is_empty())
    }

    pub(super) fn leased(
        &mut self,
        queue: &str,
        credit: u32,
        result: Result<Reply, Fault>,
        out: &mut Vec<Command>,
    ) {
        let (mut raised, mut purged) = (false, false);
        if let Some(q) = self.queues.get_mut(queue) {
            q.leasing = false;
            raised = std::mem::take(&mut q.raised);
            purged = std::mem::take(&mut q.purged);
        }
        let Ok(Reply::Leased { deliveries, opens }) = result else {
            self.store.recover.want_later(self.now.mono);
            self.raise(queue);
            return;
        };
        if let Some(q) = self.queues.get_mut(queue) {
            q.may_have = raised || deliveries.len() >= credit as usize;
        }
        self.lanes_open_at(queue, opens);
        for delivery in deliveries {
            self.admit(delivery, purged, out);
        }
    }

    fn admit(&mut self, delivery: Delivery, purged: bool, out: &mut Vec<Command>) {
        let token = delivery.token;
        self.unpark(&delivery.message.id);
        self.hold(token, Held::waiting(delivery, self.now.mono));
        if purged {
            self.revoke_waiting(token, out);
        } else {
            self.screen(token, out);
        }
    }

    /// Puts a leased message into its queue's window, unless it is not to run here (any more).
    pub(super) fn screen(&mut self, token: Token, out: &mut Vec<Command>) {
        let Some(held) = self.held.get(&token) else { return };
        let (queue, task) = (held.message.queue.clone(), held.message.task.clone());
        let Some(pool) = self.plan.queues.get(&queue).filter(|_| self.open(&queue)).map(|q| q.pool.clone())
        else {
            self.back(token, None, out);
            return;
        };
        if self.plan.task(&task).is_some_and(|t| t.enabled) && self.change_lane(token, out) {
            return;
        }
        match self.plan.task(&task) {
            None => self.set_aside(token, out),
            Some(t) if !t.enabled => {
                let why = format!("the task {task} is disabled (enabled = false)");
                self.settle_waiting(token, State::Failure, rejected(why), out);
            }
            Some(_) => {
                if let Some(outcome) = self.unfit(token) {
                    return self.settle_waiting(token, State::Failure, outcome, out);
                }
                let rank = self.rank_in_turn(token);
                let floor = self.pools.get(&pool).map_or(0, |p| p.pass);
                let q = self.queues.entry(queue).or_default();
                if q.window.is_empty() {
                    // A queue that slept does not catch up on what it did not ask for.
                    q.pass = q.pass.max(floor);
                }
                // A later lease may bring what goes before: the window is a part of the store's order.
                let before = |t: &Token| self.held.get(t).is_some_and(|h| (h.rank, *t) < (rank, token));
                let place = q.window.iter().rposition(before).map_or(0, |at| at + 1);
                q.window.insert(place, token);
            }
        }
    }

    /// After a reload: every waiting delivery is looked at with the new settings.
    pub(super) fn screen_all(&mut self, out: &mut Vec<Command>) {
        let windows: Vec<Token> = self.queues.values_mut().flat_map(|q| q.window.drain(..)).collect();
        for token in windows {
            self.screen(token, out);
        }
    }

    pub(super) fn leases_deadline(&self) -> Option<Mono> {
        let recover =
            if self.is_live() && !self.store.leasing() { self.store.recover.deadline() } else { None };
        let extend = if self.is_live() { self.store.extend.deadline() } else { None };
        recover.into_iter().chain(extend).min()
    }
}
