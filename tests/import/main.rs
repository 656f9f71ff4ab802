//! `taskd import` over whole files: what it prints is what it should be, passes taskd's own check, and leaves no line of
//! its source unsaid; and whatever bytes it is given, it neither panics nor prints what is no TOML.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "what only tests call may fail like a test"
)]

mod random;

use std::path::{Path, PathBuf};

use taskd::cli::import::document::Imported;
use taskd::cli::import::{celery, crontab, supervisor, systemd};
use taskd::config::{Env, load_texts};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// The sources of a folder with this ending, in name order.
fn sources(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(here().join(folder)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| endings.iter().any(|w| e == *w)));
    found.sort();
    assert!(found.len() >= 8, "{folder} has {} sources", found.len());
    found
}

/// What is printed must be a config that this taskd accepts, now or once the keys it uses have come.
fn check(what: &str, done: &Imported) {
    assert!(done.text.parse::<toml::Table>().is_ok(), "{what} is no TOML:\n{}", done.text);
    if let Err(report) = load_texts(&[("imported.toml", &done.text)], &Env::elsewhere()) {
        assert!(report.is_only_not_yet(), "{what}:\n{}\n{}", report.render(false), done.text);
    }
    let marks = done.text.lines().filter(|l| l.starts_with("# NOT CARRIED OVER")).count();
    assert_eq!(marks, done.left, "{what} counts otherwise than it says:\n{}", done.text);
}

/// Compares with the file beside the source.
fn golden(source: &Path, done: &Imported) {
    check(&source.display().to_string(), done);
    let mut path = source.as_os_str().to_owned();
    path.push(".toml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &done.text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(done.text, wanted, "{}: the output is now\n{}", source.display(), done.text);
}

/// Every line that says something stands in the output, as it was or in a comment.
fn all_said(what: &str, source: &str, done: &Imported) {
    for line in source.lines().map(str::trim).filter(|l| !l.is_empty()) {
        assert!(done.text.contains(line), "{what}: {line:?} is not in\n{}", done.text);
    }
}

/// The path of a source as the command line would name it.
fn name(source: &Path) -> String {
    source.strip_prefix(here()).unwrap().display().to_string()
}

#[test]
fn crontabs() {
    for path in sources("crontab", &["crontab"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let done = crontab::import(&name(&path), &text, &crontab::Reading::default());
        golden(&path, &done);
        all_said(&name(&path), &text, &done);
    }
}

#[test]
fn celery_apps() {
    for path in sources("celery", &["py", "json"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let done = celery::import(&name(&path), &text).unwrap();
        golden(&path, &done);
        // Every entry that is written out is a schedule or a comment.
        for line in text.lines().filter(|l| l.contains("\"schedule\"") && !l.trim_start().starts_with('#')) {
            let task = line.split("\"task\": ").nth(1).and_then(|t| t.split('"').nth(1)).unwrap_or_default();
            assert!(done.text.contains(task), "{}: {task} is not in\n{}", path.display(), done.text);
        }
    }
}

#[test]
fn supervisors_programs() {
    for path in sources("supervisor", &["conf"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let done = supervisor::import(&name(&path), &text);
        golden(&path, &done);
        let plain: Vec<&str> = text.lines().map(|l| l.split(" ;").next().unwrap_or(l)).collect();
        all_said(&name(&path), &plain.join("\n"), &done);
    }
}

/// A timer of the folder, as if it were on a machine.
fn timer(path: &Path) -> Imported {
    let pair = systemd::find::pair(Path::new("/nonexistent"), path.to_str().unwrap(), None).unwrap();
    systemd::import(&name(path), &pair)
}

#[test]
fn timers() {
    for path in sources("systemd", &["timer"]) {
        let done = timer(&path);
        golden(&path, &done);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        for file in [path.clone(), path.with_file_name(format!("{stem}.service"))] {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            // Lines that go on stand joined; sections are not named.
            let settings =
                text.lines().filter(|l| !l.starts_with('[') && !l.ends_with('\\') && !l.starts_with(' '));
            let settings: Vec<&str> = settings.filter(|l| !l.starts_with("Unit=")).collect();
            all_said(&file.display().to_string(), &settings.join("\n"), &done);
        }
    }
}

#[test]
fn a_template_takes_its_instance() {
    let dir = tempfile::tempdir().unwrap();
    let units = dir.path().join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    for file in ["dump@.timer", "dump@.service"] {
        std::fs::copy(here().join("systemd").join(file), units.join(file)).unwrap();
    }
    let pair = systemd::find::pair(dir.path(), "dump@shop", None).unwrap();
    let done = systemd::import("dump@shop.timer", &pair);
    check("dump@shop", &done);
    assert!(done.text.contains("\"--file=/var/lib/dumps/shop.sql\", \"shop\"]"), "{}", done.text);
}

#[test]
fn what_this_machine_has_is_read() {
    let list = |dir: &str, end: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        entries.filter(|p| p.is_file() && p.to_string_lossy().ends_with(end)).collect::<Vec<_>>()
    };
    for path in list("/etc/cron.d", "").into_iter().chain([PathBuf::from("/etc/crontab")]) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let done = crontab::import(path.to_str().unwrap(), &text, &crontab::Reading::default());
        check(&path.display().to_string(), &done);
        all_said(&path.display().to_string(), &text, &done);
    }
    for path in list("/lib/systemd/system", ".timer") {
        let unit = path.file_name().unwrap().to_str().unwrap().replace("@.", "@shop.");
        let pair = systemd::find::pair(Path::new("/"), &unit, None).unwrap();
        check(&unit, &systemd::import(&unit, &pair));
    }
}
