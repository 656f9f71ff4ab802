//! How the steps of workflows follow one another, for every store alike.
//!
//! A step that ended is *told* to each step after it. A told end lowers a counter, and at zero the step's message is
//! published, in the transaction of the end: a join cannot hang and cannot fire twice. An operation tells at
//! most [`TOLD`] ends; what is left stands in the store as [`Work`], and a sweep goes on with it.
//!
//! A step that is given a new life is *revived* towards the steps after it in the same way: those that failed or
//! were skipped without having run are opened again, those that still wait count it once more.

use std::collections::VecDeque;

use serde_json::Value;

use super::rules;
use crate::model::message::{MAX_BYTES, Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Flowed};
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{
    self, Fallout, Head, Look, OnError, Seen, Stage, Step, StepSeen, When, Workflow,
};

/// Pairs of steps that one operation looks at; then it leaves the rest to a sweep.
pub const TOLD: usize = rules::SWEEP_ROWS;

/// Steps that one part of a cancel or a retry of a workflow looks at.
pub const PART: u32 = 500;

/// Most steps of one [`Look`], and of one that asks for results.
pub const MAX_LOOK: u32 = 1_000;

/// The same where outcomes go with them.
pub const MAX_RESULTS: u32 = 100;

/// A workflow as a store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The store's own number for it.
    pub key: i64,
    /// What clients see.
    pub head: Head,
    /// It is kept so long after its end, in milliseconds.
    pub keep_ms: u64,
    /// [`Work`] of it stands in the store.
    pub busy: bool,
    /// Raised each time that a step is opened again.
    pub tick: u32,
    /// When it is forgotten.
    pub expires: Option<Wall>,
}

/// A step as a store keeps it, without what is looked at only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub no: u32,
    /// Where it is.
    pub stage: Stage,
    /// Its message was published.
    pub born: bool,
    /// Steps before it whose end was not told to it.
    pub pending: u32,
    /// The flow's tick when it was opened again.
    pub opened: u32,
    /// After which end of the steps before it.
    pub when: When,
    /// What it does about their failures.
    pub on_error: OnError,
    /// A step after it is given its result.
    pub passes: bool,
    /// Its result is the workflow's.
    pub sink: bool,
}

/// A step of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where it is.
    pub row: Row,
    /// Its message's id.
    pub id: MessageId,
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: String,
}

/// What is to be told to the steps after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The step.
    pub source: u32,
    /// It begins anew; otherwise it ended.
    pub revive: bool,
    /// Steps from this number on.
    pub from: u32,
    /// And before this one.
    pub until: u32,
    /// The tick at which it was opened.
    pub tick: u32,
}

impl Work {
    const fn end_of(source: u32) -> Self {
        Self { source, revive: false, from: 0, until: u32::MAX, tick: 0 }
    }
}

/// What became of a message that is to end, or to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It did.
    Done,
    /// A node holds it.
    Leased,
    /// The store has it no more, or not its arguments.
    Gone,
}

/// What a store can do with the rows of workflows. Each call is part of the operation's transaction.
pub trait Joins {
    /// What ends an operation.
    type Stop: From<Fault>;

    /// A workflow by its id.
    fn flow_of(&mut self, id: &MessageId) -> Result<Option<Flow>, Self::Stop>;
    /// A workflow by the store's number.
    fn flow_at(&mut self, key: i64) -> Result<Option<Flow>, Self::Stop>;
    /// Stores a new workflow with all its steps ([`first_row`]); its number.
    fn new_flow(&mut self, flow: &Flow, workflow: &Workflow) -> Result<i64, Self::Stop>;
    /// Writes a workflow's own row.
    fn put_flow(&mut self, flow: &Flow) -> Result<(), Self::Stop>;
    /// A workflow of so many steps is over, or is not any more.
    fn over(&mut self, steps: u32, over: bool);
    /// The first workflow with [`Work`].
    fn first_busy(&mut self) -> Result<Option<i64>, Self::Stop>;
    /// A step.
    fn row(&mut self, key: i64, no: u32) -> Result<Option<Row>, Self::Stop>;
    /// Writes a step; its result too, where one is given.
    fn put_row(&mut self, key: i64, row: &Row, result: Option<&Value>) -> Result<(), Self::Stop>;
    /// Steps from a number on.
    fn page(&mut self, key: i64, from: u32, limit: u32, sinks: bool) -> Result<Vec<Listed>, Self::Stop>;
    /// The id of a step's message.
    fn step_id(&mut self, key: i64, no: u32) -> Result<MessageId, Self::Stop>;
    /// Steps after this one, in order, within bounds.
    fn targets(&mut self, key: i64, work: &Work, limit: usize) -> Result<Vec<u32>, Self::Stop>;
    /// A step as it was launched; absent for one without steps before it.
    fn plan(&mut self, key: i64, no: u32) -> Result<Option<Step>, Self::Stop>;
    /// The result of a step that ended, and how long it is as JSON.
    fn result(&mut self, key: i64, no: u32) -> Result<(Value, usize), Self::Stop>;
    /// Forgets the results of these steps where no other step will be given them.
    fn spend(&mut self, key: i64, sources: &[u32]) -> Result<(), Self::Stop>;
    /// Adds work behind all other.
    fn push_work(&mut self, key: i64, work: &Work) -> Result<(), Self::Stop>;
    /// The first work, with its place.
    fn first_work(&mut self, key: i64) -> Result<Option<(i64, Work)>, Self::Stop>;
    /// Writes work at a place, or removes what is there.
    fn set_work(&mut self, key: i64, place: i64, work: Option<&Work>) -> Result<(), Self::Stop>;
    /// The place of the work that tells the end of this step.
    fn end_work(&mut self, key: i64, source: u32) -> Result<Option<(i64, Work)>, Self::Stop>;
    /// Stores a message; false: its id is known.
    fn publish(&mut self, message: &Message, now: Wall) -> Result<bool, Self::Stop>;
    /// Tells a stored message which step it is.
    fn adopt(&mut self, id: &MessageId, step: (i64, u32)) -> Result<(), Self::Stop>;
    /// What is known of an id.
    fn known(&mut self, id: &MessageId) -> Result<Option<Record>, Self::Stop>;
    /// Records the end of a message that never was published, unless its id is known.
    fn put_ended(
        &mut self,
        message: &Message,
        end: (State, &Outcome),
        now: Wall,
        keep_ms: u64,
    ) -> Result<(), Self::Stop>;
    /// Forgets such a record.
    fn drop_ended(&mut self, id: &MessageId) -> Result<(), Self::Stop>;
    /// Ends a message that no node holds.
    fn end_open(&mut self, id: &MessageId, now: Wall) -> Result<Became, Self::Stop>;
    /// Gives a message that is final a new life.
    fn renew(&mut self, id: &MessageId, now: Wall) -> Result<Became, Self::Stop>;
    /// What the operation did beside.
    fn fallout(&mut self) -> &mut Fallout;
}

/// A step as it is stored at first: published where it comes after nothing.
#[must_use]
pub fn first_row(no: u32, step: &Step) -> Row {
    let root = step.after.is_empty();
    Row {
        no,
        stage: if root { Stage::Published } else { Stage::Pending },
        born: root,
        pending: u32::try_from(step.after.len()).unwrap_or(u32::MAX),
        opened: 0,
        when: step.when,
        on_error: step.on_error,
        passes: step.message.step.as_ref().is_some_and(|s| s.passes),
        sink: step.sink,
    }
}

/// What the end of a step means to one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Count,
    Fail,
    Skip,
    Fire,
}

const fn effect(row: &Row, source: Stage) -> Effect {
    match (row.when, row.on_error) {
        (When::Success, OnError::Continue) => Effect::Count,
        (When::Success, OnError::Fail) if source.is_failure() => Effect::Fail,
        (When::Success, OnError::Fail) if matches!(source, Stage::Skipped) => Effect::Skip,
        (When::Failure, _) if source.is_failure() => Effect::Fire,
        (When::Success | When::Failure, _) => Effect::Count,
    }
}

/// A workflow under change, and what is still to be told.
struct Run {
    flow: Flow,
    queue: VecDeque<Work>,
    /// What is being told just now, from the next step on.
    current: Option<Work>,
    /// The step that ended, so that it is not read again.
    ended: Option<(u32, Stage)>,
    now: Wall,
}

impl Run {
    fn new(flow: Flow, now: Wall) -> Self {
        Self { flow, queue: VecDeque::new(), current: None, ended: None, now }
    }

    fn add<J: Joins>(&mut self, j: &mut J, work: Work) -> Result<(), J::Stop> {
        if self.flow.busy {
            return j.push_work(self.flow.key, &work);
        }
        self.queue.push_back(work);
        Ok(())
    }

    /// Tells what is to be told, within the budget, and writes the workflow.
    fn go<J: Joins>(mut self, j: &mut J, budget: &mut usize) -> Result<Flow, J::Stop> {
        loop {
            let (place, work) = if let Some(work) = self.queue.pop_front() {
                (None, work)
            } else if self.flow.busy {
                match j.first_work(self.flow.key)? {
                    Some((place, work)) => (Some(place), work),
                    None => {
                        self.flow.busy = false;
                        break;
                    }
                }
            } else {
                break;
            };
            if *budget == 0 {
                if place.is_none() {
                    for work in std::iter::once(work).chain(self.queue.drain(..)) {
                        j.push_work(self.flow.key, &work)?;
                    }
                    self.flow.busy = true;
                }
                j.fallout().more = true;
                break;
            }
            self.tell(j, place, work, budget)?;
        }
        self.write(j)
    }

    /// Tells one piece of work, or a part of it.
    fn tell<J: Joins>(
        &mut self,
        j: &mut J,
        place: Option<i64>,
        mut work: Work,
        budget: &mut usize,
    ) -> Result<(), J::Stop> {
        let key = self.flow.key;
        let limit = *budget;
        let targets = j.targets(key, &work, limit)?;
        *budget -= targets.len().max(1).min(limit);
        let stage = match self.ended.take().filter(|(no, _)| *no == work.source) {
            Some((_, stage)) => stage,
            None => j.row(key, work.source)?.map(|r| r.stage).unwrap_or_default(),
        };
        let whole = targets.len() < limit;
        if let Some(place) = place {
            // Looked up below by what is left of it, so it is taken out of the store while it is told.
            j.set_work(key, place, None)?;
        }
        for target in targets {
            work.from = target.saturating_add(1);
            self.current = Some(work);
            if work.revive {
                self.revive(j, &work, target)?;
            } else {
                self.arrive(j, work.source, stage, target)?;
            }
            // Its step may have been opened again meanwhile: then there is no end to tell any more.
            let Some(left) = self.current.take() else { return Ok(()) };
            work = left;
        }
        if !whole {
            // Before all that was added meanwhile.
            match place {
                Some(place) => j.set_work(key, place, Some(&work))?,
                None => self.queue.push_front(work),
            }
        }
        Ok(())
    }

    /// Writes the workflow; it may be over now.
    fn write<J: Joins>(mut self, j: &mut J) -> Result<Flow, J::Stop> {
        let head = &mut self.flow.head;
        if head.open == 0 && head.finished.is_none() {
            head.finished = Some(self.now);
            self.flow.expires = Some(self.now.plus(self.flow.keep_ms.max(rules::ID_KEPT_MS)));
            let over = (head.id.clone(), head.state());
            j.fallout().over.push(over);
            j.over(head.steps, true);
        }
        j.put_flow(&self.flow)?;
        Ok(self.flow)
    }

    /// The end of `source` is told to `target`.
    fn arrive<J: Joins>(&mut self, j: &mut J, source: u32, stage: Stage, target: u32) -> Result<(), J::Stop> {
        let Some(mut row) = j.row(self.flow.key, target)?.filter(|r| r.stage == Stage::Pending) else {
            return Ok(());
        };
        if self.flow.head.canceled {
            return self.conclude(j, row, State::Revoked, &rules::revoked());
        }
        match effect(&row, stage) {
            Effect::Count => {
                row.pending = row.pending.saturating_sub(1);
                if row.pending == 0 { self.due(j, row) } else { j.put_row(self.flow.key, &row, None) }
            }
            Effect::Fail => self.fail(j, row, source, stage),
            Effect::Skip => self.skip(j, row),
            Effect::Fire => self.fire(j, row, source),
        }
    }

    /// A step fails because `source` did.
    fn fail<J: Joins>(&mut self, j: &mut J, row: Row, source: u32, stage: Stage) -> Result<(), J::Stop> {
        let outcome = self.upstream(j, source, stage)?;
        self.conclude(j, row, State::Failure, &outcome)
    }

    fn upstream<J: Joins>(&self, j: &mut J, source: u32, stage: Stage) -> Result<Outcome, J::Stop> {
        let state = if let Stage::Ended(state) = stage { state } else { State::Failure };
        Ok(workflow::upstream(&j.step_id(self.flow.key, source)?, source, state))
    }

    /// A step that waits for a failure runs because of `source`.
    fn fire<J: Joins>(&mut self, j: &mut J, row: Row, source: u32) -> Result<(), J::Stop> {
        let Some(step) = j.plan(self.flow.key, row.no)? else { return self.lost(j, row) };
        let id = j.step_id(self.flow.key, source)?;
        let given = (!step.immutable).then(|| Value::String(id.0));
        self.publish(j, row, &step, given)
    }

    /// All steps before it were told.
    fn due<J: Joins>(&mut self, j: &mut J, row: Row) -> Result<(), J::Stop> {
        if row.when == When::Failure {
            return self.skip(j, row);
        }
        let key = self.flow.key;
        let Some(step) = j.plan(key, row.no)? else { return self.lost(j, row) };
        let mut given = None;
        if step.takes_results() {
            let (mut list, mut size) = (Vec::with_capacity(step.after.len()), 0_usize);
            for source in &step.after {
                let (value, length) = j.result(key, *source)?;
                size = size.saturating_add(length);
                if size > MAX_BYTES {
                    return self.conclude(j, row, State::Failure, &workflow::too_large());
                }
                list.push(value);
            }
            given = if step.takes_list() { Some(Value::Array(list)) } else { list.pop() };
            j.spend(key, &step.after)?;
        }
        self.publish(j, row, &step, given)
    }

    /// What was launched cannot be read any more.
    fn lost<J: Joins>(&mut self, j: &mut J, row: Row) -> Result<(), J::Stop> {
        let outcome = Outcome::of_cause(Cause::Rejected, "the store has no definition of this step");
        self.conclude(j, row, State::Failure, &outcome)
    }

    fn publish<J: Joins>(
        &mut self,
        j: &mut J,
        mut row: Row,
        step: &Step,
        given: Option<Value>,
    ) -> Result<(), J::Stop> {
        let message = match step.call(self.now, given) {
            Ok(message) => message,
            Err(outcome) => return self.conclude(j, row, State::Failure, &outcome),
        };
        row.pending = 0;
        if j.publish(&message, self.now)? {
            (row.stage, row.born) = (Stage::Published, true);
            j.fallout().published(&message);
            return j.put_row(self.flow.key, &row, None);
        }
        match j.known(&message.id)?.filter(|r| r.message.step == message.step) {
            // It ran in an earlier life of this workflow, which was forgotten before its ids.
            Some(record) if record.state.is_final() => {
                row.born = true;
                self.over(&mut row, Stage::Ended(record.state));
                let result = record.outcome.and_then(|o| o.result);
                j.put_row(self.flow.key, &row, result.as_ref())?;
                self.add(j, Work::end_of(row.no))
            }
            Some(_) => {
                (row.stage, row.born) = (Stage::Published, true);
                j.adopt(&message.id, (self.flow.key, row.no))?;
                j.put_row(self.flow.key, &row, None)
            }
            None => {
                let why = format!("another message has the id {} of this step", message.id);
                self.conclude(j, row, State::Failure, &Outcome::of_cause(Cause::Rejected, why))
            }
        }
    }

    fn over(&mut self, row: &mut Row, stage: Stage) {
        row.stage = stage;
        let head = &mut self.flow.head;
        head.open = head.open.saturating_sub(1);
        head.failed += u32::from(stage.is_failure());
        head.lost += u32::from(stage.is_failure() && row.sink);
    }

    fn open<J: Joins>(&mut self, j: &mut J, row: &mut Row, stage: Stage) {
        let head = &mut self.flow.head;
        if head.finished.is_some() {
            j.over(head.steps, false);
        }
        head.open += 1;
        head.failed = head.failed.saturating_sub(u32::from(row.stage.is_failure()));
        head.lost = head.lost.saturating_sub(u32::from(row.stage.is_failure() && row.sink));
        head.finished = None;
        self.flow.expires = None;
        self.flow.tick = self.flow.tick.saturating_add(1);
        row.stage = stage;
        row.opened = self.flow.tick;
    }

    /// Ends a step that did not run.
    fn conclude<J: Joins>(
        &mut self,
        j: &mut J,
        mut row: Row,
        state: State,
        outcome: &Outcome,
    ) -> Result<(), J::Stop> {
        let key = self.flow.key;
        (row.born, row.pending) = (false, 0);
        self.over(&mut row, Stage::Ended(state));
        j.put_row(key, &row, None)?;
        self.record(j, row.no, state, outcome)?;
        let id = j.step_id(key, row.no)?;
        j.fallout().ended.push((id, state));
        // Of a canceled workflow every step is ended, whatever its place.
        if self.flow.head.canceled { Ok(()) } else { self.add(j, Work::end_of(row.no)) }
    }

    /// Keeps how a step ended that did not run, for whoever asks for it by its id.
    fn record<J: Joins>(&self, j: &mut J, no: u32, state: State, outcome: &Outcome) -> Result<(), J::Stop> {
        let Some(step) = j.plan(self.flow.key, no)? else { return Ok(()) };
        let message = Message { enqueued: self.flow.head.launched, ..step.message };
        j.put_ended(&message, (state, outcome), self.now, self.flow.keep_ms)
    }

    fn skip<J: Joins>(&mut self, j: &mut J, mut row: Row) -> Result<(), J::Stop> {
        row.pending = 0;
        self.over(&mut row, Stage::Skipped);
        j.put_row(self.flow.key, &row, None)?;
        self.add(j, Work::end_of(row.no))
    }

    /// `target` comes after a step that begins anew.
    fn revive<J: Joins>(&mut self, j: &mut J, work: &Work, target: u32) -> Result<(), J::Stop> {
        let Some(mut row) = j.row(self.flow.key, target)? else { return Ok(()) };
        if row.stage == Stage::Pending {
            // What was opened later was counted when it was: it saw the other one open.
            if work.tick > row.opened {
                row.pending += 1;
                j.put_row(self.flow.key, &row, None)?;
            }
            return Ok(());
        }
        if self.flow.head.canceled { Ok(()) } else { self.reopen(j, row) }
    }

    /// Opens a step again that is over and did not run, unless nothing changed for it.
    fn reopen<J: Joins>(&mut self, j: &mut J, mut row: Row) -> Result<(), J::Stop> {
        let key = self.flow.key;
        if row.born || !row.stage.is_over() {
            return Ok(());
        }
        let Some(step) = j.plan(key, row.no)? else { return Ok(()) };
        let (mut pending, mut decided) = (0, None);
        for source in &step.after {
            let stage = j.row(key, *source)?.map(|r| r.stage).unwrap_or_default();
            if !stage.is_over() || self.is_untold(j, *source, row.no)? {
                pending += 1;
                continue;
            }
            let effect = effect(&row, stage);
            if effect != Effect::Count && decided.is_none() {
                decided = Some((effect, *source, stage));
            }
        }
        let never = row.when == When::Failure && pending == 0 && decided.is_none();
        match (decided, row.stage) {
            (Some((Effect::Fail, source, stage)), Stage::Ended(State::Failure)) => {
                // Another one is the reason now.
                j.drop_ended(&step.message.id)?;
                let outcome = self.upstream(j, source, stage)?;
                self.record(j, row.no, State::Failure, &outcome)?;
                return Ok(());
            }
            (Some((Effect::Skip, ..)), Stage::Skipped) => return Ok(()),
            (None, Stage::Skipped) if never => return Ok(()),
            _ => {}
        }
        j.drop_ended(&step.message.id)?;
        self.open(j, &mut row, Stage::Pending);
        row.pending = pending;
        j.put_row(key, &row, None)?;
        self.untell(j, &row)?;
        match decided {
            Some((Effect::Fail, source, stage)) => self.fail(j, row, source, stage)?,
            Some((Effect::Skip, ..)) => self.skip(j, row)?,
            Some((Effect::Fire, source, _)) => self.fire(j, row, source)?,
            _ if pending == 0 => self.due(j, row)?,
            _ => {}
        }
        Ok(())
    }

    /// Takes the end of a step back from those that were told of it.
    fn untell<J: Joins>(&mut self, j: &mut J, row: &Row) -> Result<(), J::Stop> {
        let is_end = |w: &Work| w.source == row.no && !w.revive;
        let mut until = u32::MAX;
        if let Some(work) = self.current.filter(is_end) {
            until = work.from;
            self.current = None;
        } else if let Some(at) = self.queue.iter().position(is_end) {
            until = self.queue.remove(at).map_or(until, |w| w.from);
        } else if self.flow.busy
            && let Some((place, work)) = j.end_work(self.flow.key, row.no)?
        {
            until = work.from;
            j.set_work(self.flow.key, place, None)?;
        }
        if until == 0 {
            return Ok(());
        }
        self.add(j, Work { source: row.no, revive: true, from: 0, until, tick: row.opened })
    }

    /// Whether the end of `source` is still to be told to `target`.
    fn is_untold<J: Joins>(&self, j: &mut J, source: u32, target: u32) -> Result<bool, J::Stop> {
        let is_it = |w: &Work| w.source == source && !w.revive && w.from <= target;
        if self.current.iter().chain(&self.queue).any(is_it) {
            return Ok(true);
        }
        Ok(self.flow.busy && j.end_work(self.flow.key, source)?.is_some_and(|(_, w)| is_it(&w)))
    }
}

/// Stores a workflow and publishes its first steps. What is there already, where the id is known.
///
/// # Errors
/// The store's; a list of steps that is no workflow.
pub fn launch<J: Joins>(j: &mut J, workflow: &Workflow, now: Wall) -> Result<Option<Head>, J::Stop> {
    workflow::check(&workflow.steps).map_err(|e| Fault::Refused(e.to_string()))?;
    if let Some(flow) = j.flow_of(&workflow.id)? {
        return Ok(Some(flow.head));
    }
    let steps = u32::try_from(workflow.steps.len()).unwrap_or(u32::MAX);
    let head = Head {
        id: workflow.id.clone(),
        name: workflow.name.clone(),
        uid: workflow.uid,
        launched: now,
        steps,
        open: steps,
        ..Head::default()
    };
    let mut flow = Flow { head, keep_ms: workflow.keep_ms, ..Flow::default() };
    flow.key = j.new_flow(&flow, workflow)?;
    let mut run = Run::new(flow, now);
    for (no, step) in (0_u32..).zip(&workflow.steps).filter(|(_, s)| s.after.is_empty()) {
        // It is stored as published.
        match step.call(now, None) {
            Ok(message) if j.publish(&message, now)? => j.fallout().published(&message),
            _ => {
                if let Some(row) = j.row(run.flow.key, no)? {
                    run.publish(j, Row { stage: Stage::Pending, ..row }, step, None)?;
                }
            }
        }
    }
    run.go(j, &mut { TOLD })?;
    Ok(None)
}

/// A step's message is final.
///
/// # Errors
/// The store's.
pub fn ended<J: Joins>(
    j: &mut J,
    (key, no): (i64, u32),
    state: State,
    result: Option<&Value>,
    now: Wall,
) -> Result<(), J::Stop> {
    let Some(flow) = j.flow_at(key)? else { return Ok(()) };
    let Some(mut row) = j.row(key, no)?.filter(|r| r.stage == Stage::Published) else { return Ok(()) };
    let mut run = Run::new(flow, now);
    run.over(&mut row, Stage::Ended(state));
    j.put_row(key, &row, result.filter(|_| row.passes && state == State::Success))?;
    run.ended = Some((no, row.stage));
    run.add(j, Work::end_of(no))?;
    run.go(j, &mut { TOLD }).map(drop)
}

/// Whether a message of this step that is final may be given a new life.
///
/// # Errors
/// The store's; a step that never ran has no life to repeat.
pub fn may_renew<J: Joins>(j: &mut J, message: &Message) -> Result<(), J::Stop> {
    let Some(step) = &message.step else { return Ok(()) };
    let Some(flow) = j.flow_of(&step.workflow)? else { return Ok(()) };
    match j.row(flow.key, step.no)? {
        Some(row) if !row.born => Err(Fault::Refused(format!(
            "{} never ran: it is step {} of workflow {}; retry that, or the step before it that failed",
            message.id, step.no, step.workflow
        ))
        .into()),
        _ => Ok(()),
    }
}

/// A step's message was given a new life.
///
/// # Errors
/// The store's.
pub fn renewed<J: Joins>(j: &mut J, message: &Message, now: Wall) -> Result<(), J::Stop> {
    let Some(step) = &message.step else { return Ok(()) };
    let Some(flow) = j.flow_of(&step.workflow)? else { return Ok(()) };
    let Some(mut row) = j.row(flow.key, step.no)?.filter(|r| r.stage.is_over()) else { return Ok(()) };
    let mut run = Run::new(flow, now);
    run.open(j, &mut row, Stage::Published);
    j.put_row(run.flow.key, &row, None)?;
    run.untell(j, &row)?;
    run.go(j, &mut { TOLD }).map(drop)
}

/// Whether workflows of which so many steps are over are too many for `count` records: the oldest is forgotten.
#[must_use]
pub const fn too_many(steps: u64, count: u64) -> bool {
    steps > count.saturating_mul(rules::IDS_PER_RECORD)
}

/// Goes on with what operations left.
///
/// # Errors
/// The store's.
pub fn sweep<J: Joins>(j: &mut J, now: Wall, left: &mut usize) -> Result<(), J::Stop> {
    while *left > 0
        && let Some(key) = j.first_busy()?
        && let Some(flow) = j.flow_at(key)?
    {
        Run::new(flow, now).go(j, left)?;
    }
    Ok(())
}

/// Ends a part of a workflow.
///
/// # Errors
/// The store's.
pub fn cancel<J: Joins>(j: &mut J, id: &MessageId, from: u32, now: Wall) -> Result<Flowed, J::Stop> {
    let mut done = Flowed::default();
    let Some(mut flow) = j.flow_of(id)? else { return Ok(done) };
    let open = flow.head.open;
    if open > 0 {
        flow.head.canceled = true;
        j.put_flow(&flow)?;
        let rows = j.page(flow.key, from, PART, false)?;
        done.next = after_page(&rows);
        for listed in rows {
            match listed.row.stage {
                Stage::Pending => {
                    // Read anew: the end of another step of this part may have ended it.
                    let Some(row) = j.row(flow.key, listed.row.no)?.filter(|r| r.stage == Stage::Pending)
                    else {
                        continue;
                    };
                    let mut run = Run::new(flow, now);
                    run.conclude(j, row, State::Revoked, &rules::revoked())?;
                    flow = run.flow;
                }
                Stage::Published => {
                    j.put_flow(&flow)?;
                    match j.end_open(&listed.id, now)? {
                        Became::Leased => done.leased.push(listed.id),
                        Became::Done | Became::Gone => {}
                    }
                    flow = j.flow_at(flow.key)?.unwrap_or(flow);
                }
                Stage::Ended(_) | Stage::Skipped => {}
            }
        }
        flow = Run::new(flow, now).write(j)?;
    }
    done.steps = open.saturating_sub(flow.head.open);
    done.head = Some(Box::new(flow.head));
    Ok(done)
}

/// Begins a part of a workflow anew.
///
/// # Errors
/// The store's.
pub fn retry<J: Joins>(j: &mut J, id: &MessageId, from: u32, now: Wall) -> Result<Flowed, J::Stop> {
    let mut done = Flowed::default();
    let Some(mut flow) = j.flow_of(id)? else { return Ok(done) };
    let mut budget = TOLD;
    if flow.busy {
        // What is still to be told decides what is to begin anew.
        flow = Run::new(flow, now).go(j, &mut budget)?;
        if flow.busy {
            done.next = Some(from);
            done.head = Some(Box::new(flow.head));
            return Ok(done);
        }
    }
    flow.head.canceled = false;
    let open = flow.head.open;
    let rows = j.page(flow.key, from, PART, false)?;
    done.next = after_page(&rows);
    j.put_flow(&flow)?;
    for listed in rows {
        // Read anew: a step before it may have opened it.
        let Some(row) = j.row(flow.key, listed.row.no)?.filter(|r| r.stage.is_over()) else { continue };
        if row.born && row.stage.is_failure() {
            done.gone += u32::from(j.renew(&listed.id, now)? != Became::Done);
        } else if !row.born {
            let mut run = Run::new(flow.clone(), now);
            run.reopen(j, row)?;
            run.go(j, &mut budget)?;
        }
        flow = j.flow_at(flow.key)?.unwrap_or(flow);
    }
    done.steps = flow.head.open.saturating_sub(open);
    done.head = Some(Box::new(flow.head));
    Ok(done)
}

fn after_page(rows: &[Listed]) -> Option<u32> {
    let full = rows.len() >= PART as usize;
    rows.last().filter(|_| full).map(|l| l.row.no.saturating_add(1))
}

/// Answers with a part of a workflow.
///
/// # Errors
/// The store's.
pub fn look<J: Joins>(j: &mut J, look: &Look) -> Result<Option<Seen>, J::Stop> {
    let Some(flow) = j.flow_of(&look.id)? else { return Ok(None) };
    let limit = look.limit.clamp(1, if look.results { MAX_RESULTS } else { MAX_LOOK });
    let rows = j.page(flow.key, look.from, limit, look.results)?;
    let next = rows.last().filter(|_| rows.len() >= limit as usize).map(|l| l.row.no.saturating_add(1));
    let mut steps = Vec::with_capacity(rows.len());
    for Listed { row, id, name, task } in rows {
        let wanted = row.stage == Stage::Published || look.results;
        let record = if wanted { j.known(&id)? } else { None };
        let state = record.as_ref().map(|r| r.state).filter(|_| row.stage == Stage::Published);
        let outcome = record.and_then(|r| r.outcome).filter(|_| look.results);
        let after = j.plan(flow.key, row.no)?.map(|s| s.after).unwrap_or_default();
        steps.push(StepSeen {
            no: row.no,
            id,
            name,
            task,
            after,
            when: row.when,
            stage: row.stage,
            state,
            outcome,
        });
    }
    Ok(Some(Seen { head: flow.head, steps, next }))
}
