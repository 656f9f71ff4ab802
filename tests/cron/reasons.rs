//! Where ours differs from another implementation, and why it should: every reason has a name and a predicate that
//! is true of nothing else. What no predicate takes is a fault.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::debian::Window;
use super::draw::Drawn;

/// What came out of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Same,
    Named(&'static str),
    Unnamed,
}

/// Debian starts a job once for each skipped time that it catches up with, all of them in the minute of the change.
/// A schedule runs once at one planned time.
pub const ONCE_AT_THE_CHANGE: &str = "times skipped by one change run once, not once each";

/// Ours beside Debian's loop.
pub fn debian(ours: &[i64], theirs: &[i64], window: &Window) -> Verdict {
    if ours == theirs {
        return Verdict::Same;
    }
    let mut once = theirs.to_vec();
    once.dedup();
    let many: Vec<i64> = theirs.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    if once == ours && window.jump > 0 && many.iter().all(|at| *at == window.change) {
        return Verdict::Named(ONCE_AT_THE_CHANGE);
    }
    Verdict::Unnamed
}

/// crontab(5) of Debian: days match either field only where neither *begins* with `*`. Croner asks whether one *is*
/// `*`, so for it `*/2` beside a weekday is an alternative.
pub const STAR_STEP_DAYS: &str = "croner: a day field as */2 is an alternative to the other";

/// cron(8) speaks of jobs with `*` in minute or hour. Croner takes every list, range and step for one, so that times
/// such as `0,30 2` are lost in a gap and come twice in a fold.
pub const LISTS_ARE_WILD: &str = "croner: lists and ranges of times follow real time";

/// A time that is skipped runs at the change, even where that is midnight of a day that does not match. Croner
/// looks at the day of the change.
pub const GAP_OVER_MIDNIGHT: &str = "croner: a skipped time is lost where its day ends with it";

/// The names are those of numbers, and Sunday's is 0 for cron: `sun-sun` is a Sunday. Croner takes `sun` for 7 at the
/// end of a range, so that this is a week.
pub const SUNDAY_ENDS: &str = "croner: sun at the end of a range is 7";

/// Whether a range of weekdays ends with Sunday's name.
pub fn croner_sundays(drawn: &Drawn) -> bool {
    drawn
        .weekday
        .text
        .to_lowercase()
        .split(',')
        .any(|item| item.split('/').next().unwrap_or("").ends_with("-sun"))
}

/// Whether croner reads the days of an expression otherwise.
pub fn croner_days(drawn: &Drawn) -> bool {
    let steps = |a: &super::draw::Field, b: &super::draw::Field| a.star() && !a.plain() && !b.plain();
    steps(&drawn.day, &drawn.weekday) || steps(&drawn.weekday, &drawn.day)
}

/// Ours beside croner's.
pub fn croner(drawn: &Drawn, ours: &[i64], theirs: &[i64], window: &Window) -> Verdict {
    if ours == theirs {
        return Verdict::Same;
    }
    if croner_days(drawn) {
        return Verdict::Named(STAR_STEP_DAYS);
    }
    if croner_sundays(drawn) {
        return Verdict::Named(SUNDAY_ENDS);
    }
    let only = |a: &[i64], b: &[i64]| a.iter().copied().filter(|at| !b.contains(at)).collect::<Vec<_>>();
    let (only_ours, only_theirs) = (only(ours, theirs), only(theirs, ours));
    // What is skipped runs for us at the change alone; what comes twice is a jump's length after it for them.
    let at_the_gap = window.jump > 0 && only_ours == [window.change] && only_theirs.is_empty();
    let again = window.change..window.change - window.jump;
    let in_the_fold =
        window.jump < 0 && only_ours.is_empty() && only_theirs.iter().all(|at| again.contains(at));
    let single = |field: &super::draw::Field| field.text.bytes().all(|b| b.is_ascii_digit());
    let times = [&drawn.minute, &drawn.hour].into_iter().chain(&drawn.second);
    let lists = !drawn.wild() && !times.into_iter().all(single);
    if lists && (at_the_gap || in_the_fold) {
        return Verdict::Named(LISTS_ARE_WILD);
    }
    let date = |at: i64, of: i64| {
        let offset = i64::from(window.tz.to_offset(Timestamp::from_second(of).unwrap()).seconds());
        Timestamp::from_second(at + offset).unwrap().to_zoned(TimeZone::UTC).date()
    };
    let over_midnight = date(window.change - 1, window.change - 1) != date(window.change, window.change);
    if at_the_gap && over_midnight {
        return Verdict::Named(GAP_OVER_MIDNIGHT);
    }
    Verdict::Unnamed
}
