//! An app of Celery's as it is, its task that does nothing: run by a pool of taskd's with two processes beside
//! `celery worker`, prefork with two, on the same kind of Redis: rate, CPU time, and memory of all processes.
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
use bench::{Better, Figure, Node, Setup, cpu_of_tree, figure, peers, pss_of_tree, setting};

/// Rate and costs of a drain, and bytes of memory after it.
type Measured = (Drained, f64);

fn celery(dir: &Path, n: usize) -> Measured {
    let redis = Redis::start(dir).expect("redis-server");
    let template = Template::of_celery(&redis);
    let worker = peers::celery(dir, &redis, &template);
    let ids = template.stage(&redis, n);
    (drained(&redis, &ids, || cpu_of_tree(worker.pid())), pss_of_tree(worker.pid()) as f64)
}

fn taskd(dir: &Path, preload: bool, n: usize) -> Measured {
    let redis = Redis::start(dir).expect("redis-server");
    let template = Template::of_celery(&redis);
    let (home, variables) = peers::app(&redis);
    let variables: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    let node = Node::start_with(Setup::new(&format!(
        "[taskd]\nbroker = {:?}\n[pools.default]\nprocesses = 2\ncelery_app = \"celery_noop:app\"\npython = {:?}\n\
         working_directory = {home:?}\n{}environment = {{ {} }}\n[queues.celery]\n[tasks.noop]\nqueue = \"celery\"\n",
        redis.url(),
        peers::python(),
        if preload { "preload = true\n" } else { "" },
        variables.join(", "),
    )));
    template.warm(&redis, 100);
    let ids = template.stage(&redis, n);
    (drained(&redis, &ids, || cpu_of_tree(node.launcher())), pss_of_tree(node.launcher()) as f64)
}

fn main() -> std::process::ExitCode {
    let (rounds, n, preload) = (setting("ROUNDS", 3), setting("N", 5_000), setting("PRELOAD", 0) > 0);
    peers::install();
    let prefork = "celery worker, prefork -c 2";
    let what = "no-op task of a Celery app, 2 processes";
    let limit = Some((Better::Higher, 1.5));
    let mut rate = Figure::new("celery_app", what, "tasks/s", prefork, limit);
    let limit = Some((Better::Lower, 1.0));
    let mut memory = Figure::new("celery_app_memory", what, "MiB of all processes", prefork, limit);
    let mut cost = Figure::new("celery_app_cpu", what, "µs CPU a task without Redis's", prefork, None);
    for _ in 0..rounds {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (theirs, held) = celery(dirs[0].path(), n);
        let (ours, holds) = taskd(dirs[1].path(), preload, n);
        rate.round(theirs.rate, ours.rate);
        let mebi = f64::from(1 << 20);
        memory.round(held / mebi, holds / mebi);
        cost.round(theirs.cpu, ours.cpu);
    }
    cost.end();
    figure::exit(&[rate.end(), memory.end()])
}
