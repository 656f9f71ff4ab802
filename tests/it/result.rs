//! `taskd result`: what a message came to, and why.

use serde_json::json;

use super::harness::Node;
use super::{HOLD, with};

const TASKS: &str = r#"
[tasks.say]
command = "echo; echo '  two  words  '; echo"
[tasks.object]
command = "echo '{\"a\": [1, 2]}'"
result = "json"
[tasks.nonsense]
command = "echo 'not json'"
result = "json"
[tasks.quiet]
command = "echo x"
result = "none"
[tasks.fail]
command = "echo why >&2; exit 3"
[tasks.killed]
command = "kill -9 $$"
[tasks.missing]
exec = ["/nonexistent/program"]
[tasks.slow]
command = "sleep 600"
soft_time_limit = "200ms"
time_limit = "400ms"
[tasks.deaf]
command = "trap '' TERM; while :; do sleep 600; done"
soft_time_limit = "200ms"
time_limit = "400ms"
[tasks.big]
command = "head -c 200000 /dev/zero | tr '\\0' x"
[tasks.work]
command = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; (setsid sleep 600 &) ; exit 0"
"#;

fn outcome(node: &Node, task: &str) -> (String, serde_json::Value) {
    let view = node.finished(&node.enqueue(&[task]));
    (view["state"].as_str().unwrap().to_owned(), view["outcome"].clone())
}

#[test]
fn a_result_is_the_trimmed_output_or_json() {
    let node = Node::start(&with(TASKS));
    let id = node.enqueue(&["say"]);
    assert_eq!(node.ok(&["result", "--wait", &id]).trim_end(), "two  words");
    assert_eq!(outcome(&node, "object").1["result"], json!({"a": [1, 2]}));
    let id = node.enqueue(&["object"]);
    assert_eq!(node.json(&["result", "--wait", &id])["outcome"]["result"], json!({"a": [1, 2]}));
    let (state, quiet) = outcome(&node, "quiet");
    assert_eq!(state, "SUCCESS");
    assert!(quiet["result"].is_null(), "{quiet}");
    assert_eq!(outcome(&node, "nonsense").0, "FAILURE");
}

#[test]
fn the_reason_is_always_known() {
    let node = Node::start(&with(TASKS));
    let kind = |task: &str| outcome(&node, task).1["cause"].clone();
    assert_eq!(kind("fail"), json!({"kind": "exit", "code": 3}));
    assert_eq!(kind("killed"), json!({"kind": "signal", "signal": 9, "core": false}));
    assert_eq!(kind("missing"), json!({"kind": "spawn_failed"}));
    assert_eq!(kind("slow"), json!({"kind": "time_limit", "soft": true}));
    assert_eq!(kind("deaf"), json!({"kind": "time_limit", "soft": false}));
    let failed = outcome(&node, "fail").1;
    assert!(failed["failure"]["traceback"].as_str().unwrap().contains("why"), "{failed}");
    let missing = outcome(&node, "missing").1;
    assert!(missing["failure"]["message"].as_str().unwrap().contains("/nonexistent/program"), "{missing}");
}

#[test]
fn figures_are_kept_and_leftovers_are_killed() {
    let node = Node::start(&with(TASKS));
    let used = outcome(&node, "work").1["usage"].clone();
    assert!(used["user_us"].as_u64().unwrap() > 1000, "{used}");
    assert!(used["max_rss"].as_u64().unwrap() > 100_000, "{used}");
    assert_eq!(used["killed_leftovers"], 1, "{used}");
}

#[test]
fn a_result_is_bounded() {
    let node = Node::start(&with(TASKS));
    let (state, big) = outcome(&node, "big");
    assert_eq!((state.as_str(), big["truncated"].as_bool()), ("SUCCESS", Some(true)));
    let length = big["result"].as_str().unwrap().len();
    assert!((60_000..=65_536).contains(&length), "{length}");
}

#[test]
fn what_is_not_there_or_not_finished_is_said_so() {
    let node = Node::start(&with(&format!("{TASKS}{HOLD}")));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.taskd(&["result", "nobody"]).code(69).one_clear_line().says(&["nobody"]);
    let id = node.enqueue(&["hold"]);
    up.line();
    node.taskd(&["result", &id]).fails().one_clear_line().says(&["RUNNING"]);
    node.taskd(&["result", "--wait", "--timeout", "1s", &id]).code(75);
    go.release(1);
    node.taskd(&["result", "--wait", &id]).code(0);
    let id = node.enqueue(&["fail"]);
    node.taskd(&["result", "--wait", &id]).fails().says(&["exit code 3"]);
}
