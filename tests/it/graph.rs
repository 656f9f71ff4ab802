//! `taskd graph`: a workflow as a drawing.

use super::harness::Node;
use super::with;

#[test]
fn declared_and_launched_workflows_are_drawn() {
    let tasks = "[tasks.say]\ncommand = 'echo x'\n[workflows.w]\nsteps = [{ name = 'a', task = 'say' }, { name = 'b', \
                 task = 'say', after = ['a'] }]\n";
    let node = Node::start(&with(tasks));
    assert_eq!(node.ok(&["graph", "w"]), "  0 a (say)\n    1 b (say)\n");
    let dot = node.ok(&["graph", "w", "--dot"]);
    assert!(dot.starts_with("digraph \"w\" {") && dot.contains("  0 -> 1;\n"), "{dot}");
    let id = node.ok(&["workflow", "run", "w"]).trim().to_owned();
    node.taskd(&["result", "--wait", &id]).code(0);
    assert!(node.ok(&["graph", &id, "--dot"]).contains("color = green"));
    node.taskd(&["graph", "nothing"]).code(69);
}
