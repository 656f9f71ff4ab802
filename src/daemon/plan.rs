//! Settings -> the engine's plan.

use crate::config::settings::Settings;
use crate::engine::plan::{Plan, PoolPlan, QueuePlan};
use crate::model::op::Retention;

/// The part of the settings that the engine decides by. `default_user` is the user of pools that name none.
#[must_use]
pub fn plan(settings: &Settings, default_user: &str) -> Plan {
    Plan {
        generation: settings.generation,
        pools: settings
            .pools
            .values()
            .map(|p| {
                let user = p.user.clone().unwrap_or_else(|| default_user.to_owned());
                (p.name.clone(), PoolPlan { processes: p.processes, user })
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
        retention: Retention { age_ms: settings.results.expires_ms, count: settings.results.max_records },
    }
}
