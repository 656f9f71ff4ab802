//! The rows of the model and the indexes over them: the same ones that a database would keep.

use std::collections::{BTreeMap, BTreeSet};

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
        self.expires_at = expires_ms.map(|ms| now.plus(ms));
    }

    fn class(&self) -> Class {
        let r = &self.record;
        if r.state.is_final() {
            return if self.slim { Class::Slim } else { Class::Kept };
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
    Slim,
}

/// All rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    rows: BTreeMap<u64, Row>,
    ids: BTreeMap<MessageId, u64>,
    /// Per queue, what can be leased.
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
            Class::Slim => set(&mut self.slim, (r.finished.unwrap_or_default(), seq), add),
        }
        if matches!(class, Class::Kept | Class::Slim) {
            return;
        }
        if class != Class::Leased
            && let Some(expires) = r.message.expires
        {
            set(&mut self.expires, (expires, seq), add);
        }
        if let Some(fired) = &r.message.fired {
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
        self.live = if add { self.live + 1 } else { self.live.saturating_sub(1) };
        let queue = &r.message.queue;
        let count = self
            .counts
            .entry(queue.clone())
            .or_insert_with(|| QueueCount { queue: queue.clone(), ..QueueCount::default() });
        let n = match class {
            Class::Waiting => &mut count.waiting,
            Class::Scheduled | Class::Held => &mut count.scheduled,
            Class::Leased => &mut count.leased,
            _ => &mut count.unknown,
        };
        *n = if add { *n + 1 } else { n.saturating_sub(1) };
        if count.waiting + count.scheduled + count.leased + count.unknown == 0 {
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
