//! Whether a text is a crontab(5) expression. When it fires is none of the config's business.

use super::values::Wrong;

/// A field: what it is called, its bounds, names of its values from the first on.
struct Field {
    what: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

const FIELDS: &[Field] = &[
    Field { what: "minute", min: 0, max: 59, names: &[] },
    Field { what: "hour", min: 0, max: 23, names: &[] },
    Field { what: "day of month", min: 1, max: 31, names: &[] },
    Field { what: "month", min: 1, max: 12, names: MONTHS },
    Field { what: "day of week", min: 0, max: 7, names: DAYS },
];
const SECONDS: Field = Field { what: "second", min: 0, max: 59, names: &[] };

/// Checks five fields, six with seconds first, or a word as `@daily`.
///
/// # Errors
/// The first field that is wrong.
pub(super) fn check(text: &str) -> Result<(), Wrong> {
    let help =
        "write minute, hour, day of month, month and day of week, as \"0 3 * * *\", or a word as \"@daily\"";
    if text.starts_with('@') {
        if WORDS.contains(&text) {
            return Ok(());
        }
        return Err(Wrong {
            message: format!("has the unknown word {text:?}"),
            help: format!(
                "the words are {}; at the start of taskd nothing fires by itself",
                WORDS.join(", ")
            ),
        });
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    let (first, rest) = match parts.as_slice() {
        [second, rest @ ..] if rest.len() == 5 => (Some(*second), rest),
        rest => (None, rest),
    };
    if rest.len() != 5 {
        return Err(Wrong { message: format!("has {} fields, not 5", parts.len()), help: help.to_owned() });
    }
    let fields = first.iter().map(|s| (&SECONDS, *s)).chain(FIELDS.iter().zip(rest.iter().copied()));
    for (field, part) in fields {
        if let Some(bad) = part.split(',').find(|item| !is_item(field, item)) {
            return Err(Wrong {
                message: format!("has {bad:?} as {}", field.what),
                help: format!(
                    "a {} is between {} and {}, a range as 1-5, * or a step as */2",
                    field.what, field.min, field.max
                ),
            });
        }
    }
    Ok(())
}

/// `*`, `n`, `n-m`, the latter and `*` also with `/step`.
fn is_item(field: &Field, item: &str) -> bool {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    if step.is_some_and(|s| !number(s).is_some_and(|n| n >= 1 && n <= field.max)) {
        return false;
    }
    if range == "*" {
        return true;
    }
    match range.split_once('-') {
        Some((from, to)) => match (value(field, from), value(field, to)) {
            (Some(from), Some(to)) => from <= to,
            _ => false,
        },
        // `10/20` means nothing in crontab(5).
        None => step.is_none() && value(field, range).is_some(),
    }
}

fn value(field: &Field, text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    if let Some(i) = field.names.iter().position(|n| *n == lower) {
        return u32::try_from(i).ok().map(|i| i + field.min);
    }
    number(text).filter(|n| (field.min..=field.max).contains(n))
}

fn number(text: &str) -> Option<u32> {
    if text.chars().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for good in [
            "0 3 * * *",
            "*/5 * * * *",
            "0 0 1,15 * 1-5",
            "0 0 * jan-mar,DEC mon",
            "0-30/10 22-23 * * 7",
            "30 0 3 * * *",
            "@daily",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "10/20 * * * *",
            "*/0 * * * *",
            "+1 * * * *",
            "1,,2 * * * *",
            "@reboot",
            "a b c d e",
            "* * * * * * *",
            "1- * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
