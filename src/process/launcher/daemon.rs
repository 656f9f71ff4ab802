//! The daemon as seen from the launcher: started, heard, replaced.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::child::Living;
use super::core::Core;
use super::entry::{DAEMON_STATE, DAEMON_USER};
use super::family::End;
use super::{EXIT_DAEMON, exec};
use crate::observe::fields;
use crate::process::instance::VARIABLE;
use crate::process::launch::{Child, Start, ToDaemon, ToLauncher};
use crate::process::packet::Packets;

/// Packets that wait for a daemon that does not read; above it, it is replaced.
const MAX_QUEUE: usize = 10_000;

/// Packets taken from the daemon in one round of the loop: signals and time must have their turn.
const ROUND: usize = 64;

/// How long to wait where the system has no room for a process.
const NO_ROOM: Duration = Duration::from_secs(1);

/// A daemon that is not ready yet may be silent this much longer: it opens and checks a store.
const START_FACTOR: u32 = 8;

/// A living daemon.
pub(super) struct Daemon {
    pub(super) pid: u32,
    /// It was reaped: its number may be another process's.
    pub(super) gone: bool,
    /// Dropped to tell it that all is over.
    pub(super) socket: Option<Packets>,
    /// Packets that did not fit yet, with their descriptors.
    pub(super) queue: VecDeque<(ToDaemon, Vec<Rc<OwnedFd>>)>,
    /// When it was heard last.
    pub(super) heard: Instant,
    pub(super) ready: bool,
    /// What ended before it is in the store.
    pub(super) recovered: bool,
    /// Since when it is.
    pub(super) ready_since: Option<Instant>,
}

impl Core<'_> {
    /// Starts a daemon and tells it everything that it has to know.
    pub(super) fn start_daemon(&mut self) {
        let (ours, theirs) = match Packets::pair() {
            Ok(pair) => pair,
            Err(error) => return self.no_daemon(&error),
        };
        let mut environment = exec::environment();
        environment.push((VARIABLE.to_owned(), self.state.instance.clone().into()));
        environment.push((DAEMON_STATE.to_owned(), self.settings.taskd.state_dir.clone().into()));
        if let Some(user) = &self.settings.taskd.user {
            environment.push((DAEMON_USER.to_owned(), user.into()));
        }
        let pid = match exec::start(&self.options.daemon, &[theirs.as_fd()], &environment, None, None) {
            Ok(pid) => pid,
            Err(error) => return self.no_daemon(&error),
        };
        self.epoch += 1;
        let (queue, heard) = (VecDeque::new(), Instant::now());
        self.daemon = Some(Daemon {
            pid,
            gone: false,
            socket: Some(ours),
            queue,
            heard,
            ready: false,
            ready_since: None,
            recovered: false,
        });
        tracing::info!(TASKD_EPOCH = self.epoch, TASKD_PID = pid, "daemon started");
        // Those that ended and whose leftovers are still being killed are not passed on.
        self.children_lost |= !self.ended.is_empty();
        let start = Start {
            epoch: self.epoch,
            instance: self.state.instance.clone(),
            journal: self.journal(),
            alive_every_ms: self
                .options
                .limits
                .watchdog
                .map(|w| u64::try_from((w / 4).as_millis()).unwrap_or(u64::MAX).max(1)),
            supervision: self.supervision.clone(),
            users: self.users.clone(),
            owner: self.who.uid,
            children_lost: self.children_lost,
            since: self.since,
            upgrades: self.reexec.done,
            upgrade_failure: self.reexec.failure.clone(),
            draining: std::mem::take(&mut self.reexec.draining),
        };
        self.tell(ToDaemon::Start(Box::new(start)), vec![self.sealed.clone(), self.listener.clone()]);
        // By their ids: those of one slot in order of age.
        let age = |c: &Living| u64::try_from(c.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let aged = |c: &Living| Child { age_ms: age(c), ..c.child.clone() };
        let told = self.children.values().filter(|c| c.is_told());
        let living: Vec<_> = told.map(|c| (aged(c), c.descriptors.clone())).collect();
        for (child, descriptors) in living {
            self.tell(ToDaemon::Child(child), descriptors);
        }
        self.tell(ToDaemon::Go, Vec::new());
        if let Some(now) = self.phase.stopping() {
            self.tell(ToDaemon::Stop { now }, Vec::new());
        }
    }

    fn no_daemon(&mut self, error: &std::io::Error) {
        if super::child::is_no_room(error) {
            self.notify.status(&format!("cannot start the daemon: {error}; trying again each second"));
            tracing::error!("cannot start the daemon: {error}; trying again in a second");
            self.retry_daemon = Some(Instant::now() + NO_ROOM);
        } else {
            tracing::error!("cannot start the daemon {}: {error}", self.options.daemon.path.display());
            self.replace_daemon(&format!("{error}"), false);
        }
    }

    /// Queues a packet; it is sent at once where there is room. A dead daemon misses nothing: the next one
    /// is told everything.
    pub(super) fn tell(&mut self, message: ToDaemon, fds: Vec<Rc<OwnedFd>>) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        daemon.queue.push_back((message, fds));
        let waiting = daemon.queue.len();
        self.flush_daemon();
        if waiting > MAX_QUEUE {
            self.kill_daemon("it does not read what it is told");
        }
    }

    pub(super) fn flush_daemon(&mut self) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        let Some(socket) = &daemon.socket else { return };
        while let Some((message, fds)) = daemon.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match socket.try_send(message, &fds) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // Its end follows and is dealt with there.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return,
                Err(error) => tracing::error!("a packet to the daemon is lost: {error}"),
            }
            daemon.queue.pop_front();
        }
    }

    /// Takes what the daemon said. Tells whether there may be more.
    pub(super) fn hear_daemon(&mut self) -> bool {
        for _ in 0..ROUND {
            let Some(socket) = self.daemon.as_ref().and_then(|d| d.socket.as_ref()) else { return false };
            match socket.try_recv::<ToLauncher>() {
                Ok(packet) if packet.fds.is_empty() => self.obey(packet.message),
                // No message of its has one, and what it would open is not to be held here.
                Ok(_) => {
                    self.kill_daemon("it sent descriptors that nobody asked for");
                    return false;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                    // A daemon that closed its socket but lives is of no use; one that ended is reaped soon.
                    self.kill_daemon("");
                    return false;
                }
                Err(error) => {
                    self.kill_daemon(&format!("it sent something that is not understood: {error}"));
                    return false;
                }
            }
        }
        true
    }

    fn obey(&mut self, message: ToLauncher) {
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.heard = Instant::now();
        }
        match message {
            ToLauncher::Ready => self.daemon_ready(),
            ToLauncher::Recovered => self.daemon_recovered(),
            ToLauncher::Status { text } => self.notify.status(&text),
            ToLauncher::Alive => {}
            ToLauncher::Spawn { slot, user } => self.spawn_child(slot, user),
            ToLauncher::End { child, kill } => self.end_child(child, kill),
            ToLauncher::Measure { child } => self.measure(child),
            ToLauncher::Reload { keep } => self.reload(&keep),
            ToLauncher::Reexec { keep } => self.wish_to_reexec(keep),
            ToLauncher::HandedOver { draining } => self.handed_over(draining),
            ToLauncher::Draining { extend_ms, running } => self.draining(extend_ms, running),
            ToLauncher::Finished => self.finished(),
            ToLauncher::Failed { code, message } => {
                tracing::error!(MESSAGE_ID = fields::STORE_FAULT, "the daemon cannot go on: {message}");
                self.notify.status(&message);
                self.end(code.max(1));
            }
        }
    }

    fn daemon_ready(&mut self) {
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.ready = true;
            daemon.ready_since.get_or_insert_with(Instant::now);
        }
        if !std::mem::replace(&mut self.ready, true) {
            self.notify.ready();
        }
        if std::mem::take(&mut self.reload_wanted) {
            self.wish_to_reload();
        }
    }

    /// What it was told at its start is in the store.
    fn daemon_recovered(&mut self) {
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.recovered = true;
        }
        self.children_lost = false;
    }

    /// When the daemon is to be given up for its silence.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        let daemon = self.daemon.as_ref().filter(|d| d.socket.is_some())?;
        let limit = self.options.limits.watchdog? / 2;
        Some(daemon.heard + if daemon.ready { limit } else { limit * START_FACTOR })
    }

    pub(super) fn end_silent_daemon(&mut self) {
        let limit = self.options.limits.watchdog.unwrap_or_default() / 2;
        self.kill_daemon(&format!("it was silent for {limit:?}"));
    }

    /// Nothing more is heard from it; its end is then seen like any other.
    pub(super) fn kill_daemon(&mut self, why: &str) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        daemon.socket = None;
        if !why.is_empty() {
            tracing::error!(TASKD_PID = daemon.pid, "the daemon is killed: {why}");
        }
        if !daemon.gone {
            signal(daemon.pid, Signal::SIGKILL);
        }
    }

    /// The daemon ended, whatever the way.
    pub(super) fn daemon_died(&mut self, end: End) {
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.gone = true;
        }
        // Its last words may be the reason, or that it is done.
        while self.hear_daemon() {}
        let Some(daemon) = self.daemon.take() else { return };
        let handed_over = self.daemon_handed_over();
        let unsent = daemon.queue.iter().any(|(m, _)| matches!(m, ToDaemon::Exited { .. }));
        // It may have heard of an end and died before the store had it, however long ago: the store may have
        // been refusing writes since.
        self.children_lost |= unsent || std::mem::take(&mut self.told_an_end);
        // Nor what the life before this one left, where the first daemon did not come to it.
        self.children_lost |= self.epoch == 1 && !daemon.recovered;
        if self.phase.is_ending() {
            return;
        }
        if handed_over {
            return self.become_new();
        }
        let steady = daemon.ready_since.is_some_and(|at| at.elapsed() >= self.options.limits.steady);
        self.replace_daemon(&end.to_string(), steady);
    }

    /// `steady`: it had served well. Only a daemon that dies again and again before it does anything is given
    /// up: to give up ends the running attempts, which is what its replacement is there to avoid.
    fn replace_daemon(&mut self, how: &str, steady: bool) {
        let now = Instant::now();
        let (most, within) = (self.options.limits.deaths, self.options.limits.deaths_within);
        if !steady {
            self.deaths.push_back(now);
        }
        self.deaths.retain(|at| now.duration_since(*at) <= within);
        let deaths = self.deaths.len();
        tracing::error!(
            MESSAGE_ID = fields::DAEMON_REPLACED,
            TASKD_EPOCH = self.epoch,
            "the daemon ended ({how}), {} children live on",
            self.children.len()
        );
        if deaths >= most && !steady {
            let text = format!("the daemon ended {deaths} times within {within:?}; giving up");
            tracing::error!("{text}");
            self.notify.status(&text);
            return self.end(EXIT_DAEMON);
        }
        self.notify.status("the daemon ended and is being replaced; running tasks go on");
        self.start_daemon();
    }
}

/// To a child of this process that was not reaped yet, so the number is still its own.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended already: then it is reaped next.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
