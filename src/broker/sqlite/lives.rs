//! What happens to one message: stored, leased, started, ended, given back.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::ledger::{self, Class, QueueNo, idle_class};
use super::row::{INLINE_MAX, Key, Stored, code, done_columns, encode, live_columns, state};
use super::shelf::{Shelf, Stop};
use crate::broker::{joins, rules};
use crate::model::limit::Take;
use crate::model::message::{Delivery, Message, Token};
use crate::model::name::MessageId;
use crate::model::op::{Published, Reply, Settle};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;

/// A leased row.
pub(super) struct HeldRow {
    pub seq: i64,
    pub queue: QueueNo,
    priority: u8,
    pub class: Class,
    pub lane: Option<String>,
}

impl Shelf {
    pub(super) fn publish(
        &mut self,
        messages: &[Message],
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Reply, Stop> {
        rules::check_bounds(messages.len(), max_length.len())?;
        // Nothing to decide: what an admission would look up is not looked up.
        if messages.iter().any(|m| m.unique.is_some()) || max_length.iter().any(Option::is_some) {
            return self.publish_admitted(messages, max_length, now);
        }
        let mut replies = Vec::with_capacity(messages.len());
        for m in messages {
            replies.push(if let Some(head) = self.flow_head(&m.id)? {
                // What was stored before ids were one namespace is found by its id as the message it is.
                match self.record(&m.id)? {
                    Some(record) => Published::Known(Box::new(record)),
                    None => Published::Workflow(Box::new(head)),
                }
            } else if self.store(m, now)? {
                Published::New
            } else {
                // Read back rather than remembered: it may be this batch's own.
                Published::Known(self.there(&m.id)?)
            });
        }
        Ok(Reply::Published(replies))
    }

    pub(super) fn is_known(&self, id: &MessageId) -> rusqlite::Result<bool> {
        let key = Key::of(id);
        Ok(self.c.prepare_cached("SELECT 1 FROM live WHERE id = ?1")?.exists([&key])?
            || self.is_done(&key)?)
    }

    pub(super) fn is_done(&self, key: &Key<'_>) -> rusqlite::Result<bool> {
        if self.ledger.f.kept + self.ledger.f.dead + self.ledger.f.slim == 0 {
            return Ok(false);
        }
        self.c.prepare_cached("SELECT 1 FROM done WHERE id = ?1")?.exists([key])
    }

    pub(super) fn born(
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
        let (flow, step) = self.step_of(m)?.unzip();
        let long = json.len() > INLINE_MAX;
        let lane = rules::lane_name(m);
        let added = self
            .c
            .prepare_cached(
                "INSERT INTO live(seq, id, queue, state, rank, priority, counted, attempt, losses, retries, \
                 due, expires, message, flow, step, lane) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
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
                flow,
                step,
                lane,
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
            self.fire_begins(seq, fired)?;
        }
        if due.is_none() && !rules::is_held(m) {
            self.enter_lane(queue, lane.as_deref())?;
        }
        Ok(true)
    }

    pub(super) fn lease(
        &mut self,
        queue: &str,
        credit: u32,
        now: Wall,
        skip: &[String],
    ) -> Result<(Vec<Delivery>, Option<Wall>), Stop> {
        let Some(no) = self.ledger.number(queue).filter(|no| !self.ledger.is_paused(*no)) else {
            return Ok((Vec::new(), None));
        };
        let credit = credit.clamp(1, rules::MAX_CREDIT);
        let plain: Vec<Stored> = self
            .c
            .prepare_cached(concat!(
                "SELECT ",
                live_columns!(),
                " FROM live WHERE queue = ?1 AND state = 1 AND token IS NULL AND unknown IS NULL \
                 AND lane IS NULL AND (expires IS NULL OR expires > ?2) ORDER BY rank, seq LIMIT ?3"
            ))?
            .query_map((no as i64, now.0, credit), Stored::of)?
            .collect::<Result<_, _>>()?;
        let picked = self.pick_lanes(no, credit as usize, now, skip)?;
        let rows = rules::merged(plain, picked.rows, credit as usize, |row| row.rank);
        let mut deliveries = Vec::with_capacity(rows.len());
        let mut served = BTreeSet::new();
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
            if let Some(lane) = rules::lane_name(&delivery.message).filter(|lane| !served.contains(lane)) {
                self.served(no, &lane)?;
                served.insert(lane);
            }
            self.c
                .prepare_cached("UPDATE live SET token = ?2, attempt = ?3, counted = 1 WHERE seq = ?1")?
                .execute((row.seq, token.0, attempt))?;
            self.ledger.leave(no, Class::Waiting);
            self.ledger.enter(no, Class::Leased);
            deliveries.push(delivery);
        }
        Ok((deliveries, picked.opens))
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
    pub(super) fn stale(&self, id: &MessageId) -> Result<Reply, Stop> {
        Ok(rules::stale(self.record(id)?))
    }

    /// What is held under this token.
    pub(super) fn held(&self, id: &MessageId, token: Token) -> rusqlite::Result<Option<HeldRow>> {
        self.c
            .prepare_cached(
                "SELECT seq, queue, priority, state, lane FROM live WHERE id = ?1 AND token = ?2",
            )?
            .query_row((Key::of(id), token.0), |row| {
                let class = if row.get::<_, i64>(3)? == 2 { Class::Running } else { Class::Leased };
                let queue = ledger::index(row.get(1)?);
                Ok(HeldRow { seq: row.get(0)?, queue, priority: row.get(2)?, class, lane: row.get(4)? })
            })
            .optional()
    }

    pub(super) fn settle(&mut self, s: &Settle) -> Result<Reply, Stop> {
        rules::check_settle(s)?;
        let Some(HeldRow { seq, queue, class, .. }) = self.held(&s.id, s.token)? else {
            return self.stale(&s.id);
        };
        self.release(seq, class == Class::Running, &s.takes, s.now)?;
        let changes = s.memory.is_some() || s.call.is_some();
        let more = if changes { self.for_next_attempt(seq, s)? } else { None };
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
            self.claim_rests(seq, true)?;
        } else {
            self.finish(seq, s.state, (&s.outcome, s.forget_result), s.now, s.expires_ms, s.lost)?;
        }
        for m in &s.follow_ups {
            self.store(m, s.now)?;
        }
        self.remember(&s.memos)?;
        Ok(rules::applied())
    }

    /// The message of this row, as its next attempt is to get it.
    fn for_next_attempt(&self, seq: i64, s: &Settle) -> Result<Option<Message>, Stop> {
        let row = self
            .c
            .prepare_cached(concat!("SELECT ", live_columns!(), " FROM live WHERE seq = ?1"))?
            .query_row([seq], Stored::of)?;
        Ok(rules::for_next_attempt(s, row.message()?))
    }

    /// Writes another message into this row. Answers its queue.
    pub(super) fn replace_message(&mut self, seq: i64, message: &Message) -> rusqlite::Result<QueueNo> {
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
        (outcome, forget_result): (&Outcome, bool),
        now: Wall,
        expires_ms: Option<u64>,
        lost: bool,
    ) -> Result<(), Stop> {
        let result = outcome.result.as_ref();
        let outcome = if forget_result && result.is_some() {
            encode(&Outcome { result: None, ..outcome.clone() })?
        } else {
            encode(outcome)?
        };
        self.bytes += outcome.len();
        self.claim_ends(seq)?;
        // What was given up on is kept for longer than what a task's own retention says.
        let expires_ms = expires_ms.filter(|_| state != State::Dead);
        let kept = match state {
            State::Dead => ledger::DEAD,
            _ if expires_ms.is_some() => 2,
            _ => 1,
        };
        let queue = self
            .c
            .prepare_cached(
                "INSERT INTO done(seq, id, queue, state, kept, attempt, losses, retries, started, finished, \
                 expires, message, outcome) SELECT seq, id, queue, ?2, ?3, attempt, losses + ?4, retries, \
                 started, ?5, ?6, message, ?7 FROM live WHERE seq = ?1 RETURNING queue",
            )?
            .query_row(
                params![
                    seq,
                    code(state),
                    kept,
                    i64::from(lost),
                    now.0,
                    expires_ms.map(|ms| now.plus(ms).0),
                    outcome,
                ],
                |row| row.get(0),
            )?;
        let (flow, step): (Option<i64>, Option<u32>) = self
            .c
            .prepare_cached("DELETE FROM live WHERE seq = ?1 RETURNING flow, step")?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.ledger.add_kept(ledger::index(queue), kept);
        self.fire_ends(seq, state, now)?;
        match flow.zip(step) {
            Some(step) => joins::ended(self, step, state, result, now),
            None => Ok(()),
        }
    }

    /// Records the end of a message that never was published, of an id that is not known.
    pub(super) fn bury(
        &mut self,
        m: &Message,
        (state, outcome): (State, &Outcome),
        now: Wall,
        keep_ms: u64,
    ) -> rusqlite::Result<()> {
        let (message, outcome) = (encode(m)?, encode(outcome)?);
        self.bytes += message.len() + outcome.len();
        let queue = self.ledger.number_or_new(&self.c, &m.queue)?;
        self.ledger.f.seq += 1;
        self.ledger.add_kept(queue, 2);
        self.c
            .prepare_cached(
                "INSERT INTO done(seq, id, queue, state, kept, attempt, losses, retries, finished, expires, \
                 message, outcome) VALUES (?1, ?2, ?3, ?4, 2, 0, 0, 0, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.ledger.f.seq,
                Key::of(&m.id),
                queue as i64,
                code(state),
                now.0,
                now.plus(keep_ms).0,
                message,
                outcome,
            ])?;
        Ok(())
    }

    pub(super) fn defer(
        &mut self,
        id: &MessageId,
        token: Token,
        until: Option<Wall>,
        (counted, lost): (bool, bool),
        takes: &[Take],
        now: Wall,
    ) -> Result<Reply, Stop> {
        let Some(HeldRow { seq, queue, priority, class, lane }) = self.held(id, token)? else {
            return self.stale(id);
        };
        self.release(seq, class == Class::Running, takes, now)?;
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
        self.claim_rests(seq, false)?;
        if due.is_none() {
            self.enter_lane(queue, lane.as_deref())?;
        }
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
    pub(super) fn open(&self, id: &MessageId) -> Result<Option<(i64, QueueNo, Class)>, Stop> {
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
            self.finish(seq, State::Revoked, (&rules::revoked(), false), now, None, false)?;
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
            let message = row.message()?;
            if let Some(holder) = self.in_the_way(&message, now)? {
                let record = self.record(&holder)?.map(Box::new);
                return Ok(Reply::Taken { of: id.clone(), holder, record });
            }
            self.revive(&row, message, None, None, now)?;
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
                      ELSE 0 END, unknown = ?2 WHERE seq = ?1 RETURNING lane";
        let (seq, queue, class, task) = match (unknown, token) {
            (true, Some(token)) => {
                let Some(HeldRow { seq, queue, class, .. }) = self.held(id, token)? else {
                    return self.stale(id);
                };
                self.release(seq, true, &[], Wall(0))?;
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
        let waits = task.is_none();
        let lane: Option<String> = self.c.prepare_cached(change)?.query_row((seq, task), |row| row.get(0))?;
        if waits {
            self.enter_lane(queue, lane.as_deref())?;
        }
        self.claim_rests(seq, false)?;
        Ok(rules::applied())
    }

    fn task(&self, id: &MessageId) -> Result<Option<String>, Stop> {
        Ok(self.live(id)?.map(|row| row.message()).transpose()?.map(|m| m.task))
    }
}
