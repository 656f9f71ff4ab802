//! The daemon: start order and the one select loop; the only importer of the engine.

pub mod child;
pub mod clock;
pub mod plan;
pub mod spool;
pub mod waiters;
