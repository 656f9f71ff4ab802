//! Values that are written as text: durations, sizes, rates, signals, file modes, times of day.
//!
//! Every parser answers with what is wrong and what to write instead.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// Why a text is not such a value: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, a phrase that follows the key's name.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), help: help.into() })
}

const SECOND: u64 = 1_000;
const DURATION_HELP: &str =
    "write a number and a unit, as \"90s\", \"5m\" or \"1h 30m\"; units are ms, s, m, h, d and w";

/// A duration in milliseconds: `"90s"`, `"5m"`, `"1h 30m"`, `"1.5h"`, units from `ms` to `w`.
///
/// # Errors
/// What is wrong with it. Months and years are refused: `"1M"` would be a month, and rarely is meant to.
pub fn duration(text: &str) -> Result<u64, Wrong> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return wrong("is empty", DURATION_HELP);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if number.is_empty() {
            return wrong(format!("is not a duration: {text:?}"), DURATION_HELP);
        }
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(letters);
        let factor = match unit {
            "" => return wrong(format!("has a number without a unit: {text:?}"), DURATION_HELP),
            "ms" | "msec" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
            "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
            "d" | "day" | "days" => 86_400 * SECOND,
            "w" | "week" | "weeks" => 604_800 * SECOND,
            "M" | "mon" | "month" | "months" | "y" | "year" | "years" => {
                return wrong(
                    format!("has the unit `{unit}`, and months and years have no fixed length"),
                    "for minutes write \"m\", for long times days or weeks, as \"30d\" or \"4w\"",
                );
            }
            _ => return wrong(format!("has the unknown unit `{unit}`"), DURATION_HELP),
        };
        let Some(part) = scaled(number, factor) else {
            return wrong(format!("is not a duration: {text:?}"), DURATION_HELP);
        };
        total = total.saturating_add(part);
        rest = after.trim_start();
    }
    Ok(total)
}

/// `number` (digits, at most one dot) times `factor`, rounded down, saturating.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than u64 holds are a number too large for any limit, not a fault of form.
    let whole = whole.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor);
    let part = format!("0.{fraction}").parse::<f64>().ok()? * factor as f64;
    Some(whole.saturating_add(part as u64))
}

const SIZE_HELP: &str = "write bytes, or a number with K, M, G or T (powers of 1024), as \"300M\"";

/// A size in bytes: `"300M"`, `"64KiB"`, `"1.5G"`, powers of 1024 as systemd reads them.
///
/// # Errors
/// What is wrong with it.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "%" => return wrong("is a percentage, and this is no share of the memory", SIZE_HELP),
        _ => return wrong(format!("is not a size: {text:?}"), SIZE_HELP),
    };
    match scaled(number, factor) {
        Some(bytes) => Ok(bytes),
        None => wrong(format!("is not a size: {text:?}"), SIZE_HELP),
    }
}

/// A rate: how many in how many milliseconds. `"10/m"`, units `s`, `m`, `h`, `d`.
///
/// # Errors
/// What is wrong with it.
pub fn rate(text: &str) -> Result<(u32, u64), Wrong> {
    const HELP: &str = "write a count and a period, as \"10/m\"; periods are /s, /m, /h and /d";
    let Some((count, unit)) = text.split_once('/') else {
        return wrong(format!("is not a rate: {text:?}"), HELP);
    };
    let period = match unit.trim() {
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" => 86_400 * SECOND,
        other => return wrong(format!("has the unknown period `/{other}`"), HELP),
    };
    match count.trim().parse::<u32>() {
        Ok(0) => wrong("allows nothing at all", "to stop a task set `enabled = false`"),
        Ok(n) => Ok((n, period)),
        Err(_) => wrong(format!("is not a rate: {text:?}"), HELP),
    }
}

/// The number of a signal that a program can catch: `"SIGTERM"`, `"TERM"`, `"int"`.
///
/// # Errors
/// What is wrong with it.
pub fn signal(text: &str) -> Result<i32, Wrong> {
    const HELP: &str = "write a name of signal(7), as \"SIGTERM\", \"SIGINT\" or \"SIGUSR1\"";
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    match Signal::from_str(&name) {
        Ok(Signal::SIGKILL | Signal::SIGSTOP) => wrong(
            format!("is {name}, which no program can catch"),
            "the soft limit asks a program to end; `time_limit` kills it",
        ),
        Ok(signal) => Ok(signal as i32),
        Err(_) => wrong(format!("is not a signal: {text:?}"), HELP),
    }
}

/// A file mode mask in octal: `"022"`.
///
/// # Errors
/// What is wrong with it.
pub fn umask(text: &str) -> Result<u32, Wrong> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 && text.chars().all(|c| c.is_ascii_digit()) => Ok(mask),
        _ => wrong(format!("is not a file mode mask: {text:?}"), "write it in octal, as \"022\" or \"0077\""),
    }
}

/// A share in percent, above 100 allowed (`"150%"` is one and a half CPUs).
///
/// # Errors
/// What is wrong with it.
pub fn percent(text: &str) -> Result<u32, Wrong> {
    match text.strip_suffix('%').and_then(|n| n.trim().parse::<u32>().ok()) {
        Some(n) if n > 0 => Ok(n),
        _ => wrong(format!("is not a percentage: {text:?}"), "write it as \"50%\"; \"200%\" is two CPUs"),
    }
}

/// A multiple above one in percent: `"2x"` is 200.
///
/// # Errors
/// What is wrong with it.
pub fn times(text: &str) -> Result<u32, Wrong> {
    let number = text.strip_suffix('x').and_then(|n| n.trim().parse::<f64>().ok());
    match number.filter(|n| (1.01..=1000.0).contains(n)) {
        // Within the bounds above.
        Some(n) => Ok((n * 100.0).round() as u32),
        None => wrong(format!("is not a multiple above one: {text:?}"), "write it as \"2x\" or \"1.5x\""),
    }
}

/// A time of day in minutes since midnight: `"06:00"`.
///
/// # Errors
/// What is wrong with it.
pub fn time_of_day(text: &str) -> Result<u32, Wrong> {
    let parts = text.split_once(':').and_then(|(h, m)| {
        let two = h.len() <= 2 && m.len() == 2 && text.chars().all(|c| c.is_ascii_digit() || c == ':');
        if two { Some((h.parse::<u32>().ok()?, m.parse::<u32>().ok()?)) } else { None }
    });
    match parts {
        Some((h, m)) if h < 24 && m < 60 => Ok(h * 60 + m),
        _ => wrong(format!("is not a time of day: {text:?}"), "write hours and minutes, as \"06:00\""),
    }
}

/// Milliseconds as [`duration`] reads them, in the fewest words.
#[must_use]
pub fn show_duration(ms: u64) -> String {
    let units =
        [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest / size > 0 {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Bytes as [`size`] reads them, without loss.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    [("T", 1u64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)]
        .into_iter()
        .find(|(_, n)| bytes > 0 && bytes.is_multiple_of(*n))
        .map_or_else(|| bytes.to_string(), |(unit, n)| format!("{}{unit}", bytes / n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("2 days", 172_800_000),
            ("1w", 604_800_000),
            ("0s", 0),
            ("99999999999999999999999w", u64::MAX),
        ] {
            assert_eq!(duration(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            " ",
            "10",
            "s",
            "1M",
            "1month",
            "1y",
            "5 parsecs",
            "-5s",
            "1..5s",
            ".5s",
            "5.s",
            "1h 30",
            "P1D",
            "1e9s",
            "١s",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(duration("1M").unwrap_err().help.contains("\"m\""));
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("300M", 300 << 20),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("64kb", 65_536),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("123", 123),
            ("7B", 7),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "5 XB", "50%", "-1", "1.2.3K", "infinity"] {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn rates_signals_masks_percentages_and_times() {
        assert_eq!(rate("10/m"), Ok((10, 60_000)));
        assert_eq!(rate(" 5 / s"), Ok((5, 1_000)));
        for bad in ["10", "0/s", "-1/s", "10/w", "/s", "1.5/s", ""] {
            assert!(rate(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!((signal("SIGTERM"), signal("int")), (Ok(15), Ok(2)));
        for bad in ["KILL", "SIGSTOP", "SIGFOO", "", "15"] {
            assert!(signal(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!((umask("022"), umask("0077")), (Ok(0o022), Ok(0o077)));
        for bad in ["", "9", "1777", "+22", "u=rwx"] {
            assert!(umask(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!((percent("50%"), percent("200%")), (Ok(50), Ok(200)));
        assert!(percent("50").is_err() && percent("0%").is_err());
        assert_eq!((time_of_day("06:00"), time_of_day("23:59")), (Ok(360), Ok(1_439)));
        for bad in ["24:00", "6", "06:60", "+6:00", "06:0", ""] {
            assert!(time_of_day(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for ms in [0, 1, 999, 1_000, 90_000, 5_400_000, 604_800_001, 86_399_999] {
            assert_eq!(duration(&show_duration(ms)), Ok(ms));
        }
        for bytes in [0, 1, 1_023, 1_024, 65_536, 65_537, 3 << 29] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
    }
}
