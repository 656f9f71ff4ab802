//! `taskd chain`: steps one after the other, and links.

use serde_json::json;

use super::harness::{Node, until};
use super::with;

const TASKS: &str = r#"
[tasks.say]
command = "printf '%s' \"$1\""
[tasks.more]
command = "printf '%s-%s' \"$1\" \"$2\""
[tasks.secret]
command = "printf 'kept from the record'"
ignore_result = true
[tasks.fail]
command = "exit 3"
[tasks.number]
exec = ["/usr/bin/env", "echo", "{n}"]
params.n = "int"
[tasks.note]
command = "echo \"$TASKD_TASK $1\" >>{dir}/notes"
"#;

fn notes(node: &Node) -> String {
    std::fs::read_to_string(node.path().join("notes")).unwrap_or_default()
}

#[test]
fn each_step_gets_the_result_of_the_one_before() {
    let node = Node::start(&with(TASKS));
    let told =
        node.ok(&["chain", "--wait", "say", "=a", "--", "more", "=b", "--", "more", "=c", "--name", "last"]);
    assert_eq!(told, "a-b-c\n");
    let told = node.ok(&["chain", "--wait", "say", "=a", "--", "say", "=own", "--immutable"]);
    assert_eq!(told, "own\n");
    let told = node.ok(&["chain", "--wait", "secret", "--", "say"]);
    assert_eq!(told, "kept from the record\n", "a task that keeps no result hands it on");
    let id = node.ok(&["chain", "--id", "my-chain", "secret", "--", "say"]).trim().to_owned();
    assert_eq!(id, "my-chain");
    assert_eq!(node.ok(&["result", "--wait", &id]), "kept from the record\n");
    let first = node.json(&["show", &id])["list"][0]["id"].as_str().unwrap().to_owned();
    assert!(node.view(&first)["outcome"]["result"].is_null(), "{}", node.view(&first));
    let again = node.taskd(&["chain", "--id", "my-chain", "say"]).code(0);
    assert!(again.err.contains("launched before"), "{}", again.err);
}

#[test]
fn a_failed_step_fails_those_behind_it_and_a_retry_revives_them() {
    let node = Node::start(&with(TASKS));
    let flag = node.path().join("flag");
    node.write_config(&format!(
        "{}[tasks.once]\ncommand = 'test -e {} && echo well'\n",
        node.setup.config,
        flag.display()
    ));
    node.ok(&["reload"]);
    let id = node.ok(&["chain", "once", "--", "say", "--", "note", "--link-error", "note"]).trim().to_owned();
    let ended = node.taskd(&["result", "--wait", &id]).code(69);
    assert!(ended.err.contains("upstream") || ended.err.contains("UpstreamFailed"), "{}", ended.err);
    let shown = node.json(&["show", &id]);
    let states: Vec<_> = shown["list"].as_array().unwrap().iter().map(|s| s["state"].clone()).collect();
    assert_eq!(states[..3], [json!("FAILURE"), json!("FAILURE"), json!("FAILURE")]);
    let second = shown["list"][1]["id"].as_str().unwrap();
    let why = node.taskd(&["result", second]).code(69);
    assert!(why.err.contains("step 0 before it"), "{}", why.err);
    node.taskd(&["retry", second]).code(73);
    // The handler of the last step's failure runs with its id.
    let third = shown["list"][2]["id"].as_str().unwrap();
    until("the handler of the failure", || notes(&node).contains(third).then_some(()));
    std::fs::write(&flag, "").unwrap();
    let first = shown["list"][0]["id"].as_str().unwrap();
    assert!(node.ok(&["retry", first]).contains("waits"));
    node.taskd(&["result", "--wait", &id]).code(0);
    assert!(notes(&node).contains("note well\n"), "{}", notes(&node));
}

#[test]
fn arguments_are_checked_before_and_results_when_they_come() {
    let node = Node::start(&with(TASKS));
    let refused = node.taskd(&["chain", "say", "=x", "--", "number", "n=3"]).code(65);
    assert!(refused.err.contains("step 1 (number)"), "{}", refused.err);
    node.taskd(&["chain", "say", "--", "nothing"]).code(69);
    assert_eq!(node.json(&["list"]).as_array().map(Vec::len), Some(0), "nothing of them was stored");
    assert_eq!(node.ok(&["chain", "--wait", "say", "=7", "--", "number"]), "7\n");
    let ended = node.taskd(&["chain", "--wait", "say", "=seven", "--", "number"]).code(69);
    assert!(ended.err.contains("must be a whole number"), "{}", ended.err);
}

#[test]
fn links_run_beside_the_message_that_keeps_its_id() {
    let node = Node::start(&with(TASKS));
    let id = node.enqueue(&["say", "--id", "mine", "--link", "note", "--link-error", "fail", "--", "hello"]);
    assert_eq!(id, "mine");
    assert_eq!(node.ok(&["result", "--wait", "mine"]), "hello\n");
    until("the link", || notes(&node).contains("note hello\n").then_some(()));
    let shown = until("the whole", || Some(node.json(&["show", "mine"])).filter(|s| s["state"] == "SUCCESS"));
    assert_eq!(shown["list"][2]["state"], "SKIPPED");
    assert!(node.json(&["enqueue", "say", "--id", "mine", "--link", "note"])["known"] == true);
    let out = node.taskd(&["enqueue", "fail", "--wait", "--id", "bad", "--link-error", "note"]).code(3);
    until("the handler", || notes(&node).contains("note bad\n").then_some(()));
    drop(out);
}
