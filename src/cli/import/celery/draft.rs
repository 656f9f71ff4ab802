//! A task of Celery's while it is put together: from its decorator, from annotations, from entries of a schedule.

use super::project::Maybe;
use super::python::value::Value;
use super::schedule;
use crate::cli::import::naming;
use crate::cli::import::toml_value::Toml;
use crate::config::values::show_duration;
use crate::model::name;

/// A task while it is put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Keys, their values, and what they come from.
    pub(super) keys: Vec<(&'static str, Toml, String)>,
    /// What stands above it.
    pub(super) comments: Vec<String>,
    /// What could not be carried over, and why.
    pub(super) left: Vec<(String, String)>,
}

impl Draft {
    /// Sets a key; two sources that differ cannot both be right.
    pub(super) fn set(&mut self, key: &'static str, value: Toml, said: &str) {
        match self.keys.iter().find(|(k, ..)| *k == key) {
            Some((_, known, _)) if *known == value => {}
            Some((_, known, by)) => {
                let why = format!(
                    "{key} = {} stands already{}",
                    known.show(),
                    if by.is_empty() { String::new() } else { format!(", by {by}") }
                );
                self.left.push((format!("{key} = {}  ({said})", value.show()), why));
            }
            None => self.keys.push((key, value, said.to_owned())),
        }
    }

    /// Adds what holds for every task where nothing else is said, but no pair of limits that contradict each other.
    pub(super) fn fill(&mut self, keys: &[(String, Toml)]) {
        let millis = |keys: &[(&'static str, Toml, String)], wanted: &str| {
            let found = keys.iter().find(|(k, ..)| *k == wanted)?;
            if let (_, Toml::Text(text), _) = found {
                crate::config::values::duration(text).ok()
            } else {
                None
            }
        };
        for (key, value) in keys {
            let known = ["soft_time_limit", "time_limit", "rate_limit", "acks", "ignore_result", "priority"];
            let Some(key) = known.into_iter().find(|k| k == key) else { continue };
            if self.keys.iter().any(|(k, ..)| *k == key) {
                continue;
            }
            let mut with = self.keys.clone();
            with.push((key, value.clone(), "for every task".to_owned()));
            match (millis(&with, "soft_time_limit"), millis(&with, "time_limit")) {
                (Some(soft), Some(hard)) if soft >= hard => {
                    self.comments.push(format!(
                        "  ({key} = {} for every task does not fit its own limit)",
                        value.show()
                    ));
                }
                _ => self.keys = with,
            }
        }
    }

    /// Notes what could not be carried over.
    pub(super) fn leave(&mut self, source: impl Into<String>, why: impl Into<String>) {
        self.left.push((source.into(), why.into()));
    }
}

/// A duration of seconds, or of a timedelta.
pub(super) fn duration(value: &Value) -> Result<Toml, String> {
    let seconds = match value {
        Value::Call(name, positional, named) if name == "timedelta" => {
            schedule::timedelta(positional, named)?
        }
        other => other.number().ok_or("it is no number of seconds")?,
    };
    let ms = (seconds * 1_000.0).round();
    if (1.0..1e15).contains(&ms) {
        // Within the bounds above.
        Ok(Toml::text(show_duration(ms as u64)))
    } else {
        Err(format!("{seconds} seconds is no duration"))
    }
}

/// `"10/m"`, or a number a second; fractions in a longer period. None where there is no limit.
pub(super) fn rate(value: &Value) -> Result<Option<Toml>, String> {
    let (count, unit) = match value {
        Value::None => return Ok(None),
        Value::Int(_) | Value::Float(_) => (value.number().unwrap_or_default(), "s".to_owned()),
        Value::Text(text) => {
            let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
            let count = count.trim().parse::<f64>().map_err(|_| format!("{text:?} is no rate"))?;
            (count, unit.trim().chars().next().unwrap_or('s').to_string())
        }
        _ => return Err("it is no rate".to_owned()),
    };
    if count == 0.0 {
        return Ok(None);
    }
    let units = [("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    let from = units
        .iter()
        .find(|(u, _)| *u == unit)
        .map(|(_, n)| *n)
        .ok_or_else(|| format!("{unit:?} is no period"))?;
    // The shortest period in which the number is whole.
    let found = units.iter().filter(|(_, n)| *n >= from).find_map(|(u, n)| {
        let scaled = count * n / from;
        ((scaled - scaled.round()).abs() < 1e-9 && (1.0..4e9).contains(&scaled))
            .then(|| format!("{}/{u}", scaled.round()))
    });
    found.map(|rate| Some(Toml::text(rate))).ok_or_else(|| "it is no whole number in any period".to_owned())
}

/// An option of a decorator or an annotation.
pub(super) fn task_option(draft: &mut Draft, option: &str, value: &Maybe, retries: bool) {
    let value = match (option, value) {
        // Classes of exceptions: which ones cannot be said, that there are some can.
        ("autoretry_for", _) => {
            return draft.comments.push("  (autoretry_for: every failure is tried again here)".to_owned());
        }
        (_, Ok(value)) => value,
        (_, Err(why)) => return draft.leave(option.to_owned(), why.clone()),
    };
    let shown = || format!("{option} = {value}");
    let mut duration_of = |key: &'static str| match duration(value) {
        Ok(text) => draft.set(key, text, ""),
        Err(why) => draft.leave(shown(), why),
    };
    match (option, value) {
        (
            "bind"
            | "serializer"
            | "shared"
            | "typing"
            | "track_started"
            | "store_errors_even_if_ignored"
            | "base"
            | "trail"
            | "send_events"
            | "pydantic",
            _,
        ) => {}
        (_, Value::None) => {}
        ("rate_limit", value) => match rate(value) {
            Ok(Some(rate)) => draft.set("rate_limit", rate, ""),
            Ok(None) => {}
            Err(why) => draft.leave(shown(), why),
        },
        ("time_limit", _) => duration_of("time_limit"),
        ("soft_time_limit", _) => duration_of("soft_time_limit"),
        ("expires", _) => duration_of("expires"),
        ("queue", Value::Text(queue)) if name::check(queue).is_ok() => {
            draft.set("queue", Toml::text(naming::queue(queue)), "")
        }
        ("priority", Value::Int(n)) => draft.set("priority", Toml::Int(*n), ""),
        ("ignore_result", Value::Bool(b)) => draft.set("ignore_result", Toml::Bool(*b), ""),
        ("acks_late", Value::Bool(late)) => {
            draft.set("acks", Toml::text(if *late { "late" } else { "early" }), "")
        }
        ("max_retries", Value::Int(n)) if retries => draft.set("max_retries", Toml::Int(*n), ""),
        ("default_retry_delay" | "countdown", _) if retries => duration_of("retry_delay"),
        ("retry_backoff", Value::Bool(on)) if retries => {
            draft.set("retry_backoff", Toml::Bool(*on), "");
            if *on {
                draft.set("retry_delay", Toml::text("1s"), "Celery's first delay");
            }
        }
        ("retry_backoff", Value::Int(_)) if retries => {
            duration_of("retry_delay");
            draft.set("retry_backoff", Toml::Bool(true), "");
        }
        ("retry_backoff_max", _) if retries => duration_of("retry_backoff_max"),
        ("retry_jitter", Value::Bool(b)) if retries => draft.set("retry_jitter", Toml::Bool(*b), ""),
        ("retry_kwargs", Value::Dict(map)) if retries => {
            for (name, value) in map {
                task_option(draft, name, &Ok(value.clone()), retries);
            }
        }
        ("max_retries" | "default_retry_delay", _) => {
            draft.leave(
                shown(),
                "the function asks for its retries itself; with max_retries taskd tries every failure again",
            );
        }
        _ => draft.leave(shown(), "a task of taskd has no such key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_numbers_in_some_period() {
        let of = |v: Value| rate(&v).map(|r| r.map(|t| t.show()));
        assert_eq!(of(Value::Text("10/m".into())), Ok(Some("\"10/m\"".into())));
        assert_eq!(of(Value::Text("0.5/s".into())), Ok(Some("\"30/m\"".into())));
        assert_eq!(of(Value::Int(5)), Ok(Some("\"5/s\"".into())));
        assert_eq!(of(Value::Text("100".into())), Ok(Some("\"100/s\"".into())));
        assert_eq!(of(Value::Int(0)), Ok(None));
        assert!(of(Value::Text("x".into())).is_err() && of(Value::Float(1e-9)).is_err());
    }

    #[test]
    fn two_sources_that_differ_are_said() {
        let mut draft = Draft::default();
        draft.set("queue", Toml::text("a"), "x");
        draft.set("queue", Toml::text("a"), "y");
        draft.set("queue", Toml::text("b"), "z");
        assert_eq!((draft.keys.len(), draft.left.len()), (1, 1));
    }
}
