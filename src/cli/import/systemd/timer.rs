//! `[Timer]`: when.

use super::calendar;
use super::span::{Span, span};
use super::unit::{Setting, Unit, boolean};
use crate::cli::import::document::{Document, Table};
use crate::cli::import::toml_value::Toml;

/// The schedules of a timer for this task, still without names; what could not be carried over is written.
pub(super) fn translate(doc: &mut Document, timer: &Unit, task: &str) -> Vec<Table> {
    let mut out: Vec<Table> = Vec::new();
    let flag = |key| timer.get("Timer", key).and_then(boolean).unwrap_or(false);
    let catch_up = if flag("Persistent") { "last" } else { "none" };
    let delay = timer.get("Timer", "RandomizedDelaySec").and_then(span);
    let fixed = flag("FixedRandomDelay");
    for line in &timer.odd {
        doc.left(line, "it is no assignment of a section");
    }
    let sections = timer.settings.iter().filter(|s| !s.value.is_empty());
    for setting in sections {
        if setting.gone {
            doc.comment(&format!("{}  (overridden below)", setting.source()));
            continue;
        }
        match setting.section.as_str() {
            "Timer" => one(doc, setting, timer, task, &mut out),
            _ => beside(doc, setting),
        }
    }
    if out.is_empty() {
        doc.left("[Timer]", "nothing of it says when: no schedule was written");
    }
    for table in &mut out {
        if let Some(text) = delay.and_then(Span::show).filter(|_| delay != Some(Span::Millis(0))) {
            let said = if fixed {
                "RandomizedDelaySec="
            } else {
                "RandomizedDelaySec=, the same each time as with FixedRandomDelay="
            };
            table.say("splay", Toml::text(text), said);
        }
        let after_the_last = table.flag("align") == Some(false);
        if !after_the_last {
            table.say("overlap", Toml::text("skip"), "as systemd, which starts no unit that runs");
        }
        if table.has("cron") {
            let said =
                format!("Persistent={}", timer.get("Timer", "Persistent").unwrap_or("no, the default"));
            table.say("catch_up", Toml::text(catch_up), said);
        }
    }
    out
}

fn one(doc: &mut Document, setting: &Setting, timer: &Unit, task: &str, out: &mut Vec<Table>) {
    let value = setting.value.as_str();
    let source = setting.source();
    let interval = |key: &str| timer.get("Timer", key).is_some();
    let mut every = |align: bool, doc: &mut Document| match span(value).and_then(Span::show) {
        Some(text) if text != "0s" => {
            let mut table = Table::new("schedules", "");
            table.set("task", Toml::text(task));
            table.say("every", Toml::text(text), source.clone());
            let said =
                if align { "from start to start" } else { "from the end of a run to the start of the next" };
            table.say("align", Toml::Bool(align), said);
            out.push(table);
        }
        _ => doc.left(&source, "it is no time span"),
    };
    match setting.key.as_str() {
        "OnCalendar" => match calendar::event(value) {
            Ok(event) => {
                let mut table = Table::new("schedules", "");
                table.set("task", Toml::text(task));
                table.say("cron", Toml::text(event.cron), source);
                if let Some(zone) = event.zone {
                    table.set("timezone", Toml::text(zone));
                }
                out.push(table);
            }
            Err(why) => doc.left(&source, &why),
        },
        "OnUnitActiveSec" => every(true, doc),
        "OnUnitInactiveSec" => every(false, doc),
        "OnBootSec" | "OnStartupSec" | "OnActiveSec" => {
            let why = if interval("OnUnitActiveSec") || interval("OnUnitInactiveSec") {
                "the first run is not set apart from the others: `every` says when it comes".to_owned()
            } else {
                format!(
                    "once after a start is no schedule: `taskd enqueue {task}` in a unit after taskd.service does it"
                )
            };
            doc.left(&source, &why);
        }
        "Persistent" | "RandomizedDelaySec" | "FixedRandomDelay" => {
            let fine = match setting.key.as_str() {
                "RandomizedDelaySec" => span(value).is_some(),
                _ => boolean(value).is_some(),
            };
            if !fine {
                doc.left(&source, "the value is not understood");
            } else if setting.key != "RandomizedDelaySec" {
                let what = if setting.key == "Persistent" {
                    "catch_up"
                } else {
                    "splay is always the same for a node"
                };
                doc.comment(&format!("{source}  ({what})"));
            } else {
                doc.comment(&format!("{source}  (splay)"));
            }
        }
        "AccuracySec" => doc.comment(&format!("{source}  (taskd is exact; spread with splay)")),
        "Unit" => doc.comment(&format!("{source}  (the task)")),
        "RemainAfterElapse" => doc.comment(&format!("{source}  (schedules stay)")),
        "WakeSystem" | "OnClockChange" | "OnTimezoneChange" if boolean(value) == Some(false) => {
            doc.comment(&format!("{source}  (as taskd)"));
        }
        "WakeSystem" => doc.left(&source, "taskd wakes no machine up"),
        "OnClockChange" | "OnTimezoneChange" => doc.left(&source, "taskd fires at times only"),
        _ => doc.left(&source, "taskd has no such setting"),
    }
}

/// Other sections of the timer's file.
pub(super) fn beside(doc: &mut Document, setting: &Setting) {
    let source = setting.source();
    match (setting.section.as_str(), setting.key.as_str()) {
        (_, key) if key.starts_with("X-") || setting.section.starts_with("X-") => {
            doc.comment(&format!("{source}  (for others than systemd)"));
        }
        (_, "Description" | "Documentation" | "SourcePath") => doc.comment(&source),
        ("Install", _) => doc.comment(&format!("{source}  (taskd runs what its config declares)")),
        (_, key) if key.starts_with("Condition") || key.starts_with("Assert") => {
            doc.left(&source, "taskd checks no conditions: let the command look, and exit 0");
        }
        ("Unit", "DefaultDependencies" | "Before" | "After" | "Wants" | "PartOf") => {
            doc.comment(&format!(
                "{source}  (a task runs when it is due; order taskd.service itself if need be)"
            ));
        }
        ("Unit", "Requires" | "RequiresMountsFor" | "BindsTo" | "Conflicts" | "Requisite") => {
            doc.left(&source, "taskd starts tasks when they are due, in no order with units; write it to taskd.service if need be");
        }
        _ => doc.left(&source, "taskd has no such setting"),
    }
}
