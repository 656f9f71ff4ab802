//! `[tasks.NAME]` with `[defaults]` below it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::limit::Throttle;
use crate::model::notice::Tell;
use crate::model::task::{Acks, Program, ResultKind, RetryPolicy, Stdin, Task};

use super::build::{Builder, Layers};
use super::limits::{OF_A_PROCESS, POOL_TOO};
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::{Pool, Settings};
use super::tree::{quote, quote_key};
use super::users::Users;

/// The pattern of Celery's own tasks.
const CELERYS_OWN: &str = "celery.*";

impl<'a> Builder<'a, '_> {
    /// Every declared task.
    pub(super) fn tasks(&mut self, settings: &mut Settings, users: &Users) -> Option<()> {
        let built_in = self.built_in.get("tasks")?;
        let base = self.all("defaults").next();
        let mut exposed: BTreeSet<String> = BTreeSet::new();
        for section in self.all("tasks") {
            let at = Layers { own: Some(section), base, built_in };
            let mut task = self.task(section, &at, settings)?;
            let queue = settings.route(&task).to_owned();
            let pool = settings.pool_of(&queue).cloned();
            self.task_user(section, &at, &mut task, pool.as_ref(), users, &mut exposed);
            task.program = self.program(section, &at, &task, pool.as_ref());
            if let Some(pool) = pool
                .as_ref()
                .filter(|p| p.worker.is_some() && task.program == Program::Worker && !task.external)
            {
                self.worker_task(section, &pool.name);
            }
            if task.external {
                self.external(section, &at, &task, settings);
            }
            task.throttle = self.throttle(section, &at, &task);
            self.task_notes(section, &at, &task);
            self.task_origins(section, &at, &task, settings);
            settings.tasks.insert(task.name.clone(), task);
        }
        self.celerys_own(settings);
        // Said once, not for every task that has no queue of its own.
        if let Some(base) = base
            && let Some(queue) = base.get("queue").and_then(Set::text)
            && !settings.queues.contains_key(queue)
            && !settings.tasks.values().any(|task| task.external)
        {
            self.missing(base, "queue", "queue", queue, settings.queues.keys());
        }
        Some(())
    }

    /// Celery's own tasks (`celery.map`, `celery.starmap`, `celery.accumulate` …), which every app has: where a pool runs
    /// one they are declared without being named.
    fn celerys_own(&self, settings: &mut Settings) {
        let of_app = |queue: &str| {
            let pool = settings.pool_of(queue).and_then(|p| p.worker.as_ref());
            pool.is_some_and(|worker| worker.celery_app.is_some())
        };
        let Some(queue) = settings.queues.keys().find(|queue| of_app(queue)).cloned() else { return };
        if crate::model::task::find(&settings.tasks, "celery.map").is_some() {
            return;
        }
        let mut task = Task::new(CELERYS_OWN, Program::Worker);
        task.queue = Some(queue);
        task.result_max_size = settings.results.max_size;
        task.result_expires_ms = settings.results.expires_ms;
        settings.tasks.insert(CELERYS_OWN.to_owned(), task);
    }

    /// All but program and user.
    fn task(&mut self, section: &'a Section, at: &Layers<'a>, settings: &Settings) -> Option<Task> {
        let queue = at.text("queue");
        if let Some(name) = section.get("queue").and_then(Set::text)
            && !settings.queues.contains_key(name)
            && !at.flag("external")
        {
            self.missing(section, "queue", "queue", name, settings.queues.keys());
        }
        self.people(&section.path("allow"), section.get("allow"));
        let retry = self.retry(section, at);
        let (soft, hard) = self.limits(section, at);
        let (group, supplementary_groups) = self.groups(at);
        let mut limits = self.hard_limits(at);
        limits.on_memory = self.on_memory(at, limits.memory_max, settings);
        let params = at.set("params").and_then(Set::params).unwrap_or_default();
        let params: Vec<_> = params.iter().map(|(p, _)| p.clone()).collect();
        let unique = self.unique(at, &params);
        Some(Task {
            name: section.name.clone(),
            program: Program::Worker,
            params,
            unique,
            queue,
            priority: match at.set("priority") {
                // What a Celery client sends without a priority goes first on Redis: no later than that.
                None if at.flag("external") => crate::model::message::MAX_PRIORITY,
                _ => at.number("priority").and_then(|n| u8::try_from(n).ok())?,
            },
            retry,
            soft_time_limit_ms: soft,
            time_limit_ms: hard,
            soft_signal: at.number("soft_signal").and_then(|n| i32::try_from(n).ok())?,
            acks: if at.text("acks").as_deref() == Some("early") { Acks::Early } else { Acks::Late },
            ignore_result: at.flag("ignore_result") || settings.taskd.results == "none",
            result: match at.text("result").as_deref() {
                Some("json") => ResultKind::Json,
                Some("none") => ResultKind::None,
                _ => ResultKind::Stdout,
            },
            result_max_size: at.number("result_max_size").unwrap_or(settings.results.max_size),
            result_expires_ms: at.number("result_expires").unwrap_or(settings.results.expires_ms),
            expires_ms: at.number("expires"),
            stdin: if at.text("stdin").as_deref() == Some("json") { Stdin::Json } else { Stdin::None },
            allow_dash: at.flag("allow_dash"),
            dash_dash: at.flag("dash_dash"),
            user: None,
            group,
            supplementary_groups,
            limits,
            throttle: Throttle::default(),
            allow: at.set("allow").is_some().then(|| at.list("allow")),
            remote: at.flag("remote"),
            external: at.flag("external"),
            enabled: at.flag("enabled"),
            surroundings: self.surroundings(at),
            tell: Tell::default(),
        })
    }

    fn retry(&mut self, section: &Section, at: &Layers<'_>) -> RetryPolicy {
        let codes = |key| at.get(key).and_then(Set::codes).map(<[i32]>::to_vec).unwrap_or_default();
        let policy = RetryPolicy {
            max_retries: at.small("max_retries").unwrap_or(0),
            delay_ms: at.number("retry_delay").unwrap_or(0),
            backoff: at.flag("retry_backoff"),
            backoff_max_ms: at.number("retry_backoff_max").unwrap_or(0),
            jitter: at.flag("retry_jitter"),
            retry_on: codes("retry_on"),
            success_on: codes("success_on"),
        };
        if let Some(code) = policy.retry_on.iter().find(|c| policy.success_on.contains(c)) {
            let message = format!("exit code {code} cannot both be a success and ask for a retry");
            self.conflict(section, at, "retry_on", "success_on", &message, "take it out of one of them");
        }
        if policy.backoff && policy.backoff_max_ms < policy.delay_ms {
            let message = "`retry_backoff_max` is below `retry_delay`";
            self.conflict(
                section,
                at,
                "retry_delay",
                "retry_backoff_max",
                message,
                "raise retry_backoff_max",
            );
        }
        policy
    }

    fn limits(&mut self, section: &Section, at: &Layers<'_>) -> (Option<u64>, Option<u64>) {
        let (soft, hard) = (at.number("soft_time_limit"), at.number("time_limit"));
        if let (Some(s), Some(h)) = (soft, hard)
            && s >= h
        {
            let message = "`soft_time_limit` is not below `time_limit`: the program would be killed before it is asked to end";
            self.conflict(
                section,
                at,
                "soft_time_limit",
                "time_limit",
                message,
                "leave some seconds between them",
            );
        }
        (soft, hard)
    }

    /// Notes two keys that do not fit together; points at both, wherever they stand.
    pub(super) fn conflict(
        &mut self,
        section: &Section,
        at: &Layers<'_>,
        key: &str,
        other: &str,
        message: &str,
        help: &str,
    ) {
        let place = at.set(key).map_or(&section.at, |s| &s.at);
        // Where both stand in [defaults], the fault is theirs, once, and not that of every task.
        let mut fault = Fault::new(FaultKind::Reference, place, at.path(key), message).help(help);
        if let Some(set) = at.set(other) {
            fault = fault.also(&set.key_at, format!("`{other}` stands here"));
        }
        self.check.fault(fault);
    }

    fn task_user(
        &mut self,
        section: &'a Section,
        at: &Layers<'a>,
        task: &mut Task,
        pool: Option<&Pool>,
        users: &Users,
        exposed: &mut BTreeSet<String>,
    ) {
        let of_pool = pool.and_then(|p| p.user.clone());
        let named = at.written().find(|s| s.has("user"));
        task.user = named
            .and_then(|s| s.get("user").map(|set| (s, set)))
            .and_then(|(s, set)| users.of(self.check, set, &s.path("user")))
            // Named, but the same as without a name: one kind of runner, not two.
            .filter(|n| of_pool.is_some() || self.check.env.uid_of(n) != Some(self.check.env.uid));
        let user = task.user.clone().or(of_pool);
        if user.as_deref().is_some_and(|n| self.check.env.uid_of(n) == Some(0)) {
            if at.set("allow").is_none() {
                task.allow = Some(vec!["root".to_owned()]);
            }
            if at.set("remote").is_none() {
                task.remote = false;
            }
        }
        let pool = pool.map_or("", |p| p.name.as_str());
        if user.is_none() && named.is_none() && users.daemon.is_some() && exposed.insert(pool.to_owned()) {
            let message =
                format!("tasks of the pool `{pool}` would run as root: there is no user `taskd-run`");
            let help = format!("create it, or set `user` in [pools.{}] or in the task", quote_key(pool));
            let fault = Fault::new(FaultKind::Reference, &section.at, section.path("user"), message);
            self.check.fault(fault.help(help));
        }
    }

    fn task_notes(&mut self, section: &Section, at: &Layers<'_>, task: &Task) {
        let without_retries =
            ["retry_delay", "retry_backoff", "retry_backoff_max", "retry_jitter", "retry_on"];
        if task.retry.max_retries == 0 {
            for key in without_retries.into_iter().filter(|k| section.get(k).is_some()) {
                self.notes.push(format!("{}: has no effect while max_retries is 0", section.path(key)));
            }
        }
        if section.get("soft_signal").is_some() && at.set("soft_time_limit").is_none() {
            self.notes
                .push(format!("{}: has no effect without soft_time_limit", section.path("soft_signal")));
        }
    }

    fn task_origins(&mut self, section: &Section, at: &Layers<'a>, task: &Task, settings: &Settings) {
        let header = format!("[tasks.{}]", quote_key(&section.name));
        let allow: Vec<String> = task.allow.iter().flatten().map(|a| quote(a)).collect();
        let allow = if task.allow.is_some() { format!("[{}]", allow.join(", ")) } else { String::new() };
        let user =
            task.user.clone().or_else(|| settings.pool_of(settings.route(task)).and_then(|p| p.user.clone()));
        let environment: Vec<String> =
            environment(at).iter().map(|(k, v)| format!("{} = {}", quote_key(k), quote(v))).collect();
        let dynamic = [
            ("priority", task.priority.to_string()),
            ("queue", quote(settings.route(task))),
            ("user", user.as_deref().map(quote).unwrap_or_default()),
            ("allow", allow),
            ("remote", task.remote.to_string()),
            ("result_expires", quote(&super::values::show_duration(task.result_expires_ms))),
            ("result_max_size", quote(&super::values::show_size(task.result_max_size))),
        ];
        self.origins.table(&header, at, &dynamic);
        let in_a_worker = settings.pool_of(settings.route(task)).is_some_and(|p| p.worker.is_some());
        if in_a_worker && task.program == Program::Worker {
            self.origins.without(&header, POOL_TOO);
            self.origins.without(&header, &OF_A_PROCESS);
        }
        if task.external {
            self.origins.without_but(&header, super::external::SENT);
        }
        if !environment.is_empty() {
            self.origins.replace(&header, "environment", format!("{{ {} }}", environment.join(", ")));
        }
    }
}

/// The environment of `[defaults]` and of the task joined, name by name.
pub(super) fn environment(at: &Layers<'_>) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::new();
    for section in [at.base, at.own].into_iter().flatten() {
        if let Some(map) = section.get("environment").and_then(Set::map) {
            joined.extend(map.clone());
        }
    }
    joined
}
