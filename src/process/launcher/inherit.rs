//! What a launcher hands to the program that replaces it in place (same process, other program), and how
//! that one takes it over: a sealed memory file with the state as JSON, and descriptors that stay open over
//! execve(2). Everything else is close-on-exec.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::child::KeptEnd;
use super::groups::{self, KeptCell};
use super::users::{self, Machine};
use super::{LauncherOptions, reload, sandboxes, vault};
use crate::config::settings::Settings;
use crate::process::cgroup::{Kept, Tree};
use crate::process::held;
use crate::process::launch::{Child, ChildId, Slot};
use crate::process::memfd;

/// Names the descriptor of the state in the environment of the program that takes over.
pub(super) const VARIABLE: &str = "TASKD_TAKE_OVER";

/// The format of the state that this program writes and reads. To be raised when a field changes its meaning
/// or one without a default is added.
pub const FORMAT: u32 = 1;

/// Descriptors are moved to this number or above, away from those that children get.
const FIRST_KEPT: RawFd = 16;

/// How this program was started, as far as its replacement needs it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where the program lies that an upgrade replaces.
    pub path: PathBuf,
    /// The arguments as they were given.
    pub argv: Vec<CString>,
}

impl Origin {
    /// Of this process. To be called before a title overwrites the arguments.
    #[must_use]
    pub fn now() -> Self {
        let argv: Vec<OsString> = std::env::args_os().collect();
        let path = own_path(argv.first());
        // The kernel gave them as C strings: there is no NUL in them.
        let argv = argv.into_iter().filter_map(|a| CString::new(a.into_vec()).ok()).collect();
        Self { path, argv }
    }
}

/// The name by which this program was started where that still is this program (an upgrade may only move a
/// link on the way), else what the kernel says.
fn own_path(name: Option<&OsString>) -> PathBuf {
    let same = |path: &Path| {
        let this = std::fs::metadata("/proc/self/exe").ok()?;
        let there = std::fs::metadata(path).ok()?;
        (this.dev() == there.dev() && this.ino() == there.ino()).then(|| path.to_owned())
    };
    let named = name.and_then(|name| {
        if name.as_bytes().contains(&b'/') {
            return same(&std::path::absolute(name).ok()?);
        }
        std::env::split_paths(&std::env::var_os("PATH")?)
            .filter(|directory| directory.is_absolute())
            .find_map(|directory| same(&directory.join(name)))
    });
    named.unwrap_or_else(|| without_mark(std::fs::read_link("/proc/self/exe").unwrap_or_default()))
}

/// The kernel marks the path of a program whose file was replaced since (proc(5)).
fn without_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(rest) if !path.exists() => PathBuf::from(OsString::from_vec(rest.to_vec())),
        _ => path,
    }
}

/// Everything that the next program cannot find out by itself. Times are told as how long ago they were.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// [`FORMAT`] of who wrote it.
    pub(super) format: u32,
    /// Its version.
    pub(super) version: String,
    /// Its process id, which is that of who takes over, too.
    pub(super) pid: u32,
    /// The settings in force. Their own format may have changed: read as far as possible.
    pub(super) loaded: Value,
    /// Queues that hold messages.
    pub(super) keep: Vec<String>,
    /// `TASKD_INSTANCE`.
    pub(super) instance: String,
    /// The locked file.
    pub(super) lock: RawFd,
    /// The control socket.
    pub(super) listener: RawFd,
    /// Path, device and inode of the control socket, where the launcher made it.
    pub(super) bound: Option<(PathBuf, u64, u64)>,
    /// Soft and hard limit of open files as the launcher found them.
    pub(super) open_files: (u64, u64),
    /// Starts of the daemon so far.
    pub(super) epoch: u64,
    /// How many milliseconds ago daemons died lately.
    pub(super) deaths: Vec<u64>,
    /// The last child's id.
    pub(super) last_child: u64,
    /// Living children, and such that ended and were not reaped yet.
    pub(super) children: Vec<Heir>,
    /// What children are forked from; none to one that knows none, which ends them.
    #[serde(default)]
    pub(super) parents: Vec<HeirParent>,
    /// The settings that they were started with, by generation.
    pub(super) generations: BTreeMap<u64, Value>,
    /// Children that were reaped and whose end was not told yet.
    pub(super) ended: Vec<KeptEnd>,
    /// Processes that are not taskd's; none to one that knows none.
    #[serde(default)]
    pub(super) foreign: BTreeSet<u32>,
    /// Control groups, where they are in force.
    pub(super) tree: Option<Kept>,
    /// How processes are kept together.
    pub(super) supervision: String,
    /// See [`crate::process::launch::Start::children_lost`].
    pub(super) children_lost: bool,
    /// When the launcher started, milliseconds since the epoch.
    pub(super) since: i64,
    /// A reload was asked for and not begun.
    pub(super) reload_wanted: bool,
    /// Nothing new is to be started (`taskd drain`).
    pub(super) draining: bool,
    /// How often the program was replaced, this time included.
    pub(super) upgrades: u64,
    /// The secrets in force and where they become files; without values for a program that is only tried.
    #[serde(default)]
    pub(super) held: held::Sealed,
}

/// A child that changes hands.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heir {
    pub(super) child: Child,
    /// How many milliseconds ago it was started.
    pub(super) age_ms: u64,
    /// What goes to each daemon.
    pub(super) descriptors: Vec<RawFd>,
    /// The pipe of a resident worker that has not executed its program yet.
    pub(super) starting: Option<RawFd>,
    pub(super) cell: Option<KeptCell>,
    pub(super) out_of_memory: bool,
    /// The parent that it was forked from.
    #[serde(default)]
    pub(super) parent: Option<ChildId>,
}

/// A process that children are forked from and that changes hands; what it was asked for is asked for again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeirParent {
    pub(super) id: ChildId,
    pub(super) slot: Slot,
    pub(super) user: String,
    pub(super) generation: u64,
    /// 0 where it ended and only its children are left.
    pub(super) pid: u32,
    /// Its socket, while it takes orders.
    pub(super) descriptors: Option<RawFd>,
    pub(super) cell: Option<KeptCell>,
}

impl State {
    /// Every descriptor that it names.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let of = |c: &Heir| {
            let asks = c.cell.as_ref().and_then(|cell| cell.asks);
            c.descriptors.iter().copied().chain(c.starting).chain(asks).collect::<Vec<_>>()
        };
        let of_parents = self.parents.iter().filter_map(|p| p.descriptors);
        let own = [self.lock, self.listener].into_iter().chain(of_parents);
        own.chain(self.children.iter().flat_map(of)).collect()
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
            version: String,
        }
        let any: Any = serde_json::from_slice(text).map_err(|e| format!("the launcher's state: {e}"))?;
        if any.format != FORMAT {
            return Err(format!(
                "the state of the running taskd {} has format {}, and taskd {} takes over format {FORMAT} only: \
                 restart taskd instead",
                any.version,
                any.format,
                env!("CARGO_PKG_VERSION"),
            ));
        }
        serde_json::from_slice(text).map_err(|e| format!("the launcher's state: {e}"))
    }

    /// The settings as the config says now, if they may follow those in force.
    pub(super) fn next_settings(&self, options: &LauncherOptions) -> Result<Settings, String> {
        let mut next = match serde_json::from_value::<Settings>(self.loaded.clone()) {
            Ok(old) => {
                let next = reload::next(options, &old, &self.keep)?;
                next.map_or_else(|| Settings { generation: old.generation + 1, ..old }, |(next, _)| next)
            }
            // Of another version: what is held open cannot change all the same.
            Err(_) => self.compatible((options.load)()?)?,
        };
        next.generation = self.generation() + 1;
        let (resolved, _) = users::resolve(&next, &users::Who::now(), &Machine::real())?;
        let tree = self.tree.clone().map(|kept| Tree::taken_over(kept, options.groups.kernel));
        groups::check(&resolved, tree.as_ref())?;
        vault::read(&resolved)?;
        Ok(next)
    }

    /// The settings as they were in force, where the config became faulty in the last moment.
    pub(super) fn old_settings(&self) -> Result<Settings, String> {
        let old: Settings = serde_json::from_value(self.loaded.clone()).map_err(|e| e.to_string())?;
        Ok(Settings { generation: old.generation + 1, ..old })
    }

    fn generation(&self) -> u64 {
        self.loaded.get("generation").and_then(Value::as_u64).unwrap_or_default()
    }

    fn compatible(&self, next: Settings) -> Result<Settings, String> {
        let paths = [("state_dir", &next.taskd.state_dir), ("socket", &next.taskd.socket)];
        for (key, is) in paths {
            let was = self.loaded.pointer(&format!("/taskd/{key}")).and_then(Value::as_str).map(Path::new);
            if was != Some(is) {
                return Err(format!("[taskd] {key} is another one now: that needs a restart of taskd"));
            }
        }
        match self.keep.iter().find(|queue| !next.queues.contains_key(*queue)) {
            Some(queue) => Err(format!("messages are in [queues.{queue}], which the config does not have")),
            None => Ok(next),
        }
    }
}

/// What a program that was tried answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fit {
    /// Its version.
    pub(super) taskd: String,
    /// The format of the state that it takes over.
    pub(super) format: u32,
}

/// The trial, on the new program's side: reads the state from stdin and the config, changes nothing. The
/// line to print.
///
/// # Errors
/// Why this program cannot take over.
pub fn upgrade_check(options: &LauncherOptions) -> Result<String, String> {
    let told = io::stdin().as_fd().try_clone_to_owned().and_then(memfd::read_sealed);
    let told = told.map_err(|_| "this is started by `taskd reload --binary`, not by hand".to_owned())?;
    let next = State::parse(&told)?.next_settings(options)?;
    let (resolved, _) = users::resolve(&next, &users::Who::now(), &Machine::real())?;
    sandboxes::check(&resolved)?;
    let fit = Fit { taskd: env!("CARGO_PKG_VERSION").to_owned(), format: FORMAT };
    serde_json::to_string(&fit).map_err(|e| e.to_string())
}

/// A state with the descriptors that came with it.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) state: State,
    descriptors: BTreeMap<RawFd, OwnedFd>,
}

impl Inherited {
    /// The descriptor that had this number; each is there once.
    pub(super) fn take(&mut self, number: RawFd) -> Result<OwnedFd, String> {
        self.descriptors.remove(&number).ok_or_else(|| format!("descriptor {number} is named twice"))
    }
}

/// Takes over what an earlier program of this process left; nothing where there was none. To be called while
/// this is the only thread and before anything else is opened for good.
///
/// # Errors
/// What cannot be taken over. The children then end with this process.
pub(super) fn inherited() -> Result<Option<Inherited>, String> {
    let Some(number) = std::env::var_os(VARIABLE) else { return Ok(None) };
    // SAFETY: this is the only thread of the process, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(VARIABLE) };
    let number = number.to_str().and_then(|n| n.parse().ok()).ok_or("its number cannot be read")?;
    let memory = claim(number).map_err(|e| format!("descriptor {number}: {e}"))?;
    let text = memfd::read_sealed(memory).map_err(|e| format!("descriptor {number}: {e}"))?;
    let state = State::parse(&text)?;
    if state.pid != std::process::id() {
        return Err(format!("it was meant for process {}", state.pid));
    }
    let mut descriptors = BTreeMap::new();
    for number in state.descriptors() {
        descriptors.insert(number, claim(number).map_err(|e| format!("descriptor {number}: {e}"))?);
    }
    Ok(Some(Inherited { state, descriptors }))
}

/// Owns a descriptor that stayed open over execve(2): close-on-exec again, and out of the way of the numbers
/// that children get.
fn claim(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only asks whether this number is open.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, was left open for this purpose, and is named once in the state.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let kept = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_KEPT))?;
    // SAFETY: the kernel just made this descriptor for us, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(kept) })
}

/// Has these descriptors stay open over execve(2), or not.
pub(super) fn leave_open(numbers: &[RawFd], open: bool) -> io::Result<()> {
    for number in numbers {
        let flags = if open { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        // SAFETY: plain system call; an unknown number is refused by the kernel.
        if unsafe { libc::fcntl(*number, libc::F_SETFD, flags.bits()) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The state as a memory file, and all descriptors that must stay open with it.
pub(super) fn write(state: &State) -> io::Result<(OwnedFd, Vec<RawFd>)> {
    let memory = memfd::write_sealed("taskd-launcher", &serde_json::to_vec(state)?)?;
    let mut numbers = state.descriptors();
    numbers.push(memory.as_raw_fd());
    Ok((memory, numbers))
}

/// Whether this is a child of this process that was not reaped yet, dead or alive.
pub(super) fn is_child(pid: u32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // nix has no name for a real-time signal that ended it, and says EINVAL.
    i32::try_from(pid).is_ok_and(|pid| waitid(Id::Pid(Pid::from_raw(pid)), flags) != Err(Errno::ECHILD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            format: FORMAT,
            version: "0".to_owned(),
            pid: std::process::id(),
            loaded: serde_json::json!({"generation": 4, "taskd": {"state_dir": "/s", "socket": "/s/s"}}),
            keep: Vec::new(),
            instance: "i".to_owned(),
            lock: 20,
            listener: 21,
            bound: None,
            open_files: (1, 2),
            epoch: 3,
            deaths: Vec::new(),
            last_child: 9,
            children: Vec::new(),
            parents: Vec::new(),
            generations: BTreeMap::new(),
            foreign: BTreeSet::new(),
            tree: None,
            supervision: String::new(),
            ended: Vec::new(),
            children_lost: false,
            since: 0,
            reload_wanted: false,
            draining: false,
            upgrades: 1,
            held: held::Sealed::default(),
        }
    }

    #[test]
    fn a_state_of_another_format_is_refused_whatever_else_is_in_it() {
        let text = serde_json::to_vec(&state()).unwrap();
        assert_eq!(State::parse(&text).unwrap().generation(), 4);
        let other = format!("{{\"format\":{},\"version\":\"9.9\",\"new\":true}}", FORMAT + 1);
        let why = State::parse(other.as_bytes()).unwrap_err();
        assert!(why.contains("9.9") && why.contains(&format!("format {}", FORMAT + 1)), "{why}");
        assert!(State::parse(b"{}").is_err());
    }

    #[test]
    fn what_is_held_open_cannot_change_whatever_the_version() {
        let (next, mut state) = (taskd(), state());
        state.loaded["taskd"]["state_dir"] = serde_json::json!(next.taskd.state_dir);
        state.loaded["taskd"]["socket"] = serde_json::json!(next.taskd.socket);
        assert!(state.compatible(next.clone()).is_ok());
        state.loaded["taskd"]["socket"] = serde_json::json!("/elsewhere");
        assert!(state.compatible(next).unwrap_err().contains("socket"));
    }

    fn taskd() -> Settings {
        crate::config::load_texts(&[], &crate::config::Env::real()).unwrap().settings
    }

    #[test]
    fn only_descriptors_that_are_open_are_claimed_and_they_move_away() {
        assert!(claim(-1).is_err() && claim(1).is_err() && claim(1_000_000).is_err());
        let file = tempfile::tempfile().unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(file);
        let kept = claim(number).unwrap();
        assert!(kept.as_raw_fd() >= FIRST_KEPT);
        assert_eq!(fcntl(&kept, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        leave_open(&[kept.as_raw_fd()], true).unwrap();
        assert_eq!(fcntl(&kept, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, 0);
    }

    #[test]
    fn children_are_told_from_others() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(is_child(child.id()), "alive, or a zombie");
        assert!(!is_child(std::process::id()) && !is_child(1));
        child.wait().unwrap();
        assert!(!is_child(child.id()));
    }

    #[test]
    fn the_mark_of_a_replaced_file_is_taken_off() {
        assert_eq!(without_mark("/opt/x/taskd (deleted)".into()), Path::new("/opt/x/taskd"));
        assert_eq!(without_mark("/opt/x/taskd".into()), Path::new("/opt/x/taskd"));
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("taskd (deleted)");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(without_mark(odd.clone()), odd);
        let this = Origin::now();
        assert_eq!(
            this.path.canonicalize().unwrap(),
            std::env::current_exe().unwrap().canonicalize().unwrap()
        );
        assert_eq!(this.argv.len(), std::env::args_os().len());
    }
}
