//! A planned time, and what is to be said where a change of the clocks touches it.

use std::fmt;

use jiff::civil::DateTime;

use crate::model::time::Wall;

/// When something is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The instant.
    pub at: Wall,
    /// That a change of the clocks moved or doubled the time that was meant.
    pub edge: Option<Edge>,
}

/// What a change of the clocks did to a planned time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The time that was meant does not exist on that day.
    Gap {
        /// The local time that was meant; the first, where several are skipped at once.
        meant: DateTime,
        /// The local time at which it runs: the first that exists.
        runs: DateTime,
    },
    /// The local time comes twice on that day.
    Fold {
        /// The local time.
        at: DateTime,
        /// Which of the two this is.
        pass: Pass,
    },
}

/// Which of two equal local times is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The first, and nothing is planned for the second.
    Only,
    /// The first of two.
    First,
    /// The second of two.
    Second,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { meant, runs } => {
                let day = if meant.date() == runs.date() { "" } else { " of the next day" };
                write!(f, "{} does not exist on this day, runs at {}{day}", clock(*meant), clock(*runs))
            }
            Self::Fold { at, pass } => {
                let which = match pass {
                    Pass::Only => "runs the first time only",
                    Pass::First => "this is the first time",
                    Pass::Second => "this is the second time",
                };
                write!(f, "{} comes twice on this day, {which}", clock(*at))
            }
        }
    }
}

/// `02:30`, with seconds where there are any.
fn clock(at: DateTime) -> String {
    let seconds = if at.second() == 0 { String::new() } else { format!(":{:02}", at.second()) };
    format!("{:02}:{:02}{seconds}", at.hour(), at.minute())
}
