//! `taskd workflow`: what the config declares.

use super::harness::Node;
use super::with;

const TASKS: &str = r#"
[tasks.say]
command = "printf '%s' \"$1\""
[tasks.join]
command = "printf '%s+%s' \"$1\" \"$2\""
[workflows.nightly]
steps = [
  { name = "last", task = "join", after = ["second"], args = ["end"] },
  { name = "first", task = "say", args = ["a"] },
  { name = "second", task = "join", after = ["first"], args = ["b"] },
  { name = "rescue", task = "say", after = ["first", "second"], when = "failure" },
]
"#;

#[test]
fn a_declared_workflow_is_listed_and_run() {
    let node = Node::start(&with(TASKS));
    assert_eq!(node.json(&["workflow", "list"])[0]["steps"].as_array().map(Vec::len), Some(4));
    assert!(node.ok(&["workflow", "list"]).contains("nightly"));
    assert_eq!(node.ok(&["workflow", "run", "nightly", "--wait"]), "a+b+end\n");
    let refused = node.taskd(&["workflow", "run", "nightl"]).code(69);
    assert!(refused.err.contains("did you mean nightly?"), "{}", refused.err);
    node.taskd(&["workflow", "run", "nightly", "--id", "n1"]).code(0);
    node.taskd(&["result", "--wait", "n1"]).code(0);
    assert_eq!(node.json(&["show", "n1"])["name"], "nightly");
}

#[test]
fn a_config_whose_steps_go_in_a_circle_is_refused_with_its_place() {
    let node = Node::prepare(super::harness::node::Setup::new(&with(
        "[tasks.t]\ncommand = 'true'\n[workflows.w]\nsteps = [\n  { name = 'a', task = 't', after = ['b'] },\n  \
         { name = 'b', task = 't', after = ['a'] },\n  { task = 'u' },\n]\n",
    )));
    let checked = node.taskd(&["check"]).code(78);
    assert!(
        checked.err.contains("in a circle: b -> a -> b") || checked.err.contains("in a circle: a -> b -> a")
    );
    assert!(
        checked.err.contains("there is no task `u`") && checked.err.contains("taskd.toml:"),
        "{}",
        checked.err
    );
}

#[test]
fn an_id_names_a_message_or_a_workflow_and_never_both() {
    let node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    node.ok(&["enqueue", "--id", "mine", "say", "--", "a"]);
    let refused = node.taskd(&["chain", "--id", "mine", "say", "=a", "--", "say"]).fails();
    assert!(refused.err.contains("mine is that of a message of the task say (WAITING)"), "{}", refused.err);
    node.ok(&["chain", "--id", "flow", "say", "=a", "--", "say"]);
    let refused = node.taskd(&["enqueue", "--id", "flow", "say", "--", "a"]).fails();
    assert!(refused.err.contains("flow is that of the workflow chain (RUNNING)"), "{}", refused.err);
    // What is known is told as before.
    assert_eq!(node.json(&["chain", "--id", "flow", "say", "=a", "--", "say"])["known"], true);
    assert_eq!(node.view("mine")["task"], "say");
    assert_eq!(node.json(&["show", "flow"])["name"], "chain");
}
