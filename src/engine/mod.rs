//! Every decision of taskd as a pure state machine: events and time in, commands out. No tokio, no clock,
//! no I/O, no hash maps: the same seed gives the same trace.

pub mod command;
pub mod event;
pub mod plan;
