//! Why the embedded store is not opened: what, where, why, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::{Trouble, trouble};

/// Why a store is not opened. Nothing is ever replaced by an empty queue.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not there.
    #[error("the state directory {} does not exist; create it and give it to the user that taskd runs as (install -d -m 0750 -o USER {})", .dir.display(), .dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// Something else stands there.
    #[error("{} is not a directory; `state_dir` must name one", .dir.display())]
    NotADirectory {
        /// What was given.
        dir: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("the state directory {} belongs to uid {owner}, but taskd's daemon runs as uid {me}; run it as its owner, or hand it over with all it contains (chown -R {me} {})", .dir.display(), .dir.display())]
    Owner {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who wants to open it.
        me: u32,
    },
    /// No permission.
    #[error("no permission for {}; it must be readable and writable for uid {me}", .path.display())]
    Denied {
        /// The file or directory.
        path: PathBuf,
        /// Who wants to open it.
        me: u32,
    },
    /// The file system or the file is read-only.
    #[error("{} cannot be written: its file system is mounted read-only; mount it read-write, or set `state_dir` elsewhere", .path.display())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
    },
    /// No space left.
    #[error("no space left on {}; free some (the store needs at least 16 MiB)", .path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
    },
    /// A file system that other machines share.
    #[error("the state directory {} is on a network file system ({kind}), which does not give the locks and the shared memory that the store needs; set `state_dir` on a local disk", .dir.display())]
    Network {
        /// The directory.
        dir: PathBuf,
        /// The file system's kind.
        kind: &'static str,
    },
    /// Somebody else has it open.
    #[error("the store in {} is already open by pid {}; only one taskd may use a state directory (stop the other one, or set another `state_dir`)", .dir.display(), .pid.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other process, if it wrote its pid.
        pid: Option<u32>,
    },
    /// There was a store here and it is gone.
    #[error("the store {} is gone or empty, but {} says that there was one; put it back (from a backup), or delete {} to begin with an empty store", .file.display(), .marker.display(), .marker.display())]
    Vanished {
        /// The store.
        file: PathBuf,
        /// What says so.
        marker: PathBuf,
    },
    /// Another store stands here.
    #[error("the store {} is not the one that {} names; put the right one back, or delete {} if this one was put here on purpose", .file.display(), .marker.display(), .marker.display())]
    Replaced {
        /// The store.
        file: PathBuf,
        /// What names the right one.
        marker: PathBuf,
    },
    /// The file is shorter than it says.
    #[error("the store {} is damaged: it is cut off ({has} of {wants} bytes); restore a backup, or move it away together with its -wal file and store.id to begin with an empty store", .file.display())]
    Truncated {
        /// The store.
        file: PathBuf,
        /// Its size in bytes.
        has: u64,
        /// What its header says.
        wants: u64,
    },
    /// The file is something else.
    #[error("{} is not a taskd store ({why}); move it away, or restore a backup", .file.display())]
    NotAStore {
        /// The file.
        file: PathBuf,
        /// How it is known.
        why: String,
    },
    /// The file is damaged.
    #[error("the store {} is damaged: {detail}; restore a backup, or move it away together with its -wal file and store.id to begin with an empty store", .file.display())]
    Corrupt {
        /// The store.
        file: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// A later version of taskd wrote it.
    #[error("the store {} was written by a newer taskd (its schema is {found}, this version knows up to {known}); install that version again, or restore a backup that an older one made", .file.display())]
    Newer {
        /// The store.
        file: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// SQLite did not take a setting that durability hangs on.
    #[error("the store {} could not be switched to write-ahead logging (in force: {got}); its file system must give shared memory and locks: set `state_dir` on a local disk", .file.display())]
    JournalMode {
        /// The store.
        file: PathBuf,
        /// What is in force.
        got: String,
    },
    /// Anything else that the system said.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// A verb: what was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Anything else that SQLite said.
    #[error("cannot open the store {}: {detail}", .file.display())]
    Sqlite {
        /// The store.
        file: PathBuf,
        /// What SQLite said.
        detail: String,
    },
}

impl OpenError {
    /// Sorts what the system said.
    #[must_use]
    pub fn of_io(path: &Path, what: &'static str, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path, me: nix::unistd::geteuid().as_raw() },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { path, what, error },
        }
    }

    /// Sorts what SQLite said.
    #[must_use]
    pub fn of_sqlite(file: &Path, error: &rusqlite::Error) -> Self {
        let path = file.to_owned();
        match (trouble(error), error.sqlite_error_code()) {
            (_, Some(rusqlite::ErrorCode::NotADatabase)) => {
                Self::NotAStore { file: path, why: error.to_string() }
            }
            (Trouble::Full, _) => Self::NoSpace { path },
            (Trouble::ReadOnly, _) => Self::Denied { path, me: nix::unistd::geteuid().as_raw() },
            (Trouble::Corrupt, _) => Self::Corrupt { file: path, detail: error.to_string() },
            _ => Self::Sqlite { file: path, detail: error.to_string() },
        }
    }
}
