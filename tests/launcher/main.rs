//! The launcher against fakes: this test program itself plays the launcher's process, the daemon and the
//! runners ([`fake`]), so that every behavior is seen in real processes and driven step by step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod boundary;
mod cgroup;
mod children;
mod credentials;
mod daemon;
mod fake;
mod journal;
mod notify;
mod reexec;
mod reload;
mod rig;
mod start;
mod stop;
mod units;
mod users;

/// Runs before the test harness: a process that was started as a fake never gets to it. The launcher must
/// be the only thread of its process, which it would not be inside of a test.
extern "C" fn play_if_asked() {
    let Some(part) = std::env::args().nth(1).filter(|a| a.starts_with('@')) else { return };
    std::process::exit(fake::play(&part));
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = play_if_asked;
