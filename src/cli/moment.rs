//! Times as people write and read them: durations, points in time, "3m ago".

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::config::values;

/// A duration such as `90s`, `10m`, `1h 30m`, `2d`, `1w`: units up to weeks.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let milliseconds =
        values::duration(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.help))?;
    Ok(Duration::from_millis(milliseconds))
}

/// A duration in milliseconds, bounded by what a time can hold.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The zone of this name; without one the system's.
///
/// # Errors
/// There is no such zone.
pub fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name)
            .map_err(|_| format!("there is no time zone {name:?}; names are like Asia/Shanghai or UTC")),
    }
}

/// Milliseconds since the epoch, now.
#[must_use]
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A point in time: RFC 3339 with an offset, `YYYY-MM-DD HH:MM[:SS]` or `HH:MM[:SS]` (the next one) in
/// `zone`. A wall-clock time that a change of offset skips is taken after it; one that comes twice, the
/// first time.
///
/// # Errors
/// What is wrong with the text.
pub fn moment(text: &str, zone: &TimeZone, now: i64) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.as_millisecond());
    }
    let in_zone = |at: DateTime| -> Result<i64, String> {
        let at = zone.to_ambiguous_zoned(at).compatible().map_err(|e| e.to_string())?;
        Ok(at.timestamp().as_millisecond())
    };
    for format in ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"] {
        if let Ok(at) = DateTime::strptime(format, text) {
            return in_zone(at);
        }
    }
    for format in ["%H:%M", "%H:%M:%S"] {
        if let Ok(time) = Time::strptime(format, text) {
            let today = zoned(now, zone)?.date();
            let at = in_zone(today.to_datetime(time))?;
            if at > now {
                return Ok(at);
            }
            return in_zone(today.tomorrow().map_err(|e| e.to_string())?.to_datetime(time));
        }
    }
    Err(format!("{text:?} is not a time; write HH:MM, \"YYYY-MM-DD HH:MM\" or 2026-01-31T08:00:00+01:00"))
}

/// A point in time, or a duration after `now`.
///
/// # Errors
/// As [`moment`].
pub fn moment_or_after(text: &str, zone: &TimeZone, now: i64) -> Result<i64, String> {
    match duration(text) {
        Ok(d) => Ok(now.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))),
        Err(why) => relative_or(moment(text, zone, now), text, why),
    }
}

/// A point in time, or a duration before `now`; `HH:MM` is the latest one.
///
/// # Errors
/// As [`moment`].
pub fn moment_or_before(text: &str, zone: &TimeZone, now: i64) -> Result<i64, String> {
    const DAY: i64 = 86_400_000;
    match duration(text) {
        Ok(d) => Ok(now.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))),
        Err(why) => {
            let at = relative_or(moment(text, zone, now), text, why)?;
            if at > now && !text.contains('-') { moment(text, zone, now.saturating_sub(DAY)) } else { Ok(at) }
        }
    }
}

/// The error about a duration where the text looks like one.
fn relative_or(moment: Result<i64, String>, text: &str, why: String) -> Result<i64, String> {
    let like_a_duration = !text.contains([':', '-']);
    moment.map_err(|e| if like_a_duration { why } else { e })
}

fn zoned(ms: i64, zone: &TimeZone) -> Result<Zoned, String> {
    let at = Timestamp::from_millisecond(ms).map_err(|e| e.to_string())?;
    Ok(at.to_zoned(zone.clone()))
}

/// `2026-11-22 16:05:32` in this zone.
#[must_use]
pub fn local(ms: i64, zone: &TimeZone) -> String {
    zoned(ms, zone).map_or_else(|_| format!("{ms} ms"), |z| z.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `3m ago`, `in 2h`, `now`.
#[must_use]
pub fn relative(ms: i64, now: i64) -> String {
    let far = span(now.abs_diff(ms));
    if now.abs_diff(ms) < 1000 {
        "now".to_owned()
    } else if ms > now {
        format!("in {far}")
    } else {
        format!("{far} ago")
    }
}

/// Both: `2026-11-22 16:05:32 (3m ago)`.
#[must_use]
pub fn both(ms: i64, now: i64, zone: &TimeZone) -> String {
    format!("{} ({})", local(ms, zone), relative(ms, now))
}

/// A span of milliseconds in at most two units: `850ms`, `4.2s`, `3m 10s`, `2h 5m`, `6d`.
#[must_use]
pub fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..=9 => format!("{s}.{}s", ms % 1000 / 100),
        10..=59 => format!("{s}s"),
        60..=599 if !s.is_multiple_of(60) => format!("{}m {}s", s / 60, s % 60),
        60..=3599 => format!("{}m", s / 60),
        3600..=86_399 if s % 3600 >= 60 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        3600..=86_399 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-28 12:00 in Berlin, the day before its clocks go forward at 02:00.
    const NOON: i64 = 1_774_695_600_000;

    fn berlin() -> TimeZone {
        zone(Some("Europe/Berlin")).unwrap()
    }

    fn shown(text: &str) -> String {
        moment(text, &berlin(), NOON).map_or_else(|e| e, |ms| local(ms, &berlin()))
    }

    #[test]
    fn points_in_time() {
        for (text, is) in [
            ("12:01", "2026-03-28 12:01:00"),
            ("12:00", "2026-03-29 12:00:00"),
            ("08:30:15", "2026-03-29 08:30:15"),
            // Skipped by the change: one hour later on the new clock.
            ("02:30", "2026-03-29 03:30:00"),
            ("2026-10-25 02:30", "2026-10-25 02:30:00"),
            ("2026-12-24T18:00", "2026-12-24 18:00:00"),
            ("2026-12-24T18:00:00Z", "2026-12-24 19:00:00"),
            ("2026-12-24T18:00:00+05:00", "2026-12-24 14:00:00"),
        ] {
            assert_eq!(shown(text), is, "{text}");
        }
        for wrong in ["", "25:00", "12", "tomorrow", "2026-02-30 10:00", "10m"] {
            assert!(shown(wrong).contains("is not a time"), "{wrong}: {}", shown(wrong));
        }
        // The first of the two.
        assert_eq!(moment("2026-10-25 02:30", &berlin(), NOON), Ok(1_792_888_200_000));
    }

    #[test]
    fn since_looks_back_and_expires_looks_forward() {
        let back = |t: &str| moment_or_before(t, &berlin(), NOON).map(|ms| local(ms, &berlin()));
        assert_eq!(back("1h").as_deref(), Ok("2026-03-28 11:00:00"));
        assert_eq!(back("11:59").as_deref(), Ok("2026-03-28 11:59:00"));
        assert_eq!(back("23:00").as_deref(), Ok("2026-03-27 23:00:00"));
        let on = |t: &str| moment_or_after(t, &berlin(), NOON).map(|ms| local(ms, &berlin()));
        assert_eq!(on("1h").as_deref(), Ok("2026-03-28 13:00:00"));
        assert_eq!(on("11:59").as_deref(), Ok("2026-03-29 11:59:00"));
        assert!(on("10").unwrap_err().contains("unit"));
        assert!(on("1M").unwrap_err().contains("weeks"));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1w"), Ok(Duration::from_secs(604_800)));
        for wrong in ["1M", "2months", "1y", "10", "", "-5s", "1h30"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_are_short() {
        for (ms, is) in [
            (0, "0ms"),
            (850, "850ms"),
            (4_250, "4.2s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (190_000, "3m 10s"),
            (3_599_000, "59m"),
            (7_500_000, "2h 5m"),
            (86_400_000 * 6, "6d"),
        ] {
            assert_eq!(span(ms), is);
        }
        assert_eq!((relative(0, 5000), relative(9000, 5000)), ("5.0s ago".into(), "in 4.0s".into()));
    }
}
