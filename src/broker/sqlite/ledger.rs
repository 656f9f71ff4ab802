//! What the writer keeps in memory of the store: counters, never rows.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::broker::rules;
use crate::model::message::Token;
use crate::model::op::QueueCount;
use crate::model::state::State;
use crate::model::time::Wall;

/// What a row of `live` counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Waiting,
    Scheduled,
    /// Leased and not started.
    Leased,
    /// Leased and started.
    Running,
    Unknown,
}

/// The class of a row that is not leased.
pub(super) fn idle_class(state: State, unknown: bool) -> Class {
    match state {
        State::Scheduled | State::Retry => Class::Scheduled,
        _ if unknown => Class::Unknown,
        _ => Class::Waiting,
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    waiting: u64,
    scheduled: u64,
    leased: u64,
    running: u64,
    unknown: u64,
    /// Rows of `done` that are kept as dead letters.
    dead: u64,
    paused: bool,
}

impl Counts {
    fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Waiting => &mut self.waiting,
            Class::Scheduled => &mut self.scheduled,
            Class::Leased => &mut self.leased,
            Class::Running => &mut self.running,
            Class::Unknown => &mut self.unknown,
        }
    }
}

/// `kept` of a dead letter.
pub(super) const DEAD: i64 = 3;

/// The number of a queue: its key in the table and its index here.
pub(super) type QueueNo = usize;

/// The part of [`Ledger`] that a transaction changes; cloned at its start, put back if it fails.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Figures {
    /// The latest row.
    pub seq: i64,
    /// The latest token.
    pub token: i64,
    /// The store's clock: when something became ready last.
    pub clock: Wall,
    /// Rows of `live`.
    pub live: u64,
    /// Those of them that schedules fired.
    pub fires: u64,
    /// Rows of `done` with their payload.
    pub kept: u64,
    /// Of these rows, those that are dead letters, which [`Self::kept`] does not count.
    pub dead: u64,
    /// Rows of `done` without.
    pub slim: u64,
    /// Rows of `claim`.
    pub claims: u64,
    /// Rows of `flow`.
    pub flows: u64,
    /// Steps of workflows that are over.
    pub spent: u64,
    /// The latest turn of a lane.
    pub turn: i64,
    /// Rows of `lane`.
    pub lanes: u64,
    /// Rows of `place`.
    pub places: u64,
    counts: Vec<Counts>,
}

/// Counters, rebuilt from the indexes when the store is opened.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    pub f: Figures,
    names: Vec<String>,
    numbers: BTreeMap<String, QueueNo>,
    saved: (i64, i64, Wall),
}

impl Ledger {
    /// Reads everything anew.
    pub(super) fn load(c: &Connection) -> rusqlite::Result<Self> {
        let mut l = Self::default();
        let (seq, token, clock) = c.query_row("SELECT seq, token, clock FROM meta", [], |row| {
            Ok((row.get(0)?, row.get(1)?, Wall(row.get(2)?)))
        })?;
        (l.f.seq, l.f.token, l.f.clock) = (seq, token, clock);
        l.saved = (seq, token, clock);
        let mut queues = c.prepare("SELECT name, paused FROM queue ORDER BY no")?;
        let mut rows = queues.query([])?;
        while let Some(row) = rows.next()? {
            let no = l.learn(row.get(0)?);
            l.set_paused(no, row.get(1)?);
        }
        // Each is answered from an index; of what is leased, which is little, the rows are read too.
        for (class, sql) in [
            (
                Class::Waiting,
                "SELECT queue, count(*) FROM live INDEXED BY live_ready \
                 WHERE state = 1 AND token IS NULL AND unknown IS NULL AND lane IS NULL GROUP BY queue",
            ),
            (
                Class::Waiting,
                "SELECT queue, count(*) FROM live INDEXED BY live_laned \
                 WHERE state = 1 AND token IS NULL AND unknown IS NULL AND lane IS NOT NULL GROUP BY queue",
            ),
            (
                Class::Scheduled,
                "SELECT queue, count(*) FROM live INDEXED BY live_due WHERE due IS NOT NULL GROUP BY queue",
            ),
            (
                Class::Scheduled,
                "SELECT queue, count(*) FROM fire JOIN live ON live.seq = fire.seq WHERE held = 1 GROUP BY queue",
            ),
            (
                Class::Leased,
                "SELECT queue, count(*) FROM live INDEXED BY live_leased \
                 WHERE token IS NOT NULL AND state <> 2 GROUP BY queue",
            ),
            (
                Class::Running,
                "SELECT queue, count(*) FROM live INDEXED BY live_leased \
                 WHERE token IS NOT NULL AND state = 2 GROUP BY queue",
            ),
            (
                Class::Unknown,
                "SELECT queue, count(*) FROM live INDEXED BY live_unknown \
                 WHERE unknown IS NOT NULL GROUP BY queue",
            ),
        ] {
            let mut statement = c.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let n = row.get::<_, i64>(1)?.unsigned_abs();
                if let Some(counts) = l.f.counts.get_mut(index(row.get(0)?)) {
                    *counts.of(class) += n;
                }
                l.f.live += n;
            }
        }
        let lanes = "SELECT coalesce(max(turn), 0), count(*), (SELECT count(*) FROM place) FROM lane";
        (l.f.turn, l.f.lanes, l.f.places) = c.query_row(lanes, [], |row| {
            let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok((row.get(0)?, count(1)?, count(2)?))
        })?;
        let done = |sql: &str| c.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        l.f.fires = done("SELECT count(*) FROM fire")?;
        l.f.kept = done("SELECT count(*) FROM done WHERE kept IN (1, 2)")?;
        l.f.claims = done("SELECT count(*) FROM claim")?;
        let mut dead = c.prepare("SELECT queue, count(*) FROM done WHERE kept = 3 GROUP BY queue")?;
        let mut rows = dead.query([])?;
        while let Some(row) = rows.next()? {
            let n = row.get::<_, i64>(1)?.unsigned_abs();
            if let Some(counts) = l.f.counts.get_mut(index(row.get(0)?)) {
                counts.dead = n;
            }
            l.f.dead += n;
        }
        l.f.slim = done("SELECT count(*) FROM done WHERE kept = 0")?;
        l.f.flows = done("SELECT count(*) FROM flow")?;
        l.f.spent = done("SELECT coalesce(sum(steps), 0) FROM flow WHERE expires IS NOT NULL")?;
        Ok(l)
    }

    /// Writes what must survive, if it changed.
    pub(super) fn save(&mut self, c: &Connection) -> rusqlite::Result<()> {
        let now = (self.f.seq, self.f.token, self.f.clock);
        if now != self.saved {
            c.prepare_cached("UPDATE meta SET seq = ?1, token = ?2, clock = ?3")?
                .execute((now.0, now.1, now.2.0))?;
            self.saved = now;
        }
        Ok(())
    }

    /// Goes back to what was there before a transaction that failed.
    pub(super) fn restore(&mut self, before: Figures) {
        while self.names.len() > before.counts.len() {
            if let Some(name) = self.names.pop() {
                self.numbers.remove(&name);
            }
        }
        self.saved = (before.seq, before.token, before.clock);
        self.f = before;
    }

    fn learn(&mut self, name: String) -> QueueNo {
        let no = self.names.len();
        self.numbers.insert(name.clone(), no);
        self.names.push(name);
        self.f.counts.push(Counts::default());
        no
    }

    /// The number of a queue that has ever held something.
    pub(super) fn number(&self, name: &str) -> Option<QueueNo> {
        self.numbers.get(name).copied()
    }

    /// The number of a queue, new where it is not known.
    pub(super) fn number_or_new(&mut self, c: &Connection, name: &str) -> rusqlite::Result<QueueNo> {
        if let Some(no) = self.number(name) {
            return Ok(no);
        }
        let no = self.names.len() as i64;
        c.execute("INSERT INTO queue(no, name, paused) VALUES (?1, ?2, 0)", (no, name))?;
        Ok(self.learn(name.to_owned()))
    }

    /// The name of a queue.
    pub(super) fn name(&self, no: QueueNo) -> &str {
        self.names.get(no).map_or("", String::as_str)
    }

    pub(super) fn is_paused(&self, no: QueueNo) -> bool {
        self.f.counts.get(no).is_some_and(|c| c.paused)
    }

    pub(super) fn set_paused(&mut self, no: QueueNo, paused: bool) {
        if let Some(c) = self.f.counts.get_mut(no) {
            c.paused = paused;
        }
    }

    /// A row came into this class.
    pub(super) fn enter(&mut self, no: QueueNo, class: Class) {
        self.f.live += 1;
        if let Some(c) = self.f.counts.get_mut(no) {
            *c.of(class) += 1;
        }
    }

    /// A row left this class.
    pub(super) fn leave(&mut self, no: QueueNo, class: Class) {
        self.f.live = self.f.live.saturating_sub(1);
        if let Some(c) = self.f.counts.get_mut(no) {
            let n = c.of(class);
            *n = n.saturating_sub(1);
        }
    }

    /// A finished row of this `kept` came.
    pub(super) fn add_kept(&mut self, no: QueueNo, kept: i64) {
        if kept != DEAD {
            self.f.kept += 1;
            return;
        }
        self.f.dead += 1;
        if let Some(c) = self.f.counts.get_mut(no) {
            c.dead += 1;
        }
    }

    /// A finished row of this `kept` went, or lost its payload.
    pub(super) fn forget_kept(&mut self, no: QueueNo, kept: i64) {
        if kept != DEAD {
            self.f.kept = self.f.kept.saturating_sub(1);
            return;
        }
        self.f.dead = self.f.dead.saturating_sub(1);
        if let Some(c) = self.f.counts.get_mut(no) {
            c.dead = c.dead.saturating_sub(1);
        }
    }

    /// What `max_length` bounds: all of a queue that did not start. What a node leased ahead waits like the
    /// rest.
    pub(super) fn length(&self, no: QueueNo) -> u64 {
        self.f.counts.get(no).map_or(0, |c| c.waiting + c.scheduled + c.leased)
    }

    /// The answer to Count.
    pub(super) fn counts(&self) -> Vec<QueueCount> {
        let count = |(name, no): (&String, &QueueNo)| {
            let c = self.f.counts.get(*no).filter(|c| **c != Counts::default())?;
            Some(QueueCount {
                queue: name.clone(),
                waiting: c.waiting,
                scheduled: c.scheduled,
                leased: c.leased + c.running,
                unknown: c.unknown,
                dead: c.dead,
                paused: c.paused,
            })
        };
        self.numbers.iter().filter_map(count).collect()
    }

    pub(super) fn next_token(&mut self) -> Token {
        self.f.token += 1;
        Token(self.f.token)
    }

    /// The place of a stored message that becomes ready: a wall clock that goes back reorders nothing.
    pub(super) fn rank_again(&mut self, now: Wall, priority: u8) -> i64 {
        self.f.clock = self.f.clock.max(now);
        rules::rank(self.f.clock, priority)
    }

    /// The place of a new message; an empty store follows the wall clock back.
    pub(super) fn rank_new(&mut self, now: Wall, priority: u8) -> i64 {
        self.f.clock = if self.f.live == 0 { now } else { self.f.clock.max(now) };
        rules::rank(self.f.clock, priority)
    }

    /// How the figures of a fresh load differ from these.
    pub(super) fn differences(&self, fresh: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (no, name) in self.names.iter().enumerate() {
            let (ours, theirs) = (self.f.counts.get(no), fresh.f.counts.get(no));
            if ours != theirs {
                found.push(format!("queue {name}: counted {ours:?}, stored {theirs:?}"));
            }
        }
        let ours = (self.f.lanes, self.f.places);
        let theirs = (fresh.f.lanes, fresh.f.places);
        if ours != theirs {
            found.push(format!("limits (lanes, places): counted {ours:?}, stored {theirs:?}"));
        }
        let rows = |f: &Figures| (f.live, f.fires, f.kept, f.dead, f.slim, f.claims, f.flows, f.spent);
        let (ours, theirs) = (rows(&self.f), rows(&fresh.f));
        if ours != theirs {
            found.push(format!(
                "rows (live, of schedules, finished, dead, ids, claims, workflows, steps of workflows that are over): counted {ours:?}, \
                 stored {theirs:?}"
            ));
        }
        found
    }
}

/// A queue's number as it stands in a table.
pub(super) fn index(no: i64) -> QueueNo {
    usize::try_from(no).unwrap_or(usize::MAX)
}
