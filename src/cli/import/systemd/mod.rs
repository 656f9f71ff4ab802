//! `taskd import systemd-timer`: a timer and the service that it starts.

mod calendar;
mod exec;
pub mod find;
mod service;
mod span;
mod timer;
mod unit;

use super::document::{Document, Imported, Table};
use super::naming::Names;
use super::toml_value;
pub use unit::Unit;

/// A timer and its service, as they were read.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// The timer's name, as `backup.timer`.
    pub timer_name: String,
    /// The timer.
    pub timer: Unit,
    /// The service's name.
    pub service_name: String,
    /// The service; absent where it was not found.
    pub service: Option<Unit>,
    /// It is a unit of a user's own systemd: nothing runs as root there.
    pub of_user: bool,
}

impl Pair {
    /// Whether these are a timer and a service at all.
    ///
    /// # Errors
    /// One is not: a sentence.
    pub fn check(&self) -> Result<(), String> {
        let has = |unit: &Unit, section: &str| unit.settings.iter().any(|s| s.section == section);
        if !has(&self.timer, "Timer") {
            return Err(format!("{} is no timer: it has no settings in a section [Timer]", self.timer_name));
        }
        match &self.service {
            Some(service) if !has(service, "Service") => {
                let name = &self.service_name;
                Err(format!(
                    "what was read as {name} is no service: it has no settings in a section [Service]"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The service that a timer starts, by its own words.
#[must_use]
pub fn service_of(timer_name: &str, timer: &Unit) -> String {
    match timer.get("Timer", "Unit") {
        Some(unit) => exec::specifiers(unit, timer_name).unwrap_or_else(|_| unit.to_owned()),
        None => format!("{}.service", timer_name.strip_suffix(".timer").unwrap_or(timer_name)),
    }
}

/// Translates a timer.
#[must_use]
pub fn import(source: &str, pair: &Pair) -> Imported {
    let mut doc = Document::new("systemd-timer", source, ("timer", "timers"));
    doc.entry();
    doc.remark(format!(
        "Once `taskd check` and a run by hand are fine: systemctl disable --now {}",
        toml_value::comment(&pair.timer_name)
    ));
    let stem = pair.timer_name.strip_suffix(".timer").unwrap_or(&pair.timer_name);
    let name = Names::default().give(stem);
    doc.comment(&format!("{}:", pair.service_name));
    let task = match &pair.service {
        Some(service) => service::translate(&mut doc, pair, service, &name),
        None => {
            let why = "it was not found; name its file with --service FILE";
            doc.left(&pair.service_name, why);
            false
        }
    };
    doc.blank();
    doc.comment(&format!("{}:", pair.timer_name));
    let schedules = timer::translate(&mut doc, &pair.timer, &name);
    for (i, schedule) in schedules.into_iter().enumerate() {
        let name = if i == 0 { name.clone() } else { format!("{name}-{}", i + 1) };
        let schedule = schedule.named(&name);
        if i > 0 {
            doc.blank();
        }
        write(&mut doc, &schedule, task);
    }
    doc.finish()
}

/// Writes a schedule, as a comment where its task is none.
fn write(doc: &mut Document, schedule: &Table, task: bool) {
    let of = schedule.text_of("task").unwrap_or_default();
    if task {
        doc.table(schedule, &format!("[tasks.{}]\ncommand = \"true\"\n", toml_value::key(of)));
    } else {
        doc.left(&schedule.text(), "its task was not carried over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(timer: &str, service: &str) -> Imported {
        let mut pair = Pair {
            timer_name: "job.timer".into(),
            service_name: "job.service".into(),
            service: Some(Unit::default()),
            ..Pair::default()
        };
        pair.timer.read(timer);
        if let Some(s) = &mut pair.service {
            s.read(service);
        }
        import("job.timer", &pair)
    }

    #[test]
    fn what_is_no_timer_is_told() {
        let pair = |timer: &str, service: &str| {
            let mut pair = Pair { timer_name: "x".into(), service: Some(Unit::default()), ..Pair::default() };
            pair.timer.read(timer);
            if let Some(s) = &mut pair.service {
                s.read(service);
            }
            pair.check()
        };
        assert_eq!(pair("[Timer]\nOnCalendar=daily\n", "[Service]\nExecStart=/a\n"), Ok(()));
        for (timer, service) in [
            ("", "[Service]\nExecStart=/a\n"),
            ("[Service]\nExecStart=/a\n", "[Service]\nExecStart=/a\n"),
            ("OnCalendar=daily\n", "[Service]\nExecStart=/a\n"),
            ("[Timer]\nOnCalendar=daily\n", "hello\n"),
        ] {
            assert!(pair(timer, service).is_err(), "{timer} {service}");
        }
    }

    #[test]
    fn a_plain_timer_is_a_task_and_a_schedule() {
        let done = done(
            "[Timer]\nOnCalendar=daily\nPersistent=true\nRandomizedDelaySec=1h\n",
            "[Service]\nType=oneshot\nExecStart=/usr/bin/job --all\n",
        );
        let t: toml::Table = done.text.parse().unwrap();
        assert_eq!(done.left, 0, "{}", done.text);
        assert_eq!(t["tasks"]["job"]["user"].as_str(), Some("root"));
        assert_eq!(t["tasks"]["job"]["exec"].as_array().unwrap().len(), 2);
        assert_eq!(t["schedules"]["job"]["cron"].as_str(), Some("0 0 * * *"));
        assert_eq!(t["schedules"]["job"]["catch_up"].as_str(), Some("last"));
        assert_eq!(t["schedules"]["job"]["splay"].as_str(), Some("1h"));
    }

    #[test]
    fn several_lines_and_variables_go_through_a_shell() {
        let done = done(
            "[Timer]\nOnUnitActiveSec=15min\nOnBootSec=1min\n",
            "[Service]\nType=oneshot\nEnvironment=OPTS=-v\nExecStartPre=-/bin/mkdir -p /x\nExecStart=/a $OPTS {b}\nExecStart=/c\nUser=www-data\n",
        );
        let t: toml::Table = done.text.parse().unwrap();
        assert_eq!(
            t["tasks"]["job"]["command"].as_str(),
            Some("{ /bin/mkdir -p /x || true; } && /a $OPTS '{b}' && exec /c")
        );
        assert_eq!(t["schedules"]["job"]["every"].as_str(), Some("15m"));
        assert_eq!(done.left, 1, "{}", done.text);
    }

    #[test]
    fn a_schedule_without_its_task_is_a_comment() {
        let done = done("[Timer]\nOnCalendar=daily\n", "[Service]\nType=forking\nExecStart=/a\n");
        assert!(done.text.parse::<toml::Table>().unwrap().is_empty(), "{}", done.text);
        assert_eq!(done.left, 2, "{}", done.text);
    }

    #[test]
    fn placeholders_of_exec_stay_text() {
        let done = done("[Timer]\nOnCalendar=daily\n", "[Service]\nExecStart=/a {name}\n");
        let t: toml::Table = done.text.parse().unwrap();
        assert_eq!(t["tasks"]["job"]["exec"][1].as_str(), Some("{{name}}"));
    }
}
