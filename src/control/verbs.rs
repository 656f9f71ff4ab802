//! What the verbs of the API take as their bodies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::notice::Kind;

/// Body of `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadBody {
    /// Replace the program too, by the one that is installed now. The answer comes before it is replaced: it
    /// is done once `upgrades` of the status is higher; `upgrade_failure` says why it is not.
    pub binary: bool,
}

/// Body of `POST /v1/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainBody {
    /// Take it back.
    pub off: bool,
}

/// Body of `POST /v1/tasks/{task}/rate` and `POST /v1/queues/{queue}/rate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// As `10/m` (`/s`, `/m`, `/h`, `/d`); `none`: no limit; `default`: what the config says.
    pub rate: String,
    /// How many may start at once after a time without any, 1 to 1,000,000; default: what the config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Keep it over reloads and restarts.
    #[serde(default)]
    pub keep: bool,
}

/// How often messages of a task or a queue start at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateView {
    /// The task or queue.
    pub name: String,
    /// In force, as `10/m` or `10/m (burst 3)`; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Where it comes from: `config`, `now` (until the next reload or restart) or `kept`.
    pub from: String,
    /// What the config says; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// What is in force after the next reload or restart, with the config as it is.
    pub then: String,
    /// The argument for each value of which it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopBody {
    /// Do not wait for running attempts.
    pub now: bool,
}

/// Body of `POST /v1/notify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyBody {
    /// The task whose notices are tried.
    pub task: String,
    /// What is told; `failure` where nothing is said.
    #[serde(default = "failure")]
    pub kind: Kind,
}

const fn failure() -> Kind {
    Kind::Failure
}

/// A line of `GET /v1/store/backup`: a piece of the copy, or the end. A stream without an end is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupPiece {
    /// The next bytes of the file, as base64.
    Data(String),
    /// All of them came: how many.
    Bytes(u64),
}
