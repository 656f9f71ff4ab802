//! `taskd reload` and SIGHUP.

use nix::sys::signal::Signal;

use super::harness::{Node, until};
use super::with;

const OLD: &str = "[tasks.say]\ncommand = \"echo up >{dir}/up; read x <{dir}/go; echo old\"\n";
const NEW: &str = "[tasks.say]\ncommand = \"echo new\"\n[tasks.more]\ncommand = \"true\"\n";

#[test]
fn what_runs_keeps_its_definition_and_the_next_run_has_the_new_one() {
    let mut node = Node::start(&with(OLD));
    let (mut up, mut go) = (node.fifo("up"), node.fifo("go"));
    let id = node.enqueue(&["say"]);
    up.line();
    node.taskd(&["enqueue", "more"]).code(69);
    node.write_config(&with(NEW));
    node.ok(&["reload"]);
    assert_eq!(node.http().get("/v1/status")["generation"], 2);
    let second = node.finished(&node.enqueue(&["say"]));
    assert_eq!(second["outcome"]["result"], "new");
    node.ok(&["enqueue", "more"]);
    go.release(1);
    let first = node.finished(&id);
    assert_eq!((&first["outcome"]["result"], &first["attempt"]), (&"old".into(), &1.into()));
    // Towards systemd, READY=1 follows RELOADING=1.
    node.notify.has("RELOADING=1");
}

#[test]
fn a_faulty_file_changes_nothing_and_says_why() {
    let node = Node::start(&with(NEW));
    node.write_config(&with("[tasks.say]\ncomand = \"echo x\"\n[queues.x]\nweight = 0\n"));
    node.taskd(&["reload"]).code(78).says(&["comand", "command", "weight", "taskd.toml:"]);
    assert_eq!(node.http().get("/v1/status")["generation"], 1);
    assert_eq!(node.finished(&node.enqueue(&["say"]))["outcome"]["result"], "new");
}

#[test]
fn what_needs_a_restart_and_what_would_lose_messages_is_refused() {
    let config = with(&format!("{NEW}[queues.side]\n"));
    let node = Node::start(&config);
    node.ok(&["pause", "side"]);
    let id = node.enqueue(&["say", "--queue", "side"]);
    node.write_config(&config.replace("[queues.side]\n", ""));
    node.taskd(&["reload"]).fails().says(&["side"]);
    node.write_config(&config.replace("[taskd]\n", "[taskd]\nnode = \"other\"\n"));
    node.taskd(&["reload"]).fails().says(&["node", "restart"]);
    node.write_config(&config);
    node.ok(&["reload"]);
    node.ok(&["resume", "side"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
}

#[test]
fn sighup_reloads_and_a_storm_of_it_harms_nothing() {
    let node = Node::start(&with(OLD));
    node.write_config(&with(NEW));
    for _ in 0..200 {
        node.signal(Signal::SIGHUP);
    }
    until("the new task", || (node.taskd(&["enqueue", "more"]).code == 0).then_some(()));
    assert_eq!(node.json(&["status"])["epoch"], 1);
}

#[test]
fn a_message_whose_task_went_away_comes_back_with_it() {
    let node = Node::start(&with(NEW));
    node.ok(&["pause", "default"]);
    let id = node.enqueue(&["more"]);
    node.write_config(&with("[tasks.say]\ncommand = \"echo new\"\n"));
    node.ok(&["reload"]);
    node.ok(&["resume", "default"]);
    until("it is set aside", || (node.queue("default")["unknown"] == 1).then_some(()));
    node.write_config(&with(NEW));
    node.ok(&["reload"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
    assert_eq!(node.queue("default")["unknown"], 0);
}
