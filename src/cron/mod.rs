//! When something is planned: crontab(5) expressions, intervals and the sun.
//!
//! Pure: a time goes in, the next planned one comes out. A [`Timing`] is a fixed set of instants: whoever asks,
//! from wherever, is told the same ones, so that a planned time can be the name of a run.

mod calendar;
mod expr;
mod field;
mod planned;
mod solar;
mod timing;
mod walk;
mod words;
mod wrong;
mod zone;

pub use expr::Expr;
pub use planned::{Edge, Pass, Planned};
pub use solar::SolarEvent;
pub use timing::Timing;
pub use wrong::Wrong;
pub use zone::Zone;
