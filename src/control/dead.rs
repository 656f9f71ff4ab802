//! What the API asks and answers of dead letters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Error, ErrorKind, MAX_BATCH, Request};
use super::route::Query;
use super::route_input::{Input, json};
use crate::model::name;
use crate::model::state::State;

/// Most letters of one list.
const MAX_LIST: u32 = 10_000;

/// The query string of `GET /v1/dead` and of its export.
pub(super) const QUERY: &[Query] = &[
    Query {
        name: "failed",
        kind: "boolean",
        about: "Those that failed (FAILURE) too, not only the DEAD; default false.",
    },
    Query { name: "task", kind: "string", about: "Only tasks of this name or pattern (`shop.*`)." },
    Query { name: "queue", kind: "string", about: "Only of this queue." },
    Query {
        name: "since",
        kind: "integer",
        about: "Only those that ended at or after this time, milliseconds since the epoch.",
    },
    Query {
        name: "until",
        kind: "integer",
        about: "Only those that ended before this time, milliseconds since the epoch.",
    },
    Query {
        name: "cause",
        kind: "string",
        about: "Only those that ended for this cause, or with an error of this class.",
    },
    Query { name: "limit", kind: "integer", about: "At most this many, 1 to 10,000; default 100." },
];

/// Which letters, as a query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadQuery {
    /// FAILURE too.
    pub failed: bool,
    /// Name or pattern.
    pub task: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Milliseconds since the epoch.
    pub since: Option<i64>,
    /// The same.
    pub until: Option<i64>,
    /// Cause or class of the error.
    pub cause: Option<String>,
    /// At most this many.
    pub limit: Option<u32>,
}

/// Body of `POST /v1/dead/retry` and `/v1/dead/purge`: which letters, and whether to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadBody {
    /// Nothing is done: they are counted.
    pub dry: bool,
    /// Only these; empty: all that the rest means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Those that failed (FAILURE) too, not only the DEAD.
    pub failed: bool,
    /// Only tasks of this name or pattern (`shop.*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Only of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only those that ended at or after this time, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Only those that ended before this time, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Only those that ended for this cause, or with an error of this class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// At most this many, the oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Retry: not before this many milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Retry: in this queue instead of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_queue: Option<String>,
}

/// What was (or would be) done with dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadDone {
    /// One sentence.
    pub message: String,
    /// Nothing was done.
    pub dry: bool,
    /// Letters that were meant.
    pub matched: u64,
    /// Letters that it was done to.
    pub done: u64,
    /// How many of each kind were meant.
    pub kinds: Vec<DeadKind>,
    /// Letters of kinds beyond those that are listed.
    #[serde(default)]
    pub others: u64,
    /// Ids that are no dead letters that are meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The first of those that could not begin a new life, because another message holds their key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<DeadHeld>,
    /// All of those.
    #[serde(default)]
    pub held_count: u64,
}

/// Letters of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadKind {
    /// DEAD or FAILURE.
    pub state: State,
    /// Their task.
    pub task: String,
    /// The word of the cause.
    pub cause: String,
    /// How many.
    pub count: u64,
}

/// A letter that could not begin a new life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadHeld {
    /// The letter.
    pub id: String,
    /// The message that holds its key.
    pub holder: String,
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadRequest, message)
}

fn named(what: &str, text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text else { return Ok(None) };
    let plain = if what == "task" { text.replace(['*', '?'], "x") } else { text.to_owned() };
    name::check(&plain).map_err(|e| bad(format!("{what}={text:?} {e}")))?;
    Ok(Some(text.to_owned()))
}

fn query(input: &Input<'_>) -> Result<DeadQuery, Error> {
    let limit = input.number::<u32>("limit")?;
    if limit.is_some_and(|l| l == 0 || l > MAX_LIST) {
        return Err(bad(format!("limit is 1 to {MAX_LIST}")));
    }
    Ok(DeadQuery {
        failed: input.flag("failed")?,
        task: named("task", input.text("task"))?,
        queue: named("queue", input.text("queue"))?,
        since: input.number("since")?,
        until: input.number("until")?,
        cause: named("cause", input.text("cause"))?,
        limit,
    })
}

fn body(input: &Input<'_>) -> Result<DeadBody, Error> {
    let body: DeadBody = json(input.body)?;
    if body.ids.len() > MAX_BATCH {
        return Err(bad(format!("more than {MAX_BATCH} ids in one request")));
    }
    for id in &body.ids {
        name::check(id).map_err(|e| bad(format!("the id {id:?} {e}")))?;
    }
    named("task", body.task.as_deref())?;
    named("queue", body.queue.as_deref())?;
    named("cause", body.cause.as_deref())?;
    named("to_queue", body.to_queue.as_deref())?;
    if body.limit == Some(0) {
        return Err(bad("limit is at least 1"));
    }
    Ok(body)
}

pub(super) fn list(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Dead(query(input)?))
}

pub(super) fn export(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::DeadExport(query(input)?))
}

pub(super) fn retry(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::DeadRetry(body(input)?))
}

pub(super) fn purge(input: &Input<'_>) -> Result<Request, Error> {
    let body = body(input)?;
    if body.delay_ms.is_some() || body.to_queue.is_some() {
        return Err(bad("delay_ms and to_queue are for a retry; purged letters are gone"));
    }
    Ok(Request::DeadPurge(body))
}
