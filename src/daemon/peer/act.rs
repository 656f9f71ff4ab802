//! What changes something: revokes, limits, queues, pools, the end.

use std::str::FromStr;

use nix::sys::signal::Signal;

use super::revokes;
use crate::celery::control::Command;
use crate::celery::control::reply::Reply;
use crate::celery::json::Fields;
use crate::control::api::{self, Call, Request, Rights};
use crate::control::celery::asked::{Answer, Asked};
use crate::daemon::handle;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::engine::rate::{Limited, NewRate};
use crate::model::limit::RateLimit;
use crate::model::name::MessageId;
use crate::model::task::Program;

/// Does what is asked, and answers.
pub(super) fn answer(d: &mut Daemon, asked: Asked) {
    let Asked { command, answer } = asked;
    let reply = match command {
        Command::Revoke { ids, terminate, signal } => revoke(d, &ids, terminate, signal.as_deref()),
        Command::RevokeByStamps { stamps, terminate, .. } => by_stamps(d, &stamps, terminate),
        Command::RateLimit { task, rate } => return rate_limit(d, answer, &task, &rate),
        Command::TimeLimit { task, hard_ms, soft_ms } => {
            return time_limit(d, answer, &task, hard_ms, soft_ms);
        }
        Command::AddConsumer(consumer) => return consume(d, answer, consumer.queue, true),
        Command::CancelConsumer(queue) => return consume(d, answer, queue, false),
        Command::PoolGrow(_) | Command::PoolShrink(_) => Reply::refused(
            "the size of a pool stands in its config: set `processes` of [pools.NAME] and run `taskd reload`",
        ),
        Command::Autoscale { .. } => Reply::refused("Autoscale not enabled"),
        Command::PoolRestart => Reply::refused("Pool restarts not enabled"),
        Command::Shutdown => {
            tracing::info!("remote control asks this node to shut down");
            answer.silent();
            let (to, _) = tokio::sync::oneshot::channel();
            let rights = Rights { admin: true, ..Rights::default() };
            let request = Request::Stop { now: false };
            return handle::dispatch(d, Call { request, peer: api::Peer::default(), rights, answer: to });
        }
        // What only looks was answered before it came here.
        _ => Reply::nothing(),
    };
    answer.send(&reply);
}

/// Ends what waits; with `terminate` what runs too, in taskd's own way: the soft signal first. Ids that are not known
/// here are remembered: their messages may be on their way.
fn revoke(d: &mut Daemon, ids: &[String], terminate: bool, signal: Option<&str>) -> Reply {
    if let Some(signal) = signal.filter(|_| terminate)
        && !is_signal(signal)
    {
        return Reply::refused(&format!("{signal} is no signal"));
    }
    revokes::keep(d, ids);
    let mut running = Vec::new();
    for id in ids {
        let id = MessageId(id.clone());
        if d.engine.run_info(&id).is_some() {
            if !terminate {
                continue;
            }
            running.push(id.0.clone());
        }
        d.ask(Ask::Cancel(id), Box::new(|_, _| {}));
    }
    if terminate { Reply::terminated(running) } else { Reply::revoked(ids) }
}

/// `TERM`, `SIGTERM`, `sigterm` or 15.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).is_ok();
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).is_ok()
}

/// Holds for what arrives from now on: messages say nothing of their stamps once they were taken in.
fn by_stamps(d: &mut Daemon, stamps: &Fields, terminate: bool) -> Reply {
    revokes::keep_stamps(d, stamps);
    Reply::revoked_by_stamps(stamps, terminate, false)
}

fn rate_limit(d: &mut Daemon, answer: Answer, task: &str, text: &str) {
    let Some(name) = d.settings.task(task).map(|task| task.name.clone()) else {
        return answer.send(&Reply::unknown_task());
    };
    let whose = Limited::Task(name);
    let burst = d.engine.rate(&whose).and_then(|rate| rate.config).map_or(1, |rate| rate.burst);
    let Some(rate) = rate(text, burst) else { return answer.send(&Reply::no_rate(text)) };
    let shown = task.to_owned();
    d.ask(
        Ask::Rate { whose, rate, keep: false },
        Box::new(move |_, told| match told {
            Told::Rate(Some(now)) => {
                let rate = now.rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
                tracing::info!("remote control set the rate of {shown} to {rate}");
                answer.send(&Reply::rate_limited(now.rate.is_some()));
            }
            Told::Rate(None) => answer.send(&Reply::unknown_task()),
            other => answer.send(&failed(&other)),
        }),
    );
}

/// A rate as Celery reads it: a number of starts a second, or with `/s`, `/m`, `/h`; 0 and None lift the limit.
fn rate(text: &str, burst: u32) -> Option<NewRate> {
    let text = text.trim();
    if matches!(text, "" | "None") {
        return Some(NewRate::None);
    }
    let (number, unit_ms) = match text.split_once('/') {
        None => (text, 1_000.0),
        Some((number, "s")) => (number, 1_000.0),
        Some((number, "m")) => (number, 60_000.0),
        Some((number, "h")) => (number, 3_600_000.0),
        Some(_) => return None,
    };
    let number: f64 = number.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    if number == 0.0 {
        return Some(NewRate::None);
    }
    // Whole numbers stay what they are; of others the interval counts. In range after the clamp.
    let whole = number.fract() == 0.0 && number <= 1e9;
    let (count, period) = if whole { (number, unit_ms) } else { (1.0, unit_ms / number) };
    let (count, period_ms) = (count as u32, period.clamp(1.0, 1e12).round() as u64);
    Some(NewRate::Rate(RateLimit { count, period_ms, burst }))
}

/// Absent limits are those of the config. A runner keeps the declared ones beside these: it is not to be talked out of
/// them, so a longer one is refused where a runner runs the task.
fn time_limit(d: &mut Daemon, answer: Answer, task: &str, hard_ms: Option<u64>, soft_ms: Option<u64>) {
    let Some(declared) = d.settings.task(task) else { return answer.send(&Reply::unknown_task()) };
    let (name, hard, soft) = (declared.name.clone(), declared.time_limit_ms, declared.soft_time_limit_ms);
    let is_runner = !matches!(declared.program, Program::Worker);
    let longer = |new: Option<u64>, own: Option<u64>| new.zip(own).is_some_and(|(new, own)| new > own);
    if is_runner && (longer(hard_ms, hard) || longer(soft_ms, soft)) {
        return answer.send(&Reply::refused(
            "the limits of a command can only be shortened from afar: change the config and run `taskd reload`",
        ));
    }
    let (hard_ms, soft_ms) = (hard_ms.or(hard), soft_ms.or(soft));
    if let Some(celery) = &mut d.celery {
        celery.limits.insert(name.clone(), (hard_ms, soft_ms));
    }
    tracing::info!(
        "remote control set the time limits of {task} to {hard_ms:?} and {soft_ms:?} ms (hard, soft)"
    );
    d.ask(
        Ask::TimeLimit { task: name, hard_ms, soft_ms },
        Box::new(move |_, told| match told {
            Told::Done => answer.send(&Reply::time_limited()),
            other => answer.send(&failed(&other)),
        }),
    );
}

/// A consumer is a queue that is not paused. There are the declared ones and no others: each belongs to a pool.
fn consume(d: &mut Daemon, answer: Answer, queue: String, on: bool) {
    if !d.settings.queues.contains_key(&queue) {
        return answer.send(&if on {
            Reply::refused(&format!(
                "no queue is named {queue} here: declare [queues.{queue}] in the config and run `taskd reload`"
            ))
        } else {
            // As a worker that does not consume from it says.
            Reply::not_consuming(&queue)
        });
    }
    let paused = d.engine.view().queues.iter().any(|q| q.name == queue && q.paused);
    if on != paused {
        let reply = if on { Reply::consuming_already(&queue) } else { Reply::not_consuming(&queue) };
        return answer.send(&reply);
    }
    d.ask(
        Ask::Pause { queue: queue.clone(), paused: !on },
        Box::new(move |_, told| match told {
            Told::Done if on => answer.send(&Reply::consuming(&queue)),
            Told::Done => answer.send(&Reply::not_consuming(&queue)),
            other => answer.send(&failed(&other)),
        }),
    );
}

fn failed(told: &Told) -> Reply {
    Reply::Error(match told {
        Told::Fault(fault) => format!("the store cannot do this now: {fault}"),
        Told::Stopping => "taskd is stopping".to_owned(),
        _ => "taskd gave an answer to another question; please report this".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_celery_reads_them() {
        let rated = |count, period_ms| Some(NewRate::Rate(RateLimit { count, period_ms, burst: 2 }));
        for (text, want) in [
            ("10/m", rated(10, 60_000)),
            ("5", rated(5, 1_000)),
            ("100/h", rated(100, 3_600_000)),
            ("0.5/s", rated(1, 2_000)),
            ("1.5/m", rated(1, 40_000)),
            ("0", Some(NewRate::None)),
            ("0/m", Some(NewRate::None)),
            ("None", Some(NewRate::None)),
            ("x/m", None),
            ("1/y", None),
            ("-1", None),
            ("nan", None),
            ("inf/s", None),
        ] {
            assert_eq!(rate(text, 2), want, "{text}");
        }
    }

    #[test]
    fn signals_are_names_and_numbers() {
        for good in ["TERM", "SIGKILL", "sigusr1", "9"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "SIG", "NOPE", "99", "-1"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
