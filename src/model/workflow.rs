//! Workflows: steps that follow one another. Chains, groups, chords, links and declared graphs are all the same
//! thing here, a list of steps in which each one names those before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::{MAX_BYTES, Message};
use super::name::MessageId;
use super::outcome::{Cause, Outcome};
use super::schedule::Fired;
use super::state::State;
use super::time::Wall;

/// Most steps of a workflow.
pub const MAX_STEPS: usize = 100_000;

/// Most pairs of a step and one that it comes after.
pub const MAX_EDGES: usize = 400_000;

/// What a message says of the workflow it is a step of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOf {
    /// The workflow.
    pub workflow: MessageId,
    /// Number of the step, from 0.
    pub no: u32,
    /// A later step is given its result: it is told to the store even where its task keeps none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes: bool,
}

/// After which end of the steps before it a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Once all of them succeeded.
    #[default]
    Success,
    /// Once one of them failed; it is given the id of that one.
    Failure,
}

/// What a step does about one before it that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It fails too, without having run.
    #[default]
    Fail,
    /// It runs all the same, with null in the place of the result.
    Continue,
}

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What people call it; empty: its number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What is published when its time comes. `enqueued`, `eta` and `expires` are set then.
    pub message: Message,
    /// Numbers of the steps before it, each lower than its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// After which of their ends.
    #[serde(default)]
    pub when: When,
    /// What it does about their failures.
    #[serde(default)]
    pub on_error: OnError,
    /// It is not given their results.
    #[serde(default)]
    pub immutable: bool,
    /// It is given a list of results even where only one step is before it.
    #[serde(default)]
    pub gather: bool,
    /// Its result is (one of) the workflow's.
    #[serde(default)]
    pub sink: bool,
    /// So long after its time came, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// EXPIRED when it did not start within this after it could, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A workflow, as it is launched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Its id.
    pub id: MessageId,
    /// What it is: a declared name, or `chain`, `group`, `chord`, `graph`, `link`.
    pub name: String,
    /// Who launched it.
    pub uid: Option<u32>,
    /// It is forgotten this many milliseconds after its last step ended (and not before a day).
    pub keep_ms: u64,
    /// It is one message with what follows its end: where that message cannot be stored, nothing is.
    #[serde(default)]
    pub linked: bool,
    /// The schedule that launches it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Fired>,
    /// Its steps, in an order in which each stands behind those before it.
    pub steps: Vec<Step>,
}

/// A workflow that the config declares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its steps, in an order in which each stands behind those before it; their messages have no ids.
    pub steps: Vec<Step>,
}

// JSON has no NaN: equality is total.
impl Eq for Declared {}

impl Declared {
    /// The workflow as it is to be launched under this id, for whoever asks for it; absent: for a schedule.
    ///
    /// # Errors
    /// [`Unfit`]; never for what the config's check accepted.
    pub fn launch(&self, id: MessageId, uid: Option<u32>) -> Result<Workflow, Unfit> {
        Workflow::new(id, &self.name, uid, self.steps.clone())
    }
}

/// Where a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Steps before it have not ended.
    #[default]
    Pending,
    /// Its message is published; that says more.
    Published,
    /// It ended in this state.
    Ended(State),
    /// It cannot run any more and need not: what it waited for did not come about.
    Skipped,
}

impl Stage {
    /// Whether it is over.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Skipped)
    }

    /// Whether it ended otherwise than well.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Ended(State::Failure | State::Revoked | State::Expired | State::Dead))
    }
}

/// What is known of a workflow as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its id.
    pub id: MessageId,
    /// What it is.
    pub name: String,
    /// Who launched it.
    pub uid: Option<u32>,
    /// When it was launched.
    pub launched: Wall,
    /// How many steps it has.
    pub steps: u32,
    /// How many of them are not over.
    pub open: u32,
    /// How many of them failed, were canceled or expired.
    pub failed: u32,
    /// How many of those are steps whose result is the workflow's.
    pub lost: u32,
    /// It was canceled as a whole: nothing of it is published any more.
    pub canceled: bool,
    /// When its last step ended.
    pub finished: Option<Wall>,
    /// The schedule that launched it, if one did.
    pub fired: Option<Fired>,
    /// Nothing of it is published yet: it waits for the end of what that schedule fired before.
    pub held: bool,
}

impl Head {
    /// The state of the whole.
    #[must_use]
    pub const fn state(&self) -> State {
        match (self.finished.is_some(), self.canceled, self.lost) {
            (false, ..) if self.held => State::Scheduled,
            (false, ..) => State::Running,
            (true, _, 0) => State::Success,
            (true, true, _) => State::Revoked,
            (true, false, _) => State::Failure,
        }
    }
}

/// What is known of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSeen {
    /// Its number.
    pub no: u32,
    /// Its message's id.
    pub id: MessageId,
    /// Its name, if it has one.
    pub name: String,
    /// Its task.
    pub task: String,
    /// The steps before it.
    pub after: Vec<u32>,
    /// After which of their ends.
    pub when: When,
    /// Where it is.
    pub stage: Stage,
    /// The state of its message while that is not final.
    pub state: Option<State>,
    /// How its message ended, where that was asked for.
    pub outcome: Option<Outcome>,
}

/// A part of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The whole.
    pub head: Head,
    /// Steps in their order.
    pub steps: Vec<StepSeen>,
    /// The number at which to go on; absent: that were all.
    pub next: Option<u32>,
}

/// Which steps of a workflow are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The workflow.
    pub id: MessageId,
    /// From this number on.
    pub from: u32,
    /// At most this many.
    pub limit: u32,
    /// Only those whose results are the workflow's, with their outcomes.
    pub results: bool,
}

/// What an operation did to other messages than the one it was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallout {
    /// Queues that got messages.
    pub queues: Vec<String>,
    /// When the first of them is due or expires.
    pub next: Option<Wall>,
    /// Steps that ended without having run.
    pub ended: Vec<(MessageId, State)>,
    /// Workflows that are over, each with the state of the whole.
    pub over: Vec<(MessageId, State)>,
    /// Those of them that a schedule launched, with its name.
    pub fires: Vec<(String, MessageId, State)>,
    /// Schedules of which a workflow that was over has an open step again.
    pub reopened: Vec<String>,
    /// More is to be done: a sweep goes on with it.
    pub more: bool,
}

impl Fallout {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A message was published.
    pub fn published(&mut self, message: &Message) {
        if !self.queues.contains(&message.queue) {
            self.queues.push(message.queue.clone());
        }
        let times = [message.eta, message.expires];
        self.next = times.into_iter().flatten().chain(self.next).min();
    }

    /// What another one did, too.
    pub fn join(&mut self, other: Self) {
        for queue in other.queues {
            if !self.queues.contains(&queue) {
                self.queues.push(queue);
            }
        }
        self.next = self.next.into_iter().chain(other.next).min();
        self.ended.extend(other.ended);
        self.over.extend(other.over);
        self.fires.extend(other.fires);
        self.reopened.extend(other.reopened);
        self.more |= other.more;
    }
}

/// Why a list of steps is no workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("a workflow needs at least one step")]
    Empty,
    /// Too many.
    #[error("{0} steps; at most {MAX_STEPS} make a workflow")]
    Steps(usize),
    /// Too many pairs.
    #[error("its steps name {0} steps before them; at most {MAX_EDGES} are accepted")]
    Edges(usize),
    /// A step does not stand behind those it comes after, or names one twice.
    #[error("step {0} does not stand behind the steps it comes after, or names one of them twice")]
    Order(u32),
    /// A first step that waits for a failure.
    #[error("step {0} waits for a failure and comes after nothing")]
    Never(u32),
}

impl Workflow {
    /// A workflow of these steps: gives each its id and its place.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(id: MessageId, name: &str, uid: Option<u32>, mut steps: Vec<Step>) -> Result<Self, Unfit> {
        check(&steps)?;
        let mut passes = vec![false; steps.len()];
        for step in steps.iter().filter(|s| !s.immutable && s.when == When::Success) {
            for no in &step.after {
                if let Some(p) = passes.get_mut(*no as usize) {
                    *p = true;
                }
            }
        }
        let ids = id.steps();
        for ((no, step), passes) in (0_u32..).zip(&mut steps).zip(passes) {
            if step.message.id.0.is_empty() {
                step.message.id = ids.id(no);
            }
            step.message.uid = uid;
            step.message.step = Some(Box::new(StepOf { workflow: id.clone(), no, passes }));
        }
        Ok(Self { id, name: name.to_owned(), uid, keep_ms: 0, linked: false, fired: None, steps })
    }

    /// The steps that come after nothing.
    pub fn roots(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| s.after.is_empty())
    }
}

/// Whether these steps make a workflow.
///
/// # Errors
/// The first rule they break.
pub fn check(steps: &[Step]) -> Result<(), Unfit> {
    if steps.is_empty() {
        return Err(Unfit::Empty);
    }
    if steps.len() > MAX_STEPS {
        return Err(Unfit::Steps(steps.len()));
    }
    let edges = steps.iter().map(|s| s.after.len()).sum();
    if edges > MAX_EDGES {
        return Err(Unfit::Edges(edges));
    }
    for (no, step) in (0_u32..).zip(steps) {
        let mut sorted = step.after.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < step.after.len() || sorted.last().is_some_and(|last| *last >= no) {
            return Err(Unfit::Order(no));
        }
        if step.after.is_empty() && step.when == When::Failure {
            return Err(Unfit::Never(no));
        }
    }
    Ok(())
}

/// Marks the steps whose results are the workflow's: those of no step's `after` that run on success.
pub fn mark_sinks(steps: &mut [Step]) {
    let mut followed = vec![false; steps.len()];
    for step in steps.iter().filter(|s| s.when == When::Success) {
        for no in &step.after {
            if let Some(f) = followed.get_mut(*no as usize) {
                *f = true;
            }
        }
    }
    for (step, followed) in steps.iter_mut().zip(followed) {
        step.sink = step.when == When::Success && !followed;
    }
}

impl Step {
    /// Whether it is given the results of the steps before it.
    #[must_use]
    pub const fn takes_results(&self) -> bool {
        !self.immutable && matches!(self.when, When::Success)
    }

    /// Whether it is given them as one list.
    #[must_use]
    pub const fn takes_list(&self) -> bool {
        self.gather || self.after.len() > 1
    }

    /// Its message as it is published at `now`, with `given` before its own arguments.
    ///
    /// # Errors
    /// The outcome of a message that is too large.
    pub fn call(&self, now: Wall, given: Option<Value>) -> Result<Message, Box<Outcome>> {
        let mut message = self.message.clone();
        message.enqueued = now;
        message.eta = self.delay_ms.filter(|ms| *ms > 0).map(|ms| now.plus(ms));
        message.expires = self.expires_ms.map(|ms| message.eta.unwrap_or(now).plus(ms));
        if let Some(given) = given {
            message.args.insert(0, given);
        }
        if message.size() > MAX_BYTES { Err(Box::new(too_large())) } else { Ok(message) }
    }
}

/// The outcome of a step that is given more than a message holds.
#[must_use]
pub fn too_large() -> Outcome {
    let why = format!(
        "with the results of the steps before it, it is larger than the {MAX_BYTES} bytes of JSON that a message holds"
    );
    Outcome::of_cause(Cause::Rejected, why)
}

/// The outcome of a step that failed because one before it did.
#[must_use]
pub fn upstream(failed: &MessageId, no: u32, state: State) -> Outcome {
    let why = format!("step {no} before it ({failed}) is {state}");
    Outcome::of_cause(Cause::Upstream { id: failed.clone(), step: no }, why)
}

/// What is wrong with named steps that are to be put into an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tangle {
    /// Two steps have this name; the place of the second.
    Twice(usize),
    /// The step at this place comes after one that is not there: which of its `after`.
    Unknown(usize, usize),
    /// These steps come after one another in a circle; the first is named again at the end.
    Cycle(Vec<usize>),
}

/// An order in which each of these steps, `(name, after)`, stands behind those it comes after: places in
/// the list, otherwise as they stand.
///
/// # Errors
/// Everything that is wrong with them; of circles the first that is found.
pub fn order(steps: &[(&str, Vec<&str>)]) -> Result<Vec<usize>, Vec<Tangle>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    for (at, (name, _)) in steps.iter().enumerate() {
        if places.insert(name, at).is_some() {
            faults.push(Tangle::Twice(at));
        }
    }
    let mut after: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    for (at, (_, names)) in steps.iter().enumerate() {
        let mut found = Vec::with_capacity(names.len());
        for (n, name) in names.iter().enumerate() {
            match places.get(name) {
                Some(place) => found.push(*place),
                None => faults.push(Tangle::Unknown(at, n)),
            }
        }
        after.push(found);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut sorted = Vec::with_capacity(steps.len());
    // 0: not looked at, 1: on the way, 2: done.
    let mut marks = vec![0_u8; steps.len()];
    for start in 0..steps.len() {
        // Depth first, without recursion: a chain may be as long as a workflow.
        let mut path = vec![(start, 0_usize)];
        if marks.get(start) == Some(&0) {
            set(&mut marks, start, 1);
        } else {
            continue;
        }
        while let Some((at, next)) = path.pop() {
            match after.get(at).and_then(|a| a.get(next)).copied() {
                None => {
                    set(&mut marks, at, 2);
                    sorted.push(at);
                }
                Some(before) => {
                    path.push((at, next + 1));
                    match marks.get(before) {
                        Some(0) => {
                            set(&mut marks, before, 1);
                            path.push((before, 0));
                        }
                        Some(1) => {
                            let circle = path.iter().map(|(p, _)| *p).skip_while(|p| *p != before);
                            let mut circle: Vec<usize> = circle.collect();
                            circle.push(before);
                            // Each comes after the next one here; people read what leads to what.
                            circle.reverse();
                            return Err(vec![Tangle::Cycle(circle)]);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(sorted)
}

fn set(marks: &mut [u8], at: usize, mark: u8) {
    if let Some(m) = marks.get_mut(at) {
        *m = mark;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(after: &[u32]) -> Step {
        Step { after: after.to_vec(), ..Step::default() }
    }

    #[test]
    fn ids_are_known_from_the_start_and_only_results_that_are_wanted_are_passed_on() {
        let steps = vec![step(&[]), step(&[0]), Step { immutable: true, ..step(&[1]) }];
        let w = Workflow::new(MessageId("w".into()), "chain", Some(7), steps.clone()).unwrap();
        let again = Workflow::new(MessageId("w".into()), "chain", Some(7), steps).unwrap();
        assert_eq!(w, again);
        let of: Vec<(u32, bool)> =
            w.steps.iter().map(|s| s.message.step.as_ref().unwrap()).map(|s| (s.no, s.passes)).collect();
        assert_eq!(of, [(0, true), (1, false), (2, false)]);
        assert_ne!(w.steps[0].message.id, w.steps[1].message.id);
        assert_eq!(w.roots().count(), 1);
    }

    #[test]
    fn what_cannot_run_is_no_workflow() {
        assert_eq!(check(&[]), Err(Unfit::Empty));
        assert_eq!(check(&[step(&[0])]), Err(Unfit::Order(0)));
        assert_eq!(check(&[step(&[]), step(&[0, 0])]), Err(Unfit::Order(1)));
        assert_eq!(check(&[step(&[]), step(&[2]), step(&[])]), Err(Unfit::Order(1)));
        assert_eq!(check(&[Step { when: When::Failure, ..step(&[]) }]), Err(Unfit::Never(0)));
        assert_eq!(check(&vec![step(&[]); MAX_STEPS + 1]), Err(Unfit::Steps(MAX_STEPS + 1)));
    }

    #[test]
    fn a_result_stands_before_the_own_arguments() {
        let mut s = Step { delay_ms: Some(50), expires_ms: Some(10), ..step(&[0]) };
        s.message.args = vec![json!("own")];
        let m = s.call(Wall(1_000), Some(json!(3))).unwrap();
        assert_eq!(m.args, [json!(3), json!("own")]);
        assert_eq!((m.enqueued, m.eta, m.expires), (Wall(1_000), Some(Wall(1_050)), Some(Wall(1_060))));
        let refused = s.call(Wall(0), Some(json!("x".repeat(MAX_BYTES)))).unwrap_err();
        assert_eq!(refused.cause, Cause::Rejected);
    }

    #[test]
    fn names_are_put_into_an_order_and_circles_are_named_in_full() {
        let steps = [("c", vec!["a", "b"]), ("a", vec![]), ("b", vec!["a"])];
        assert_eq!(order(&steps), Ok(vec![1, 2, 0]));
        let circle = [("a", vec!["c"]), ("b", vec!["a"]), ("c", vec!["b"]), ("d", vec![])];
        assert_eq!(order(&circle), Err(vec![Tangle::Cycle(vec![0, 1, 2, 0])]));
        assert_eq!(order(&[("a", vec!["a"])]), Err(vec![Tangle::Cycle(vec![0, 0])]));
        let wrong = [("a", vec!["x"]), ("a", vec![])];
        assert_eq!(order(&wrong), Err(vec![Tangle::Twice(1), Tangle::Unknown(0, 0)]));
    }

    #[test]
    fn the_last_steps_give_the_result_and_handlers_of_errors_do_not() {
        let mut steps = vec![step(&[]), step(&[0]), Step { when: When::Failure, ..step(&[1]) }, step(&[0])];
        mark_sinks(&mut steps);
        assert_eq!(steps.iter().map(|s| s.sink).collect::<Vec<_>>(), [false, true, false, true]);
    }
}
