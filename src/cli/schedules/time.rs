//! TIME of `taskd schedules`: one way to write it, whichever way a command looks.

use jiff::tz::TimeZone;

use super::super::moment;

/// What TIME may be, for help and errors.
pub const FORMATS: &str =
    "HH:MM, YYYY-MM-DD (its beginning), \"YYYY-MM-DD HH:MM\", RFC 3339, or a duration as 2h";

/// The side of now on which `HH:MM` and a duration lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The latest such time; so long ago.
    Past,
    /// The next such time; in so long.
    Future,
}

/// A point in time, in milliseconds since the epoch.
///
/// # Errors
/// It is not written in one of [`FORMATS`].
pub fn parse(text: &str, zone: &TimeZone, now: i64, side: Side) -> Result<i64, String> {
    let text = text.trim();
    let day = text.parse::<jiff::civil::Date>().is_ok() && !text.contains(':');
    let whole = if day { format!("{text} 00:00") } else { text.to_owned() };
    let at = match side {
        Side::Past => moment::moment_or_before(&whole, zone, now),
        Side::Future => moment::moment_or_after(&whole, zone, now),
    };
    at.map_err(|_| format!("{text:?} is not a time; write {FORMATS}"))
}

/// Whether a text names a whole day: its midnight is of it.
pub fn is_day(text: &str) -> bool {
    !text.contains(':') && text.trim().parse::<jiff::civil::Date>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_take_the_same_texts() {
        let zone = moment::zone(Some("Europe/Berlin")).unwrap();
        let now = moment::moment("2026-03-28 12:00", &zone, 0).unwrap();
        let shown = |text: &str, side| parse(text, &zone, now, side).map(|ms| moment::local(ms, &zone));
        for (text, past, future) in [
            ("13:00", "2026-03-27 13:00:00", "2026-03-28 13:00:00"),
            ("2h", "2026-03-28 10:00:00", "2026-03-28 14:00:00"),
            ("2026-03-28", "2026-03-28 00:00:00", "2026-03-28 00:00:00"),
            ("2026-03-28 08:15", "2026-03-28 08:15:00", "2026-03-28 08:15:00"),
            ("2026-03-28T08:15:00Z", "2026-03-28 09:15:00", "2026-03-28 09:15:00"),
        ] {
            assert_eq!(shown(text, Side::Past).as_deref(), Ok(past), "{text}");
            assert_eq!(shown(text, Side::Future).as_deref(), Ok(future), "{text}");
        }
        for wrong in ["", "soon", "25:00", "10", "2026-02-30", "1M"] {
            for side in [Side::Past, Side::Future] {
                let e = shown(wrong, side).unwrap_err();
                assert!(e.ends_with(FORMATS), "{wrong}: {e}");
            }
        }
    }
}
