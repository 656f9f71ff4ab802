//! The end: asked for once (warm), twice (now), three times or with SIGQUIT (at once); bounded always.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::core::Core;
use super::daemon::signal;
use crate::process::launch::ToDaemon;

/// Exit code when the daemon did not finish in time, or when it was told to end at once.
const EXIT_UNFINISHED: u8 = 1;

/// How long the end waits for control groups to be empty once all processes that are known are gone.
const CLEAR: Duration = Duration::from_millis(200);

/// How long the daemon gets to go by itself once its socket was closed.
const GO_BY_ITSELF: Duration = Duration::from_secs(1);

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not near.
    Serving,
    /// The daemon was told and finishes what runs.
    Stopping { now: bool, until: Instant },
    /// Everything is being ended.
    Ending {
        code: u8,
        /// When a daemon that has not gone by itself gets SIGTERM.
        term_at: Option<Instant>,
        /// When what is left gets SIGKILL.
        kill_at: Option<Instant>,
        /// When to go without waiting any longer.
        give_up_at: Instant,
    },
}

impl Phase {
    pub(super) fn is_serving(self) -> bool {
        self == Self::Serving
    }

    pub(super) fn is_ending(self) -> bool {
        matches!(self, Self::Ending { .. })
    }

    /// Whether the daemon was told to stop, and how.
    pub(super) fn stopping(self) -> Option<bool> {
        match self {
            Self::Stopping { now, .. } => Some(now),
            _ => None,
        }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Stopping { until, .. } => Some(until),
            Self::Ending { term_at, kill_at, give_up_at, .. } => {
                term_at.into_iter().chain(kill_at).chain([give_up_at]).min()
            }
        }
    }
}

impl Core<'_> {
    /// SIGTERM or SIGINT. Signals that follow each other without a pause (a storm, a terminal and a script
    /// at once) are one wish; a person's second Ctrl-C is another.
    pub(super) fn wish_to_stop(&mut self) {
        let now = Instant::now();
        let same = self.last_wish.is_some_and(|at| now - at < self.options.limits.same_wish);
        self.last_wish = Some(now);
        if same {
            return;
        }
        let margin = self.options.limits.finish_margin;
        match self.phase {
            Phase::Serving => {
                let grace = Duration::from_millis(self.settings.taskd.shutdown_grace_ms);
                tracing::info!("stopping: running tasks get {grace:?}; once more to stop now");
                self.notify.stopping();
                self.notify.status("stopping: waiting for running tasks");
                self.phase = Phase::Stopping { now: false, until: now + grace + margin };
                self.tell(ToDaemon::Stop { now: false }, Vec::new());
            }
            Phase::Stopping { now: false, until } => {
                tracing::info!(
                    "stopping now: running tasks go back to their queues; once more to end at once"
                );
                self.notify.status("stopping now");
                self.phase = Phase::Stopping { now: true, until: until.min(now + margin) };
                self.tell(ToDaemon::Stop { now: true }, Vec::new());
            }
            Phase::Stopping { now: true, .. } => self.end_now("a third signal to stop"),
            Phase::Ending { .. } => {}
        }
    }

    /// Kills everything.
    pub(super) fn end_now(&mut self, why: &str) {
        let code = match self.phase {
            Phase::Ending { code, .. } => code,
            _ => EXIT_UNFINISHED,
        };
        tracing::warn!("{why}: everything is ended at once");
        self.end(code);
        self.kill_all();
    }

    /// The daemon says that everything is settled.
    pub(super) fn finished(&mut self) {
        if !self.phase.is_ending() {
            tracing::info!("everything is settled, ending");
            self.end(0);
        }
    }

    pub(super) fn draining(&mut self, extend_ms: u64, running: u32) {
        // `taskd stop`: the daemon was asked and has begun already. Its word is bounded by the config.
        let grace = Duration::from_millis(extend_ms.min(self.settings.taskd.shutdown_grace_ms));
        let end = Instant::now() + grace + self.options.limits.finish_margin;
        match self.phase {
            Phase::Serving => {
                tracing::info!("stopping: asked for on the control socket, running tasks get {grace:?}");
                self.notify.stopping();
                self.phase = Phase::Stopping { now: extend_ms == 0, until: end };
            }
            Phase::Stopping { now: false, until } if extend_ms == 0 => {
                self.phase = Phase::Stopping { now: true, until: until.min(end) };
            }
            _ => {}
        }
        let Phase::Stopping { until, .. } = self.phase else { return };
        // Not beyond what the launcher itself waits, plus the time it needs to kill.
        let limits = &self.options.limits;
        let most = until.saturating_duration_since(Instant::now()) + limits.kill_after + limits.gone_within;
        self.notify.extend(Duration::from_millis(extend_ms).min(most));
        self.notify.status(&format!("stopping: waiting for {running} running tasks"));
    }

    /// Ends everything with this exit code: the daemon by the end of its socket, children by SIGTERM, what
    /// is left after a while by SIGKILL.
    pub(super) fn end(&mut self, code: u8) {
        if self.phase.is_ending() {
            return;
        }
        if self.phase.is_serving() {
            self.notify.stopping();
        }
        let now = Instant::now();
        let kill_at = now + self.options.limits.kill_after;
        self.phase = Phase::Ending {
            code,
            term_at: Some((now + GO_BY_ITSELF).min(kill_at)),
            kill_at: Some(kill_at),
            give_up_at: kill_at + self.options.limits.gone_within,
        };
        self.retry_daemon = None;
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.socket = None;
        }
        for living in self.children.values() {
            signal(living.child.pid, Signal::SIGTERM);
        }
        self.parents.end(kill_at);
        self.look_around();
    }

    pub(super) fn pass_stop_time(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Serving => {}
            Phase::Stopping { until, .. } if now < *until => {}
            Phase::Stopping { .. } => {
                let text = "the daemon did not finish in time; everything is ended";
                tracing::error!("{text}");
                self.notify.status(text);
                self.end(EXIT_UNFINISHED);
                self.kill_all();
            }
            Phase::Ending { term_at, kill_at, .. } => {
                if term_at.take_if(|at| now >= *at).is_some()
                    && let Some(daemon) = &self.daemon
                {
                    signal(daemon.pid, Signal::SIGTERM);
                }
                if kill_at.take_if(|at| now >= *at).is_some() {
                    self.kill_all();
                }
            }
        }
    }

    fn kill_all(&mut self) {
        if let Phase::Ending { term_at, kill_at, .. } = &mut self.phase {
            (*term_at, *kill_at) = (None, None);
        }
        for pid in self.known() {
            signal(pid, Signal::SIGKILL);
        }
        for cell in self.children.values().filter_map(|c| c.cell.as_ref()) {
            cell.kill();
        }
        self.look_around();
    }

    /// The exit code, once everything is gone or had its time.
    pub(super) fn over(&mut self) -> Option<u8> {
        let Phase::Ending { code, give_up_at, .. } = self.phase else { return None };
        let known = self.known();
        let over = known.is_empty() && self.end_leftovers().is_empty();
        if !over && Instant::now() < give_up_at {
            return None;
        }
        if let Some(groups) = &self.groups {
            groups.clear(CLEAR);
        }
        self.notify.flush();
        if let Some(vault) = self.store.vault.take() {
            vault.remove_all();
        }
        if over {
            tracing::info!("ended");
            return Some(code);
        }
        tracing::error!("ending although processes are left that cannot be ended: pid {known:?}");
        Some(code.max(EXIT_UNFINISHED))
    }
}
