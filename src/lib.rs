//! taskd: a task queue for a Linux server.
//!
//! The floors of this crate, lowest first; a module imports only from the floors below its own
//! (`tests/tidy.rs` keeps it, `ARCHITECTURE.md` explains it):
//!
//! | floor | modules | what stands there |
//! |---|---|---|
//! | F0 | [`model`], [`cron`] | what everything speaks of; when something is planned; pure |
//! | F1 | [`engine`], [`config`], [`celery`] | decisions, settings, Celery's wire; no tokio, no clock and no I/O (but the config's) |
//! | F2 | [`link`], [`observe`] | connections; logs and notifications |
//! | F3 | [`broker`], [`process`], [`control`] | the store seam; children; the control API |
//! | F5 | [`daemon`] | the one select loop; the only importer of the engine |
//! | F6 | [`cli`] | the commands |
#![deny(unsafe_code)]

pub mod broker;
pub mod celery;
pub mod cli;
pub mod config;
pub mod control;
pub mod cron;
pub mod daemon;
pub mod engine;
pub mod link;
pub mod model;
pub mod observe;
pub mod process;
