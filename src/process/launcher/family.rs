//! Processes that nobody asked for: what an ended child left behind.
//!
//! The launcher is a sub-reaper, so whatever loses its parent below it becomes its own child. Whatever is
//! its child and was not started by it is therefore a leftover, and is killed with all below it.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

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
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, code)) => Some((pid.as_raw().unsigned_abs(), End { code, signal: 0 })),
        Ok(WaitStatus::Signaled(pid, signal, _)) => {
            let signal = signal as i32;
            Some((pid.as_raw().unsigned_abs(), End { code: 128 + signal, signal }))
        }
        _ => None,
    }
}

/// Kills every child of this process that is not `known`, with all its descendants. Returns those that are
/// there still (dying or not), so that the caller looks again when the next one was reaped.
pub(super) fn kill_strangers(known: &BTreeSet<u32>) -> Vec<u32> {
    let me = std::process::id();
    // A walk over all of /proc costs as much as a program: not for nothing, where the kernel tells the children.
    if children().is_some_and(|children| children.iter().all(|pid| known.contains(pid))) {
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

/// Every child of this process that was not reaped, as the kernel tells it (proc(5), `/proc/PID/task/TID/children`).
/// Absent where it does not, and where a child ended meanwhile: then the list may lack others.
fn children() -> Option<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let list = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        for pid in list.split_ascii_whitespace() {
            children.push(pid.parse().ok()?);
        }
    }
    // Only this process reaps: one that ended while the list was read still waits for that.
    match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Some(children),
        _ => None,
    }
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
