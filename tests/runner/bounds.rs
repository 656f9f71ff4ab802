//! `memory_max` and `tasks_max` where no control group enforces them, and 30 attempts (`ATTEMPTS=200` in the
//! soak) that try everything to leave something behind.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::task::{Limits, OnMemory, Raise, Task};

use crate::driver::{Driver, PATIENCE, command};

fn limited(limits: Limits, text: &str) -> Task {
    Task { limits, ..command(text) }
}

/// Holds about 90 MB in a process of its own, not in the main one.
const GREEDY: &str = "sh -c 'x=$(head -c 30000000 /dev/zero | tr \"\\0\" x); y=$x$x; sleep 600' & wait";

#[test]
fn memory_of_the_whole_family_is_bounded() {
    let limits = Limits { memory_max: Some(48 << 20), ..Limits::default() };
    let mut driver = Driver::new(vec![limited(limits, GREEDY)]);
    let begun = Instant::now();
    let outcome = driver.run("t", &[], Value::Null);
    assert_eq!(outcome.cause, Cause::Memory, "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.kind, "MemoryLimitExceeded");
    assert!(failure.message.contains("where 48 MiB are allowed"), "{failure:?}");
}

#[test]
fn an_order_chooses_among_the_declared_limits_and_one_within_runs_on() {
    let on_memory = Some(OnMemory { memory_max: Some(Raise::Percent(1000)), queue: None, max: 1 });
    let limits = Limits { memory_max: Some(48 << 20), on_memory, ..Limits::default() };
    let text = GREEDY.replace("sleep 600", "sleep 0.5; echo held");
    let mut driver = Driver::new(vec![limited(limits, &text)]);
    let run = driver.order_with("t", &[], Value::Null, |run| run.memory_retries = 1);
    let (outcome, _) = driver.outcome(&run);
    assert_eq!(outcome.result, Some(Value::from("held")), "{outcome:?}");
}

#[test]
fn shared_memory_counts_once() {
    // Forty shells share one program: resident 40 times, but there once.
    let limits = Limits { memory_max: Some(40 << 20), ..Limits::default() };
    let text = "for i in $(seq 40); do sh -c 'sleep 1; :' & done; wait; echo shared";
    let outcome = Driver::new(vec![limited(limits, text)]).run("t", &[], Value::Null);
    assert_eq!(outcome.result, Some(Value::from("shared")), "{outcome:?}");
}

#[test]
fn too_many_processes_end_the_attempt_and_are_the_reason() {
    let limits = Limits { tasks_max: Some(8), ..Limits::default() };
    let text = "for i in $(seq 20); do sleep 600 & done; wait";
    let outcome = Driver::new(vec![limited(limits, text)]).run("t", &[], Value::Null);
    assert_eq!(outcome.cause, Cause::Signal { signal: 9, core: false });
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.kind, "TasksMaxExceeded");
    assert!(failure.message.contains("where 8 are allowed"), "{failure:?}");
}

/// Processes, zombies aside, with this text in their environment.
fn marked(marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|b| *b == 0).any(|v| v == marker.as_bytes()) {
            found.push(fs::read_to_string(entry.path().join("stat")).unwrap_or_default());
        }
    }
    found
}

/// What an attempt leaves: plain, double-forked, in a session of its own, under nohup, deaf to signals, and
/// with `bomb` processes that fork again and again (each dies of its own after a minute).
fn leaving(bomb: bool) -> String {
    let bomb = if bomb {
        "timeout -s KILL 60 sh -c 'b() { b & b & wait; }; b' >/dev/null 2>&1 &"
    } else {
        // One that is never seen twice: it forks, and its parent ends.
        "timeout -s KILL 60 sh -c 'r() { r & }; r' >/dev/null 2>&1 &"
    };
    format!(
        "sleep 600 & (setsid sleep 601 &) & nohup sleep 602 >/dev/null 2>&1 & \
         setsid sh -c 'trap \"\" TERM HUP INT QUIT; (sleep 603 & sleep 604) & sleep 605' & \
         (sh -c '(sleep 606 &) &' &) & {bomb} sleep 0.$((RANDOM % 3))1; {end}",
        end = if bomb.contains("b & b") { "wait" } else { "exit 0" }
    )
}

#[test]
fn nothing_survives_whatever_an_attempt_leaves() {
    let soak = std::env::var("ATTEMPTS").ok();
    let attempts: u32 = soak.as_ref().map_or(30, |n| n.parse().unwrap());
    let mut slowest = Duration::ZERO;
    for number in 0..attempts {
        let bomb = number % 2 == 0;
        let limits = Limits { tasks_max: Some(40), ..Limits::default() };
        let mut task = limited(limits, &format!("exec bash -c '{}'", leaving(bomb).replace('\'', "'\\''")));
        let marker = format!("TASKD_TEST_LEFT={}-{number}", std::process::id());
        let (name, value) = marker.split_once('=').unwrap();
        task.surroundings.environment.insert(name.into(), value.into());
        task.time_limit_ms = Some(30_000);
        // The tests beside it measure time; the soak has the machine to itself.
        task.surroundings.nice = soak.is_none().then_some(19);
        let begun = Instant::now();
        let outcome: Outcome = Driver::new(vec![task]).run("t", &[], Value::Null);
        slowest = slowest.max(begun.elapsed());
        if bomb {
            let kind = outcome.failure.as_ref().map(|f| f.kind.as_str());
            assert_eq!(kind, Some("TasksMaxExceeded"), "{outcome:?}");
        } else {
            assert!(outcome.success, "{outcome:?}");
        }
        // At once, not within the second that is promised: the outcome was told after the last one died.
        let left = marked(&marker);
        assert!(left.is_empty(), "attempt {number} left {left:?}");
    }
    assert!(slowest < PATIENCE, "{slowest:?}");
    eprintln!("{attempts} attempts, the slowest took {slowest:?}");
}
