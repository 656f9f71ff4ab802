//! How soon work goes on when a Redis that was killed is back: from its first PONG until a resident worker hears of a
//! task. Every other time the queue was full when it was killed; else it is empty and one message comes with the PONG.
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

use std::sync::mpsc;
use std::time::Duration;

use bench::messages::{QUEUE, Template, wait};
use bench::redis::Redis;
use bench::stamps::Stamps;
use bench::{Better, Figure, figure, now_ns, redis_node, setting};

/// Messages of a full queue.
const MANY: usize = 3_000;

/// Passes every start on as it comes: a worker must not wait for who reads them.
fn collected(stamps: Stamps) -> mpsc::Receiver<f64> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            if let Some(start) = stamps.within(Duration::from_mins(10))
                && tell.send(start).is_err()
            {
                return;
            }
        }
    });
    told
}

fn main() -> std::process::ExitCode {
    let trials = setting("TRIALS", 50);
    bench::peers::install();
    let dir = tempfile::tempdir().unwrap();
    let mut redis = Redis::durable(dir.path()).expect("redis-server");
    let template = Template::of_celery(&redis);
    let stamps = Stamps::new(dir.path());
    let environment = stamps.environment();
    let starts = collected(stamps);
    let node = redis_node(&redis, 16, &environment);
    template.warm(&redis, 200);
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for trial in 0..trials {
        let full = trial % 2 == 1;
        if full {
            template.send(&redis, QUEUE, MANY);
        }
        redis.kill();
        // From a blip to longer than the node's longest pause between two attempts to connect, in no step with them.
        std::thread::sleep(Duration::from_millis(50 + (trial as u64 * 1_237) % 6_000));
        let pong = redis.revive();
        let since = now_ns() - pong.elapsed().as_nanos() as f64;
        // Those that were leased when it was killed may have begun before.
        if !full {
            template.send(&redis, QUEUE, 1);
        }
        let first = loop {
            let start = starts.recv_timeout(Duration::from_secs(60)).expect("nothing starts within a minute");
            if start > since {
                break start;
            }
        };
        let taken = (first - since) / 1e6;
        println!("  trial {trial}, {}: {taken:.1} ms", if full { "full" } else { "idle" });
        if full {
            busy.push(taken)
        } else {
            idle.push(taken)
        }
        let mut to = redis.connection();
        wait(|| {
            let (waiting, unacked): (usize, usize) =
                redis::pipe().llen(QUEUE).hlen("unacked").query(&mut to).unwrap();
            let queue = node.queue(QUEUE);
            waiting + unacked == 0 && queue["waiting"] == 0 && queue["running"] == 0
        });
        while starts.try_recv().is_ok() {}
    }
    let all = [idle.clone(), busy.clone()].concat();
    // Of 50 the p99 is the slowest.
    let slowest = all.iter().copied().fold(0.0, f64::max);
    let what = "Redis back to first start, slowest of 50";
    let mut bound = Figure::new("redis_restart", what, "ms", "2 s", Some((Better::Lower, 1.0)));
    bound.round(2_000.0, slowest);
    let mut middle = Figure::new("redis_restart_p50", "the same, median", "ms", "2 s", None);
    middle.round(2_000.0, figure::median(all));
    if !busy.is_empty() {
        println!(
            "  slowest of the idle {:.0} ms, of the full {:.0} ms",
            idle.iter().copied().fold(0.0, f64::max),
            busy.iter().copied().fold(0.0, f64::max)
        );
    }
    middle.end();
    figure::exit(&[bound.end()])
}
