//! The pure model of a store: for the simulation and the contract suite.
//!
//! Deterministic, in memory, no clock of its own; what it answers is what every other store must answer.

mod broker;
mod claims;
mod joins;
mod lanes;
mod letters;
mod lives;
mod shelf;
mod sweep;
mod ticks;

use std::collections::{BTreeMap, BTreeSet};

pub use broker::ModelBroker;
use shelf::{Row, Shelf};

use super::rules;
use crate::model::message::{Delivery, Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Caps, Fault, Filter, MAX_MEMOS, Memo, Op, QueueCount, Reply};
use crate::model::time::Wall;
use crate::model::workflow::{Fallout, Workflow};

/// What [`Model`], and every store that holds all its data in one place, can do.
pub const CAPS: Caps = Caps { atomic_settle: true, permits: true, ticks: true, listing: true, shared: false };

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct Model {
    shelf: Shelf,
    seq: u64,
    token: i64,
    /// The store's clock: the latest time at which a message became ready; never goes back.
    clock: Wall,
    paused: BTreeSet<String>,
    schedules: ticks::Schedules,
    taken: lanes::Taken,
    nodes: BTreeMap<String, (String, Wall)>,
    memos: BTreeMap<String, String>,
    flows: joins::Flows,
}

impl Model {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every record, id records included, in order of acceptance.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.shelf.rows().map(|row| &row.record)
    }

    /// Every record that is leased, oldest token first.
    pub fn leased(&self) -> impl Iterator<Item = &Record> {
        self.shelf.leased.values().filter_map(|seq| self.shelf.at(*seq)).map(|row| &row.record)
    }

    /// Does one operation.
    ///
    /// # Errors
    /// [`Fault::Refused`] for an operation that makes no sense; nothing took place then.
    pub fn apply(&mut self, op: Op) -> Result<Reply, Fault> {
        self.flows.fallout = Fallout::default();
        let reply = self.perform(op)?;
        crate::broker::joins::release(self)?;
        Ok(rules::with(reply, std::mem::take(&mut self.flows.fallout)))
    }

    fn perform(&mut self, op: Op) -> Result<Reply, Fault> {
        Ok(match op {
            Op::Publish { messages, max_length, now } => return self.publish(messages, &max_length, now),
            Op::Lease { queue, credit, now, skip } => self.lease(&queue, credit, now, &skip),
            Op::Start { id, token, now, takes } => self.start(&id, token, now, &takes),
            Op::Aside { id, token, lane, blocked, now } => self.aside(&id, token, lane, &blocked, now),
            Op::Open { task } => self.open_lanes(task.as_deref()),
            Op::Settle(settle) => return self.settle(*settle),
            Op::Defer { id, token, until, counted, lost, takes, now } => {
                self.defer(&id, token, until, (counted, lost), &takes, now)
            }
            Op::Extend { leases } => self.extend(leases),
            Op::Revoke { id, now } => return self.revoke(&id, now),
            Op::Requeue { id, now } => return self.requeue(&id, now),
            Op::Letters(step) => Reply::Letters(Box::new(self.letters(&step))),
            Op::Get { id } => self.answer(&id),
            Op::List(filter) => self.list(&filter),
            Op::Count => self.count(),
            Op::Purge { queue, now } => return self.purge(&queue, now),
            Op::Move { id, token, unknown, now: _ } => self.relocate(&id, token, unknown),
            Op::Known { tasks, now: _ } => self.known(&tasks),
            Op::Sweep { now, retention } => return self.sweep(now, retention),
            Op::Recover => Reply::Deliveries(
                self.shelf
                    .leased
                    .values()
                    .filter_map(|seq| self.shelf.at(*seq))
                    .filter_map(delivery)
                    .collect(),
            ),
            Op::QueueState { queue, paused } => {
                if paused {
                    self.paused.insert(queue);
                } else {
                    self.paused.remove(&queue);
                }
                Reply::Done
            }
            Op::Once { key, at, message } => return self.once(key, at, message),
            Op::Tick(tick) => return self.tick(*tick),
            Op::Schedules { after } => self.schedule_rows(&after),
            Op::Schedule(changes) => {
                self.change_schedules(changes);
                Reply::Done
            }
            Op::Remember(memos) => {
                self.remember(memos);
                Reply::Done
            }
            Op::Recall { prefix, after } => self.recall(&prefix, &after),
            Op::Launch { workflow, max_length, now } => self.launch(&workflow, &max_length, now)?,
            Op::Look(look) => Reply::Seen(crate::broker::joins::look(self, &look)?.map(Box::new)),
            Op::CancelFlow { id, from, now } => {
                Reply::Flowed(crate::broker::joins::cancel(self, &id, from, now)?)
            }
            Op::RetryFlow { id, from, now } => {
                Reply::Flowed(crate::broker::joins::retry(self, &id, from, now)?)
            }
            Op::Node { name, announce, now } => self.node(name, announce, now),
        })
    }

    /// When a stored message becomes ready. A wall clock that goes back must not put messages before
    /// older ones.
    fn ready_again(&mut self, now: Wall) -> Wall {
        self.clock = self.clock.max(now);
        self.clock
    }

    /// When a new message becomes ready. An empty store follows the wall clock back: there is nothing
    /// whose order it could change.
    fn ready_new(&mut self, now: Wall) -> Wall {
        self.clock = if self.shelf.is_idle() { now } else { self.clock.max(now) };
        self.clock
    }

    fn answer(&self, id: &MessageId) -> Reply {
        Reply::Record(self.shelf.get(id).map(|row| Box::new(row.record.clone())))
    }

    fn list(&self, filter: &Filter) -> Reply {
        let limit = filter.limit.clamp(1, rules::MAX_LIST) as usize;
        let rows = self.shelf.rows().rev().filter(|row| !row.slim && filter.fits(&row.record));
        Reply::Records(rows.take(limit).map(|row| row.record.clone()).collect())
    }

    fn count(&self) -> Reply {
        let mut all: BTreeMap<&str, QueueCount> =
            self.shelf.counts().map(|c| (c.queue.as_str(), c.clone())).collect();
        for queue in &self.paused {
            let empty = || QueueCount { queue: queue.clone(), ..QueueCount::default() };
            all.entry(queue).or_insert_with(empty).paused = true;
        }
        Reply::Counts(all.into_values().collect())
    }

    /// Whether the first steps of a workflow would pass a bound: looked at before anything is written.
    fn no_room(&self, workflow: &Workflow, max_length: &BTreeMap<String, u64>) -> Option<Reply> {
        if max_length.is_empty() {
            return None;
        }
        let new = |m: &&Message| self.shelf.get(&m.id).is_none();
        let messages = workflow.roots().map(|s| &s.message).filter(new);
        rules::no_room(messages, max_length, |queue| self.shelf.length(queue))
    }

    fn remember(&mut self, memos: Vec<Memo>) {
        for memo in memos {
            match memo.value {
                Some(value) => self.memos.insert(memo.key, value),
                None => self.memos.remove(&memo.key),
            };
        }
    }

    fn recall(&self, prefix: &str, after: &str) -> Reply {
        let known = self.memos.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let behind = known.filter(|(key, _)| key.as_str() > after);
        let memo = |(key, value): (&String, &String)| Memo { key: key.clone(), value: Some(value.clone()) };
        Reply::Memos(behind.take(MAX_MEMOS).map(memo).collect())
    }

    fn node(&mut self, name: String, announce: String, now: Wall) -> Reply {
        self.nodes.insert(name, (announce, now));
        self.nodes.retain(|_, (_, at)| now.since(*at) <= rules::NODE_KEPT_MS);
        Reply::Nodes(self.nodes.iter().map(|(n, (a, at))| (n.clone(), a.clone(), *at)).collect())
    }
}

/// The delivery of a leased row.
fn delivery(row: &Row) -> Option<Delivery> {
    Some(Delivery {
        message: row.record.message.clone(),
        token: row.record.token?,
        attempt: row.record.attempt,
        losses: row.record.losses,
        started: row.record.state == crate::model::state::State::Running,
        rank: row.rank,
    })
}
