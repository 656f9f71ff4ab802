//! `command`, `exec` and the parameters that reach them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::params::Param;
use crate::model::task::{Program, Stdin, Task};

use super::build::{Builder, Layers};
use super::keys::suggest;
use super::ownership::ownership_fault;
use super::placeholder;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::Pool;
use super::tree::At;

impl<'a> Builder<'a, '_> {
    /// How the task is run; a fault where it is not said, or twice.
    pub(super) fn program(
        &mut self,
        section: &'a Section,
        at: &Layers<'a>,
        task: &Task,
        pool: Option<&Pool>,
    ) -> Program {
        if task.external {
            if let Some((key, from)) = ["command", "exec"]
                .into_iter()
                .find_map(|key| Some((key, at.own.filter(|own| own.has(key))?)))
            {
                let message = format!("`external` and `{key}` exclude each other");
                let fault = Fault::new(FaultKind::Reference, from.place(key), from.path(key), message);
                let help =
                    "remove one of them: Celery workers run an external task, with a program of their own";
                self.check.fault(fault.help(help));
            }
            return Program::Worker;
        }
        // A task's own `exec` replaces a `command` of [defaults]: the first layer with either decides.
        let Some(from) = at.written().find(|s| s.has("command") || s.has("exec")) else {
            let resident = pool.is_some_and(|p| {
                self.all("pools").any(|s| s.name == p.name && (s.has("worker") || s.has("celery_app")))
            });
            if !resident {
                let message = format!("the task `{}` has neither `command` nor `exec`", task.name);
                let help = "add `command = \"…\"` for a shell's text, `exec = [\"/path/to/program\", …]`, or a queue whose pool has a `worker` or a `celery_app`";
                let fault = Fault::new(FaultKind::Reference, &section.at, section.path(""), message);
                self.check.fault(fault.help(help));
            }
            return Program::Worker;
        };
        self.needs_runners(section, from, task, pool);
        if let (true, Some(exec)) = (from.has("command"), from.get("exec")) {
            let message = "`command` and `exec` exclude each other";
            let fault = Fault::new(FaultKind::Reference, &exec.key_at, from.path("exec"), message);
            let other = from.get("command").map_or(&from.at, |c| &c.key_at);
            self.check.fault(fault.help("remove one of them").also(other, "`command` stands here"));
        }
        let params = at.set("params").and_then(Set::params).unwrap_or_default();
        if let Some(command) = from.get("command").and_then(Set::text) {
            self.command_params(section, params, command);
            return Program::Command(command.to_owned());
        }
        let argv = from.get("exec").and_then(Set::many).unwrap_or_default();
        // Where the declarations themselves have a fault, nothing is said of what they would declare.
        let declared = at.written().find(|s| s.has("params")).is_none_or(|s| s.get("params").is_some());
        let used = self.placeholders(from, argv, declared.then_some(params));
        if !used.is_empty() && task.stdin == Stdin::None {
            for (p, _) in params.iter().filter(|(p, _)| !used.contains(p.name.as_str())) {
                let path = section.path("params");
                self.notes
                    .push(format!("{path}.{}: reaches the program neither in `exec` nor on stdin", p.name));
            }
        }
        if let Some((program, place)) = argv.first() {
            self.root_program(from, task, pool, program, place);
        }
        Program::Exec(argv.iter().map(|(s, _)| s.clone()).collect())
    }

    /// A program of its own needs a pool of runners and a name of its own.
    fn needs_runners(&mut self, section: &Section, from: &Section, task: &Task, pool: Option<&Pool>) {
        let key = if from.has("exec") { "exec" } else { "command" };
        if task.name.contains(['*', '?']) {
            let message = format!("`{key}` needs one task, and `{}` is a pattern", task.name);
            let help = "patterns declare the tasks that a resident worker offers; name this one";
            self.check
                .fault(Fault::new(FaultKind::Reference, &section.at, section.path(key), message).help(help));
        } else if let Some(pool) = pool.filter(|p| p.worker.is_some()) {
            let message = format!(
                "`{key}` cannot run in the pool `{}`, whose children are workers of its own",
                pool.name
            );
            let help = "give the task a queue of another pool, or remove the key: then the worker runs it";
            let fault = Fault::new(FaultKind::Reference, from.place(key), from.path(key), message);
            self.check.fault(fault.help(help));
        }
    }

    /// Parameters of a `command` become environment variables.
    fn command_params(&mut self, section: &Section, params: &[(Param, At)], command: &str) {
        for (p, at) in params {
            let path = format!("{}.{}", section.path("params"), p.name);
            if p.name.ends_with("_proxy") {
                let message = format!("the parameter `{}` would redirect what the command downloads", p.name);
                let help = "in a `command`, parameters are environment variables: choose another name";
                self.check.fault(Fault::new(FaultKind::Reference, at, &path, message).help(help));
            }
            let braced = format!("{{{}}}", p.name);
            if command
                .match_indices(&braced)
                .any(|(i, _)| command.get(..i).is_some_and(|c| !c.ends_with('$')))
            {
                self.notes
                    .push(format!("{path}: in `command` {braced} is not replaced; write \"${}\"", p.name));
            }
        }
    }

    /// Every placeholder of `exec`, each of which must be declared.
    fn placeholders<'n>(
        &mut self,
        from: &Section,
        argv: &'n [(String, At)],
        params: Option<&[(Param, At)]>,
    ) -> BTreeSet<&'n str> {
        let declared = params.is_some();
        let params = params.unwrap_or_default();
        let mut used = BTreeSet::new();
        for (i, (element, at)) in argv.iter().enumerate() {
            for name in placeholder::names(element) {
                used.insert(name);
                let path = from.path("exec");
                if i == 0 {
                    let message = "which program is run cannot depend on an argument";
                    let fault = Fault::new(FaultKind::Reference, at, path, message);
                    self.check.fault(fault.help("write the program's path, and a task for each program"));
                } else if declared && !params.iter().any(|(p, _)| p.name == name) {
                    let declare = format!(
                        "declare it with params.{name} = \"string\", or write {{{{{name}}}}} for braces"
                    );
                    let help = match suggest(name, params.iter().map(|(p, _)| p.name.as_str())) {
                        Some(near) => format!("did you mean {{{near}}}? Or {declare}"),
                        None => declare,
                    };
                    let message = format!("{{{name}}} is not declared as a parameter");
                    self.check.fault(Fault::new(FaultKind::Reference, at, path, message).help(help));
                }
            }
        }
        used
    }

    /// A program that root runs must be as safe as the file that names it.
    fn root_program(&mut self, from: &Section, task: &Task, pool: Option<&Pool>, program: &str, place: &At) {
        let env = self.check.env;
        let user = task.user.as_deref().or_else(|| pool.and_then(|p| p.user.as_deref()));
        if !env.check_ownership || !program.starts_with('/') || user.and_then(|u| env.uid_of(u)) != Some(0) {
            return;
        }
        if let Some(why) = ownership_fault(Path::new(program)) {
            let message = format!("root would run {program}, and {why}");
            let help = "whoever can write it could become root: chown root and chmod go-w what is named";
            self.check.fault(Fault::new(FaultKind::File, place, from.path("exec"), message).help(help));
        }
    }
}
