//! A place for one child, and for its successor: who takes runs there, and when the next one is started.
//!
//! The children of a slot stand in order of age. The newest one that is ready takes the runs; those before it
//! finish what they hold and go. One that is due to be replaced goes on taking runs until its successor is
//! ready, unless it may not. All of them together run no more than one child would.

use std::collections::BTreeMap;

use super::child::Child;
use super::event::ChildKey;
use crate::model::time::Mono;

/// Most children in one slot: one that ends, one that works, one that is coming.
const MOST: usize = 3;

/// A place for one child.
#[derive(Debug)]
pub(super) struct Slot {
    /// The user its child is to run as.
    pub(super) user: String,
    /// Its children, oldest first.
    pub(super) children: Vec<ChildKey>,
    /// The user of the child that was asked for.
    pub(super) asked: Option<String>,
    /// No child is asked for before this time.
    pub(super) not_before: Mono,
    /// Starts in a row that failed or did not last.
    pub(super) failures: u32,
    /// Its latest child did not last: the next one has to show that it does.
    pub(super) unstable: bool,
    /// Why it has no child, or none that lasts.
    pub(super) trouble: Option<String>,
    /// The settings do not have it any more.
    pub(super) surplus: bool,
    /// The generation of the settings that its child is to have at least.
    pub(super) generation: u64,
}

impl Slot {
    pub(super) fn new(user: String, generation: u64) -> Self {
        Self {
            user,
            children: Vec::new(),
            asked: None,
            not_before: Mono(0),
            failures: 0,
            unstable: false,
            trouble: None,
            surplus: false,
            generation,
        }
    }

    /// Whether a child of it takes no more runs, whoever else is there.
    fn is_spent(&self, c: &Child) -> bool {
        self.surplus
            || c.ending
            || c.killed
            || c.refused
            || c.is_exhausted()
            || c.generation < self.generation
            || c.user != self.user
    }

    /// The child that takes runs, full or not, and its place among the children.
    fn taking<'a>(&self, all: &'a BTreeMap<ChildKey, Child>) -> Option<(usize, ChildKey, &'a Child)> {
        self.children.iter().enumerate().rev().find_map(|(at, key)| {
            let c = all.get(key).filter(|c| c.ready.is_some() && !c.unnamed && !self.is_spent(c))?;
            Some((at, *key, c))
        })
    }

    /// The child that takes runs, full or not.
    pub(super) fn taker<'a>(&self, all: &'a BTreeMap<ChildKey, Child>) -> Option<(ChildKey, &'a Child)> {
        self.taking(all).map(|(_, key, c)| (key, c))
    }

    /// Runs of all its children.
    pub(super) fn load(&self, all: &BTreeMap<ChildKey, Child>) -> usize {
        self.children.iter().filter_map(|key| all.get(key)).map(Child::load).sum()
    }

    /// The child that takes one more run now, and what runs in the slot.
    pub(super) fn free<'a>(
        &self,
        all: &'a BTreeMap<ChildKey, Child>,
    ) -> Option<(ChildKey, &'a Child, usize)> {
        let (key, c) = self.taker(all).filter(|_| !self.is_in_doubt(all))?;
        let load = self.load(all);
        (load < c.capacity as usize).then_some((key, c, load))
    }

    /// Whether nobody knows yet what runs in it.
    fn is_in_doubt(&self, all: &BTreeMap<ChildKey, Child>) -> bool {
        self.children.iter().any(|key| all.get(key).is_some_and(|c| c.unnamed))
    }

    /// Whether a child of its user will be there.
    pub(super) fn is_coming(&self, all: &BTreeMap<ChildKey, Child>) -> bool {
        !self.surplus && self.taker(all).is_none() && self.load(all) == 0 && !self.is_in_doubt(all)
    }

    /// Whether a child takes no more runs and is to go once it is idle.
    pub(super) fn is_retired(&self, child: ChildKey, all: &BTreeMap<ChildKey, Child>) -> bool {
        let Some(c) = all.get(&child) else { return true };
        let Some(at) = self.children.iter().position(|k| *k == child) else { return true };
        self.is_spent(c) || self.taking(all).is_some_and(|(taker, _, _)| at < taker)
    }

    /// Whether it has room for one more child, and its newest one is not still coming or on its way out of
    /// a fault.
    pub(super) fn may_start(&self, all: &BTreeMap<ChildKey, Child>) -> bool {
        if self.surplus || self.asked.is_some() || self.children.len() >= MOST || self.is_in_doubt(all) {
            return false;
        }
        self.newest(all).is_none_or(|c| !c.killed && (c.ready.is_some() || self.is_spent(c)))
    }

    /// Its youngest child.
    pub(super) fn newest<'a>(&self, all: &'a BTreeMap<ChildKey, Child>) -> Option<&'a Child> {
        self.children.last().and_then(|key| all.get(key))
    }
}
