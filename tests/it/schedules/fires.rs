//! Schedules that fire: a real clock, real processes, kills, reloads.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::super::harness::{Node, Setup, procs, until};
use super::super::{HOLD, with};

const SAY: &str = "[tasks.say]\ncommand = \"echo said\"\n[tasks.fail]\ncommand = \"exit 3\"\n";

/// A schedule of each second.
fn each_second(task: &str, more: &str) -> String {
    format!("[schedules.tick]\ntask = \"{task}\"\nevery = \"1s\"\n{more}\n")
}

/// Every message of a schedule, oldest first.
fn fired(node: &Node, name: &str) -> Vec<Value> {
    let all = node.http().get("/v1/messages?limit=10000");
    all.as_array().unwrap().iter().rev().filter(|m| m["schedule"] == name).cloned().collect()
}

fn planned(messages: &[Value]) -> Vec<i64> {
    messages.iter().map(|m| m["planned"].as_i64().unwrap()).collect()
}

fn schedule(node: &Node, name: &str) -> Value {
    let all = node.http().get("/v1/schedules");
    all.as_array().unwrap().iter().find(|s| s["name"] == name).cloned().unwrap()
}

/// Waits until so many messages of a schedule are final.
fn finished(node: &Node, name: &str, n: usize) -> Vec<Value> {
    until(&format!("{n} ends of {name}"), || {
        let ended = |m: &Value| m["finished"].is_i64();
        let all = fired(node, name);
        (all.iter().filter(|m| ended(m)).count() >= n).then_some(all)
    })
}

#[test]
fn it_fires_at_its_times_and_everybody_can_see_it() {
    let node = Node::start(&with(&format!("{SAY}{}", each_second("say", "priority = 7"))));
    let all = finished(&node, "tick", 3);
    let times = planned(&all);
    assert!(times.iter().all(|at| at % 1_000 == 0) && times.is_sorted(), "{times:?}");
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), times.len());
    for m in all.iter().take(3) {
        assert!(m["enqueued"].as_i64() >= m["planned"].as_i64(), "it fired early: {m}");
        assert_eq!((&m["task"], &m["priority"]), (&"say".into(), &7.into()));
    }
    let seen = schedule(&node, "tick");
    assert_eq!((&seen["when"], &seen["enabled"]), (&"every 1s".into(), &true.into()));
    assert!(seen["last"]["planned"].is_i64(), "{seen}");
    node.taskd(&["schedules"]).code(0).fits_80_columns().shows(&["tick", "say", "every 1s"]);
    node.taskd(&["status"]).code(0).shows(&["Schedules", "next tick"]);
    let id = all[0]["id"].as_str().unwrap();
    node.taskd(&["status", id]).code(0).shows(&["tick, planned"]);
    node.taskd(&["list"]).code(0).shows(&["say (tick)"]);
    let log = node.log();
    assert!(log.contains("schedule tick fired say"), "{log}");
}

#[test]
fn a_time_fires_once_and_none_is_lost_however_often_taskd_is_killed() {
    let more = "overlap = \"allow\"\ncatch_up = \"all\"\ncatch_up_max = 1000";
    let mut node = Node::start(&with(&format!("{SAY}{}", each_second("say", more))));
    for n in 0..4_u64 {
        let before = fired(&node, "tick").len();
        until("another fire", || (fired(&node, "tick").len() > before).then_some(()));
        // At another place of the second each time, about where the next one is due.
        std::thread::sleep(Duration::from_millis(850 + 60 * n));
        if n % 2 == 0 {
            node.kill_launcher();
            node.launch();
        } else {
            procs::kill9(node.daemon());
        }
    }
    let before =
        until("an answer", || node.taskd(&["list"]).out.lines().next().map(|_| fired(&node, "tick").len()));
    let all = until("fires after it", || Some(fired(&node, "tick")).filter(|all| all.len() > before + 1));
    let times: BTreeSet<i64> = planned(&all).into_iter().collect();
    assert_eq!(times.len(), all.len(), "a planned time fired twice");
    let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
    let missing: Vec<i64> = (first..last).step_by(1_000).filter(|at| !times.contains(at)).collect();
    assert_eq!(missing, Vec::<i64>::new(), "of {times:?}");
}

#[test]
fn skip_leaves_out_what_comes_while_it_runs() {
    let mut node = Node::prepare(Setup::new(&with(&format!("{HOLD}{}", each_second("hold", "")))));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let id = up.line();
    until("a skip", || node.log().contains("schedule tick skips").then_some(()));
    assert_eq!(fired(&node, "tick").len(), 1);
    let seen = schedule(&node, "tick");
    assert_eq!((&seen["live"], &seen["last"]["state"]), (&1.into(), &"RUNNING".into()));
    go.release(1);
    node.finished(&id);
    assert_ne!(up.line(), id, "the next time fires again");
    go.release(1);
}

#[test]
fn queue_runs_them_one_after_the_other_in_their_order() {
    let setup = Setup::new(&with(&format!("{HOLD}{}", each_second("hold", "overlap = 'queue'"))));
    let mut node = Node::prepare(setup);
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let mut ran = vec![up.line()];
    until("two that wait", || (schedule(&node, "tick")["held"].as_u64() >= Some(2)).then_some(()));
    let waits = fired(&node, "tick").into_iter().find(|m| m["state"] == "SCHEDULED").unwrap();
    node.taskd(&["why", waits["id"].as_str().unwrap()])
        .code(0)
        .shows(&["what the schedule tick fired before"]);
    // A restart in between changes nothing.
    node.kill_launcher();
    node.launch();
    assert_eq!(up.line(), ran[0], "the lost run comes first");
    for _ in 0..2 {
        go.release(1);
        ran.push(up.line());
    }
    let all = fired(&node, "tick");
    let order: Vec<i64> = ran
        .iter()
        .map(|id| all.iter().find(|m| m["id"] == **id).unwrap()["planned"].as_i64().unwrap())
        .collect();
    assert!(order.is_sorted() && order.iter().collect::<BTreeSet<_>>().len() == 3, "{order:?}");
    node.ok(&["schedules", "pause", "tick"]);
}

#[test]
fn replace_ends_what_runs_and_runs_after_it() {
    let setup = Setup::new(&with(&format!("{HOLD}{}", each_second("hold", "overlap = 'replace'"))));
    let mut node = Node::prepare(setup);
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let first = up.line();
    let second = up.line();
    assert_ne!(first, second);
    assert_eq!(node.finished(&first)["state"], "REVOKED");
    node.ok(&["schedules", "pause", "tick"]);
    go.release(1);
}

#[test]
fn pause_resume_run_and_rewind() {
    let yearly = "[schedules.yearly]\ntask = \"say\"\ncron = \"0 0 1 1 *\"\n";
    let hourly = "[schedules.hourly]\ntask = \"say\"\nevery = \"1h\"\ncatch_up = \"last\"\n";
    let mut node = Node::start(&with(&format!("{SAY}{yearly}{hourly}")));
    // By hand, paused or not.
    let ran = node.taskd(&["schedules", "run", "yearly", "--wait"]).code(0);
    assert_eq!(ran.out, "said\n");
    node.ok(&["schedules", "pause", "yearly"]);
    let id = node.ok(&["schedules", "run", "yearly"]).trim().to_owned();
    let view = node.finished(&id);
    assert_eq!((&view["schedule"], &view["planned"]), (&"yearly".into(), &Value::Null));
    node.taskd(&["schedules"]).code(0).shows(&["paused"]);
    node.kill_launcher();
    node.launch();
    until("the pause", || (schedule(&node, "yearly")["paused"] == "asked").then_some(()));
    assert_eq!(node.json(&["schedules", "next"]).as_array().unwrap()[0]["schedule"], "hourly");
    node.ok(&["schedules", "resume", "yearly"]);
    assert_eq!(schedule(&node, "yearly")["paused"], Value::Null);
    let next = node.taskd(&["schedules", "next", "yearly", "-n", "2"]).code(0).fits_80_columns();
    assert_eq!(next.out.matches("-01-01 00:00:00").count(), 2, "{}", next.out);
    // A rewind says first what it would do.
    let dry = node.taskd(&["schedules", "rewind", "hourly", "--to", "3h"]).code(0).shows(&["would fire"]);
    assert!(dry.err.contains("--yes"), "{}", dry.err);
    assert_eq!(fired(&node, "hourly").len(), 0);
    for n in 1..=2 {
        node.ok(&["schedules", "rewind", "hourly", "--to", "3h", "--yes"]);
        let all = finished(&node, "hourly", n);
        assert_eq!(all.len(), n, "the latest, again under another id");
        assert_eq!(planned(&all).iter().collect::<BTreeSet<_>>().len(), 1);
    }
    node.taskd(&["schedules", "rewind", "yearly", "--to", "3h"])
        .code(73)
        .one_clear_line()
        .says(&["catch_up"]);
    node.taskd(&["schedules", "rewind", "hourly", "--to", "2999-01-01 00:00"]).code(65).one_clear_line();
    node.taskd(&["schedules", "pause", "yearl"]).code(69).one_clear_line().says(&["yearly"]);
}

#[test]
fn failures_in_a_row_pause_it() {
    let more = "pause_after_failures = 2";
    let node = Node::start(&with(&format!("{SAY}{}", each_second("fail", more))));
    until("the pause", || (schedule(&node, "tick")["paused"] == "failures").then_some(()));
    assert_eq!(fired(&node, "tick").len(), 2);
    node.taskd(&["schedules"]).code(0).shows(&["paused after 2 failures in a row", "schedules resume tick"]);
    assert!(node.log().contains("is paused after 2 failures"), "{}", node.log());
    node.ok(&["schedules", "resume", "tick"]);
    finished(&node, "tick", 3);
}

#[test]
fn a_reload_adds_changes_disables_and_removes() {
    let node = Node::start(&with(SAY));
    node.taskd(&["schedules"]).code(0).shows(&["no schedules"]);
    let change = |tables: &str| {
        node.write_config(&with(&format!("{SAY}{tables}")));
        node.ok(&["reload"]);
    };
    change(&each_second("say", ""));
    finished(&node, "tick", 2);
    change(&each_second("say", "enabled = false"));
    node.taskd(&["schedules"]).code(0).shows(&["disabled"]);
    let before = fired(&node, "tick").len();
    // Two planned times pass; nothing can be waited for.
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(fired(&node, "tick").len(), before);
    change(&each_second("say", "catch_up = \"all\"\nkwargs = {}"));
    let all = finished(&node, "tick", before + 1);
    let times = planned(&all);
    assert!(times[before] - times[before - 1] > 1_500, "the disabled time was caught up: {times:?}");
    change("");
    node.taskd(&["schedules", "next"]).code(0).shows(&["nothing is planned"]);
}

#[test]
fn without_alignment_it_runs_at_once_and_so_long_after_each_end() {
    let more = "align = false";
    let node = Node::start(&with(&format!("{SAY}{}", each_second("say", more))));
    let all = finished(&node, "tick", 3);
    for pair in all.windows(2).take(2) {
        let (end, next) = (pair[0]["finished"].as_i64().unwrap(), pair[1]["planned"].as_i64().unwrap());
        assert_eq!(next, end + 1_000, "{all:?}");
    }
}
