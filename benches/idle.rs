//! An idle taskd: the memory of all its processes, and the processor time it takes in a minute.
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

use std::time::Duration;

use bench::{Better, Figure, Node, TRUE, figure, procs, setting};

fn main() -> std::process::ExitCode {
    let (rounds, seconds) = (setting("ROUNDS", 3), setting("SECONDS", 60));
    let node = Node::start(TRUE);
    node.all_finished(&node.enqueue_many("true", 100)); // both runners are up and have worked
    std::thread::sleep(Duration::from_secs(5)); // what follows work is over
    let all = [vec![node.launcher()], procs::below(node.launcher())].concat();
    assert_eq!(
        all.len(),
        4,
        "launcher, daemon, 2 runners: {:?}",
        all.iter().map(|p| procs::title(*p)).collect::<Vec<_>>()
    );
    let lower = Some((Better::Lower, 1.0));
    let mut memory = Figure::new("idle_memory", "PSS of launcher, daemon, 2 runners", "MB", "20 MB", lower);
    let mut cpu = Figure::new("idle_cpu", "CPU time of all, idle", "ms/minute", "5 ms a minute", lower);
    for _ in 0..rounds {
        let before: u64 = all.iter().map(|p| procs::cpu_ns(*p)).sum();
        std::thread::sleep(Duration::from_secs(seconds as u64));
        let used: u64 = all.iter().map(|p| procs::cpu_ns(*p)).sum::<u64>() - before;
        cpu.round(5.0, used as f64 / 1e6 * 60.0 / seconds as f64);
        let pss: u64 = all.iter().map(|p| procs::pss(*p).expect("smaps_rollup needs root")).sum();
        memory.round(20.0, pss as f64 / 1e6);
    }
    for pid in &all {
        println!("  {:6.2} MB {}", procs::pss(*pid).unwrap_or(0) as f64 / 1e6, procs::title(*pid));
    }
    figure::exit(&[memory.end(), cpu.end()])
}
