//! What the engine wants done: a closed list. Broker operations are answered by one `Event::Broker` each,
//! `Spawn` by `ChildUp` or `SpawnFailed`, `Measure` by `Measured` unless the child is gone, the others by
//! nothing.

use super::event::{AskKey, ChildKey, SlotId};
use super::letters::LetterSum;
use super::rate::InForce;
use super::recycle::Reason;
use super::workflow::Walked;
use crate::model::message::Record;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Published, Ticket};
use crate::model::outcome::{CancelReason, Outcome};
use crate::model::schedule::Skip;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::Head;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all of it is operations: a box each would cost more")]
pub enum Command {
    /// Submit to the broker.
    Broker(Ticket, Op),
    /// Start a child.
    Spawn {
        /// Its place.
        slot: SlotId,
        /// Its user.
        user: String,
    },
    /// End a child: it finishes what it holds and exits (`kill` false), or all of it is killed.
    End {
        /// The child.
        child: ChildKey,
        /// At once.
        kill: bool,
    },
    /// Find out how much memory a child and all below it use.
    Measure {
        /// The child.
        child: ChildKey,
    },
    /// Hand a run to a child.
    Run {
        /// The child.
        child: ChildKey,
        /// What.
        run: Box<RunOrder>,
    },
    /// Tell a child to end a run.
    Cancel {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
        /// Why.
        reason: CancelReason,
    },
    /// Tell a child that this run's outcome is committed.
    Settled {
        /// The child.
        child: ChildKey,
        /// The run.
        run: String,
    },
    /// Answer a client.
    Answer {
        /// Whom.
        key: AskKey,
        /// What.
        answer: Told,
    },
    /// Something worth an entry in the journal, and the people who wait for this message.
    Note(Note),
    /// Everything is settled or given back after a Stop: children may be ended, the process may exit.
    Finished,
}

/// A run as the engine orders it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOrder {
    /// Its key.
    pub run: String,
    /// Generation of the settings.
    pub generation: u64,
    /// The message.
    pub message: crate::model::message::Message,
    /// Number of the attempt.
    pub attempt: u32,
    /// Hard limit in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Soft limit in milliseconds.
    pub soft_deadline_ms: Option<u64>,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// To Enqueue, one per message; to Launch of a linked one, for its first.
    Published(Vec<(MessageId, String, Published)>),
    /// To Enqueue: the queue is full.
    QueueFull {
        /// The queue.
        queue: String,
        /// Its bound.
        max_length: u64,
    },
    /// To Enqueue: no such queue (named by the client).
    NoSuchQueue(String),
    /// To Enqueue and Retry: another message holds the key of this one; nothing was stored.
    Taken {
        /// The message that was refused.
        of: MessageId,
        /// Who holds its key.
        holder: MessageId,
        /// The holder's record; absent: it is an earlier message of the same batch, which was not stored either.
        record: Option<Box<Record>>,
    },
    /// To Letters.
    Letters(Box<LetterSum>),
    /// To Launch: what is there, where the id is known.
    Launched {
        /// The workflow.
        id: MessageId,
        /// It was launched before.
        known: Option<Box<Head>>,
    },
    /// To Launch: the id is that of this message; nothing was launched.
    IsMessage(Box<Record>),
    /// To CancelWorkflow.
    FlowCanceled(Walked),
    /// To RetryWorkflow.
    FlowRetried(Walked),
    /// To Cancel: the record as it is now, and whether its running attempt is being ended.
    Canceled {
        /// The record, if the id is known.
        record: Option<Box<Record>>,
        /// A running attempt was told to end.
        ending: bool,
        /// It was final before; nothing was done.
        too_late: bool,
    },
    /// To Retry.
    Retried {
        /// The record, if the id is known.
        record: Option<Box<Record>>,
        /// It was not final; nothing was done.
        not_final: bool,
    },
    /// To Why: a sentence, if the id is known.
    Why(Option<(State, String)>),
    /// To Purge.
    Purged(u64),
    /// To Rate: what is in force now, if there is such a task or queue.
    Rate(Option<InForce>),
    /// To Pause, Schedule, TimeLimit and Drain.
    Done,
    /// The store could not do it.
    Fault(Fault),
    /// taskd is stopping.
    Stopping,
}

/// What the `on_memory` rule of a task gives the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// How often it was applied to the message, this time included.
    pub times: u32,
    /// How often it may be.
    pub max: u32,
    /// The queue of the next attempt.
    pub queue: String,
    /// Its memory limit, in bytes.
    pub memory_max: Option<u64>,
}

/// A life-cycle entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A message that Celery workers had is over.
    Over {
        /// Id.
        id: MessageId,
        /// State.
        state: State,
    },
    /// A message was accepted.
    Received {
        /// Id.
        id: MessageId,
        /// Task.
        task: String,
        /// Queue.
        queue: String,
        /// State.
        state: State,
    },
    /// An attempt was started.
    Started {
        /// Id.
        id: MessageId,
        /// Task.
        task: String,
        /// Queue.
        queue: String,
        /// Attempt.
        attempt: u32,
        /// Process.
        pid: u32,
    },
    /// An attempt ended and its end is committed. `state` is final, RETRY, or WAITING where it goes back.
    Ended {
        /// Id.
        id: MessageId,
        /// Task.
        task: String,
        /// Queue.
        queue: String,
        /// Attempt.
        attempt: u32,
        /// The state now.
        state: State,
        /// How it ended.
        outcome: Box<Outcome>,
        /// Milliseconds it had waited.
        waited_ms: u64,
        /// Milliseconds until the next attempt, with RETRY.
        retry_in_ms: Option<u64>,
        /// The next attempt is one of the task's `on_memory` rule.
        raised: Option<Raised>,
    },
    /// A workflow was accepted.
    Launched {
        /// Id.
        id: MessageId,
        /// What it is.
        name: String,
        /// How many steps it has.
        steps: usize,
    },
    /// The last step of a workflow ended.
    Workflow {
        /// Id.
        id: MessageId,
        /// SUCCESS, FAILURE or REVOKED.
        state: State,
    },
    /// A message ended without an attempt (canceled or expired while waiting; a step whose workflow failed).
    Dropped {
        /// Id.
        id: MessageId,
        /// REVOKED, EXPIRED or FAILURE.
        state: State,
    },
    /// A message of an undeclared task was set aside.
    Unknown {
        /// Id.
        id: MessageId,
        /// Task.
        task: String,
        /// Queue.
        queue: String,
    },
    /// A child started or ended in a way people should know of.
    Child {
        /// Its place.
        slot: SlotId,
        /// What happened.
        text: String,
        /// Whether it is a fault.
        fault: bool,
    },
    /// A child is replaced though nothing is wrong with it.
    Recycled {
        /// Its place.
        slot: SlotId,
        /// The child.
        child: ChildKey,
        /// Why.
        reason: Reason,
        /// Runs it had.
        runs: u64,
        /// How long it lived, in milliseconds.
        age_ms: u64,
        /// Its memory and that of all below it when it was measured last, in bytes.
        memory: Option<u64>,
    },
    /// Something about a schedule.
    Schedule {
        /// Its name.
        name: String,
        /// What.
        what: About,
    },
    /// The store does not do what it should; work is paused (`Some`) or goes on (`None`).
    Store(Option<String>),
}

/// What is worth telling of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// It fired.
    Fired {
        /// The planned time.
        planned: Wall,
        /// So much later, in milliseconds.
        late_ms: u64,
        /// The message.
        id: MessageId,
        /// Its task.
        task: String,
        /// Its queue.
        queue: String,
        /// The message waits for those before it.
        held: bool,
    },
    /// It launched a workflow.
    Launched {
        /// The planned time.
        planned: Wall,
        /// So much later, in milliseconds.
        late_ms: u64,
        /// The workflow.
        id: MessageId,
        /// Its name.
        workflow: String,
        /// It waits for what the schedule fired before.
        held: bool,
    },
    /// A planned time came and stored nothing.
    Skipped {
        /// The planned time.
        planned: Wall,
        /// Why.
        why: Skip,
    },
    /// Planned times passed while nobody could fire them, and stay out.
    Missed {
        /// How many, at least.
        count: usize,
        /// There are more.
        more: bool,
        /// The latest.
        latest: Wall,
    },
    /// It is paused after so many failures in a row.
    Paused {
        /// How many.
        failures: u32,
    },
    /// The store refuses a planned time.
    Refused {
        /// The planned time.
        planned: Wall,
        /// Why.
        why: String,
    },
}
