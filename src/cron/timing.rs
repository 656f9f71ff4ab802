//! What plans: an expression, an interval, or the sun.

use crate::model::time::Wall;

use super::expr::Expr;
use super::planned::{Edge, Planned};
use super::solar::{self, Place, SolarEvent};
use super::walk;
use super::zone::Zone;

/// When something is planned. Expressions and the sun are reckoned with from 1970 to 2100.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// As an expression says, by the clocks of a zone.
    Cron {
        /// The expression.
        expr: Expr,
        /// Whose clocks.
        zone: Zone,
    },
    /// At each multiple of so many milliseconds since 1970-01-01T00:00Z.
    Every {
        /// The interval; 0 counts as 1.
        ms: u64,
    },
    /// When the sun does something at a place.
    Solar {
        /// What.
        event: SolarEvent,
        /// Degrees north, -90 to 90.
        latitude: f64,
        /// Degrees east, -180 to 180.
        longitude: f64,
    },
}

/// How far back the latest time is looked for first, in seconds; doubled until it is found.
const FIRST_LOOK: i64 = 3600;

impl Timing {
    /// The first planned time strictly after `after`; none if there is never one again.
    #[must_use]
    pub fn next(&self, after: Wall) -> Option<Planned> {
        match self {
            Self::Every { ms } => {
                let ms = interval(*ms);
                let at = after.0.div_euclid(ms).checked_add(1)?.checked_mul(ms)?;
                Some(Planned { at: Wall(at), edge: None })
            }
            _ => self.next_second(after.0.div_euclid(1000)).and_then(planned),
        }
    }

    /// The last planned time in `(after, until]`, however much lies between the two: some dozens of steps.
    #[must_use]
    pub fn latest(&self, after: Wall, until: Wall) -> Option<Planned> {
        self.latest_within(after, until, FIRST_LOOK)
    }

    /// The last `most` planned times in `(after, until]`, ascending. What is earlier is left out, so the work is
    /// that of [`Timing::latest`] for each of them, whatever the span.
    #[must_use]
    pub fn between(&self, after: Wall, until: Wall, most: usize) -> Vec<Planned> {
        let mut found: Vec<Planned> = Vec::new();
        let (mut until, mut look) = (until, FIRST_LOOK);
        while found.len() < most
            && let Some(planned) = self.latest_within(after, until, look)
        {
            if let Some(later) = found.last() {
                // What comes regularly is found at once this far before.
                look = later.at.since(planned.at).div_ceil(1000).try_into().unwrap_or(FIRST_LOOK);
            }
            let Some(before) = planned.at.0.checked_sub(1) else { break };
            until = Wall(before);
            found.push(planned);
        }
        found.reverse();
        found
    }

    /// [`Timing::next`] in whole seconds, which all but intervals are planned in.
    fn next_second(&self, after: i64) -> Option<(i64, Option<Edge>)> {
        match self {
            Self::Cron { expr, zone } => walk::next(expr, zone, after),
            Self::Solar { event, latitude, longitude } => {
                let place = Place { latitude: *latitude, longitude: *longitude };
                solar::next(*event, place, after).map(|at| (at, None))
            }
            Self::Every { .. } => None,
        }
    }

    fn latest_within(&self, after: Wall, until: Wall, look: i64) -> Option<Planned> {
        // Of a second's first millisecond is every planned time: rounding down asks the same.
        let (from, to) = (after.0.div_euclid(1000), until.0.div_euclid(1000));
        match self {
            Self::Every { ms } => {
                let ms = interval(*ms);
                let at = until.0.div_euclid(ms).checked_mul(ms)?;
                (at > after.0).then_some(Planned { at: Wall(at), edge: None })
            }
            Self::Solar { event, latitude, longitude } => {
                let place = Place { latitude: *latitude, longitude: *longitude };
                solar::latest(*event, place, from, to).map(|at| (at, None)).and_then(planned)
            }
            Self::Cron { .. } => self.last_second(from, to, look).and_then(planned),
        }
    }

    /// The last planned second in `(after, until]`: next() is monotone, so what is after a moment says on which
    /// side of it the last one lies.
    fn last_second(&self, after: i64, until: i64, look: i64) -> Option<(i64, Option<Edge>)> {
        let within = |at: i64| self.next_second(at).filter(|(next, _)| *next <= until);
        let mut back = look.max(1);
        let mut found = loop {
            let from = until.saturating_sub(back).max(after);
            match within(from) {
                Some(next) => break next,
                None if from <= after => return None,
                None => back = back.saturating_mul(2),
            }
        };
        // Nothing is planned in (beyond, until].
        let mut beyond = until;
        while let Some(next) = within(found.0) {
            let middle = next.0 + (beyond - next.0) / 2;
            found = within(middle).unwrap_or_else(|| {
                beyond = middle;
                next
            });
        }
        Some(found)
    }
}

/// An interval that can be divided by.
fn interval(ms: u64) -> i64 {
    i64::try_from(ms.max(1)).unwrap_or(i64::MAX)
}

fn planned((second, edge): (i64, Option<Edge>)) -> Option<Planned> {
    second.checked_mul(1000).map(|ms| Planned { at: Wall(ms), edge })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str) -> Timing {
        Timing::Cron { expr: Expr::parse(text).unwrap(), zone: Zone::named("Europe/Paris").unwrap() }
    }

    fn at(planned: Option<Planned>) -> Option<i64> {
        planned.map(|p| p.at.0)
    }

    #[test]
    fn intervals_stand_on_their_multiples() {
        let every = Timing::Every { ms: 1500 };
        assert_eq!(at(every.next(Wall(0))), Some(1500));
        assert_eq!(at(every.next(Wall(1499))), Some(1500));
        assert_eq!(at(every.next(Wall(-1))), Some(0));
        assert_eq!(at(every.latest(Wall(0), Wall(4400))), Some(3000));
        assert_eq!(at(every.latest(Wall(3000), Wall(4400))), None);
        let last: Vec<i64> = every.between(Wall(0), Wall(6000), 3).iter().map(|p| p.at.0).collect();
        assert_eq!(last, [3000, 4500, 6000]);
        assert_eq!(at(every.next(Wall(i64::MAX))), None);
        assert_eq!(at(Timing::Every { ms: 0 }.next(Wall(5))), Some(6));
        assert_eq!(at(Timing::Every { ms: u64::MAX }.next(Wall(5))), Some(i64::MAX));
    }

    #[test]
    fn milliseconds_do_not_move_a_planned_second() {
        let daily = cron("0 3 * * *");
        let three = at(daily.next(Wall(1_790_000_000_000))).unwrap();
        assert_eq!(at(daily.next(Wall(three - 1))), Some(three));
        assert_eq!(at(daily.next(Wall(three))), Some(three + 86_400_000));
        assert_eq!(at(daily.next(Wall(three + 1))), Some(three + 86_400_000));
        assert_eq!(at(daily.latest(Wall(three - 1), Wall(three))), Some(three));
        assert_eq!(at(daily.latest(Wall(three), Wall(three + 5))), None);
        assert_eq!(at(daily.latest(Wall(three - 1), Wall(three - 1))), None);
        assert_eq!(at(daily.latest(Wall(three), Wall(three - 1))), None);
    }

    #[test]
    fn the_last_of_years_of_seconds_are_found_at_once() {
        // Forty years of every second, of them the last thousand; and one that bursts once a year.
        let (from, until) = (Wall(500_000_000_000), Wall(1_790_000_000_500));
        let last = cron("* * * * * *").between(from, until, 1000);
        assert_eq!(last.len(), 1000);
        assert_eq!(last.last().map(|p| p.at.0), Some(1_790_000_000_000));
        assert_eq!(last.first().map(|p| p.at.0), Some(1_789_999_001_000));
        let burst = cron("* * 0 1 1 *").between(from, until, 7300);
        assert!(burst.windows(2).all(|w| w[0].at < w[1].at));
        // Two New Years' hours, and a hundred seconds of the one before.
        assert_eq!(burst.len(), 7300);
        assert_eq!(burst[7299].at.since(burst[7299 - 3599].at), 3_599_000);
        assert_eq!(cron("0 0 29 2 *").between(from, until, 100).len(), 10);
        assert_eq!(cron("0 0 29 2 *").between(from, until, 0), []);
    }
}
