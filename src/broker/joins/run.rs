//! One workflow under change: what is told to which step, and what that does to it.

use std::collections::VecDeque;

use serde_json::Value;

use super::{Flow, Joins, Row, Work};
use crate::broker::rules;
use crate::model::message::{MAX_BYTES, Message};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{self, OnError, Stage, Step, When};

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
pub(super) struct Run {
    pub(super) flow: Flow,
    queue: VecDeque<Work>,
    /// What is being told just now, from the next step on.
    current: Option<Work>,
    /// The step that ended, so that it is not read again.
    pub(super) ended: Option<(u32, Stage)>,
    now: Wall,
}

impl Run {
    pub(super) fn new(flow: Flow, now: Wall) -> Self {
        Self { flow, queue: VecDeque::new(), current: None, ended: None, now }
    }

    pub(super) fn add<J: Joins>(&mut self, j: &mut J, work: Work) -> Result<(), J::Stop> {
        if self.flow.busy {
            return j.push_work(self.flow.key, &work);
        }
        self.queue.push_back(work);
        Ok(())
    }

    /// Tells what is to be told, within the budget, and writes the workflow.
    pub(super) fn go<J: Joins>(mut self, j: &mut J, budget: &mut usize) -> Result<Flow, J::Stop> {
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
    pub(super) fn write<J: Joins>(mut self, j: &mut J) -> Result<Flow, J::Stop> {
        let head = &mut self.flow.head;
        if head.open == 0 && head.finished.is_none() {
            head.finished = Some(self.now);
            self.flow.expires = Some(self.now.plus(self.flow.keep_ms.max(rules::ID_KEPT_MS)));
            head.held = false;
            let (id, state) = (head.id.clone(), head.state());
            if let Some(fired) = &head.fired {
                j.fallout().fires.push((fired.schedule.clone(), id.clone(), state));
            }
            j.fallout().over.push((id, state));
            j.over(head.steps, true);
            j.fire_ends(&self.flow, self.now)?;
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
        let given = (!step.immutable).then_some(Value::String(id.0));
        self.publish(j, row, &step, given)
    }

    /// All steps before it were told.
    pub(super) fn due<J: Joins>(&mut self, j: &mut J, row: Row) -> Result<(), J::Stop> {
        if row.when == When::Failure {
            return self.skip(j, row);
        }
        let key = self.flow.key;
        if self.flow.head.held {
            // It is published when all of it is released.
            return j.put_row(key, &row, None);
        }
        let Some(step) = j.plan(key, row.no)? else { return self.lost(j, row) };
        let mut given = None;
        if step.takes_results() && !step.after.is_empty() {
            let (mut list, mut size) = (Vec::with_capacity(step.after.len()), 0_usize);
            let mut spent = Vec::new();
            for source in &step.after {
                let found = j.result(key, *source)?;
                if found.is_some() {
                    spent.push(*source);
                }
                let (value, length) = found.unwrap_or((Value::Null, "null".len()));
                size = size.saturating_add(length);
                if size > MAX_BYTES {
                    return self.conclude(j, row, State::Failure, &workflow::too_large());
                }
                list.push(value);
            }
            given = if step.takes_list() { Some(Value::Array(list)) } else { list.pop() };
            j.spend(key, &spent)?;
        }
        self.publish(j, row, &step, given)
    }

    /// What was launched cannot be read any more.
    fn lost<J: Joins>(&mut self, j: &mut J, row: Row) -> Result<(), J::Stop> {
        self.conclude(j, row, State::Failure, &rules::no_definition())
    }

    pub(super) fn publish<J: Joins>(
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
            None => self.conclude(j, row, State::Failure, &rules::id_taken(&message.id)),
        }
    }

    pub(super) fn over(&mut self, row: &mut Row, stage: Stage) {
        row.stage = stage;
        let head = &mut self.flow.head;
        head.open = head.open.saturating_sub(1);
        head.failed += u32::from(stage.is_failure());
        head.lost += u32::from(stage.is_failure() && row.sink);
    }

    pub(super) fn open<J: Joins>(&mut self, j: &mut J, row: &mut Row, stage: Stage) -> Result<(), J::Stop> {
        if self.flow.head.finished.is_some() {
            j.over(self.flow.head.steps, false);
            j.fire_begins(&self.flow)?;
            if let Some(fired) = &self.flow.head.fired {
                j.fallout().reopened.push(fired.schedule.clone());
            }
        }
        let head = &mut self.flow.head;
        head.open += 1;
        head.failed = head.failed.saturating_sub(u32::from(row.stage.is_failure()));
        head.lost = head.lost.saturating_sub(u32::from(row.stage.is_failure() && row.sink));
        head.finished = None;
        self.flow.expires = None;
        self.flow.tick = self.flow.tick.saturating_add(1);
        row.stage = stage;
        row.opened = self.flow.tick;
        Ok(())
    }

    /// Ends a step that did not run.
    pub(super) fn conclude<J: Joins>(
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
    pub(super) fn reopen<J: Joins>(&mut self, j: &mut J, mut row: Row) -> Result<(), J::Stop> {
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
        self.open(j, &mut row, Stage::Pending)?;
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
    pub(super) fn untell<J: Joins>(&mut self, j: &mut J, row: &Row) -> Result<(), J::Stop> {
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
