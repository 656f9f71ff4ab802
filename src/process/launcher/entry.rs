//! The first steps of the daemon and of a runner, on their own side: take what was passed, become who they
//! are to be, die with the launcher.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::exec::FIRST_FD;
use crate::config::settings::Identity;
use crate::process::confinement;
use crate::process::held::{self, Held};
use crate::process::launch::RunnerPart;
use crate::process::memfd;
use crate::process::packet::Packets;
use crate::process::privileges::{self, Account, Setup};
use crate::process::title;

/// Names the user that the daemon is to become; absent: none.
pub(super) const DAEMON_USER: &str = "TASKD_DAEMON_USER";
/// Names the state directory, which the daemon must reach under whatever confines it.
pub(super) const DAEMON_STATE: &str = "TASKD_DAEMON_STATE";

/// What the launcher gives a runner (sealed memfd): what it may run, and what it must do before it is one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// For the runner itself.
    pub(super) part: RunnerPart,
    /// Who it becomes.
    pub(super) identity: Identity,
    /// What it sets up while it still may.
    pub(super) setup: Setup,
    /// The secrets of its tasks.
    #[serde(default)]
    pub(super) held: held::Sealed,
}

/// What a runner starts with.
pub struct RunnerStart {
    /// What it may run.
    pub part: RunnerPart,
    /// The secrets of its tasks.
    pub held: Held,
    /// To the daemon: a stream, close-on-exec.
    pub socket: OwnedFd,
    /// To the launcher, where control groups are in force.
    pub launcher: Option<Packets>,
}

/// First thing in a runner's `main`, once its arguments were read: takes its part of the settings, sets up
/// what only root may, becomes its user, and hands over what it was given.
///
/// # Errors
/// A sentence that names what failed. The process must end then: it may be half-way to another user.
pub fn runner_start() -> Result<RunnerStart, String> {
    let mut fds = take(2)?.into_iter();
    let (Some(socket), Some(sealed)) = (fds.next(), fds.next()) else { return Err(not_ours()) };
    let launcher = creator(&socket)?;
    let sealed = memfd::read_sealed(sealed).map_err(|e| format!("reading the runner's settings: {e}"))?;
    let Sealed { part, identity, setup, held } =
        serde_json::from_slice(&sealed).map_err(|e| format!("parsing the runner's settings: {e}"))?;
    let held = held.open()?;
    keep_closed(&held)?;
    let asks = if part.leaves { Some(take_one(FIRST_FD + 2)?) } else { None };
    close_from(FIRST_FD + 2 + i32::from(part.leaves));
    let asks = asks.map(Packets::from_fd).transpose().map_err(|e| format!("the launcher's socket: {e}"))?;
    setup.apply().map_err(|e| e.to_string())?;
    become_user(&identity)?;
    keep_closed(&held)?;
    privileges::die_with_parent(launcher).map_err(|e| e.to_string())?;
    name_process(c"taskd-runner", &format!("taskd: runner {}", part.slot));
    Ok(RunnerStart { part, held, socket, launcher: asks })
}

/// First thing in the daemon's `main`, once its arguments were read: goes under its AppArmor profile, becomes its
/// user, and hands over the packet socket to the launcher and how it is confined.
///
/// # Errors
/// As for [`runner_start`].
pub fn daemon_start() -> Result<(Packets, Option<String>), String> {
    let socket = take(1)?.pop().ok_or_else(not_ours)?;
    close_from(FIRST_FD + 1);
    let launcher = creator(&socket)?;
    let confinement = std::env::var_os(DAEMON_STATE).and_then(|dir| confinement::enter(dir.as_ref()));
    become_user(&Identity { user: std::env::var(DAEMON_USER).ok(), ..Identity::default() })?;
    privileges::not_dumpable().map_err(|e| e.to_string())?;
    privileges::die_with_parent(launcher).map_err(|e| e.to_string())?;
    name_process(c"taskd-daemon", "taskd: daemon");
    let packets = Packets::from_fd(socket).map_err(|e| format!("descriptor {FIRST_FD}: {e}"))?;
    Ok((packets, confinement))
}

/// Closes a process that holds secrets to others of its user, and has it dump no core. Again after each change of
/// user, at which the kernel sets this anew (prctl(2), `PR_SET_DUMPABLE`).
pub(super) fn keep_closed(held: &Held) -> Result<(), String> {
    if held.secrets.is_empty() { Ok(()) } else { privileges::not_dumpable().map_err(|e| e.to_string()) }
}

pub(super) fn become_user(identity: &Identity) -> Result<(), String> {
    match Account::find(identity).map_err(|e| e.to_string())? {
        None => Ok(()),
        Some(account) => privileges::become_user(&account).map_err(|e| e.to_string()),
    }
}

/// Takes over descriptors 3 and following.
pub(super) fn take(count: i32) -> Result<Vec<OwnedFd>, String> {
    (FIRST_FD..FIRST_FD + count).map(take_one).collect()
}

fn take_one(number: i32) -> Result<OwnedFd, String> {
    // SAFETY: fcntl with F_GETFD only asks whether this number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(not_ours());
    }
    // SAFETY: it is open, was put there by the launcher for this process, and this is the only place that takes
    // it over (a process is started once).
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| format!("descriptor {number}: {e}"))?;
    Ok(fd)
}

/// Closes this descriptor and all above it: whatever the launcher's parent left open is not for tasks.
pub(super) fn close_from(number: i32) {
    // SAFETY: what was taken over stands below, and nothing else was opened yet, so no descriptor here is owned
    // by anyone.
    unsafe { libc::close_range(number.unsigned_abs(), libc::c_uint::MAX, 0) };
}

/// Who made the socket pair: the launcher. Told by the kernel, so no number has to be passed and believed.
pub(super) fn creator(socket: &impl AsFd) -> Result<u32, String> {
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
