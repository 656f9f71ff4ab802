//! A [`Project`] as taskd's tables.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, duration, rate, task_option};
use super::project::{Entry, Maybe, Part, Project, Task};
use super::python::value::Value;
use super::schedule;
use super::settings::{Form, Known};
use crate::cli::import::document::{Document, Imported, Table};
use crate::cli::import::naming::{self, Names};
use crate::cli::import::toml_value::{self, Toml};
use crate::model::name;

/// The pool that runs what Celery's workers ran.
const POOL: &str = "celery";

/// Writes everything.
pub(super) fn write(source: &str, project: &Project) -> Imported {
    let mut writer = Writer {
        doc: Document::new("celery-beat", source, ("periodic task", "periodic tasks")),
        default_queue: "celery".to_owned(),
        tasks: BTreeMap::new(),
        queues: BTreeSet::new(),
        routes: Vec::new(),
        world: String::new(),
    };
    writer.doc.remark(
        "Nothing of the program was run: what it only knows when it runs stands in comments. Rates hold for all processes \
         together here, for each worker in Celery.",
    );
    writer.doc.remark(
        "Celery acknowledges a message before its task runs unless task_acks_late says otherwise; taskd does it after, so a \
         task whose process died is run again. acks = \"early\" is Celery's way.",
    );
    writer.collect(project);
    writer.pool(project);
    writer.settings(project);
    writer.declared(project);
    for note in &project.notes {
        writer.doc.blank();
        writer.doc.comment(note);
    }
    writer.entries(project);
    for (source, why) in &project.odd {
        writer.doc.blank();
        writer.doc.left(source, why);
    }
    writer.doc.finish()
}

struct Writer {
    doc: Document,
    default_queue: String,
    tasks: BTreeMap<String, Draft>,
    queues: BTreeSet<String>,
    routes: Vec<(String, String)>,
    /// The pool, queues and routes that tasks speak of, for taskd's check of each.
    world: String,
}

impl Writer {
    /// What tasks and queues there are, by everything that names them.
    fn collect(&mut self, project: &Project) {
        for (known, part) in &project.settings {
            if let (Known::DefaultQueue, Ok(Value::Text(queue))) = (known, &part.value)
                && name::check(queue).is_ok()
            {
                naming::queue(queue).clone_into(&mut self.default_queue);
            }
        }
        self.queues.insert(self.default_queue.clone());
        for part in &project.routes {
            self.route(part);
        }
        for task in &project.tasks {
            self.decorated(task);
        }
        for part in project.annotations.iter().filter(|p| p.name != "*") {
            self.annotation(part);
        }
        self.named(project);
        for draft in self.tasks.values() {
            for (key, value, _) in &draft.keys {
                if let ("queue", Toml::Text(queue)) = (*key, value) {
                    self.queues.insert(queue.clone());
                }
            }
        }
        if self.queues.contains(naming::queue("default")) {
            self.doc.remark(naming::RENAMED);
        }
        for (known, part) in &project.settings {
            if *known == Known::Queues {
                self.declared_queues(part);
            }
        }
    }

    /// The tasks and queues that entries name.
    fn named(&mut self, project: &Project) {
        for entry in &project.entries {
            let Some(Ok(Value::Text(task))) = entry.get("task") else { continue };
            if name::check(task).is_ok() {
                self.tasks.entry(task.clone()).or_default();
            }
            if let Some(Ok(options)) = entry.get("options")
                && let Some(queue) = options.get("queue").and_then(Value::text)
                && name::check(queue).is_ok()
            {
                self.queues.insert(naming::queue(queue).to_owned());
            }
        }
    }

    fn route(&mut self, part: &Part) {
        let target = match &part.value {
            Ok(Value::Text(queue)) => Some(queue.clone()),
            Ok(Value::Dict(map)) => {
                let queue =
                    map.iter().find(|(n, _)| n == "queue").and_then(|(_, v)| v.text().map(str::to_owned));
                for (key, value) in map.iter().filter(|(n, _)| n != "queue") {
                    let (source, why) = (
                        format!("{}: {key} = {value}", part.name),
                        "a route of taskd names a queue and nothing else",
                    );
                    match key.as_str() {
                        "routing_key" | "exchange" | "exchange_type" | "delivery_mode" => {
                            self.doc.remark("Exchanges and routing keys of routes were left out: a queue is all there is.");
                        }
                        _ => self.doc.left(&source, why),
                    }
                }
                queue
            }
            _ => None,
        };
        let pattern = part.name.replace('#', "*");
        match target {
            Some(queue)
                if name::check(&queue).is_ok() && name::check(&pattern.replace(['*', '?'], "x")).is_ok() =>
            {
                let queue = naming::queue(&queue).to_owned();
                self.queues.insert(queue.clone());
                self.routes.push((pattern, queue));
            }
            Some(queue) => self.doc.left(
                &part.source,
                &format!("{pattern:?} or {queue:?} has characters that no name of taskd has"),
            ),
            None => {
                let why =
                    part.value.as_ref().err().cloned().unwrap_or_else(|| "it names no queue".to_owned());
                self.doc.left(&part.source, &why);
            }
        }
    }

    /// `task_queues`: a list of `Queue('name', …)`, or a dict.
    fn declared_queues(&mut self, part: &Part) {
        let mut found = Vec::new();
        match &part.value {
            Ok(Value::List(list)) => {
                for value in list {
                    match value {
                        Value::Call(call, positional, named) if call == "Queue" => {
                            let named = named.iter().find(|(n, _)| n == "name").map(|(_, v)| v);
                            found.extend(
                                positional.first().or(named).and_then(Value::text).map(str::to_owned),
                            );
                        }
                        Value::Text(name) => found.push(name.clone()),
                        _ => {}
                    }
                }
            }
            Ok(Value::Dict(map)) => found.extend(map.iter().map(|(n, _)| n.clone())),
            _ => {}
        }
        found.retain(|q| name::check(q).is_ok());
        if found.is_empty() {
            let why = part
                .value
                .as_ref()
                .err()
                .cloned()
                .unwrap_or_else(|| "no name of a queue is in it".to_owned());
            self.doc.left(&part.source, &why);
        }
        self.queues.extend(found.iter().map(|q| naming::queue(q).to_owned()));
    }

    fn decorated(&mut self, task: &Task) {
        if name::check(&task.name).is_err() {
            return self
                .doc
                .left(&task.source, &format!("{:?} has characters that no name of taskd has", task.name));
        }
        let draft = self.tasks.entry(task.name.clone()).or_default();
        draft.comments.push(task.source.clone());
        if task.guessed {
            draft
                .comments
                .push("  (the name was put together from the file's and the function's)".to_owned());
        }
        let has = |wanted: &str| {
            task.options.iter().any(|(n, v)| n == wanted && !matches!(v, Ok(Value::Bool(false))))
        };
        let retries = has("autoretry_for");
        for (option, value) in &task.options {
            task_option(draft, option, value, retries);
        }
        if retries && !has("max_retries") {
            draft.set("max_retries", Toml::Int(3), "Celery's default");
        }
    }

    fn annotation(&mut self, part: &Part) {
        if name::check(&part.name).is_err() {
            return self.doc.left(&part.source, "taskd has no annotations by pattern: write the keys at each task, or at a pattern of a worker's tasks");
        }
        let Ok(Value::Dict(map)) = &part.value else {
            let why = part.value.as_ref().err().cloned().unwrap_or_else(|| "it is no dict".to_owned());
            return self.doc.left(&part.source, &why);
        };
        let draft = self.tasks.entry(part.name.clone()).or_default();
        for (option, value) in map {
            // An annotation changes what the decorator says.
            draft.keys.retain(|(k, ..)| k != option);
            task_option(draft, option, &Ok(value.clone()), false);
        }
    }

    /// The pool, its queues and the routes.
    fn pool(&mut self, project: &Project) {
        let mut modules: BTreeSet<String> = BTreeSet::new();
        for task in self.tasks.keys() {
            modules.extend(task.rsplit_once('.').map(|(module, _)| module.to_owned()));
        }
        for (known, part) in &project.settings {
            if *known != Known::Modules {
                continue;
            }
            match &part.value {
                Ok(Value::List(list)) => {
                    modules.extend(list.iter().filter_map(|v| v.text().map(str::to_owned)))
                }
                Ok(Value::Text(one)) => {
                    modules.insert(one.clone());
                }
                Ok(_) => {}
                Err(why) => self.doc.left(&part.source, why),
            }
        }
        let mut argv = vec!["python3".to_owned(), "-m".to_owned(), "taskd_worker".to_owned()];
        if modules.is_empty() {
            modules.insert("tasks".to_owned());
        }
        argv.extend(
            modules
                .into_iter()
                .filter(|m| m.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))),
        );
        let mut table = Table::new("pools", POOL);
        table.set("worker", Toml::texts(argv));
        table.comment("working_directory = \"/srv/…\" where the modules are, and the python of their virtual environment");
        for (known, part) in &project.settings {
            if let Known::Key("pools", key, form) = known {
                self.key(&mut table, key, *form, part);
            }
        }
        self.doc.left(
            "the workers of Celery",
            "a pool runs a program that speaks taskd's protocol. Below is one with the module taskd_worker (packaging/python): give the \
             functions its @task in place of Celery's, and check the modules",
        );
        self.doc.table(&table, "");
        self.world = format!("[pools.{POOL}]\nworker = [\"true\"]\n");
        for queue in self.queues.clone() {
            let mut table = Table::new("queues", &queue);
            table.set("pool", Toml::text(POOL));
            self.doc.blank();
            self.doc.table(&table, &self.world.clone());
            self.world.push_str(&format!("[queues.{}]\npool = \"{POOL}\"\n", toml_value::key(&queue)));
        }
        let world = self.world.clone();
        for (pattern, queue) in self.routes.clone() {
            let mut table = Table::new("routes", "");
            table.set("task", Toml::text(pattern));
            table.set("queue", Toml::text(queue));
            self.doc.blank();
            self.doc.table(&table, &world);
            self.world.push_str(&format!("{}\n", table.text()));
        }
    }

    fn key(&mut self, table: &mut Table, key: &'static str, form: Form, part: &Part) {
        let value = match &part.value {
            Ok(Value::None) => return self.doc.comment(&format!("{}  (as taskd)", part.source)),
            Ok(value) => value,
            Err(why) => return self.doc.left(&part.source, why),
        };
        let found = match form {
            Form::Seconds => duration(value).map(Some),
            Form::Rate => rate(value),
            Form::Flag => value
                .flag()
                .map(|b| Some(Toml::Bool(b)))
                .ok_or_else(|| "it is neither True nor False".to_owned()),
            Form::Late => match value.flag() {
                Some(late) => Ok(Some(Toml::text(if late { "late" } else { "early" }))),
                None => Err("it is neither True nor False".to_owned()),
            },
            Form::Count => {
                value.int().map(|n| Some(Toml::Int(n))).ok_or_else(|| "it is no whole number".to_owned())
            }
            Form::Kib => value
                .int()
                .map(|n| Some(Toml::text(format!("{n}K"))))
                .ok_or_else(|| "it is no whole number".to_owned()),
        };
        match found {
            Ok(Some(value)) => table.replace(key, value, part.name.clone()),
            Ok(None) => self.doc.comment(&format!("{}  (as taskd)", part.source)),
            Err(why) => self.doc.left(&part.source, &why),
        }
    }

    /// `[defaults]`, `[results]`, and settings without a counterpart.
    fn settings(&mut self, project: &Project) {
        let mut needless: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (known, part) in &project.settings {
            if let Known::Needless(why) = known {
                needless.entry(why).or_default().push(part.name.clone());
            }
        }
        self.doc.blank();
        for (why, names) in needless {
            self.doc.comment(&format!("{}: left out; {why}.", names.join(", ")));
        }
        let mut every: Vec<Part> = Vec::new();
        for part in project.annotations.iter().filter(|p| p.name == "*") {
            match &part.value {
                Ok(Value::Dict(map)) => every.extend(map.iter().map(|(n, v)| Part {
                    name: format!("task_annotations {n}"),
                    value: Ok(v.clone()),
                    source: format!("'*': {n}"),
                })),
                Ok(_) => self.doc.left(&part.source, "it is no dict"),
                Err(why) => self.doc.left(&part.source, why),
            }
        }
        let mut every_task = Table::new("defaults", "");
        let mut results = Table::new("results", "");
        for (known, part) in &project.settings {
            match known {
                Known::Key("defaults", key, form) => self.key(&mut every_task, key, *form, part),
                Known::Key("results", key, form) => self.key(&mut results, key, *form, part),
                _ => {}
            }
        }
        for part in &every {
            match part.name.rsplit(' ').next().unwrap_or_default() {
                "rate_limit" => self.key(&mut every_task, "rate_limit", Form::Rate, part),
                "time_limit" => self.key(&mut every_task, "time_limit", Form::Seconds, part),
                "soft_time_limit" => self.key(&mut every_task, "soft_time_limit", Form::Seconds, part),
                "acks_late" => self.key(&mut every_task, "acks", Form::Late, part),
                "ignore_result" => self.key(&mut every_task, "ignore_result", Form::Flag, part),
                _ => self.doc.left(&part.source, "taskd has no such key of a task"),
            }
        }
        if !results.keys().is_empty() {
            self.doc.blank();
            self.doc.table(&results, "");
        }
        let keys = every_task.keys();
        if !keys.is_empty() && self.tasks.is_empty() {
            self.doc.left(&every_task.text(), "no task is known here: write these keys at each task");
        }
        for draft in self.tasks.values_mut() {
            draft.fill(&keys);
        }
    }

    fn declared(&mut self, _project: &Project) {
        for (task, draft) in self.tasks.clone() {
            let mut table = Table::new("tasks", &task);
            let routed = self.routes.iter().any(|(pattern, _)| name::glob_matches(pattern, &task));
            if !routed && draft.keys.iter().all(|(k, ..)| *k != "queue") {
                table.set("queue", Toml::text(&self.default_queue));
            }
            for (key, value, said) in &draft.keys {
                table.say(key, value.clone(), said.clone());
            }
            self.doc.blank();
            for comment in &draft.comments {
                self.doc.comment(comment);
            }
            let world = self.world.clone();
            if !self.doc.table(&table, &world) {
                self.tasks.remove(&task);
            }
            for (source, why) in &draft.left {
                self.doc.left(source, why);
            }
        }
    }

    fn entries(&mut self, project: &Project) {
        let mut names = Names::default();
        // Celery's clock is UTC unless it is told otherwise.
        let mut zone = Ok("UTC".to_owned());
        for (known, part) in &project.settings {
            match (known, &part.value) {
                (Known::Timezone, Ok(Value::Text(name))) => zone = Ok(name.clone()),
                (Known::Timezone, Ok(_)) => {}
                (Known::Timezone, Err(why)) => {
                    zone = Err(());
                    self.doc.blank();
                    self.doc.left(&part.source, &format!("{why}; the schedules below have the time zone of [taskd]"));
                }
                (Known::EnableUtc, Ok(Value::Bool(false))) => self.doc.remark(
                    "enable_utc is False: without a timezone Celery would take the machine's; remove `timezone` from the schedules then.",
                ),
                _ => {}
            }
        }
        for entry in &project.entries {
            self.doc.entry();
            self.doc.blank();
            for comment in &entry.comments {
                self.doc.own_comment(comment);
            }
            self.entry(entry, zone.as_deref().ok(), &mut names);
        }
    }

    fn entry(&mut self, entry: &Entry, zone: Option<&str>, names: &mut Names) {
        let task = match entry.get("task") {
            Some(Ok(Value::Text(task))) if name::check(task).is_ok() => task.clone(),
            Some(Ok(Value::Text(task))) => {
                return self
                    .doc
                    .left(&entry.source, &format!("{task:?} has characters that no name of taskd has"));
            }
            Some(Err(why)) => return self.doc.left(&entry.source, &format!("task: {why}")),
            _ => return self.doc.left(&entry.source, "it names no task"),
        };
        let keys = match entry.get("schedule") {
            Some(Ok(value)) => schedule::keys(value),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it has no schedule".to_owned()),
        };
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => return self.doc.left(&entry.source, &format!("schedule: {why}")),
        };
        let name = names.give(&entry.name);
        let mut table = Table::new("schedules", &name);
        if name != entry.name {
            table.comment(format!("{:?}", entry.name));
        }
        table.set("task", Toml::text(&task));
        let mut left = Vec::new();
        for (key, value) in keys {
            table.set(key, value);
        }
        let own = entry.get("timezone").and_then(|v| v.as_ref().ok()).and_then(Value::text);
        if let Some(zone) = own.or(zone).filter(|_| table.has("cron")) {
            table.set("timezone", Toml::text(zone));
        }
        for (field, value) in &entry.fields {
            field_of(&mut table, field, value, &mut left);
        }
        match entry.get("options") {
            Some(Ok(Value::Dict(map))) => {
                for (option, value) in map {
                    option_of(&mut table, option, value, &mut left);
                }
            }
            Some(Ok(_)) => left.push(("options".to_owned(), "it is no dict".to_owned())),
            _ => {}
        }
        let lost: Vec<&str> = left
            .iter()
            .filter_map(|(source, _)| {
                ["args", "kwargs"].into_iter().find(|f| source.split(' ').next() == Some(f))
            })
            .collect();
        if !lost.is_empty() {
            // Without its arguments it would be another call, and nobody asked for that one.
            let why = format!(
                "its {} could not be carried over: write them, then remove this line",
                lost.join(" and ")
            );
            table.replace("enabled", Toml::Bool(false), why);
        }
        table.set("overlap", Toml::text("allow"));
        table.say("catch_up", Toml::text("last"), "beat sends what was due while it was off, once");
        let key = toml_value::key(&task);
        let world = format!("{}[tasks.{key}]\nqueue = \"{}\"\n", self.world, self.default_queue);
        if !self.tasks.contains_key(&task) {
            return self.doc.left(&table.text(), "its task was not carried over");
        }
        if !self.doc.table(&table, &world) {
            return;
        }
        for (source, why) in left {
            self.doc.left(&source, &why);
        }
    }
}

/// A field of an entry that is no schedule.
fn field_of(table: &mut Table, field: &str, value: &Maybe, left: &mut Vec<(String, String)>) {
    let value = match (field, value) {
        ("task" | "schedule" | "options" | "timezone", Ok(_)) => return,
        (_, Ok(value)) => value,
        (_, Err(why)) => return left.push((field.to_owned(), why.clone())),
    };
    match (field, value) {
        ("args", Value::List(list)) if list.is_empty() => {}
        ("kwargs", Value::Dict(map)) if map.is_empty() => {}
        ("args", Value::List(_)) | ("kwargs", Value::Dict(_)) => match value.toml() {
            Ok(toml) => table.set(if field == "args" { "args" } else { "kwargs" }, toml),
            Err(why) => left.push((format!("{field} = {value}"), why)),
        },
        ("args" | "kwargs", Value::None) | ("relative", _) => {}
        ("enabled", Value::Bool(true)) => {}
        ("enabled", Value::Bool(false)) => table.set("enabled", Toml::Bool(false)),
        ("description", Value::Text(text)) => table.comment(text.clone()),
        _ => left.push((format!("{field} = {value}"), "a schedule of taskd has no such key".to_owned())),
    }
}

/// An option of an entry's messages.
fn option_of(table: &mut Table, option: &str, value: &Value, left: &mut Vec<(String, String)>) {
    match (option, value) {
        ("queue", Value::Text(queue)) => table.set("queue", Toml::text(naming::queue(queue))),
        ("priority", Value::Int(n)) => table.set("priority", Toml::Int(*n)),
        ("expires", value) => match duration(value) {
            Ok(text) => table.set("expires", text),
            Err(why) => left.push((format!("expires = {value}"), why)),
        },
        // A queue is all there is.
        ("exchange" | "routing_key", _) | (_, Value::None) => {}
        _ => left.push((format!("{option} = {value}"), "a schedule of taskd has no such key".to_owned())),
    }
}
