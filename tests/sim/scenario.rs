//! What one seed draws: settings, faults, and what people do.

use std::collections::BTreeMap;

use taskd::engine::plan::{Plan, PoolPlan, QueuePlan, Recycle};
use taskd::model::op::Retention;
use taskd::model::task::{Acks, Limits, OnMemory, Program, Raise, RetryPolicy, Stdin, Task};

use crate::limits::{self, Story};
use crate::rng::Rng;

/// Probabilities, in parts of a thousand, and lengths.
pub struct Faults {
    pub op_lost: u64,
    pub op_unclear: u64,
    pub op_late: u64,
    pub outages: u64,
    pub spawn_fails: u64,
    pub run_kills_child: u64,
    pub hang: u64,
    pub mute_child: u64,
    pub refuses: u64,
    pub child_kills: u64,
    pub daemon_kills: u64,
    pub launcher_kills: u64,
    pub stops: u64,
    pub jumps: u64,
    pub reloads: u64,
    pub pressure: u64,
}

impl Faults {
    /// Each seed has some faults and not others: a run with all of them at once hides the rare ones.
    pub fn draw(r: &mut Rng) -> Self {
        let mut some = |odds: u64, max: u64| if r.chance(odds) { r.between(1, max) } else { 0 };
        Self {
            op_lost: some(400, 80),
            op_unclear: some(400, 80),
            op_late: some(500, 300),
            outages: some(200, 2),
            spawn_fails: some(250, 400),
            run_kills_child: some(300, 150),
            hang: some(150, 60),
            mute_child: some(150, 300),
            refuses: some(100, 100),
            child_kills: some(350, 6),
            daemon_kills: some(500, 4),
            launcher_kills: some(250, 2),
            stops: some(200, 1),
            jumps: some(250, 3),
            reloads: some(350, 4),
            pressure: some(200, 1),
        }
    }

    pub fn none() -> Self {
        Self {
            op_lost: 0,
            op_unclear: 0,
            op_late: 0,
            outages: 0,
            spawn_fails: 0,
            run_kills_child: 0,
            hang: 0,
            mute_child: 0,
            refuses: 0,
            child_kills: 0,
            daemon_kills: 0,
            launcher_kills: 0,
            stops: 0,
            jumps: 0,
            reloads: 0,
            pressure: 0,
        }
    }
}

pub const TASKS: [&str; 18] = [
    "ok", "flaky", "backoff", "early", "limited", "root", "poison", "spawny", "gone", "off", "soft",
    "hungry", "paced", "each", "once", "swap", "sole", "lone",
];

pub const QUEUES: [&str; 5] = ["default", "high", "low", "strict", "other"];

fn task(name: &str) -> Task {
    let mut t = Task {
        // Steps of workflows are given lists and null.
        stdin: Stdin::Json,
        result_max_size: 1024,
        result_expires_ms: u64::MAX / 4,
        ..Task::new(name, Program::Exec(vec![name.into()]))
    };
    t.unique = crate::unique::declared(name);
    match name {
        "flaky" => t.retry = RetryPolicy { max_retries: 3, delay_ms: 1_000, ..t.retry },
        "backoff" => {
            t.retry = RetryPolicy {
                max_retries: 4,
                delay_ms: 500,
                backoff: true,
                backoff_max_ms: 3_000,
                retry_on: vec![3],
                ..t.retry
            }
        }
        "early" => t.acks = Acks::Early,
        "limited" => {
            t.time_limit_ms = Some(3_000);
            t.retry.max_retries = 1;
        }
        "soft" => {
            t.soft_time_limit_ms = Some(400);
            t.time_limit_ms = Some(1_000);
        }
        "hungry" => {
            let rule = OnMemory { memory_max: Some(Raise::Percent(200)), queue: Some("low".into()), max: 2 };
            t.limits = Limits { memory_max: Some(1_000), on_memory: Some(rule), ..Limits::default() };
        }
        "once" | "swap" | "sole" | "lone" => {
            t.retry = RetryPolicy { max_retries: 1, delay_ms: 800, ..t.retry }
        }
        "root" => t.user = Some("root".into()),
        _ => {}
    }
    t
}

/// Settings of one generation for this kind of story.
pub fn plan_of(r: &mut Rng, seed: u64, generation: u64, last: bool, story: Story) -> Plan {
    let mut plan = plan(r, generation, last);
    plan.shared = seed.is_multiple_of(4);
    limits::draw(r, &mut plan);
    if story == Story::Crowd {
        if let Some(each) = plan.tasks.get_mut("each") {
            each.throttle.concurrency = Some(1);
            each.throttle.rate = None;
        }
        for pool in plan.pools.values_mut() {
            (pool.processes, pool.recycle) = (4, Recycle::default());
        }
    }
    plan
}

/// Settings of one generation. `last`: everything declared, so that everything can end.
fn plan(r: &mut Rng, generation: u64, last: bool) -> Plan {
    let mut pools = BTreeMap::from([("default".into(), PoolPlan::new(r.between(1, 3) as u32, "run"))]);
    let other = r.chance(500);
    if other {
        let worker = r.chance(700);
        pools.insert("other".into(), PoolPlan { worker, ..PoolPlan::new(1, "app") });
    }
    for pool in pools.values_mut() {
        let mut some = |odds, a, b| r.chance(odds).then(|| r.between(a, b));
        pool.recycle = Recycle {
            max_tasks: some(350, 1, 4),
            max_memory: some(250, 20, 200),
            // Where nothing else happens any more, children would still come and go.
            max_age_ms: some(250, 200, 6_000).filter(|_| !last),
            max_idle_ms: some(250, 100, 3_000),
        };
    }
    let mut queues = BTreeMap::new();
    for name in QUEUES {
        let pool = if name == "other" && other { "other" } else { "default" };
        queues.insert(
            name.to_owned(),
            QueuePlan {
                pool: pool.into(),
                weight: if name == "high" { 10 } else { 1 },
                strict: name == "strict",
                concurrency: if name == "low" { Some(r.between(1, 2) as u32) } else { None },
                rate: None,
                max_length: if name == "strict" { Some(6) } else { None },
            },
        );
    }
    let mut tasks: BTreeMap<String, Task> = TASKS.iter().map(|n| ((*n).to_owned(), task(n))).collect();
    if !last {
        if r.chance(500) {
            tasks.remove("gone");
        }
        if r.chance(500)
            && let Some(t) = tasks.get_mut("off")
        {
            t.enabled = false;
        }
    }
    let mut plan = Plan {
        generation,
        pools,
        queues,
        tasks,
        routes: vec![
            ("fla*".into(), "high".into()),
            ("po?son".into(), "low".into()),
            ("soft".into(), "other".into()),
        ],
        schedules: BTreeMap::new(),
        max_memory_pressure: None,
        shutdown_grace_ms: r.between(0, 4_000),
        retention: Retention {
            age_ms: u64::MAX / 4,
            count: 1_000_000,
            dead_age_ms: u64::MAX / 4,
            dead_count: 1_000_000,
        },
        shared: false,
        zone: jiff::tz::TimeZone::UTC,
    };
    crate::notices::declare(&mut plan);
    plan
}
