//! `taskd drain`.

use super::harness::Node;
use super::{HOLD, with};

#[test]
fn what_runs_ends_and_nothing_new_begins() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let running = [node.enqueue(&["hold"]), node.enqueue(&["hold"])];
    up.line();
    up.line();
    node.ok(&["drain"]);
    assert_eq!(node.json(&["status"])["state"], "draining");
    let later = node.enqueue(&["hold"]); // accepting goes on
    go.release(2);
    node.all_finished(&running);
    assert_eq!(up.line_within(300), None, "a drained node took a message");
    assert_eq!(node.view(&later)["state"], "WAITING");
    // Until a restart.
    assert_eq!(node.stop(), 0);
    node.launch();
    assert_eq!(up.line(), later);
    go.release(1);
    assert_eq!(node.finished(&later)["state"], "SUCCESS");
}
