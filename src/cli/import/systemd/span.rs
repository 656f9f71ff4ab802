//! Time spans of systemd.time(7): `5min 20s`, `1h30m`, a number alone is seconds.

use crate::config::values::show_duration;

/// A span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many milliseconds, rounded up.
    Millis(u64),
    /// Without an end.
    Infinity,
}

impl Span {
    /// As the config file writes it; none without an end.
    #[must_use]
    pub fn show(self) -> Option<String> {
        match self {
            Self::Millis(ms) => Some(show_duration(ms)),
            Self::Infinity => None,
        }
    }
}

/// Units in microseconds.
const UNITS: &[(&str, f64)] = &[
    ("usec", 1.0),
    ("us", 1.0),
    ("µs", 1.0),
    ("μs", 1.0),
    ("msec", 1e3),
    ("ms", 1e3),
    ("seconds", 1e6),
    ("second", 1e6),
    ("sec", 1e6),
    ("s", 1e6),
    ("minutes", 6e7),
    ("minute", 6e7),
    ("min", 6e7),
    ("m", 6e7),
    ("hours", 3.6e9),
    ("hour", 3.6e9),
    ("hr", 3.6e9),
    ("h", 3.6e9),
    ("days", 8.64e10),
    ("day", 8.64e10),
    ("d", 8.64e10),
    ("weeks", 6.048e11),
    ("week", 6.048e11),
    ("w", 6.048e11),
    ("months", 2_629_800e6),
    ("month", 2_629_800e6),
    ("M", 2_629_800e6),
    ("years", 31_557_600e6),
    ("year", 31_557_600e6),
    ("y", 31_557_600e6),
];

/// Reads a span; none where it is none.
#[must_use]
pub fn span(text: &str) -> Option<Span> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(Span::Infinity);
    }
    if rest.is_empty() {
        return None;
    }
    let mut micros = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(letters);
        let factor = if unit.is_empty() { 1e6 } else { UNITS.iter().find(|(name, _)| *name == unit)?.1 };
        micros += number.parse::<f64>().ok()? * factor;
        rest = after.trim_start();
    }
    // Far below what a cast saturates at.
    (micros < 1e18).then(|| Span::Millis((micros / 1e3).ceil() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, ms) in [
            ("90", 90_000),
            ("5min 20s", 320_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("2 days", 172_800_000),
            ("500ms", 500),
            ("1us", 1),
            ("1week", 604_800_000),
        ] {
            assert_eq!(span(text), Some(Span::Millis(ms)), "{text}");
        }
        assert_eq!(span("infinity"), Some(Span::Infinity));
        for bad in ["", "x", "5 parsecs", "-1", "5min x", "99999999999999999y"] {
            assert_eq!(span(bad), None, "{bad}");
        }
        assert_eq!(Span::Millis(320_000).show().as_deref(), Some("5m 20s"));
    }
}
