//! What the API says of schedules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::state::State;

/// One schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// The task that it enqueues; absent: it launches a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The workflow that it launches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// When, in words.
    pub when: String,
    /// The zone of its expression; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The next planned time, milliseconds since the epoch, as all times here; absent: it waits for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
    /// So much later than planned it fires on this node (`splay`), in milliseconds.
    #[serde(default)]
    pub offset_ms: u64,
    /// Whether it fires: it, and its task or every task of its workflow, are enabled.
    pub enabled: bool,
    /// Who paused it last: `asked`, somebody, or `failures`, itself after `pause_after_failures`; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Runs of it (messages, or workflows) that failed one after the other up to now.
    #[serde(default)]
    pub failures: u32,
    /// Runs of it that are not over.
    #[serde(default)]
    pub live: u64,
    /// Those of them that wait for the others (`overlap`).
    #[serde(default)]
    pub held: u64,
    /// `skip`, `queue`, `allow` or `replace`.
    pub overlap: String,
    /// `none`, `last` or `all`.
    pub catch_up: String,
    /// What it fired last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastFire>,
}

/// The latest fire of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastFire {
    /// The planned time.
    pub planned: i64,
    /// Its message, or its workflow.
    pub id: String,
    /// The state of that.
    pub state: State,
    /// It is a workflow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workflow: bool,
}

/// One planned time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedView {
    /// The schedule.
    pub schedule: String,
    /// The planned time, milliseconds since the epoch.
    pub at: i64,
    /// When it fires on this node: later by its part of `splay`.
    pub fires_at: i64,
    /// The zone of its expression; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Whether it will fire as things are; absent: it will. `disabled`: the schedule or a task of it is. `asked`,
    /// `failures`: the schedule is paused, by somebody or after failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// What a change of the clocks does to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
}

/// The schedules of a node at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulesView {
    /// How many are declared.
    pub count: u64,
    /// How many are paused.
    pub paused: u64,
    /// When the next one fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_name: Option<String>,
}

/// Body of `POST /v1/schedules/{name}/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunBody {
    /// The id of the message or workflow, made by the client, so that a repeat is safe; absent: the daemon makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Body of `POST /v1/schedules/{name}/rewind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewindBody {
    /// Fires after this time are forgotten, milliseconds since the epoch.
    pub to: i64,
    /// Only say what would fire.
    #[serde(default)]
    pub dry: bool,
}
