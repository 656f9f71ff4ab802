//! What can be asked of a broker, as data: operations never wait for one another, their completions
//! arrive in any order, each under the ticket it was submitted with.

use serde::{Deserialize, Serialize};

use super::message::{Delivery, Message, Record, Token};
use super::name::MessageId;
use super::outcome::Outcome;
use super::schedule::{Change, Row, Tick, Ticked};
use super::state::State;
use super::time::Wall;

/// Names one submitted operation; chosen by the submitter, never used twice in a life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Store these messages durably, all or none. A known id is not stored again: its record is answered.
    /// `max_length` bounds its queue: all that did not start (waiting, scheduled, leased ahead) together.
    Publish {
        /// The messages, in order.
        messages: Vec<Message>,
        /// Per message of the batch: the bound of its queue, if any (same length as `messages`, or empty).
        max_length: Vec<Option<u64>>,
        /// The store's clock for `enqueued`, `eta` and `expires`.
        now: Wall,
    },
    /// Hand out up to `credit` waiting messages of `queue`, best rank first, each under a new token and
    /// with `attempt` raised (unless it was returned uncounted).
    Lease {
        /// The queue.
        queue: String,
        /// At most this many, 1 to 1,000.
        credit: u32,
        /// Wall clock, for `expires`: an expired message is not handed out.
        now: Wall,
    },
    /// The attempt of this lease begins: RUNNING. Need survive only a killed process.
    Start {
        /// The message.
        id: MessageId,
        /// Its lease.
        token: Token,
        /// When.
        now: Wall,
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
    /// `losses` and `attempt` begin at zero.
    Requeue {
        /// The message.
        id: MessageId,
        /// The wall clock.
        now: Wall,
    },
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
    /// Take a permit if it is free (rate, concurrency and uniqueness keys).
    Acquire(Permit),
    /// Give a permit back.
    Release(Permit),
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
    /// Published in the same step; ids are [`MessageId::follow_up`]s, a known id changes nothing.
    pub follow_ups: Vec<Message>,
    /// Permits given back in the same step.
    pub releases: Vec<Permit>,
    /// Facts kept in the same step.
    pub memos: Vec<Memo>,
    /// The record is dropped this many milliseconds after the final state, instead of the default.
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
            follow_ups: Vec::new(),
            releases: Vec::new(),
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

/// A permit: one of `limit` places under `key`, held by `holder` (taking it twice is taking it once).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What is limited.
    pub key: String,
    /// Who holds it.
    pub holder: String,
    /// How many may hold it at once.
    pub limit: u32,
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
    /// At most this many, 1 to 10,000.
    #[serde(default)]
    pub limit: u32,
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
    /// To Lease and Recover. Fewer than asked for: the queue has no more now.
    Deliveries(Vec<Delivery>),
    /// To Settle, Start, Defer, Move: whether the token was still valid and the write took place.
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
    /// To Sweep and Known.
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
    /// To Acquire: whether it is held now. To Release: true.
    Permit(bool),
    /// To Tick.
    Ticked(Ticked),
    /// To Schedules.
    Schedules(Vec<Row>),
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
    /// Acquire and Release.
    pub permits: bool,
    /// Tick.
    pub ticks: bool,
    /// List and Count over everything.
    pub listing: bool,
    /// More than one node.
    pub shared: bool,
}
