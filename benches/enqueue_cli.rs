//! `taskd enqueue` as a whole process beside `redis-cli LPUSH` as a whole process.
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

use std::process::{Command, Stdio};
use std::time::Instant;

use bench::harness::node::TASKD;
use bench::redis::Redis;
use bench::{Better, Figure, Node, TRUE, figure, setting};

/// Milliseconds from spawn to end.
fn timed(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    let took = start.elapsed().as_secs_f64() * 1000.0;
    assert!(status.success(), "{command:?}");
    took
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 100));
    let node = Node::start(TRUE);
    // What runs would take the processor from what is measured.
    node.ok(&["pause", "default"]);
    let Some(redis) = Redis::start(node.path()) else {
        println!("not measured: redis-server is not installed");
        return std::process::ExitCode::FAILURE;
    };
    let payload = "x".repeat(200);
    let limit = Some((Better::Lower, 2.0));
    let mut figure =
        Figure::new("enqueue_cli", "taskd enqueue, a process", "ms (p50)", "redis-cli LPUSH", limit);
    for _ in 0..rounds {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let push = ["-s", &redis.socket, "LPUSH", "queue", &payload];
            theirs.push(timed(Command::new("redis-cli").args(push)));
            let mut enqueue = Command::new(TASKD);
            ours.push(timed(enqueue.args(["enqueue", "true"]).env("TASKD_SOCKET", node.socket())));
        }
        figure.round(figure::median(theirs), figure::median(ours));
    }
    figure::exit(&[figure.end()])
}
