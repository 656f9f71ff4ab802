//! The cases, by what they are about. Each is a function over any store.

pub mod claims;
pub mod fired;
pub mod flow;
pub mod graphs;
pub mod lease;
pub mod letters;
pub mod life;
pub mod limits;
pub mod order;
pub mod publish;
pub mod schedules;
pub mod settle;
pub mod side;
pub mod time;
