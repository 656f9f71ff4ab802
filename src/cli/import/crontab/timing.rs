//! The time of an entry in the words of `[schedules.NAME]`.

use super::line::When;
use crate::cli::import::toml_value::Toml;

/// When an entry runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// These keys of a schedule; what there is to say of them.
    Keys(Vec<(&'static str, Toml)>, Vec<String>),
    /// At the start of the machine, which no schedule can say.
    Reboot,
    /// It cannot be said: why.
    No(String),
}

/// Greatest value of each field.
const LAST: [u32; 5] = [59, 23, 31, 12, 7];
/// Least value of each field.
const FIRST: [u32; 5] = [0, 0, 1, 1, 0];

/// Translates the time of an entry. Whether `cron` is what crontab(5) allows is left to taskd's own check.
#[must_use]
pub fn timing(when: When<'_>) -> Timing {
    match when {
        When::Word(word) => of_word(word),
        When::Every(interval) => Timing::Keys(
            vec![("every", Toml::text(interval)), ("align", Toml::Bool(false))],
            vec!["@every is not of crontab(5): the time counts from the end of the last run".to_owned()],
        ),
        When::Fields(fields) => of_fields(fields),
    }
}

fn of_word(word: &str) -> Timing {
    let cron = |text: &str| Timing::Keys(vec![("cron", Toml::text(text))], Vec::new());
    match word.to_ascii_lowercase().as_str() {
        "@reboot" => Timing::Reboot,
        // FreeBSD's words.
        "@every_minute" => cron("* * * * *"),
        "@every_second" => {
            Timing::Keys(vec![("every", Toml::text("1s")), ("align", Toml::Bool(true))], Vec::new())
        }
        lower => match lower.strip_prefix('@').and_then(|n| n.parse::<u32>().ok()) {
            Some(seconds) => Timing::Keys(
                vec![("every", Toml::text(format!("{seconds}s"))), ("align", Toml::Bool(false))],
                vec![format!("@{seconds}: so many seconds after the end of the last run")],
            ),
            None => cron(lower),
        },
    }
}

fn of_fields(fields: [&str; 5]) -> Timing {
    let mut said = Vec::new();
    let mut out: Vec<String> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let mut field = *field;
        if i == 0
            && let Some(rest) = field.strip_prefix('-')
        {
            said.push("the - before the minute only kept cron from logging".to_owned());
            field = rest;
        }
        if field.contains('~') {
            let why = "a random time as in `0~59` is drawn by cron when it reads the file; choose one, or use `splay`";
            return Timing::No(why.to_owned());
        }
        if field.starts_with(['H', 'h']) && i == 0 {
            return Timing::No("`H` is a word of Jenkins; choose a minute, or use `splay`".to_owned());
        }
        let items = field.split(',').map(|item| wide_step(i, item, &mut said));
        out.push(items.collect::<Vec<_>>().join(","));
    }
    if out.iter().any(|f| f.contains(['L', 'W', '#', '?'])) && !is_name_only(&out) {
        return Timing::No("`L`, `W`, `#` and `?` are words of Quartz, not of crontab(5)".to_owned());
    }
    Timing::Keys(vec![("cron", Toml::text(out.join(" ")))], said)
}

/// Whether every letter belongs to the name of a month or day (`JUL`, `WED`), not to Quartz.
fn is_name_only(fields: &[String]) -> bool {
    fields.iter().all(|f| {
        !f.contains(['#', '?'])
            && f.split(|c: char| !c.is_ascii_alphabetic()).all(|word| word.is_empty() || word.len() == 3)
    })
}

/// A step wider than its field leaves only the first value of it: cron takes it, taskd asks for what it means.
fn wide_step(i: usize, item: &str, said: &mut Vec<String>) -> String {
    let wide = item.split_once('/').and_then(|(range, step)| {
        let last = *LAST.get(i)?;
        let first = match range.split_once('-') {
            _ if range == "*" => *FIRST.get(i)?,
            Some((from, _)) => from.parse().ok()?,
            None => return None,
        };
        (step.parse::<u64>().ok()? > u64::from(last)).then_some(first)
    });
    match wide {
        Some(first) => {
            said.push(format!("cron reads {item} as {first}: the step is wider than the field"));
            first.to_string()
        }
        None => item.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(fields: &str) -> Option<String> {
        let mut parts = fields.split_whitespace();
        let fields = [(); 5].map(|()| parts.next().unwrap());
        match timing(When::Fields(fields)) {
            Timing::Keys(keys, _) => match keys.first() {
                Some(("cron", Toml::Text(text))) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn fields_stay_what_they_are_but_for_what_only_cron_reads() {
        assert_eq!(cron("*/5 0-23/2 1,15 JUL mon-wed").as_deref(), Some("*/5 0-23/2 1,15 JUL mon-wed"));
        assert_eq!(cron("-*/60 */24 * * *").as_deref(), Some("0 */24 * * *").map(|_| "0 0 * * *"));
        assert_eq!(cron("0 0 */32 * *").as_deref(), Some("0 0 1 * *"));
        for odd in ["0~59 * * * *", "H 4 * * *", "0 0 L * *", "0 0 ? * MON#2", "0 0 15W * *"] {
            assert_eq!(cron(odd), None, "{odd}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(timing(When::Word("@reboot")), Timing::Reboot);
        let keys = |word| match timing(When::Word(word)) {
            Timing::Keys(keys, _) => {
                keys.iter().map(|(k, v)| format!("{k} = {}", v.show())).collect::<Vec<_>>().join(" ")
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(keys("@Daily"), "cron = \"@daily\"");
        assert_eq!(keys("@every_minute"), "cron = \"* * * * *\"");
        assert_eq!(keys("@300"), "every = \"300s\" align = false");
    }
}
