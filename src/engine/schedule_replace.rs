//! `overlap = "replace"`: what runs of a schedule is ended in favor of its next fire, however often the store fails.

use super::Engine;
use super::ask::Work;
use super::command::{Command, Told};
use super::event::AskKey;
use super::workflow::Walk;
use crate::model::name::MessageId;
use crate::model::time::Mono;

/// What gives way to the next fire of its schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Replaced {
    /// A message.
    Message(MessageId),
    /// Every step of a workflow.
    Workflow(MessageId),
}

/// Keys of the engine's own asks; clients' begin at the other end.
const OWN_KEYS: u64 = 1 << 63;

/// An end that could not be brought about is tried again after this, in milliseconds.
const AGAIN_MS: u64 = 1_000;

impl Engine {
    /// Ends this message or workflow; nobody waits for the answer.
    pub(super) fn replace(&mut self, what: Replaced, out: &mut Vec<Command>) {
        if self.schedules.replacing.values().any(|other| *other == what) {
            return;
        }
        self.schedules.last_key += 1;
        let key = AskKey(OWN_KEYS + self.schedules.last_key);
        self.schedules.replacing.insert(key, what.clone());
        let work = match what {
            Replaced::Message(id) => Work::Cancel(id),
            Replaced::Workflow(id) => Work::Walk(Walk::new(id, false, self.now.wall)),
        };
        self.begin_ask(key, work, out);
    }

    /// Ends all that this node holds of a schedule: an earlier daemon may not have come to it.
    pub(super) fn replace_all_of(&mut self, name: &str, out: &mut Vec<Command>) {
        let of = |f: &crate::model::schedule::Fired| f.schedule == name;
        let held = self.held.values().filter(|h| h.message.fired.as_ref().is_some_and(of));
        let ids: Vec<MessageId> = held.map(|h| h.message.id.clone()).collect();
        for id in ids {
            self.replace(Replaced::Message(id), out);
        }
    }

    /// Takes the answer to an ask of its own. False: it is a client's.
    pub(super) fn replacement_answered(&mut self, key: AskKey, told: &Told) -> bool {
        let Some(what) = self.schedules.replacing.remove(&key) else { return false };
        let is_open = matches!(told, Told::FlowCanceled(walked) if walked.unsure > 0);
        if is_open || matches!(told, Told::Fault(_)) {
            self.schedules.replace_again.insert((self.now.mono.plus(AGAIN_MS), what));
        }
        true
    }

    pub(super) fn pump_replacements(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        while self.replacements_deadline().is_some_and(|at| at <= now)
            && let Some((_, what)) = self.schedules.replace_again.pop_first()
        {
            self.replace(what, out);
        }
    }

    pub(super) fn replacements_deadline(&self) -> Option<Mono> {
        self.schedules.replace_again.first().map(|(at, _)| *at)
    }
}
