//! The embedded store: one SQLite file in WAL mode, one thread that writes it.
//!
//! Many operations share one commit and so one fsync: whatever arrived while the last commit was on its way
//! to the disk is the next transaction (group commit). Operations that need survive only a killed process
//! (leases, starts, deferrals) are committed without an fsync when no durable one is among them.
//!
//! Everything but List is answered by the writer, in order. List may look at every row, so a second thread
//! answers it with a connection that cannot write, opened for that answer and given each List only after
//! the operations before it are committed; export, backup and verify run on their caller's thread alike.

mod admin;
mod claims;
mod flows;
mod joins;
mod lanes;
mod ledger;
mod letters;
mod lives;
mod open;
mod reader;
mod row;
mod schema;
mod shelf;
mod side;
mod sweep;
mod ticks;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use admin::Admin;

use super::Broker;
use super::done::Done;
pub use super::done::OnDone;
use super::model::CAPS;
pub use crate::link::sqlite::OpenError;
use crate::model::op::{Caps, Fault, Op, Ticket};
use writer::Request;

/// A point at which a fault can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All was written, nothing is committed: an error here means "not applied".
    BeforeCommit,
    /// It is committed: an error here means "applied, but the submitter is told otherwise".
    AfterCommit,
    /// The file is opened anew after a fault.
    Reopen,
}

/// Answers, at each [`Moment`], the SQLite result code to fail with, if any.
pub type Failpoint = Box<dyn FnMut(Moment) -> Option<i32> + Send>;

/// How a store is opened.
#[derive(Default)]
pub struct Options {
    /// Fault injection, for tests.
    pub failpoint: Option<Failpoint>,
}

/// Counters of a life of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations answered.
    pub ops: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Those that waited for the disk.
    pub durable_commits: u64,
    /// Times that the file was opened anew after a fault.
    pub reopened: u64,
    /// Times that the whole log was moved into the file while nothing was to do.
    pub idle_checkpoints: u64,
}

#[derive(Debug, Default)]
struct Counters {
    ops: AtomicU64,
    commits: AtomicU64,
    durable_commits: AtomicU64,
    reopened: AtomicU64,
    idle_checkpoints: AtomicU64,
    /// Why nothing new can be written now.
    trouble: Mutex<Option<String>>,
}

fn raise(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The embedded store. Dropping it closes it in order.
pub struct Sqlite {
    requests: Sender<Request>,
    admin: Admin,
    done: Done,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the store in this directory, which must exist and belong to the user of this process; makes
    /// a new one where there never was one. `on_done` is called on the store's threads and must not block.
    ///
    /// # Errors
    /// [`OpenError`]: what, where, why, and what to do.
    pub fn open(dir: &Path, options: Options, on_done: OnDone) -> Result<Self, OpenError> {
        let (dir, shelf) = open::open(dir)?;
        let file = dir.file();
        let spawn_failed = |error| OpenError::Io { path: file.clone(), what: "start a thread for", error };
        let done = Done::new(on_done);
        let counters = Arc::new(Counters::default());
        let (requests, received) = mpsc::channel();
        let (lists, lists_received) = mpsc::channel();
        let reader = reader::Reader { file: file.clone(), done: done.clone(), counters: counters.clone() };
        let reader = std::thread::Builder::new()
            .name("taskd-store-rd".to_owned())
            .spawn(move || reader.run(&lists_received))
            .map_err(spawn_failed)?;
        let writer = writer::Writer::new(
            dir,
            shelf,
            received,
            lists,
            done.clone(),
            counters.clone(),
            options.failpoint,
        );
        let writer = std::thread::Builder::new()
            .name("taskd-store".to_owned())
            .spawn(move || writer.run())
            .map_err(spawn_failed)?;
        let admin = Admin::new(file.clone(), requests.clone(), counters.clone());
        Ok(Self { requests, admin, done, counters, threads: vec![writer, reader] })
    }

    /// For other threads: calls that take long and wait for their answer.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// See [`Admin::backup`].
    ///
    /// # Errors
    /// As there.
    pub fn backup(&self, to: &Path) -> Result<(), OpenError> {
        self.admin.backup(to)
    }

    /// See [`Admin::verify`].
    #[must_use]
    pub fn verify(&self) -> Vec<String> {
        self.admin.verify()
    }

    /// See [`Admin::export`].
    ///
    /// # Errors
    /// As there.
    pub fn export(&self, cb: &mut dyn FnMut(crate::model::message::Record) -> bool) -> Result<u64, Fault> {
        self.admin.export(cb)
    }

    /// Counters since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.admin.stats()
    }

    /// Why nothing new can be written now, in a sentence; `None` while all is well. It lasts as long as its
    /// cause, whatever operations succeed meanwhile.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.counters.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finishes what was submitted, moves the log into the file and closes it.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // The writer is gone already only if it panicked.
        let _ = self.requests.send(Request::Close);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Broker for Sqlite {
    fn submit(&mut self, ops: Vec<(Ticket, Op)>) {
        if let Err(mpsc::SendError(Request::Ops(ops))) = self.requests.send(Request::Ops(ops)) {
            self.done.gone(ops);
        }
    }

    fn caps(&self) -> Caps {
        CAPS
    }
}
