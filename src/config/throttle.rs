//! `rate_limit`, `concurrency` and what they count by.

use crate::model::limit::{RateLimit, Throttle};
use crate::model::task::{Program, Stdin, Task};

use super::build::{Builder, Layers};
use super::keys::suggest;
use super::report::{Fault, FaultKind};
use super::section::{Section, Set};

/// `rate_limit` with `rate_limit_burst`, of a task or a queue.
pub(super) fn rate(at: &Layers<'_>) -> Option<RateLimit> {
    let (count, period_ms) = at.get("rate_limit").and_then(Set::rate)?;
    Some(RateLimit { count, period_ms, burst: at.small("rate_limit_burst").unwrap_or(1) })
}

impl Builder<'_, '_> {
    /// What limits a task's messages. Its program is known.
    pub(super) fn throttle(&mut self, section: &Section, at: &Layers<'_>, task: &Task) -> Throttle {
        let (rate_key, concurrency_key) = (at.text("rate_limit_key"), at.text("concurrency_key"));
        for key in ["rate_limit_key", "concurrency_key"] {
            if let Some(name) = at.text(key) {
                self.counts_by(section, at, task, key, &name);
            }
        }
        if let (Some(a), Some(b)) = (&rate_key, &concurrency_key)
            && a != b
        {
            let message = format!(
                "`rate_limit_key` is {a:?} and `concurrency_key` is {b:?}: a task counts by one parameter"
            );
            let help = "name the same one, or let one of the limits count for all of the task's messages";
            self.conflict(section, at, "rate_limit_key", "concurrency_key", &message, help);
        }
        for (key, without) in [
            ("rate_limit_burst", "rate_limit"),
            ("rate_limit_key", "rate_limit"),
            ("concurrency_key", "concurrency"),
        ] {
            if section.get(key).is_some() && at.set(without).is_none() {
                self.notes.push(format!("{}: has no effect without {without}", section.path(key)));
            }
        }
        Throttle {
            rate: rate(at),
            rate_each: rate_key.is_some(),
            concurrency: at.small("concurrency"),
            concurrency_each: concurrency_key.is_some(),
            key: rate_key.or(concurrency_key),
        }
    }

    /// A limit counts by an argument that calls of the task can have.
    fn counts_by(&mut self, section: &Section, at: &Layers<'_>, task: &Task, key: &str, name: &str) {
        let (message, help) = if task.params.is_empty() {
            if task.program == Program::Worker || task.stdin == Stdin::Json {
                return;
            }
            (
                format!("the task declares no parameters, so it has no argument {name:?} to count by"),
                format!("declare it, as params.{name} = \"string\""),
            )
        } else if task.params.iter().any(|p| p.name == name) {
            return;
        } else {
            let near = suggest(name, task.params.iter().map(|p| p.name.as_str()));
            let names: Vec<&str> = task.params.iter().map(|p| p.name.as_str()).collect();
            let help = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("its parameters are {}", names.join(", ")),
            };
            (format!("the task has no parameter {name:?} to count by"), help)
        };
        let place = at.set(key).map_or(&section.at, |set| &set.at);
        let mut fault = Fault::new(FaultKind::Reference, place, at.path(key), message).help(help);
        if section.get(key).is_none() {
            fault = fault.also(&section.at, "of this task".to_owned());
        }
        self.check.fault(fault);
    }
}
