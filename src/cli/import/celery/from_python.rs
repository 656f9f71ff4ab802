//! A module of Python as a [`Project`].

use super::project::{Entry, Maybe, Part, Project, Task};
use super::python::expression::{Expression, Node};
use super::python::module::{self, Call, Decorated, Module, Setting};
use super::python::value::Value;
use super::settings::{Known, is_celerys, known};

/// Reads a module.
#[must_use]
pub fn read(path: &str, text: &str) -> Project {
    let module = module::read(text);
    let reader = Reader { module: &module, text, own: own_name(path) };
    let mut project = Project::default();
    for setting in &module.settings {
        reader.setting(setting, &mut project);
    }
    for call in &module.periodic {
        let entry = reader.periodic(call, project.entries.len());
        project.entries.push(entry);
    }
    let known: Vec<String> = project
        .entries
        .iter()
        .filter_map(|e| e.get("task").and_then(|v| v.as_ref().ok()).and_then(Value::text).map(str::to_owned))
        .chain(project.routes.iter().chain(&project.annotations).map(|p| p.name.clone()))
        .collect();
    for task in &module.tasks {
        reader.task(task, &known, &mut project);
    }
    project.routes.sort_by_key(|r| r.name.contains(['*', '?']));
    project
}

/// The module that a file is, as far as its path says: `shop/tasks.py` is `shop.tasks`.
fn own_name(path: &str) -> String {
    let stem = path.strip_suffix(".py").unwrap_or(path);
    let stem = stem.strip_suffix("/__init__").unwrap_or(stem);
    let relative = stem.trim_start_matches("./");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '/';
    if !relative.starts_with('/') && !relative.is_empty() && relative.chars().all(plain) {
        return relative.replace('/', ".");
    }
    let last = stem.rsplit('/').next().unwrap_or(stem);
    let name: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    if name.is_empty() { "tasks".to_owned() } else { name }
}

struct Reader<'a> {
    module: &'a Module,
    text: &'a str,
    own: String,
}

impl Reader<'_> {
    fn value(&self, expression: &Expression) -> Maybe {
        self.module.names.value(expression)
    }

    fn source(&self, start: usize, end: usize) -> String {
        self.text.get(start..end).unwrap_or_default().to_owned()
    }

    fn of(&self, expression: &Expression) -> String {
        self.source(expression.start, expression.end)
    }

    /// The comments right above a line.
    fn above(&self, line: usize) -> Vec<String> {
        let mut out = Vec::new();
        let mut wanted = line;
        for (at, comment) in self.module.comments.iter().rev().skip_while(|(at, _)| *at >= line) {
            if at + 1 != wanted {
                break;
            }
            out.push(comment.clone());
            wanted = *at;
        }
        out.reverse();
        out
    }

    fn setting(&self, setting: &Setting, project: &mut Project) {
        let Some(found) = known(&setting.name, setting.of_conf) else {
            if is_celerys(&setting.name, setting.of_conf) && !setting.adds {
                let source = format!("{} = {}", setting.name, self.of(&setting.value));
                project.odd.push((source, "taskd has no such setting".to_owned()));
            }
            return;
        };
        match found {
            Known::Schedule => self.schedule(setting, project),
            Known::Routes => self.routes(&setting.value, project),
            Known::Annotations => match self.module.names.entries(&setting.value) {
                Ok(entries) => {
                    for (name, value) in entries {
                        let part = self.annotation(name, value, project);
                        project.annotations.push(part);
                    }
                }
                Err(why) => {
                    project.odd.push((format!("{} = {}", setting.name, self.of(&setting.value)), why))
                }
            },
            _ if setting.adds => {}
            _ => {
                let part = self.part(setting.name.clone(), &setting.value);
                // The last one counts.
                project.settings.retain(|(k, p)| *k != found || p.name != part.name);
                project.settings.push((found, part));
            }
        }
    }

    fn part(&self, name: String, value: &Expression) -> Part {
        let source = format!("{name}: {}", self.of(value));
        Part { name, value: self.value(value), source }
    }

    /// An annotation as far as it is known; the rest of it is told.
    fn annotation(&self, name: String, value: &Expression, project: &mut Project) -> Part {
        let mut part = self.part(name, value);
        if let (Err(_), Ok(entries)) = (&part.value, self.module.names.entries(value)) {
            let mut known = Vec::new();
            for (key, value) in entries {
                match self.value(value) {
                    Ok(value) => known.push((key, value)),
                    Err(why) => project.odd.push((format!("{} {key}: {}", part.name, self.of(value)), why)),
                }
            }
            part.value = Ok(Value::Dict(known));
        }
        part
    }

    fn schedule(&self, setting: &Setting, project: &mut Project) {
        let names = &self.module.names;
        if let Some(key) = &setting.key {
            return match self.value(key) {
                Ok(Value::Text(name)) => self.entry(name, &setting.value, project),
                _ => {
                    let source = format!("{}[…] = {}", setting.name, self.of(&setting.value));
                    project.odd.push((source, "its name is only known when the program runs".to_owned()));
                }
            };
        }
        match names.entries(&setting.value) {
            Ok(entries) => {
                let before = if setting.adds { Vec::new() } else { std::mem::take(&mut project.entries) };
                if setting.adds && !entries.is_empty() {
                    let names: Vec<&str> = entries.iter().map(|(n, _)| n.as_str()).collect();
                    let (name, line, what) = (&setting.name, setting.value.line, names.join(", "));
                    project.notes.push(format!("{name}.update(…) in line {line} was merged into it: {what}"));
                }
                for (name, value) in entries {
                    self.entry(name, value, project);
                }
                self.overridden(setting, before, project);
            }
            Err(why) => project.odd.push((format!("{} = {}", setting.name, self.of(&setting.value)), why)),
        }
    }

    /// Tells what an earlier assignment said and this one does not.
    fn overridden(&self, setting: &Setting, before: Vec<Entry>, project: &mut Project) {
        let same = |old: &Entry| project.entries.iter().any(|e| e.name == old.name && e.source == old.source);
        let gone: Vec<&str> = before.iter().filter(|e| !same(e)).map(|e| e.source.as_str()).collect();
        if gone.is_empty() {
            return;
        }
        let (name, line, gone) = (&setting.name, setting.value.line, gone.join("\n"));
        project.notes.push(format!(
            "{name} is set again in line {line}, which counts (of the branches of an `if`, look which one is meant). \
             Left out:\n{gone}"
        ));
    }

    fn entry(&self, name: String, value: &Expression, project: &mut Project) {
        let source = format!("{name:?}: {}", self.of(value));
        let fields = match self.module.names.entries(value) {
            Ok(fields) => fields.into_iter().map(|(n, v)| (n, self.field(v))).collect(),
            Err(why) => return project.odd.push((source, why)),
        };
        if let Some(at) = project.entries.iter().position(|e| e.name == name) {
            let before = project.entries.remove(at);
            let line = value.line;
            project.notes.push(format!(
                "{name:?} is set again in line {line}, which counts. It was:\n{}",
                before.source
            ));
        }
        project.entries.push(Entry { name, comments: self.above(value.line), fields, source });
    }

    /// A field; a function in the place of a task's name is that task.
    fn field(&self, value: &Expression) -> Maybe {
        let found = self.value(value);
        match (&found, &value.node) {
            (Err(_), Node::Name(name)) => match name.strip_suffix(".name") {
                Some(function) => Ok(Value::Text(self.function(function))),
                None => found,
            },
            _ => found,
        }
    }

    /// The name of the task that a function is.
    fn function(&self, name: &str) -> String {
        let decorated = self.module.tasks.iter().find(|t| t.function == name);
        if let Some(task) = decorated {
            return self.name_of(task, &[]).0;
        }
        let whole = self.module.names.whole(name);
        if whole.contains('.') { whole } else { format!("{}.{whole}", self.own) }
    }

    /// The name of a task, and whether it was guessed.
    fn name_of(&self, task: &Decorated, known: &[String]) -> (String, bool) {
        let named = task.options.iter().find(|(n, _)| n == "name").and_then(|(_, v)| self.value(v).ok());
        if let Some(Value::Text(name)) = named {
            return (name, false);
        }
        let end = format!(".{}", task.function);
        let mut fitting = known.iter().filter(|k| k.ends_with(&end));
        match (fitting.next(), fitting.find(|_| true)) {
            (Some(one), None) => (one.clone(), false),
            _ => (format!("{}.{}", self.own, task.function), true),
        }
    }

    fn routes(&self, value: &Expression, project: &mut Project) {
        // A dict, or a list of dicts and of pairs.
        let names = &self.module.names;
        let mut found = value;
        while let Node::Name(name) = &found.node {
            match names.constants.get(name).filter(|next| *next != found) {
                Some(next) => found = next,
                None => break,
            }
        }
        match &found.node {
            Node::List(items) => {
                // A single pair in parentheses is a list of two.
                if let [pattern, target] = items.as_slice()
                    && let Ok(Value::Text(pattern)) = self.value(pattern)
                {
                    return project.routes.push(self.part(pattern, target));
                }
                for item in items {
                    self.routes(item, project);
                }
            }
            _ => match names.entries(found) {
                Ok(entries) => project.routes.extend(entries.into_iter().map(|(n, v)| self.part(n, v))),
                Err(_) => {
                    let why = "a router that is a program; write its rules as [[routes]]";
                    project.odd.push((format!("task_routes: {}", self.of(found)), why.to_owned()));
                }
            },
        }
    }

    /// `add_periodic_task(schedule, signature, name=…, **options)`.
    fn periodic(&self, call: &Call, number: usize) -> Entry {
        let source = self.source(call.place.0, call.place.1);
        let mut entry = Entry { source, comments: self.above(call.line), ..Entry::default() };
        let positional = |i: usize, name: &str| {
            call.positional.get(i).or_else(|| call.named.iter().find(|(n, _)| n == name).map(|(_, v)| v))
        };
        let mut options = Vec::new();
        if let Some(schedule) = positional(0, "schedule") {
            entry.fields.push(("schedule".to_owned(), self.value(schedule)));
        }
        if let Some(signature) = positional(1, "sig") {
            self.signature(signature, &mut entry.fields);
        }
        for (name, value) in &call.named {
            match name.as_str() {
                "name" => {
                    entry.name =
                        self.value(value).ok().and_then(|v| v.text().map(str::to_owned)).unwrap_or_default()
                }
                "args" | "kwargs" => entry.fields.push((name.clone(), self.value(value))),
                "schedule" | "sig" => {}
                _ => match self.value(value) {
                    Ok(value) => options.push((name.clone(), value)),
                    Err(why) => entry.fields.push((name.clone(), Err(why))),
                },
            }
        }
        if !options.is_empty() {
            entry.fields.push(("options".to_owned(), Ok(Value::Dict(options))));
        }
        if entry.name.is_empty() {
            let task = entry.get("task").and_then(|v| v.as_ref().ok()).and_then(Value::text);
            let last = task.and_then(|t| t.rsplit('.').next()).map(str::to_owned);
            entry.name = last.unwrap_or_else(|| format!("periodic-{}", number + 1));
        }
        entry
    }

    /// `add.s(1, b=2)`, `add.si()`, `signature('shop.add', args=…)`, `add`.
    fn signature(&self, signature: &Expression, fields: &mut Vec<(String, Maybe)>) {
        let mut add = |name: &str, value: Maybe| fields.push((name.to_owned(), value));
        match &signature.node {
            Node::Name(function) => add("task", Ok(Value::Text(self.function(function)))),
            Node::Call(name, positional, named) => {
                let (owner, last) = name.rsplit_once('.').unwrap_or(("", name));
                match last {
                    "s" | "si" | "subtask" | "signature" if !owner.is_empty() && last != "signature" => {
                        add("task", Ok(Value::Text(self.function(owner))));
                        let args: Maybe = positional
                            .iter()
                            .map(|e| self.value(e))
                            .collect::<Result<_, _>>()
                            .map(Value::List);
                        let kwargs: Maybe = named
                            .iter()
                            .map(|(n, e)| Ok((n.clone(), self.value(e)?)))
                            .collect::<Result<_, String>>()
                            .map(Value::Dict);
                        add("args", args);
                        add("kwargs", kwargs);
                    }
                    "signature" | "subtask" => {
                        match positional.first().map(|e| self.value(e)) {
                            Some(task @ Ok(Value::Text(_))) => add("task", task),
                            _ => add("task", Ok(Value::Text(self.function(owner)))),
                        }
                        for (name, value) in named {
                            add(name, self.value(value));
                        }
                    }
                    _ => add("task", Err(format!("{name}(…) is no signature that is known here"))),
                }
            }
            _ => add("task", Err("it is no signature that is known here".to_owned())),
        }
    }

    fn task(&self, task: &Decorated, known: &[String], project: &mut Project) {
        let (name, guessed) = self.name_of(task, known);
        let source = self.source(task.place.0, task.place.1);
        if task.decorator.ends_with("periodic_task") {
            let schedule = task.options.iter().find(|(n, _)| n == "run_every").map(|(_, v)| self.value(v));
            let schedule = schedule.unwrap_or_else(|| Err("it has no run_every".to_owned()));
            let fields =
                vec![("task".to_owned(), Ok(Value::Text(name.clone()))), ("schedule".to_owned(), schedule)];
            let entry = Entry {
                name: task.function.clone(),
                comments: self.above(task.line),
                fields,
                source: source.clone(),
            };
            project.entries.push(entry);
        }
        let options = task
            .options
            .iter()
            .filter(|(n, _)| !matches!(n.as_str(), "name" | "run_every"))
            .map(|(n, v)| (n.clone(), self.value(v)))
            .collect();
        project.tasks.push(Task { name, guessed, options, source });
    }
}
