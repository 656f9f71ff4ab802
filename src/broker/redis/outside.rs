//! Messages that Celery workers run: those of external tasks, and what taskd itself puts into queues that both drain.
//! `lua/outside.lua` has the steps. Their results are heard of where workers publish them, and looked for now and then,
//! since what is published while nobody listens is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Woken;
use super::args::Args;
use super::message::{self, Row};
use super::reply::Reader;
use super::steps::fault;
use super::store::Store;
use crate::celery::call::{Call, Order, Sending};
use crate::celery::control::EXCHANGE;
use crate::celery::envelope::{Address, Envelope};
use crate::celery::json::build::Object;
use crate::celery::json::{Fields, Raw};
use crate::celery::result::Meta;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::Fault;
use crate::model::outcome::{Cause, Failure, Outcome};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

/// Messages sent, and results read, in one step.
const LOT: usize = 50;

/// Most results that are known of and not read yet; the others are found by the next looks.
const MOST_HEARD: usize = 10_000;

/// Largest result that is read, in bytes.
const MAX_META: usize = 4 << 20;

/// How long a queue that holds nothing for this node is not read: the first time, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What of a call a task's declaration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The queue of its calls.
    pub queue: String,
    /// Celery workers run it, never this node.
    pub external: bool,
    /// Nobody keeps its results: it is over when it is sent.
    pub ignore_result: bool,
    /// Bound of its result in bytes.
    pub result_max_size: u64,
    /// How long its finished records are kept, in milliseconds.
    pub result_expires_ms: u64,
    /// Hard time limit in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// Soft time limit in milliseconds.
    pub soft_time_limit_ms: Option<u64>,
}

/// What a task's declaration says; absent: there is none.
pub type TermsOf = Arc<dyn Fn(&str) -> Option<Terms> + Send + Sync>;

/// What is left to Celery workers.
#[derive(Clone)]
pub struct Outside {
    /// Queues from which they take what is sent.
    pub queues: Vec<String>,
    /// Those of them that this node reads too.
    pub shared: BTreeSet<String>,
    /// What tasks say.
    pub terms: TermsOf,
}

impl Default for Outside {
    fn default() -> Self {
        Self { queues: Vec::new(), shared: BTreeSet::new(), terms: Arc::new(|_| None) }
    }
}

/// Where the thread is with it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Ids of results that were published.
    heard: Vec<String>,
    /// Behind which token the next look begins.
    from: i64,
    /// Queues that held nothing for this node: until when they are not read, and how long the next rest is.
    rests: BTreeMap<String, (Option<Instant>, Duration)>,
}

impl Progress {
    /// A result was published.
    pub(super) fn hear(&mut self, id: String) {
        if self.heard.len() < MOST_HEARD {
            self.heard.push(id);
        }
    }

    /// Whether a queue had nothing for this node when it was read last, a moment ago.
    pub(super) fn rests(&self, queue: &str) -> bool {
        self.rests.get(queue).is_some_and(|(until, _)| until.is_some_and(|at| Instant::now() < at))
    }

    /// Something for this node was in a queue.
    pub(super) fn found(&mut self, queue: &str) {
        self.rests.remove(queue);
    }

    /// When a queue is to be read again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.rests.values().filter_map(|(until, _)| *until).min()
    }
}

/// The pattern of the channels on which results are published, where keys of results begin with this text.
pub(super) fn results(metas: &str) -> String {
    let literal: String =
        metas.chars().flat_map(|c| r"*?[]\".contains(c).then_some('\\').into_iter().chain([c])).collect();
    format!("{literal}{META}*")
}

/// The id of a result that was published, where it is one that ended.
pub(super) fn ended(metas: &str, channel: &str, payload: &[u8]) -> Option<String> {
    let id = channel.strip_prefix(metas)?.strip_prefix(META)?;
    let head = String::from_utf8_lossy(payload.get(..64).unwrap_or(payload)).into_owned();
    let goes_on = ["\"STARTED\"", "\"RETRY\"", "\"PENDING\"", "\"PROGRESS\""];
    (!goes_on.iter().any(|word| head.contains(word))).then(|| id.to_owned())
}

/// Between the prefix of results and an id.
const META: &str = "celery-task-meta-";

/// What other nodes were told of ends: a name, then a line each.
pub(super) fn told(node: &str, payload: &[u8]) -> Option<Woken> {
    let text = String::from_utf8_lossy(payload);
    let mut lines = text.lines();
    if lines.next() == Some(node) {
        return None;
    }
    let end = |line: &str| {
        let (id, state) = line.split_once(' ')?;
        Some((MessageId(id.to_owned()), State::parse(state)?))
    };
    Some(Woken::Over(lines.filter_map(end).collect(), Fallout::default()))
}

impl Store {
    fn outside(&self) -> Option<&Outside> {
        self.peer().map(|peer| &peer.outside).filter(|outside| !outside.queues.is_empty())
    }

    /// Sends what became ready of what Celery workers run, and the revokes that were asked for.
    pub(super) fn send_out(&mut self, now: Wall) -> Result<(), Fault> {
        loop {
            let Some(outside) = self.outside() else { return Ok(()) };
            let mut args = Args::default();
            args.num(LOT).list(outside.queues.clone().into_iter());
            let mut list = self.ask("outside_ready", args)?;
            let revokes = list.list().map_err(fault)?.texts().map_err(fault)?;
            let mut rows = Vec::with_capacity(list.len());
            for value in list.each() {
                rows.extend(message::row(value).map_err(fault)?);
            }
            if rows.is_empty() && revokes.is_empty() {
                return Ok(());
            }
            let more = rows.len() >= LOT;
            let args = self.sending(&rows, &revokes, now);
            let (_, beside) = self.ask_beside("outside_send", args)?;
            let over: Vec<_> = rows
                .iter()
                .filter(|row| self.terms(&row.record.message.task).ignore_result)
                .map(|row| (row.record.message.id.clone(), State::Success))
                .collect();
            if !over.is_empty() || !beside.is_empty() {
                self.wake.call(Woken::Over(over, beside));
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn sending(&self, rows: &[Row], revokes: &[String], now: Wall) -> Args {
        let origin = format!("taskd@{}", self.node());
        let mut args = Args::default();
        args.num(now.0).num(rows.len());
        for row in rows {
            let message = &row.record.message;
            let terms = self.terms(&message.task);
            let call = call(message, &terms);
            let tag = uuid::Uuid::new_v4().to_string();
            let envelope = call.write(Sending { tag: &tag, origin: &origin, expiration_ms: None });
            args.text(message.id.as_str()).num(step(call.priority)).text(envelope.write().text());
            if terms.ignore_result {
                let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
                (outcome.success, outcome.failure) = (true, None);
                args.text(serde_json::to_vec(&outcome).unwrap_or_default()).num(terms.result_expires_ms);
            } else {
                args.text("").text("");
            }
        }
        args.num(revokes.len());
        let channel = self.pidbox();
        for id in revokes {
            args.text(id.as_str()).text(channel.as_str()).text(revoke(id).write().text());
        }
        args
    }

    fn terms(&self, task: &str) -> Terms {
        self.peer().and_then(|peer| (peer.outside.terms)(task)).unwrap_or_default()
    }

    /// Reads the results that were heard of.
    pub(super) fn take_results(&mut self, now: Wall) -> Result<(), Fault> {
        while !self.progress.heard.is_empty() {
            let rest = self.progress.heard.split_off(self.progress.heard.len().min(LOT));
            let lot = std::mem::replace(&mut self.progress.heard, rest);
            let mut args = Args::default();
            args.list(lot.iter().map(String::as_str));
            let list = self.ask("outside_results", args)?;
            self.ended_outside(list, now)?;
        }
        Ok(())
    }

    /// Looks whether results came that were not heard of: through a part of all that is with Celery workers.
    pub(super) fn look_outside(&mut self, now: Wall) -> Result<(), Fault> {
        if self.outside().is_none() {
            return Ok(());
        }
        let keep = self.peer().map_or(0, |peer| peer.result_seconds.saturating_mul(1_000));
        let mut args = Args::default();
        let long_ago = now.0.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX).max(3_600_000));
        args.num(self.progress.from).num(10 * LOT).num(if keep == 0 { 0 } else { long_ago });
        let mut list = self.ask("outside_look", args)?;
        self.progress.from = list.opt_num().map_err(fault)?.unwrap_or(0);
        self.ended_outside(list, now)
    }

    fn ended_outside(&mut self, list: Reader, now: Wall) -> Result<(), Fault> {
        let mut ends = Args::default();
        let mut n = 0_usize;
        for value in list.each() {
            let mut entry = Reader::of(value).map_err(fault)?;
            let mut text = || entry.text().map_err(fault);
            let (id, token, task) = (text()?, text()?, text()?);
            let Some((state, outcome)) = end(&entry.bytes().map_err(fault)?, &self.terms(&task)) else {
                continue;
            };
            n += 1;
            ends.text(id).text(token).text(state.name());
            ends.text(serde_json::to_vec(&outcome).unwrap_or_default());
            ends.num(self.terms(&task).result_expires_ms);
            ends.text(outcome.result.as_ref().map(ToString::to_string).unwrap_or_default());
        }
        if n == 0 {
            return Ok(());
        }
        let mut args = Args::default();
        args.num(now.0).num(n).join(ends);
        let (mut list, beside) = self.ask_beside("outside_over", args)?;
        let mut over = Vec::with_capacity(n);
        while !list.is_empty() {
            let (id, state) = (list.text().map_err(fault)?, list.text().map_err(fault)?);
            over.extend(State::parse(&state).map(|state| (MessageId(id), state)));
        }
        self.wake.call(Woken::Over(over, beside));
        Ok(())
    }

    /// Whether Celery workers drain this queue, too.
    pub(super) fn is_shared(&self, queue: &str) -> bool {
        self.peer().is_some_and(|peer| peer.outside.shared.contains(queue))
    }

    /// Where a message that was taken off a queue's lists belongs, if not here: for a task that is not declared here
    /// where Celery workers drain the queue too, and for one that only they run.
    pub(super) fn belongs(&self, queue: &str, task: &str) -> Option<String> {
        let outside = &self.peer()?.outside;
        let shared = outside.shared.contains(queue);
        match (outside.terms)(task) {
            Some(terms) if !terms.external => None,
            None if !shared => None,
            Some(terms) if !shared => Some(terms.queue),
            Some(_) | None => Some(queue.to_owned()),
        }
    }

    /// Puts messages back that are not for this node: each its key, where it belongs, and itself. `all`: nothing else
    /// was read of the queue, so it is not read again at once.
    pub(super) fn put_back(
        &mut self,
        queue: &str,
        list: &[(String, String, Vec<u8>)],
        all: bool,
    ) -> Result<(), Fault> {
        if !all {
            self.progress.found(queue);
        }
        if list.is_empty() {
            return Ok(());
        }
        if all {
            let rest = self.progress.rests.get(queue).map_or(REST.0, |(_, rest)| *rest);
            let next = rest.saturating_mul(2).min(REST.1);
            self.progress.rests.insert(queue.to_owned(), (Some(Instant::now() + rest), next));
        }
        let mut args = Args::default();
        args.num(list.len());
        for (tag, to, raw) in list {
            let priority = Envelope::read(raw).map_or(0, |envelope| envelope.priority());
            args.text(tag.as_str()).text(to.as_str()).num(step(priority)).text(raw.as_slice());
        }
        self.ask("put_back", args).map(drop)
    }

    /// Has queues read again whose rest is over.
    pub(super) fn rested(&mut self) {
        let now = Instant::now();
        let over = self.progress.rests.iter().filter(|(_, (until, _))| until.is_some_and(|at| at <= now));
        let queues: Vec<String> = over.map(|(queue, _)| queue.clone()).collect();
        if queues.is_empty() {
            return;
        }
        for queue in &queues {
            // How long it rested is remembered until something is found in it.
            if let Some(rest) = self.progress.rests.get_mut(queue) {
                rest.0 = None;
            }
        }
        self.wake.call(Woken::Queues(queues, None));
    }
}

/// The call that a message is to a Celery worker. It is sent when it is due.
fn call(message: &Message, terms: &Terms) -> Call {
    let mut call = Call::of_message(message, Order::LowFirst);
    call.eta = None;
    call.ignore_result = Some(terms.ignore_result);
    call.time_limit_ms = terms.time_limit_ms;
    call.soft_time_limit_ms = terms.soft_time_limit_ms;
    call
}

/// Which of kombu's lists has messages of this priority.
fn step(priority: u8) -> usize {
    1 + usize::from(priority.min(9)) / 3
}

/// The word to end a call, to all workers: whoever has it ends it, whoever gets it later drops it.
fn revoke(id: &str) -> Envelope {
    let arguments = Object::new()
        .text("task_id", id)
        .with("terminate", &Raw::of_bool(true))
        .text("signal", "SIGTERM")
        .done();
    let body = Object::new()
        .text("method", "revoke")
        .with("arguments", &arguments)
        .with("destination", &Raw::null())
        .with("pattern", &Raw::null())
        .with("matcher", &Raw::null())
        .done();
    let headers: Fields = [("clock", Raw::of_int(1)), ("expires", Raw::of_int(0))]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    let address = Address { exchange: EXCHANGE.to_owned(), routing_key: String::new() };
    let tag = uuid::Uuid::new_v4().to_string();
    Envelope::new(&body, headers, Envelope::properties_to(&address, &tag, false))
}

/// What a result comes to; absent while there is none. An empty one: none came, and none will.
fn end(bytes: &[u8], terms: &Terms) -> Option<(State, Outcome)> {
    let failed = |cause, kind: &str, message: String| {
        let mut outcome = Outcome::of_cause(cause, "");
        outcome.failure = Some(Failure { kind: kind.to_owned(), message, traceback: String::new() });
        Some((State::Failure, outcome))
    };
    if bytes.is_empty() {
        let message = "no result of it came for as long as results are kept, and it is in no queue any more: its Celery worker died, or keeps no results";
        return failed(Cause::WorkerLost, "NoResult", message.to_owned());
    }
    let meta = match Meta::read(bytes, MAX_META) {
        Ok(meta) => meta,
        Err(wrong) => {
            let message = format!("it ended, and its result cannot be read: {wrong}");
            return failed(Cause::Error { fatal: true }, "UnreadableResult", message);
        }
    };
    let (state, outcome) = meta.modeled()?;
    let mut outcome = outcome.filter(|_| state.is_final())?;
    outcome.bound_result(terms.result_max_size);
    let state = if state == State::Success && !outcome.success { State::Failure } else { state };
    Some((state, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(text: &str) -> Option<(State, Outcome)> {
        let terms = Terms { result_max_size: 10, ..Terms::default() };
        end(text.as_bytes(), &terms)
    }

    #[test]
    fn results_of_workers_are_ends_and_what_goes_on_is_none() {
        let (state, outcome) = meta(r#"{"status": "SUCCESS", "result": 5, "task_id": "i"}"#).unwrap();
        assert_eq!((state, outcome.result), (State::Success, Some(serde_json::json!(5))));
        let failure = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}, "traceback": "T", "task_id": "i"}"#;
        let (state, outcome) = meta(failure).unwrap();
        let failure = outcome.failure.unwrap();
        assert_eq!(
            (state, failure.message.as_str(), failure.traceback.as_str()),
            (State::Failure, "no", "T")
        );
        for word in ["STARTED", "RETRY", "PROGRESS"] {
            let text = format!(r#"{{"status": "{word}", "result": null, "task_id": "i"}}"#);
            assert_eq!(meta(&text), None, "{word}");
            assert_eq!(ended("", "celery-task-meta-i", text.as_bytes()), None, "{word}");
        }
        let revoked = r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"}, "task_id": "i"}"#;
        assert_eq!(meta(revoked).unwrap().0, State::Expired);
    }

    #[test]
    fn what_is_too_large_or_unreadable_is_a_failure_that_says_so() {
        let (state, outcome) =
            meta(r#"{"status": "SUCCESS", "result": [1,2,3,4,5,6,7], "task_id": "i"}"#).unwrap();
        assert_eq!((state, outcome.failure.unwrap().kind.as_str()), (State::Failure, "ResultTooLarge"));
        let (state, outcome) = meta("\u{80}pickle").unwrap();
        assert_eq!((state, outcome.failure.unwrap().kind.as_str()), (State::Failure, "UnreadableResult"));
        assert_eq!(meta("").unwrap().1.cause, Cause::WorkerLost);
    }

    #[test]
    fn a_channel_names_the_id_behind_its_prefix() {
        let text = br#"{"status": "SUCCESS", "result": null}"#;
        assert_eq!(ended("p_", "p_celery-task-meta-i", text).as_deref(), Some("i"));
        assert_eq!(ended("p_", "q_celery-task-meta-i", text), None);
        assert_eq!(results("a[1]*"), r"a\[1\]\*celery-task-meta-*");
    }

    #[test]
    fn ends_that_others_tell_are_read() {
        assert_eq!(told("me", b"me\ni SUCCESS"), None);
        let Some(Woken::Over(ended, _)) = told("me", b"you\ni SUCCESS\nodd\nj FAILURE") else { panic!() };
        assert_eq!(ended.len(), 2);
    }

    #[test]
    fn a_call_has_the_limits_of_its_task_and_no_time_that_is_over() {
        let message = Message { eta: Some(Wall(5)), task: "a".into(), ..Message::default() };
        let terms = Terms { time_limit_ms: Some(2_000), ..Terms::default() };
        let call = call(&message, &terms);
        assert_eq!((call.eta, call.time_limit_ms, call.ignore_result), (None, Some(2_000), Some(false)));
    }
}
