//! Workflows under faults: drawn graphs, cancels and retries of them, and what must hold of joins.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use taskd::engine::command::RunOrder;
use taskd::engine::event::Ask;
use taskd::model::message::Message;
use taskd::model::name::MessageId;
use taskd::model::op::{Fault, Op, Reply};
use taskd::model::state::State;
use taskd::model::workflow::{Look, OnError, Seen, Stage, Step, When, Workflow, mark_sinks};

use crate::clients::Action;
use crate::ledger::{Check, broken};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::scenario::QUEUES;
use crate::world::{Thing, World};

/// What truly was asked for, and what happened to it.
#[derive(Default)]
pub struct Flows {
    /// As the client meant them.
    pub asked: BTreeMap<MessageId, Workflow>,
    /// Canceled or retried, as a whole or in part: what follows from what is not so simple any more.
    pub touched: BTreeSet<MessageId>,
    /// Steps of them were given a new life.
    pub relived: BTreeSet<MessageId>,
    /// A cancel of the whole was answered, and no retry came after it.
    pub canceled: BTreeSet<MessageId>,
    /// Bodies that began, by id.
    pub bodies: BTreeMap<MessageId, u32>,
}

/// Tasks of steps: most must end well for joins to come about.
const TASKS: [&str; 10] = ["ok", "ok", "ok", "ok", "ok", "ok", "flaky", "early", "backoff", "poison"];

fn step(r: &mut Rng, after: Vec<u32>) -> Step {
    let task = *r.pick(&TASKS);
    let mut step = Step { after, ..Step::default() };
    step.message.task = task.to_owned();
    if r.chance(300) {
        step.message.queue = (*r.pick(&QUEUES[..3])).to_owned();
    }
    step
}

/// Steps of a drawn chain, chord or graph.
fn draw(r: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    match r.below(3) {
        0 => {
            for no in 0..r.between(2, 5) as u32 {
                steps.push(step(r, no.checked_sub(1).into_iter().collect()));
            }
        }
        1 => {
            let n = r.between(1, 10) as u32;
            (0..n).for_each(|_| steps.push(step(r, Vec::new())));
            let mut body = step(r, (0..n).collect());
            body.gather = true;
            if r.chance(300) {
                body.on_error = OnError::Continue;
            }
            steps.push(body);
        }
        _ => {
            for no in 0..r.between(3, 8) as u32 {
                let after: Vec<u32> = (0..no).filter(|_| r.chance(350)).collect();
                let mut s = step(r, after);
                if !s.after.is_empty() {
                    s.when = if r.chance(200) { When::Failure } else { When::Success };
                    s.on_error = if r.chance(250) { OnError::Continue } else { OnError::Fail };
                    s.immutable = r.chance(150);
                    s.delay_ms = r.chance(100).then(|| r.between(1, 900));
                }
                steps.push(s);
            }
        }
    }
    mark_sinks(&mut steps);
    steps
}

/// Steps of a workflow that a schedule launches: few, for they run often.
pub fn draw_small(r: &mut Rng) -> Vec<Step> {
    let mut steps = vec![step(r, Vec::new())];
    if r.chance(500) {
        steps.push(step(r, Vec::new()));
    }
    if r.chance(700) {
        let after = (0..steps.len() as u32).collect();
        let mut last = step(r, after);
        last.delay_ms = r.chance(200).then(|| r.between(1, 900));
        last.on_error = if r.chance(200) { OnError::Continue } else { OnError::Fail };
        steps.push(last);
    }
    mark_sinks(&mut steps);
    steps
}

/// A chord of `n` members that should all end well.
pub fn chord(id: &str, n: u32) -> Workflow {
    let of = |after: Vec<u32>| {
        let mut s = Step { gather: !after.is_empty(), after, ..Step::default() };
        s.message.task = "limited".to_owned();
        s
    };
    let mut steps: Vec<Step> = (0..n).map(|_| of(Vec::new())).collect();
    steps.push(of((0..n).collect()));
    mark_sinks(&mut steps);
    Workflow::new(MessageId(id.to_owned()), "chord", None, steps).unwrap()
}

impl World {
    /// What is done with workflows in this seed. Drawn from a source of its own: seeds without any are as they were.
    pub fn script_workflows(&mut self) {
        let mut r = Rng::new(self.seed ^ 0x666c_6f77);
        if self.chords > 0 {
            for n in 0..self.chords {
                let at = 10_000 + r.below(20_000);
                let w = chord(&format!("c{}-{n}", self.seed), 10);
                self.launch_at(at, w);
            }
            return;
        }
        if !r.chance(350) {
            return;
        }
        for n in 0..r.between(1, 4) {
            let steps = draw(&mut r);
            let at = 10_000 + r.below(25_000);
            let w = Workflow::new(MessageId(format!("w{n}")), "drawn", None, steps).unwrap();
            let id = w.id.clone();
            // Single steps are canceled and retried like any other message.
            let ids: Vec<String> = w.steps.iter().map(|s| s.message.id.0.clone()).collect();
            if r.chance(400) {
                self.ids.extend(ids);
            }
            self.launch_at(at, w);
            let end = self.end;
            let later = |r: &mut Rng| r.between(at, end - 1_000);
            if r.chance(250) {
                let at = later(&mut r);
                self.at_time(
                    at,
                    Thing::Act(Action::Ask { ask: Ask::CancelWorkflow(id.clone()), insist: false }),
                );
            }
            for _ in 0..r.below(3) {
                let at = later(&mut r);
                self.at_time(
                    at,
                    Thing::Act(Action::Ask { ask: Ask::RetryWorkflow(id.clone()), insist: false }),
                );
            }
        }
    }

    fn launch_at(&mut self, at: u64, w: Workflow) {
        self.flows.asked.insert(w.id.clone(), w.clone());
        for step in &w.steps {
            self.ledger.stories.entry(step.message.id.0.clone()).or_default();
        }
        let ask = Ask::Launch(Box::new(w));
        self.at_time(at, Thing::Act(Action::Ask { ask, insist: true }));
    }

    /// Planted: what the store is given is not what was asked for.
    pub fn bend_launch(&self, op: &mut Op) {
        let Op::Launch { workflow, .. } = op else { return };
        for step in &mut workflow.steps {
            match self.bug {
                Some(Planted::LooseJoin) if step.after.len() > 1 => drop(step.after.pop()),
                Some(Planted::UnorderedResults) if step.after.len() > 1 => step.after.reverse(),
                Some(Planted::FailureIgnored) => step.on_error = OnError::Continue,
                Some(Planted::ResultNotPassed) => {
                    if let Some(of) = &mut step.message.step {
                        of.passes = false;
                    }
                }
                _ => {}
            }
        }
    }

    /// Applies what concerns a whole workflow; renewed messages begin a new life.
    pub fn apply_to_flow(&mut self, op: Op) -> Result<Reply, Fault> {
        let (id, retry) = match &op {
            Op::RetryFlow { id, .. } => (id.clone(), true),
            Op::CancelFlow { id, .. } => (id.clone(), false),
            _ => return self.model.apply(op),
        };
        self.flows.touched.insert(id.clone());
        let of = |m: &Message| m.step.as_ref().is_some_and(|s| s.workflow == id);
        let finals = |w: &Self| -> BTreeMap<MessageId, State> {
            let all = w.model.records().filter(|r| of(&r.message));
            all.map(|r| (r.message.id.clone(), r.state)).collect()
        };
        let before = finals(self);
        if retry {
            self.flows.canceled.remove(&id);
            self.flows.relived.insert(id.clone());
        }
        let dropped = match self.bug {
            Some(Planted::WorkflowCancelForgotten) => !retry,
            _ => false,
        };
        let reply = if dropped {
            Ok(Reply::Flowed(taskd::model::op::Flowed {
                head: self.look(&id).map(|s| Box::new(s.head)),
                ..taskd::model::op::Flowed::default()
            }))
        } else {
            self.model.apply(op)
        };
        let after = finals(self);
        for (message, state) in before.iter().filter(|(_, s)| s.is_final()) {
            if after.get(message).is_none_or(|now| !now.is_final() || now != state) {
                self.ledger.new_life(message.as_str());
            }
        }
        reply
    }

    /// A single step was canceled or retried.
    pub fn note_touch(&mut self, op: &Op) {
        let id = match op {
            Op::Requeue { id, .. } => id.clone(),
            _ => return,
        };
        if let Some(message) = self.get(&id).map(|r| r.message) {
            self.step_lives_again(&message);
        }
    }

    /// It runs again by itself, also where the whole was canceled.
    pub fn step_lives_again(&mut self, message: &Message) {
        if let Some(of) = &message.step {
            self.flows.canceled.remove(&of.workflow);
            self.flows.touched.insert(of.workflow.clone());
            self.flows.relived.insert(of.workflow.clone());
        }
    }

    /// Whether no retry of it came while its cancel was answered.
    pub fn still_canceled(&mut self, id: &MessageId) -> bool {
        self.bug == Some(Planted::WorkflowCancelForgotten) || self.look(id).is_some_and(|s| s.head.canceled)
    }

    pub fn look(&mut self, id: &MessageId) -> Option<Box<Seen>> {
        let look = Look { id: id.clone(), from: 0, limit: 1_000, results: false };
        match self.model.apply(Op::Look(look)) {
            Ok(Reply::Seen(seen)) => seen,
            _ => None,
        }
    }

    /// 33: a step is given what those before it came to, in their order, and nothing else. 34: nothing of a
    /// workflow begins after its cancel was answered.
    pub fn step_is_right(&mut self, order: &RunOrder) -> Check {
        let Some(of) = &order.message.step else { return Ok(()) };
        let Some(asked) = self.flows.asked.get(&of.workflow) else {
            return broken("50 a_step_of_something", format!("{}", order.message.id));
        };
        let step = &asked.steps[of.no as usize];
        let id = &order.message.id;
        if self.flows.canceled.contains(&of.workflow)
            && self.ledger.stories.get(id.as_str()).is_none_or(|s| s.starts == 0 && !s.reborn)
        {
            return broken("51 canceled_workflows_stay", format!("{id} of {}", of.workflow));
        }
        let before: Vec<&MessageId> =
            step.after.iter().map(|no| &asked.steps[*no as usize].message.id).collect();
        let args = &order.message.args;
        let wanted_len = usize::from(!before.is_empty() && !step.immutable);
        if args.len() != wanted_len {
            return broken("50 results_in_order", format!("{id} is given {args:?}"));
        }
        if !step.after.is_empty() && step.sink {
            *self.flows.bodies.entry(id.clone()).or_default() += 1;
        }
        let Some(given) = args.first() else { return Ok(()) };
        let fits = |value: &Value, of: &MessageId| {
            *value == json!(of.as_str()) || value.is_null() && step.on_error == OnError::Continue
        };
        let right = match (step.when, step.takes_list(), given) {
            (When::Failure, ..) => before.iter().any(|b| *given == json!(b.as_str())),
            (When::Success, true, Value::Array(list)) => {
                list.len() == before.len() && list.iter().zip(&before).all(|(v, b)| fits(v, b))
            }
            (When::Success, true, _) => false,
            (When::Success, false, value) => before.first().is_some_and(|b| fits(value, b)),
        };
        if right {
            Ok(())
        } else {
            broken("50 results_in_order", format!("{id} is given {given}, after {before:?}"))
        }
    }

    /// 35: no join hangs. 36: what follows from the ends of steps is what was asked for.
    pub fn workflows_are_over(&mut self) -> Check {
        let open = self.model.workflows().find(|f| f.head.open > 0 || f.busy);
        if let Some(f) = open {
            return broken("52 no_join_hangs", format!("{}: {} steps are not over", f.head.id, f.head.open));
        }
        let known: Vec<MessageId> = self.model.workflows().map(|f| f.head.id.clone()).collect();
        for id in known {
            let Some(seen) = self.look(&id) else { continue };
            let asked = &self.flows.asked[&id];
            if self.flows.touched.contains(&id) {
                continue;
            }
            let stages: Vec<Stage> = seen.steps.iter().map(|s| s.stage).collect();
            for (step, at) in asked.steps.iter().zip(&seen.steps) {
                let before = || step.after.iter().map(|no| stages[*no as usize]);
                let failed = before().any(Stage::is_failure);
                let skipped = before().any(|s| s == Stage::Skipped);
                let record = self.model.records().find(|r| r.message.id == at.id);
                let ran = record.is_some_and(|r| r.attempt > 0 || r.state != State::Failure);
                let right = match (step.when, step.on_error) {
                    _ if step.after.is_empty() => at.stage != Stage::Skipped,
                    (When::Failure, _) => (at.stage != Stage::Skipped) == failed,
                    (When::Success, OnError::Continue) => at.stage != Stage::Skipped,
                    // Which of the two came first decides.
                    (When::Success, OnError::Fail) if failed && skipped => !ran,
                    (When::Success, OnError::Fail) if failed => {
                        at.stage == Stage::Ended(State::Failure) && !ran
                    }
                    (When::Success, OnError::Fail) => (at.stage == Stage::Skipped) == skipped,
                };
                if !right {
                    let detail = format!(
                        "step {} of {id} is {:?} after {:?}",
                        at.no,
                        at.stage,
                        before().collect::<Vec<_>>()
                    );
                    return broken("53 what_follows_is_what_was_asked", detail);
                }
            }
        }
        Ok(())
    }
}

/// 1,000 chords of 10 members under drawn faults: every body ends once, and none hangs.
#[test]
fn a_thousand_chords_end_each_in_one_body() {
    let (mut chords, mut well, mut failed, mut repeated, mut seed) = (0, 0, 0, 0, 0);
    while chords < 1_000 {
        let told = crate::world::play_chords(seed, 4);
        if let Err(v) = &told.result {
            panic!("seed {seed}: {}: {}", v.name, v.detail);
        }
        for (id, (state, starts)) in told.bodies {
            chords += 1;
            match state {
                State::Success => well += 1,
                State::Failure | State::Revoked | State::Dead => failed += 1,
                other => panic!("seed {seed}: the body {id} is {other}"),
            }
            repeated += u32::from(starts > 1);
        }
        seed += 1;
    }
    println!(
        "{chords} chords of 10 in {seed} seeds: every body ended exactly once, {well} well, {failed} because a member \
         was lost too often or canceled; {repeated} bodies were begun again after a death under them"
    );
    assert!(well > 500, "hardly any body ran: {well}");
}
