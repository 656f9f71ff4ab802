//! What time and reloads do: messages become due, expire, are declared again, and are forgotten.

use std::collections::BTreeSet;

use rusqlite::OptionalExtension;

use super::ledger::{self, Class, QueueNo};
use super::row::{self, Stored, done_columns, encode, live_columns};
use super::shelf::{Shelf, Stop};
use crate::broker::{joins, rules};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply, Retention};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

/// A purge that goes on over several transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Purge {
    pub queue: QueueNo,
    now: Wall,
    /// What is stored later is not meant.
    until: i64,
    from: i64,
    /// Messages ended so far.
    pub ended: u64,
    done: bool,
    fallout: Fallout,
}

/// Steps of workflows of which a purge says that they ended with it; whoever waits for others looks again by himself.
const PURGE_TOLD: usize = 10_000;

impl Purge {
    /// Whether nothing is left of it.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The answer to it.
    pub(super) fn answer(self) -> Reply {
        rules::with(Reply::Purged(self.ended), self.fallout)
    }
}

/// Rows that one step of a purge looks at: some 20 ms.
const PURGE_ROWS: usize = 2_000;

impl Shelf {
    pub(super) fn sweep(&mut self, now: Wall, retention: Retention) -> Result<Reply, Stop> {
        let mut left = rules::SWEEP_ROWS;
        joins::sweep(self, now, &mut left)?;
        let expired = self.expire(now, &mut left)?;
        let queues = self.wake(now, &mut left)?;
        let aged = now.0.saturating_sub(i64::try_from(retention.age_ms).unwrap_or(i64::MAX));

        let own =
            "SELECT seq FROM done WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires, seq LIMIT ?2";
        self.outlive(own, now.0, now, &mut left)?;
        let default =
            "SELECT seq FROM done WHERE kept = 1 AND finished <= ?1 ORDER BY finished, seq LIMIT ?2";
        self.outlive(default, aged, now, &mut left)?;
        let mut excess = within(self.ledger.f.kept.saturating_sub(retention.count), left);
        left -= excess;
        // Two heads of one index, merged.
        let oldest = "SELECT seq FROM (SELECT * FROM (SELECT seq, finished FROM done WHERE kept = 1 \
                      AND finished <= ?1 ORDER BY finished, seq LIMIT ?2) UNION ALL SELECT * FROM (SELECT seq, \
                      finished FROM done WHERE kept = 2 AND finished <= ?1 ORDER BY finished, seq LIMIT ?2)) \
                      ORDER BY finished, seq LIMIT ?2";
        self.outlive(oldest, i64::MAX, now, &mut excess)?;

        let dead = "SELECT seq FROM done WHERE kept = 3 AND finished <= ?1 ORDER BY finished, seq LIMIT ?2";
        let aged = now.0.saturating_sub(i64::try_from(retention.dead_age_ms).unwrap_or(i64::MAX));
        self.outlive(dead, aged, now, &mut left)?;
        let mut excess = within(self.ledger.f.dead.saturating_sub(retention.dead_count), left);
        left -= excess;
        self.outlive(dead, i64::MAX, now, &mut excess)?;

        let ids = "SELECT seq FROM done WHERE kept = 0 AND finished <= ?1 ORDER BY finished, seq LIMIT ?2";
        self.forget(ids, now.0.saturating_sub(rules::ID_KEPT_MS as i64), &mut left)?;
        let most = retention.count.saturating_mul(rules::IDS_PER_RECORD);
        let mut excess = within(self.ledger.f.slim.saturating_sub(most), left);
        left -= excess;
        self.forget(ids, i64::MAX, &mut excess)?;
        self.forget_flows(now, retention.count, &mut left)?;
        self.forget_rates(now, &mut left)?;
        Ok(Reply::Swept { queues, expired, next: self.next()?, more: left == 0 })
    }

    /// Rows up to a time, at most `left`, which they lower.
    fn head(&self, sql: &str, until: i64, left: &mut usize) -> Result<Vec<i64>, Stop> {
        let mut statement = self.c.prepare_cached(sql)?;
        let seqs: Vec<i64> =
            statement.query_map((until, *left as i64), |row| row.get(0))?.collect::<Result<_, _>>()?;
        *left = left.saturating_sub(seqs.len());
        Ok(seqs)
    }

    fn expire(&mut self, now: Wall, left: &mut usize) -> Result<Vec<MessageId>, Stop> {
        let sql = concat!(
            "SELECT ",
            live_columns!(),
            ", unknown IS NOT NULL AS aside FROM live WHERE expires IS NOT NULL AND token IS NULL AND expires <= ?1 \
             ORDER BY expires, seq LIMIT ?2"
        );
        let rows: Vec<(Stored, bool)> = self
            .c
            .prepare_cached(sql)?
            .query_map((now.0, *left as i64), |row| Ok((Stored::of(row)?, row.get("aside")?)))?
            .collect::<Result<_, _>>()?;
        *left = left.saturating_sub(rows.len());
        let mut expired = Vec::with_capacity(rows.len());
        for (row, unknown) in rows {
            let class = self.class_now(row.seq, row::code(row.state().unwrap_or(State::Waiting)), unknown)?;
            self.ledger.leave(row.queue, class);
            self.finish(row.seq, State::Expired, (&rules::expired(), false), now, None, false)?;
            expired.extend(row.message().ok().map(|m| m.id));
        }
        Ok(expired)
    }

    fn wake(&mut self, now: Wall, left: &mut usize) -> Result<Vec<String>, Stop> {
        let rows: Vec<(i64, QueueNo, bool, u8, Option<String>)> = self
            .c
            .prepare_cached(
                "SELECT seq, queue, counted, priority, lane FROM live WHERE due IS NOT NULL AND due <= ?1 \
                 ORDER BY due, seq LIMIT ?2",
            )?
            .query_map((now.0, *left as i64), |row| {
                Ok((row.get(0)?, ledger::index(row.get(1)?), row.get(2)?, row.get(3)?, row.get(4)?))
            })?
            .collect::<Result<_, _>>()?;
        *left = left.saturating_sub(rows.len());
        let mut queues = BTreeSet::new();
        for (seq, queue, counted, priority, lane) in rows {
            let again = self.ledger.rank_again(now, priority);
            self.c
                .prepare_cached(
                    "UPDATE live SET state = 1, due = NULL, rank = coalesce(?2, rank) WHERE seq = ?1",
                )?
                .execute((seq, counted.then_some(again)))?;
            self.ledger.leave(queue, Class::Scheduled);
            self.ledger.enter(queue, Class::Waiting);
            self.enter_lane(queue, lane.as_deref())?;
            queues.insert(self.ledger.name(queue).to_owned());
        }
        Ok(queues.into_iter().collect())
    }

    /// Drops the payload of finished rows, or the whole row where its id need not be known any more.
    fn outlive(&mut self, sql: &str, until: i64, now: Wall, left: &mut usize) -> Result<(), Stop> {
        for seq in self.head(sql, until, left)? {
            let row = self
                .c
                .prepare_cached(concat!("SELECT ", done_columns!(), " FROM done WHERE seq = ?1"))?
                .query_row([seq], Stored::of)?;
            self.outlive_row(&row, now)?;
        }
        Ok(())
    }

    /// The same for one row.
    pub(super) fn outlive_row(&mut self, row: &Stored, now: Wall) -> Result<(), Stop> {
        let seq = row.seq;
        self.ledger.forget_kept(row.queue, row.flag);
        match row.record() {
            Ok(record) if record.finished.unwrap_or_default().plus(rules::ID_KEPT_MS) > now => {
                let json = encode(&rules::slim(record).message)?;
                self.c
                    .prepare_cached(
                        "UPDATE done SET kept = 0, expires = NULL, message = ?2, outcome = NULL WHERE seq = ?1",
                    )?
                    .execute((seq, json))?;
                self.c.prepare_cached("DELETE FROM body WHERE seq = ?1")?.execute([seq])?;
                self.ledger.f.slim += 1;
            }
            _ => self.drop_done(seq)?,
        }
        Ok(())
    }

    fn forget(&mut self, sql: &str, until: i64, left: &mut usize) -> Result<(), Stop> {
        for seq in self.head(sql, until, left)? {
            self.drop_done(seq)?;
            self.ledger.f.slim = self.ledger.f.slim.saturating_sub(1);
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Wall>, Stop> {
        let first = |sql: &str| -> rusqlite::Result<Option<i64>> {
            self.c.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
        };
        let due = first("SELECT due FROM live WHERE due IS NOT NULL ORDER BY due LIMIT 1")?;
        let expires = first(
            "SELECT expires FROM live WHERE expires IS NOT NULL AND token IS NULL ORDER BY expires LIMIT 1",
        )?;
        Ok([due, expires].into_iter().flatten().min().map(Wall))
    }

    pub(super) fn known(&mut self, tasks: &[String]) -> Result<Reply, Stop> {
        let json = |list: &[&String]| serde_json::to_string(list).map_err(|e| Fault::Refused(e.to_string()));
        let (patterns, names): (Vec<&String>, Vec<&String>) =
            tasks.iter().partition(|task| task.contains(['*', '?']));
        // Names have none of the characters that GLOB alone gives a meaning. Without patterns the index serves.
        let matched = if patterns.is_empty() {
            ""
        } else {
            "OR EXISTS (SELECT 1 FROM json_each(?3) WHERE unknown GLOB value)"
        };
        let rows: Vec<(i64, QueueNo, Option<String>)> = self
            .c
            .prepare_cached(&format!(
                "SELECT seq, queue, lane FROM live WHERE unknown IS NOT NULL AND ?3 IS NOT NULL \
                 AND (unknown IN (SELECT value FROM json_each(?1)) {matched}) ORDER BY seq LIMIT ?2"
            ))?
            .query_map((json(&names)?, rules::SWEEP_ROWS as i64, json(&patterns)?), |row| {
                Ok((row.get(0)?, ledger::index(row.get(1)?), row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let more = rows.len() == rules::SWEEP_ROWS;
        let mut queues = BTreeSet::new();
        for (seq, queue, lane) in rows {
            self.c.prepare_cached("UPDATE live SET unknown = NULL WHERE seq = ?1")?.execute([seq])?;
            self.ledger.leave(queue, Class::Unknown);
            self.ledger.enter(queue, Class::Waiting);
            self.enter_lane(queue, lane.as_deref())?;
            queues.insert(self.ledger.name(queue).to_owned());
        }
        Ok(Reply::Swept {
            queues: queues.into_iter().collect(),
            expired: Vec::new(),
            next: self.next()?,
            more,
        })
    }

    /// A purge of all that waits in a queue now.
    pub(super) fn purge(&self, queue: &str, now: Wall) -> Option<Purge> {
        let queue = self.ledger.number(queue)?;
        Some(Purge {
            queue,
            now,
            until: self.ledger.f.seq,
            from: 0,
            ended: 0,
            done: false,
            fallout: Fallout::default(),
        })
    }

    /// Does a part of a purge.
    pub(super) fn purge_some(&mut self, purge: &mut Purge) -> Result<(), Stop> {
        self.fallout = std::mem::take(&mut purge.fallout);
        let rows: Vec<(i64, QueueNo, bool, i64, bool)> = self
            .c
            .prepare_cached(
                "SELECT seq, queue, token IS NULL, state, unknown IS NOT NULL FROM live \
                 WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
            )?
            .query_map((purge.from, purge.until, PURGE_ROWS as i64), |row| {
                Ok((row.get(0)?, ledger::index(row.get(1)?), row.get(2)?, row.get(3)?, row.get(4)?))
            })?
            .collect::<Result<_, _>>()?;
        purge.done = rows.len() < PURGE_ROWS;
        for (seq, queue, open, code, unknown) in rows {
            purge.from = seq;
            if queue == purge.queue && open {
                let class = self.class_now(seq, code, unknown)?;
                self.ledger.leave(queue, class);
                self.finish(seq, State::Revoked, (&rules::revoked(), false), purge.now, None, false)?;
                purge.ended += 1;
            }
        }
        joins::release(self)?;
        purge.fallout = std::mem::take(&mut self.fallout);
        purge.fallout.ended.truncate(PURGE_TOLD);
        Ok(())
    }
}

fn within(n: u64, left: usize) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX).min(left)
}
