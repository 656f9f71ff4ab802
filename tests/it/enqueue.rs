//! `taskd enqueue`: arguments, time, queues, ids, waiting, refusals.

use serde_json::json;

use super::harness::{Node, Setup};
use super::{HOLD, with};

const TASKS: &str = r#"
[tasks.greet]
exec = ["/bin/echo", "hello {name}", "{times}"]
params.name = "string"
params.times = { type = "int", default = 1 }

[tasks.words]
exec = ["/usr/bin/printf", "%s,"]

[tasks.shell]
command = 'printf "%s|" "$1" "$2" "$who"'
params.a = "string"
params.b = "string"
params.who = { type = "string", default = "nobody" }

[tasks.fail]
command = "echo on stdout; echo on stderr >&2; exit 7"

[tasks.json]
command = "cat"
stdin = "json"
result = "json"

[queues.side]
[queues.small]
max_length = 1
[tasks.stored]
command = "true"
queue = "small"
"#;

fn node() -> Node {
    Node::start(&with(TASKS))
}

#[test]
fn arguments_reach_the_program_whole() {
    let node = node();
    let result = |args: &[&str]| {
        let view = node.finished(&node.enqueue(args));
        assert_eq!(view["state"], "SUCCESS", "{view}");
        view["outcome"]["result"].clone()
    };
    assert_eq!(result(&["greet", "name=a b; $(id)"]), "hello a b; $(id) 1");
    assert_eq!(result(&["greet", "--", "x", "3"]), "hello x 3");
    assert_eq!(result(&["words", "--", "a b", "", "*"]), "--,a b,,*,");
    assert_eq!(result(&["shell", "who=me", "--", "1 1", "$HOME"]), "1 1|$HOME|me|");
    let all = result(&["json", "--json-args", r#"{"n": [1, {"x": null}]}"#]);
    assert_eq!(all["kwargs"], json!({"n": [1, {"x": null}]}));
    assert_eq!(all["attempt"], 1);
}

#[test]
fn wait_streams_the_output_and_takes_over_the_exit_code() {
    let node = node();
    node.taskd(&["enqueue", "--wait", "fail"]).code(7).shows(&["on stdout"]).says(&["on stderr"]);
    node.taskd(&["enqueue", "--wait", "greet", "name=you"]).code(0).shows(&["hello you 1"]);
}

#[test]
fn the_id_is_on_stdout_alone() {
    let node = node();
    let ran = node.taskd(&["enqueue", "greet", "name=x"]).code(0);
    let id = ran.out.trim();
    assert!(uuid::Uuid::parse_str(id).is_ok_and(|u| u.get_version_num() == 7), "{:?}", ran.out);
    assert_eq!(ran.err, "");
}

#[test]
fn a_known_id_is_answered_and_not_run_again() {
    let node = node();
    let mine = ["greet", "name=x", "--id", "order-17"];
    assert_eq!(node.enqueue(&mine), "order-17");
    assert_eq!(node.finished("order-17")["attempt"], 1);
    assert_eq!(node.enqueue(&mine), "order-17");
    let view = node.view("order-17");
    assert_eq!((&view["state"], &view["attempt"]), (&json!("SUCCESS"), &json!(1)));
}

#[test]
fn times_are_kept() {
    let node = node();
    let later = node.enqueue(&["greet", "name=x", "--in", "10m"]);
    let view = node.view(&later);
    assert_eq!(view["state"], "SCHEDULED");
    let ahead = view["due"].as_i64().unwrap() - view["enqueued"].as_i64().unwrap();
    assert!((599_000..=601_000).contains(&ahead), "{ahead}");
    let at = node.enqueue(&["greet", "name=x", "--at", "2100-01-01T00:00:00Z"]);
    assert_eq!(node.view(&at)["due"], 4_102_444_800_000_i64);
    let soon = node.enqueue(&["greet", "name=x", "--in", "1s"]);
    assert_eq!(node.view(&soon)["state"], "SCHEDULED");
    let view = node.finished(&soon);
    assert!(view["started"].as_i64() >= view["enqueued"].as_i64().map(|t| t + 1000), "{view}");
    node.ok(&["pause", "side"]);
    let gone = node.enqueue(&["greet", "name=x", "--queue", "side", "--expires", "1s"]);
    let view = node.finished(&gone);
    assert_eq!((&view["state"], &view["attempt"]), (&json!("EXPIRED"), &json!(0)));
}

#[test]
fn nine_goes_first() {
    let tasks = format!("{HOLD}[tasks.mark]\ncommand = \"echo $TASKD_ID >>{{dir}}/order\"\n");
    let node = Node::start(&with(&tasks).replace("processes = 2", "processes = 1"));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    node.enqueue(&["hold"]);
    up.line();
    let [low, high, middle] = ["0", "9", "5"].map(|p| node.enqueue(&["mark", "--priority", p]));
    go.release(1);
    node.all_finished(&[&low, &high, &middle]);
    let order = std::fs::read_to_string(node.path().join("order")).unwrap();
    assert_eq!(order.lines().collect::<Vec<_>>(), [&high, &middle, &low]);
}

#[test]
fn every_refusal_is_one_line_with_its_exit_code() {
    let node = node();
    node.taskd(&["enqueue", "gret", "name=x"]).code(69).one_clear_line().says(&["gret", "greet"]);
    node.taskd(&["enqueue", "greet", "name=x", "tims=2"]).code(65).says(&["tims"]);
    let both = node.taskd(&["enqueue", "greet", "times=two", "extra=1"]).code(65);
    both.says(&["name", "times", "extra"]); // all faults in one answer
    node.taskd(&["enqueue", "greet", "name=x", "--queue", "sid"]).code(69).one_clear_line().says(&["sid"]);
    node.taskd(&["enqueue", "greet", "name=x", "--id", "../x"]).fails().one_clear_line();
    node.taskd(&["enqueue", "greet", "name=x", "--priority", "10"]).fails();
    node.taskd(&["enqueue", "greet", "name=x", "--in", "1 fortnight"]).fails().says(&["fortnight"]);
    node.ok(&["pause", "small"]);
    node.ok(&["enqueue", "stored"]);
    node.taskd(&["enqueue", "stored"]).code(75).one_clear_line().says(&["small"]);
}

#[test]
fn a_batch_is_stored_whole_or_not_at_all() {
    let node = node();
    let mut http = node.http();
    let bad = json!([{"task": "words", "id": "first"}, {"task": "nothing"}]).to_string();
    assert_eq!(http.ask("POST", "/v1/messages", &bad).unwrap().status, 404);
    assert_eq!(http.ask("GET", "/v1/messages/first", "").unwrap().status, 404);
}

#[test]
fn a_daemon_that_is_not_there_is_said_so() {
    let node = Node::prepare(Setup::new(&with(TASKS)));
    node.taskd(&["enqueue", "greet", "name=x"]).code(69).one_clear_line().says(&["sock"]);
}
