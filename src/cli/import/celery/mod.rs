//! `taskd import celery-beat`: periodic tasks, routes, annotations and settings of a Celery app, read without running
//! anything of it.

mod draft;
mod from_json;
mod from_python;
mod project;
mod python;
mod schedule;
mod settings;
mod write;

use super::document::Imported;

/// Translates a module of Python, or JSON.
///
/// # Errors
/// There is nothing of Celery's in it: a sentence.
pub fn import(source: &str, text: &str) -> Result<Imported, String> {
    let first = text.trim_start().chars().next();
    let json = !source.ends_with(".py") && (source.ends_with(".json") || matches!(first, Some('{' | '[')));
    let project = if json { from_json::read(text)? } else { from_python::read(source, text) };
    if project.is_empty() {
        return Err("it has no beat_schedule, no task_routes and no other setting of Celery's".to_owned());
    }
    Ok(write::write(source, &project))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(text: &str) -> (Imported, toml::Table) {
        let done = import("proj/celery.py", text).unwrap();
        let table = done.text.parse().unwrap_or_else(|e| panic!("{e}\n{}", done.text));
        (done, table)
    }

    #[test]
    fn a_schedule_with_routes_and_limits() {
        let (done, t) = done(
            "from celery.schedules import crontab\nHOUR = 3600\n\
             app.conf.timezone = 'Europe/Berlin'\n\
             app.conf.task_routes = {'proj.mail.*': {'queue': 'mail'}}\n\
             app.conf.task_annotations = {'proj.tasks.add': {'rate_limit': '10/m'}, '*': {'time_limit': 60}}\n\
             app.conf.beat_schedule = {\n  # every night\n  'nightly report': {'task': 'proj.tasks.report', 'schedule': crontab(hour=3, minute=30), 'args': (1, 'x')},\n\
             'add': {'task': 'proj.tasks.add', 'schedule': HOUR, 'kwargs': {'a': 1}, 'options': {'expires': 10, 'queue': 'mail'}},\n\
             'odd': {'task': 'proj.tasks.odd', 'schedule': get()},\n}\n",
        );
        assert_eq!(done.entries, 3);
        assert_eq!(t["schedules"]["nightly-report"]["cron"].as_str(), Some("30 3 * * *"));
        assert_eq!(t["schedules"]["nightly-report"]["timezone"].as_str(), Some("Europe/Berlin"));
        assert_eq!(t["schedules"]["nightly-report"]["args"].as_array().unwrap().len(), 2);
        assert_eq!(t["schedules"]["add"]["every"].as_str(), Some("1h"));
        assert_eq!(t["tasks"]["proj.tasks.add"]["rate_limit"].as_str(), Some("10/m"));
        assert_eq!(t["schedules"]["add"]["queue"].as_str(), Some("mail"));
        assert_eq!(t["schedules"]["add"]["expires"].as_str(), Some("10s"));
        assert_eq!(t["tasks"]["proj.tasks.report"]["time_limit"].as_str(), Some("1m"));
        assert_eq!(t["routes"][0]["queue"].as_str(), Some("mail"));
        assert!(done.text.contains("# every night\n"), "{}", done.text);
        assert!(done.text.contains("NOT CARRIED OVER: \"odd\""), "{}", done.text);
    }

    #[test]
    fn functions_and_periodic_tasks() {
        let (_, t) = done(
            "@app.task(rate_limit='1/s', autoretry_for=(Exception,), max_retries=5)\ndef add(a, b): pass\n\
             @app.on_after_configure.connect\ndef setup(sender, **kw):\n    sender.add_periodic_task(10.0, add.s(1, b=2), name='Every 10', expires=5)\n",
        );
        assert_eq!(t["schedules"]["Every-10"]["task"].as_str(), Some("proj.celery.add"));
        assert_eq!(t["schedules"]["Every-10"]["kwargs"]["b"].as_integer(), Some(2));
        assert_eq!(t["tasks"]["proj.celery.add"]["max_retries"].as_integer(), Some(5));
        assert_eq!(t["tasks"]["proj.celery.add"]["rate_limit"].as_str(), Some("1/s"));
    }

    #[test]
    fn what_is_set_twice_is_told_and_an_update_is_merged() {
        let (done, t) = done(
            "app.conf.beat_schedule = {'old': {'task': 'p.old', 'schedule': 5}}\n\
             app.conf.beat_schedule = {'a': {'task': 'p.a', 'schedule': 10}}\n\
             app.conf.beat_schedule.update({'b': {'task': 'p.b', 'schedule': 20}, 'a': {'task': 'p.a', 'schedule': 30}})\n",
        );
        let names: Vec<&String> = t["schedules"].as_table().unwrap().keys().collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(t["schedules"]["a"]["every"].as_str(), Some("30s"));
        for said in [
            "# beat_schedule is set again in line 2",
            "'task': 'p.old', 'schedule': 5",
            "beat_schedule.update(…) in line 3 was merged into it: b, a",
            "\"a\" is set again in line 3",
            "'task': 'p.a', 'schedule': 10",
        ] {
            assert!(done.text.contains(said), "{said} is missing in\n{}", done.text);
        }
    }

    #[test]
    fn a_schedule_without_its_arguments_is_not_live() {
        let (done, t) = done(
            "app.conf.beat_schedule = {'a': {'task': 'p.a', 'schedule': 5, 'kwargs': {'x': now()}},\n\
             'b': {'task': 'p.b', 'schedule': 5, 'args': make(), 'enabled': True},\n\
             'c': {'task': 'p.c', 'schedule': 5, 'args': (1,)}}\n",
        );
        let enabled = |name: &str| t["schedules"][name].get("enabled").and_then(toml::Value::as_bool);
        assert_eq!(
            [enabled("a"), enabled("b"), enabled("c")],
            [Some(false), Some(false), None],
            "{}",
            done.text
        );
        assert!(done.text.contains("its kwargs could not be carried over"), "{}", done.text);
    }

    #[test]
    fn a_module_without_celery_is_refused() {
        assert!(import("x.py", "print('hi')\n").is_err());
        assert!(import("x.json", "{}").is_err());
        assert!(import("x.json", "{").is_err());
    }
}
