//! Dead letters: what clients want done with many of them, in steps that the store takes between other things.

use std::collections::BTreeMap;

use super::Engine;
use super::ask::Work;
use super::command::{Command, Told};
use super::event::AskKey;
use crate::model::letters::{
    LETTER_ROWS, LetterAct, LetterFilter, LetterGroup, LetterPlace, LetterStep, LetterTally,
};
use crate::model::name::MessageId;
use crate::model::op::Op;
use crate::model::time::Wall;

/// Kinds of letters that are counted apart; the rest is counted together.
const KINDS: usize = 200;

/// Letters that are named because they could not begin a new life.
const NAMED: usize = 100;

/// What a client wants done.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterOrder {
    /// Which letters.
    pub filter: LetterFilter,
    /// What.
    pub act: LetterAct,
    /// At most this many.
    pub most: u64,
}

/// What was done, all steps together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterSum {
    /// Letters that were meant.
    pub matched: u64,
    /// Letters that it was done to.
    pub done: u64,
    /// How many of each kind were meant.
    pub groups: BTreeMap<LetterGroup, u64>,
    /// Letters of kinds beyond those.
    pub others: u64,
    /// Ids that are no letters that are meant.
    pub missing: Vec<MessageId>,
    /// Some of those that could not begin a new life, and who holds their key.
    pub held: Vec<(MessageId, MessageId)>,
    /// All of those.
    pub held_count: u64,
}

impl LetterSum {
    fn add(&mut self, tally: LetterTally) {
        self.matched += tally.matched;
        self.done += tally.done;
        for (group, n) in tally.groups {
            if self.groups.len() < KINDS || self.groups.contains_key(&group) {
                *self.groups.entry(group).or_insert(0) += n;
            } else {
                self.others += n;
            }
        }
        self.missing.extend(tally.missing);
        self.held_count += tally.held.len() as u64;
        let room = NAMED.saturating_sub(self.held.len());
        self.held.extend(tally.held.into_iter().take(room));
    }
}

/// Where such an order stands.
#[derive(Clone, Debug)]
pub(super) struct Lettering {
    order: LetterOrder,
    from: Option<LetterPlace>,
    /// Ids of the filter that are not looked at yet.
    ids: Vec<MessageId>,
    sum: LetterSum,
    now: Wall,
}

impl Lettering {
    pub(super) fn new(mut order: LetterOrder, now: Wall) -> Self {
        let ids = std::mem::take(&mut order.filter.ids);
        let mut lettering = Self { order, from: None, ids, sum: LetterSum::default(), now };
        lettering.next_ids();
        lettering
    }

    /// The next ids become those of the filter. False: none is left.
    fn next_ids(&mut self) -> bool {
        let rest = self.ids.split_off(self.ids.len().min(LETTER_ROWS));
        self.order.filter.ids = std::mem::replace(&mut self.ids, rest);
        !self.order.filter.ids.is_empty()
    }

    pub(super) fn op(&self) -> Op {
        Op::Letters(Box::new(LetterStep {
            filter: self.order.filter.clone(),
            act: self.order.act.clone(),
            from: self.from,
            most: self.order.most.saturating_sub(self.sum.matched),
            now: self.now,
        }))
    }
}

impl Engine {
    /// A step was done.
    pub(super) fn lettered(
        &mut self,
        key: AskKey,
        mut lettering: Box<Lettering>,
        tally: LetterTally,
        out: &mut Vec<Command>,
    ) {
        if let LetterAct::Retry { due, .. } = &lettering.order.act
            && tally.done > 0
        {
            for queue in &tally.queues {
                self.note_times(queue, *due, None);
            }
            // When one of them expires only the store knows.
            self.sweep.job.want();
        }
        lettering.from = tally.next;
        lettering.sum.add(tally);
        let full = lettering.sum.matched >= lettering.order.most;
        let more = !full && (lettering.from.is_some() || !lettering.ids.is_empty() && lettering.next_ids());
        if more {
            self.go_on(key, Work::Letters(lettering), out);
        } else {
            self.answer(key, Told::Letters(Box::new(lettering.sum)), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::State;

    fn id(n: usize) -> MessageId {
        MessageId(format!("m{n}"))
    }

    #[test]
    fn ids_are_looked_at_in_bounded_steps() {
        let ids: Vec<MessageId> = (0..LETTER_ROWS * 2 + 1).map(id).collect();
        let filter = LetterFilter { ids: ids.clone(), ..LetterFilter::default() };
        let order = LetterOrder { filter, act: LetterAct::Purge, most: u64::MAX };
        let mut lettering = Lettering::new(order, Wall(0));
        let mut seen = Vec::new();
        loop {
            let Op::Letters(step) = lettering.op() else { panic!() };
            assert!(step.filter.ids.len() <= LETTER_ROWS);
            seen.extend(step.filter.ids);
            if !lettering.next_ids() {
                break;
            }
        }
        assert_eq!(seen, ids);
    }

    #[test]
    fn what_is_kept_of_many_steps_is_bounded() {
        let mut sum = LetterSum::default();
        for n in 0..1_000 {
            let group = LetterGroup { state: State::Dead, task: format!("t{n}"), cause: String::new() };
            let tally = LetterTally {
                matched: 2,
                groups: vec![(group, 2)],
                held: vec![(id(n), id(n + 1))],
                ..LetterTally::default()
            };
            sum.add(tally);
        }
        assert_eq!((sum.groups.len(), sum.others), (KINDS, 2 * (1_000 - KINDS as u64)));
        assert_eq!((sum.held.len(), sum.held_count, sum.matched), (NAMED, 1_000, 2_000));
    }
}
