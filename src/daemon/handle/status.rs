//! `status`: this node, its pools and its counts.

use super::{Asker, mismatch};
use crate::config::settings::Pool;
use crate::control::api::{
    ChildState, ChildView, CountsView, PoolView, ReplacedView, RunningView, StatusView,
};
use crate::daemon::clock;
use crate::daemon::nodes;
use crate::daemon::state::Daemon;
use crate::engine::event::{ChildKey, Event};
use crate::engine::view;
use crate::model::op::{Op, QueueCount, Reply};
use crate::observe::log::Log;
use crate::process::launch::Child;

/// Answers even when the store does not: then without its counts, saying so.
pub fn handle(d: &mut Daemon, asker: Asker) {
    // Ages are told as of now, not as of what happened last.
    d.step(Event::Tick);
    d.read(
        Op::Count,
        Box::new(move |d, reply| match reply {
            Ok(Reply::Counts(counts)) => answer(d, asker, counts, None),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => answer(d, asker, Vec::new(), Some(format!("the store cannot be read: {fault}"))),
        }),
    );
}

/// With the nodes as they are now, or as they were known last.
fn answer(d: &mut Daemon, asker: Asker, counts: Vec<QueueCount>, trouble: Option<String>) {
    nodes::ask(d, move |d, nodes| asker.json(&StatusView { nodes, ..whole(d, &counts, trouble) }));
}

/// `running`, `draining`, `stopping`, or why it is paused.
#[must_use]
pub fn state(d: &Daemon) -> String {
    if d.stopping {
        "stopping".to_owned()
    } else if let Some(trouble) = &d.trouble {
        format!("paused: {trouble}")
    } else if d.draining {
        "draining".to_owned()
    } else {
        "running".to_owned()
    }
}

/// That memory pressure holds new work back, or that nobody knows whether it should.
#[must_use]
pub fn pressure(d: &Daemon) -> Option<String> {
    if let Some(fault) = d.pressure.fault() {
        return Some(format!("max_memory_pressure has no effect: {fault}"));
    }
    let above = d.engine.pressure()?;
    Some(format!("nothing new starts: memory pressure is {}.{:02} %", above / 100, above % 100))
}

fn whole(d: &Daemon, counts: &[QueueCount], trouble: Option<String>) -> StatusView {
    let running = u64::try_from(d.running()).unwrap_or(u64::MAX);
    let leased: u64 = counts.iter().map(|c| c.leased).sum();
    let mut notes: Vec<String> = trouble.into_iter().chain(d.trouble.clone()).collect();
    notes.extend(d.start.upgrade_failure.clone());
    notes.extend(d.store.notes());
    notes.extend(pressure(d));
    notes.extend(crate::daemon::peer::notes(d));
    if d.spool.dropped() > 0 {
        notes.push(format!(
            "{} bytes of output were dropped: the disk was slower than the tasks",
            d.spool.dropped()
        ));
    }
    if d.totals.dropped_output > 0 {
        notes.push(format!(
            "{} bytes of output were lost since the daemon started: the journal did not take them, or they were \
             beyond results.output_rate",
            d.totals.dropped_output
        ));
    }
    if let lines @ 1.. = d.log.as_ref().map_or(0, Log::dropped) {
        notes
            .push(format!("{lines} lines of the daemon's own log were lost: they were not read fast enough"));
    }
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: d.settings.taskd.node.clone(),
        state: state(d),
        since: d.start.since,
        epoch: d.start.epoch,
        generation: d.settings.generation,
        upgrades: d.start.upgrades,
        upgrade_failure: d.start.upgrade_failure.clone(),
        broker: crate::config::redis::shown(&d.settings.taskd.broker),
        supervision: d.start.supervision.clone(),
        users: d.start.users.clone(),
        confinement: d.confinement.clone(),
        pools: pools(d),
        nodes: Vec::new(),
        schedules: super::schedules::summary(d),
        counts: CountsView {
            waiting: counts.iter().map(|c| c.waiting).sum::<u64>() + leased.saturating_sub(running),
            scheduled: counts.iter().map(|c| c.scheduled).sum(),
            running,
            unknown: counts.iter().map(|c| c.unknown).sum(),
            dead: counts.iter().map(|c| c.dead).sum(),
            succeeded: d.totals.succeeded,
            failed: d.totals.failed,
        },
        notes,
    }
}

fn pools(d: &Daemon) -> Vec<PoolView> {
    let view = d.engine.view();
    let known = |p: &Pool| view.pools.iter().find(|v| v.name == p.name);
    d.settings.pools.values().map(|p| pool(d, p, known(p))).collect()
}

fn pool(d: &Daemon, pool: &Pool, known: Option<&view::PoolView>) -> PoolView {
    let children: Vec<ChildView> = d
        .children
        .iter()
        .filter(|(_, c)| c.child.slot.pool == pool.name)
        .map(|(key, c)| {
            child(d, *key, &c.child, known.and_then(|k| k.children.iter().find(|v| v.child == *key)))
        })
        .collect();
    let busy = known.map_or(0, |k| k.busy);
    let replaced = known.map(|k| k.replaced).unwrap_or_default();
    PoolView {
        name: pool.name.clone(),
        processes: pool.processes,
        busy: u32::try_from(busy).unwrap_or(u32::MAX),
        degraded: known.and_then(|k| k.degraded.clone()),
        replaced: ReplacedView {
            max_tasks_per_child: replaced.max_tasks,
            max_memory_per_child: replaced.max_memory,
            max_child_age: replaced.max_age,
            max_child_idle: replaced.max_idle,
            faults: replaced.faults,
        },
        children,
    }
}

fn child(d: &Daemon, key: ChildKey, child: &Child, known: Option<&view::ChildView>) -> ChildView {
    let now = clock::now().mono;
    let state = match known {
        Some(k) if k.retired => ChildState::Leaving,
        Some(k) if k.ready => ChildState::Ready,
        Some(k) if k.successor => ChildState::Successor,
        _ => ChildState::Starting,
    };
    ChildView {
        slot: child.slot.to_string(),
        pid: child.pid,
        user: child.user.clone(),
        state,
        runs: known.map_or(0, |k| k.taken),
        age_ms: known.map_or(0, |k| k.age_ms),
        memory: known.and_then(|k| k.memory),
        running: d
            .runs
            .values()
            .filter(|r| r.child == key && !r.ended)
            .map(|r| RunningView { id: r.id.clone(), task: r.task.clone(), for_ms: now.since(r.since) })
            .collect(),
    }
}
