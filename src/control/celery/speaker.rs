//! The thread that speaks: replies, events, a heartbeat every two seconds.

use std::time::{Duration, Instant};

use redis::{Pipeline, RedisResult};

use super::outbox::{Word, Work};
use super::{Shared, server};
use crate::celery::control::reply;
use crate::celery::event::{self, Event, Vitals};

/// Between heartbeats. Receivers believe a node dead after twice as long without one.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// A server that does not answer in this time is away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between attempts to connect, first and at most.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A reply that nobody fetched goes away after this: its client may have gone before it came. In milliseconds.
const UNREAD_MS: u32 = 30_000;

/// A reply is written only while its client listens, or a list would stay for ever.
const REPLY: &str = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end \
    redis.call('LPUSH', KEYS[2], ARGV[2]) return redis.call('PEXPIRE', KEYS[2], ARGV[3])";

/// Speaks until the peer is closed.
pub(super) fn run(shared: &Shared) {
    let mut pause = PAUSES.0;
    loop {
        let mut spoke = false;
        let result = session(shared, &mut spoke);
        if spoke {
            pause = PAUSES.0;
        }
        match result {
            Ok(()) => break,
            Err(e) => shared.trouble("told anything", Some(&e)),
        }
        if shared.outbox.rest(pause) {
            break;
        }
        pause = (pause * 2).min(PAUSES.1);
    }
    shared.outbox.finish();
}

/// One connection's life; it ends well when the peer is closed.
fn session(shared: &Shared, spoke: &mut bool) -> RedisResult<()> {
    let mut connection = shared.server.open(PATIENCE)?;
    let mut beat = Instant::now();
    let mut first = true;
    loop {
        let Work { replies, events, words, closing } = shared.outbox.take(beat);
        if shared.outbox.is_abandoned() {
            return Ok(());
        }
        let mut said = redis::pipe();
        for (to, message) in replies {
            let queue = reply::queue(&to);
            said.cmd("EVAL").arg(REPLY).arg(2).arg(shared.server.bindings(&to.exchange));
            said.arg(shared.server.key(&queue)).arg(server::binding(&to.routing_key, &queue));
            said.arg(message.text()).arg(UNREAD_MS).ignore();
        }
        if !events.is_empty() {
            let tag = uuid::Uuid::new_v4().to_string();
            let message = event::several(&events, &shared.node, &tag).write();
            publish(shared, &mut said, event::TASKS, message.text());
        }
        let due = Instant::now() >= beat;
        if first {
            say(shared, &mut said, &Event::Online(vitals(shared)));
        } else if due || words.contains(&Word::Heartbeat) {
            say(shared, &mut said, &Event::Heartbeat(vitals(shared)));
        }
        for word in &words {
            if let Word::ElectAck(id) = word {
                say(shared, &mut said, &Event::ElectAck(id));
            }
        }
        if closing {
            say(shared, &mut said, &Event::Offline(vitals(shared)));
        }
        if let Err(e) = said.query::<()>(&mut connection) {
            shared.outbox.lost(events.len());
            return Err(e);
        }
        *spoke = true;
        if first {
            shared.trouble("told anything", None);
        }
        if closing {
            return Ok(());
        }
        if due || first {
            beat = Instant::now() + HEARTBEAT;
        }
        first = false;
    }
}

fn say(shared: &Shared, said: &mut Pipeline, event: &Event<'_>) {
    let tag = uuid::Uuid::new_v4().to_string();
    let message = event::one(event, shared.source(), &tag).write();
    publish(shared, said, &event.routing_key(), message.text());
}

fn publish(shared: &Shared, said: &mut Pipeline, routing_key: &str, message: &str) {
    said.cmd("PUBLISH").arg(shared.server.events(routing_key)).arg(message).ignore();
}

fn vitals(shared: &Shared) -> Vitals<'static> {
    let order = std::sync::atomic::Ordering::Relaxed;
    Vitals {
        freq: HEARTBEAT.as_secs_f64(),
        active: shared.active.load(order),
        processed: shared.processed.load(order),
        loadavg: load(),
        ident: "taskd",
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The system's load over 1, 5 and 15 minutes (proc_loadavg(5)); zeros where /proc is not to be read.
fn load() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut figures = text.split_ascii_whitespace().map(|figure| figure.parse().unwrap_or(0.0));
    std::array::from_fn(|_| figures.next().unwrap_or(0.0))
}
