//! Connections to Redis and Valkey: opened, looked at, watched, and what their errors ask for.
//!
//! All of it is synchronous and meant for threads of its own; nothing here waits longer than [`Timeouts`] say.

pub mod backoff;
mod connection;
pub mod error;
pub mod fault;
mod open;
pub mod server;
mod tls;
pub mod watch;
mod wire;

pub use crate::config::redis::Address;
pub use backoff::Backoff;
pub use connection::Connection;
pub use error::LinkError;
pub use fault::{Fault, classify};
pub use open::{Timeouts, open, password_of};
pub use server::{Server, inspect, look};
pub use watch::{Told, Watch};
