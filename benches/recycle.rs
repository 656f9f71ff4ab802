//! `/bin/true` with a new runner for every run, beside runners that are never replaced: CPU time of all.
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

use bench::{Better, Figure, Node, figure, procs, setting};

/// CPU time in microseconds per run of all processes that ever were below the launcher: those that live now, and
/// those it waited for (`cutime` and `cstime` of proc(5), in ticks).
fn used(node: &Node) -> f64 {
    let all = [vec![node.launcher()], procs::below(node.launcher())].concat();
    let ticks: u64 = all.iter().map(|pid| waited(*pid)).sum();
    let own: u64 = all.iter().map(|pid| procs::cpu_ns(*pid)).sum();
    own as f64 / 1000.0 + ticks as f64 * 10_000.0
}

fn waited(pid: i32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    let field = |n: usize| rest.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // Fields 16 and 17, counted from the state, which is field 3.
    field(13) + field(14)
}

fn drain(node: &Node, n: usize) -> f64 {
    node.ok(&["pause", "default"]);
    let ids = node.enqueue_many("true", n);
    let before = used(node);
    node.ok(&["resume", "default"]);
    node.all_finished(&ids);
    // A runner's last children are counted once it was waited for itself.
    (used(node) - before) / n as f64
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 2000));
    let config =
        |more: &str| format!("[pools.default]\nprocesses = 2\n{more}[tasks.true]\nexec = [\"/bin/true\"]\n");
    let kept = Node::start(&config(""));
    let recycled = Node::start(&config("max_tasks_per_child = 1\n"));
    let what = "/bin/true, a new runner for each run, CPU";
    let limit = Some((Better::Lower, 2.5));
    let mut figure = Figure::new("recycle", what, "µs CPU a run", "runners that stay", limit);
    for node in [&kept, &recycled] {
        drain(node, 100);
    }
    for _ in 0..rounds {
        figure.round(drain(&kept, n), drain(&recycled, n));
    }
    figure::exit(&[figure.end()])
}
