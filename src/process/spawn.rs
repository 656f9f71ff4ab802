//! Starting a program at a cost that does not depend on the size of the process that starts it.
//!
//! `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` through glibc's wrapper, on a stack of its own: the child
//! shares our memory and we stand still until it has called execve(2) or given up. Everything that needs
//! memory or a decision is done before; between clone and execve there are only system calls.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Bytes of stack for the child between clone and execve; it calls nothing deep.
const STACK: usize = 32 << 10;

/// Where one of the three standard descriptors goes.
#[derive(Clone, Copy, Debug)]
pub enum Stdio<'a> {
    /// A new pipe; our end is returned, non-blocking.
    Pipe,
    /// This descriptor (of any number, it is duplicated).
    Fd(BorrowedFd<'a>),
    /// The same as ours.
    Inherit,
}

/// A program to start. Absent settings are inherited.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The file to execute ([`resolve`] finds it).
    pub program: &'a CStr,
    /// Its arguments, its own name first.
    pub argv: &'a [CString],
    /// Its whole environment.
    pub envp: &'a [CString],
    /// Working directory.
    pub cwd: Option<&'a CStr>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Nice value, absolute.
    pub nice: Option<i32>,
    /// Soft and hard limit of open files.
    pub nofile: Option<u64>,
    /// An open `cgroup.procs`: the child moves itself there before anything else.
    pub cgroup_procs: Option<BorrowedFd<'a>>,
    /// Standard input.
    pub stdin: Stdio<'a>,
    /// Standard output.
    pub stdout: Stdio<'a>,
    /// Standard error.
    pub stderr: Stdio<'a>,
}

/// A started program: leader of its own session and process group, killed by the kernel when the thread
/// that started it ends.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, and that of its session and group.
    pub pid: i32,
    /// Readable once it ended.
    pub pidfd: OwnedFd,
    /// Our end, where a pipe was asked for.
    pub stdin: Option<OwnedFd>,
    /// Our end, where a pipe was asked for.
    pub stdout: Option<OwnedFd>,
    /// Our end, where a pipe was asked for.
    pub stderr: Option<OwnedFd>,
}

/// What could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Find the program in PATH.
    Resolve = 1,
    /// Make a pipe.
    Pipe,
    /// Make a process.
    Clone,
    /// Begin a session.
    Session,
    /// Tie it to our life.
    ParentDeath,
    /// Enter its control group.
    Cgroup,
    /// Limit its open files.
    Nofile,
    /// Set its nice value.
    Nice,
    /// Go to its working directory.
    Directory,
    /// Set its standard descriptors.
    Redirect,
    /// Execute the program.
    Exec,
}

impl Stage {
    fn from_number(n: u32) -> Self {
        [
            Self::Resolve,
            Self::Pipe,
            Self::Clone,
            Self::Session,
            Self::ParentDeath,
            Self::Cgroup,
            Self::Nofile,
            Self::Nice,
            Self::Directory,
            Self::Redirect,
        ]
        .into_iter()
        .find(|s| *s as u32 == n)
        .unwrap_or(Self::Exec)
    }
}

/// Why a program was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SpawnError {
    /// What was tried.
    pub stage: Stage,
    /// The kernel's answer.
    pub errno: Errno,
    /// On what: the program or the directory.
    pub subject: String,
}

impl SpawnError {
    /// Whether the same may well succeed a little later: processes, memory or descriptors ran out.
    #[must_use]
    pub fn again(&self) -> bool {
        matches!(self.errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY)
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, errno, subject } = self;
        match (stage, errno) {
            (Stage::Resolve, _) => write!(f, "{subject:?} was not found in PATH"),
            (Stage::Exec, Errno::ENOENT) => {
                write!(f, "{subject} does not exist, or the interpreter its first line names does not")
            }
            (Stage::Exec, Errno::EACCES) => write!(f, "{subject} may not be executed by this user"),
            (Stage::Exec, Errno::ENOEXEC) => {
                write!(f, "{subject} is no program; a script needs a first line such as #!/bin/sh")
            }
            (Stage::Exec, Errno::E2BIG) => {
                write!(f, "the arguments and the environment of {subject} are too long together")
            }
            (Stage::Exec, Errno::ETXTBSY) => write!(f, "{subject} is being written by another process"),
            (Stage::Exec, _) => write!(f, "{subject} could not be executed: {}", errno.desc()),
            (Stage::Directory, Errno::ENOENT) => write!(f, "working directory {subject} does not exist"),
            (Stage::Directory, Errno::ENOTDIR) => {
                write!(f, "working directory {subject} is not a directory")
            }
            (Stage::Directory, Errno::EACCES) => {
                write!(f, "working directory {subject} may not be entered by this user")
            }
            (Stage::Directory, _) => write!(f, "working directory {subject}: {}", errno.desc()),
            (Stage::Clone, Errno::EAGAIN) => {
                f.write_str("no new process: the limit of processes (RLIMIT_NPROC or pids.max) is reached")
            }
            (Stage::Clone, _) => write!(f, "no new process: {}", errno.desc()),
            (Stage::Pipe, _) => write!(f, "no pipe: {}", errno.desc()),
            (Stage::Nofile, _) => write!(
                f,
                "limit_nofile could not be set: {} (above the hard limit only root may go)",
                errno.desc()
            ),
            (Stage::Nice, _) => {
                write!(f, "nice could not be set: {} (only root may lower it)", errno.desc())
            }
            (Stage::Cgroup, _) => write!(f, "its control group could not be entered: {}", errno.desc()),
            (Stage::Session | Stage::ParentDeath | Stage::Redirect, _) => {
                write!(f, "{stage:?} of {subject}: {}", errno.desc())
            }
        }
    }
}

/// The file that `name` means: itself where it holds a slash, else the first executable of that name in the
/// directories of `path` (colon-separated).
///
/// # Errors
/// Nothing of that name in `path`, or a NUL byte in it.
pub fn resolve(name: &str, path: &str) -> Result<CString, SpawnError> {
    let fail = |errno| SpawnError { stage: Stage::Resolve, errno, subject: name.to_owned() };
    if name.is_empty() {
        return Err(fail(Errno::ENOENT));
    }
    if name.contains('/') {
        return CString::new(name).map_err(|_| fail(Errno::EINVAL));
    }
    for directory in path.split(':').filter(|d| !d.is_empty()) {
        let file = Path::new(directory).join(name);
        if nix::unistd::access(&file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file() {
            return CString::new(file.as_os_str().as_bytes()).map_err(|_| fail(Errno::EINVAL));
        }
    }
    Err(fail(Errno::ENOENT))
}

/// What the child needs, in a form that needs no more memory; `stage` and `errno` come back in it.
struct Plan {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    umask: Option<u32>,
    nice: Option<i32>,
    nofile: Option<u64>,
    cgroup_procs: RawFd,
    /// What becomes 0, 1 and 2; negative: as it is.
    standard: [RawFd; 3],
    parent: i32,
    stage: AtomicU32,
    errno: AtomicI32,
}

impl Spawn<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// What was tried and the kernel's answer; nothing is left behind.
    pub fn start(&self) -> Result<Spawned, SpawnError> {
        let fail = |stage, errno| SpawnError {
            stage,
            errno,
            subject: match (stage, self.cwd) {
                (Stage::Directory, Some(cwd)) => cwd,
                _ => self.program,
            }
            .to_string_lossy()
            .into_owned(),
        };
        let pipe = |errno| fail(Stage::Pipe, errno);
        let stdin = Ends::new(self.stdin, true).map_err(pipe)?;
        let stdout = Ends::new(self.stdout, false).map_err(pipe)?;
        let stderr = Ends::new(self.stderr, false).map_err(pipe)?;
        let argv = pointers(self.argv);
        let envp = pointers(self.envp);
        let plan = Plan {
            program: self.program.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            cwd: self.cwd.map_or(std::ptr::null(), CStr::as_ptr),
            umask: self.umask,
            nice: self.nice,
            nofile: self.nofile,
            cgroup_procs: self.cgroup_procs.map_or(-1, |fd| fd.as_raw_fd()),
            standard: [stdin.child(), stdout.child(), stderr.child()],
            parent: std::process::id().cast_signed(),
            stage: AtomicU32::new(0),
            errno: AtomicI32::new(0),
        };
        let (pid, pidfd) = clone_vfork(&plan).map_err(|errno| fail(Stage::Clone, errno))?;
        let errno = plan.errno.load(Ordering::Acquire);
        if errno != 0 {
            // It has left already (or is about to): this reaps it, so that no zombie stays.
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
            let stage = Stage::from_number(plan.stage.load(Ordering::Acquire));
            return Err(fail(stage, Errno::from_raw(errno)));
        }
        Ok(Spawned { pid, pidfd, stdin: stdin.ours, stdout: stdout.ours, stderr: stderr.ours })
    }
}

/// The two ends of a standard descriptor.
struct Ends {
    ours: Option<OwnedFd>,
    theirs: Option<OwnedFd>,
    borrowed: RawFd,
}

impl Ends {
    fn new(stdio: Stdio<'_>, child_reads: bool) -> Result<Self, Errno> {
        match stdio {
            Stdio::Inherit => Ok(Self { ours: None, theirs: None, borrowed: -1 }),
            // A source below 3 could be overwritten by an earlier redirection: use a copy above.
            Stdio::Fd(fd) if fd.as_raw_fd() < 3 => {
                Ok(Self { ours: None, theirs: Some(above(fd)?), borrowed: -1 })
            }
            Stdio::Fd(fd) => Ok(Self { ours: None, theirs: None, borrowed: fd.as_raw_fd() }),
            Stdio::Pipe => {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                let (ours, theirs) = if child_reads { (write, read) } else { (read, write) };
                fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                let theirs = if theirs.as_raw_fd() < 3 { above(&theirs)? } else { theirs };
                Ok(Self { ours: Some(ours), theirs: Some(theirs), borrowed: -1 })
            }
        }
    }

    fn child(&self) -> RawFd {
        self.theirs.as_ref().map_or(self.borrowed, AsRawFd::as_raw_fd)
    }
}

fn above(fd: impl std::os::fd::AsFd) -> Result<OwnedFd, Errno> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel just made this descriptor for us, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The strings' addresses, ended by a null pointer, as execve(2) wants them.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Runs [`child`] in a new process that shares our memory; returns once it executed the program or left.
fn clone_vfork(plan: &Plan) -> Result<(i32, OwnedFd), Errno> {
    #[repr(align(16))]
    struct Stack(MaybeUninit<[u8; STACK]>);
    let mut stack = Stack(MaybeUninit::uninit());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the signal sets are initialized by sigfillset and pthread_sigmask before they are read. The
    // stack is ours, 16-byte aligned, and stays alive: CLONE_VFORK suspends this thread until the child has
    // executed the program or exited, so the child is the only one who uses it, as well as `plan` and this
    // thread's memory. The child gets the stack's end because stacks grow down. Signals are blocked, so no
    // handler of ours can run in it. `pidfd` is where CLONE_PIDFD stores a new descriptor.
    let (pid, errno) = unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), old.as_mut_ptr());
        let pid = libc::clone(
            child,
            stack.0.as_mut_ptr().cast::<u8>().add(STACK).cast::<c_void>(),
            flags,
            std::ptr::from_ref(plan).cast_mut().cast::<c_void>(),
            &raw mut pidfd,
        );
        let errno = Errno::last();
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut());
        (pid, errno)
    };
    if pid < 0 {
        return Err(errno);
    }
    // SAFETY: clone succeeded, so the kernel stored a descriptor that nobody else has.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// What runs in the new process: system calls only. The memory is the parent's.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `plan` is what `clone_vfork` was given; the parent stands still and keeps it alive, and shares
    // only its two atomics with us.
    let plan = unsafe { &*plan.cast::<Plan>() };
    let stage = prepare(plan);
    plan.stage.store(stage as u32, Ordering::Release);
    // Zero would read as success: a step that failed without a reason is still a failure.
    plan.errno.store(
        match Errno::last_raw() {
            0 => libc::EINVAL,
            n => n,
        },
        Ordering::Release,
    );
    // SAFETY: leaves this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Returns only when a step failed, with errno set.
fn prepare(plan: &Plan) -> Stage {
    // SAFETY: every pointer of the plan is valid or null as the field says; the structures that are passed
    // to the kernel live on this stack.
    unsafe {
        if plan.cgroup_procs >= 0 && libc::write(plan.cgroup_procs, c"0".as_ptr().cast(), 1) != 1 {
            return Stage::Cgroup;
        }
        if libc::setsid() < 0 {
            return Stage::Session;
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Stage::ParentDeath;
        }
        // The parent may have died before the line above: then nothing would ever end us.
        if libc::getppid() != plan.parent {
            return Stage::ParentDeath;
        }
        if let Some(n) = plan.nofile {
            let limit = libc::rlimit { rlim_cur: n, rlim_max: n };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                return Stage::Nofile;
            }
        }
        if let Some(nice) = plan.nice
            && libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0
        {
            return Stage::Nice;
        }
        if let Some(mask) = plan.umask {
            libc::umask(mask);
        }
        if !plan.cwd.is_null() && libc::chdir(plan.cwd) != 0 {
            return Stage::Directory;
        }
        let [stdin, stdout, stderr] = plan.standard;
        for (source, target) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
            if source >= 0 && libc::dup2(source, target) < 0 {
                return Stage::Redirect;
            }
        }
        reset_signals();
        seal_descriptors();
        libc::execve(plan.program, plan.argv, plan.envp);
    }
    Stage::Exec
}

/// Gives every signal its default action and unblocks it: what a program finds that this process becomes.
pub fn reset_inherited_signals() {
    // SAFETY: handlers of this process are not needed any more, it is about to execute another program.
    unsafe { reset_signals() }
}

/// Every signal gets its default action (execve keeps ignored ones ignored: SIGPIPE would be) and is
/// unblocked.
unsafe fn reset_signals() {
    // The kernel's own structure, larger on no 64-bit architecture than this; all zeros is "default action,
    // no flags, empty mask". glibc's sigaction would refuse its own two signals, which can be inherited as
    // ignored like any other.
    const KERNEL_SIGACTION: [u64; 8] = [0; 8];
    const KERNEL_SIGSET_BYTES: usize = 8;
    // SAFETY: the structure is read and not written; the empty set lives here.
    unsafe {
        for signal in 1..=64 {
            // SIGKILL and SIGSTOP are refused and are at their default anyway.
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                KERNEL_SIGACTION.as_ptr(),
                std::ptr::null::<c_void>(),
                KERNEL_SIGSET_BYTES,
            );
        }
        let mut none: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Nothing but the three standard descriptors reaches the program.
unsafe fn seal_descriptors() {
    // SAFETY: plain system calls on descriptor numbers; unknown numbers are refused by the kernel.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 {
            return;
        }
        // Kernels before 5.11, and seccomp filters that do not know the call.
        for fd in 3..1024 {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn spawn<'a>(program: &'a CStr, argv: &'a [CString]) -> Spawn<'a> {
        Spawn {
            program,
            argv,
            envp: &[],
            cwd: None,
            umask: None,
            nice: None,
            nofile: None,
            cgroup_procs: None,
            stdin: Stdio::Pipe,
            stdout: Stdio::Pipe,
            stderr: Stdio::Inherit,
        }
    }

    #[test]
    fn it_enters_its_control_group_and_its_pidfd_tells_the_end() {
        let procs = tempfile::NamedTempFile::new().unwrap();
        let argv = [c"/bin/true".to_owned()];
        let mut started = spawn(c"/bin/true", &argv);
        started.cgroup_procs = Some(procs.as_file().as_fd());
        let spawned = started.start().unwrap();
        let mut fds = [nix::poll::PollFd::new(spawned.pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(60_000_u16)), Ok(1));
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.pid), None).unwrap();
        // "0" is how cgroup.procs calls the writer.
        assert_eq!(std::fs::read(procs.path()).unwrap(), b"0");
    }

    #[test]
    fn a_failure_names_its_step_and_leaves_no_zombie() {
        let argv = [c"x".to_owned()];
        let error = spawn(c"/nonexistent", &argv).start().unwrap_err();
        assert_eq!((error.stage, error.errno, error.again()), (Stage::Exec, Errno::ENOENT, false));
        let mut nowhere = spawn(c"/bin/true", &argv);
        nowhere.cwd = Some(c"/nonexistent");
        assert_eq!(nowhere.start().unwrap_err().stage, Stage::Directory);
        let closed = std::fs::File::open("/dev/null").unwrap();
        let mut refused = spawn(c"/bin/true", &argv);
        refused.cgroup_procs = Some(closed.as_fd());
        assert_eq!(refused.start().unwrap_err().stage, Stage::Cgroup);
        assert!(resolve("no-such-program", "/bin:/usr/bin").is_err() && resolve("", "/bin").is_err());
        assert_eq!(resolve("sh", "::/nonexistent:/bin").unwrap().as_c_str(), c"/bin/sh");
    }

    #[test]
    fn our_ends_never_block() {
        let argv = [c"/bin/cat".to_owned()];
        let spawned = spawn(c"/bin/cat", &argv).start().unwrap();
        let mut out = std::fs::File::from(spawned.stdout.unwrap());
        assert_eq!(out.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        drop(spawned.stdin);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.pid), None).unwrap();
        assert_eq!(out.read(&mut [0; 8]).unwrap(), 0);
    }
}
