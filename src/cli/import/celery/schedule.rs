//! Celery's schedules in the words of `[schedules.NAME]`.

use super::python::value::Value;
use crate::cli::import::toml_value::Toml;
use crate::config::values::show_duration;

/// The keys of a schedule.
pub type Keys = Vec<(&'static str, Toml)>;

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Bounds of minute, hour, day of month, month and day of week, as Celery counts them.
const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];

/// Translates a schedule; a `cron` comes without its time zone.
///
/// # Errors
/// Why it cannot be said.
pub fn keys(value: &Value) -> Result<Keys, String> {
    match value {
        Value::Int(_) | Value::Float(_) => every(value.number().unwrap_or_default()),
        Value::Text(text) if text.split_whitespace().count() == 5 => Ok(vec![("cron", Toml::text(text))]),
        Value::Call(name, positional, named) => call(name, positional, named),
        Value::Dict(map) => dict(value, map),
        _ => Err("it is no schedule that is known here".to_owned()),
    }
}

/// An interval in seconds.
fn every(seconds: f64) -> Result<Keys, String> {
    let ms = (seconds * 1_000.0).round();
    if !(1.0..=1e15).contains(&ms) {
        return Err(format!("{seconds} seconds is no interval"));
    }
    // Within the bounds above.
    Ok(vec![("every", Toml::text(show_duration(ms as u64))), ("align", Toml::Bool(true))])
}

/// A schedule as JSON: of RedBeat (`__type__`), or the arguments of crontab and timedelta.
fn dict(value: &Value, map: &[(String, Value)]) -> Result<Keys, String> {
    let named: Vec<(String, Value)> = map.iter().filter(|(n, _)| n != "__type__").cloned().collect();
    let has = |names: &[&str]| map.iter().any(|(n, _)| names.contains(&n.as_str()));
    match value.get("__type__").and_then(Value::text) {
        Some(name) => call(name, &[], &named),
        None if has(&["event"]) => call("solar", &[], &named),
        None if has(&["every", "run_every"]) => call("interval", &[], &named),
        None if has(&["minute", "hour", "day_of_week", "day_of_month", "month_of_year"]) => {
            call("crontab", &[], &named)
        }
        None if has(&["days", "seconds", "minutes", "hours", "weeks", "milliseconds"]) => {
            call("timedelta", &[], &named)
        }
        None => match named.as_slice() {
            [(name, Value::Dict(inner))] => call(name, &[], inner),
            _ => Err("it is no schedule that is known here".to_owned()),
        },
    }
}

fn call(name: &str, positional: &[Value], named: &[(String, Value)]) -> Result<Keys, String> {
    match name {
        "crontab" => crontab(positional, named),
        "timedelta" => every(timedelta(positional, named)?),
        "schedule" | "interval" | "maybe_schedule" => {
            let inner = named.iter().find(|(n, _)| n == "run_every" || n == "every").map(|(_, v)| v);
            keys(inner.or_else(|| positional.first()).ok_or("it says no interval")?)
        }
        "solar" => solar(positional, named),
        "rrule" => Err("rules of recurrence are not known to taskd; write cron or every".to_owned()),
        "clocked" => Err("a single moment is no schedule: `taskd enqueue … --at` does it".to_owned()),
        _ => Err(format!("{name}(…) is no schedule that is known here")),
    }
}

/// Seconds of `timedelta(…)`.
///
/// # Errors
/// An argument is no number.
pub fn timedelta(positional: &[Value], named: &[(String, Value)]) -> Result<f64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("days", 86_400.0),
        ("seconds", 1.0),
        ("microseconds", 1e-6),
        ("milliseconds", 1e-3),
        ("minutes", 60.0),
        ("hours", 3_600.0),
        ("weeks", 604_800.0),
    ];
    let mut seconds = 0.0;
    let given = positional.iter().zip(UNITS).map(|(v, (name, _))| (name, v));
    for (name, value) in given.chain(named.iter().map(|(n, v)| (n.as_str(), v))) {
        let unit = UNITS.iter().find(|(unit, _)| *unit == name);
        let (_, factor) = unit.ok_or_else(|| format!("timedelta has no {name}"))?;
        seconds += value.number().ok_or_else(|| format!("{name} is no number"))? * factor;
    }
    Ok(seconds)
}

fn crontab(positional: &[Value], named: &[(String, Value)]) -> Result<Keys, String> {
    const NAMES: [&str; 5] = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"];
    if positional.len() > 2 {
        return Err(
            "the order of crontab's arguments changed between versions of Celery: name them".to_owned()
        );
    }
    let mut fields = [(); 5].map(|()| Value::Text("*".to_owned()));
    for (slot, value) in fields.iter_mut().zip(positional) {
        *slot = value.clone();
    }
    for (name, value) in named {
        match NAMES.iter().position(|n| n == name).and_then(|i| fields.get_mut(i)) {
            Some(slot) => *slot = value.clone(),
            None if matches!(name.as_str(), "nowfun" | "app") => {
                return Err(format!("{name} is a function of the program"));
            }
            None => return Err(format!("crontab has no {name}")),
        }
    }
    let mut out = Vec::new();
    for (i, value) in fields.iter().enumerate() {
        let of = NAMES.get(i).copied().unwrap_or_default();
        out.push(field(i, value).map_err(|why| format!("crontab({of}={value}): {why}"))?);
    }
    let fixed = |i: usize| out.get(i).is_some_and(|f| f != "*");
    if fixed(2) && fixed(4) {
        let why = "Celery wants day_of_month and day_of_week both to fit, crontab(5) either of them";
        return Err(format!("{why}; use one, and let the task check the other"));
    }
    Ok(vec![("cron", Toml::text(out.join(" ")))])
}

/// One field: a number, a text, or a list of either.
fn field(i: usize, value: &Value) -> Result<String, String> {
    match value {
        Value::Int(n) => one(i, &n.to_string()),
        Value::Text(text) => {
            let items = text.split(',').map(|item| one(i, item.trim()));
            Ok(items.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        Value::List(list) if !list.is_empty() => {
            Ok(list.iter().map(|v| field(i, v)).collect::<Result<Vec<_>, _>>()?.join(","))
        }
        _ => Err("a field of crontab is neither a number nor a text".to_owned()),
    }
}

/// An item, with what Celery reads and crontab(5) does not: whole names, ranges over the end, wide steps.
fn one(i: usize, item: &str) -> Result<String, String> {
    let (first, last) = BOUNDS.get(i).copied().unwrap_or_default();
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => {
            let step = step.trim().parse::<u32>().ok().filter(|n| *n > 0);
            (range.trim(), Some(step.ok_or_else(|| format!("{item:?} has no step above zero"))?))
        }
        None => (item, None),
    };
    if range.starts_with('-') {
        let what = "no field of crontab(5) counts from the end";
        return Err(format!("{item:?} is no value: {what}, its values are {first} to {last}"));
    }
    let (from, to) = match range.split_once('-') {
        _ if range == "*" => (None, None),
        Some((from, to)) => (Some(name(i, from.trim())?), Some(name(i, to.trim())?)),
        None => (Some(name(i, range)?), None),
    };
    let number = |n: &str| position(i, n).unwrap_or(first);
    match (from, to, step) {
        (None, _, None) => Ok("*".to_owned()),
        (None, _, Some(step)) if step > last - first => Ok(first.to_string()),
        (None, _, Some(step)) => Ok(format!("*/{step}")),
        (Some(from), None, None) => Ok(from),
        (Some(_), None, Some(_)) => Err(format!("{item:?} is a step without a range")),
        (Some(from), Some(to), step) => {
            let (a, b) = (number(&from), number(&to));
            let step = step.unwrap_or(1);
            if b < a {
                // Over the end, as `fri-mon` and `22-2`: written out.
                let all: Vec<u32> = (a..=last).chain(first..=b).collect();
                let width = usize::try_from(step).unwrap_or(usize::MAX);
                let list: Vec<String> = all.into_iter().step_by(width).map(|n| n.to_string()).collect();
                return Ok(list.join(","));
            }
            Ok(match step {
                1 => format!("{from}-{to}"),
                step if step > b - a => from,
                step => format!("{from}-{to}/{step}"),
            })
        }
    }
}

/// A number, or a name cut to three letters.
fn name(i: usize, text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() < 6 && text.chars().all(|c| c.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let short: String = text.to_ascii_lowercase().chars().take(3).collect();
    let known = match i {
        3 => MONTHS.contains(&short.as_str()),
        4 => DAYS.contains(&short.as_str()),
        _ => false,
    };
    if known { Ok(short) } else { Err(format!("{text:?} is not understood")) }
}

/// The number of a value of a field.
fn position(i: usize, text: &str) -> Option<u32> {
    let of = |names: &[&str]| names.iter().position(|n| *n == text).and_then(|n| u32::try_from(n).ok());
    text.parse().ok().or_else(|| match i {
        3 => of(&MONTHS).map(|n| n + 1),
        4 => of(&DAYS),
        _ => None,
    })
}

fn solar(positional: &[Value], named: &[(String, Value)]) -> Result<Keys, String> {
    let get = |i: usize, names: &[&str]| {
        positional.get(i).or_else(|| named.iter().find(|(n, _)| names.contains(&n.as_str())).map(|(_, v)| v))
    };
    let event = get(0, &["event"]).and_then(Value::text).ok_or("it names no event of the sun")?;
    // Fixtures of Django have decimals as texts.
    let degrees = |v: &Value| v.number().or_else(|| v.text()?.parse().ok()).filter(|n: &f64| n.is_finite());
    let latitude = get(1, &["lat", "latitude"]).and_then(degrees).ok_or("its latitude is no number")?;
    let longitude = get(2, &["lon", "longitude"]).and_then(degrees).ok_or("its longitude is no number")?;
    Ok(vec![
        ("solar", Toml::text(event)),
        ("latitude", Toml::Float(latitude)),
        ("longitude", Toml::Float(longitude)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &Value) -> String {
        match keys(value) {
            Ok(keys) => keys.iter().map(|(k, v)| format!("{k}={}", v.show())).collect::<Vec<_>>().join(" "),
            Err(why) => format!("! {why}"),
        }
    }

    fn cron(named: &[(&str, Value)]) -> String {
        let named = named.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        shown(&Value::Call("crontab".into(), vec![], named))
    }

    fn text(t: &str) -> Value {
        Value::Text(t.to_owned())
    }

    #[test]
    fn crontabs() {
        assert_eq!(cron(&[]), "cron=\"* * * * *\"");
        assert_eq!(
            cron(&[("minute", Value::Int(0)), ("hour", text("*/3")), ("day_of_week", text("mon-fri"))]),
            "cron=\"0 */3 * * mon-fri\""
        );
        assert_eq!(
            cron(&[("hour", text("22-2")), ("minute", Value::List(vec![Value::Int(0), text("30")]))]),
            "cron=\"0,30 22,23,0,1,2 * * *\""
        );
        assert_eq!(cron(&[("day_of_week", text("Friday-monday"))]), "cron=\"* * * * 5,6,0,1\"");
        assert_eq!(
            cron(&[("minute", text("*/60")), ("month_of_year", text("1-12/3"))]),
            "cron=\"0 * * 1-12/3 *\""
        );
        assert!(
            cron(&[("day_of_month", Value::Int(1)), ("day_of_week", Value::Int(1))])
                .starts_with("! Celery wants")
        );
        assert!(cron(&[("minute", text("5/10"))]).starts_with('!'));
        for minus in [text("-1"), Value::Int(-1), text("1,-1")] {
            let said = cron(&[("day_of_month", minus)]);
            assert!(said.contains("day_of_month") && said.contains("\"-1\" is no value"), "{said}");
        }
        assert!(cron(&[("minutes", Value::Int(1))]).starts_with('!'));
    }

    #[test]
    fn intervals_and_the_sun() {
        assert_eq!(shown(&Value::Float(30.0)), "every=\"30s\" align=true");
        assert_eq!(
            shown(&Value::Call(
                "timedelta".into(),
                vec![Value::Int(1)],
                vec![("minutes".into(), Value::Int(5))]
            )),
            "every=\"1d 5m\" align=true"
        );
        let inner = Value::Call("timedelta".into(), vec![], vec![("seconds".into(), Value::Int(90))]);
        assert_eq!(
            shown(&Value::Call("schedule".into(), vec![], vec![("run_every".into(), inner)])),
            "every=\"1m 30s\" align=true"
        );
        assert_eq!(
            shown(&Value::Call(
                "solar".into(),
                vec![text("sunset"), Value::Float(-37.8), Value::Int(144)],
                vec![]
            )),
            "solar=\"sunset\" latitude=-37.8 longitude=144.0"
        );
        let json: serde_json::Value = serde_json::json!({"__type__": "crontab", "minute": "5", "hour": "*"});
        assert_eq!(shown(&Value::from(&json)), "cron=\"5 * * * *\"");
        let json: serde_json::Value = serde_json::json!({"crontab": {"minute": 5}});
        assert_eq!(shown(&Value::from(&json)), "cron=\"5 * * * *\"");
        for odd in [
            Value::Int(0),
            Value::None,
            text("x"),
            Value::Float(-3.0),
            Value::Float(f64::MAX),
            Value::Call("x".into(), vec![], vec![]),
        ] {
            assert!(shown(&odd).starts_with('!'), "{odd:?}");
        }
    }
}
