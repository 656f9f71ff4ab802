//! 1,000,000 messages of Celery's waiting on a Redis: the memory of the node, and the drain rate beside 10,000 waiting.
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

use std::time::{Duration, Instant};

use bench::messages::{QUEUE, Template, all_have_results, let_go, wait, withdraw};
use bench::redis::Redis;
use bench::{Better, Figure, Node, cpu_of_tree, figure, procs, pss_of_tree, redis_node, setting};

/// A node with its Redis, on which nothing waits between rounds: the backlog is put in the queue's place at once, and
/// taken away from it again.
struct Side {
    redis: Redis,
    node: Node,
    template: Template,
    _dir: tempfile::TempDir,
}

impl Side {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let redis = Redis::start(dir.path()).expect("redis-server");
        let template = Template::of_celery(&redis);
        let node = redis_node(&redis, 16, "");
        template.warm(&redis, 2_000);
        Self { redis, node, template, _dir: dir }
    }

    /// Lets the staged messages go, whose next is `ids[0]`; tasks per second between the results of the first and of the
    /// last twentieth of them, and CPU time of everybody, Redis included, in microseconds a task.
    fn rate(&self, ids: &[String]) -> (f64, f64) {
        let mut to = self.redis.connection();
        let (early, late) = (ids.len() / 20, ids.len() * 19 / 20);
        let mut when = |n: usize| {
            let begun = Instant::now();
            while !all_have_results(&mut to, std::slice::from_ref(&ids[n])) {
                assert!(begun.elapsed().as_secs() < 600, "the queue is not drained");
                std::thread::sleep(Duration::from_millis(2));
            }
            (Instant::now(), cpu_of_tree(self.node.launcher()) + self.redis.cpu_ns())
        };
        let_go(&mut self.redis.connection());
        let (first, before) = when(early);
        let (last, after) = when(late);
        let n = (late - early) as f64;
        (n / (last - first).as_secs_f64(), (after - before) as f64 / 1000.0 / n)
    }

    /// Waits until nothing of what was let go is under way.
    fn settle(&self) {
        let mut to = self.redis.connection();
        wait(|| {
            let (waiting, unacked): (usize, usize) =
                redis::pipe().llen(QUEUE).hlen("unacked").query(&mut to).unwrap();
            let queue = self.node.queue(QUEUE);
            waiting + unacked == 0 && queue["waiting"] == 0 && queue["running"] == 0
        });
    }

    fn pss(&self) -> f64 {
        pss_of_tree(self.node.launcher()) as f64
    }
}

fn main() -> std::process::ExitCode {
    let (rounds, backlog, n) = (setting("ROUNDS", 5), setting("BACKLOG", 1_000_000), setting("N", 10_000));
    bench::peers::install();
    let (full, small) = (Side::start(), Side::start());
    // Both have worked as long: what a rate needs of memory is there before the backlog is.
    for side in [&full, &small] {
        side.rate(&side.template.stage(&side.redis, n));
        side.settle();
    }
    let empty = full.pss();
    let ids = full.template.stage(&full.redis, backlog);
    let held = procs::pss(full.redis.pid()).expect("/proc/PID/smaps_rollup of redis-server") as f64;
    let mut left = backlog;
    let limit = Some((Better::Higher, 0.9));
    let mut speed = Figure::new(
        "redis_backlog",
        "drain with 1,000,000 waiting on Redis",
        "tasks/s",
        "10,000 waiting",
        limit,
    );
    let what = "what it costs with 1,000,000 waiting on Redis";
    let mut cost = Figure::new("redis_backlog_cpu", what, "µs CPU a task, all", "10,000 waiting", None);
    let mut most = 0.0_f64;
    for _ in 0..rounds {
        let few = small.template.stage(&small.redis, n);
        let (beside, little) = small.rate(&few);
        small.settle();
        let next = &ids[backlog - left..];
        let (rate, much) = full.rate(&next[..n.min(next.len())]);
        most = most.max(full.pss());
        left = withdraw(&mut full.redis.connection());
        full.settle();
        speed.round(beside, rate);
        cost.round(little, much);
    }
    let mebi = f64::from(1 << 20);
    let limit = Some((Better::Lower, 1.0));
    let what = "growth of a node, 1,000,000 waiting on Redis";
    let mut memory = Figure::new("redis_backlog_memory", what, "MiB", "20 MB", limit);
    memory.round(20e6 / mebi, (most - empty) / mebi);
    println!("  Redis held {:.0} MiB with the backlog", held / mebi);
    cost.end();
    figure::exit(&[memory.end(), speed.end()])
}
