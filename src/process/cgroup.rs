//! Control groups, version 2: one below the launcher's own for each child, a fresh leaf in it for each attempt.
//!
//! ```text
//! OWN/                    the launcher's own group, which somebody delegated
//! ├── supervisor/         launcher and daemon (no process may be in a group that hands controllers on)
//! └── slots/
//!     └── POOL-INDEX.CHILD/
//!         ├── main/       the child itself
//!         └── a7/         its seventh attempt, with the limits of its task
//! ```
//!
//! Everything here works on paths. What only the kernel can do with a directory (make it a group, remove one
//! that is full of files) stands in [`Kernel`], so that a plain directory can play a group in tests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::launch::LeafUsage;
use super::privileges;

/// Where launcher and daemon live.
const SUPERVISOR: &str = "supervisor";

/// Where the groups of children are.
const SLOTS: &str = "slots";

/// Where a child itself lives in its group.
const MAIN: &str = "main";

/// Microseconds of `cpu.max` in which a quota is measured: the kernel's default.
const PERIOD: u64 = 100_000;

/// Depth of groups below a leaf that is looked at; a task of root may make groups of its own.
const DEPTH: usize = 16;

/// What needs the kernel's own file system.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Makes a group.
    pub make: fn(&Path) -> io::Result<()>,
    /// Removes a group in which nothing is.
    pub remove: fn(&Path) -> io::Result<()>,
}

impl Kernel {
    /// The real one: a directory of the cgroup2 file system is a group.
    #[must_use]
    pub fn real() -> Self {
        Self { make, remove: |path| fs::remove_dir(path) }
    }
}

/// Makes a group that everybody may enter and read, whatever the umask is (the unit's is 0077): the tables of a leaf are
/// opened with the rights of the runner's user. What may be written is decided by its owner.
fn make(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Where this process stands, as `/proc` tells it.
///
/// # Errors
/// A sentence that says what there is not.
pub fn own() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    place(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

/// The path of the group that `/proc/PID/cgroup` names, under the mount that `/proc/PID/mountinfo` names.
fn place(cgroup: &str, mounts: &str) -> Result<PathBuf, String> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or("the kernel has no cgroup v2 here")?;
    for line in mounts.lines() {
        // "36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup2 cgroup2 rw"
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if after.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let (root, point) = (unescaped(root), unescaped(point));
        let root = root.trim_end_matches('/');
        if let Some(below) = own.strip_prefix(root).filter(|b| b.is_empty() || b.starts_with('/')) {
            return Ok(Path::new(&point).join(below.trim_start_matches('/')));
        }
    }
    Err("no cgroup2 file system is mounted that shows this process's group".to_owned())
}

/// A field of mountinfo: blanks and backslashes stand there in octal.
fn unescaped(field: &str) -> String {
    let mut text = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, plain);
    }
    text
}

/// A controller that limits something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// `memory`, without which control groups are of no use here.
    Memory,
    /// `pids`, likewise.
    Pids,
    /// `cpu`.
    Cpu,
    /// `io`.
    Io,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::Io];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Io => "io",
        }
    }
}

/// What a group may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes; beyond it everything in the group is killed. No swap then either.
    pub memory: Option<u64>,
    /// Percent of one CPU.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// A [`Tree`] as the next program of this process finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    root: PathBuf,
    controllers: Vec<Controller>,
}

/// The launcher's own group, taken over.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    controllers: Vec<Controller>,
    kernel: Kernel,
}

impl Tree {
    /// Takes over a group of which this process is the only member: ends and removes what an earlier life
    /// left in it, goes into `supervisor/` and hands every controller on. Nothing is changed where that is
    /// not possible.
    ///
    /// # Errors
    /// A sentence that says why this group cannot be used.
    pub fn take(root: PathBuf, kernel: Kernel, patience: Duration) -> Result<Self, String> {
        let available = usable(&root)?;
        let group = |name: &str| Group { path: root.join(name), kernel };
        for left in [group(SLOTS), group(SUPERVISOR)] {
            if left.path.is_dir() {
                left.end(patience).map_err(|e| format!("what an earlier life left stays: {e}"))?;
            }
        }
        let told = |what: &str, at: &Path| {
            let at = at.display().to_string();
            let what = what.to_owned();
            move |e: io::Error| format!("{what} {at} failed: {e}")
        };
        let supervisor = group(SUPERVISOR);
        (kernel.make)(&supervisor.path).map_err(told("making", &supervisor.path))?;
        let entered = write(&supervisor.path.join("cgroup.procs"), "0");
        let mut tree = Self { root: root.clone(), controllers: Vec::new(), kernel };
        let enabled = entered.and_then(|()| {
            tree.controllers = enable(&root, &available)?;
            (kernel.make)(&root.join(SLOTS))?;
            enable(&root.join(SLOTS), &tree.controllers)
        });
        match enabled {
            Ok(controllers) => tree.controllers = controllers,
            Err(error) => {
                tree.give_back();
                return Err(format!("{} cannot hand controllers on: {error}", root.display()));
            }
        }
        Ok(tree)
    }

    /// As it was found, as far as that is possible.
    fn give_back(&self) {
        let off: Vec<String> = self.controllers.iter().map(|c| format!("-{}", c.name())).collect();
        let _ = (self.kernel.remove)(&self.root.join(SLOTS));
        let _ = write(&self.root.join("cgroup.subtree_control"), &off.join(" "));
        let _ = write(&self.root.join("cgroup.procs"), "0");
        let _ = (self.kernel.remove)(&self.root.join(SUPERVISOR));
    }

    /// What [`Tree::taken_over`] needs to know of it.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept { root: self.root.clone(), controllers: self.controllers.clone() }
    }

    /// One that an earlier program of this process took: nothing of it is touched.
    #[must_use]
    pub fn taken_over(kept: Kept, kernel: Kernel) -> Self {
        Self { root: kept.root, controllers: kept.controllers, kernel }
    }

    /// A group of it that an earlier program of this process made.
    #[must_use]
    pub fn group(&self, path: PathBuf) -> Group {
        Group { path, kernel: self.kernel }
    }

    /// Whether this controller is there.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// How processes are kept together, for `taskd status`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let names: Vec<&str> = self.controllers.iter().map(|c| c.name()).collect();
        format!("control groups (v2) under {}, with {}", self.root.display(), names.join(", "))
    }

    /// A new group for a child, with `main/` for the child itself.
    ///
    /// # Errors
    /// What the kernel said; nothing is left behind.
    pub fn slot(&self, name: &str) -> io::Result<Group> {
        let group = Group { path: self.root.join(SLOTS).join(escaped(name)), kernel: self.kernel };
        (self.kernel.make)(&group.path)?;
        let made = enable(&group.path, &self.controllers).and_then(|_| group.leaf(MAIN));
        if let Err(error) = made {
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Kills everything in the groups of children, and removes them as far as they are empty within this time.
    pub fn clear(&self, patience: Duration) {
        let slots = Group { path: self.root.join(SLOTS), kernel: self.kernel };
        // Who goes now cannot do more about it; the next life looks again.
        let _ = slots.end(patience);
    }
}

/// The controllers of a group that can be taken over.
fn usable(root: &Path) -> Result<Vec<Controller>, String> {
    let at = root.display().to_string();
    let kind = read(&root.join("cgroup.type"));
    match kind.as_deref().map(str::trim) {
        Ok("domain") => {}
        Ok(other) => return Err(format!("{at} is of the kind {other:?}")),
        Err(_) => return Err(format!("{at} is the root of all groups, and nobody delegated that")),
    }
    let told = |file: &'static str| {
        let at = &at;
        move |e: io::Error| format!("{at}/{file}: {e}")
    };
    let text = read(&root.join("cgroup.controllers")).map_err(told("cgroup.controllers"))?;
    let available: Vec<Controller> = Controller::ALL
        .into_iter()
        .filter(|c| text.split_ascii_whitespace().any(|name| name == c.name()))
        .collect();
    for needed in [Controller::Memory, Controller::Pids] {
        if !available.contains(&needed) {
            return Err(format!("{at} has no {} controller", needed.name()));
        }
    }
    if !root.join("cgroup.kill").exists() {
        return Err(format!("{at} has no cgroup.kill (Linux 5.14)"));
    }
    let own = std::process::id().to_string();
    let members = read(&root.join("cgroup.procs")).map_err(told("cgroup.procs"))?;
    if members.split_ascii_whitespace().any(|pid| pid != own) {
        return Err(format!("other processes are in {at}, too"));
    }
    for file in ["cgroup.procs", "cgroup.subtree_control"] {
        OpenOptions::new().write(true).open(root.join(file)).map_err(told(file))?;
    }
    Ok(available)
}

/// Hands these controllers on to the groups below; tells which the kernel took.
fn enable(group: &Path, wanted: &[Controller]) -> io::Result<Vec<Controller>> {
    let file = group.join("cgroup.subtree_control");
    let on =
        |list: &[Controller]| list.iter().map(|c| format!("+{}", c.name())).collect::<Vec<_>>().join(" ");
    // All or none: only where that fails is it worth asking which one it was.
    if write(&file, &on(wanted)).is_ok() {
        return Ok(wanted.to_vec());
    }
    let mut taken = Vec::new();
    for controller in wanted {
        match write(&file, &on(&[*controller])) {
            Ok(()) => taken.push(*controller),
            Err(error) if matches!(controller, Controller::Memory | Controller::Pids) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(taken)
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    path: PathBuf,
    kernel: Kernel,
}

impl Group {
    /// A new group below this one.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn leaf(&self, name: &str) -> io::Result<Self> {
        let leaf = Self { path: self.path.join(name), kernel: self.kernel };
        (self.kernel.make)(&leaf.path)?;
        Ok(leaf)
    }

    /// Where the child of a slot's group lives.
    #[must_use]
    pub fn main(&self) -> Self {
        Self { path: self.path.join(MAIN), kernel: self.kernel }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its `cgroup.procs`, for writing only: who writes `0` there goes into the group. The kernel judges by
    /// the credentials of who opened it, so an unprivileged process may use the launcher's.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn door(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// A door for a user: it was opened with that user's rights, so no other process than those of the group
    /// above this one can be brought in by it. With root's rights its holder could bring in any process of the
    /// machine, and have it killed with the group.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn door_of(&self, uid: u32) -> io::Result<OwnedFd> {
        self.hand_over(uid)?;
        privileges::with_files_of(uid, || self.door())
    }

    /// Makes its `cgroup.procs`, and nothing else of it, this user's. In a group that hands controllers on
    /// nobody can be, but who is to move between two groups below must be able to write there.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn hand_over(&self, uid: u32) -> io::Result<()> {
        std::os::unix::fs::chown(self.path.join("cgroup.procs"), Some(uid), None)
    }

    /// Sets limits. A limit that cannot be set is an error: it would not hold.
    ///
    /// # Errors
    /// Which file, and what the kernel said.
    pub fn limit(&self, limit: Limit) -> io::Result<()> {
        let set = |file: &str, value: String| {
            write(&self.path.join(file), &value).map_err(|e| io::Error::new(e.kind(), format!("{file}: {e}")))
        };
        // Not every kernel has these two; memory.max holds without them.
        let set_if_there = |file: &str, value: &str| match set(file, value.to_owned()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        };
        if let Some(bytes) = limit.memory {
            set("memory.max", bytes.to_string())?;
            set_if_there("memory.swap.max", "0")?;
            set_if_there("memory.oom.group", "1")?;
        }
        if let Some(percent) = limit.cpu {
            set("cpu.max", format!("{} {PERIOD}", u64::from(percent) * PERIOD / 100))?;
        }
        if let Some(tasks) = limit.tasks {
            set("pids.max", tasks.to_string())?;
        }
        Ok(())
    }

    /// Sends SIGKILL to everything in it and in the groups below it, whatever forks meanwhile. Returns how
    /// many processes there were.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn kill(&self) -> io::Result<u32> {
        let there = self.members(DEPTH);
        write(&self.path.join("cgroup.kill"), "1")?;
        Ok(there)
    }

    fn members(&self, depth: usize) -> u32 {
        let own = read(&self.path.join("cgroup.procs")).map_or(0, |text| text.lines().count());
        let below = if depth == 0 { Vec::new() } else { self.below() };
        below.iter().map(|group| group.members(depth - 1)).sum::<u32>()
            + u32::try_from(own).unwrap_or(u32::MAX)
    }

    fn below(&self) -> Vec<Self> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let groups = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        groups.map(|e| Self { path: e.path(), kernel: self.kernel }).collect()
    }

    /// Watches whether anything is in it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn watch(&self) -> io::Result<Watch> {
        Ok(Watch { events: File::open(self.path.join("cgroup.events"))? })
    }

    /// Whether a living process is in it or below it. One that is not there has none.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        self.watch().is_ok_and(|watch| watch.is_populated())
    }

    /// Removes it and all groups below it.
    ///
    /// # Errors
    /// `EBUSY` where something is in it.
    pub fn remove(&self) -> io::Result<()> {
        self.remove_to(DEPTH)
    }

    fn remove_to(&self, depth: usize) -> io::Result<()> {
        if depth > 0 {
            for group in self.below() {
                group.remove_to(depth - 1)?;
            }
        }
        match (self.kernel.remove)(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Kills everything in it, waits until that is gone, and removes it.
    fn end(&self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        self.kill()?;
        let watch = self.watch()?;
        while watch.is_populated() {
            if !watch.wait(until) {
                let path = self.path.display();
                return Err(io::Error::new(ErrorKind::TimedOut, format!("processes in {path} do not end")));
            }
        }
        self.remove()
    }

    /// What was used in it so far; what the kernel does not count is absent or 0.
    #[must_use]
    pub fn usage(&self) -> LeafUsage {
        let cpu = self.table("cpu.stat");
        let (mut read_bytes, mut written_bytes) = (0_u64, 0_u64);
        // "8:0 rbytes=90112 wbytes=0 rios=2 …", a line for each device.
        for word in read(&self.path.join("io.stat")).unwrap_or_default().split_ascii_whitespace() {
            match word.split_once('=').map(|(key, n)| (key, n.parse().unwrap_or(0))) {
                Some(("rbytes", n)) => read_bytes = read_bytes.saturating_add(n),
                Some(("wbytes", n)) => written_bytes = written_bytes.saturating_add(n),
                _ => {}
            }
        }
        LeafUsage {
            user_us: value(&cpu, "user_usec").unwrap_or(0),
            system_us: value(&cpu, "system_usec").unwrap_or(0),
            memory_peak: self.number("memory.peak"),
            tasks_peak: self.number("pids.peak"),
            read_bytes,
            written_bytes,
            out_of_memory: self.ran_out_of_memory(),
            killed: 0,
        }
    }

    /// Whether the kernel killed something in it, or below it, for want of memory: at its own limit, at one
    /// above it, or of the machine.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let events = self.table("memory.events");
        ["oom_kill", "oom_group_kill"].iter().any(|key| value(&events, key).is_some_and(|n| n > 0))
    }

    /// Memory in use now, in bytes, without the cached pages of files: those go by themselves, and would
    /// still be counted long after the attempt that read the files.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let all = self.number("memory.current")?;
        let stat = self.table("memory.stat");
        let files = ["active_file", "inactive_file"].iter().filter_map(|key| value(&stat, key)).sum();
        Some(all.saturating_sub(files))
    }

    fn number(&self, file: &str) -> Option<u64> {
        read(&self.path.join(file)).ok()?.trim().parse().ok()
    }

    fn table(&self, file: &str) -> String {
        read(&self.path.join(file)).unwrap_or_default()
    }
}

/// Tells when the last process of a group is gone: poll(2) says POLLPRI then.
#[derive(Debug)]
pub struct Watch {
    events: File,
}

impl Watch {
    /// Whether a living process is in the group or below it. Also arms the next POLLPRI.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        let mut text = [0; 256];
        let length = self.events.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        value(&text, "populated").is_some_and(|n| n > 0)
    }

    /// Sleeps until something changed; false once the time is over.
    fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)], timeout);
        Instant::now() < until
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// A value of a file with a `key value` in each line.
fn value(table: &str, key: &str) -> Option<u64> {
    let of_key = |line: &str| line.split_once(' ').filter(|(k, _)| *k == key)?.1.trim().parse().ok();
    table.lines().find_map(of_key)
}

/// A name as a directory's; no two names have the same one.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    text
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// One write(2): the kernel takes a value whole or not at all.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
