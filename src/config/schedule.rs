//! `[schedules.NAME]`: what only the whole file can show of them.

use serde_json::{Map, Value};

use crate::cron::{SolarEvent, Wrong};
use crate::model::params;
use crate::model::schedule::{CatchUp, Overlap};
use crate::model::task::Task;
use crate::model::time::Wall;

use super::build::{Builder, Layers};
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::{Schedule, Settings};
use super::tree::{quote, quote_key};

/// What says when.
const TIMES: [&str; 3] = ["cron", "every", "solar"];

/// A moment before all that is planned, to ask whether anything ever is: 2020-01-01.
const EARLY: Wall = Wall(1_577_836_800_000);

impl<'a> Builder<'a, '_> {
    /// Every declared schedule.
    pub(super) fn schedules(&mut self, settings: &mut Settings) -> Option<()> {
        let built_in = self.built_in.get("schedules")?;
        for section in self.all("schedules") {
            let at = Layers { own: Some(section), base: None, built_in };
            let faults = self.check.faults.len();
            let schedule = self.schedule(section, &at, settings);
            self.schedule_origins(section, &at, settings);
            if self.check.faults.len() == faults
                && let Some(schedule) = schedule
            {
                self.is_ever(section, &schedule, settings);
                settings.schedules.insert(schedule.name.clone(), schedule);
            }
        }
        Some(())
    }

    fn schedule(&mut self, section: &Section, at: &Layers<'_>, settings: &Settings) -> Option<Schedule> {
        self.one_time(section);
        let list = section.get("args").and_then(Set::list).unwrap_or_default().to_vec();
        let kwargs = section.get("kwargs").and_then(Set::dict).cloned().unwrap_or_default();
        let named = section.get("task").and_then(Set::text);
        match named.map(|name| (name, settings.task(name))) {
            Some((name, None)) => self.missing(section, "task", "task", name, settings.tasks.keys()),
            Some((name, Some(task))) => {
                let task = &Task { name: name.to_owned(), ..task.clone() };
                self.schedule_task(section, task, &list, &kwargs, settings);
            }
            None => {}
        }
        let workflow = section.get("workflow").and_then(Set::text);
        if let Some(name) = workflow {
            self.schedule_workflow(section, name, settings);
        }
        let solar = section.get("solar").and_then(Set::text);
        if let Some(event) = solar.filter(|event| SolarEvent::named(event).is_none()) {
            let known: Vec<&str> = SolarEvent::ALL.iter().map(|(_, name)| *name).collect();
            let near = super::keys::suggest(event, known.iter().copied());
            let near = near.map(|n| format!("did you mean {}? ", quote(n))).unwrap_or_default();
            let help = format!("{near}it is one of {}", known.join(", "));
            let message = format!("the sun has no event {}", quote(event));
            self.check.bad(section.place("solar"), &section.path("solar"), message, &help);
        }
        let all = at.text("catch_up").as_deref() == Some("all");
        let max = at.small("catch_up_max").unwrap_or(1);
        Some(Schedule {
            name: section.name.clone(),
            task: named.map(str::to_owned),
            workflow: workflow.map(str::to_owned),
            cron: at.text("cron"),
            every_ms: at.number("every"),
            align: at.flag("align"),
            solar: solar.map(str::to_owned),
            latitude: at.text("latitude"),
            longitude: at.text("longitude"),
            timezone: at.text("timezone").or_else(|| settings.taskd.timezone.clone()),
            // Whoever wants each missed time wants it after the one before, not left out because of it.
            overlap: match (at.set("overlap"), at.text("catch_up").as_deref()) {
                (None, Some("all")) => Overlap::Queue,
                _ => Overlap::named(&at.text("overlap")?)?,
            },
            catch_up: match at.text("catch_up").as_deref() {
                Some("last") => CatchUp::Last,
                _ if all => CatchUp::All { max },
                _ => CatchUp::None,
            },
            splay_ms: at.number("splay")?,
            args: list,
            kwargs,
            queue: at.text("queue"),
            priority: at.number("priority").and_then(|n| u8::try_from(n).ok()),
            expires_ms: at.number("expires"),
            enabled: at.flag("enabled"),
            pause_after_failures: at.small("pause_after_failures"),
        })
    }

    /// Exactly one key says when, and those that go with the others are not there.
    fn one_time(&mut self, section: &Section) {
        let times: Vec<&str> = TIMES.into_iter().filter(|k| section.has(k)).collect();
        let [time] = times.as_slice() else {
            let message = if times.is_empty() {
                "the schedule says no time"
            } else {
                "the schedule says more than one time"
            };
            let place = times.get(1).map_or(&section.at, |key| section.place(key));
            let fault = Fault::new(FaultKind::Reference, place, section.path(""), message);
            self.check.fault(fault.help("give exactly one of `cron`, `every` and `solar`"));
            return;
        };
        for (key, with) in
            [("timezone", "cron"), ("align", "every"), ("latitude", "solar"), ("longitude", "solar")]
        {
            if section.has(key) && with != *time {
                let message = format!("`{key}` goes with `{with}`, and this schedule has `{time}`");
                self.schedule_fault(section, key, message, "remove it");
            }
        }
        for key in ["latitude", "longitude"] {
            if *time == "solar" && !section.has(key) {
                let message = format!("`solar` needs `{key}`: where the sun is looked at");
                self.schedule_fault(section, "solar", message, &format!("add {key} = DEGREES"));
            }
        }
        let follows = section.get("align").and_then(Set::flag) == Some(false);
        for (key, why) in [
            ("overlap", "its runs follow one another and never overlap"),
            ("catch_up", "its runs follow one another, and none is missed"),
        ] {
            if follows && section.has(key) {
                let message = format!("`{key}` has no meaning with align = false: {why}");
                self.schedule_fault(section, key, message, "remove one of the two");
            }
        }
        let all = section.get("catch_up").and_then(Set::text) == Some("all");
        if section.has("catch_up_max") && !all && !section.faulty.contains("catch_up") {
            let message = "`catch_up_max` goes with catch_up = \"all\"".to_owned();
            self.schedule_fault(section, "catch_up_max", message, "remove it, or set catch_up = \"all\"");
        }
    }

    fn schedule_fault(&mut self, section: &Section, key: &str, message: String, help: &str) {
        let place = section.get(key).map_or(&section.at, |set| &set.key_at);
        let fault = Fault::new(FaultKind::Reference, place, section.path(key), message);
        self.check.fault(fault.help(help));
    }

    /// The task takes the arguments, and runs in the queue.
    fn schedule_task(
        &mut self,
        section: &Section,
        task: &Task,
        args: &[Value],
        kwargs: &Map<String, Value>,
        settings: &Settings,
    ) {
        if !section.faulty.contains("args") && !section.faulty.contains("kwargs") {
            let faults = params::bind(task, args, kwargs).err().unwrap_or_default();
            let key = ["kwargs", "args"].into_iter().find(|k| section.has(k)).unwrap_or("task");
            for what in faults {
                let fault = Fault::new(
                    FaultKind::Reference,
                    section.place(key),
                    section.path(key),
                    format!("task {}: {what}", task.name),
                );
                let names: Vec<&str> = task.params.iter().map(|p| p.name.as_str()).collect();
                self.check.fault(if names.is_empty() {
                    fault
                } else {
                    fault.help(format!("its parameters are: {}", names.join(", ")))
                });
            }
        }
        if let Some(queue) = section.get("queue").and_then(Set::text) {
            if !Self::is_queue(settings, Some(task), queue) {
                self.missing(section, "queue", "queue", queue, settings.queues.keys());
            } else if !settings.runs_alike(task, queue) {
                let home = settings.route(task);
                let message = format!(
                    "task {} would run as another user in queue {queue} than in its own queue {home}",
                    task.name
                );
                let help = format!("remove it, or set `user` in [tasks.{}]", quote_key(&task.name));
                self.schedule_fault(section, "queue", message, &help);
            }
        }
        if !task.enabled && section.get("enabled").and_then(Set::flag) != Some(false) {
            self.notes.push(format!(
                "{}: does not fire while its task {} is disabled",
                section.path(""),
                task.name
            ));
        }
    }

    /// There is such a workflow, and what it runs stands in it alone.
    fn schedule_workflow(&mut self, section: &Section, name: &str, settings: &Settings) {
        for key in ["args", "kwargs", "queue", "priority", "expires"] {
            if section.has(key) && !section.has("task") {
                let message = format!("`{key}` goes with `task`, and this schedule has `workflow`");
                let help =
                    format!("set it for the steps of [workflows.{}], or for their tasks", quote_key(name));
                self.schedule_fault(section, key, message, &help);
            }
        }
        let Some(declared) = settings.workflows.get(name) else {
            // One that is declared with faults has its own.
            if !self.all("workflows").any(|w| w.name == name) {
                self.missing(section, "workflow", "workflow", name, settings.workflows.keys());
            }
            return;
        };
        if section.get("enabled").and_then(Set::flag) == Some(false) {
            return;
        }
        let disabled = |task: &str| settings.task(task).is_some_and(|task| !task.enabled);
        let mut tasks = declared.steps.iter().map(|step| step.message.task.as_str());
        if let Some(task) = tasks.find(|task| disabled(task)) {
            self.notes.push(format!(
                "{}: does not fire while task {task} of its workflow is disabled",
                section.path("")
            ));
        }
    }

    /// Whether it is ever planned.
    fn is_ever(&mut self, section: &Section, schedule: &Schedule, settings: &Settings) {
        let timing = match schedule.timing(settings.taskd.timezone.as_deref()) {
            Ok(Some(timing)) => timing,
            Ok(None) => return,
            Err(Wrong { message, help, .. }) => {
                return self.schedule_fault(section, "timezone", format!("`timezone` {message}"), &help);
            }
        };
        if timing.next(EARLY).is_none() {
            let key = if schedule.cron.is_some() { "cron" } else { "solar" };
            let message = "this time never comes".to_owned();
            self.schedule_fault(
                section,
                key,
                message,
                "`taskd schedules explain` shows what an expression means",
            );
        }
    }

    fn schedule_origins(&mut self, section: &Section, at: &Layers<'_>, settings: &Settings) {
        let header = format!("[schedules.{}]", quote_key(&section.name));
        let zone = settings.taskd.timezone.as_deref().filter(|_| section.has("cron")).map(quote);
        let aligned = section.has("every").then(|| "true".to_owned());
        let all = section.get("catch_up").and_then(Set::text) == Some("all");
        let mut dynamic = vec![
            ("timezone", zone.unwrap_or_default()),
            ("align", aligned.unwrap_or_default()),
            ("catch_up_max", if all { "100".to_owned() } else { String::new() }),
        ];
        if section.get("align").and_then(Set::flag) == Some(false) {
            dynamic.extend([("overlap", String::new()), ("catch_up", String::new())]);
        }
        self.origins.table(&header, at, &dynamic);
    }
}
