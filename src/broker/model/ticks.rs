//! Schedules: what becomes of planned times, and of the messages that they stored.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::shelf::Row as Stored;
use crate::broker::joins::{self, Flow};
use crate::broker::rules;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Reply};
use crate::model::schedule::{
    Became, Change, Fires, MAX_HELD, MAX_ROWS, MAX_RUNNING, Overlap, Row, Skip, Tick, Ticked, fire_id,
};
use crate::model::state::State;
use crate::model::time::Wall;

/// Stores a message for a time, once.
impl Model {
    pub(super) fn once(&mut self, key: String, at: Wall, message: Message) -> Result<Reply, Fault> {
        let done = self.schedules.ticks.entry(key).or_default();
        let forgotten = done.len() >= rules::TICKS_KEPT && done.first().is_some_and(|first| at < *first);
        if forgotten || !done.insert(at) {
            return Ok(Reply::Once(false));
        }
        if done.len() > rules::TICKS_KEPT {
            done.pop_first();
        }
        let now = message.enqueued;
        self.store(message, now)?;
        Ok(Reply::Once(true))
    }
}

/// What a schedule fired and is not over.
#[derive(Clone, Debug)]
struct Fire {
    seq: u64,
    id: MessageId,
    /// A workflow: its number, and whether it was canceled.
    flow: Option<(i64, bool)>,
    leased: bool,
    held: bool,
}

fn held_of(live: &[Fire]) -> usize {
    live.iter().filter(|fire| fire.held).count()
}

/// The ids of messages, and those of workflows.
fn named(fires: &[Fire]) -> (Vec<MessageId>, Vec<MessageId>) {
    let ids = |flows: bool| {
        let wanted = fires.iter().filter(move |fire| fire.flow.is_some() == flows);
        wanted.take(MAX_RUNNING).map(|fire| fire.id.clone()).collect()
    };
    (ids(false), ids(true))
}

/// Beside the messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedules {
    rows: BTreeMap<String, Row>,
    ticks: BTreeMap<String, BTreeSet<Wall>>,
}

impl Model {
    /// Every planned time that is recorded of a schedule.
    pub fn ticks(&self, schedule: &str) -> impl Iterator<Item = Wall> {
        self.schedules.ticks.get(schedule).into_iter().flatten().copied()
    }

    pub(super) fn tick(&mut self, t: Tick) -> Result<Reply, Fault> {
        rules::check_tick(&t)?;
        let name = t.schedule.as_str();
        let row = self.schedules.rows.get(name).cloned().unwrap_or_else(|| Row::new(name, t.planned));
        let id = fire_id(name, t.planned, row.lap);
        let told = |became| {
            let (running, flows, revoked) = (Vec::new(), Vec::new(), Vec::new());
            Ok(Reply::Ticked(Box::new(Ticked { id: id.clone(), became, running, flows, revoked })))
        };
        if self.is_recorded(&t) {
            if t.overlap != Overlap::Replace {
                return told(Became::Known);
            }
            let (running, flows) = self.before(name, &id);
            return Ok(Reply::Ticked(Box::new(Ticked {
                id,
                became: Became::Known,
                running,
                flows,
                revoked: Vec::new(),
            })));
        }
        if row.paused.is_some() {
            return told(Became::Paused);
        }
        self.record(&t);
        let live = self.fires(name);
        let skip = self.skip(&t, &live);
        if skip.is_some() || self.is_there(&id) {
            self.row(name, t.planned).tick(t.planned, t.pause_after, None);
            return told(skip.map_or(Became::Known, Became::Skipped));
        }
        let revoked = if t.overlap == Overlap::Replace { self.make_room(&live, t.now)? } else { Vec::new() };
        let others = self.fires(name);
        let waits = t.overlap != Overlap::Allow && !others.is_empty();
        let fires = rules::fired(&t, row.lap, waits)?;
        let stored = (id.clone(), matches!(fires, Fires::Workflow(_)));
        self.row(name, t.planned).tick(t.planned, t.pause_after, Some(stored));
        match fires {
            Fires::Message(message) => drop(self.store(*message, t.now)?),
            Fires::Workflow(workflow) => drop(joins::launch(self, &workflow, t.now)?),
        }
        let became = match waits {
            _ if !self.fires(name).iter().any(|fire| fire.id == id) => Became::Skipped(Skip::KeyHeld),
            true => Became::Held,
            false => Became::Fired,
        };
        let replaces = t.overlap == Overlap::Replace;
        let (running, flows) = if replaces { named(&others) } else { (Vec::new(), Vec::new()) };
        Ok(Reply::Ticked(Box::new(Ticked { id, became, running, flows, revoked })))
    }

    fn is_there(&self, id: &MessageId) -> bool {
        self.shelf.get(id).is_some() || self.flows.all().any(|flow| flow.head.id == *id)
    }

    /// What a schedule fired and is not over, oldest first.
    fn fires(&self, name: &str) -> Vec<Fire> {
        let messages = self.shelf.fires(name).filter_map(|seq| {
            let row = self.shelf.at(seq)?;
            let (id, leased) = (row.record.message.id.clone(), row.record.token.is_some());
            Some(Fire { seq, id, flow: None, leased, held: row.held })
        });
        let workflow = |(seq, flow): (u64, &Flow)| {
            let head = &flow.head;
            let (id, leased) = (head.id.clone(), false);
            Fire { seq, id, flow: Some((flow.key, head.canceled)), leased, held: head.held }
        };
        let mut all: Vec<Fire> = messages.chain(self.flows.of_schedule(name).map(workflow)).collect();
        all.sort_unstable_by_key(|fire| fire.seq);
        all
    }

    fn row(&mut self, name: &str, until: Wall) -> &mut Row {
        self.schedules.rows.entry(name.to_owned()).or_insert_with(|| Row::new(name, until))
    }

    fn is_recorded(&self, t: &Tick) -> bool {
        let Some(ticks) = self.schedules.ticks.get(&t.schedule) else { return false };
        ticks.contains(&t.planned)
            || rules::is_forgotten(ticks.len(), ticks.first().copied(), t.planned, t.now)
    }

    fn record(&mut self, t: &Tick) {
        let ticks = self.schedules.ticks.entry(t.schedule.clone()).or_default();
        let last = ticks.last().copied();
        if ticks.len() >= rules::TICKS_KEPT {
            if last.is_some_and(|last| rules::drops_last(last, t.now)) {
                ticks.pop_last();
            } else {
                ticks.pop_first();
            }
        }
        ticks.insert(t.planned);
    }

    /// Why nothing is stored.
    fn skip(&self, t: &Tick, live: &[Fire]) -> Option<Skip> {
        match (t.overlap, live.first()) {
            (Overlap::Skip, Some(first)) => return Some(Skip::Running(first.id.clone())),
            (Overlap::Queue, Some(_)) if held_of(live) >= MAX_HELD => return Some(Skip::TooMany),
            _ => {}
        }
        match rules::no_room(t.fires.first(), &t.max_length, |queue| self.shelf.length(queue)) {
            Some(Reply::QueueFull { queue, max_length }) => Some(Skip::QueueFull { queue, max_length }),
            _ => None,
        }
    }

    /// What runs of a schedule and came before this fire of it: leased messages, and workflows.
    fn before(&self, name: &str, id: &MessageId) -> (Vec<MessageId>, Vec<MessageId>) {
        let live = self.fires(name);
        let Some(own) = live.iter().position(|fire| fire.id == *id) else { return (Vec::new(), Vec::new()) };
        let runs = |fire: &&Fire| fire.leased || fire.flow.is_some();
        let before: Vec<Fire> = live.iter().take(own).filter(runs).cloned().collect();
        named(&before)
    }

    /// Revokes what is not leased and cancels workflows as far as one step goes, the latest first, so that nothing
    /// is released on the way.
    fn make_room(&mut self, live: &[Fire], now: Wall) -> Result<Vec<MessageId>, Fault> {
        let mut revoked = Vec::new();
        for fire in live.iter().rev() {
            if fire.flow.is_some() {
                joins::cancel(self, &fire.id, 0, now)?;
            } else if !fire.leased
                && let Some(mut row) = self.shelf.take(fire.seq)
            {
                revoked.push(row.record.message.id.clone());
                row.finish(State::Revoked, rules::superseded(), now, None);
                self.finished(row, now)?;
            }
        }
        Ok(revoked)
    }

    /// Puts a row back that just ended, with what follows from that for its schedule.
    pub(super) fn put_finished(&mut self, row: Stored, now: Wall) {
        let (message, state) = (&row.record.message, row.record.state);
        let ended = message.fired.as_ref().map(|f| (f.schedule.clone(), message.id.clone()));
        self.shelf.put(row);
        if let Some((name, id)) = ended {
            self.fire_over(&name, &id, state, now);
        }
    }

    /// What a schedule fired is over: the next one that waits for that goes on.
    pub(super) fn fire_over(&mut self, name: &str, id: &MessageId, state: State, now: Wall) {
        self.row(name, now).end(id, state, now);
        let live = self.fires(name);
        let Some(first) = live.first().filter(|_| held_of(&live) == live.len()) else { return };
        if let Some((key, _)) = first.flow {
            return self.flows.release(key, now);
        }
        let ready = self.clock.max(now);
        if let Some(mut row) = self.shelf.take(first.seq) {
            self.clock = ready;
            row.record.state = State::Waiting;
            row.held = false;
            row.rank = rules::rank(ready, row.record.message.priority);
            self.shelf.put(row);
        }
    }

    pub(super) fn schedule_rows(&self, after: &str) -> Reply {
        let behind = self.schedules.rows.values().filter(|row| row.name.as_str() > after);
        let counted = |row: &Row| {
            let live = self.fires(&row.name);
            let canceled = |fire: &&Fire| fire.flow.is_some_and(|(_, canceled)| canceled);
            let ending = live.iter().filter(canceled).map(|f| f.id.clone()).take(MAX_RUNNING).collect();
            Row { live: live.len() as u64, held: held_of(&live) as u64, ending, ..row.clone() }
        };
        Reply::Schedules(behind.take(MAX_ROWS).map(counted).collect())
    }

    pub(super) fn change_schedules(&mut self, changes: Vec<Change>) {
        for change in changes {
            let name = change.name().to_owned();
            match &change {
                Change::Forget { .. } => {
                    if self.fires(&name).is_empty() {
                        self.schedules.rows.remove(&name);
                        self.schedules.ticks.remove(&name);
                    }
                    continue;
                }
                Change::Rewind { to, .. } => {
                    if let Some(ticks) = self.schedules.ticks.get_mut(&name) {
                        ticks.retain(|planned| planned <= to);
                    }
                }
                _ => {}
            }
            change.apply(self.row(&name, Wall(0)));
        }
    }
}
