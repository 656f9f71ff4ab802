//! Requests and answers of the control API, shared by the server, the client and the OpenAPI text.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::canvas::{LaunchedView, StepBody, StepView, WorkflowBody, WorkflowView};
pub use super::dead::{DeadBody, DeadDone, DeadHeld, DeadKind, DeadQuery};
pub use super::error::{Error, ErrorKind};
pub use super::schedules::{LastFire, PlannedView, RewindBody, RunBody, ScheduleView, SchedulesView};
pub use super::status::{
    ChildState, ChildView, CountsView, NodePoolView, NodeView, PoolView, ReplacedView, RunningView,
    StatusView,
};
pub use super::verbs::{BackupPiece, DrainBody, NotifyBody, RateBody, RateView, ReloadBody, StopBody};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::unique::{Holds, OnConflict};

/// Who asks: the peer of the socket, by SO_PEERCRED and SO_PEERGROUPS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Process id, for the log.
    pub pid: i32,
}

/// What a peer may do, decided once per request by [`super::access`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// `[access] read`.
    pub read: bool,
    /// `[access] enqueue`.
    pub enqueue: bool,
    /// `[access] admin`, root, or whoever started taskd.
    pub admin: bool,
}

/// One call of the API: what, by whom, and where the answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// By whom.
    pub peer: Peer,
    /// What the peer may do by `[access]`; per-task `allow` and "his own message" are the handler's.
    pub rights: Rights,
    /// Where the answer goes; dropping it answers 503.
    pub answer: tokio::sync::oneshot::Sender<Answer>,
}

/// The closed list of what can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `POST /v1/messages`
    Enqueue(Vec<Enqueue>),
    /// `GET /v1/messages/{id}`
    Message {
        /// The id.
        id: String,
    },
    /// `GET /v1/messages/{id}/result?wait_ms=`: answers at a final state or after the wait.
    Result {
        /// The id.
        id: String,
        /// At most this long; 0: at once.
        wait_ms: u64,
    },
    /// `GET /v1/messages/{id}/logs?follow=`: newline-delimited [`LogLine`]s.
    Logs {
        /// The id.
        id: String,
        /// Go on until the message is final.
        follow: bool,
    },
    /// `GET /v1/messages/{id}/why`
    Why {
        /// The id.
        id: String,
    },
    /// `POST /v1/messages/{id}/cancel`
    Cancel {
        /// The id.
        id: String,
    },
    /// `POST /v1/messages/{id}/retry`
    Retry {
        /// The id.
        id: String,
    },
    /// `POST /v1/workflows`
    Launch(Box<WorkflowBody>),
    /// `GET /v1/workflows/{id}?from=&limit=&results=`
    Show {
        /// The workflow, or a step of it.
        id: String,
        /// From this step on.
        from: u32,
        /// At most this many steps.
        limit: u32,
        /// Only the steps whose results are the workflow's, with their outcomes.
        results: bool,
    },
    /// `POST /v1/workflows/{id}/cancel`
    CancelWorkflow {
        /// The workflow.
        id: String,
    },
    /// `POST /v1/workflows/{id}/retry`
    RetryWorkflow {
        /// The workflow.
        id: String,
    },
    /// `GET /v1/workflows`: those that the config declares.
    Workflows,
    /// `GET /v1/messages`
    List(ListQuery),
    /// `GET /v1/dead`
    Dead(DeadQuery),
    /// `GET /v1/dead/export`: newline-delimited [`Exported`].
    DeadExport(DeadQuery),
    /// `POST /v1/dead/retry`
    DeadRetry(DeadBody),
    /// `POST /v1/dead/purge`
    DeadPurge(DeadBody),
    /// `GET /v1/status`
    Status,
    /// `GET /v1/queues`
    Queues,
    /// `GET /v1/tasks`
    Tasks,
    /// `POST /v1/queues/{queue}/pause` and `/resume`
    Pause {
        /// The queue.
        queue: String,
        /// Pause or resume.
        paused: bool,
    },
    /// `GET` and `POST /v1/tasks/{task}/rate` and `/v1/queues/{queue}/rate`
    Rate {
        /// The task or queue.
        name: String,
        /// A queue.
        queue: bool,
        /// What to set; absent: show it.
        body: Option<RateBody>,
    },
    /// `POST /v1/queues/{queue}/purge`
    Purge {
        /// The queue.
        queue: String,
    },
    /// `GET /v1/schedules`
    Schedules,
    /// `GET /v1/schedules/next` and `GET /v1/schedules/{name}/next`
    Planned {
        /// Only this schedule.
        name: Option<String>,
        /// At most so many.
        most: usize,
    },
    /// `POST /v1/schedules/{name}/run`
    RunSchedule {
        /// The schedule.
        name: String,
        /// The message's id.
        id: Option<String>,
    },
    /// `POST /v1/schedules/{name}/pause` and `/resume`
    PauseSchedule {
        /// The schedule.
        name: String,
        /// Pause or resume.
        paused: bool,
    },
    /// `POST /v1/schedules/{name}/rewind`
    Rewind {
        /// The schedule.
        name: String,
        /// Fires after this time are forgotten.
        to: i64,
        /// Only say what would fire.
        dry: bool,
    },
    /// `POST /v1/notify`: a sample to everybody who would be told
    Notify(NotifyBody),
    /// `POST /v1/reload`
    Reload {
        /// Replace the program too, by the one that is installed now.
        binary: bool,
    },
    /// `POST /v1/drain`: take nothing new off any queue until a restart (`off = true` takes it back).
    Drain {
        /// Take it back.
        off: bool,
    },
    /// `POST /v1/stop`
    Stop {
        /// Do not wait for running attempts.
        now: bool,
    },
    /// `GET /v1/store/backup`: newline-delimited [`BackupPiece`]s of a consistent copy.
    Backup,
    /// `POST /v1/store/verify`
    Verify,
    /// `GET /v1/store/export`: newline-delimited [`Exported`] of all that is not final.
    Export {
        /// Also where there are workflows, which are not exported.
        leave_workflows: bool,
    },
    /// `POST /v1/store/import`
    Import(Vec<Exported>),
}

/// The answer to a call.
#[derive(Debug)]
pub enum Answer {
    /// 200 with this JSON text.
    Json(String),
    /// An error.
    Error(Error),
    /// 200 with newline-delimited JSON as it comes; the sender bounds it. A line `{"error": Error}` ends
    /// a stream that is not whole.
    Stream(tokio::sync::mpsc::Receiver<String>),
}

/// Most messages of one request, enqueued or imported.
pub const MAX_BATCH: usize = 10_000;

/// One message to enqueue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enqueue {
    /// Declared task name.
    pub task: String,
    /// Made by the client (UUIDv7) so that a repeat is safe; absent: the daemon makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Positional arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub kwargs: Map<String, Value>,
    /// Another queue than the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// 0 to 9, 9 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Not before this many milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Not before this time, milliseconds since the epoch (instead of `delay_ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<i64>,
    /// EXPIRED when not started by this time, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// Carried along, never interpreted.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// Steps that run with its result once it succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<StepBody>,
    /// Steps that run with its id when it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_error: Vec<StepBody>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enqueued {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: State,
    /// Its queue.
    pub queue: String,
    /// The id was known before; nothing was stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// With `known`: what has this id is another call, of another task or with other arguments. It stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
    /// Nothing was stored: the task is unique, and `id`, `state` and `queue` are those of the message that holds its
    /// key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// It is a workflow, and `queue` is empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workflow: bool,
    /// It was stored; this message had the same key, waited, and was ended for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// What `GET /v1/messages` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Comma-separated state names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Only this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only those enqueued at or after this time, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// At most this many; default 100, at most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Everything about one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageView {
    /// Its id.
    pub id: String,
    /// Its task.
    pub task: String,
    /// Its queue.
    pub queue: String,
    /// Its state.
    pub state: State,
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// 0 to 9.
    pub priority: u8,
    /// Attempts started.
    pub attempt: u32,
    /// Retries after an outcome.
    pub retries: u32,
    /// Attempts that ended `worker_lost`.
    pub losses: u32,
    /// Times its task's `on_memory` rule was applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_retries: u32,
    /// The memory limit of its running or next attempt, in bytes, after that rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u64>,
    /// Uid of who enqueued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The schedule that fired it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The planned time that it was fired for, milliseconds since the epoch; absent: it was fired by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<i64>,
    /// Milliseconds since the epoch, as all times below.
    pub enqueued: i64,
    /// When it is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// When the latest attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// When it reached its final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<i64>,
    /// Milliseconds between being due (or enqueued) and the start of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// The running attempt's process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The running attempt's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// How the latest attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The workflow that it is a step of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The node that runs or ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it claims, where its task is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<UniqueView>,
}

/// What a unique message claims, by the settings at the time when it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UniqueView {
    /// The task and the values of which there is one at a time.
    pub key: String,
    /// While what it holds the key.
    #[serde(rename = "while")]
    pub holds: Holds,
    /// It holds it at most this long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_ms: Option<u64>,
    /// What becomes of a second message.
    pub on_conflict: OnConflict,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// How far a running attempt is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressView {
    /// Done so far.
    pub current: u64,
    /// Of how many.
    pub total: u64,
    /// One line for people.
    pub message: String,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Number of the attempt.
    pub attempt: u32,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// `stdout`, `stderr`, or `taskd` for taskd's own remarks.
    pub stream: String,
    /// The text (lossless where it is UTF-8).
    pub line: String,
    /// The bytes as base64 where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The line goes on in the next one of this stream: no newline was printed here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Its pool; empty: the config does not declare the queue any more, nobody drains it.
    pub pool: String,
    /// Its weight.
    pub weight: u32,
    /// Strict order.
    pub strict: bool,
    /// Waiting (leased and not started included).
    pub waiting: u64,
    /// Scheduled and retry.
    pub scheduled: u64,
    /// Running.
    pub running: u64,
    /// In the `unknown` set.
    pub unknown: u64,
    /// Given up on and kept: `taskd dead list` shows them.
    #[serde(default)]
    pub dead: u64,
    /// Paused.
    pub paused: bool,
    /// At most this many run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How often they start at most, as `10/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// At most this many wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
}

/// One declared task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Its name.
    pub name: String,
    /// `command`, `exec` or `worker`.
    pub kind: String,
    /// The queue it goes to.
    pub queue: String,
    /// `name=type` of each parameter, with `, default VALUE` where there is one.
    pub params: Vec<String>,
    /// The only values allowed of those parameters that declare such.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub one_of: BTreeMap<String, Vec<Value>>,
    /// Its limits in words, as `10/m for each customer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Whether it may be enqueued.
    pub enabled: bool,
    /// `unique`, as `key, … while WHAT, PERIOD at most, ON_CONFLICT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
}

/// Why a message does not run yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyView {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: State,
    /// One sentence.
    pub why: String,
}

/// What a verb did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// One sentence.
    pub message: String,
    /// How many, where it counts something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// More lines (changes of a reload).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// `1 message`, `2 messages`: a count as [`Done`] words it.
#[must_use]
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// One line of an export: a message that is not final, as it is to be imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// Format version, 1.
    pub v: u32,
    /// The message as JSON.
    pub message: Value,
    /// Attempts so far.
    pub attempt: u32,
}
