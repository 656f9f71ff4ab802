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
use super::worker_output::{Printed, Said};
use super::{clock, handle, peer, worker_end, worker_output};
use crate::broker::Completion;
use crate::broker::redis::Woken;
use crate::control::api::{Call, ProgressView};
use crate::engine::event::{ChildKey, Event, OwnLimits, SlotId};
use crate::model::time::Mono;
use crate::process::launch::{Child, ToDaemon, ToLauncher};
use crate::process::protocol::FromChild;

/// At most this many of each kind in one round.
const LOT: usize = 256;

/// A resident worker that closed its socket gets so long to exit, in milliseconds.
pub const CLOSED_MS: u64 = 2_000;

/// STATUS= is told at most this often.
const STATUS_EVERY_MS: u64 = 1000;

/// A wall-clock deadline is looked at again at least this often, in case the wall clock was set.
const WALL_CHECK_MS: u64 = 30_000;

/// What arrives.
pub struct Inputs {
    /// Completed operations of the store.
    pub store: mpsc::UnboundedReceiver<Vec<Completion>>,
    /// What other nodes and Celery's clients make known.
    pub woken: mpsc::UnboundedReceiver<Woken>,
    /// Calls of clients.
    pub calls: mpsc::Receiver<Call>,
    /// Calls that come back to the loop (waits that are over).
    pub later: mpsc::Receiver<Call>,
    /// The server of the control socket; it ends only when `stop` is told or its socket is gone.
    pub serving: tokio::task::JoinHandle<io::Result<()>>,
    /// What Celery's tools ask.
    pub celery: Option<mpsc::Receiver<crate::control::celery::asked::Heard>>,
    /// Tells the server to take no more connections and to finish what it answers.
    pub stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// What woke the loop.
enum Woke {
    Launcher(io::Result<(ToDaemon, Vec<OwnedFd>)>),
    Store(Vec<Completion>),
    Woken(Woken),
    Heard(Vec<Heard>),
    Call(Call),
    Celery(crate::control::celery::asked::Heard),
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
            Some(woken) = inputs.woken.recv() => Woke::Woken(woken),
            heard = poll_fn(|cx| hear_some(&mut d.children, cx)) => Woke::Heard(heard),
            Some(call) = inputs.later.recv() => Woke::Call(call),
            Some(call) = inputs.calls.recv() => Woke::Call(call),
            Some(heard) = asked(&mut inputs.celery) => Woke::Celery(heard),
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
            Woke::Woken(woken) => d.woken(woken),
            Woke::Heard(heard) => heard.into_iter().for_each(|heard| hear(&mut d, heard)),
            Woke::Call(call) => handle::dispatch(&mut d, call),
            Woke::Celery(heard) => peer::heard(&mut d, heard),
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
        peer::turn(&d);
        let now = clock::now();
        if d.engine.next_deadline().is_some_and(|at| at <= now.mono) {
            d.step(Event::Tick);
        }
        d.look_at_pressure(now.mono);
        super::nodes::turn(&mut d, now);
        d.flush(now.mono);
        d.tell_late(now.mono);
        end_deaf(&mut d, now.mono);
        d.look_at_store();
        if !d.ready && (d.engine.pools_up() || d.waits_for_broker()) {
            d.ready = true;
            d.launcher.send(ToLauncher::Ready);
        }
        if d.engine.is_matched() {
            d.adopted.clear();
        }
        if !d.recovered && d.engine.has_recovered() {
            d.recovered = true;
            d.launcher.send(ToLauncher::Recovered);
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
    peer::close(&mut d).await;
    let _ = inputs.serving.await;
    let spool = std::sync::Arc::clone(&d.spool);
    let _ = tokio::task::spawn_blocking(move || spool.sync()).await;
    super::nodes::leave(&mut d);
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
    d.store.hand_over();
    if whole {
        d.launcher.send(ToLauncher::HandedOver { draining: d.draining });
    }
    while d.launcher.behind() && d.launcher.recv().await.is_ok() {
        d.launcher.flush();
    }
    ExitCode::SUCCESS
}

/// What Celery's tools ask next; nothing, where there are none.
async fn asked<T>(hears: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match hears {
        Some(hears) => hears.recv().await,
        None => std::future::pending().await,
    }
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
            child_up(d, child, fds, false);
        }
        ToDaemon::SpawnFailed { slot, error, again } => {
            let slot = SlotId { pool: slot.pool, index: slot.index };
            let error = if again { format!("{error} (tried again)") } else { error };
            d.step(Event::SpawnFailed { slot, error });
        }
        ToDaemon::Exited { child, code, signal, out_of_memory } => {
            let key = ChildKey(child.0);
            let last = worker_output::finish(d, key);
            let broke = d.children.remove(&key).and_then(|c| c.broke);
            let how = broke.unwrap_or_else(|| end(code, signal, last.as_deref()));
            d.step(Event::ChildDown { child: key, how, out_of_memory });
            // What it held is settled by the engine now; nothing more will be heard of its runs.
            d.runs.retain(|_, run| run.child != key);
        }
        ToDaemon::Measured { child, bytes } => {
            d.step(Event::Measured { child: ChildKey(child.0), bytes });
        }
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
pub fn child_up(d: &mut Daemon, child: Child, fds: Vec<OwnedFd>, adopted: bool) {
    let key = ChildKey(child.child.0);
    match connect(d, key, &child, fds, adopted) {
        Ok((link, printed)) => {
            let event = Event::ChildUp {
                child: key,
                slot: SlotId { pool: child.slot.pool.clone(), index: child.slot.index },
                user: child.user.clone(),
                generation: child.generation,
                adopted,
                age_ms: child.age_ms,
            };
            d.children.insert(key, Living { child, link, printed, broke: None, deaf_until: None });
            d.step(event);
        }
        Err(e) => {
            tracing::error!("child {}: its descriptors cannot be used ({e}); it is ended", child.slot);
            d.launcher.send(ToLauncher::End { child: child.child, kill: true });
        }
    }
}

/// Takes over what the launcher passed with a child.
fn connect(
    d: &Daemon,
    key: ChildKey,
    child: &Child,
    fds: Vec<OwnedFd>,
    adopted: bool,
) -> io::Result<(Link, Option<Printed>)> {
    let missing = || io::Error::other("the launcher did not pass them all");
    let mut fds = fds.into_iter();
    let socket = fds.next().ok_or_else(missing)?;
    let printed = if child.worker {
        let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else { return Err(missing()) };
        Some(Printed::open(stdout, stderr, d.settings.results.output_rate)?)
    } else {
        None
    };
    Ok((Link::open(key, socket.into(), d.start.epoch, adopted)?, printed))
}

/// How a child ended, in words; with what it said last where that may be the reason.
fn end(code: i32, signal: i32, last: Option<&str>) -> String {
    let how = if signal == 0 { format!("exited with {code}") } else { format!("died of signal {signal}") };
    match last.filter(|_| code != 0) {
        Some(last) => format!("{how}: {last}"),
        None => how,
    }
}

/// What children said since the last round, one read each.
fn hear_some(children: &mut BTreeMap<ChildKey, Living>, cx: &mut Context<'_>) -> Poll<Vec<Heard>> {
    let mut all = Vec::new();
    for (key, living) in children {
        if let Poll::Ready(heard) = living.link.poll(cx) {
            all.push(heard);
        }
        if let Some(printed) = &mut living.printed
            && printed.poll(cx).is_ready()
        {
            all.push(Heard::Printed(*key));
        }
    }
    if all.is_empty() { Poll::Pending } else { Poll::Ready(all) }
}

fn hear(d: &mut Daemon, heard: Heard) {
    let (child, lines) = match heard {
        Heard::Lines(child, lines) => (child, lines),
        Heard::Broken(child, why) => {
            let why = format!("it broke the protocol, its message is delivered again: {why}");
            return give_up(d, child, why);
        }
        Heard::Closed(child) => {
            // A runner that ends closes it, too, and nothing else would.
            let working = |c: &Living| c.child.worker && !c.link.is_finished();
            if let Some(living) = d.children.get_mut(&child).filter(|c| working(c)) {
                living.deaf_until = Some(clock::now().mono.plus(CLOSED_MS));
            }
            return;
        }
        Heard::Printed(child) => return worker_output::drain(d, child, None),
    };
    let Some(living) = d.children.get(&child) else { return };
    if living.broke.is_some() {
        return;
    }
    let worker = living.child.worker;
    let mut output = handle::logs::Batch::default();
    for line in lines {
        if let FromChild::Output { run, stream, line, data, cut } = line {
            if worker {
                worker_output::said(d, child, Said { run, stream, line, data, cut });
                continue;
            }
            output.push(d, run, stream, line, data, cut);
            continue;
        }
        output.write(d);
        one(d, child, line);
    }
    output.write(d);
}

/// Ends resident workers that closed their socket and live on.
fn end_deaf(d: &mut Daemon, now: Mono) {
    let deaf = |c: &Living| c.deaf_until.is_some_and(|at| at <= now);
    let deaf: Vec<ChildKey> = d.children.iter().filter(|(_, c)| deaf(c)).map(|(key, _)| *key).collect();
    for child in deaf {
        if let Some(living) = d.children.get_mut(&child) {
            living.deaf_until = None;
        }
        give_up(d, child, "it closed its socket and did not exit");
    }
}

/// Ends a child that cannot be worked with; its end is put down to `why`.
fn give_up(d: &mut Daemon, child: ChildKey, why: impl Into<String>) {
    let Some(living) = d.children.get_mut(&child).filter(|c| c.broke.is_none()) else { return };
    let why = why.into();
    living.broke = Some(why.clone());
    d.step(Event::Broken { child, why });
}

fn one(d: &mut Daemon, child: ChildKey, line: FromChild) {
    let worker = d.children.get(&child).is_some_and(|c| c.child.worker);
    match line {
        FromChild::Ready { v, capacity, tasks, resume } => {
            let ours = crate::process::protocol::VERSION;
            if v == ours {
                d.step(Event::Ready { child, capacity: capacity.max(1), tasks, resume });
            } else {
                let why = format!("it speaks version {v} of the child protocol, and this taskd {ours}");
                give_up(d, child, why);
            }
        }
        FromChild::Running { run } => {
            named(d, child, &run, None);
            d.step(Event::Running { child, run });
        }
        FromChild::Resumed {} => d.step(Event::Resumed { child }),
        FromChild::Started { run, pid, soft_time_limit_ms, time_limit_ms } => {
            let own = d.children.get(&child).filter(|_| worker).map(|c| c.child.pid);
            let pid = if pid == 0 { own.unwrap_or(0) } else { pid };
            named(d, child, &run, (pid != 0).then_some(pid));
            if let Some(info) = d.runs.get_mut(&run).filter(|r| worker && r.child == child && !r.begun) {
                let now = clock::now();
                (info.since, info.began, info.begun) = (now.mono, now.wall, true);
            }
            let limits = OwnLimits { soft_ms: soft_time_limit_ms, hard_ms: time_limit_ms };
            d.step(Event::Started { child, run, pid, limits });
        }
        FromChild::Progress { run, current, total, message } => {
            if let Some(info) = d.runs.get_mut(&run).filter(|r| r.child == child) {
                let message = worker_end::cut(message, worker_end::MAX_MESSAGE);
                info.progress = Some(ProgressView { current, total, message });
            }
        }
        FromChild::Refused { run, why } => {
            tracing::warn!("child {} refused a run: {why}", child.0);
            d.step(Event::Refused { child, run, why });
        }
        FromChild::Output { .. } => {}
        ended @ (FromChild::Success { .. } | FromChild::Failure { .. } | FromChild::Retry { .. }) => {
            let run = ended.run().unwrap_or_default().to_owned();
            if worker {
                // What it printed came before this.
                worker_output::drain(d, child, Some(&run));
            }
            named(d, child, &run, None);
            let outcome = if worker {
                let info = d.runs.get(&run).filter(|r| r.child == child);
                worker_end::outcome(ended, info, &d.settings)
            } else {
                ended.into_outcome().map(|(_, outcome)| outcome)
            };
            if let Some(info) = d.runs.get_mut(&run).filter(|r| r.child == child) {
                info.ended = true;
            }
            if let Some(outcome) = outcome {
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
    } else if !d.engine.is_matched()
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
        let note = handle::status::pressure(d).map(|note| format!("; {note}")).unwrap_or_default();
        format!("running, {running} of {slots} slots busy{note}")
    } else {
        format!("{state}, {} still running", crate::control::api::count(running as u64, "attempt"))
    }
}
