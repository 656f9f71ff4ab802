//! Uniqueness: what messages claim, and how one that waits here gives way to one that replaces it. Who holds a key is
//! the store's to say, in the transaction that publishes.

use super::Engine;
use super::ask::Work;
use super::command::Command;
use super::event::AskKey;
use super::held::Stage;
use super::plan::Plan;
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::Reply;
use crate::model::state::State;
use crate::model::unique::{Claim, Holds, OnConflict, Unique};
use crate::model::workflow::Step;

/// Puts into a message what it claims by these settings. Whoever publishes does this: clients, schedules and
/// workflows alike.
pub(super) fn claim(plan: &Plan, message: &mut Message) {
    let task = plan.task(&message.task);
    let claim = task.and_then(|task| Some(task.unique.as_ref()?.claim(task, message)));
    message.unique = claim;
}

/// The same for a step of a workflow. What results add to its arguments is not known yet, so a key that may hang on
/// them is not claimed.
pub(super) fn claim_of_step(plan: &Plan, step: &mut Step) {
    let task = plan.task(&step.message.task);
    let known = |unique: &Unique| {
        !unique.key.is_empty() && unique.key.iter().all(|name| step.message.kwargs.contains_key(name))
    };
    let complete = step.after.is_empty() || step.immutable;
    if complete || task.and_then(|t| t.unique.as_ref()).is_some_and(known) {
        claim(plan, &mut step.message);
    }
}

/// The key of which one message at a time may run, where its task says `while = "running"`: a second one waits in
/// the store until the first has ended. Whoever leases and starts messages keeps it (a limit of one for this key).
#[must_use]
pub fn place_of(message: &Message) -> Option<String> {
    let claim = message.unique.as_ref()?;
    (claim.holds == Holds::Running).then(|| claim.key.clone())
}

/// A sentence about a message, with what its uniqueness has to do with it.
pub(super) fn told_of(record: &Record, sentence: String) -> String {
    let key = |claim: &Claim| format!("{:?}", claim.key);
    match (&record.message.unique, record.state) {
        (Some(_), State::Revoked) => {
            let why = record.outcome.as_ref().and_then(|o| o.failure.as_ref()).map(|f| f.message.as_str());
            why.map_or_else(|| sentence.clone(), |why| format!("{sentence}: {why}"))
        }
        (Some(claim), state) if !state.is_final() => match claim.holds {
            Holds::Running => {
                format!("{sentence}; while it runs no other message has its key {}", key(claim))
            }
            // It is held from its acceptance to its first start.
            Holds::Queued if record.started.is_some() => sentence,
            _ => format!("{sentence}; meanwhile no other message has its key {}", key(claim)),
        },
        _ => sentence,
    }
}

impl Engine {
    /// What is to be replaced waits in a node's window. In this one's, it is given back, and the store, which does
    /// one thing after the other, is asked again; elsewhere it is as good as running.
    pub(super) fn give_way(
        &mut self,
        key: AskKey,
        work: Work,
        (holder, claimed): (&MessageId, &str),
        out: &mut Vec<Command>,
    ) {
        let mut work = work;
        let waiting = match self.stage_of(holder) {
            Some((token, Stage::Waiting)) => Some(token),
            _ => None,
        };
        match waiting {
            Some(token) => {
                for q in self.queues.values_mut() {
                    q.window.retain(|t| *t != token);
                }
                self.back(token, None, out);
            }
            None => {
                let claims: Vec<&mut Claim> = match &mut work {
                    Work::Publish { messages, .. } => {
                        messages.iter_mut().filter_map(|m| m.unique.as_mut()).collect()
                    }
                    Work::Launch { workflow, .. } => {
                        workflow.steps.iter_mut().take(1).filter_map(|s| s.message.unique.as_mut()).collect()
                    }
                    _ => Vec::new(),
                };
                for claim in
                    claims.into_iter().filter(|c| c.key == claimed && c.on_conflict == OnConflict::Replace)
                {
                    claim.on_conflict = OnConflict::Return;
                }
            }
        }
        let wall = self.now.wall;
        if let Work::Publish { now, .. } | Work::Launch { now, .. } = &mut work {
            *now = wall;
        }
        self.go_on(key, work, out);
    }

    /// The store's answer where it stored nothing for a key that is held.
    pub(super) fn key_is_held(&mut self, key: AskKey, work: Work, reply: Reply, out: &mut Vec<Command>) {
        match reply {
            Reply::InHand { holder, key: claimed } => self.give_way(key, work, (&holder, &claimed), out),
            Reply::Taken { of, holder, record } => {
                self.answer(key, super::command::Told::Taken { of, holder, record }, out);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;
    use crate::engine::command::Told;
    use crate::engine::event::{Ask, Event};
    use crate::model::op::{Op, Published, Ticket};
    use crate::model::unique::Unique;

    fn unique(on_conflict: OnConflict) -> Bed {
        Bed::with(|p| {
            p.pools.get_mut("default").unwrap().processes = 1;
            let holds = Holds::Both;
            let declared = Unique { holds, on_conflict, ..Unique::default() };
            p.tasks.get_mut("t").unwrap().unique = Some(declared);
        })
    }

    fn published(log: &[Command]) -> Option<(Ticket, Vec<Message>)> {
        log.iter().rev().find_map(|c| match c {
            Command::Broker(ticket, Op::Publish { messages, .. }) => Some((*ticket, messages.clone())),
            _ => None,
        })
    }

    #[test]
    fn a_message_claims_what_its_task_declares() {
        let mut bed = unique(OnConflict::Return);
        bed.enqueue("m");
        let claim = bed.message("m").unique.clone().unwrap();
        assert_eq!((claim.key.as_str(), claim.holds), ("t {}", Holds::Both));
        assert_eq!(place_of(bed.message("m")), None);
        let claim = Claim { holds: Holds::Running, ..claim };
        let running = Message { unique: Some(claim), ..bed.message("m").clone() };
        assert_eq!(place_of(&running).as_deref(), Some("t {}"));
    }

    /// Asks to enqueue `new`, with this as the store's first answer; what was submitted after it.
    fn first_answer(bed: &mut Bed, reply: Reply) -> Vec<Command> {
        let message = Message { task: "t".into(), id: MessageId("new".into()), ..Message::default() };
        let mut out = Vec::new();
        let now = bed.now;
        bed.engine.step(now, Event::Ask { key: AskKey(900), ask: Ask::Enqueue(vec![message]) }, &mut out);
        let (ticket, _) = published(&out).unwrap();
        let mut after = Vec::new();
        bed.engine.step(now, Event::Broker { ticket, result: Ok(reply) }, &mut after);
        after
    }

    #[test]
    fn what_waits_here_is_given_back_before_the_store_is_asked_again() {
        let mut bed = unique(OnConflict::Replace);
        bed.enqueue("runs");
        bed.enqueue("waits");
        let leased = Reply::InHand { holder: MessageId("waits".into()), key: "t {}".into() };
        let after = first_answer(&mut bed, leased);
        let back = after.iter().position(
            |c| matches!(c, Command::Broker(_, Op::Defer { id, counted: false, .. }) if id.as_str() == "waits"),
        );
        let again = after.iter().position(|c| matches!(c, Command::Broker(_, Op::Publish { .. })));
        assert!(back.is_some() && back < again, "{after:?}");
    }

    #[test]
    fn what_another_node_holds_is_answered_like_what_runs() {
        let mut bed = unique(OnConflict::Replace);
        let leased = Reply::InHand { holder: MessageId("elsewhere".into()), key: "t {}".into() };
        let after = first_answer(&mut bed, leased);
        let (_, messages) = published(&after).unwrap();
        assert_eq!(messages[0].unique.as_ref().unwrap().on_conflict, OnConflict::Return);
    }

    #[test]
    fn the_client_hears_who_holds_the_key() {
        let mut bed = unique(OnConflict::Return);
        bed.enqueue("first");
        let message = bed.message("first").clone();
        let record = Record {
            message,
            state: crate::model::state::State::Waiting,
            attempt: 0,
            losses: 0,
            token: None,
            due: None,
            started: None,
            finished: None,
            outcome: None,
        };
        let reply = Reply::Published(vec![Published::Held(Box::new(record))]);
        let after = first_answer(&mut bed, reply);
        let told = after.iter().find_map(|c| match c {
            Command::Answer { answer: Told::Published(told), .. } => Some(told.clone()),
            _ => None,
        });
        let told = told.unwrap();
        assert!(matches!(&told[0].2, Published::Held(r) if r.message.id.as_str() == "first"));
        assert!(!after.iter().any(|c| matches!(c, Command::Note(_))), "nothing was received");
    }
}
