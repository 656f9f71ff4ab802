//! One call of a task, whatever protocol it came in.

mod message;
pub(super) mod read;
mod write;

pub use message::Modeled;
pub use read::Taking;
pub use write::Sending;

use super::envelope::Address;
use super::json::{Fields, Raw};
use super::moment::Moment;
use super::signature::Signature;

/// Which protocol a call came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Celery 3.1, and later ones with `task_protocol = 1`: all of it in the body.
    One,
    /// Celery 4 and later: described in the headers.
    #[default]
    Two,
}

/// Which priority goes first on a broker. The number on the wire is the client's own and is not changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 0 goes first: Redis, where kombu's lists are read from the lowest.
    LowFirst,
    /// 9 goes first: RabbitMQ.
    HighFirst,
}

impl Order {
    /// A priority of the wire as one of the model (9 first), or the other way round.
    #[must_use]
    pub const fn turn(self, priority: u8) -> u8 {
        let priority = if priority > 9 { 9 } else { priority };
        match self {
            Self::LowFirst => 9 - priority,
            Self::HighFirst => priority,
        }
    }
}

/// One call of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// How it came.
    pub protocol: Protocol,
    /// The task's name.
    pub task: String,
    /// The id of the call, under which its result is found.
    pub id: String,
    /// Positional arguments: an array, to the letter.
    pub args: Raw,
    /// Keyword arguments: an object, to the letter.
    pub kwargs: Raw,
    /// Not before this time.
    pub eta: Option<Moment>,
    /// Not started after this time.
    pub expires: Option<Moment>,
    /// Attempts before this one that ended with a retry.
    pub retries: u32,
    /// Hard time limit in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// Soft time limit in milliseconds.
    pub soft_time_limit_ms: Option<u64>,
    /// The first call of the workflow.
    pub root_id: Option<String>,
    /// The call that this one follows.
    pub parent_id: Option<String>,
    /// The group that it is of.
    pub group: Option<String>,
    /// Its place there; absent from clients of Celery 3.1.
    pub group_index: Option<i64>,
    /// A name for logs and events.
    pub shadow: Option<String>,
    /// Whether its result is not kept. Absent: as the task says (a client that knows no more than its name).
    pub ignore_result: Option<bool>,
    /// Who sent it: `gen<pid>@<host>`.
    pub origin: Option<String>,
    /// Names of its stamps, in the order sent.
    pub stamped_headers: Option<Vec<String>>,
    /// Its stamps; a value may be a list.
    pub stamps: Fields,
    /// How often a running task put this one in its own place.
    pub replaced_task_nesting: u32,
    /// The arguments as its client shows them.
    pub args_repr: Option<String>,
    /// The keyword arguments as its client shows them.
    pub kwargs_repr: Option<String>,
    /// What is called with its result.
    pub callbacks: Option<Vec<Signature>>,
    /// What is called with its id when it fails.
    pub errbacks: Option<Vec<Signature>>,
    /// What follows it, **the next one last**.
    pub chain: Option<Vec<Signature>>,
    /// What is called once all of its group have ended.
    pub chord: Option<Signature>,
    /// Headers that a client added; forwarded with a retry.
    pub headers: Fields,
    /// Members of the body beside those that are known.
    pub extra: Fields,
    /// Where a client of `rpc://` waits.
    pub reply_to: Option<String>,
    /// The priority on the wire; [`Order`] says what it means.
    pub priority: u8,
    /// Where it was sent, or is to be sent; without a routing key: where calls of this task go.
    pub address: Address,
}

impl Call {
    /// A call of this id, without arguments or anything else.
    #[must_use]
    pub fn new(task: &str, id: &str) -> Self {
        Self {
            protocol: Protocol::Two,
            task: task.to_owned(),
            id: id.to_owned(),
            args: Raw::empty_list(),
            kwargs: Raw::empty_object(),
            eta: None,
            expires: None,
            retries: 0,
            time_limit_ms: None,
            soft_time_limit_ms: None,
            root_id: None,
            parent_id: None,
            group: None,
            group_index: None,
            shadow: None,
            ignore_result: None,
            origin: None,
            stamped_headers: None,
            stamps: Fields::default(),
            replaced_task_nesting: 0,
            args_repr: None,
            kwargs_repr: None,
            callbacks: None,
            errbacks: None,
            chain: None,
            chord: None,
            headers: Fields::default(),
            extra: Fields::default(),
            reply_to: None,
            priority: 0,
            address: Address::default(),
        }
    }

    /// The name shown in logs and events.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.shadow.as_deref().unwrap_or(&self.task)
    }

    /// The first call of its workflow: itself where none is named.
    #[must_use]
    pub fn root(&self) -> &str {
        self.root_id.as_deref().unwrap_or(&self.id)
    }

    /// Whether a stamp of it has one of these values (remote control revokes by stamps).
    #[must_use]
    pub fn stamped(&self, name: &str, values: &[super::json::Json<'_>]) -> bool {
        let stamped = self.stamped_headers.as_ref().is_some_and(|names| names.iter().any(|n| n == name));
        let Some(stamp) = self.stamps.get(name).filter(|_| stamped) else { return false };
        let own = stamp.items().unwrap_or_else(|| vec![stamp]);
        own.iter().any(|one| values.iter().any(|value| same(*one, *value)))
    }
}

/// Whether two values are equal to Python; of containers only those written alike.
fn same(a: super::json::Json<'_>, b: super::json::Json<'_>) -> bool {
    match (a.as_text(), b.as_text()) {
        (Some(a), Some(b)) => a == b,
        _ => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.text() == b.text(),
        },
    }
}
