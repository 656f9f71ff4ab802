//! Times on the wire: ISO 8601 as Python's `isoformat` writes it, with an offset or without.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::time::Wall;

/// A point in time and how it was written: forwarding it must not cost its microseconds or its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time; a part of a millisecond counts as a whole one, so that nothing runs early.
    pub at: Wall,
    /// As it stands on the wire.
    pub text: String,
}

impl Moment {
    /// Reads a time with an offset or `Z`; one without is of `zone` (UTC in protocol 2 and where protocol 1 says
    /// `utc`). A date alone is its midnight. Absent: it is no time.
    #[must_use]
    pub fn parse(text: &str, zone: &TimeZone) -> Option<Self> {
        let trimmed = text.trim();
        let at = match trimmed.parse::<Timestamp>() {
            Ok(at) => at,
            Err(_) => {
                // What has an offset that is no valid one must not be taken for a time without.
                let time = trimmed.get(11..).unwrap_or_default();
                if time.contains(['+', '-', 'Z', 'z', '[']) {
                    return None;
                }
                zone.to_timestamp(trimmed.parse::<DateTime>().ok()?).ok()?
            }
        };
        let ns = at.as_nanosecond();
        let ms = ns.div_euclid(1_000_000) + i128::from(ns.rem_euclid(1_000_000) != 0);
        Some(Self { at: Wall(i64::try_from(ms).ok()?), text: text.to_owned() })
    }

    /// A time as taskd writes it: in UTC, with `+00:00`.
    #[must_use]
    pub fn of(at: Wall) -> Self {
        Self { at, text: iso(at) }
    }
}

/// A time in UTC as Python's `isoformat` writes it: microseconds, or none where they are zero. Times beyond the
/// years that can be written are the last or the first that can.
#[must_use]
pub fn iso(at: Wall) -> String {
    let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_millisecond(at.0).unwrap_or(end);
    let civil = TimeZone::UTC.to_datetime(time);
    let seconds = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    );
    match civil.subsec_nanosecond() / 1000 {
        0 => seconds + "+00:00",
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

/// A time as unix seconds, as events and remote control have it.
#[must_use]
pub fn unix(at: Wall) -> f64 {
    // Exact to the millisecond for the next 280,000 years.
    at.0 as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let utc = TimeZone::UTC;
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        for (text, zone, ms) in [
            ("2026-11-22T12:58:17.539405+00:00", &utc, Some(1_795_352_297_540)),
            ("2026-11-22T12:58:17.539000+00:00", &berlin, Some(1_795_352_297_539)),
            ("2026-11-22T12:58:17Z", &berlin, Some(1_795_352_297_000)),
            ("2026-11-22T12:58:17", &utc, Some(1_795_352_297_000)),
            ("2026-11-22T12:58:17", &berlin, Some(1_795_348_697_000)),
            ("2026-11-22 14:58:17+02:00", &utc, Some(1_795_352_297_000)),
            ("2026-11-22T14:58:17+0200", &utc, Some(1_795_352_297_000)),
            ("2026-11-22", &utc, Some(1_795_305_600_000)),
            ("1969-12-31T23:59:59.9995+00:00", &utc, Some(0)),
            ("2026-11-22T12:58:17+99:00", &utc, None),
            ("2026-13-22T12:58:17", &utc, None),
            ("tomorrow", &utc, None),
            ("", &utc, None),
            ("1795352297", &utc, None),
        ] {
            assert_eq!(Moment::parse(text, zone).map(|m| m.at.0), ms, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_what_python_writes() {
        assert_eq!(iso(Wall(1_795_352_297_539)), "2026-11-22T12:58:17.539000+00:00");
        assert_eq!(iso(Wall(1_795_352_297_000)), "2026-11-22T12:58:17+00:00");
        assert_eq!(iso(Wall(-1)), "1969-12-31T23:59:59.999000+00:00");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(iso(Wall(extreme)).ends_with("+00:00"));
        }
    }
}
