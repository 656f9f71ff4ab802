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
const MIGRATIONS: &[&str] = &[V1, MEMOS, SCHEDULES];

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

// What is known of schedules, as JSON; and which rows of `live` they fired. One that is `held` waits for the end of
// those before it: it is SCHEDULED without a time at which it is due, so no index hands it out.
const SCHEDULES: &str = "
CREATE TABLE schedule(name TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE fire(seq INTEGER PRIMARY KEY, schedule TEXT NOT NULL, held INTEGER NOT NULL);
CREATE INDEX fire_schedule ON fire(schedule, held);
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
