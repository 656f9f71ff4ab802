//! Which messages of a publish are stored: every store decides it here, by what it knows of ids, keys and queues.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Published, Reply};
use crate::model::unique::{Claim, Holds, OnConflict};

/// A message that holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: MessageId,
    /// Its queue.
    pub queue: String,
    /// How far it is.
    pub stage: Stage,
}

/// How far a holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Neither leased nor final; whether it counts for its queue's bound (what is set aside does not).
    Open {
        /// It does.
        counts: bool,
    },
    /// Leased to a node that has not started it.
    Leased,
    /// An attempt of it runs.
    Running,
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Nobody is in its way.
    Free,
    /// The holder stays.
    Held(MessageId),
    /// The holder waits, and gives way.
    Replaces(MessageId),
    /// The holder waits at a node, which must give it back first.
    Leased(MessageId),
}

/// What becomes of a claim against whoever holds its key.
#[must_use]
pub fn judge(claim: &Claim, holder: Option<&Holder>) -> Judged {
    let Some(holder) = holder else { return Judged::Free };
    let id = holder.id.clone();
    match (claim.on_conflict, holder.stage) {
        // Whoever claims for its own run only is in nobody's way while that waits.
        _ if claim.holds == Holds::Running && holder.stage != Stage::Running => Judged::Free,
        (OnConflict::Replace, Stage::Open { .. }) => Judged::Replaces(id),
        (OnConflict::Replace, Stage::Leased) => Judged::Leased(id),
        _ => Judged::Held(id),
    }
}

/// What becomes of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its id is known.
    Known,
    /// Its id is that of a workflow.
    Workflow,
    /// It is not stored; this message holds its key.
    Held(MessageId),
    /// It is stored; this message is ended for it first.
    Stored(Option<MessageId>),
}

/// What becomes of a publish.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// One verdict a message.
    Each(Vec<Verdict>),
    /// Nothing is stored; the answer. Of a [`Reply::Taken`] the holder's record is still to be filled in.
    Nothing(Reply),
}

/// What a store knows.
pub trait Known {
    /// Why it cannot be asked.
    type Error;

    /// Whether this id has a record.
    ///
    /// # Errors
    /// The store cannot be read.
    fn is_known(&self, id: &MessageId) -> Result<bool, Self::Error>;

    /// Whether a workflow has this id.
    ///
    /// # Errors
    /// The store cannot be read.
    fn is_workflow(&self, id: &MessageId) -> Result<bool, Self::Error>;

    /// Who holds this key; the earliest where several do.
    ///
    /// # Errors
    /// The store cannot be read.
    fn holder(&self, key: &str) -> Result<Option<Holder>, Self::Error>;

    /// What `max_length` bounds in this queue.
    fn length(&self, queue: &str) -> u64;
}

/// Decides about a whole publish before anything is written: all or none.
///
/// # Errors
/// Those of the store.
pub fn admit<K: Known>(
    messages: &[Message],
    max_length: &[Option<u64>],
    store: &K,
) -> Result<Admission, K::Error> {
    let mut ids = BTreeSet::new();
    // Keys that messages of this batch hold already, and whom these have replaced.
    let mut keys: BTreeMap<&str, Holder> = BTreeMap::new();
    let mut replaced: BTreeSet<MessageId> = BTreeSet::new();
    let mut added: BTreeMap<&str, i64> = BTreeMap::new();
    let mut verdicts = Vec::with_capacity(messages.len());
    for (i, m) in messages.iter().enumerate() {
        if ids.contains(&m.id) || store.is_known(&m.id)? {
            verdicts.push(Verdict::Known);
            continue;
        }
        if store.is_workflow(&m.id)? {
            verdicts.push(Verdict::Workflow);
            continue;
        }
        let mut ends = None;
        if let Some(claim) = &m.unique {
            let holder = match keys.get(claim.key.as_str()) {
                Some(holder) => Some(holder.clone()),
                None => store.holder(&claim.key)?.filter(|h| !replaced.contains(&h.id)),
            };
            match judge(claim, holder.as_ref()) {
                Judged::Free => {}
                Judged::Held(holder) if claim.on_conflict == OnConflict::Error => {
                    let of = m.id.clone();
                    return Ok(Admission::Nothing(Reply::Taken { of, holder, record: None }));
                }
                Judged::Held(holder) => {
                    verdicts.push(Verdict::Held(holder));
                    continue;
                }
                Judged::Leased(holder) => {
                    return Ok(Admission::Nothing(Reply::InHand { holder, key: claim.key.clone() }));
                }
                Judged::Replaces(id) => {
                    if let Some(Holder { queue, stage: Stage::Open { counts: true }, .. }) = holder
                        && queue == m.queue
                    {
                        *added.entry(&m.queue).or_default() -= 1;
                    }
                    replaced.insert(id.clone());
                    ends = Some(id);
                }
            }
            if claim.holds != Holds::Running {
                let stage = Stage::Open { counts: true };
                keys.insert(&claim.key, Holder { id: m.id.clone(), queue: m.queue.clone(), stage });
            }
        }
        let n = added.entry(&m.queue).or_default();
        *n += 1;
        if let Some(Some(max)) = max_length.get(i)
            && store.length(&m.queue).saturating_add_signed(*n) > *max
        {
            let (queue, max_length) = (m.queue.clone(), *max);
            return Ok(Admission::Nothing(Reply::QueueFull { queue, max_length }));
        }
        ids.insert(&m.id);
        verdicts.push(Verdict::Stored(ends));
    }
    Ok(Admission::Each(verdicts))
}

/// The answer for a stored message.
#[must_use]
pub fn stored(replaced: Option<MessageId>) -> Published {
    replaced.map_or(Published::New, Published::Replaced)
}
