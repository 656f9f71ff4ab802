//! How the steps of workflows follow one another, for every store alike.
//!
//! A step that ended is *told* to each step after it. A told end lowers a counter, and at zero the step's message is
//! published, in the transaction of the end: a join cannot hang and cannot fire twice. An operation tells at
//! most [`TOLD`] ends; what is left stands in the store as [`Work`], and a sweep goes on with it.
//!
//! A step that is given a new life is *revived* towards the steps after it in the same way: those that failed or
//! were skipped without having run are opened again, those that still wait count it once more.

mod run;

use serde_json::Value;

use run::Run;

use super::rules;
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Flowed};
use crate::model::outcome::Outcome;
use crate::model::schedule::Fired;
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
    /// A workflow that a schedule launched has an open step, for the first time or again.
    fn fire_begins(&mut self, flow: &Flow) -> Result<(), Self::Stop>;
    /// A workflow that a schedule launched is over, with what follows from that for its schedule.
    fn fire_ends(&mut self, flow: &Flow, now: Wall) -> Result<(), Self::Stop>;
    /// The next workflow that waits no longer for what its schedule fired before, and since when.
    fn released(&mut self) -> Option<(i64, Wall)>;
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
    /// A step as it was launched; absent for one that was published at once.
    fn plan(&mut self, key: i64, no: u32) -> Result<Option<Step>, Self::Stop>;
    /// The result of a step that ended, if it has one, and how long it is as JSON.
    fn result(&mut self, key: i64, no: u32) -> Result<Option<(Value, usize)>, Self::Stop>;
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

/// A step as it is stored at first: published where it comes after nothing, unless all of it is held.
#[must_use]
pub fn first_row(no: u32, step: &Step, held: bool) -> Row {
    let born = step.after.is_empty() && !held;
    Row {
        no,
        stage: if born { Stage::Published } else { Stage::Pending },
        born,
        pending: u32::try_from(step.after.len()).unwrap_or(u32::MAX),
        opened: 0,
        when: step.when,
        on_error: step.on_error,
        passes: step.message.step.as_ref().is_some_and(|s| s.passes),
        sink: step.sink,
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
        held: workflow.fired.as_ref().is_some_and(|f| f.held),
        fired: workflow.fired.clone().map(|f| Fired { held: false, ..f }),
        ..Head::default()
    };
    let mut flow = Flow { head, keep_ms: workflow.keep_ms, ..Flow::default() };
    flow.key = j.new_flow(&flow, workflow)?;
    j.fire_begins(&flow)?;
    if flow.head.held {
        return Ok(None);
    }
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

/// Publishes the first steps of every workflow that waits no longer for what its schedule fired before. What ended
/// says so within its operation; this is the end of that operation.
///
/// # Errors
/// The store's.
pub fn release<J: Joins>(j: &mut J) -> Result<(), J::Stop> {
    while let Some((key, now)) = j.released() {
        let Some(mut flow) = j.flow_at(key)? else { continue };
        flow.head.held = false;
        let (canceled, mut from) = (flow.head.canceled, Some(0));
        let mut run = Run::new(flow, now);
        // Of a canceled one every step is ended, whatever its place, by whoever cancels it.
        while let Some(no) = from.filter(|_| !canceled) {
            let rows = j.page(key, no, PART, false)?;
            from = after_page(&rows);
            for Listed { row, .. } in rows {
                if row.stage == Stage::Pending && row.pending == 0 {
                    run.due(j, row)?;
                }
            }
        }
        run.go(j, &mut { TOLD })?;
    }
    Ok(())
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
        Some(row) if !row.born => {
            Err(Fault::Refused(rules::never_ran(&message.id, step.no, &step.workflow)).into())
        }
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
    run.open(j, &mut row, Stage::Published)?;
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
