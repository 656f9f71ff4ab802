//! The first steps of the daemon and of a runner, on their own side: take what was passed, become who they
//! are to be, die with the launcher.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};

use super::exec::FIRST_FD;
use crate::process::launch::RunnerPart;
use crate::process::memfd;
use crate::process::packet::Packets;
use crate::process::privileges::{self, Account};
use crate::process::title;

/// Names the user that the daemon is to become; absent: none.
pub(super) const DAEMON_USER: &str = "TASKD_DAEMON_USER";

/// First thing in a runner's `main`, once its arguments were read: takes its part of the settings, becomes
/// its user, and hands over the part, the socket to the daemon (a stream, close-on-exec), and where its part
/// says so the packet socket to the launcher by which it asks for control groups.
///
/// # Errors
/// A sentence that names what failed. The process must end then: it may be half-way to another user.
pub fn runner_start() -> Result<(RunnerPart, OwnedFd, Option<Packets>), String> {
    let mut fds = take(2, 1)?.into_iter();
    let (Some(socket), Some(part)) = (fds.next(), fds.next()) else { return Err(not_ours()) };
    let launcher = creator(&socket)?;
    let part = memfd::read_sealed(part).map_err(|e| format!("reading the runner's settings: {e}"))?;
    let part: RunnerPart =
        serde_json::from_slice(&part).map_err(|e| format!("parsing the runner's settings: {e}"))?;
    let leaves = match fds.next().filter(|_| part.leaves) {
        Some(fd) => Some(Packets::from_fd(fd).map_err(|e| format!("descriptor {}: {e}", FIRST_FD + 2))?),
        None if part.leaves => return Err(not_ours()),
        None => None,
    };
    become_user(&part.user)?;
    privileges::die_with_parent(launcher).map_err(|e| e.to_string())?;
    name_process(c"taskd-runner", &format!("taskd: runner {}", part.slot));
    Ok((part, socket, leaves))
}

/// First thing in the daemon's `main`, once its arguments were read: becomes its user, and hands over the
/// packet socket to the launcher.
///
/// # Errors
/// As for [`runner_start`].
pub fn daemon_start() -> Result<Packets, String> {
    let socket = take(1, 0)?.pop().ok_or_else(not_ours)?;
    let launcher = creator(&socket)?;
    become_user(&std::env::var(DAEMON_USER).unwrap_or_default())?;
    privileges::not_dumpable().map_err(|e| e.to_string())?;
    privileges::die_with_parent(launcher).map_err(|e| e.to_string())?;
    name_process(c"taskd-daemon", "taskd: daemon");
    Packets::from_fd(socket).map_err(|e| format!("descriptor {FIRST_FD}: {e}"))
}

fn become_user(user: &str) -> Result<(), String> {
    if user.is_empty() {
        return Ok(());
    }
    let account = Account::lookup(user).map_err(|e| e.to_string())?;
    privileges::become_user(&account).map_err(|e| e.to_string())
}

/// Takes over descriptors 3 and following, some of which may be absent at the end, and closes all above them:
/// whatever the launcher's parent left open is not for tasks.
fn take(count: i32, optional: i32) -> Result<Vec<OwnedFd>, String> {
    let mut taken = Vec::new();
    for number in FIRST_FD..FIRST_FD + count + optional {
        // SAFETY: fcntl with F_GETFD only asks whether this number is open.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            if number >= FIRST_FD + count {
                break;
            }
            return Err(not_ours());
        }
        // SAFETY: it is open, was put there by the launcher for this process, and this is the only place
        // that takes it over (a process is started once).
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| format!("descriptor {number}: {e}"))?;
        taken.push(fd);
    }
    // SAFETY: this runs before anything else was opened, so no descriptor above is owned by anyone.
    unsafe { libc::close_range((FIRST_FD + count + optional).unsigned_abs(), libc::c_uint::MAX, 0) };
    Ok(taken)
}

/// Who made the socket pair: the launcher. Told by the kernel, so no number has to be passed and believed.
fn creator(socket: &impl AsFd) -> Result<u32, String> {
    let peer = getsockopt(&socket.as_fd(), sockopt::PeerCredentials).map_err(|_| not_ours())?;
    Ok(peer.pid().unsigned_abs())
}

/// For `ps`, `systemctl status` and `top`; that a name cannot be shown is no reason not to work.
fn name_process(short: &std::ffi::CStr, long: &str) {
    let _ = nix::sys::prctl::set_name(short);
    let _ = title::init();
    title::set(long);
}

fn not_ours() -> String {
    "this is started by `taskd run`, not by hand".to_owned()
}
