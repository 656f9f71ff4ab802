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
