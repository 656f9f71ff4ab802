//! What an earlier daemon left behind: the children tell what they hold, the store tells what is leased,
//! and nothing is handed out before the two are matched. A child that is silent is waited for shortly; what it
//! may hold is then left in [`super::doubt`], and all else goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::child::Child;
use super::command::Command;
use super::doubt::NOBODY;
use super::event::ChildKey;
use super::held::{Held, Stage, run_key};
use super::plan::Plan;
use super::slot::Slot;
use super::store::Pending;
use crate::model::message::Delivery;
use crate::model::op::{Fault, Op, Reply};
use crate::model::outcome::{CancelReason, Cause, Outcome};
use crate::model::time::Mono;

/// All wait so long for a child that does not name its runs, in milliseconds: an answer takes a few.
const SILENT_MS: u64 = 300;

/// READY waits so long for children that are still starting, or silent, in milliseconds.
const UP_MS: u64 = 5_000;

/// A run that the store does not know is told to end; its child is killed after this, in milliseconds.
const STRANGER_MS: u64 = 30_000;

/// Where the engine is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Children to adopt are being told.
    Boot(Adoption),
    /// The match is being made.
    Adopting(Adoption),
    /// It works.
    Live,
}

/// What is known for the match so far.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// A started run that nobody names may have died with its child.
    lost: bool,
    /// Until when children that named nothing are waited for.
    deadline: Option<Mono>,
    recovered: Option<Vec<Delivery>>,
    named: BTreeMap<String, (ChildKey, Named)>,
}

/// What an adopted child says of a run.
#[derive(Debug)]
pub(super) enum Named {
    /// It goes on.
    Running,
    /// It ended.
    Ended(Box<Outcome>),
    /// It was never run.
    Refused,
    /// The child died with it.
    Lost {
        /// For want of memory.
        out_of_memory: bool,
    },
}

impl Phase {
    pub(super) fn boot() -> Self {
        Self::Boot(Adoption::default())
    }

    fn adoption(&mut self) -> Option<&mut Adoption> {
        match self {
            Self::Boot(a) | Self::Adopting(a) => Some(a),
            Self::Live => None,
        }
    }
}

impl Engine {
    /// Whether the match is made: messages are taken and handed out.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    pub(super) fn is_booting(&self) -> bool {
        matches!(self.phase, Phase::Boot(_))
    }

    pub(super) fn take_plan(&mut self, plan: Arc<Plan>, out: &mut Vec<Command>) {
        if self.plan.schedules != plan.schedules {
            self.replan_schedules();
        }
        self.plan = plan;
        self.rates_reloaded();
        self.recount_places();
        self.plan_slots();
        self.plan_telling();
        let plan = Arc::clone(&self.plan);
        if self.is_live() {
            self.screen_all(out);
            self.queues.retain(|name, q| plan.queues.contains_key(name) || q.running > 0 || q.leasing);
            self.raise_all();
            self.store.known.want();
        }
    }

    pub(super) fn adopt(&mut self, children_lost: bool, fresh: bool, out: &mut Vec<Command>) {
        let Phase::Boot(adoption) = &mut self.phase else { return };
        let mut adoption = std::mem::take(adoption);
        adoption.lost |= children_lost || fresh;
        adoption.deadline = Some(self.now.mono.plus(SILENT_MS));
        self.up_by = Some(self.now.mono.plus(UP_MS));
        self.expect_names();
        self.phase = Phase::Adopting(adoption);
        self.want_rates();
        self.store.recover.submitted();
        self.submit(Pending::Recover, Op::Recover, out);
    }

    pub(super) fn child_holds(&mut self, child: ChildKey, run: String, out: &mut Vec<Command>) {
        if !self.is_live() {
            self.child_named(child, run, Named::Running);
            return;
        }
        self.clear_doubt(child, &run, out);
        if self.run_of(child, &run).is_none() {
            self.evict(child, run, out);
        }
    }

    pub(super) fn child_named(&mut self, child: ChildKey, run: String, named: Named) {
        if let Some(adoption) = self.phase.adoption() {
            // What was heard first of an end stands: a child may name it again.
            let entry = adoption.named.entry(run).or_insert((child, Named::Running));
            if matches!(entry.1, Named::Running) {
                *entry = (child, named);
            }
        }
    }

    pub(super) fn child_resumed(&mut self, child: ChildKey) {
        // Without `ready` before it, it is the end of an answer to an earlier daemon, whose beginning
        // that daemon had read: what this one was not told would be taken for not there.
        if let Some(c) = self.children.get_mut(&child).filter(|c| c.ready.is_some()) {
            c.unnamed = false;
        }
    }

    /// A child died before the match: what it had not ended is lost, named or not.
    pub(super) fn adopted_down(&mut self, child: ChildKey, c: &Child, out_of_memory: bool) {
        self.doubts.lost |= c.unnamed;
        if let Some(adoption) = self.phase.adoption() {
            adoption.lost |= c.unnamed;
            for (by, named) in adoption.named.values_mut() {
                if *by == child && matches!(named, Named::Running) {
                    *named = Named::Lost { out_of_memory };
                }
            }
        }
    }

    pub(super) fn recovered(&mut self, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        self.store.recover.answered(self.now.mono, result.is_err());
        let Ok(Reply::Deliveries(deliveries)) = result else { return };
        if let Some(adoption) = self.phase.adoption() {
            adoption.recovered = Some(deliveries);
            return;
        }
        // After a failed lease: what is leased to this node and unknown to it goes back.
        for delivery in deliveries {
            let token = delivery.token;
            if self.held.contains_key(&token) {
                continue;
            }
            self.unpark(&delivery.message.id);
            let newer = self.by_id.get(&delivery.message.id).copied();
            let id = delivery.message.id.clone();
            self.hold(token, Held::waiting(delivery, self.now.mono));
            if let Some(newer) = newer {
                self.by_id.insert(id, newer);
            }
            self.back(token, None, out);
        }
    }

    pub(super) fn pump_adoption(&mut self, out: &mut Vec<Command>) {
        self.pump_rates(out);
        let known = self.has_rates();
        let Phase::Adopting(adoption) = &mut self.phase else { return };
        let all_named = !self.children.values().any(|c| c.unnamed);
        if adoption.deadline.is_some_and(|at| at <= self.now.mono) {
            adoption.deadline = None;
        }
        if (all_named || adoption.deadline.is_none()) && adoption.recovered.is_some() && known {
            let adoption = std::mem::take(adoption);
            self.go_live(adoption, out);
            return;
        }
        if self.store.recover.is_due(self.now.mono) {
            self.store.recover.submitted();
            self.submit(Pending::Recover, Op::Recover, out);
        }
    }

    fn go_live(&mut self, adoption: Adoption, out: &mut Vec<Command>) {
        let Adoption { lost, mut named, recovered, .. } = adoption;
        self.phase = Phase::Live;
        self.doubts.lost |= lost;
        for delivery in recovered.unwrap_or_default() {
            let (token, started) = (delivery.token, delivery.started);
            let said = named.remove(&run_key(token));
            if said.is_none() && self.may_be_held(&delivery.message.queue) {
                self.doubt(delivery);
                continue;
            }
            self.hold(token, Held::waiting(delivery, self.now.mono));
            match said {
                Some((child, Named::Running)) => {
                    self.adopt_run(token, child, started);
                    self.record_adopted(token, out);
                }
                Some((child, Named::Ended(outcome))) => {
                    self.adopt_run(token, child, started);
                    self.conclude(token, outcome, Some(child), out);
                }
                Some((_, Named::Refused)) => self.back(token, None, out),
                Some((child, Named::Lost { out_of_memory })) => {
                    self.adopt_run(token, child, started);
                    self.lose(token, "it died while the daemon was replaced", out_of_memory, out);
                }
                None if started && lost => {
                    self.adopt_run(token, NOBODY, started);
                    let why = "its child is gone: it died while no daemon lived";
                    let outcome = Outcome::of_cause(Cause::WorkerLost, why);
                    self.conclude(token, Box::new(outcome), None, out);
                }
                // A child may have had it and be gone, before the store heard of its start.
                None if lost => {
                    self.charge_unsure(token);
                    self.back(token, None, out);
                }
                // Every child told what it holds and this is not among it: no child ever had it.
                None => self.back(token, None, out),
            }
        }
        for (run, (child, named)) in named {
            match named {
                Named::Running => self.evict(child, run, out),
                Named::Ended(_) => {
                    if self.children.contains_key(&child) {
                        out.push(Command::Settled { child, run });
                    }
                }
                Named::Refused | Named::Lost { .. } => {}
            }
        }
        let ended = self.held.iter().filter(|(_, h)| matches!(h.stage, Stage::Closing(_)));
        self.leftovers = ended.map(|(token, _)| *token).collect();
        self.sweep.job.want();
        self.store.known.want();
        self.lanes_unknown();
        self.raise_all();
    }

    /// Whether every slot has a child that takes runs, or is known not to get one for now. What takes longer
    /// than usual to come up, or to answer, is not waited for: the others work.
    #[must_use]
    pub fn pools_up(&self) -> bool {
        self.is_live() && (self.up_by.is_none_or(|at| at <= self.now.mono) || self.all_up())
    }

    fn all_up(&self) -> bool {
        let ready = |k: &ChildKey| self.children.get(k).is_some_and(|c| c.ready.is_some());
        let up = |s: &Slot| s.failures > 0 || s.children.iter().any(ready);
        self.slots.values().filter(|s| !s.surplus).all(up)
    }

    /// When [`Engine::pools_up`] stops waiting.
    pub(super) fn up_deadline(&self) -> Option<Mono> {
        self.up_by.filter(|at| *at > self.now.mono && !self.all_up())
    }

    /// Whether the store has the end of everything that ended while no daemon lived.
    #[must_use]
    pub fn has_recovered(&self) -> bool {
        self.is_matched() && !self.leftovers.iter().any(|token| self.held.contains_key(token))
    }

    /// Ends a run that is under no lease of this node.
    pub(super) fn evict(&mut self, child: ChildKey, run: String, out: &mut Vec<Command>) {
        let kill_at = self.now.mono.plus(STRANGER_MS);
        if let Some(c) = self.children.get_mut(&child) {
            c.kill_at.get_or_insert(kill_at);
            c.strangers.insert(run.clone());
            out.push(Command::Cancel { child, run, reason: CancelReason::Interrupted });
        }
    }

    pub(super) fn adoption_deadline(&self) -> Option<Mono> {
        let Phase::Adopting(adoption) = &self.phase else { return None };
        adoption.deadline.into_iter().chain(self.store.recover.deadline()).chain(self.rates_deadline()).min()
    }
}
