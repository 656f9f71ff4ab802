//! Which planned times are to fire now: one pure function.

use crate::cron::Timing;
use crate::model::schedule::CatchUp;
use crate::model::time::Wall;

/// A planned time that is found out so much later at most was not missed: it fires late, whatever `catch_up`
/// says. In milliseconds: a short restart, a slow machine.
pub const LATE_MS: u64 = 60_000;

/// Most planned times in [`LATE_MS`]: none are closer than a second.
const LATE: usize = 61;

/// So many planned times are looked at one after the other before the last ones are looked for.
const STEPS: usize = 3;

/// What is to be done about the planned times of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// They fire, in this order.
    pub(super) fire: Vec<Wall>,
    /// The latest that was missed and stays out.
    pub(super) missed: Option<Wall>,
    /// How many stay out, at least.
    pub(super) count: usize,
    /// There are more.
    pub(super) more: bool,
}

/// Judges the planned times in `(from, to]`. At most `most` of those that stay out are counted.
pub(super) fn due(timing: &Timing, catch_up: CatchUp, from: Wall, to: Wall, most: usize) -> Due {
    let late = Wall(to.0.saturating_sub(LATE_MS as i64)).max(from);
    let mut few = Vec::new();
    let mut at = from;
    for _ in 0..STEPS {
        match timing.next(at).filter(|p| p.at <= to) {
            Some(planned) => {
                at = planned.at;
                few.push(at);
            }
            // The usual case: the one that was waited for.
            None if few.first().is_none_or(|first| *first > late) => {
                return Due { fire: few, ..Due::default() };
            }
            None => break,
        }
    }
    let between = |from, to, most| -> Vec<Wall> {
        timing.between(from, to, most).into_iter().map(|planned| planned.at).collect()
    };
    let mut fire = between(late, to, LATE);
    // Those that fire although they are old; the missed ones lie before the first of them, or before `end`.
    let old = match catch_up {
        CatchUp::None => Vec::new(),
        CatchUp::Last if fire.is_empty() => between(from, late, 1),
        CatchUp::Last => Vec::new(),
        CatchUp::All { max } => between(from, late, (max as usize).saturating_sub(fire.len())),
    };
    let end = old.first().map_or(late, |first| Wall(first.0.saturating_sub(1)));
    let mut missed = between(from, end, most.saturating_add(1));
    let latest = missed.last().copied();
    let more = missed.len() > most;
    missed.truncate(most);
    fire.splice(0..0, old);
    Due { fire, missed: latest, count: missed.len(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn minutes(list: &[i64]) -> Vec<Wall> {
        list.iter().map(|m| Wall(m * MINUTE)).collect()
    }

    fn judged(catch_up: CatchUp, from: i64, to: i64) -> (Vec<Wall>, Option<Wall>, usize, bool) {
        let d = due(&Timing::Every { ms: MINUTE as u64 }, catch_up, Wall(from), Wall(to), 5);
        (d.fire, d.missed, d.count, d.more)
    }

    #[test]
    fn what_comes_in_time_or_a_minute_late_fires_whatever_catch_up_says() {
        for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All { max: 1 }] {
            assert_eq!(judged(catch_up, 0, MINUTE - 1), (vec![], None, 0, false));
            assert_eq!(judged(catch_up, 0, MINUTE), (minutes(&[1]), None, 0, false));
            assert_eq!(judged(catch_up, 0, MINUTE + 59_999), (minutes(&[1]), None, 0, false));
        }
    }

    #[test]
    fn what_was_missed_follows_catch_up() {
        let ten = 10 * MINUTE + 30_000;
        assert_eq!(judged(CatchUp::None, 0, ten), (minutes(&[10]), Some(Wall(9 * MINUTE)), 5, true));
        assert_eq!(judged(CatchUp::Last, 0, ten), (minutes(&[10]), Some(Wall(9 * MINUTE)), 5, true));
        let some = CatchUp::All { max: 6 };
        assert_eq!(judged(some, 0, ten), (minutes(&[5, 6, 7, 8, 9, 10]), Some(Wall(4 * MINUTE)), 4, false));
        assert_eq!(
            judged(CatchUp::All { max: 100 }, 7 * MINUTE, ten),
            (minutes(&[8, 9, 10]), None, 0, false)
        );
        // Every ten minutes: nothing is late, all is old.
        let ten =
            |catch_up| due(&Timing::Every { ms: 600_000 }, catch_up, Wall(0), Wall(1_800_000 + 90_000), 9);
        assert_eq!(ten(CatchUp::None), Due { missed: Some(Wall(1_800_000)), count: 3, ..Due::default() });
        let last = Due { fire: minutes(&[30]), missed: Some(Wall(1_200_000)), count: 2, more: false };
        assert_eq!(ten(CatchUp::Last), last);
        assert_eq!(ten(CatchUp::All { max: 9 }).fire, minutes(&[10, 20, 30]));
    }

    #[test]
    fn every_second_of_a_minute_fires_late() {
        let seconds = due(&Timing::Every { ms: 1_000 }, CatchUp::None, Wall(0), Wall(120_000), 100);
        assert_eq!((seconds.fire.len(), seconds.count), (60, 60));
    }
}
