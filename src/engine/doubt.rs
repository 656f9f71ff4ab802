//! Runs that a child may hold which was there before this daemon and has not said yet what it holds. All else
//! goes on without it: these stay leased, and count as running, until the child names them, says that it named
//! all, or is gone.

use std::collections::BTreeMap;

use super::Engine;
use super::child::Child;
use super::command::Command;
use super::event::ChildKey;
use super::held::{Held, Killed, Stage, run_key};
use crate::model::message::{Delivery, Token};
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::time::Mono;

/// A child that does not name its runs for so long is killed, in milliseconds.
pub const NAMING_MS: u64 = 10_000;

/// Who runs what is in doubt: no child has this key.
pub(super) const NOBODY: ChildKey = ChildKey(u64::MAX);

/// What is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The leases, and whether the store knows that they were started.
    tokens: BTreeMap<Token, bool>,
    /// A started run that nobody names may have died with its child.
    pub(super) lost: bool,
    /// When children that named nothing are killed.
    kill_at: Option<Mono>,
}

impl Engine {
    /// Whether everything that an earlier daemon left is matched: nothing of it is in doubt.
    #[must_use]
    pub fn is_matched(&self) -> bool {
        self.is_live() && self.doubts.tokens.is_empty()
    }

    /// From now on silent children have their time.
    pub(super) fn expect_names(&mut self) {
        self.doubts.kill_at = Some(self.now.mono.plus(NAMING_MS));
    }

    /// The silent children that may have been given a message of this queue: those of its pool. One that an
    /// older config started may be of the pool that had the queue then.
    fn who_may_hold(&self, queue: &str) -> impl Iterator<Item = ChildKey> {
        let pool = self.plan.queues.get(queue).map(|q| q.pool.as_str());
        let may = move |c: &Child| {
            c.unnamed && (c.generation != self.plan.generation || pool.is_none_or(|pool| c.slot.pool == pool))
        };
        self.children.iter().filter(move |(_, c)| may(c)).map(|(key, _)| *key)
    }

    /// Whether any may.
    pub(super) fn may_be_held(&self, queue: &str) -> bool {
        self.who_may_hold(queue).next().is_some()
    }

    /// Tells the child of a run to end it; of one in doubt, all that may have it: to the others it is nothing.
    pub(super) fn tell_cancel(&self, token: Token, reason: CancelReason, out: &mut Vec<Command>) {
        let Some(held) = self.held.get(&token) else { return };
        let Stage::Running(run) = &held.stage else { return };
        let child = Some(run.child).filter(|child| self.children.contains_key(child));
        let silent = self.who_may_hold(&held.message.queue).filter(|_| run.child == NOBODY);
        for child in child.into_iter().chain(silent) {
            out.push(Command::Cancel { child, run: run_key(token), reason });
        }
    }

    /// Takes a delivery into the books that a silent child may hold.
    pub(super) fn doubt(&mut self, delivery: Delivery) {
        let (token, started) = (delivery.token, delivery.started);
        self.hold(token, Held::waiting(delivery, self.now.mono));
        self.adopt_run(token, NOBODY, started);
        // Its limits begin when it is known who runs it.
        if let Some(Stage::Running(run)) = self.held.get_mut(&token).map(|h| &mut h.stage) {
            (run.soft_at, run.overdue_at) = (None, None);
        }
        self.doubts.tokens.insert(token, started);
    }

    /// A child speaks of a run: if that was in doubt, it is this child's.
    pub(super) fn clear_doubt(&mut self, child: ChildKey, run: &str, out: &mut Vec<Command>) {
        let Some(token) = super::token_of(run).filter(|t| self.doubts.tokens.contains_key(t)) else { return };
        if !self.children.contains_key(&child) {
            return;
        }
        self.doubts.tokens.remove(&token);
        let Some(Stage::Running(run)) = self.held.get(&token).map(|h| &h.stage) else { return };
        let (revoked, interrupted) = (run.revoked, run.interrupted);
        self.free(token);
        self.adopt_run(token, child, true);
        self.record_adopted(token, out);
        let Some(Stage::Running(run)) = self.held.get_mut(&token).map(|h| &mut h.stage) else { return };
        run.interrupted = interrupted;
        // It was told so then, as one of those that might have it.
        if revoked {
            Self::revoke_running(run, self.now.mono);
        }
    }

    /// Ends what no silent child can hold any more, and the silence of those whose time is over.
    pub(super) fn pump_doubts(&mut self, out: &mut Vec<Command>) {
        if self.doubts.kill_at.is_some_and(|at| at <= self.now.mono) {
            self.doubts.kill_at = None;
            let silent: Vec<ChildKey> =
                self.children.iter().filter(|(_, c)| c.unnamed).map(|(k, _)| *k).collect();
            for child in silent {
                self.kill(child, Killed::Beside, "it did not name its runs to a new daemon", out);
            }
        }
        let over = |(token, started): (&Token, &bool)| {
            let queue = self.held.get(token).map(|h| h.message.queue.as_str());
            (!queue.is_some_and(|queue| self.may_be_held(queue))).then_some((*token, *started))
        };
        let over: Vec<(Token, bool)> = self.doubts.tokens.iter().filter_map(over).collect();
        for (token, started) in over {
            self.doubts.tokens.remove(&token);
            let Some(Stage::Running(run)) = self.held.get(&token).map(|h| &h.stage) else { continue };
            if started && self.doubts.lost {
                let why = "its child is gone: it died before it told the new daemon what it ran";
                self.conclude(token, Box::new(Outcome::of_cause(Cause::WorkerLost, why)), None, out);
                self.leftovers.push(token);
                continue;
            }
            // Every child that is left told what it holds and this is not among it: no child ever had it.
            let revoked = run.revoked;
            self.free(token);
            if revoked {
                self.revoke_waiting(token, out);
            } else {
                self.back(token, None, out);
            }
        }
    }

    pub(super) fn doubts_deadline(&self) -> Option<Mono> {
        self.doubts.kill_at.filter(|_| self.children.values().any(|c| c.unnamed))
    }
}
