//! `reload`: the launcher reads and checks; the daemon swaps what is good, or hands the faults back. With
//! `binary` the launcher tries the program that is installed now, and this daemon hands over to that one's.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot::Sender;

use super::Asker;
use crate::control::api::{Answer, Done, Error, ErrorKind};
use crate::daemon::state::Daemon;
use crate::daemon::{peer, plan, start};
use crate::engine::event::Event;
use crate::model::notice::RESERVED;
use crate::model::op::{Fault, Op, QueueCount, Reply};
use crate::process::launch::{MAX_PACKET, ToLauncher};

/// Bytes of queue names that surely fit into a packet.
const MAX_NAMES: usize = MAX_PACKET / 2;

/// Callers of reloads. A caller must be answered by a reload whose reading of the file began after its call.
#[derive(Debug, Default)]
pub struct Reloads {
    stage: Stage,
    /// Answered by the reload under way.
    now: Vec<Sender<Answer>>,
    /// They came when the launcher may have read the file already: answered by the one after.
    next: Vec<Sender<Answer>>,
    /// Answered when the new program was tried.
    binary: Option<Sender<Answer>>,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    /// The store counts its messages.
    Counting,
    /// The launcher was told.
    Told,
}

/// A client asks.
pub fn handle(d: &mut Daemon, asker: Asker, binary: bool) {
    if binary {
        replace(d, asker);
    } else if d.reloads.stage == Stage::Told {
        d.reloads.next.push(asker.answer);
    } else {
        d.reloads.now.push(asker.answer);
        begin(d);
    }
}

/// The launcher got SIGHUP. It asks before it reads the file, so a reload under way is a reload after it.
pub fn asked(d: &mut Daemon) {
    begin(d);
}

fn begin(d: &mut Daemon) {
    if d.reloads.stage == Stage::None {
        d.reloads.stage = Stage::Counting;
        d.read(Op::Count, Box::new(counted));
    }
}

fn replace(d: &mut Daemon, asker: Asker) {
    if d.reloads.binary.as_ref().is_some_and(|other| !other.is_closed()) || d.handing_over {
        let error = Error::new(ErrorKind::Unavailable, "another replacement of the program is under way");
        return asker.error(error.hint("try again when it is over"));
    }
    d.reloads.binary = Some(asker.answer);
    d.read(
        Op::Count,
        Box::new(|d, reply| {
            let keep = keep(d, reply);
            d.launcher.send(ToLauncher::Reexec { keep });
        }),
    );
}

/// The new program is not fit: this one goes on.
pub fn kept(d: &mut Daemon, report: &str) {
    let mut e = Error::new(ErrorKind::Config, "the program was not replaced, the old one goes on");
    e.details = report.lines().map(str::to_owned).collect();
    if let Some(to) = d.reloads.binary.take() {
        let _ = to.send(Answer::Error(e));
    }
}

/// The new program is fit. No more clients are taken; those who wait for an end are told to ask again.
pub fn hand_over(d: &mut Daemon, version: &str) {
    tracing::info!("handing over to the daemon of taskd {version}");
    d.handing_over = true;
    d.waiters.close();
    if let Some(to) = d.reloads.binary.take() {
        let done = Done { message: format!("taskd is being replaced by {version}"), ..Done::default() };
        let _ = to.send(
            serde_json::to_string(&done)
                .map_or_else(|e| Answer::Error(Error::new(ErrorKind::Internal, e.to_string())), Answer::Json),
        );
    }
}

fn counted(d: &mut Daemon, reply: Result<Reply, Fault>) {
    let keep = keep(d, reply);
    d.reloads.stage = Stage::Told;
    d.launcher.send(ToLauncher::Reload { keep });
}

/// Queues that hold messages.
fn keep(d: &Daemon, reply: Result<Reply, Fault>) -> Vec<String> {
    let mut room = MAX_NAMES;
    let keep = match reply {
        Ok(Reply::Counts(counts)) => counts.into_iter().filter(holds).map(|c| c.queue).collect::<Vec<_>>(),
        // Nobody can say which queues are empty: none may go.
        _ => d.settings.queues.keys().cloned().collect(),
    };
    let fits = |queue: &String| {
        room = room.saturating_sub(queue.len() + 4);
        room > 0
    };
    // Notices of a config that tells nobody any more wait for their end by `expires`.
    let keep = keep.into_iter().filter(|q| !q.starts_with(RESERVED));
    keep.filter(|q| d.settings.queues.contains_key(q)).take_while(fits).collect()
}

fn holds(c: &QueueCount) -> bool {
    c.waiting + c.scheduled + c.leased + c.unknown > 0
}

/// New settings came: running attempts keep the definition they started with.
pub fn swapped(d: &mut Daemon, fds: Vec<OwnedFd>, changes: Vec<String>) {
    let settings = match fds.into_iter().next().map(start::settings) {
        Some(Ok(settings)) => settings,
        Some(Err(e)) => return answer(d, &Err(Error::new(ErrorKind::Internal, e))),
        None => {
            return answer(
                d,
                &Err(Error::new(ErrorKind::Internal, "the new settings came without their memfd")),
            );
        }
    };
    d.settings = Arc::new(settings);
    d.policy.send_replace(Arc::new(start::policy(&d.settings, d.start.owner)));
    if let Some(Err(e)) = d.log.as_ref().map(|log| log.set_level(&d.settings.taskd.log_level)) {
        tracing::error!("{e}");
    }
    peer::reloaded(d);
    d.store.know(crate::daemon::broker::peer(&d.settings));
    let next = plan::plan(&d.settings);
    d.step(Event::Plan(Arc::new(next)));
    let message = if changes.is_empty() {
        "reloaded: nothing changed".to_owned()
    } else {
        format!("reloaded, generation {}", d.settings.generation)
    };
    answer(d, &Ok(Done { message, count: None, details: changes }));
}

/// The file has faults: nothing changed.
pub fn refused(d: &mut Daemon, report: &str) {
    let mut e = Error::new(ErrorKind::Config, "the config was not reloaded, the old one stays in force");
    e.details = report.lines().map(str::to_owned).collect();
    answer(d, &Err(e));
}

fn answer(d: &mut Daemon, result: &Result<Done, Error>) {
    d.reloads.stage = Stage::None;
    for to in std::mem::take(&mut d.reloads.now) {
        let answer = match result {
            Ok(done) => serde_json::to_string(done)
                .map_or_else(|e| Answer::Error(Error::new(ErrorKind::Internal, e.to_string())), Answer::Json),
            Err(e) => Answer::Error(e.clone()),
        };
        let _ = to.send(answer);
    }
    d.reloads.now = std::mem::take(&mut d.reloads.next);
    if !d.reloads.now.is_empty() {
        begin(d);
    }
}
