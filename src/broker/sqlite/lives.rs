//! What happens to one message: stored, leased, started, ended, given back.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, params};

use super::ledger::{self, Class, QueueNo, idle_class};
use super::row::{INLINE_MAX, Key, Stored, code, done_columns, encode, live_columns, state};
use super::shelf::{Shelf, Stop};
use crate::broker::rules;
use crate::model::message::{Delivery, Message, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Published, Reply, Settle};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;

/// A leased row.
struct HeldRow {
    seq: i64,
    queue: QueueNo,
    priority: u8,
    class: Class,
}

impl Shelf {
    pub(super) fn publish(
        &mut self,
        messages: &[Message],
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Reply, Stop> {
        rules::check_bounds(messages.len(), max_length.len())?;
        if let Some(full) = self.full(messages, max_length)? {
            return Ok(full);
        }
        let mut replies = Vec::with_capacity(messages.len());
        for m in messages {
            replies.push(if self.store(m, now, 0)? {
                Published::New
            } else {
                // Read back rather than remembered: it may be this batch's own.
                let known = self.record(&m.id)?.ok_or_else(|| vanished(&m.id))?;
                Published::Known(Box::new(known))
            });
        }
        Ok(Reply::Published(replies))
    }

    /// Whether a bound would be passed: looked at before anything is written.
    fn full(&mut self, messages: &[Message], max_length: &[Option<u64>]) -> Result<Option<Reply>, Stop> {
        if max_length.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut added: BTreeMap<&str, u64> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (m, max) in messages.iter().zip(max_length) {
            if !ids.insert(&m.id) || self.is_known(&m.id)? {
                continue;
            }
            let n = added.entry(&m.queue).or_default();
            *n += 1;
            let there = self.ledger.number(&m.queue).map_or(0, |no| self.ledger.length(no));
            if let Some(max_length) = *max
                && there + *n > max_length
            {
                return Ok(Some(Reply::QueueFull { queue: m.queue.clone(), max_length }));
            }
        }
        Ok(None)
    }

    fn is_known(&self, id: &MessageId) -> rusqlite::Result<bool> {
        let key = Key::of(id);
        Ok(self.c.prepare_cached("SELECT 1 FROM live WHERE id = ?1")?.exists([&key])?
            || self.is_done(&key)?)
    }

    fn is_done(&self, key: &Key<'_>) -> rusqlite::Result<bool> {
        if self.ledger.f.kept + self.ledger.f.slim == 0 {
            return Ok(false);
        }
        self.c.prepare_cached("SELECT 1 FROM done WHERE id = ?1")?.exists([key])
    }

    /// Stores a message; false: its id is known, nothing changed. `attempt`: of a life elsewhere.
    pub(super) fn store(&mut self, m: &Message, now: Wall, attempt: u32) -> Result<bool, Stop> {
        if self.is_done(&Key::of(&m.id))? {
            return Ok(false);
        }
        let (state, due) = rules::first_state(m, now);
        self.born(m, state, due, now, attempt)
    }

    fn born(
        &mut self,
        m: &Message,
        state: State,
        due: Option<Wall>,
        now: Wall,
        attempt: u32,
    ) -> Result<bool, Stop> {
        let json = encode(m)?;
        self.bytes += json.len();
        let queue = self.ledger.number_or_new(&self.c, &m.queue)?;
        let clock = self.ledger.f.clock;
        let rank = if due.is_none() { self.ledger.rank_new(now, m.priority) } else { 0 };
        let seq = self.ledger.f.seq + 1;
        let long = json.len() > INLINE_MAX;
        let added = self
            .c
            .prepare_cached(
                "INSERT INTO live(seq, id, queue, state, rank, priority, counted, attempt, losses, retries, \
                 due, expires, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, 0, ?8, ?9, ?10, ?11) \
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                seq,
                Key::of(&m.id),
                queue as i64,
                code(state),
                rank,
                m.priority,
                attempt,
                m.retries,
                due.map(|d| d.0),
                m.expires.map(|e| e.0),
                (!long).then_some(&json),
            ])?;
        if added == 0 {
            self.ledger.f.clock = clock;
            return Ok(false);
        }
        if long {
            self.c.prepare_cached("INSERT INTO body(seq, message) VALUES (?1, ?2)")?.execute((seq, &json))?;
        }
        self.ledger.f.seq = seq;
        self.ledger.enter(queue, idle_class(state, false));
        if let Some(fired) = &m.fired {
            self.fire_begins(seq, &fired.schedule)?;
        }
        Ok(true)
    }

    pub(super) fn lease(&mut self, queue: &str, credit: u32, now: Wall) -> Result<Vec<Delivery>, Stop> {
        let Some(no) = self.ledger.number(queue).filter(|no| !self.ledger.is_paused(*no)) else {
            return Ok(Vec::new());
        };
        let credit = credit.clamp(1, rules::MAX_CREDIT);
        let rows: Vec<Stored> = self
            .c
            .prepare_cached(concat!(
                "SELECT ",
                live_columns!(),
                " FROM live WHERE queue = ?1 AND state = 1 AND token IS NULL AND unknown IS NULL \
                 AND (expires IS NULL OR expires > ?2) ORDER BY rank, seq LIMIT ?3"
            ))?
            .query_map((no as i64, now.0, credit), Stored::of)?
            .collect::<Result<_, _>>()?;
        let mut deliveries = Vec::with_capacity(rows.len());
        for row in rows {
            self.bytes += row.size();
            let token = self.ledger.next_token();
            let attempt = row.attempt.saturating_add(u32::from(row.flag != 0));
            let Ok(delivery) = row.delivery(token, attempt) else {
                // What cannot be understood must not stop its queue: it is set aside, counted, and named
                // by `verify`.
                self.c.prepare_cached("UPDATE live SET unknown = '' WHERE seq = ?1")?.execute([row.seq])?;
                self.ledger.leave(no, Class::Waiting);
                self.ledger.enter(no, Class::Unknown);
                continue;
            };
            self.c
                .prepare_cached("UPDATE live SET token = ?2, attempt = ?3, counted = 1 WHERE seq = ?1")?
                .execute((row.seq, token.0, attempt))?;
            self.ledger.leave(no, Class::Waiting);
            self.ledger.enter(no, Class::Leased);
            deliveries.push(delivery);
        }
        Ok(deliveries)
    }

    pub(super) fn recover(&self) -> Result<Vec<Delivery>, Stop> {
        let rows: Vec<Stored> = self
            .c
            .prepare_cached(concat!(
                "SELECT ",
                live_columns!(),
                " FROM live WHERE token IS NOT NULL ORDER BY token"
            ))?
            .query_map([], Stored::of)?
            .collect::<Result<_, _>>()?;
        let delivery = |row: &Stored| Ok(row.delivery(Token(row.token.unwrap_or(0)), row.attempt)?);
        rows.iter().map(delivery).collect()
    }

    /// The answer to a write under a token that is not valid any more.
    fn stale(&self, id: &MessageId) -> Result<Reply, Stop> {
        Ok(rules::stale(self.record(id)?))
    }

    pub(super) fn start(&mut self, id: &MessageId, token: Token, now: Wall) -> Result<Reply, Stop> {
        let queue = self
            .c
            .prepare_cached(
                "UPDATE live SET started = ?3, state = 2 WHERE id = ?1 AND token = ?2 AND state <> 2 \
                 RETURNING queue",
            )?
            .query_row((Key::of(id), token.0, now.0), |row| row.get(0))
            .optional()?;
        if let Some(queue) = queue {
            let queue = ledger::index(queue);
            self.ledger.leave(queue, Class::Leased);
            self.ledger.enter(queue, Class::Running);
            return Ok(rules::applied());
        }
        // A repeat under the same token keeps the first time.
        if self.held(id, token)?.is_some() { Ok(rules::applied()) } else { self.stale(id) }
    }

    /// What is held under this token.
    fn held(&self, id: &MessageId, token: Token) -> rusqlite::Result<Option<HeldRow>> {
        self.c
            .prepare_cached("SELECT seq, queue, priority, state FROM live WHERE id = ?1 AND token = ?2")?
            .query_row((Key::of(id), token.0), |row| {
                let class = if row.get::<_, i64>(3)? == 2 { Class::Running } else { Class::Leased };
                let queue = ledger::index(row.get(1)?);
                Ok(HeldRow { seq: row.get(0)?, queue, priority: row.get(2)?, class })
            })
            .optional()
    }

    pub(super) fn settle(&mut self, s: &Settle) -> Result<Reply, Stop> {
        rules::check_settle(s)?;
        let Some(HeldRow { seq, queue, class, .. }) = self.held(&s.id, s.token)? else {
            return self.stale(&s.id);
        };
        let more = if s.memory.is_some() { self.with_more_memory(seq, s)? } else { None };
        self.ledger.leave(queue, class);
        if s.state == State::Retry {
            let outcome = encode(&s.outcome)?;
            self.bytes += outcome.len();
            self.c
                .prepare_cached(
                    "UPDATE live SET state = ?2, token = NULL, due = ?3, retries = retries + ?6, counted = 1, \
                     losses = losses + ?4, outcome = ?5 WHERE seq = ?1",
                )?
                .execute((
                    seq,
                    code(s.state),
                    s.due.map(|d| d.0),
                    i64::from(s.lost),
                    outcome,
                    i64::from(s.memory.is_none()),
                ))?;
            let queue = match more {
                Some(message) => self.replace_message(seq, &message)?,
                None => queue,
            };
            self.ledger.enter(queue, Class::Scheduled);
        } else {
            self.finish(seq, s.state, &s.outcome, s.now, s.expires_ms, s.lost)?;
        }
        for m in &s.follow_ups {
            self.store(m, s.now, 0)?;
        }
        for permit in &s.releases {
            self.release(permit)?;
        }
        self.remember(&s.memos)?;
        Ok(rules::applied())
    }

    /// The message of this row, as its next attempt gets more memory.
    fn with_more_memory(&self, seq: i64, s: &Settle) -> Result<Option<Message>, Stop> {
        let row = self
            .c
            .prepare_cached(concat!("SELECT ", live_columns!(), " FROM live WHERE seq = ?1"))?
            .query_row([seq], Stored::of)?;
        Ok(rules::with_more_memory(s, row.message()?))
    }

    /// Writes another message into this row. Answers its queue.
    fn replace_message(&mut self, seq: i64, message: &Message) -> rusqlite::Result<QueueNo> {
        let json = encode(message)?;
        self.bytes += json.len();
        let queue = self.ledger.number_or_new(&self.c, &message.queue)?;
        let long = json.len() > INLINE_MAX;
        self.c.prepare_cached("UPDATE live SET queue = ?2, message = ?3 WHERE seq = ?1")?.execute((
            seq,
            queue as i64,
            (!long).then_some(&json),
        ))?;
        if long {
            self.c
                .prepare_cached("INSERT OR REPLACE INTO body(seq, message) VALUES (?1, ?2)")?
                .execute((seq, &json))?;
        } else {
            self.c.prepare_cached("DELETE FROM body WHERE seq = ?1")?.execute([seq])?;
        }
        Ok(queue)
    }

    /// Ends the life of a row that the ledger counts no more.
    pub(super) fn finish(
        &mut self,
        seq: i64,
        state: State,
        outcome: &Outcome,
        now: Wall,
        expires_ms: Option<u64>,
        lost: bool,
    ) -> rusqlite::Result<()> {
        let outcome = encode(outcome)?;
        self.bytes += outcome.len();
        self.c
            .prepare_cached(
                "INSERT INTO done(seq, id, queue, state, kept, attempt, losses, retries, started, finished, \
                 expires, message, outcome) SELECT seq, id, queue, ?2, ?3, attempt, losses + ?4, retries, \
                 started, ?5, ?6, message, ?7 FROM live WHERE seq = ?1",
            )?
            .execute(params![
                seq,
                code(state),
                if expires_ms.is_some() { 2 } else { 1 },
                i64::from(lost),
                now.0,
                expires_ms.map(|ms| now.plus(ms).0),
                outcome,
            ])?;
        self.c.prepare_cached("DELETE FROM live WHERE seq = ?1")?.execute([seq])?;
        self.ledger.f.kept += 1;
        self.fire_ends(seq, state, now)
    }

    pub(super) fn defer(
        &mut self,
        id: &MessageId,
        token: Token,
        until: Option<Wall>,
        (counted, lost): (bool, bool),
        now: Wall,
    ) -> Result<Reply, Stop> {
        let Some(HeldRow { seq, queue, priority, class }) = self.held(id, token)? else {
            return self.stale(id);
        };
        let due = until.filter(|u| *u > now);
        let state = if due.is_some() { State::Scheduled } else { State::Waiting };
        let rank = rules::goes_behind(lost, due).then(|| self.ledger.rank_again(now, priority));
        self.c
            .prepare_cached(
                "UPDATE live SET state = ?2, token = NULL, due = ?3, counted = ?4, losses = losses + ?5, \
                 rank = coalesce(?6, rank) WHERE seq = ?1",
            )?
            .execute((seq, code(state), due.map(|d| d.0), counted, i64::from(lost), rank))?;
        self.ledger.leave(queue, class);
        self.ledger.enter(queue, idle_class(state, false));
        Ok(rules::applied())
    }

    pub(super) fn extend(&self, leases: &[(MessageId, Token)]) -> Result<Vec<MessageId>, Stop> {
        let mut statement = self.c.prepare_cached("SELECT 1 FROM live WHERE id = ?1 AND token = ?2")?;
        let mut lost = Vec::new();
        for (id, token) in leases {
            if !statement.exists((Key::of(id), token.0))? {
                lost.push(id.clone());
            }
        }
        Ok(lost)
    }

    /// Row, queue and class of what is neither final nor leased.
    fn open(&self, id: &MessageId) -> Result<Option<(i64, QueueNo, Class)>, Stop> {
        let found = self
            .c
            .prepare_cached(
                "SELECT seq, queue, state, unknown IS NOT NULL FROM live WHERE id = ?1 AND token IS NULL",
            )?
            .query_row([Key::of(id)], |row| {
                Ok((row.get::<_, i64>(0)?, ledger::index(row.get(1)?), row.get(2)?, row.get(3)?))
            })
            .optional()?;
        Ok(found.map(|(seq, queue, s, unknown)| {
            (seq, queue, idle_class(state(s).unwrap_or(State::Waiting), unknown))
        }))
    }

    pub(super) fn revoke(&mut self, id: &MessageId, now: Wall) -> Result<Reply, Stop> {
        if let Some((seq, queue, class)) = self.open(id)? {
            self.ledger.leave(queue, class);
            self.finish(seq, State::Revoked, &rules::revoked(), now, None, false)?;
        }
        Ok(Reply::Record(self.record(id)?.map(Box::new)))
    }

    pub(super) fn requeue(&mut self, id: &MessageId, now: Wall) -> Result<Reply, Stop> {
        let row = self
            .c
            .prepare_cached(concat!("SELECT ", done_columns!(), " FROM done WHERE id = ?1"))?
            .query_row([Key::of(id)], Stored::of)
            .optional()?;
        if let Some(row) = row {
            if row.flag == 0 {
                return Err(rules::arguments_gone(id).into());
            }
            let message = rules::reborn(row.message()?, now);
            self.drop_done(row.seq)?;
            self.ledger.f.kept = self.ledger.f.kept.saturating_sub(1);
            self.born(&message, State::Waiting, None, now, 0)?;
        }
        Ok(Reply::Record(self.record(id)?.map(Box::new)))
    }

    /// Forgets a finished row; the ledger is the caller's.
    pub(super) fn drop_done(&self, seq: i64) -> rusqlite::Result<()> {
        self.c.prepare_cached("DELETE FROM body WHERE seq = ?1")?.execute([seq])?;
        self.c.prepare_cached("DELETE FROM done WHERE seq = ?1")?.execute([seq])?;
        Ok(())
    }

    /// Into the `unknown` set of its queue, or out of it: its place and its attempt count stay.
    pub(super) fn relocate(
        &mut self,
        id: &MessageId,
        token: Option<Token>,
        unknown: bool,
    ) -> Result<Reply, Stop> {
        let change = "UPDATE live SET token = NULL, state = 1, counted = CASE WHEN token IS NULL THEN counted \
                      ELSE 0 END, unknown = ?2 WHERE seq = ?1";
        let (seq, queue, class, task) = match (unknown, token) {
            (true, Some(token)) => {
                let Some(HeldRow { seq, queue, class, .. }) = self.held(id, token)? else {
                    return self.stale(id);
                };
                (seq, queue, class, self.task(id)?)
            }
            (true, None) => match self.open(id)? {
                Some((seq, queue, class @ (Class::Waiting | Class::Unknown))) => {
                    (seq, queue, class, self.task(id)?)
                }
                _ => return self.stale(id),
            },
            (false, _) => match self.open(id)? {
                Some((seq, queue, Class::Unknown)) => (seq, queue, Class::Unknown, None),
                _ => return self.stale(id),
            },
        };
        self.ledger.leave(queue, class);
        self.ledger.enter(queue, idle_class(State::Waiting, task.is_some()));
        self.c.prepare_cached(change)?.execute((seq, task))?;
        Ok(rules::applied())
    }

    fn task(&self, id: &MessageId) -> Result<Option<String>, Stop> {
        Ok(self.live(id)?.map(|row| row.message()).transpose()?.map(|m| m.task))
    }
}

fn vanished(id: &MessageId) -> Fault {
    Fault::Again(format!("{id} was there and is not; try again"))
}
