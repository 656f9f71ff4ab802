//! `taskd config --show-origin`.

use taskd::config::{load_texts, show, show_json};

use super::{good, laptop};

const TEXT: &str = "[taskd]\nshutdown_grace = '1m'\n[defaults]\ntime_limit = '1h'\n[tasks.'mail.out']\ncommand = \"echo 'x'\"\nenvironment.A = 'b'\n";

#[test]
fn each_value_says_where_it_came_from() {
    let loaded = good(TEXT);
    let source = |table: &str, key: &str| {
        let origin = loaded.origins.iter().find(|o| o.table == table && o.key == key);
        origin.map(|o| (o.value.clone(), o.source())).unwrap_or_else(|| panic!("no {table} {key}"))
    };
    let is = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(source("[taskd]", "node"), is("\"testhost\"", "default"));
    assert_eq!(source("[taskd]", "shutdown_grace"), is("\"1m\"", "taskd.toml:2"));
    assert_eq!(source("[tasks.\"mail.out\"]", "time_limit"), is("\"1h\"", "taskd.toml:4"));
    assert_eq!(source("[tasks.\"mail.out\"]", "queue"), is("\"default\"", "default"));
    assert_eq!(source("[tasks.\"mail.out\"]", "result_expires"), is("\"1d\"", "default"));
    assert_eq!(source("[pools.default]", "processes"), is("2", "default"));
}

#[test]
fn what_is_shown_is_a_config_with_the_same_meaning() {
    let loaded = good(TEXT);
    for show_origin in [false, true] {
        let text = show(&loaded, show_origin);
        let again = load_texts(&[("shown", &text)], &laptop())
            .unwrap_or_else(|r| panic!("{}\n{text}", r.render(false)));
        // What was the default is now written: the queue of a task, nothing else, is told apart.
        let mut expected = loaded.settings.clone();
        for task in expected.tasks.values_mut() {
            task.queue = Some("default".into());
            task.surroundings.working_directory = Some("/".into());
            task.surroundings.umask = Some(0o022);
        }
        assert_eq!(again.settings, expected, "{text}");
    }
    assert!(show(&loaded, true).contains("# taskd.toml:2\n"));
    assert!(!show(&loaded, false).contains('#'));
}

#[test]
fn the_shown_examples_read_back() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/web-shop.toml"))
        .unwrap();
    let loaded = load_texts(&[("f", &text)], &super::server()).unwrap();
    let shown = show(&loaded, true);
    let again = load_texts(&[("shown", &shown)], &super::server())
        .unwrap_or_else(|r| panic!("{}\n{shown}", r.render(false)));
    assert_eq!(again.settings.routes, loaded.settings.routes);
    assert_eq!(again.settings.queues, loaded.settings.queues);
    assert_eq!(again.settings.tasks.len(), loaded.settings.tasks.len());
}

#[test]
fn json_has_the_same() {
    let loaded = good(TEXT);
    let json = show_json(&loaded);
    assert_eq!(json.as_array().unwrap().len(), loaded.origins.len());
    assert_eq!(
        json.as_array().unwrap().iter().find(|o| o["key"] == "shutdown_grace").unwrap(),
        &serde_json::json!({"table": "[taskd]", "key": "shutdown_grace", "value": "\"1m\"", "file": "taskd.toml", "line": 2})
    );
}
