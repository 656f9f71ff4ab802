//! `taskd why`: one sentence.

use super::harness::Node;
use super::{HOLD, with};

#[test]
fn each_reason_has_its_sentence() {
    let node = Node::start(&with(&format!("{HOLD}[queues.side]\n[queues.single]\nconcurrency = 1\n")));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let why = |id: &str| {
        let said = node.json(&["why", id])["why"].as_str().unwrap().to_owned();
        assert!(said.len() > 10 && !said.contains('\n'), "{said:?}");
        assert!(node.ok(&["why", id]).contains(&said));
        said.to_lowercase()
    };
    node.ok(&["pause", "side"]);
    let paused = node.enqueue(&["hold", "--queue", "side"]);
    assert!(why(&paused).contains("paused"), "{}", why(&paused));
    let later = node.enqueue(&["hold", "--in", "1h"]);
    assert!(why(&later).contains("due in"), "{}", why(&later));
    let one = node.enqueue(&["hold", "--queue", "single"]);
    up.line();
    let two = node.enqueue(&["hold", "--queue", "single"]);
    assert!(why(&two).contains("at most 1 at once"), "{}", why(&two));
    let running = node.enqueue(&["hold"]);
    up.line();
    assert!(why(&running).contains("running"), "{}", why(&running));
    let waits = node.enqueue(&["hold"]);
    assert!(why(&waits).contains("slot") || why(&waits).contains("busy"), "{}", why(&waits));
    go.release(4);
    node.all_finished(&[&one, &two, &running, &waits]);
    assert!(why(&waits).contains("success"), "{}", why(&waits));
    node.taskd(&["why", "nobody"]).code(69).one_clear_line();
}
