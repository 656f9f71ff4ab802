//! What an attempt started and did not wait for: finding it, killing it, reaping it.
//!
//! Works because the caller is a child sub-reaper (prctl(2)): a descendant whose parent ends becomes the
//! caller's own child, in whatever session or group it is, so "no child is left" means that nothing is.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

/// A process that was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// Its process id.
    pub pid: i32,
    /// Its wait status.
    pub status: Status,
    /// CPU time in user mode of it and of what it waited for, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, likewise.
    pub system_us: u64,
    /// Largest resident set, in bytes.
    pub max_rss: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Exit code, 0 to 255.
    Exited(i32),
    /// Died of a signal.
    Signaled {
        /// Its number (real-time signals too).
        signal: i32,
        /// Whether a core file was written.
        core: bool,
    },
}

/// Takes a child that ended off the kernel's table: `pid`, or any for -1. Never blocks; `None` where none
/// ended yet.
///
/// # Errors
/// ECHILD where there is no such child.
pub fn reap(pid: i32) -> Result<Option<Reaped>, Errno> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live variables of the right type; zeroed is a valid rusage.
    let (got, usage) = unsafe {
        let got = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (got, usage.assume_init())
    };
    let got = Errno::result(got)?;
    if got == 0 {
        return Ok(None);
    }
    let micros = |t: libc::timeval| {
        u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000) + u64::try_from(t.tv_usec).unwrap_or(0)
    };
    Ok(Some(Reaped {
        pid: got,
        status: if libc::WIFSIGNALED(status) {
            Status::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
        } else {
            Status::Exited(libc::WEXITSTATUS(status))
        },
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        // The kernel counts in KiB.
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }))
}

/// The child that ended longest ago, left where it is; `None` where none did.
#[must_use]
pub fn ended() -> Option<i32> {
    peek(libc::P_ALL, 0)
}

/// Whether this child ended; it stays to be reaped.
#[must_use]
pub fn has_ended(pid: i32) -> bool {
    peek(libc::P_PID, pid.cast_unsigned()).is_some()
}

fn peek(kind: libc::idtype_t, id: u32) -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live variable; zeroed is a valid siginfo_t, and si_pid is zero where the
    // kernel found nobody.
    let pid = unsafe {
        if libc::waitid(kind, id, info.as_mut_ptr(), flags) != 0 {
            return None;
        }
        info.assume_init().si_pid()
    };
    (pid != 0).then_some(pid)
}

/// Sends a signal, by number (nix names no real-time ones), to the process group of a child that was not
/// reaped yet.
pub fn signal_group(leader: i32, signal: i32) {
    // SAFETY: a plain system call; a number that is no signal is refused by the kernel.
    unsafe {
        libc::kill(-leader, signal);
    }
}

/// Sends SIGKILL to every living descendant of this process. Each is stopped as soon as it is found, before
/// its children are looked for, again and again until none is new, because whoever is stopped cannot fork:
/// programs that fork faster than they are looked for end too. Its process group is stopped with it, which the
/// kernel does in one step: a process that forks and ends at once is never found alive, but its group is still
/// known. Call it until [`reap`] says that no child is left. Returns how many it was sent to.
pub fn kill_all() -> usize {
    let own = getpgrp();
    let mut stopped = BTreeSet::new();
    let mut groups = BTreeSet::new();
    let mut found = Vec::new();
    // Two rounds end what does not fork; the bound is for a list that never stops changing.
    for _ in 0..STOP_ROUNDS {
        let before = stopped.len();
        found.clear();
        walk(std::process::id().cast_signed(), |pid, _| {
            found.push(pid);
            let pid = Pid::from_raw(pid);
            if !stopped.insert(pid) {
                return true;
            }
            let _ = kill(pid, Signal::SIGSTOP);
            // An attempt begins a session, so a group that is not ours has none but its members.
            if let Ok(group) = getpgid(Some(pid))
                && group != own
                && groups.insert(group)
            {
                let _ = killpg(group, Signal::SIGSTOP);
            }
            true
        });
        if stopped.len() == before {
            break;
        }
    }
    for group in groups {
        let _ = killpg(group, Signal::SIGKILL);
    }
    for pid in &found {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    found.len()
}

/// Looks at the whole family that often at most before it is killed.
const STOP_ROUNDS: usize = 64;

/// Process ids of all descendants of this process, parents before children.
#[must_use]
pub fn descendants() -> Vec<i32> {
    below(std::process::id().cast_signed())
}

/// Process ids of all descendants of a process, parents before children.
#[must_use]
pub fn below(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    walk(pid, |pid, _| {
        found.push(pid);
        true
    });
    found
}

/// How many processes and threads descend from this process; counting ends above `enough`.
#[must_use]
pub fn tasks(enough: u64) -> u64 {
    let mut count = 0;
    walk(std::process::id().cast_signed(), |_, threads| {
        count += threads();
        count <= enough
    });
    count
}

/// Tells of each descendant of a process once, parents before children and before their children are looked for, and how
/// to ask for the number of its threads; ends early where it is answered false.
fn walk(own: i32, mut visit: impl FnMut(i32, &dyn Fn() -> u64) -> bool) {
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |d| d.count() as u64);
    let Some(mut next) = children_of(own) else {
        for pid in by_scan(own) {
            if !visit(pid, &|| threads(pid)) {
                return;
            }
        }
        return;
    };
    let mut seen = BTreeSet::new();
    while let Some(pid) = next.pop() {
        if seen.insert(pid) {
            if !visit(pid, &|| threads(pid)) {
                return;
            }
            next.extend(children_of(pid).unwrap_or_default());
        }
    }
}

/// The children of every thread of a process; `None` where the process is gone or the kernel has no such
/// file (`CONFIG_PROC_CHILDREN`).
fn children_of(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    let mut known = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        if let Ok(text) = fs::read_to_string(thread.path().join("children")) {
            known = true;
            children.extend(text.split_ascii_whitespace().filter_map(|p| p.parse::<i32>().ok()));
        }
    }
    known.then_some(children)
}

/// Memory of a process, in bytes: what is resident of it, all of what it shares included.
#[must_use]
pub fn resident(pid: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: a plain question to the C library.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.saturating_mul(u64::try_from(page).unwrap_or(4096))
}

/// Memory of a process, in bytes: what is resident of it, what it shares divided by those who share it (PSS).
/// Walks its page tables, so it costs; `None` where it is gone or is not ours to look into.
#[must_use]
pub fn proportional(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:"))?;
    let kib = line.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib.saturating_mul(1024))
}

/// The same by reading the parent of every process there is.
fn by_scan(own: i32) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (name) state ppid …": the name may hold anything, parentheses too.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|p| p.parse::<i32>().ok()) {
            parents.push((pid, parent));
        }
    }
    // A process id may be used again between two reads, so the table can even hold a circle.
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([own]);
    let mut next = vec![own];
    while let Some(parent) = next.pop() {
        for (pid, _) in parents.iter().filter(|(_, p)| *p == parent) {
            if seen.insert(*pid) {
                found.push(*pid);
                next.push(*pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_a_grandchild() {
        // Its own children and those of tests beside it: only what this test started is looked for.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "/bin/sleep 600 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let own = std::process::id().cast_signed();
        let parent = child.id().cast_signed();
        let (walked, scanned) = (descendants(), by_scan(own));
        let _ = kill(Pid::from_raw(grandchild), Signal::SIGKILL);
        child.wait().unwrap();
        for found in [walked, scanned] {
            let at = |pid| found.iter().position(|p| *p == pid).unwrap();
            assert!(at(parent) < at(grandchild));
        }
    }
}
