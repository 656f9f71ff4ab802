//! `taskd retry`, and retries by policy.

use serde_json::json;

use super::harness::Node;
use super::{HOLD, with};

const TASKS: &str = r#"
[defaults]
retry_delay = "20ms"
retry_jitter = false
[tasks.third]
command = "[ $TASKD_ATTEMPT = 3 ]"
max_retries = 5
[tasks.never]
command = "exit 1"
max_retries = 2
[tasks.tempfail]
command = "[ $TASKD_ATTEMPT = 2 ] || exit 75"
max_retries = 1
[tasks.choosy]
command = "exit $TASKD_ATTEMPT"
retry_on = [1]
max_retries = 9
[tasks.odd]
command = "exit 4"
success_on = [4]
[tasks.once]
command = "test -e {dir}/mended"
"#;

#[test]
fn a_policy_is_followed() {
    let node = Node::start(&with(TASKS));
    for (task, state, attempt, retries) in [
        ("third", "SUCCESS", 3, 2),
        ("never", "FAILURE", 3, 2),
        ("tempfail", "SUCCESS", 2, 1),
        ("choosy", "FAILURE", 2, 1),
        ("odd", "SUCCESS", 1, 0),
    ] {
        let view = node.finished(&node.enqueue(&[task]));
        let got = [view["state"].clone(), view["attempt"].clone(), view["retries"].clone()];
        assert_eq!(got, [json!(state), json!(attempt), json!(retries)], "{task}: {view}");
    }
}

#[test]
fn a_person_gives_a_new_life() {
    let node = Node::start(&with(TASKS));
    let id = node.enqueue(&["once"]);
    assert_eq!(node.finished(&id)["state"], "FAILURE");
    std::fs::write(node.path().join("mended"), "").unwrap();
    node.ok(&["retry", &id]);
    let view =
        super::harness::until("a success", || Some(node.finished(&id)).filter(|v| v["state"] == "SUCCESS"));
    assert_eq!((&view["retries"], &view["attempt"]), (&json!(0), &json!(1)), "{view}");
}

#[test]
fn what_is_not_over_is_not_retried() {
    let node = Node::start(&with(HOLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["hold"]);
    up.line();
    node.taskd(&["retry", &id]).code(73).one_clear_line().says(&["RUNNING"]);
    node.taskd(&["retry", "nobody"]).code(69).one_clear_line();
    go.release(1);
    assert_eq!(node.finished(&id)["attempt"], 1);
}

#[test]
fn a_workflow_whose_steps_are_purged_says_so() {
    let node = Node::start(&with(
        "[tasks.poison]\ncommand = \"kill -9 $PPID; sleep 9\"\n[tasks.good]\ncommand = \"true\"\n",
    ));
    node.taskd(&["chain", "--id", "w", "--wait", "poison", "--", "good"]).fails();
    node.ok(&["dead", "purge", "--yes"]);
    let refused = node.taskd(&["retry", "w"]).code(73).err;
    assert!(refused.contains("workflow w: 1 step cannot run again"), "{refused}");
}
