//! The launcher: the unit's main process. Single-threaded but for its log, no tokio, no network; everything
//! it does is one `poll` loop ([`core`]).
//!
//! It owns what must outlive the daemon (the control socket, the children's sockets, the settings) and what
//! needs root (becoming users); the daemon asks for it in packets and can ask for nothing else.

mod child;
mod core;
mod daemon;
mod entry;
mod exec;
mod family;
mod foreign;
mod groups;
mod heritage;
mod inherit;
mod preload;
mod reexec;
mod reload;
mod sandboxes;
mod signals;
mod state_dir;
mod stop;
mod supervise;
mod users;
mod vault;
mod worker;

use std::ffi::CStr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::CredentialSource;
use crate::config::settings::Settings;
use crate::observe::log::{self, Target};
use crate::process::{privileges, title};

pub use entry::{RunnerStart, daemon_start, runner_start};
pub use exec::Program;
pub use groups::Hierarchy;
pub use inherit::{Origin, upgrade_check};
pub use sandboxes::refused_sandboxes;
pub use worker::worker_main;

/// First argument of the process that is the daemon.
pub const DAEMON: &str = "@daemon";

/// First argument of a process that is a runner.
pub const RUNNER: &str = "@runner";

/// First argument of a process that is to become a resident worker's program.
pub const WORKER: &str = "@worker";
/// First argument of a program that is tried before it replaces the running one; what that was started with
/// follows, the state comes on stdin.
pub const UPGRADE_CHECK: &CStr = c"@upgrade-check";

/// Exit code when the config (or what it asks for) is wrong: systemd does not restart after it.
pub const EXIT_CONFIG: u8 = 78;

/// Exit code when something else is in the way now: another taskd, an operating system error.
pub const EXIT_BUSY: u8 = 75;

/// Exit code after too many deaths of the daemon.
pub const EXIT_DAEMON: u8 = 70;

/// Reads and checks the config; the error is the rendered report.
pub type Load = Box<dyn Fn() -> Result<Settings, String>>;

/// Compares settings: what changes, a line each, or the keys that need a restart.
pub type Diff = Box<dyn Fn(&Settings, &Settings) -> Result<Vec<String>, Vec<String>>>;

/// What the launcher works with.
pub struct LauncherOptions {
    /// Reads the config, at start and at each reload.
    pub load: Load,
    /// What a reload changes.
    pub diff: Diff,
    /// Where logs go.
    pub log: Target,
    /// What is started as the daemon.
    pub daemon: Program,
    /// What is started as a runner.
    pub runner: Program,
    /// What is started to become a resident worker.
    pub worker: Program,
    /// Where control groups may be.
    pub groups: Hierarchy,
    /// How this program was started, for the one that replaces it.
    pub origin: Origin,
    /// Times and bounds.
    pub limits: Limits,
}

/// Times and bounds of the launcher.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `WatchdogSec=`; absent: nobody watches, and nobody is woken for it.
    pub watchdog: Option<Duration>,
    /// A daemon that was ready for so long did its work: its death is not counted.
    pub steady: Duration,
    /// So many other deaths of the daemon …
    pub deaths: usize,
    /// … within this time end everything.
    pub deaths_within: Duration,
    /// A daemon gets `shutdown_grace` and this much more to finish.
    pub finish_margin: Duration,
    /// Children get this long between SIGTERM and SIGKILL at the end.
    pub kill_after: Duration,
    /// Signals to stop that follow each other faster than this are one wish.
    pub same_wish: Duration,
    /// Processes of an earlier life, and what an ended child left, get this long to be gone after SIGKILL.
    pub gone_within: Duration,
    /// A new program that is tried gets this long to answer.
    pub trial: Duration,
    /// A daemon that hands over to the one of a new program gets this long.
    pub hand_over: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watchdog: None,
            steady: Duration::from_secs(1),
            deaths: 5,
            deaths_within: Duration::from_secs(60),
            finish_margin: Duration::from_secs(10),
            kill_after: Duration::from_secs(5),
            same_wish: Duration::from_millis(200),
            gone_within: Duration::from_secs(5),
            trial: Duration::from_secs(10),
            hand_over: Duration::from_secs(5),
        }
    }
}

impl LauncherOptions {
    /// The real thing: this program as daemon and runner, the watchdog that systemd asks for.
    #[must_use]
    pub fn new(load: Load, diff: Diff, log: Target) -> Self {
        let watchdog = crate::observe::notify::Notify::watchdog_period();
        Self {
            load,
            diff,
            log,
            daemon: Program::this(DAEMON),
            runner: Program::this(RUNNER),
            worker: Program::this(WORKER),
            groups: Hierarchy::real(),
            origin: Origin::now(),
            limits: Limits { watchdog, ..Limits::default() },
        }
    }
}

/// Why the launcher did not start.
#[derive(Debug)]
pub(crate) struct StartFault {
    code: u8,
    message: String,
}

impl StartFault {
    fn config(message: impl std::fmt::Display) -> Self {
        Self { code: EXIT_CONFIG, message: message.to_string() }
    }

    fn busy(message: impl std::fmt::Display) -> Self {
        Self { code: EXIT_BUSY, message: message.to_string() }
    }
}

/// Runs taskd until it is told to stop. To be called from the main thread, before any other is started:
/// signals are blocked here for all, and children die with the thread that starts them.
#[must_use]
pub fn run(options: LauncherOptions) -> ExitCode {
    // The arguments were read; that a title cannot be shown is no reason not to work.
    let _ = title::init();
    title::set_whole("taskd: launcher");
    ExitCode::from(serve(options))
}

/// [`run`], with the exit code as a number.
#[must_use]
pub fn serve(options: LauncherOptions) -> u8 {
    // Before it reads any secret: no core of it, and no look into it for other processes of its user. Without the
    // directory it never has one.
    if CredentialSource::of_this_process() != CredentialSource::None
        && let Err(error) = privileges::not_dumpable()
    {
        log::say(&format!("cannot close this process to others: {error}"));
        return EXIT_BUSY;
    }
    let signals = match signals::Signals::block() {
        Ok(signals) => signals,
        Err(error) => {
            log::say(&format!("cannot wait for signals: {error}"));
            return EXIT_BUSY;
        }
    };
    let inherited = match inherit::inherited() {
        Ok(inherited) => inherited,
        Err(error) => {
            log::say(&format!("cannot take over from the program before this one: {error}"));
            return EXIT_BUSY;
        }
    };
    let mut late_fault = None;
    let settings = match &inherited {
        None => (options.load)(),
        // It was good a moment ago, when this program was tried.
        Some(i) => i.state.next_settings(&options).or_else(|report| {
            late_fault = Some(report);
            i.state.old_settings()
        }),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(report) => {
            log::say(&format!("the config has faults\n{}", report.trim_end()));
            return EXIT_CONFIG;
        }
    };
    let log = match log::init(&settings.taskd.log_level, options.log) {
        Ok(log) => log,
        Err(error) => {
            log::say(&error);
            return EXIT_CONFIG;
        }
    };
    if let Some(report) = late_fault {
        tracing::error!("the config has faults, the old one stays in force: {report}");
    }
    let core = match inherited {
        None => core::Core::start(options, signals, settings, &log),
        Some(inherited) => core::Core::take_over(options, signals, settings, &log, inherited),
    };
    let code = match core {
        Ok(mut core) => core.serve(),
        Err(fault) => {
            tracing::error!("{}", fault.message);
            fault.code
        }
    };
    drop(log);
    code
}
