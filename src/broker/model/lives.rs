//! What happens to one message: stored, leased, started, ended, given back.

use super::shelf::Row;
use super::{Model, delivery};
use crate::broker::rules;
use crate::model::limit::Take;
use crate::model::message::{Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply, Settle};
use crate::model::outcome::Outcome;
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
        self.publish_admitted(messages, max_length, now)
    }

    /// A row of its own for this message; `claims`: it claims its key. Answers its number.
    pub(super) fn begin(
        &mut self,
        message: Message,
        state: State,
        due: Option<Wall>,
        now: Wall,
        claims: bool,
    ) -> u64 {
        // A scheduled message gets its place when it is due.
        let rank = if due.is_none() { rules::rank(self.ready_new(now), message.priority) } else { 0 };
        self.seq += 1;
        if claims {
            self.claim(self.seq, &message, now, now);
        }
        self.born(message, state, due, rank);
        self.seq
    }

    fn born(&mut self, mut message: Message, state: State, due: Option<Wall>, rank: i64) {
        let held = message.fired.as_mut().is_some_and(|f| std::mem::take(&mut f.held));
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
            held,
            expires_at: None,
            slim: false,
        });
    }

    /// Records the end of a message that never was published.
    pub(super) fn bury(&mut self, message: Message, state: State, outcome: Outcome, now: Wall, keep_ms: u64) {
        let id = message.id.clone();
        self.seq += 1;
        self.born(message, State::Waiting, None, 0);
        if let Some(mut row) = self.shelf.take_id(&id) {
            row.finish(state, outcome, now, Some(keep_ms));
            self.shelf.put(row);
        }
    }

    pub(super) fn lease(&mut self, queue: &str, credit: u32, now: Wall, skip: &[String]) -> Reply {
        if self.paused.contains(queue) {
            return Reply::Leased { deliveries: Vec::new(), opens: None };
        }
        let credit = credit.clamp(1, rules::MAX_CREDIT) as usize;
        let ready = self.shelf.ready.get(queue).into_iter().flatten().copied();
        let plain: Vec<(i64, u64)> =
            ready.filter(|(_, seq)| self.shelf.is_fresh(*seq, now)).take(credit).collect();
        let (laned, opens) = self.pick_lanes(queue, credit, now, skip);
        let mut deliveries = Vec::new();
        let mut served = std::collections::BTreeSet::new();
        for (_, seq) in rules::merged(plain, laned, credit, |(rank, _)| *rank) {
            let Some(mut row) = self.shelf.take(seq) else { continue };
            if let Some(key) = row.lane_key().filter(|key| served.insert(key.clone())) {
                self.shelf.served(&key);
            }
            self.token += 1;
            row.record.token = Some(Token(self.token));
            if row.counted {
                row.record.attempt += 1;
            }
            row.counted = true;
            deliveries.extend(delivery(&row));
            self.shelf.put(row);
        }
        Reply::Leased { deliveries, opens }
    }

    /// Takes the row out if it is held under this token; else the answer.
    pub(super) fn held(&mut self, id: &MessageId, token: Token) -> Result<Row, Reply> {
        let row = self.shelf.get(id);
        if row.is_some_and(|row| row.record.token == Some(token))
            && let Some(row) = self.shelf.take_id(id)
        {
            return Ok(row);
        }
        Err(rules::stale(self.shelf.get(id).map(|row| row.record.clone())))
    }

    pub(super) fn settle(&mut self, s: Settle) -> Result<Reply, Fault> {
        rules::check_settle(&s)?;
        let mut row = match self.held(&s.id, s.token) {
            Ok(row) => row,
            Err(answer) => return Ok(answer),
        };
        self.release(row.seq, row.record.state == State::Running, &s.takes, s.now);
        row.record.losses += u32::from(s.lost);
        if s.state == State::Retry {
            row.record.state = State::Retry;
            row.record.token = None;
            row.record.due = s.due;
            row.record.outcome = Some(s.outcome.clone());
            if let Some(message) = rules::for_next_attempt(&s, row.record.message.clone()) {
                row.record.message = message;
            }
            row.record.message.retries += u32::from(s.memory.is_none());
            row.counted = true;
            self.shelf.put(row);
        } else {
            let mut outcome = s.outcome;
            let result = outcome.result.clone();
            if s.forget_result {
                outcome.result = None;
            }
            row.finish(s.state, outcome, s.now, s.expires_ms);
            self.finished_with(row, result, s.now)?;
        }
        for m in s.follow_ups {
            self.store(m, s.now)?;
        }
        self.remember(s.memos);
        Ok(rules::applied())
    }

    pub(super) fn defer(
        &mut self,
        id: &MessageId,
        token: Token,
        until: Option<Wall>,
        (counted, lost): (bool, bool),
        takes: &[Take],
        now: Wall,
    ) -> Reply {
        let mut row = match self.held(id, token) {
            Ok(row) => row,
            Err(answer) => return answer,
        };
        self.release(row.seq, row.record.state == State::Running, takes, now);
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

    pub(super) fn revoke(&mut self, id: &MessageId, now: Wall) -> Result<Reply, Fault> {
        let open = |r: &Record| !r.state.is_final() && r.token.is_none();
        if self.shelf.get(id).is_some_and(|row| open(&row.record))
            && let Some(mut row) = self.shelf.take_id(id)
        {
            row.finish(State::Revoked, rules::revoked(), now, None);
            self.finished(row, now)?;
        }
        Ok(self.answer(id))
    }

    pub(super) fn requeue(&mut self, id: &MessageId, now: Wall) -> Result<Reply, Fault> {
        match self.shelf.get(id) {
            Some(row) if row.slim => return Err(rules::arguments_gone(id)),
            Some(row) if row.record.state.is_final() => {
                let (seq, claim) = (row.seq, row.record.message.unique.as_ref());
                if let Some(holder) = claim.and_then(|c| self.in_the_way(c, now)) {
                    let record = self.shelf.get(&holder).map(|row| Box::new(row.record.clone()));
                    return Ok(Reply::Taken { of: id.clone(), holder, record });
                }
                self.revive(seq, None, None, now)?;
            }
            _ => {}
        }
        Ok(self.answer(id))
    }

    pub(super) fn purge(&mut self, queue: &str, now: Wall) -> Result<Reply, Fault> {
        let open = |row: &&Row| {
            let r = &row.record;
            r.message.queue == queue && !r.state.is_final() && r.token.is_none()
        };
        let seqs: Vec<u64> = self.shelf.rows().filter(open).map(|row| row.seq).collect();
        for seq in &seqs {
            if let Some(mut row) = self.shelf.take(*seq) {
                row.finish(State::Revoked, rules::revoked(), now, None);
                self.finished(row, now)?;
            }
        }
        Ok(Reply::Purged(seqs.len() as u64))
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
                self.release(row.seq, true, &[], Wall(0));
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
