//! What the launcher knows, and its one loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child::{Ended, Living};
use super::daemon::Daemon;
use super::exec::OpenFiles;
use super::family;
use super::foreign::Foreign;
use super::groups::{self, Cell, Waits};
use super::preload::Parents;
use super::reexec::Reexec;
use super::sandboxes;
use super::signals::Signals;
use super::state_dir::{Owner, StateDir};
use super::stop::Phase;
use super::users::{self, Machine, Who};
use super::vault::{self, Store};
use super::{LauncherOptions, StartFault, exec};
use crate::config::settings::Settings;
use crate::config::{Secrets, credential};
use crate::observe::log::{Log, Target};
use crate::observe::notify::Notify;
use crate::process::cgroup::Tree;
use crate::process::instance;
use crate::process::launch::ChildId;
use crate::process::listen::ControlSocket;
use crate::process::memfd;

/// Everything.
pub(super) struct Core<'log> {
    pub(super) options: LauncherOptions,
    pub(super) signals: Signals,
    pub(super) log: &'log Log,
    pub(super) notify: Notify,
    pub(super) who: Who,
    /// What was allowed before it was raised; for runners.
    pub(super) open_files: OpenFiles,
    /// Keeps the lock; names the instance.
    pub(super) state: StateDir,
    /// Kept so that its file is removed at the end.
    pub(super) control: ControlSocket,
    /// What the daemon listens on.
    pub(super) listener: Rc<OwnedFd>,
    /// As the config says.
    pub(super) loaded: Settings,
    /// With users filled in.
    pub(super) settings: Rc<Settings>,
    /// The latter as the daemon gets them.
    pub(super) sealed: Rc<OwnedFd>,
    /// Secrets, and where they become files.
    pub(super) store: Store,
    /// How users are separated.
    pub(super) users: String,
    /// Control groups, where they are in force.
    pub(super) groups: Option<Tree>,
    /// How processes are kept together.
    pub(super) supervision: String,
    /// When workers were looked at last.
    pub(super) looked_at: Instant,
    pub(super) daemon: Option<Daemon>,
    /// Starts of the daemon so far.
    pub(super) epoch: u64,
    /// When daemons died lately.
    pub(super) deaths: VecDeque<Instant>,
    /// Replacing this program.
    pub(super) reexec: Reexec,
    /// When to try again to start a daemon, after the system had no room for one.
    pub(super) retry_daemon: Option<Instant>,
    pub(super) children: BTreeMap<ChildId, Living>,
    pub(super) last_child: u64,
    /// Processes that children are forked from.
    pub(super) parents: Parents,
    /// Processes below this one that are not taskd's.
    pub(super) foreign: Foreign,
    /// Ended and reaped; told once what they left is gone.
    pub(super) ended: Vec<Ended>,
    /// A child's end was not, or perhaps not, taken in by a daemon.
    pub(super) children_lost: bool,
    /// This daemon was told of a child's end.
    pub(super) told_an_end: bool,
    /// SIGHUP came, and no daemon has answered it yet.
    pub(super) reload_wanted: bool,
    /// READY=1 was sent.
    pub(super) ready: bool,
    pub(super) phase: Phase,
    /// When the last wish to stop came.
    pub(super) last_wish: Option<Instant>,
    last_ping: Instant,
    /// When the launcher started, milliseconds since the epoch.
    pub(super) since: i64,
    /// Something ended that has to be looked after.
    look_around: bool,
}

impl<'log> Core<'log> {
    /// Everything up to the start of the first daemon.
    pub(super) fn start(
        options: LauncherOptions,
        signals: Signals,
        mut loaded: Settings,
        log: &'log Log,
    ) -> Result<Self, StartFault> {
        loaded.generation = 1;
        let who = Who::now();
        let (settings, users) =
            users::resolve(&loaded, &who, &Machine::real()).map_err(StartFault::config)?;
        let owner = Owner::of(settings.taskd.user.as_deref(), who.uid).map_err(StartFault::config)?;
        // The lock first: a socket file that nobody answers on may be another taskd's that is starting, too.
        let state = StateDir::open(&settings.taskd.state_dir, &owner)?;
        // What is left of an earlier life next: its daemon may be listening to the end.
        let killed = instance::end_earlier_life(&state.instance, options.limits.gone_within)
            .map_err(StartFault::busy)?;
        if killed > 0 {
            tracing::warn!("{killed} processes of an earlier life were still there and were ended");
        }
        // Before the daemon is started, which lives in a group of it, too.
        let (groups, supervision) = options.groups.take(options.limits.gone_within);
        groups::check(&settings, groups.as_ref()).map_err(StartFault::config)?;
        sandboxes::check(&settings).map_err(StartFault::config)?;
        let secrets = vault::read(&settings).map_err(StartFault::config)?;
        let control = ControlSocket::open(&settings.taskd.socket).map_err(|fault| {
            if fault.passes() { StartFault::busy(fault) } else { StartFault::config(fault) }
        })?;
        let open_files = OpenFiles::raise().map_err(busy("raise the limit of open files"))?;
        if control.is_passed() && control.path().as_ref() != Some(&settings.taskd.socket) {
            tracing::warn!(
                "the socket that systemd holds is not `socket` = {}",
                settings.taskd.socket.display()
            );
        }
        tracing::info!("{users}");
        tracing::info!("{supervision}");
        let (settings, groups) = ((settings, users), (groups, supervision));
        let mut core =
            Self::build(options, signals, log, who, open_files, state, control, loaded, settings, groups)?;
        core.foreign = Foreign::there();
        core.sealed = Rc::new(seal(&core.settings, &secrets).map_err(StartFault::config)?);
        core.store.secrets = secrets;
        core.places().clear();
        core.open_vault(&Rc::clone(&core.settings)).map_err(StartFault::config)?;
        core.notify.status("starting");
        core.start_daemon();
        Ok(core)
    }

    /// A launcher without a daemon.
    #[expect(clippy::too_many_arguments, reason = "each is a part of it")]
    pub(super) fn build(
        options: LauncherOptions,
        signals: Signals,
        log: &'log Log,
        who: Who,
        open_files: OpenFiles,
        state: StateDir,
        control: ControlSocket,
        loaded: Settings,
        (settings, users): (Settings, String),
        (groups, supervision): (Option<Tree>, String),
    ) -> Result<Self, StartFault> {
        exec::reserve_numbers().map_err(busy("open /dev/null"))?;
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| busy("become a sub-reaper")(e.into()))?;
        let listener = control.as_fd().try_clone_to_owned().map_err(busy("keep the socket"))?;
        let sealed = memfd::write_sealed("taskd-settings", b"").map_err(busy("hand over the settings"))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(Self {
            options,
            signals,
            log,
            notify: Notify::from_env(),
            who,
            open_files,
            state,
            control,
            listener: Rc::new(listener),
            loaded,
            settings: Rc::new(settings),
            sealed: Rc::new(sealed),
            store: Store::default(),
            users,
            groups,
            supervision,
            looked_at: Instant::now(),
            daemon: None,
            epoch: 0,
            deaths: VecDeque::new(),
            reexec: Reexec::default(),
            retry_daemon: None,
            children: BTreeMap::new(),
            last_child: 0,
            parents: Parents::default(),
            foreign: Foreign::default(),
            ended: Vec::new(),
            children_lost: false,
            told_an_end: false,
            reload_wanted: false,
            ready: false,
            phase: Phase::Serving,
            last_wish: None,
            last_ping: Instant::now(),
            since: i64::try_from(since).unwrap_or(i64::MAX),
            look_around: false,
        })
    }

    /// Whether a journal takes the logs.
    pub(super) fn journal(&self) -> bool {
        self.log.target() == Target::Journal
    }

    /// The loop. Returns the exit code.
    pub(super) fn serve(&mut self) -> u8 {
        loop {
            if let Some(code) = self.over() {
                return code;
            }
            let deadline = self.next_deadline();
            let seen = self.wait(deadline);
            self.forgive_stall(deadline);
            if self.foreign.may_grow() && self.ended.is_empty() {
                let spared = self.spared();
                self.foreign.take_in(&spared, &self.state.instance);
            }
            if seen.signals {
                let wishes = self.signals.read();
                self.look_around |= wishes.reap;
                if wishes.quit {
                    self.end_now("SIGQUIT");
                } else if wishes.stop {
                    self.wish_to_stop();
                }
                if wishes.reload {
                    self.wish_to_reload();
                }
            }
            if seen.daemon {
                self.hear_daemon();
            }
            self.look_at_starting();
            self.hear_parents();
            for child in seen.cells {
                self.serve_cell(child);
            }
            self.flush_daemon();
            if std::mem::take(&mut self.look_around) {
                self.reap_all();
            }
            self.pass_time();
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Seen {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut what = vec![Watched::Signals];
        if let Some(daemon) = &self.daemon {
            let more = if daemon.queue.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            if let Some(socket) = &daemon.socket {
                fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN | more));
                what.push(Watched::Daemon);
            }
        }
        for fd in self.starting_pipes().chain(self.parents.watched()) {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
            what.push(Watched::Starting);
        }
        for (id, living) in &self.children {
            let Some((fd, waits)) = living.cell.as_ref().and_then(Cell::watched) else { continue };
            let flags = if waits == Waits::Question { PollFlags::POLLIN } else { PollFlags::POLLPRI };
            fds.push(PollFd::new(fd, flags));
            what.push(Watched::Cell(*id));
        }
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up: waking a moment too early would only mean to sleep again.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            }
        };
        let all = |signals, daemon| Seen { signals, daemon, cells: self.children.keys().copied().collect() };
        match poll(&mut fds, timeout) {
            Ok(_) => {
                let mut seen = Seen::default();
                let now = Instant::now();
                for (fd, what) in fds.iter().zip(what) {
                    let any = fd.any().unwrap_or(false);
                    match what {
                        Watched::Signals => seen.signals = any,
                        Watched::Daemon => seen.daemon = any,
                        Watched::Cell(id) if any => seen.cells.push(id),
                        // All of those are looked at in each round.
                        Watched::Cell(_) | Watched::Starting => {}
                    }
                }
                let late = |c: &Living| c.cell.as_ref().and_then(Cell::deadline).is_some_and(|at| at <= now);
                seen.cells.extend(self.children.iter().filter(|(_, c)| late(c)).map(|(id, _)| *id));
                seen
            }
            // Looking at everything is always right, and a poll that cannot work must not spin silently.
            Err(Errno::EINTR) => all(true, true),
            Err(error) => {
                tracing::error!("poll failed: {error}");
                std::thread::sleep(Duration::from_millis(100));
                all(true, true)
            }
        }
    }

    /// When this process itself was kept from running (SIGSTOP, a frozen cgroup, a suspended machine), the
    /// daemon's silence may be nobody's fault: it gets its full time anew.
    fn forgive_stall(&mut self, deadline: Option<Instant>) {
        let now = Instant::now();
        let late = deadline.is_some_and(|at| now.saturating_duration_since(at) > Duration::from_secs(1));
        if let Some(daemon) = self.daemon.as_mut().filter(|_| late) {
            daemon.heard = now;
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let ping = self.ping_every().map(|every| self.last_ping + every);
        let patience = self.options.limits.gone_within;
        let ended = self.ended.iter().map(|one| one.look_at(patience)).min();
        let cells = self.children.values().filter_map(|c| c.cell.as_ref()?.deadline()).min();
        let starting = self.starting_deadline();
        [
            ping,
            ended,
            cells,
            starting,
            self.parents.deadline(),
            self.look_at(),
            self.silent_at(),
            self.retry_daemon,
            self.phase.deadline(),
            self.reexec.deadline(),
            self.notify.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// systemd wants a sign of life each WatchdogSec; half of it is what its manual asks for.
    fn ping_every(&self) -> Option<Duration> {
        self.options.limits.watchdog.map(|period| period / 2).filter(|_| self.notify.connected())
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        // Whenever it is awake anyway after half of that, so that it need not be woken for it alone.
        if self.ping_every().is_some_and(|every| now >= self.last_ping + every / 2) {
            self.notify.alive();
            self.last_ping = now;
        }
        if self.notify.deadline().is_some_and(|at| now >= at) {
            self.notify.flush();
        }
        if self.silent_at().is_some_and(|at| now >= at) {
            self.end_silent_daemon();
        }
        if self.retry_daemon.is_some_and(|at| now >= at) {
            self.retry_daemon = None;
            self.start_daemon();
        }
        if self.look_at().is_some_and(|at| now >= at) {
            self.supervise();
        }
        let patience = self.options.limits.gone_within;
        if self.ended.iter().any(|one| now >= one.look_at(patience)) {
            let left = self.end_leftovers();
            self.tell_ended(&left);
        }
        self.pass_parents_time(now);
        self.pass_stop_time(now);
        self.pass_reexec_time(now);
    }

    /// Takes in every end, ends what was left behind, tells the daemon once that is gone.
    pub(super) fn reap_all(&mut self) {
        while let Some((pid, end)) = family::reap() {
            self.foreign.reaped(pid);
            if self.daemon.as_ref().is_some_and(|d| d.pid == pid) {
                self.daemon_died(end);
            } else if self.trial_ended(pid, end) {
                // It had no children of its own that were declared.
            } else if let Some(id) = self.child_of_pid(pid) {
                self.child_ended(id, end);
            } else {
                self.parent_ended(pid, end);
            }
        }
        let left = self.end_leftovers();
        self.tell_ended(&left);
    }

    /// Kills what is left of ended children. Returns those that are there still.
    pub(super) fn end_leftovers(&self) -> Vec<u32> {
        let spared = &self.spared() | self.foreign.pids();
        // Where foreign ones come at any time, a new one is not to be taken for a leftover of nobody.
        let only_own = self.foreign.may_grow() && !self.ended.iter().any(|one| one.left);
        family::kill_strangers(|pid| {
            !spared.contains(&pid) && (!only_own || instance::is_of(pid, &self.state.instance))
        })
    }

    /// Looks for leftovers and ends at the next round of the loop.
    pub(super) fn look_around(&mut self) {
        self.look_around = true;
    }

    /// Pids of the daemon, of all living children and of what they are forked from.
    pub(super) fn known(&self) -> BTreeSet<u32> {
        self.daemon
            .iter()
            .filter(|d| !d.gone)
            .map(|d| d.pid)
            .chain(self.children.values().map(|c| c.child.pid))
            .chain(self.parents.pids())
            .chain(self.reexec.trial_pid())
            .collect()
    }

    /// Those, and whoever is about to become a child. That one is not signaled: a parent's word is all that is known
    /// of its number.
    pub(super) fn spared(&self) -> BTreeSet<u32> {
        &self.known() | &self.parents.unborn_pids()
    }

    fn child_of_pid(&self, pid: u32) -> Option<ChildId> {
        self.children.values().find(|c| c.child.pid == pid).map(|c| c.child.child)
    }
}

fn busy(what: &'static str) -> impl Fn(std::io::Error) -> StartFault {
    move |e| StartFault::busy(format!("cannot {what}: {e}"))
}

/// What poll(2) looked at.
enum Watched {
    Signals,
    Daemon,
    Cell(ChildId),
    Starting,
}

/// What it found.
#[derive(Default)]
struct Seen {
    signals: bool,
    daemon: bool,
    cells: Vec<ChildId>,
}

/// Settings as the daemon gets them: with the credentials that the broker's address names.
pub(super) fn seal(settings: &Settings, secrets: &Secrets) -> Result<OwnedFd, String> {
    let mut settings = std::borrow::Cow::Borrowed(settings);
    if credential::is_in(&settings.taskd.broker) {
        let broker = credential::expand_in_url(&settings.taskd.broker, secrets)?;
        settings.to_mut().taskd.broker = broker;
    }
    let text = serde_json::to_vec(&settings).map_err(|e| e.to_string())?;
    memfd::write_sealed("taskd-settings", &text).map_err(|e| e.to_string())
}
