//! What every other module speaks of: tasks, messages, states, outcomes, store operations, time.
//!
//! Pure data and pure functions: no I/O, no clocks, no randomness, no hash maps.

pub mod handed;
pub mod letters;
pub mod limit;
pub mod message;
pub mod name;
pub mod notice;
pub mod op;
pub mod outcome;
pub mod params;
pub mod schedule;
pub mod state;
pub mod task;
pub mod template;
pub mod time;
pub mod unique;
pub mod workflow;
