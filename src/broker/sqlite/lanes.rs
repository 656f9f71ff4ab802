//! Lanes, rates and places; what they mean stands in [`crate::broker::model`]'s file of the same name.
//!
//! Nothing here looks at what it cannot hand out: closed lanes stand in no index that a lease reads but for
//! the first of those that open by time, so a million blocked keys cost a lease nothing.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Params};

use super::ledger::{Class, QueueNo};
use super::row::{Stored, live_columns};
use super::shelf::{Shelf, Stop};
use crate::broker::rules;
use crate::model::limit::{self, Scope, Take};
use crate::model::message::Token;
use crate::model::name::MessageId;
use crate::model::op::{Reply, Takes};
use crate::model::time::Wall;

/// A lane as a lease looks at it.
struct Turn {
    turn: i64,
    name: String,
}

/// What a lease hands out of the lanes.
#[derive(Default)]
pub(super) struct Picked {
    pub rows: Vec<Stored>,
    /// When the next closed lane opens.
    pub opens: Option<Wall>,
}

impl Shelf {
    /// Something waits in this lane of this queue, if it has one.
    pub(super) fn enter_lane(&mut self, queue: QueueNo, lane: Option<&str>) -> rusqlite::Result<()> {
        let Some(name) = lane else { return Ok(()) };
        let task = name.split_once(' ').map_or(name, |(task, _)| task);
        let turn = self.ledger.f.turn + 1;
        let added = self
            .c
            .prepare_cached(
                "INSERT INTO lane(queue, name, task, turn, since) VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO NOTHING",
            )?
            .execute((queue as i64, name, task, turn))?;
        if added == 1 {
            self.ledger.f.turn = turn;
            self.ledger.f.lanes += 1;
        }
        Ok(())
    }

    /// A lease served this lane: it goes behind the others.
    pub(super) fn served(&mut self, queue: QueueNo, name: &str) -> rusqlite::Result<()> {
        self.ledger.f.turn += 1;
        self.c.prepare_cached("UPDATE lane SET turn = ?3 WHERE queue = ?1 AND name = ?2")?.execute((
            queue as i64,
            name,
            self.ledger.f.turn,
        ))?;
        Ok(())
    }

    pub(super) fn pick_lanes(
        &mut self,
        queue: QueueNo,
        credit: usize,
        now: Wall,
        skip: &[String],
    ) -> Result<Picked, Stop> {
        if self.ledger.f.lanes == 0 {
            return Ok(Picked::default());
        }
        let more = self.open_due(queue, now)?;
        let opens = |shelf: &Self| -> rusqlite::Result<Option<Wall>> {
            let sql = "SELECT open_at FROM lane INDEXED BY lane_opens WHERE queue = ?1 AND open_at IS NOT NULL \
                       ORDER BY open_at LIMIT 1";
            let first: Option<i64> =
                shelf.c.prepare_cached(sql)?.query_row([queue as i64], |row| row.get(0)).optional()?;
            Ok(if more { Some(now) } else { first.map(Wall) })
        };
        for _ in 0..rules::LANE_PASSES {
            let (lanes, cut) = self.turns(queue, credit, skip)?;
            let mut heads: Vec<Vec<usize>> = Vec::with_capacity(lanes.len());
            let mut rows = Vec::new();
            let mut dropped = false;
            // An equal share of each; where some have less, the others are looked at again.
            let most = credit.div_ceil(lanes.len().max(1));
            for lane in &lanes {
                let found = self.heads(queue, &lane.name, most, now)?;
                if found.is_empty() {
                    dropped |= self.drop_if_empty(queue, &lane.name)?;
                }
                heads.push((rows.len()..rows.len() + found.len()).collect());
                rows.extend(found.into_iter().map(Some));
            }
            let mut picks = rules::in_turn(&heads, credit);
            if picks.len() < credit && heads.iter().any(|h| h.len() == most) && most < credit {
                (rows, heads) = (Vec::new(), Vec::new());
                for lane in &lanes {
                    let found = self.heads(queue, &lane.name, credit, now)?;
                    heads.push((rows.len()..rows.len() + found.len()).collect());
                    rows.extend(found.into_iter().map(Some));
                }
                picks = rules::in_turn(&heads, credit);
            }
            let full = picks.len() >= credit || !cut;
            if full || !dropped {
                let opens = if full { opens(self)? } else { Some(now) };
                let rows = picks.into_iter().filter_map(|at| rows.get_mut(at)?.take()).collect();
                return Ok(Picked { rows, opens });
            }
        }
        Ok(Picked { rows: Vec::new(), opens: Some(now) })
    }

    /// Opens what is due, and what was closed later than now: before the clock went back. Whether there may
    /// be more of it.
    fn open_due(&self, queue: QueueNo, now: Wall) -> rusqlite::Result<bool> {
        let most = rules::SWEEP_ROWS as i64;
        let due = self
            .c
            .prepare_cached(
                "UPDATE lane SET open_at = NULL WHERE (queue, name) IN (SELECT queue, name FROM lane \
                 INDEXED BY lane_opens WHERE queue = ?1 AND open_at IS NOT NULL AND open_at <= ?2 LIMIT ?3)",
            )?
            .execute((queue as i64, now.0, most))?;
        let early = self
            .c
            .prepare_cached(
                "UPDATE lane SET open_at = NULL WHERE (queue, name) IN (SELECT queue, name FROM lane \
                 INDEXED BY lane_since WHERE queue = ?1 AND open_at IS NOT NULL AND since > ?2 LIMIT ?3)",
            )?
            .execute((queue as i64, now.0, most))?;
        Ok(due == rules::SWEEP_ROWS || early == rules::SWEEP_ROWS)
    }

    /// The open lanes whose turn it is, at most `most`, and whether there are more.
    fn turns(&self, queue: QueueNo, most: usize, skip: &[String]) -> rusqlite::Result<(Vec<Turn>, bool)> {
        let mut tasks = self.c.prepare_cached(
            "SELECT task FROM lane INDEXED BY lane_turn WHERE queue = ?1 AND task > ?2 AND open_at IS NULL \
             AND blocked IS NULL ORDER BY task LIMIT 1",
        )?;
        let mut lanes = self.c.prepare_cached(
            "SELECT turn, name FROM lane INDEXED BY lane_turn WHERE queue = ?1 AND task = ?2 AND open_at IS NULL \
             AND blocked IS NULL ORDER BY turn LIMIT ?3",
        )?;
        let mut all = Vec::new();
        let mut after = String::new();
        while let Some(task) =
            tasks.query_row((queue as i64, &after), |row| row.get::<_, String>(0)).optional()?
        {
            if !skip.contains(&task) {
                let turn = |row: &rusqlite::Row<'_>| Ok(Turn { turn: row.get(0)?, name: row.get(1)? });
                for lane in lanes.query_map((queue as i64, &task, most as i64 + 1), turn)? {
                    all.push(lane?);
                }
            }
            after = task;
        }
        all.sort_by_key(|lane| lane.turn);
        let cut = all.len() > most;
        all.truncate(most);
        Ok((all, cut))
    }

    /// The first messages of a lane.
    fn heads(&self, queue: QueueNo, lane: &str, most: usize, now: Wall) -> rusqlite::Result<Vec<Stored>> {
        self.c
            .prepare_cached(concat!(
                "SELECT ",
                live_columns!(),
                " FROM live INDEXED BY live_laned WHERE queue = ?1 AND lane = ?2 AND state = 1 AND token IS NULL \
                 AND unknown IS NULL AND lane IS NOT NULL AND (expires IS NULL OR expires > ?3) \
                 ORDER BY rank, seq LIMIT ?4"
            ))?
            .query_map((queue as i64, lane, now.0, most as i64), Stored::of)?
            .collect()
    }

    fn drop_if_empty(&mut self, queue: QueueNo, lane: &str) -> rusqlite::Result<bool> {
        let dropped = self
            .c
            .prepare_cached(
                "DELETE FROM lane WHERE queue = ?1 AND name = ?2 AND NOT EXISTS (SELECT 1 FROM live \
                 INDEXED BY live_laned WHERE queue = ?1 AND lane = ?2 AND state = 1 AND token IS NULL \
                 AND unknown IS NULL AND lane IS NOT NULL)",
            )?
            .execute((queue as i64, lane))?;
        self.ledger.f.lanes = self.ledger.f.lanes.saturating_sub(dropped as u64);
        Ok(dropped == 1)
    }

    pub(super) fn start(
        &mut self,
        id: &MessageId,
        token: Token,
        now: Wall,
        takes: &Takes,
    ) -> Result<Reply, Stop> {
        let Some(row) = self.held(id, token)? else { return self.stale(id) };
        // A repeat under the same token keeps the first time.
        if row.class == Class::Running {
            return Ok(rules::applied());
        }
        if !takes.sure
            && let Some(missing) = self.missing(&takes.list, now)?
        {
            let lane = row.lane.clone();
            return self.set_back(row.seq, row.queue, lane.as_deref(), Some(missing), now);
        }
        self.c
            .prepare_cached("UPDATE live SET started = ?2, state = 2 WHERE seq = ?1")?
            .execute((row.seq, now.0))?;
        self.claim_runs(row.seq)?;
        self.ledger.leave(row.queue, Class::Leased);
        self.ledger.enter(row.queue, Class::Running);
        if takes.list.is_empty() {
            return Ok(rules::applied());
        }
        let mut tats = Vec::new();
        for take in &takes.list {
            match take {
                Take::Rate { key, interval_us, burst } => {
                    let tat = self.tat(key)?;
                    let next =
                        if takes.sure { None } else { limit::take(tat, now, *interval_us, *burst).ok() };
                    let next = next.unwrap_or_else(|| limit::charge(tat, now, *interval_us));
                    self.set_tat(key, next)?;
                    tats.push(next);
                }
                Take::Place { key, .. } => {
                    let taken = self
                        .c
                        .prepare_cached(
                            "INSERT INTO place(key, holder) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                        )?
                        .execute((key, row.seq))?;
                    self.ledger.f.places += taken as u64;
                }
            }
        }
        Ok(Reply::Took(tats))
    }

    pub(super) fn aside(
        &mut self,
        id: &MessageId,
        token: Token,
        lane: Option<&str>,
        blocked: &[Take],
        now: Wall,
    ) -> Result<Reply, Stop> {
        let Some(row) = self.held(id, token)?.filter(|row| row.class == Class::Leased) else {
            return self.stale(id);
        };
        let Some(stored) = self.live(id)? else { return self.stale(id) };
        let mut message = stored.message()?;
        if message.lane.as_deref() != lane {
            message.lane = lane.map(str::to_owned);
            self.replace_message(row.seq, &message)?;
        }
        let missing = self.missing(blocked, now)?;
        self.set_back(row.seq, row.queue, rules::lane_name(&message).as_deref(), missing, now)
    }

    /// Gives a message back into its lane, which is closed where something of its own is missing.
    fn set_back(
        &mut self,
        seq: i64,
        queue: QueueNo,
        lane: Option<&str>,
        missing: Option<(String, Option<Wall>)>,
        now: Wall,
    ) -> Result<Reply, Stop> {
        self.c
            .prepare_cached("UPDATE live SET state = 1, token = NULL, counted = 0, lane = ?2 WHERE seq = ?1")?
            .execute((seq, lane))?;
        self.ledger.leave(queue, Class::Leased);
        self.ledger.enter(queue, Class::Waiting);
        self.enter_lane(queue, lane)?;
        let Some((key, until)) = missing else { return Ok(rules::applied()) };
        if limit::scope(&key) == Scope::Value
            && let Some(lane) = lane
        {
            self.c
                .prepare_cached(
                    "UPDATE lane SET since = ?3, open_at = ?4, blocked = ?5 WHERE queue = ?1 AND name = ?2",
                )?
                .execute((
                    queue as i64,
                    lane,
                    now.0,
                    until.map(|at| at.0),
                    until.is_none().then_some(&key),
                ))?;
        }
        Ok(Reply::Closed { key, until })
    }

    /// The first of these that is not free, and when it is.
    fn missing(&self, takes: &[Take], now: Wall) -> rusqlite::Result<Option<(String, Option<Wall>)>> {
        for take in takes {
            match take {
                Take::Rate { key, interval_us, burst } => {
                    let mut tat = self.tat(key)?;
                    if let Some(right) = tat.and_then(|tat| limit::set_right(tat, now, *interval_us, *burst))
                    {
                        self.set_tat(key, right)?;
                        tat = Some(right);
                    }
                    if let Err(at) = limit::take(tat, now, *interval_us, *burst) {
                        return Ok(Some((key.clone(), Some(at))));
                    }
                }
                Take::Place { key, limit } => {
                    // No further than the limit: a place may have many holders.
                    let sql = "SELECT count(*) FROM (SELECT 1 FROM place WHERE key = ?1 LIMIT ?2)";
                    let held: i64 = self.c.prepare_cached(sql)?.query_row((key, limit), |row| row.get(0))?;
                    if held >= i64::from(*limit) {
                        return Ok(Some((key.clone(), None)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn tat(&self, key: &str) -> rusqlite::Result<Option<i64>> {
        let mut statement = self.c.prepare_cached("SELECT tat FROM rate WHERE key = ?1")?;
        statement.query_row([key], |row| row.get(0)).optional()
    }

    fn set_tat(&self, key: &str, tat: i64) -> rusqlite::Result<()> {
        self.c
            .prepare_cached(
                "INSERT INTO rate(key, tat) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET tat = excluded.tat",
            )?
            .execute((key, tat))?;
        Ok(())
    }

    /// The attempt of this row has ended: what it held is free, and the lanes that waited for it are open.
    /// `takes`: what it took, counted here where its start was not recorded.
    pub(super) fn release(&mut self, seq: i64, started: bool, takes: &[Take], now: Wall) -> Result<(), Stop> {
        for take in takes.iter().filter(|_| !started) {
            if let Take::Rate { key, interval_us, .. } = take {
                let next = limit::charge(self.tat(key)?, now, *interval_us);
                self.set_tat(key, next)?;
            }
        }
        if self.ledger.f.places == 0 {
            return Ok(());
        }
        let free: Vec<String> = self.column("DELETE FROM place WHERE holder = ?1 RETURNING key", [seq])?;
        self.ledger.f.places = self.ledger.f.places.saturating_sub(free.len() as u64);
        for key in free {
            self.c.prepare_cached("UPDATE lane SET blocked = NULL WHERE blocked = ?1")?.execute([key])?;
        }
        Ok(())
    }

    fn column(&self, sql: &str, params: impl Params) -> rusqlite::Result<Vec<String>> {
        self.c.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
    }

    /// Forgets rates that say nothing any more.
    pub(super) fn forget_rates(&self, now: Wall, left: &mut usize) -> Result<(), Stop> {
        let past = self
            .c
            .prepare_cached(
                "DELETE FROM rate WHERE key IN (SELECT key FROM rate WHERE tat <= ?1 ORDER BY tat, key LIMIT ?2)",
            )?
            .execute((now.0.saturating_mul(1_000), *left as i64))?;
        *left = left.saturating_sub(past);
        Ok(())
    }

    pub(super) fn open_lanes(&self, task: Option<&str>) -> Result<Reply, Stop> {
        let sql = "UPDATE lane SET open_at = NULL, blocked = NULL WHERE (queue, name) IN (SELECT queue, name FROM \
                   lane WHERE (open_at IS NOT NULL OR blocked IS NOT NULL) AND (?1 IS NULL OR task = ?1) LIMIT ?2) \
                   RETURNING queue";
        let opened: Vec<i64> = self
            .c
            .prepare_cached(sql)?
            .query_map((task, rules::SWEEP_ROWS as i64), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let more = opened.len() == rules::SWEEP_ROWS;
        let name = |no: i64| self.ledger.name(super::ledger::index(no)).to_owned();
        let queues: BTreeSet<String> = opened.into_iter().map(name).collect();
        Ok(Reply::Swept { queues: queues.into_iter().collect(), expired: Vec::new(), next: None, more })
    }
}

/// What an earlier life may have left: places whose holder is not leased any more, and lanes that wait for
/// a place that nobody holds.
pub(super) fn mend(c: &rusqlite::Connection) -> rusqlite::Result<()> {
    c.execute_batch(
        "DELETE FROM place WHERE holder NOT IN (SELECT seq FROM live WHERE token IS NOT NULL); \
         UPDATE lane SET blocked = NULL WHERE blocked IS NOT NULL AND blocked NOT IN (SELECT key FROM place);",
    )
}
