//! The main loop of Debian's cron(8), minute by minute under a virtual clock, as its source and its manual have it:
//! the first of the two implementations that ours is compared with.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::draw::Drawn;

/// A change of a zone's clocks, and every minute around it.
pub struct Window {
    pub zone: String,
    pub tz: TimeZone,
    /// When the clocks change, in seconds since 1970.
    pub change: i64,
    /// By how much, in seconds.
    pub jump: i64,
    /// The first minute, in minutes since 1970.
    first: i64,
    /// What the clock shows at each minute, in minutes since 1970 of local time.
    walls: Vec<i64>,
}

/// Minutes that the loop runs before anything is compared: it has to know what it ran.
const LEAD: i64 = 240;

impl Window {
    /// `around` minutes on both sides.
    pub fn new(zone: &str, change: i64, around: i64) -> Self {
        let tz = TimeZone::get(zone).unwrap();
        let offset = |at: i64| i64::from(tz.to_offset(Timestamp::from_second(at).unwrap()).seconds());
        let first = change.div_euclid(60) - around - LEAD;
        let walls =
            (first..=change.div_euclid(60) + around).map(|m| (m * 60 + offset(m * 60)).div_euclid(60));
        let walls = walls.collect();
        let jump = offset(change) - offset(change - 1);
        Self { zone: zone.to_owned(), change, jump, first, walls, tz }
    }

    /// What is compared: (after, until], in seconds.
    pub fn span(&self) -> (i64, i64) {
        ((self.first + LEAD) * 60 - 1, (self.first + self.walls.len() as i64 - 1) * 60 + 59)
    }
}

/// A start of the job: the minute, in seconds since 1970, and whether the loop caught up with skipped time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    pub at: i64,
    pub caught_up: bool,
}

/// Every start in the window, in order; the same minute more than once where the loop starts it more than once.
pub fn starts(drawn: &Drawn, window: &Window) -> Vec<Start> {
    // By hour and minute of the day: most minutes of a window do not match.
    let mut of_day = vec![false; 1440];
    for h in &drawn.hour.values {
        for m in &drawn.minute.values {
            of_day[(h * 60 + m) as usize] = true;
        }
    }
    let mut days: Vec<(i64, bool)> = Vec::new();
    let mut matches = |wall: i64| {
        if !of_day[wall.rem_euclid(1440) as usize] {
            return false;
        }
        let day = wall.div_euclid(1440);
        if let Some((_, matches)) = days.iter().find(|(known, _)| *known == day) {
            return *matches;
        }
        let date = Timestamp::from_second(day * 86_400).unwrap().to_zoned(TimeZone::UTC).date();
        let weekday = date.weekday().to_sunday_zero_offset() as u32;
        let matching = drawn.day_matches(date.day() as u32, date.month() as u32, weekday);
        days.push((day, matching));
        matching
    };
    let wild = drawn.wild();
    let mut out = Vec::new();
    let mut shown = window.walls[0];
    for (n, &now) in window.walls.iter().enumerate().skip(1) {
        let at = (window.first + n as i64) * 60;
        let start = Start { at, caught_up: false };
        match now - shown {
            1 => {
                shown = now;
                out.extend(matches(now).then_some(start));
            }
            // The clock went forward: wildcard jobs of now, and every other one of each minute that was skipped.
            2..=180 => {
                if wild {
                    out.extend(matches(now).then_some(start));
                }
                while shown < now {
                    shown += 1;
                    if !wild && matches(shown) {
                        out.push(Start { at, caught_up: shown != now });
                    }
                }
            }
            // It went back: until it has caught up, wildcard jobs only.
            -179..=0 => out.extend((wild && matches(now)).then_some(start)),
            // A correction.
            _ => {
                shown = now;
                out.extend(matches(now).then_some(start));
            }
        }
    }
    let (after, until) = window.span();
    out.retain(|start| start.at > after && start.at <= until);
    out
}

/// The instants of those starts, in seconds, with the seconds of an expression that has six fields: each of them in
/// a minute that was shown, none beside the change itself where time was skipped.
pub fn instants(drawn: &Drawn, starts: &[Start], window: &Window) -> Vec<i64> {
    let mut out = Vec::new();
    for start in starts {
        match &drawn.second {
            Some(second) if !start.caught_up => {
                out.extend(second.values.iter().map(|s| start.at + i64::from(*s)))
            }
            _ => out.push(start.at),
        }
    }
    let (after, until) = window.span();
    out.retain(|at| *at > after && *at <= until);
    out.sort_unstable();
    out
}
