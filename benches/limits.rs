//! `/bin/true` under a limit that never binds, beside the same without one.
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

use bench::{Better, Figure, Node, figure, rate_of, setting};
use serde_json::{Value, json};

/// The same task three times: without a limit, with a rate and places for all, and for each customer.
const TASKS: &str = "[pools.default]\nprocesses = 2\n\
[tasks.free]\nexec = [\"/bin/true\"]\nparams.customer = \"int\"\n\
[tasks.limited]\nexec = [\"/bin/true\"]\nparams.customer = \"int\"\nrate_limit = \"1000000/s\"\nconcurrency = 1000\n\
[tasks.each]\nexec = [\"/bin/true\"]\nparams.customer = \"int\"\nrate_limit = \"1000000/s\"\n\
rate_limit_key = \"customer\"\nconcurrency = 1000\nconcurrency_key = \"customer\"\n";

/// Fills the paused queue, lets it go, waits for the last: runs per second.
fn drain(node: &Node, task: &str, n: usize) -> f64 {
    node.ok(&["pause", "default"]);
    let mut http = node.http();
    let mut ids = Vec::with_capacity(n);
    while ids.len() < n {
        let batch = ids.len()..n.min(ids.len() + 500);
        let batch = batch.map(|i| json!({"task": task, "kwargs": {"customer": i % 100}}));
        ids.extend(http.enqueue(&Value::Array(batch.collect())));
    }
    node.ok(&["resume", "default"]);
    node.all_finished(&ids);
    rate_of(node, &ids)
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 7), setting("N", 3000));
    let node = Node::start(TASKS);
    for task in ["free", "limited", "each"] {
        drain(&node, task, 200); // runners are up, caches are warm
    }
    let limit = Some((Better::Higher, 0.95));
    let what = "/bin/true under a rate_limit and concurrency that never bind";
    let mut all = Figure::new("limits", what, "runs/s", "no limit", limit);
    let what = "the same for each of 100 customers";
    let mut each = Figure::new("limits_each", what, "runs/s", "no limit", limit);
    for _ in 0..rounds {
        let free = drain(&node, "free", n);
        all.round(free, drain(&node, "limited", n));
        each.round(drain(&node, "free", n), drain(&node, "each", n));
    }
    figure::exit(&[all.end(), each.end()])
}
