//! Connections to Redis: against real servers (`servers`, `sentinel`, `watch`), and against a scripted one for what a
//! real one cannot be brought to (`scripted`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what is wrong by panicking"
)]

mod certificates;
mod fake;
#[path = "../servers/redis.rs"]
mod redis_server;
mod scripted;
mod sentinel;
mod servers;
mod watch;
mod watch_faults;

use std::time::Duration;

use taskd::link::redis::{Address, Connection, LinkError, Timeouts, open};

/// Patience for servers that are there.
pub const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(20), reply: Duration::from_secs(20) };

/// Patience for those that are not.
pub const SHORT: Timeouts =
    Timeouts { connect: Duration::from_millis(300), reply: Duration::from_millis(300) };

/// Reads an address that is one.
pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.message))
}

/// Opens it.
pub fn opened(text: &str) -> Result<Connection, LinkError> {
    open(&address(text), TIMEOUTS, "node1")
}
