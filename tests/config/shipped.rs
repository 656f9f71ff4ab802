//! Every config that is shipped or shown to people.

use std::path::Path;

use taskd::config::{FaultKind, Report, load_texts};

use super::server;

/// Files without a fault or a note.
const SHIPPED: [&str; 6] = [
    "config/taskd.toml",
    "config/quickstart.toml",
    "config/examples/web-shop.toml",
    "config/examples/nightly.toml",
    "config/examples/resident-workers.toml",
    "tests/config/design.toml",
];

/// Files that use keys of later versions, and say so.
const LATER: &[&str] = &[];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn report(path: &str) -> Report {
    let text = read(path);
    load_texts(&[(path, &text)], &server()).err().unwrap_or_default()
}

#[test]
fn what_is_shipped_has_no_fault() {
    for path in SHIPPED {
        let report = report(path);
        assert!(report.is_empty(), "{path}:\n{}", report.render(false));
    }
}

#[test]
fn nothing_is_worth_a_note_in_what_is_shipped() {
    for path in SHIPPED {
        let loaded = load_texts(&[(path, &read(path))], &server()).unwrap();
        // Credentials are systemd's to give.
        let notes: Vec<_> = loaded.notes.iter().filter(|n| !n.starts_with("the credential")).collect();
        assert!(notes.is_empty(), "{path}: {notes:?}");
    }
}

#[test]
fn the_shipped_default_changes_nothing() {
    let shipped = load_texts(&[("f", &read("config/taskd.toml"))], &server()).unwrap();
    assert_eq!(shipped.settings, load_texts(&[("f", "")], &server()).unwrap().settings);
}

#[test]
fn the_commented_keys_of_the_default_are_good_too() {
    let text: String = read("config/taskd.toml")
        .lines()
        // Prose begins with "# ", a commented key follows its # at once.
        .map(|l| l.strip_prefix('#').filter(|l| !l.starts_with(' ') && !l.is_empty()).unwrap_or(l))
        .map(|l| format!("{l}\n"))
        .collect();
    let loaded = load_texts(&[("f", &text)], &server()).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert!(loaded.settings.tasks.contains_key("send_email") && loaded.settings.queues.contains_key("mail"));
}

#[test]
fn other_examples_and_the_design_only_ask_for_what_comes_later() {
    for path in LATER {
        let report = report(path);
        assert!(!report.is_empty() && report.is_only_not_yet(), "{path}:\n{}", report.render(false));
        assert!(report.faults().iter().all(|f| f.message.ends_with("not available yet in this version")));
    }
}

#[test]
fn an_example_names_what_is_not_available_yet() {
    for path in LATER {
        let header: String = read(path).lines().take_while(|l| l.starts_with('#')).collect();
        assert!(header.contains("not available yet in this"), "{path}");
        for fault in report(path).faults() {
            assert_eq!(fault.kind, FaultKind::NotYet);
            let key = fault.key.rsplit('.').next().unwrap_or_default();
            let table = fault.key.split('.').next().unwrap_or_default();
            let named = header.contains(&format!("`{key}`")) || header.contains(&format!("[{table}.NAME]"));
            assert!(named || fault.message.contains("pattern"), "{path} does not name {}", fault.key);
        }
    }
}

#[test]
fn the_quickstart_greets_the_world() {
    let loaded = load_texts(&[("f", &read("config/quickstart.toml"))], &super::laptop()).unwrap();
    let hello = &loaded.settings.tasks["hello"];
    assert_eq!(hello.params[0].name, "name");
    assert_eq!(hello.params[0].default, Some("world".into()));
}
