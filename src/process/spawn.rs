//! Starting a program at a cost that does not depend on the size of the process that starts it.
//!
//! `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` through glibc's wrapper, on a stack of its own: the child
//! shares our memory and we stand still until it has called execve(2) or given up. Everything that needs
//! memory or a decision is done before; between clone and execve there are only system calls. A sandbox in a
//! user namespace needs a memory of its own: then it is a fork with the same rules.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::privileges::Account;
use super::sandbox::Prepared;
pub use super::spawn_error::{SpawnError, Stage};
use super::spawn_report::{Report, SharedReport};
use crate::model::task::IoClass;

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
    /// Class of disk access.
    pub io_class: Option<IoClass>,
    /// What it is kept from.
    pub sandbox: Option<&'a Prepared>,
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

/// What the child needs, in a form that needs no more memory. Without a program it only builds its sandbox.
#[derive(Clone, Copy)]
struct Plan<'p> {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    umask: Option<u32>,
    nice: Option<i32>,
    nofile: Option<u64>,
    cgroup_procs: RawFd,
    /// The class and level of ioprio_set(2).
    io_priority: Option<c_int>,
    sandbox: Option<&'p Prepared>,
    identity: Option<&'p Account>,
    /// What becomes 0, 1 and 2; negative: as it is.
    standard: [RawFd; 3],
    parent: i32,
    report: &'p Report,
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
            io_priority: self.io_class.map(io_priority),
            sandbox: self.sandbox,
            identity: None,
            standard: [stdin.child(), stdout.child(), stderr.child()],
            parent: std::process::id().cast_signed(),
            report: &Report::default(),
        };
        let own_memory = self.sandbox.is_some_and(Prepared::needs_own_memory);
        let (pid, pidfd) = plan.launch(own_memory, fail)?;
        Ok(Spawned { pid, pidfd, stdin: stdin.ours, stdout: stdout.ours, stderr: stderr.ours })
    }
}

impl Plan<'_> {
    /// Makes the process; whatever it says that failed is made an error, and the process is reaped.
    fn launch(
        &self,
        own_memory: bool,
        fail: impl Fn(Stage, Errno) -> SpawnError,
    ) -> Result<(i32, OwnedFd), SpawnError> {
        let none = |errno| fail(Stage::Clone, errno);
        let shared;
        let mut plan = *self;
        if own_memory {
            shared = SharedReport::new().map_err(none)?;
            plan.report = &shared;
        }
        let (pid, pidfd) = clone_vfork(&plan, own_memory).map_err(none)?;
        let Some((stage, errno)) = plan.report.get() else { return Ok((pid, pidfd)) };
        // It has left already (or is about to): this reaps it, so that no zombie stays.
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        let mut error = fail(stage, errno);
        if let (Stage::Sandbox, Some(sandbox)) = (stage, plan.sandbox) {
            error.subject = sandbox.explain(plan.report.step.load(Ordering::Acquire), errno);
        }
        Err(error)
    }
}

/// Builds a sandbox in a process that then ends, as this user if given (only root may).
///
/// # Errors
/// As for [`Spawn::start`].
pub fn try_sandbox(sandbox: &Prepared, user: Option<&Account>) -> Result<(), SpawnError> {
    let plan = Plan {
        program: std::ptr::null(),
        argv: std::ptr::null(),
        envp: std::ptr::null(),
        cwd: std::ptr::null(),
        umask: None,
        nice: None,
        nofile: None,
        cgroup_procs: -1,
        io_priority: None,
        sandbox: Some(sandbox),
        identity: user,
        standard: [-1; 3],
        parent: std::process::id().cast_signed(),
        report: &Report::default(),
    };
    let subject = || user.map_or_else(|| "a trial process".to_owned(), |u| format!("user {}", u.name));
    let fail = |stage, errno| SpawnError { stage, errno, subject: subject() };
    // Its own memory always: a change of user would be noted in ours too (PR_SET_DUMPABLE).
    let (pid, _) = plan.launch(true, fail)?;
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
    Ok(())
}

/// `io_class` as ioprio_set(2) takes it: class in the upper bits, the middle level of eight where a class has
/// levels.
pub(super) const fn io_priority(class: IoClass) -> c_int {
    const MIDDLE: c_int = 4;
    match class {
        IoClass::None => 0,
        IoClass::Realtime => 1 << IOPRIO_CLASS_SHIFT | MIDDLE,
        IoClass::BestEffort => 2 << IOPRIO_CLASS_SHIFT | MIDDLE,
        IoClass::Idle => 3 << IOPRIO_CLASS_SHIFT,
    }
}

/// From the kernel's `ioprio.h`.
const IOPRIO_CLASS_SHIFT: c_int = 13;

/// From the kernel's `ioprio.h`: the number that follows names a process, 0 for the caller.
pub(super) const IOPRIO_WHO_PROCESS: c_int = 1;

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

/// Runs [`child`] in a new process that shares our memory or has a copy of it; returns once it executed the
/// program or left.
fn clone_vfork(plan: &Plan<'_>, own_memory: bool) -> Result<(i32, OwnedFd), Errno> {
    #[repr(align(16))]
    struct Stack(MaybeUninit<[u8; STACK]>);
    let mut stack = Stack(MaybeUninit::uninit());
    let mut pidfd: c_int = -1;
    let memory = if own_memory { 0 } else { libc::CLONE_VM };
    let flags = memory | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
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

/// What runs in the new process: system calls only. The memory may be the parent's.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `plan` is what `clone_vfork` was given; the parent stands still and keeps it alive, and shares
    // only the report's atomics with us.
    let plan = unsafe { &*plan.cast::<Plan<'_>>() };
    let stage = prepare(plan);
    plan.report.stage.store(stage as u32, Ordering::Release);
    // Zero would read as success: a step that failed without a reason is still a failure.
    plan.report.errno.store(
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
fn prepare(plan: &Plan<'_>) -> Stage {
    // SAFETY: every pointer of the plan is valid or null as the field says; the structures that are passed
    // to the kernel live on this stack.
    unsafe {
        if plan.cgroup_procs >= 0 && libc::write(plan.cgroup_procs, c"0".as_ptr().cast(), 1) != 1 {
            return Stage::Cgroup;
        }
        if libc::setsid() < 0 {
            return Stage::Session;
        }
        if let Some(account) = plan.identity
            && !become_account(account)
        {
            return Stage::Session;
        }
        if let Some(wanted) = plan.io_priority
            && libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) >> IOPRIO_CLASS_SHIFT
                != c_long::from(wanted >> IOPRIO_CLASS_SHIFT)
            // Inherited from a runner that was given it while it was root: asking again would be refused.
            && libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, wanted) != 0
        {
            return Stage::IoClass;
        }
        // Before its limits, which could leave it no descriptor.
        if let Some(sandbox) = plan.sandbox
            && let Err(step) = sandbox.enter()
        {
            plan.report.step.store(step, Ordering::Release);
            return Stage::Sandbox;
        }
        // A change of user or of its namespace clears it.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Stage::ParentDeath;
        }
        // The parent may have died before the line above: then nothing would ever end us.
        if libc::getppid() != plan.parent {
            return Stage::ParentDeath;
        }
        if plan.program.is_null() {
            libc::_exit(0);
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

/// Becomes this user by the bare system calls: glibc's would tell threads that a copy of a process does not
/// have. Only for a trial; who runs a program is proven to be its user by `privileges`.
fn become_account(account: &Account) -> bool {
    // SAFETY: the list of groups lives through the call; the others are numbers.
    unsafe {
        let Account { uid, gid, groups, .. } = account;
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) == 0
            && libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) == 0
    }
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
            io_class: None,
            sandbox: None,
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
