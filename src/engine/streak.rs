//! What is known of a task's latest ends, and what it leads to: one pure function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::notice::{Kind, Rule, Tell};
use crate::model::state::State;
use crate::model::time::Wall;

/// What is known of a task's latest ends; small, and outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// Final failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// When the first of them was.
    #[serde(default)]
    pub since: Option<Wall>,
    /// Somebody was told of this row, or of a run that was missed.
    #[serde(default)]
    pub told: bool,
    /// Notices that `at_most` kept back since the last one.
    #[serde(default)]
    pub kept_back: u32,
    /// When notices of each kind were told, as far back as their `at_most` looks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times: BTreeMap<Kind, Vec<Wall>>,
    /// The first success since the latest time by which one was expected.
    #[serde(default)]
    pub succeeded: Option<Wall>,
    /// Times up to here by which it was expected were looked at.
    #[serde(default)]
    pub checked: Option<Wall>,
    /// When it was changed last.
    #[serde(default)]
    pub touched: Wall,
}

impl Streak {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        *self == Self { touched: self.touched, ..Self::default() }
    }

    /// Takes in a final state; what is to be told of it.
    pub fn ended(&mut self, tell: &Tell, state: State, now: Wall) -> Option<Decision> {
        self.touched = now;
        self.times.retain(|kind, times| {
            let period = tell.rule(*kind).and_then(|r| r.at_most).map_or(0, |(_, period)| period);
            // What a clock that went back says is yet to come counts again when it is there.
            times.retain(|at| *at > now || now.since(*at) < period);
            !times.is_empty()
        });
        match state {
            State::Failure | State::Dead => {
                self.failures = self.failures.saturating_add(1);
                self.since.get_or_insert(now);
                let kind = if state == State::Dead { Kind::Dead } else { Kind::Failure };
                let rule = tell.rule(kind).filter(|r| self.failures >= r.after)?;
                if !self.has_room(kind, rule, now) {
                    self.kept_back = self.kept_back.saturating_add(1);
                    return None;
                }
                let decision = self.decision(kind);
                self.told = true;
                self.kept_back = 0;
                Some(decision)
            }
            State::Success => {
                let unasked = tell.on_failure.is_none() && tell.on_dead.is_none() && self.failures > 0;
                let rule = tell
                    .on_recovery
                    .as_ref()
                    .filter(|r| (self.told || unasked) && (self.failures >= r.after || self.failures == 0));
                let told = rule.is_some_and(|rule| self.has_room(Kind::Recovery, rule, now));
                let decision = told.then(|| self.decision(Kind::Recovery));
                (self.failures, self.since, self.told) = (0, None, false);
                if told {
                    self.kept_back = 0;
                }
                decision
            }
            _ => None,
        }
    }

    /// Whether a success would change anything.
    #[must_use]
    pub fn waits_for_success(&self) -> bool {
        self.failures > 0 || self.told
    }

    /// Takes a place under `at_most`, if there is one.
    fn has_room(&mut self, kind: Kind, rule: &Rule, now: Wall) -> bool {
        let Some((most, _)) = rule.at_most else { return true };
        let times = self.times.entry(kind).or_default();
        let most = most as usize;
        let room = times.iter().filter(|at| **at <= now).count() < most;
        if room {
            times.push(now);
        }
        // A clock that is set again and again must not make it grow.
        if times.len() > most.saturating_mul(4) {
            times.remove(0);
        }
        room
    }

    fn decision(&self, kind: Kind) -> Decision {
        Decision { kind, failures: self.failures, since: self.since, kept_back: self.kept_back }
    }
}

/// Something is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub kind: Kind,
    /// Failures in a row.
    pub failures: u32,
    /// When the first of them was.
    pub since: Option<Wall>,
    /// What was kept back before.
    pub kept_back: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(after: u32, at_most: Option<(u32, u64)>) -> Option<Rule> {
        Some(Rule { targets: vec!["x".to_owned()], after, at_most })
    }

    fn told(streak: &mut Streak, tell: &Tell, state: State, at: i64) -> Option<(Kind, u32, u32)> {
        streak.ended(tell, state, Wall(at)).map(|d| (d.kind, d.failures, d.kept_back))
    }

    #[test]
    fn a_row_of_failures_is_told_from_its_number_on_and_its_end_once() {
        let tell = Tell { on_failure: rule(3, None), on_recovery: rule(1, None), ..Tell::default() };
        let mut s = Streak::default();
        assert_eq!(told(&mut s, &tell, State::Failure, 1), None);
        assert_eq!(told(&mut s, &tell, State::Success, 2), None, "nobody knew of it");
        assert_eq!(told(&mut s, &tell, State::Failure, 3), None);
        assert_eq!(told(&mut s, &tell, State::Failure, 4), None);
        assert_eq!(told(&mut s, &tell, State::Revoked, 4), None, "a cancel says nothing of the task");
        assert_eq!(told(&mut s, &tell, State::Dead, 5), Some((Kind::Dead, 3, 0)), "told as a failure is");
        assert_eq!(s.since, Some(Wall(3)));
        assert_eq!(told(&mut s, &tell, State::Success, 6), Some((Kind::Recovery, 3, 0)));
        assert_eq!(told(&mut s, &tell, State::Success, 7), None);
        assert!(s.is_blank());
    }

    #[test]
    fn no_window_of_any_length_has_more_notices_than_at_most_and_the_rest_is_counted() {
        let tell =
            Tell { on_failure: rule(1, Some((2, 1_000))), on_recovery: rule(1, None), ..Tell::default() };
        let mut s = Streak::default();
        assert_eq!(told(&mut s, &tell, State::Failure, 0), Some((Kind::Failure, 1, 0)));
        assert_eq!(told(&mut s, &tell, State::Failure, 900), Some((Kind::Failure, 2, 0)));
        for at in [901, 950, 999] {
            assert_eq!(told(&mut s, &tell, State::Failure, at), None);
        }
        assert_eq!(told(&mut s, &tell, State::Failure, 1_000), Some((Kind::Failure, 6, 3)));
        assert_eq!(told(&mut s, &tell, State::Failure, 1_001), None);
        // What comes and goes is bounded too: the row ends, its times do not.
        assert_eq!(told(&mut s, &tell, State::Success, 1_002), Some((Kind::Recovery, 7, 1)));
        assert_eq!(told(&mut s, &tell, State::Failure, 1_003), None);
        assert_eq!(told(&mut s, &tell, State::Success, 1_004), None, "nobody was told of that row");
        assert_eq!(told(&mut s, &tell, State::Failure, 1_900), Some((Kind::Failure, 1, 1)));
        // A clock that went back forgets what is to come.
        assert_eq!(told(&mut s, &tell, State::Failure, 10), Some((Kind::Failure, 2, 0)));
    }

    #[test]
    fn a_dead_message_goes_to_its_own_rule_where_there_is_one() {
        let tell = Tell { on_failure: rule(1, None), on_dead: rule(1, None), ..Tell::default() };
        let mut s = Streak::default();
        assert_eq!(told(&mut s, &tell, State::Dead, 1), Some((Kind::Dead, 1, 0)));
        let only = Tell { on_dead: rule(1, None), ..Tell::default() };
        assert_eq!(told(&mut s, &only, State::Failure, 2), None);
        let recovery = Tell { on_recovery: rule(2, None), ..Tell::default() };
        let mut s = Streak::default();
        told(&mut s, &recovery, State::Failure, 1);
        told(&mut s, &recovery, State::Failure, 2);
        assert_eq!(told(&mut s, &recovery, State::Success, 3), Some((Kind::Recovery, 2, 0)));
    }

    #[test]
    fn a_streak_is_read_back() {
        let mut s = Streak::default();
        let tell = Tell { on_failure: rule(1, Some((5, 1_000))), ..Tell::default() };
        told(&mut s, &tell, State::Failure, 7);
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Streak>(&text).unwrap(), s);
    }
}
