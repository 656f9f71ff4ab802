//! What time does: messages become due, expire, and are forgotten.

use std::collections::BTreeSet;

use super::Model;
use crate::broker::{joins, rules};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply, Retention};
use crate::model::state::State;
use crate::model::time::Wall;

impl Model {
    pub(super) fn sweep(&mut self, now: Wall, retention: Retention) -> Result<Reply, Fault> {
        let mut left = rules::SWEEP_ROWS;
        joins::sweep(self, now, &mut left)?;
        let expired = self.expire(now, &mut left)?;
        let queues = self.wake(now, &mut left);
        let (age, count) = (retention.age_ms, retention.count);
        let aged = now.0.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));

        let over = head(&self.shelf.kept_own, Some(now), &mut left);
        self.outlive(over, now);
        let over = head(&self.shelf.kept_default, Some(Wall(aged)), &mut left);
        self.outlive(over, now);
        let mut excess = usize_of((self.shelf.kept.len() as u64).saturating_sub(count)).min(left);
        left -= excess;
        let over = head(&self.shelf.kept, None, &mut excess);
        self.outlive(over, now);

        let aged = now.0.saturating_sub(i64::try_from(retention.dead_age_ms).unwrap_or(i64::MAX));
        let over = head(&self.shelf.dead, Some(Wall(aged)), &mut left);
        self.outlive(over, now);
        let dead = self.shelf.dead.len() as u64;
        let mut excess = usize_of(dead.saturating_sub(retention.dead_count)).min(left);
        left -= excess;
        let over = head(&self.shelf.dead, None, &mut excess);
        self.outlive(over, now);

        let forgotten = now.0.saturating_sub(rules::ID_KEPT_MS as i64);
        for seq in head(&self.shelf.slim, Some(Wall(forgotten)), &mut left) {
            self.shelf.take(seq);
        }
        let ids = count.saturating_mul(rules::IDS_PER_RECORD);
        let mut excess = usize_of((self.shelf.slim.len() as u64).saturating_sub(ids)).min(left);
        left -= excess;
        for seq in head(&self.shelf.slim, None, &mut excess) {
            self.shelf.take(seq);
        }
        self.flows.forget(now, count, &mut left);
        self.forget_rates(now, &mut left);
        Ok(Reply::Swept { queues, expired, next: self.next(), more: left == 0 })
    }

    pub(super) fn known(&mut self, tasks: &[String]) -> Reply {
        let matches =
            |task: &str| tasks.iter().any(|t| t == task || crate::model::name::glob_matches(t, task));
        let declared = |seq: &u64| self.shelf.at(*seq).is_some_and(|row| matches(&row.record.message.task));
        let seqs: Vec<u64> =
            self.shelf.unknown.iter().copied().filter(declared).take(rules::SWEEP_ROWS).collect();
        let more = seqs.len() == rules::SWEEP_ROWS;
        let mut queues = BTreeSet::new();
        for seq in seqs {
            if let Some(mut row) = self.shelf.take(seq) {
                row.unknown = false;
                queues.insert(row.record.message.queue.clone());
                self.shelf.put(row);
            }
        }
        let queues = queues.into_iter().collect();
        Reply::Swept { queues, expired: Vec::new(), next: self.next(), more }
    }

    fn expire(&mut self, now: Wall, left: &mut usize) -> Result<Vec<MessageId>, Fault> {
        let mut expired = Vec::new();
        for seq in head(&self.shelf.expires, Some(now), left) {
            if let Some(mut row) = self.shelf.take(seq) {
                row.finish(State::Expired, rules::expired(), now, None);
                expired.push(row.record.message.id.clone());
                self.finished(row, now)?;
            }
        }
        Ok(expired)
    }

    fn wake(&mut self, now: Wall, left: &mut usize) -> Vec<String> {
        let mut queues = BTreeSet::new();
        for seq in head(&self.shelf.due, Some(now), left) {
            let ready = self.ready_again(now);
            if let Some(mut row) = self.shelf.take(seq) {
                row.record.state = State::Waiting;
                row.record.due = None;
                if row.counted {
                    row.rank = rules::rank(ready, row.record.message.priority);
                }
                queues.insert(row.record.message.queue.clone());
                self.shelf.put(row);
            }
        }
        queues.into_iter().collect()
    }

    fn outlive(&mut self, seqs: Vec<u64>, now: Wall) {
        for seq in seqs {
            self.shelf.outlive(seq, now);
        }
    }

    fn next(&self) -> Option<Wall> {
        let first = |index: &BTreeSet<(Wall, u64)>| index.first().map(|(at, _)| *at);
        [first(&self.shelf.due), first(&self.shelf.expires)].into_iter().flatten().min()
    }
}

/// The first rows of an index up to a time, at most `left`, which they lower.
fn head(index: &BTreeSet<(Wall, u64)>, until: Option<Wall>, left: &mut usize) -> Vec<u64> {
    let within = index.iter().take_while(|(at, _)| until.is_none_or(|u| *at <= u));
    let seqs: Vec<u64> = within.take(*left).map(|(_, seq)| *seq).collect();
    *left -= seqs.len();
    seqs
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
