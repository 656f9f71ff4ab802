//! An expression in English.

use super::calendar::Fields;
use super::field::{DAY, Field, HOUR, Kind, MINUTE, MONTH, SECOND, WEEKDAY};

const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: &[&str] = &["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// So many times of day are listed one by one.
const FEW: u32 = 6;

/// `At 03:00 on weekdays`.
pub(super) fn of(fields: &Fields, six: bool) -> String {
    let (time, clock) = time(fields, six);
    match days(fields) {
        days if !days.is_empty() => format!("{time} {days}"),
        _ if clock => format!("{time} every day"),
        _ => time,
    }
}

/// The time of day, and whether it is one or a few points of the clock.
fn time(fields: &Fields, six: bool) -> (String, bool) {
    let Fields { second, minute, hour, .. } = *fields;
    if second.count() == 1 && !hour.is_full(&HOUR) && minute.count() * hour.count() <= FEW {
        let (seconds, _) = second.ends();
        let seconds = if six { format!(":{seconds:02}") } else { String::new() };
        let clocks: Vec<String> = hour
            .values()
            .flat_map(|h| minute.values().map(move |m| (h, m)))
            .map(|(h, m)| format!("{h:02}:{m:02}{seconds}"))
            .collect();
        return (format!("At {}", and(&clocks)), true);
    }
    let seconds = six && second != Field::ZERO && !(second.count() == 1 && second.ends() == (0, 0));
    if !seconds && minute.count() == 1 && minute.ends() == (0, 0) {
        if hour.is_full(&HOUR) {
            return ("Every hour, on the hour".to_owned(), false);
        }
        if let Some(n) = even(hour, &HOUR) {
            return (format!("Every {n} hours, on the hour"), false);
        }
    }
    let mut text = if seconds { lead(second, &SECOND) } else { lead(minute, &MINUTE) };
    let every = text.starts_with("Every");
    if seconds && !minute.is_full(&MINUTE) {
        text.push_str(&of_which(minute, &MINUTE));
    } else if seconds && !every {
        text.push_str(" of every minute");
    }
    let (from, to) = hour.ends();
    if hour.is_full(&HOUR) {
        let minutes = !minute.is_full(&MINUTE) && even(minute, &MINUTE).is_none();
        let open = if seconds { minutes } else { !every };
        if open {
            text.push_str(" of every hour");
        }
    } else if every && (!seconds || minute.is_full(&MINUTE)) && to - from + 1 == hour.count() {
        text.push_str(&format!(" from {from:02}:00 to {to:02}:59"));
    } else {
        text.push_str(&of_which(hour, &HOUR));
    }
    (text, false)
}

/// `Every minute`, `Every 5 minutes`, `At minutes 10 and 40`.
fn lead(field: Field, kind: &Kind) -> String {
    let what = kind.what;
    if field.is_full(kind) {
        return format!("Every {what}");
    }
    if let Some(n) = even(field, kind) {
        return format!("Every {n} {what}s");
    }
    format!("At {}", named(field, kind))
}

/// ` of minutes 10 and 40`, ` of every 2nd hour`.
fn of_which(field: Field, kind: &Kind) -> String {
    match even(field, kind) {
        Some(n) => format!(" of every {} {}", ordinal(n), kind.what),
        None => format!(" of {}", named(field, kind)),
    }
}

/// `minute 30`, `minutes 10 through 20`, `every 7th minute from 0 through 56`, `minutes 1, 5 and 7`.
fn named(field: Field, kind: &Kind) -> String {
    let (what, (from, to)) = (kind.what, field.ends());
    match field.step() {
        _ if field.count() == 1 => format!("{what} {from}"),
        Some(1) => format!("{what}s {from} through {to}"),
        Some(n) if field.count() > FEW => format!("every {} {what} from {from} through {to}", ordinal(n)),
        _ => {
            let all: Vec<String> = field.values().map(|n| n.to_string()).collect();
            format!("{what}s {}", and(&all))
        }
    }
}

/// The step of a set that goes around without a shorter one at its end.
fn even(field: Field, kind: &Kind) -> Option<u32> {
    let size = kind.max - kind.min + 1;
    let n = if field.count() == 2 { size / 2 } else { field.step()? };
    let (from, to) = field.ends();
    (from == kind.min && n > 1 && to + n == size + kind.min).then_some(n)
}

/// `on weekdays in March`; empty for every day.
fn days(fields: &Fields) -> String {
    let Fields { day, month, weekday, .. } = *fields;
    let months = if month.is_full(&MONTH) { None } else { Some(month_words(month)) };
    let lead = if month.step() == Some(1) { "from" } else { "in" };
    let within = months.as_ref().map(|m| format!(" {lead} {m}")).unwrap_or_default();
    let of_month = format!("of {}", months.as_deref().unwrap_or("the month"));
    let on_day = format!("on {} {of_month}", day_words(day));
    match (day.is_full(&DAY), weekday.is_full(&WEEKDAY)) {
        (true, true) => within.trim_start().to_owned(),
        // One of two alternatives is every day.
        (false, true) | (true, false) if fields.either_day() => within.trim_start().to_owned(),
        (false, true) => on_day,
        (true, false) => format!("{}{within}", weekday_words(weekday)),
        _ if fields.either_day() => format!("{on_day}, and {}{within}", weekday_words(weekday)),
        _ => format!("{on_day} where that is {}", weekday_alternatives(weekday)),
    }
}

fn month_words(month: Field) -> String {
    let names = names(month, MONTHS, 1);
    match (month.step(), month.ends()) {
        (Some(1), (from, to)) => format!("{} through {}", name(MONTHS, from - 1), name(MONTHS, to - 1)),
        _ => and(&names),
    }
}

/// `the 1st and 15th`, `the 1st through 7th`, `every 2nd day from the 1st through the 31st`.
fn day_words(day: Field) -> String {
    let (from, to) = day.ends();
    match day.step() {
        Some(1) => format!("the {} through {}", ordinal(from), ordinal(to)),
        Some(n) if day.count() > FEW => {
            format!("every {} day from the {} through the {}", ordinal(n), ordinal(from), ordinal(to))
        }
        _ => format!("the {}", and(&day.values().map(ordinal).collect::<Vec<_>>())),
    }
}

fn weekday_words(weekday: Field) -> String {
    let days: Vec<u32> = weekday.values().collect();
    match days.as_slice() {
        [1, 2, 3, 4, 5] => "on weekdays".to_owned(),
        [0, 6] => "on weekends".to_owned(),
        _ => {
            let plural: Vec<String> = monday_first(weekday).map(|n| format!("{}s", name(DAYS, n))).collect();
            match (weekday.step(), plural.as_slice()) {
                (Some(1), [first, .., last]) if !days.contains(&0) => format!("on {first} through {last}"),
                _ => format!("on {}", and(&plural)),
            }
        }
    }
}

/// `a Monday or a Tuesday`.
fn weekday_alternatives(weekday: Field) -> String {
    let days: Vec<String> = monday_first(weekday).map(|n| format!("a {}", name(DAYS, n))).collect();
    joined(&days, "or")
}

/// Sunday ends a week in a sentence.
fn monday_first(weekday: Field) -> impl Iterator<Item = u32> {
    weekday.values().filter(|n| *n != 0).chain(weekday.values().filter(|n| *n == 0))
}

fn names(field: Field, all: &[&str], min: u32) -> Vec<String> {
    field.values().map(|n| name(all, n.saturating_sub(min)).to_owned()).collect()
}

fn name<'a>(all: &[&'a str], n: u32) -> &'a str {
    usize::try_from(n).ok().and_then(|n| all.get(n)).copied().unwrap_or_default()
}

fn ordinal(n: u32) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

fn and(all: &[String]) -> String {
    joined(all, "and")
}

fn joined(all: &[String], word: &str) -> String {
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expr;

    #[test]
    fn expressions_are_said_in_english() {
        for (text, words) in [
            ("0 3 * * 1-5", "At 03:00 on weekdays"),
            ("0 3 * * *", "At 03:00 every day"),
            ("* * * * *", "Every minute"),
            ("*/5 * * * *", "Every 5 minutes"),
            ("*/60 * * * *", "Every hour, on the hour"),
            ("@hourly", "Every hour, on the hour"),
            ("30 * * * *", "At minute 30 of every hour"),
            ("15,45 * * * *", "At minutes 15 and 45 of every hour"),
            ("*/30 * * * *", "Every 30 minutes"),
            ("*/7 * * * *", "At every 7th minute from 0 through 56 of every hour"),
            ("0 */2 * * *", "Every 2 hours, on the hour"),
            ("30 */3 * * *", "At minute 30 of every 3rd hour"),
            ("*/15 9-17 * * 1-5", "Every 15 minutes from 09:00 to 17:59 on weekdays"),
            ("*/20 2 * * *", "At 02:00, 02:20 and 02:40 every day"),
            ("*/5 2 * * *", "Every 5 minutes from 02:00 to 02:59"),
            ("0 9,12,18 * * *", "At 09:00, 12:00 and 18:00 every day"),
            ("0 0 1,15 * *", "At 00:00 on the 1st and 15th of the month"),
            ("30 4 1,15 * 5", "At 04:30 on the 1st and 15th of the month, and on Fridays"),
            ("0 0 13 * fri", "At 00:00 on the 13th of the month, and on Fridays"),
            ("@yearly", "At 00:00 on the 1st of January"),
            ("@weekly", "At 00:00 on Sundays"),
            ("0 22 * jan,jul 6,7", "At 22:00 on weekends in January and July"),
            ("0 12 * 3-11 *", "At 12:00 from March through November"),
            ("0 12 1-7 * *", "At 12:00 on the 1st through 7th of the month"),
            (
                "30 2 */2 * 1",
                "At 02:30 on every 2nd day from the 1st through the 31st of the month where that is a Monday",
            ),
            ("0 0 1-31 * 1", "At 00:00 every day"),
            ("0 0 * * 2-4", "At 00:00 on Tuesdays through Thursdays"),
            ("30 0 3 * * *", "At 03:00:30 every day"),
            ("* * * * * *", "Every second"),
            ("*/10 * * * * *", "Every 10 seconds"),
            ("30 * * * * *", "At second 30 of every minute"),
            ("0 * * * * *", "Every minute"),
            ("*/10 30 2 * * *", "Every 10 seconds of minute 30 of hour 2"),
            ("* * 2 * * *", "Every second from 02:00 to 02:59"),
            ("* 5 * * * *", "Every second of minute 5 of every hour"),
        ] {
            assert_eq!(Expr::parse(text).unwrap().words(), words, "{text}");
        }
    }
}
