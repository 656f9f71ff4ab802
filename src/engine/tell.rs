//! Who is told of an end: decided with the settle, published in its transaction, remembered over daemons.
//!
//! What is known of a task ([`Streak`]) and what follows from it are written together, so that a crash can
//! neither lose nor double a notice. The store does operations in their order, so a later settle of the same
//! task may build on an earlier one that is still under way, with one exception: while a settle that tells
//! something is under way, the other ends of its task wait. A fact that says "told" is thus never in the store
//! without its notice.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::command::Command;
use super::expected::Alarms;
use super::held::{Held, Stage};
use super::settle::End;
use super::store::{Job, Pending};
use super::streak::{Decision, Streak};
use crate::model::message::{Message, Token};
use crate::model::notice::{Called, Notice, Subject, bounded};
use crate::model::op::{Fault, MAX_MEMOS, Memo, Op, Reply, Settle};
use crate::model::state::State;
use crate::model::time::{Mono, Wall};

/// What the keys of streaks begin with.
const PREFIX: &str = "tell:";

/// Streaks that are kept at most: names that fit a pattern are without number. The oldest goes first.
const MAX_STREAKS: usize = 10_000;

/// Facts that are written in one operation at most.
const BATCH: usize = 100;

/// What is known, and how far it is known to the store.
#[derive(Debug, Default)]
pub(super) struct Telling {
    streaks: BTreeMap<String, Streak>,
    loaded: bool,
    recall: Job,
    /// The last key of the page before.
    after: String,
    /// Tasks of which something is being told: by which settle, and what was known before it.
    busy: BTreeMap<String, (Token, Streak)>,
    /// Tasks whose streak the store does not have as it is, though no settle will bring it.
    dirty: BTreeSet<String>,
    remember: Job,
    /// What the write under way says of whom.
    writing: Vec<String>,
    pub(super) alarms: Alarms,
}

impl Telling {
    /// What is known of a task; nothing where nothing is.
    pub(super) fn streak(&self, task: &str) -> Streak {
        self.streaks.get(task).cloned().unwrap_or_default()
    }

    /// Whether the facts of earlier daemons are known.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether something is being told of this task.
    pub(super) fn is_busy(&self, task: &str) -> bool {
        self.busy.contains_key(task)
    }

    /// Replaces what is known, and has it written.
    pub(super) fn set(&mut self, task: &str, streak: Streak) {
        self.keep(task, streak);
        self.dirty.insert(task.to_owned());
        self.remember.want();
    }

    /// Replaces what is known, with nothing that the store must know.
    pub(super) fn found(&mut self, task: &str, streak: Streak) {
        self.keep(task, streak);
    }

    fn keep(&mut self, task: &str, streak: Streak) {
        if streak.is_blank() {
            self.streaks.remove(task);
        } else {
            self.streaks.insert(task.to_owned(), streak);
        }
        if self.streaks.len() > MAX_STREAKS {
            let oldest = self.streaks.iter().filter(|(t, _)| t.as_str() != task && !self.is_busy(t));
            if let Some(task) = oldest.min_by_key(|(_, s)| s.touched).map(|(t, _)| t.clone()) {
                self.streaks.remove(&task);
                self.dirty.insert(task);
                self.remember.want();
            }
        }
    }

    /// The fact as the store keeps it.
    fn memo(&self, task: &str) -> Memo {
        let value = self.streaks.get(task).and_then(|s| serde_json::to_string(s).ok());
        Memo { key: format!("{PREFIX}{task}"), value }
    }
}

impl Engine {
    /// Somebody is told of some task: what earlier daemons knew is needed.
    pub(super) fn plan_telling(&mut self) {
        let tells = self.plan.tasks.values().any(|t| !t.tell.is_empty());
        if tells && !self.tell.loaded && !self.tell.recall.is_open() {
            self.tell.recall.want();
        }
        self.plan_alarms();
    }

    /// Brings an end together with what it leads to. False: it must wait, and is submitted again by
    /// [`Engine::tell_next`].
    pub(super) fn tells(&mut self, token: Token) -> bool {
        let Some(held) = self.held.get(&token) else { return true };
        let Stage::Closing(closing) = &held.stage else { return true };
        let End::Settle(settle) = &closing.end else { return true };
        if !matches!(settle.state, State::Success | State::Failure | State::Dead) {
            return true;
        }
        let task = held.message.task.clone();
        let Some(tell) = self.plan.task(&task).map(|t| &t.tell).filter(|t| !t.is_empty()) else {
            return true;
        };
        if self.tell.busy.get(&task).is_some_and(|(teller, _)| *teller == token) {
            // Nothing else was written since: it is repeated as it is.
            return true;
        }
        if !self.tell.loaded || self.tell.is_busy(&task) {
            return false;
        }
        if closing.counted {
            let memo = self.tell.memo(&task);
            self.write_memo(token, memo);
            return true;
        }
        let now = self.now.wall;
        let before = self.tell.streak(&task);
        let success = settle.state == State::Success;
        let first = success && self.is_first_success(&task, before.succeeded);
        if success && !first && !before.waits_for_success() {
            return true;
        }
        let mut streak = before.clone();
        let decision = streak.ended(tell, settle.state, now);
        if first {
            streak.succeeded = Some(now);
        }
        let notices = decision
            .map(|decision| {
                let targets = tell.rule(decision.kind).map(|r| r.targets.clone()).unwrap_or_default();
                notices(held, settle, token, &decision, &targets, now)
            })
            .unwrap_or_default();
        self.tell.keep(&task, streak);
        if !notices.is_empty() {
            self.tell.busy.insert(task.clone(), (token, before));
        }
        let memo = self.tell.memo(&task);
        self.tell.dirty.remove(&task);
        self.write_memo(token, memo);
        if let Some(closing) = self.closing(token) {
            closing.counted = true;
            if let End::Settle(settle) = &mut closing.end {
                // Where it waited for another one, that is when it is counted.
                settle.now = now;
                settle.follow_ups.extend(notices);
            }
        }
        true
    }

    fn write_memo(&mut self, token: Token, memo: Memo) {
        if let Some(closing) = self.closing(token)
            && let End::Settle(settle) = &mut closing.end
        {
            settle.memos.retain(|m| m.key != memo.key);
            settle.memos.push(memo);
        }
    }

    /// The end of this lease is in the store, or given up (`done` false): what waited for it goes on.
    pub(super) fn told(&mut self, token: Token, task: &str, done: bool, out: &mut Vec<Command>) {
        let Some((_, before)) = self.tell.busy.get(task).filter(|(teller, _)| *teller == token) else {
            return;
        };
        if !done {
            let before = before.clone();
            self.tell.keep(task, before);
        }
        self.tell.busy.remove(task);
        self.tell_next(Some(task), out);
    }

    /// Submits the ends that waited: those of this task, or all.
    fn tell_next(&mut self, task: Option<&str>, out: &mut Vec<Command>) {
        let waits = |h: &Held| match &h.stage {
            Stage::Closing(c) => c.waits && task.is_none_or(|t| t == h.message.task),
            _ => false,
        };
        let waiting: Vec<Token> = self.held.iter().filter(|(_, h)| waits(h)).map(|(t, _)| *t).collect();
        for token in waiting {
            self.submit_close(token, out);
        }
    }

    pub(super) fn pump_telling(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        if self.tell.recall.is_due(now) {
            self.tell.recall.submitted();
            let op = Op::Recall { prefix: PREFIX.to_owned(), after: self.tell.after.clone() };
            self.submit(Pending::TellRecall, op, out);
        }
        self.pump_alarms(out);
        if self.tell.remember.is_due(now) {
            let busy = &self.tell.busy;
            let some = self.tell.dirty.iter().filter(|t| !busy.contains_key(*t)).take(BATCH);
            let tasks: Vec<String> = some.cloned().collect();
            if tasks.is_empty() {
                // What is being told brings it, or wants it again.
                self.tell.remember = Job::default();
                return;
            }
            let memos = tasks.iter().map(|t| self.tell.memo(t)).collect();
            for task in &tasks {
                self.tell.dirty.remove(task);
            }
            self.tell.writing = tasks;
            self.tell.remember.submitted();
            self.submit(Pending::TellRemember, Op::Remember(memos), out);
        }
    }

    pub(super) fn tell_remembered(&mut self, result: &Result<Reply, Fault>) {
        let failed = matches!(result, Err(Fault::Again(_) | Fault::Reconnect(_)));
        self.tell.remember.answered(self.now.mono, failed);
        let tasks = std::mem::take(&mut self.tell.writing);
        if failed {
            self.tell.dirty.extend(tasks);
        } else if !self.tell.dirty.is_empty() {
            self.tell.remember.want();
        }
    }

    pub(super) fn tell_recalled(&mut self, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        let again = matches!(result, Err(Fault::Again(_) | Fault::Reconnect(_)));
        self.tell.recall.answered(self.now.mono, again);
        if again {
            return;
        }
        // A store that refuses this has no such facts: nothing is known, and ends do not wait for ever.
        let memos = if let Ok(Reply::Memos(memos)) = result { memos } else { Vec::new() };
        let more = memos.len() >= MAX_MEMOS;
        for memo in memos {
            self.tell.after.clone_from(&memo.key);
            let task = memo.key.strip_prefix(PREFIX).unwrap_or_default().to_owned();
            let streak = memo.value.and_then(|v| serde_json::from_str::<Streak>(&v).ok());
            if self.plan.task(&task).is_none() {
                // Of a task that is gone.
                self.tell.set(&task, Streak::default());
            } else if let Some(streak) = streak {
                self.tell.keep(&task, streak);
            }
        }
        if more {
            self.tell.recall.want();
            return;
        }
        self.tell.loaded = true;
        self.plan_alarms();
        self.tell_next(None, out);
    }

    pub(super) fn telling_deadline(&self) -> Option<Mono> {
        let jobs = [self.tell.recall.deadline(), self.tell.remember.deadline(), self.alarms_deadline()];
        jobs.into_iter().flatten().min()
    }
}

/// One message for each who is told.
fn notices(
    held: &Held,
    settle: &Settle,
    token: Token,
    decision: &Decision,
    targets: &[String],
    now: Wall,
) -> Vec<Message> {
    let subject = Subject {
        id: settle.id.clone(),
        queue: held.message.queue.clone(),
        state: settle.state,
        attempt: held.attempt,
        outcome: bounded(&settle.outcome),
        enqueued: held.message.enqueued,
        called: held.called.as_deref().cloned(),
    };
    // An id lives anew with `taskd retry`, a lease never does.
    let kind = format!("notice:{}", token.0);
    let each = targets.iter().zip(0_u32..).map(|(target, n)| {
        let notice = Notice {
            target: target.clone(),
            kind: decision.kind,
            task: held.message.task.clone(),
            at: now,
            test: false,
            subject: Some(Box::new(subject.clone())),
            failures: decision.failures,
            since: decision.since,
            kept_back: decision.kept_back,
            expected: None,
            missing_since: None,
            output: Vec::new(),
        };
        notice.message(settle.id.follow_up(&kind, n))
    });
    each.collect()
}

impl super::plan::Plan {
    /// What a notice would repeat of a message's arguments, where one may follow.
    pub(super) fn called(&self, message: &Message) -> Option<Box<Called>> {
        let tells = self.task(&message.task).is_some_and(|t| !t.tell.is_empty());
        tells.then(|| Box::new(Called::of(message)))
    }
}
