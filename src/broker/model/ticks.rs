//! Schedules: what becomes of planned times, and of the messages that they stored.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::shelf::Row as Stored;
use crate::broker::rules;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply};
use crate::model::schedule::{
    Became, Change, MAX_HELD, MAX_ROWS, MAX_RUNNING, Overlap, Row, Skip, Tick, Ticked, fire_id,
};
use crate::model::state::State;
use crate::model::time::Wall;

/// Stores a message for a time, once.
impl Model {
    pub(super) fn once(&mut self, key: String, at: Wall, message: Message) -> Result<Reply, Fault> {
        let done = self.schedules.ticks.entry(key).or_default();
        let forgotten = done.len() >= rules::TICKS_KEPT && done.first().is_some_and(|first| at < *first);
        if forgotten || !done.insert(at) {
            return Ok(Reply::Once(false));
        }
        if done.len() > rules::TICKS_KEPT {
            done.pop_first();
        }
        let now = message.enqueued;
        self.store(message, now)?;
        Ok(Reply::Once(true))
    }
}

/// Beside the messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedules {
    rows: BTreeMap<String, Row>,
    ticks: BTreeMap<String, BTreeSet<Wall>>,
}

impl Model {
    /// Every planned time that is recorded of a schedule.
    pub fn ticks(&self, schedule: &str) -> impl Iterator<Item = Wall> {
        self.schedules.ticks.get(schedule).into_iter().flatten().copied()
    }

    pub(super) fn tick(&mut self, t: Tick) -> Result<Reply, Fault> {
        let name = t.schedule.as_str();
        let row = self.schedules.rows.get(name).cloned().unwrap_or_else(|| Row::new(name, t.planned));
        let id = fire_id(name, t.planned, row.lap);
        let told = |became| {
            Ok(Reply::Ticked(Ticked { id: id.clone(), became, running: Vec::new(), revoked: Vec::new() }))
        };
        if self.is_recorded(&t) {
            let running = if t.overlap == Overlap::Replace { self.before(name, &id) } else { Vec::new() };
            return Ok(Reply::Ticked(Ticked { id, became: Became::Known, running, revoked: Vec::new() }));
        }
        if row.paused.is_some() {
            return told(Became::Paused);
        }
        self.record(&t);
        let live: Vec<u64> = self.shelf.fires(name).collect();
        let skip = self.skip(&t, &live);
        if skip.is_some() || self.shelf.get(&id).is_some() {
            self.row(name, t.planned).tick(t.planned, t.pause_after, None);
            return told(skip.map_or(Became::Known, Became::Skipped));
        }
        let revoked = if t.overlap == Overlap::Replace { self.make_room(&live, t.now)? } else { Vec::new() };
        let others: Vec<u64> = self.shelf.fires(name).collect();
        let waits = t.overlap != Overlap::Allow && !others.is_empty();
        self.row(name, t.planned).tick(t.planned, t.pause_after, Some(id.clone()));
        self.store(rules::fired(&t, row.lap, waits), t.now)?;
        let is_over = self.shelf.get(&id).is_none_or(|row| row.record.state.is_final());
        let became = match waits {
            _ if is_over => Became::Skipped(Skip::KeyHeld),
            true => Became::Held,
            false => Became::Fired,
        };
        let replaces = t.overlap == Overlap::Replace;
        let running = if replaces { self.ids(&others) } else { Vec::new() };
        Ok(Reply::Ticked(Ticked { id, became, running, revoked }))
    }

    fn row(&mut self, name: &str, until: Wall) -> &mut Row {
        self.schedules.rows.entry(name.to_owned()).or_insert_with(|| Row::new(name, until))
    }

    fn is_recorded(&self, t: &Tick) -> bool {
        let Some(ticks) = self.schedules.ticks.get(&t.schedule) else { return false };
        ticks.contains(&t.planned)
            || rules::is_forgotten(ticks.len(), ticks.first().copied(), t.planned, t.now)
    }

    fn record(&mut self, t: &Tick) {
        let ticks = self.schedules.ticks.entry(t.schedule.clone()).or_default();
        let last = ticks.last().copied();
        if ticks.len() >= rules::TICKS_KEPT {
            if last.is_some_and(|last| rules::drops_last(last, t.now)) {
                ticks.pop_last();
            } else {
                ticks.pop_first();
            }
        }
        ticks.insert(t.planned);
    }

    /// Why nothing is stored.
    fn skip(&self, t: &Tick, live: &[u64]) -> Option<Skip> {
        let first = live.first().and_then(|seq| self.shelf.at(*seq));
        match (t.overlap, first) {
            (Overlap::Skip, Some(row)) => return Some(Skip::Running(row.record.message.id.clone())),
            (Overlap::Queue, Some(_)) if self.held_of(live) >= MAX_HELD => return Some(Skip::TooMany),
            _ => {}
        }
        let queue = &t.message.queue;
        let max_length = t.max_length.filter(|max| self.shelf.length(queue) + 1 > *max)?;
        Some(Skip::QueueFull { queue: queue.clone(), max_length })
    }

    fn held_of(&self, live: &[u64]) -> usize {
        live.iter().filter(|seq| self.shelf.at(**seq).is_some_and(|row| row.held)).count()
    }

    fn ids(&self, seqs: &[u64]) -> Vec<MessageId> {
        let id = |seq: &u64| self.shelf.at(*seq).map(|row| row.record.message.id.clone());
        seqs.iter().filter_map(id).take(MAX_RUNNING).collect()
    }

    /// What is leased of a schedule and came before this message of it.
    fn before(&self, name: &str, id: &MessageId) -> Vec<MessageId> {
        let Some(own) = self.shelf.get(id).filter(|row| !row.record.state.is_final()) else {
            return Vec::new();
        };
        let leased = |seq: &u64| self.shelf.at(*seq).is_some_and(|row| row.record.token.is_some());
        let before: Vec<u64> =
            self.shelf.fires(name).take_while(|seq| *seq < own.seq).filter(leased).collect();
        self.ids(&before)
    }

    /// Revokes what is not leased, the latest first, so that nothing is released on the way.
    fn make_room(&mut self, live: &[u64], now: Wall) -> Result<Vec<MessageId>, Fault> {
        let mut revoked = Vec::new();
        for seq in live.iter().rev() {
            if self.shelf.at(*seq).is_some_and(|row| row.record.token.is_none())
                && let Some(mut row) = self.shelf.take(*seq)
            {
                revoked.push(row.record.message.id.clone());
                row.finish(State::Revoked, rules::superseded(), now, None);
                self.finished(row, now)?;
            }
        }
        Ok(revoked)
    }

    /// Puts a row back that just ended, with what follows from that for its schedule.
    pub(super) fn put_finished(&mut self, row: Stored, now: Wall) {
        let (message, state) = (&row.record.message, row.record.state);
        let ended = message.fired.as_ref().map(|f| (f.schedule.clone(), message.id.clone()));
        self.shelf.put(row);
        let Some((name, id)) = ended else { return };
        self.row(&name, now).end(&id, state, now);
        let live: Vec<u64> = self.shelf.fires(&name).collect();
        if self.held_of(&live) < live.len() {
            return;
        }
        let ready = self.clock.max(now);
        if let Some(mut row) = live.first().and_then(|seq| self.shelf.take(*seq)) {
            self.clock = ready;
            row.record.state = State::Waiting;
            row.held = false;
            row.rank = rules::rank(ready, row.record.message.priority);
            self.shelf.put(row);
        }
    }

    pub(super) fn schedule_rows(&self, after: &str) -> Reply {
        let behind = self.schedules.rows.values().filter(|row| row.name.as_str() > after);
        let counted = |row: &Row| {
            let live: Vec<u64> = self.shelf.fires(&row.name).collect();
            Row { live: live.len() as u64, held: self.held_of(&live) as u64, ..row.clone() }
        };
        Reply::Schedules(behind.take(MAX_ROWS).map(counted).collect())
    }

    pub(super) fn change_schedules(&mut self, changes: Vec<Change>) {
        for change in changes {
            let name = change.name().to_owned();
            match &change {
                Change::Forget { .. } => {
                    if self.shelf.fires(&name).next().is_none() {
                        self.schedules.rows.remove(&name);
                        self.schedules.ticks.remove(&name);
                    }
                    continue;
                }
                Change::Rewind { to, .. } => {
                    if let Some(ticks) = self.schedules.ticks.get_mut(&name) {
                        ticks.retain(|planned| planned <= to);
                    }
                }
                _ => {}
            }
            change.apply(self.row(&name, Wall(0)));
        }
    }
}
