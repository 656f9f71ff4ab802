//! Workflows that schedules launch: a real clock, real processes, a kill.

use serde_json::Value;

use super::super::harness::{Node, Setup, until};
use super::super::{HOLD, with};

/// A step that ends at once, and one behind it that waits until it is let go.
const FLOW: &str = "[tasks.say]\ncommand = \"echo said\"\n[workflows.nightly]\nsteps = [{ task = 'say' }, \
                    { task = 'hold', after = ['say'], immutable = true }]\n";

fn flow(more: &str) -> String {
    with(&format!("{HOLD}{FLOW}[schedules.tick]\nworkflow = 'nightly'\nevery = '1s'\n{more}\n"))
}

fn schedule(node: &Node) -> Value {
    node.http().get("/v1/schedules").as_array().unwrap()[0].clone()
}

/// Messages of this task.
fn runs(node: &Node, task: &str) -> usize {
    let all = node.http().get("/v1/messages?limit=10000");
    all.as_array().unwrap().iter().filter(|m| m["task"] == task).count()
}

#[test]
fn a_workflow_is_one_run_until_its_last_step_ended_whatever_is_killed() {
    let mut node = Node::prepare(Setup::new(&flow("")));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.launch();
    let step = up.line();
    until("a skip", || node.log().contains("schedule tick skips").then_some(()));
    let seen = schedule(&node);
    assert_eq!((&seen["workflow"], &seen["live"], seen.get("task")), (&"nightly".into(), &1.into(), None));
    assert_eq!((&seen["last"]["state"], &seen["last"]["workflow"]), (&"RUNNING".into(), &true.into()));
    node.taskd(&["schedules", "list"]).code(0).fits_80_columns().shows(&[
        "tick",
        "workflow nightly",
        "active",
    ]);
    let id = seen["last"]["id"].as_str().unwrap().to_owned();
    node.taskd(&["show", &id]).code(0).shows(&["nightly", "schedule tick", "RUNNING"]);
    assert_eq!(node.json(&["show", &id])["schedule"], "tick");
    node.kill_launcher();
    node.launch();
    // The step runs again; nothing else was launched, and nothing is until it ended.
    assert_eq!(up.line(), step);
    assert_eq!((runs(&node, "say"), runs(&node, "hold")), (1, 1));
    go.release(1);
    node.taskd(&["result", "--wait", &id]).code(0);
    assert_ne!(up.line(), step, "the next time launches again");
    assert!(schedule(&node)["last"]["id"] != id.as_str());
    go.release(1);
}

#[test]
fn replace_cancels_the_whole_of_what_runs() {
    let mut node = Node::prepare(Setup::new(&flow("overlap = 'replace'")));
    let mut up = node.fifo("up");
    let _go = node.fifo("go");
    node.launch();
    let first = up.line();
    let id = schedule(&node)["last"]["id"].as_str().unwrap().to_owned();
    let second = up.line();
    assert_ne!(first, second);
    // The next one began only when all of it had ended.
    let seen = node.json(&["show", &id]);
    assert_eq!((&seen["state"], &seen["open"]), (&"REVOKED".into(), &0.into()), "{seen}");
    let ended = node.http().get(&format!("/v1/messages/{first}"));
    assert_eq!(ended["state"], "REVOKED", "{ended}");
}

#[test]
fn by_hand_it_is_launched_beside_the_plan_and_failures_pause_it() {
    let config = "[tasks.fail]\ncommand = 'exit 3'\n[tasks.say]\ncommand = 'echo said'\n[workflows.well]\nsteps = [{ task = \
                  'say' }]\n[workflows.badly]\nsteps = [{ task = 'fail' }, { task = 'say', after = ['fail'] }]\n\
                  [schedules.yearly]\nworkflow = 'well'\ncron = '@yearly'\n\
                  [schedules.bad]\nworkflow = 'badly'\nevery = '1s'\npause_after_failures = 2\n";
    let node = Node::start(&with(config));
    node.taskd(&["schedules", "run", "yearly", "--wait"]).code(0).shows(&["said"]);
    let id = node.ok(&["schedules", "run", "yearly"]).trim().to_owned();
    node.taskd(&["result", "--wait", &id]).code(0);
    assert_eq!(node.json(&["show", &id])["schedule"], "yearly");
    let paused = |node: &Node| node.json(&["schedules"])[0]["paused"].as_str().map(str::to_owned);
    until("a pause", || paused(&node).filter(|why| why == "failures"));
    node.taskd(&["schedules", "next", "bad", "-n", "1"])
        .code(0)
        .shows(&["passes: the schedule is paused after failures"]);
    assert_eq!(node.json(&["schedules", "next", "bad"])[0]["held_back"], "failures");
    node.taskd(&["schedules", "pause", "bad"]).code(0);
    assert_eq!(paused(&node).as_deref(), Some("asked"), "who paused it last");
}
