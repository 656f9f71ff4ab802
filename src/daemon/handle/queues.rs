//! `queues`: every queue with its counts.

use super::{Asker, mismatch};
use crate::control::api::QueueView;
use crate::daemon::state::Daemon;
use crate::engine::rate::Limited;
use crate::model::op::{Op, QueueCount, Reply};

/// Declared queues, and others that still hold messages.
pub fn handle(d: &mut Daemon, asker: Asker) {
    d.read(
        Op::Count,
        Box::new(move |d, reply| match reply {
            Ok(Reply::Counts(counts)) => asker.json(&views(d, &counts)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

fn views(d: &Daemon, counts: &[QueueCount]) -> Vec<QueueView> {
    let held = d.engine.view();
    let running_in =
        |name: &str| held.queues.iter().find(|q| q.name == name).map_or(0, |q| u64::from(q.running));
    let count = |name: &str| counts.iter().find(|c| c.queue == name).cloned().unwrap_or_default();
    // Messages of a queue that the config had when they came, and has no more: nobody drains them.
    let orphaned = counts
        .iter()
        .filter(|c| !d.settings.queues.contains_key(&c.queue))
        .filter(|c| c.waiting + c.scheduled + c.leased + c.unknown > 0)
        .map(|c| QueueView {
            name: c.queue.clone(),
            pool: String::new(),
            weight: 0,
            strict: false,
            waiting: c.waiting + c.leased,
            scheduled: c.scheduled,
            running: 0,
            unknown: c.unknown,
            dead: c.dead,
            paused: c.paused,
            concurrency: None,
            rate: None,
            max_length: None,
        });
    d.settings
        .queues
        .values()
        .map(|q| {
            let c = count(&q.name);
            let running = running_in(&q.name);
            QueueView {
                name: q.name.clone(),
                pool: q.pool.clone(),
                weight: q.weight,
                strict: q.strict,
                waiting: c.waiting + c.leased.saturating_sub(running),
                scheduled: c.scheduled,
                running,
                unknown: c.unknown,
                dead: c.dead,
                paused: c.paused,
                concurrency: q.concurrency,
                rate: d
                    .engine
                    .rate(&Limited::Queue(q.name.clone()))
                    .and_then(|in_force| in_force.rate)
                    .map(|rate| rate.to_string()),
                max_length: q.max_length,
            }
        })
        .chain(orphaned)
        .collect()
}
