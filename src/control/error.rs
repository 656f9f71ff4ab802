//! What the control API answers when it cannot do what it is asked: a kind, a sentence, a hint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The error body: what, why, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind; decides HTTP status and exit code.
    pub kind: ErrorKind,
    /// One line for people.
    pub message: String,
    /// More lines: every fault, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do, or the name that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kinds of errors, their HTTP status and the CLI's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// 400, exit 64: the request cannot be understood.
    BadRequest,
    /// 422, exit 65: arguments do not fit the task.
    BadArguments,
    /// 403, exit 77.
    Forbidden,
    /// 404, exit 69: no such task.
    UnknownTask,
    /// 404, exit 69: no such message.
    UnknownMessage,
    /// 404, exit 69: no such queue.
    UnknownQueue,
    /// 404, exit 69: no such schedule.
    UnknownSchedule,
    /// 409, exit 73: not possible in this state (cancel of a final message, a queue that is drained, …).
    Conflict,
    /// 429, exit 75: the queue is at its `max_length`, or too many requests are under way.
    Full,
    /// 413, exit 65: larger than allowed.
    TooLarge,
    /// 503, exit 75: the store or the daemon cannot serve this now; try again.
    Unavailable,
    /// 503, exit 75: this daemon is ending. Ask again on a new connection, which the next daemon takes; what carries an
    /// id can be sent again, because whether this daemon did it is not always known.
    Stopping,
    /// 422, exit 78: the config has faults.
    Config,
    /// 500, exit 70: a fault of taskd.
    Internal,
}

impl ErrorKind {
    /// HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::BadArguments | Self::Config => 422,
            Self::Forbidden => 403,
            Self::UnknownTask | Self::UnknownMessage | Self::UnknownQueue | Self::UnknownSchedule => 404,
            Self::Conflict => 409,
            Self::Full => 429,
            Self::TooLarge => 413,
            Self::Unavailable | Self::Stopping => 503,
            Self::Internal => 500,
        }
    }

    /// Exit code of the command, of sysexits(3).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => 64,
            Self::BadArguments | Self::TooLarge => 65,
            Self::UnknownTask | Self::UnknownMessage | Self::UnknownQueue | Self::UnknownSchedule => 69,
            Self::Internal => 70,
            Self::Conflict => 73,
            Self::Full | Self::Unavailable | Self::Stopping => 75,
            Self::Forbidden => 77,
            Self::Config => 78,
        }
    }
}

impl Error {
    /// An error of one line.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
