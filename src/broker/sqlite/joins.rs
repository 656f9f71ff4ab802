//! The rows of workflows in the embedded store.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row as SqlRow, params};
use serde_json::Value;

use super::flows::{self, MAX_CHANGES, flow_columns};
use super::row::{Key, code, encode, state};
use super::shelf::{Shelf, Stop};
use crate::broker::admission;
use crate::broker::joins::{self, Became, Flow, Joins, Listed, Row, Work};
use crate::broker::rules;
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply};
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{Fallout, Head, OnError, Stage, Step, When, Workflow};

const PENDING: i64 = 100;
const PUBLISHED: i64 = 101;
const SKIPPED: i64 = 102;

const PASSES: i64 = 1;
const SINK: i64 = 2;
const ON_FAILURE: i64 = 4;
const GOES_ON: i64 = 8;
const BORN: i64 = 16;

/// A stage's number in a row: that of the state where it ended, see `row::code`.
pub(super) fn code_of(stage: Stage) -> i64 {
    match stage {
        Stage::Pending => PENDING,
        Stage::Published => PUBLISHED,
        Stage::Skipped => SKIPPED,
        Stage::Ended(state) => code(state),
    }
}

fn stage(code: i64) -> Stage {
    match code {
        PUBLISHED => Stage::Published,
        SKIPPED => Stage::Skipped,
        other => state(other).map_or(Stage::Pending, Stage::Ended),
    }
}

pub(super) fn flags(row: &Row) -> i64 {
    let bit = |set: bool, bit: i64| if set { bit } else { 0 };
    bit(row.passes, PASSES)
        | bit(row.sink, SINK)
        | bit(row.when == When::Failure, ON_FAILURE)
        | bit(row.on_error == OnError::Continue, GOES_ON)
        | bit(row.born, BORN)
}

/// The columns `no, stage, flags, pending, opened`.
fn row_of(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let flags: i64 = row.get(2)?;
    Ok(Row {
        no: row.get(0)?,
        stage: stage(row.get(1)?),
        born: flags & BORN != 0,
        pending: row.get(3)?,
        opened: row.get(4)?,
        when: if flags & ON_FAILURE == 0 { When::Success } else { When::Failure },
        on_error: if flags & GOES_ON == 0 { OnError::Fail } else { OnError::Continue },
        passes: flags & PASSES != 0,
        sink: flags & SINK != 0,
    })
}

/// An id as it was given, from a [`Key`].
pub(super) fn id_of(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<MessageId> {
    Ok(MessageId(match row.get_ref(column)? {
        ValueRef::Blob(bytes) => uuid::Uuid::from_slice(bytes).unwrap_or_default().to_string(),
        other => other.as_str_or_null()?.unwrap_or_default().to_owned(),
    }))
}

/// The columns `no, source, revive, since, until, tick`.
fn work_of(row: &SqlRow<'_>) -> rusqlite::Result<(i64, Work)> {
    let work = Work {
        source: row.get(1)?,
        revive: row.get(2)?,
        from: row.get(3)?,
        until: row.get(4)?,
        tick: row.get(5)?,
    };
    Ok((row.get(0)?, work))
}

impl Shelf {
    pub(super) fn launch(
        &mut self,
        workflow: &Workflow,
        max_length: &BTreeMap<String, u64>,
        now: Wall,
    ) -> Result<Reply, Stop> {
        let mut linked = None;
        if let Some(first) = workflow.steps.first().filter(|_| workflow.linked) {
            let verdicts = match self.admitted(std::slice::from_ref(&first.message), &[], now)? {
                Ok(verdicts) => verdicts,
                Err(reply) => return Ok(reply),
            };
            for verdict in verdicts {
                match self.not_stored(&first.message.id, verdict)? {
                    Ok(published) => return Ok(Reply::Published(vec![published])),
                    Err(ends) => linked = Some(admission::stored(ends)),
                }
            }
        }
        if let Some(head) = self.flow_head(&workflow.id)? {
            return Ok(Reply::Launched(Some(Box::new(head))));
        }
        if let Some(record) = self.record(&workflow.id)? {
            return Ok(Reply::Record(Some(Box::new(record))));
        }
        if !max_length.is_empty() {
            let mut new = Vec::new();
            for step in workflow.roots() {
                if !self.is_known(&step.message.id)? {
                    new.push(&step.message);
                }
            }
            let length = |queue: &str| self.ledger.number(queue).map_or(0, |no| self.ledger.length(no));
            if let Some(full) = rules::no_room(new.into_iter(), max_length, length) {
                return Ok(full);
            }
        }
        let known = joins::launch(self, workflow, now)?;
        Ok(match linked {
            Some(published) => Reply::Published(vec![published]),
            None => Reply::Launched(known.map(Box::new)),
        })
    }

    /// The workflow of this id.
    pub(super) fn flow_head(&self, id: &MessageId) -> Result<Option<Head>, Stop> {
        if self.ledger.f.flows == 0 {
            return Ok(None);
        }
        if let Some(flow) = self.changes.flow(|f| f.head.id == *id) {
            return Ok(Some(flow.head.clone()));
        }
        let sql = concat!("SELECT ", flow_columns!(), " FROM flow WHERE id = ?1");
        Ok(self
            .c
            .prepare_cached(sql)?
            .query_row([Key::of(id)], flows::flow)
            .optional()?
            .map(|flow| flow.head))
    }

    /// The workflow and the number of the step that a message is.
    pub(super) fn step_of(&self, message: &Message) -> rusqlite::Result<Option<(i64, u32)>> {
        let Some(step) = &message.step else { return Ok(None) };
        let mut statement = self.c.prepare_cached("SELECT no FROM flow WHERE id = ?1")?;
        let key = statement.query_row([Key::of(&step.workflow)], |row| row.get(0)).optional()?;
        Ok(key.map(|key| (key, step.no)))
    }

    /// Forgets steps of workflows that are over and outlived.
    pub(super) fn forget_flows(&mut self, now: Wall, count: u64, left: &mut usize) -> Result<(), Stop> {
        self.write_flows()?;
        while *left > 0 {
            let oldest: Option<(i64, i64)> = self
                .c
                .prepare_cached(
                    "SELECT expires, no FROM flow WHERE expires IS NOT NULL ORDER BY expires, no LIMIT 1",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((at, key)) = oldest else { return Ok(()) };
            if at > now.0 && !joins::too_many(self.ledger.f.spent, count) {
                return Ok(());
            }
            // From now on it is not found any more.
            self.c.prepare_cached("UPDATE flow SET id = NULL WHERE no = ?1")?.execute([key])?;
            let numbers: Vec<u32> = self
                .c
                .prepare_cached("SELECT no FROM step WHERE flow = ?1 ORDER BY no DESC LIMIT ?2")?
                .query_map((key, *left as i64), |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let whole = numbers.len() < *left || numbers.last() == Some(&0);
            *left -= numbers.len();
            let from = if whole { 0 } else { numbers.last().copied().unwrap_or(0) };
            for sql in [
                "DELETE FROM step WHERE flow = ?1 AND no >= ?2",
                "DELETE FROM plan WHERE flow = ?1 AND no >= ?2",
                "DELETE FROM passed WHERE flow = ?1 AND no >= ?2",
                "DELETE FROM edge WHERE flow = ?1 AND source >= ?2",
            ] {
                self.c.prepare_cached(sql)?.execute((key, from))?;
            }
            let n = numbers.len() as u64;
            self.ledger.f.spent = self.ledger.f.spent.saturating_sub(n);
            if whole {
                self.c.prepare_cached("DELETE FROM flow WHERE no = ?1")?.execute([key])?;
                self.ledger.f.flows = self.ledger.f.flows.saturating_sub(1);
            } else {
                self.c
                    .prepare_cached("UPDATE flow SET steps = steps - ?2 WHERE no = ?1")?
                    .execute((key, n as i64))?;
            }
        }
        Ok(())
    }
}

impl Joins for Shelf {
    type Stop = Stop;

    fn flow_of(&mut self, id: &MessageId) -> Result<Option<Flow>, Stop> {
        if let Some(flow) = self.changes.flow(|f| f.head.id == *id) {
            return Ok(Some(flow.clone()));
        }
        Ok(self.find_flow(concat!("SELECT ", flow_columns!(), " FROM flow WHERE id = ?1"), Key::of(id))?)
    }

    fn flow_at(&mut self, key: i64) -> Result<Option<Flow>, Stop> {
        if let Some(flow) = self.changes.flow(|f| f.key == key) {
            return Ok(Some(flow.clone()));
        }
        let sql = concat!("SELECT ", flow_columns!(), " FROM flow WHERE no = ?1 AND id IS NOT NULL");
        Ok(self.find_flow(sql, key)?)
    }

    fn new_flow(&mut self, flow: &Flow, workflow: &Workflow) -> Result<i64, Stop> {
        let head = &flow.head;
        self.c
            .prepare_cached(
                "INSERT INTO flow(id, name, uid, launched, steps, open, failed, lost, canceled, busy, tick, keep, held, \
                 schedule, planned) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0, 0, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                Key::of(&head.id),
                head.name,
                head.uid,
                head.launched.0,
                head.steps,
                head.open,
                i64::try_from(flow.keep_ms).unwrap_or(i64::MAX),
                head.held,
                head.fired.as_ref().map(|f| &f.schedule),
                head.fired.as_ref().and_then(|f| f.planned).map(|at| at.0),
            ])?;
        let key = self.c.last_insert_rowid();
        let mut fans = vec![0_u32; workflow.steps.len()];
        let mut edge = self.c.prepare_cached("INSERT INTO edge(flow, source, target) VALUES (?1, ?2, ?3)")?;
        for (no, step) in (0_u32..).zip(&workflow.steps) {
            for source in &step.after {
                edge.execute((key, source, no))?;
                if let Some(fan) = fans.get_mut(*source as usize) {
                    *fan += 1;
                }
            }
        }
        let mut row = self.c.prepare_cached(
            "INSERT INTO step(flow, no, stage, flags, pending, opened, fan, id, name, task) \
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9)",
        )?;
        let mut plan = self.c.prepare_cached("INSERT INTO plan(flow, no, step) VALUES (?1, ?2, ?3)")?;
        let mut bytes = 0;
        for ((no, step), fan) in (0_u32..).zip(&workflow.steps).zip(fans) {
            let first = joins::first_row(no, step, head.held);
            row.execute(params![
                key,
                no,
                code_of(first.stage),
                flags(&first),
                first.pending,
                fan,
                Key::of(&step.message.id),
                step.name,
                step.message.task,
            ])?;
            if !first.born {
                let json = encode(step)?;
                bytes += json.len();
                plan.execute((key, no, json))?;
            }
        }
        drop((edge, row, plan));
        self.bytes += bytes;
        self.ledger.f.flows += 1;
        Ok(key)
    }

    fn put_flow(&mut self, flow: &Flow) -> Result<(), Stop> {
        Ok(self.keep_flow(flow, true)?)
    }

    fn over(&mut self, steps: u32, over: bool) {
        let (n, spent) = (u64::from(steps), &mut self.ledger.f.spent);
        *spent = if over { *spent + n } else { spent.saturating_sub(n) };
    }

    fn fire_begins(&mut self, flow: &Flow) -> Result<(), Stop> {
        if let Some(fired) = &flow.head.fired {
            self.flow_begins(flow.key, &fired.schedule, flow.head.held)?;
        }
        Ok(())
    }

    fn fire_ends(&mut self, flow: &Flow, now: Wall) -> Result<(), Stop> {
        let head = &flow.head;
        if let Some(fired) = &head.fired {
            self.flow_ends(flow.key, &fired.schedule, (&head.id, head.state()), now)?;
        }
        Ok(())
    }

    fn released(&mut self) -> Option<(i64, Wall)> {
        self.released.pop_front()
    }

    fn first_busy(&mut self) -> Result<Option<i64>, Stop> {
        self.write_flows()?;
        let mut statement = self.c.prepare_cached("SELECT no FROM flow WHERE busy ORDER BY no LIMIT 1")?;
        Ok(statement.query_row([], |row| row.get(0)).optional()?)
    }

    fn row(&mut self, key: i64, no: u32) -> Result<Option<Row>, Stop> {
        if let Some(row) = self.changes.rows.get(&(key, no)) {
            return Ok(Some(*row));
        }
        let sql = "SELECT no, stage, flags, pending, opened FROM step WHERE flow = ?1 AND no = ?2";
        Ok(self.c.prepare_cached(sql)?.query_row((key, no), row_of).optional()?)
    }

    fn put_row(&mut self, key: i64, row: &Row, result: Option<&Value>) -> Result<(), Stop> {
        if self.changes.rows.len() >= MAX_CHANGES {
            self.write_flows()?;
        }
        self.changes.rows.insert((key, row.no), *row);
        if let Some(result) = result {
            let json = encode(result)?;
            self.bytes += json.len();
            self.c
                .prepare_cached("INSERT OR REPLACE INTO passed(flow, no, result) VALUES (?1, ?2, ?3)")?
                .execute((key, row.no, json))?;
        }
        Ok(())
    }

    fn page(&mut self, key: i64, from: u32, limit: u32, sinks: bool) -> Result<Vec<Listed>, Stop> {
        self.write_flows()?;
        let sql = "SELECT no, stage, flags, pending, opened, id, name, task FROM step \
                   WHERE flow = ?1 AND no >= ?2 AND flags & ?4 = ?4 ORDER BY no LIMIT ?3";
        let listed = |row: &SqlRow<'_>| {
            Ok(Listed { row: row_of(row)?, id: id_of(row, 5)?, name: row.get(6)?, task: row.get(7)? })
        };
        let wanted = if sinks { SINK } else { 0 };
        let mut statement = self.c.prepare_cached(sql)?;
        Ok(statement.query_map((key, from, limit, wanted), listed)?.collect::<Result<_, _>>()?)
    }

    fn step_id(&mut self, key: i64, no: u32) -> Result<MessageId, Stop> {
        let mut statement = self.c.prepare_cached("SELECT id FROM step WHERE flow = ?1 AND no = ?2")?;
        Ok(statement.query_row((key, no), |row| id_of(row, 0)).optional()?.unwrap_or_default())
    }

    fn targets(&mut self, key: i64, work: &Work, limit: usize) -> Result<Vec<u32>, Stop> {
        let sql = "SELECT target FROM edge WHERE flow = ?1 AND source = ?2 AND target >= ?3 AND target < ?4 \
                   ORDER BY target LIMIT ?5";
        let mut statement = self.c.prepare_cached(sql)?;
        let bounds = (key, work.source, work.from, work.until, limit as i64);
        Ok(statement.query_map(bounds, |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    fn plan(&mut self, key: i64, no: u32) -> Result<Option<Step>, Stop> {
        let mut statement = self.c.prepare_cached("SELECT step FROM plan WHERE flow = ?1 AND no = ?2")?;
        let json: Option<Vec<u8>> = statement.query_row((key, no), |row| row.get(0)).optional()?;
        // What cannot be read is no plan: its step fails, and says so.
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    fn result(&mut self, key: i64, no: u32) -> Result<Option<(Value, usize)>, Stop> {
        let mut statement = self.c.prepare_cached("SELECT result FROM passed WHERE flow = ?1 AND no = ?2")?;
        let json: Option<Vec<u8>> = statement.query_row((key, no), |row| row.get(0)).optional()?;
        Ok(json.map(|json| (serde_json::from_slice(&json).unwrap_or_default(), json.len())))
    }

    fn spend(&mut self, key: i64, sources: &[u32]) -> Result<(), Stop> {
        let mut statement = self.c.prepare_cached(
            "DELETE FROM passed WHERE flow = ?1 AND no = ?2 \
             AND (SELECT fan FROM step WHERE flow = ?1 AND no = ?2) = 1",
        )?;
        for source in sources {
            statement.execute((key, source))?;
        }
        Ok(())
    }

    fn push_work(&mut self, key: i64, w: &Work) -> Result<(), Stop> {
        self.c
            .prepare_cached(
                "INSERT INTO work(flow, source, revive, since, until, tick) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((key, w.source, w.revive, w.from, w.until, w.tick))?;
        Ok(())
    }

    fn first_work(&mut self, key: i64) -> Result<Option<(i64, Work)>, Stop> {
        let sql =
            "SELECT no, source, revive, since, until, tick FROM work WHERE flow = ?1 ORDER BY no LIMIT 1";
        Ok(self.c.prepare_cached(sql)?.query_row([key], work_of).optional()?)
    }

    fn set_work(&mut self, key: i64, place: i64, work: Option<&Work>) -> Result<(), Stop> {
        match work {
            None => self.c.prepare_cached("DELETE FROM work WHERE no = ?1")?.execute([place])?,
            Some(w) => self
                .c
                .prepare_cached(
                    "INSERT OR REPLACE INTO work(no, flow, source, revive, since, until, tick) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((place, key, w.source, w.revive, w.from, w.until, w.tick))?,
        };
        Ok(())
    }

    fn end_work(&mut self, key: i64, source: u32) -> Result<Option<(i64, Work)>, Stop> {
        let sql = "SELECT no, source, revive, since, until, tick FROM work \
                   WHERE flow = ?1 AND source = ?2 AND NOT revive ORDER BY no LIMIT 1";
        Ok(self.c.prepare_cached(sql)?.query_row((key, source), work_of).optional()?)
    }

    fn publish(&mut self, message: &Message, now: Wall) -> Result<bool, Stop> {
        if let Some(holder) = self.held_by(message, now)? {
            // Its end is found and told as that of a message that is known.
            self.put_ended(message, (State::Revoked, &rules::key_held(&holder)), now, rules::ID_KEPT_MS)?;
            return Ok(false);
        }
        self.store(message, now)
    }

    fn adopt(&mut self, id: &MessageId, (key, no): (i64, u32)) -> Result<(), Stop> {
        self.c.prepare_cached("UPDATE live SET flow = ?2, step = ?3 WHERE id = ?1")?.execute((
            Key::of(id),
            key,
            no,
        ))?;
        Ok(())
    }

    fn known(&mut self, id: &MessageId) -> Result<Option<Record>, Stop> {
        self.record(id)
    }

    fn put_ended(
        &mut self,
        message: &Message,
        (state, outcome): (State, &Outcome),
        now: Wall,
        keep_ms: u64,
    ) -> Result<(), Stop> {
        if !self.is_known(&message.id)? {
            self.bury(message, (state, outcome), now, keep_ms)?;
        }
        Ok(())
    }

    fn drop_ended(&mut self, id: &MessageId) -> Result<(), Stop> {
        if let Some(row) = self.done(id)? {
            self.drop_done(row.seq)?;
            if row.flag == 0 {
                self.ledger.f.slim = self.ledger.f.slim.saturating_sub(1);
            } else {
                self.ledger.forget_kept(row.queue, row.flag);
            }
        }
        Ok(())
    }

    fn end_open(&mut self, id: &MessageId, now: Wall) -> Result<Became, Stop> {
        match self.live(id)? {
            None => return Ok(Became::Gone),
            Some(row) if row.token.is_some() => return Ok(Became::Leased),
            Some(_) => {}
        }
        self.revoke(id, now)?;
        Ok(Became::Done)
    }

    fn renew(&mut self, id: &MessageId, now: Wall) -> Result<Became, Stop> {
        match self.requeue(id, now) {
            Ok(Reply::Record(Some(_))) => Ok(Became::Done),
            Ok(_) | Err(Stop::Fault(Fault::Refused(_))) => Ok(Became::Gone),
            Err(stop) => Err(stop),
        }
    }

    fn fallout(&mut self) -> &mut Fallout {
        &mut self.fallout
    }
}
