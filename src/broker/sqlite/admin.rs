//! Calls that take long and wait for their answer, from any thread: backup, verify, export, import.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::writer::Request;
use super::{Counters, Stats, letters, reader};
use crate::link::sqlite::{self as link, OpenError};
use crate::model::letters::LetterFilter;
use crate::model::message::{Message, Record};
use crate::model::op::Fault;

/// Messages of one import transaction.
const IMPORT_STEP: usize = 500;

/// A handle to the open store for threads that may wait.
#[derive(Clone, Debug)]
pub struct Admin {
    file: PathBuf,
    requests: Sender<Request>,
    counters: Arc<Counters>,
}

impl Admin {
    pub(super) fn new(file: PathBuf, requests: Sender<Request>, counters: Arc<Counters>) -> Self {
        Self { file, requests, counters }
    }

    /// Counters since the store was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counters;
        Stats {
            ops: get(&c.ops),
            commits: get(&c.commits),
            durable_commits: get(&c.durable_commits),
            reopened: get(&c.reopened),
            idle_checkpoints: get(&c.idle_checkpoints),
        }
    }

    /// Writes a consistent copy of the store, as it is at one moment, to a file that must not exist. Work
    /// goes on meanwhile. The copy has mode 0600 and is on the disk at return.
    ///
    /// # Errors
    /// [`OpenError`] naming the file that could not be read or written.
    pub fn backup(&self, to: &Path) -> Result<(), OpenError> {
        // Refuses a file that is there, and gives the new one its mode.
        let exclusive = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        exclusive.map_err(|e| OpenError::of_io(to, "create", e))?;
        let copied = self.copy(to);
        if copied.is_err() {
            let _ = fs::remove_file(to);
        }
        copied
    }

    fn copy(&self, to: &Path) -> Result<(), OpenError> {
        let from = link::reader(&self.file).map_err(|e| OpenError::of_sqlite(&self.file, &e))?;
        let failed = |e: rusqlite::Error| OpenError::of_sqlite(to, &e);
        let mut copy = Connection::open(to).map_err(failed)?;
        {
            let backup = Backup::new(&from, &mut copy).map_err(failed)?;
            // In one step it reads one snapshot; in several, every commit would start it over.
            match backup.step(-1).map_err(failed)? {
                StepResult::Done => {}
                other => {
                    let detail = format!("the copy did not complete ({other:?})");
                    return Err(OpenError::Sqlite { file: to.to_owned(), detail });
                }
            }
        }
        // Alone, without a log beside it.
        let mode = copy.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get::<_, String>(0));
        mode.map_err(failed)?;
        drop(copy);
        let sync = |path: &Path| fs::File::open(path).and_then(|f| f.sync_all());
        let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(to).and_then(|()| sync(parent)).map_err(|e| OpenError::of_io(to, "sync", e))
    }

    /// Checks the whole store: SQLite's own check, every row, and the counters in memory. Empty: sound.
    #[must_use]
    pub fn verify(&self) -> Vec<String> {
        let mut found = self.verify_file().unwrap_or_else(|e| vec![format!("the store cannot be read: {e}")]);
        match self.ask(Request::Audit) {
            Ok(differences) => found.extend(differences),
            Err(fault) => found.push(fault.to_string()),
        }
        found
    }

    fn verify_file(&self) -> rusqlite::Result<Vec<String>> {
        let c = link::reader(&self.file)?;
        let mut statement = c.prepare("PRAGMA integrity_check(100)")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut found: Vec<String> = lines.collect::<Result<_, _>>()?;
        found.retain(|line| line != "ok");
        found.extend(reader::faults_of_rows(&c)?);
        Ok(found)
    }

    /// Hands out every record that is not final, oldest first, until the callback answers false. A slow
    /// callback holds nothing up. Answers how many there were.
    ///
    /// # Errors
    /// [`Fault`] where the store cannot be read.
    pub fn export(&self, cb: &mut dyn FnMut(Record) -> bool) -> Result<u64, Fault> {
        reader::export(&self.file, cb)
    }

    /// How many workflows are not over: [`Self::export`] has their messages and not what is to follow these.
    ///
    /// # Errors
    /// [`Fault`] where the store cannot be read.
    pub fn open_workflows(&self) -> Result<u64, Fault> {
        reader::open_workflows(&self.file)
    }

    /// Hands out dead letters that the filter means, oldest first and `most` of them, each as its new life would
    /// begin, until the callback answers false. Answers how many there were.
    ///
    /// # Errors
    /// [`Fault`] where the store cannot be read.
    pub fn export_letters(
        &self,
        filter: &LetterFilter,
        most: u64,
        cb: &mut dyn FnMut(Message) -> bool,
    ) -> Result<u64, Fault> {
        letters::export(&self.file, filter, most, cb)
    }

    /// Stores messages of another store, each with the attempts it has had; a known id changes nothing, so
    /// a repeat after a fault is safe. Answers how many were new.
    ///
    /// # Errors
    /// [`Fault`]; what came before in the list may be stored then.
    pub fn import(&self, messages: Vec<(Message, u32)>, now: crate::model::time::Wall) -> Result<u64, Fault> {
        let mut new = 0;
        let mut messages = messages.into_iter();
        loop {
            let part: Vec<_> = messages.by_ref().take(IMPORT_STEP).collect();
            if part.is_empty() {
                return Ok(new);
            }
            new += self.ask(|reply| Request::Import(part, now, reply))?;
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T, Fault>>) -> Request) -> Result<T, Fault> {
        let gone = || Fault::Refused("the store is closed".to_owned());
        let (reply, answer) = mpsc::channel();
        self.requests.send(request(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}
