//! The meta: a task's state as clients read it.

use super::exception::{About, Exception};
use crate::celery::call::Call;
use crate::celery::content;
use crate::celery::fault::{Wrong, kind};
use crate::celery::json::build::{Object, list, texts};
use crate::celery::json::{Fields, Json, Raw, value};
use crate::celery::moment::iso;
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;

/// What stands before compressed results, between two zero bytes the name of the compression.
const COMPRESSED: &[u8] = b"\0celery-compressed\0";

/// Celery's states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Started,
    /// An attempt failed, another one is planned.
    Retry,
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
    /// It was canceled, or expired.
    Revoked,
    /// Any other: a task may set its own.
    Other(String),
}

impl Status {
    /// Its word.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Started => "STARTED",
            Self::Retry => "RETRY",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Other(word) => word,
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "STARTED" => Self::Started,
            "RETRY" => Self::Retry,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "REVOKED" => Self::Revoked,
            other => Self::Other(other.to_owned()),
        }
    }

    /// What a state of the model is to Celery; absent: nothing is stored, which reads PENDING.
    #[must_use]
    pub fn of_state(state: State) -> Option<Self> {
        Some(match state {
            State::Scheduled | State::Waiting => return None,
            State::Running => Self::Started,
            State::Retry => Self::Retry,
            State::Success => Self::Success,
            State::Failure | State::Dead => Self::Failure,
            State::Revoked | State::Expired => Self::Revoked,
        })
    }

    /// Whether clients wait no longer.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }

    /// Whether the result of it is an exception.
    #[must_use]
    pub const fn is_exception(&self) -> bool {
        matches!(self, Self::Retry | Self::Failure | Self::Revoked)
    }
}

/// What `result_extended` adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Extended {
    /// The node.
    pub worker: String,
    /// The queue.
    pub queue: String,
}

/// A task's state as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// The task's id.
    pub id: String,
    /// Its state.
    pub status: Status,
    /// Its result, to the letter; an exception where the state is one of failure.
    pub result: Raw,
    /// Text for people.
    pub traceback: Option<String>,
    /// Result tuples of what it sent; absent where nothing ran.
    pub children: Option<Vec<Raw>>,
    /// When it ended, ISO 8601.
    pub date_done: Option<String>,
    /// Its group.
    pub group_id: Option<String>,
    /// The call before it.
    pub parent_id: Option<String>,
    /// The other members: those of `result_extended`, stamps.
    pub other: Fields,
}

impl Meta {
    /// A state of a call, without a result.
    #[must_use]
    pub fn new(call: &Call, status: Status) -> Self {
        Self {
            id: call.id.clone(),
            status,
            result: Raw::null(),
            traceback: None,
            children: Some(Vec::new()),
            date_done: None,
            group_id: call.group.clone(),
            parent_id: call.parent_id.clone(),
            other: Fields::default(),
        }
    }

    /// It was started: `task_track_started`.
    #[must_use]
    pub fn started(call: &Call, pid: u32, node: &str) -> Self {
        let result = Object::new().int("pid", i64::from(pid)).text("hostname", node).done();
        Self { result, ..Self::new(call, Status::Started) }
    }

    /// It succeeded at `at`, and sent these.
    #[must_use]
    pub fn success(call: &Call, result: Raw, children: Vec<Raw>, at: Wall) -> Self {
        let date_done = Some(iso(at));
        Self { result, children: Some(children), date_done, ..Self::new(call, Status::Success) }
    }

    /// It ended at `at` with an exception: a failure, or canceled.
    #[must_use]
    pub fn raised(call: &Call, status: Status, exception: &Exception, at: Wall) -> Self {
        let date_done = status.is_ready().then(|| iso(at));
        Self { result: exception.write(), date_done, ..Self::new(call, status) }
    }

    /// The end of an attempt as taskd has it. Absent where nothing is stored.
    #[must_use]
    pub fn of_outcome(
        call: &Call,
        state: State,
        outcome: &Outcome,
        about: About<'_>,
        children: Vec<Raw>,
        at: Wall,
    ) -> Option<Self> {
        let status = Status::of_state(state)?;
        if status == Status::Success {
            let result = outcome.result.as_ref().map_or_else(Raw::null, value::write);
            return Some(Self::success(call, result, children, at));
        }
        let mut meta = Self::raised(call, status, &Exception::of(outcome, about), at);
        meta.traceback =
            outcome.failure.as_ref().map(|f| f.traceback.clone()).filter(|text| !text.is_empty());
        if meta.status == Status::Retry {
            // Celery's own: the next attempt is a child of this one.
            meta.children = Some(vec![child(&call.id)]);
        } else {
            meta.children = Some(children);
        }
        Some(meta)
    }

    /// With what `result_extended` adds.
    #[must_use]
    pub fn extended(mut self, call: &Call, extended: &Extended) -> Self {
        let own = [
            ("name", Raw::of_text(&call.task)),
            ("args", call.args.clone()),
            ("kwargs", call.kwargs.clone()),
            ("worker", Raw::of_text(&extended.worker)),
            ("retries", Raw::of_int(i64::from(call.retries))),
            ("queue", Raw::of_text(&extended.queue)),
        ];
        for (name, value) in own {
            self.other.set(name, value);
        }
        if let Some(names) = call.stamped_headers.as_ref().filter(|_| !call.stamps.is_empty()) {
            self.other.set("stamped_headers", texts(names));
            let stamps = call.stamps.iter().filter(|(name, _)| names.iter().any(|n| n == name));
            for (name, value) in stamps {
                // A stamp must not say what the store says.
                if !KNOWN.contains(&name) && self.other.get(name).is_none() {
                    self.other.set(name, value.to_raw());
                }
            }
        }
        self
    }

    /// The meta as it is stored and announced.
    #[must_use]
    pub fn write(&self) -> Raw {
        let children = self.children.as_ref().map_or_else(Raw::null, list);
        let mut object = Object::new()
            .text("status", self.status.word())
            .with("result", &self.result)
            .option("traceback", self.traceback.as_deref())
            .with("children", &children)
            .option("date_done", self.date_done.as_deref());
        for (name, id) in [("group_id", &self.group_id), ("parent_id", &self.parent_id)] {
            if let Some(id) = id {
                object = object.text(name, id);
            }
        }
        for (name, value) in self.other.iter() {
            object = object.with(name, &value.to_raw());
        }
        object.text("task_id", &self.id).done()
    }

    /// Reads a meta, decompressing it to at most `limit` bytes.
    ///
    /// # Errors
    /// Pickle, a compression that is not read, or no meta.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, Wrong> {
        if let Some(rest) = bytes.strip_prefix(COMPRESSED) {
            let end = rest.iter().position(|b| *b == 0).ok_or(Wrong::Broken { compression: "named" })?;
            let (name, data) = rest.split_at(end);
            let data = data.strip_prefix(b"\0").unwrap_or(data);
            let plain = content::decompress(&String::from_utf8_lossy(name), data, limit)?;
            return Self::read_plain(&plain);
        }
        Self::read_plain(bytes)
    }

    fn read_plain(bytes: &[u8]) -> Result<Self, Wrong> {
        if bytes.first() == Some(&0x80) {
            return Err(Wrong::Pickle { content_type: "application/x-python-serialize".to_owned() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "result" })?;
        let json = Json::parse(text).map_err(|source| Wrong::Json { part: "result", source })?;
        let fields = Fields::of(json).ok_or_else(|| kind("the result", "an object"))?;
        let id = fields.text("task_id").ok_or(Wrong::Missing("the result's task_id"))?;
        let status = fields.text("status").ok_or(Wrong::Missing("the result's status"))?;
        let children = fields.some("children").and_then(Json::items);
        Ok(Self {
            id,
            status: Status::of(&status),
            result: fields.get("result").map_or_else(Raw::null, Json::to_raw),
            traceback: fields.text("traceback"),
            children: children.map(|children| children.into_iter().map(Json::to_raw).collect()),
            date_done: fields.text("date_done"),
            group_id: fields.text("group_id"),
            parent_id: fields.text("parent_id"),
            other: fields.filtered(|name| !KNOWN.contains(&name)),
        })
    }

    /// The exception, where the state is one of failure.
    #[must_use]
    pub fn exception(&self) -> Option<Exception> {
        self.status.is_exception().then(|| Exception::read(self.result.json()))
    }

    /// What a state that another worker stored is to taskd; absent where it is one of the task's own.
    #[must_use]
    pub fn modeled(&self) -> Option<(State, Option<Outcome>)> {
        let (state, exception) = match (&self.status, self.exception()) {
            (Status::Started, _) => return Some((State::Running, None)),
            (Status::Success, _) => (State::Success, None),
            (Status::Retry, exception) => (State::Retry, exception),
            (Status::Failure, exception) => (State::Failure, exception),
            (Status::Revoked, exception) => {
                let expired = exception.as_ref().is_some_and(|e| e.message() == "expired");
                (if expired { State::Expired } else { State::Revoked }, exception)
            }
            (Status::Other(_), _) => return None,
        };
        let cause =
            exception.as_ref().map_or(crate::model::outcome::Cause::Exit { code: 0 }, Exception::cause);
        let mut outcome = Outcome::of_cause(cause, "");
        outcome.success = state == State::Success;
        outcome.failure = exception.map(|e| e.failure(self.traceback.as_deref()));
        if outcome.success {
            outcome.result = value::of(self.result.json()).ok().map(|converted| converted.value);
        }
        Some((state, Some(outcome)))
    }
}

const KNOWN: &[&str] =
    &["status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id"];

/// The result tuple of one call.
#[must_use]
pub fn child(id: &str) -> Raw {
    list([&list([&Raw::of_text(id), &Raw::null()]), &Raw::null()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Cause;
    use serde_json::json;

    #[test]
    fn every_state_of_the_model_reads_as_one_of_celerys() {
        for state in crate::model::state::ALL {
            let status = Status::of_state(state);
            assert_eq!(status.as_ref().is_some_and(Status::is_ready), state.is_final(), "{state}");
        }
    }

    #[test]
    fn an_outcome_goes_there_and_back() {
        let call = Call::new("t", "i");
        for (state, cause) in [
            (State::Failure, Cause::Exit { code: 3 }),
            (State::Failure, Cause::Signal { signal: 9, core: false }),
            (State::Failure, Cause::TimeLimit { soft: false }),
            (State::Revoked, Cause::Revoked),
            (State::Expired, Cause::Expired),
            (State::Retry, Cause::Error { fatal: false }),
        ] {
            let outcome = Outcome::of_cause(cause.clone(), "m");
            let about = About { task: "t", time_limit_ms: Some(1000) };
            let meta = Meta::of_outcome(&call, state, &outcome, about, Vec::new(), Wall(0)).unwrap();
            let back = Meta::read(meta.write().text().as_bytes(), 1000).unwrap();
            assert_eq!(back, meta);
            let (state_back, outcome_back) = back.modeled().unwrap();
            assert_eq!((state_back, outcome_back.unwrap().cause), (state, cause));
        }
        let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
        (outcome.success, outcome.result, outcome.failure) = (true, Some(json!({"é": [1]})), None);
        let meta =
            Meta::of_outcome(&call, State::Success, &outcome, About::default(), vec![], Wall(0)).unwrap();
        assert_eq!(meta.modeled().unwrap().1.unwrap().result, outcome.result);
        assert!(meta.write().text().is_ascii());
    }

    #[test]
    fn what_is_no_meta_is_refused() {
        for bytes in [
            &b"\x80\x04"[..],
            b"{}",
            b"[]",
            b"\xff",
            b"",
            b"\0celery-compressed\0",
            b"\0celery-compressed\0x\0",
        ] {
            assert!(Meta::read(bytes, 100).is_err(), "{bytes:?}");
        }
    }
}
