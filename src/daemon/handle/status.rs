//! `status`: this node, its pools and its counts.

use super::{Asker, mismatch};
use crate::control::api::{ChildView, CountsView, PoolView, RunningView, StatusView};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::model::op::{Op, QueueCount, Reply};

/// Answers even when the store does not: then without its counts, saying so.
pub fn handle(d: &mut Daemon, asker: Asker) {
    d.read(
        Op::Count,
        Box::new(move |d, reply| match reply {
            Ok(Reply::Counts(counts)) => asker.json(&view(d, &counts, None)),
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.json(&view(d, &[], Some(format!("the store cannot be read: {fault}")))),
        }),
    );
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

fn view(d: &Daemon, counts: &[QueueCount], trouble: Option<String>) -> StatusView {
    let running = u64::try_from(d.running()).unwrap_or(u64::MAX);
    let leased: u64 = counts.iter().map(|c| c.leased).sum();
    let mut notes: Vec<String> = trouble.into_iter().chain(d.trouble.clone()).collect();
    notes.extend(d.start.upgrade_failure.clone());
    if d.spool.dropped() > 0 {
        notes.push(format!(
            "{} bytes of output were dropped: the disk was slower than the tasks",
            d.spool.dropped()
        ));
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
        broker: d.settings.taskd.broker.clone(),
        supervision: d.start.supervision.clone(),
        users: d.start.users.clone(),
        pools: pools(d),
        counts: CountsView {
            waiting: counts.iter().map(|c| c.waiting).sum::<u64>() + leased.saturating_sub(running),
            scheduled: counts.iter().map(|c| c.scheduled).sum(),
            running,
            unknown: counts.iter().map(|c| c.unknown).sum(),
            succeeded: d.totals.succeeded,
            failed: d.totals.failed,
        },
        notes,
    }
}

fn pools(d: &Daemon) -> Vec<PoolView> {
    let view = d.engine.view();
    let degraded = |name: &str| view.pools.iter().find(|p| p.name == name).and_then(|p| p.degraded.clone());
    d.settings.pools.values().map(|p| pool(d, &p.name, p.processes, degraded(&p.name))).collect()
}

fn pool(d: &Daemon, name: &str, processes: u32, degraded: Option<String>) -> PoolView {
    let now = clock::now().mono;
    let children: Vec<ChildView> = d
        .children
        .iter()
        .filter(|(_, c)| c.child.slot.pool == name)
        .map(|(key, c)| ChildView {
            slot: c.child.slot.to_string(),
            pid: c.child.pid,
            user: c.child.user.clone(),
            running: d
                .runs
                .values()
                .filter(|r| r.child == *key && !r.ended)
                .map(|r| RunningView { id: r.id.clone(), task: r.task.clone(), for_ms: now.since(r.since) })
                .collect(),
        })
        .collect();
    let busy = children.iter().filter(|c| !c.running.is_empty()).count();
    PoolView {
        name: name.to_owned(),
        processes,
        busy: u32::try_from(busy).unwrap_or(u32::MAX),
        degraded,
        children,
    }
}
