//! `taskd pause` and `taskd resume`.

use super::harness::Node;
use super::with;

#[test]
fn a_paused_queue_takes_in_and_hands_out_nothing_over_a_restart_too() {
    let mut node = Node::start(&with("[tasks.ok]\ncommand = \"true\"\n"));
    node.ok(&["pause", "default"]);
    let id = node.enqueue(&["ok"]);
    assert_eq!(node.queue("default")["paused"], true);
    assert_eq!(node.stop(), 0);
    node.launch();
    assert_eq!(node.queue("default")["paused"], true);
    assert_eq!(node.view(&id)["state"], "WAITING");
    node.ok(&["resume", "default"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    // Saying it twice is saying it once.
    node.ok(&["resume", "default"]);
    for verb in ["pause", "resume"] {
        node.taskd(&[verb, "defalt"]).code(69).one_clear_line().says(&["defalt", "default"]);
    }
}
