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
        // The figures that follow change between the two.
        let text = node.ok(&["why", id]);
        let beginning = said.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        assert!(text.contains(&beginning), "{text} is not {said}");
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

#[test]
fn a_workflow_says_which_step_it_waits_for() {
    let node = Node::start(&with("[tasks.one]\ncommand = 'true'\n[tasks.bad]\ncommand = 'false'\n"));
    node.ok(&["pause", "default"]);
    node.ok(&["chain", "--id", "w", "one", "--immutable", "--", "one", "--immutable"]);
    let why = node.json(&["why", "w"]);
    assert_eq!(why["state"], "RUNNING");
    let said = why["why"].as_str().unwrap().to_owned();
    for part in ["2 of its 2 steps", "step 0 one", "is WAITING: the queue default is paused", "taskd show w"]
    {
        assert!(said.contains(part), "{said}");
    }
    node.ok(&["resume", "default"]);
    node.taskd(&["result", "--wait", "w"]).code(0);
    assert!(node.ok(&["why", "w"]).contains("is over: `taskd show w`"));
    node.taskd(&["chain", "--id", "f", "--wait", "bad", "--", "one", "--immutable"]).fails();
    assert!(node.ok(&["why", "f"]).contains("did not end well"));
    node.taskd(&["why", "nothing"]).code(69);
}
