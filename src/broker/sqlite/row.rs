//! How a message stands in a row, and back.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::ledger::{self, QueueNo};
use super::shelf::{Shelf, Stop};
use crate::model::message::{Delivery, Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::Fault;
use crate::model::state::{self, State};
use crate::model::time::Wall;

/// Messages longer than this as JSON, in bytes, stand in `body`.
pub(super) const INLINE_MAX: usize = 1_536;

/// An id as a key: 16 bytes where it is a UUID in its usual spelling, text otherwise.
pub(super) enum Key<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> Key<'a> {
    pub(super) fn of(id: &'a MessageId) -> Self {
        let text = id.as_str();
        // Only the spelling that comes out again: anything else must stay as the client gave it.
        let usual = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
        match uuid::Uuid::try_parse(text) {
            Ok(uuid) if usual => Self::Uuid(uuid.into_bytes()),
            _ => Self::Text(text),
        }
    }
}

/// The id of a key, as the client gave it.
pub(super) fn id(value: ValueRef<'_>) -> MessageId {
    let bytes = value.as_bytes_or_null().ok().flatten().unwrap_or_default();
    let uuid = if matches!(value, ValueRef::Blob(_)) { uuid::Uuid::from_slice(bytes).ok() } else { None };
    MessageId(uuid.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), |uuid| uuid.to_string()))
}

impl ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Uuid(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The id of a key.
pub(super) fn id_of(key: ValueRef<'_>) -> Result<MessageId, String> {
    let text = match key {
        ValueRef::Blob(bytes) => uuid::Uuid::from_slice(bytes).map(|uuid| uuid.to_string()),
        other => return other.as_str().map(|s| MessageId(s.to_owned())).map_err(|e| e.to_string()),
    };
    text.map(MessageId).map_err(|e| e.to_string())
}

/// A state's number in a row: its place in [`state::ALL`], which never changes.
pub(super) fn code(state: State) -> i64 {
    state::ALL.iter().position(|s| *s == state).unwrap_or(0) as i64
}

/// The state of a number.
pub(super) fn state(code: i64) -> Option<State> {
    usize::try_from(code).ok().and_then(|code| state::ALL.get(code)).copied()
}

/// The columns of [`Stored`] in `live`. The body is looked up only where the message is not inline.
macro_rules! live_columns {
    () => {
        "seq, queue, state, attempt, losses, retries, token, due, started, NULL, \
         coalesce(message, (SELECT body.message FROM body WHERE body.seq = live.seq)), outcome, counted, rank"
    };
}

/// The columns of [`Stored`] in `done`.
macro_rules! done_columns {
    () => {
        "seq, queue, state, attempt, losses, retries, NULL, NULL, started, finished, \
         coalesce(message, (SELECT body.message FROM body WHERE body.seq = done.seq)), outcome, kept, 0"
    };
}

pub(super) use {done_columns, live_columns};

/// A row of `live` or `done`, its message not yet understood.
#[derive(Debug)]
pub(super) struct Stored {
    pub seq: i64,
    pub queue: QueueNo,
    state: i64,
    pub attempt: u32,
    losses: u32,
    retries: u32,
    pub token: Option<i64>,
    due: Option<i64>,
    started: Option<i64>,
    finished: Option<i64>,
    message: Option<Vec<u8>>,
    outcome: Option<Vec<u8>>,
    /// `counted` of a live row, `kept` of a finished one.
    pub flag: i64,
    pub rank: i64,
}

impl Stored {
    /// Reads `live_columns` or `done_columns`.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            queue: ledger::index(row.get(1)?),
            state: row.get(2)?,
            attempt: row.get(3)?,
            losses: row.get(4)?,
            retries: row.get(5)?,
            token: row.get(6)?,
            due: row.get(7)?,
            started: row.get(8)?,
            finished: row.get(9)?,
            message: bytes(row, 10)?,
            outcome: bytes(row, 11)?,
            flag: row.get(12)?,
            rank: row.get(13)?,
        })
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        let len = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, Vec::len);
        len(&self.message) + len(&self.outcome)
    }

    /// Its state.
    pub(super) fn state(&self) -> Result<State, Fault> {
        state(self.state)
            .ok_or_else(|| Fault::Poison(format!("row {}: unknown state {}", self.seq, self.state)))
    }

    /// The message, with the retries that the row counts.
    pub(super) fn message(&self) -> Result<Message, Fault> {
        let bytes = self.message.as_deref().unwrap_or_default();
        let mut message: Message = decode(self.seq, bytes)?;
        message.retries = self.retries;
        Ok(message)
    }

    /// A part of the message, without building all of it.
    pub(super) fn glance<'a, T: serde::Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(self.message.as_deref().unwrap_or_default())
    }

    /// What clients see.
    pub(super) fn record(&self) -> Result<Record, Fault> {
        Ok(Record {
            message: self.message()?,
            state: self.state()?,
            attempt: self.attempt,
            losses: self.losses,
            token: self.token.map(Token),
            due: self.due.map(Wall),
            started: self.started.map(Wall),
            finished: self.finished.map(Wall),
            outcome: self.outcome.as_deref().map(|bytes| decode(self.seq, bytes)).transpose()?,
        })
    }

    /// What is handed out under a lease.
    pub(super) fn delivery(&self, token: Token, attempt: u32) -> Result<Delivery, Fault> {
        Ok(Delivery {
            message: self.message()?,
            token,
            attempt,
            losses: self.losses,
            started: self.state()? == State::Running,
            rank: self.rank,
        })
    }
}

/// A value whatever its type: what is no JSON is found out when it is read.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(row.get_ref(column)?.as_bytes_or_null().unwrap_or_default().map(<[u8]>::to_vec))
}

fn decode<T: DeserializeOwned>(seq: i64, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::Poison(format!("row {seq} cannot be understood: {e}")))
}

/// JSON of a message or an outcome.
pub(super) fn encode<T: serde::Serialize>(value: &T) -> rusqlite::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, value)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    Ok(bytes)
}

impl Shelf {
    /// The row of an id that is not final.
    pub(super) fn live(&self, id: &MessageId) -> Result<Option<Stored>, Stop> {
        let sql = concat!("SELECT ", live_columns!(), " FROM live WHERE id = ?1");
        let mut statement = self.c.prepare_cached(sql)?;
        Ok(statement.query_row([Key::of(id)], Stored::of).optional()?)
    }

    /// The row of an id that is final.
    pub(super) fn done(&self, id: &MessageId) -> Result<Option<Stored>, Stop> {
        let sql = concat!("SELECT ", done_columns!(), " FROM done WHERE id = ?1");
        let mut statement = self.c.prepare_cached(sql)?;
        Ok(statement.query_row([Key::of(id)], Stored::of).optional()?)
    }

    /// What is known of an id.
    pub(super) fn record(&self, id: &MessageId) -> Result<Option<Record>, Stop> {
        let row = match self.live(id)? {
            Some(row) => Some(row),
            None => self.done(id)?,
        };
        Ok(row.map(|row| row.record()).transpose()?)
    }
}
