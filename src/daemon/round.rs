//! The one loop. Each round takes what has arrived (a bounded lot of each kind), steps the engine, and hands
//! all store operations over together, so that concurrent enqueues share one fsync.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use super::child::{Heard, Link};
use super::state::{Daemon, Living};
use super::{clock, handle};
use crate::broker::Completion;
use crate::control::api::{Call, ProgressView};
use crate::engine::event::{ChildKey, Event, SlotId};
use crate::model::time::Mono;
use crate::process::launch::{Child, ToDaemon, ToLauncher};
use crate::process::protocol::FromChild;

/// At most this many of each kind in one round.
const LOT: usize = 256;

/// STATUS= is told at most this often.
const STATUS_EVERY_MS: u64 = 1000;

/// A wall-clock deadline is looked at again at least this often, in case the wall clock was set.
const WALL_CHECK_MS: u64 = 30_000;

/// What arrives.
pub struct Inputs {
    /// Completed operations of the store.
    pub store: mpsc::UnboundedReceiver<Vec<Completion>>,
    /// Calls of clients.
    pub calls: mpsc::Receiver<Call>,
    /// Calls that come back to the loop (waits that are over).
    pub later: mpsc::Receiver<Call>,
    /// The server of the control socket; it ends only when `stop` is told or its socket is gone.
    pub serving: tokio::task::JoinHandle<io::Result<()>>,
    /// Tells the server to take no more connections and to finish what it answers.
    pub stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// What woke the loop.
enum Woke {
    Launcher(io::Result<(ToDaemon, Vec<OwnedFd>)>),
    Store(Vec<Completion>),
    Heard(Vec<Heard>),
    Call(Call),
    Imported,
    Served,
    Time,
}

/// Runs until everything is settled after a stop, or a fault ends it.
pub async fn run(mut d: Daemon, mut inputs: Inputs) -> ExitCode {
    let mut next_alive = d.start.alive_every_ms.map(|ms| clock::now().mono.plus(ms));
    let mut status = Status::default();
    let imported = std::sync::Arc::clone(&d.imported);
    loop {
        let sleep = sleep_for(&d, next_alive, &status);
        // A stream that never runs dry must not starve the others: `biased` only decides who is looked at
        // first, the lots below are bounded, and time is checked at the end of each round.
        let woke = tokio::select! {
            biased;
            packet = d.launcher.recv() => Woke::Launcher(packet),
            Some(done) = inputs.store.recv() => Woke::Store(done),
            heard = poll_fn(|cx| hear_some(&mut d.children, cx)) => Woke::Heard(heard),
            Some(call) = inputs.later.recv() => Woke::Call(call),
            Some(call) = inputs.calls.recv() => Woke::Call(call),
            () = imported.notified() => Woke::Imported,
            _ = &mut inputs.serving, if d.handing_over => Woke::Served,
            () = rest(sleep) => Woke::Time,
        };
        match woke {
            Woke::Launcher(Ok((packet, fds))) => launcher(&mut d, packet, fds),
            Woke::Launcher(Err(e)) => {
                tracing::error!("the launcher is gone ({e}): exiting, what runs is lost with it");
                return ExitCode::from(70);
            }
            Woke::Store(done) => stored(&mut d, done),
            Woke::Heard(heard) => heard.into_iter().for_each(|heard| hear(&mut d, heard)),
            Woke::Call(call) => handle::dispatch(&mut d, call),
            Woke::Imported => handle::store::imported(&mut d),
            Woke::Served => return hand_over(d, inputs).await,
            Woke::Time => {}
        }
        for _ in 0..LOT {
            let Ok(done) = inputs.store.try_recv() else { break };
            stored(&mut d, done);
        }
        // Children have their turn in each round, however busy the store is.
        if let Poll::Ready(heard) = poll_fn(|cx| Poll::Ready(hear_some(&mut d.children, cx))).await {
            heard.into_iter().for_each(|heard| hear(&mut d, heard));
        }
        for _ in 0..LOT {
            let Ok(call) = inputs.later.try_recv().or_else(|_| inputs.calls.try_recv()) else { break };
            handle::dispatch(&mut d, call);
        }
        let now = clock::now();
        if d.engine.next_deadline().is_some_and(|at| at <= now.mono) {
            d.step(Event::Tick);
        }
        d.flush(now.mono);
        d.tell_late(now.mono);
        d.look_at_store();
        if !d.ready && d.engine.pools_up() {
            d.ready = true;
            d.adopted.clear();
            d.launcher.send(ToLauncher::Ready);
        }
        if next_alive.is_some_and(|at| at <= now.mono) {
            next_alive = d.start.alive_every_ms.map(|ms| now.mono.plus(ms));
            d.launcher.send(ToLauncher::Alive);
        }
        status.tell(&mut d, now.mono);
        d.launcher.flush();
        if let Some((code, message)) = d.failed.take() {
            tracing::error!("{message}");
            d.launcher.send(ToLauncher::Failed { code, message });
            return ExitCode::from(code);
        }
        if d.finished {
            return finish(d, inputs).await;
        }
        if d.handing_over
            && let Some(stop) = inputs.stop.take()
        {
            // What clients asked for is answered; those who connect from now on wait for the next daemon.
            let _ = stop.send(());
        }
    }
}

/// The store is closed before the launcher hears that all is settled.
async fn finish(mut d: Daemon, inputs: Inputs) -> ExitCode {
    if let Some(stop) = inputs.stop {
        let _ = stop.send(());
    }
    drop((inputs.calls, inputs.later));
    let _ = inputs.serving.await;
    let spool = std::sync::Arc::clone(&d.spool);
    let _ = tokio::task::spawn_blocking(move || spool.sync()).await;
    d.store.close();
    d.launcher.send(ToLauncher::Finished);
    // The launcher ends everything, this process included; without it there is nothing left to do.
    while d.launcher.recv().await.is_ok() {
        d.launcher.flush();
    }
    ExitCode::SUCCESS
}

/// All clients are answered. What is on its way to the store gets there; what children say from now on, they
/// say again to the next daemon.
async fn hand_over(mut d: Daemon, mut inputs: Inputs) -> ExitCode {
    d.children.values().for_each(|living| living.link.flush());
    // The launcher bounds this: a store that does not answer is left.
    while d.flush_all() {
        let Some(done) = inputs.store.recv().await else { break };
        stored(&mut d, done);
    }
    d.look_at_store();
    let spool = std::sync::Arc::clone(&d.spool);
    let _ = tokio::task::spawn_blocking(move || spool.sync()).await;
    let whole = d.trouble.is_none();
    d.store.close();
    if whole {
        d.launcher.send(ToLauncher::HandedOver { draining: d.draining });
    }
    while d.launcher.behind() && d.launcher.recv().await.is_ok() {
        d.launcher.flush();
    }
    ExitCode::SUCCESS
}

async fn rest(sleep: Option<Duration>) {
    match sleep {
        Some(d) => tokio::time::sleep(d).await,
        None => std::future::pending().await,
    }
}

fn sleep_for(d: &Daemon, next_alive: Option<Mono>, status: &Status) -> Option<Duration> {
    let now = clock::now();
    let engine = d.engine.next_deadline().map(|at| at.min(now.mono.plus(WALL_CHECK_MS)));
    let behind = d.launcher.behind().then(|| now.mono.plus(10));
    let at = [engine, next_alive, status.due, behind, d.kept_until()].into_iter().flatten().min()?;
    // One millisecond more: the clock is read in whole milliseconds, and an early wake would spin.
    let wait = at.since(now.mono);
    Some(Duration::from_millis(if wait == 0 { 0 } else { wait + 1 }))
}

fn stored(d: &mut Daemon, done: Vec<Completion>) {
    for (ticket, result) in done {
        d.completed(ticket, result);
    }
}

fn launcher(d: &mut Daemon, packet: ToDaemon, fds: Vec<OwnedFd>) {
    match packet {
        ToDaemon::Child(child) => {
            let Some(fd) = fds.into_iter().next() else {
                tracing::error!("the launcher named child {} without its socket", child.slot);
                return;
            };
            child_up(d, child, fd, false);
        }
        ToDaemon::SpawnFailed { slot, error, again } => {
            let slot = SlotId { pool: slot.pool, index: slot.index };
            let error = if again { format!("{error} (tried again)") } else { error };
            d.step(Event::SpawnFailed { slot, error });
        }
        ToDaemon::Exited { child, code, signal, out_of_memory: _ } => {
            let key = ChildKey(child.0);
            let how =
                if signal == 0 { format!("exited with {code}") } else { format!("died of signal {signal}") };
            d.children.remove(&key);
            d.step(Event::ChildDown { child: key, how });
            // What it held is settled by the engine now; nothing more will be heard of its runs.
            d.runs.retain(|_, run| run.child != key);
        }
        ToDaemon::Measured { .. } => {}
        ToDaemon::ReloadAsked => handle::reload::asked(d),
        ToDaemon::Settings { changes, .. } => handle::reload::swapped(d, fds, changes),
        ToDaemon::SettingsRefused { report } => handle::reload::refused(d, &report),
        ToDaemon::ReexecRefused { report } => handle::reload::kept(d, &report),
        ToDaemon::HandOver { version } => handle::reload::hand_over(d, &version),
        ToDaemon::Stop { now } => {
            d.stopping = true;
            d.step(Event::Stop { now });
        }
        ToDaemon::Start(_) | ToDaemon::Go => tracing::error!("the launcher repeated its start: ignored"),
    }
}

/// A child lives: speaks to it and tells the engine.
pub fn child_up(d: &mut Daemon, child: Child, fd: OwnedFd, adopted: bool) {
    let key = ChildKey(child.child.0);
    match Link::open(key, fd.into(), d.start.epoch) {
        Ok(link) => {
            let event = Event::ChildUp {
                child: key,
                slot: SlotId { pool: child.slot.pool.clone(), index: child.slot.index },
                user: child.user.clone(),
                generation: child.generation,
                adopted,
            };
            d.children.insert(key, Living { child, link });
            d.step(event);
        }
        Err(e) => {
            tracing::error!("child {}: its socket cannot be used ({e}); it is ended", child.slot);
            d.launcher.send(ToLauncher::End { child: child.child, kill: true });
        }
    }
}

/// What children said since the last round, one read each.
fn hear_some(children: &mut BTreeMap<ChildKey, Living>, cx: &mut Context<'_>) -> Poll<Vec<Heard>> {
    let mut all = Vec::new();
    for living in children.values_mut() {
        if let Poll::Ready(heard) = living.link.poll(cx) {
            all.push(heard);
        }
    }
    if all.is_empty() { Poll::Pending } else { Poll::Ready(all) }
}

fn hear(d: &mut Daemon, heard: Heard) {
    let (child, lines) = match heard {
        Heard::Lines(child, lines) => (child, lines),
        Heard::Broken(child, why) => {
            let slot = d.children.get(&child).map(|c| c.child.slot.to_string()).unwrap_or_default();
            tracing::error!(
                "child {slot} broke the protocol and is ended, its message is delivered again: {why}"
            );
            d.launcher.send(ToLauncher::End { child: crate::process::launch::ChildId(child.0), kill: true });
            return;
        }
    };
    if !d.children.contains_key(&child) {
        return;
    }
    let mut output = handle::logs::Batch::default();
    for line in lines {
        if let FromChild::Output { run, stream, line, data, cut } = line {
            output.push(d, run, stream, line, data, cut);
            continue;
        }
        output.write(d);
        one(d, child, line);
    }
    output.write(d);
}

fn one(d: &mut Daemon, child: ChildKey, line: FromChild) {
    match line {
        FromChild::Ready { v, capacity, resume, .. } => {
            if v == crate::process::protocol::VERSION {
                if !resume && d.start.epoch > 1 {
                    tracing::debug!("child {} cannot be adopted", child.0);
                }
                d.step(Event::Ready { child, capacity: capacity.max(1) });
            } else {
                tracing::error!("child {} speaks version {v} of the protocol and is ended", child.0);
                d.launcher
                    .send(ToLauncher::End { child: crate::process::launch::ChildId(child.0), kill: true });
            }
        }
        FromChild::Running { run } => {
            named(d, child, &run, None);
            d.step(Event::Running { child, run });
        }
        FromChild::Resumed {} => d.step(Event::Resumed { child }),
        FromChild::Started { run, pid } => {
            named(d, child, &run, (pid != 0).then_some(pid));
            d.step(Event::Started { child, run, pid });
        }
        FromChild::Progress { run, current, total, message } => {
            if let Some(info) = d.runs.get_mut(&run) {
                info.progress = Some(ProgressView { current, total, message });
            }
        }
        FromChild::Refused { run, why } => {
            tracing::warn!("child {} refused a run: {why}", child.0);
            d.step(Event::Refused { child, run, why });
        }
        FromChild::Output { .. } => {}
        ended @ (FromChild::Success { .. } | FromChild::Failure { .. } | FromChild::Retry { .. }) => {
            if let Some((run, outcome)) = ended.into_outcome() {
                if let Some(info) = d.runs.get_mut(&run) {
                    info.ended = true;
                }
                d.step(Event::Ended { child, run, outcome: Box::new(outcome) });
            }
        }
    }
}

/// A child speaks of a run as its own.
fn named(d: &mut Daemon, child: ChildKey, run: &str, pid: Option<u32>) {
    if let Some(info) = d.runs.get_mut(run) {
        info.child = child;
        info.pid = pid.or(info.pid);
    } else if !d.engine.is_live()
        && let Some(info) = d.adopted.named(run, child, pid)
    {
        d.runs.insert(run.to_owned(), info);
    }
}

/// STATUS= in a sentence, at most once a second.
#[derive(Default)]
struct Status {
    told: String,
    due: Option<Mono>,
    last: Option<Mono>,
}

impl Status {
    fn tell(&mut self, d: &mut Daemon, now: Mono) {
        let text = sentence(d);
        if text == self.told {
            self.due = None;
            return;
        }
        let soon = self.last.map_or(now, |at| at.plus(STATUS_EVERY_MS));
        if soon > now {
            self.due = Some(soon);
            return;
        }
        self.due = None;
        self.last = Some(now);
        self.told.clone_from(&text);
        d.launcher.send(ToLauncher::Status { text });
    }
}

fn sentence(d: &Daemon) -> String {
    if let Some(trouble) = &d.trouble {
        return format!("paused: {trouble}");
    }
    let running = d.running();
    let slots: u32 = d.settings.pools.values().map(|p| p.processes).sum();
    let state = handle::status::state(d);
    if state == "running" {
        // The totals change with every task: they are for `taskd status`, a wake-up a second is not worth them.
        format!("running, {running} of {slots} slots busy")
    } else {
        format!("{state}, {} still running", crate::control::api::count(running as u64, "attempt"))
    }
}
