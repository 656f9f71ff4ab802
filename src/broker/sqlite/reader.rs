//! What may look at every row: List and export, with a connection that cannot write.
//!
//! Both go in steps of their own read transactions: a long one would keep the log from being reused, and it
//! would grow for as long as the reader takes. A row keeps its `seq` when it ends, so a step that begins
//! where the last one stopped sees every row once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::{Connection, Statement};
use serde::Deserialize;

use super::row::{self, Stored, done_columns, live_columns};
use super::{Counters, Done, raise};
use crate::broker::rules;
use crate::link::sqlite as link;
use crate::model::message::Record;
use crate::model::op::{Fault, Filter, Reply, Ticket};
use crate::model::state::{self, State};
use crate::model::time::Wall;

/// Rows of each table that one step looks at.
const STEP: i64 = 4_000;

/// Answers Lists, one after the other.
pub(super) struct Reader {
    pub file: PathBuf,
    pub done: Done,
    pub counters: Arc<Counters>,
}

impl Reader {
    /// Until the writer is gone.
    pub(super) fn run(self, lists: &Receiver<(Ticket, Filter)>) {
        while let Ok((ticket, filter)) = lists.recv() {
            let reply = list(&self.file, &filter).map(Reply::Records);
            raise(&self.counters.ops, 1);
            self.done.call(vec![(ticket, reply)]);
        }
    }
}

/// What an SQLite error means for who only reads.
pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    match link::trouble(error) {
        link::Trouble::Corrupt => Fault::Refused(format!("the store is damaged: {error}")),
        _ => Fault::Again(format!("the store cannot be read: {error}")),
    }
}

/// As much of a message as a filter looks at.
#[derive(Deserialize)]
struct Glance<'a> {
    #[serde(borrow)]
    task: std::borrow::Cow<'a, str>,
    enqueued: Wall,
    uid: Option<u32>,
}

fn list(file: &Path, filter: &Filter) -> Result<Vec<Record>, Fault> {
    let c = link::reader(file).map_err(|e| fault(&e))?;
    let mut found = Found::new(filter, &c).map_err(|e| fault(&e))?;
    let mut below = i64::MAX;
    while let Some(last) = step(&c, &mut found, below)? {
        below = last;
    }
    Ok(found.records)
}

struct Found<'a> {
    filter: &'a Filter,
    queue: Option<i64>,
    /// The states that are wanted, as bits.
    states: i64,
    records: Vec<Record>,
    bytes: usize,
}

impl<'a> Found<'a> {
    fn new(filter: &'a Filter, c: &Connection) -> rusqlite::Result<Self> {
        let queue = match &filter.queue {
            None => None,
            // An unknown queue has number -1, which no row has.
            Some(name) => Some(
                c.prepare("SELECT coalesce((SELECT no FROM queue WHERE name = ?1), -1)")?
                    .query_row([name], |row| row.get(0))?,
            ),
        };
        let wanted = |s: &State| filter.states.is_empty() || filter.states.contains(s);
        let states = state::ALL.iter().filter(|s| wanted(s)).fold(0, |bits, s| bits | (1 << row::code(*s)));
        Ok(Self { filter, queue, states, records: Vec::new(), bytes: 0 })
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.filter.limit.clamp(1, rules::MAX_LIST) as usize
            || self.bytes >= rules::LIST_BYTES
    }

    fn take(&mut self, row: &Stored) -> Result<(), Fault> {
        let f = self.filter;
        if f.task.is_some() || f.since.is_some() || f.uid.is_some() {
            let glance: Glance<'_> = match row.glance() {
                Ok(glance) => glance,
                // One damaged row does not hide all others; `verify` names it.
                Err(_) => return Ok(()),
            };
            let fits = f.task.as_ref().is_none_or(|t| *t == glance.task)
                && f.since.is_none_or(|s| glance.enqueued >= s)
                && f.uid.is_none_or(|u| glance.uid == Some(u));
            if !fits {
                return Ok(());
            }
        }
        if let Ok(record) = row.record()
            && f.letters.as_ref().is_none_or(|letters| letters.fits(&record))
        {
            self.bytes += row.size();
            self.records.push(record);
        }
        Ok(())
    }
}

/// Looks at the rows of both tables below a `seq`. Answers where to go on.
fn step(c: &Connection, found: &mut Found<'_>, below: i64) -> Result<Option<i64>, Fault> {
    let sql = |e: rusqlite::Error| fault(&e);
    let tx = c.unchecked_transaction().map_err(sql)?;
    // The window ends at the row that is STEP rows down in either table: within it both are complete.
    let end = |table: &str| -> rusqlite::Result<Option<i64>> {
        let mut statement = tx.prepare_cached(&format!(
            "SELECT seq FROM {table} WHERE seq < ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2"
        ))?;
        let mut rows = statement.query((below, STEP - 1))?;
        rows.next()?.map(|row| row.get(0)).transpose()
    };
    let from = end("live").map_err(sql)?.max(end("done").map_err(sql)?);
    let live = concat!(
        "SELECT ",
        live_columns!(),
        " FROM live WHERE seq < ?1 AND seq >= ?2 AND (?3 >> state) & 1 AND (?4 IS NULL OR queue = ?4) \
         ORDER BY seq DESC"
    );
    let done = concat!(
        "SELECT ",
        done_columns!(),
        " FROM done WHERE seq < ?1 AND seq >= ?2 AND kept > 0 AND (?3 >> state) & 1 \
         AND (?4 IS NULL OR queue = ?4) ORDER BY seq DESC"
    );
    let parameters = (below, from.unwrap_or(i64::MIN), found.states, found.queue);
    let (mut live, mut done) = (tx.prepare_cached(live).map_err(sql)?, tx.prepare_cached(done).map_err(sql)?);
    let mut live = Peeked::new(&mut live, parameters).map_err(sql)?;
    let mut done = Peeked::new(&mut done, parameters).map_err(sql)?;
    while !found.is_full() {
        let newer = match (live.seq(), done.seq()) {
            (None, None) => return Ok(from),
            (a, b) if a > b => &mut live,
            _ => &mut done,
        };
        if let Some(row) = newer.next().map_err(sql)? {
            found.take(&row)?;
        }
    }
    Ok(None)
}

/// Rows with a look at the next one.
struct Peeked<'s> {
    rows: rusqlite::Rows<'s>,
    next: Option<Stored>,
}

impl<'s> Peeked<'s> {
    fn new(
        statement: &'s mut Statement<'_>,
        parameters: (i64, i64, i64, Option<i64>),
    ) -> rusqlite::Result<Self> {
        let mut peeked = Self { rows: statement.query(parameters)?, next: None };
        peeked.next()?;
        Ok(peeked)
    }

    fn seq(&self) -> Option<i64> {
        self.next.as_ref().map(|row| row.seq)
    }

    fn next(&mut self) -> rusqlite::Result<Option<Stored>> {
        let next = self.rows.next()?.map(Stored::of).transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// How many workflows are not over.
pub(super) fn open_workflows(file: &Path) -> Result<u64, Fault> {
    let sql = |e: rusqlite::Error| fault(&e);
    let c = link::reader(file).map_err(sql)?;
    let count = "SELECT count(*) FROM flow WHERE id IS NOT NULL AND finished IS NULL";
    c.query_row(count, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(sql)
}

/// Hands out every record that is not final, oldest first, until the callback answers false.
pub(super) fn export(file: &Path, cb: &mut dyn FnMut(Record) -> bool) -> Result<u64, Fault> {
    let sql = |e: rusqlite::Error| fault(&e);
    let c = link::reader(file).map_err(sql)?;
    let (mut above, mut n) = (i64::MIN, 0);
    loop {
        let mut statement = c
            .prepare_cached(concat!(
                "SELECT ",
                live_columns!(),
                " FROM live WHERE seq > ?1 ORDER BY seq LIMIT 100"
            ))
            .map_err(sql)?;
        let rows: Vec<Stored> =
            statement.query_map([above], Stored::of).and_then(Iterator::collect).map_err(sql)?;
        let Some(last) = rows.last() else { return Ok(n) };
        above = last.seq;
        for row in &rows {
            n += 1;
            if !cb(row.record()?) {
                return Ok(n);
            }
        }
    }
}

/// Reads every row and tells what is wrong with it.
pub(super) fn faults_of_rows(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = BTreeMap::new();
    for sql in
        [concat!("SELECT ", live_columns!(), " FROM live"), concat!("SELECT ", done_columns!(), " FROM done")]
    {
        let mut statement = c.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = Stored::of(row)?;
            match row.record() {
                Err(fault) => found.insert(row.seq, fault.to_string()),
                Ok(r) if r.state.is_final() != r.finished.is_some() => {
                    found.insert(row.seq, format!("{}: {} in the wrong table", r.message.id, r.state))
                }
                Ok(r) if r.state == State::Running && r.token.is_none() => {
                    found.insert(row.seq, format!("{}: RUNNING without a lease", r.message.id))
                }
                // What a schedule fired may wait for what it fired before, and is due at no time.
                Ok(r) if r.state == State::Scheduled && r.due.is_none() && r.message.fired.is_some() => None,
                Ok(r) if matches!(r.state, State::Scheduled | State::Retry) != r.due.is_some() => {
                    found.insert(row.seq, format!("{}: {} with due {:?}", r.message.id, r.state, r.due))
                }
                Ok(_) => None,
            };
            // A damaged store may have as many faults as rows.
            if found.len() >= 100 {
                break;
            }
        }
    }
    Ok(found.into_values().chain(super::claims::faults(c)?).collect())
}
