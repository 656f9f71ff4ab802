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

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bench::redis::Redis;
use bench::{Better, Figure, Node, Setup, cpu_of_tree, figure, procs, setting, until};

/// Stopped when dropped, with all below it.
struct Peer(Child);

impl Peer {
    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for pid in procs::below(self.pid()) {
            procs::kill9(pid);
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn ok(command: &mut Command) {
    let status = command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// Microseconds of CPU time a message.
fn celery(dir: &Path, n: usize) -> f64 {
    let redis = Redis::start(dir).expect("redis-server");
    let python = root().join("target/bench/peers/venv/bin/python");
    let app = root().join("benches/peers");
    let with = |queue: &str| {
        let mut command = Command::new(&python);
        command.env("REDIS", format!("redis+socket://{}", redis.socket)).env("QUEUE", queue);
        command.env("PYTHONPATH", &app).stderr(Stdio::null());
        command
    };
    let mut worker = with("warm");
    worker.args(["-m", "celery", "-A", "celery_noop", "worker", "-c", "2", "-Q", "warm", "--without-gossip"]);
    worker.args(["--without-mingle", "-l", "ERROR"]).current_dir(dir).stdout(Stdio::null());
    let worker = Peer(worker.spawn().unwrap());
    let results =
        || redis.number(&["EVAL", "return #redis.call('KEYS', 'celery-task-meta-*')", "0"]) as usize;
    ok(with("warm").arg(app.join("celery_noop.py")).arg("50"));
    until("celery to warm up", || (results() == 50).then_some(()));
    ok(with("celery").arg(app.join("celery_noop.py")).arg(n.to_string()));
    let used = || cpu_of_tree(worker.pid()) + procs::cpu_ns(redis.pid());
    let before = used();
    ok(with("celery").arg(app.join("celery_noop.py")).arg("go"));
    while redis.number(&["LLEN", "celery"]) > 0 {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    until("celery's last result", || (results() == n + 50).then_some(()));
    (used() - before) as f64 / 1000.0 / n as f64
}

/// The same of BullMQ.
fn bullmq(dir: &Path, n: usize) -> f64 {
    let redis = Redis::start(dir).expect("redis-server");
    let node = || {
        let mut command = Command::new("node");
        command.arg(root().join("benches/peers/bullmq_noop.js")).env("REDIS_SOCKET", &redis.socket);
        command.current_dir(root());
        command
    };
    let mut worker = node();
    let said = dir.join("bullmq");
    worker.arg("worker").stdout(std::fs::File::create(&said).unwrap());
    let worker = Peer(worker.spawn().unwrap());
    until("bullmq", || std::fs::read_to_string(&said).unwrap().contains("READY").then_some(()));
    ok(node().arg(n.to_string()));
    let used = || cpu_of_tree(worker.pid()) + procs::cpu_ns(redis.pid());
    let before = used();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.pid()), nix::sys::signal::SIGUSR2).unwrap();
    until("bullmq's last", || (redis.number(&["ZCARD", "bull:noop:completed"]) as usize == n).then_some(()));
    (used() - before) as f64 / 1000.0 / n as f64
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
    let (rounds, n, peers) = (setting("ROUNDS", 3), setting("N", 50_000), setting("PEERS_N", 5_000));
    ok(Command::new("bash").arg("benches/peers/install.sh"));
    let compiled = PathBuf::from(env!("CARGO_BIN_EXE_taskd")).with_file_name("examples").join("noop_worker");
    let compiled = format!("[{:?}]", compiled.to_str().unwrap());
    let python = format!(
        "[\"/usr/bin/env\", \"PYTHONPATH={0}/packaging/python:{0}/benches/peers\", \"python3\", \"-m\", \"taskd_worker\", \"taskd_noop\"]",
        root().display()
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
        let celery = celery(dirs[0].path(), peers);
        let bullmq = bullmq(dirs[1].path(), peers * 2);
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
