//! Schedules: what becomes of planned times, and of the messages that they stored.

use rusqlite::{OptionalExtension, Row as SqlRow};

use super::joins::id_of;
use super::ledger::{self, Class, idle_class};
use super::row::{self, Key, encode, state};
use super::shelf::{Shelf, Stop};
use crate::broker::joins::{self, Joins};
use crate::broker::rules;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::Reply;
use crate::model::schedule::{
    Became, Change, Fired, Fires, MAX_HELD, MAX_ROWS, MAX_RUNNING, Overlap, Row, Skip, Tick, Ticked, fire_id,
};
use crate::model::state::State;
use crate::model::time::Wall;

/// What a schedule fired and is not over.
struct Fire {
    seq: i64,
    leased: bool,
    held: bool,
    /// A workflow.
    flow: Option<Flow>,
}

/// A workflow that is not over.
struct Flow {
    key: i64,
    id: MessageId,
    canceled: bool,
}

/// A row that cannot be understood is begun anew: it must not keep the messages of its schedule from ending.
fn understood(json: &[u8]) -> Option<Row> {
    serde_json::from_slice(json).ok()
}

impl Shelf {
    pub(super) fn once(&mut self, key: &str, at: Wall, message: &Message) -> Result<bool, Stop> {
        let (done, first, _) = self.recorded(key)?;
        let full = done >= rules::TICKS_KEPT;
        if full && first.is_some_and(|first| at < first) {
            return Ok(false);
        }
        let new = self
            .c
            .prepare_cached("INSERT INTO tick(schedule, planned) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute((key, at.0))?;
        if new == 0 {
            return Ok(false);
        }
        if full {
            self.c
                .prepare_cached("DELETE FROM tick WHERE schedule = ?1 AND planned = ?2")?
                .execute((key, first.map(|f| f.0)))?;
        }
        self.store(message, message.enqueued)?;
        Ok(true)
    }

    pub(super) fn tick(&mut self, t: &Tick) -> Result<Ticked, Stop> {
        rules::check_tick(t)?;
        let name = t.schedule.as_str();
        let lap = self.schedule(name)?.map_or(0, |row| row.lap);
        let id = fire_id(name, t.planned, lap);
        let (running, flows, revoked) = (Vec::new(), Vec::new(), Vec::new());
        let mut told = Ticked { id, became: Became::Known, running, flows, revoked };
        let (kept, first, last) = self.recorded(name)?;
        if self.is_recorded(t)? || rules::is_forgotten(kept, first, t.planned, t.now) {
            if t.overlap == Overlap::Replace {
                self.running_before(name, &mut told)?;
            }
            return Ok(told);
        }
        if self.schedule(name)?.is_some_and(|row| row.paused.is_some()) {
            told.became = Became::Paused;
            return Ok(told);
        }
        let goes = if last.is_some_and(|last| rules::drops_last(last, t.now)) { last } else { first };
        if kept >= rules::TICKS_KEPT {
            self.c
                .prepare_cached("DELETE FROM tick WHERE schedule = ?1 AND planned = ?2")?
                .execute((name, goes.map(|g| g.0)))?;
        }
        self.c
            .prepare_cached("INSERT INTO tick(schedule, planned) VALUES (?1, ?2)")?
            .execute((name, t.planned.0))?;
        let live = self.fires(name)?;
        let skip = self.skip(t, &live)?;
        if skip.is_some() || self.record(&told.id)?.is_some() || self.flow_of(&told.id)?.is_some() {
            self.change_row(name, t.planned, |row| row.tick(t.planned, t.pause_after, None))?;
            told.became = skip.map_or(Became::Known, Became::Skipped);
            return Ok(told);
        }
        if t.overlap == Overlap::Replace {
            told.revoked = self.make_room(&live, t.now)?;
        }
        let others = self.fires(name)?;
        let waits = t.overlap != Overlap::Allow && !others.is_empty();
        let fires = rules::fired(t, lap, waits)?;
        let stored = (told.id.clone(), matches!(fires, Fires::Workflow(_)));
        self.change_row(name, t.planned, |row| row.tick(t.planned, t.pause_after, Some(stored)))?;
        let is_over = match &fires {
            Fires::Message(message) => {
                self.store(message, t.now)?;
                self.live(&told.id)?.is_none()
            }
            Fires::Workflow(workflow) => {
                joins::launch(self, workflow, t.now)?;
                self.flow_of(&told.id)?.is_none_or(|flow| flow.head.finished.is_some())
            }
        };
        if t.overlap == Overlap::Replace {
            self.name_fires(&others, &mut told)?;
        }
        told.became = match waits {
            _ if is_over => Became::Skipped(Skip::KeyHeld),
            true => Became::Held,
            false => Became::Fired,
        };
        Ok(told)
    }

    /// How many planned times are remembered, the first and the last of them.
    fn recorded(&self, name: &str) -> Result<(usize, Option<Wall>, Option<Wall>), Stop> {
        let sql = "SELECT count(*), min(planned), max(planned) FROM tick WHERE schedule = ?1";
        Ok(self.c.prepare_cached(sql)?.query_row([name], |row| {
            let n: i64 = row.get(0)?;
            let at = |n: Option<i64>| n.map(Wall);
            Ok((usize::try_from(n).unwrap_or(0), at(row.get(1)?), at(row.get(2)?)))
        })?)
    }

    fn is_recorded(&self, t: &Tick) -> Result<bool, Stop> {
        let sql = "SELECT 1 FROM tick WHERE schedule = ?1 AND planned = ?2";
        Ok(self.c.prepare_cached(sql)?.exists((&t.schedule, t.planned.0))?)
    }

    fn schedule(&self, name: &str) -> rusqlite::Result<Option<Row>> {
        let mut statement = self.c.prepare_cached("SELECT row FROM schedule WHERE name = ?1")?;
        let json: Option<Vec<u8>> = statement.query_row([name], |row| row.get(0)).optional()?;
        Ok(json.and_then(|json| understood(&json)))
    }

    /// Changes a row, which is made where it is not there.
    fn change_row(&self, name: &str, until: Wall, change: impl FnOnce(&mut Row)) -> rusqlite::Result<()> {
        let mut row = self.schedule(name)?.unwrap_or_else(|| Row::new(name, until));
        change(&mut row);
        self.c
            .prepare_cached(
                "INSERT INTO schedule(name, row) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET row = excluded.row",
            )?
            .execute((name, encode(&row)?))?;
        Ok(())
    }

    /// What a schedule fired and is not over, oldest first.
    fn fires(&self, name: &str) -> rusqlite::Result<Vec<Fire>> {
        let sql = "SELECT fire.seq, live.token IS NOT NULL, fire.held, flow.no, flow.id, flow.canceled FROM fire \
                   LEFT JOIN live ON live.seq = fire.seq LEFT JOIN flow ON flow.no = fire.flow \
                   WHERE fire.schedule = ?1 ORDER BY fire.seq";
        let mut statement = self.c.prepare_cached(sql)?;
        let fire = |row: &SqlRow<'_>| {
            let flow = match row.get(3)? {
                Some(key) => Some(Flow { key, id: id_of(row, 4)?, canceled: row.get(5)? }),
                None => None,
            };
            Ok(Fire { seq: row.get(0)?, leased: row.get(1)?, held: row.get(2)?, flow })
        };
        statement.query_map([name], fire)?.collect()
    }

    fn id_of_fire(&self, fire: &Fire) -> rusqlite::Result<MessageId> {
        match &fire.flow {
            Some(flow) => Ok(flow.id.clone()),
            None => self.id_at(fire.seq),
        }
    }

    /// Names what runs: messages, and workflows.
    fn name_fires(&self, fires: &[Fire], told: &mut Ticked) -> rusqlite::Result<()> {
        for fire in fires {
            let list = if fire.flow.is_some() { &mut told.flows } else { &mut told.running };
            if list.len() < MAX_RUNNING {
                list.push(self.id_of_fire(fire)?);
            }
        }
        Ok(())
    }

    fn id_at(&self, seq: i64) -> rusqlite::Result<MessageId> {
        let mut statement = self.c.prepare_cached("SELECT id FROM live WHERE seq = ?1")?;
        statement.query_row([seq], |row| Ok(row::id(row.get_ref(0)?)))
    }

    /// Why nothing is stored.
    fn skip(&self, t: &Tick, live: &[Fire]) -> Result<Option<Skip>, Stop> {
        match (t.overlap, live.first()) {
            (Overlap::Skip, Some(first)) => return Ok(Some(Skip::Running(self.id_of_fire(first)?))),
            (Overlap::Queue, Some(_)) if live.iter().filter(|f| f.held).count() >= MAX_HELD => {
                return Ok(Some(Skip::TooMany));
            }
            _ => {}
        }
        let length = |queue: &str| self.ledger.number(queue).map_or(0, |no| self.ledger.length(no));
        Ok(match rules::no_room(t.fires.first(), &t.max_length, length) {
            Some(Reply::QueueFull { queue, max_length }) => Some(Skip::QueueFull { queue, max_length }),
            _ => None,
        })
    }

    /// What runs of a schedule and came before this fire of it: leased messages, and workflows.
    fn running_before(&self, name: &str, told: &mut Ticked) -> Result<(), Stop> {
        let mut statement = self.c.prepare_cached(
            "SELECT seq FROM live WHERE id = ?1 \
             UNION ALL SELECT fire.seq FROM flow JOIN fire ON fire.flow = flow.no WHERE flow.id = ?1",
        )?;
        let own: Option<i64> = statement.query_row([Key::of(&told.id)], |row| row.get(0)).optional()?;
        let Some(own) = own else { return Ok(()) };
        let mut before = self.fires(name)?;
        before.retain(|f| f.seq < own && (f.leased || f.flow.is_some()));
        Ok(self.name_fires(&before, told)?)
    }

    /// Revokes what is not leased and cancels workflows as far as one step goes, the latest first, so that nothing
    /// is released on the way.
    fn make_room(&mut self, live: &[Fire], now: Wall) -> Result<Vec<MessageId>, Stop> {
        let mut revoked = Vec::new();
        for fire in live.iter().rev().filter(|f| !f.leased) {
            if let Some(flow) = &fire.flow {
                joins::cancel(self, &flow.id, 0, now)?;
                continue;
            }
            let (queue, code, unknown): (i64, i64, bool) = self
                .c
                .prepare_cached("SELECT queue, state, unknown IS NOT NULL FROM live WHERE seq = ?1")?
                .query_row([fire.seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            revoked.push(self.id_at(fire.seq)?);
            self.ledger
                .leave(ledger::index(queue), idle_class(state(code).unwrap_or(State::Waiting), unknown));
            self.finish(fire.seq, State::Revoked, (&rules::superseded(), false), now, None, false)?;
        }
        Ok(revoked)
    }

    /// Notes that a message of a schedule is stored. One that waits for those before it has no time that it is due
    /// at: nothing but its release makes it wait for a slot.
    pub(super) fn fire_begins(&mut self, seq: i64, fired: &Fired) -> rusqlite::Result<()> {
        self.c.prepare_cached("INSERT INTO fire(seq, schedule, held) VALUES (?1, ?2, ?3)")?.execute((
            seq,
            &fired.schedule,
            fired.held,
        ))?;
        self.ledger.f.fires += 1;
        Ok(())
    }

    /// Notes that a workflow of a schedule has an open step. Its place is that of a message which is stored now.
    pub(super) fn flow_begins(&mut self, key: i64, schedule: &str, held: bool) -> rusqlite::Result<()> {
        let seq = self.ledger.f.seq + 1;
        self.c
            .prepare_cached("INSERT INTO fire(seq, schedule, held, flow) VALUES (?1, ?2, ?3, ?4)")?
            .execute((seq, schedule, held, key))?;
        self.ledger.f.seq = seq;
        self.ledger.f.fires += 1;
        Ok(())
    }

    /// The same for its end.
    pub(super) fn flow_ends(
        &mut self,
        key: i64,
        schedule: &str,
        (id, end): (&MessageId, State),
        now: Wall,
    ) -> rusqlite::Result<()> {
        let gone = self.c.prepare_cached("DELETE FROM fire WHERE flow = ?1")?.execute([key])?;
        self.ledger.f.fires = self.ledger.f.fires.saturating_sub(gone as u64);
        self.fire_over(schedule, id, end, now)
    }

    /// A message ended: what follows from that for the schedule that fired it, if one did.
    pub(super) fn fire_ends(&mut self, seq: i64, end: State, now: Wall) -> rusqlite::Result<()> {
        if self.ledger.f.fires == 0 {
            return Ok(());
        }
        let name: Option<String> = self
            .c
            .prepare_cached("DELETE FROM fire WHERE seq = ?1 RETURNING schedule")?
            .query_row([seq], |row| row.get(0))
            .optional()?;
        let Some(name) = name else { return Ok(()) };
        self.ledger.f.fires = self.ledger.f.fires.saturating_sub(1);
        let id = self
            .c
            .prepare_cached("SELECT id FROM done WHERE seq = ?1")?
            .query_row([seq], |row| Ok(row::id(row.get_ref(0)?)))?;
        self.fire_over(&name, &id, end, now)
    }

    /// What a schedule fired is over: the next one that waits for that goes on.
    fn fire_over(&mut self, name: &str, id: &MessageId, end: State, now: Wall) -> rusqlite::Result<()> {
        self.change_row(name, now, |row| row.end(id, end, now))?;
        let live = self.fires(name)?;
        let Some(first) = live.first().filter(|_| live.iter().all(|f| f.held)) else { return Ok(()) };
        if let Some(flow) = &first.flow {
            self.c.prepare_cached("UPDATE fire SET held = 0 WHERE seq = ?1")?.execute([first.seq])?;
            self.c.prepare_cached("UPDATE flow SET held = 0 WHERE no = ?1")?.execute([flow.key])?;
            self.released.push_back((flow.key, now));
            return Ok(());
        }
        self.release_fire(first.seq, now)
    }

    fn release_fire(&mut self, seq: i64, now: Wall) -> rusqlite::Result<()> {
        let (queue, priority, lane): (i64, u8, Option<String>) = self
            .c
            .prepare_cached("SELECT queue, priority, lane FROM live WHERE seq = ?1")?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rank = self.ledger.rank_again(now, priority);
        self.c.prepare_cached("UPDATE live SET state = 1, rank = ?2 WHERE seq = ?1")?.execute((seq, rank))?;
        self.c.prepare_cached("UPDATE fire SET held = 0 WHERE seq = ?1")?.execute([seq])?;
        let queue = ledger::index(queue);
        self.ledger.leave(queue, Class::Scheduled);
        self.ledger.enter(queue, Class::Waiting);
        self.enter_lane(queue, lane.as_deref())
    }

    /// The class of a row that is about to end, where the end of another one may have released it meanwhile.
    pub(super) fn class_now(&self, seq: i64, code: i64, unknown: bool) -> rusqlite::Result<Class> {
        let code = if self.ledger.f.fires == 0 {
            code
        } else {
            self.c
                .prepare_cached("SELECT state FROM live WHERE seq = ?1")?
                .query_row([seq], |row| row.get(0))?
        };
        Ok(idle_class(state(code).unwrap_or(State::Waiting), unknown))
    }

    pub(super) fn schedule_rows(&self, after: &str) -> Result<Reply, Stop> {
        let sql = "SELECT row, (SELECT count(*) FROM fire WHERE schedule = name), \
                   (SELECT count(*) FROM fire WHERE schedule = name AND held = 1) \
                   FROM schedule WHERE name > ?1 ORDER BY name LIMIT ?2";
        let mut statement = self.c.prepare_cached(sql)?;
        let mut rows = statement.query((after, MAX_ROWS as i64))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let count = |n: i64| n.unsigned_abs();
            let (live, held) = (count(row.get(1)?), count(row.get(2)?));
            let Some(row) = understood(&row.get::<_, Vec<u8>>(0)?) else { continue };
            let ending = if live > 0 { self.ending(&row.name)? } else { Vec::new() };
            found.push(Row { live, held, ending, ..row });
        }
        Ok(Reply::Schedules(found))
    }

    /// Workflows of a schedule that were canceled and are not over yet, oldest first.
    fn ending(&self, name: &str) -> rusqlite::Result<Vec<MessageId>> {
        let canceled = |fire: Fire| fire.flow.filter(|flow| flow.canceled).map(|flow| flow.id);
        Ok(self.fires(name)?.into_iter().filter_map(canceled).take(MAX_RUNNING).collect())
    }

    pub(super) fn change_schedules(&self, changes: &[Change]) -> Result<(), Stop> {
        for change in changes {
            let name = change.name();
            match change {
                Change::Forget { .. } => {
                    if self.fires(name)?.is_empty() {
                        self.c.prepare_cached("DELETE FROM schedule WHERE name = ?1")?.execute([name])?;
                        self.c.prepare_cached("DELETE FROM tick WHERE schedule = ?1")?.execute([name])?;
                    }
                    continue;
                }
                Change::Rewind { to, .. } => {
                    self.c
                        .prepare_cached("DELETE FROM tick WHERE schedule = ?1 AND planned > ?2")?
                        .execute((name, to.0))?;
                }
                _ => {}
            }
            self.change_row(name, Wall(0), |row| change.apply(row))?;
        }
        Ok(())
    }
}
