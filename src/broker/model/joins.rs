//! The rows of workflows in the model.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::Model;
use super::shelf::Row as Life;
use crate::broker::admission::{self, Verdict};
use crate::broker::joins::{self, Became, Flow, Joins, Listed, Row, Work};
use crate::broker::rules;
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{Fallout, Head, Step, Workflow};

/// Every workflow.
#[derive(Clone, Debug, Default)]
pub(super) struct Flows {
    flows: BTreeMap<i64, (Flow, Vec<Held>)>,
    ids: BTreeMap<MessageId, i64>,
    work: BTreeMap<i64, (i64, Work)>,
    /// What is not over, by the schedule that launched it and its place among what that fired.
    fires: BTreeMap<String, BTreeMap<u64, i64>>,
    /// See [`Joins::released`].
    released: VecDeque<(i64, Wall)>,
    last_flow: i64,
    last_work: i64,
    pub(super) fallout: Fallout,
}

#[derive(Clone, Debug)]
struct Held {
    row: Row,
    step: Step,
    result: Option<Value>,
    targets: Vec<u32>,
    /// It was not published at once.
    planned: bool,
}

impl Flows {
    /// What is not over of a schedule, each with its place.
    pub(super) fn of_schedule(&self, name: &str) -> impl Iterator<Item = (u64, &Flow)> {
        let of = self.fires.get(name).into_iter().flatten();
        of.filter_map(|(seq, key)| Some((*seq, &self.flows.get(key)?.0)))
    }

    /// It waits no longer for what its schedule fired before.
    pub(super) fn release(&mut self, key: i64, now: Wall) {
        if let Some((flow, _)) = self.flows.get_mut(&key) {
            flow.head.held = false;
            self.released.push_back((key, now));
        }
    }

    fn step(&self, key: i64, no: u32) -> Option<&Held> {
        self.flows.get(&key)?.1.get(no as usize)
    }

    fn step_mut(&mut self, key: i64, no: u32) -> Option<&mut Held> {
        self.flows.get_mut(&key)?.1.get_mut(no as usize)
    }

    /// The workflow of this id.
    pub(super) fn head(&self, id: &MessageId) -> Option<&Head> {
        self.flows.get(self.ids.get(id)?).map(|(flow, _)| &flow.head)
    }

    /// Every workflow that is not being forgotten.
    pub(super) fn all(&self) -> impl Iterator<Item = &Flow> {
        self.ids.values().filter_map(|key| self.flows.get(key)).map(|(flow, _)| flow)
    }

    /// The next one to forget.
    fn outlived(&self, now: Wall, count: u64) -> Option<i64> {
        let over = self.flows.values().filter_map(|(f, steps)| Some((f.expires?, f.key, steps.len())));
        let spent: u64 = over.clone().map(|(.., n)| n as u64).sum();
        let (at, key, _) = over.min()?;
        (at <= now || joins::too_many(spent, count)).then_some(key)
    }

    /// Forgets steps of what is over and outlived.
    pub(super) fn forget(&mut self, now: Wall, count: u64, left: &mut usize) {
        while *left > 0
            && let Some(key) = self.outlived(now, count)
            && let Some((flow, steps)) = self.flows.get_mut(&key)
        {
            self.ids.remove(&flow.head.id);
            let n = steps.len().min(*left);
            steps.truncate(steps.len() - n);
            *left -= n;
            if steps.is_empty() {
                self.flows.remove(&key);
            }
        }
    }
}

impl Model {
    /// Brings a row back whose life is over without a result, and does what follows.
    pub(super) fn finished(&mut self, life: Life, now: Wall) -> Result<(), Fault> {
        self.finished_with(life, None, now)
    }

    /// The same with a result, which the record may lack.
    pub(super) fn finished_with(
        &mut self,
        life: Life,
        result: Option<Value>,
        now: Wall,
    ) -> Result<(), Fault> {
        let record = &life.record;
        let step = record.message.step.clone();
        let key = step.as_ref().and_then(|s| self.flows.ids.get(&s.workflow)).copied();
        let state = record.state;
        self.put_finished(life, now);
        match (key, step) {
            (Some(key), Some(step)) => joins::ended(self, (key, step.no), state, result.as_ref(), now),
            _ => Ok(()),
        }
    }

    pub(super) fn launch(
        &mut self,
        workflow: &Workflow,
        max_length: &BTreeMap<String, u64>,
        now: Wall,
    ) -> Result<Reply, Fault> {
        let mut linked = None;
        if let Some(first) = workflow.steps.first().filter(|_| workflow.linked) {
            let verdict = match self.admitted(std::slice::from_ref(&first.message), &[], now) {
                Ok(mut verdicts) => verdicts.pop(),
                Err(reply) => return Ok(reply),
            };
            if let Some(known) = verdict.as_ref().and_then(|v| self.not_stored(&first.message.id, v)) {
                return Ok(Reply::Published(vec![known]));
            }
            linked = verdict;
        }
        if let Some(head) = self.flows.head(&workflow.id) {
            return Ok(Reply::Launched(Some(Box::new(head.clone()))));
        }
        if let Some(row) = self.shelf.get(&workflow.id) {
            return Ok(Reply::Record(Some(Box::new(row.record.clone()))));
        }
        if let Some(full) = self.no_room(workflow, max_length) {
            return Ok(full);
        }
        let known = joins::launch(self, workflow, now)?;
        Ok(match linked {
            Some(Verdict::Stored(ends)) => Reply::Published(vec![admission::stored(ends)]),
            _ => Reply::Launched(known.map(Box::new)),
        })
    }

    /// Every workflow: for tests that look at all of them.
    pub fn workflows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.all()
    }
}

impl Joins for Model {
    type Stop = Fault;

    fn flow_of(&mut self, id: &MessageId) -> Result<Option<Flow>, Fault> {
        let key = self.flows.ids.get(id).copied();
        key.map_or(Ok(None), |key| self.flow_at(key))
    }

    fn flow_at(&mut self, key: i64) -> Result<Option<Flow>, Fault> {
        Ok(self.flows.flows.get(&key).map(|(flow, _)| flow.clone()))
    }

    fn new_flow(&mut self, flow: &Flow, workflow: &Workflow) -> Result<i64, Fault> {
        self.flows.last_flow += 1;
        let key = self.flows.last_flow;
        let held = |(no, step): (u32, &Step)| Held {
            row: joins::first_row(no, step, flow.head.held),
            planned: flow.head.held || !step.after.is_empty(),
            step: step.clone(),
            result: None,
            targets: Vec::new(),
        };
        let mut steps: Vec<Held> = (0_u32..).zip(&workflow.steps).map(held).collect();
        for (no, step) in (0_u32..).zip(&workflow.steps) {
            for source in &step.after {
                if let Some(held) = steps.get_mut(*source as usize) {
                    held.targets.push(no);
                }
            }
        }
        self.flows.ids.insert(workflow.id.clone(), key);
        self.flows.flows.insert(key, (Flow { key, ..flow.clone() }, steps));
        Ok(key)
    }

    fn put_flow(&mut self, flow: &Flow) -> Result<(), Fault> {
        if let Some((there, _)) = self.flows.flows.get_mut(&flow.key) {
            there.clone_from(flow);
        }
        Ok(())
    }

    fn over(&mut self, _: u32, _: bool) {
        // Counted when it is asked for.
    }

    fn fire_begins(&mut self, flow: &Flow) -> Result<(), Fault> {
        if let Some(fired) = &flow.head.fired {
            self.seq += 1;
            self.flows.fires.entry(fired.schedule.clone()).or_default().insert(self.seq, flow.key);
        }
        Ok(())
    }

    fn fire_ends(&mut self, flow: &Flow, now: Wall) -> Result<(), Fault> {
        let head = &flow.head;
        let Some(fired) = &head.fired else { return Ok(()) };
        if let Some(of) = self.flows.fires.get_mut(&fired.schedule) {
            of.retain(|_, key| *key != flow.key);
        }
        self.fire_over(&fired.schedule, &head.id, head.state(), now);
        Ok(())
    }

    fn released(&mut self) -> Option<(i64, Wall)> {
        self.flows.released.pop_front()
    }

    fn first_busy(&mut self) -> Result<Option<i64>, Fault> {
        Ok(self.flows.flows.values().find(|(flow, _)| flow.busy).map(|(flow, _)| flow.key))
    }

    fn row(&mut self, key: i64, no: u32) -> Result<Option<Row>, Fault> {
        Ok(self.flows.step(key, no).map(|held| held.row))
    }

    fn put_row(&mut self, key: i64, row: &Row, result: Option<&Value>) -> Result<(), Fault> {
        if let Some(held) = self.flows.step_mut(key, row.no) {
            held.row = *row;
            held.result = result.cloned().or(held.result.take());
        }
        Ok(())
    }

    fn page(&mut self, key: i64, from: u32, limit: u32, sinks: bool) -> Result<Vec<Listed>, Fault> {
        let steps = self.flows.flows.get(&key).map(|(_, steps)| steps.as_slice()).unwrap_or_default();
        let wanted = steps.iter().skip(from as usize).filter(|h| !sinks || h.row.sink);
        let listed = |h: &Held| Listed {
            row: h.row,
            id: h.step.message.id.clone(),
            name: h.step.name.clone(),
            task: h.step.message.task.clone(),
        };
        Ok(wanted.take(limit as usize).map(listed).collect())
    }

    fn step_id(&mut self, key: i64, no: u32) -> Result<MessageId, Fault> {
        Ok(self.flows.step(key, no).map(|h| h.step.message.id.clone()).unwrap_or_default())
    }

    fn targets(&mut self, key: i64, work: &Work, limit: usize) -> Result<Vec<u32>, Fault> {
        let all = self.flows.step(key, work.source).map(|h| h.targets.as_slice()).unwrap_or_default();
        let within = all.iter().filter(|t| (work.from..work.until).contains(*t));
        Ok(within.take(limit).copied().collect())
    }

    fn plan(&mut self, key: i64, no: u32) -> Result<Option<Step>, Fault> {
        Ok(self.flows.step(key, no).filter(|h| h.planned).map(|h| h.step.clone()))
    }

    fn result(&mut self, key: i64, no: u32) -> Result<Option<(Value, usize)>, Fault> {
        let value = self.flows.step(key, no).and_then(|h| h.result.clone());
        Ok(value.map(|value| {
            let length = value.to_string().len();
            (value, length)
        }))
    }

    fn spend(&mut self, key: i64, sources: &[u32]) -> Result<(), Fault> {
        for no in sources {
            if let Some(held) = self.flows.step_mut(key, *no).filter(|h| h.targets.len() == 1) {
                held.result = None;
            }
        }
        Ok(())
    }

    fn push_work(&mut self, key: i64, work: &Work) -> Result<(), Fault> {
        self.flows.last_work += 1;
        self.flows.work.insert(self.flows.last_work, (key, *work));
        Ok(())
    }

    fn first_work(&mut self, key: i64) -> Result<Option<(i64, Work)>, Fault> {
        let found = self.flows.work.iter().find(|(_, (k, _))| *k == key);
        Ok(found.map(|(place, (_, work))| (*place, *work)))
    }

    fn set_work(&mut self, key: i64, place: i64, work: Option<&Work>) -> Result<(), Fault> {
        match work {
            Some(work) => self.flows.work.insert(place, (key, *work)),
            None => self.flows.work.remove(&place),
        };
        Ok(())
    }

    fn end_work(&mut self, key: i64, source: u32) -> Result<Option<(i64, Work)>, Fault> {
        let is_it = |(k, w): &(i64, Work)| *k == key && w.source == source && !w.revive;
        let found = self.flows.work.iter().find(|(_, entry)| is_it(entry));
        Ok(found.map(|(place, (_, work))| (*place, *work)))
    }

    fn publish(&mut self, message: &Message, now: Wall) -> Result<bool, Fault> {
        if let Some(holder) = self.held_by(message, now) {
            // Its end is found and told as that of a message that is known.
            let why = rules::key_held(&holder);
            self.put_ended(message, (State::Revoked, &why), now, rules::ID_KEPT_MS)?;
            return Ok(false);
        }
        let new = self.shelf.get(&message.id).is_none();
        self.store(message.clone(), now)?;
        Ok(new)
    }

    fn adopt(&mut self, _: &MessageId, _: (i64, u32)) -> Result<(), Fault> {
        // The message itself says it.
        Ok(())
    }

    fn known(&mut self, id: &MessageId) -> Result<Option<Record>, Fault> {
        Ok(self.shelf.get(id).map(|row| row.record.clone()))
    }

    fn put_ended(
        &mut self,
        message: &Message,
        (state, outcome): (State, &Outcome),
        now: Wall,
        keep_ms: u64,
    ) -> Result<(), Fault> {
        if self.shelf.get(&message.id).is_none() {
            self.bury(message.clone(), state, outcome.clone(), now, keep_ms);
        }
        Ok(())
    }

    fn drop_ended(&mut self, id: &MessageId) -> Result<(), Fault> {
        if self.shelf.get(id).is_some_and(|row| row.record.state.is_final()) {
            self.shelf.take_id(id);
        }
        Ok(())
    }

    fn end_open(&mut self, id: &MessageId, now: Wall) -> Result<Became, Fault> {
        let leased = match self.shelf.get(id) {
            Some(row) if !row.record.state.is_final() => row.record.token.is_some(),
            _ => return Ok(Became::Gone),
        };
        if leased {
            return Ok(Became::Leased);
        }
        self.revoke(id, now)?;
        Ok(Became::Done)
    }

    fn renew(&mut self, id: &MessageId, now: Wall) -> Result<Became, Fault> {
        match self.requeue(id, now) {
            Ok(Reply::Record(Some(_))) => Ok(Became::Done),
            _ => Ok(Became::Gone),
        }
    }

    fn fallout(&mut self) -> &mut Fallout {
        &mut self.flows.fallout
    }
}
