//! `[pools.NAME]`.

use std::collections::BTreeMap;

use super::build::{Builder, Layers, with_default};
use super::limits::POOL_TOO;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::{Pool, Recycle, Worker};
use super::tree::{quote, quote_key};
use super::users::Users;

/// The Python of a Celery app, where none is named.
const PYTHON: &str = "python3";

/// Where that Python finds taskd's module ([`crate::process::python`] puts it there).
pub const SCRIPT: &str = "/proc/self/fd/4";

/// Keys that a pool of runners has as well.
const OF_EVERY_POOL: [&str; 3] = ["user", "group", "supplementary_groups"];

impl<'a> Builder<'a, '_> {
    /// Every pool, and `default`.
    pub(super) fn pools(&mut self, users: &Users) -> Option<BTreeMap<String, Pool>> {
        let built_in = self.built_in.get("pools")?;
        let mut pools = BTreeMap::new();
        let named = self.all("pools").map(|s| (s.name.clone(), Some(s)));
        for (name, own) in with_default(named.collect()) {
            let at = Layers { own, base: None, built_in };
            let processes = at.small("processes").unwrap_or_else(|| self.check.env.cpus.clamp(1, 1_000));
            let user = match (own, at.set("user")) {
                (Some(section), Some(set)) => users.of(self.check, set, &section.path("user")),
                _ => users.tasks.clone(),
            };
            let shown = user.as_deref().map(quote).unwrap_or_default();
            let header = format!("[pools.{}]", quote_key(&name));
            self.origins.table(&header, &at, &[("processes", processes.to_string()), ("user", shown)]);
            let (group, supplementary_groups) = self.groups(&at);
            let recycle = Recycle {
                max_tasks: at.number("max_tasks_per_child"),
                max_memory: at.number("max_memory_per_child"),
                max_age_ms: at.number("max_child_age"),
                max_idle_ms: at.number("max_child_idle"),
            };
            let worker = self.worker(own, &at);
            let pool =
                Pool { name: name.clone(), processes, user, group, supplementary_groups, recycle, worker };
            pools.insert(name, pool);
        }
        Some(pools)
    }

    /// What runs the pool's tasks, where it is not runners.
    fn worker(&mut self, own: Option<&'a Section>, at: &Layers<'a>) -> Option<Worker> {
        let section = own?;
        self.one_of_two(section);
        let celery_app = section.get("celery_app").and_then(Set::text).map(str::to_owned);
        let preload = celery_app.is_some() && section.get("preload").and_then(Set::flag) == Some(true);
        let argv: Vec<String> = if let Some(app) = &celery_app {
            self.app_is_named(section, app);
            let python = section.get("python").and_then(Set::text).unwrap_or(PYTHON);
            let words = [python, SCRIPT, "--celery", app, "--preload"];
            words.iter().take(if preload { 5 } else { 4 }).map(|word| (*word).to_owned()).collect()
        } else if let Some(argv) = section.get("worker").and_then(Set::many) {
            argv.iter().map(|(s, _)| s.clone()).collect()
        } else {
            // One that has a fault of its own is there all the same.
            if !section.has("worker") && !section.has("celery_app") {
                self.only_of_a_worker(section);
            }
            return None;
        };
        let (surroundings, limits) = (self.surroundings(at), self.hard_limits(at));
        Some(Worker { argv, celery_app, preload, surroundings, limits })
    }

    /// Either a program or an app, and nothing for an app where there is none.
    fn one_of_two(&mut self, section: &Section) {
        if let (true, Some(app)) = (section.has("worker"), section.get("celery_app")) {
            let message = "`worker` and `celery_app` exclude each other";
            let fault = Fault::new(FaultKind::Reference, &app.key_at, section.path("celery_app"), message);
            let other = section.get("worker").map_or(&section.at, |w| &w.key_at);
            let help = "remove one of them: taskd itself starts the Python that runs a Celery app";
            self.check.fault(fault.help(help).also(other, "`worker` stands here"));
        }
        if let (false, Some(python)) = (section.has("celery_app"), section.get("python")) {
            let message = "`python` is for `celery_app`, and this pool has none";
            let fault = Fault::new(FaultKind::Reference, &python.key_at, section.path("python"), message);
            self.check
                .fault(fault.help("add celery_app = \"shop.celery:app\", or name the Python in `worker`"));
        }
        if let (false, Some(preload)) = (section.has("celery_app"), section.get("preload")) {
            let message = "`preload` is for `celery_app`, and this pool has none";
            let fault = Fault::new(FaultKind::Reference, &preload.key_at, section.path("preload"), message);
            self.check.fault(fault.help("add celery_app = \"shop.celery:app\", or remove `preload`"));
        }
        for key in ["python", "celery_app"] {
            let Some(set) = section.get(key) else { continue };
            if set.text().is_some_and(|text| text.trim().is_empty() || text.starts_with('-')) {
                let message = format!("`{key}` is no name");
                let help = if key == "python" {
                    "write the path of a Python, as /srv/shop/venv/bin/python"
                } else {
                    "write it as for `celery -A`: shop.celery:app"
                };
                self.check
                    .fault(Fault::new(FaultKind::Value, &set.at, section.path(key), message).help(help));
            }
        }
    }

    /// The name of an app is a module, and maybe something in it.
    fn app_is_named(&mut self, section: &Section, app: &str) {
        let word = |word: &str| {
            word.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && word.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        let dotted = |name: &str| name.split('.').all(word);
        let (module, rest) = app.split_once(':').map_or((app, None), |(module, rest)| (module, Some(rest)));
        if dotted(module) && rest.is_none_or(dotted) || app.trim().is_empty() || app.starts_with('-') {
            return;
        }
        let Some(set) = section.get("celery_app") else { return };
        let message = format!("`{app}` names no module of Python");
        let help = if app.contains('/') || app.to_lowercase().ends_with(".py") {
            "it is imported, not opened: write shop.celery:app, and `working_directory` = the directory that has `shop`"
        } else {
            "write it as for `celery -A`: shop.celery:app"
        };
        self.check
            .fault(Fault::new(FaultKind::Value, &set.at, section.path("celery_app"), message).help(help));
    }

    /// Keys that mean something beside a worker only.
    fn only_of_a_worker(&mut self, section: &Section) {
        for key in POOL_TOO.iter().filter(|k| !OF_EVERY_POOL.contains(k)) {
            let Some(set) = section.get(key) else { continue };
            let message =
                format!("`{key}` of a pool is for its `worker` or `celery_app`, and this pool has neither");
            let fault = Fault::new(FaultKind::Reference, &set.key_at, section.path(key), message);
            self.check.fault(fault.help("put it under [tasks.NAME], or under [defaults] for every task"));
        }
    }
}
