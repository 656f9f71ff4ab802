//! The runner as a process of its own, driven over its socket as a daemon would.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may"
)]

mod adoption;
mod bounds;
mod credentials;
mod driver;
mod endings;
mod foreground;
mod leaves;
mod leftovers;
mod limits;
mod output;
mod sandbox;
mod shortage;
mod surroundings;

/// Not a test of its own: what [`driver::Driver`] starts as the runner (a process, because it becomes a
/// sub-reaper and takes every child for its own). Does nothing unless it was started so.
#[test]
fn runner_process() {
    driver::be_the_runner();
}
