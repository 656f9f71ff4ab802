//! Settings -> the engine's plan.

use jiff::tz::TimeZone;

use crate::config::settings::{Schedule, Settings};
use crate::cron::Timing;
use crate::engine::plan::{Plan, PoolPlan, QueuePlan, Recycle, SchedulePlan, Target, When};
use crate::model::op::Retention;
use crate::model::task::Task;

/// The part of the settings that the engine decides by. The launcher has filled in the user of pools that
/// name none; where none is left, everything runs as whoever runs taskd, which is the empty name.
///
/// What the engine knows as a user is a runner key ([`Settings::runner_key`]): it only compares it.
#[must_use]
pub fn plan(settings: &Settings) -> Plan {
    Plan {
        generation: settings.generation,
        pools: settings
            .pools
            .values()
            .map(|p| {
                let user = Settings::identity(p, None).key();
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
                        rate: q.rate,
                        max_length: q.max_length,
                    },
                )
            })
            .collect(),
        tasks: settings.tasks.iter().map(|(name, task)| (name.clone(), keyed(settings, task))).collect(),
        schedules: settings
            .schedules
            .values()
            .filter_map(|s| Some((s.name.clone(), schedule(settings, s)?)))
            .collect(),
        routes: settings.routes.iter().map(|r| (r.task.clone(), r.queue.clone())).collect(),
        shutdown_grace_ms: settings.taskd.shutdown_grace_ms,
        max_memory_pressure: settings.taskd.max_memory_pressure,
        retention: Retention {
            age_ms: settings.results.expires_ms,
            count: settings.results.max_records,
            dead_age_ms: settings.dead.expires_ms,
            dead_count: settings.dead.max_records,
        },
        // The embedded store has one writer.
        shared: settings.taskd.broker != "embedded",
        zone: zone(settings.taskd.timezone.as_deref()),
    }
}

/// A schedule. Absent where its zone was there at the check and is there no more: that is told, and the others go
/// on.
fn schedule(settings: &Settings, s: &Schedule) -> Option<SchedulePlan> {
    let timing = match s.timing(settings.taskd.timezone.as_deref()) {
        Ok(timing) => timing,
        Err(e) => {
            tracing::error!("schedule {} does not fire: its time {} ({})", s.name, e.message, e.help);
            return None;
        }
    };
    let rule = match &timing {
        Some(Timing::Cron { expr, zone }) => format!("cron {} in {}", expr.text(), zone.name()),
        Some(Timing::Every { ms }) => format!("every {ms}"),
        Some(Timing::Solar { event, latitude, longitude }) => {
            format!("{} at {latitude} {longitude}", event.name())
        }
        None => format!("after {}", s.every_ms.unwrap_or(0)),
    };
    let target = match (&s.task, s.workflow.as_ref().and_then(|name| settings.workflows.get(name))) {
        (Some(task), _) => Target::Task(task.clone()),
        (None, Some(workflow)) => Target::Workflow(workflow.clone()),
        (None, None) => return None,
    };
    Some(SchedulePlan {
        when: timing.map_or(When::After { ms: s.every_ms.unwrap_or(1_000) }, When::At),
        rule,
        target,
        args: s.args.clone(),
        kwargs: s.kwargs.clone(),
        queue: s.queue.clone(),
        priority: s.priority,
        expires_ms: s.expires_ms,
        overlap: s.overlap,
        catch_up: s.catch_up,
        offset_ms: offset(&settings.taskd.node, &s.name, s.splay_ms),
        pause_after: s.pause_after_failures,
        enabled: settings.fires(s),
    })
}

/// The part of `splay` that a schedule has on a node: always the same, and spread evenly over schedules and nodes.
fn offset(node: &str, schedule: &str, splay_ms: u64) -> u64 {
    if splay_ms == 0 {
        return 0;
    }
    let drawn = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{node}\0{schedule}").as_bytes());
    drawn.as_u64_pair().0 % splay_ms
}

/// The time zone of these settings; UTC where the system has none that can be read.
fn zone(name: Option<&str>) -> TimeZone {
    let found = match name {
        Some(name) => TimeZone::get(name),
        None => TimeZone::try_system(),
    };
    found.unwrap_or_else(|e| {
        tracing::warn!("the time zone cannot be read, times of day are meant in UTC: {e}");
        TimeZone::UTC
    })
}

/// The task with its runner key for a user, where that is not its pool's own.
fn keyed(settings: &Settings, task: &Task) -> Task {
    let key = settings.pool_of(settings.route(task)).and_then(|pool| {
        let key = settings.runner_key(pool, task);
        (key != Settings::identity(pool, None).key()).then_some(key)
    });
    Task { user: key, ..task.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, load_texts};

    #[test]
    fn the_engine_gets_keys_for_users() {
        let text = "[pools.default]\nuser = 'low'\n[tasks.plain]\ncommand = 'x'\n\
            [tasks.same]\ncommand = 'x'\nuser = 'low'\n[tasks.other]\ncommand = 'x'\nuser = 'high'\n\
            [tasks.hasty]\ncommand = 'x'\nnice = -5\n[tasks.open]\ncommand = 'x'\nlimit_nofile = 5000\n";
        let env = Env::made("root", 0, &[("low", 1001), ("high", 1002)]);
        let mut s = load_texts(&[("taskd.toml", text)], &env).map_err(|r| r.render(false)).unwrap().settings;
        s.tasks.get_mut("plain").unwrap().supplementary_groups = vec!["adm".to_owned()];
        let user = |s: &Settings, task: &str| plan(s).tasks[task].user.clone();
        assert_eq!(plan(&s).pools["default"].user, "low");
        assert_eq!(user(&s, "plain").as_deref(), Some("low:+adm"));
        assert_eq!(user(&s, "same"), None);
        assert_eq!(user(&s, "other").as_deref(), Some("high"));
        assert_eq!(user(&s, "hasty").as_deref(), Some("low#hasty"));
        assert_eq!(user(&s, "open"), None);
        s.hard_nofile = Some(4096);
        assert_eq!(user(&s, "open").as_deref(), Some("low#open"));
    }
}
