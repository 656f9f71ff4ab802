//! What can be asked of a broker, as data: operations never wait for one another, their completions
//! arrive in any order, each under the ticket it was submitted with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::letters::{LetterFilter, LetterStep, LetterTally};
use super::limit::Take;
use super::message::{Delivery, Message, Record, Token};
use super::name::MessageId;
use super::outcome::{NewCall, Outcome};
use super::schedule::{Change, Row, Tick, Ticked};
use super::state::State;
use super::time::Wall;
use super::workflow::{Fallout, Head, Look, Seen, Workflow};

/// Names one submitted operation; chosen by the submitter, never used twice in a life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Store these messages durably, all or none. A known id is not stored again: its record is answered.
    /// `max_length` bounds its queue: all that did not start (waiting, scheduled, leased ahead) together.
    /// A message whose key ([`Message::unique`]) is held by another one is dealt with as its claim says.
    Publish {
        /// The messages, in order.
        messages: Vec<Message>,
        /// Per message of the batch: the bound of its queue, if any (same length as `messages`, or empty).
        max_length: Vec<Option<u64>>,
        /// The store's clock for `enqueued`, `eta` and `expires`.
        now: Wall,
    },
    /// Hand out up to `credit` waiting messages of `queue`, each under a new token and with `attempt` raised
    /// (unless it was returned uncounted). Those without a lane best rank first; those of open lanes in turn,
    /// the lane served longest ago first, best rank first within each; the two merged by rank.
    Lease {
        /// The queue.
        queue: String,
        /// At most this many, 1 to 1,000.
        credit: u32,
        /// Wall clock, for `expires` (an expired message is not handed out) and for when lanes open.
        now: Wall,
        /// Lanes of these tasks are passed over: a limit on all of the task's messages is used up.
        skip: Vec<String>,
    },
    /// The attempt of this lease begins: RUNNING, and what its start takes is taken, in one step. Need survive
    /// only a killed process, unless it takes of a slow rate ([`Take::is_slow`]).
    Start {
        /// The message.
        id: MessageId,
        /// Its lease.
        token: Token,
        /// When.
        now: Wall,
        /// What it takes.
        takes: Takes,
    },
    /// Give a leased message that was not started back, uncounted, into this lane. Where what its start would
    /// take is not free now, the lane is closed until it is, in the same step.
    Aside {
        /// The message.
        id: MessageId,
        /// Its lease.
        token: Token,
        /// Its lane from now on.
        lane: Option<String>,
        /// What must be free for the lane to be open.
        blocked: Vec<Take>,
        /// The wall clock.
        now: Wall,
    },
    /// Open closed lanes (limits changed): those of one task, or all; a bounded number in one step.
    Open {
        /// The task; absent: of all.
        task: Option<String>,
    },
    /// The end of an attempt or of a life, in one step with everything that follows from it.
    Settle(Box<Settle>),
    /// Give a leased message back: it waits again (`until` absent), at its old place unless it was `lost`,
    /// or is scheduled.
    Defer {
        /// The message.
        id: MessageId,
        /// Its lease.
        token: Token,
        /// Not before this time.
        until: Option<Wall>,
        /// Whether the lease counted as an attempt; false: the next lease does not raise `attempt`.
        counted: bool,
        /// Raises `losses` by one (the attempt ended `worker_lost`).
        lost: bool,
        /// As [`Settle::takes`].
        takes: Vec<Take>,
        /// The wall clock.
        now: Wall,
    },
    /// Renew leases of this node. A lease that is not there any more is named in the reply.
    Extend {
        /// The leases.
        leases: Vec<(MessageId, Token)>,
    },
    /// End a message that is not leased: REVOKED. A leased one is answered as it is, untouched.
    Revoke {
        /// The message.
        id: MessageId,
        /// The wall clock.
        now: Wall,
    },
    /// Put a message with a final state back into its queue: a new life of the same id, `retries`,
    /// `losses` and `attempt` begin at zero. It claims its key again; where another message holds that, nothing is done.
    Requeue {
        /// The message.
        id: MessageId,
        /// The wall clock.
        now: Wall,
    },
    /// Count, retry or purge dead letters: one bounded step.
    Letters(Box<LetterStep>),
    /// What is known of this id.
    Get {
        /// The message.
        id: MessageId,
    },
    /// Records that match, newest first.
    List(Filter),
    /// Per queue: how many wait, are scheduled and are leased.
    Count,
    /// End every waiting and scheduled message of a queue: REVOKED.
    Purge {
        /// The queue.
        queue: String,
        /// The wall clock.
        now: Wall,
    },
    /// Move messages whose task is not declared (any more) to their queue's `unknown` set, or back.
    Move {
        /// The message.
        id: MessageId,
        /// Its lease, when it is leased.
        token: Option<Token>,
        /// True: into the set; false: back to waiting.
        unknown: bool,
        /// The wall clock.
        now: Wall,
    },
    /// Bring back every message of these tasks from the `unknown` sets (a reload declared them).
    Known {
        /// Declared task names, and patterns of names (`shop.*`).
        tasks: Vec<String>,
        /// The wall clock.
        now: Wall,
    },
    /// Let due messages wait, expire those whose time passed, drop records past their retention.
    Sweep {
        /// The wall clock.
        now: Wall,
        /// How long and how many finished records are kept.
        retention: Retention,
    },
    /// Every lease of this node, with [`Delivery::started`]: what a new daemon finds.
    Recover,
    /// Stop or start handing out messages of a queue; survives restarts.
    QueueState {
        /// The queue.
        queue: String,
        /// Paused or not.
        paused: bool,
    },
    /// Store this message, unless one was stored for this time under this key before; in one step.
    Once {
        /// What it is stored for.
        key: String,
        /// The time.
        at: Wall,
        /// What to publish.
        message: Message,
    },
    /// Record that a planned time of a schedule has come and store its message, in one step.
    Tick(Box<Tick>),
    /// What is known of the schedules, in order of their names; at most
    /// [`MAX_ROWS`](super::schedule::MAX_ROWS) after `after`.
    Schedules {
        /// Only names behind this one; empty: from the first on.
        after: String,
    },
    /// Change what is known of schedules, all or none.
    Schedule(Vec<Change>),
    /// Keep these facts durably, all or none.
    Remember(Vec<Memo>),
    /// The facts whose key begins with this text, in order of their keys; at most [`MAX_MEMOS`] after `after`.
    Recall {
        /// What their keys begin with.
        prefix: String,
        /// Only keys behind this one; empty: from the first on.
        after: String,
    },
    /// Store a workflow and publish its first steps, all or nothing. A known id changes nothing, be it that of a
    /// workflow or of a message.
    Launch {
        /// What to launch.
        workflow: Box<Workflow>,
        /// Bounds of queues: all that did not start in one, as in [`Op::Publish`].
        max_length: BTreeMap<String, u64>,
        /// The wall clock.
        now: Wall,
    },
    /// A part of a workflow, by its id.
    Look(Look),
    /// End what of a workflow is not over and not leased, a part at a time; nothing of it is published any more.
    CancelFlow {
        /// The workflow.
        id: MessageId,
        /// From this step on.
        from: u32,
        /// The wall clock.
        now: Wall,
    },
    /// Begin what of a workflow failed, and what was not run because of that, anew: a part at a time.
    RetryFlow {
        /// The workflow.
        id: MessageId,
        /// From this step on.
        from: u32,
        /// The wall clock.
        now: Wall,
    },
    /// Tell other nodes of this one, and list those that told of themselves.
    Node {
        /// This node's name.
        name: String,
        /// What to tell, a JSON text.
        announce: String,
        /// The wall clock.
        now: Wall,
    },
}

/// How long finished records are kept; whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds after the final state, for records without one of their own.
    pub age_ms: u64,
    /// At most this many finished records.
    pub count: u64,
    /// The same of DEAD ones, which the two above do not bound: milliseconds.
    pub dead_age_ms: u64,
    /// At most this many DEAD ones.
    pub dead_count: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age_ms: 86_400_000, count: 100_000, dead_age_ms: 30 * 86_400_000, dead_count: 10_000 }
    }
}

/// Most facts of one [`Op::Recall`].
pub const MAX_MEMOS: usize = 1_000;

/// A small fact of the engine's that must outlive the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    /// What it is about: a word of whoever keeps it, a colon, a name.
    pub key: String,
    /// What is known; absent: nothing any more.
    pub value: Option<String>,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    /// The message.
    pub id: MessageId,
    /// Its lease.
    pub token: Token,
    /// A final state, or [`State::Retry`].
    pub state: State,
    /// When the next attempt is due, with [`State::Retry`].
    pub due: Option<Wall>,
    /// How it ended. Kept without its result when the task says `ignore_result`.
    pub outcome: Outcome,
    /// Raises `losses` by one.
    pub lost: bool,
    /// With [`State::Retry`]: the next attempt is one of the task's `on_memory` rule. Raises `memory_retries` by
    /// one instead of `retries`.
    pub memory: Option<MemoryRetry>,
    /// With [`State::Retry`]: what the next attempt is called with, if that is something else. What the message holds
    /// (a key, a lane) stays as it is; a lane is looked at when it is leased.
    pub call: Option<Box<NewCall>>,
    /// The record keeps no result; steps of its workflow that are given it get it all the same.
    pub forget_result: bool,
    /// Published in the same step; ids are [`MessageId::follow_up`]s, a known id changes nothing.
    pub follow_ups: Vec<Message>,
    /// What the attempt took, where its start may not be recorded: rates are charged if it is not.
    pub takes: Vec<Take>,
    /// Facts kept in the same step.
    pub memos: Vec<Memo>,
    /// The record is dropped this many milliseconds after the final state, instead of the default; not one that is
    /// DEAD.
    pub expires_ms: Option<u64>,
    /// The wall clock.
    pub now: Wall,
}

impl Settle {
    /// An end from which nothing follows.
    #[must_use]
    pub const fn new(id: MessageId, token: Token, state: State, outcome: Outcome, now: Wall) -> Self {
        Self {
            id,
            token,
            state,
            due: None,
            outcome,
            lost: false,
            memory: None,
            call: None,
            forget_result: false,
            follow_ups: Vec::new(),
            takes: Vec::new(),
            memos: Vec::new(),
            expires_ms: None,
            now,
        }
    }
}

/// What follows an attempt that had not memory enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRetry {
    /// The message moves to this queue; absent: it stays.
    pub queue: Option<String>,
}

/// What a part of a cancel or a retry of a workflow did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flowed {
    /// The workflow as it is now; absent: no such id.
    pub head: Option<Box<Head>>,
    /// Steps that were ended, or begun anew.
    pub steps: u32,
    /// Steps that are leased, and so are the node's to end.
    pub leased: Vec<MessageId>,
    /// Steps whose arguments are not kept any more: they cannot begin anew.
    pub gone: u32,
    /// Where to go on.
    pub next: Option<u32>,
}

/// What a start takes, and whether the store may refuse it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// All of these or none.
    pub list: Vec<Take>,
    /// It was decided before: they are recorded whatever the limits say.
    pub sure: bool,
}

/// Which records [`Op::List`] answers with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only these states; empty: every state.
    #[serde(default)]
    pub states: Vec<State>,
    /// Only this task.
    #[serde(default)]
    pub task: Option<String>,
    /// Only this queue.
    #[serde(default)]
    pub queue: Option<String>,
    /// Only those enqueued at or after this time.
    #[serde(default)]
    pub since: Option<Wall>,
    /// Only those enqueued by this uid (who may not read everything sees his own).
    #[serde(default)]
    pub uid: Option<u32>,
    /// Only dead letters, and of these only the ones that this means.
    #[serde(default)]
    pub letters: Option<LetterFilter>,
    /// At most this many, 1 to 10,000.
    #[serde(default)]
    pub limit: u32,
}

impl Filter {
    /// Whether it means this record; how many it wants is another matter.
    #[must_use]
    pub fn fits(&self, record: &Record) -> bool {
        let message = &record.message;
        (self.states.is_empty() || self.states.contains(&record.state))
            && self.task.as_ref().is_none_or(|task| *task == message.task)
            && self.queue.as_ref().is_none_or(|queue| *queue == message.queue)
            && self.since.is_none_or(|since| message.enqueued >= since)
            && self.uid.is_none_or(|uid| message.uid == Some(uid))
            && self.letters.as_ref().is_none_or(|letters| letters.fits(record))
    }
}

/// Per queue counts, of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCount {
    /// The queue.
    pub queue: String,
    /// Ready to run, not leased.
    pub waiting: u64,
    /// To run later (SCHEDULED and RETRY).
    pub scheduled: u64,
    /// Leased to a node.
    pub leased: u64,
    /// In the `unknown` set.
    pub unknown: u64,
    /// Given up on and kept (DEAD).
    #[serde(default)]
    pub dead: u64,
    /// Not handed out.
    pub paused: bool,
}

/// What became of one message of a [`Op::Publish`].
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// Stored.
    New,
    /// The id was known; its record.
    Known(Box<Record>),
    /// Not stored: the id is that of a workflow. An id names one thing, or nobody could tell which is meant.
    Workflow(Box<Head>),
    /// Not stored: this message holds its key.
    Held(Box<Record>),
    /// Stored; this message held its key and was ended for it.
    Replaced(MessageId),
}

/// The answer to an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To Publish: one per message, in order.
    Published(Vec<Published>),
    /// To Publish: this queue is at its `max_length`; nothing was stored.
    QueueFull {
        /// The queue.
        queue: String,
        /// Its bound.
        max_length: u64,
    },
    /// To Publish and Requeue: another message holds the key of one that may not be dealt with otherwise; nothing was
    /// stored.
    Taken {
        /// The message that was refused.
        of: MessageId,
        /// Who holds its key: a stored message, or an earlier one of the same batch.
        holder: MessageId,
        /// The holder's record, if it is stored.
        record: Option<Box<Record>>,
    },
    /// To Publish: this holder is to be replaced and is leased without having started; nothing was stored. Whoever
    /// holds the lease gives it back and asks again.
    InHand {
        /// The holder.
        holder: MessageId,
        /// Its key.
        key: String,
    },
    /// To Letters.
    Letters(Box<LetterTally>),
    /// To Recover.
    Deliveries(Vec<Delivery>),
    /// To Lease. Fewer than asked for: the queue has no more now.
    Leased {
        /// What was handed out.
        deliveries: Vec<Delivery>,
        /// When the next closed lane of the queue opens by itself; in the past: there may be more at once.
        opens: Option<Wall>,
    },
    /// To Start: it took place, and with it the takes. Per rate of these, in their order, the theoretical
    /// arrival time after it ([`super::limit::take`]).
    Took(Vec<i64>),
    /// To Start and Aside: something it takes is not free. The message waits in its lane again, which is closed
    /// where the limit is that of the lane ([`super::limit::Scope::Value`]).
    Closed {
        /// What is not free.
        key: String,
        /// When it is, by time; absent: when a place is released.
        until: Option<Wall>,
    },
    /// To Settle, Start, Defer, Aside, Move: whether the token was still valid and the write took place.
    /// `current` is the record as it is when it was not.
    Applied {
        /// Whether it took place.
        applied: bool,
        /// The record when it did not.
        current: Option<Box<Record>>,
    },
    /// To Extend: leases that are not there any more.
    Lost(Vec<MessageId>),
    /// To Get, Revoke, Requeue: the record after the operation, if the id is known.
    Record(Option<Box<Record>>),
    /// To List.
    Records(Vec<Record>),
    /// To Count.
    Counts(Vec<QueueCount>),
    /// To Purge: how many.
    Purged(u64),
    /// To Sweep, Known and Open.
    Swept {
        /// Queues that got messages to hand out.
        queues: Vec<String>,
        /// Messages that became EXPIRED.
        expired: Vec<MessageId>,
        /// When the next message is due or expires; absent: none.
        next: Option<Wall>,
        /// More is to do at once (the sweep is bounded).
        more: bool,
    },
    /// To Once: false when one was stored for this time before.
    Once(bool),
    /// To Tick.
    Ticked(Box<Ticked>),
    /// To Schedules.
    Schedules(Vec<Row>),
    /// To Launch: whether it is new; if not, what is there. Where the id is that of a message: [`Self::Record`]. Of a
    /// linked one ([`Workflow::linked`]) a new one, and one whose message is not stored: [`Self::Published`].
    Launched(Option<Box<Head>>),
    /// To Look: the part, if the id is known.
    Seen(Option<Box<Seen>>),
    /// To CancelFlow and RetryFlow.
    Flowed(Flowed),
    /// An answer to an operation that did more than its answer says.
    With(Box<Reply>, Box<Fallout>),
    /// To Node: what each node announced, with when.
    Nodes(Vec<(String, String, Wall)>),
    /// To Recall.
    Memos(Vec<Memo>),
    /// To QueueState, Remember and Schedule.
    Done,
}

/// Why an operation did not take place, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Try the same operation again later; it may or may not have taken place.
    #[error("{0}")]
    Again(String),
    /// The connection or the handle is gone and is being made anew; it may or may not have taken place.
    #[error("{0}")]
    Reconnect(String),
    /// It did not and will not take place.
    #[error("{0}")]
    Refused(String),
    /// The stored data of this message cannot be understood.
    #[error("{0}")]
    Poison(String),
}

/// What an adapter can do; `taskd check` refuses keys that need what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Result, acknowledgement and follow-ups are one transaction.
    pub atomic_settle: bool,
    /// Limits: what a start takes, and lanes.
    pub permits: bool,
    /// Tick.
    pub ticks: bool,
    /// List and Count over everything.
    pub listing: bool,
    /// More than one node.
    pub shared: bool,
}
