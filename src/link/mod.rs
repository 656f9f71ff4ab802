//! Connections only: how to open, close and reopen what the adapters talk to.

pub mod redis;
pub mod sqlite;
pub mod stream;
