//! `taskd show`: a workflow with the states of its steps.

use super::harness::Node;
use super::with;

#[test]
fn the_tree_tells_where_every_step_is() {
    let tasks = "[tasks.fail]\ncommand = 'exit 3'\n[tasks.say]\ncommand = 'echo x'\n";
    let node = Node::start(&with(tasks));
    let id = node.ok(&["chain", "say", "--", "fail", "--", "say", "--name", "third"]).trim().to_owned();
    node.taskd(&["result", "--wait", &id]).code(69);
    let text = node.ok(&["show", &id]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("chain {id} FAILURE, 3 steps, 2 failed")), "{text}");
    assert!(
        lines[1].starts_with("  0 say  SUCCESS") && lines[2].starts_with("    1 fail  FAILURE"),
        "{text}"
    );
    assert!(lines[3].starts_with("      2 third (say)  FAILURE"), "{text}");
    let member = node.json(&["show", &id])["list"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(node.ok(&["show", &member]), text, "by the id of a message");
    node.taskd(&["show", "nothing"]).code(69);
    let plain = node.enqueue(&["say"]);
    node.taskd(&["show", &plain]).code(69);
}
