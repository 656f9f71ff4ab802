//! Workflows: launching, canceling and retrying them, and what the store did of itself when a step ended.

use super::Engine;
use super::ask::Work;
use super::command::{Command, Note, Told};
use super::event::AskKey;
use super::held::Stage;
use crate::model::message::{Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Flowed, Op, Published, Reply};
use crate::model::outcome::{CancelReason, Outcome};
use crate::model::params;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{Fallout, Head, Workflow};

use std::collections::BTreeMap;

/// Steps that are on their way between store and node are looked for again after this, in milliseconds.
pub(super) const LOOK_AGAIN_MS: u64 = 50;

/// A cancel or a retry of a workflow, a part at a time.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) id: MessageId,
    pub(super) retry: bool,
    /// From this step on.
    pub(super) from: u32,
    now: Wall,
    /// Steps that were ended, or begun anew.
    steps: u64,
    /// Running attempts that were told to end.
    ending: u64,
    /// Steps that cannot begin anew.
    gone: u64,
    /// Steps that a node holds and this one does not know (yet), or whose end is on its way.
    unsure: u64,
}

impl Walk {
    pub(super) fn new(id: MessageId, retry: bool, now: Wall) -> Self {
        Self { id, retry, from: 0, now, steps: 0, ending: 0, gone: 0, unsure: 0 }
    }

    pub(super) fn op(&self) -> Op {
        let (id, from, now) = (self.id.clone(), self.from, self.now);
        if self.retry { Op::RetryFlow { id, from, now } } else { Op::CancelFlow { id, from, now } }
    }
}

/// What a walk did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The workflow, if the id is known.
    pub head: Option<Box<Head>>,
    /// Steps that were ended, or begun anew.
    pub steps: u64,
    /// Running attempts that were told to end.
    pub ending: u64,
    /// Steps that cannot begin anew: their arguments are not kept any more.
    pub gone: u64,
    /// Steps that could not be ended yet.
    pub unsure: u64,
}

impl Engine {
    /// Gives every step its queue.
    pub(super) fn launching(&self, mut workflow: Box<Workflow>) -> Result<Work, Told> {
        let mut max_length = BTreeMap::new();
        workflow.keep_ms = self.plan.retention.age_ms;
        for step in &mut workflow.steps {
            let bound = self.routed(&mut step.message)?;
            self.place_step(step);
            if let Some(bound) = bound.filter(|_| step.after.is_empty()) {
                max_length.insert(step.message.queue.clone(), bound);
            }
        }
        Ok(Work::Launch { workflow, max_length, now: self.now.wall })
    }

    pub(super) fn launched(
        &mut self,
        key: AskKey,
        (workflow, now): (&Workflow, Wall),
        reply: Reply,
        out: &mut Vec<Command>,
    ) {
        let repeated = self.asks.get(&key).is_some_and(|a| a.tries > 0);
        let told = match reply {
            Reply::Launched(known) => {
                // The failed try had taken place: to the client it is as new as it was to the store.
                let known = known.filter(|head| !(repeated && head.launched == now));
                if known.is_none() {
                    self.note_launched(workflow, out);
                }
                Told::Launched { id: workflow.id.clone(), known }
            }
            Reply::Record(Some(record)) => Told::IsMessage(record),
            Reply::Published(mut each) => match (each.pop(), workflow.steps.first()) {
                (Some(became), Some(first)) => {
                    let became = self.linked(workflow, became, (repeated, now), out);
                    let (id, queue) = (first.message.id.clone(), first.message.queue.clone());
                    Told::Published(vec![(id, queue, became)])
                }
                _ => Told::Published(Vec::new()),
            },
            Reply::QueueFull { queue, max_length } => Told::QueueFull { queue, max_length },
            other => Told::Fault(Fault::Refused(format!("the store answered something else: {other:?}"))),
        };
        self.answer(key, told, out);
    }

    /// What became of a message that was enqueued with what is to follow its end.
    fn linked(
        &mut self,
        workflow: &Workflow,
        became: Published,
        (repeated, now): (bool, Wall),
        out: &mut Vec<Command>,
    ) -> Published {
        let own = |r: &Record| r.message.step.as_ref().is_some_and(|s| s.workflow == workflow.id);
        let became = match became {
            // The failed try had taken place: to the client it is as new as it was to the store.
            Published::Known(r) if repeated && own(&r) && r.message.enqueued == now => Published::New,
            other => other,
        };
        if let Published::Replaced(ended) = &became {
            self.note_dropped(ended, State::Revoked, out);
        }
        if matches!(became, Published::New | Published::Replaced(_)) {
            self.note_launched(workflow, out);
        }
        became
    }

    /// The first steps of a workflow are stored.
    pub(super) fn note_roots(&mut self, workflow: &Workflow) {
        let now = self.now.wall;
        for step in workflow.roots() {
            let eta = step.delay_ms.filter(|ms| *ms > 0).map(|ms| now.plus(ms));
            let expires = step.expires_ms.map(|ms| eta.unwrap_or(now).plus(ms));
            self.note_times(&step.message.queue, eta, expires);
            if eta.is_none() {
                self.overtake(&step.message.queue, step.message.priority);
            }
        }
    }

    fn note_launched(&mut self, workflow: &Workflow, out: &mut Vec<Command>) {
        self.note_roots(workflow);
        if workflow.fired.is_some() {
            // It counts as a run of its schedule, unless it was over at once: the row says.
            self.replan_schedules();
        }
        out.push(Command::Note(Note::Launched {
            id: workflow.id.clone(),
            name: workflow.name.clone(),
            steps: workflow.steps.len(),
        }));
    }

    /// Whether the store does not have the end of a step of this workflow yet.
    pub(super) fn is_settling(&self, id: &MessageId) -> bool {
        self.held.values().any(|h| {
            matches!(h.stage, Stage::Closing(_)) && h.message.step.as_ref().is_some_and(|s| s.workflow == *id)
        })
    }

    /// A part of a cancel or a retry is done.
    pub(super) fn walked(&mut self, key: AskKey, mut walk: Walk, done: Flowed, out: &mut Vec<Command>) {
        walk.steps += u64::from(done.steps);
        walk.gone += u64::from(done.gone);
        if done.steps > 0 {
            self.sweep.finished(self.now.mono);
        }
        for id in &done.leased {
            match self.end_step(id, out) {
                Some(true) => walk.ending += 1,
                Some(false) => {}
                None => walk.unsure += 1,
            }
        }
        if let Some(next) = done.next {
            walk.from = next;
            let work = Work::Walk(walk);
            return self.go_on(key, work, out);
        }
        let late = self.asks.get(&key).is_none_or(|a| a.until <= self.now.mono);
        if walk.unsure > 0 && !late && done.head.is_some() {
            (walk.from, walk.unsure, walk.ending) = (0, 0, 0);
            self.turn_to(key, Work::Walk(walk));
            return self.again_after(key, LOOK_AGAIN_MS);
        }
        let Walk { retry, steps, ending, gone, unsure, .. } = walk;
        let walked = Walked { head: done.head, steps, ending, gone, unsure };
        self.answer(key, if retry { Told::FlowRetried(walked) } else { Told::FlowCanceled(walked) }, out);
    }

    /// Ends a leased step. True: its running attempt was told; false: it is ended here; absent: it is on its way.
    fn end_step(&mut self, id: &MessageId, out: &mut Vec<Command>) -> Option<bool> {
        let now = self.now.mono;
        let (token, first) = match self.stage_of(id)? {
            (token, Stage::Waiting) => (token, None),
            (token, Stage::Starting { .. }) => {
                self.free(token);
                (token, None)
            }
            (token, Stage::Running(run)) => (token, Some(Self::revoke_running(run, now))),
            (_, Stage::Closing(_)) => return None,
        };
        match first {
            Some(first) => {
                if first {
                    self.tell_cancel(token, CancelReason::Revoked, out);
                }
                Some(true)
            }
            None => {
                for q in self.queues.values_mut() {
                    q.window.retain(|t| *t != token);
                }
                self.revoke_waiting(token, out);
                // Its end is on its way to the store: looked at once more.
                None
            }
        }
    }

    /// What an operation did to other messages than its own.
    pub(super) fn fell_out(&mut self, fallout: Fallout, out: &mut Vec<Command>) {
        for queue in &fallout.queues {
            self.raise(queue);
        }
        if let Some(next) = fallout.next {
            self.sweep.note(next);
        }
        if !fallout.ended.is_empty() || !fallout.over.is_empty() {
            self.sweep.finished(self.now.mono);
        }
        if fallout.more {
            self.sweep.job.want();
        }
        for (id, state) in fallout.ended {
            if state == State::Failure {
                self.failed += 1;
            }
            out.push(Command::Note(Note::Dropped { id, state }));
        }
        for (schedule, id, state) in fallout.fires {
            self.count_end(&schedule, &id, state, self.now.wall, out);
        }
        if !fallout.reopened.is_empty() {
            self.replan_schedules();
        }
        for (id, state) in fallout.over {
            out.push(Command::Note(Note::Workflow { id, state }));
        }
    }

    /// Why a step cannot run with what it was given; only steps are given something after they were accepted.
    pub(super) fn unfit(&self, token: Token) -> Option<Outcome> {
        let message = &self.held.get(&token)?.message;
        message.step.as_ref()?;
        let faults = params::bind(self.plan.task(&message.task)?, &message.args, &message.kwargs).err()?;
        let why = format!("its arguments do not fit task {}: {}", message.task, faults.join("; "));
        Some(super::settle::rejected(why))
    }
}
