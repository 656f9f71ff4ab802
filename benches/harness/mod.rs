//! What every figure needs: a node, rounds that alternate between baseline and taskd, medians, a verdict.
#![allow(dead_code, unused_imports, reason = "each figure needs another part of it")]

#[path = "../../tests/it/harness/mod.rs"]
pub mod harness;

pub mod bare;
pub mod figure;
pub mod floor;
pub mod messages;
pub mod peers;
pub mod redis;
pub mod stamps;

pub use figure::{Better, Figure};
pub use harness::{Http, Node, Setup, procs, until};

/// A whole number from the environment, to make a figure shorter or longer.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The config of every figure: two runners, `/bin/true`, nothing else.
pub const TRUE: &str = "[pools.default]\nprocesses = 2\n[tasks.true]\nexec = [\"/bin/true\"]\n";

/// Rate in which these messages were run, per second: from the first start to the last end, both as taskd
/// recorded them (milliseconds; a round takes seconds).
pub fn rate_of(node: &Node, ids: &[String]) -> f64 {
    let mut http = node.http();
    let (mut first, mut last) = (i64::MAX, 0);
    for id in ids {
        let view = http.get(&format!("/v1/messages/{id}"));
        assert_eq!(view["state"], "SUCCESS", "{view}");
        first = first.min(view["started"].as_i64().unwrap());
        last = last.max(view["finished"].as_i64().unwrap());
    }
    ids.len() as f64 * 1000.0 / ((last - first).max(1) as f64)
}

/// A compiled resident worker that does nothing (examples/noop_worker.rs), as the value of a pool's `worker`.
pub fn noop_worker() -> String {
    let path =
        std::path::PathBuf::from(env!("CARGO_BIN_EXE_taskd")).with_file_name("examples").join("noop_worker");
    assert!(path.exists(), "{}: build the examples of the same profile", path.display());
    format!("[{:?}]", path.to_str().unwrap())
}

/// A node whose queue `celery` is on this Redis and is drained by two workers that take so many messages at once;
/// `more` is more of the pool's environment, as `, NAME = "VALUE"`.
pub fn redis_node(redis: &redis::Redis, capacity: u32, more: &str) -> Node {
    let (broker, worker) = (redis.url(), noop_worker());
    Node::start_with(Setup::new(&format!(
        "[taskd]\nbroker = \"{broker}\"\n[pools.default]\nprocesses = 2\nworker = {worker}\n\
         environment = {{ NOOP_CAPACITY = \"{capacity}\"{more} }}\n[queues.celery]\n[tasks.noop]\nqueue = \"celery\"\n"
    )))
}

/// Bytes of memory of this process and of everything below it, shared pages put down in parts.
pub fn pss_of_tree(pid: i32) -> u64 {
    let all = [vec![pid], procs::below(pid)].concat();
    all.into_iter().map(|p| procs::pss(p).expect("/proc/PID/smaps_rollup of others needs root")).sum()
}

/// The clock that children read too, in nanoseconds.
pub fn now_ns() -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as f64 * 1e9 + now.tv_nsec() as f64
}

/// CPU time in nanoseconds of this process and of everything below it.
pub fn cpu_of_tree(pid: i32) -> u64 {
    [vec![pid], procs::below(pid)].concat().into_iter().map(procs::cpu_ns).sum()
}
