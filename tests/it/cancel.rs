//! `taskd cancel`: waiting, running and finished messages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::harness::{Node, procs, until};
use super::{HOLD, with};

#[test]
fn what_waits_never_runs() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let running = [node.enqueue(&["hold"]), node.enqueue(&["hold"])];
    up.line();
    up.line();
    let (waiting, scheduled) = (node.enqueue(&["hold"]), node.enqueue(&["hold", "--in", "1h"]));
    node.ok(&["cancel", &waiting, &scheduled]);
    for id in [&waiting, &scheduled] {
        let view = node.finished(id);
        assert_eq!((&view["state"], &view["started"]), (&"REVOKED".into(), &Value::Null), "{view}");
    }
    go.release(2);
    node.all_finished(&running);
    assert_eq!(up.line_within(200), None, "a canceled message ran");
}

#[test]
fn what_runs_ends_with_all_it_started() {
    let tasks = "[tasks.tree]\ncommand = \"setsid sh -c 'sleep 600 & sleep 600' & (sleep 600 &) ; echo $TASKD_ID >{dir}/up; wait; sleep 600\"\n";
    let node = Node::start(&with(tasks));
    let mut up = node.fifo("up");
    let id = node.enqueue(&["tree"]);
    up.line();
    let ids = BTreeSet::from([id.clone()]);
    until("the tree", || (procs::of_messages(&ids).len() >= 4).then_some(()));
    node.ok(&["cancel", &id]);
    let view = node.finished(&id);
    assert_eq!((&view["state"], &view["outcome"]["cause"]["kind"]), (&"REVOKED".into(), &"revoked".into()));
    assert_eq!(procs::of_messages(&ids), [], "left alive after its attempt");
}

#[test]
fn what_is_over_stays_as_it_is() {
    let node = Node::start(&with("[tasks.ok]\ncommand = \"true\"\n"));
    let id = node.enqueue(&["ok"]);
    node.finished(&id);
    node.taskd(&["cancel", &id]).code(73).one_clear_line().says(&["SUCCESS"]);
    assert_eq!(node.view(&id)["state"], "SUCCESS");
    node.taskd(&["cancel", "nobody"]).code(69).one_clear_line();
}
