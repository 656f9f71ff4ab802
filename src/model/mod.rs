//! What every other module speaks of: tasks, messages, states, outcomes, store operations, time.
//!
//! Pure data and pure functions: no I/O, no clocks, no randomness, no hash maps.

pub mod message;
pub mod name;
pub mod op;
pub mod outcome;
pub mod params;
pub mod schedule;
pub mod state;
pub mod task;
pub mod template;
pub mod time;
