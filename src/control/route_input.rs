//! From the parts of an HTTP request to a [`Request`]: every check that needs neither the config nor the
//! store is made here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};

use crate::model::message::{MAX_BYTES, MAX_PRIORITY};
use crate::model::name;
use crate::model::state::State;

use super::api::{
    DrainBody, Enqueue, Error, ErrorKind, Exported, ListQuery, MAX_BATCH, RateBody, ReloadBody, Request,
    RewindBody, RunBody, StopBody, WorkflowBody,
};
use super::route::{Route, SINGLE};

/// Deepest nesting of a JSON body.
pub const MAX_DEPTH: usize = 64;

/// Longest that one request for a result waits, in milliseconds.
pub const MAX_WAIT_MS: u64 = 60_000;

/// Most planned times of one answer.
const MAX_PLANNED: usize = 1_000;

/// Most rows of one list.
const MAX_LIST: u32 = 10_000;

/// The parts of one request.
pub(super) struct Input<'a> {
    capture: Option<&'a str>,
    query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(super) body: &'a [u8],
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadRequest, message)
}

impl<'a> Input<'a> {
    pub(super) fn new(
        route: &Route,
        capture: Option<&'a str>,
        query: &'a str,
        body: &'a [u8],
    ) -> Result<Self, Error> {
        if let Some(name) = capture {
            name::check(name).map_err(|e| bad(format!("the name {name:?} in the path {e}")))?;
        }
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            if !route.query.iter().any(|q| q.name == key) {
                let known: Vec<&str> = route.query.iter().map(|q| q.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("unknown query parameter {key:?}")).hint(format!("known: {known}")));
            }
            if pairs.iter().any(|(k, _)| *k == key) {
                return Err(bad(format!("the query parameter {key:?} is given twice")));
            }
            pairs.push((key, value));
        }
        Ok(Self { capture, query: pairs, body })
    }

    /// The name in the path; the table guarantees that it is there.
    fn name(&self) -> Result<String, Error> {
        self.capture.map(str::to_owned).ok_or_else(|| bad("the path lacks a name"))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_ref())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(format!("{key}={text} is not a whole number in range")))
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Error> {
        match self.text(key) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(bad(format!("{key}={other} is neither true nor false"))),
        }
    }

    /// A body that may be left out.
    fn options<T: DeserializeOwned + Default>(&self) -> Result<T, Error> {
        if self.body.is_empty() { Ok(T::default()) } else { json(self.body) }
    }
}

/// Percent-decodes a key or value of the query string.
fn decode(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = || bad(format!("{text:?} in the query is not percent-encoded UTF-8"));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    bytes.next().and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok())
                };
                let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| wrong())
}

pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if body.is_empty() {
        return Err(bad("the request has no body; one JSON value is expected"));
    }
    check_json(body).map_err(|mut e| {
        e.message = format!("the body is not accepted: {}", e.message);
        e
    })?;
    serde_json::from_slice(body).map_err(|e| bad(format!("the body is not what is expected: {e}")))
}

/// Refuses, before anything is built from it, JSON that nests deeper than [`MAX_DEPTH`] and whole numbers
/// that no 64-bit integer holds (they would silently become another number). That it is JSON is not checked.
///
/// # Errors
/// Which of the two it is.
pub fn check_json(body: &[u8]) -> Result<(), Error> {
    let mut depth = 0_usize;
    let mut bytes = body.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'"' => {
                while let Some(c) = bytes.next() {
                    match c {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(bad(format!("it nests deeper than {MAX_DEPTH} levels")));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                // Magnitudes only: the sign decides which of the two bounds holds.
                let negative = b == b'-';
                let mut value = if negative { 0 } else { u128::from(b - b'0') };
                let mut whole = true;
                while let Some(c) =
                    bytes.next_if(|c| matches!(c, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                {
                    if c.is_ascii_digit() {
                        value = value.saturating_mul(10).saturating_add(u128::from(c - b'0'));
                    } else {
                        whole = false;
                    }
                }
                let most = if negative { 1 << 63 } else { u128::from(u64::MAX) };
                if whole && value > most {
                    return Err(bad("a whole number in it does not fit 64 bits")
                        .hint("give it as a string, or with a decimal point"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An array of at most [`MAX_BATCH`] elements, refused at the first one too many.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if all.len() == MAX_BATCH {
                        return Err(serde::de::Error::custom(format_args!(
                            "more than {MAX_BATCH} messages in one request"
                        )));
                    }
                    all.push(element);
                }
                Ok(Bounded(all))
            }
        }
        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

pub(super) fn nothing(_: &Input<'_>) -> Result<Request, Error> {
    Err(bad("nothing is served here"))
}

pub(super) fn enqueue(input: &Input<'_>) -> Result<Request, Error> {
    let many = input.body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let messages = if many {
        json::<Bounded<Enqueue>>(input.body)?.0
    } else if input.body.len() > SINGLE {
        return Err(too_large(SINGLE));
    } else {
        vec![json::<Enqueue>(input.body)?]
    };
    for (at, message) in messages.iter().enumerate() {
        check(message).map_err(|mut e| {
            if many {
                e.message = format!("message {at}: {}", e.message);
            }
            e
        })?;
    }
    if many && messages.iter().any(|m| weight(m) > MAX_BYTES) {
        return Err(Error::new(ErrorKind::TooLarge, format!("a message has more than {MAX_BYTES} bytes")));
    }
    Ok(Request::Enqueue(messages))
}

/// The answer to a body that is larger than `limit` bytes.
pub(super) fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the request is larger than {limit} bytes"))
        .hint("pass large data as a file or a key into a store, and its name as the argument")
}

/// About how many bytes the arguments and headers have as JSON; a lower bound, for bulk requests only.
fn weight(message: &Enqueue) -> usize {
    fn of(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::String(s) => s.len() + 2,
            serde_json::Value::Array(a) => a.iter().map(|v| of(v) + 1).sum::<usize>() + 1,
            serde_json::Value::Object(o) => o.iter().map(|(k, v)| k.len() + of(v) + 4).sum::<usize>() + 1,
            _ => 1,
        }
    }
    message.args.iter().map(of).sum::<usize>()
        + message.kwargs.iter().chain(&message.headers).map(|(k, v)| k.len() + of(v)).sum::<usize>()
}

/// What can be said of a message without the config.
fn check(m: &Enqueue) -> Result<(), Error> {
    name::check(&m.task).map_err(|e| bad(format!("the task name {:?} {e}", m.task)))?;
    if let Some(id) = &m.id {
        name::check(id).map_err(|e| bad(format!("the id {id:?} {e}")))?;
    }
    if let Some(queue) = &m.queue {
        name::check(queue).map_err(|e| bad(format!("the queue name {queue:?} {e}")))?;
    }
    if let Some(p) = m.priority.filter(|p| *p > MAX_PRIORITY) {
        return Err(bad(format!("the priority {p} is above {MAX_PRIORITY}")));
    }
    if m.delay_ms.is_some() && m.eta.is_some() {
        return Err(bad("delay_ms and eta exclude each other"));
    }
    if let (Some(eta), Some(expires)) = (m.eta, m.expires)
        && expires <= eta
    {
        return Err(bad("it would expire before it may run"));
    }
    Ok(())
}

pub(super) fn message(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Message { id: input.name()? })
}

pub(super) fn result(input: &Input<'_>) -> Result<Request, Error> {
    let wait_ms = input.number("wait_ms")?.unwrap_or(0).min(MAX_WAIT_MS);
    Ok(Request::Result { id: input.name()?, wait_ms })
}

pub(super) fn logs(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Logs { id: input.name()?, follow: input.flag("follow")? })
}

pub(super) fn why(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Why { id: input.name()? })
}

pub(super) fn cancel(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Cancel { id: input.name()? })
}

pub(super) fn retry(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Retry { id: input.name()? })
}

pub(super) fn launch(input: &Input<'_>) -> Result<Request, Error> {
    let body: WorkflowBody = json(input.body)?;
    for (what, name) in [("id", &body.id), ("name", &body.name)] {
        if let Some(name) = name {
            name::check(name).map_err(|e| bad(format!("the {what} {name:?} {e}")))?;
        }
    }
    Ok(Request::Launch(Box::new(body)))
}

pub(super) fn workflows(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Workflows)
}

pub(super) fn show(input: &Input<'_>) -> Result<Request, Error> {
    let limit = input.number("limit")?.unwrap_or(1_000);
    let from = input.number("from")?.unwrap_or(0);
    Ok(Request::Show { id: input.name()?, from, limit, results: input.flag("results")? })
}

pub(super) fn cancel_workflow(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::CancelWorkflow { id: input.name()? })
}

pub(super) fn retry_workflow(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::RetryWorkflow { id: input.name()? })
}

pub(super) fn list(input: &Input<'_>) -> Result<Request, Error> {
    let state = input.text("state").filter(|s| !s.is_empty());
    if let Some(wrong) = state.and_then(|s| s.split(',').map(str::trim).find(|s| State::parse(s).is_none())) {
        let all: Vec<&str> = crate::model::state::ALL.iter().map(|s| s.name()).collect();
        return Err(bad(format!("{wrong:?} is not a state")).hint(format!("states: {}", all.join(", "))));
    }
    let named = |key: &str| -> Result<Option<String>, Error> {
        let Some(text) = input.text(key) else { return Ok(None) };
        name::check(text).map_err(|e| bad(format!("{key}={text:?} {e}")))?;
        Ok(Some(text.to_owned()))
    };
    let limit = input.number::<u32>("limit")?;
    if limit.is_some_and(|l| l == 0 || l > MAX_LIST) {
        return Err(bad(format!("limit is 1 to {MAX_LIST}")));
    }
    Ok(Request::List(ListQuery {
        state: state.map(str::to_owned),
        task: named("task")?,
        queue: named("queue")?,
        since: input.number("since")?,
        limit,
    }))
}

pub(super) fn status(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Status)
}

pub(super) fn queues(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Queues)
}

pub(super) fn tasks(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Tasks)
}

pub(super) fn pause(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Pause { queue: input.name()?, paused: true })
}

pub(super) fn resume(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Pause { queue: input.name()?, paused: false })
}

fn rate_body(input: &Input<'_>) -> Result<Option<RateBody>, Error> {
    let body: RateBody = json(input.body)?;
    if body.burst.is_some_and(|n| !(1..=1_000_000).contains(&n)) {
        return Err(bad("burst is not between 1 and 1,000,000"));
    }
    Ok(Some(body))
}

pub(super) fn task_rate(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Rate { name: input.name()?, queue: false, body: None })
}

pub(super) fn set_task_rate(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Rate { name: input.name()?, queue: false, body: rate_body(input)? })
}

pub(super) fn queue_rate(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Rate { name: input.name()?, queue: true, body: None })
}

pub(super) fn set_queue_rate(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Rate { name: input.name()?, queue: true, body: rate_body(input)? })
}

pub(super) fn purge(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Purge { queue: input.name()? })
}

pub(super) fn schedules(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Schedules)
}

/// How many planned times are asked for.
fn most(input: &Input<'_>) -> Result<usize, Error> {
    let most = input.number("n")?.unwrap_or(20);
    if (1..=MAX_PLANNED).contains(&most) {
        return Ok(most);
    }
    Err(bad(format!("n={most} is not between 1 and {MAX_PLANNED}")))
}

pub(super) fn planned(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Planned { name: None, most: most(input)? })
}

pub(super) fn planned_of(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Planned { name: Some(input.name()?), most: most(input)? })
}

pub(super) fn run_schedule(input: &Input<'_>) -> Result<Request, Error> {
    let body: RunBody = input.options()?;
    if let Some(id) = &body.id {
        name::check(id).map_err(|e| bad(format!("the id {id:?} {e}")))?;
    }
    Ok(Request::RunSchedule { name: input.name()?, id: body.id })
}

pub(super) fn pause_schedule(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::PauseSchedule { name: input.name()?, paused: true })
}

pub(super) fn resume_schedule(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::PauseSchedule { name: input.name()?, paused: false })
}

pub(super) fn rewind_schedule(input: &Input<'_>) -> Result<Request, Error> {
    let RewindBody { to, dry } = json(input.body)?;
    Ok(Request::Rewind { name: input.name()?, to, dry })
}

pub(super) fn notify(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Notify(json(input.body)?))
}

pub(super) fn reload(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Reload { binary: input.options::<ReloadBody>()?.binary })
}

pub(super) fn drain(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Drain { off: input.options::<DrainBody>()?.off })
}

pub(super) fn stop(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Stop { now: input.options::<StopBody>()?.now })
}

pub(super) fn backup(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Backup)
}

pub(super) fn verify(_: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Verify)
}

pub(super) fn export(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Export { leave_workflows: input.flag("leave_workflows")? })
}

pub(super) fn import(input: &Input<'_>) -> Result<Request, Error> {
    Ok(Request::Import(json::<Bounded<Exported>>(input.body)?.0))
}
