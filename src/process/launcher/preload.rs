//! Parents: where a pool has `preload`, one process loads its Celery app, and the pool's children are forked from it.
//!
//! A parent is started as a resident worker is, with a packet socket to the launcher instead of one to the daemon. At
//! each request it forks twice, so that the new process loses its parent and becomes the launcher's own child, as every
//! other one is: reaped, limited and killed here, whatever becomes of the process it was forked from. Until then its
//! number is only what the parent says: it is spared, and nothing is done to it. Then it has to be a child of this
//! process, of the same user and instance, which no number that is somebody else's can be.
//!
//! A parent ends when other settings are in force and the last of its children is gone (its credentials are theirs).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::daemon::signal;
use super::family::End;
use super::groups::{Cell, Remains};
use super::inherit::{self, HeirParent, Inherited};
use super::worker::{Started, Starting, pipe};
use crate::config::settings::{Identity, Worker};
use crate::process::instance;
use crate::process::launch::{Child, ChildId, Slot, ToDaemon};
use crate::process::packet::Packets;

/// Packets taken from one parent in one round of the loop.
const ROUND: usize = 16;

/// Bytes of what a parent printed while it loaded its app that are told.
const MAX_PRINTED: usize = 16 << 10;

/// How often to look whether the control group of a parent that ended is empty.
const LOOK: Duration = Duration::from_millis(50);

/// What the launcher asks of a parent.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum ToParent<'a> {
    /// Fork a child. Descriptors: its socket, its stdout, its stderr.
    Fork { child: ChildId, slot: &'a str },
    /// Its number is known: let it become the launcher's.
    Go { child: ChildId },
}

/// What a parent says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum FromParent {
    /// The app is loaded.
    Ready,
    /// A child is there, and waits.
    Forked { child: ChildId, pid: u32 },
    /// It has lost its parent.
    Born { child: ChildId },
    /// There is none.
    Failed { child: ChildId, why: String, again: bool },
}

/// All parents.
#[derive(Default)]
pub(super) struct Parents(BTreeMap<ChildId, Parent>);

/// A process that children are forked from, or what is left of one while children of it live.
struct Parent {
    /// The place that it was started for first.
    slot: Slot,
    user: String,
    generation: u64,
    pid: u32,
    /// Takes orders: neither ended nor told to end.
    socket: Option<Packets>,
    /// What it prints until it is ready.
    output: Option<OwnedFd>,
    /// The last of that.
    printed: Vec<u8>,
    starting: Option<Starting>,
    ready: bool,
    /// Places that wait for the app to be loaded.
    waiting: Vec<Slot>,
    /// Children on their way.
    unborn: BTreeMap<ChildId, Unborn>,
    cell: Option<Cell>,
    remains: Option<Remains>,
    /// It was reaped.
    gone: bool,
    /// When it is killed.
    kill_at: Option<Instant>,
}

/// A child on its way.
struct Unborn {
    child: Child,
    descriptors: Vec<Rc<OwnedFd>>,
    cell: Option<Cell>,
    /// As its parent says.
    pid: Option<u32>,
}

impl Parents {
    /// What says that there is something to hear.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().flat_map(|parent| {
            let socket = parent.socket.as_ref().map(AsFd::as_fd);
            let pipe = parent.starting.as_ref().map(|s| s.pipe().as_fd());
            let output = parent.output.as_ref().map(AsFd::as_fd);
            [socket, pipe, output].into_iter().flatten()
        })
    }

    /// Those that were not reaped.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.values().filter(|p| !p.gone).map(|p| p.pid)
    }

    /// Numbers of children on their way, as their parents say.
    pub(super) fn unborn_pids(&self) -> BTreeSet<u32> {
        self.0.values().flat_map(|p| p.unborn.values().filter_map(|u| u.pid)).collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = |p: &Parent| p.remains.is_some().then(|| Instant::now() + LOOK);
        self.0.values().filter_map(|p| p.kill_at.filter(|_| !p.gone).or_else(|| look(p))).min()
    }

    /// Tells all of them to end.
    pub(super) fn end(&mut self, kill_at: Instant) {
        self.0.values_mut().for_each(|parent| parent.end(kill_at));
    }

    /// For the next program of this process. What was not ready is not for it.
    pub(super) fn keep(&self) -> Vec<HeirParent> {
        let heir = |(id, p): (&ChildId, &Parent)| HeirParent {
            id: *id,
            slot: p.slot.clone(),
            user: p.user.clone(),
            generation: p.generation,
            pid: if p.gone { 0 } else { p.pid },
            descriptors: p.socket.as_ref().map(AsRawFd::as_raw_fd).filter(|_| p.ready),
            cell: p.cell.as_ref().map(Cell::keep),
        };
        self.0.iter().filter(|(_, p)| p.ready).map(heir).collect()
    }
}

impl Parent {
    fn end(&mut self, kill_at: Instant) {
        self.waiting.clear();
        for unborn in std::mem::take(&mut self.unborn).into_values() {
            unborn.cell.map(|cell| cell.end().remove());
        }
        // It ends at that, with what the app does at its end.
        self.socket = None;
        self.kill_at.get_or_insert(kill_at);
    }

    /// Takes what it printed, so that it can go on.
    fn read_output(&mut self) {
        let Some(output) = &self.output else { return };
        let mut bytes = [0; 4096];
        loop {
            match nix::unistd::read(output, &mut bytes) {
                Ok(0) => break,
                Ok(n) => self.printed.extend_from_slice(bytes.get(..n).unwrap_or_default()),
                Err(Errno::EAGAIN) => return,
                Err(_) => break,
            }
            let surplus = self.printed.len().saturating_sub(MAX_PRINTED);
            self.printed.drain(..surplus);
        }
        // Nothing more comes of it.
        self.output = None;
    }

    /// What it printed, the last of it.
    fn printed(&mut self) -> String {
        self.read_output();
        String::from_utf8_lossy(&std::mem::take(&mut self.printed)).trim().to_owned()
    }
}

impl Core<'_> {
    /// Whether a child of this place is on its way out of a parent.
    pub(super) fn is_unborn(&self, slot: &Slot, user: &str) -> bool {
        self.parents
            .0
            .values()
            .filter(|p| p.user == user)
            .any(|p| p.waiting.contains(slot) || p.unborn.values().any(|u| u.child.slot == *slot))
    }

    /// Has a child of this place forked; the daemon is told once it is there.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn fork_child(
        &mut self,
        slot: &Slot,
        user: &str,
        identity: Identity,
        worker: &Worker,
    ) -> io::Result<()> {
        let generation = self.settings.generation;
        let fits = |p: &Parent| {
            p.socket.is_some() && p.slot.pool == slot.pool && p.user == user && p.generation == generation
        };
        let there = self.parents.0.iter().find(|(_, p)| fits(p)).map(|(id, p)| (*id, p.ready));
        let id = match there {
            Some((id, true)) => return self.ask_for_child(id, slot),
            Some((id, false)) => id,
            None => self.start_parent(slot, user, identity, worker)?,
        };
        if let Some(parent) = self.parents.0.get_mut(&id) {
            parent.waiting.push(slot.clone());
        }
        Ok(())
    }

    fn start_parent(
        &mut self,
        slot: &Slot,
        user: &str,
        identity: Identity,
        worker: &Worker,
    ) -> io::Result<ChildId> {
        self.last_child += 1;
        let id = ChildId(self.last_child);
        let (ours, theirs) = Packets::pair()?;
        let (output, out) = pipe()?;
        let printed = (out.try_clone()?, out);
        let Started { pid, told, cell } = self.start_program(id, slot, identity, worker, &theirs, printed)?;
        tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = pid, TASKD_USER = user, "parent of children starting");
        let parent = Parent {
            slot: slot.clone(),
            user: user.to_owned(),
            generation: self.settings.generation,
            pid,
            socket: Some(ours),
            output: Some(output),
            printed: Vec::new(),
            starting: Some(told),
            ready: false,
            waiting: Vec::new(),
            unborn: BTreeMap::new(),
            cell,
            remains: None,
            gone: false,
            kill_at: None,
        };
        self.parents.0.insert(id, parent);
        Ok(id)
    }

    /// Asks a parent that is ready.
    fn ask_for_child(&mut self, id: ChildId, slot: &Slot) -> io::Result<()> {
        let Some(parent) = self.parents.0.get(&id) else { return Ok(()) };
        let (user, pool) = (parent.user.clone(), self.settings.pools.get(&slot.pool));
        let limits = pool.and_then(|p| p.worker.as_ref()).map(|w| w.limits.clone()).unwrap_or_default();
        let admitted = super::users::admit(&self.settings, slot, &user).map_err(io::Error::other)?;
        self.last_child += 1;
        let child = ChildId(self.last_child);
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
        let cell = self.cell(child, slot, admitted.identity.user.as_deref(), limits)?;
        let generation = self.settings.generation;
        let Some(parent) = self.parents.0.get_mut(&id) else { return Ok(()) };
        let socket = parent.socket.as_ref().ok_or(ErrorKind::BrokenPipe)?;
        let fds = [theirs.as_fd(), out_end.as_fd(), err_end.as_fd()];
        let order = ToParent::Fork { child, slot: &slot.to_string() };
        if let Err(error) = socket.try_send(&order, &fds) {
            if let Some(cell) = cell {
                cell.discard();
            }
            return Err(error);
        }
        let unborn = Unborn {
            child: Child { child, slot: slot.clone(), user, generation, pid: 0, age_ms: 0, worker: true },
            descriptors: [ours, out, err].map(Rc::new).to_vec(),
            cell,
            pid: None,
        };
        parent.unborn.insert(child, unborn);
        Ok(())
    }

    /// Takes what parents say.
    pub(super) fn hear_parents(&mut self) {
        let ids: Vec<ChildId> =
            self.parents.0.iter().filter(|(_, p)| p.socket.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            self.hear_parent(id);
        }
    }

    fn hear_parent(&mut self, id: ChildId) {
        if let Some(parent) = self.parents.0.get_mut(&id) {
            parent.read_output();
        }
        if let Some(parent) = self.parents.0.get_mut(&id)
            && let Some(starting) = &parent.starting
        {
            match starting.reason() {
                None => return,
                Some(Ok(())) => parent.starting = None,
                // Its end follows, and it has nothing to say.
                Some(Err((text, again))) => {
                    parent.starting = None;
                    return self.parent_failed(id, &text, again);
                }
            }
        }
        for _ in 0..ROUND {
            let Some(parent) = self.parents.0.get(&id) else { return };
            let Some(socket) = &parent.socket else { return };
            match socket.try_recv::<FromParent>() {
                Ok(packet) if packet.fds.is_empty() => self.obey_parent(id, packet.message),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // It is reaped next, with all that it printed.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return,
                Ok(_) => return self.parent_failed(id, "it sent descriptors that nobody asked for", false),
                Err(error) => {
                    let text = format!("it sent something that is not understood: {error}");
                    return self.parent_failed(id, &text, false);
                }
            }
        }
    }

    fn obey_parent(&mut self, id: ChildId, said: FromParent) {
        let Some(parent) = self.parents.0.get_mut(&id) else { return };
        match said {
            FromParent::Ready => {
                parent.ready = true;
                let (pool, printed) = (parent.slot.pool.clone(), parent.printed());
                parent.output = None;
                if !printed.is_empty() {
                    tracing::info!("the app of [pools.{pool}] printed while it was loaded:\n{printed}");
                }
                let waiting = std::mem::take(&mut parent.waiting);
                for slot in waiting {
                    if let Err(error) = self.ask_for_child(id, &slot) {
                        let again = super::child::is_no_room(&error);
                        let error = format!("forking a worker failed: {error}");
                        self.tell(ToDaemon::SpawnFailed { slot, error, again }, Vec::new());
                    }
                }
            }
            FromParent::Forked { child, pid } => {
                let Some(unborn) = parent.unborn.get_mut(&child) else { return };
                unborn.pid = Some(pid);
                let sent = parent.socket.as_ref().map(|s| s.try_send(&ToParent::Go { child }, &[]));
                if let Some(Err(error)) = sent
                    && error.kind() != ErrorKind::BrokenPipe
                {
                    self.parent_failed(id, &format!("it cannot be told to go on: {error}"), true);
                }
            }
            FromParent::Born { child } => {
                let Some(unborn) = parent.unborn.remove(&child) else { return };
                let (slot, pid) = (unborn.child.slot.clone(), parent.pid);
                if let Err(error) = self.born(id, pid, unborn) {
                    let error = format!("a worker was forked and cannot be kept: {error}");
                    self.tell(ToDaemon::SpawnFailed { slot, error, again: true }, Vec::new());
                    // Whatever it is, nobody knows it now.
                    self.look_around();
                }
            }
            FromParent::Failed { child, why, again } => {
                let Some(unborn) = parent.unborn.remove(&child) else { return };
                if let Some(cell) = unborn.cell {
                    cell.discard();
                }
                let error = format!("forking a worker failed: {why}");
                self.tell(ToDaemon::SpawnFailed { slot: unborn.child.slot, error, again }, Vec::new());
            }
        }
    }

    /// A child is this process's own: it goes into its control group, and the daemon is told of it.
    fn born(&mut self, parent: ChildId, parent_pid: u32, unborn: Unborn) -> Result<(), String> {
        let Unborn { mut child, descriptors, cell, pid } = unborn;
        let judged = pid.ok_or_else(|| "its number was never told".to_owned()).and_then(|pid| {
            let me = std::process::id();
            let taken = self.known().contains(&pid) || self.foreign.pids().contains(&pid);
            let user = |pid: u32| std::fs::metadata(format!("/proc/{pid}")).map(|m| m.uid()).ok();
            if instance::parent(pid) != Some((me, false)) || taken {
                return Err(format!("process {pid} has ended, or is no child of taskd's"));
            }
            if user(pid) != user(parent_pid) || !instance::is_of(pid, &self.state.instance) {
                return Err(format!("process {pid} is not what was asked for"));
            }
            if let Some(cell) = &cell {
                let moved =
                    cell.door().and_then(|door| File::from(door).write_all(pid.to_string().as_bytes()));
                moved.map_err(|e| format!("its control group: {e}"))?;
            }
            Ok(pid)
        });
        match judged {
            Ok(pid) => child.pid = pid,
            Err(why) => {
                cell.map(|cell| cell.end().remove());
                return Err(why);
            }
        }
        tracing::debug!(TASKD_SLOT = %child.slot, TASKD_PID = child.pid, "child forked");
        let id = child.child;
        self.keep_child(child.clone(), descriptors.clone(), cell, None);
        if let Some(living) = self.children.get_mut(&id) {
            living.parent = Some(parent);
        }
        self.tell(ToDaemon::Child(child), descriptors);
        Ok(())
    }

    /// Nothing more comes of this one: it is killed, and the daemon is told of every child that was to come of it.
    fn parent_failed(&mut self, id: ChildId, error: &str, again: bool) {
        let Some(parent) = self.parents.0.get_mut(&id) else { return };
        let unborn = std::mem::take(&mut parent.unborn).into_values();
        let mut slots = std::mem::take(&mut parent.waiting);
        slots.extend(unborn.map(|unborn| {
            unborn.cell.map(|cell| cell.end().remove());
            unborn.child.slot
        }));
        parent.socket = None;
        if !parent.gone {
            signal(parent.pid, Signal::SIGKILL);
        }
        for slot in slots {
            self.tell(ToDaemon::SpawnFailed { slot, error: error.to_owned(), again }, Vec::new());
        }
    }

    /// A process was reaped that is no child. Perhaps it is a parent: its children live on, and another one is started
    /// when the next child is asked for.
    pub(super) fn parent_ended(&mut self, pid: u32, end: End) {
        let found = self.parents.0.iter().find(|(_, p)| p.pid == pid && !p.gone).map(|(id, _)| *id);
        let Some(id) = found else { return };
        // Why it did not execute its program, or its last words.
        self.hear_parent(id);
        let Some(parent) = self.parents.0.get_mut(&id) else { return };
        parent.gone = true;
        parent.remains = parent.cell.take().map(Cell::end);
        if parent.socket.is_some() {
            let (slot, printed, ready) = (parent.slot.clone(), parent.printed(), parent.ready);
            let what = if ready { "the parent of the children of" } else { "loading the app of" };
            let last = printed.lines().last().unwrap_or_default();
            let error = if last.is_empty() { end.to_string() } else { last.to_owned() };
            if self.phase.is_serving() {
                let shown = if printed.is_empty() { String::new() } else { format!(":\n{printed}") };
                tracing::error!(TASKD_PID = pid, "{what} [pools.{}] ended: {end}{shown}", slot.pool);
            }
            self.parent_failed(id, &error, ready);
        }
        self.look_at_parents();
    }

    /// Lets those go that no child will come from any more, and forgets those whose last child is gone.
    pub(super) fn look_at_parents(&mut self) {
        let generation = self.settings.generation;
        let kill_at = Instant::now() + self.options.limits.kill_after;
        let mut again = Vec::new();
        let mut forgotten = Vec::new();
        for (id, parent) in &mut self.parents.0 {
            if parent.generation != generation {
                let user = &parent.user;
                again
                    .extend(std::mem::take(&mut parent.waiting).into_iter().map(|slot| (slot, user.clone())));
            }
            let used = !parent.unborn.is_empty()
                || !parent.waiting.is_empty()
                || self.children.values().any(|c| c.parent == Some(*id));
            if parent.generation != generation && !used && parent.socket.is_some() {
                parent.end(kill_at);
            }
            let empty = parent.remains.as_mut().is_none_or(Remains::remove);
            if empty {
                parent.remains = None;
            }
            if parent.gone && empty && !used {
                forgotten.push(*id);
            }
        }
        for id in forgotten {
            self.parents.0.remove(&id);
            self.forget_credentials(id);
        }
        for (slot, user) in again {
            self.spawn_child(slot, user);
        }
    }

    /// Kills those that did not end when they were told to.
    pub(super) fn pass_parents_time(&mut self, now: Instant) {
        for parent in self.parents.0.values_mut().filter(|p| !p.gone) {
            if parent.kill_at.take_if(|at| now >= *at).is_some() {
                signal(parent.pid, Signal::SIGKILL);
            }
        }
        if self.parents.0.values().any(|p| p.remains.is_some()) {
            self.look_at_parents();
        }
    }

    /// Those that the program before this one left.
    pub(super) fn inherit_parents(&mut self, inherited: &mut Inherited) -> Result<(), String> {
        for heir in std::mem::take(&mut inherited.state.parents) {
            let HeirParent { id, slot, user, generation, pid, descriptors, cell } = heir;
            let socket = descriptors.map(|n| inherited.take(n)).transpose()?;
            let socket = socket.map(Packets::from_fd).transpose().map_err(|e| e.to_string())?;
            let until = Instant::now() + self.options.limits.gone_within;
            let cell = self.groups.as_ref().zip(cell).map(|(t, kept)| Cell::taken_over(t, kept, None, until));
            let gone = pid == 0 || !inherit::is_child(pid);
            let (remains, cell) = if gone { (cell.map(Cell::end), None) } else { (None, cell) };
            let parent = Parent {
                slot,
                user,
                generation,
                pid,
                kill_at: socket.is_none().then_some(until),
                socket: socket.filter(|_| !gone),
                output: None,
                printed: Vec::new(),
                starting: None,
                ready: true,
                waiting: Vec::new(),
                unborn: BTreeMap::new(),
                cell,
                remains,
                gone,
            };
            self.parents.0.insert(id, parent);
        }
        // The generation has changed: they go with the last of their children.
        self.look_at_parents();
        Ok(())
    }
}
