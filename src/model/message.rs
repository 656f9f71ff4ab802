//! A message: one enqueued call of a task. A delivery: a message handed to this node. A record: what a
//! store knows of an id.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::MessageId;
use super::outcome::Outcome;
use super::schedule::Fired;
use super::state::State;
use super::time::Wall;
use super::unique::Claim;
use super::workflow::StepOf;

/// Lowest and highest priority; 9 goes first.
pub const MAX_PRIORITY: u8 = 9;

/// Largest message that is accepted: arguments and headers as JSON, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// One call of a task, as a client asked for it. Immutable once accepted, but for `retries`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Made by the client, so that a repeat after an unclear answer is answered with what is there.
    pub id: MessageId,
    /// A declared task's name.
    pub task: String,
    /// The queue it waits in (routing is done by the engine before it is published).
    pub queue: String,
    /// Positional arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub kwargs: Map<String, Value>,
    /// 0 to 9, 9 first.
    #[serde(default)]
    pub priority: u8,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Wall>,
    /// EXPIRED when it has not started by this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Wall>,
    /// When it was accepted.
    pub enqueued: Wall,
    /// Uid of who enqueued it; absent for messages that came over a shared broker or from a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Retries asked for after an outcome so far (Celery's header); only this is compared with `max_retries`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Times it was run again by its task's `on_memory` rule.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_retries: u32,
    /// The schedule that fired it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Fired>,
    /// What no other message may hold at once with it; absent: its task is not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Claim>,
    /// The part of its task's messages that it waits with, where the task is limited: those for which every
    /// limit of the task is the same one ([`super::limit::Throttle::lane`]). Empty: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Whatever a client attached; carried, never interpreted.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// The workflow it is a step of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepOf>,
}

impl Message {
    /// Bytes of arguments and headers as JSON, counted without writing them.
    #[must_use]
    pub fn size(&self) -> usize {
        struct Count(usize);
        impl std::io::Write for Count {
            fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
                self.0 += b.len();
                Ok(b.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut count = Count(0);
        // Writing to a counter cannot fail, JSON values always serialize.
        let _ = serde_json::to_writer(&mut count, &(&self.args, &self.kwargs, &self.headers));
        count.0
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Guards every write about a lease: a store gives each lease a token greater than all before it, and
/// refuses writes that carry another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

/// A message handed to this node under a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The lease's fencing token.
    pub token: Token,
    /// Number of this attempt, from 1; stored when it was leased, never falls.
    pub attempt: u32,
    /// Attempts that ended `worker_lost` so far.
    pub losses: u32,
    /// Whether [`super::op::Op::Start`] was recorded under this token (only a recovered delivery has it).
    #[serde(default)]
    pub started: bool,
    /// Its place in its queue: the smaller goes first, ties by token.
    #[serde(default)]
    pub rank: i64,
}

/// Everything a store knows of one id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The message.
    pub message: Message,
    /// Where it is.
    pub state: State,
    /// Attempts started (or leased to be started).
    pub attempt: u32,
    /// Attempts that ended `worker_lost`.
    pub losses: u32,
    /// Present while it is leased to a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// When it is to run, for SCHEDULED and RETRY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Wall>,
    /// When the latest attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Wall>,
    /// When it reached its final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Wall>,
    /// The end of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}
