//! The calendar behind an expression: the `cron` crate, in a dialect and at a place where the two agree.
//!
//! The crate reads another language than crontab(5): seconds first, Sunday = 1, both day fields must match, and
//! over a change of the clocks its times are lost or run backwards. So it gets numbers only, one schedule for
//! each of two day fields that are alternatives, and never a time zone: it walks local time as if that were UTC.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use cron::Schedule;

use super::field::{DAY, Field, HOUR, Kind, MINUTE, MONTH, SECOND, WEEKDAY};

/// The six fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) second: Field,
    pub(super) minute: Field,
    pub(super) hour: Field,
    pub(super) day: Field,
    pub(super) month: Field,
    pub(super) weekday: Field,
}

impl Fields {
    /// Whether a day has to match one of the two day fields only: neither begins with `*`.
    pub(super) const fn either_day(&self) -> bool {
        !self.day.star && !self.weekday.star
    }
}

/// The local times that match, without any time zone.
#[derive(Debug)]
pub(super) struct Calendar {
    any: Vec<Schedule>,
}

impl Calendar {
    /// Absent only if the crate does not take what it is given.
    pub(super) fn new(fields: &Fields) -> Option<Self> {
        let schedule = |day: &str, weekday: &str| {
            let time = [(fields.second, &SECOND), (fields.minute, &MINUTE), (fields.hour, &HOUR)];
            let time: Vec<String> = time.iter().map(|(field, kind)| list(*field, kind, 0)).collect();
            let month = list(fields.month, &MONTH, 0);
            Schedule::from_str(&format!("{} {day} {month} {weekday}", time.join(" "))).ok()
        };
        // Sunday is 1 there.
        let (day, weekday) = (list(fields.day, &DAY, 0), list(fields.weekday, &WEEKDAY, 1));
        let any = if !fields.either_day() {
            vec![schedule(&day, &weekday)?]
        } else if day == "*" || weekday == "*" {
            vec![schedule("*", "*")?]
        } else {
            vec![schedule(&day, "*")?, schedule("*", &weekday)?]
        };
        Some(Self { any })
    }

    /// The first match at `wall` or later, in seconds of local time since 1970; none after the year 2100.
    pub(super) fn next(&self, wall: i64) -> Option<i64> {
        let before = DateTime::<Utc>::from_timestamp(wall.max(0).saturating_sub(1), 0)?;
        self.any.iter().filter_map(|s| s.after(&before).next()).map(|at| at.timestamp()).min()
    }
}

/// The values, each `more` higher, as short as the crate reads them: it keeps the text, and time goes by with its
/// length.
fn list(field: Field, kind: &Kind, more: u32) -> String {
    if field.is_full(kind) {
        return "*".to_owned();
    }
    let (from, to) = field.ends();
    if let Some(step) = field.step().filter(|step| *step > 1) {
        return format!("{}-{}/{step}", from.saturating_add(more), to.saturating_add(more));
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in field.values().map(|n| n.saturating_add(more)) {
        match runs.last_mut() {
            Some((_, last)) if last.saturating_add(1) == value => *last = value,
            _ => runs.push((value, value)),
        }
    }
    let shown = |(from, to): &(u32, u32)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}
