//! The end of a lease: decided here, repeated until the store has it, told to child and clients then.

use super::Engine;
use super::command::{Command, Note, Raised, Told};
use super::event::ChildKey;
use super::held::{Held, Stage};
use super::store::{Pending, backoff, refused_backoff};
use crate::model::limit::Take;
use crate::model::message::{Record, Token};
use crate::model::op::{Fault, Op, Reply, Settle};
use crate::model::outcome::{Cause, Outcome};
use crate::model::state::State;
use crate::model::time::{Mono, Wall};

/// A lease that is over, until the store knows.
#[derive(Debug)]
pub(super) struct Closing {
    /// How.
    pub(super) end: End,
    /// The attempt that ended, if one did.
    pub(super) attempt: Option<Attempt>,
    under_way: bool,
    /// It goes to the store after another end of its task.
    pub(super) waits: bool,
    /// What it leads to is decided.
    pub(super) counted: bool,
    tries: u32,
    at: Mono,
    /// It went back into a lane that is closed: nothing new can be leased.
    in_closed_lane: bool,
    /// The store refuses it and taskd stops: the next daemon finds the lease in the store.
    given_up: bool,
}

/// How a lease ends.
#[derive(Debug)]
pub(super) enum End {
    /// With an outcome: final, or RETRY.
    Settle(Box<Settle>),
    /// The message goes back.
    Back { until: Option<Wall>, counted: bool, lost: bool },
    /// The message's task is not declared.
    Unknown,
    /// The message goes back into this lane, which is closed while these are not free.
    Aside { lane: Option<String>, blocked: Vec<Take> },
}

/// What is to be told about an attempt once its end is committed.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The child that waits for `settled`, if it lives.
    pub(super) child: Option<ChildKey>,
    /// How long the message had waited, in milliseconds.
    pub(super) waited_ms: u64,
    /// The outcome where it is not in [`End::Settle`].
    pub(super) outcome: Option<Box<Outcome>>,
}

/// The outcome of a message that cannot run.
pub(super) fn rejected(why: String) -> Outcome {
    Outcome::of_cause(Cause::Rejected, why)
}

impl Closing {
    /// Neither at the store nor given up.
    fn is_open(&self) -> bool {
        !self.under_way && !self.waits && !self.given_up
    }

    fn op(&self, held: &Held, token: Token, now: Wall) -> Op {
        let id = held.message.id.clone();
        match &self.end {
            End::Settle(settle) => {
                Op::Settle(Box::new(Settle { takes: held.unrecorded(), ..(**settle).clone() }))
            }
            End::Back { until, counted, lost } => {
                let takes = held.unrecorded();
                Op::Defer { id, token, until: *until, counted: *counted, lost: *lost, takes, now }
            }
            End::Aside { lane, blocked } => {
                Op::Aside { id, token, lane: lane.clone(), blocked: blocked.clone(), now }
            }
            End::Unknown => Op::Move { id, token: Some(token), unknown: true, now },
        }
    }

    fn state(&self) -> State {
        match &self.end {
            End::Settle(settle) => settle.state,
            End::Back { until: Some(_), .. } => State::Scheduled,
            End::Back { .. } | End::Unknown | End::Aside { .. } => State::Waiting,
        }
    }
}

/// Outcomes that the store does not have yet before nothing new starts, with few slots.
const UNSETTLED: usize = 64;

impl Engine {
    /// Gives a lease back, uncounted.
    pub(super) fn back(&mut self, token: Token, until: Option<Wall>, out: &mut Vec<Command>) {
        self.close(token, End::Back { until, counted: false, lost: false }, None, out);
    }

    /// Puts a message of an undeclared task aside.
    pub(super) fn set_aside(&mut self, token: Token, out: &mut Vec<Command>) {
        self.close(token, End::Unknown, None, out);
    }

    /// Ends a message that was leased and not started.
    pub(super) fn settle_waiting(
        &mut self,
        token: Token,
        state: State,
        outcome: Outcome,
        out: &mut Vec<Command>,
    ) {
        if let Some(settle) = self.settlement(token, state, outcome) {
            self.close(token, End::Settle(settle), None, out);
        }
    }

    /// The settle of this lease.
    pub(super) fn settlement(&self, token: Token, state: State, outcome: Outcome) -> Option<Box<Settle>> {
        let held = self.held.get(&token)?;
        let task = self.plan.task(&held.message.task);
        Some(Box::new(Settle {
            expires_ms: task.map(|t| t.result_expires_ms),
            forget_result: task.is_some_and(|t| t.ignore_result),
            ..Settle::new(held.message.id.clone(), token, state, outcome, self.now.wall)
        }))
    }

    /// Ends a lease. What it occupied was freed before.
    pub(super) fn close(&mut self, token: Token, end: End, attempt: Option<Attempt>, out: &mut Vec<Command>) {
        let at = self.now.mono;
        if let Some(held) = self.held.get_mut(&token) {
            let closing = Closing {
                end,
                attempt,
                under_way: false,
                waits: false,
                counted: false,
                tries: 0,
                at,
                in_closed_lane: false,
                given_up: false,
            };
            held.stage = Stage::Closing(Box::new(closing));
            self.submit_close(token, out);
        }
    }

    pub(super) fn submit_close(&mut self, token: Token, out: &mut Vec<Command>) {
        let now = self.tells(token);
        if let Some(closing) = self.closing(token) {
            closing.waits = !now;
        }
        if !now {
            return;
        }
        let Some(held) = self.held.get(&token) else { return };
        let Stage::Closing(closing) = &held.stage else { return };
        let op = closing.op(held, token, self.now.wall);
        if let Some(closing) = self.closing(token) {
            closing.under_way = true;
        }
        self.submit(Pending::Close(token), op, out);
    }

    pub(super) fn closing(&mut self, token: Token) -> Option<&mut Closing> {
        match &mut self.held.get_mut(&token)?.stage {
            Stage::Closing(closing) => Some(closing),
            _ => None,
        }
    }

    pub(super) fn close_answered(
        &mut self,
        token: Token,
        result: Result<Reply, Fault>,
        out: &mut Vec<Command>,
    ) {
        let now = self.now.mono;
        let stopping = self.stop.is_some();
        let Some(closing) = self.closing(token) else { return };
        closing.under_way = false;
        let tries = closing.tries;
        match result {
            Ok(Reply::Applied { applied: true, .. }) => {
                self.lane_stayed_open(token);
                self.closed(token, None, out);
            }
            Ok(Reply::Closed { key, until }) => {
                self.limit_closed(token, &key, until);
                if let Some(closing) = self.closing(token) {
                    closing.in_closed_lane = true;
                }
                self.closed(token, None, out);
            }
            // Refused although the lease is there: nothing took place, so it is done again.
            Ok(Reply::Applied { current: Some(record), .. }) if record.token == Some(token) => {
                closing.tries = tries.saturating_add(1);
                closing.at = now.plus(backoff(tries));
            }
            // The lease is gone. After a fault that was this very write, done before.
            Ok(Reply::Applied { current, .. }) => {
                let there = current.filter(|_| tries == 0);
                self.closed(token, there.as_deref(), out);
            }
            Ok(_) | Err(Fault::Again(_) | Fault::Reconnect(_)) => {
                closing.tries = tries.saturating_add(1);
                closing.at = now.plus(backoff(tries));
            }
            Err(Fault::Refused(why) | Fault::Poison(why)) => {
                closing.tries = tries.saturating_add(1);
                closing.at = now.plus(refused_backoff(tries));
                let mut changed = false;
                if let End::Settle(settle) = &mut closing.end {
                    // The one part of it that a store may dislike: the end counts, the result does not.
                    changed = settle.outcome.result.take().is_some();
                    settle.outcome.truncated |= changed;
                }
                if stopping && !changed {
                    self.give_up_close(token, &why, out);
                } else if tries == 0 {
                    let text = format!("the end of run {} is refused: {why}", token.0);
                    out.push(Command::Note(Note::Store(Some(text))));
                }
            }
        }
    }

    /// A stop does not wait for what the store refuses and nothing here can mend. The child is not told
    /// `settled`, and the lease stays in the store, where the next daemon finds it.
    fn give_up_close(&mut self, token: Token, why: &str, out: &mut Vec<Command>) {
        let Some(held) = self.held.get_mut(&token) else { return };
        let Stage::Closing(closing) = &mut held.stage else { return };
        closing.given_up = true;
        let task = held.message.task.clone();
        let cancels = std::mem::take(&mut held.cancels);
        let text = format!(
            "the end of run {} (message {}) is refused, and left to the next start because taskd stops: {why}",
            token.0, held.message.id
        );
        for key in cancels {
            self.answer(key, Told::Fault(Fault::Refused(text.clone())), out);
        }
        out.push(Command::Note(Note::Store(Some(text))));
        self.told(token, &task, false, out);
    }

    /// A stop began, or the store is there again: what it refused before is tried once more.
    pub(super) fn hurry_refused(&mut self) {
        let now = self.now.mono;
        for held in self.held.values_mut() {
            if let Stage::Closing(closing) = &mut held.stage {
                closing.at = closing.at.min(now);
            }
        }
    }

    /// The end of a lease is committed. `there`: the record, where something else had ended it before.
    fn closed(&mut self, token: Token, there: Option<&Record>, out: &mut Vec<Command>) {
        let Some(held) = self.forget(token) else { return };
        let Stage::Closing(closing) = held.stage else { return };
        self.told(token, &held.message.task, there.is_none(), out);
        let state = there.map_or(closing.state(), |r| r.state);
        let message = held.message;
        if state.is_final() {
            self.sweep.finished(self.now.mono);
            match state {
                State::Success => self.succeeded += 1,
                State::Failure | State::Dead => self.failed += 1,
                _ => {}
            }
            let at = match (&closing.end, there) {
                (_, Some(record)) => record.finished,
                (End::Settle(settle), None) => Some(settle.now),
                (End::Back { .. } | End::Aside { .. } | End::Unknown, None) => None,
            };
            match there {
                // Whoever ended it before, the rows of schedules may know.
                Some(_) if message.fired.is_some() => self.doubt_schedules(),
                _ => self.fire_ended(&message, state, at.unwrap_or(self.now.wall), out),
            }
        } else if let Some(expires) = message.expires {
            self.sweep.note(expires);
        }
        let mut due = None;
        let mut raised = None;
        let mut outcome = None;
        match closing.end {
            End::Settle(settle) => {
                for next in &settle.follow_ups {
                    self.note_times(&next.queue, next.eta, next.expires);
                }
                due = settle.due;
                raised = settle.memory.map(|m| m.queue.unwrap_or_else(|| message.queue.clone()));
                outcome = Some(Box::new(settle.outcome));
            }
            End::Back { until, .. } => due = until,
            End::Aside { .. } => {}
            End::Unknown => {
                let (id, task, queue) = (message.id.clone(), message.task.clone(), message.queue.clone());
                out.push(Command::Note(Note::Unknown { id, task, queue }));
            }
        }
        if let Some(due) = due {
            self.sweep.note(due);
        } else if !state.is_final() && !closing.in_closed_lane {
            self.raise(&message.queue);
        }
        if closing.attempt.is_some() {
            self.lanes_freed(&message);
        }
        let raised = raised.and_then(|queue| {
            let limits = &self.plan.task(&message.task)?.limits;
            let times = message.memory_retries.saturating_add(1);
            let (max, memory_max) = (limits.on_memory.as_ref()?.max, limits.memory_at(times));
            Some(Raised { times, max, queue, memory_max })
        });
        let attempt = closing.attempt;
        let told = attempt.as_ref().and_then(|a| a.child);
        if let Some(child) = told
            && let Some(c) = self.children.get_mut(&child)
        {
            c.owed.remove(&token);
            out.push(Command::Settled { child, run: super::run_key(token) });
        }
        let ran = attempt.is_some();
        let waited_ms = attempt.as_ref().map_or(0, |a| a.waited_ms);
        let outcome = outcome.or_else(|| attempt.and_then(|a| a.outcome));
        match outcome {
            Some(outcome) if ran || state == State::Failure => out.push(Command::Note(Note::Ended {
                id: message.id,
                task: message.task,
                queue: message.queue,
                attempt: held.attempt,
                state,
                outcome,
                waited_ms,
                retry_in_ms: due.map(|d| d.since(self.now.wall)),
                raised,
            })),
            _ if state.is_final() => out.push(Command::Note(Note::Dropped { id: message.id, state })),
            _ => {}
        }
        for key in held.cancels {
            self.cancel_again(key);
        }
    }

    /// Outcomes that the store does not have yet.
    pub(super) fn unsettled(&self) -> usize {
        let open = |h: &&Held| matches!(&h.stage, Stage::Closing(c) if c.attempt.is_some());
        self.held.values().filter(open).count()
    }

    /// Whether so many outcomes wait for the store that nothing new is started: memory stays bounded.
    pub(super) fn is_clogged(&self) -> bool {
        // Short tasks share commits, so some ends wait in any case.
        let limit = self.slots.len().saturating_mul(4).max(UNSETTLED);
        self.held.len() > limit && self.unsettled() > limit
    }

    pub(super) fn pump_settling(&mut self, out: &mut Vec<Command>) {
        if self.settling_deadline().is_none_or(|at| at > self.now.mono) {
            return;
        }
        let due: Vec<Token> =
            self.held.iter().filter(|(_, h)| h.is_late(self.now.mono)).map(|(t, _)| *t).collect();
        for token in due {
            self.submit_close(token, out);
        }
        self.repeat_starts(out);
    }

    pub(super) fn settling_deadline(&self) -> Option<Mono> {
        let closes = self.held.values().filter_map(|h| match &h.stage {
            Stage::Closing(c) if c.is_open() => Some(c.at),
            _ => None,
        });
        closes.chain(self.starts_deadline()).min()
    }
}

impl Held {
    /// Whether its end is to be submitted again.
    fn is_late(&self, now: Mono) -> bool {
        matches!(&self.stage, Stage::Closing(c) if c.is_open() && c.at <= now)
    }

    /// Whether a stop waits for it no more.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(&self.stage, Stage::Closing(c) if c.given_up)
    }
}
