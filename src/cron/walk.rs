//! From one planned time of an expression to the next, over the changes of a zone's clocks.
//!
//! What cron(8) says of Debian, as two sets of instants that depend on nothing but the expression and the zone:
//! - *wild* (the minute or the hour begins with `*`): every instant at which the clock shows a match. What is
//!   skipped never shows, what comes twice shows twice.
//! - *fixed*: every instant at which the clock shows a match for the first time. A match that a change skips is
//!   planned at the change, once, however many it skips.
//!
//! A change of three hours or more is no summer time but a correction, and followed as it is.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::expr::Expr;
use super::planned::{Edge, Pass};
use super::zone::{Stretch, Zone};

/// From here on a change is a correction, in seconds: that of Debian's cron.
const CORRECTION: i64 = 3 * 3600;

/// Where the calendar ends (2101-01-02), in seconds: no zone's local time is behind that of 2100 then.
const END: i64 = 4_133_980_800 + 86_400;

/// The first planned time after `after`, both in seconds since 1970.
pub(super) fn next(expr: &Expr, zone: &Zone, after: i64) -> Option<(i64, Option<Edge>)> {
    if after >= END {
        return None;
    }
    let first = after.max(-86_400).checked_add(1)?;
    let mut stretch = zone.stretch(first)?;
    let mut from = first;
    // A local time, and the first match at it or later: good for what is asked between the two.
    let mut known: Option<(i64, i64)> = None;
    loop {
        if !expr.is_wild()
            && let Some(at) = skipped(expr, &stretch, from)
        {
            return Some(at);
        }
        let low = shown_from(expr, &stretch, from);
        let wall = match known {
            Some((asked, wall)) if (asked..=wall).contains(&low) => wall,
            _ => expr.next_wall(low)?,
        };
        known = Some((low, wall));
        match stretch.end {
            Some((end, _)) if wall - stretch.offset >= end => {
                (from, stretch) = (end, zone.stretch(end)?);
            }
            _ => return Some((wall - stretch.offset, repeated(expr, &stretch, wall))),
        }
    }
}

/// The first local time of the stretch, from an instant in it, that a match may have.
fn shown_from(expr: &Expr, stretch: &Stretch, from: i64) -> i64 {
    let low = from + stretch.offset;
    match stretch.start {
        // Everything up to the clock's reading before it went back was shown already.
        Some((at, before)) if !expr.is_wild() && goes_back(before, stretch.offset) => low.max(at + before),
        _ => low,
    }
}

/// The run, at the beginning of the stretch, of matches that the change to it skips.
fn skipped(expr: &Expr, stretch: &Stretch, from: i64) -> Option<(i64, Option<Edge>)> {
    let (at, before) = stretch.start.filter(|(at, _)| *at >= from)?;
    let jump = stretch.offset - before;
    if jump <= 0 || jump >= CORRECTION {
        return None;
    }
    let meant = expr.next_wall(at + before)?;
    let runs = at + stretch.offset;
    (meant < runs).then(|| (at, Some(Edge::Gap { meant: local(meant), runs: local(runs) })))
}

/// What is to be said of a match that the clock shows twice.
fn repeated(expr: &Expr, stretch: &Stretch, wall: i64) -> Option<Edge> {
    let second = stretch.start.is_some_and(|(at, before)| before > stretch.offset && wall < at + before);
    let first = stretch.end.is_some_and(|(at, later)| later < stretch.offset && wall >= at + later);
    let pass = match (first, second) {
        (_, true) => Pass::Second,
        (true, _) if expr.is_wild() => Pass::First,
        (true, _) if stretch.end.is_some_and(|(_, later)| goes_back(stretch.offset, later)) => Pass::Only,
        (true, _) => Pass::First,
        _ => return None,
    };
    Some(Edge::Fold { at: local(wall), pass })
}

/// Whether the clocks go back by less than what counts as a correction.
const fn goes_back(before: i64, after: i64) -> bool {
    before > after && before - after < CORRECTION
}

/// Seconds of local time as a date and a time.
fn local(wall: i64) -> DateTime {
    Timestamp::from_second(wall).map_or(DateTime::ZERO, |at| Offset::UTC.to_datetime(at))
}

#[cfg(test)]
mod tests {
    use super::super::{Timing, Zone};
    use super::*;
    use crate::model::time::Wall;

    /// The next `n` planned times after this one, as the zone shows them, with what is said of each.
    fn shown(expr: &str, zone: &str, after: &str, n: usize) -> Vec<String> {
        let zone = Zone::named(zone).unwrap();
        let tz = zone.time_zone().clone();
        let timing = Timing::Cron { expr: Expr::parse(expr).unwrap(), zone };
        let mut at = Wall(after.parse::<Timestamp>().unwrap().as_millisecond());
        let mut out = Vec::new();
        for _ in 0..n {
            let planned = timing.next(at).unwrap();
            at = planned.at;
            let shown = Timestamp::from_millisecond(at.0).unwrap().to_zoned(tz.clone());
            let edge = planned.edge.map(|e| format!(" ({e})")).unwrap_or_default();
            out.push(format!("{}{edge}", shown.strftime("%m-%d %H:%M:%S %:z")));
        }
        out
    }

    #[test]
    fn a_skipped_time_runs_at_the_change_once() {
        assert_eq!(
            shown("15,45 2 * * *", "Europe/Paris", "2026-03-28T20:00:00Z", 3),
            [
                "03-29 03:00:00 +02:00 (02:15 does not exist on this day, runs at 03:00)",
                "03-30 02:15:00 +02:00",
                "03-30 02:45:00 +02:00",
            ]
        );
        // A gap at midnight, and one of half an hour.
        assert_eq!(
            shown("30 0 * * *", "Africa/Cairo", "2026-04-23T00:00:00Z", 1),
            ["04-24 01:00:00 +03:00 (00:30 does not exist on this day, runs at 01:00)"]
        );
        assert_eq!(
            shown("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 1),
            ["10-04 02:30:00 +11:00 (02:15 does not exist on this day, runs at 02:30)"]
        );
        // The first time that exists is none that is skipped.
        assert_eq!(shown("0 3 * * *", "Europe/Paris", "2026-03-28T20:00:00Z", 1), ["03-29 03:00:00 +02:00"]);
        // What is planned at the change anyway is planned once.
        assert_eq!(
            shown("30 2-3 * * *", "Europe/Paris", "2026-03-28T20:00:00Z", 2),
            [
                "03-29 03:00:00 +02:00 (02:30 does not exist on this day, runs at 03:00)",
                "03-29 03:30:00 +02:00"
            ]
        );
    }

    #[test]
    fn a_repeated_time_runs_once() {
        assert_eq!(
            shown("30 2 * * *", "Europe/Paris", "2026-10-24T20:00:00Z", 2),
            [
                "10-25 02:30:00 +02:00 (02:30 comes twice on this day, runs the first time only)",
                "10-26 02:30:00 +01:00"
            ]
        );
        // Asked within the second pass.
        assert_eq!(shown("30 2 * * *", "Europe/Paris", "2026-10-25T01:10:00Z", 1), ["10-26 02:30:00 +01:00"]);
    }

    #[test]
    fn wild_expressions_follow_real_time() {
        assert_eq!(
            shown("*/30 * * * *", "Europe/Paris", "2026-03-29T00:00:00Z", 3),
            ["03-29 01:30:00 +01:00", "03-29 03:00:00 +02:00", "03-29 03:30:00 +02:00"]
        );
        assert_eq!(
            shown("*/30 * * * *", "Europe/Paris", "2026-10-24T23:59:59Z", 5),
            [
                "10-25 02:00:00 +02:00 (02:00 comes twice on this day, this is the first time)",
                "10-25 02:30:00 +02:00 (02:30 comes twice on this day, this is the first time)",
                "10-25 02:00:00 +01:00 (02:00 comes twice on this day, this is the second time)",
                "10-25 02:30:00 +01:00 (02:30 comes twice on this day, this is the second time)",
                "10-25 03:00:00 +01:00",
            ]
        );
    }

    #[test]
    fn a_change_of_many_hours_is_a_correction() {
        // Samoa had no 30 December 2011: what was planned for that day is not made up for.
        assert_eq!(
            shown("0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", 2),
            ["12-31 09:00:00 +14:00", "01-01 09:00:00 +14:00"]
        );
    }

    #[test]
    fn the_calendar_ends_and_nothing_loops() {
        let every = |expr: &str| Timing::Cron {
            expr: Expr::parse(expr).unwrap(),
            zone: Zone::named("America/New_York").unwrap(),
        };
        for expr in ["* * * * *", "0 3 * * *", "0 0 29 2 *", "* * * * * *"] {
            for at in [i64::MIN, -1, 0, 4_133_980_799_000, 4_133_999_999_999, 5_000_000_000_000, i64::MAX] {
                if let Some(planned) = every(expr).next(Wall(at)) {
                    assert!(planned.at.0 > at, "{expr} after {at}");
                }
            }
            assert_eq!(every(expr).next(Wall(4_200_000_000_000)), None);
        }
    }
}
