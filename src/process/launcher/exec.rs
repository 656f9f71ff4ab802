//! Starting the daemon and runners: a clean environment, descriptors from 3 on, a group of their own.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;

use crate::process::title;

/// The first descriptor that a child is given.
pub(super) const FIRST_FD: RawFd = 3;

/// How many at most.
const FDS: usize = 3;

/// Where the inherited environment of a child has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// More than this is never asked for: some programs close every number up to the limit.
const MOST_OPEN_FILES: rlim_t = 65_536;

/// Variables that children inherit; everything else (NOTIFY_SOCKET, LISTEN_FDS, secrets) is not theirs.
const INHERITED: [&str; 4] = ["LANG", "TZ", "RUST_BACKTRACE", "PATH"];

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments, `argv[0]` not among them. A padding for the title is appended.
    pub args: Vec<OsString>,
}

impl Program {
    /// This very program, even when its file was replaced by an upgrade meanwhile.
    #[must_use]
    pub fn this(argument: &str) -> Self {
        Self { path: PathBuf::from("/proc/self/exe"), args: vec![argument.into()] }
    }
}

/// The variables that every child gets.
pub(super) fn environment() -> Vec<(String, OsString)> {
    let mut variables: Vec<(String, OsString)> =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?))).collect();
    if !variables.iter().any(|(name, _)| name == "PATH") {
        variables.push(("PATH".to_owned(), PATH.into()));
    }
    variables
}

/// Keeps the numbers that children get from being used for anything else here: in a forked child they are
/// overwritten, and one of them could be the pipe by which `std::process` reports a failed exec.
pub(super) fn reserve_numbers() -> io::Result<()> {
    let last = FIRST_FD + RawFd::try_from(FDS).unwrap_or(RawFd::MAX) - 1;
    loop {
        let file = std::fs::File::open("/dev/null")?;
        if file.as_raw_fd() > last {
            return Ok(());
        }
        // Kept for the life of the process.
        let _ = file.into_raw_fd();
    }
}

/// How many descriptors a process may have open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFiles {
    soft: rlim_t,
    hard: rlim_t,
}

impl OpenFiles {
    /// Raises this process's own limit as far as it may (a descriptor per child, a client each in the
    /// daemon), and tells what it was: tasks get that, because programs that use select(2) break above 1,024.
    pub(super) fn raise() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST_OPEN_FILES).max(soft), hard)?;
        Ok(Self { soft, hard })
    }

    /// Soft and hard limit.
    pub(super) fn numbers(self) -> (u64, u64) {
        (self.soft, self.hard)
    }

    /// What an earlier program of this process found; the raised limit outlived it.
    pub(super) fn found(numbers: (u64, u64)) -> Self {
        Self { soft: numbers.0, hard: numbers.1 }
    }
}

/// Starts a program with these descriptors as 3 and following and this limit of open files (absent: the
/// launcher's own), and tells its pid. It is reaped like every child. `door` is the open `cgroup.procs` of the
/// control group that it goes into before it is anything else.
///
/// # Errors
/// What fork or exec said.
pub(super) fn start(
    program: &Program,
    fds: &[BorrowedFd<'_>],
    environment: &[(String, OsString)],
    open_files: Option<OpenFiles>,
    door: Option<BorrowedFd<'_>>,
) -> io::Result<u32> {
    let dress = Dress::new(fds, open_files, door);
    let mut command = Command::new(&program.path);
    command
        .arg0("taskd")
        .args(&program.args)
        .arg(title::padding())
        .env_clear()
        .envs(environment.iter().map(|(n, v)| (n, v)))
        .stdin(Stdio::null())
        // A terminal's Ctrl-C is for the launcher; the others are told by it.
        .process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made (write, fcntl, dup2, sigprocmask, setrlimit), nothing allocates.
    unsafe {
        command.pre_exec(move || dress.put_on());
    }
    // Not waited for here: it is reaped in the loop, with all other children.
    let child = command.spawn()?;
    Ok(child.id())
}

/// What becomes of a child between fork and exec.
pub(super) struct Dress {
    sources: [RawFd; FDS],
    open_files: Option<OpenFiles>,
    door: RawFd,
}

impl Dress {
    /// As for [`start`]. The descriptors must be open until the child was started.
    pub(super) fn new(
        fds: &[BorrowedFd<'_>],
        open_files: Option<OpenFiles>,
        door: Option<BorrowedFd<'_>>,
    ) -> Self {
        let mut sources: [RawFd; FDS] = [-1; FDS];
        for (place, fd) in sources.iter_mut().zip(fds) {
            *place = fd.as_fd().as_raw_fd();
        }
        Self { sources, open_files, door: door.map_or(-1, |fd| fd.as_raw_fd()) }
    }

    /// Control group, descriptors, signals and the limit of open files as the child is to have them. Makes
    /// only async-signal-safe calls and allocates nothing.
    pub(super) fn put_on(&self) -> io::Result<()> {
        // SAFETY: a plain system call on a descriptor that was open before the fork.
        if self.door >= 0 && unsafe { libc::write(self.door, c"0".as_ptr().cast(), 1) } != 1 {
            return Err(io::Error::last_os_error());
        }
        place(self.sources)?;
        // What the launcher waits for is blocked in it, and a blocked signal stays blocked over exec.
        SigSet::empty().thread_set_mask()?;
        match self.open_files {
            Some(limit) => Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard)?),
            None => Ok(()),
        }
    }
}

/// Moves the sources out of the way of each other first, then to their places; only there they survive exec.
fn place(sources: [RawFd; FDS]) -> io::Result<()> {
    let mut moved: [RawFd; FDS] = [-1; FDS];
    for (to, from) in moved.iter_mut().zip(sources).filter(|(_, from)| *from >= 0) {
        // SAFETY: plain system call on a descriptor that was open before the fork.
        *to = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 16) };
        if *to < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for (from, to) in moved.into_iter().zip(FIRST_FD..).filter(|(from, _)| *from >= 0) {
        // SAFETY: both are numbers of this process; what `to` was is not used any more before exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
