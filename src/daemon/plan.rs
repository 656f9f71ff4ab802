//! Settings -> the engine's plan.

use crate::config::settings::Settings;
use crate::engine::plan::{Plan, PoolPlan, QueuePlan, Recycle};
use crate::model::op::Retention;

/// The part of the settings that the engine decides by. The launcher has filled in the user of pools that
/// name none; where none is left, everything runs as whoever runs taskd, which is the empty name.
#[must_use]
pub fn plan(settings: &Settings) -> Plan {
    Plan {
        generation: settings.generation,
        pools: settings
            .pools
            .values()
            .map(|p| {
                let user = p.user.clone().unwrap_or_default();
                let recycle = Recycle {
                    max_tasks: p.recycle.max_tasks,
                    max_memory: p.recycle.max_memory,
                    max_age_ms: p.recycle.max_age_ms,
                    max_idle_ms: p.recycle.max_idle_ms,
                };
                let worker = p.worker.is_some();
                (p.name.clone(), PoolPlan { processes: p.processes, user, recycle, worker })
            })
            .collect(),
        queues: settings
            .queues
            .values()
            .map(|q| {
                (
                    q.name.clone(),
                    QueuePlan {
                        pool: q.pool.clone(),
                        weight: q.weight,
                        strict: q.strict,
                        concurrency: q.concurrency,
                        max_length: q.max_length,
                    },
                )
            })
            .collect(),
        tasks: settings.tasks.clone(),
        routes: settings.routes.iter().map(|r| (r.task.clone(), r.queue.clone())).collect(),
        shutdown_grace_ms: settings.taskd.shutdown_grace_ms,
        max_memory_pressure: settings.taskd.max_memory_pressure,
        retention: Retention { age_ms: settings.results.expires_ms, count: settings.results.max_records },
    }
}
