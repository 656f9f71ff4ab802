//! What every figure needs: a node, rounds that alternate between baseline and taskd, medians, a verdict.
#![allow(dead_code, unused_imports, reason = "each figure needs another part of it")]

#[path = "../../tests/it/harness/mod.rs"]
pub mod harness;

pub mod bare;
pub mod figure;
pub mod redis;

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

/// CPU time in nanoseconds of this process and of everything below it.
pub fn cpu_of_tree(pid: i32) -> u64 {
    [vec![pid], procs::below(pid)].concat().into_iter().map(procs::cpu_ns).sum()
}
