//! Who holds which key: claims beside the rows, by the number of the row that claims.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::broker::admission::{self, Admission, Holder, Judged, Known, Stage};
use crate::broker::rules;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Published, Reply};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::unique::{Claim, Holds};

/// One claim.
#[derive(Clone, Debug)]
struct Entry {
    key: String,
    holds: Holds,
    until: Option<Wall>,
    /// It holds its key now.
    held: bool,
}

/// The claims of all messages that are not final.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    of: BTreeMap<u64, Entry>,
    held: BTreeMap<String, BTreeSet<u64>>,
}

impl Claims {
    fn set(&mut self, key: &str, seq: u64, held: bool) {
        if held {
            self.held.entry(key.to_owned()).or_default().insert(seq);
        } else if let Some(of) = self.held.get_mut(key) {
            of.remove(&seq);
            if of.is_empty() {
                self.held.remove(key);
            }
        }
    }

    fn add(&mut self, seq: u64, claim: &Claim, from: Wall) {
        let held = claim.holds != Holds::Running;
        let entry =
            Entry { key: claim.key.clone(), holds: claim.holds, until: rules::held_until(claim, from), held };
        self.set(&claim.key, seq, held);
        self.of.insert(seq, entry);
    }

    fn drop(&mut self, seq: u64) {
        if let Some(entry) = self.of.remove(&seq) {
            self.set(&entry.key, seq, false);
        }
    }

    /// The state of a row changed.
    pub(super) fn follow(&mut self, seq: u64, state: State) {
        let Some(entry) = self.of.get_mut(&seq) else { return };
        if state.is_final() || entry.holds == Holds::Queued && rules::has_begun(state) {
            self.drop(seq);
        } else if entry.holds == Holds::Running {
            entry.held = state == State::Running;
            let (key, held) = (entry.key.clone(), entry.held);
            self.set(&key, seq, held);
        }
    }

    /// The earliest row that holds this key.
    fn holder(&self, key: &str, now: Wall) -> Option<u64> {
        let holds =
            |seq: &&u64| self.of.get(seq).is_some_and(|e| e.held && e.until.is_none_or(|until| until > now));
        self.held.get(key)?.iter().find(holds).copied()
    }

    /// Drops the claims on this key whose period is over.
    fn drop_late(&mut self, key: &str, now: Wall) {
        let late = |seq: &&u64| self.of.get(seq).is_some_and(|e| e.until.is_some_and(|until| until <= now));
        let late: Vec<u64> = self.held.get(key).into_iter().flatten().filter(late).copied().collect();
        for seq in late {
            self.drop(seq);
        }
    }

    /// Every claim: its row and its key.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &str)> {
        self.of.iter().map(|(seq, entry)| (*seq, entry.key.as_str()))
    }
}

/// The model as an admission sees it.
struct Look<'a> {
    model: &'a Model,
    now: Wall,
}

impl Known for Look<'_> {
    type Error = std::convert::Infallible;

    fn is_known(&self, id: &MessageId) -> Result<bool, Self::Error> {
        Ok(self.model.shelf.get(id).is_some())
    }

    fn is_workflow(&self, id: &MessageId) -> Result<bool, Self::Error> {
        Ok(self.model.flows.head(id).is_some())
    }

    fn holder(&self, key: &str) -> Result<Option<Holder>, Self::Error> {
        Ok(self.model.holder(key, self.now))
    }

    fn length(&self, queue: &str) -> u64 {
        self.model.shelf.length(queue)
    }
}

impl Model {
    /// Every message that claims a key, with that key, whether it holds it now or not; for the simulation.
    pub fn claims(&self) -> impl Iterator<Item = (Option<&crate::model::message::Record>, &str)> {
        self.shelf.claims.all().map(|(seq, key)| (self.shelf.at(seq).map(|row| &row.record), key))
    }

    pub(super) fn holder(&self, key: &str, now: Wall) -> Option<Holder> {
        let row = self.shelf.at(self.shelf.claims.holder(key, now)?)?;
        let record = &row.record;
        let stage = match (record.state, record.token) {
            (State::Running, _) => Stage::Running,
            (_, Some(_)) => Stage::Leased,
            _ => Stage::Open { counts: !row.unknown },
        };
        Some(Holder { id: record.message.id.clone(), queue: record.message.queue.clone(), stage })
    }

    /// Who keeps a message from a new life.
    pub(super) fn in_the_way(&self, claim: &Claim, now: Wall) -> Option<MessageId> {
        rules::in_the_way(claim, self.holder(&claim.key, now).as_ref())
    }

    /// A new row claims the key of its message.
    pub(super) fn claim(&mut self, seq: u64, message: &Message, from: Wall, now: Wall) {
        if let Some(claim) = &message.unique {
            self.shelf.claims.drop_late(&claim.key, now);
            self.shelf.claims.add(seq, claim, from);
        }
    }

    pub(super) fn publish_admitted(
        &mut self,
        messages: Vec<Message>,
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Reply, Fault> {
        let verdicts = match self.admitted(&messages, max_length, now) {
            Ok(verdicts) => verdicts,
            Err(reply) => return Ok(reply),
        };
        let mut replies = Vec::with_capacity(messages.len());
        for (m, verdict) in messages.into_iter().zip(verdicts) {
            replies.push(if let Some(known) = self.not_stored(&m.id, &verdict) {
                known
            } else {
                let ends = if let admission::Verdict::Stored(Some(id)) = verdict { Some(id) } else { None };
                self.store_replacing(m, ends.as_ref(), now)?;
                admission::stored(ends)
            });
        }
        Ok(Reply::Published(replies))
    }

    /// What becomes of each message, or the answer where nothing is stored.
    pub(super) fn admitted(
        &self,
        messages: &[Message],
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Vec<admission::Verdict>, Reply> {
        let Ok(admission) = admission::admit(messages, max_length, &Look { model: self, now });
        match admission {
            Admission::Each(verdicts) => Ok(verdicts),
            Admission::Nothing(Reply::Taken { of, holder, .. }) => {
                let record = self.shelf.get(&holder).map(|row| Box::new(row.record.clone()));
                Err(Reply::Taken { of, holder, record })
            }
            Admission::Nothing(reply) => Err(reply),
        }
    }

    /// The answer for a message that is not stored.
    pub(super) fn not_stored(&self, id: &MessageId, verdict: &admission::Verdict) -> Option<Published> {
        let record = |id: &MessageId| self.shelf.get(id).map(|row| Box::new(row.record.clone()));
        match verdict {
            admission::Verdict::Known => record(id).map(Published::Known),
            admission::Verdict::Workflow => {
                self.flows.head(id).map(|head| Published::Workflow(Box::new(head.clone())))
            }
            admission::Verdict::Held(holder) => record(holder).map(Published::Held),
            admission::Verdict::Stored(_) => None,
        }
    }

    fn store_replacing(
        &mut self,
        message: Message,
        ends: Option<&MessageId>,
        now: Wall,
    ) -> Result<(), Fault> {
        if let Some(mut row) = ends.and_then(|id| self.shelf.take_id(id)) {
            row.finish(State::Revoked, rules::replaced(&message.id), now, None);
            self.finished(row, now)?;
        }
        let (state, due) = rules::first_state(&message, now);
        self.begin(message, state, due, now, true);
        Ok(())
    }

    fn judged(&self, claim: &Claim, now: Wall) -> Judged {
        admission::judge(claim, self.holder(&claim.key, now).as_ref())
    }

    /// Who keeps a message from being stored.
    pub(super) fn held_by(&self, message: &Message, now: Wall) -> Option<MessageId> {
        match self.judged(message.unique.as_ref()?, now) {
            Judged::Free | Judged::Replaces(_) => None,
            Judged::Held(holder) | Judged::Leased(holder) => Some(holder),
        }
    }

    /// Stores a message that nobody waits for an answer about; a known id changes nothing. Where another message
    /// holds its key it is stored as ended, so that its id tells what became of it.
    pub(super) fn store(&mut self, message: Message, now: Wall) -> Result<(), Fault> {
        if self.shelf.get(&message.id).is_some() {
            return Ok(());
        }
        let judged = message.unique.as_ref().map_or(Judged::Free, |claim| self.judged(claim, now));
        match judged {
            Judged::Free => self.store_replacing(message, None, now),
            Judged::Replaces(id) => self.store_replacing(message, Some(&id), now),
            Judged::Held(holder) | Judged::Leased(holder) => {
                let seq = self.begin(message, State::Waiting, None, now, false);
                if let Some(mut row) = self.shelf.take(seq) {
                    row.finish(State::Revoked, rules::key_held(&holder), now, None);
                    self.put_finished(row, now);
                }
                Ok(())
            }
        }
    }
}
