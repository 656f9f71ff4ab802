//! Operations that take several scripts: each is bounded, so that none holds up whoever else talks to the server.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Args;
use super::decode::No;
use super::flows;
use super::message::{self, Row};
use super::reply::Reader;
use super::store::Store;
use crate::broker::rules;
use crate::model::letters::{LETTER_ROWS, LetterAct, LetterGroup, LetterPlace, LetterStep, LetterTally};
use crate::model::name::{MessageId, glob_matches};
use crate::model::op::{Fault, Filter, Op, Reply, Ticket};
use crate::model::time::Wall;

/// Rows of one page.
const PAGE: usize = 200;

impl Store {
    pub(super) fn in_steps(&mut self, ticket: Ticket, op: Op) {
        let answer = match op {
            Op::List(filter) => self.list(&filter),
            Op::Letters(step) => self.letters(&step).map(|tally| Reply::Letters(Box::new(tally))),
            Op::Count => self.count(),
            Op::Purge { queue, now } => self.purge(&queue, now),
            Op::Known { tasks, now: _ } => self.known(&tasks),
            Op::Launch { workflow, max_length, now } => flows::upload(self, &workflow, &max_length, now),
            other => Err(Fault::Refused(format!("an operation of one script: {other:?}"))),
        };
        self.done.call(vec![(ticket, answer)]);
    }

    fn list(&mut self, filter: &Filter) -> Result<Reply, Fault> {
        let limit = filter.limit.clamp(1, rules::MAX_LIST) as usize;
        let (mut all, mut bytes, mut before) = (Vec::new(), 0, None);
        while all.len() < limit && bytes < rules::LIST_BYTES {
            let mut args = Args::default();
            args.opt_num(before).num(PAGE);
            let rows = rows(self.ask("page", args)?)?;
            let done = rows.len() < PAGE;
            before = rows.last().map(|row| row.seq).or(before);
            for row in rows {
                if all.len() < limit && bytes < rules::LIST_BYTES && filter.fits(&row.record) {
                    bytes += row.record.message.size();
                    all.push(row.record);
                }
            }
            if done {
                break;
            }
        }
        Ok(Reply::Records(all))
    }

    fn count(&mut self) -> Result<Reply, Fault> {
        let queues = self.peer().map(|peer| peer.queues.clone()).unwrap_or_default();
        let mut args = Args::default();
        args.list(queues.iter().map(String::as_str));
        self.answer("count", args)
    }

    fn purge(&mut self, queue: &str, now: Wall) -> Result<Reply, Fault> {
        let (mut from, mut upto, mut ended) = ("0".to_owned(), String::new(), 0_u64);
        let mut beside = crate::model::workflow::Fallout::default();
        loop {
            let mut args = Args::default();
            args.text(queue).num(now.0).text(from).text(upto);
            let (mut part, told) = self.ask_beside("purge", args)?;
            beside.join(told);
            ended += part.num::<u64>().map_err(fault)?;
            from = part.text().map_err(fault)?;
            upto = part.text().map_err(fault)?;
            if from.is_empty() {
                return Ok(rules::with(Reply::Purged(ended), beside));
            }
        }
    }

    fn known(&mut self, tasks: &[String]) -> Result<Reply, Fault> {
        let matches = |task: &str| tasks.iter().any(|t| t == task || glob_matches(t, task));
        let (mut ids, mut from) = (Vec::new(), "0".to_owned());
        'pages: loop {
            let mut args = Args::default();
            args.text(from.as_str());
            let mut page = self.ask("unknown", args)?;
            let rows = page.len() / 3;
            for _ in 0..rows {
                from = page.text().map_err(fault)?;
                let (id, task) = (page.text().map_err(fault)?, page.text().map_err(fault)?);
                if matches(&task) {
                    ids.push(id);
                }
                if ids.len() == rules::SWEEP_ROWS {
                    break 'pages;
                }
            }
            if rows < rules::SWEEP_ROWS {
                break;
            }
        }
        let all = ids.len() == rules::SWEEP_ROWS;
        let mut args = Args::default();
        args.list(ids.into_iter());
        match self.answer("known", args)? {
            Reply::Swept { queues, expired, next, .. } => {
                Ok(Reply::Swept { queues, expired, next, more: all })
            }
            other => Ok(other),
        }
    }

    fn letters(&mut self, step: &LetterStep) -> Result<LetterTally, Fault> {
        let mut tally = LetterTally::default();
        let rows = if step.filter.ids.is_empty() {
            self.letters_from(step, &mut tally)?
        } else {
            self.letters_named(step, &mut tally)?
        };
        let mut groups = BTreeMap::new();
        let mut meant = Vec::new();
        for row in rows {
            if tally.matched == step.most {
                tally.next = None;
                break;
            }
            if !step.filter.fits(&row.record) {
                continue;
            }
            tally.matched += 1;
            *groups.entry(LetterGroup::of(&row.record)).or_insert(0) += 1;
            meant.push((row.record.message.id, row.seq));
        }
        tally.groups = groups.into_iter().collect();
        self.act(step, meant, &mut tally)?;
        Ok(tally)
    }

    /// Does to these letters what is asked for.
    fn act(
        &mut self,
        step: &LetterStep,
        meant: Vec<(MessageId, i64)>,
        tally: &mut LetterTally,
    ) -> Result<(), Fault> {
        let mut args = Args::default();
        args.num(step.now.0);
        let name = match &step.act {
            LetterAct::Count => return Ok(()),
            LetterAct::Purge => "letters_purge",
            LetterAct::Retry { due, queue } => {
                args.opt_num(due.map(|t| t.0)).opt(queue.as_deref());
                "letters_retry"
            }
        };
        args.num(2 * meant.len());
        for (id, seq) in meant {
            args.text(id.0).num(seq);
        }
        let mut told = self.ask(name, args)?;
        tally.done = told.num().map_err(fault)?;
        let mut held = told.list().and_then(Reader::texts).map_err(fault)?.into_iter().map(MessageId);
        while let (Some(id), Some(holder)) = (held.next(), held.next()) {
            tally.held.push((id, holder));
        }
        let queues: BTreeSet<String> =
            told.list().and_then(Reader::texts).map_err(fault)?.into_iter().collect();
        tally.queues = queues.into_iter().collect();
        Ok(())
    }

    /// The letters of these ids.
    fn letters_named(&mut self, step: &LetterStep, tally: &mut LetterTally) -> Result<Vec<Row>, Fault> {
        let mut found = Vec::new();
        for id in &step.filter.ids {
            let mut args = Args::default();
            args.text(id.as_str());
            let row = self.ask("get", args)?.value().and_then(message::row).map_err(fault)?;
            match row.filter(|row| !row.slim && row.record.state.is_final() && step.filter.fits(&row.record))
            {
                Some(row) => found.push(row),
                None => tally.missing.push(id.clone()),
            }
        }
        Ok(found)
    }

    /// The next rows, whether the filter means them or not.
    fn letters_from(&mut self, step: &LetterStep, tally: &mut LetterTally) -> Result<Vec<Row>, Fault> {
        let upto = match step.from {
            Some(from) => from.upto,
            None => self.ask("last_seq", Args::default())?.num().map_err(fault)?,
        };
        let phases = if step.filter.failed { 2 } else { 0 };
        let mut all: Vec<(u8, Row)> = Vec::new();
        for phase in step.from.map_or(0, |f| f.phase)..=phases {
            let after = step.from.filter(|f| f.phase == phase);
            let mut args = Args::default();
            args.num(phase);
            match after {
                Some(f) => args.num(f.finished.0).num(f.seq),
                None => args.text("-inf").num(-1),
            };
            args.num(upto).num(LETTER_ROWS + 1);
            let rows = rows(self.ask("letters", args)?)?;
            all.extend(rows.into_iter().map(|row| (phase, row)));
            if all.len() > LETTER_ROWS {
                break;
            }
        }
        if all.len() > LETTER_ROWS {
            all.truncate(LETTER_ROWS);
            tally.next = all.last().map(|(phase, row)| LetterPlace {
                phase: *phase,
                finished: row.record.finished.unwrap_or_default(),
                seq: row.seq,
                upto,
            });
        }
        Ok(all.into_iter().map(|(_, row)| row).collect())
    }
}

/// All rows of an answer.
fn rows(list: Reader) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::with_capacity(list.len());
    for value in list.each() {
        rows.extend(message::row(value).map_err(fault)?);
    }
    Ok(rows)
}

/// An answer that is not what the scripts answer, as a fault.
pub(super) fn fault(odd: super::reply::Odd) -> Fault {
    match No::from(odd) {
        No::Fault(fault) => fault,
        No::Lap(_) | No::Flying(_) => Fault::Again("it changed meanwhile".to_owned()),
    }
}
