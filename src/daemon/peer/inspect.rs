//! What only looks.

use std::collections::BTreeMap;

use nix::sys::resource::{UsageWho, getrusage};

use super::{Celery, Taken};
use crate::celery::call::{Call, Order};
use crate::celery::control::Command;
use crate::celery::control::reply::Reply;
use crate::celery::control::report::{self, Broker, Held, Stats};
use crate::celery::json::build::{Object, list};
use crate::celery::json::{Fields, Raw};
use crate::celery::moment::iso;
use crate::control::celery::asked::{Answer, Asked};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::rate::Limited;
use crate::model::message::Record;
use crate::model::name::MessageId;
use crate::model::notice::RESERVED;
use crate::model::op::{Filter, Op};
use crate::model::state::State;
use crate::model::task::{Acks, Task};

/// Most scheduled messages that are shown: they are in the store, where there can be millions.
const MAX_SCHEDULED: u32 = 1_000;

/// What of a task is shown where nothing is asked for.
const ITEMS: &[&str] = &["rate_limit"];

/// Answers; a request that changes something comes back.
pub(super) fn answer(d: &mut Daemon, asked: Asked) -> Option<Asked> {
    let reply = match &asked.command {
        Command::Active { safe } => list(&held(d, true, *safe)),
        Command::Reserved => list(&held(d, false, false)),
        Command::Scheduled => {
            scheduled(d, asked.answer);
            return None;
        }
        Command::Registered(items) => registered(d, items),
        Command::Stats => stats(d)?,
        Command::ActiveQueues => {
            let queues = d.engine.view().queues;
            let read = queues.iter().filter(|q| !q.paused && !q.name.starts_with(RESERVED));
            list(&read.map(|q| report::queue(&q.name)).collect::<Vec<_>>())
        }
        Command::Conf { with_defaults } => conf(d, *with_defaults),
        Command::Report => {
            asked.answer.send(&Reply::Done(written(d)));
            return None;
        }
        Command::QueryTask(ids) => query(d, ids),
        _ => return Some(asked),
    };
    asked.answer.send(&Reply::Data(reply));
    None
}

/// What this node holds: attempts that run, or messages taken ahead.
fn held(d: &Daemon, running: bool, safe: bool) -> Vec<Raw> {
    let Some(celery) = &d.celery else { return Vec::new() };
    let mut shown = Vec::new();
    for (id, taken) in &celery.held {
        let id = MessageId(id.clone());
        if d.engine.holds(&id) && d.engine.run_info(&id).is_some() == running {
            shown.push(one(d, celery, &id, taken, safe));
        }
    }
    shown
}

fn one(d: &Daemon, celery: &Celery, id: &MessageId, taken: &Taken, safe: bool) -> Raw {
    let run = d.runs.values().find(|run| run.id == id.as_str());
    let running = d.engine.run_info(id).is_some();
    let early = d.settings.task(&taken.message.task).is_some_and(|task| task.acks == Acks::Early);
    let call = taken.call();
    Held {
        call: &call,
        node: celery.peer.node(),
        started: run.filter(|_| running).map(|run| run.began),
        pid: run.and_then(|run| run.pid),
        acknowledged: early && running,
        redelivered: taken.again,
    }
    .write(safe)
}

/// What the store holds for later. Celery's workers hold such messages themselves; here it is one list for all nodes.
fn scheduled(d: &mut Daemon, answer: Answer) {
    let filter =
        Filter { states: vec![State::Scheduled, State::Retry], limit: MAX_SCHEDULED, ..Filter::default() };
    d.read(
        Op::List(filter),
        Box::new(move |d, reply| {
            let records = match reply {
                Ok(crate::model::op::Reply::Records(records)) => records,
                Ok(_) => Vec::new(),
                Err(fault) => {
                    return answer.send(&Reply::Error(format!("the store cannot be read: {fault}")));
                }
            };
            let node = d.celery.as_ref().map(|celery| celery.peer.node().to_owned()).unwrap_or_default();
            let entries: Vec<Raw> = records.iter().map(|record| entry(record, &node)).collect();
            answer.send(&Reply::Data(list(&entries)));
        }),
    );
}

fn entry(record: &Record, node: &str) -> Raw {
    let call = Call::of_message(&record.message, Order::LowFirst);
    let held = Held {
        call: &call,
        node,
        started: None,
        pid: None,
        acknowledged: false,
        redelivered: record.attempt > 0,
    };
    held.scheduled(&record.due.or(record.message.eta).map(iso).unwrap_or_default())
}

fn query(d: &Daemon, ids: &[String]) -> Raw {
    let Some(celery) = &d.celery else { return Raw::empty_object() };
    let mut found = BTreeMap::new();
    for id in ids {
        let key = MessageId(id.clone());
        if let Some(taken) = celery.held.get(id).filter(|_| d.engine.holds(&key)) {
            let state = if d.engine.run_info(&key).is_some() { "active" } else { "reserved" };
            let both = list(&[Raw::of_text(state), one(d, celery, &key, taken, false)]);
            found.insert(id.clone(), both);
        }
    }
    found.into_iter().collect::<Fields>().to_raw()
}

fn registered(d: &Daemon, items: &[String]) -> Raw {
    let items: Vec<&str> =
        if items.is_empty() { ITEMS.to_vec() } else { items.iter().map(String::as_str).collect() };
    let tasks = d.settings.tasks.values().filter(|task| task.enabled && !task.name.starts_with(RESERVED));
    let shown = tasks.map(|task| {
        let known = items.iter().filter_map(|name| Some((*name, item(d, task, name)?)));
        report::registered(&task.name, &known.collect::<Vec<_>>())
    });
    list(&shown.collect::<Vec<_>>())
}

/// A property of a task by the name that Celery has for it.
fn item(d: &Daemon, task: &Task, name: &str) -> Option<String> {
    let seconds = |ms: u64| (ms as f64 / 1000.0).to_string();
    let truth = |value: bool| if value { "True" } else { "False" }.to_owned();
    match name {
        "rate_limit" => {
            let rate = d.engine.rate(&Limited::Task(task.name.clone()))?.rate?;
            Some(rate.to_string())
        }
        "max_retries" => Some(task.retry.max_retries.to_string()),
        "time_limit" => limits(d, task).0.map(seconds),
        "soft_time_limit" => limits(d, task).1.map(seconds),
        "ignore_result" => Some(truth(task.ignore_result)),
        "acks_late" => Some(truth(task.acks == Acks::Late)),
        "expires" => task.expires_ms.map(seconds),
        "priority" => Some(task.priority.to_string()),
        "queue" | "routing_key" => Some(d.settings.route(task).to_owned()),
        _ => None,
    }
}

/// The time limits in force, hard and soft, in milliseconds.
fn limits(d: &Daemon, task: &Task) -> (Option<u64>, Option<u64>) {
    let set = d.celery.as_ref().and_then(|celery| celery.limits.get(&task.name)).copied();
    set.unwrap_or((task.time_limit_ms, task.soft_time_limit_ms))
}

fn stats(d: &Daemon) -> Option<Raw> {
    let celery = d.celery.as_ref()?;
    let shown = celery.peer.server().shown();
    let db = celery.peer.server().db().to_string();
    let total: Vec<(&str, u64)> = celery.started.iter().map(|(task, n)| (task.as_str(), *n)).collect();
    let processes: Vec<u32> = d.children.values().map(|living| living.child.pid).collect();
    let concurrency = d.settings.pools.values().filter(|pool| !pool.name.starts_with(RESERVED));
    let prefetch = d.settings.queues.values().filter(|queue| !queue.name.starts_with(RESERVED));
    let usage = usage();
    let stats = Stats {
        total: &total,
        pid: std::process::id(),
        clock: celery.peer.clock(),
        uptime: u64::try_from(clock::now().wall.0.saturating_sub(d.start.since)).unwrap_or(0) / 1000,
        processes: &processes,
        concurrency: concurrency.map(|pool| pool.processes).sum(),
        max_tasks_per_child: one_for_all(d),
        prefetch: prefetch.filter_map(|queue| Some(d.settings.pools.get(&queue.pool)?.processes + 2)).sum(),
        broker: Broker {
            host: &shown.host,
            port: shown.port,
            transport: "redis",
            virtual_host: &db,
            user: shown.user.as_deref(),
            tls: shown.tls,
        },
        rusage: &usage,
    };
    Some(stats.write())
}

/// `max_tasks_per_child` where every pool has the same one.
fn one_for_all(d: &Daemon) -> Option<u32> {
    let mut bounds = d
        .settings
        .pools
        .values()
        .filter(|pool| !pool.name.starts_with(RESERVED))
        .map(|pool| pool.recycle.max_tasks);
    let first = bounds.next()??;
    bounds.all(|other| other == Some(first)).then(|| u32::try_from(first).ok())?
}

/// What the kernel counted of the daemon (getrusage(2)).
fn usage() -> Vec<(&'static str, f64)> {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Vec::new() };
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    vec![
        ("utime", seconds(usage.user_time())),
        ("stime", seconds(usage.system_time())),
        ("maxrss", usage.max_rss() as f64),
        ("minflt", usage.minor_page_faults() as f64),
        ("majflt", usage.major_page_faults() as f64),
        ("nswap", usage.full_swaps() as f64),
        ("inblock", usage.block_reads() as f64),
        ("oublock", usage.block_writes() as f64),
        ("msgsnd", usage.ipc_sends() as f64),
        ("msgrcv", usage.ipc_receives() as f64),
        ("nsignals", usage.signals() as f64),
        ("nvcsw", usage.voluntary_context_switches() as f64),
        ("nivcsw", usage.involuntary_context_switches() as f64),
    ]
}

/// Settings under the names that Celery has for them; what is secret is not in them.
fn conf(d: &Daemon, with_defaults: bool) -> Raw {
    let Some(celery) = &d.celery else { return Raw::empty_object() };
    let s = &d.settings;
    let pools = s.pools.values().filter(|pool| !pool.name.starts_with(RESERVED));
    let concurrency: i64 = pools.map(|pool| i64::from(pool.processes)).sum();
    let url = celery.peer.server().url();
    let mut conf = Object::new()
        .text("broker_url", &url)
        .text("task_default_queue", crate::config::settings::DEFAULT)
        .int("worker_concurrency", concurrency)
        .float("result_expires", s.results.expires_ms as f64 / 1000.0);
    conf = match s.taskd.results.as_str() {
        "broker" => conf.text("result_backend", &url),
        _ => conf.null("result_backend"),
    };
    if let Some(zone) = &s.taskd.timezone {
        conf = conf.text("timezone", zone);
    }
    if let Some(n) = one_for_all(d) {
        conf = conf.int("worker_max_tasks_per_child", i64::from(n));
    }
    if with_defaults {
        let json = list(&[Raw::of_text("json")]);
        conf = conf
            .bool("enable_utc", true)
            .bool("task_acks_late", true)
            .text("task_serializer", "json")
            .text("result_serializer", "json")
            .with("accept_content", &json)
            .bool("worker_enable_remote_control", true)
            .bool("worker_send_task_events", celery.peer.wants_events());
    }
    conf.done()
}

/// For people.
fn written(d: &Daemon) -> String {
    let Some(celery) = &d.celery else { return String::new() };
    let tasks = d.settings.tasks.values().filter(|task| !task.name.starts_with(RESERVED)).count();
    let pools: Vec<String> = d
        .settings
        .pools
        .values()
        .filter(|pool| !pool.name.starts_with(RESERVED))
        .map(|pool| format!("{} ({})", pool.name, pool.processes))
        .collect();
    format!(
        "\nsoftware -> taskd:{} on {}\nplatform -> system:Linux\nbroker   -> {}\nnode     -> {}\npools    -> {}\n\
         tasks    -> {tasks} declared\nstate    -> {}\n",
        env!("CARGO_PKG_VERSION"),
        celery.peer.node(),
        celery.peer.server().url(),
        d.settings.taskd.node,
        pools.join(", "),
        crate::daemon::handle::status::state(d)
    )
}
