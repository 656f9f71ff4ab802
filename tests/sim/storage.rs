//! The store behind the engine: the model, with operations that are late, lost, or done although they
//! failed.

use taskd::engine::run_key;
use taskd::model::message::Token;
use taskd::model::name::MessageId;
use taskd::model::op::{Fault, Op, Published, Reply, Ticket};
use taskd::model::outcome::Cause;
use taskd::model::state::State;

use crate::ledger::{Check, Excuse};
use crate::planted::Planted;
use crate::world::{Thing, World};

/// The message that an operation is about, if it is about one.
fn subject(op: &Op) -> Option<&MessageId> {
    match op {
        Op::Start { id, .. } | Op::Defer { id, .. } | Op::Revoke { id, .. } => Some(id),
        Op::Requeue { id, .. } | Op::Move { id, .. } | Op::Aside { id, .. } => Some(id),
        Op::Settle(s) => Some(&s.id),
        _ => None,
    }
}

impl World {
    pub fn submit(&mut self, ticket: Ticket, op: Op) -> Check {
        if let Op::Tick(tick) = &op {
            self.tick_is_right(tick)?;
        }
        let delay =
            if self.rng.chance(self.faults.op_late) { self.rng.between(20, 900) } else { self.rng.below(4) };
        // One writer: operations take effect in their order.
        self.last_op = self.last_op.max(self.now.mono.0 + delay);
        let life = self.life;
        self.at_time(self.last_op, Thing::ApplyOp { life, ticket, op });
        Ok(())
    }

    pub fn apply_op(&mut self, life: u64, ticket: Ticket, op: Op) -> Check {
        let out = self.now.mono < self.outage_until;
        let lost = out && self.rng.chance(500) || self.rng.chance(self.faults.op_lost);
        let unclear = out || self.rng.chance(self.faults.op_unclear);
        let fault = || Fault::Again("no space left on device".into());
        let kind = op.clone();
        let result = if lost {
            self.trace(3, ticket.0, || format!("    store loses {op:?}"));
            self.pretend(&kind).map_or_else(|| Err(fault()), Ok)
        } else {
            let reply = self.apply(op)?;
            if let Ok(Reply::With(_, beside)) = &reply {
                self.note_fires(&beside.fires);
            }
            if unclear {
                self.trace(4, ticket.0, || format!("    store fails after {kind:?}"));
                Err(fault())
            } else {
                reply
            }
        };
        let mut result = self.bend(&kind, result);
        if let Ok(reply) = &mut result {
            self.bend_answer(reply);
        }
        let delay =
            if self.rng.chance(self.faults.op_late) { self.rng.between(10, 600) } else { self.rng.below(3) };
        self.at(delay, Thing::Complete { life, ticket, result });
        Ok(())
    }

    /// Applies one operation to the model, under the eyes of the ledger.
    pub fn apply_op_alone(&mut self, mut op: Op) -> Result<Result<Reply, Fault>, crate::ledger::Violation> {
        if let Op::Publish { messages, .. } = &op {
            let ids: Vec<MessageId> = messages.iter().map(|m| m.id.clone()).collect();
            let known: Vec<bool> = ids.iter().map(|id| self.get(id).is_some()).collect();
            let reply = self.model.apply(op.clone());
            for (id, known) in ids.iter().zip(known) {
                if !known {
                    let after = self.get(id);
                    self.ledger.moves_are_legal(&op, None, after.as_ref())?;
                }
            }
            return Ok(reply);
        }
        self.bend_launch(&mut op);
        if let Op::Tick(tick) = op {
            return self.apply_tick(*tick);
        }
        if let Op::Schedule(changes) = &op {
            self.note_changes(changes);
        }
        let Some(id) = subject(&op).cloned() else {
            if self.bug == Some(Planted::ForgottenAlarm) && matches!(op, Op::Once { .. }) {
                return Ok(Ok(Reply::Once(false)));
            }
            let reply = self.apply_to_flow(op.clone());
            if let Ok(reply) = &reply {
                self.alarm_is_right(&op, reply)?;
            }
            return Ok(reply);
        };
        self.note_touch(&op);
        let before = self.get(&id);
        if self.is_dropped(&op) {
            return Ok(Ok(self.dropped_reply(&id, &op)));
        }
        self.bend_limits(&mut op);
        self.bend_op(&mut op, before.as_ref().and_then(|r| r.token));
        self.bend_notices(&mut op);
        let reply = self.model.apply(op.clone());
        self.note_allowed(&op, &reply);
        let after = self.get(&id);
        self.ledger.moves_are_legal(&op, before.as_ref(), after.as_ref())?;
        let inner = match &reply {
            Ok(Reply::With(inner, _)) => Some(&**inner),
            Ok(other) => Some(other),
            Err(_) => None,
        };
        let applied = matches!(inner, Some(Reply::Applied { applied: true, .. }));
        if matches!(inner, Some(Reply::Closed { .. })) {
            // A limit turned its start away: it is back in the store, and others go meanwhile.
            self.moved(id.as_str());
        }
        if let Some(before) = before.filter(|_| applied) {
            let plan = self.plan_of_run(&op);
            self.ledger.outcome_is_kept(&op, &plan, &before)?;
            self.ends_are_just(&op, &before)?;
            self.note_effect(&op, &id);
            if let Op::Settle(s) = &op
                && s.state.is_final()
            {
                self.fire_ended(&before, s.state);
            }
            self.notices_are_right(&op, &before.message.task)?;
        }
        Ok(reply)
    }

    fn note_effect(&mut self, op: &Op, id: &MessageId) {
        let id = id.as_str();
        match op {
            Op::Settle(s) if s.state == State::Retry => {
                self.ledger.excuse(id, Excuse::Retry);
                self.moved(id);
            }
            Op::Defer { .. } | Op::Move { .. } | Op::Aside { .. } => self.moved(id),
            _ => {}
        }
    }

    fn moved(&mut self, id: &str) {
        if let Some(s) = self.ledger.stories.get_mut(id) {
            s.moved = true;
        }
    }

    /// The settings a run started with.
    pub fn plan_of_run(&self, op: &Op) -> std::sync::Arc<taskd::engine::plan::Plan> {
        let token = match op {
            Op::Settle(s) => s.token,
            Op::Defer { token, .. } => *token,
            _ => Token(0),
        };
        let generation = self.generations.get(&token.0).copied().unwrap_or(self.plan.generation);
        self.plans.get(&generation).cloned().unwrap_or_else(|| std::sync::Arc::clone(&self.plan))
    }

    /// What the store knows of an id.
    pub fn get(&mut self, id: &MessageId) -> Option<taskd::model::message::Record> {
        match self.model.apply(Op::Get { id: id.clone() }) {
            Ok(Reply::Record(r)) => r.map(|r| *r),
            _ => None,
        }
    }

    /// Planted: what is answered and not done.
    fn is_dropped(&self, op: &Op) -> bool {
        match (self.bug, op) {
            (Some(Planted::LostDefer), Op::Defer { counted, .. }) => !counted,
            (Some(Planted::ForgottenRevoke), Op::Revoke { .. }) => true,
            (Some(Planted::EarlyWithoutTrace), Op::Start { .. }) => true,
            _ => false,
        }
    }

    fn dropped_reply(&mut self, id: &MessageId, op: &Op) -> Reply {
        if let Op::Revoke { .. } = op {
            let mut record = self.get(id);
            if let Some(r) = &mut record {
                r.state = State::Revoked;
            }
            return Reply::Record(record.map(Box::new));
        }
        Reply::Applied { applied: true, current: None }
    }

    /// Planted: what is done differently.
    fn bend_op(&mut self, op: &mut Op, current: Option<Token>) {
        match (self.bug, op) {
            (Some(Planted::UnfencedSettle), Op::Settle(s)) => s.token = current.unwrap_or(s.token),
            (Some(Planted::UnfencedSettle), Op::Defer { token, .. }) => *token = current.unwrap_or(*token),
            (Some(Planted::UncountedLoss), Op::Defer { counted, lost, .. }) if *lost => {
                (*counted, *lost) = (false, false);
            }
            (Some(Planted::UncountedInterrupt), Op::Defer { counted, lost: false, .. }) => *counted = false,
            (Some(Planted::CompanionsLost), Op::Defer { token, lost, .. })
                if self.companions.contains(&token.0) =>
            {
                *lost = true;
            }
            (Some(Planted::MemoryRetryUncounted), Op::Settle(s)) if s.memory.is_some() => s.memory = None,
            (Some(Planted::LostCall), Op::Settle(s)) => s.call = None,
            (Some(Planted::CountedReturn), Op::Defer { counted, .. }) => *counted = true,
            (Some(Planted::ForgottenRetry), Op::Settle(s)) if s.state == State::Retry => {
                s.state = State::Failure;
                s.due = None;
            }
            _ => {}
        }
    }

    /// Planted: what a lost operation is answered with.
    fn pretend(&self, op: &Op) -> Option<Reply> {
        match (self.bug, op) {
            (Some(Planted::OutcomeLostOnFault), Op::Settle(_)) => {
                Some(Reply::Applied { applied: true, current: None })
            }
            (Some(Planted::AcceptedNotKept), Op::Publish { messages, .. }) => {
                Some(Reply::Published(messages.iter().map(|_| Published::New).collect()))
            }
            _ => None,
        }
    }

    /// Planted: what the engine hears.
    fn bend(&self, op: &Op, mut result: Result<Reply, Fault>) -> Result<Reply, Fault> {
        match (self.bug, &mut result) {
            (Some(Planted::NoExpiry), Ok(Reply::Leased { deliveries: ds, .. })) => {
                for d in ds {
                    d.message.expires = None;
                }
            }
            (Some(Planted::UntilForgotten), Ok(Reply::Schedules(rows))) => {
                for row in rows {
                    row.until = row.until.max(self.now.wall);
                }
            }
            (Some(Planted::SilentSweep), Ok(Reply::Swept { queues, .. })) => queues.clear(),
            (Some(Planted::SilentJoin), Ok(Reply::With(_, fallout))) => fallout.queues.clear(),
            (Some(Planted::WorkflowEndUntold), Ok(Reply::With(_, fallout))) => fallout.fires.clear(),
            (Some(Planted::ForgottenLease), Err(_)) if matches!(op, Op::Lease { .. }) => {
                return Ok(Reply::Leased { deliveries: Vec::new(), opens: None });
            }
            _ => {}
        }
        result
    }

    /// A child's word about a run reached the daemon.
    pub fn delivered(&mut self, run: &str, outcome: &taskd::model::outcome::Outcome) {
        let Some(token) = taskd::engine::token_of(run) else { return };
        debug_assert_eq!(run_key(token), run);
        if !matches!(outcome.cause, Cause::Interrupted) {
            self.ledger.delivered.entry(token.0).or_insert_with(|| outcome.clone());
        }
    }
}
