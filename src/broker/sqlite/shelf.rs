//! The open store: a connection and its ledger, and the one place that routes operations.
//!
//! Every operation looks first and writes then, so that a refusal leaves nothing behind; an SQLite error
//! ends the whole transaction, and the writer decides what becomes of it.

use rusqlite::Connection;

use super::ledger::Ledger;
use crate::model::op::{Fault, Op, Reply};

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
}

impl Shelf {
    /// Does one operation inside the open transaction. List and Purge are the writer's.
    pub(super) fn apply(&mut self, op: &Op) -> Result<Reply, Stop> {
        Ok(match op {
            Op::Publish { messages, max_length, now } => return self.publish(messages, max_length, *now),
            Op::Lease { queue, credit, now } => Reply::Deliveries(self.lease(queue, *credit, *now)?),
            Op::Start { id, token, now } => return self.start(id, *token, *now),
            Op::Settle(settle) => return self.settle(settle),
            Op::Defer { id, token, until, counted, lost, now } => {
                return self.defer(id, *token, *until, (*counted, *lost), *now);
            }
            Op::Extend { leases } => Reply::Lost(self.extend(leases)?),
            Op::Revoke { id, now } => return self.revoke(id, *now),
            Op::Requeue { id, now } => return self.requeue(id, *now),
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
            Op::Acquire(permit) => Reply::Permit(self.acquire(permit)?),
            Op::Release(permit) => {
                self.release(permit)?;
                Reply::Permit(true)
            }
            Op::Tick(tick) => Reply::Ticked(self.tick(tick)?),
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
            Op::Node { name, announce, now } => Reply::Nodes(self.node(name, announce, *now)?),
            Op::List(_) | Op::Purge { .. } => {
                return Err(Stop::Fault(Fault::Refused("not an operation of a transaction".to_owned())));
            }
        })
    }
}

/// Whether an operation is answered only when it is on the disk. The others need survive only a killed
/// process (promise 1): a lease that a power cut takes back was held by nobody any more.
pub(super) const fn is_durable(op: &Op) -> bool {
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
        | Op::Tick(_) => true,
        // A permit goes with a lease or a settle; commits are lost only from the end, so the two stay
        // consistent with each other.
        Op::Acquire(_)
        | Op::Release(_)
        | Op::Lease { .. }
        | Op::Start { .. }
        | Op::Defer { .. }
        | Op::Extend { .. }
        | Op::Get { .. }
        | Op::List(_)
        | Op::Count
        | Op::Recall { .. }
        | Op::Schedules { .. }
        | Op::Recover
        | Op::Node { .. } => false,
    }
}

/// Whether an operation begins something new: refused while the disk is full, so that what is left serves
/// the ends of what runs.
pub(super) const fn begins(op: &Op) -> bool {
    matches!(op, Op::Publish { .. } | Op::Requeue { .. } | Op::Tick(_) | Op::Lease { .. })
}
