//! Dead letters, counted, brought back and forgotten in steps.
//!
//! The DEAD stand together in the index `done_age` (`kept` is 3), so a step reads none of the records between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::reader;
use super::row::{Key, Stored, done_columns};
use super::shelf::{Shelf, Stop};
use crate::broker::{joins, rules};
use crate::link::sqlite as link;
use crate::model::letters::{
    LETTER_ROWS, LetterAct, LetterFilter, LetterGroup, LetterPlace, LetterStep, LetterTally,
};
use crate::model::message::{Message, Record};
use crate::model::op::{Fault, Reply};
use crate::model::state::State;
use crate::model::time::Wall;

/// `kept` of each phase: the DEAD, the default retention, those of their own.
const PHASES: [i64; 3] = [3, 1, 2];

/// A row that a step looks at, and where it stands.
struct Met {
    row: Stored,
    place: Option<LetterPlace>,
}

impl Shelf {
    pub(super) fn letters(&mut self, step: &LetterStep) -> Result<Reply, Stop> {
        let mut tally = LetterTally::default();
        let mut groups = BTreeMap::new();
        let mut queues = BTreeSet::new();
        let met = if step.filter.ids.is_empty() {
            self.letters_from(step, &mut tally)?
        } else {
            self.letters_named(step, &mut tally)?
        };
        for Met { row, .. } in met {
            if tally.matched == step.most {
                tally.next = None;
                break;
            }
            // One damaged row does not keep the others from anything; `verify` names it.
            let Ok(record) = row.record() else { continue };
            if !step.filter.fits(&record) {
                continue;
            }
            tally.matched += 1;
            *groups.entry(LetterGroup::of(&record)).or_insert(0) += 1;
            self.letter(&row, record, step, &mut tally, &mut queues)?;
        }
        tally.groups = groups.into_iter().collect();
        tally.queues = queues.into_iter().collect();
        Ok(Reply::Letters(Box::new(tally)))
    }

    /// The next rows, whether the filter means them or not.
    fn letters_from(&self, step: &LetterStep, tally: &mut LetterTally) -> Result<Vec<Met>, Stop> {
        let upto = step.from.map_or(self.ledger.f.seq, |from| from.upto);
        let (met, next) = window(&self.c, step.filter.failed, step.from, upto)?;
        tally.next = next;
        Ok(met)
    }

    /// The rows of the ids that the filter names.
    fn letters_named(&self, step: &LetterStep, tally: &mut LetterTally) -> Result<Vec<Met>, Stop> {
        let mut met = Vec::new();
        for id in &step.filter.ids {
            let row = self
                .c
                .prepare_cached(concat!("SELECT ", done_columns!(), " FROM done WHERE id = ?1 AND kept > 0"))?
                .query_row([Key::of(id)], Stored::of)
                .optional()?;
            match row.filter(|row| row.record().is_ok_and(|record| step.filter.fits(&record))) {
                Some(row) => met.push(Met { row, place: None }),
                None => tally.missing.push(id.clone()),
            }
        }
        Ok(met)
    }

    fn letter(
        &mut self,
        row: &Stored,
        record: Record,
        step: &LetterStep,
        tally: &mut LetterTally,
        queues: &mut BTreeSet<String>,
    ) -> Result<(), Stop> {
        match &step.act {
            LetterAct::Count => {}
            LetterAct::Purge => {
                self.outlive_row(row, step.now)?;
                tally.done += 1;
            }
            LetterAct::Retry { due, queue } => {
                if let Some(holder) = self.in_the_way(&record.message, step.now)? {
                    tally.held.push((record.message.id, holder));
                    return Ok(());
                }
                match self.revive(row, record.message, *due, queue.as_deref(), step.now) {
                    Ok(queue) => {
                        queues.insert(queue);
                        tally.done += 1;
                    }
                    // A step that never ran has nothing to repeat: it is counted among the matched only.
                    Err(Stop::Fault(_)) => {}
                    Err(stop) => return Err(stop),
                }
            }
        }
        Ok(())
    }

    /// Gives a finished row a new life; answers its queue.
    pub(super) fn revive(
        &mut self,
        row: &Stored,
        message: Message,
        due: Option<Wall>,
        queue: Option<&str>,
        now: Wall,
    ) -> Result<String, Stop> {
        joins::may_renew(self, &message)?;
        let message = rules::revived(message, due, queue, now);
        self.drop_done(row.seq)?;
        self.ledger.forget_kept(row.queue, row.flag);
        let (state, due) = match due.filter(|d| *d > now) {
            Some(due) => (State::Scheduled, Some(due)),
            None => (State::Waiting, None),
        };
        self.begin(&message, state, due, now, 0, Some(now))?;
        joins::renewed(self, &message, now)?;
        Ok(message.queue)
    }
}

/// The next rows after a place, whether a filter means them or not, and where they end if more follow.
fn window(
    c: &Connection,
    failed: bool,
    from: Option<LetterPlace>,
    upto: i64,
) -> rusqlite::Result<(Vec<Met>, Option<LetterPlace>)> {
    let first = Wall(i64::MIN);
    let (begin, mut after) =
        from.map_or((0, (first, i64::MIN)), |from| (from.phase, (from.finished, from.seq)));
    let last: u8 = if failed { 2 } else { 0 };
    let mut met: Vec<Met> = Vec::new();
    let sql = concat!(
        "SELECT ",
        done_columns!(),
        " FROM done INDEXED BY done_age WHERE kept = ?1 AND (finished, seq) > (?2, ?3) AND seq <= ?4 \
         ORDER BY finished, seq LIMIT ?5"
    );
    for phase in begin..=last {
        let Some(kept) = PHASES.get(usize::from(phase)) else { break };
        // One more than a step takes: whether anything is left.
        let left = (LETTER_ROWS + 1).saturating_sub(met.len()) as i64;
        let mut statement = c.prepare_cached(sql)?;
        let mut rows = statement.query((kept, after.0.0, after.1, upto, left))?;
        while let Some(row) = rows.next()? {
            let finished = Wall(row.get(9)?);
            let row = Stored::of(row)?;
            let place = Some(LetterPlace { phase, finished, seq: row.seq, upto });
            met.push(Met { row, place });
        }
        after = (first, i64::MIN);
    }
    if met.len() <= LETTER_ROWS {
        return Ok((met, None));
    }
    met.truncate(LETTER_ROWS);
    let next = met.last().and_then(|m| m.place);
    Ok((met, next))
}

/// Hands out the letters that a filter means, in steps of their own read transactions: see [`super::reader`].
pub(super) fn export(
    file: &Path,
    filter: &LetterFilter,
    most: u64,
    cb: &mut dyn FnMut(Message) -> bool,
) -> Result<u64, Fault> {
    let sql = |e: rusqlite::Error| reader::fault(&e);
    let c = link::reader(file).map_err(sql)?;
    let (mut from, mut n) = (None, 0);
    loop {
        let (met, next) = window(&c, filter.failed, from, i64::MAX).map_err(sql)?;
        for record in met.iter().filter_map(|m| m.row.record().ok()).filter(|r| filter.fits(r)) {
            let began = record.finished.unwrap_or_default();
            n += 1;
            if n > most || !cb(rules::reborn(record.message, began)) {
                return Ok(n.min(most));
            }
        }
        from = next;
        if from.is_none() {
            return Ok(n);
        }
    }
}
