//! What happens to one message: stored, leased, started, ended, given back.

use super::shelf::Row;
use super::{Model, delivery};
use crate::broker::rules;
use crate::model::message::{Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Published, Reply, Settle};
use crate::model::state::State;
use crate::model::time::Wall;

impl Model {
    pub(super) fn publish(
        &mut self,
        messages: Vec<Message>,
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Reply, Fault> {
        rules::check_bounds(messages.len(), max_length.len())?;
        // First look, then write: all or none.
        let mut added: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        let mut ids = std::collections::BTreeSet::new();
        for (i, m) in messages.iter().enumerate() {
            if self.shelf.get(&m.id).is_some() || !ids.insert(&m.id) {
                continue;
            }
            let n = added.entry(&m.queue).or_default();
            *n += 1;
            let there = self.shelf.length(&m.queue);
            if let Some(Some(max)) = max_length.get(i)
                && there + *n > *max
            {
                return Ok(Reply::QueueFull { queue: m.queue.clone(), max_length: *max });
            }
        }
        let mut replies = Vec::with_capacity(messages.len());
        for m in messages {
            replies.push(match self.shelf.get(&m.id) {
                Some(row) => Published::Known(Box::new(row.record.clone())),
                None => {
                    self.store(m, now);
                    Published::New
                }
            });
        }
        Ok(Reply::Published(replies))
    }

    /// Stores a message whose id is not known; a known one changes nothing.
    pub(super) fn store(&mut self, message: Message, now: Wall) {
        if self.shelf.get(&message.id).is_some() {
            return;
        }
        let (state, due) = rules::first_state(&message, now);
        // A scheduled message gets its place when it is due.
        let rank = if due.is_none() { rules::rank(self.ready_new(now), message.priority) } else { 0 };
        self.born(message, state, due, rank);
    }

    fn born(&mut self, message: Message, state: State, due: Option<Wall>, rank: i64) {
        self.seq += 1;
        self.shelf.put(Row {
            record: Record {
                message,
                state,
                attempt: 0,
                losses: 0,
                token: None,
                due,
                started: None,
                finished: None,
                outcome: None,
            },
            seq: self.seq,
            rank,
            counted: true,
            unknown: false,
            held: false,
            expires_at: None,
            slim: false,
        });
    }

    pub(super) fn lease(&mut self, queue: &str, credit: u32, now: Wall) -> Reply {
        if self.paused.contains(queue) {
            return Reply::Deliveries(Vec::new());
        }
        let fresh = |seq: &u64| {
            self.shelf.at(*seq).is_some_and(|row| row.record.message.expires.is_none_or(|e| e > now))
        };
        let ready = self.shelf.ready.get(queue).into_iter().flatten().map(|(_, seq)| *seq);
        let seqs: Vec<u64> = ready.filter(fresh).take(credit.clamp(1, rules::MAX_CREDIT) as usize).collect();
        let mut deliveries = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let Some(mut row) = self.shelf.take(seq) else { continue };
            self.token += 1;
            row.record.token = Some(Token(self.token));
            if row.counted {
                row.record.attempt += 1;
            }
            row.counted = true;
            deliveries.extend(delivery(&row));
            self.shelf.put(row);
        }
        Reply::Deliveries(deliveries)
    }

    /// Takes the row out if it is held under this token; else the answer.
    fn held(&mut self, id: &MessageId, token: Token) -> Result<Row, Reply> {
        let row = self.shelf.get(id);
        if row.is_some_and(|row| row.record.token == Some(token))
            && let Some(row) = self.shelf.take_id(id)
        {
            return Ok(row);
        }
        Err(rules::stale(self.shelf.get(id).map(|row| row.record.clone())))
    }

    pub(super) fn start(&mut self, id: &MessageId, token: Token, now: Wall) -> Reply {
        match self.held(id, token) {
            Err(answer) => answer,
            Ok(mut row) => {
                // A repeat under the same token changes nothing.
                if row.record.state != State::Running {
                    row.record.state = State::Running;
                    row.record.started = Some(now);
                }
                self.shelf.put(row);
                rules::applied()
            }
        }
    }

    pub(super) fn settle(&mut self, s: Settle) -> Result<Reply, Fault> {
        rules::check_settle(&s)?;
        let mut row = match self.held(&s.id, s.token) {
            Ok(row) => row,
            Err(answer) => return Ok(answer),
        };
        row.record.losses += u32::from(s.lost);
        if s.state == State::Retry {
            row.record.state = State::Retry;
            row.record.token = None;
            row.record.due = s.due;
            row.record.outcome = Some(s.outcome.clone());
            match rules::with_more_memory(&s, row.record.message.clone()) {
                Some(message) => row.record.message = message,
                None => row.record.message.retries += 1,
            }
            row.counted = true;
        } else {
            row.finish(s.state, s.outcome, s.now, s.expires_ms);
        }
        if s.state.is_final() {
            self.put_ended(row, s.now);
        } else {
            self.shelf.put(row);
        }
        for m in s.follow_ups {
            self.store(m, s.now);
        }
        for permit in &s.releases {
            self.release(permit);
        }
        self.remember(s.memos);
        Ok(rules::applied())
    }

    pub(super) fn defer(
        &mut self,
        id: &MessageId,
        token: Token,
        until: Option<Wall>,
        counted: bool,
        lost: bool,
        now: Wall,
    ) -> Reply {
        let mut row = match self.held(id, token) {
            Ok(row) => row,
            Err(answer) => return answer,
        };
        row.record.losses += u32::from(lost);
        row.record.token = None;
        row.record.due = until.filter(|u| *u > now);
        row.counted = counted;
        if row.record.due.is_some() {
            row.record.state = State::Scheduled;
        } else {
            row.record.state = State::Waiting;
            if rules::goes_behind(lost, row.record.due) {
                row.rank = rules::rank(self.ready_again(now), row.record.message.priority);
            }
        }
        self.shelf.put(row);
        rules::applied()
    }

    pub(super) fn extend(&self, leases: Vec<(MessageId, Token)>) -> Reply {
        let gone = |(id, token): &(MessageId, Token)| {
            self.shelf.get(id).is_none_or(|row| row.record.token != Some(*token))
        };
        Reply::Lost(leases.into_iter().filter(gone).map(|(id, _)| id).collect())
    }

    pub(super) fn revoke(&mut self, id: &MessageId, now: Wall) -> Reply {
        let open = |r: &Record| !r.state.is_final() && r.token.is_none();
        if self.shelf.get(id).is_some_and(|row| open(&row.record))
            && let Some(mut row) = self.shelf.take_id(id)
        {
            row.finish(State::Revoked, rules::revoked(), now, None);
            self.put_ended(row, now);
        }
        self.answer(id)
    }

    pub(super) fn requeue(&mut self, id: &MessageId, now: Wall) -> Result<Reply, Fault> {
        match self.shelf.get(id) {
            Some(row) if row.slim => return Err(rules::arguments_gone(id)),
            Some(row) if row.record.state.is_final() => {
                if let Some(row) = self.shelf.take_id(id) {
                    let message = rules::reborn(row.record.message, now);
                    let rank = rules::rank(self.ready_new(now), message.priority);
                    self.born(message, State::Waiting, None, rank);
                }
            }
            _ => {}
        }
        Ok(self.answer(id))
    }

    pub(super) fn purge(&mut self, queue: &str, now: Wall) -> Reply {
        let open = |row: &&Row| {
            let r = &row.record;
            r.message.queue == queue && !r.state.is_final() && r.token.is_none()
        };
        let seqs: Vec<u64> = self.shelf.rows().filter(open).map(|row| row.seq).collect();
        for seq in &seqs {
            if let Some(mut row) = self.shelf.take(*seq) {
                row.finish(State::Revoked, rules::revoked(), now, None);
                self.put_ended(row, now);
            }
        }
        Reply::Purged(seqs.len() as u64)
    }

    /// Into the `unknown` set of its queue, or out of it: its place and its attempt count stay.
    pub(super) fn relocate(&mut self, id: &MessageId, token: Option<Token>, unknown: bool) -> Reply {
        let fits = self.shelf.get(id).is_some_and(|row| {
            let r = &row.record;
            match (unknown, token) {
                (true, Some(_)) => r.token == token,
                (true, None) => r.token.is_none() && r.state == State::Waiting,
                (false, _) => row.unknown,
            }
        });
        if fits && let Some(mut row) = self.shelf.take_id(id) {
            if row.record.token.take().is_some() {
                row.counted = false;
            }
            row.record.state = State::Waiting;
            row.unknown = unknown;
            self.shelf.put(row);
            return rules::applied();
        }
        rules::stale(self.shelf.get(id).map(|row| row.record.clone()))
    }
}
