//! What happens to the engine: a closed list.

use std::sync::Arc;

use super::letters::LetterOrder;
use super::plan::Plan;
use super::rate::{Limited, NewRate};
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply, Ticket};
use crate::model::outcome::Outcome;
use crate::model::schedule::Change;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{Fallout, Workflow};

/// A place in a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// The pool.
    pub pool: String,
    /// From 0.
    pub index: u32,
}

/// A living child, never named twice in a life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey(pub u64);

/// A request of a client; the engine answers each with exactly one `Answer` command of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskKey(pub u64);

/// Time limits that a resident worker says for a run of its own, in milliseconds from when it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimits {
    /// It is told to end the run then.
    pub soft_ms: Option<u64>,
    /// It is killed then.
    pub hard_ms: Option<u64>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// First of all, and at each reload.
    Plan(Arc<Plan>),
    /// Nothing but time passed (`next_deadline` came), or the wall clock jumped.
    Tick,
    /// A child lives: it was asked for, or is to be adopted. It says `Ready` later.
    ChildUp {
        /// The child.
        child: ChildKey,
        /// Its place.
        slot: SlotId,
        /// The user it runs as.
        user: String,
        /// Generation of the settings it was given.
        generation: u64,
        /// It lived before this daemon: what it holds is told by `Running` and outcomes before `Resumed`.
        /// Those of one slot are told in order of age, the oldest first.
        adopted: bool,
        /// How long it has lived, in milliseconds.
        age_ms: u64,
    },
    /// Every child to adopt was told by `ChildUp`; the engine starts `Recover`.
    /// `children_lost`: a child ended while no daemon lived, so a started run that nobody names may
    /// have been its.
    Adopt {
        /// See above.
        children_lost: bool,
        /// True at the first daemon of a launcher: no child of an earlier life exists.
        fresh: bool,
    },
    /// The child can take runs.
    Ready {
        /// The child.
        child: ChildKey,
        /// How many at once.
        capacity: u32,
        /// Names and patterns of the tasks it serves; empty: whatever it is sent.
        tasks: Vec<String>,
        /// Whether it can be adopted.
        resume: bool,
    },
    /// An adopted child holds this run.
    Running {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
    },
    /// An adopted child named all that it holds.
    Resumed {
        /// The child.
        child: ChildKey,
    },
    /// A run's main process was started.
    Started {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
        /// Its process.
        pid: u32,
        /// Limits of the program's own, which hold beside those of the task.
        limits: OwnLimits,
    },
    /// A run ended.
    Ended {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
        /// How.
        outcome: Box<Outcome>,
    },
    /// The child does not run this.
    Refused {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
        /// Why.
        why: String,
    },
    /// The child broke the protocol: it is killed.
    Broken {
        /// The child.
        child: ChildKey,
        /// How.
        why: String,
    },
    /// The child is gone with all it started; whatever it held and did not report is lost.
    ChildDown {
        /// The child.
        child: ChildKey,
        /// How it ended, for logs.
        how: String,
        /// The kernel ended it, or something below it, for want of memory.
        out_of_memory: bool,
    },
    /// The answer to `Command::Measure`.
    Measured {
        /// The child.
        child: ChildKey,
        /// Memory of it and of all below it, in bytes.
        bytes: u64,
    },
    /// Memory pressure is above the bound of the settings (hundredths of a percent), or is not (any more).
    Pressure(Option<u32>),
    /// A child that was asked for could not be started.
    SpawnFailed {
        /// The place.
        slot: SlotId,
        /// Why.
        error: String,
    },
    /// A store operation was completed.
    Broker {
        /// Its ticket.
        ticket: Ticket,
        /// Its result.
        result: Result<Reply, Fault>,
    },
    /// Messages that Celery workers had came to an end.
    Over {
        /// Which, and in what state.
        ended: Vec<(MessageId, State)>,
        /// What else that did.
        fallout: Box<Fallout>,
    },
    /// Other nodes put messages into these queues, or stored one that is due at this time.
    Woken {
        /// The queues.
        queues: Vec<String>,
        /// When the first of what was stored for later is due.
        due: Option<Wall>,
    },
    /// This node could not say for too long that it lives: others may have taken over what it holds.
    Lapsed,
    /// A client asks.
    Ask {
        /// Where the answer goes.
        key: AskKey,
        /// What.
        ask: Ask,
    },
    /// Stop: warm (running attempts get `shutdown_grace`), or now.
    Stop {
        /// Do not wait.
        now: bool,
    },
}

/// What a client asks of the engine. Arguments were bound and rights checked before.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Route (a message with an empty `queue`) and publish.
    Enqueue(Vec<Message>),
    /// Route the steps of this workflow and launch it.
    Launch(Box<Workflow>),
    /// End everything of this workflow.
    CancelWorkflow(MessageId),
    /// Begin everything of this workflow anew that failed or did not run because of that.
    RetryWorkflow(MessageId),
    /// End this message, wherever it is.
    Cancel(MessageId),
    /// A new life for a message with a final state.
    Retry(MessageId),
    /// Do something with dead letters, or count them.
    Letters(Box<LetterOrder>),
    /// Why it is not running yet.
    Why(MessageId),
    /// Pause or resume a queue.
    Pause {
        /// The queue.
        queue: String,
        /// Pause or resume.
        paused: bool,
    },
    /// End all that waits in a queue.
    Purge {
        /// The queue.
        queue: String,
    },
    /// Pause a schedule, end its pause, or rewind it.
    Schedule(Change),
    /// Set the rate of a task or a queue.
    Rate {
        /// Whose.
        whose: Limited,
        /// To what.
        rate: NewRate,
        /// Also after the next reload and restart.
        keep: bool,
    },
    /// Other time limits of a task, for attempts that start from now on, until the next reload or restart. A runner
    /// keeps the declared ones all the same where these are longer.
    TimeLimit {
        /// The task, as it is declared.
        task: String,
        /// Hard, in milliseconds.
        hard_ms: Option<u64>,
        /// Soft, in milliseconds.
        soft_ms: Option<u64>,
    },
    /// Take nothing new off any queue, or do again.
    Drain {
        /// On or off.
        on: bool,
    },
}
