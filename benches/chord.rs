//! A chord of many members on the embedded store, drained by two resident workers that do nothing: from its launch to
//! the end of its body, beside the same members enqueued as plain messages, from the first request to the last end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what is wrong by panicking"
)]
#![allow(unreachable_pub, reason = "the harness is shared with the tests")]

#[path = "harness/mod.rs"]
mod bench;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bench::{Better, Figure, Node, Setup, figure, setting};
use serde_json::{Value, json};

/// Milliseconds until the members of a plain group are done.
fn plain(node: &Node, n: usize) -> f64 {
    let begun = Instant::now();
    let mut http = node.http();
    let all: Vec<Value> = (0..n).map(|_| json!({"task": "noop"})).collect();
    let ids = http.enqueue(&Value::Array(all));
    assert_eq!(ids.len(), n);
    drained(node);
    let taken = begun.elapsed();
    assert_eq!(node.finished(&ids[n - 1])["state"], "SUCCESS");
    taken.as_secs_f64() * 1000.0
}

/// Nothing waits and nothing runs any more.
fn drained(node: &Node) {
    let patience = Instant::now();
    loop {
        let queue = node.queue("default");
        if queue["waiting"] == 0 && queue["running"] == 0 {
            return;
        }
        assert!(patience.elapsed().as_secs() < 600, "the queue does not empty");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same of a chord, until the end of its body.
fn chord(node: &Node, n: usize) -> f64 {
    let begun = Instant::now();
    let mut http = node.http();
    let members: Vec<Value> = (0..n).map(|_| json!({"task": "noop"})).collect();
    let body = json!({"chord": {"header": members, "body": {"task": "noop", "name": "body"}}}).to_string();
    let launched = http.ask("POST", "/v1/workflows", &body).unwrap();
    assert_eq!(launched.status, 200, "{launched:?}");
    let id = launched.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/messages/{id}/result?wait_ms=60000");
    let view = loop {
        let view = http.get(&path);
        if view["state"] != "RUNNING" {
            break view;
        }
    };
    let taken = begun.elapsed();
    assert_eq!(view["state"], "SUCCESS", "{view}");
    let whole = http.get(&format!("/v1/workflows/{id}?from={n}"));
    let body = node.view(whole["list"][0]["id"].as_str().unwrap());
    assert_eq!(
        (&body["state"], &body["attempt"]),
        (&json!("SUCCESS"), &json!(1)),
        "the body ran exactly once"
    );
    assert_eq!(body["args"][0].as_array().map(Vec::len), Some(n));
    taken.as_secs_f64() * 1000.0
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 10_000));
    let worker = PathBuf::from(env!("CARGO_BIN_EXE_taskd")).with_file_name("examples").join("noop_worker");
    let config = format!(
        "[results]\nmax_records = 1000000\n[pools.default]\nprocesses = 2\nworker = [{:?}]\n\
         environment = {{ NOOP_CAPACITY = \"16\" }}\n[tasks.noop]\n",
        worker.to_str().unwrap()
    );
    let node = Node::start_with(Setup::new(&config));
    node.all_finished(&node.enqueue_many("noop", 200));
    let what = "a chord of 10,000 members and its body";
    let limit = Some((Better::Lower, 1.3));
    let mut figure = Figure::new("chord", what, "ms", "10,000 plain messages", limit);
    for round in 0..rounds {
        // Whatever the one leaves to the other is left in both directions.
        let (base, ours) = if round % 2 == 0 {
            let base = plain(&node, n);
            (base, chord(&node, n))
        } else {
            let ours = chord(&node, n);
            (plain(&node, n), ours)
        };
        figure.round(base, ours);
    }
    figure::exit(&[figure.end()])
}
