//! A node whose Redis is away, full, paused or mute: what systemd and `taskd status` are told, and that it goes on by
//! itself.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Node, Setup, until};
use crate::redis_server::Redis;

fn setup(name: &str, redis: &Redis) -> Setup {
    Setup::new(&format!(
        r#"
[taskd]
node = "{name}"
broker = "{}"
[pools.default]
processes = 2
[queues.default]
[tasks.true]
command = "true"
[tasks.wait]
command = "until [ -e {{dir}}/go ]; do sleep 0.05; done"
"#,
        redis.url(0)
    ))
}

fn notes(node: &Node) -> String {
    node.json(&["status"])["notes"].to_string()
}

fn succeeds(node: &Node) {
    let id = node.enqueue(&["true"]);
    assert_eq!(node.finished(&id)["state"], "SUCCESS");
}

/// What systemd sees of a unit whose broker is on a machine that is not up yet.
#[test]
fn a_node_is_ready_without_its_broker_and_begins_when_that_comes() {
    let mut redis = Redis::durable();
    let mut node = Node::prepare(setup("web", &redis));
    redis.kill();
    node.spawn();
    node.notify.has("READY=1");
    let status = node.notify.has("STATUS=paused: ");
    assert!(status.contains("Redis cannot be reached"), "{status}");
    assert!(node.json(&["status"])["state"].as_str().unwrap().starts_with("paused: "));
    // Who enqueues is told at once that it is not the time, and a list of what is running still comes.
    let ran = node.taskd(&["enqueue", "true"]).code(75);
    assert!(ran.err.contains("Redis"), "{}", ran.err);
    redis.revive();
    let since = Instant::now();
    node.notify.has("STATUS=running");
    succeeds(&node);
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_runs_while_redis_is_killed_ends_once_and_is_recorded() {
    let mut redis = Redis::durable();
    let mut node = Node::start_with(setup("web", &redis));
    let id = node.enqueue(&["wait"]);
    node.in_state(&id, "RUNNING");
    redis.kill();
    node.notify.has("STATUS=paused: ");
    // It ends while nobody can record that.
    std::fs::write(node.path().join("go"), "").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    redis.revive();
    node.notify.next("STATUS=running");
    let ended = node.finished(&id);
    assert_eq!((&ended["state"], &ended["attempt"]), (&"SUCCESS".into(), &1.into()), "{ended}");
    succeeds(&node);
}

#[test]
fn a_full_redis_is_said_and_what_is_there_is_done() {
    let redis = Redis::durable();
    let mut node = Node::start_with(setup("web", &redis));
    let ids: Vec<String> = (0..4).map(|_| node.enqueue(&["wait"])).collect();
    node.in_state(&ids[0], "RUNNING");
    let set = |bytes: &str| {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("SET").arg("maxmemory").arg(bytes).exec(&mut redis.connection(0)).unwrap();
    };
    set("1");
    let ran = node.taskd(&["enqueue", "true"]).code(75);
    assert!(ran.err.contains("out of memory"), "{}", ran.err);
    let status = node.notify.has("STATUS=paused: ");
    assert!(status.contains("nothing can be enqueued"), "{status}");
    assert!(notes(&node).contains("raise maxmemory"), "{}", notes(&node));
    // Those that run end, and those that wait begin.
    std::fs::write(node.path().join("go"), "").unwrap();
    for id in &ids {
        assert_eq!(node.finished(id)["state"], "SUCCESS");
    }
    set("0");
    node.notify.next("STATUS=running");
    succeeds(&node);
}

#[test]
fn a_failover_and_a_pause_are_outlived() {
    let redis = Redis::durable();
    let mut node = Node::start_with(setup("web", &redis));
    succeeds(&node);
    let tell = |words: &[&str]| {
        let mut cmd = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = cmd.arg(word));
        cmd.exec(&mut redis.connection(0)).unwrap();
    };
    tell(&["REPLICAOF", "127.0.0.1", "1"]);
    let status = node.notify.next("STATUS=paused: ");
    assert!(status.contains("replica"), "{status}");
    tell(&["REPLICAOF", "NO", "ONE"]);
    node.notify.next("STATUS=running");
    succeeds(&node);
    tell(&["CLIENT", "PAUSE", "2000", "ALL"]);
    succeeds(&node);
}

/// Connected and silent: words that nobody heard are made good, also where every one of them is lost.
#[test]
fn what_nobody_told_this_node_of_is_found_within_ten_seconds() {
    let redis = Redis::durable();
    let idle = Node::start_with(setup("idle", &redis));
    let busy = Node::start_with(setup("busy", &redis));
    succeeds(&idle);
    busy.ok(&["drain"]);
    let mut connection = redis.connection(0);
    // A lone node tells nobody: with the other one's name away, its words are not said.
    for round in 0..2 {
        let id = until("it is stored unheard", || {
            redis::cmd("ZREM").arg("taskd.alive").arg("idle").exec(&mut connection).unwrap();
            let id = busy.enqueue(&["true"]);
            // It may have said that it lives between the two.
            let alive: Option<f64> =
                redis::cmd("ZSCORE").arg("taskd.alive").arg("idle").query(&mut connection).unwrap();
            alive.is_none().then_some(id)
        });
        let since = Instant::now();
        assert_eq!(idle.finished(&id)["state"], "SUCCESS");
        assert!(since.elapsed() < Duration::from_secs(13), "{round}: {:?}", since.elapsed());
    }
    let nodes: Value = idle.json(&["status"])["nodes"].clone();
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
}

/// The daemon is replaced: what runs stays this node's, although another one looks for what is left behind.
#[test]
fn nobody_takes_over_what_a_replaced_daemon_runs() {
    let redis = Redis::durable();
    let node = Node::start_with(setup("web", &redis));
    let other = Node::start_with(setup("other", &redis));
    other.ok(&["drain"]);
    let id = node.enqueue(&["wait"]);
    node.in_state(&id, "RUNNING");
    other.ok(&["drain", "--off"]);
    let before = node.daemon();
    node.ok(&["reload", "--binary"]);
    until("another daemon", || (node.daemon() != before).then_some(()));
    // The other one would have it within moments.
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(node.path().join("go"), "").unwrap();
    let ended = node.finished(&id);
    assert_eq!((&ended["state"], &ended["attempt"]), (&"SUCCESS".into(), &1.into()), "{ended}");
}
