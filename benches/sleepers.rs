//! 500 tasks that sleep, all at once in one pool: memory of everything, and how fast they were started.
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

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 3), setting("N", 500));
    let mut memory = Figure::new(
        "sleepers_memory",
        "PSS of all with 500 sleeping tasks",
        "MB",
        "600 MB",
        Some((Better::Lower, 1.0)),
    );
    let mut starts = Figure::new(
        "sleepers_starts",
        "starts on the way there",
        "starts/s",
        "100/s",
        Some((Better::Higher, 1.0)),
    );
    for _ in 0..rounds {
        let config = format!(
            "[taskd]\nshutdown_grace = \"1s\"\n[pools.default]\nprocesses = {n}\n[tasks.sleep]\nexec = [\"/bin/sleep\", \"600\"]\n"
        );
        let node = Node::start(&config);
        let ids = node.enqueue_many("sleep", n);
        let running = || node.queue("default")["running"].as_u64().unwrap() as usize;
        let patience = std::time::Instant::now();
        while running() < n {
            assert!(patience.elapsed().as_secs() < 60, "{} of {n} run", running());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let mut http = node.http();
        let mut times: Vec<i64> = Vec::new();
        for id in &ids {
            // The start is recorded by the child's own word, which may come a moment after `running` counts it.
            let started =
                bench::until("a start", || http.get(&format!("/v1/messages/{id}"))["started"].as_i64());
            times.push(started);
        }
        times.sort_unstable();
        starts.round(100.0, (n - 1) as f64 * 1000.0 / (times[n - 1] - times[0]).max(1) as f64);
        let all = [vec![node.launcher()], procs::below(node.launcher())].concat();
        assert!(all.len() > 2 * n, "launcher, daemon, runners and their programs: {}", all.len());
        let pss: u64 = all.iter().map(|p| procs::pss(*p).unwrap_or(0)).sum();
        memory.round(600.0, pss as f64 / 1e6);
    }
    figure::exit(&[memory.end(), starts.end()])
}
