//! `taskd chord`: members and a body, over deaths of the daemon.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Node, procs, until};
use super::with;

const TASKS: &str = r#"
[tasks.member]
command = "echo \"$n\" >>{dir}/members; printf '%s' \"$n\""
params.n = "int"
[tasks.body]
command = "(cat; echo) >>{dir}/bodies"
stdin = "json"
[tasks.slow]
command = "sleep 0.05; echo \"$n\" >>{dir}/members; printf '%s' \"$n\""
params.n = "int"
[tasks.odd]
command = "test $((n % 2)) = 1 && printf '%s' \"$n\""
params.n = "int"
"#;

/// What the bodies were given.
fn bodies(node: &Node) -> Vec<Value> {
    let text = std::fs::read_to_string(node.path().join("bodies")).unwrap_or_default();
    let given = text.lines().filter(|l| !l.is_empty());
    given.map(|l| serde_json::from_str::<Value>(l).unwrap()["args"][0].clone()).collect()
}

#[test]
fn the_body_gets_the_results_in_order_and_failures_as_it_wants() {
    let node = Node::start(&with(TASKS));
    node.ok(&["chord", "--wait", "member", "--each", "n=3,1,2", "--body", "body"]);
    assert_eq!(bodies(&node), [json!(["3", "1", "2"])]);
    let ended = node.taskd(&["chord", "--wait", "odd", "--each", "n=1,2", "--body", "body"]).code(69);
    assert!(ended.err.contains("FAILURE"), "{}", ended.err);
    assert_eq!(bodies(&node).len(), 1, "it did not run");
    let line = ["chord", "--wait", "odd", "--each", "n=1,2,3", "--body", "body", "--on-error", "continue"];
    node.ok(&line);
    assert_eq!(bodies(&node)[1], json!(["1", null, "3"]));
    node.taskd(&["chord", "member", "n=1"]).code(64);
}

#[test]
fn a_body_runs_once_though_the_daemon_is_killed_again_and_again() {
    let node = Node::start(&with(TASKS));
    let values: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let each = format!("n={}", values.join(","));
    let id = node.ok(&["chord", "slow", "--each", &each, "--body", "body"]).trim().to_owned();
    for (death, ended) in [(1, 10), (2, 70), (3, 130)] {
        until(&format!("{ended} members"), || {
            let text = std::fs::read_to_string(node.path().join("members")).unwrap_or_default();
            (text.lines().count() >= ended).then_some(())
        });
        let daemon = node.daemon();
        procs::kill9(daemon);
        until(&format!("daemon {death}"), || (node.daemon() != daemon).then_some(()));
        // The launcher gives up a daemon that dies early again and again.
        std::thread::sleep(Duration::from_millis(1_100)); // its life before the next death
    }
    node.taskd(&["result", "--wait", &id]).code(0);
    assert_eq!(bodies(&node), [json!(values)]);
    let shown = node.json(&["show", &id]);
    assert_eq!((shown["state"].as_str(), shown["open"].as_u64()), (Some("SUCCESS"), Some(0)));
}
