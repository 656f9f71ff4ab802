//! `external`: tasks that Celery workers run, and the queues that those drain.

use std::collections::BTreeMap;

use crate::model::name::glob_matches;
use crate::model::task::Task;

use super::build::{Builder, Layers};
use super::redis::SCHEMES;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};
use super::settings::{Queue, Settings};
use super::tree::{At, quote_key};

/// What can be said of a task that others run; of everything else its worker decides.
pub(super) const SENT: &[&str] = &[
    "external",
    "queue",
    "params",
    "priority",
    "expires",
    "soft_time_limit",
    "time_limit",
    "ignore_result",
    "result_expires",
    "result_max_size",
    "unique",
    "allow",
    "enabled",
];

/// Whether Celery workers can read what waits in this broker.
pub(super) fn is_shared(broker: &str) -> bool {
    broker.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
}

impl<'a> Builder<'a, '_> {
    /// What does not fit a task that Celery workers run.
    pub(super) fn external(
        &mut self,
        section: &'a Section,
        at: &Layers<'a>,
        task: &Task,
        settings: &Settings,
    ) {
        let said = at.set("external").map_or(&section.at, |set| &set.key_at).clone();
        let path = at.path("external");
        if !is_shared(&settings.taskd.broker) {
            let shown = super::redis::Address::parse(&settings.taskd.broker);
            let broker = shown.map_or_else(|_| settings.taskd.broker.clone(), |a| a.shown().to_owned());
            let message = format!(
                "an external task needs a broker that Celery workers read, and [taskd] broker is \"{broker}\""
            );
            let help = "set `broker` in [taskd] to the Redis server that the Celery workers use, as \"redis://host:6379/0\"";
            self.check.fault(Fault::new(FaultKind::Reference, &said, path, message).help(help));
            return;
        }
        let queue = settings.route(task);
        if let Some(drained) = settings.queues.get(queue).filter(|q| !q.shared) {
            let own = section.get("queue").map_or(&said, |set| &set.at).clone();
            self.drained(&own, section.path("queue"), &task.name, drained);
        }
        // What a pattern declares goes where the routes of its names lead.
        for route in settings.routes.iter().filter(|_| task.queue.is_none()) {
            if glob_matches(&task.name, &route.task)
                && let Some(drained) = settings.queues.get(&route.queue).filter(|q| !q.shared)
            {
                self.drained(&said, section.path("queue"), &route.task, drained);
            }
        }
        for (key, set) in &section.values {
            // Two of them have a sentence of their own.
            if SENT.contains(key) || ["command", "exec"].contains(key) {
                continue;
            }
            let message = format!("`{key}` has no effect on an external task: the Celery worker decides it");
            let fault = Fault::new(FaultKind::Reference, &set.key_at, section.path(key), message);
            self.check.fault(fault.help("remove it; set it where the Celery app declares the task"));
        }
    }

    /// A queue from which no Celery worker takes what is sent to it.
    fn drained(&mut self, at: &At, path: String, task: &str, queue: &Queue) {
        let message = format!(
            "the external task `{task}` goes to the queue `{}`, which the pool `{}` of taskd drains",
            queue.name, queue.pool
        );
        let help = format!(
            "name the queue of its Celery workers with `queue`, or let both drain this one with shared = true in [queues.{}]",
            quote_key(&queue.name)
        );
        self.check.fault(Fault::new(FaultKind::Reference, at, path, message).help(help));
    }

    /// Whether a queue that is not declared is one of Celery workers: an external task matches the pattern.
    pub(super) fn leads_outside(&self, pattern: &str) -> bool {
        let flag = |section: &Section| section.get("external").and_then(Set::flag);
        let all = self.all("defaults").next().and_then(flag).unwrap_or(false);
        self.all("tasks").any(|task| {
            flag(task).unwrap_or(all) && (task.name == pattern || glob_matches(pattern, &task.name))
        })
    }

    /// Queues that are said to be shared, where nobody could share them.
    pub(super) fn shared_queues(&mut self, queues: &BTreeMap<String, Queue>, broker: &str) {
        if is_shared(broker) {
            return;
        }
        for section in self.all("queues").filter(|s| queues.get(&s.name).is_some_and(|q| q.shared)) {
            let message = "a shared queue needs a broker that Celery workers read".to_owned();
            let help =
                "remove `shared`, or set `broker` in [taskd] to the Redis server that the Celery workers use";
            let fault =
                Fault::new(FaultKind::Reference, section.place("shared"), section.path("shared"), message);
            self.check.fault(fault.help(help));
        }
    }

    /// Whether a message of this task may be sent to this queue: it is drained here, or by Celery workers.
    pub(super) fn is_queue(settings: &Settings, task: Option<&Task>, queue: &str) -> bool {
        match task.filter(|task| task.external) {
            Some(_) => settings.takes_outside(queue),
            None => settings.queues.contains_key(queue),
        }
    }
}
