//! The messages this node holds a lease on, and how far each one is.

use std::sync::Arc;

use super::Engine;
use super::event::{AskKey, ChildKey};
use super::plan::Plan;
use super::settle::Closing;
use crate::model::message::{Delivery, Message, Token};
use crate::model::notice::Called;
use crate::model::time::{Mono, Wall};

/// The key of a run: its lease's token, unique per attempt.
#[must_use]
pub fn run_key(token: Token) -> String {
    token.0.to_string()
}

/// The token that a run key names; `None` for a key that [`run_key`] does not make.
#[must_use]
pub fn token_of(run: &str) -> Option<Token> {
    let token = Token(run.parse().ok()?);
    (run_key(token) == run).then_some(token)
}

/// A leased message.
#[derive(Debug)]
pub(super) struct Held {
    /// The message; its arguments go to the child with the run.
    pub(super) message: Message,
    /// Number of the attempt.
    pub(super) attempt: u32,
    /// Attempts lost before this one.
    pub(super) losses: u32,
    /// Its place in its queue's window: the smaller goes first.
    pub(super) rank: i64,
    /// When the lease arrived.
    pub(super) received: Mono,
    /// When it was given a slot; a repeated [`crate::model::op::Op::Start`] says the same time.
    pub(super) began: Wall,
    /// How far it is.
    pub(super) stage: Stage,
    /// What its start took of limits.
    pub(super) grip: Option<Box<super::limit::Grip>>,
    /// Its arguments, where a notice may repeat them.
    pub(super) called: Option<Box<Called>>,
    /// Who canceled it and waits until it is settled.
    pub(super) cancels: Vec<AskKey>,
}

/// How far a leased message is.
#[derive(Debug)]
pub(super) enum Stage {
    /// In its queue's window.
    Waiting,
    /// Its start must be in the store before the child hears of it: of an `acks = "early"` task, and where the
    /// store has to say whether its limits let it start.
    Starting {
        /// Who will run it.
        child: ChildKey,
        /// How far the start is.
        start: Start,
        /// The settings it starts with: its child may be of an older generation when the start is committed.
        plan: Arc<Plan>,
    },
    /// A child has it.
    Running(Box<Running>),
    /// Over; the store does not know yet.
    Closing(Box<Closing>),
}

/// How far [`crate::model::op::Op::Start`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Submitted.
    Sent {
        /// How often the store failed it.
        tries: u32,
    },
    /// The store failed it; again at this time.
    Again {
        /// When.
        at: Mono,
        /// How often the store failed it.
        tries: u32,
    },
    /// Committed.
    Done,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Running {
    /// Who runs it.
    pub(super) child: ChildKey,
    /// The settings it started with: a reload does not touch it.
    pub(super) plan: Arc<Plan>,
    /// Since when.
    pub(super) since: Mono,
    /// How long it had waited, in milliseconds; not known of an adopted run.
    pub(super) waited_ms: Option<u64>,
    /// Its process, once it is known.
    pub(super) pid: Option<u32>,
    /// It runs in a program of the user's: the engine keeps its limits.
    pub(super) worker: bool,
    /// When the child is told to end it for its soft limit.
    pub(super) soft_at: Option<Mono>,
    /// The child was told so.
    pub(super) soft: bool,
    /// When the child is killed for it: its hard limit passed, or it was canceled, and there was no word.
    pub(super) overdue_at: Option<Mono>,
    /// Somebody canceled it.
    pub(super) revoked: bool,
    /// It was told to end for a shutdown.
    pub(super) interrupted: bool,
    /// Why taskd kills its child, if it does.
    pub(super) killed: Option<Killed>,
    /// Whether the store knows that it runs.
    pub(super) start: Start,
}

/// Why a child is killed under a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// The run's hard limit.
    TimeLimit,
    /// It was canceled.
    Revoked,
    /// The end of a shutdown's patience.
    Shutdown,
    /// The child did not answer, or broke the protocol.
    Beside,
    /// Another run of the same child was overdue: this one did nothing wrong.
    Companion,
}

impl Held {
    pub(super) fn waiting(delivery: Delivery, received: Mono) -> Self {
        Self {
            message: delivery.message,
            attempt: delivery.attempt,
            losses: delivery.losses,
            rank: delivery.rank,
            received,
            began: Wall(0),
            stage: Stage::Waiting,
            grip: None,
            called: None,
            cancels: Vec::new(),
        }
    }

    /// How long it had waited when it started, in milliseconds: a first attempt since it could have run,
    /// a later one since its lease.
    pub(super) fn waited_ms(&self, wall: Wall, mono: Mono) -> u64 {
        if self.attempt > 1 || self.message.retries > 0 {
            return mono.since(self.received);
        }
        let ready = self.message.eta.map_or(self.message.enqueued, |eta| eta.max(self.message.enqueued));
        wall.since(ready)
    }
}

impl Engine {
    /// Takes a delivery into the books. The newest lease of an id answers for it.
    pub(super) fn hold(&mut self, token: Token, held: Held) {
        self.by_id.insert(held.message.id.clone(), token);
        self.held.insert(token, held);
    }

    /// Takes it out of the books.
    pub(super) fn forget(&mut self, token: Token) -> Option<Held> {
        let held = self.held.remove(&token)?;
        if self.by_id.get(&held.message.id) == Some(&token) {
            self.by_id.remove(&held.message.id);
        }
        self.grip_gone(&held);
        Some(held)
    }

    /// Frees the slot (and the place under its queue's limit) of an attempt that ended.
    pub(super) fn free(&mut self, token: Token) {
        let Some(held) = self.held.get(&token) else { return };
        let child = match &held.stage {
            Stage::Starting { child, .. } => *child,
            Stage::Running(run) => run.child,
            Stage::Waiting | Stage::Closing(_) => return,
        };
        self.hold_places(token, false);
        if let Some(c) = self.children.get_mut(&child) {
            c.runs.remove(&token);
            self.run_over(child);
        }
        let Some(held) = self.held.get(&token) else { return };
        if let Some(q) = self.queues.get_mut(&held.message.queue) {
            q.running = q.running.saturating_sub(1);
        }
    }

    /// Counts an attempt on this child.
    pub(super) fn occupy(&mut self, token: Token, child: ChildKey) {
        self.hold_places(token, true);
        let Some(held) = self.held.get(&token) else { return };
        if let Some(c) = self.children.get_mut(&child) {
            c.runs.insert(token);
            c.taken = c.taken.saturating_add(1);
            c.reserved = false;
        }
        self.queues.entry(held.message.queue.clone()).or_default().running += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_key_names_its_token_and_nothing_else() {
        assert_eq!(token_of(&run_key(Token(42))), Some(Token(42)));
        for other in ["", "x", "042", "+42", " 42", "42 "] {
            assert_eq!(token_of(other), None, "{other:?}");
        }
    }
}
