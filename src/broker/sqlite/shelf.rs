//! The open store: a connection and its ledger, and the one place that routes operations.
//!
//! Every operation looks first and writes then, so that a refusal leaves nothing behind; an SQLite error
//! ends the whole transaction, and the writer decides what becomes of it.

use std::collections::VecDeque;

use rusqlite::Connection;

use super::flows::Changes;
use super::ledger::Ledger;
use crate::broker::{joins, rules};
use crate::model::letters::LetterAct;
use crate::model::op::{Fault, Op, Reply};
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

/// Why an operation did not take place.
#[derive(Debug)]
pub(super) enum Stop {
    /// An answer: nothing was written.
    Fault(Fault),
    /// The transaction cannot go on.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The open store.
#[derive(Debug)]
pub(super) struct Shelf {
    pub c: Connection,
    pub ledger: Ledger,
    /// Bytes of messages and outcomes written or read in this transaction.
    pub bytes: usize,
    /// What the operation did beside.
    pub fallout: Fallout,
    /// Workflows that wait no longer for what their schedules fired before, and since when.
    pub released: VecDeque<(i64, Wall)>,
    /// What is still to be written of workflows in this transaction.
    pub changes: Changes,
}

impl Shelf {
    /// Does one operation inside the open transaction. List and Purge are the writer's.
    pub(super) fn apply(&mut self, op: &Op) -> Result<Reply, Stop> {
        self.fallout = Fallout::default();
        self.released.clear();
        let reply = self.perform(op)?;
        joins::release(self)?;
        Ok(rules::with(reply, std::mem::take(&mut self.fallout)))
    }

    fn perform(&mut self, op: &Op) -> Result<Reply, Stop> {
        Ok(match op {
            Op::Publish { messages, max_length, now } => return self.publish(messages, max_length, *now),
            Op::Lease { queue, credit, now, skip } => {
                let (deliveries, opens) = self.lease(queue, *credit, *now, skip)?;
                Reply::Leased { deliveries, opens }
            }
            Op::Start { id, token, now, takes } => return self.start(id, *token, *now, takes),
            Op::Aside { id, token, lane, blocked, now } => {
                return self.aside(id, *token, lane.as_deref(), blocked, *now);
            }
            Op::Open { task } => return self.open_lanes(task.as_deref()),
            Op::Settle(settle) => return self.settle(settle),
            Op::Defer { id, token, until, counted, lost, takes, now } => {
                return self.defer(id, *token, *until, (*counted, *lost), takes, *now);
            }
            Op::Extend { leases } => Reply::Lost(self.extend(leases)?),
            Op::Revoke { id, now } => return self.revoke(id, *now),
            Op::Requeue { id, now } => return self.requeue(id, *now),
            Op::Letters(step) => return self.letters(step),
            Op::Get { id } => Reply::Record(self.record(id)?.map(Box::new)),
            Op::Count => Reply::Counts(self.ledger.counts()),
            Op::Move { id, token, unknown, now: _ } => return self.relocate(id, *token, *unknown),
            Op::Known { tasks, now: _ } => return self.known(tasks),
            Op::Sweep { now, retention } => return self.sweep(*now, *retention),
            Op::Recover => Reply::Deliveries(self.recover()?),
            Op::QueueState { queue, paused } => {
                self.queue_state(queue, *paused)?;
                Reply::Done
            }
            Op::Once { key, at, message } => Reply::Once(self.once(key, *at, message)?),
            Op::Tick(tick) => Reply::Ticked(Box::new(self.tick(tick)?)),
            Op::Schedules { after } => self.schedule_rows(after)?,
            Op::Schedule(changes) => {
                self.change_schedules(changes)?;
                Reply::Done
            }
            Op::Remember(memos) => {
                self.remember(memos)?;
                Reply::Done
            }
            Op::Recall { prefix, after } => Reply::Memos(self.recall(prefix, after)?),
            Op::Launch { workflow, max_length, now } => return self.launch(workflow, max_length, *now),
            Op::Look(look) => Reply::Seen(joins::look(self, look)?.map(Box::new)),
            Op::CancelFlow { id, from, now } => Reply::Flowed(joins::cancel(self, id, *from, *now)?),
            Op::RetryFlow { id, from, now } => Reply::Flowed(joins::retry(self, id, *from, *now)?),
            Op::Node { name, announce, now } => Reply::Nodes(self.node(name, announce, *now)?),
            Op::List(_) | Op::Purge { .. } => {
                return Err(Stop::Fault(Fault::Refused("not an operation of a transaction".to_owned())));
            }
        })
    }
}

/// Whether an operation is answered only when it is on the disk. The others need survive only a killed
/// process (promise 1): a lease that a power cut takes back was held by nobody any more. A start under a slow
/// rate must survive it, or the next one would come too early.
pub(super) fn is_durable(op: &Op) -> bool {
    match op {
        Op::Publish { .. }
        | Op::Settle(_)
        | Op::Revoke { .. }
        | Op::Requeue { .. }
        | Op::Purge { .. }
        | Op::Move { .. }
        | Op::Known { .. }
        | Op::Sweep { .. }
        | Op::QueueState { .. }
        | Op::Remember(_)
        | Op::Schedule(_)
        | Op::Once { .. }
        | Op::Launch { .. }
        | Op::CancelFlow { .. }
        | Op::RetryFlow { .. }
        | Op::Tick { .. } => true,
        Op::Letters(step) => !matches!(step.act, LetterAct::Count),
        Op::Start { takes, .. } => takes.list.iter().any(crate::model::limit::Take::is_slow),
        Op::Aside { .. }
        | Op::Open { .. }
        | Op::Lease { .. }
        | Op::Defer { .. }
        | Op::Extend { .. }
        | Op::Get { .. }
        | Op::List(_)
        | Op::Count
        | Op::Recall { .. }
        | Op::Schedules { .. }
        | Op::Look(_)
        | Op::Recover
        | Op::Node { .. } => false,
    }
}

/// Whether an operation begins something new: refused while the disk is full, so that what is left serves
/// the ends of what runs.
pub(super) const fn begins(op: &Op) -> bool {
    match op {
        Op::Letters(step) => matches!(step.act, LetterAct::Retry { .. }),
        op => matches!(
            op,
            Op::Publish { .. }
                | Op::Requeue { .. }
                | Op::Tick { .. }
                | Op::Lease { .. }
                | Op::Launch { .. }
                | Op::RetryFlow { .. }
        ),
    }
}
