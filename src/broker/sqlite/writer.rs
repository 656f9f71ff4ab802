//! The thread that writes: group commit, and what becomes of a transaction that fails.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::flows::Changes;
use super::ledger::Ledger;
use super::shelf::{Shelf, Stop, begins, is_durable};
use super::sweep::Purge;
use super::{Counters, Done, Failpoint, Moment, open, raise};
use crate::broker::Completion;
use crate::link::sqlite::state_dir::{RECOVERED, StateDir};
use crate::link::sqlite::{self as link, Durability, Trouble};
use crate::model::message::Message;
use crate::model::op::{Fault, Filter, Op, Reply, Ticket};
use crate::model::time::Wall;

/// Most operations of one transaction.
const BATCH: usize = 512;

/// Bytes of messages after which a transaction is committed: the log must stay small against the disk.
const BATCH_BYTES: usize = 4 << 20;

/// Nothing to do for this long: the log is moved into the file, once.
const IDLE: Duration = Duration::from_secs(3);

/// A full disk is looked at again after this.
const FULL: Duration = Duration::from_secs(1);

/// A file that could not be opened anew is not tried again before this.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What other threads ask for.
#[derive(Debug)]
pub(super) enum Request {
    Ops(Vec<(Ticket, Op)>),
    Import(Vec<(Message, u32)>, Wall, Sender<Result<u64, Fault>>),
    Audit(Sender<Result<Vec<String>, Fault>>),
    Close,
}

/// What waits for its transaction.
#[allow(clippy::large_enum_variant, reason = "nearly all of it is operations: a box each would cost more")]
enum Work {
    Op(Ticket, Op),
    Import(Vec<(Message, u32)>, Wall, Sender<Result<u64, Fault>>),
    Audit(Sender<Result<Vec<String>, Fault>>),
}

/// What became of a piece of work inside its transaction.
enum Outcome {
    Op(Result<Reply, Fault>),
    Import(Result<u64, Fault>),
    Audit(Vec<String>),
    /// The reader answers it, after the commit.
    List,
    /// It waits for a purge of its queue.
    Held,
    /// Its purge goes on.
    Purging,
}

/// A purge under way and whom it answers.
#[derive(Clone)]
struct PurgeJob {
    ticket: Ticket,
    purge: Purge,
}

/// A transaction that did not take place.
struct Failed {
    error: rusqlite::Error,
    /// Pieces of work that were in it.
    tried: usize,
    /// It may have been committed all the same.
    unclear: bool,
}

/// Whether there is a handle to write with.
enum Health {
    Up(Box<Shelf>),
    /// Abandoned; tried again at this time.
    Down(String, Instant),
    /// For good.
    Broken(String),
}

/// The thread's state.
pub(super) struct Writer {
    dir: StateDir,
    health: Health,
    /// Device and inode of the file that is open.
    identity: Option<(u64, u64)>,
    received: Receiver<Request>,
    lists: Sender<(Ticket, Filter)>,
    done: Done,
    counters: Arc<Counters>,
    failpoint: Option<Failpoint>,
    backlog: VecDeque<Work>,
    purges: Vec<PurgeJob>,
    /// Leases that wait for a purge of their queue.
    held: Vec<(Ticket, Op)>,
    durability: Durability,
    /// The disk is full: what is left is for the ends of what runs.
    tight: bool,
    /// The file cannot be written although it is open.
    read_only: Option<String>,
    /// The log has something that is not in the file.
    dirty: bool,
    closing: bool,
}

impl Writer {
    pub(super) fn new(
        dir: StateDir,
        shelf: Shelf,
        received: Receiver<Request>,
        lists: Sender<(Ticket, Filter)>,
        done: Done,
        counters: Arc<Counters>,
        failpoint: Option<Failpoint>,
    ) -> Self {
        let identity = identity(&dir);
        Self {
            dir,
            health: Health::Up(Box::new(shelf)),
            identity,
            received,
            lists,
            done,
            counters,
            failpoint,
            backlog: VecDeque::new(),
            purges: Vec::new(),
            held: Vec::new(),
            durability: Durability::Disk,
            tight: false,
            read_only: None,
            dirty: false,
            closing: false,
        }
    }

    /// Until Close.
    pub(super) fn run(mut self) {
        while self.gather() {
            self.transact();
            self.tell_trouble();
        }
        let Health::Up(shelf) = self.health else { return };
        // What cannot be moved now is moved at the next start.
        let moved = link::checkpoint(&shelf.c).unwrap_or(false);
        if shelf.c.close().is_ok() && moved {
            self.dir.closed();
        }
    }

    /// Keeps what [`super::Sqlite::trouble`] tells.
    fn tell_trouble(&self) {
        let now = match &self.health {
            Health::Down(why, _) => {
                Some(format!("the store {} is being opened anew: {why}", self.dir.file().display()))
            }
            Health::Broken(why) => Some(why.clone()),
            Health::Up(_) if self.tight => Some(no_space(&self.dir)),
            Health::Up(_) => self.read_only.clone(),
        };
        let mut told = self.counters.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != now {
            *told = now;
            drop(told);
            self.done.wake();
        }
    }

    /// Waits for something to do. False: nothing is, and never will be.
    fn gather(&mut self) -> bool {
        while self.backlog.is_empty() && self.purges.is_empty() {
            if self.closing {
                return false;
            }
            // Only a log that has something, or a full disk, is a reason to wake up.
            let request = if self.dirty || self.tight {
                match self.received.recv_timeout(if self.tight { FULL } else { IDLE }) {
                    Err(RecvTimeoutError::Timeout) => {
                        if self.tight && self.dir.take_reserve(RECOVERED) {
                            self.set_tight(false);
                        }
                        self.tidy();
                        self.tell_trouble();
                        continue;
                    }
                    other => other.ok(),
                }
            } else {
                self.received.recv().ok()
            };
            self.take(request);
        }
        while self.backlog.len() < 2 * BATCH
            && let Ok(request) = self.received.try_recv()
        {
            self.take(Some(request));
        }
        true
    }

    fn take(&mut self, request: Option<Request>) {
        match request {
            Some(Request::Ops(ops)) => {
                self.backlog.extend(ops.into_iter().map(|(ticket, op)| Work::Op(ticket, op)));
            }
            Some(Request::Import(m, now, reply)) => self.backlog.push_back(Work::Import(m, now, reply)),
            Some(Request::Audit(reply)) => self.backlog.push_back(Work::Audit(reply)),
            Some(Request::Close) | None => self.closing = true,
        }
    }

    /// Nothing was to do for a while: moves the log into the file and gives memory back.
    fn tidy(&mut self) {
        self.dirty = false;
        if self.tight {
            return;
        }
        if let Health::Up(shelf) = &self.health {
            match link::checkpoint(&shelf.c) {
                Ok(true) => {
                    raise(&self.counters.idle_checkpoints, 1);
                    let _ = shelf.c.execute_batch("PRAGMA shrink_memory");
                }
                // A reader is at it: after the next pause.
                Ok(false) => self.dirty = true,
                Err(e) => self.abandon(&e.to_string()),
            }
        }
    }

    /// One transaction, and the answers to all that was in it.
    fn transact(&mut self) {
        self.look_after();
        let tried = match &self.health {
            Health::Broken(why) => Err(Fault::Refused(why.clone())),
            Health::Down(why, _) => Err(Fault::Reconnect(why.clone())),
            Health::Up(_) => Ok(()),
        };
        if let Err(fault) = tried {
            self.refuse(self.backlog.len(), &fault);
            return;
        }
        if self.tight && self.dir.take_reserve(RECOVERED) {
            self.set_tight(false);
        }
        let mut result = self.attempt(BATCH);
        if let Err(failed) = &result
            && link::trouble(&failed.error) == Trouble::Full
            && !failed.unclear
        {
            // Nothing new begins from now on; with the reserve given up, the rest has room.
            self.set_tight(true);
            let _ = self.dir.free_reserve();
            result = self.attempt(BATCH);
        }
        match result {
            Ok(outcomes) => self.answer(outcomes),
            Err(failed) => self.fail(failed),
        }
    }

    /// Does up to `most` pieces of work in one transaction.
    fn attempt(&mut self, most: usize) -> Result<Vec<Outcome>, Failed> {
        let Health::Up(shelf) = &mut self.health else { return Ok(Vec::new()) };
        let durable = !self.purges.is_empty()
            || self.backlog.iter().take(most).any(|work| match work {
                Work::Op(_, op) => is_durable(op),
                Work::Import(..) => true,
                Work::Audit(_) => false,
            });
        let durability = if durable { Durability::Disk } else { Durability::Process };
        let before = (shelf.ledger.f.clone(), self.purges.clone());
        let mut tried = 0;
        let mut committed = false;
        let mut transaction = || -> rusqlite::Result<Vec<Outcome>> {
            if self.durability != durability {
                link::set_durability(&shelf.c, durability)?;
                self.durability = durability;
            }
            shelf.c.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            shelf.bytes = 0;
            let mut outcomes = Vec::with_capacity(self.backlog.len().min(most));
            if let Some(job) = self.purges.first_mut()
                && !job.purge.is_done()
            {
                shelf.purge_some(&mut job.purge).map_err(whole)?;
            }
            for work in self.backlog.iter().take(most) {
                tried += 1;
                outcomes.push(perform(shelf, &mut self.purges, self.tight, &self.dir, work)?);
                if shelf.bytes >= BATCH_BYTES {
                    break;
                }
            }
            shelf.write_flows()?;
            shelf.ledger.save(&shelf.c)?;
            fail_at(&mut self.failpoint, Moment::BeforeCommit)?;
            shelf.c.prepare_cached("COMMIT")?.execute([])?;
            committed = true;
            fail_at(&mut self.failpoint, Moment::AfterCommit)?;
            Ok(outcomes)
        };
        let result = transaction();
        let changed = shelf.ledger.f != before.0;
        match result {
            Ok(outcomes) => {
                raise(&self.counters.commits, 1);
                raise(&self.counters.durable_commits, u64::from(durable));
                self.dirty |= changed || durable;
                if changed || durable {
                    self.read_only = None;
                }
                Ok(outcomes)
            }
            Err(error) => {
                // Some errors have ended the transaction already; then there is nothing to roll back.
                if !shelf.c.is_autocommit() {
                    let _ = shelf.c.execute_batch("ROLLBACK");
                }
                shelf.changes = Changes::default();
                shelf.ledger.restore(before.0);
                self.purges = before.1;
                Err(Failed { error, tried, unclear: committed })
            }
        }
    }

    /// Sends the answers of a committed transaction.
    fn answer(&mut self, outcomes: Vec<Outcome>) {
        raise(&self.counters.ops, outcomes.len() as u64);
        let mut completions: Vec<Completion> = Vec::with_capacity(outcomes.len());
        let works: Vec<Work> = self.backlog.drain(..outcomes.len().min(self.backlog.len())).collect();
        for (work, outcome) in works.into_iter().zip(outcomes) {
            match (work, outcome) {
                (Work::Op(ticket, _), Outcome::Op(result)) => completions.push((ticket, result)),
                (Work::Op(ticket, Op::List(filter)), Outcome::List) => {
                    let gone = |_| Fault::Again("the store's reading thread has ended".to_owned());
                    let sent = self.lists.send((ticket, filter)).map_err(gone);
                    completions.extend(sent.err().map(|fault| (ticket, Err(fault))));
                }
                (Work::Op(ticket, op), Outcome::Held) => self.held.push((ticket, op)),
                (Work::Import(_, _, reply), Outcome::Import(result)) => drop(reply.send(result)),
                (Work::Audit(reply), Outcome::Audit(found)) => drop(reply.send(Ok(found))),
                _ => {}
            }
        }
        self.purges.retain(|job| {
            if job.purge.is_done() {
                completions.push((job.ticket, Ok(job.purge.clone().answer())));
            }
            !job.purge.is_done()
        });
        if self.purges.is_empty() {
            for (ticket, op) in self.held.drain(..).rev() {
                self.backlog.push_front(Work::Op(ticket, op));
            }
        }
        self.done.call(completions);
    }

    /// Answers the first `n` pieces of work with a fault.
    fn refuse(&mut self, n: usize, fault: &Fault) {
        raise(&self.counters.ops, n as u64);
        let mut completions: Vec<Completion> = Vec::new();
        for work in self.backlog.drain(..n.min(self.backlog.len())) {
            match work {
                Work::Op(ticket, _) => completions.push((ticket, Err(fault.clone()))),
                Work::Import(_, _, reply) => drop(reply.send(Err(fault.clone()))),
                Work::Audit(reply) => drop(reply.send(Err(fault.clone()))),
            }
        }
        // A purge that cannot go on is answered too; what it ended stays ended.
        for job in self.purges.drain(..) {
            completions.push((job.ticket, Err(fault.clone())));
        }
        for (ticket, _) in self.held.drain(..) {
            completions.push((ticket, Err(fault.clone())));
        }
        self.done.call(completions);
    }

    /// Decides what becomes of a failed transaction.
    fn fail(&mut self, failed: Failed) {
        let text = failed.error.to_string();
        let file = self.dir.file();
        if failed.unclear {
            self.abandon(&text);
            let fault =
                Fault::Reconnect(format!("the store {} is being opened anew: {text}", file.display()));
            self.refuse(failed.tried, &fault);
            return;
        }
        let fault = match link::trouble(&failed.error) {
            Trouble::Full => Fault::Again(no_space(&self.dir)),
            Trouble::ReadOnly => {
                let why = format!(
                    "the store {} cannot be written: it or its file system is read-only ({text})",
                    file.display()
                );
                self.read_only = Some(why.clone());
                Fault::Again(why)
            }
            Trouble::Busy => Fault::Again(format!("the store {} is busy: {text}", file.display())),
            Trouble::Io => {
                self.abandon(&text);
                Fault::Reconnect(format!("the store {} is being opened anew: {text}", file.display()))
            }
            Trouble::Corrupt => {
                let why = format!("the store {} is damaged ({text}); restore a backup", file.display());
                self.health = Health::Broken(why.clone());
                Fault::Refused(why)
            }
            Trouble::Statement => return self.isolate(failed.tried),
        };
        self.refuse(failed.tried, &fault);
    }

    fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
        if let Health::Up(shelf) = &self.health {
            // A setting of the handle; where it fails, the handle does, and the next write tells.
            let _ = link::set_checkpoints(&shelf.c, !tight);
        }
    }

    /// One of these cannot work: each alone, so that it takes no other with it.
    fn isolate(&mut self, tried: usize) {
        for _ in 0..tried.max(1) {
            match self.attempt(1) {
                Ok(outcomes) => self.answer(outcomes),
                Err(failed) if link::trouble(&failed.error) == Trouble::Statement && !failed.unclear => {
                    self.refuse(1, &Fault::Refused(format!("the store refuses it: {}", failed.error)));
                }
                Err(failed) => return self.fail(failed),
            }
        }
    }

    /// Gives a handle up whose last write nobody can vouch for.
    fn abandon(&mut self, why: &str) {
        self.dirty = false;
        self.health = Health::Down(why.to_owned(), Instant::now());
    }

    /// Opens the file anew where it was given up; notices that it is not ours any more.
    fn look_after(&mut self) {
        match &self.health {
            Health::Up(_) if identity(&self.dir) != self.identity => {
                self.health = Health::Broken(format!(
                    "the store {} was removed or replaced while it was open; nothing more is written (stop \
                     taskd, put the file back or restore a backup, start it again)",
                    self.dir.file().display()
                ));
            }
            Health::Down(_, at) if Instant::now() >= *at => {
                let injected = fail_at(&mut self.failpoint, Moment::Reopen);
                let opened = match injected {
                    Err(e) => Err(e.to_string()),
                    Ok(()) => open::shelf(&self.dir, |_| Ok(())).map_err(|e| e.to_string()),
                };
                match opened {
                    Ok(shelf) => {
                        raise(&self.counters.reopened, 1);
                        self.identity = identity(&self.dir);
                        self.durability = Durability::Disk;
                        self.health = Health::Up(Box::new(shelf));
                        self.set_tight(self.tight);
                    }
                    Err(why) => self.health = Health::Down(why, Instant::now() + REOPEN_PAUSE),
                }
            }
            _ => {}
        }
    }
}

/// Does one piece of work inside the open transaction.
fn perform(
    shelf: &mut Shelf,
    purges: &mut Vec<PurgeJob>,
    tight: bool,
    dir: &StateDir,
    work: &Work,
) -> rusqlite::Result<Outcome> {
    Ok(match work {
        Work::Op(_, op) if tight && begins(op) => Outcome::Op(Err(Fault::Again(no_space(dir)))),
        Work::Op(_, Op::List(_)) => Outcome::List,
        Work::Op(_, Op::Lease { queue, .. })
            if purges.iter().any(|job| Some(job.purge.queue) == shelf.ledger.number(queue)) =>
        {
            Outcome::Held
        }
        Work::Op(ticket, Op::Purge { queue, now }) => match shelf.purge(queue, *now) {
            None => Outcome::Op(Ok(Reply::Purged(0))),
            Some(mut purge) => {
                shelf.purge_some(&mut purge).map_err(whole)?;
                if purge.is_done() {
                    return Ok(Outcome::Op(Ok(purge.answer())));
                }
                purges.push(PurgeJob { ticket: *ticket, purge });
                Outcome::Purging
            }
        },
        Work::Op(_, op) => Outcome::Op(sql(shelf.apply(op))?),
        Work::Import(..) if tight => Outcome::Import(Err(Fault::Again(no_space(dir)))),
        Work::Import(messages, now, _) => {
            let mut import = || -> Result<u64, Stop> {
                let mut new = 0;
                for (message, attempt) in messages {
                    new += u64::from(shelf.take_over(message, *now, *attempt)?);
                }
                Ok(new)
            };
            Outcome::Import(sql(import())?)
        }
        Work::Audit(_) => {
            shelf.write_flows()?;
            let fresh = Ledger::load(&shelf.c)?;
            Outcome::Audit(shelf.ledger.differences(&fresh))
        }
    })
}

/// An answer and an error that ends the transaction, told apart.
fn sql<T>(result: Result<T, Stop>) -> rusqlite::Result<Result<T, Fault>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Fault(fault)) => Ok(Err(fault)),
        Err(Stop::Sql(error)) => Err(error),
    }
}

/// An answer where only an error of the transaction can be told.
fn whole(stop: Stop) -> rusqlite::Error {
    match stop {
        Stop::Sql(error) => error,
        Stop::Fault(fault) => rusqlite::Error::ToSqlConversionFailure(Box::new(fault)),
    }
}

fn fail_at(failpoint: &mut Option<Failpoint>, moment: Moment) -> rusqlite::Result<()> {
    match failpoint.as_mut().and_then(|f| f(moment)) {
        None => Ok(()),
        Some(code) => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            Some(format!("injected {moment:?}")),
        )),
    }
}

fn identity(dir: &StateDir) -> Option<(u64, u64)> {
    std::fs::metadata(dir.file()).ok().map(|m| (m.dev(), m.ino()))
}

fn no_space(dir: &StateDir) -> String {
    format!(
        "no space left on {}; what runs is recorded as long as it can be, nothing new begins",
        dir.path().display()
    )
}
