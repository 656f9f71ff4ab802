//! A workflow's own row in the embedded store, and what a transaction changes of workflows, written once.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row as SqlRow, params};

use super::joins::{code_of, flags, id_of};
use super::shelf::Shelf;
use crate::broker::joins::{Flow, Row};
use crate::model::schedule::Fired;
use crate::model::time::Wall;
use crate::model::workflow::Head;

/// The columns of [`flow`].
macro_rules! flow_columns {
    () => {
        "no, id, name, uid, launched, steps, open, failed, lost, canceled, busy, tick, keep, finished, expires, \
         held, schedule, planned"
    };
}
pub(super) use flow_columns;

pub(super) fn flow(row: &SqlRow<'_>) -> rusqlite::Result<Flow> {
    Ok(Flow {
        key: row.get(0)?,
        head: Head {
            id: id_of(row, 1)?,
            name: row.get(2)?,
            uid: row.get(3)?,
            launched: Wall(row.get(4)?),
            steps: row.get(5)?,
            open: row.get(6)?,
            failed: row.get(7)?,
            lost: row.get(8)?,
            canceled: row.get(9)?,
            finished: row.get::<_, Option<i64>>(13)?.map(Wall),
            held: row.get(15)?,
            fired: match row.get::<_, Option<String>>(16)? {
                Some(schedule) => {
                    let planned = row.get::<_, Option<i64>>(17)?.map(Wall);
                    Some(Fired { schedule, planned, held: false })
                }
                None => None,
            },
        },
        busy: row.get(10)?,
        tick: row.get(11)?,
        keep_ms: row.get::<_, i64>(12)?.unsigned_abs(),
        expires: row.get::<_, Option<i64>>(14)?.map(Wall),
    })
}

/// What a transaction changes of workflows again and again, as each end of a member does: the workflow's own row, and
/// that of a step behind many. Written once, at the end of the transaction at the latest.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The workflow that was looked at last, and whether its row is to be written. Never one that a schedule
    /// launched: what its schedule does next looks at the rows of all of them.
    flow: Option<(Flow, bool)>,
    pub(super) rows: BTreeMap<(i64, u32), Row>,
}

impl Changes {
    pub(super) fn flow(&self, is: impl Fn(&Flow) -> bool) -> Option<&Flow> {
        self.flow.as_ref().map(|(flow, _)| flow).filter(|flow| is(flow))
    }
}

/// Rows of steps that are kept at most before they are written.
pub(super) const MAX_CHANGES: usize = 4_096;

impl Shelf {
    /// Writes what was changed of workflows: at the end of a transaction, and before statements that look at many.
    pub(super) fn write_flows(&mut self) -> rusqlite::Result<()> {
        let changes = std::mem::take(&mut self.changes);
        if let Some((flow, true)) = &changes.flow {
            self.write_flow(flow)?;
        }
        for ((key, _), row) in &changes.rows {
            self.c
                .prepare_cached(
                    "UPDATE step SET stage = ?3, flags = ?4, pending = ?5, opened = ?6 WHERE flow = ?1 AND no = ?2",
                )?
                .execute((key, row.no, code_of(row.stage), flags(row), row.pending, row.opened))?;
        }
        Ok(())
    }

    fn write_flow(&self, flow: &Flow) -> rusqlite::Result<()> {
        let head = &flow.head;
        self.c
            .prepare_cached(
                "UPDATE flow SET open = ?2, failed = ?3, lost = ?4, canceled = ?5, busy = ?6, tick = ?7, \
                 finished = ?8, expires = ?9, held = ?10 WHERE no = ?1",
            )?
            .execute(params![
                flow.key,
                head.open,
                head.failed,
                head.lost,
                head.canceled,
                flow.busy,
                flow.tick,
                head.finished.map(|t| t.0),
                flow.expires.map(|t| t.0),
                head.held,
            ])?;
        Ok(())
    }

    /// Keeps a workflow at hand; the one before it is written if it changed.
    pub(super) fn keep_flow(&mut self, flow: &Flow, changed: bool) -> rusqlite::Result<()> {
        if flow.head.fired.is_some() {
            return if changed { self.write_flow(flow) } else { Ok(()) };
        }
        if let Some((before, true)) = &self.changes.flow
            && before.key != flow.key
        {
            self.write_flow(before)?;
        }
        self.changes.flow = Some((flow.clone(), changed));
        Ok(())
    }

    /// A workflow by a statement that finds one.
    pub(super) fn find_flow(
        &mut self,
        sql: &str,
        by: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<Flow>> {
        let found = self.c.prepare_cached(sql)?.query_row([by], flow).optional()?;
        if let Some(flow) = &found {
            self.keep_flow(flow, false)?;
        }
        Ok(found)
    }
}
