//! The thread that listens: requests to this node, and what other workers say of themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Msg, PubSub, RedisResult};
use tokio::sync::mpsc::Sender;

use super::asked::{Answer, Asked, Heard, is_late};
use super::outbox::Word;
use super::speaker::PAUSES;
use super::{Shared, lock, meet, permit, wall};
use crate::celery::control::reply::Reply;
use crate::celery::control::{Command, Request, report};
use crate::celery::envelope::Envelope;
use crate::celery::event;

use crate::celery::json::Json;
use crate::celery::json::build::{Object, texts};
use crate::config::settings::CeleryControl;

/// After so long without a word the connection is tried: this node's own heartbeats come more often.
const QUIET: Duration = Duration::from_secs(3);

/// Largest request that is read, in bytes.
const MAX_REQUEST: usize = 4 << 20;

/// Largest event that is read: they are small, and what is not is not for workers.
const MAX_EVENT: usize = 64 << 10;

/// Listens until the peer is closed.
pub(super) fn run(shared: &Arc<Shared>, daemon: &Sender<Heard>) {
    let mut pause = PAUSES.0;
    let mut met = shared.meet.is_zero();
    while !shared.is_closing() {
        let mut heard = false;
        let result = session(shared, daemon, &mut met, &mut heard);
        if heard {
            pause = PAUSES.0;
        }
        if let Err(e) = result {
            shared.trouble("heard", Some(&e));
            if shared.outbox.rest(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// One connection's life.
fn session(
    shared: &Arc<Shared>,
    daemon: &Sender<Heard>,
    met: &mut bool,
    heard: &mut bool,
) -> RedisResult<()> {
    if !*met {
        // Before this node listens: it must not answer itself.
        introduce(shared, daemon)?;
        *met = true;
    }
    let mut connection = shared.server.open(QUIET)?;
    let mut channels = connection.as_pubsub();
    let result = listen(shared, daemon, &mut channels, heard);
    // Dropping it unsubscribes and waits for the answers: not long, where nobody is there.
    let _ = channels.set_read_timeout(Some(Duration::from_millis(20)));
    result
}

fn listen(
    shared: &Arc<Shared>,
    daemon: &Sender<Heard>,
    channels: &mut PubSub<'_>,
    heard: &mut bool,
) -> RedisResult<()> {
    let (pidbox, old) = (shared.server.pidbox(), shared.server.old_pidbox());
    channels.subscribe(&pidbox)?;
    // A server's access list may know neither of these; the tools of today need neither.
    let _ = old.map(|old| channels.subscribe(old));
    let _ = channels.psubscribe(shared.server.workers());
    shared.trouble("heard", None);
    *heard = true;
    while !shared.is_closing() {
        match channels.get_message() {
            Ok(message) => hear(shared, daemon, &message, old),
            Err(e) if e.is_timeout() => {
                channels.ping::<String>()?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Asks who else is there.
fn introduce(shared: &Arc<Shared>, daemon: &Sender<Heard>) -> RedisResult<()> {
    let ids: Vec<String> = lock(&shared.revoked).ids(wall()).map(str::to_owned).collect();
    let met = meet::meet(&shared.server, &shared.node, &ids, shared.tick(), shared.meet)?;
    shared.hear(met.clock);
    learn(shared, daemon, met.revoked);
    if met.clash {
        let _ = daemon.blocking_send(Heard::Clash { node: shared.node.clone() });
    }
    Ok(())
}

/// Others revoked these. What cannot be an id of a message here is nobody's.
fn learn(shared: &Arc<Shared>, daemon: &Sender<Heard>, ids: Vec<String>) {
    let mut revoked = lock(&shared.revoked);
    let at = wall();
    let new: Vec<String> =
        ids.into_iter().filter(|id| crate::model::name::check(id).is_ok() && revoked.add(id, at)).collect();
    drop(revoked);
    // A daemon that is too busy does not keep them over a restart; other nodes still know them then.
    if !new.is_empty() {
        let _ = daemon.try_send(Heard::Revoked(new));
    }
}

fn hear(shared: &Arc<Shared>, daemon: &Sender<Heard>, message: &Msg, old: Option<&str>) {
    let Ok(envelope) = Envelope::read(message.get_payload_bytes()) else {
        return tracing::debug!("{}: not a message of Celery's", message.get_channel_name());
    };
    if message.from_pattern() {
        return worker(shared, &envelope);
    }
    let request = match Request::read(&envelope, MAX_REQUEST) {
        Ok(request) => request,
        Err(fault) => return tracing::debug!("remote control: {fault}"),
    };
    shared.hear(request.clock);
    let control = permit::of_number(shared.control.load(Ordering::Relaxed));
    if control == CeleryControl::No || !request.is_for(&shared.node) || is_late(&request) {
        return;
    }
    let is_old = old == Some(message.get_channel_name());
    let command = request.command();
    let answer = Answer::new(request, shared);
    match command.and_then(|command| permit::check(control, is_old, &command).map(|()| command)) {
        Ok(command) => act(shared, daemon, command, answer, control),
        Err(reply) => answer.send(&reply),
    }
}

/// Does what needs no more than is known here, and hands on the rest.
fn act(
    shared: &Arc<Shared>,
    daemon: &Sender<Heard>,
    command: Command,
    answer: Answer,
    control: CeleryControl,
) {
    match command {
        Command::Ping => answer.send(&Reply::pong()),
        Command::Clock => {
            let clock = i64::try_from(shared.clock.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            answer.send(&Reply::Data(Object::new().int("clock", clock).done()));
        }
        Command::Revoked => {
            let ids = texts(lock(&shared.revoked).ids(wall()));
            answer.send(&Reply::Data(ids));
        }
        // A node says nothing to itself, and the same to another one of its name, who thereby knows.
        Command::Hello { from_node, .. } if from_node == shared.node => answer.send(&Reply::nothing()),
        Command::Hello { revoked, .. } => {
            let reply = report::hello(lock(&shared.revoked).ids(wall()), shared.tick());
            answer.send(&Reply::Data(reply));
            if control == CeleryControl::Yes {
                learn(shared, daemon, revoked);
            }
        }
        Command::EnableEvents => answer.send(&events(shared, true)),
        Command::DisableEvents => answer.send(&events(shared, false)),
        Command::Heartbeat => {
            shared.outbox.word(Word::Heartbeat);
            answer.send(&Reply::nothing());
        }
        // taskd stands for nothing: its nodes agree in the store. It acknowledges the candidates of others.
        Command::Election { .. } => answer.send(&Reply::nothing()),
        Command::Memory => answer.send(&Reply::Error(
            "taskd has no Python process whose memory could be sampled; see `taskd status`".to_owned(),
        )),
        command => {
            let mut command = command;
            if let Command::Revoke { ids, .. } = &mut command {
                // At once, whatever the daemon is at: the message may arrive in this moment.
                let mut revoked = lock(&shared.revoked);
                ids.retain(|id| crate::model::name::check(id).is_ok());
                ids.iter().for_each(|id| {
                    revoked.add(id, wall());
                });
            }
            if let Command::RevokeByStamps { stamps, .. } = &command {
                lock(&shared.revoked).add_stamps(stamps, wall());
            }
            // One that does not fit is answered by being dropped.
            let _ = daemon.try_send(Heard::Asked(Asked { command, answer }));
        }
    }
}

fn events(shared: &Shared, on: bool) -> Reply {
    Reply::events(on, shared.events.swap(on, Ordering::Relaxed) == on)
}

/// What another worker (or this one) says of itself.
fn worker(shared: &Shared, envelope: &Envelope) {
    for heard in event::heard(envelope, MAX_EVENT) {
        if heard.node == shared.node {
            let pid = heard.fields.get("pid").and_then(Json::as_i64);
            let own = pid == Some(i64::from(std::process::id())) || heard.word == "worker-offline";
            shared.namesake(own);
            continue;
        }
        shared.hear(heard.clock);
        if heard.word == "worker-elect"
            && let Some(id) = heard.fields.text("id")
        {
            shared.outbox.word(Word::ElectAck(id));
        }
    }
}
