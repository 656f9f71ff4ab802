//! Unique tasks: one message per key, whoever enqueues, whatever dies in between.

use std::collections::BTreeSet;

use serde_json::json;

use super::harness::{Node, Setup, procs, until};
use super::{HOLD, with};

const TASKS: &str = r#"
[tasks.once]
exec = ["/bin/echo", "{user}"]
params.user = "int"
params.note = { type = "string", default = "" }
unique = { key = ["user"] }
[tasks.strict]
command = "true"
unique = { on_conflict = "error" }
[tasks.newest]
command = "echo $1"
params.value = "string"
unique = { key = [], while = "queued", on_conflict = "replace" }
[tasks.hourly]
command = "true"
unique = { period = "700ms" }
[tasks.plain]
command = "echo $1"
params.a = "string"
"#;

fn enqueued(node: &Node, args: &[&str]) -> serde_json::Value {
    let all: Vec<_> = ["enqueue"].into_iter().chain(args.iter().copied()).collect();
    node.json(&all)
}

#[test]
fn ten_clients_at_once_make_one_message() {
    let mut node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    let clients: Vec<_> = (0..10)
        .map(|n| {
            let mut command = node.command(&["enqueue", "--json", "once", "user=7", &format!("note=n{n}")]);
            std::thread::spawn(move || command.output().unwrap())
        })
        .collect();
    let answers: Vec<serde_json::Value> = clients
        .into_iter()
        .map(|client| serde_json::from_slice(&client.join().unwrap().stdout).unwrap())
        .collect();
    let ids: BTreeSet<&str> = answers.iter().map(|a| a["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|a| a["unique"] == true).count(), 9, "{answers:?}");
    assert_eq!(node.queue("default")["waiting"], 1);
    let id = (*ids.first().unwrap()).to_owned();
    assert_ne!(node.enqueue(&["once", "user=8"]), id, "another key");

    // The daemon dies, then all of it: the key is held as before.
    let daemon = node.daemon();
    procs::kill9(daemon);
    until("the next daemon", || (node.daemon() != daemon).then_some(()));
    node.taskd(&["enqueue", "once", "--", "7"]).code(0).says(&["unique", &id]);
    node.kill_launcher();
    node.launch();
    assert_eq!(node.enqueue(&["once", "user=7"]), id);
    let status = node.ok(&["status", &id]);
    assert!(status.contains(r#"once {"user":7}"#), "{status}");
    assert!(node.ok(&["why", &id]).contains("no other message has its key"));
    assert!(node.ok(&["tasks"]).contains("once: unique by user while queued and running, return"));
    node.ok(&["resume", "default"]);
    node.finished(&id);
    let next = node.enqueue(&["once", "user=7"]);
    assert_ne!(next, id, "its end frees the key");
    node.finished(&next);
    node.ok(&["store", "verify"]);
}

#[test]
fn a_conflict_may_be_an_error_with_its_whole_batch() {
    let node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    let first = node.enqueue(&["strict"]);
    node.taskd(&["enqueue", "strict"]).code(73).one_clear_line().says(&["unique", &first]);
    let mut http = node.http();
    let batch = json!([{"task": "plain", "kwargs": {"a": "x"}, "id": "beside"}, {"task": "strict"}]);
    let answer = http.ask("POST", "/v1/messages", &batch.to_string()).unwrap();
    assert_eq!(answer.status, 409);
    node.taskd(&["status", "beside"]).code(69);
    node.ok(&["cancel", &first]);
    let second = node.enqueue(&["strict"]);
    // A new life of the first would be a second holder.
    node.taskd(&["retry", &first]).code(73).one_clear_line().says(&[&first, &second]);
    node.ok(&["cancel", &second]);
    node.ok(&["retry", &first]);
    node.taskd(&["enqueue", "strict"]).code(73).says(&[&first]);
}

#[test]
fn the_newest_replaces_what_waits_and_not_what_runs() {
    let tasks = format!("{HOLD}unique = {{ on_conflict = \"replace\" }}\n{TASKS}");
    let node = Node::start(&with(&tasks).replace("processes = 2", "processes = 1"));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let runs = node.enqueue(&["hold"]);
    up.line();
    assert_eq!(node.enqueue(&["hold"]), runs, "what runs is answered");
    let first = node.enqueue(&["newest", "value=1"]);
    // It waits in the daemon's window by now, or on its way there.
    let answer = enqueued(&node, &["newest", "value=1"]);
    assert_eq!(answer["replaced"], json!(first), "{answer}");
    let view = node.finished(&first);
    assert_eq!(view["state"], "REVOKED");
    let second = answer["id"].as_str().unwrap();
    let why = node.taskd(&["result", &first]);
    assert!(why.err.contains(second) && why.err.contains("same key"), "{}", why.err);
    node.taskd(&["enqueue", "newest", "value=2"]).code(0);
    go.release(1);
    assert_eq!(node.finished(second)["state"], "SUCCESS");
    assert_eq!(node.finished(&runs)["state"], "SUCCESS");
}

#[test]
fn a_period_ends_the_hold() {
    let node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    let first = node.enqueue(&["hourly"]);
    let second = until("the end of the period", || Some(node.enqueue(&["hourly"])).filter(|id| *id != first));
    let ms = |id: &str| node.view(id)["enqueued"].as_i64().unwrap();
    assert!(ms(&second) - ms(&first) >= 700);
    assert_eq!(node.view(&first)["state"], "WAITING", "it lost the key, not its life");
}

#[test]
fn an_id_is_an_idempotency_key() {
    let mut node = Node::start(&with(TASKS));
    let mine = ["plain", "a=x", "--id", "order-1"];
    let first = enqueued(&node, &mine);
    assert_eq!((&first["known"], &first["differs"]), (&json!(null), &json!(null)));
    node.finished("order-1");
    let again = enqueued(&node, &["plain", "--id", "order-1", "--", "x"]);
    assert_eq!((&again["known"], &again["state"]), (&json!(true), &json!("SUCCESS")), "{again}");
    assert_eq!(again["differs"], json!(null), "the same call, written otherwise");
    for other in [&["plain", "a=y", "--id", "order-1"][..], &["hourly", "--id", "order-1"]] {
        let answer = enqueued(&node, other);
        assert_eq!((&answer["known"], &answer["differs"]), (&json!(true), &json!(true)), "{answer}");
    }
    let told = node.taskd(&["enqueue", "plain", "a=y", "--id", "order-1"]).code(0);
    assert_eq!(told.out, "order-1\n");
    told.says(&["another call"]);
    node.stop();
    node.launch();
    assert_eq!(enqueued(&node, &mine)["state"], "SUCCESS");
    let batch = node.path().join("batch");
    std::fs::write(&batch, "{\"task\":\"plain\",\"kwargs\":{\"a\":\"z\"},\"id\":\"order-1\"}\n").unwrap();
    node.taskd(&["enqueue", "--batch", batch.to_str().unwrap()]).code(0).says(&["another call"]);
    node.ok(&["pause", "default"]);
    node.ok(&["retry", "order-1"]);
    let again = enqueued(&node, &mine);
    assert_eq!((&again["known"], &again["state"]), (&json!(true), &json!("WAITING")));
    let exported = node.ok(&["store", "export"]);
    let file = node.path().join("export");
    std::fs::write(&file, exported).unwrap();
    let other = Node::start_with(Setup::new(&with(TASKS)));
    other.ok(&["pause", "default"]);
    other.ok(&["store", "import", file.to_str().unwrap()]);
    assert_eq!(enqueued(&other, &mine)["known"], true);
}

#[test]
fn one_with_links_is_answered_as_one_without() {
    let node = Node::start(&with(TASKS));
    node.ok(&["pause", "default"]);
    let first = node.enqueue(&["once", "user=7"]);
    let second = enqueued(&node, &["--link", "plain", "once", "user=7"]);
    assert_eq!((&second["id"], &second["unique"]), (&json!(first), &json!(true)), "{second}");
    assert_eq!(node.queue("default")["waiting"], 1, "nothing of it is stored");
    node.ok(&["enqueue", "--link", "plain", "strict"]);
    let refused = node.taskd(&["enqueue", "--link", "plain", "strict"]).fails();
    assert!(refused.err.contains("holds the key"), "{}", refused.err);
    let old = node.enqueue(&["newest", "value=a"]);
    let newer = enqueued(&node, &["--link", "plain", "--id", "n", "newest", "value=a"]);
    assert_eq!(newer["replaced"], json!(old), "{newer}");
    let again = enqueued(&node, &["--link", "plain", "--id", "n", "newest", "value=a"]);
    assert_eq!((&again["known"], &again["differs"]), (&json!(true), &serde_json::Value::Null), "{again}");
    let other = enqueued(&node, &["--link", "plain", "--id", "n", "newest", "value=c"]);
    assert_eq!(other["differs"], json!(true), "{other}");
}
