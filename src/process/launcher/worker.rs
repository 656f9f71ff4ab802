//! Resident workers: the user's own program as a child.
//!
//! The launcher starts this very program in the role `@worker` (a socket, the sealed [`WorkerPart`] and a
//! pipe as descriptors 3 to 5, stdout and stderr in pipes of their own). That one becomes the worker's user,
//! ties its life to the launcher's and executes the program; PDEATHSIG survives that. The pipe is closed by
//! the execution, or says why there was none: only then the daemon hears of the child, so nothing here ever
//! waits for a name service or a file system.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::daemon::signal;
use super::entry;
use super::exec::{self, Dress, FIRST_FD};
use super::groups::Cell;
use crate::config::settings::{Identity, Worker};
use crate::config::{DIRECTORY, credential};
use crate::process::held::{self, Held};
use crate::process::instance::VARIABLE;
use crate::process::launch::{Child, ChildId, Slot, ToDaemon, WorkerPart};
use crate::process::private_files;
use crate::process::privileges::{self, Setup};
use crate::process::runner;
use crate::process::sandbox::Prepared;
use crate::process::spawn::{self, SpawnError, Stage};
use crate::process::{memfd, protocol, python};

/// A child that has not executed its program after this time is killed.
const EXEC_WITHIN: Duration = Duration::from_secs(60);

/// Most bytes of a reason: what a pipe takes at once (`PIPE_BUF`, pipe(7)).
const MAX_REASON: usize = 4096;

/// A child on its way to its program.
#[derive(Debug)]
pub(super) struct Starting {
    /// Closed when the program is executed.
    pipe: OwnedFd,
}

/// The process that becomes the program of a worker.
pub(super) struct Started {
    pub(super) pid: u32,
    /// Where it says that it did.
    pub(super) told: Starting,
    /// Its control group.
    pub(super) cell: Option<Cell>,
}

/// What the first process of a worker is given (sealed memfd).
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    part: WorkerPart,
    #[serde(default)]
    held: held::Sealed,
}

/// Why the program was not executed.
#[derive(Debug, Serialize, Deserialize)]
struct Reason {
    text: String,
    /// Worth trying again.
    again: bool,
}

impl Reason {
    fn parse(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_else(|_| Self {
            text: "its start failed, and what it said of that is not understood".to_owned(),
            again: false,
        })
    }
}

impl Starting {
    /// The pipe.
    pub(super) fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    /// Absent: it is still on its way. Else whether it executed its program, or why not and whether to try again.
    pub(super) fn reason(&self) -> Option<Result<(), (String, bool)>> {
        let mut text = [0; MAX_REASON];
        match nix::unistd::read(&self.pipe, &mut text) {
            Ok(0) => Some(Ok(())),
            Ok(n) => {
                let Reason { text, again } = Reason::parse(text.get(..n).unwrap_or_default());
                Some(Err((text, again)))
            }
            Err(_) => None,
        }
    }

    /// One that an earlier program of this process started.
    pub(super) fn taken_over(pipe: OwnedFd) -> Self {
        Self { pipe }
    }
}

impl Core<'_> {
    /// Starts the process that becomes the worker; the daemon is told once it did ([`Core::hear_starting`]).
    pub(super) fn start_worker(
        &mut self,
        slot: &Slot,
        user: &str,
        identity: Identity,
        worker: &Worker,
    ) -> io::Result<()> {
        self.last_child += 1;
        let id = ChildId(self.last_child);
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let (out, out_end) = pipe()?;
        let (err, err_end) = pipe()?;
        let Started { pid, told, cell } =
            self.start_program(id, slot, identity, worker, &theirs, (out_end, err_end))?;
        let child = Child {
            child: id,
            slot: slot.clone(),
            user: user.to_owned(),
            generation: self.settings.generation,
            pid,
            age_ms: 0,
            worker: true,
        };
        tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = pid, TASKD_USER = user, "worker starting");
        let descriptors = [ours, out, err].map(Rc::new).to_vec();
        self.keep_child(child, descriptors, cell, Some(told));
        Ok(())
    }

    /// Starts the process that becomes the program of a worker, with this socket and these for its output.
    ///
    /// # Errors
    /// What the kernel said; nothing is left behind.
    pub(super) fn start_program(
        &self,
        id: ChildId,
        slot: &Slot,
        identity: Identity,
        worker: &Worker,
        socket: &impl AsFd,
        (out, err): (OwnedFd, OwnedFd),
    ) -> io::Result<Started> {
        let name = identity.user.clone();
        let part = WorkerPart {
            slot: slot.clone(),
            identity,
            node: self.settings.taskd.node.clone(),
            instance: self.state.instance.clone(),
            argv: worker.argv.clone(),
            script: worker.celery_app.is_some(),
            surroundings: worker.surroundings.clone(),
            memory_max: worker.limits.memory_max,
        };
        let mut environment = exec::environment();
        environment.push((VARIABLE.to_owned(), self.state.instance.clone().into()));
        super::child::pass(&worker.surroundings.pass_environment, &mut environment);
        let surroundings = &worker.surroundings;
        let held = Held {
            secrets: self.store.secrets.only(&credential::needed_by(surroundings)),
            directory: self.directory_of(id, name.as_deref(), !surroundings.credentials.is_empty())?,
        };
        let part = Sealed { part, held: held.seal() };
        let part = memfd::write_sealed("taskd-worker", &serde_json::to_vec(&part)?)?;
        let (told, tells) = pipe()?;
        let cell = self.cell(id, slot, name.as_deref(), worker.limits.clone())?;
        let door = cell.as_ref().map(Cell::door).transpose()?;
        let fds = [socket.as_fd(), part.as_fd(), tells.as_fd()];
        let dress = Dress::new(&fds, Some(self.open_files), door.as_ref().map(AsFd::as_fd));
        let mut command = Command::new(&self.options.worker.path);
        command.arg0("taskd").args(&self.options.worker.args).env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        // SAFETY: between fork and exec only async-signal-safe calls are made (write, fcntl, dup2,
        // setsid, sigprocmask, setrlimit), nothing allocates.
        unsafe {
            command.pre_exec(move || {
                // A session of its own: no terminal reaches it, and its group is killed as one.
                nix::unistd::setsid()?;
                dress.put_on()
            });
        }
        let pid = match command.spawn() {
            Ok(started) => started.id(),
            Err(error) => {
                if let Some(cell) = cell {
                    cell.discard();
                }
                return Err(error);
            }
        };
        // The pipes' other ends are with the command: nothing here may hold the worker's output open.
        drop(command);
        Ok(Started { pid, told: Starting { pipe: told }, cell })
    }

    /// The pipes of all children that have not executed their program yet.
    pub(super) fn starting_pipes(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        self.children.values().filter_map(|c| c.starting.as_ref()).map(|s| s.pipe.as_fd())
    }

    /// When the first of them had its time.
    pub(super) fn starting_deadline(&self) -> Option<Instant> {
        self.children.values().filter(|c| c.starting.is_some()).map(|c| c.since + EXEC_WITHIN).min()
    }

    /// Looks at every child on its way to its program.
    pub(super) fn look_at_starting(&mut self) {
        let starting: Vec<ChildId> =
            self.children.iter().filter(|(_, c)| c.starting.is_some()).map(|(id, _)| *id).collect();
        for id in starting {
            self.hear_starting(id);
        }
    }

    /// Tells the daemon of a child that executed its program, or why it did not. False: the daemon has not
    /// been told of this child and never will be.
    pub(super) fn hear_starting(&mut self, id: ChildId) -> bool {
        let Some(living) = self.children.get_mut(&id) else { return false };
        let Some(starting) = &living.starting else { return living.is_told() };
        let reason = match starting.reason() {
            Some(reason) => reason,
            None if living.since.elapsed() < EXEC_WITHIN => return false,
            None => {
                signal(living.child.pid, nix::sys::signal::Signal::SIGKILL);
                let why = format!("it did not execute its program within {EXEC_WITHIN:?}");
                return self.starting_failed(id, why, true);
            }
        };
        let Err((why, again)) = reason else {
            living.starting = None;
            let (child, descriptors) = (living.child.clone(), living.descriptors.clone());
            self.tell(ToDaemon::Child(child), descriptors);
            return true;
        };
        self.starting_failed(id, why, again)
    }

    /// Nothing of this child is for the daemon but that it was not started; it ends by itself.
    pub(super) fn starting_failed(&mut self, id: ChildId, error: String, again: bool) -> bool {
        let Some(living) = self.children.get_mut(&id) else { return false };
        living.starting = None;
        living.descriptors.clear();
        let slot = living.child.slot.clone();
        self.tell(ToDaemon::SpawnFailed { slot, error, again }, Vec::new());
        false
    }
}

/// A pipe, close-on-exec; our end, the first, never blocks.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// The role `@worker`: becomes the program. Returns only when it could not; the launcher knows why then.
#[must_use]
pub fn worker_main() -> ExitCode {
    let taken = entry::take(3).map(<[OwnedFd; 3]>::try_from);
    entry::close_from(FIRST_FD + 3);
    let Ok(Ok([socket, part, tells])) = taken else {
        crate::observe::log::say("this is started by `taskd run`, not by hand");
        return ExitCode::from(70);
    };
    let Err(mut reason) = become_worker(&socket, part);
    let most = MAX_REASON / 2 / 6;
    if let Some((at, _)) = reason.text.char_indices().nth(most) {
        reason.text.truncate(at);
    }
    // Every character may grow sixfold as JSON, so this fits, and it has no way to fail.
    let text = serde_json::to_vec(&reason).unwrap_or_default();
    // Where nobody reads any more, nobody is to be told.
    let _ = std::fs::File::from(tells).write_all(&text);
    ExitCode::from(70)
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, again: false }
    }
}

impl From<SpawnError> for Reason {
    fn from(error: SpawnError) -> Self {
        Self { text: error.to_string(), again: error.again() }
    }
}

fn become_worker(socket: &OwnedFd, part: OwnedFd) -> Result<std::convert::Infallible, Reason> {
    let launcher = entry::creator(socket)?;
    let part = memfd::read_sealed(part).map_err(|e| format!("reading the worker's settings: {e}"))?;
    let Sealed { part, held } =
        serde_json::from_slice(&part).map_err(|e| format!("parsing the worker's settings: {e}"))?;
    let held = held.open()?;
    entry::keep_closed(&held)?;
    let name = part.argv.first().cloned().unwrap_or_default();
    // Before the change of user: only root may go beyond what it has.
    Setup::of(&part.surroundings).apply().map_err(|e| e.to_string())?;
    entry::become_user(&part.identity)?;
    entry::keep_closed(&held)?;
    if let Some(directory) = &held.directory {
        let names = &part.surroundings.credentials;
        private_files::fill(directory, &held.secrets, names)
            .map_err(|e| format!("credentials: cannot make the files in {}: {e}", directory.display()))?;
    }
    let (environment, path) = environment(&part, held)?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let sandbox = Prepared::new(&part.surroundings.sandbox, uid, gid, part.memory_max)?;
    if let Some(sandbox) = &sandbox
        && let Err(step) = sandbox.enter()
    {
        return Err(sandbox.explain(step, Errno::last()).into());
    }
    if let Some(n) = part.surroundings.limit_nofile {
        let fail = |errno| SpawnError { stage: Stage::Nofile, errno, subject: name.clone() };
        setrlimit(Resource::RLIMIT_NOFILE, n, n).map_err(fail)?;
    }
    // The last change of who it is: the kernel forgets this at each.
    privileges::die_with_parent(launcher).map_err(|e| e.to_string())?;
    let file = spawn::resolve(&name, &path)?;
    go_to(part.surroundings.working_directory.as_deref().unwrap_or("/"))?;
    let umask = part.surroundings.umask.unwrap_or(0o022);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    let argv: Vec<CString> = part
        .argv
        .iter()
        .map(|word| CString::new(word.as_str()).map_err(|_| format!("`worker` has a NUL byte in {word:?}")))
        .collect::<Result<_, _>>()?;
    // It is at its place already; only this one is for the program.
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| format!("descriptor 3: {e}"))?;
    if part.script {
        lay_out_script()?;
    }
    spawn::reset_inherited_signals();
    match nix::unistd::execve(&file, &argv, &environment) {
        Ok(never) => match never {},
        Err(errno) => {
            let subject = file.to_string_lossy().into_owned();
            Err(SpawnError { stage: Stage::Exec, errno, subject }.into())
        }
    }
}

/// Opens taskd's Python module where the program's arguments say that it is.
fn lay_out_script() -> Result<(), Reason> {
    let fail = |e: io::Error| Reason { text: format!("the script of its Python: {e}"), again: true };
    let script = python::script().map_err(fail)?;
    // SAFETY: nobody owns this number: what was given under it was read and closed. It is leaked to the program.
    let placed = unsafe { nix::unistd::dup2_raw(&script, python::SCRIPT_FD) };
    std::mem::forget(placed.map_err(|errno| fail(errno.into()))?);
    if script.as_fd().as_raw_fd() == python::SCRIPT_FD {
        // Copied onto itself it keeps its flags.
        fcntl(&script, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| fail(errno.into()))?;
        std::mem::forget(script);
    }
    Ok(())
}

fn go_to(directory: &str) -> Result<(), Reason> {
    let fail = |errno| SpawnError { stage: Stage::Directory, errno, subject: directory.to_owned() };
    nix::unistd::chdir(directory).map_err(|errno| fail(errno).into())
}

/// The program's whole environment, and the `PATH` in it.
fn environment(part: &WorkerPart, held: Held) -> Result<(Vec<CString>, String), String> {
    let mut own = BTreeMap::from([
        ("TASKD_FD", protocol::FD.to_string()),
        ("TASKD_POOL", part.slot.pool.clone()),
        ("TASKD_SLOT", part.slot.to_string()),
    ]);
    if let Some(directory) = held.directory {
        own.insert(DIRECTORY, directory.to_string_lossy().into_owned());
    }
    runner::Identity::new(&part.node, &part.instance, held.secrets).of_worker(&part.surroundings, own)
}

/// Nothing that is still needed stands where the script is to be.
const _: () = assert!(FIRST_FD + 1 == python::SCRIPT_FD);

/// The socket stands where the program looks for it.
const _: () = assert!(FIRST_FD == protocol::FD);
