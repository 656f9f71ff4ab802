//! Control groups of children, and the leaves that runners ask for: made, limited, measured, ended here, so
//! that a task cannot raise its own limit.
//!
//! A runner's word is believed as little as the daemon's: it gets a leaf for a task of its own only, with the
//! limits of the launcher's copy of the config, one at a time.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::users;
use crate::config::settings::Settings;
use crate::model::task::Limits;
use crate::process::cgroup::{self, Controller, Group, Kernel, Limit, Tree, Watch};
use crate::process::launch::{Child, ChildId, RunnerAsk, RunnerTold};
use crate::process::packet::Packets;

/// Packets taken from one runner in one round of the loop. It has one question open at a time.
const ROUND: usize = 4;

/// Where control groups may be.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// The launcher's own group, or why there is none.
    pub own: Result<PathBuf, String>,
    /// Makes and removes groups.
    pub kernel: Kernel,
}

impl Hierarchy {
    /// What `/proc` says of this process.
    #[must_use]
    pub fn real() -> Self {
        Self { own: cgroup::own(), kernel: Kernel::real() }
    }

    /// Takes the own group over where that is possible; the sentence is for `taskd status`.
    pub(super) fn take(&self, patience: std::time::Duration) -> (Option<Tree>, String) {
        let taken = self.own.clone().and_then(|root| Tree::take(root, self.kernel, patience));
        match taken {
            Ok(tree) => {
                let sentence = tree.sentence();
                (Some(tree), sentence)
            }
            Err(why) => (
                None,
                format!(
                    "process groups, sub-reaper and /proc: no cgroup v2 is delegated here ({why}); memory_max and tasks_max are supervised at an interval"
                ),
            ),
        }
    }
}

/// Settings that cannot be kept here.
///
/// # Errors
/// Names every task and pool with `cpu_quota` where no control group can keep it.
pub(super) fn check(settings: &Settings, tree: Option<&Tree>) -> Result<(), String> {
    if tree.is_some_and(|t| t.has(Controller::Cpu)) {
        return Ok(());
    }
    let limited = settings.surroundings().filter(|(_, _, limits)| limits.cpu_quota.is_some());
    let named: Vec<String> = limited.map(|(table, _, _)| table).collect();
    if named.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: cpu_quota needs a delegated cgroup v2 with the cpu controller, and there is none here; run taskd as a \
         systemd service with Delegate=yes, or remove cpu_quota",
        named.join(", ")
    ))
}

/// The control group of one child.
pub(super) struct Cell {
    group: Group,
    /// Where its runner asks; absent for a resident worker, and for a runner that broke the rules.
    asks: Option<Packets>,
    leaf: Option<Leaf>,
    /// The runner's uid, where the launcher is root and it is not.
    owner: Option<u32>,
    /// Leaves made so far: a name is never used twice.
    made: u64,
}

/// The group of an attempt.
struct Leaf {
    group: Group,
    ending: Option<Ending>,
}

/// What is left in a leaf is dying.
struct Ending {
    watch: Option<Watch>,
    until: Instant,
    killed: u32,
    then: Then,
}

/// What follows the end of a leaf.
enum Then {
    /// Its usage is told.
    Report,
    /// The runner forgot it: it wants the next one.
    Make { task: String, memory_retries: u32 },
}

/// A [`Cell`] that the next program of this process takes over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptCell {
    group: PathBuf,
    pub(super) asks: Option<RawFd>,
    leaf: Option<KeptLeaf>,
    owner: Option<u32>,
    made: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptLeaf {
    group: PathBuf,
    ending: Option<KeptEnding>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptEnding {
    killed: u32,
    /// Task and `memory_retries` of the leaf that the runner wants next; absent: its usage is told.
    next: Option<(String, u32)>,
}

/// [`Remains`] that the next program of this process takes over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptRemains {
    group: PathBuf,
    killed: bool,
    out_of_memory: bool,
}

impl Cell {
    /// For the next program of this process.
    pub(super) fn keep(&self) -> KeptCell {
        let next = |then: &Then| match then {
            Then::Report => None,
            Then::Make { task, memory_retries } => Some((task.clone(), *memory_retries)),
        };
        let leaf = self.leaf.as_ref().map(|leaf| KeptLeaf {
            group: leaf.group.path().to_owned(),
            ending: leaf.ending.as_ref().map(|e| KeptEnding { killed: e.killed, next: next(&e.then) }),
        });
        let asks = self.asks.as_ref().map(AsRawFd::as_raw_fd);
        KeptCell { group: self.group.path().to_owned(), asks, leaf, owner: self.owner, made: self.made }
    }

    /// What is dying in a leaf has until then.
    pub(super) fn taken_over(tree: &Tree, kept: KeptCell, asks: Option<Packets>, until: Instant) -> Self {
        let then = |next: Option<(String, u32)>| {
            next.map_or(Then::Report, |(task, memory_retries)| Then::Make { task, memory_retries })
        };
        let leaf = kept.leaf.map(|leaf| {
            let group = tree.group(leaf.group);
            let ending = |e: KeptEnding| Ending {
                watch: group.watch().ok(),
                until,
                killed: e.killed,
                then: then(e.next),
            };
            Leaf { ending: leaf.ending.map(ending), group }
        });
        Self { group: tree.group(kept.group), asks, leaf, owner: kept.owner, made: kept.made }
    }

    /// Makes the group of a child that is about to be started.
    ///
    /// # Errors
    /// What the kernel said; nothing is left behind.
    pub(super) fn new(
        tree: &Tree,
        child: ChildId,
        place: &str,
        limits: Limits,
        owner: Option<u32>,
    ) -> std::io::Result<Self> {
        let group = tree.slot(&format!("{place}.{}", child.0))?;
        let cell = Self { group, asks: None, leaf: None, owner, made: 0 };
        let owned = owner.map_or(Ok(()), |uid| cell.group.hand_over(uid));
        if let Err(error) = owned.and_then(|()| cell.group.limit(limit_of(&limits, 0))) {
            let _ = cell.group.remove();
            return Err(error);
        }
        Ok(cell)
    }

    /// Lets a runner ask here; its end of the socket.
    pub(super) fn listen(&mut self) -> std::io::Result<Packets> {
        let (ours, theirs) = Packets::pair()?;
        self.asks = Some(ours);
        Ok(theirs)
    }

    /// By which the child goes into its group.
    pub(super) fn door(&self) -> std::io::Result<OwnedFd> {
        self.group.main().door()
    }

    /// Memory in use now, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        self.group.memory()
    }

    /// What poll(2) is to look at: its runner's questions, or the end of a leaf.
    pub(super) fn watched(&self) -> Option<(BorrowedFd<'_>, Waits)> {
        match self.leaf.as_ref().and_then(|leaf| leaf.ending.as_ref()) {
            Some(ending) => Some((ending.watch.as_ref()?.as_fd(), Waits::End)),
            None => Some((self.asks.as_ref()?.as_fd(), Waits::Question)),
        }
    }

    /// When waiting for the end of a leaf is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.leaf.as_ref()?.ending.as_ref().map(|ending| ending.until)
    }

    /// Kills everything in it.
    pub(super) fn kill(&self) {
        // What stays is seen when the child's end is told.
        let _ = self.group.kill();
    }

    /// Its child was never there.
    pub(super) fn discard(self) {
        // The next life removes what stays.
        let _ = self.group.remove();
    }

    /// Its child is gone: kills everything in it. What is told of it later.
    pub(super) fn end(self) -> Remains {
        Remains { killed: self.group.kill().is_ok(), out_of_memory: false, group: self.group }
    }
}

/// What a cell waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Readable.
    Question,
    /// POLLPRI.
    End,
}

/// The group of a child that is gone.
pub(super) struct Remains {
    group: Group,
    killed: bool,
    out_of_memory: bool,
}

impl Remains {
    /// For the next program of this process.
    pub(super) fn keep(&self) -> KeptRemains {
        let Self { group, killed, out_of_memory } = self;
        KeptRemains { group: group.path().to_owned(), killed: *killed, out_of_memory: *out_of_memory }
    }

    pub(super) fn taken_over(tree: &Tree, kept: KeptRemains) -> Self {
        let KeptRemains { group, killed, out_of_memory } = kept;
        Self { group: tree.group(group), killed, out_of_memory }
    }

    /// Removes it once it is empty. Tells whether it is gone.
    pub(super) fn remove(&mut self) -> bool {
        // A child that was forked right before its parent's end may have come after the first kill.
        if self.group.is_populated() {
            self.killed = self.group.kill().is_ok();
            return false;
        }
        // Told by its files, which go with it.
        self.out_of_memory |= self.group.main().ran_out_of_memory();
        self.group.remove().is_ok()
    }

    /// Whether the kernel killed the child, or what it ran beside itself, for want of memory.
    pub(super) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    /// Where it is, for a message.
    pub(super) fn path(&self) -> &std::path::Path {
        self.group.path()
    }
}

/// Limits as a control group takes them, after `on_memory` was applied so many times.
fn limit_of(limits: &Limits, memory_retries: u32) -> Limit {
    Limit { memory: limits.memory_at(memory_retries), cpu: limits.cpu_quota, tasks: limits.tasks_max }
}

impl Core<'_> {
    /// Answers what this child's runner asks, and goes on with the end of its leaf. Never waits.
    pub(super) fn serve_cell(&mut self, id: ChildId) {
        let patience = self.options.limits.gone_within;
        let Some(living) = self.children.get_mut(&id) else { return };
        let (settings, child) = (std::rc::Rc::clone(&living.settings), living.child.clone());
        let Some(cell) = living.cell.as_mut() else { return };
        cell.go_on(&settings, &child);
        for _ in 0..ROUND {
            if cell.leaf.as_ref().is_some_and(|leaf| leaf.ending.is_some()) {
                return;
            }
            let Some(asks) = cell.asks.as_ref() else { return };
            let asked = match asks.try_recv::<RunnerAsk>() {
                Ok(packet) if packet.fds.is_empty() => packet.message,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return cell.asks = None,
                Ok(_) => return self.refuse_runner(id, "descriptors that nobody asked for"),
                Err(error) => return self.refuse_runner(id, &error.to_string()),
            };
            let until = Instant::now() + patience;
            match asked {
                RunnerAsk::Leaf { task, memory_retries } => {
                    if cell.leaf.is_some() {
                        cell.end_leaf(until, Then::Make { task, memory_retries });
                    } else {
                        cell.make_leaf(&settings, &child, &task, memory_retries);
                    }
                }
                RunnerAsk::Done if cell.leaf.is_some() => cell.end_leaf(until, Then::Report),
                RunnerAsk::Done => cell.tell(&refusal(&child, "there is no leaf".to_owned()), None),
            }
            cell.go_on(&settings, &child);
        }
    }

    /// A runner is this very program: one that says what it never says is not it any more.
    fn refuse_runner(&mut self, id: ChildId, what: &str) {
        let Some(living) = self.children.get_mut(&id) else { return };
        let Child { slot, pid, .. } = &living.child;
        tracing::error!(TASKD_SLOT = %slot, TASKD_PID = *pid, "a runner is killed, it sent something that is not understood: {what}");
        if let Some(cell) = living.cell.as_mut() {
            cell.asks = None;
        }
        self.end_child(id, true);
    }
}

impl Cell {
    fn make_leaf(&mut self, settings: &Settings, child: &Child, task: &str, memory_retries: u32) {
        let declared = settings.pools.get(&child.slot.pool).and_then(|pool| {
            let found = settings.tasks.get(task)?;
            users::may_run(settings, pool, &child.user, found).then_some(&found.limits)
        });
        let Some(limits) = declared else {
            let why = format!("{task:?} is no task of this runner ({})", child.user);
            return self.tell(&refusal(child, why), None);
        };
        self.made += 1;
        let made = self.group.leaf(&format!("a{}", self.made)).and_then(|group| {
            let door = || self.owner.map_or_else(|| group.door(), |uid| group.door_of(uid));
            let opened = group.limit(limit_of(limits, memory_retries)).and_then(|()| door());
            opened.map(|door| (group.clone(), door)).inspect_err(|_| drop(group.remove()))
        });
        match made {
            Ok((group, door)) => {
                self.leaf = Some(Leaf { group, ending: None });
                self.tell(&RunnerTold::Leaf, Some(&door));
            }
            Err(error) => {
                let why = format!("making the attempt's control group failed: {error}");
                self.tell(&refusal(child, why), None);
            }
        }
    }

    fn end_leaf(&mut self, until: Instant, then: Then) {
        let Some(leaf) = self.leaf.as_mut() else { return };
        // Nothing is there where the runner ended all by itself, as it does when nothing resists.
        let killed = if leaf.group.is_populated() { leaf.group.kill().unwrap_or(0) } else { 0 };
        leaf.ending = Some(Ending { watch: leaf.group.watch().ok(), until, killed, then });
    }

    /// Reports and removes a leaf in which nothing is left, or that had its time.
    fn go_on(&mut self, settings: &Settings, child: &Child) {
        let Some(leaf) = self.leaf.as_ref() else { return };
        let Some(ending) = leaf.ending.as_ref() else { return };
        let populated = ending.watch.as_ref().is_some_and(Watch::is_populated);
        if populated && Instant::now() < ending.until {
            return;
        }
        if populated {
            // In uninterruptible sleep. Its group stays until its slot's group goes.
            let path = leaf.group.path().display();
            tracing::error!(TASKD_SLOT = %child.slot, "processes of an attempt cannot be ended: {path}");
        }
        let mut usage = leaf.group.usage();
        usage.killed = ending.killed;
        if let Err(error) = leaf.group.remove() {
            tracing::debug!(TASKD_SLOT = %child.slot, "{} stays: {error}", leaf.group.path().display());
        }
        match self.leaf.take().and_then(|leaf| leaf.ending).map(|ending| ending.then) {
            Some(Then::Make { task, memory_retries }) => {
                self.make_leaf(settings, child, &task, memory_retries);
            }
            _ => self.tell(&RunnerTold::Done(usage), None),
        }
    }

    /// One packet for each question: a runner that does not read them asks too much.
    fn tell(&mut self, told: &RunnerTold, door: Option<&OwnedFd>) {
        let fds: Vec<_> = door.iter().map(|fd| fd.as_fd()).collect();
        if let Some(asks) = &self.asks
            && asks.try_send(told, &fds).is_err()
        {
            self.asks = None;
        }
    }
}

fn refusal(child: &Child, error: String) -> RunnerTold {
    let Child { slot, pid, .. } = child;
    tracing::error!(TASKD_SLOT = %slot, TASKD_PID = *pid, "a runner is refused a leaf: {error}");
    RunnerTold::Refused { error }
}
