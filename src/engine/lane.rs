//! Lanes: what waits of a task together because the same limits hold for it, in the store. Here stands which
//! lane a message belongs to, what is closed for now, and when it is looked at again.
//!
//! A limit on one value of an argument closes that lane in the store, and nothing of it is kept here but when
//! the next lane of a queue opens. A limit on all of a task, or of a queue, is kept here: the store is told
//! which tasks to pass over, and a held queue leases nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::command::Command;
use super::held::Stage;
use super::settle::End;
use super::store::{Job, Pending};
use crate::model::limit::{self, Scope, Take};
use crate::model::message::{Message, Token};
use crate::model::op::{Fault, Op, Reply};
use crate::model::time::{Mono, Wall};

/// A task is passed over so long where the store says that its limit is free and the engine knows better, in
/// milliseconds: a start of it is not stored yet.
const DISAGREE_MS: u64 = 100;

/// Another node may release a place without a word: so long a task waits for that at most, in milliseconds.
const SHARED_MS: u64 = 1_000;

/// What is closed for now.
#[derive(Debug, Default)]
pub(super) struct Closings {
    /// Tasks a limit of which is used up, until then; absent: until an attempt ends.
    tasks: BTreeMap<String, Option<Mono>>,
    /// Queues whose rate is used up.
    queues: BTreeMap<String, Mono>,
    /// When the next lane of a queue opens.
    opens: BTreeMap<String, Mono>,
    /// A message in a window may start then.
    wake: Option<Mono>,
    /// Queues with lanes that may open when an attempt ends.
    laned: BTreeSet<String>,
    /// Lanes to be opened because limits changed: of one task, or of all.
    reopen: BTreeSet<Option<String>>,
    job: Job,
}

impl Closings {
    pub(super) fn hold_queue(&mut self, queue: &str, until: Mono) {
        self.queues.insert(queue.to_owned(), until);
    }

    /// Whether a queue's rate is used up.
    pub(super) fn holds(&self, queue: &str) -> bool {
        self.queues.contains_key(queue)
    }

    pub(super) fn wake(&mut self, at: Mono) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    /// A place is free: whoever waits for one is looked at again. Whether anybody does.
    pub(super) fn place_free(&mut self) -> bool {
        let before = self.tasks.len();
        self.tasks.retain(|_, until| until.is_some());
        self.tasks.len() < before
    }

    fn close_task(&mut self, task: &str, until: Option<Mono>) {
        let entry = self.tasks.entry(task.to_owned()).or_insert(until);
        // Whoever comes first is looked at, and closed again if need be.
        *entry = match (*entry, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn opens(&mut self, queue: &str, at: Mono) {
        self.laned.insert(queue.to_owned());
        let entry = self.opens.entry(queue.to_owned()).or_insert(at);
        *entry = (*entry).min(at);
    }

    /// Tasks that a lease passes over.
    fn skip(&self) -> Vec<String> {
        self.tasks.keys().cloned().collect()
    }

    /// Until when this message's task or queue is closed, if it is.
    pub(super) fn until(&self, message: &Message) -> Option<Option<Mono>> {
        self.tasks.get(&message.task).copied().or_else(|| self.queues.get(&message.queue).map(|at| Some(*at)))
    }

    fn deadline(&self) -> Option<Mono> {
        let tasks = self.tasks.values().filter_map(|until| *until);
        tasks.chain(self.queues.values().copied()).chain(self.opens.values().copied()).chain(self.wake).min()
    }
}

impl Engine {
    /// The lane of a message as the limits are now.
    pub(super) fn lane_of(&self, message: &Message) -> Option<String> {
        let task = self.plan.task(&message.task)?;
        let lane = self.throttle(&message.task).and_then(|throttle| throttle.lane(task, message));
        match super::unique::place_of(message) {
            Some(key) => Some(limit::lane_of_one(lane.as_deref(), &key)),
            None => lane,
        }
    }

    /// Gives a message that stands in another lane back into its own. Whether it did.
    pub(super) fn change_lane(&mut self, token: Token, out: &mut Vec<Command>) -> bool {
        let Some(held) = self.held.get(&token) else { return false };
        let lane = self.lane_of(&held.message);
        if held.message.lane == lane {
            return false;
        }
        self.close(token, End::Aside { lane, blocked: Vec::new() }, None, out);
        true
    }

    /// Lanes come in turn, whatever the rank of what waits in them: a message of one goes behind those of
    /// others that came before it. Answers its place in the window's order.
    pub(super) fn rank_in_turn(&mut self, token: Token) -> i64 {
        let Some(held) = self.held.get(&token) else { return 0 };
        let mut rank = held.rank;
        if held.message.lane.is_some()
            && let Some(q) = self.queues.get(&held.message.queue)
        {
            let laned = q.window.iter().filter_map(|t| self.held.get(t)).filter(|h| h.message.lane.is_some());
            rank = laned.map(|h| h.rank).max().map_or(rank, |last| last.max(rank));
        }
        if let Some(held) = self.held.get_mut(&token) {
            held.rank = rank;
        }
        rank
    }

    /// A limit of this message is used up: it goes back to its lane, with all of the window that it holds up
    /// alike.
    pub(super) fn turn_away(
        &mut self,
        queue: &str,
        token: Token,
        take: Take,
        until: Option<Mono>,
        out: &mut Vec<Command>,
    ) {
        let Some(held) = self.held.get(&token) else { return };
        let (task, lane) = (held.message.task.clone(), held.message.lane.clone());
        self.limits.closed.laned.insert(queue.to_owned());
        let value = limit::scope(take.key()) == Scope::Value;
        if !value {
            self.limits.closed.close_task(&task, until);
        }
        let alike = |t: &Token| {
            let message = self.held.get(t).map(|h| &h.message);
            message.is_some_and(|m| m.task == task && (!value || m.lane == lane))
        };
        let mut away: Vec<Token> = self
            .queues
            .iter()
            .filter(|(name, _)| !value || *name == queue)
            .flat_map(|(_, q)| q.window.iter().filter(|t| alike(t)).copied())
            .collect();
        // The one that closes the lane first: the others then come back to a closed one.
        away.retain(|t| *t != token);
        away.insert(0, token);
        for t in away {
            if let Some(name) = self.held.get(&t).map(|h| h.message.queue.clone()) {
                self.unqueue(&name, t);
            }
            if value && t == token {
                let end = End::Aside { lane: lane.clone(), blocked: vec![take.clone()] };
                self.close(t, end, None, out);
            } else {
                self.back(t, None, out);
            }
        }
    }

    /// The store closed something.
    pub(super) fn limit_closed(&mut self, token: Token, key: &str, until: Option<Wall>) {
        let Some(message) = self.held.get(&token).map(|held| &held.message) else { return };
        let at = until.map(|at| self.now.mono.plus(at.since(self.now.wall).max(1)));
        let at = at.or_else(|| self.plan.shared.then(|| self.now.mono.plus(SHARED_MS)));
        let (queue, task) = (message.queue.clone(), message.task.clone());
        let closed = &mut self.limits.closed;
        closed.laned.insert(queue.clone());
        match (limit::scope(key), at) {
            (Scope::Queue, Some(at)) => closed.hold_queue(&queue, at),
            (Scope::Value, Some(at)) => closed.opens(&queue, at),
            (Scope::Value, None) => {}
            (Scope::Queue | Scope::Task, at) => closed.close_task(&task, at),
        }
    }

    /// The store says that a lane is open which the engine wanted closed.
    pub(super) fn lane_stayed_open(&mut self, token: Token) {
        let Some(held) = self.held.get(&token) else { return };
        if let Stage::Closing(closing) = &held.stage
            && matches!(&closing.end, End::Aside { blocked, .. } if !blocked.is_empty())
        {
            let (task, at) = (held.message.task.clone(), self.now.mono.plus(DISAGREE_MS));
            self.limits.closed.close_task(&task, Some(at));
        }
    }

    /// The end of an attempt is stored: lanes that waited for its place are open.
    pub(super) fn lanes_freed(&mut self, message: &Message) {
        let limited = self.throttle(&message.task).is_some_and(|t| t.concurrency.is_some());
        if limited || super::unique::place_of(message).is_some() {
            self.raise_laned();
        }
    }

    pub(super) fn raise_laned(&mut self) {
        let queues: Vec<String> = self.limits.closed.laned.iter().cloned().collect();
        for queue in queues {
            self.raise(&queue);
        }
    }

    /// After the start of a daemon: nobody knows which lanes an earlier one has closed.
    pub(super) fn lanes_unknown(&mut self) {
        self.limits.closed.laned.extend(self.plan.queues.keys().cloned());
        self.reopen(None);
    }

    /// Limits changed: what they closed is looked at anew.
    pub(super) fn reopen(&mut self, task: Option<String>) {
        let closed = &mut self.limits.closed;
        match &task {
            Some(task) => {
                closed.tasks.remove(task);
            }
            None => closed.tasks.clear(),
        }
        closed.queues.clear();
        closed.reopen.insert(task);
        closed.job.want();
        self.raise_laned();
    }

    /// What a lease of this queue said of its lanes.
    pub(super) fn lanes_open_at(&mut self, queue: &str, opens: Option<Wall>) {
        match opens {
            Some(at) if at <= self.now.wall => self.raise(queue),
            Some(at) => self.limits.closed.opens(queue, self.now.mono.plus(at.since(self.now.wall))),
            None => {}
        }
    }

    /// Tasks that a lease of this queue passes over; it is leased again when one of them is open.
    pub(super) fn tasks_to_skip(&mut self, queue: &str) -> Vec<String> {
        let skip = self.limits.closed.skip();
        if !skip.is_empty() {
            self.limits.closed.laned.insert(queue.to_owned());
        }
        skip
    }

    pub(super) fn pump_lanes(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let closed = &mut self.limits.closed;
        if closed.deadline().is_some_and(|at| at <= now) {
            closed.wake = closed.wake.filter(|at| *at > now);
            let before = closed.tasks.len();
            closed.tasks.retain(|_, until| until.is_none_or(|at| at > now));
            let mut due: Vec<String> = closed
                .queues
                .iter()
                .chain(&closed.opens)
                .filter(|(_, at)| **at <= now)
                .map(|(q, _)| q.clone())
                .collect();
            closed.queues.retain(|_, at| *at > now);
            closed.opens.retain(|_, at| *at > now);
            if closed.tasks.len() < before {
                due.extend(closed.laned.iter().cloned());
            }
            for queue in due {
                self.raise(&queue);
            }
        }
        if self.is_live()
            && self.limits.closed.job.is_due(now)
            && let Some(task) = self.limits.closed.reopen.pop_first()
        {
            self.limits.closed.job.submitted();
            self.submit(Pending::Reopen(task.clone()), Op::Open { task }, out);
        }
    }

    pub(super) fn reopened(&mut self, task: Option<String>, result: Result<Reply, Fault>) {
        let closed = &mut self.limits.closed;
        closed.job.answered(self.now.mono, result.is_err());
        let mut queues = Vec::new();
        match result {
            Ok(Reply::Swept { queues: named, more, .. }) => {
                queues = named;
                if more {
                    closed.reopen.insert(task);
                }
            }
            _ => {
                closed.reopen.insert(task);
            }
        }
        if !closed.reopen.is_empty() {
            closed.job.want();
        }
        for queue in queues {
            self.raise(&queue);
        }
    }

    pub(super) fn lanes_deadline(&self) -> Option<Mono> {
        if !self.is_live() {
            return None;
        }
        let closed = &self.limits.closed;
        closed.deadline().into_iter().chain(closed.job.deadline()).min()
    }
}
