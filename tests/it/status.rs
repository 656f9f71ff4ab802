//! `taskd status`: the node, and one message.

use super::harness::{Node, procs, until};
use super::{HOLD, with};

#[test]
fn a_node_shows_what_it_is_and_does() {
    let node = Node::start(&with(&format!("{HOLD}[tasks.ok]\ncommand = \"true\"\n")));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    let status = node.json(&["status"]);
    assert_eq!(status["state"], "running");
    assert_eq!(status["epoch"], 1);
    for said in ["supervision", "users", "broker", "node", "version"] {
        assert!(!status[said].as_str().unwrap().is_empty(), "{said} in {status}");
    }
    assert_eq!((&status["pools"][0]["processes"], &status["pools"][0]["busy"]), (&2.into(), &1.into()));
    assert_eq!(status["counts"]["running"], 1);
    let running: Vec<_> = status["pools"][0]["children"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["running"].as_array().unwrap())
        .map(|r| r["id"].as_str().unwrap())
        .collect();
    assert_eq!(running, [&id]);
    node.taskd(&["status"]).code(0).fits_80_columns().shows(&["running", "default", "hold"]);
    go.release(1);
    node.finished(&id);
}

#[test]
fn a_message_shows_its_life() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    // The start of an attempt is told a moment later than it is, in case that it is short.
    let view = until("a pid", || Some(node.in_state(&id, "RUNNING")).filter(|v| v["pid"].is_i64()));
    let pid = view["pid"].as_i64().unwrap().try_into().unwrap();
    assert_eq!(procs::variable(pid, "TASKD_ID").as_deref(), Some(id.as_str()));
    for (name, value) in [("TASKD_TASK", "hold"), ("TASKD_QUEUE", "default"), ("TASKD_ATTEMPT", "1")] {
        assert_eq!(procs::variable(pid, name).as_deref(), Some(value));
    }
    node.taskd(&["status", &id]).code(0).fits_80_columns().shows(&["RUNNING", "hold", &id]);
    go.release(1);
    assert!(node.finished(&id)["finished"].as_i64() >= view["started"].as_i64());
    assert_eq!(node.json(&["status", &id])["state"], "SUCCESS");
    node.taskd(&["status", "nobody"]).code(69).one_clear_line();
}

#[test]
fn root_without_the_package_s_users_says_that_all_run_as_one() {
    let node = Node::start(&with("[tasks.id]\ncommand = \"id -un\"\n"));
    let there = |name: &str| nix::unistd::User::from_name(name).unwrap().is_some();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    if there("taskd-run") && me == "root" {
        return println!("the package is installed here: users are separated");
    }
    let view = node.finished(&node.enqueue(&["id"]));
    assert_eq!(view["outcome"]["result"], me.as_str());
    assert!(node.json(&["status"])["users"].as_str().unwrap().contains(&me));
    assert!(node.log().contains(&me), "said at the start:\n{}", node.log());
}

#[test]
fn a_new_daemon_knows_what_runs_where() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    let before = until("the process", || node.in_state(&id, "RUNNING")["pid"].as_i64());
    let old = node.daemon();
    procs::kill9(old);
    until("a new daemon", || (node.daemon() != old).then_some(()));
    let after = until("the process again", || node.in_state(&id, "RUNNING")["pid"].as_i64());
    assert_eq!(after, before);
    let status = node.json(&["status"]);
    assert_eq!((&status["epoch"], &status["counts"]["running"]), (&2.into(), &1.into()), "{status}");
    assert_eq!(status["pools"][0]["busy"], 1, "{status}");
    go.release(1);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    // Not at all where the old daemon was killed before it wrote its line.
    assert!(node.log().matches("started, attempt 1").count() <= 1, "told twice:\n{}", node.log());
    assert_eq!(node.json(&["status"])["counts"]["running"], 0);
}
