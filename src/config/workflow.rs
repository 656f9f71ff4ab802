//! `[workflows.NAME]`: the steps, their order, and what can be bound of their arguments already.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::build::{Builder, Layers};
use super::check::{Check, unknown};
use super::keys::{Kind, STEP, suggest};
use super::kind;
use super::report::{Fault, FaultKind};
use super::section::{Parsed, Section};
use super::settings::Settings;
use super::tree::{At, Node, Value, quote, quote_key};
use crate::model::handed::bind_later;
use crate::model::message::{MAX_BYTES, Message};
use crate::model::params;
use crate::model::workflow::{self, Declared, OnError, Step, Tangle, When};

/// A step as it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepSet {
    at: At,
    values: BTreeMap<&'static str, (Parsed, At)>,
    args: Vec<Json>,
    kwargs: Map<String, Json>,
}

impl StepSet {
    fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some((Parsed::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some((Parsed::Flag(true), _)))
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.values.get(key) {
            Some((Parsed::Number(n), _)) => Some(*n),
            _ => None,
        }
    }

    fn after(&self) -> &[(String, At)] {
        match self.values.get("after") {
            Some((Parsed::Many(names), _)) => names,
            _ => &[],
        }
    }

    fn place(&self, key: &str) -> &At {
        self.values.get(key).map_or(&self.at, |(_, at)| at)
    }

    fn task(&self) -> &str {
        self.text("task").unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text("name").unwrap_or_else(|| self.task())
    }
}

/// The value of `steps`.
pub(super) fn parse(check: &mut Check<'_>, path: &str, node: &Node) -> Option<Vec<StepSet>> {
    let items = kind::items(check, path, node)?;
    if items.is_empty() {
        check.bad(&node.at, path, "a workflow needs at least one step".to_owned(), "add { task = \"…\" }");
        return None;
    }
    let steps: Vec<StepSet> = items.iter().filter_map(|item| step(check, path, item)).collect();
    (steps.len() == items.len()).then_some(steps)
}

fn step(check: &mut Check<'_>, path: &str, node: &Node) -> Option<StepSet> {
    let table = kind::table(check, path, node)?;
    let mut set =
        StepSet { at: node.at.clone(), values: BTreeMap::new(), args: Vec::new(), kwargs: Map::new() };
    let mut whole = true;
    for entry in &table.entries {
        let path = format!("{path}.{}", quote_key(&entry.key));
        let Some(key) = STEP.iter().find(|k| k.name == entry.key) else {
            check.fault(unknown(&entry.key, &entry.key_at, &path, STEP, "a step"));
            whole = false;
            continue;
        };
        match (kind::parse(check, key.kind, &path, &entry.node), key.kind, &entry.node.value) {
            (None, ..) => whole = false,
            (Some(_), Kind::List, value) => {
                if let Json::Array(args) = value.to_json() {
                    set.args = args;
                }
            }
            (Some(_), Kind::Dict, Value::Table(_)) => {
                if let Json::Object(kwargs) = entry.node.value.to_json() {
                    set.kwargs = kwargs;
                }
            }
            (Some(parsed), ..) => {
                set.values.insert(key.name, (parsed, entry.node.at.clone()));
            }
        }
    }
    if !set.values.contains_key("task") && whole {
        check.bad(&node.at, path, "a step has no `task`".to_owned(), "add task = \"NAME\"");
        whole = false;
    }
    whole.then_some(set)
}

impl Builder<'_, '_> {
    /// Every declared workflow.
    pub(super) fn workflows(&mut self, settings: &mut Settings) -> Option<()> {
        let built_in = self.built_in.get("workflows")?;
        for section in self.all("workflows") {
            let at = Layers { own: Some(section), base: None, built_in };
            self.origins.table(&format!("[workflows.{}]", quote_key(&section.name)), &at, &[]);
            let Some(Parsed::Steps(steps)) = section.get("steps").map(|s| &s.value) else { continue };
            if let Some(declared) = self.workflow(section, steps, settings) {
                settings.workflows.insert(section.name.clone(), declared);
            }
        }
        Some(())
    }

    fn workflow(&mut self, section: &Section, sets: &[StepSet], settings: &Settings) -> Option<Declared> {
        let named: Vec<(&str, Vec<&str>)> = sets
            .iter()
            .map(|s| (s.name(), s.after().iter().map(|(name, _)| name.as_str()).collect()))
            .collect();
        let sorted = match workflow::order(&named) {
            Ok(sorted) => Some(sorted),
            Err(tangles) => {
                tangles.iter().for_each(|tangle| self.tangle(section, sets, tangle));
                None
            }
        };
        let faults = self.check.faults.len();
        for set in sets {
            self.step_fits(section, set, settings);
        }
        if self.check.faults.len() > faults {
            return None;
        }
        let sorted = sorted?;
        let place = |name: &str| sorted.iter().position(|at| named.get(*at).is_some_and(|(n, _)| *n == name));
        let mut steps = Vec::with_capacity(sets.len());
        for set in sorted.iter().filter_map(|at| sets.get(*at)) {
            let task = settings.task(set.task())?;
            let after = set.after().iter().filter_map(|(name, _)| place(name));
            let mut after: Vec<u32> = after.filter_map(|at| u32::try_from(at).ok()).collect();
            let mut seen = std::collections::BTreeSet::new();
            after.retain(|no| seen.insert(*no));
            let priority = set.number("priority").and_then(|n| u8::try_from(n).ok());
            steps.push(Step {
                name: set.name().to_owned(),
                message: Message {
                    task: set.task().to_owned(),
                    queue: set.text("queue").unwrap_or_default().to_owned(),
                    args: set.args.clone(),
                    kwargs: set.kwargs.clone(),
                    priority: priority.unwrap_or(task.priority),
                    ..Message::default()
                },
                after,
                when: if set.text("when") == Some("failure") { When::Failure } else { When::Success },
                on_error: match set.text("on_error") {
                    Some("continue") => OnError::Continue,
                    _ => OnError::Fail,
                },
                immutable: set.flag("immutable"),
                delay_ms: set.number("delay").and_then(|n| u64::try_from(n).ok()),
                expires_ms: task.expires_ms,
                ..Step::default()
            });
        }
        workflow::mark_sinks(&mut steps);
        if let Err(e) = workflow::check(&steps) {
            let fault = Fault::new(
                FaultKind::Reference,
                section.place("steps"),
                section.path("steps"),
                e.to_string(),
            );
            self.check.fault(fault);
            return None;
        }
        Some(Declared { name: section.name.clone(), steps })
    }

    /// Notes what is wrong with the order of steps.
    fn tangle(&mut self, section: &Section, sets: &[StepSet], tangle: &Tangle) {
        let name = |at: &usize| sets.get(*at).map_or("", StepSet::name);
        let (place, message, help) = match tangle {
            Tangle::Twice(at) => (
                sets.get(*at).map(|s| s.place("name")),
                format!("two steps have the name {}", quote(name(at))),
                "give one of them another `name`".to_owned(),
            ),
            Tangle::Unknown(at, n) => {
                let after = sets.get(*at).and_then(|s| s.after().get(*n));
                let missing = after.map_or("", |(name, _)| name);
                let names = || sets.iter().map(StepSet::name);
                let near = suggest(missing, names()).map(|n| format!("did you mean {}? ", quote(n)));
                let all: Vec<String> = names().take(8).map(quote).collect();
                (
                    after.map(|(_, at)| at),
                    format!("there is no step {}", quote(missing)),
                    format!("{}the steps are {}", near.unwrap_or_default(), all.join(", ")),
                )
            }
            Tangle::Cycle(places) => {
                let names: Vec<&str> = places.iter().map(name).collect();
                (
                    places.first().and_then(|at| sets.get(*at)).map(|s| s.place("after")),
                    format!("these steps come after one another in a circle: {}", names.join(" -> ")),
                    "take one of them out of an `after`".to_owned(),
                )
            }
        };
        let place = place.unwrap_or(&section.at);
        let fault = Fault::new(FaultKind::Reference, place, section.path("steps"), message);
        self.check.fault(fault.help(help));
    }

    /// Whether a step can be run, as far as that is known.
    fn step_fits(&mut self, section: &Section, set: &StepSet, settings: &Settings) {
        let path = section.path("steps");
        let mut fault = |at: &At, message: String, help: String| {
            let fault = Fault::new(FaultKind::Reference, at, &path, message);
            self.check.fault(fault.help(help));
        };
        let name = set.task();
        let Some(task) = settings.task(name) else {
            let near = suggest(name, settings.tasks.keys().map(String::as_str));
            let help = match near {
                Some(near) => {
                    format!("did you mean `{near}`? Or declare it with [tasks.{}]", quote_key(name))
                }
                None => format!("declare it with [tasks.{}]", quote_key(name)),
            };
            return fault(set.place("task"), format!("there is no task `{name}`"), help);
        };
        if let Some(queue) =
            set.text("queue").filter(|q| !Self::is_queue(settings, settings.task(set.task()), q))
        {
            let help = format!("declare it with [queues.{}]", quote_key(queue));
            fault(set.place("queue"), format!("there is no queue `{queue}`"), help);
        }
        let root = set.after().is_empty();
        if root && set.text("when") == Some("failure") {
            let help = "say in `after` whose failure it is for".to_owned();
            fault(
                set.place("when"),
                format!("step `{}` waits for a failure and comes after nothing", set.name()),
                help,
            );
        }
        let bound = if root || set.flag("immutable") {
            params::bind(task, &set.args, &set.kwargs).map(drop)
        } else {
            bind_later(task, &set.args, &set.kwargs)
        };
        for why in bound.err().into_iter().flatten() {
            let help =
                format!("the arguments of step `{}` do not fit [tasks.{}]", set.name(), quote_key(name));
            fault(&set.at, why, help);
        }
        let message = Message { args: set.args.clone(), kwargs: set.kwargs.clone(), ..Message::default() };
        if message.size() > MAX_BYTES {
            let help = "store the data elsewhere and pass its name".to_owned();
            fault(&set.at, format!("the arguments are larger than {MAX_BYTES} bytes of JSON"), help);
        }
    }
}
