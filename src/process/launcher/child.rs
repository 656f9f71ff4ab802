//! Children: started at the daemon's request within what the config declares, ended, and told about once
//! nothing of theirs is left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::daemon::signal;
use super::entry::Sealed;
use super::exec;
use super::family::End;
use super::groups::{Cell, KeptRemains, Remains};
use super::users::{self, Admitted};
use super::worker::Starting;
use crate::config::credential;
use crate::config::settings::Settings;
use crate::model::task::Limits;
use crate::observe::fields;
use crate::process::cgroup::Tree;
use crate::process::held::Held;
use crate::process::instance::VARIABLE;
use crate::process::launch::{Child, ChildId, RunnerPart, Slot, ToDaemon};
use crate::process::memory::Family;
use crate::process::privileges::{self, Setup};
use crate::process::{memfd, protocol};

/// Children of one place that may live at once: one that ends, one that works and one that is coming.
const PER_SLOT: usize = 3;

/// Names that a task's `pass_environment` cannot bring into a runner: they would change the runner itself,
/// or tell it of sockets and secrets that are not its own.
const NOT_PASSED: [&str; 7] =
    ["LD_", "TASKD_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"];

/// A child that was not reaped.
pub(super) struct Living {
    pub(super) child: Child,
    /// When it was started.
    pub(super) since: Instant,
    /// What goes to each daemon beside it: the daemon's end of its socket, and of a resident worker the read
    /// ends of its stdout and stderr. None: it never became a child for the daemon.
    pub(super) descriptors: Vec<Rc<OwnedFd>>,
    /// A resident worker that has not executed its program yet.
    pub(super) starting: Option<Starting>,
    /// The parent that it was forked from, where its pool has `preload`.
    pub(super) parent: Option<ChildId>,
    /// Those that it was started with.
    pub(super) settings: Rc<Settings>,
    /// Its control group.
    pub(super) cell: Option<Cell>,
    /// It was killed here because it used too much memory.
    pub(super) out_of_memory: bool,
}

impl Living {
    /// Whether a daemon hears of it.
    pub(super) fn is_told(&self) -> bool {
        self.starting.is_none() && !self.descriptors.is_empty()
    }
}

/// Adds those of the launcher's own variables that the config passes on.
pub(super) fn pass<'a>(
    names: impl IntoIterator<Item = &'a String>,
    environment: &mut Vec<(String, std::ffi::OsString)>,
) {
    for name in names {
        let taken = environment.iter().any(|(n, _)| n == name);
        if taken || NOT_PASSED.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        if let Some(value) = std::env::var_os(name) {
            environment.push((name.clone(), value));
        }
    }
}

/// One that was reaped; told once what it left is gone.
pub(super) struct Ended {
    child: ChildId,
    end: End,
    pub(super) at: Instant,
    remains: Option<Remains>,
    out_of_memory: bool,
    looked: Instant,
    /// It may have left something: a runner that ends as it should has ended all it started.
    pub(super) left: bool,
}

/// An [`Ended`] that the next program of this process takes over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptEnd {
    child: ChildId,
    code: i32,
    signal: i32,
    remains: Option<KeptRemains>,
    out_of_memory: bool,
}

impl Ended {
    /// For the next program of this process.
    pub(super) fn keep(&self) -> KeptEnd {
        let Self { child, end, out_of_memory, .. } = self;
        let remains = self.remains.as_ref().map(Remains::keep);
        KeptEnd { child: *child, code: end.code, signal: end.signal, remains, out_of_memory: *out_of_memory }
    }

    /// What it left has its time anew.
    pub(super) fn taken_over(tree: Option<&Tree>, kept: KeptEnd) -> Self {
        let KeptEnd { child, code, signal, remains, out_of_memory } = kept;
        let remains = tree.zip(remains).map(|(tree, kept)| Remains::taken_over(tree, kept));
        let at = Instant::now();
        Self { child, end: End { code, signal }, at, remains, out_of_memory, looked: at, left: true }
    }

    /// When to look again whether what it left is gone, if nobody tells: the end of a process that is not
    /// below the launcher is not told.
    pub(super) fn look_at(&self, patience: Duration) -> Instant {
        let last = self.at + patience;
        if self.remains.is_some() { last.min(self.looked + LOOK) } else { last }
    }
}

/// How often to look, in a control group that is not empty yet.
const LOOK: Duration = Duration::from_millis(50);

impl Core<'_> {
    pub(super) fn spawn_child(&mut self, slot: Slot, user: String) {
        if self.phase.is_ending() {
            return;
        }
        let worker = self.settings.pools.get(&slot.pool).and_then(|p| p.worker.clone());
        let failed = |error: String, again: bool| ToDaemon::SpawnFailed { slot: slot.clone(), error, again };
        let admitted = users::admit(&self.settings, &slot, &user);
        let there = self.children.values().filter(|c| c.child.slot == slot).count();
        let unborn = self.is_unborn(&slot, &user);
        let mut same = self.children.values().filter(|c| c.child.slot == slot && c.child.user == user);
        if worker.is_some() && (unborn || same.any(|c| c.starting.is_some())) {
            // Asked for by a daemon that is gone: the new one gets that one.
            return;
        }
        let answer = match admitted {
            Ok(_) if there >= PER_SLOT => {
                let error = format!("{there} children of {slot} are alive, one more is refused");
                tracing::error!(TASKD_SLOT = %slot, TASKD_USER = user, "{error}");
                failed(error, true)
            }
            Err(error) => {
                tracing::error!(TASKD_SLOT = %slot, TASKD_USER = user, "a child is refused: {error}");
                failed(error, false)
            }
            Ok(admitted) if let Some(worker) = worker.as_ref().filter(|w| w.preload) => {
                match self.fork_child(&slot, &user, admitted.identity, worker) {
                    Ok(()) => return,
                    Err(error) => {
                        self.forget_unborn();
                        failed(describe("worker", &error), is_no_room(&error))
                    }
                }
            }
            Ok(admitted) if let Some(worker) = &worker => {
                match self.start_worker(&slot, &user, admitted.identity, worker) {
                    Ok(()) => return,
                    Err(error) => {
                        self.forget_unborn();
                        failed(describe("worker", &error), is_no_room(&error))
                    }
                }
            }
            Ok(admitted) => match self.start_child(&slot, &user, admitted) {
                Ok((child, socket)) => return self.tell(ToDaemon::Child(child), vec![socket]),
                Err(error) => {
                    self.forget_unborn();
                    // The daemon says it, with what it means for the pool.
                    tracing::debug!(TASKD_SLOT = %slot, "cannot start a child: {error}");
                    failed(describe("runner", &error), is_no_room(&error))
                }
            },
        };
        self.tell(answer, Vec::new());
    }

    fn start_child(
        &mut self,
        slot: &Slot,
        user: &str,
        admitted: Admitted,
    ) -> io::Result<(Child, Rc<OwnedFd>)> {
        let Admitted { tasks, identity, alone } = admitted;
        let files = tasks.values().any(|t| !t.surroundings.credentials.is_empty());
        let needed = tasks.values().flat_map(|t| credential::needed_by(&t.surroundings)).collect();
        let secrets = self.store.secrets.only(&needed);
        let mut environment = exec::environment();
        environment.push((VARIABLE.to_owned(), self.state.instance.clone().into()));
        environment.push(("TASKD_FD".to_owned(), protocol::FD.to_string().into()));
        pass(tasks.values().flat_map(|t| &t.surroundings.pass_environment), &mut environment);
        let setup = alone.and_then(|name| tasks.get(&name)).map(|t| Setup::of(&t.surroundings));
        let part = RunnerPart {
            slot: slot.clone(),
            user: identity.user.clone().unwrap_or_default(),
            node: self.settings.taskd.node.clone(),
            instance: self.state.instance.clone(),
            generation: self.settings.generation,
            tasks,
            journal: self.journal(),
            output_rate: self.settings.results.output_rate,
            leaves: self.groups.is_some(),
        };
        let user_name = identity.user.clone();
        self.last_child += 1;
        let id = ChildId(self.last_child);
        let held = Held { secrets, directory: self.directory_of(id, user_name.as_deref(), files)? };
        let sealed = Sealed { part, identity, setup: setup.unwrap_or_default(), held: held.seal() };
        let sealed = memfd::write_sealed("taskd-runner", &serde_json::to_vec(&sealed)?)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let mut cell = self.cell(id, slot, user_name.as_deref(), Limits::default())?;
        let started = start(cell.as_mut(), &[theirs.as_fd(), sealed.as_fd()], |fds, door| {
            exec::start(&self.options.runner, fds, &environment, Some(self.open_files), door)
        });
        let pid = match started {
            Ok(pid) => pid,
            Err(error) => {
                if let Some(cell) = cell {
                    cell.discard();
                }
                return Err(error);
            }
        };
        let child = Child {
            child: id,
            slot: slot.clone(),
            user: user.to_owned(),
            generation: self.settings.generation,
            pid,
            age_ms: 0,
            worker: false,
        };
        let socket = Rc::new(ours);
        tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = pid, TASKD_USER = user, "child started");
        self.keep_child(child.clone(), vec![Rc::clone(&socket)], cell, None);
        Ok((child, socket))
    }

    /// The control group of a child of this user that is about to be started, limited like this; absent where
    /// none is in force.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn cell(
        &self,
        id: ChildId,
        slot: &Slot,
        user: Option<&str>,
        limits: Limits,
    ) -> io::Result<Option<Cell>> {
        let Some(tree) = &self.groups else { return Ok(None) };
        let owner = user.filter(|_| self.who.uid == 0).and_then(privileges::uid_of).filter(|uid| *uid != 0);
        let place = format!("{}-{}", slot.pool, slot.index);
        Cell::new(tree, id, &place, limits, owner).map(Some).map_err(|e| {
            let errno = e.raw_os_error().map(io::Error::from_raw_os_error);
            errno.unwrap_or_else(|| io::Error::new(e.kind(), format!("its control group: {e}")))
        })
    }

    /// A directory for the credentials of a child of this user that is about to be started; absent where it needs
    /// none.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn directory_of(
        &self,
        id: ChildId,
        user: Option<&str>,
        needed: bool,
    ) -> io::Result<Option<std::path::PathBuf>> {
        let vault = self.store.vault.as_ref().filter(|_| needed);
        vault.map(|vault| vault.make(id, user)).transpose()
    }

    /// What was made for a child that could not be started.
    fn forget_unborn(&self) {
        let id = ChildId(self.last_child);
        if !self.children.contains_key(&id) {
            self.forget_credentials(id);
        }
    }

    /// From now on it is looked after.
    pub(super) fn keep_child(
        &mut self,
        child: Child,
        descriptors: Vec<Rc<OwnedFd>>,
        cell: Option<Cell>,
        starting: Option<Starting>,
    ) {
        let (settings, since, id) = (Rc::clone(&self.settings), Instant::now(), child.child);
        let (parent, out_of_memory) = (None, false);
        let living = Living { child, since, descriptors, starting, parent, settings, cell, out_of_memory };
        self.children.insert(id, living);
    }

    /// Whether this is a child; one that never was is what only a daemon asks for that is not itself any more.
    fn is_child(&self, id: ChildId, what: &str) -> bool {
        if self.children.contains_key(&id) {
            return true;
        }
        if id.0 == 0 || id.0 > self.last_child {
            tracing::error!("the daemon is refused to {what} child {}, which never was", id.0);
        }
        // Else it is gone, which was told or is about to be.
        false
    }

    /// Tells how much memory a child and everything below it use.
    pub(super) fn measure(&mut self, id: ChildId) {
        if !self.is_child(id, "measure") {
            return;
        }
        let Some(living) = self.children.get(&id) else { return };
        let counted = living.cell.as_ref().and_then(Cell::memory);
        let bytes = counted.unwrap_or_else(|| Family::of(living.child.pid).memory());
        self.tell(ToDaemon::Measured { child: id, bytes }, Vec::new());
    }

    /// SIGTERM to it, or SIGKILL; what it started is killed once it is gone, because only then does
    /// everything below it become the launcher's own child.
    pub(super) fn end_child(&mut self, id: ChildId, kill: bool) {
        if self.is_child(id, "end")
            && let Some(living) = self.children.get(&id)
        {
            signal(living.child.pid, if kill { Signal::SIGKILL } else { Signal::SIGTERM });
        }
    }

    pub(super) fn child_ended(&mut self, id: ChildId, end: End) {
        // It may have executed its program and ended before that was looked at.
        let told = self.hear_starting(id);
        if !told && self.children.get(&id).is_some_and(|c| c.starting.is_some()) {
            self.starting_failed(id, format!("it ended before it executed its program: {end}"), false);
        }
        let Some(living) = self.children.remove(&id) else { return };
        if !told {
            // What cannot be removed now is removed by the next life.
            self.forget_credentials(id);
            living.cell.map(|cell| cell.end().remove());
            return;
        }
        let Child { slot, pid, .. } = &living.child;
        if self.phase.is_serving() && end.signal != 0 && end.signal != Signal::SIGTERM as i32 {
            let id = fields::CHILD_LOST;
            tracing::warn!(MESSAGE_ID = id, TASKD_SLOT = %slot, TASKD_PID = *pid, "a child ended: {end}");
        } else {
            tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = *pid, "a child ended: {end}");
        }
        let worker = living.child.worker;
        let Living { cell, out_of_memory, .. } = living;
        let remains = cell.map(Cell::end);
        let at = Instant::now();
        let left = worker || end != End { code: 0, signal: 0 };
        self.ended.push(Ended { child: id, end, at, remains, out_of_memory, looked: at, left });
        self.look_at_parents();
    }

    /// Tells the daemon of every child whose leftovers are gone (`left` is empty) or had their time. Which
    /// leftover was whose cannot be told any more.
    pub(super) fn tell_ended(&mut self, left: &[u32]) {
        let patience = self.options.limits.gone_within;
        let ended = std::mem::take(&mut self.ended);
        for mut one in ended {
            let empty = one.remains.as_mut().is_none_or(Remains::remove);
            if !(left.is_empty() && empty) && one.at.elapsed() < patience {
                one.looked = Instant::now();
                self.ended.push(one);
                continue;
            }
            if !left.is_empty() {
                // In uninterruptible sleep, or of a user that this one cannot kill.
                tracing::error!("processes that a child left behind cannot be ended: pid {left:?}");
            }
            if let Some(remains) = one.remains.as_ref().filter(|_| !empty) {
                tracing::error!("the control group of a child stays: {}", remains.path().display());
            }
            if self.daemon.is_none() {
                self.children_lost = true;
            }
            self.forget_credentials(one.child);
            self.told_an_end = true;
            let killed = one.end.signal == Signal::SIGKILL as i32;
            let counted = killed && one.remains.as_ref().is_some_and(Remains::out_of_memory);
            self.tell(
                ToDaemon::Exited {
                    child: one.child,
                    code: one.end.code,
                    signal: one.end.signal,
                    out_of_memory: one.out_of_memory || counted,
                },
                Vec::new(),
            );
        }
    }
}

/// Starts a child with the descriptors that it gets, in its control group, where it may ask for leaves.
fn start(
    cell: Option<&mut Cell>,
    fds: &[BorrowedFd<'_>],
    exec: impl FnOnce(&[BorrowedFd<'_>], Option<BorrowedFd<'_>>) -> io::Result<u32>,
) -> io::Result<u32> {
    let Some(cell) = cell else { return exec(fds, None) };
    let (asks, door) = (cell.listen()?, cell.door()?);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().copied().chain([asks.as_fd()]).collect();
    exec(&fds, Some(door.as_fd()))
}

/// The system has no room now, and may have some later.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}

fn describe(what: &str, error: &io::Error) -> String {
    let errno = error.raw_os_error().map(|n| format!("{:?}: ", Errno::from_raw(n))).unwrap_or_default();
    format!("starting a {what} failed: {errno}{error}")
}
