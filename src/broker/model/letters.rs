//! Dead letters, counted, brought back and forgotten in steps.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::shelf::Row;
use crate::broker::{joins, rules};
use crate::model::letters::{LETTER_ROWS, LetterAct, LetterGroup, LetterPlace, LetterStep, LetterTally};
use crate::model::op::Fault;
use crate::model::state::State;
use crate::model::time::Wall;

/// Where a finished row stands among the letters; absent: its payload is gone.
fn place(row: &Row, upto: i64) -> Option<LetterPlace> {
    let record = &row.record;
    if row.slim || !record.state.is_final() {
        return None;
    }
    let phase = match (record.state, row.expires_at) {
        (State::Dead, _) => 0,
        (_, None) => 1,
        _ => 2,
    };
    let seq = i64::try_from(row.seq).unwrap_or(i64::MAX);
    Some(LetterPlace { phase, finished: record.finished.unwrap_or_default(), seq, upto })
}

impl Model {
    pub(super) fn letters(&mut self, step: &LetterStep) -> LetterTally {
        let mut tally = LetterTally::default();
        let mut groups = BTreeMap::new();
        let mut queues = BTreeSet::new();
        let rows = if step.filter.ids.is_empty() {
            self.letters_from(step, &mut tally)
        } else {
            let seq = |id| self.shelf.get(id).filter(|row| place(row, 0).is_some()).map(|row| row.seq);
            step.filter
                .ids
                .iter()
                .filter_map(|id| {
                    let found = seq(id)
                        .filter(|seq| self.shelf.at(*seq).is_some_and(|row| step.filter.fits(&row.record)));
                    if found.is_none() {
                        tally.missing.push(id.clone());
                    }
                    found
                })
                .collect()
        };
        for seq in rows {
            if tally.matched == step.most {
                tally.next = None;
                break;
            }
            let Some(row) = self.shelf.at(seq).filter(|row| step.filter.fits(&row.record)) else { continue };
            tally.matched += 1;
            *groups.entry(LetterGroup::of(&row.record)).or_insert(0) += 1;
            self.letter(seq, step, &mut tally, &mut queues);
        }
        tally.groups = groups.into_iter().collect();
        tally.queues = queues.into_iter().collect();
        tally
    }

    /// The next rows, whether the filter means them or not.
    fn letters_from(&self, step: &LetterStep, tally: &mut LetterTally) -> Vec<u64> {
        let upto = step.from.map_or_else(|| i64::try_from(self.seq).unwrap_or(i64::MAX), |from| from.upto);
        let after = |p: &LetterPlace| {
            step.from.is_none_or(|f| (p.phase, p.finished, p.seq) > (f.phase, f.finished, f.seq))
        };
        let phases = if step.filter.failed { 2 } else { 0 };
        let mut all: Vec<(LetterPlace, u64)> = self
            .shelf
            .rows()
            .filter_map(|row| Some((place(row, upto)?, row.seq)))
            .filter(|(p, _)| p.phase <= phases && p.seq <= upto && after(p))
            .collect();
        all.sort_by_key(|(p, _)| (p.phase, p.finished, p.seq));
        if all.len() > LETTER_ROWS {
            all.truncate(LETTER_ROWS);
            tally.next = all.last().map(|(p, _)| *p);
        }
        all.into_iter().map(|(_, seq)| seq).collect()
    }

    fn letter(
        &mut self,
        seq: u64,
        step: &LetterStep,
        tally: &mut LetterTally,
        queues: &mut BTreeSet<String>,
    ) {
        match &step.act {
            LetterAct::Count => {}
            LetterAct::Purge => {
                self.shelf.outlive(seq, step.now);
                tally.done += 1;
            }
            LetterAct::Retry { due, queue } => {
                let Some(row) = self.shelf.at(seq) else { return };
                let message = &row.record.message;
                let claim = message.unique.as_ref();
                if let Some(holder) = claim.and_then(|c| self.in_the_way(c, step.now)) {
                    tally.held.push((message.id.clone(), holder));
                    return;
                }
                // A step that never ran has nothing to repeat: it is counted among the matched only.
                if let Ok(queue) = self.revive(seq, *due, queue.as_deref(), step.now) {
                    queues.insert(queue);
                    tally.done += 1;
                }
            }
        }
    }

    /// Gives a finished row a new life; answers its queue.
    pub(super) fn revive(
        &mut self,
        seq: u64,
        due: Option<Wall>,
        queue: Option<&str>,
        now: Wall,
    ) -> Result<String, Fault> {
        let Some(message) = self.shelf.at(seq).map(|row| row.record.message.clone()) else {
            return Ok(String::new());
        };
        joins::may_renew(self, &message)?;
        self.shelf.take(seq);
        let message = rules::revived(message, due, queue, now);
        let queue = message.queue.clone();
        let (state, due) = match due.filter(|d| *d > now) {
            Some(due) => (State::Scheduled, Some(due)),
            None => (State::Waiting, None),
        };
        self.begin(message.clone(), state, due, now, true);
        joins::renewed(self, &message, now)?;
        Ok(queue)
    }
}
