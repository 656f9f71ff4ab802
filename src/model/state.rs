//! The states of a message and every move between them: one table, used by the engine, the stores,
//! the simulation and the diagram in `ARCHITECTURE.md` (a test compares the two).

use serde::{Deserialize, Serialize};

/// Where a message is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Accepted, to run at a later wall-clock time.
    Scheduled,
    /// Accepted, waiting for a slot (also while it is leased and not started).
    Waiting,
    /// An attempt was started and its end is not recorded.
    Running,
    /// An attempt ended, another one is planned.
    Retry,
    /// Final: it ran and succeeded.
    Success,
    /// Final: it ran (or could not be spawned) and failed.
    Failure,
    /// Final: canceled.
    Revoked,
    /// Final: its `expires` passed before it started.
    Expired,
    /// Final: given up on, with its envelope kept (its attempts kept killing their child).
    Dead,
}

/// Every state, in the order of a message's life.
pub const ALL: [State; 9] = [
    State::Scheduled,
    State::Waiting,
    State::Running,
    State::Retry,
    State::Success,
    State::Failure,
    State::Revoked,
    State::Expired,
    State::Dead,
];

/// Every permitted move. A final state has none: it never changes
/// (`taskd retry` of a final message replaces the record by a new life of the same id).
pub const MOVES: &[(State, State)] = &[
    (State::Scheduled, State::Waiting),
    (State::Scheduled, State::Revoked),
    (State::Scheduled, State::Expired),
    (State::Waiting, State::Running),
    (State::Waiting, State::Scheduled),
    (State::Waiting, State::Revoked),
    (State::Waiting, State::Expired),
    (State::Waiting, State::Failure),
    (State::Running, State::Success),
    (State::Running, State::Failure),
    (State::Running, State::Retry),
    (State::Running, State::Waiting),
    (State::Running, State::Scheduled),
    (State::Running, State::Revoked),
    (State::Running, State::Dead),
    (State::Retry, State::Waiting),
    (State::Retry, State::Revoked),
    (State::Retry, State::Expired),
];

impl State {
    /// The name shown to people and stored in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Retry => "RETRY",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Dead => "DEAD",
        }
    }

    /// The state of this name, whatever its case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(name))
    }

    /// Whether the message's life is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked | Self::Expired | Self::Dead)
    }

    /// Whether a message may go from this state to `to` in one step.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        MOVES.contains(&(self, to))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_state_has_no_move_and_every_other_state_reaches_a_final_one() {
        for s in ALL {
            assert_eq!(s.is_final(), MOVES.iter().all(|(from, _)| *from != s), "{s}");
            assert_eq!(State::parse(&s.name().to_lowercase()), Some(s));
        }
        for s in ALL.into_iter().filter(|s| !s.is_final()) {
            assert!(MOVES.iter().any(|(f, t)| *f == s && t.is_final()), "{s} is a trap");
        }
    }
}
