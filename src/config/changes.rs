//! What a reload changes, in sentences; and what it cannot change.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::redis::shown;
use super::settings::Settings;

/// What differs between the running settings and those of a reload.
///
/// # Errors
/// The settings that need a restart, each named with its old and new value.
pub fn changes(old: &Settings, new: &Settings) -> Result<Vec<String>, Vec<String>> {
    let (a, b) = (&old.taskd, &new.taskd);
    let user = |u: &Option<String>| u.clone().unwrap_or_else(|| "whoever starts taskd".to_owned());
    let fixed = [
        ("node", a.node.clone(), b.node.clone()),
        ("broker", shown(&a.broker), shown(&b.broker)),
        ("results", shown(&a.results), shown(&b.results)),
        ("state_dir", a.state_dir.display().to_string(), b.state_dir.display().to_string()),
        ("socket", a.socket.display().to_string(), b.socket.display().to_string()),
        ("user", user(&a.user), user(&b.user)),
    ];
    let mut refused: Vec<String> = fixed
        .iter()
        .filter(|(_, was, is)| was != is)
        .map(|(key, was, is)| format!("[taskd] {key}: {was} -> {is} needs a restart"))
        .collect();
    for (key, was, is) in [("broker", &a.broker, &b.broker), ("results", &a.results, &b.results)] {
        if was != is && shown(was) == shown(is) {
            refused.push(format!("[taskd] {key}: another password of {} needs a restart", shown(is)));
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut out = Vec::new();
    for (table, was, is) in [
        ("[taskd]", json(a), json(b)),
        ("[results]", json(&old.results), json(&new.results)),
        ("[dead]", json(&old.dead), json(&new.dead)),
        ("[access]", json(&old.access), json(&new.access)),
    ] {
        out.extend(differences(&was, &is).map(|d| format!("{table} {d}")));
    }
    named("pool", &old.pools, &new.pools, &mut out);
    named("queue", &old.queues, &new.queues, &mut out);
    if old.routes != new.routes {
        out.push(format!("routes: {} -> {}", old.routes.len(), new.routes.len()));
    }
    named("task", &old.tasks, &new.tasks, &mut out);
    named("schedule", &old.schedules, &new.schedules, &mut out);
    named("workflow", &old.workflows, &new.workflows, &mut out);
    Ok(out)
}

fn named<T: Serialize + PartialEq>(
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    out: &mut Vec<String>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(_), None) => out.push(format!("{what} {name} removed")),
            (None, Some(_)) => out.push(format!("{what} {name} added")),
            (Some(a), Some(b)) if a != b => {
                out.extend(differences(&json(a), &json(b)).map(|d| format!("{what} {name}: {d}")));
            }
            _ => {}
        }
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// `key: old -> new` for each key that differs; long or secret values are not told.
fn differences(old: &Value, new: &Value) -> impl Iterator<Item = String> {
    let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
    flatten("", old, &mut was);
    flatten("", new, &mut is);
    let keys: BTreeSet<String> = was.keys().chain(is.keys()).cloned().collect();
    keys.into_iter().filter_map(move |key| {
        let (a, b) = (was.get(&key), is.get(&key));
        if a == b {
            return None;
        }
        let (a, b) = (short(&key, a), short(&key, b));
        let key = key_name(&key);
        // Values of the environment may be secrets.
        Some(if a.len() + b.len() > 80 || matches!(key.as_str(), "environment" | "worker") {
            format!("{key} changed")
        } else {
            format!("{key}: {a} -> {b}")
        })
    })
}

/// Fields of the settings by path, objects of keys opened.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map)
            if matches!(
                path,
                "" | "retry" | "surroundings" | "surroundings.sandbox" | "limits" | "recycle"
            ) =>
        {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        value => _ = into.insert(path.to_owned(), value.clone()),
    }
}

/// The key of the config that a field of the settings comes from.
fn key_name(path: &str) -> String {
    let path = path.strip_suffix("_ms").unwrap_or(path);
    if let Some(field) = path.strip_prefix("retry.") {
        let whole = matches!(field, "max_retries" | "retry_on" | "success_on");
        return if whole { field.to_owned() } else { format!("retry_{field}") };
    }
    if let Some(field) = path.strip_prefix("recycle.") {
        return match field {
            "max_tasks" | "max_memory" => format!("{field}_per_child"),
            other => other.replace("max_", "max_child_"),
        };
    }
    let path = path.strip_prefix("surroundings.").unwrap_or(path);
    path.strip_prefix("sandbox.").or_else(|| path.strip_prefix("limits.")).unwrap_or(path).to_owned()
}

fn short(path: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "unset".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) if path.ends_with("_ms") => {
            n.as_u64().map_or_else(|| n.to_string(), super::values::show_duration)
        }
        // Kept in hundredths of a percent.
        Some(Value::Number(n)) if path == "max_memory_pressure" => {
            n.as_u64().map_or_else(|| n.to_string(), |n| (n as f64 / 100.0).to_string())
        }
        Some(v) => v.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Env, load_texts};
    use super::*;

    fn settings(text: &str) -> Settings {
        load_texts(&[("f.toml", text)], &Env::made("me", 1000, &[])).unwrap().settings
    }

    #[test]
    fn a_change_is_told_by_the_name_of_its_key() {
        let old = settings("[tasks.a]\ncommand = 'x'\ntime_limit = '1h'\n[tasks.gone]\ncommand = 'x'\n");
        let new = settings(
            "[taskd]\nshutdown_grace = '1m'\n[pools.default]\nprocesses = 3\n[queues.mail]\n[[routes]]\ntask='*'\nqueue='mail'\n\
             [tasks.a]\ncommand = 'x'\ntime_limit = '2h'\nretry_delay = '5s'\nnice = 3\n[tasks.new]\ncommand = 'y'\n",
        );
        assert_eq!(
            changes(&old, &new).unwrap(),
            [
                "[taskd] shutdown_grace: 30s -> 1m",
                "pool default: processes: 2 -> 3",
                "queue mail added",
                "routes: 0 -> 1",
                "task a: retry_delay: 10s -> 5s",
                "task a: nice: unset -> 3",
                "task a: time_limit: 1h -> 2h",
                "task gone removed",
                "task new added",
            ]
        );
        assert_eq!(changes(&old, &old), Ok(Vec::new()));
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        let old = settings("");
        let new = settings(
            "[taskd]\nnode = 'other'\nstate_dir = '/tmp/x'\nsocket = '/tmp/s'\nresults = 'none'\n[tasks.a]\ncommand='x'",
        );
        assert_eq!(
            changes(&old, &new).unwrap_err(),
            [
                "[taskd] node: testhost -> other needs a restart",
                "[taskd] results: broker -> none needs a restart",
                "[taskd] state_dir: /var/lib/taskd -> /tmp/x needs a restart",
                "[taskd] socket: /run/taskd/taskd.sock -> /tmp/s needs a restart",
            ]
        );
    }
}
