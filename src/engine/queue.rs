//! A queue as this node sees it: a bounded window of leased messages, and who runs.

use std::collections::VecDeque;

use super::Engine;
use super::command::Command;
use super::held::Stage;
use crate::model::message::Token;
use crate::model::time::Mono;

/// One step of the stride scheduler at weight 1.
const STRIDE: u64 = 1 << 20;

/// Largest window of leased, not started messages of a queue (twice that where priorities ask for it).
const MAX_WINDOW: usize = 64;

/// A window that was used up within this time is doubled, in milliseconds: the store is asked less often
/// where attempts are short.
const SHORT_MS: u64 = 10;

/// How often a window is doubled.
const DOUBLINGS: u32 = 3;

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Leased, not started, in the store's order (its rank).
    pub(super) window: VecDeque<Token>,
    /// Attempts that run.
    pub(super) running: u32,
    /// The store may have more to hand out.
    pub(super) may_have: bool,
    /// A lease is under way.
    pub(super) leasing: bool,
    /// [`Self::may_have`] was raised while a lease was under way: its answer does not lower it.
    pub(super) raised: bool,
    /// A purge came while a lease was under way: what that lease brings is ended.
    pub(super) purged: bool,
    /// So many messages were accepted that go before one in the window.
    pub(super) urgent: usize,
    /// Somebody paused it and this node knows.
    pub(super) paused: bool,
    /// Where it stands in the stride order: the least goes next.
    pub(super) pass: u64,
    /// How often its window is doubled now.
    doubled: u32,
    /// When the store was asked last.
    asked: Option<Mono>,
}

impl Queue {
    pub(super) fn raise(&mut self) {
        self.may_have = true;
        self.raised |= self.leasing;
    }

    /// The size of its window now, where its pool has this many slots. Half of it is leased anew at once.
    pub(super) fn window_size(&self, processes: u32) -> usize {
        (window_of(processes) << self.doubled).min(MAX_WINDOW.max(window_of(processes)))
    }

    /// The store is asked for more: sooner than expected, or not.
    pub(super) fn ask(&mut self, now: Mono) {
        let short = self.asked.is_some_and(|at| now.since(at) < SHORT_MS);
        self.doubled = if short { (self.doubled + 1).min(DOUBLINGS) } else { 0 };
        self.asked = Some(now);
    }

    /// Moves it on after a dispatch: the heavier, the shorter the step.
    pub(super) fn advance(&mut self, weight: u32) {
        self.pass = self.pass.saturating_add(STRIDE / u64::from(weight.max(1)));
    }
}

/// The size of the window of a queue whose pool has this many slots, where attempts are not short.
pub(super) fn window_of(processes: u32) -> usize {
    (processes as usize).saturating_add(2).min(MAX_WINDOW)
}

impl Engine {
    /// The store may have messages in this queue.
    pub(super) fn raise(&mut self, queue: &str) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.raise();
        } else if self.plan.queues.contains_key(queue) {
            let mut q = Queue::default();
            q.raise();
            self.queues.insert(queue.to_owned(), q);
        }
    }

    /// The store may have messages in any queue.
    pub(super) fn raise_all(&mut self) {
        let names: Vec<String> = self.plan.queues.keys().cloned().collect();
        for name in names {
            self.raise(&name);
        }
    }

    /// A message of this priority was accepted: where it goes before one in the window, the window is not
    /// full for it.
    pub(super) fn overtake(&mut self, queue: &str, priority: u8) {
        let Some(q) = self.queues.get_mut(queue) else { return };
        let lower = |t: &Token| self.held.get(t).is_some_and(|h| h.message.priority < priority);
        if q.window.iter().any(lower) {
            q.urgent += 1;
        }
    }

    /// Whether messages of this queue may be taken and started now.
    pub(super) fn open(&self, queue: &str) -> bool {
        !self.draining && self.stop.is_none() && self.queues.get(queue).is_none_or(|q| !q.paused)
    }

    /// Gives back what is leased and not started.
    pub(super) fn give_back(&mut self, queue: &str, out: &mut Vec<Command>) {
        let tokens: Vec<Token> =
            self.queues.get_mut(queue).map(|q| q.window.drain(..).collect()).unwrap_or_default();
        for token in tokens {
            self.back(token, None, out);
        }
    }

    /// The same for every queue; attempts whose start is not committed yet included.
    pub(super) fn give_back_all(&mut self, out: &mut Vec<Command>) {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        for name in names {
            self.give_back(&name, out);
        }
        let starting: Vec<Token> = self
            .held
            .iter()
            .filter(|(_, h)| matches!(h.stage, Stage::Starting { .. }))
            .map(|(t, _)| *t)
            .collect();
        for token in starting {
            self.free(token);
            self.back(token, None, out);
        }
    }
}
