//! What truly happened, kept beside engine and store, and the invariants over it. Each invariant is a
//! function named as `ARCHITECTURE.md` names it; numbers are those of the list of invariants.

use std::collections::BTreeMap;

use taskd::engine::plan::Plan;
use taskd::model::message::{Message, Record, Token};
use taskd::model::op::Op;
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;
use taskd::model::task::Acks;
use taskd::model::time::Wall;

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub name: &'static str,
    pub detail: String,
}

pub type Check = Result<(), Violation>;

pub fn broken(name: &'static str, detail: impl Into<String>) -> Check {
    Err(Violation { name, detail: detail.into() })
}

/// Why a message may be started once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Its attempt was lost or interrupted while a daemon watched.
    Counted,
    /// Nothing could be started, while a daemon watched: not counted.
    Uncounted,
    /// A retry, or a new life: counted.
    Retry,
    /// A daemon died around its end: counted or not.
    Unclear,
}

/// One message, as it truly fares.
#[derive(Default)]
pub struct Story {
    pub accepted: bool,
    /// Order of acceptance by the store.
    pub seq: u64,
    pub starts: u32,
    /// Starts in this life whose program truly ran.
    pub ran: u32,
    attempt: u32,
    /// Runs since the latest start that were handed over and never began: each may have been counted.
    pub slack: u32,
    excuse: Option<Excuse>,
    /// A cancel was answered: it may not start any more (in this life of the daemon, if it ran then).
    pub canceled: Option<Canceled>,
    /// A new life runs at once, whatever its `eta`.
    pub reborn: bool,
    /// It left its place in the queue.
    pub moved: bool,
    /// How often it was given a new life.
    pub lives: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceled {
    Waiting,
    /// The run of this token, which may be on its way to its child.
    Running {
        life: u64,
        token: Option<Token>,
    },
}

#[derive(Default)]
pub struct Ledger {
    pub stories: BTreeMap<String, Story>,
    seq: u64,
    /// Latest wall clock anybody saw.
    pub latest_wall: Wall,
    /// Outcomes that reached a daemon, by token.
    pub delivered: BTreeMap<i64, Outcome>,
    /// Per queue and priority: the highest acceptance number that was handed out.
    order: BTreeMap<(String, u8), u64>,
    pub finished: u64,
    pub states: BTreeMap<State, u64>,
    /// Fires of schedules, planned times that were skipped, fires that were held.
    pub scheduled: [u64; 3],
}

impl Ledger {
    fn story(&mut self, id: &str) -> &mut Story {
        self.stories.entry(id.to_owned()).or_default()
    }

    /// Something that allows one more start. The first reason stands until the start.
    pub fn excuse(&mut self, id: &str, excuse: Excuse) {
        let story = self.story(id);
        match story.excuse {
            Some(Excuse::Retry) => {}
            Some(old) if old != excuse && excuse != Excuse::Retry => story.excuse = Some(Excuse::Unclear),
            _ => story.excuse = Some(excuse),
        }
    }

    /// What is known now of an end that was unclear before.
    pub fn certain(&mut self, id: &str, excuse: Excuse) {
        let story = self.story(id);
        if story.excuse != Some(Excuse::Retry) {
            story.excuse = Some(excuse);
        }
    }

    /// A daemon died: what it had seen of the end of an attempt may not be recorded.
    pub fn blur(&mut self, id: &str) {
        if let Some(s) = self.stories.get_mut(id)
            && matches!(s.excuse, Some(Excuse::Counted | Excuse::Uncounted))
        {
            s.excuse = Some(Excuse::Unclear);
        }
    }

    pub fn new_life(&mut self, id: &str) {
        let story = self.story(id);
        story.excuse = Some(Excuse::Retry);
        story.attempt = 0;
        story.slack = 0;
        story.ran = 0;
        story.canceled = None;
        story.moved = true;
        story.reborn = true;
        story.lives += 1;
    }

    /// 1: accepted means kept: once the client was told, the store has it.
    pub fn accepted_is_kept(&mut self, id: &str, record: Option<&Record>) -> Check {
        self.story(id).accepted = true;
        if record.is_none() {
            return broken("1 accepted_is_kept", format!("{id} was answered as accepted and is not stored"));
        }
        Ok(())
    }

    /// What stands in one place of the order of acceptance.
    pub fn accepted_together(&mut self, ids: &[String]) {
        self.seq += 1;
        let seq = self.seq;
        for id in ids {
            self.story(id).seq = seq;
        }
    }

    /// 2 and 6, and the table of moves: what one store operation did to one record.
    pub fn moves_are_legal(&mut self, op: &Op, before: Option<&Record>, after: Option<&Record>) -> Check {
        let (Some(b), Some(a)) = (before, after) else {
            if before.is_some() {
                return broken("2 final_never_changes", "a record vanished");
            }
            if let Some(a) = after {
                self.seq += 1;
                let seq = self.seq;
                self.story(a.message.id.as_str()).seq = seq;
            }
            return Ok(());
        };
        let id = a.message.id.as_str().to_owned();
        let new_life = matches!(op, Op::Requeue { .. }) && b.state.is_final() && !a.state.is_final();
        if new_life {
            self.new_life(&id);
            return Ok(());
        }
        if b.state.is_final() && (a.state != b.state || a.outcome != b.outcome) {
            return broken(
                "2 final_never_changes",
                format!("{id}: {} became {} by {op:?}", b.state, a.state),
            );
        }
        // A leased message counts as started: its start may still be on its way to the store.
        let from = if b.token.is_some() && b.state == State::Waiting { State::Running } else { b.state };
        if a.state != b.state && !from.may_become(a.state) && !b.state.may_become(a.state) {
            return broken("2 moves_are_legal", format!("{id}: {} to {} by {op:?}", b.state, a.state));
        }
        let writes = match op {
            Op::Settle(s) => Some(s.token),
            Op::Defer { token, .. } | Op::Start { token, .. } | Op::Aside { token, .. } => Some(*token),
            _ => None,
        };
        if let Some(token) = writes
            && b.token != Some(token)
            && a != b
        {
            return broken("6 old_tokens_are_void", format!("{id}: {op:?} changed it under {:?}", b.token));
        }
        if a.attempt < b.attempt
            || a.losses < b.losses
            || a.message.retries < b.message.retries
            || a.message.memory_retries < b.message.memory_retries
        {
            return broken("9 counters_never_fall", format!("{id}: {b:?} became {a:?}"));
        }
        if a.state.is_final() && !b.state.is_final() {
            self.finished += 1;
            *self.states.entry(a.state).or_default() += 1;
        }
        if a.state == State::Dead && a.losses < 3 || !a.state.is_final() && a.losses >= 3 {
            return broken("2 poison_ends_dead", format!("{id}: {} with {} losses", a.state, a.losses));
        }
        Ok(())
    }

    /// 7 of the promises: what the store took as the end of a run is what the child had said.
    pub fn outcome_is_kept(&self, op: &Op, plan: &Plan, before: &Record) -> Check {
        let (token, state) = match op {
            Op::Settle(s) => (s.token, Some(s.state)),
            Op::Defer { token, .. } => (*token, None),
            _ => return Ok(()),
        };
        let Some(said) = self.delivered.get(&token.0) else { return Ok(()) };
        let id = &before.message.id;
        if said.success && state != Some(State::Success) {
            return broken("7 outcome_is_kept", format!("{id}: a success was settled as {state:?}"));
        }
        let canceled = self.stories.get(id.as_str()).is_some_and(|s| s.canceled.is_some());
        if let Some(task) = plan.tasks.get(&before.message.task)
            && let Cause::Exit { code } = said.cause
            && !said.success
            && !canceled
            && state == Some(State::Failure)
        {
            let asked = said.retry.is_some();
            let on = &task.retry.retry_on;
            let retried = asked || on.is_empty() || on.contains(&code);
            if retried && before.message.retries < task.retry.max_retries {
                let n = before.message.retries;
                return broken("7 retries_are_used", format!("{id}: FAILURE after {n} retries of more"));
            }
        }
        if let Some(asked) = said.retry.as_ref().filter(|asked| asked.own || asked.back) {
            let call = match op {
                Op::Settle(s) => s.call.as_ref(),
                _ => None,
            };
            if asked.own && state == Some(State::Retry) && call != asked.call.as_ref() {
                return broken(
                    "54 a_retry_is_called_as_asked",
                    format!("{id}: {call:?}, not {:?}", asked.call),
                );
            }
            if asked.back && !canceled && state == Some(State::Retry) {
                return broken("55 put_back_is_no_retry", format!("{id}: {op:?}"));
            }
            return Ok(());
        }
        if matches!(op, Op::Settle(s) if s.state == State::Retry && s.memory.is_none())
            && let Some(task) = plan.tasks.get(&before.message.task)
            && before.message.retries >= task.retry.max_retries
        {
            return broken("7 retries_are_bounded", format!("{id}: one retry too many"));
        }
        Ok(())
    }

    /// 3, 4, 7, 8, 9, 17: a child begins a run of this message.
    pub fn start_is_right(
        &mut self,
        message: &Message,
        attempt: u32,
        token: Token,
        record: Option<&Record>,
        life: u64,
        plan: &Plan,
    ) -> Check {
        let id = message.id.as_str().to_owned();
        let Some(record) = record else { return broken("3 nothing_unaccepted_starts", id) };
        if record.token != Some(token) {
            let detail = format!("{id} starts under {token:?}, the store has {:?}", record.token);
            return broken("4 no_start_without_lease", detail);
        }
        let early = plan.tasks.get(&message.task).is_some_and(|t| t.acks == Acks::Early);
        let latest = self.latest_wall;
        let story = self.story(&id);
        match story.canceled {
            Some(Canceled::Waiting) => return broken("17 canceled_never_starts", id),
            Some(Canceled::Running { life: l, token: t }) if l == life && t != Some(token) => {
                return broken("17 canceled_never_starts", format!("{id} was told to end and came back"));
            }
            _ => {}
        }
        if !story.reborn && message.eta.is_some_and(|eta| eta > latest) {
            return broken("16 never_before_its_time", id);
        }
        if story.starts > 0 {
            let Some(excuse) = story.excuse else {
                return broken("7 no_second_start_without_reason", format!("{id} attempt {attempt}"));
            };
            let (low, high) = match excuse {
                Excuse::Counted | Excuse::Retry => (story.attempt + 1, story.attempt + 1),
                Excuse::Uncounted => (story.attempt, story.attempt),
                Excuse::Unclear => (story.attempt, story.attempt + 1),
            };
            if attempt < low || attempt > high + story.slack {
                let detail = format!("{id}: attempt {attempt} after {} and {excuse:?}", story.attempt);
                return broken("9 attempts_are_counted", detail);
            }
        } else if attempt == 0 || attempt > 1 + story.slack {
            return broken("9 attempts_are_counted", format!("{id}: the first attempt is number {attempt}"));
        }
        if early && story.ran > 0 {
            return broken("8 early_runs_once", id);
        }
        story.starts += 1;
        story.ran += 1;
        story.attempt = attempt;
        story.excuse = None;
        story.slack = 0;
        Ok(())
    }

    /// 18: within one queue and priority, what never left its place goes in the order of acceptance.
    pub fn order_is_kept(&mut self, message: &Message, plan: &Plan) -> Check {
        let Some(task) = plan.tasks.get(&message.task) else { return Ok(()) };
        // Other users wait for a child, scheduled messages get their place when they are due.
        // Steps are accepted by the store itself.
        let odd = message.lane.is_some() || message.step.is_some();
        if task.user.is_some() || message.eta.is_some() || task.acks == Acks::Early || odd {
            return Ok(());
        }
        let story = self.story(message.id.as_str());
        let (seq, first) = (story.seq, story.starts == 0 && !story.moved);
        let before = self.order.entry((message.queue.clone(), message.priority)).or_default();
        if first && seq < *before {
            let detail = format!("{} (accepted as number {seq}) goes after number {before}", message.id);
            return broken("18 first_come_first_served", detail);
        }
        if first {
            *before = seq;
        }
        Ok(())
    }
}
