//! `/bin/true` as an `exec` task, queued and durable before, beside a bare loop that spawns it.
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
#[path = "../tests/journal/journald.rs"]
mod journald;

use bench::harness;
use bench::{Better, Figure, Node, Setup, TRUE, bare, figure, rate_of, setting};

/// Fills the paused queue, lets it go, waits for the last: runs per second.
fn drain(node: &Node, n: usize) -> f64 {
    node.ok(&["pause", "default"]);
    let ids = node.enqueue_many("true", n);
    node.ok(&["resume", "default"]);
    node.finished(ids.last().unwrap());
    node.all_finished(&ids[n.saturating_sub(4)..]);
    rate_of(node, &ids)
}

fn main() -> std::process::ExitCode {
    let (rounds, n) = (setting("ROUNDS", 5), setting("N", 5000));
    let node = Node::start(TRUE);
    let journal = journald::Journald::start();
    let with_journal = journal.as_ref().map(|journal| {
        let words = journal.connected();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        Node::start_with(Setup::new(TRUE).wrapped(&words))
    });
    let what = "/bin/true, 2 runners, queued before";
    let mut plain = Figure::new("exec_true", what, "runs/s", "bare spawn loop", Some((Better::Higher, 0.85)));
    let what = "the same with journald and what the launcher has of cgroups";
    let mut whole = Figure::new("exec_true_whole", what, "runs/s", "bare spawn loop", None);
    drain(&node, 200); // runners are up, caches are warm
    for _ in 0..rounds {
        let bare = bare::true_loop(n);
        plain.round(bare, drain(&node, n));
        if let Ok(node) = &with_journal {
            whole.round(bare, drain(node, n));
        }
    }
    println!("supervision: {}", node.json(&["status"])["supervision"]);
    let holds = plain.end();
    match &with_journal {
        Ok(_) => drop(whole.end()),
        Err(why) => println!("with a journal: not measured: {why}"),
    }
    figure::exit(&[holds])
}
