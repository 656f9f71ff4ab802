//! The store's tables, and how an older store becomes one of this version.
//!
//! The version stands in `user_version` and the owner in `application_id`, both in the file's header, so
//! that they are readable before anything else and change in the same transaction as the tables.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::link::sqlite::OpenError;

/// `task` in ASCII: what file(1) and other programs can tell the store by.
const APPLICATION_ID: i64 = 0x7461_736b;

/// One step per version: entry n leads from version n to n + 1. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[V1, MEMOS, CLAIMS, DEAD, FLOWS, LIMITS, SCHEDULES, FIRED_FLOWS];

// `live` holds what is not final, `done` what is. `seq` is the order of acceptance and stays the row's key
// in both, so one descending scan of either lists newest first. Long messages stand in `body`, where the
// updates of a lease do not rewrite them. Every index of `live` but the first is partial and static: a row
// is in `live_ready` exactly while it can be handed out, and its place there never needs ageing (see
// `rules::rank`). Ids that are UUIDs are 16 bytes; those of version 7 are appended at the index's end.
const V1: &str = "
CREATE TABLE meta(
  one INTEGER PRIMARY KEY CHECK (one = 1), store TEXT NOT NULL,
  seq INTEGER NOT NULL, token INTEGER NOT NULL, clock INTEGER NOT NULL);
CREATE TABLE queue(no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL);
CREATE TABLE live(
  seq INTEGER PRIMARY KEY, id NOT NULL, queue INTEGER NOT NULL, state INTEGER NOT NULL,
  rank INTEGER NOT NULL, priority INTEGER NOT NULL, counted INTEGER NOT NULL, attempt INTEGER NOT NULL,
  losses INTEGER NOT NULL, retries INTEGER NOT NULL, token INTEGER, due INTEGER, expires INTEGER,
  started INTEGER, unknown TEXT, message BLOB, outcome BLOB);
CREATE UNIQUE INDEX live_id ON live(id);
CREATE INDEX live_ready ON live(queue, rank) WHERE state = 1 AND token IS NULL AND unknown IS NULL;
CREATE INDEX live_due ON live(due, queue) WHERE due IS NOT NULL;
CREATE INDEX live_expires ON live(expires) WHERE expires IS NOT NULL AND token IS NULL;
CREATE UNIQUE INDEX live_leased ON live(token) WHERE token IS NOT NULL;
CREATE INDEX live_unknown ON live(unknown, queue) WHERE unknown IS NOT NULL;
CREATE TABLE body(seq INTEGER PRIMARY KEY, message BLOB NOT NULL);
CREATE TABLE done(
  seq INTEGER PRIMARY KEY, id NOT NULL, queue INTEGER NOT NULL, state INTEGER NOT NULL,
  kept INTEGER NOT NULL, attempt INTEGER NOT NULL, losses INTEGER NOT NULL, retries INTEGER NOT NULL,
  started INTEGER, finished INTEGER NOT NULL, expires INTEGER, message BLOB, outcome BLOB);
CREATE UNIQUE INDEX done_id ON done(id);
CREATE INDEX done_age ON done(kept, finished);
CREATE INDEX done_own ON done(expires) WHERE expires IS NOT NULL;
CREATE TABLE permit(key TEXT NOT NULL, holder TEXT NOT NULL, PRIMARY KEY (key, holder)) WITHOUT ROWID;
CREATE TABLE tick(
  schedule TEXT NOT NULL, planned INTEGER NOT NULL, PRIMARY KEY (schedule, planned)) WITHOUT ROWID;
CREATE TABLE node(name TEXT PRIMARY KEY, announce TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
";

// Small facts of the engine's, by key.
const MEMOS: &str = "CREATE TABLE memo(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

// Keys that unique messages claim, under the number of their row in `live`: `holds` as in `claims::code`, `held`
// whether it does now.
const CLAIMS: &str = "
CREATE TABLE claim(
  seq INTEGER PRIMARY KEY, key TEXT NOT NULL, holds INTEGER NOT NULL, held INTEGER NOT NULL, until INTEGER);
CREATE INDEX claim_held ON claim(key) WHERE held = 1;
";

// Dead letters (state 8) have a retention of their own: `kept` is 3.
const DEAD: &str = "UPDATE done SET kept = 3, expires = NULL WHERE state = 8 AND kept > 0;";

// Workflows. A step's row is written at each end before it, so what is large stands beside it: what is launched
// in `plan`, for those that come after another one, and results that are to be given to others in `passed`. A
// workflow that is being forgotten has no id. `work` is what an operation left for a sweep, in its order.
const FLOWS: &str = "
CREATE TABLE flow(
  no INTEGER PRIMARY KEY AUTOINCREMENT, id UNIQUE, name TEXT NOT NULL, uid INTEGER, launched INTEGER NOT NULL,
  steps INTEGER NOT NULL, open INTEGER NOT NULL, failed INTEGER NOT NULL, lost INTEGER NOT NULL,
  canceled INTEGER NOT NULL, busy INTEGER NOT NULL, tick INTEGER NOT NULL, keep INTEGER NOT NULL,
  finished INTEGER, expires INTEGER);
CREATE INDEX flow_over ON flow(expires, no) WHERE expires IS NOT NULL;
CREATE INDEX flow_busy ON flow(no) WHERE busy;
CREATE TABLE step(
  flow INTEGER NOT NULL, no INTEGER NOT NULL, stage INTEGER NOT NULL, flags INTEGER NOT NULL,
  pending INTEGER NOT NULL, opened INTEGER NOT NULL, fan INTEGER NOT NULL, id NOT NULL, name TEXT NOT NULL,
  task TEXT NOT NULL, PRIMARY KEY (flow, no)) WITHOUT ROWID;
CREATE TABLE plan(
  flow INTEGER NOT NULL, no INTEGER NOT NULL, step BLOB NOT NULL, PRIMARY KEY (flow, no)) WITHOUT ROWID;
CREATE TABLE passed(
  flow INTEGER NOT NULL, no INTEGER NOT NULL, result BLOB NOT NULL, PRIMARY KEY (flow, no)) WITHOUT ROWID;
CREATE TABLE edge(
  flow INTEGER NOT NULL, source INTEGER NOT NULL, target INTEGER NOT NULL,
  PRIMARY KEY (flow, source, target)) WITHOUT ROWID;
CREATE TABLE work(
  no INTEGER PRIMARY KEY AUTOINCREMENT, flow INTEGER NOT NULL, source INTEGER NOT NULL,
  revive INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, tick INTEGER NOT NULL);
CREATE INDEX work_flow ON work(flow, no);
CREATE INDEX work_source ON work(flow, source);
ALTER TABLE live ADD COLUMN flow INTEGER;
ALTER TABLE live ADD COLUMN step INTEGER;
";

// Limits: what waits in lanes stands in an index of its own, and no lease looks at closed lanes. `rate.tat` is
// in microseconds, `place.holder` the row of a leased message.
const LIMITS: &str = "
DROP TABLE permit;
ALTER TABLE live ADD COLUMN lane TEXT;
DROP INDEX live_ready;
CREATE INDEX live_ready ON live(queue, rank)
  WHERE state = 1 AND token IS NULL AND unknown IS NULL AND lane IS NULL;
CREATE INDEX live_laned ON live(queue, lane, rank)
  WHERE state = 1 AND token IS NULL AND unknown IS NULL AND lane IS NOT NULL;
CREATE TABLE lane(
  queue INTEGER NOT NULL, name TEXT NOT NULL, task TEXT NOT NULL, turn INTEGER NOT NULL,
  since INTEGER NOT NULL, open_at INTEGER, blocked TEXT, PRIMARY KEY (queue, name)) WITHOUT ROWID;
CREATE INDEX lane_turn ON lane(queue, task, turn) WHERE open_at IS NULL AND blocked IS NULL;
CREATE INDEX lane_opens ON lane(queue, open_at) WHERE open_at IS NOT NULL;
CREATE INDEX lane_since ON lane(queue, since) WHERE open_at IS NOT NULL;
CREATE INDEX lane_blocked ON lane(blocked) WHERE blocked IS NOT NULL;
CREATE INDEX lane_closed ON lane(task) WHERE (open_at IS NOT NULL OR blocked IS NOT NULL);
CREATE TABLE rate(key TEXT PRIMARY KEY, tat INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX rate_tat ON rate(tat);
CREATE TABLE place(key TEXT NOT NULL, holder INTEGER NOT NULL, PRIMARY KEY (key, holder)) WITHOUT ROWID;
CREATE INDEX place_holder ON place(holder);
";

// What is known of schedules, as JSON; and which rows of `live` they fired. One that is `held` waits for the end of
// those before it: it is SCHEDULED without a time at which it is due, so no index hands it out.
const SCHEDULES: &str = "
CREATE TABLE schedule(name TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE fire(seq INTEGER PRIMARY KEY, schedule TEXT NOT NULL, held INTEGER NOT NULL);
CREATE INDEX fire_schedule ON fire(schedule, held);
";

// What schedules fire may be a workflow: then `fire.flow` says which, and its `seq` is no row of `live`. The schedule
// and the planned time of a workflow stand beside its row, for as long as that is kept.
const FIRED_FLOWS: &str = "
ALTER TABLE fire ADD COLUMN flow INTEGER;
CREATE INDEX fire_flow ON fire(flow) WHERE flow IS NOT NULL;
ALTER TABLE flow ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE flow ADD COLUMN schedule TEXT;
ALTER TABLE flow ADD COLUMN planned INTEGER;
";

/// Brings the store to this version; a new one gets the id that is given. Answers its id.
pub(super) fn prepare(c: &mut Connection, file: &Path, new_id: &str) -> Result<String, OpenError> {
    let failed = |e: rusqlite::Error| OpenError::of_sqlite(file, &e);
    let number = |c: &Connection, sql: &str| c.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    let owner = number(c, "PRAGMA application_id")?;
    let tables = number(c, "SELECT count(*) FROM sqlite_schema")?;
    let version = number(c, "PRAGMA user_version")?;
    if tables > 0 && owner != APPLICATION_ID {
        let why = "it is a database of another program".to_owned();
        return Err(OpenError::NotAStore { file: file.to_owned(), why });
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(OpenError::Newer { file: file.to_owned(), found: version, known });
    }
    if version < known {
        let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
        for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            tx.execute_batch(step).map_err(failed)?;
        }
        tx.execute_batch(&format!("PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={known};"))
            .map_err(failed)?;
        tx.execute("INSERT OR IGNORE INTO meta VALUES (1, ?1, 0, 0, 0)", [new_id]).map_err(failed)?;
        tx.commit().map_err(failed)?;
    }
    let id: Option<String> =
        c.query_row("SELECT store FROM meta", [], |row| row.get(0)).optional().map_err(failed)?;
    id.ok_or_else(|| OpenError::Corrupt {
        file: file.to_owned(),
        detail: "its first table is empty".to_owned(),
    })
}
