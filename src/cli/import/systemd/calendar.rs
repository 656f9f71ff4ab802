//! Calendar events of systemd.time(7) as crontab(5) expressions.

/// A calendar event as cron says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// Its time zone.
    pub zone: Option<String>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Words that stand for an event.
const WORDS: &[(&str, &str)] = &[
    ("minutely", "* * * * *"),
    ("hourly", "0 * * * *"),
    ("daily", "0 0 * * *"),
    ("monthly", "0 0 1 * *"),
    ("weekly", "0 0 * * mon"),
    ("yearly", "0 0 1 1 *"),
    ("annually", "0 0 1 1 *"),
    ("quarterly", "0 0 1 1,4,7,10 *"),
    ("semiannually", "0 0 1 1,7 *"),
    ("biannually", "0 0 1 1,7 *"),
    ("bi-annually", "0 0 1 1,7 *"),
    ("semi-annually", "0 0 1 1,7 *"),
    ("anually", "0 0 1 1 *"),
];

/// Translates an event.
///
/// # Errors
/// Why crontab(5) cannot say it.
pub fn event(text: &str) -> Result<Event, String> {
    let mut parts: Vec<&str> = text.split_whitespace().collect();
    if parts.is_empty() {
        return Err("it is empty".to_owned());
    }
    let zone = zone_of(&mut parts);
    if let [word] = parts.as_slice() {
        let lower = word.to_ascii_lowercase();
        if let Some((_, cron)) = WORDS.iter().find(|(w, _)| *w == lower) {
            return Ok(Event { cron: (*cron).to_owned(), zone });
        }
    }
    // `Mon, Tue`: a list may have blanks after its commas.
    let mut weekday = None;
    let mut rest = parts.iter().copied().peekable();
    let mut list = String::new();
    while let Some(part) = rest.next_if(|p| p.starts_with(|c: char| c.is_ascii_alphabetic())) {
        list.push_str(part);
    }
    if !list.is_empty() {
        weekday = Some(weekdays(&list).ok_or_else(|| format!("{list:?} is no list of days of the week"))?);
    }
    let mut date = None;
    let mut time = None;
    for part in rest {
        let slot = if part.contains(':') { &mut time } else { &mut date };
        if slot.replace(part).is_some() {
            return Err("it is no calendar event of systemd.time(7)".to_owned());
        }
    }
    if weekday.is_none() && date.is_none() && time.is_none() {
        return Err("it is no calendar event of systemd.time(7)".to_owned());
    }
    let (month, day) = of_date(date.unwrap_or("*-*-*"))?;
    let (hour, minute, second) = of_time(time.unwrap_or("0:0:0"))?;
    let weekday = weekday.unwrap_or_else(|| "*".to_owned());
    if weekday != "*" && day != "*" {
        let why = "a day of the week and a day of the month at once: crontab(5) would take either, systemd takes both";
        return Err(format!("{why}; use one of them and let the command check the other"));
    }
    let five = format!("{minute} {hour} {day} {month} {weekday}");
    Ok(Event { cron: if second == "0" { five } else { format!("{second} {five}") }, zone })
}

/// Takes the time zone off the end: what is no day of the week and has letters.
fn zone_of(parts: &mut Vec<&str>) -> Option<String> {
    if parts.len() < 2 {
        return None;
    }
    let last = *parts.last()?;
    let letters = last.starts_with(|c: char| c.is_ascii_alphabetic()) && weekdays(last).is_none();
    letters.then(|| {
        parts.pop();
        last.to_owned()
    })
}

/// `Mon,Wed..Fri` as cron's list; `*` for all of them.
fn weekdays(list: &str) -> Option<String> {
    let day = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        DAYS.iter().position(|d| *d == lower).or_else(|| full.iter().position(|d| *d == lower))
    };
    let mut on = [false; 7];
    for item in list.split(',').filter(|i| !i.is_empty()) {
        let (from, to) = match item.split_once("..").or_else(|| item.split_once('-')) {
            Some((from, to)) => (day(from)?, day(to)?),
            None => (day(item)?, day(item)?),
        };
        // systemd takes no range over the end of the week.
        for at in from..=to {
            *on.get_mut(at)? = true;
        }
        if to < from {
            return None;
        }
    }
    if on == [true; 7] {
        return Some("*".to_owned());
    }
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < 7 {
        let end = (at..7).take_while(|i| on.get(*i) == Some(&true)).last();
        match end {
            Some(end) => {
                let name = |i: usize| DAYS.get(i).copied().unwrap_or_default();
                // Sunday is 0 at the beginning and 7 at the end of cron's week: a name at a range's end is 0.
                match end - at {
                    0 => out.push(name(at).to_owned()),
                    _ if end == 6 => {
                        out.push(if at == 5 {
                            name(5).to_owned()
                        } else {
                            format!("{}-{}", name(at), name(5))
                        });
                        out.push(name(6).to_owned());
                    }
                    1 => out.extend([name(at).to_owned(), name(end).to_owned()]),
                    _ => out.push(format!("{}-{}", name(at), name(end))),
                }
                at = end + 1;
            }
            None => at += 1,
        }
    }
    (!out.is_empty()).then(|| out.join(","))
}

/// `[year-]month-day` as month and day of month.
fn of_date(date: &str) -> Result<(String, String), String> {
    if date.contains('~') {
        return Err("days counted from the end of the month are not known to crontab(5)".to_owned());
    }
    if date.starts_with('@') {
        return Err("a single moment is no schedule".to_owned());
    }
    let parts: Vec<&str> = date.split('-').collect();
    let (year, month, day) = match parts.as_slice() {
        [year, month, day] => (*year, *month, *day),
        [month, day] => ("*", *month, *day),
        _ => return Err(format!("{date:?} is no date of systemd.time(7)")),
    };
    if year != "*" {
        return Err(format!("crontab(5) has no years, and this is for {year} only"));
    }
    Ok((field(month, 1, 12)?, field(day, 1, 31)?))
}

/// `hour:minute[:second]`.
fn of_time(time: &str) -> Result<(String, String, String), String> {
    let parts: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] => (*hour, *minute, "0"),
        [hour, minute, second] => (*hour, *minute, *second),
        _ => return Err(format!("{time:?} is no time of systemd.time(7)")),
    };
    Ok((field(hour, 0, 23)?, field(minute, 0, 59)?, field(second, 0, 59)?))
}

/// A component: `*`, `5`, `1..5`, `0/15`, `1..9/2`, and lists of them.
fn field(text: &str, first: u32, last: u32) -> Result<String, String> {
    let number = |t: &str| {
        let t = t.strip_suffix(".00").or_else(|| t.strip_suffix(".0")).unwrap_or(t);
        let digits = !t.is_empty() && t.chars().all(|c| c.is_ascii_digit());
        match t.parse::<u32>() {
            Ok(n) if digits && (first..=last).contains(&n) => Ok(n),
            _ if digits && t.contains('.') => Err("parts of seconds are not known to crontab(5)".to_owned()),
            _ if t.contains('.') => Err("parts of seconds are not known to crontab(5)".to_owned()),
            _ => Err(format!("{t:?} is not between {first} and {last}")),
        }
    };
    let mut out = Vec::new();
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (
                range,
                Some(
                    step.parse::<u32>()
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or_else(|| format!("{item:?} has no step above zero"))?,
                ),
            ),
            None => (item, None),
        };
        let (from, to) = match range.split_once("..") {
            Some((from, to)) => (number(from)?, Some(number(to)?)),
            None if range == "*" => (first, None),
            None => (number(range)?, None),
        };
        if range == "*" && step.is_some() {
            return Err(format!("{item:?} has a step without a first value; systemd refuses it"));
        }
        if to.is_some_and(|to| to < from) {
            return Err(format!("{range:?} ends before it begins"));
        }
        out.push(match (range, step, to) {
            ("*", None, _) => "*".to_owned(),
            (_, None, None) => from.to_string(),
            (_, None, Some(to)) => format!("{from}-{to}"),
            (_, Some(step), to) => {
                let to = to.unwrap_or(last);
                // A step beyond the end leaves the first value only.
                if step > to - from {
                    from.to_string()
                } else if from == first && to == last {
                    format!("*/{step}")
                } else {
                    format!("{from}-{to}/{step}")
                }
            }
        });
    }
    Ok(out.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        for (text, cron, zone) in [
            ("daily", "0 0 * * *", None),
            ("weekly UTC", "0 0 * * mon", Some("UTC")),
            ("Quarterly", "0 0 1 1,4,7,10 *", None),
            ("*-*-* 6,18:00", "0 6,18 * * *", None),
            ("*-*-* *:00/30:00", "*/30 * * * *", None),
            ("*:0/15", "*/15 * * * *", None),
            ("*:5/15", "5-59/15 * * * *", None),
            ("*:*:0/10", "*/10 * * * * *", None),
            ("Mon..Fri 9..17:30", "30 9-17 * * mon-fri", None),
            ("Mon..Fri *-*-* 04:00:00 Europe/Berlin", "0 4 * * mon-fri", Some("Europe/Berlin")),
            ("Sat,Sun 20:00", "0 20 * * sat,sun", None),
            ("Fri..Sun 8:00", "0 8 * * fri-sat,sun", None),
            ("Mon-Fri 8:00", "0 8 * * mon-fri", None),
            ("mon", "0 0 * * mon", None),
            ("*-*-01 03:00", "0 3 1 * *", None),
            ("*-1/3-1", "0 0 1 */3 *", None),
            ("1-5", "0 0 5 1 *", None),
            ("Mon..Sun 1:00", "0 1 * * *", None),
            ("02:00:00", "0 2 * * *", None),
            ("00/12:00", "0 */12 * * *", None),
            ("*-*-1..7 5:15:30", "30 15 5 1-7 * *", None),
        ] {
            let wanted = Ok(Event { cron: cron.to_owned(), zone: zone.map(str::to_owned) });
            assert_eq!(event(text), wanted, "{text}");
        }
        for odd in [
            "",
            "2026-*-* 1:00",
            "*-*~1",
            "Mon *-*-1..7 1:00",
            "*:*:0/0.5",
            "25:00",
            "foo",
            "Fri..Mon 8:00",
            "*:*/5",
            "Mon Tue",
            "1:2:3:4",
            "@5",
            "*-*-* *-*-*",
        ] {
            assert!(event(odd).is_err(), "{odd:?}: {:?}", event(odd));
        }
    }
}
