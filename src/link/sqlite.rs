//! Connections to an SQLite file: the settings that durability hangs on, each one checked after it was set.

pub mod refusal;
pub mod state_dir;

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use refusal::OpenError;

/// What an SQLite error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No space left (`SQLITE_FULL`): nothing was written.
    Full,
    /// Reading or writing failed: the handle cannot be trusted any more, what it wrote last may or may
    /// not be there.
    Io,
    /// The file may not be written.
    ReadOnly,
    /// The file is damaged.
    Corrupt,
    /// Somebody else holds it, or memory is short: later it works.
    Busy,
    /// This statement with these values cannot work.
    Statement,
}

/// Sorts an error by what to do next (result codes: <https://sqlite.org/rescode.html>).
#[must_use]
pub fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::Full,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed) => {
            Trouble::Io
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Trouble::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Corrupt,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => Trouble::Busy,
        _ => Trouble::Statement,
    }
}

/// Whether a commit reaches the disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// fsync at each commit: it survives a power cut.
    Disk,
    /// It survives a killed process; the next commit to disk carries it along.
    Process,
}

/// Opens the one connection that writes. The file is created where it is not there.
///
/// # Errors
/// [`OpenError`], also where SQLite itself would go on in silence (a journal mode that was not taken).
pub fn writer(file: &Path) -> Result<Connection, OpenError> {
    let failed = |e: rusqlite::Error| OpenError::of_sqlite(file, &e);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let c = Connection::open_with_flags(file, flags).map_err(failed)?;
    c.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    // A failing switch to WAL is no error for SQLite: it answers the mode that is in force.
    let mode: String = c.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::JournalMode { file: file.to_owned(), got: mode });
    }
    // The cache is the only memory that grows with use; a mapped file would count as ours (PSS) and would
    // turn I/O errors into SIGBUS. Checkpoints are the writer's: another thread's would let the WAL grow
    // without end under load.
    c.execute_batch(
        "PRAGMA cache_size=-8000; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=OFF; \
         PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=67108864;",
    )
    .map_err(failed)?;
    set_checkpoints(&c, true).map_err(failed)?;
    // Without it SQLite compiles a statement anew each time a bound value changed that its plan might hang on.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    set_durability(&c, Durability::Disk).map_err(failed)?;
    let sync: i64 = c.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failed)?;
    if sync != 2 {
        return Err(OpenError::JournalMode { file: file.to_owned(), got: format!("synchronous={sync}") });
    }
    c.set_prepared_statement_cache_capacity(96);
    Ok(c)
}

/// Opens a connection that cannot write, with a small cache of its own.
///
/// # Errors
/// SQLite's.
pub fn reader(file: &Path) -> rusqlite::Result<Connection> {
    // Not SQLITE_OPEN_READ_ONLY: such a connection cannot make the shared-memory index where it is not there.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let c = Connection::open_with_flags(file, flags)?;
    c.busy_timeout(std::time::Duration::from_secs(5))?;
    c.execute_batch(
        "PRAGMA query_only=ON; PRAGMA cache_size=-1000; PRAGMA mmap_size=0; PRAGMA temp_store=FILE;",
    )?;
    Ok(c)
}

/// Chooses what the next transaction's commit is worth. Not inside a transaction.
///
/// # Errors
/// SQLite's.
pub fn set_durability(c: &Connection, durability: Durability) -> rusqlite::Result<()> {
    c.execute_batch(match durability {
        Durability::Disk => "PRAGMA synchronous=FULL",
        Durability::Process => "PRAGMA synchronous=NORMAL",
    })
}

/// Whether a commit moves the log into the file once it has 4,000 pages (16 MB). Off where the disk is full:
/// the file would take the space that the log needs, and a half-moved log cannot be used anew.
///
/// # Errors
/// SQLite's.
pub fn set_checkpoints(c: &Connection, on: bool) -> rusqlite::Result<()> {
    c.execute_batch(if on { "PRAGMA wal_autocheckpoint=4000" } else { "PRAGMA wal_autocheckpoint=0" })
}

/// Moves the whole write-ahead log into the file and empties it. False: a reader kept a part of it.
///
/// # Errors
/// SQLite's.
pub fn checkpoint(c: &Connection) -> rusqlite::Result<bool> {
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}
