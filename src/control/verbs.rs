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
