//! Children: started at the daemon's request within what the config declares, ended, and told about once
//! nothing of theirs is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::core::Core;
use super::daemon::signal;
use super::family::End;
use super::worker::Starting;
use super::{exec, users};
use crate::model::task::Task;
use crate::observe::fields;
use crate::process::instance::VARIABLE;
use crate::process::launch::{Child, ChildId, RunnerPart, Slot, ToDaemon};
use crate::process::{memfd, protocol};

/// Names that a task's `pass_environment` cannot bring into a runner: they would change the runner itself,
/// or tell it of sockets that are not its own.
const NOT_PASSED: [&str; 6] = ["LD_", "TASKD_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "JOURNAL_STREAM"];

/// A child that was not reaped.
pub(super) struct Living {
    pub(super) child: Child,
    /// When it was started.
    pub(super) since: Instant,
    /// What goes to each daemon beside it: the daemon's end of its socket, and of a resident worker the read
    /// ends of its stdout and stderr. None: it never became a child for the daemon.
    pub(super) descriptors: Vec<Rc<OwnedFd>>,
    /// A resident worker that has not executed its program yet.
    pub(super) starting: Option<Starting>,
}

impl Living {
    /// Whether a daemon hears of it.
    pub(super) fn is_told(&self) -> bool {
        self.starting.is_none() && !self.descriptors.is_empty()
    }
}

/// Adds those of the launcher's own variables that the config passes on.
pub(super) fn pass<'a>(
    names: impl IntoIterator<Item = &'a String>,
    environment: &mut Vec<(String, std::ffi::OsString)>,
) {
    for name in names {
        let taken = environment.iter().any(|(n, _)| n == name);
        if taken || NOT_PASSED.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        if let Some(value) = std::env::var_os(name) {
            environment.push((name.clone(), value));
        }
    }
}

impl Core<'_> {
    pub(super) fn spawn_child(&mut self, slot: Slot, user: String) {
        if self.phase.is_ending() {
            return;
        }
        let worker = self.settings.pools.get(&slot.pool).and_then(|p| p.worker.clone());
        let failed = |error: String, again: bool| ToDaemon::SpawnFailed { slot: slot.clone(), error, again };
        let answer = match users::admit(&self.settings, &slot, &user) {
            Err(error) => {
                tracing::error!(TASKD_SLOT = %slot, TASKD_USER = user, "a child is refused: {error}");
                failed(error, false)
            }
            Ok(_) if let Some(worker) = &worker => match self.start_worker(&slot, &user, worker) {
                Ok(()) => return,
                Err(error) => failed(describe("worker", &error), is_no_room(&error)),
            },
            Ok(tasks) => match self.start_child(&slot, &user, tasks) {
                Ok((child, socket)) => return self.tell(ToDaemon::Child(child), vec![socket]),
                Err(error) => {
                    // The daemon says it, with what it means for the pool.
                    tracing::debug!(TASKD_SLOT = %slot, "cannot start a child: {error}");
                    failed(describe("runner", &error), is_no_room(&error))
                }
            },
        };
        self.tell(answer, Vec::new());
    }

    fn start_child(
        &mut self,
        slot: &Slot,
        user: &str,
        tasks: std::collections::BTreeMap<String, Task>,
    ) -> io::Result<(Child, Rc<OwnedFd>)> {
        let mut environment = exec::environment();
        environment.push((VARIABLE.to_owned(), self.state.instance.clone().into()));
        environment.push(("TASKD_FD".to_owned(), protocol::FD.to_string().into()));
        pass(tasks.values().flat_map(|t| &t.surroundings.pass_environment), &mut environment);
        let part = RunnerPart {
            slot: slot.clone(),
            user: user.to_owned(),
            node: self.settings.taskd.node.clone(),
            instance: self.state.instance.clone(),
            generation: self.settings.generation,
            tasks,
            journal: self.journal(),
            output_rate: self.settings.results.output_rate,
            leaves: false,
        };
        let part = memfd::write_sealed("taskd-runner", &serde_json::to_vec(&part)?)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let pid = exec::start(
            &self.options.runner,
            &[theirs.as_fd(), part.as_fd()],
            &environment,
            Some(self.open_files),
        )?;
        self.last_child += 1;
        let child = Child {
            child: ChildId(self.last_child),
            slot: slot.clone(),
            user: user.to_owned(),
            generation: self.settings.generation,
            pid,
            age_ms: 0,
            worker: false,
        };
        let socket = Rc::new(ours);
        tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = pid, TASKD_USER = user, "child started");
        let living = Living {
            child: child.clone(),
            since: Instant::now(),
            descriptors: vec![Rc::clone(&socket)],
            starting: None,
        };
        self.children.insert(child.child, living);
        Ok((child, socket))
    }

    /// SIGTERM to it, or SIGKILL; what it started is killed once it is gone, because only then does
    /// everything below it become the launcher's own child.
    pub(super) fn end_child(&mut self, id: ChildId, kill: bool) {
        // One that is gone already was told, or is about to be.
        if let Some(living) = self.children.get(&id) {
            signal(living.child.pid, if kill { Signal::SIGKILL } else { Signal::SIGTERM });
        }
    }

    pub(super) fn child_ended(&mut self, id: ChildId, end: End) {
        // It may have executed its program and ended before that was looked at.
        let told = self.hear_starting(id);
        if !told {
            if self.children.get(&id).is_some_and(|c| c.starting.is_some()) {
                self.starting_failed(id, format!("it ended before it executed its program: {end}"), false);
            }
            self.children.remove(&id);
            return;
        }
        let Some(living) = self.children.remove(&id) else { return };
        let Child { slot, pid, .. } = &living.child;
        if self.phase.is_serving() && end.signal != 0 && end.signal != Signal::SIGTERM as i32 {
            let id = fields::CHILD_LOST;
            tracing::warn!(MESSAGE_ID = id, TASKD_SLOT = %slot, TASKD_PID = *pid, "a child ended: {end}");
        } else {
            tracing::debug!(TASKD_SLOT = %slot, TASKD_PID = *pid, "a child ended: {end}");
        }
        self.ended.push((id, end, Instant::now()));
    }

    /// Tells the daemon of every child whose leftovers are gone (`left` is empty) or had their time. Which
    /// leftover was whose cannot be told any more.
    pub(super) fn tell_ended(&mut self, left: &[u32]) {
        let patience = self.options.limits.gone_within;
        let ended = std::mem::take(&mut self.ended);
        for (child, end, at) in ended {
            if !left.is_empty() && at.elapsed() < patience {
                self.ended.push((child, end, at));
                continue;
            }
            if !left.is_empty() {
                // In uninterruptible sleep, or of a user that this one cannot kill.
                tracing::error!("processes that a child left behind cannot be ended: pid {left:?}");
            }
            if self.daemon.is_none() {
                self.children_lost = true;
            }
            self.told_an_end = true;
            self.tell(
                ToDaemon::Exited { child, code: end.code, signal: end.signal, out_of_memory: false },
                Vec::new(),
            );
        }
    }
}

/// The system has no room now, and may have some later.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}

fn describe(what: &str, error: &io::Error) -> String {
    let errno = error.raw_os_error().map(|n| format!("{:?}: ", Errno::from_raw(n))).unwrap_or_default();
    format!("starting a {what} failed: {errno}{error}")
}
