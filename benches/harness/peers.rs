//! Who else drains queues: Celery's prefork pool and BullMQ, each on a Redis of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::messages::{Drained, Template, drained, metered};
use super::redis::Redis;
use super::{cpu_of_tree, procs, until};

/// A program that is stopped when dropped, with all below it.
pub struct Peer(Child);

impl Peer {
    /// Its process.
    pub fn pid(&self) -> i32 {
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

/// The directory that `Cargo.toml` stands in.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command there, which must succeed.
pub fn ok(command: &mut Command) {
    let status = command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// Installs them where they are not there yet.
pub fn install() {
    ok(Command::new("bash").arg("benches/peers/install.sh"));
}

/// The Python with Celery.
pub fn python() -> PathBuf {
    root().join("target/bench/peers/venv/bin/python")
}

/// The directory of the app `celery_noop` and the environment that it wants.
pub fn app(redis: &Redis) -> (PathBuf, [(&'static str, String); 2]) {
    let dir = root().join("benches/peers");
    let path = dir.to_string_lossy().into_owned();
    (dir, [("REDIS", format!("redis+socket://{}", redis.socket)), ("PYTHONPATH", path)])
}

fn with_app(redis: &Redis) -> Command {
    let mut command = Command::new(python());
    command.envs(app(redis).1).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Celery's client sends one message of the no-op task.
pub fn celery_sends_one(redis: &Redis) {
    ok(with_app(redis).arg(app(redis).0.join("celery_noop.py")));
}

/// `celery worker`, prefork, 2 processes, late acknowledgement, results stored; warm.
pub fn celery(dir: &Path, redis: &Redis, template: &Template) -> Peer {
    let mut worker = with_app(redis);
    worker.args(["-m", "celery", "-A", "celery_noop", "worker", "-c", "2", "--without-gossip"]);
    worker.args(["--without-mingle", "-l", "ERROR"]);
    worker.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let worker = Peer(worker.spawn().unwrap());
    template.warm(redis, 100);
    worker
}

/// What it costs Celery to drain `n`.
pub fn celery_drains(dir: &Path, n: usize) -> Drained {
    let redis = Redis::start(dir).expect("redis-server");
    let template = Template::of_celery(&redis);
    let worker = celery(dir, &redis, &template);
    let ids = template.stage(&redis, n);
    drained(&redis, &ids, || cpu_of_tree(worker.pid()))
}

/// What it costs BullMQ, 2 at a time, to drain `n` jobs of its own.
pub fn bullmq_drains(dir: &Path, n: usize) -> Drained {
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
    let go = || {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.pid()), nix::sys::signal::SIGUSR2).unwrap();
    };
    let mut to = redis.connection();
    let all = || redis::cmd("ZCARD").arg("bull:noop:completed").query::<usize>(&mut to).unwrap() == n;
    metered(&redis, n, || cpu_of_tree(worker.pid()), go, all, || true)
}
