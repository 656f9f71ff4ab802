//! Unique tasks and dead letters: what every store operation did to keys, and the bugs planted around it.

use std::collections::{BTreeMap, BTreeSet};

use taskd::model::letters::LetterAct;
use taskd::model::message::{Message, Record};
use taskd::model::name::MessageId;
use taskd::model::op::{Fault, Op, Published, Reply};
use taskd::model::state::State;
use taskd::model::time::Wall;
use taskd::model::unique::{Holds, OnConflict, Unique};

use crate::ledger::{Check, Violation, broken};
use crate::planted::Planted;
use crate::world::World;

/// What each unique task declares, in every generation of the settings. All their calls have the same arguments, so
/// each task is one key.
pub fn declared(task: &str) -> Option<Unique> {
    let unique =
        |holds, on_conflict, period_ms| Unique { holds, on_conflict, period_ms, ..Unique::default() };
    match task {
        "once" => Some(unique(Holds::Both, OnConflict::Return, None)),
        "swap" => Some(unique(Holds::Both, OnConflict::Replace, None)),
        "sole" => Some(unique(Holds::Queued, OnConflict::Error, Some(3_000))),
        "lone" => Some(unique(Holds::Running, OnConflict::Return, None)),
        _ => None,
    }
}

/// What is known of keys beside the store.
#[derive(Default)]
pub struct Keys {
    /// When each message claimed its key last.
    claimed: BTreeMap<String, Wall>,
    /// Whose period was over when another one claimed.
    lost: BTreeSet<String>,
}

/// Whether this message holds its task's key by what was declared, if it may still hold it at all.
fn holds(record: &Record) -> bool {
    match declared(&record.message.task).map(|u| u.holds) {
        Some(Holds::Both) => !record.state.is_final(),
        Some(Holds::Queued) => {
            matches!(record.state, State::Scheduled | State::Waiting) && record.started.is_none()
        }
        Some(Holds::Running) => record.state == State::Running,
        None => false,
    }
}

impl World {
    /// Applies one operation and looks at what it did to keys and letters.
    pub fn apply(&mut self, mut op: Op) -> Result<Result<Reply, Fault>, Violation> {
        let ended = self.finals(&op);
        let reply = match self.bend_keys(&mut op) {
            Some(reply) => Ok(reply),
            None => self.apply_op_alone(op.clone())?,
        };
        if let Ok(reply) = &reply {
            self.keys_are_held_once(&op, reply)?;
        }
        self.letters_are_revived(&op, reply.as_ref().ok(), &ended)?;
        self.claims_end()?;
        Ok(reply)
    }

    /// What is over, before an operation that may bring some of it back.
    fn finals(&self, op: &Op) -> BTreeSet<String> {
        if !matches!(op, Op::Letters(_) | Op::Requeue { .. }) {
            return BTreeSet::new();
        }
        let over = self.model.records().filter(|r| r.state.is_final());
        over.map(|r| r.message.id.0.clone()).collect()
    }

    /// 33: a message that is stored finds its key free, and 35: who is said to hold it does.
    fn keys_are_held_once(&mut self, op: &Op, reply: &Reply) -> Check {
        let (Op::Publish { messages, now, .. }, Reply::Published(each)) = (op, reply) else { return Ok(()) };
        let now = *now;
        for (m, became) in messages.iter().zip(each) {
            match became {
                Published::New | Published::Replaced(_) => self.claims(m, now)?,
                Published::Held(r) => {
                    let there = self.get(&r.message.id);
                    let alive = there.as_ref().is_some_and(holds) && r.message.task == m.task;
                    if !alive {
                        let detail =
                            format!("{} is said to hold the key of {}: {there:?}", r.message.id, m.id);
                        return broken("42 the_holder_lives", detail);
                    }
                }
                Published::Known(_) | Published::Workflow(_) => {}
            }
            if let Published::Replaced(old) = became
                && self.get(old).is_none_or(|r| r.state != State::Revoked)
            {
                return broken("40 one_holder_per_key", format!("{old} was replaced and is not over"));
            }
        }
        Ok(())
    }

    fn claims(&mut self, m: &Message, now: Wall) -> Check {
        let Some(unique) = declared(&m.task) else { return Ok(()) };
        // Two of `lone` are kept apart where they start, not where they are stored.
        let id = m.id.0.clone();
        // One that a later message of its batch replaced holds nothing any more.
        if self.get(&m.id).is_some_and(|r| r.state.is_final()) {
            return Ok(());
        }
        let same = |r: &&Record| {
            let alike = r.message.task == m.task && r.message.args == m.args;
            alike && r.message.id != m.id && holds(r)
        };
        let others: Vec<String> = self.model.records().filter(same).map(|r| r.message.id.0.clone()).collect();
        for other in others {
            let since = self.keys.claimed.get(&other).copied().unwrap_or_default();
            let over = unique.period_ms.is_some_and(|ms| since.plus(ms) <= now);
            if over {
                self.keys.lost.insert(other);
            } else if !self.keys.lost.contains(&other) {
                return broken(
                    "40 one_holder_per_key",
                    format!("{id} was stored while {other} held the key"),
                );
            }
        }
        self.keys.lost.remove(&id);
        self.keys.claimed.insert(id, now);
        Ok(())
    }

    /// 34: a claim never outlives its message.
    fn claims_end(&self) -> Check {
        for (record, key) in self.model.claims() {
            if record.is_none_or(|r| r.state.is_final()) {
                return broken("41 a_claim_ends_with_its_message", format!("{key} of {record:?}"));
            }
        }
        Ok(())
    }

    /// 36: letters that are said to have a new life have one; and every new life claims its key.
    fn letters_are_revived(&mut self, op: &Op, reply: Option<&Reply>, ended: &BTreeSet<String>) -> Check {
        let now = match op {
            Op::Letters(step) => step.now,
            Op::Requeue { now, .. } => *now,
            _ => return Ok(()),
        };
        let back = |r: &&Record| !r.state.is_final() && ended.contains(r.message.id.as_str());
        let revived: Vec<Message> = self.model.records().filter(back).map(|r| r.message.clone()).collect();
        if let (Op::Letters(step), Some(Reply::Letters(tally))) = (op, reply)
            && matches!(step.act, LetterAct::Retry { .. })
            && tally.done != revived.len() as u64
        {
            let detail = format!("{} of {} have a new life", revived.len(), tally.done);
            return broken("43 letters_are_revived", detail);
        }
        for message in revived {
            if let Op::Letters(_) = op {
                self.ledger.new_life(message.id.as_str());
                self.step_lives_again(&message);
            }
            self.claims(&message, now)?;
        }
        Ok(())
    }

    /// Planted: what is done differently, or answered and not done.
    fn bend_keys(&mut self, op: &mut Op) -> Option<Reply> {
        match (self.bug, op) {
            (Some(Planted::NotUnique), Op::Publish { messages, .. }) => {
                for m in messages {
                    m.unique = None;
                }
                None
            }
            (Some(Planted::HeldByTheDead), Op::Publish { messages, .. }) => {
                let [m] = messages.as_slice() else { return None };
                let gone = |r: &&Record| r.message.task == m.task && r.state.is_final();
                let held = m.unique.as_ref().and_then(|_| self.model.records().find(gone));
                held.map(|r| Reply::Published(vec![Published::Held(Box::new(r.clone()))]))
            }
            (Some(Planted::ReplacedAndLost), Op::Publish { messages, now, .. }) => {
                let [m] = messages.as_slice() else { return None };
                let (id, task, now) = (m.id.clone(), m.task.clone(), *now);
                let waits = |r: &&Record| {
                    r.message.task == task && !r.state.is_final() && r.token.is_none() && r.message.id != id
                };
                let old: MessageId = self.model.records().find(waits)?.message.id.clone();
                if task != "swap" {
                    return None;
                }
                let _the_old_one_is_over = self.model.apply(Op::Revoke { id: old.clone(), now });
                Some(Reply::Published(vec![Published::Replaced(old)]))
            }
            (Some(Planted::LettersForgotten), Op::Letters(step)) => {
                let mut count = (**step).clone();
                count.act = LetterAct::Count;
                let reply = self.model.apply(Op::Letters(Box::new(count)));
                let Ok(Reply::Letters(mut tally)) = reply else { return None };
                tally.done = tally.matched;
                (tally.done > 0).then_some(Reply::Letters(tally))
            }
            _ => None,
        }
    }
}
