//! An expression of crontab(5): five fields, six with seconds first, or a word as `@daily`.

use std::sync::Arc;

use super::calendar::{Calendar, Fields};
use super::field::{DAY, Field, HOUR, Kind, MINUTE, MONTH, SECOND, WEEKDAY};
use super::words;
use super::wrong::Wrong;

/// The words and what they stand for.
const NICKNAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Longest expression, in bytes: every value of every field, with room.
const MAX: usize = 1024;

const FIELDS_HELP: &str =
    "write minute, hour, day of month, month and day of week, as \"0 3 * * *\", or a word as \"@daily\"";

/// A checked expression; clones share what it was made into.
#[derive(Clone)]
pub struct Expr(Arc<Inner>);

struct Inner {
    text: String,
    fields: Fields,
    /// Whether seconds were written.
    six: bool,
    calendar: Calendar,
}

impl Expr {
    /// Reads an expression.
    ///
    /// The fields are those of crontab(5) as Debian's cron reads them: lists, ranges, steps after `*` or a range,
    /// names of three letters in any case, Sunday as 0 and 7, and, where neither day field begins with `*`, days
    /// that match either of them.
    ///
    /// # Errors
    /// It is none, or one of days that never come, as 30 February.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let trimmed = text.trim();
        if trimmed.len() > MAX {
            return Err(Wrong::new(format!("is longer than {MAX} bytes"), FIELDS_HELP));
        }
        let expanded = if trimmed.starts_with('@') { nickname(trimmed)? } else { text };
        let parts = parts(expanded);
        let (second, rest) = match parts.as_slice() {
            [first, rest @ ..] if rest.len() == 5 => (Some(*first), rest),
            rest => (None, rest),
        };
        let &[minute, hour, day, month, weekday] = rest else {
            return Err(count(&parts));
        };
        let read = |kind: &Kind, (start, part): (usize, &str)| Field::parse(kind, part, start);
        let fields = Fields {
            second: second.map_or(Ok(Field::ZERO), |part| read(&SECOND, part))?,
            minute: read(&MINUTE, minute)?,
            hour: read(&HOUR, hour)?,
            day: read(&DAY, day)?,
            month: read(&MONTH, month)?,
            weekday: read(&WEEKDAY, weekday)?,
        };
        let odd = || Wrong::new(format!("cannot be used: {trimmed:?}"), FIELDS_HELP);
        let calendar = Calendar::new(&fields).ok_or_else(odd)?;
        if calendar.next(0).is_none() {
            let help = "choose a day that each of its months, or one of them, has";
            return Err(Wrong::new("names a day that never comes", help).at(day.0, day.1));
        }
        let six = second.is_some();
        Ok(Self(Arc::new(Inner { text: trimmed.to_owned(), fields, six, calendar })))
    }

    /// The expression as it was written, without space around it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether the minute or the hour begins with `*`: such an expression follows real time over a change of the
    /// clocks, every other one the time of day.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.0.fields.minute.star || self.0.fields.hour.star
    }

    /// What it means, in English: `At 03:00 on weekdays`.
    #[must_use]
    pub fn words(&self) -> String {
        words::of(&self.0.fields, self.0.six)
    }

    /// The first match at this local time or later (seconds since 1970), whatever the zone.
    pub(super) fn next_wall(&self, wall: i64) -> Option<i64> {
        self.0.calendar.next(wall)
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expr").field(&self.0.text).finish()
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Expr {}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// The fields, each with the byte it begins at.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let base = text.as_ptr() as usize;
    text.split_whitespace().map(|part| (part.as_ptr() as usize - base, part)).collect()
}

fn nickname(word: &str) -> Result<&'static str, Wrong> {
    if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| *name == word) {
        return Ok(fields);
    }
    if word == "@reboot" {
        let help = "taskd fires by the calendar only; for a start of the machine use a systemd unit that runs \
                    `taskd enqueue`";
        return Err(Wrong::new("has the word \"@reboot\", which is no time", help));
    }
    let known: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
    Err(Wrong::new(format!("has the unknown word {word:?}"), format!("the words are {}", known.join(", "))))
}

fn count(parts: &[(usize, &str)]) -> Wrong {
    let n = parts.len();
    let help = match n {
        7.. => {
            "five fields, or six with the seconds first; years cannot be given, and no user or command stands here"
        }
        _ => FIELDS_HELP,
    };
    Wrong::new(format!("has {n} field{}, not 5", if n == 1 { "" } else { "s" }), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crontab_takes_is_taken() {
        for good in [
            "0 3 * * *",
            "*/5 * * * *",
            "0 0 1,15 * 1-5",
            "0 0 * jan-mar,DEC mon",
            "0-30/10 22-23 * * 7",
            "30 0 3 * * *",
            "  00\t03 * * *  ",
            "*/60 * * * *",
            "0 0 30 2 1",
            "@daily",
            "@midnight",
            "@annually",
        ] {
            let expr = Expr::parse(good).unwrap_or_else(|e| panic!("{good}: {e:?}"));
            assert_eq!(expr.text(), good.trim());
        }
    }

    /// What is pointed at, what is said, and what is advised.
    #[test]
    fn what_it_does_not_take_is_pointed_at() {
        for (text, part, message, help) in [
            ("", "", "has 0 fields", "minute, hour"),
            ("* * * *", "", "has 4 fields, not 5", "\"0 3 * * *\""),
            ("* * * * * * *", "", "has 7 fields", "years cannot be given"),
            ("60 * * * *", "60", "has \"60\" as minute", "between 0 and 59"),
            ("* 24 * * *", "24", "as hour", "an hour is between 0 and 23"),
            ("* * 0 * *", "0", "as day of month", "between 1 and 31"),
            ("* * * 13 *", "13", "as month", "jan to dec"),
            ("* * * * 8", "8", "as day of week", "between 0 and 7, or sun to sat"),
            ("1,5-2 * * * *", "5-2", "runs backwards", "5-59,0-2"),
            ("0 0 * * fri-sun", "fri-sun", "runs backwards", "Sunday is also 7: write \"fri-7\""),
            ("10/20 * * * *", "10/20", "a step after a single minute", "10-59/20"),
            ("*/0 * * * *", "*/0", "has the step", "from 1 on"),
            ("*/x * * * *", "*/x", "has the step", "from 1 on"),
            ("+1 * * * *", "+1", "as minute", ""),
            ("1,,2 * * * *", "", "an empty part as minute", ""),
            ("1- * * * *", "1-", "as minute", ""),
            ("* * * * monday", "monday", "as day of week", "write \"mon\""),
            ("0 0 ? * *", "?", "as day of month", "crontab(5) has no ?"),
            ("0 0 L * *", "L", "as day of month", "crontab(5) has no ?"),
            ("0 0 * * 5#2", "5#2", "as day of week", ""),
            ("0 0 30 2 *", "30", "a day that never comes", "choose a day"),
            ("0 0 31 4,6,9,11 *", "31", "a day that never comes", ""),
            ("@reboot", "", "is no time", "systemd"),
            ("@dayly", "", "the unknown word", "@daily"),
            ("** * * * *", "**", "as minute", ""),
            ("0 0 ** * *", "**", "as day of month", ""),
            ("é * * * *", "é", "as minute", ""),
            ("* * * * ééé", "ééé", "as day of week", ""),
        ] {
            let wrong = Expr::parse(text).unwrap_err();
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            assert!(wrong.help.contains(help), "{text}: {}", wrong.help);
            assert_eq!(wrong.span.map_or("", |span| &text[span]), part, "{text}");
        }
        assert!(Expr::parse(&format!("{} * * * *", "1,".repeat(2000))).is_err());
    }

    #[test]
    fn only_minutes_and_hours_make_it_wild() {
        for (text, wild) in [
            ("*/5 3 * * *", true),
            ("0 * * * *", true),
            ("@hourly", true),
            ("0 3 * * *", false),
            ("0-59 0-23 * * *", false),
            ("* 30 2 * * *", false),
        ] {
            assert_eq!(Expr::parse(text).unwrap().is_wild(), wild, "{text}");
        }
    }
}
