//! Replacing this program by the one that is installed now, in place: same process, same children.
//!
//! 1. The new program is tried with the state that it would take over; where it is not fit, nothing changed.
//! 2. The daemon hands over and ends, in bounded time. Clients that connect wait in the socket's backlog.
//! 3. execve(2), with the state ([`super::inherit`]). Where that fails, this program starts a daemon again.
//! 4. The new program starts a daemon, which adopts the children. Its settings are one generation further,
//!    so that idle runners of the old program are replaced.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;

use super::UPGRADE_CHECK;
use super::core::Core;
use super::daemon::signal;
use super::family::End;
use super::inherit::{self, FORMAT, Fit};
use super::reload::cut;
use crate::config::{Secrets, ownership_fault};
use crate::observe::fields;
use crate::process::instance::VARIABLE as INSTANCE;
use crate::process::launch::ToDaemon;

/// Most bytes that a program that is tried may write, on stdout and stderr each.
const MOST_OUTPUT: u64 = 64 << 10;

/// Bytes of its stderr that are told.
const TOLD: usize = 8 << 10;

/// Variables that are not for a program that is only tried: it is no service.
const NOT_TRIED_WITH: [&str; 3] = ["NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"];

/// How far a replacement is, and how earlier ones went.
#[derive(Default)]
pub(super) struct Reexec {
    stage: Option<Stage>,
    /// How often this process's program was replaced.
    pub(super) done: u64,
    /// Why execve(2) failed last.
    pub(super) failure: Option<String>,
    /// The daemon that handed over had been told to start nothing new.
    pub(super) draining: bool,
}

enum Stage {
    Trying(Trial),
    HandingOver(HandOver),
}

/// The new program runs, to say whether it is fit.
struct Trial {
    pid: u32,
    program: OwnedFd,
    out: File,
    err: File,
    until: Instant,
    /// It was killed because it took too long.
    late: bool,
    /// The daemon that asked.
    epoch: u64,
    keep: Vec<String>,
}

/// The daemon was told to end.
struct HandOver {
    program: OwnedFd,
    until: Instant,
    /// It said that everything is stored.
    clean: bool,
    /// It had been told of a child's end before.
    told_an_end: bool,
    keep: Vec<String>,
}

impl Reexec {
    /// The process that tries the new program.
    pub(super) fn trial_pid(&self) -> Option<u32> {
        match &self.stage {
            Some(Stage::Trying(trial)) => Some(trial.pid),
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage.as_ref()? {
            Stage::Trying(trial) => (!trial.late).then_some(trial.until),
            Stage::HandingOver(hand_over) => Some(hand_over.until),
        }
    }
}

impl Core<'_> {
    /// The daemon asks on behalf of an administrator.
    pub(super) fn wish_to_reexec(&mut self, keep: Vec<String>) {
        if !self.phase.is_serving() {
            return self.refuse_reexec("taskd is stopping");
        }
        if self.reexec.stage.is_some() {
            return self.refuse_reexec("another replacement is under way; try again when it is over");
        }
        match self.try_program(keep) {
            Ok(trial) => self.reexec.stage = Some(Stage::Trying(trial)),
            Err(why) => self.refuse_reexec(&why),
        }
    }

    fn refuse_reexec(&mut self, why: &str) {
        let path = self.options.origin.path.display();
        let id = fields::UPGRADE_REFUSED;
        tracing::error!(MESSAGE_ID = id, "the program is not replaced by {path}, nothing changed: {why}");
        self.tell(ToDaemon::ReexecRefused { report: cut(why.to_owned()) }, Vec::new());
    }

    /// Starts the new program with all that it would take over.
    fn try_program(&self, keep: Vec<String>) -> Result<Trial, String> {
        let path = &self.options.origin.path;
        let shown = path.display();
        if self.who.uid == 0
            && let Some(why) = ownership_fault(path)
        {
            return Err(format!(
                "refusing {shown}: {why}; taskd runs as root and would obey whoever can write it"
            ));
        }
        let cannot = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what} {shown}: {e}");
        // What is tried is what is executed later, even when the file is replaced once more meanwhile.
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let program = open(path.as_path(), flags, Mode::empty()).map_err(|e| cannot("open", &e))?;
        let state = self.state(keep.clone(), Secrets::default());
        let (state, _) = state.and_then(|s| inherit::write(&s)).map_err(|e| cannot("try", &e))?;
        let output = || memfd_create("taskd-trial", MFdFlags::MFD_CLOEXEC).map(File::from);
        let (out, err) = (output().map_err(|e| cannot("try", &e))?, output().map_err(|e| cannot("try", &e))?);
        let copy = |file: &File| file.try_clone().map(Stdio::from).map_err(|e| cannot("try", &e));
        let mut argv = self.options.origin.argv.clone();
        argv.insert(argv.len().min(1), UPGRADE_CHECK.to_owned());
        let own = (INSTANCE.into(), OsString::from(&self.state.instance));
        let not_its = |name: &OsStr| NOT_TRIED_WITH.iter().any(|n| name.as_bytes().starts_with(n.as_bytes()));
        let envp = environment(std::env::vars_os().filter(|(name, _)| !not_its(name)).chain([own]));
        let call = Call { program: program.as_raw_fd(), argv: Strings::new(argv), envp: Strings::new(envp) };
        let mut command = Command::new(path);
        command.stdin(Stdio::from(state)).stdout(copy(&out)?).stderr(copy(&err)?).process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, setrlimit, sigprocmask,
        // fexecve on pointers that were made before), nothing allocates.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                setrlimit(Resource::RLIMIT_FSIZE, MOST_OUTPUT, MOST_OUTPUT)?;
                SigSet::empty().thread_set_mask()?;
                Err(call.execute())
            });
        }
        // Reaped in the loop, with all other children.
        let pid = command
            .spawn()
            .map_err(|e| match e.raw_os_error() {
                // The file is there, or it would not have been opened: its interpreter cannot open it.
                Some(libc::ENOENT) => format!("{shown} is a script, and only a program can replace this one"),
                _ => cannot("execute", &e),
            })?
            .id();
        let until = Instant::now() + self.options.limits.trial;
        tracing::info!(TASKD_PID = pid, "trying {shown} as the next program");
        Ok(Trial { pid, program, out, err, until, late: false, epoch: self.epoch, keep })
    }

    /// A child was reaped: whether it was the trial, which is judged then.
    pub(super) fn trial_ended(&mut self, pid: u32, end: End) -> bool {
        let trial = match self.reexec.stage.take_if(|s| matches!(s, Stage::Trying(t) if t.pid == pid)) {
            Some(Stage::Trying(trial)) => trial,
            _ => return false,
        };
        match self.judge(&trial, end) {
            _ if !self.phase.is_serving() => self.refuse_reexec("taskd is stopping"),
            Err(why) => self.refuse_reexec(&why),
            // Who asked is told by the end of its connection, and nobody knows what the new daemon does now.
            Ok(_) if self.epoch != trial.epoch => {
                self.refuse_reexec("the daemon ended meanwhile; try again");
            }
            Ok(_) if !self.daemon.as_ref().is_some_and(|d| d.ready) => {
                let why = "taskd is still starting: a pool has a child that is not ready yet (`taskd status` shows it); \
                           try again when it is";
                self.refuse_reexec(why);
            }
            Ok(version) => self.begin_hand_over(trial, version),
        }
        true
    }

    fn judge(&self, trial: &Trial, end: End) -> Result<String, String> {
        let path = self.options.origin.path.display();
        let printed = || {
            let text = read(&trial.err);
            if text.is_empty() { String::new() } else { format!(":\n{text}") }
        };
        if trial.late {
            let limit = self.options.limits.trial;
            return Err(format!("{path} was tried and did not answer within {limit:?}{}", printed()));
        }
        if end.code != 0 || end.signal != 0 {
            return Err(format!("{path} was tried and cannot take over ({end}){}", printed()));
        }
        let fit = read(&trial.out).lines().next_back().and_then(|l| serde_json::from_str::<Fit>(l).ok());
        match fit {
            Some(fit) if fit.format == FORMAT => Ok(fit.taskd),
            Some(fit) => Err(format!(
                "{path} is taskd {} and takes over a state of format {}, this one has format {FORMAT}: restart \
                 taskd instead",
                fit.taskd, fit.format
            )),
            None => Err(format!(
                "{path} was tried and did not say that it can take over: it is no taskd{}",
                printed()
            )),
        }
    }

    fn begin_hand_over(&mut self, trial: Trial, version: String) {
        let Trial { program, keep, .. } = trial;
        let now = env!("CARGO_PKG_VERSION");
        tracing::info!("taskd {now} is replaced by taskd {version}; running tasks go on");
        self.notify.reloading();
        self.notify.status(&format!("being replaced by taskd {version}; running tasks go on"));
        // READY=1 again once a daemon is ready, whichever program that is then.
        self.ready = false;
        self.reexec.failure = None;
        let until = Instant::now() + self.options.limits.hand_over;
        let told_an_end = std::mem::take(&mut self.told_an_end);
        let hand_over = HandOver { program, until, clean: false, told_an_end, keep };
        self.reexec.stage = Some(Stage::HandingOver(hand_over));
        self.tell(ToDaemon::HandOver { version }, Vec::new());
    }

    /// The daemon says that it is done.
    pub(super) fn handed_over(&mut self, draining: bool) {
        if let Some(Stage::HandingOver(hand_over)) = &mut self.reexec.stage {
            hand_over.clean = true;
            self.reexec.draining = draining;
        }
    }

    /// The daemon died: whether that was what was waited for. What it was told and did not store is lost.
    pub(super) fn daemon_handed_over(&mut self) -> bool {
        let Some(Stage::HandingOver(hand_over)) = &self.reexec.stage else { return false };
        self.told_an_end |= hand_over.told_an_end && !hand_over.clean;
        true
    }

    /// There is no daemon any more: becomes the new program, or goes on as the old one.
    pub(super) fn become_new(&mut self) {
        let Some(Stage::HandingOver(hand_over)) = self.reexec.stage.take() else { return };
        if self.phase.is_serving() {
            let error = self.execute(&hand_over.program, hand_over.keep);
            let path = self.options.origin.path.display();
            let text = format!("{path} could not be executed: {error}; the old program goes on");
            tracing::error!(MESSAGE_ID = fields::UPGRADE_REFUSED, "{text}");
            self.reexec.failure = Some(text);
        }
        self.start_daemon();
    }

    /// Returns only when it failed, with everything as it was.
    fn execute(&self, program: &OwnedFd, keep: Vec<String>) -> io::Error {
        let (memory, numbers) =
            match self.state(keep, self.store.secrets.clone()).and_then(|s| inherit::write(&s)) {
                Ok(written) => written,
                Err(e) => return e,
            };
        let own = (inherit::VARIABLE.into(), memory.as_raw_fd().to_string().into());
        let envp = environment(std::env::vars_os().chain([own]));
        let argv = self.options.origin.argv.clone();
        let call = Call { program: program.as_raw_fd(), argv: Strings::new(argv), envp: Strings::new(envp) };
        // The log's thread does not live on.
        self.log.flush();
        let error = match inherit::leave_open(&numbers, true) {
            Err(e) => e,
            // The kernel sends the children's death signal at the end of the thread that started them: that is
            // this one, and it goes on in the new program.
            Ok(()) => call.execute(),
        };
        if let Err(e) = inherit::leave_open(&numbers, false) {
            tracing::error!("descriptors stay open for children: {e}");
        }
        error
    }

    /// Looks after what takes too long, or is of no use any more.
    pub(super) fn pass_reexec_time(&mut self, now: Instant) {
        let serving = self.phase.is_serving();
        match &mut self.reexec.stage {
            Some(Stage::Trying(trial)) if !trial.late && (now >= trial.until || !serving) => {
                trial.late = true;
                signal(trial.pid, Signal::SIGKILL);
            }
            Some(Stage::HandingOver(hand_over)) if now >= hand_over.until => {
                // Once; its death follows.
                hand_over.until = now + Duration::from_secs(3600);
                self.kill_daemon("it did not hand over in time");
            }
            _ => {}
        }
    }
}

/// Variables as execve(2) takes them.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<CString> {
    let joined = variables.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    });
    // They came from the kernel as C strings: there is no NUL in them.
    joined.filter_map(|v| CString::new(v).ok()).collect()
}

/// Strings, and their addresses ended by a null pointer.
struct Strings {
    /// Keeps what the addresses lead to.
    _texts: Vec<CString>,
    addresses: Vec<*const c_char>,
}

impl Strings {
    fn new(texts: Vec<CString>) -> Self {
        let addresses = texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _texts: texts, addresses }
    }
}

/// A program to execute, prepared so that the call itself needs no memory.
struct Call {
    program: RawFd,
    argv: Strings,
    envp: Strings,
}

// SAFETY: the addresses lead into strings that this value owns and nobody changes.
unsafe impl Send for Call {}
// SAFETY: likewise; it is only read.
unsafe impl Sync for Call {}

impl Call {
    /// Returns only when it failed. The standard library's way would have a shell interpret a file that is no
    /// program.
    fn execute(&self) -> io::Error {
        // SAFETY: both arrays end with a null pointer, and all strings live as long as this value.
        unsafe { libc::fexecve(self.program, self.argv.addresses.as_ptr(), self.envp.addresses.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// The beginning of what was printed.
fn read(file: &File) -> String {
    let mut text = vec![0; TOLD];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    text.truncate(length);
    String::from_utf8_lossy(&text).trim().to_owned()
}
