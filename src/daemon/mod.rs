//! The daemon: start order and the one select loop; the only importer of the engine.

pub mod adopted;
mod broker;
pub mod child;
pub mod clock;
pub mod handle;
pub mod launcher;
pub mod nodes;
pub mod notes;
pub mod notices;
pub mod peer;
pub mod perform;
pub mod plan;
mod pressure;
pub mod round;
pub mod spool;
pub mod start;
pub mod state;
pub mod view;
pub mod waiters;
pub mod worker_end;
pub mod worker_output;
