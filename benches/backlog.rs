//! 1,000,000 waiting messages: the memory of the daemon, and the drain rate beside 1,000 waiting.
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

use bench::{Better, Figure, Node, TRUE, figure, procs, rate_of, setting};
use serde_json::json;

/// Bytes of the daemon's own and its share of shared memory.
fn pss(node: &Node) -> f64 {
    procs::pss(node.daemon()).expect("/proc/PID/smaps_rollup of the daemon needs root") as f64
}

/// How many of the queue wait (its order is that of enqueueing, so this is a place in the list of ids).
fn waiting(node: &Node) -> usize {
    usize::try_from(node.queue("default")["waiting"].as_u64().unwrap()).unwrap()
}

/// Lets the queue go until `n` more have run; runs per second of those in the middle, where both slots are
/// busy on either side.
fn drain(node: &Node, ids: &[String], n: usize) -> f64 {
    let from = ids.len() - waiting(node);
    let some = &ids[from..(from + n).min(ids.len())];
    node.ok(&["resume", "default"]);
    node.all_finished(&some[some.len() - 4..]);
    node.ok(&["pause", "default"]);
    rate_of(node, &some[some.len() / 20..some.len() * 19 / 20])
}

fn main() -> std::process::ExitCode {
    let (rounds, backlog, n) = (setting("ROUNDS", 5), setting("BACKLOG", 1_000_000), setting("N", 1000));
    let (full, small) = (Node::start(TRUE), Node::start(TRUE));
    for node in [&full, &small] {
        node.all_finished(&node.enqueue_many("true", 100)); // runners are up, caches are warm
        node.ok(&["pause", "default"]);
    }
    let empty = pss(&full);
    let mut http = full.http();
    let mut ids = Vec::with_capacity(backlog);
    while ids.len() < backlog {
        ids.extend(http.enqueue(&json!(vec![json!({"task": "true"}); 5000.min(backlog - ids.len())])));
    }
    let grown = pss(&full) - empty;
    let mebi = f64::from(1 << 20);
    let limit = Some((Better::Lower, 1.0));
    let mut memory =
        Figure::new("backlog_memory", "growth of the daemon, 1,000,000 waiting", "MiB", "20 MB", limit);
    memory.round(20e6 / mebi, grown / mebi);

    let limit = Some((Better::Higher, 0.9));
    let mut speed = Figure::new("backlog", "drain with 1,000,000 waiting", "runs/s", "1,000 waiting", limit);
    for _ in 0..rounds {
        let few = small.enqueue_many("true", n);
        let beside = drain(&small, &few, n);
        speed.round(beside, drain(&full, &ids, n));
    }
    figure::exit(&[memory.end(), speed.end()])
}
