//! What an earlier life of this store left behind: every process whose environment carries its
//! `TASKD_INSTANCE`. Killed before READY, so that no attempt of then runs beside one of now.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The environment variable by which processes are found.
pub const VARIABLE: &str = "TASKD_INSTANCE";

/// A process by descriptor: what is done to it never hits another one that got its number.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Of a living (or not yet reaped) process.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes two integers and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
        let fd = libc::c_int::try_from(Errno::result(fd)?).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel just made this descriptor (close-on-exec, as pidfd_open always does).
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// `ESRCH` when it is gone, `EPERM` when it is not ours to kill.
    pub fn kill(&self) -> io::Result<()> {
        let (fd, none) = (libc::c_long::from(self.0.as_raw_fd()), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: pidfd_send_signal(2) takes a descriptor, a number, a null pointer (no siginfo) and flags.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
        Ok(Errno::result(done).map(drop)?)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Every process that can be seen, by number.
pub fn all() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The parent of a process and whether it is a zombie; absent when it is gone.
#[must_use]
pub fn parent(pid: u32) -> Option<(u32, bool)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X" | "x");
    Some((fields.next()?.parse().ok()?, zombie))
}

/// Kills every other process of this instance and waits until they are gone. Who started this process is
/// spared: taskd may be run from inside one of its own tasks. Returns how many were killed.
///
/// # Errors
/// Names the processes that still live after `patience`.
pub fn end_earlier_life(instance: &str, patience: Duration) -> Result<usize, String> {
    let spared = ancestors();
    let until = Instant::now() + patience;
    let mut killed = BTreeSet::new();
    loop {
        // Again after each round: a process may have forked between the look at it and its end.
        let found: Vec<(u32, PidFd)> =
            all().filter(|pid| !spared.contains(pid)).filter_map(|pid| member(pid, instance)).collect();
        if found.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() >= until {
            let pids: Vec<String> = found.iter().map(|(pid, _)| pid.to_string()).collect();
            return Err(format!(
                "processes of an earlier life cannot be ended (pid {}); end them, then start taskd again",
                pids.join(", ")
            ));
        }
        for (pid, process) in &found {
            if process.kill().is_ok() {
                killed.insert(*pid);
            }
        }
        for (_, process) in &found {
            wait_for_end(process, until);
        }
    }
}

/// Opened first, looked at after: so what is killed is what was looked at.
fn member(pid: u32, instance: &str) -> Option<(u32, PidFd)> {
    let process = PidFd::open(pid).ok()?;
    is_of(pid, instance).then_some((pid, process))
}

/// Whether a process says that it is of this instance; false where it cannot be asked.
#[must_use]
pub fn is_of(pid: u32, instance: &str) -> bool {
    let own = format!("{VARIABLE}={instance}");
    let environment = std::fs::read(format!("/proc/{pid}/environ"));
    environment.is_ok_and(|e| e.split(|byte| *byte == 0).any(|variable| variable == own.as_bytes()))
}

/// A pidfd is readable once its process ended, reaped or not.
fn wait_for_end(process: &PidFd, until: Instant) {
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    // What is not gone by then is named by the caller.
    let _ = poll(
        &mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)],
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
    );
}

/// This process and who started it, up to the first.
fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    while pid != 0 && found.insert(pid) {
        pid = parent(pid).map_or(0, |(parent, _)| parent);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn only_processes_of_the_instance_are_ended() {
        let sleeper = |id: &str| {
            Command::new("sleep").arg("600").env(VARIABLE, id).stdin(Stdio::null()).spawn().unwrap()
        };
        let id = uuid::Uuid::new_v4().to_string();
        let (mut ours, mut other) = (sleeper(&id), sleeper(&format!("{id}x")));
        // exec is over once the command line is the new one.
        let started =
            |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep"));
        while !(started(ours.id()) && started(other.id())) {
            std::thread::yield_now();
        }
        // Nobody reaps `ours` meanwhile: a zombie has no environment and counts as gone.
        assert_eq!(end_earlier_life(&id, Duration::from_secs(20)).unwrap(), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(end_earlier_life(&id, Duration::from_secs(20)).unwrap(), 0);
    }

    #[test]
    fn this_process_and_its_parents_are_spared() {
        let spared = ancestors();
        assert!(spared.contains(&std::process::id()));
        assert!(spared.contains(&std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_pidfd_of_nobody_is_an_error() {
        assert!(PidFd::open(0x3fff_fffe).is_err());
    }
}
