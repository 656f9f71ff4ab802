//! Processes that nobody asked for: what an ended child left behind.
//!
//! The launcher is a sub-reaper, so whatever loses its parent below it becomes its own child. Whatever is
//! its child and was not started by it is therefore a leftover, and is killed with all below it ([`super::foreign`]
//! says what is not).

use std::collections::{BTreeMap, BTreeSet};

use crate::process::descendants::{self, Status};
use crate::process::instance::{self, PidFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Exit code, or 128 + signal.
    pub(super) code: i32,
    /// The signal, 0 if none.
    pub(super) signal: i32,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.signal, nix::sys::signal::Signal::try_from(self.signal)) {
            (0, _) => write!(f, "exit code {}", self.code),
            (_, Ok(signal)) => write!(f, "{signal}"),
            (number, Err(_)) => write!(f, "signal {number}"),
        }
    }
}

/// Takes the next ended child off the kernel's list, whoever it is.
///
/// Every child of this process is reaped here and nowhere else, so the number of one that was not reaped
/// yet cannot be another's: plain signals to children are safe.
pub(super) fn reap() -> Option<(u32, End)> {
    let reaped = descendants::reap(-1).ok()??;
    let end = match reaped.status {
        Status::Exited(code) => End { code, signal: 0 },
        Status::Signaled { signal, .. } => End { code: 128 + signal, signal },
    };
    Some((reaped.pid.unsigned_abs(), end))
}

/// Kills every child of this process that is not `known`, with all its descendants. Returns those that are
/// there still (dying or not), so that the caller looks again when the next one was reaped.
pub(super) fn kill_strangers(known: &BTreeSet<u32>) -> Vec<u32> {
    let me = std::process::id();
    // A walk over all of /proc costs as much as a program: not for nothing, where the kernel tells the children.
    if listed().is_some_and(|children| children.iter().all(|pid| known.contains(pid))) {
        return Vec::new();
    }
    let parents: BTreeMap<u32, u32> =
        instance::all().filter_map(|pid| Some((pid, instance::parent(pid)?.0))).collect();
    let strangers: Vec<u32> = parents
        .iter()
        .filter(|(pid, parent)| **parent == me && !known.contains(pid))
        .map(|(pid, _)| *pid)
        .collect();
    if strangers.is_empty() {
        return strangers;
    }
    let mut doomed: BTreeSet<u32> = strangers.iter().copied().collect();
    loop {
        let below: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| doomed.contains(parent) && !doomed.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if below.is_empty() {
            break;
        }
        doomed.extend(below);
    }
    for pid in doomed {
        kill_if_child_of(pid, parents.get(&pid).copied());
    }
    strangers
}

/// Every child of this process that was not reaped.
pub(super) fn children() -> BTreeSet<u32> {
    let me = std::process::id();
    let looked_for = || instance::all().filter(|pid| instance::parent(*pid).is_some_and(|(p, _)| p == me));
    listed().map_or_else(|| looked_for().collect(), BTreeSet::from_iter)
}

/// The same as the kernel tells it (proc(5), `/proc/PID/task/TID/children`). Absent where it does not, and where a
/// child ended meanwhile: then the list may lack others.
fn listed() -> Option<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let list = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        for pid in list.split_ascii_whitespace() {
            children.push(pid.parse().ok()?);
        }
    }
    // Only this process reaps: one that ended while the list was read still waits for that.
    descendants::ended().is_none().then_some(children)
}

/// Opened first, checked after: a number that went to another process meanwhile has another parent. One
/// that was re-parented meanwhile is a direct child in the next round.
fn kill_if_child_of(pid: u32, parent: Option<u32>) {
    let Ok(process) = PidFd::open(pid) else { return };
    if instance::parent(pid).map(|(now, _)| now) == parent {
        // It may end by itself first, or belong to a user that this one cannot kill: seen in the next round.
        let _ = process.kill();
    }
}
