//! Notes of the engine as Celery's events.

use super::{Celery, MAX_COUNTED, Taken};
use crate::celery::call::{Call, Order};
use crate::celery::event::Event;
use crate::celery::json::{Raw, value};
use crate::celery::result::exception::{About, Exception};
use crate::control::celery::Peer;
use crate::daemon::state::Daemon;
use crate::engine::command::Note;
use crate::engine::event::Ask;
use crate::model::name::MessageId;
use crate::model::op::{Op, Reply};
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;

/// Most records that are looked up at once for the name of a message that ended before it was taken.
const MAX_LOOKING: usize = 64;

/// Most characters of a traceback.
const MAX_TRACEBACK: usize = 8_192;

/// To be called with each note.
pub fn note(d: &mut Daemon, note: &Note) {
    let Some(celery) = &mut d.celery else { return };
    match note {
        Note::Started { id, task, .. } => started(celery, id, task),
        Note::Ended { id, task, state, outcome, .. } => {
            let limit = d.settings.task(task).and_then(|task| task.time_limit_ms);
            ended(celery, id.as_str(), task, *state, outcome, limit);
            // One that was revoked while it ran ends with this attempt.
            if !state.is_final() && celery.peer.is_revoked(id.as_str()) {
                d.ask(Ask::Cancel(id.clone()), Box::new(|_, _| {}));
            }
        }
        Note::Dropped { id, state } => dropped(d, id, *state),
        _ => {}
    }
}

/// A message was taken in.
pub(super) fn received(peer: &Peer, taken: &mut Taken) {
    taken.told = true;
    peer.happened(&Event::Received(&taken.call()));
}

fn started(celery: &mut Celery, id: &MessageId, task: &str) {
    celery.processed += 1;
    if let Some(count) = celery.started.get_mut(task) {
        *count += 1;
    } else if celery.started.len() < MAX_COUNTED {
        celery.started.insert(task.to_owned(), 1);
    }
    if celery.peer.wants_events() {
        introduce(celery, id.as_str(), task);
        celery.peer.happened(&Event::Started(id.as_str()));
    }
}

/// Without an event of its arrival a listener has no name for a message.
fn introduce(celery: &mut Celery, id: &str, task: &str) {
    match celery.held.get_mut(id) {
        Some(taken) if taken.told => {}
        Some(taken) => received(&celery.peer, taken),
        None => celery.peer.happened(&Event::Received(&Call::new(task, id))),
    }
}

fn ended(celery: &mut Celery, id: &str, task: &str, state: State, outcome: &Outcome, limit: Option<u64>) {
    if celery.peer.wants_events() {
        if celery.held.get(id).is_some_and(|taken| !taken.told) {
            introduce(celery, id, task);
        }
        let peer = &celery.peer;
        let exception = Exception::of(outcome, About { task, time_limit_ms: limit });
        let traceback = outcome.failure.as_ref().map(|failure| tail(&failure.traceback));
        let traceback = traceback.filter(|text| !text.is_empty());
        match state {
            State::Success => {
                let result = outcome.result.as_ref().map_or_else(Raw::null, value::write);
                let runtime = outcome.usage.wall_ms as f64 / 1000.0;
                peer.happened(&Event::Succeeded { id, result: &result, runtime });
            }
            State::Failure | State::Dead => {
                peer.happened(&Event::Failed { id, exception: &exception, traceback });
            }
            State::Retry => peer.happened(&Event::Retried { id, exception: &exception, traceback }),
            State::Revoked | State::Expired => {
                let expired = state == State::Expired;
                let terminated = !expired && outcome.started.is_some();
                let signum = terminated.then_some(libc::SIGTERM);
                peer.happened(&Event::Revoked { id, terminated, signum, expired });
            }
            // It goes back to its queue and runs again.
            State::Waiting | State::Scheduled | State::Running => {
                peer.happened(&Event::Rejected { id, requeue: true });
            }
        }
    }
    celery.held.remove(id);
}

/// The end of a text, at a character's edge.
fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(MAX_TRACEBACK);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

/// A message ended without an attempt. Who it was is in the store; where it was not taken here, too.
fn dropped(d: &mut Daemon, id: &MessageId, state: State) {
    let Some(celery) = &mut d.celery else { return };
    let taken = celery.held.remove(id.as_str());
    if !celery.peer.wants_events() {
        return;
    }
    if let Some(mut taken) = taken {
        if !taken.told {
            received(&celery.peer, &mut taken);
        }
        return end(&celery.peer, id, state, None);
    }
    if celery.looking >= MAX_LOOKING {
        return end(&celery.peer, id, state, None);
    }
    celery.looking += 1;
    let id = id.clone();
    d.read(
        Op::Get { id: id.clone() },
        Box::new(move |d, reply| {
            let Some(celery) = &mut d.celery else { return };
            celery.looking = celery.looking.saturating_sub(1);
            let record = match reply {
                Ok(Reply::Record(Some(record))) => Some(record),
                _ => None,
            };
            if let Some(record) = &record {
                celery.peer.happened(&Event::Received(&Call::of_message(&record.message, Order::LowFirst)));
            }
            end(&celery.peer, &id, state, record.and_then(|record| record.outcome).as_ref());
        }),
    );
}

fn end(peer: &Peer, id: &MessageId, state: State, outcome: Option<&Outcome>) {
    let id = id.as_str();
    if matches!(state, State::Revoked | State::Expired) {
        let expired = state == State::Expired;
        return peer.happened(&Event::Revoked { id, terminated: false, signum: None, expired });
    }
    let own = Outcome::of_cause(Cause::Rejected, "it cannot run after what came before it in its workflow");
    let exception = Exception::of(outcome.unwrap_or(&own), About::default());
    peer.happened(&Event::Failed { id, exception: &exception, traceback: None });
}
