//! The cases, by what they are about. Each is a function over any store.

pub mod lease;
pub mod life;
pub mod order;
pub mod publish;
pub mod schedules;
pub mod settle;
pub mod side;
pub mod time;
