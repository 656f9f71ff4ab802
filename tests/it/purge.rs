//! `taskd purge`.

use super::harness::Node;
use super::{HOLD, with};

#[test]
fn all_that_waits_ends_and_what_runs_goes_on() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let running = [node.enqueue(&["hold"]), node.enqueue(&["hold"])];
    up.line();
    up.line();
    let waiting = node.enqueue_many("hold", 5);
    let later = node.enqueue(&["hold", "--in", "1h"]);
    let done = node.json(&["purge", "default"]);
    assert_eq!(done["count"], 6, "{done}");
    for id in waiting.iter().chain([&later]) {
        assert_eq!(node.view(id)["state"], "REVOKED");
    }
    go.release(2);
    for id in &running {
        assert_eq!(node.finished(id)["state"], "SUCCESS");
    }
    assert_eq!(up.line_within(200), None, "a purged message ran");
    node.taskd(&["purge", "defalt"]).code(69).one_clear_line();
}
