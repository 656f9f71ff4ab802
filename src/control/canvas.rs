//! What a client asks for as a workflow (a chain, a group, a chord, a graph), and how it becomes a list of steps.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::api::{Error, ErrorKind};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::workflow::{MAX_STEPS, OnError, Tangle, When, order};

/// One step: a call of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepBody {
    /// Declared task name.
    pub task: String,
    /// What people call the step; in a graph also what `after` names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Positional arguments; the result of the step before goes in front of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub kwargs: Map<String, Value>,
    /// Another queue than the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// 0 to 9, 9 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// So many milliseconds after it could run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// It is not given the results of the steps before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    /// What it does when a step before it failed.
    #[serde(default, skip_serializing_if = "is_fail")]
    pub on_error: OnError,
    /// In a graph: names of the steps before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// In a graph: after which of their ends.
    #[serde(default, skip_serializing_if = "is_success")]
    pub when: When,
    /// Steps that run with its result beside what follows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<StepBody>,
    /// Steps that run with its id when it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_error: Vec<StepBody>,
    /// Carried along, never interpreted.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_fail(on_error: &OnError) -> bool {
    *on_error == OnError::Fail
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_success(when: &When) -> bool {
    *when == When::Success
}

/// Members and what runs with the list of their results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chord {
    /// The members.
    pub header: Vec<Canvas>,
    /// Runs once, with the results in the order of the members.
    pub body: StepBody,
}

/// A step, or steps put together.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Canvas {
    /// One after the other.
    Chain {
        /// Its parts.
        chain: Vec<Canvas>,
    },
    /// All at once.
    Group {
        /// Its parts.
        group: Vec<Canvas>,
    },
    /// All at once, then one.
    Chord {
        /// Its parts.
        chord: Box<Chord>,
    },
    /// A call.
    Step(Box<StepBody>),
}

impl<'de> Deserialize<'de> for Canvas {
    /// By the key that only one of them has, so that an error says what is wrong with that one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut map = Map::deserialize(deserializer)?;
        let only = map.len() == 1;
        let mut part = |key: &str| if only { map.remove(key) } else { None };
        let custom = |e: serde_json::Error| D::Error::custom(e.to_string());
        if let Some(chain) = part("chain") {
            return Ok(Self::Chain { chain: serde_json::from_value(chain).map_err(custom)? });
        }
        if let Some(group) = part("group") {
            return Ok(Self::Group { group: serde_json::from_value(group).map_err(custom)? });
        }
        if let Some(chord) = part("chord") {
            return Ok(Self::Chord { chord: serde_json::from_value(chord).map_err(custom)? });
        }
        serde_json::from_value(Value::Object(map)).map(|step| Self::Step(Box::new(step))).map_err(custom)
    }
}

/// Body of `POST /v1/workflows`: exactly one of `chain`, `group`, `chord`, `steps` and `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowBody {
    /// Made by the client (UUIDv7) so that a repeat is safe; absent: the daemon makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Steps one after the other, each with the result of the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Vec<Canvas>>,
    /// Steps all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Vec<Canvas>>,
    /// Steps all at once, and one with the list of their results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chord: Option<Chord>,
    /// A graph: steps with names that say what they come after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepBody>>,
    /// A workflow that the config declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What became of a workflow that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaunchedView {
    /// Its id.
    pub id: String,
    /// How many steps it has.
    pub steps: u32,
    /// The id was known before; nothing was stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// A workflow, or a part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowView {
    /// Its id.
    pub id: String,
    /// A declared name, or what it is: `chain`, `group`, `chord`, `graph`, `link`.
    pub name: String,
    /// SCHEDULED while it waits for what its schedule fired before, RUNNING, SUCCESS, FAILURE or REVOKED.
    pub state: State,
    /// Uid of who launched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The schedule that launched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The planned time that it was launched for, milliseconds since the epoch, as all times below; absent: it was
    /// launched by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<i64>,
    /// When it was launched.
    pub launched: i64,
    /// When its last step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<i64>,
    /// How many steps it has.
    pub steps: u32,
    /// How many of them are not over.
    pub open: u32,
    /// How many of them failed, were canceled or expired.
    pub failed: u32,
    /// Steps in an order in which each stands behind those before it.
    pub list: Vec<StepView>,
    /// The number at which to go on (`from`); absent: these were all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// A step of a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its number.
    pub no: u32,
    /// Its message's id.
    pub id: String,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its task.
    pub task: String,
    /// A state of a message, PENDING before its message is published, or SKIPPED.
    pub state: String,
    /// Numbers of the steps before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// After which of their ends.
    #[serde(default, skip_serializing_if = "is_success")]
    pub when: When,
    /// How it ended, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A workflow that the config declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredView {
    /// Its name.
    pub name: String,
    /// Its steps, in an order in which each stands behind those before it.
    pub steps: Vec<StepView>,
}

/// A step in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What is called.
    pub body: StepBody,
    /// Numbers of the steps before it.
    pub after: Vec<u32>,
    /// After which of their ends.
    pub when: When,
    /// It is given a list whatever the number of steps before it.
    pub gather: bool,
    /// Its result is the workflow's.
    pub sink: bool,
}

/// What a part of a canvas comes after.
#[derive(Clone, Default)]
struct Before {
    steps: Vec<u32>,
    gather: bool,
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadRequest, message)
}

/// Puts steps one after the other.
#[derive(Default)]
struct Layout {
    steps: Vec<Placed>,
}

impl Layout {
    fn add(&mut self, placed: Placed) -> Result<u32, Error> {
        if self.steps.len() >= MAX_STEPS {
            return Err(Error::new(ErrorKind::TooLarge, format!("a workflow has at most {MAX_STEPS} steps")));
        }
        let no = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.steps.push(placed);
        Ok(no)
    }

    /// A step and its links.
    fn step(&mut self, mut body: StepBody, before: &Before, when: When) -> Result<u32, Error> {
        if !body.after.is_empty() || body.when != When::Success {
            return Err(bad(format!("step {}: `after` and `when` are for a graph (`steps`)", body.task)));
        }
        let (links, errors) = (std::mem::take(&mut body.link), std::mem::take(&mut body.link_error));
        let (after, gather) = (before.steps.clone(), before.gather);
        let no = self.add(Placed { body, after, when, gather, sink: false })?;
        self.links(no, links, errors)?;
        Ok(no)
    }

    fn links(&mut self, no: u32, links: Vec<StepBody>, errors: Vec<StepBody>) -> Result<(), Error> {
        let own = Before { steps: vec![no], gather: false };
        for link in links {
            self.step(link, &own, When::Success)?;
        }
        for error in errors {
            self.step(error, &own, When::Failure)?;
        }
        Ok(())
    }

    /// The steps that what comes next comes after.
    fn canvas(&mut self, canvas: Canvas, before: &Before) -> Result<Before, Error> {
        match canvas {
            Canvas::Step(body) => {
                let no = self.step(*body, before, When::Success)?;
                Ok(Before { steps: vec![no], gather: false })
            }
            Canvas::Chain { chain } => {
                if chain.is_empty() {
                    return Err(bad("a chain needs at least one step"));
                }
                let mut before = before.clone();
                for part in chain {
                    before = self.canvas(part, &before)?;
                }
                Ok(before)
            }
            Canvas::Group { group } => {
                if group.is_empty() {
                    return Err(bad("a group needs at least one member"));
                }
                let mut steps = Vec::new();
                for part in group {
                    steps.extend(self.canvas(part, before)?.steps);
                }
                Ok(Before { steps, gather: true })
            }
            Canvas::Chord { chord } => {
                let members = self.canvas(Canvas::Group { group: chord.header }, before)?;
                let no = self.step(chord.body, &members, When::Success)?;
                Ok(Before { steps: vec![no], gather: false })
            }
        }
    }

    /// A graph: put into an order first.
    fn graph(&mut self, mut steps: Vec<StepBody>) -> Result<(), Error> {
        for (at, step) in steps.iter_mut().enumerate() {
            if step.name.is_empty() {
                step.name = at.to_string();
            }
        }
        let named: Vec<(&str, Vec<&str>)> =
            steps.iter().map(|s| (s.name.as_str(), s.after.iter().map(String::as_str).collect())).collect();
        let sorted = order(&named).map_err(|tangles| {
            let name = |at: usize| named.get(at).map_or("", |(name, _)| *name);
            let mut lines = tangles.iter().map(|tangle| match tangle {
                Tangle::Twice(at) => format!("two steps have the name {}", name(*at)),
                Tangle::Unknown(at, n) => {
                    let after =
                        named.get(*at).and_then(|(_, after)| after.get(*n)).copied().unwrap_or_default();
                    format!("step {} comes after {after}, which is no step", name(*at))
                }
                Tangle::Cycle(places) => {
                    let names: Vec<&str> = places.iter().map(|at| name(*at)).collect();
                    format!("steps come after one another in a circle: {}", names.join(" -> "))
                }
            });
            let mut e = bad(lines.next().unwrap_or_default());
            e.details = lines.collect();
            e
        })?;
        let mut places: BTreeMap<String, u32> = BTreeMap::new();
        let mut bodies: Vec<Option<StepBody>> = steps.into_iter().map(Some).collect();
        for at in sorted {
            let Some(mut body) = bodies.get_mut(at).and_then(Option::take) else { continue };
            let mut after: Vec<u32> =
                body.after.iter().filter_map(|name| places.get(name).copied()).collect();
            after.dedup();
            let (links, errors) = (std::mem::take(&mut body.link), std::mem::take(&mut body.link_error));
            let (name, when) = (body.name.clone(), body.when);
            let no = self.add(Placed { body, after, when, gather: false, sink: false })?;
            places.insert(name, no);
            self.links(no, links, errors)?;
        }
        Ok(())
    }
}

impl WorkflowBody {
    /// What it is, and its steps in order; those of a declared workflow stand in the config.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn layout(self) -> Result<(&'static str, Vec<Placed>), Error> {
        let mut layout = Layout::default();
        let first = Before::default();
        let (kind, canvas) = match (self.chain, self.group, self.chord, self.steps, self.name) {
            (Some(chain), None, None, None, None) => ("chain", Canvas::Chain { chain }),
            (None, Some(group), None, None, None) => ("group", Canvas::Group { group }),
            (None, None, Some(chord), None, None) => ("chord", Canvas::Chord { chord: Box::new(chord) }),
            (None, None, None, Some(steps), None) => {
                layout.graph(steps)?;
                let mut followed = vec![false; layout.steps.len()];
                for placed in layout.steps.iter().filter(|p| p.when == When::Success) {
                    for no in &placed.after {
                        if let Some(f) = followed.get_mut(*no as usize) {
                            *f = true;
                        }
                    }
                }
                for (placed, followed) in layout.steps.iter_mut().zip(followed) {
                    placed.sink = !followed && placed.when == When::Success;
                }
                return Ok(("graph", layout.steps));
            }
            _ => return Err(bad("give exactly one of chain, group, chord, steps and name")),
        };
        let last = layout.canvas(canvas, &first)?;
        for no in last.steps {
            if let Some(placed) = layout.steps.get_mut(no as usize) {
                placed.sink = true;
            }
        }
        Ok((kind, layout.steps))
    }
}

/// A call and its links as the steps of a workflow.
///
/// # Errors
/// What makes no sense.
pub fn linked(body: StepBody) -> Result<Vec<Placed>, Error> {
    let mut layout = Layout::default();
    layout.step(body, &Before::default(), When::Success)?;
    if let Some(first) = layout.steps.first_mut() {
        first.sink = true;
    }
    Ok(layout.steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each step as `task<-before`, `!` for one that waits for a failure, `[]` for a list, `*` for a result.
    fn shape(body: Value) -> Result<String, String> {
        let body: WorkflowBody = serde_json::from_value(body).map_err(|e| e.to_string())?;
        let (kind, steps) = body.layout().map_err(|e| e.message)?;
        let shown = steps.iter().map(|p| {
            let after: Vec<String> = p.after.iter().map(u32::to_string).collect();
            let when = if p.when == When::Failure { "!" } else { "" };
            let (list, sink) = (if p.gather { "[]" } else { "" }, if p.sink { "*" } else { "" });
            format!("{}<-{}{when}{list}{sink}", p.body.task, after.join(","))
        });
        Ok(format!("{kind}: {}", shown.collect::<Vec<_>>().join(" ")))
    }

    fn t(task: &str) -> Value {
        json!({"task": task})
    }

    #[test]
    fn everything_becomes_steps_that_come_after_others() {
        for (body, wanted) in [
            (json!({"chain": [t("a"), t("b"), t("c")]}), "chain: a<- b<-0 c<-1*"),
            (json!({"group": [t("a"), t("b")]}), "group: a<-* b<-*"),
            (json!({"chord": {"header": [t("a"), t("b")], "body": t("c")}}), "chord: a<- b<- c<-0,1[]*"),
            (json!({"chord": {"header": [t("a")], "body": t("c")}}), "chord: a<- c<-0[]*"),
            (
                json!({"chain": [t("a"), {"group": [t("b"), {"chain": [t("c"), t("d")]}]}, t("e")]}),
                "chain: a<- b<-0 c<-0 d<-2 e<-1,3[]*",
            ),
            (
                json!({"chain": [{"task": "a", "link": [t("l")], "link_error": [t("e")]}, t("b")]}),
                "chain: a<- l<-0 e<-0! b<-0*",
            ),
            (
                json!({"steps": [
                    {"name": "z", "task": "z", "after": ["x", "y"]},
                    {"name": "x", "task": "x"}, {"name": "y", "task": "y", "after": ["x"]},
                    {"name": "e", "task": "e", "after": ["z"], "when": "failure"},
                ]}),
                "graph: x<- y<-0 z<-0,1* e<-2!",
            ),
        ] {
            assert_eq!(shape(body), Ok(wanted.to_owned()));
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (body, why) in [
            (json!({}), "exactly one"),
            (json!({"chain": [], "group": []}), "exactly one"),
            (json!({"chain": []}), "at least one step"),
            (json!({"chain": [{"group": []}]}), "at least one member"),
            (json!({"chain": [{"task": "a", "after": ["b"]}]}), "for a graph"),
            (json!({"chain": [{"tusk": "a"}]}), "unknown field `tusk`"),
            (json!({"steps": [{"task": "a", "after": ["b"]}]}), "comes after b, which is no step"),
            (
                json!({"steps": [
                    {"name": "a", "task": "t", "after": ["b"]}, {"name": "b", "task": "t", "after": ["a"]},
                ]}),
                "in a circle: a -> b -> a",
            ),
        ] {
            let told = shape(body.clone()).unwrap_err();
            assert!(told.contains(why), "{body}: {told}");
        }
    }
}
