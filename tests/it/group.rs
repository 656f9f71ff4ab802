//! `taskd group`: steps all at once, and many calls of one task.

use serde_json::json;

use super::harness::{Node, until};
use super::with;

const TASKS: &str = r#"
[tasks.size]
command = "printf '%s' \"$size\""
params.size = "int"
[tasks.sum]
command = "python3 -c 'import json,sys; print(sum(json.load(sys.stdin)[\"args\"][0]))'"
stdin = "json"
result = "json"
[tasks.nap]
command = "sleep 600"
"#;

#[test]
fn results_come_in_the_order_of_the_members() {
    let node = Node::start(&with(TASKS));
    let told = node.ok(&["group", "--wait", "size", "--each", "size=3,1,2"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap(), json!(["3", "1", "2"]));
    let lines = node.path().join("lines");
    std::fs::write(&lines, "{\"size\": 8}\n{\"size\": 9}\n").unwrap();
    let told = node.ok(&["group", "--wait", "size", "--batch", lines.to_str().unwrap()]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap(), json!(["8", "9"]));
    let told = node.ok(&["group", "--wait", "sum", "--each", ":=[1,2,3]", "--chunk", "2"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap(), json!([3, 3]));
    node.taskd(&["group", "size", "--each", "size=1,x"]).code(65);
}

#[test]
fn a_group_is_canceled_as_a_whole() {
    let node = Node::start(&with(TASKS));
    let id = node.ok(&["group", "nap", "--", "nap", "--", "nap", "--", "nap"]).trim().to_owned();
    until("two of them run", || {
        let shown = node.json(&["show", &id]);
        let running = shown["list"].as_array().unwrap().iter().filter(|s| s["state"] == "RUNNING").count();
        (running == 2).then_some(())
    });
    node.ok(&["cancel", &id]);
    node.taskd(&["result", "--wait", &id]).code(69);
    let shown = node.json(&["show", &id]);
    assert_eq!(shown["state"], "REVOKED");
    assert!(shown["list"].as_array().unwrap().iter().all(|s| s["state"] == "REVOKED"), "{shown}");
    node.taskd(&["cancel", &id]).code(73);
    assert!(node.ok(&["retry", &id]).contains("4 steps begin anew"));
    assert_eq!(node.json(&["show", &id])["state"], "RUNNING");
}
