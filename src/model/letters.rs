//! Dead letters: messages that were given up on, which of them are meant, and what is to be done with them, as data.
//!
//! What is done to many is done in steps, each bounded by the records it looks at, so that a hundred thousand of them
//! hold up nobody.

use serde::{Deserialize, Serialize};

use super::message::Record;
use super::name::{MessageId, glob_matches};
use super::state::State;
use super::time::Wall;

/// Records that one step looks at, and ids that one step takes, at most.
pub const LETTER_ROWS: usize = 500;

/// Which letters are meant: all that every given part fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    /// Those that failed (FAILURE) too, not only the DEAD.
    pub failed: bool,
    /// Only tasks of this name or pattern.
    pub task: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only those that ended at or after this time.
    pub since: Option<Wall>,
    /// Only those that ended before this time.
    pub until: Option<Wall>,
    /// Only those that ended for this cause: its word, or the class of the error that the program named.
    pub cause: Option<String>,
    /// Only these; empty: any.
    pub ids: Vec<MessageId>,
}

impl LetterFilter {
    /// The states that are meant.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        if self.failed { vec![State::Dead, State::Failure] } else { vec![State::Dead] }
    }

    /// Whether this record is meant.
    #[must_use]
    pub fn fits(&self, record: &Record) -> bool {
        let ended = record.finished.unwrap_or_default();
        let cause = |wanted: &String| {
            record.outcome.as_ref().is_some_and(|o| {
                o.cause.word() == wanted || o.failure.as_ref().is_some_and(|f| f.kind == *wanted)
            })
        };
        (record.state == State::Dead || self.failed && record.state == State::Failure)
            && self.task.as_ref().is_none_or(|t| glob_matches(t, &record.message.task))
            && self.queue.as_ref().is_none_or(|q| *q == record.message.queue)
            && self.since.is_none_or(|s| ended >= s)
            && self.until.is_none_or(|u| ended < u)
            && self.cause.as_ref().is_none_or(cause)
            && (self.ids.is_empty() || self.ids.contains(&record.message.id))
    }
}

/// What is done with letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterAct {
    /// Nothing: they are counted.
    Count,
    /// Each begins a new life under its id, as by [`super::op::Op::Requeue`].
    Retry {
        /// Not before this time.
        due: Option<Wall>,
        /// In another queue.
        queue: Option<String>,
    },
    /// Each is forgotten; its id is known for a day after its end all the same.
    Purge,
}

/// One step of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterStep {
    /// Which; where it names ids, at most [`LETTER_ROWS`], all of which are looked at in this step.
    pub filter: LetterFilter,
    /// What.
    pub act: LetterAct,
    /// Where the step before stopped; absent: at the oldest.
    pub from: Option<LetterPlace>,
    /// At most this many letters.
    pub most: u64,
    /// The wall clock.
    pub now: Wall,
}

/// Where a step stopped. Only the store that made it understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterPlace {
    /// 0 the DEAD, then the others by how long they are kept.
    pub phase: u8,
    /// When the latest record ended.
    pub finished: Wall,
    /// Its number.
    pub seq: i64,
    /// What was accepted later is not meant: a letter that dies anew is not met again.
    pub upto: i64,
}

/// Letters of one kind, of a count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterGroup {
    /// DEAD or FAILURE.
    pub state: State,
    /// Their task.
    pub task: String,
    /// Why they ended: the cause's word.
    pub cause: String,
}

impl LetterGroup {
    /// The kind of this record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let cause = record.outcome.as_ref().map_or("", |o| o.cause.word()).to_owned();
        Self { state: record.state, task: record.message.task.clone(), cause }
    }
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterTally {
    /// Letters that were meant.
    pub matched: u64,
    /// Letters that it was done to (none by a count).
    pub done: u64,
    /// How many of each kind were meant, in order.
    pub groups: Vec<(LetterGroup, u64)>,
    /// Ids of the filter that are no letter that it means.
    pub missing: Vec<MessageId>,
    /// Letters that could not begin a new life, and the message that holds their key.
    pub held: Vec<(MessageId, MessageId)>,
    /// Queues that got messages.
    pub queues: Vec<String>,
    /// Where to go on; absent: nothing is left.
    pub next: Option<LetterPlace>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Message;
    use crate::model::outcome::{Cause, Outcome};

    #[test]
    fn every_part_of_a_filter_must_fit() {
        let record = Record {
            message: Message {
                id: MessageId("i".to_owned()),
                task: "shop.mail".to_owned(),
                queue: "q".to_owned(),
                ..Message::default()
            },
            state: State::Dead,
            attempt: 3,
            losses: 3,
            token: None,
            due: None,
            started: None,
            finished: Some(Wall(100)),
            outcome: Some(Outcome::of_cause(Cause::WorkerLost, "x")),
        };
        let any = LetterFilter::default;
        for (fits, filter) in [
            (true, any()),
            (true, LetterFilter { task: Some("shop.*".to_owned()), ..any() }),
            (false, LetterFilter { task: Some("shop".to_owned()), ..any() }),
            (true, LetterFilter { queue: Some("q".to_owned()), ..any() }),
            (false, LetterFilter { queue: Some("r".to_owned()), ..any() }),
            (true, LetterFilter { since: Some(Wall(100)), until: Some(Wall(101)), ..any() }),
            (false, LetterFilter { until: Some(Wall(100)), ..any() }),
            (true, LetterFilter { cause: Some("worker_lost".to_owned()), ..any() }),
            (true, LetterFilter { cause: Some("WorkerLost".to_owned()), ..any() }),
            (false, LetterFilter { cause: Some("exit".to_owned()), ..any() }),
            (false, LetterFilter { ids: vec![MessageId("j".to_owned())], ..any() }),
        ] {
            assert_eq!(filter.fits(&record), fits, "{filter:?}");
        }
        let failed = Record { state: State::Failure, ..record };
        assert!(!any().fits(&failed));
        assert!(LetterFilter { failed: true, ..any() }.fits(&failed));
    }
}
