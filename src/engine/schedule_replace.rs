//! `overlap = "replace"`: what runs of a schedule is ended in favor of its next fire, however often the store fails.

use super::Engine;
use super::ask::Work;
use super::command::{Command, Told};
use super::event::AskKey;
use crate::model::name::MessageId;
use crate::model::time::Mono;

/// Keys of the engine's own asks; clients' begin at the other end.
const OWN_KEYS: u64 = 1 << 63;

/// An end that could not be brought about is tried again after this, in milliseconds.
const AGAIN_MS: u64 = 1_000;

impl Engine {
    /// Ends this message; nobody waits for the answer.
    pub(super) fn replace(&mut self, id: MessageId, out: &mut Vec<Command>) {
        if self.schedules.replacing.values().any(|other| *other == id) {
            return;
        }
        self.schedules.last_key += 1;
        let key = AskKey(OWN_KEYS + self.schedules.last_key);
        self.schedules.replacing.insert(key, id.clone());
        self.begin_ask(key, Work::Cancel(id), out);
    }

    /// Ends all that this node holds of a schedule: an earlier daemon may not have come to it.
    pub(super) fn replace_all_of(&mut self, name: &str, out: &mut Vec<Command>) {
        let of = |f: &crate::model::schedule::Fired| f.schedule == name;
        let held = self.held.values().filter(|h| h.message.fired.as_ref().is_some_and(of));
        let ids: Vec<MessageId> = held.map(|h| h.message.id.clone()).collect();
        for id in ids {
            self.replace(id, out);
        }
    }

    /// Takes the answer to an ask of its own. False: it is a client's.
    pub(super) fn replacement_answered(&mut self, key: AskKey, told: &Told) -> bool {
        let Some(id) = self.schedules.replacing.remove(&key) else { return false };
        if matches!(told, Told::Fault(_)) {
            self.schedules.replace_again.insert((self.now.mono.plus(AGAIN_MS), id));
        }
        true
    }

    pub(super) fn pump_replacements(&mut self, out: &mut Vec<Command>) {
        let now = self.now.mono;
        while self.replacements_deadline().is_some_and(|at| at <= now)
            && let Some((_, id)) = self.schedules.replace_again.pop_first()
        {
            self.replace(id, out);
        }
    }

    pub(super) fn replacements_deadline(&self) -> Option<Mono> {
        self.schedules.replace_again.first().map(|(at, _)| *at)
    }
}
