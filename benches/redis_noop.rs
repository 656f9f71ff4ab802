//! Celery's messages of a task that does nothing, drained from a Redis by a pool of two resident workers (late
//! acknowledgement, results stored): CPU time of every process but Redis, rate, and CPU time of Redis, beside Celery's
//! prefork pool, BullMQ, and a bare client that sends what nobody can do without.
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

use std::path::Path;

use bench::messages::{Drained, Template, drained};
use bench::redis::Redis;
use bench::{Better, Figure, cpu_of_tree, figure, floor, peers, redis_node, setting};

/// What it costs taskd, with workers that take so many messages at once.
fn taskd(dir: &Path, capacity: u32, n: usize) -> Drained {
    let redis = Redis::start(dir).expect("redis-server");
    let template = Template::of_celery(&redis);
    let node = redis_node(&redis, capacity, "");
    template.warm(&redis, 200);
    let ids = template.stage(&redis, n);
    redis.count();
    let figures = drained(&redis, &ids, || cpu_of_tree(node.launcher()));
    redis.print_commands(n);
    figures
}

fn main() -> std::process::ExitCode {
    let (rounds, n, fewer) = (setting("ROUNDS", 3), setting("N", 50_000), setting("PEERS_N", 5_000));
    peers::install();
    let (prefork, bull) = ("Celery 5.7 prefork -c 2", "BullMQ -c 2");
    let cost = "µs CPU a task without Redis's";
    let what = "no-op on Redis, 2 resident workers of capacity 16";
    let lower = |limit| Some((Better::Lower, limit));
    let mut of_celery = Figure::new("redis_noop", what, cost, prefork, lower(0.05));
    let mut of_bullmq = Figure::new("redis_noop_bullmq", what, cost, bull, lower(1.0));
    let mut rate = Figure::new("redis_noop_rate", what, "tasks/s", prefork, Some((Better::Higher, 15.0)));
    let server = "µs CPU of Redis's a task";
    let mut of_floor =
        Figure::new("redis_noop_server", what, server, "bare client, batches of 8", lower(2.0));
    let mut of_floor_1 = Figure::new("redis_noop_server_1", what, server, "bare client, one at a time", None);
    let mut of_peers = Figure::new("redis_noop_server_celery", what, server, prefork, None);
    let what = "no-op on Redis, 2 resident workers, one message at a time";
    let mut one = Figure::new("redis_noop_1", what, cost, prefork, None);
    let mut one_rate = Figure::new("redis_noop_1_rate", what, "tasks/s", prefork, None);
    let mut one_server = Figure::new("redis_noop_1_server", what, server, "bare client, batches of 8", None);
    for _ in 0..rounds {
        let dirs: Vec<_> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
        let eight = floor::drains(dirs[0].path(), n, 8);
        let single = floor::drains(dirs[1].path(), n, 1);
        let celery = peers::celery_drains(dirs[2].path(), fewer);
        let sixteen = taskd(dirs[3].path(), 16, n);
        let bullmq = peers::bullmq_drains(dirs[4].path(), fewer * 2);
        let ones = taskd(dirs[5].path(), 1, n);
        of_celery.round(celery.cpu, sixteen.cpu);
        of_bullmq.round(bullmq.cpu, sixteen.cpu);
        rate.round(celery.rate, sixteen.rate);
        of_floor.round(eight.redis, sixteen.redis);
        of_floor_1.round(single.redis, sixteen.redis);
        of_peers.round(celery.redis, sixteen.redis);
        one.round(celery.cpu, ones.cpu);
        one_rate.round(celery.rate, ones.rate);
        one_server.round(eight.redis, ones.redis);
    }
    let holds = [of_celery.end(), of_bullmq.end(), rate.end(), of_floor.end()];
    for reported in [of_floor_1, of_peers, one, one_rate, one_server] {
        reported.end();
    }
    figure::exit(&holds)
}
