//! A message and its record as the fields of a hash, and back. Names are short: each is stored with each message.
//!
//! What a life changes is a field of its own; arguments, headers and outcome are JSON texts that the scripts carry
//! without reading them, so no number in them is ever changed.

use redis::Value;
use serde::de::DeserializeOwned;

use super::args::Args;
use super::reply::{Odd, Reader};
use crate::model::message::{Delivery, Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::unique::Holds;
use crate::model::workflow::StepOf;

/// The fields of a message that is being stored: name, value, name, value.
pub(super) fn fields(m: &Message) -> Vec<Vec<u8>> {
    let mut list = Fields(Vec::with_capacity(24));
    list.text("t", &m.task);
    list.text("q", &m.queue);
    list.num("enq", m.enqueued.0);
    list.some("p", (m.priority > 0).then_some(i64::from(m.priority)));
    list.some("r", (m.retries > 0).then_some(i64::from(m.retries)));
    list.some("mr", (m.memory_retries > 0).then_some(i64::from(m.memory_retries)));
    list.some("eta", m.eta.map(|t| t.0));
    list.some("ex", m.expires.map(|t| t.0));
    let ms = |limit: Option<u64>| limit.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    list.some("tl", ms(m.time_limit_ms));
    list.some("ts", ms(m.soft_time_limit_ms));
    list.some("uid", m.uid.map(i64::from));
    if !m.args.is_empty() {
        list.json("a", &m.args);
    }
    if !m.kwargs.is_empty() {
        list.json("k", &m.kwargs);
    }
    if !m.headers.is_empty() {
        list.json("h", &m.headers);
    }
    if let Some(lane) = &m.lane {
        list.text("l", lane);
    }
    if let Some(fired) = &m.fired {
        list.json("f", fired);
        list.text("fs", &fired.schedule);
        if fired.held {
            list.text("hd", "1");
        }
    }
    if let Some(claim) = &m.unique {
        list.json("u", claim);
        list.text("uk", &claim.key);
        list.text("uh", claim.holds.word());
        list.text("uc", claim.on_conflict.word());
        let period = claim.period_ms.filter(|_| claim.holds != Holds::Running);
        list.some("up", period.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)));
    }
    if let Some(step) = &m.step {
        list.text("w", step.workflow.as_str());
        list.num("wn", i64::from(step.no));
        if step.passes {
            list.text("wp", "1");
        }
    }
    list.0
}

struct Fields(Vec<Vec<u8>>);

impl Fields {
    fn text(&mut self, name: &str, value: &str) {
        self.0.push(name.as_bytes().to_vec());
        self.0.push(value.as_bytes().to_vec());
    }

    fn num(&mut self, name: &str, value: i64) {
        self.text(name, &value.to_string());
    }

    fn some(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.num(name, value);
        }
    }

    fn json<T: serde::Serialize>(&mut self, name: &str, value: &T) {
        self.0.push(name.as_bytes().to_vec());
        // What came from JSON, or goes into the API as JSON, is JSON.
        self.0.push(serde_json::to_vec(value).unwrap_or_default());
    }
}

/// Messages with the bounds of their queues, as `claim.messages` reads them.
pub(super) fn messages<'a>(args: &mut Args, list: impl ExactSizeIterator<Item = (&'a Message, Option<u64>)>) {
    args.num(list.len());
    for (message, bound) in list {
        args.text(message.id.as_str()).opt_num(bound).list(fields(message).into_iter());
    }
}

/// A row that was read: its record and what a delivery of it needs beside.
pub(super) struct Row {
    /// The record.
    pub(super) record: Record,
    /// Its place in its queue.
    pub(super) rank: i64,
    /// Its order of acceptance.
    pub(super) seq: i64,
    /// Its payload is dropped.
    pub(super) slim: bool,
    /// The envelope that a Celery client sent, where one did.
    pub(super) envelope: Option<Vec<u8>>,
    /// The result that later steps are given, where the record keeps none.
    pub(super) result: Option<Vec<u8>>,
}

impl Row {
    /// The delivery of a leased row.
    pub(super) fn delivery(self) -> Result<Delivery, Odd> {
        let record = self.record;
        let token = record.token.ok_or_else(|| Odd::new("a delivery without a token"))?;
        Ok(Delivery {
            message: with_envelope(record.message, self.envelope),
            token,
            attempt: record.attempt,
            losses: record.losses,
            started: record.state == State::Running,
            rank: self.rank,
        })
    }
}

/// A message as it is handed to a node: with the envelope of the client that sent it.
pub(super) fn with_envelope(mut message: Message, envelope: Option<Vec<u8>>) -> Message {
    let text = envelope.and_then(|bytes| String::from_utf8(bytes).ok());
    message.celery = text.map(|text| Box::new(serde_json::Value::String(text)));
    message
}

/// Reads what `row.record` answers; `None` where it is empty.
pub(super) fn row(value: Value) -> Result<Option<Row>, Odd> {
    let mut list = Reader::of(value)?;
    if list.is_empty() {
        return Ok(None);
    }
    let message = Message::default();
    let mut record = Record {
        message,
        state: State::Waiting,
        attempt: 0,
        losses: 0,
        token: None,
        due: None,
        started: None,
        finished: None,
        outcome: None,
    };
    let (mut rank, mut seq, mut slim, mut step) = (0, 0, false, StepOf::default());
    let (mut envelope, mut result) = (None, None);
    while !list.is_empty() {
        let name = list.bytes()?;
        let value = list.bytes()?;
        let m = &mut record.message;
        match name.as_slice() {
            b"id" => m.id = MessageId(text(value)?),
            b"t" => m.task = text(value)?,
            b"q" => m.queue = text(value)?,
            b"enq" => m.enqueued = Wall(num(&value)?),
            b"p" => m.priority = num(&value)?,
            b"r" => m.retries = num(&value)?,
            b"mr" => m.memory_retries = num(&value)?,
            b"eta" => m.eta = Some(Wall(num(&value)?)),
            b"ex" => m.expires = Some(Wall(num(&value)?)),
            b"tl" => m.time_limit_ms = Some(num(&value)?),
            b"ts" => m.soft_time_limit_ms = Some(num(&value)?),
            b"uid" => m.uid = Some(num(&value)?),
            b"a" => m.args = json(&value)?,
            b"k" => m.kwargs = json(&value)?,
            b"h" => m.headers = json(&value)?,
            b"l" => m.lane = Some(text(value)?),
            b"f" => m.fired = Some(json(&value)?),
            b"u" => m.unique = Some(json(&value)?),
            b"w" => step.workflow = MessageId(text(value)?),
            b"wn" => step.no = num(&value)?,
            b"wp" => step.passes = true,
            b"s" => {
                let word = text(value)?;
                record.state = State::parse(&word).ok_or_else(|| Odd::new(format!("a state {word:?}")))?;
            }
            b"n" => record.attempt = num(&value)?,
            b"lo" => record.losses = num(&value)?,
            b"tk" => record.token = Some(Token(num(&value)?)),
            b"due" => record.due = Some(Wall(num(&value)?)),
            b"st" => record.started = Some(Wall(num(&value)?)),
            b"fi" => record.finished = Some(Wall(num(&value)?)),
            b"o" => record.outcome = Some(json(&value)?),
            b"rk" => rank = num(&value)?,
            b"sq" => seq = num(&value)?,
            b"sl" => slim = true,
            b"ce" => envelope = Some(value),
            b"cr" => result = Some(value),
            // The scripts' own.
            _ => {}
        }
    }
    if !step.workflow.0.is_empty() {
        record.message.step = Some(Box::new(step));
    }
    Ok(Some(Row { record, rank, seq, slim, envelope, result }))
}

fn text(bytes: Vec<u8>) -> Result<String, Odd> {
    String::from_utf8(bytes).map_err(|_| Odd::new("a field that is no text"))
}

fn num<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, Odd> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| Odd::new(format!("a number {text:?}")))
}

pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Odd> {
    serde_json::from_slice(bytes)
        .map_err(|e| Odd::new(format!("a field that is not the JSON it should be: {e}")))
}
