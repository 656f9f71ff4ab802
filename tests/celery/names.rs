//! Nodes that know of each other: `taskd status` on any of them, and names that only one of them can have.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
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
[tasks.long]
command = "exec sleep 600"
"#,
        redis.url(0)
    ))
}

/// The node of this name, as another one sees it.
fn seen(by: &Node, name: &str) -> Option<Value> {
    by.json(&["status"])["nodes"].as_array()?.iter().find(|node| node["name"] == name).cloned()
}

fn in_state(by: &Node, name: &str, state: &str) -> Value {
    until(&format!("{name} {state}"), || seen(by, name).filter(|node| node["state"] == state))
}

#[test]
fn status_on_any_node_lists_all_with_what_they_do() {
    let redis = Redis::start();
    let mut nodes: Vec<Node> =
        ["n1", "n2", "n3"].iter().map(|name| Node::start_with(setup(name, &redis))).collect();
    for by in &nodes {
        for name in ["n1", "n2", "n3"] {
            let node = until("it is listed", || seen(by, name));
            assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!((&node["state"], &node["pools"][0]["processes"]), (&"running".into(), &2.into()));
        }
        let list = by.json(&["status"])["nodes"].clone();
        let this: Vec<_> = list.as_array().unwrap().iter().filter(|node| node["this"] == true).collect();
        assert_eq!(this.len(), 1, "{list}");
    }
    let text = nodes[0].ok(&["status"]);
    assert!(text.contains("n1 (this)") && text.contains("default 0/2"), "{text}");
    // Work that runs somewhere is seen from elsewhere.
    nodes[0].enqueue(&["long"]);
    until("one slot is busy", || {
        let busy = |name| seen(&nodes[2], name).map_or(0, |node| node["pools"][0]["busy"].as_i64().unwrap());
        (busy("n1") + busy("n2") + busy("n3") == 1).then_some(())
    });
    nodes[0].ok(&["drain"]);
    in_state(&nodes[1], "n1", "draining");
    nodes[2].stop();
    in_state(&nodes[1], "n3", "stopped");
    // One that is killed says nothing any more.
    nodes[0].kill_launcher();
    assert_ne!(seen(&nodes[1], "n1").unwrap()["state"], "gone");
    in_state(&nodes[1], "n1", "gone");
}

#[test]
fn a_second_node_of_one_name_is_refused_and_the_first_goes_on() {
    let redis = Redis::start();
    let first = Node::start_with(setup("web", &redis));
    let second = Node::prepare(setup("web", &redis));
    let ran = second.refused().code(78);
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("web"), "{said}");
    assert!(seen(&first, "web").is_some_and(|node| node["this"] == true));
    first.enqueue(&["long"]);
    until("it works", || (first.json(&["status"])["counts"]["running"] == 1).then_some(()));
    // The message of the store, where Celery's tools are not there to see it first.
    let third = Node::prepare(Setup {
        config: format!("{}\n[access]\ncelery_control = false\n", setup("web", &redis).config),
        ..setup("web", &redis)
    });
    third.write_config(&third.setup.config);
    let ran = third.refused().code(78);
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("names of their own"), "{said}");
}

#[test]
fn a_node_that_is_killed_and_started_again_has_its_name_at_once() {
    let redis = Redis::start();
    let mut node = Node::start_with(setup("web", &redis));
    for _ in 0..3 {
        node.kill_launcher();
        let since = Instant::now();
        node.launch();
        until("it works", || {
            let status = node.json(&["status"]);
            (status["state"] == "running" && seen(&node, "web").is_some()).then_some(())
        });
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    }
}

/// A machine that is gone, and another one under its name: a container that was made anew.
#[test]
fn a_name_whose_holder_is_gone_is_free_when_its_lease_is_over() {
    let redis = Redis::start();
    let mut gone = Node::start_with(setup("web", &redis));
    gone.kill_launcher();
    let since = Instant::now();
    let mut new = Node::prepare(setup("web", &redis));
    new.spawn();
    let status = new.notify.has("STATUS=paused: a taskd");
    assert!(status.contains("did not say goodbye"), "{status}");
    assert!(
        !new.notify.seen.iter().any(|line| line == "READY=1"),
        "nothing is ready that may be refused yet"
    );
    new.notify.has("READY=1");
    let took = since.elapsed();
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(40), "{took:?}");
    // One that ended in order leaves its name behind at once.
    new.stop();
    let since = Instant::now();
    let third = Node::start_with(setup("web", &redis));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    drop(third);
}

/// It begins without Redis and is ready; when Redis is there, another one has its name.
#[test]
fn a_node_that_began_without_redis_learns_of_a_clash_when_redis_comes() {
    let mut redis = Redis::durable();
    let mut late = Node::prepare(setup("web", &redis));
    let mut first = Node::start_with(setup("web", &redis));
    redis.kill();
    late.launch();
    redis.revive();
    // One of the two has it, and the other one is ended with the reason: the first had it before.
    let code = late.ended();
    assert_eq!(code, 78, "{}", late.log());
    until("the first works", || (first.json(&["status"])["state"] == "running").then_some(()));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended(), 0);
}
