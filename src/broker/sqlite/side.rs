//! What stands beside the messages: facts, nodes, the state of queues.

use super::shelf::{Shelf, Stop};
use crate::broker::rules;
use crate::model::op::{MAX_MEMOS, Memo};
use crate::model::time::Wall;

impl Shelf {
    pub(super) fn queue_state(&mut self, queue: &str, paused: bool) -> Result<(), Stop> {
        let no = self.ledger.number_or_new(&self.c, queue)?;
        self.c.prepare_cached("UPDATE queue SET paused = ?2 WHERE no = ?1")?.execute((no as i64, paused))?;
        self.ledger.set_paused(no, paused);
        Ok(())
    }

    pub(super) fn remember(&self, memos: &[Memo]) -> Result<(), Stop> {
        for memo in memos {
            match &memo.value {
                Some(value) => self
                    .c
                    .prepare_cached(
                        "INSERT INTO memo(key, value) VALUES (?1, ?2) \
                         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    )?
                    .execute((&memo.key, value))?,
                None => self.c.prepare_cached("DELETE FROM memo WHERE key = ?1")?.execute([&memo.key])?,
            };
        }
        Ok(())
    }

    pub(super) fn recall(&self, prefix: &str, after: &str) -> Result<Vec<Memo>, Stop> {
        let sql = "SELECT key, value FROM memo WHERE key >= ?1 AND key > ?2 AND substr(key, 1, length(?1)) = ?1 \
                   ORDER BY key LIMIT ?3";
        let mut statement = self.c.prepare_cached(sql)?;
        let memo = |row: &rusqlite::Row<'_>| Ok(Memo { key: row.get(0)?, value: Some(row.get(1)?) });
        Ok(statement.query_map((prefix, after, MAX_MEMOS as i64), memo)?.collect::<Result<_, _>>()?)
    }

    pub(super) fn node(
        &self,
        name: &str,
        announce: &str,
        now: Wall,
    ) -> Result<Vec<(String, String, Wall)>, Stop> {
        self.c
            .prepare_cached(
                "INSERT INTO node(name, announce, at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (name) DO UPDATE SET announce = excluded.announce, at = excluded.at",
            )?
            .execute((name, announce, now.0))?;
        let silent = now.0.saturating_sub(rules::NODE_KEPT_MS as i64);
        self.c.prepare_cached("DELETE FROM node WHERE at < ?1")?.execute([silent])?;
        let mut all = self.c.prepare_cached("SELECT name, announce, at FROM node ORDER BY name")?;
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, Wall(row.get(2)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
