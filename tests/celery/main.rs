//! Celery's wire against captured messages of Celery 3.1 to 5.7 (`golden/`): all are read, what taskd would write in
//! the same place says the same, and broken ones are refused, never a panic. And the tools of Celery themselves against a
//! node on a real Redis (`peer`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

mod apps;
mod away;
mod broken;
mod canvas;
mod clients;
mod control;
mod events;
mod fixtures;
mod fleet;
#[path = "../it/harness/mod.rs"]
mod harness;
mod messages;
mod names;
mod nodes;
mod peer;
mod redis_server;
mod results;
mod stand_in;
