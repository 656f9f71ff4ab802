//! One attempt: handed over, started, ended, overdue.

use std::sync::Arc;

use super::Engine;
use super::command::{Command, Note, RunOrder};
use super::event::{ChildKey, OwnLimits};
use super::held::{Killed, Running, Stage, Start, run_key, token_of};
use super::plan::Plan;
use super::retry::{Counts, Verdict, verdict};
use super::settle::{Attempt, End};
use super::store::{Pending, backoff};
use crate::model::message::{Message, Token};
use crate::model::op::{Fault, MemoryRetry, Op, Reply};
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::task::Acks;
use crate::model::time::{Mono, Wall};

/// A child is killed when a run is silent so long after its hard limit, in milliseconds. A runner kills at
/// the limit without a grace, so one that is not heard of by then does not work: a task can stop its runner.
const OVERDUE_MS: u64 = 5_000;

/// A child is killed when a run that somebody canceled is silent so long after the child was told, in
/// milliseconds: the 5 s that a runner gives it between SIGTERM and SIGKILL, and [`OVERDUE_MS`].
pub const CANCEL_MS: u64 = 5_000 + OVERDUE_MS;

/// Pause before a message goes to another child after one refused it, in milliseconds.
const REFUSED_MS: u64 = 1_000;

impl Engine {
    /// Hands a message to a free child. The start of an `acks = "early"` task is committed first: a task
    /// that must not run twice may not run without a trace. So is one that the store has to allow.
    pub(super) fn begin(&mut self, token: Token, child: ChildKey, out: &mut Vec<Command>) {
        let ask = self.grasp(token);
        self.occupy(token, child);
        let Some(held) = self.held.get_mut(&token) else { return };
        held.began = self.now.wall;
        let early = self.plan.task(&held.message.task).is_some_and(|t| t.acks == Acks::Early);
        let plan = Arc::clone(&self.plan);
        if early || ask {
            held.stage = Stage::Starting { child, start: Start::Sent { tries: 0 }, plan };
        } else {
            self.launch(token, child, plan, Start::Sent { tries: 0 }, out);
        }
        self.submit_start(token, out);
    }

    fn launch(
        &mut self,
        token: Token,
        child: ChildKey,
        plan: Arc<Plan>,
        start: Start,
        out: &mut Vec<Command>,
    ) {
        let now = self.now;
        let Some(held) = self.held.get_mut(&token) else { return };
        let worker = plan.has_worker(&held.message.queue);
        let task = plan.task(&held.message.task);
        let deadline_ms = held.message.hard_limit(task);
        let soft_deadline_ms = held.message.soft_limit(task);
        held.called = plan.called(&held.message);
        let message = Message {
            args: std::mem::take(&mut held.message.args),
            kwargs: std::mem::take(&mut held.message.kwargs),
            ..held.message.clone()
        };
        let run = RunOrder {
            run: run_key(token),
            generation: plan.generation,
            message,
            attempt: held.attempt,
            deadline_ms,
            soft_deadline_ms,
        };
        out.push(Command::Run { child, run: Box::new(run) });
        held.stage = Stage::Running(Box::new(Running {
            child,
            since: now.mono,
            waited_ms: Some(held.waited_ms(now.wall, now.mono)),
            pid: None,
            worker,
            soft_at: soft_deadline_ms.filter(|_| worker).map(|ms| now.mono.plus(ms)),
            soft: false,
            overdue_at: deadline_ms.map(|ms| overdue(now.mono, ms, worker)),
            revoked: false,
            interrupted: false,
            killed: None,
            start,
            plan,
        }));
    }

    /// A run that an earlier daemon handed over and that goes on.
    /// `started`: the store knows.
    pub(super) fn adopt_run(&mut self, token: Token, child: ChildKey, started: bool) {
        self.grasp_adopted(token, started);
        self.occupy(token, child);
        let now = self.now.mono;
        let plan = Arc::clone(&self.plan);
        let Some(held) = self.held.get_mut(&token) else { return };
        let worker = plan.has_worker(&held.message.queue);
        let task = plan.task(&held.message.task);
        let limit = held.message.hard_limit(task);
        let soft = held.message.soft_limit(task).filter(|_| worker);
        held.called = plan.called(&held.message);
        held.message.args = Vec::new();
        held.message.kwargs = serde_json::Map::new();
        held.stage = Stage::Running(Box::new(Running {
            child,
            plan,
            since: now,
            waited_ms: None,
            pid: None,
            worker,
            soft_at: soft.map(|ms| now.plus(ms)),
            soft: false,
            overdue_at: limit.map(|ms| overdue(now, ms, worker)),
            revoked: false,
            interrupted: false,
            killed: None,
            start: Start::Done,
        }));
    }

    /// The store does not know that an adopted run was started, and what that took: it is told.
    pub(super) fn record_adopted(&mut self, token: Token, out: &mut Vec<Command>) {
        if !self.is_unrecorded(token) {
            return;
        }
        let now = self.now.wall;
        let Some(held) = self.held.get_mut(&token) else { return };
        let Stage::Running(run) = &mut held.stage else { return };
        run.start = Start::Sent { tries: 0 };
        held.began = now;
        self.submit_start(token, out);
    }

    fn submit_start(&mut self, token: Token, out: &mut Vec<Command>) {
        let Some(held) = self.held.get(&token) else { return };
        let op = Op::Start { id: held.message.id.clone(), token, now: held.began, takes: held.takes() };
        self.submit(Pending::Start(token), op, out);
    }

    fn start_of(&mut self, token: Token) -> Option<&mut Start> {
        match &mut self.held.get_mut(&token)?.stage {
            Stage::Starting { start, .. } => Some(start),
            Stage::Running(run) => Some(&mut run.start),
            Stage::Waiting | Stage::Closing(_) => None,
        }
    }

    pub(super) fn start_answered(
        &mut self,
        token: Token,
        result: Result<Reply, Fault>,
        out: &mut Vec<Command>,
    ) {
        let now = self.now.mono;
        self.grip_answered(token, &result);
        let asks = self.held.get(&token).is_some_and(|held| held.asks());
        let starting = self.held.get(&token).is_some_and(|held| matches!(held.stage, Stage::Starting { .. }));
        if let Ok(Reply::Closed { key, until }) = &result
            && self.start_refused(token, key, *until)
        {
            return;
        }
        let result = match result {
            Ok(Reply::Took(_)) => Ok(crate::model::op::Reply::Applied { applied: true, current: None }),
            // It may have taken place: whoever asks again may be told of a time long gone.
            Err(_) if asks && starting => {
                self.free(token);
                self.back(token, None, out);
                return;
            }
            other => other,
        };
        let Some(start) = self.start_of(token) else { return };
        let tries = if let Start::Sent { tries } = start { *tries } else { 0 };
        match result {
            Ok(Reply::Applied { applied, .. }) => {
                *start = Start::Done;
                let Some(Stage::Starting { child, plan, .. }) = self.held.get(&token).map(|h| &h.stage)
                else {
                    return;
                };
                let (child, plan) = (*child, Arc::clone(plan));
                if applied {
                    self.launch(token, child, plan, Start::Done, out);
                } else {
                    // The lease is gone: giving it back finds out what became of the message.
                    self.free(token);
                    self.back(token, None, out);
                }
            }
            _ => *start = Start::Again { at: now.plus(backoff(tries)), tries: tries.saturating_add(1) },
        }
    }

    pub(super) fn repeat_starts(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        let due = |h: &super::held::Held| match h.stage {
            Stage::Starting { start, .. } => start.is_due(now),
            Stage::Running(ref run) => run.start.is_due(now),
            Stage::Waiting | Stage::Closing(_) => false,
        };
        let tokens: Vec<Token> = self.held.iter().filter(|(_, h)| due(h)).map(|(t, _)| *t).collect();
        for token in tokens {
            if let Some(start) = self.start_of(token)
                && let Start::Again { tries, .. } = *start
            {
                *start = Start::Sent { tries };
                self.submit_start(token, out);
            }
        }
    }

    /// The store is there again: starts that it failed are repeated now.
    pub(super) fn hurry_starts(&mut self) {
        let now = self.now.mono;
        for held in self.held.values_mut() {
            let start = match &mut held.stage {
                Stage::Starting { start, .. } => start,
                Stage::Running(run) => &mut run.start,
                Stage::Waiting | Stage::Closing(_) => continue,
            };
            if let Start::Again { at, tries } = start {
                (*at, *tries) = ((*at).min(now), 0);
            }
        }
    }

    pub(super) fn starts_deadline(&self) -> Option<Mono> {
        let at = |start: Start| if let Start::Again { at, .. } = start { Some(at) } else { None };
        let starts = self.held.values().filter_map(|h| match &h.stage {
            Stage::Starting { start, .. } => at(*start),
            Stage::Running(run) => at(run.start),
            Stage::Waiting | Stage::Closing(_) => None,
        });
        starts.min()
    }

    /// The run of this key, if this child has it.
    pub(super) fn run_of(&mut self, child: ChildKey, run: &str) -> Option<(Token, &mut Running)> {
        let token = token_of(run)?;
        match &mut self.held.get_mut(&token)?.stage {
            Stage::Running(r) if r.child == child => Some((token, r)),
            _ => None,
        }
    }

    pub(super) fn run_started(
        &mut self,
        child: ChildKey,
        run: &str,
        (pid, limits): (u32, OwnLimits),
        out: &mut Vec<Command>,
    ) {
        let now = self.now.mono;
        let Some((token, r)) = self.run_of(child, run) else { return };
        // Only a resident worker's own limits are the engine's to keep; told again, they are what is left of them. One
        // that was told of the soft limit is not told twice.
        if r.worker {
            let sooner =
                |at: Option<Mono>, own: Option<u64>| at.into_iter().chain(own.map(|ms| now.plus(ms))).min();
            if !r.soft {
                r.soft_at = sooner(r.soft_at, limits.soft_ms);
            }
            if r.killed.is_none() {
                r.overdue_at = sooner(r.overdue_at, limits.hard_ms);
            }
        }
        if r.pid.replace(pid).is_some() {
            return;
        }
        if let Some(held) = self.held.get(&token) {
            out.push(Command::Note(Note::Started {
                id: held.message.id.clone(),
                task: held.message.task.clone(),
                queue: held.message.queue.clone(),
                attempt: held.attempt,
                pid,
            }));
        }
    }

    pub(super) fn run_ended(
        &mut self,
        child: ChildKey,
        run: String,
        outcome: Box<Outcome>,
        out: &mut Vec<Command>,
    ) {
        self.clear_doubt(child, &run, out);
        if let Some((token, _)) = self.run_of(child, &run) {
            self.conclude(token, outcome, Some(child), out);
            return;
        }
        if !self.is_live() {
            self.child_named(child, run, super::adopt::Named::Ended(outcome));
            return;
        }
        if let Some(c) = self.children.get_mut(&child) {
            c.stranger_ended(&run);
        }
        // Still on its way to the store: `settled` follows then. Otherwise it is an echo.
        let known = token_of(&run).is_some_and(|t| self.held.contains_key(&t));
        if !known {
            out.push(Command::Settled { child, run });
        }
    }

    pub(super) fn run_refused(&mut self, child: ChildKey, run: &str, why: &str, out: &mut Vec<Command>) {
        self.clear_doubt(child, run, out);
        if let Some((token, r)) = self.run_of(child, run) {
            let revoked = r.revoked;
            self.free(token);
            if let Some(c) = self.children.get_mut(&child) {
                // It does not know what it should: it is replaced once it is idle.
                c.refused = true;
                let text = format!("refused run {run}: {why}");
                out.push(Command::Note(Note::Child { slot: c.slot.clone(), text, fault: true }));
            }
            if revoked {
                self.revoke_waiting(token, out);
            } else {
                self.back(token, Some(self.now.wall.plus(REFUSED_MS)), out);
            }
        } else if !self.is_live() {
            self.child_named(child, run.to_owned(), super::adopt::Named::Refused);
        } else if let Some(c) = self.children.get_mut(&child) {
            c.stranger_ended(run);
        }
    }

    /// The end of an attempt: its slot is free at once, the store hears of it, the child when that is done.
    pub(super) fn conclude(
        &mut self,
        token: Token,
        mut outcome: Box<Outcome>,
        child: Option<ChildKey>,
        out: &mut Vec<Command>,
    ) {
        self.free(token);
        let Some(held) = self.held.get(&token) else { return };
        let Stage::Running(run) = &held.stage else { return };
        if run.worker {
            complete(&mut outcome, run, held.began, self.now.mono);
        }
        let task = run.plan.task(&held.message.task);
        let rng = &mut self.rng;
        let m = &held.message;
        let counts = Counts { retries: m.retries, losses: held.losses, memory_retries: m.memory_retries };
        let v = verdict(task, counts, run.revoked, &outcome, |n| rng.up_to(n));
        let rule = task.and_then(|t| t.limits.on_memory.as_ref());
        // A reload may have taken the queue away meanwhile.
        let raised_to = rule.and_then(|r| r.queue.clone()).filter(|q| self.plan.queues.contains_key(q));
        let waited_ms = run.waited_ms.or_else(|| Some(outcome.started?.since(held.message.enqueued)));
        // In doubt it counts: a repeated `TASKD_ATTEMPT` is worse than a skipped one.
        let ran = run.pid.is_some() || outcome.started.is_some() || run.killed.is_some();
        let mut attempt = Attempt { child, waited_ms: waited_ms.unwrap_or(0), outcome: None };
        let call = outcome.retry.as_mut().and_then(|asked| asked.call.take());
        let pool = self.plan.queues.get(&held.message.queue).map(|q| q.pool.clone());
        let hold = pool.and_then(|p| self.spawn_trouble(&p, v == Verdict::SpawnAgain, &outcome, out));
        let until = hold.map(|ms| self.now.wall.plus(ms));
        let end = match v {
            Verdict::Final { state, lost } => self.settlement(token, state, *outcome).map(|mut s| {
                s.lost = lost;
                End::Settle(s)
            }),
            Verdict::Retry { after_ms } => {
                let state = crate::model::state::State::Retry;
                self.settlement(token, state, *outcome).map(|mut s| {
                    s.due = Some(self.now.wall.plus(after_ms));
                    s.call = call;
                    End::Settle(s)
                })
            }
            Verdict::Aside { after_ms } => {
                attempt.outcome = Some(outcome);
                Some(End::Back { until: Some(self.now.wall.plus(after_ms)), counted: true, lost: false })
            }
            Verdict::Memory => {
                let state = crate::model::state::State::Retry;
                self.settlement(token, state, *outcome).map(|mut s| {
                    s.due = Some(self.now.wall);
                    s.memory = Some(MemoryRetry { queue: raised_to });
                    End::Settle(s)
                })
            }
            Verdict::Lost => {
                attempt.outcome = Some(outcome);
                Some(End::Back { until: None, counted: true, lost: true })
            }
            Verdict::Back | Verdict::SpawnAgain => {
                attempt.outcome = Some(outcome);
                // Of an attempt that ran its number is used up; its place in the queue stays.
                Some(End::Back { until, counted: ran && v == Verdict::Back, lost: false })
            }
        };
        if let Some(c) = child.and_then(|c| self.children.get_mut(&c)) {
            c.owed.insert(token);
        }
        if let Some(end) = end {
            self.close(token, end, Some(attempt), out);
        }
    }

    /// The child of this run is gone.
    pub(super) fn lose(&mut self, token: Token, how: &str, out_of_memory: bool, out: &mut Vec<Command>) {
        let Some(held) = self.held.get(&token) else { return };
        let cause = match &held.stage {
            // It never heard of it.
            Stage::Starting { .. } => {
                self.free(token);
                self.back(token, None, out);
                return;
            }
            Stage::Running(run) => match run.killed {
                Some(Killed::TimeLimit) => Cause::TimeLimit { soft: false },
                Some(Killed::Revoked) => Cause::Revoked,
                // It was told to end for good: what else its child was killed for changes nothing.
                Some(_) if run.revoked => Cause::Revoked,
                Some(Killed::Shutdown) => Cause::Interrupted,
                Some(Killed::Companion) => Cause::Interrupted,
                // Which one of several used it up cannot be told: it counts for all.
                Some(Killed::Beside) | None if out_of_memory => Cause::Memory,
                Some(Killed::Beside) | None => Cause::WorkerLost,
            },
            Stage::Waiting | Stage::Closing(_) => return,
        };
        let why = match cause {
            Cause::Memory => format!("its child ran out of memory: {how}"),
            Cause::Interrupted if self.stop.is_none() => {
                "its child was killed for another run that was overdue".into()
            }
            Cause::TimeLimit { .. } => "its child was killed: it did not end the attempt at its limit".into(),
            Cause::Revoked => "its child was killed: it did not end the attempt when it was canceled".into(),
            Cause::Interrupted => "its child was killed at the end of the shutdown's grace".into(),
            _ => format!("its child is gone: {how}"),
        };
        self.conclude(token, Box::new(Outcome::of_cause(cause, why)), None, out);
    }

    /// Somebody canceled this run. False: its child was told before.
    pub(super) fn revoke_running(run: &mut Running, now: Mono) -> bool {
        if std::mem::replace(&mut run.revoked, true) {
            return false;
        }
        let at = now.plus(CANCEL_MS);
        run.overdue_at = Some(run.overdue_at.map_or(at, |old| old.min(at)));
        true
    }

    /// Tells resident workers of soft limits that passed, and kills children whose run is overdue: past the
    /// hard limit of a resident worker, silent long after that of a runner, or silent after a cancel.
    pub(super) fn pump_overdue(&mut self, out: &mut Vec<Command>) {
        if self.overdue_deadline().is_none_or(|at| at > self.now.mono) {
            return;
        }
        let now = self.now.mono;
        let mut late = Vec::new();
        for (token, held) in &mut self.held {
            if let Stage::Running(run) = &mut held.stage
                && run.soft_at.is_some_and(|at| at <= now)
            {
                run.soft_at = None;
                if !run.revoked && !run.interrupted {
                    run.soft = true;
                    let (child, run) = (run.child, run_key(*token));
                    out.push(Command::Cancel { child, run, reason: CancelReason::TimeLimit });
                }
            }
            if let Stage::Running(run) = &mut held.stage
                && run.overdue_at.is_some_and(|at| at <= now)
            {
                run.overdue_at = None;
                let (killed, text) = if run.revoked {
                    (Killed::Revoked, "it did not end a run that was canceled")
                } else {
                    (Killed::TimeLimit, "it did not end a run at its time limit")
                };
                run.killed = Some(killed);
                late.push((run.child, text));
            }
        }
        for (child, text) in late {
            self.kill(child, Killed::Companion, text, out);
        }
    }

    pub(super) fn overdue_deadline(&self) -> Option<Mono> {
        let runs = self.held.values().filter_map(|h| match &h.stage {
            Stage::Running(run) => run.overdue_at.into_iter().chain(run.soft_at).min(),
            _ => None,
        });
        runs.min()
    }
}

/// When the child of a run is killed for its hard limit. A runner keeps it itself; for a program of the user's
/// the engine does.
fn overdue(now: Mono, limit_ms: u64, worker: bool) -> Mono {
    let limit = now.plus(limit_ms);
    if worker { limit } else { limit.plus(OVERDUE_MS) }
}

/// Adds what a resident worker does not say of the end of a run: what it was told to end for, and how long
/// it ran. `began`: when it was handed over; 0 where a daemon before this one did that.
fn complete(outcome: &mut Outcome, run: &Running, began: Wall, now: Mono) {
    let said_exit = matches!(outcome.cause, Cause::Exit { .. } | Cause::Error { .. });
    if said_exit && !outcome.success && outcome.retry.is_none() {
        if run.revoked {
            outcome.cause = Cause::Revoked;
        } else if run.soft {
            outcome.cause = Cause::TimeLimit { soft: true };
        } else if run.interrupted {
            outcome.cause = Cause::Interrupted;
        }
    }
    if outcome.started.is_none() && (run.pid.is_some() || said_exit) {
        outcome.started = (began > Wall(0)).then_some(began);
        if outcome.usage.wall_ms == 0 {
            outcome.usage.wall_ms = now.since(run.since);
        }
    }
}

impl Start {
    fn is_due(self, now: Mono) -> bool {
        matches!(self, Self::Again { at, .. } if at <= now)
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
