//! `taskd stop [--now]`.

use std::collections::BTreeSet;

use super::harness::{Node, procs};
use super::{HOLD, with};

#[test]
fn warm_waits_for_what_runs() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    let mut stop = node.command(&["stop"]).spawn().unwrap();
    node.notify.has("STOPPING=1");
    go.release(1);
    assert_eq!(node.ended(), 0);
    assert!(stop.wait().unwrap().success());
    node.launch();
    assert_eq!(node.view(&id)["state"], "SUCCESS");
}

#[test]
fn now_does_not_wait_and_loses_nothing() {
    let mut node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    node.ok(&["stop", "--now"]);
    assert_eq!(node.ended(), 0);
    assert_eq!(procs::of_messages(&BTreeSet::from([id.clone()])), []);
    node.launch();
    assert_eq!(up.line(), id);
    go.release(1);
    let view = node.finished(&id);
    assert_eq!((view["state"].as_str(), view["losses"].as_u64()), (Some("SUCCESS"), Some(0)), "{view}");
}

#[test]
fn a_second_sigterm_is_now() {
    let mut node = Node::start(&with(HOLD));
    let mut up = node.fifo("up");
    let _go = node.fifo("go");
    let id = node.enqueue(&["hold"]);
    up.line();
    node.signal(nix::sys::signal::Signal::SIGTERM);
    node.notify.has("STOPPING=1");
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(node.ended(), 0);
    assert_eq!(procs::of_messages(&BTreeSet::from([id])), []);
}
