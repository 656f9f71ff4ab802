//! One attempt as processes: started, limited, canceled, and ended with everything it left behind.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};

use super::environment::{Identity, Naming};
use super::supervision::Supervision;
use super::verdict::{self, Ending};
use crate::model::outcome::{CancelReason, Outcome, Usage};
use crate::model::params;
use crate::model::task::{Program, Stdin, Task};
use crate::model::time::Wall;
use crate::process::descendants::{self, Reaped, Status};
use crate::process::held::Held;
use crate::process::launch::LeafUsage;
use crate::process::private_files::PrivateFiles;
use crate::process::privileges;
use crate::process::protocol::Run;
use crate::process::sandbox::Prepared;
use crate::process::spawn::{self, Spawn, SpawnError, Stdio};

/// What a canceled attempt gets between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// A process that SIGKILL did not end by then sits in the kernel (state D): the attempt ends without it.
const GIVE_UP: Duration = Duration::from_secs(10);

/// First and longest pause between two looks for what is left.
const SWEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Why an attempt was not started.
#[derive(Debug)]
pub enum StartError {
    /// The arguments do not fit the declaration.
    Arguments(Vec<String>),
    /// The environment cannot be made.
    Environment(String),
    /// The program cannot be started.
    Spawn(SpawnError),
}

/// What all attempts of this process share.
#[derive(Debug)]
pub struct Kit {
    identity: Identity,
    held: Held,
    /// `/dev/null`, opened once.
    null: OwnedFd,
}

impl Kit {
    /// Opens what is needed and makes this process the sub-reaper of all that its attempts start. One that holds
    /// secrets is from here on closed to other processes of its user, and dumps no core.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn new(node: &str, instance: &str, held: Held) -> std::io::Result<Self> {
        if !held.secrets.is_empty() {
            privileges::not_dumpable()?;
        }
        nix::sys::prctl::set_child_subreaper(true)?;
        let null = std::fs::File::open("/dev/null")?.into();
        Ok(Self { identity: Identity::new(node, instance, held.secrets.clone()), held, null })
    }
}

impl Kit {
    /// The files of an attempt of this task; absent where it asks for none.
    fn credentials(&self, task: &Task) -> Result<Option<PrivateFiles>, String> {
        let names = &task.surroundings.credentials;
        if names.is_empty() {
            return Ok(None);
        }
        let Some(directory) = &self.held.directory else {
            return Err("credentials: this process was given no directory for them".to_owned());
        };
        PrivateFiles::make(directory, &self.held.secrets, names).map(Some)
    }
}

/// A running attempt.
#[derive(Debug)]
pub struct Attempt {
    task: Arc<Task>,
    pid: i32,
    started: Wall,
    begun: Instant,
    soft_at: Option<Instant>,
    hard_at: Option<Instant>,
    /// When SIGKILL follows a cancel's SIGTERM.
    kill_at: Option<Instant>,
    /// When an attempt whose processes do not die is given up.
    give_up_at: Option<Instant>,
    sweep_at: Option<Instant>,
    sweep_pause: Duration,
    ending: Option<Ending>,
    status: Option<(Instant, Status)>,
    usage: Usage,
    /// Where no control group enforces its limits.
    supervision: Option<Supervision>,
    memory_max: Option<u64>,
    leaf: Option<LeafUsage>,
    over: bool,
    stuck: bool,
    feed: Option<Feed>,
    /// The files in its `CREDENTIALS_DIRECTORY`.
    credentials: Option<PrivateFiles>,
}

/// What goes to the program's stdin.
#[derive(Debug)]
struct Feed {
    pipe: OwnedFd,
    bytes: Vec<u8>,
    written: usize,
}

/// Our ends of the program's output, where pipes were asked for.
#[derive(Debug)]
pub struct Pipes {
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

impl Attempt {
    /// Starts the program of `task` for `run`; limits count from `received`. `leaf` is the `cgroup.procs` of
    /// its control group; without one its memory and its number of tasks are looked after from here.
    ///
    /// # Errors
    /// Why nothing was started; nothing is left behind.
    pub fn start(
        kit: &Kit,
        task: &Arc<Task>,
        run: &Run,
        received: Instant,
        output: Stdio<'_>,
        leaf: Option<BorrowedFd<'_>>,
    ) -> Result<(Self, Pipes), StartError> {
        let bound = params::bind(task, &run.args, &run.kwargs).map_err(StartError::Arguments)?;
        let credentials = kit.credentials(task).map_err(StartError::Environment)?;
        let naming = Naming {
            id: &run.id,
            queue: &run.queue,
            attempt: run.attempt,
            credentials: credentials.as_ref().map(PrivateFiles::path),
        };
        let (envp, path) = kit.identity.environment(task, &bound, naming).map_err(StartError::Environment)?;
        let argv = bound.argv(task);
        let name = argv.first().map_or("", String::as_str);
        let program = match task.program {
            Program::Command(_) => c"/bin/sh".to_owned(),
            _ => spawn::resolve(name, &path).map_err(StartError::Spawn)?,
        };
        let nul = |_| StartError::Environment("a value has a NUL byte".to_owned());
        let argv = argv.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(nul)?;
        let of_task = &task.surroundings;
        let cwd = CString::new(of_task.working_directory.as_deref().unwrap_or("/")).map_err(nul)?;
        let memory_max = task.limits.memory_at(run.memory_retries);
        let sandbox = Prepared::new(&of_task.sandbox, geteuid().as_raw(), getegid().as_raw(), memory_max)
            .map_err(StartError::Environment)?;
        let spawned = Spawn {
            program: &program,
            argv: &argv,
            envp: &envp,
            cwd: Some(&cwd),
            umask: Some(of_task.umask.unwrap_or(0o022)),
            nice: of_task.nice,
            nofile: of_task.limit_nofile,
            io_class: of_task.io_class,
            sandbox: sandbox.as_ref(),
            cgroup_procs: leaf,
            stdin: match task.stdin {
                Stdin::None => Stdio::Fd(kit.null.as_fd()),
                Stdin::Json => Stdio::Pipe,
            },
            stdout: output,
            stderr: output,
        }
        .start()
        .map_err(StartError::Spawn)?;
        let begun = Instant::now();
        // A message may tighten what the task declares, never loosen it.
        let limit = |declared: Option<u64>, ordered: Option<u64>| {
            let ms = [declared, ordered].into_iter().flatten().min()?;
            received.checked_add(Duration::from_millis(ms))
        };
        let feed = spawned.stdin.map(|pipe| Feed { pipe, bytes: verdict::stdin(run, &bound), written: 0 });
        let attempt = Self {
            task: Arc::clone(task),
            pid: spawned.pid,
            started: wall_now(),
            begun,
            soft_at: limit(task.soft_time_limit_ms, run.soft_deadline_ms),
            hard_at: limit(task.time_limit_ms, run.deadline_ms),
            kill_at: None,
            give_up_at: None,
            sweep_at: None,
            sweep_pause: SWEEP.0,
            ending: None,
            status: None,
            usage: Usage::default(),
            supervision: match leaf {
                Some(_) => None,
                None => Supervision::new(memory_max, task.limits.tasks_max, begun),
            },
            memory_max,
            leaf: None,
            over: false,
            stuck: false,
            feed,
            credentials,
        };
        Ok((attempt, Pipes { stdout: spawned.stdout, stderr: spawned.stderr }))
    }

    /// The main process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// When the main process ended, once it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Instant> {
        self.status.map(|(at, _)| at)
    }

    /// Whether the main process and all it started are gone, or given up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether a process is left that SIGKILL does not end.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// When [`Self::tick`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let look = self.supervision.filter(|_| self.status.is_none()).map(|s| s.next());
        [self.soft_at, self.hard_at, self.kill_at, self.give_up_at, self.sweep_at, look]
            .into_iter()
            .flatten()
            .min()
    }

    /// Ends it: SIGTERM to its process group, after [`GRACE`] SIGKILL to everything. One that has ended by
    /// itself already keeps its own outcome.
    pub fn cancel(&mut self, reason: CancelReason, now: Instant) {
        match self.ending {
            // A person's word is stronger than a shutdown's: the message must not run again.
            Some(Ending::Canceled(_)) => {
                if reason == CancelReason::Revoked && self.status.is_none() {
                    self.ending = Some(Ending::Canceled(reason));
                }
            }
            Some(Ending::Hard | Ending::Beyond(_)) => {}
            None | Some(Ending::Soft) => {
                if self.ended_by_itself() {
                    return;
                }
                self.ending = Some(Ending::Canceled(reason));
                self.soft_at = None;
                self.kill_at = now.checked_add(GRACE);
                self.signal(Signal::SIGTERM as i32);
            }
        }
    }

    /// Ends it without a grace.
    pub fn kill(&mut self, now: Instant) {
        if self.status.is_none() {
            self.soft_at = None;
            self.hard_at = None;
            self.kill_at = None;
            self.give_up_at = now.checked_add(GIVE_UP);
            // The leader is our child and was not waited for, so its group is surely still its own.
            let _ = kill(Pid::from_raw(-self.pid), Signal::SIGKILL);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.sweep_at) {
            self.sweep(now);
        }
        if due(self.give_up_at) && !self.over {
            self.stuck = true;
            self.finish();
        }
        if self.status.is_some() {
            return;
        }
        if due(self.hard_at) {
            if !self.ended_by_itself() && !matches!(self.ending, Some(Ending::Canceled(_))) {
                self.ending = Some(Ending::Hard);
            }
            self.kill(now);
        } else if due(self.kill_at) {
            self.kill(now);
        } else if due(self.soft_at) {
            self.soft_at = None;
            if !self.ended_by_itself() {
                self.ending = Some(Ending::Soft);
                self.signal(self.task.soft_signal);
            }
        }
        if self.supervision.is_some_and(|s| s.next() <= now) {
            self.look(now);
        }
    }

    /// Looks whether it is beyond a limit, and ends it with all that it started if so.
    fn look(&mut self, now: Instant) {
        let Some(excess) = self.supervision.as_mut().and_then(|s| s.look(now)) else { return };
        if self.ended_by_itself() {
            return;
        }
        self.ending = self.ending.or(Some(Ending::Beyond(excess)));
        self.supervision = None;
        self.kill(now);
        // What it started must not go on until its end was noticed: it may be forking.
        descendants::kill_all();
    }

    /// A child changed its state: takes what ended off the table.
    pub fn on_child(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if self.status.is_some() {
            self.sweep(now);
            return;
        }
        while let Some(pid) = descendants::ended() {
            if pid == self.pid {
                self.on_main(now);
                return;
            }
            // A descendant whose parent ended before it: the attempt goes on.
            match descendants::reap(pid) {
                Ok(Some(reaped)) => self.account(&reaped),
                _ => return,
            }
        }
    }

    /// The main process ended and was not waited for yet: while it keeps the number, its group is its own.
    fn on_main(&mut self, now: Instant) {
        let _ = kill(Pid::from_raw(-self.pid), Signal::SIGKILL);
        let Ok(Some(reaped)) = descendants::reap(self.pid) else { return };
        self.account(&reaped);
        self.status = Some((now, reaped.status));
        let wall = now.saturating_duration_since(self.begun).as_millis();
        self.usage.wall_ms = u64::try_from(wall).unwrap_or(u64::MAX);
        self.soft_at = None;
        self.hard_at = None;
        self.kill_at = None;
        self.give_up_at = now.checked_add(GIVE_UP);
        self.feed = None;
        self.sweep(now);
    }

    /// Kills and reaps until no child is left. As everything below us becomes our child when its parent
    /// ends, "no child" means that nothing of this attempt lives.
    fn sweep(&mut self, now: Instant) {
        loop {
            match descendants::reap(-1) {
                Ok(Some(reaped)) => {
                    if matches!(reaped.status, Status::Signaled { signal: libc::SIGKILL, .. }) {
                        self.usage.killed_leftovers += 1;
                    }
                    self.account(&reaped);
                }
                Ok(None) => break,
                Err(_) => {
                    self.finish();
                    return;
                }
            }
        }
        descendants::kill_all();
        // Their deaths are told by SIGCHLD; this is for one that forked while it was looked for.
        self.sweep_at = now.checked_add(self.sweep_pause);
        self.sweep_pause = (self.sweep_pause * 2).min(SWEEP.1);
    }

    fn finish(&mut self) {
        self.over = true;
        self.sweep_at = None;
        self.give_up_at = None;
        self.feed = None;
        // Nothing of it is left that could read them; where something is, it keeps what it has read.
        self.credentials = None;
    }

    fn account(&mut self, reaped: &Reaped) {
        self.usage.user_us += reaped.user_us;
        self.usage.system_us += reaped.system_us;
        self.usage.max_rss = self.usage.max_rss.max(reaped.max_rss);
    }

    fn ended_by_itself(&self) -> bool {
        self.status.is_some() || descendants::has_ended(self.pid)
    }

    /// To the whole group; one that was stopped is woken, or it would never see it.
    fn signal(&self, signal: i32) {
        descendants::signal_group(self.pid, signal);
        descendants::signal_group(self.pid, libc::SIGCONT);
    }

    /// The program's stdin, while there is something to write.
    #[must_use]
    pub fn feed_pipe(&self) -> Option<BorrowedFd<'_>> {
        self.feed.as_ref().map(|f| f.pipe.as_fd())
    }

    /// Writes what the program's stdin takes; closes it at the end, or when nobody reads it.
    pub fn feed(&mut self) {
        while let Some(feed) = &mut self.feed {
            let rest = feed.bytes.get(feed.written..).unwrap_or_default();
            match nix::unistd::write(&feed.pipe, rest) {
                Ok(n) => feed.written += n,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                // EPIPE: a program need not read what it is given.
                Err(_) => feed.written = feed.bytes.len(),
            }
            if feed.written >= feed.bytes.len() {
                self.feed = None;
            }
        }
    }

    /// What its control group counted.
    pub fn counted(&mut self, leaf: LeafUsage) {
        self.leaf = Some(leaf);
    }

    /// How it ended. `printed` is what was kept of its output.
    #[must_use]
    pub fn outcome(self, printed: verdict::Printed) -> Outcome {
        let facts = verdict::Facts {
            ending: self.ending,
            status: self.status.map(|(_, status)| status),
            usage: self.usage,
            started: self.started,
            stuck: self.stuck,
            leaf: self.leaf,
            memory_max: self.memory_max,
        };
        verdict::outcome(&self.task, facts, printed)
    }
}

/// The wall clock.
#[must_use]
pub fn wall_now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
