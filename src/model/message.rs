//! A message: one enqueued call of a task. A delivery: a message handed to this node. A record: what a
//! store knows of an id.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::MessageId;
use super::outcome::Outcome;
use super::schedule::Fired;
use super::state::State;
use super::task::Task;
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
    /// The hard time limit that a Celery client sent with it, in milliseconds: where its task has one, too, the shorter
    /// one holds. On a broker that Celery shares only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// The soft one, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_time_limit_ms: Option<u64>,
    /// Whatever a client attached; carried, never interpreted.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// What a Celery client sent with it, for the child that runs a task of a Celery app: `headers`, `properties` and
    /// `embed` (what follows it) of the raw call, or, as a delivery of a broker that Celery shares has it, the text of
    /// its envelope ([`crate::celery::handed`] reads it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<Box<Value>>,
    /// The workflow it is a step of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Box<StepOf>>,
}

impl Message {
    /// The shorter of the hard time limits of its task and of its own call, in milliseconds.
    #[must_use]
    pub fn hard_limit(&self, task: Option<&Task>) -> Option<u64> {
        task.and_then(|task| task.time_limit_ms).into_iter().chain(self.time_limit_ms).min()
    }

    /// The shorter of the soft ones.
    #[must_use]
    pub fn soft_limit(&self, task: Option<&Task>) -> Option<u64> {
        task.and_then(|task| task.soft_time_limit_ms).into_iter().chain(self.soft_time_limit_ms).min()
    }

    /// Bytes of arguments and headers as JSON, counted without writing them.
    #[must_use]
    pub fn size(&self) -> usize {
        // As an array of the three: two brackets and two commas.
        let args = self.args.iter().map(|v| json_len(v) + 1).sum::<usize>().max(1) + 1;
        let celery = self.celery.as_ref().map_or(0, |celery| json_len(celery));
        args + map_len(&self.kwargs) + map_len(&self.headers) + 4 + celery
    }
}

fn map_len(map: &Map<String, Value>) -> usize {
    map.iter().map(|(key, value)| text_len(key) + json_len(value) + 2).sum::<usize>().max(1) + 1
}

/// Bytes of a value as JSON, without spaces. As deep as the value, which the API bounds.
#[must_use]
pub fn json_len(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(n) => n.to_string().len(),
        Value::String(text) => text_len(text),
        Value::Array(list) => list.iter().map(|v| json_len(v) + 1).sum::<usize>().max(1) + 1,
        Value::Object(map) => map_len(map),
    }
}

fn text_len(text: &str) -> usize {
    let escaped = |b: u8| match b {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shorter_limit_holds() {
        let mut task = Task::new("t", crate::model::task::Program::Command("true".into()));
        task.time_limit_ms = Some(9_000);
        let mut message = Message::default();
        assert_eq!((message.hard_limit(Some(&task)), message.soft_limit(Some(&task))), (Some(9_000), None));
        (message.time_limit_ms, message.soft_time_limit_ms) = (Some(10_000), Some(3_000));
        assert_eq!(
            (message.hard_limit(Some(&task)), message.soft_limit(Some(&task))),
            (Some(9_000), Some(3_000))
        );
        (task.time_limit_ms, task.soft_time_limit_ms) = (None, Some(2_000));
        assert_eq!(
            (message.hard_limit(Some(&task)), message.soft_limit(Some(&task))),
            (Some(10_000), Some(2_000))
        );
        assert_eq!(message.hard_limit(None), Some(10_000));
    }

    #[test]
    fn what_is_counted_is_what_would_be_written() {
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!([[], {}, "", -1.5e300, u64::MAX, i64::MIN, true, false]),
            json!({"a\"\\\n\u{1}\u{7f}\u{8}": {"é\u{1f600}": [1, 2.0]}, "b": null}),
        ] {
            assert_eq!(json_len(&value), value.to_string().len(), "{value}");
            let kwargs = value.as_object().cloned().unwrap_or_default();
            let message = Message { args: vec![value.clone(), json!(1)], kwargs, ..Message::default() };
            let written = serde_json::to_string(&(&message.args, &message.kwargs, &message.headers)).unwrap();
            assert_eq!(message.size(), written.len(), "{value}");
        }
    }
}
