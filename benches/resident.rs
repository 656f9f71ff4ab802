//! Messages that do nothing, drained by a pool of two resident workers on the embedded store (durable, late
//! acknowledgement, results stored): CPU time of every process of taskd per message, beside Celery's prefork
//! pool and BullMQ on a Redis of their own, which is counted in.
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

use bench::{Better, Figure, Node, Setup, cpu_of_tree, figure, noop_worker, peers, setting};

/// Microseconds of CPU time a message, Redis counted in.
fn celery(dir: &Path, n: usize) -> f64 {
    let drained = peers::celery_drains(dir, n);
    drained.cpu + drained.redis
}

/// The same of BullMQ.
fn bullmq(dir: &Path, n: usize) -> f64 {
    let drained = peers::bullmq_drains(dir, n);
    drained.cpu + drained.redis
}

/// taskd with this worker, which takes so many messages at once.
fn taskd(worker: &str, capacity: u32, n: usize) -> f64 {
    let config = format!(
        "[results]\nmax_records = 1000000\n[pools.default]\nprocesses = 2\nworker = {worker}\n\
         environment = {{ NOOP_CAPACITY = \"{capacity}\" }}\n[tasks.noop]\n"
    );
    let node = Node::start_with(Setup::new(&config));
    node.all_finished(&node.enqueue_many("noop", 200));
    node.ok(&["pause", "default"]);
    let ids = node.enqueue_many("noop", n);
    let before = cpu_of_tree(node.launcher());
    node.ok(&["resume", "default"]);
    let empty = || {
        let queue = node.queue("default");
        (queue["waiting"] == 0 && queue["running"] == 0).then_some(())
    };
    let patience = std::time::Instant::now();
    while empty().is_none() {
        assert!(patience.elapsed().as_secs() < 600, "the queue does not empty");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let used = cpu_of_tree(node.launcher()) - before;
    for id in [&ids[0], &ids[n / 2], &ids[n - 1]] {
        assert_eq!(node.finished(id)["state"], "SUCCESS");
    }
    used as f64 / 1000.0 / n as f64
}

fn main() -> std::process::ExitCode {
    let (rounds, n, fewer) = (setting("ROUNDS", 3), setting("N", 50_000), setting("PEERS_N", 5_000));
    peers::install();
    let compiled = noop_worker();
    let python = format!(
        "[\"/usr/bin/env\", \"PYTHONPATH={0}/packaging/python:{0}/benches/peers\", \"python3\", \"-m\", \"taskd_worker\", \"taskd_noop\"]",
        peers::root().display()
    );
    let unit = "µs CPU a message";
    let (twentieth, third) = (Some((Better::Lower, 0.05)), Some((Better::Lower, 1.0 / 3.0)));
    let (prefork, bull) = ("Celery 5.7 prefork -c 2", "BullMQ -c 2");
    let what = "no-op, 2 resident workers, one message at a time";
    let mut one_celery = Figure::new("resident_1", what, unit, prefork, twentieth);
    let mut one_bullmq = Figure::new("resident_1_bullmq", what, unit, bull, third);
    let what = "no-op, 2 resident workers of capacity 16";
    let mut of_celery = Figure::new("resident_16", what, unit, prefork, twentieth);
    let mut of_bullmq = Figure::new("resident_16_bullmq", what, unit, bull, third);
    let what = "no-op, 2 Python workers, one message at a time";
    let mut of_python = Figure::new("resident_python", what, unit, prefork, None);
    for _ in 0..rounds {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let celery = celery(dirs[0].path(), fewer);
        let bullmq = bullmq(dirs[1].path(), fewer * 2);
        println!("  peers: {celery:.0} and {bullmq:.0} {unit}");
        let one = taskd(&compiled, 1, n);
        one_celery.round(celery, one);
        one_bullmq.round(bullmq, one);
        let ours = taskd(&compiled, 16, n);
        of_celery.round(celery, ours);
        of_bullmq.round(bullmq, ours);
        of_python.round(celery, taskd(&python, 1, n / 5));
    }
    let holds = [one_celery.end(), one_bullmq.end(), of_celery.end(), of_bullmq.end()];
    of_python.end();
    figure::exit(&holds)
}
