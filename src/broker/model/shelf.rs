//! The rows of the model and the indexes over them: the same ones that a database would keep.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::Claims;
use super::lanes::Lane;
use crate::broker::rules;
use crate::model::message::{Record, Token};
use crate::model::name::MessageId;
use crate::model::op::QueueCount;
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;

/// One id and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What clients see.
    pub record: Record,
    /// Order of acceptance; a new life gets a new one.
    pub seq: u64,
    /// Place in its queue, smaller first.
    pub rank: i64,
    /// The next lease raises `attempt`, and a deferred message gets a new place when it is due.
    pub counted: bool,
    /// In its queue's `unknown` set.
    pub unknown: bool,
    /// Fired by a schedule, and waits for the end of what it fired before.
    pub held: bool,
    /// Retention of its own, once it is finished.
    pub expires_at: Option<Wall>,
    /// Finished, and its arguments and outcome are dropped.
    pub slim: bool,
}

impl Row {
    /// Ends the message's life.
    pub(super) fn finish(&mut self, state: State, outcome: Outcome, now: Wall, expires_ms: Option<u64>) {
        self.record.state = state;
        self.record.token = None;
        self.record.due = None;
        self.record.finished = Some(now);
        self.record.outcome = Some(outcome);
        self.unknown = false;
        self.held = false;
        // What was given up on is kept for longer than what a task's own retention says.
        self.expires_at = expires_ms.filter(|_| state != State::Dead).map(|ms| now.plus(ms));
    }

    /// The lane it waits in, if it has one.
    pub(super) fn lane_key(&self) -> Option<LaneKey> {
        let m = &self.record.message;
        m.lane.as_ref().map(|lane| (m.queue.clone(), m.task.clone(), lane.clone()))
    }

    fn class(&self) -> Class {
        let r = &self.record;
        if r.state.is_final() {
            return match r.state {
                _ if self.slim => Class::Slim,
                State::Dead => Class::Dead,
                _ => Class::Kept,
            };
        }
        if r.token.is_some() {
            return Class::Leased;
        }
        match r.state {
            _ if self.held => Class::Held,
            State::Scheduled | State::Retry => Class::Scheduled,
            _ if self.unknown => Class::Unknown,
            _ => Class::Waiting,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Waiting,
    Scheduled,
    Held,
    Leased,
    Unknown,
    Kept,
    Dead,
    Slim,
}

/// Queue, task and value of a lane.
pub(super) type LaneKey = (String, String, String);

/// All rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    rows: BTreeMap<u64, Row>,
    ids: BTreeMap<MessageId, u64>,
    /// What waits in lanes, and the lanes.
    waiting: BTreeMap<LaneKey, BTreeSet<(i64, u64)>>,
    lanes: BTreeMap<LaneKey, Lane>,
    turn: u64,
    /// Per queue, what can be leased and has no lane.
    pub ready: BTreeMap<String, BTreeSet<(i64, u64)>>,
    /// SCHEDULED and RETRY by when they are due.
    pub due: BTreeSet<(Wall, u64)>,
    /// What is not leased and has an `expires`.
    pub expires: BTreeSet<(Wall, u64)>,
    /// What is leased.
    pub leased: BTreeMap<Token, u64>,
    /// What is in an `unknown` set.
    pub unknown: BTreeSet<u64>,
    /// Finished and kept, by when they finished: all, those of the default retention, and those of
    /// their own by when that is over.
    pub kept: BTreeSet<(Wall, u64)>,
    pub kept_default: BTreeSet<(Wall, u64)>,
    pub kept_own: BTreeSet<(Wall, u64)>,
    /// Finished as DEAD and kept, by when.
    pub dead: BTreeSet<(Wall, u64)>,
    /// Who holds which key.
    pub claims: Claims,
    /// Id records by when they finished.
    pub slim: BTreeSet<(Wall, u64)>,
    /// What is not final, by the schedule that fired it.
    fires: BTreeMap<String, BTreeSet<u64>>,
    counts: BTreeMap<String, QueueCount>,
    live: usize,
}

impl Shelf {
    pub(super) fn get(&self, id: &MessageId) -> Option<&Row> {
        self.rows.get(self.ids.get(id)?)
    }

    pub(super) fn at(&self, seq: u64) -> Option<&Row> {
        self.rows.get(&seq)
    }

    /// Newest last.
    pub(super) fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.values()
    }

    /// What a schedule fired and is not final, oldest first.
    pub(super) fn fires(&self, schedule: &str) -> impl Iterator<Item = u64> {
        self.fires.get(schedule).into_iter().flatten().copied()
    }

    /// Whether no message is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.live == 0
    }

    /// What `max_length` bounds: all of a queue that did not start.
    pub(super) fn length(&self, queue: &str) -> u64 {
        let idle = |seq: &&u64| {
            let fits = |r: &Record| r.message.queue == queue && r.state != State::Running;
            self.rows.get(seq).is_some_and(|row| fits(&row.record))
        };
        let leased = self.leased.values().filter(idle).count() as u64;
        self.counts.get(queue).map_or(0, |c| c.waiting + c.scheduled) + leased
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = &QueueCount> {
        self.counts.values()
    }

    /// Whether this row may be handed out as far as its `expires` goes.
    pub(super) fn is_fresh(&self, seq: u64, now: Wall) -> bool {
        self.at(seq).is_some_and(|row| row.record.message.expires.is_none_or(|e| e > now))
    }

    /// The first messages of a lane.
    pub(super) fn fresh_of(&self, key: &LaneKey, most: usize, now: Wall) -> Vec<(i64, u64)> {
        let waiting = self.waiting.get(key).into_iter().flatten();
        waiting.filter(|(_, seq)| self.is_fresh(*seq, now)).take(most).copied().collect()
    }

    /// The lanes of a queue.
    pub(super) fn lanes_of_mut(&mut self, queue: &str) -> impl Iterator<Item = (&LaneKey, &mut Lane)> {
        self.lanes.iter_mut().filter(move |(key, _)| key.0 == queue)
    }

    /// All lanes.
    pub(super) fn lanes_mut(&mut self) -> impl Iterator<Item = (&LaneKey, &mut Lane)> {
        self.lanes.iter_mut()
    }

    pub(super) fn all_lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.values_mut()
    }

    pub(super) fn lane_mut(&mut self, key: &LaneKey) -> Option<&mut Lane> {
        self.lanes.get_mut(key)
    }

    /// A lease served this lane: it goes behind the others.
    pub(super) fn served(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key) {
            self.turn += 1;
            lane.turn = self.turn;
        }
    }

    /// Drops an open lane in which nothing waits; whether it did.
    pub(super) fn drop_if_empty(&mut self, key: &LaneKey) -> bool {
        !self.waiting.contains_key(key) && self.lanes.remove(key).is_some()
    }

    /// Takes a row out, with every index entry; [`Self::put`] brings it back changed.
    pub(super) fn take(&mut self, seq: u64) -> Option<Row> {
        let row = self.rows.remove(&seq)?;
        self.ids.remove(&row.record.message.id);
        self.index(&row, false);
        Some(row)
    }

    pub(super) fn take_id(&mut self, id: &MessageId) -> Option<Row> {
        let seq = *self.ids.get(id)?;
        self.take(seq)
    }

    pub(super) fn put(&mut self, row: Row) {
        self.claims.follow(row.seq, row.record.state);
        self.index(&row, true);
        self.ids.insert(row.record.message.id.clone(), row.seq);
        self.rows.insert(row.seq, row);
    }

    /// Drops the payload of a finished row, or the whole row where its id need not be known any more.
    pub(super) fn outlive(&mut self, seq: u64, now: Wall) {
        let Some(mut row) = self.take(seq) else { return };
        let finished = row.record.finished.unwrap_or_default();
        if finished.plus(rules::ID_KEPT_MS) > now {
            row.record = rules::slim(row.record);
            row.slim = true;
            row.expires_at = None;
            self.put(row);
        }
    }

    fn index(&mut self, row: &Row, add: bool) {
        let (r, seq) = (&row.record, row.seq);
        let class = row.class();
        match class {
            Class::Waiting if r.message.lane.is_some() => {
                let Some(key) = row.lane_key() else { return };
                let waiting = self.waiting.entry(key.clone()).or_default();
                set(waiting, (row.rank, seq), add);
                if waiting.is_empty() {
                    self.waiting.remove(&key);
                }
                if add && !self.lanes.contains_key(&key) {
                    self.turn += 1;
                    self.lanes.insert(key, Lane { turn: self.turn, ..Lane::default() });
                }
            }
            Class::Waiting => {
                let ready = self.ready.entry(r.message.queue.clone()).or_default();
                set(ready, (row.rank, seq), add);
                if ready.is_empty() {
                    self.ready.remove(&r.message.queue);
                }
            }
            Class::Held => {}
            Class::Scheduled => set(&mut self.due, (r.due.unwrap_or_default(), seq), add),
            Class::Leased => {
                let token = r.token.unwrap_or(Token(0));
                if add {
                    self.leased.insert(token, seq);
                } else {
                    self.leased.remove(&token);
                }
            }
            Class::Unknown => {
                if add {
                    self.unknown.insert(seq);
                } else {
                    self.unknown.remove(&seq);
                }
            }
            Class::Kept => {
                let finished = r.finished.unwrap_or_default();
                set(&mut self.kept, (finished, seq), add);
                match row.expires_at {
                    Some(at) => set(&mut self.kept_own, (at, seq), add),
                    None => set(&mut self.kept_default, (finished, seq), add),
                }
            }
            Class::Dead => set(&mut self.dead, (r.finished.unwrap_or_default(), seq), add),
            Class::Slim => set(&mut self.slim, (r.finished.unwrap_or_default(), seq), add),
        }
        if matches!(class, Class::Kept | Class::Slim) {
            return;
        }
        if !matches!(class, Class::Leased | Class::Dead)
            && let Some(expires) = r.message.expires
        {
            set(&mut self.expires, (expires, seq), add);
        }
        if let Some(fired) = r.message.fired.as_ref().filter(|_| class != Class::Dead) {
            let fires = self.fires.entry(fired.schedule.clone()).or_default();
            if add {
                fires.insert(seq);
            } else {
                fires.remove(&seq);
            }
            if fires.is_empty() {
                self.fires.remove(&fired.schedule);
            }
        }
        if class != Class::Dead {
            self.live = if add { self.live + 1 } else { self.live.saturating_sub(1) };
        }
        let queue = &r.message.queue;
        let count = self
            .counts
            .entry(queue.clone())
            .or_insert_with(|| QueueCount { queue: queue.clone(), ..QueueCount::default() });
        let n = match class {
            Class::Waiting => &mut count.waiting,
            Class::Scheduled | Class::Held => &mut count.scheduled,
            Class::Leased => &mut count.leased,
            Class::Dead => &mut count.dead,
            _ => &mut count.unknown,
        };
        *n = if add { *n + 1 } else { n.saturating_sub(1) };
        if count.waiting + count.scheduled + count.leased + count.unknown + count.dead == 0 {
            self.counts.remove(queue);
        }
    }
}

fn set<K: Ord>(index: &mut BTreeSet<(K, u64)>, key: (K, u64), add: bool) {
    if add {
        index.insert(key);
    } else {
        index.remove(&key);
    }
}
