//! The control API from outside: server, client and commands against a daemon that a fake handler plays.

// Everything here is a test or a part of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;
mod commands;
mod fake;
mod limits;
mod routes;
