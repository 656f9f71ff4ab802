//! A living child: what it runs, what it may take, what is known of it.

use std::collections::BTreeSet;

use super::event::SlotId;
use super::plan::Recycle;
use super::recycle::{Memory, Reason};
use crate::model::message::Token;
use crate::model::name::glob_matches;
use crate::model::time::Mono;

/// A living child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) slot: SlotId,
    pub(super) user: String,
    pub(super) generation: u64,
    /// Since when it takes runs.
    pub(super) ready: Option<Mono>,
    pub(super) capacity: u32,
    /// Names and patterns of the tasks that it says it serves; empty: all.
    pub(super) tasks: Vec<String>,
    /// Its runs.
    pub(super) runs: BTreeSet<Token>,
    /// Runs it holds that the store does not know: told to end, they occupy it until then.
    pub(super) strangers: BTreeSet<String>,
    /// Outcomes it reported that the store does not have yet: until then it may be asked again.
    pub(super) owed: BTreeSet<Token>,
    /// It was told to end.
    pub(super) ending: bool,
    /// When it is killed.
    pub(super) kill_at: Option<Mono>,
    /// It was killed.
    pub(super) killed: bool,
    /// It refused a run that it should take.
    pub(super) refused: bool,
    /// It was started for a message of its user and had none yet.
    pub(super) reserved: bool,
    /// It lived before this daemon and did not name all that it holds yet.
    pub(super) unnamed: bool,
    /// What it did wrong, where it is killed for that.
    pub(super) fault: Option<String>,
    /// When it was started.
    pub(super) born: Mono,
    /// Runs it was given, counted when they are handed over.
    pub(super) taken: u64,
    /// When its latest run ended.
    pub(super) last_end: Option<Mono>,
    /// What is known of its memory.
    pub(super) memory: Memory,
    /// When it is replaced though nothing is wrong with it.
    pub(super) recycle: Recycle,
    /// Why a successor was asked for.
    pub(super) due: Option<Reason>,
}

impl Child {
    /// Nothing runs in it.
    pub(super) fn is_idle(&self) -> bool {
        self.runs.is_empty() && self.strangers.is_empty()
    }

    /// How many runs occupy it.
    pub(super) fn load(&self) -> usize {
        self.runs.len() + self.strangers.len()
    }

    /// It had all the runs that it may ever have.
    pub(super) fn is_exhausted(&self) -> bool {
        self.recycle.max_tasks.is_some_and(|max| self.taken >= max)
    }

    /// Whether it says that it serves this task.
    pub(super) fn serves(&self, task: &str) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|pattern| glob_matches(pattern, task))
    }

    /// A run that the store does not know is over.
    pub(super) fn stranger_ended(&mut self, run: &str) {
        if self.strangers.remove(run) && self.strangers.is_empty() && !self.ending {
            self.kill_at = None;
        }
    }
}
