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
