//! JSON as a [`Project`]: settings as a module has them, or what django-celery-beat's `dumpdata` prints.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::project::{Entry, Part, Project};
use super::python::value::Value;
use super::settings::{Known, is_celerys, known};

/// Reads JSON.
///
/// # Errors
/// It is neither of the two.
pub fn read(text: &str) -> Result<Project, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    match &json {
        Json::Array(list) => Ok(fixture(list)),
        Json::Object(map) => Ok(settings(map)),
        _ => Err("it is neither an object of settings nor a list of Django's fixtures".to_owned()),
    }
}

fn settings(map: &serde_json::Map<String, Json>) -> Project {
    let mut project = Project::default();
    // The entries of a schedule alone.
    let bare =
        !map.is_empty() && map.values().all(|v| v.get("task").is_some() && v.get("schedule").is_some());
    if bare {
        project.entries = map.iter().map(|(n, v)| entry(n, v)).collect();
        return project;
    }
    for (name, json) in map {
        let source = format!("{name:?}: {json}");
        let part = |name: &String, json: &Json| Part {
            name: name.clone(),
            value: Ok(Value::from(json)),
            source: format!("{name:?}: {json}"),
        };
        match (known(name, true), json) {
            (Some(Known::Schedule), Json::Object(map)) => {
                project.entries.extend(map.iter().map(|(n, v)| entry(n, v)))
            }
            (Some(Known::Routes), Json::Object(map)) => {
                project.routes.extend(map.iter().map(|(n, v)| part(n, v)))
            }
            (Some(Known::Routes), Json::Array(list)) => {
                for item in list {
                    match item.as_array().map(Vec::as_slice) {
                        Some([Json::String(pattern), target]) => project.routes.push(part(pattern, target)),
                        _ => project
                            .odd
                            .push((item.to_string(), "it is no pair of a pattern and a queue".to_owned())),
                    }
                }
            }
            (Some(Known::Annotations), Json::Object(map)) => {
                project.annotations.extend(map.iter().map(|(n, v)| part(n, v)));
            }
            (Some(Known::Schedule | Known::Routes | Known::Annotations), _) => {
                project.odd.push((source, "it is no object".to_owned()));
            }
            (Some(known), _) => project.settings.push((known, part(name, json))),
            (None, _) if is_celerys(name, true) => {
                project.odd.push((source, "taskd has no such setting".to_owned()))
            }
            (None, _) => {}
        }
    }
    project.routes.sort_by_key(|r| r.name.contains(['*', '?']));
    project
}

fn entry(name: &str, json: &Json) -> Entry {
    let source = format!("{name:?}: {json}");
    let fields = match json {
        Json::Object(map) => map.iter().map(|(n, v)| (n.clone(), Ok(Value::from(v)))).collect(),
        _ => vec![("schedule".to_owned(), Err("the entry is no object".to_owned()))],
    };
    Entry { name: name.to_owned(), comments: Vec::new(), fields, source }
}

/// `django_celery_beat.periodictask` and the schedules that it names by number.
fn fixture(list: &[Json]) -> Project {
    let mut project = Project::default();
    let mut schedules: BTreeMap<(String, String), &Json> = BTreeMap::new();
    let model = |json: &Json| json.get("model").and_then(Json::as_str).unwrap_or_default().to_lowercase();
    for json in list {
        if let (Some(kind), Some(pk), Some(fields)) =
            (model(json).strip_prefix("django_celery_beat."), json.get("pk"), json.get("fields"))
        {
            schedules.insert((kind.to_owned(), pk.to_string()), fields);
        }
    }
    for json in list {
        match (model(json).as_str(), json.get("fields")) {
            ("django_celery_beat.periodictask", Some(fields)) => {
                project.entries.push(periodic(fields, &schedules, json));
            }
            (model, _) if model.starts_with("django_celery_beat.") => {}
            _ => {
                let mut source = json.to_string();
                source.truncate(source.floor_char_boundary(200));
                project.odd.push((source, "it is no object of django_celery_beat".to_owned()));
            }
        }
    }
    project
}

fn periodic(fields: &Json, schedules: &BTreeMap<(String, String), &Json>, whole: &Json) -> Entry {
    let text = |name: &str| fields.get(name).and_then(Json::as_str).filter(|t| !t.is_empty());
    let name = text("name").unwrap_or("periodic");
    let mut entry = Entry { name: name.to_owned(), source: format!("{name:?}: {whole}"), ..Entry::default() };
    let mut add = |name: &str, value: Result<Value, String>| entry.fields.push((name.to_owned(), value));
    if let Some(task) = text("task") {
        add("task", Ok(Value::from(&Json::from(task))));
    }
    let given = |name: &str| fields.get(name).filter(|v| !v.is_null());
    let kinds = ["interval", "crontab", "solar", "clocked"];
    let found = kinds.iter().find_map(|kind| Some((*kind, given(kind)?)));
    match found.map(|(kind, pk)| (kind, pk, schedules.get(&(format!("{kind}schedule"), pk.to_string())))) {
        None => add("schedule", Err("it names no schedule".to_owned())),
        Some((kind, pk, None)) => add("schedule", Err(format!("the file has no {kind}schedule {pk}"))),
        Some((kind, _, Some(schedule))) => add("schedule", Ok(schedule_of(kind, schedule))),
    }
    // Each crontab has a time zone of its own there.
    if let Some(("crontab", pk)) = found
        && let Some(zone) = schedules
            .get(&("crontabschedule".to_owned(), pk.to_string()))
            .and_then(|s| s.get("timezone")?.as_str())
    {
        add("timezone", Ok(Value::Text(zone.to_owned())));
    }
    for name in ["args", "kwargs"] {
        // They are JSON in a text.
        if let Some(text) = text(name) {
            match serde_json::from_str::<Json>(text) {
                Ok(json) => add(name, Ok(Value::from(&json))),
                Err(e) => add(name, Err(format!("it is no JSON: {e}"))),
            }
        }
    }
    let mut options: Vec<(String, Value)> = Vec::new();
    for name in ["queue", "priority", "exchange", "routing_key"] {
        if let Some(value) = given(name).filter(|v| v.as_str() != Some("")) {
            options.push((name.to_owned(), Value::from(value)));
        }
    }
    if let Some(seconds) = given("expire_seconds") {
        options.push(("expires".to_owned(), Value::from(seconds)));
    }
    if !options.is_empty() {
        add("options", Ok(Value::Dict(options)));
    }
    for name in ["enabled", "description", "expires", "start_time", "one_off", "headers"] {
        if let Some(value) = given(name).filter(|v| {
            !matches!(v.as_str(), Some("" | "{}")) && **v != Json::Bool(false) || name == "enabled"
        }) {
            add(name, Ok(Value::from(value)));
        }
    }
    entry
}

fn schedule_of(kind: &str, schedule: &Json) -> Value {
    let get = |name: &str| schedule.get(name).map(Value::from).unwrap_or(Value::None);
    let call = |name: &str, named: Vec<(&str, Value)>| {
        Value::Call(name.to_owned(), Vec::new(), named.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
    };
    match kind {
        "interval" => {
            let period = schedule.get("period").and_then(Json::as_str).unwrap_or_default().to_owned();
            call("timedelta", vec![(period.as_str(), get("every"))])
        }
        "crontab" => {
            let names = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"];
            call(
                "crontab",
                names.into_iter().map(|n| (n, get(n))).filter(|(_, v)| *v != Value::None).collect(),
            )
        }
        "solar" => call("solar", ["event", "latitude", "longitude"].map(|n| (n, get(n))).to_vec()),
        other => call(other, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_joins_tasks_and_schedules() {
        let text = r#"[
            {"model": "django_celery_beat.crontabschedule", "pk": 1, "fields": {"minute": "0", "hour": "4", "day_of_week": "*", "day_of_month": "*", "month_of_year": "*", "timezone": "UTC"}},
            {"model": "django_celery_beat.intervalschedule", "pk": 1, "fields": {"every": 10, "period": "seconds"}},
            {"model": "django_celery_beat.periodictask", "pk": 1, "fields": {"name": "a", "task": "t.a", "interval": 1, "crontab": null, "args": "[1]", "kwargs": "{}", "enabled": false, "expire_seconds": 60}},
            {"model": "django_celery_beat.periodictask", "pk": 2, "fields": {"name": "b", "task": "t.b", "interval": null, "crontab": 1}},
            {"model": "django_celery_beat.periodictask", "pk": 3, "fields": {"name": "c", "task": "t.c", "crontab": 7}},
            {"model": "auth.user", "pk": 1, "fields": {}}
        ]"#;
        let project = read(text).unwrap();
        assert_eq!(project.entries.len(), 3);
        assert_eq!(project.odd.len(), 1);
        let a = &project.entries[0];
        assert!(matches!(a.get("schedule"), Some(Ok(Value::Call(n, ..))) if n == "timedelta"));
        assert_eq!(a.get("enabled"), Some(&Ok(Value::Bool(false))));
        assert_eq!(project.entries[1].get("timezone"), Some(&Ok(Value::Text("UTC".into()))));
        assert!(project.entries[2].get("schedule").unwrap().is_err());
    }

    #[test]
    fn what_is_no_settings_is_said() {
        assert!(read("3").is_err() && read("{").is_err());
        assert!(read("{}").unwrap().is_empty());
        assert_eq!(read(r#"{"x": {"task": "a", "schedule": 3}}"#).unwrap().entries.len(), 1);
    }
}
