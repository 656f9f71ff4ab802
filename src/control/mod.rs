//! The control API: HTTP/1.1 with JSON over the unix socket. What is asked and answered ([`api`]), who may
//! ([`access`]), the server and the client.

pub mod access;
pub mod api;
pub mod client;
pub mod server;
