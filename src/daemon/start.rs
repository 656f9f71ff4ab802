//! The start order: launcher's word, settings, store, socket, children, loop.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::launcher::Launcher;
use super::round::{Inputs, child_up};
use super::spool::Spool;
use super::state::{Daemon, Parts};
use super::{broker, clock, peer, plan, round};
use crate::config::settings::Settings;
use crate::control::access::{Policy, System};
use crate::control::server;
use crate::engine::event::{Ask, Event};
use crate::observe::log::{self, Log, Target};
use crate::process::launch::{Child, Start, ToDaemon, ToLauncher};
use crate::process::packet::Packets;

/// Calls that wait for the loop; more are answered 503 by the server.
const CALLS: usize = 1024;

/// The daemon's whole life, on a runtime of one thread. `confinement` is how the kernel confines it, for the status.
#[must_use]
pub fn run(packets: Packets, confinement: Option<String>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("no event loop: {e}")),
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let mut launcher = match Launcher::new(packets) {
            Ok(launcher) => launcher,
            Err(e) => return fail(&format!("the launcher's socket: {e}")),
        };
        match prepare(&mut launcher, confinement).await {
            Ok(told) => {
                let target = if told.start.journal { Target::Journal } else { Target::Stderr };
                // Kept to the end: dropping it writes the last lines.
                let log = log::init(&told.settings.taskd.log_level, target);
                if let Err(e) = &log {
                    log::say(e);
                }
                match assemble(launcher, told, log.ok()) {
                    Ok((daemon, inputs)) => round::run(daemon, inputs).await,
                    Err((launcher, code, message)) => give_up(launcher, code, message).await,
                }
            }
            Err((code, message)) => give_up(launcher, code, message).await,
        }
    })
}

fn fail(message: &str) -> ExitCode {
    log::say(message);
    ExitCode::from(71)
}

/// The launcher ends everything with this code: a person has to act, a restart would not help.
async fn give_up(mut launcher: Launcher, code: u8, message: String) -> ExitCode {
    launcher.send(ToLauncher::Failed { code, message });
    while launcher.behind() && launcher.recv().await.is_ok() {
        launcher.flush();
    }
    ExitCode::from(code)
}

/// What the launcher told before `Go`.
struct Told {
    start: Start,
    confinement: Option<String>,
    settings: Settings,
    listener: OwnedFd,
    children: Vec<(Child, Vec<OwnedFd>)>,
}

async fn prepare(launcher: &mut Launcher, confinement: Option<String>) -> Result<Told, (u8, String)> {
    let gone = |e: std::io::Error| (70, format!("the launcher is gone: {e}"));
    let (packet, fds) = launcher.recv().await.map_err(gone)?;
    let mut fds = fds.into_iter();
    let (ToDaemon::Start(start), Some(memfd), Some(listener)) = (packet, fds.next(), fds.next()) else {
        return Err((70, "the launcher's first packet is not a start with its two descriptors".into()));
    };
    let settings = settings(memfd).map_err(|e| (70, e))?;
    let mut children = Vec::new();
    loop {
        match launcher.recv().await.map_err(gone)? {
            (ToDaemon::Child(child), fds) => children.push((child, fds)),
            (ToDaemon::Go, _) => break,
            (other, _) => return Err((70, format!("the launcher sent {other:?} before its start was over"))),
        }
    }
    Ok(Told { start: *start, confinement, settings, listener, children })
}

/// Reads settings that the launcher sealed.
///
/// # Errors
/// A sentence when the memfd cannot be read or does not hold settings.
pub fn settings(memfd: OwnedFd) -> Result<Settings, String> {
    let bytes = crate::process::memfd::read_sealed(memfd).map_err(|e| format!("the settings' memfd: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("the settings' memfd: {e}"))
}

type Assembled = Result<(Daemon, Inputs), (Launcher, u8, String)>;

fn assemble(launcher: Launcher, told: Told, log: Option<Log>) -> Assembled {
    let Told { start, confinement, settings, listener, children } = told;
    let settings = Arc::new(settings);
    let state_dir = &settings.taskd.state_dir;
    let (done, store_done) = mpsc::unbounded_channel();
    let on_done = Box::new(move |completions| {
        // The loop is gone only when the process ends.
        let _ = done.send(completions);
    });
    let (wake, woken) = mpsc::unbounded_channel();
    let store = match broker::open(&settings, on_done, wake) {
        Ok(store) => store,
        Err((code, message)) => return Err((launcher, code, message)),
    };
    super::handle::store::sweep(state_dir);
    let spool = match Spool::open(&state_dir.join("output"), settings.results.output_max_size) {
        Ok(spool) => spool,
        Err(e) => {
            let what = format!("{}/output: {e}", state_dir.display());
            return Err((launcher, 73, what));
        }
    };
    let (rules, policy_seen) = watch::channel(Arc::new(policy(&settings, start.owner)));
    let (calls, calls_in) = mpsc::channel(CALLS);
    let (later, later_in) = mpsc::channel(CALLS);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = server::serve(
        listener.into(),
        policy_seen,
        calls,
        crate::process::peer::groups,
        server::Limits::default(),
        async move {
            let _ = stopped.await;
        },
    );
    let serving = tokio::task::spawn_local(serving);
    let fresh = start.epoch == 1;
    let children_lost = start.children_lost;
    let seed = clock::now().mono.0 ^ u64::from(std::process::id()) << 32;
    let (celery, hears) = match broker::tools(&settings) {
        Ok(both) => both,
        Err(e) => return Err((launcher, 71, e)),
    };
    let parts =
        Parts { settings, start, confinement, store, launcher, spool, policy: rules, later, log, celery };
    let mut daemon = Daemon::new(parts, seed);
    let first = plan::plan(&daemon.settings);
    daemon.step(Event::Plan(Arc::new(first)));
    for (child, fds) in children {
        child_up(&mut daemon, child, fds, true);
    }
    if daemon.start.draining {
        daemon.draining = true;
        daemon.ask(Ask::Drain { on: true }, Box::new(|_, _| {}));
    }
    daemon.step(Event::Adopt { children_lost, fresh });
    daemon.flush(clock::now().mono);
    peer::begin(&mut daemon);
    super::perform::collect_output(&daemon);
    let inputs = Inputs {
        store: store_done,
        woken,
        calls: calls_in,
        later: later_in,
        serving,
        celery: hears,
        stop: Some(stop),
    };
    Ok((daemon, inputs))
}

/// The access rules of these settings, with every name resolved now; names that nobody has are told.
#[must_use]
pub fn policy(settings: &Settings, owner: u32) -> Policy {
    let allows = settings.tasks.values().filter_map(|t| t.allow.as_deref());
    let policy = Policy::new(&settings.access, allows, owner, &System);
    if !policy.unresolved().is_empty() {
        tracing::debug!("[access] and allow name nobody on this machine: {}", policy.unresolved().join(", "));
    }
    policy
}
