//! Schedules: what is known of them is recalled, the next planned time of each is waited for, and when it comes the
//! store is told, once, in one step with the message.
//!
//! The store decides whether a planned time is new and what its overlap leads to; here it is decided which times
//! are put to it. Everything is repeated until the store has it, and a repeat changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::Engine;
use super::command::{About, Command, Note};
use super::event::AskKey;
use super::plan::{SchedulePlan, When};
use super::schedule_replace::Replaced;
use super::schedule_times::due;
use super::store::{Job, Pending, backoff};
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Reply};
use crate::model::schedule::{Change, MAX_ROWS, Overlap, Pause, Row, Tick};
use crate::model::state::State;
use crate::model::time::{Mono, Wall};

/// Most planned times that are at the store at once: what many schedules fire at midnight stays bounded.
const TICKS: usize = 256;

/// A clock that goes back by more than this is looked after: every schedule is planned anew. In milliseconds.
const SET_BACK_MS: u64 = 1_000;

/// What a schedule that is not declared any more leaves behind is forgotten after this, in milliseconds.
const FORGET_MS: u64 = 30 * 86_400_000;

/// Missed times that are counted at most, by all schedules together, when they are recalled.
const COUNTED: usize = 100_000;

/// So long after the store failed something, ends are read and not counted: an end that is told may be the repeat of one
/// that had taken place, and stands in the rows then. In milliseconds, more than the longest pause between two tries.
const UNSURE_MS: u64 = 10_000;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    pub(super) entries: BTreeMap<String, Entry>,
    /// When each fires next.
    due: BTreeSet<(Wall, String)>,
    /// Those with planned times that came.
    ready: BTreeSet<String>,
    /// Those that the store failed, and when it is asked again.
    again: BTreeSet<(Mono, String)>,
    /// Planned times that are at the store.
    ticking: usize,
    /// The rows are to be read.
    recall: Job,
    /// They were read up to this name.
    behind: String,
    /// Something changed while they were read.
    stale: bool,
    /// The ticket of the latest reading: what was submitted before it, it knows.
    read: u64,
    /// What is to be written.
    changes: VecDeque<Change>,
    writing: Job,
    written: usize,
    /// The wall clock at the last look.
    wall: Wall,
    /// What is canceled in favor of a later fire.
    pub(super) replacing: BTreeMap<AskKey, Replaced>,
    /// The same, to be tried again.
    pub(super) replace_again: BTreeSet<(Mono, Replaced)>,
    pub(super) last_key: u64,
}

/// A schedule of the plan.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
    /// What is planned up to this time was looked at.
    from: Wall,
    /// The next planned time.
    pub(super) next: Option<Wall>,
    /// Planned times that came, in their order; the first may be at the store.
    pending: VecDeque<Wall>,
    under_way: bool,
    tries: u32,
    /// Where it stands in [`Schedules::due`] and in [`Schedules::again`].
    fires_at: Option<Wall>,
    again_at: Option<Mono>,
}

/// When a plan that is seen now begins: later times are fired.
pub(super) fn beginning(plan: &SchedulePlan, now: Wall) -> Wall {
    match plan.when {
        When::At(_) => now,
        // So long after an end that never was: at once.
        When::After { ms } => Wall(now.0.saturating_sub_unsigned(ms)),
    }
}

impl Schedules {
    /// Which one fires next, and when.
    pub(super) fn next_fire(&self) -> Option<(Wall, &str)> {
        self.due.first().map(|(at, name)| (*at, name.as_str()))
    }

    fn is_blocked(&self) -> bool {
        self.recall.is_open() || self.writing.is_open() || !self.changes.is_empty()
    }

    /// It waits for no planned time.
    fn unplan(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.next = None;
        if let Some(at) = entry.fires_at.take() {
            self.due.remove(&(at, name.to_owned()));
        }
    }

    /// None of its planned times is to be put to the store.
    fn calm(&mut self, name: &str) {
        self.ready.remove(name);
        if let Some(at) = self.entries.get_mut(name).and_then(|e| e.again_at.take()) {
            self.again.remove(&(at, name.to_owned()));
        }
    }

    fn forget(&mut self, name: &str) {
        self.unplan(name);
        self.calm(name);
        self.entries.remove(name);
    }
}

impl Engine {
    fn may_fire(&self) -> bool {
        self.is_live() && self.stop.is_none()
    }

    /// Other schedules: the rows are read anew.
    pub(super) fn replan_schedules(&mut self) {
        let s = &mut self.schedules;
        s.stale = s.recall.is_open();
        s.behind.clear();
        s.recall.want();
    }

    /// Runs ended, and nobody knows whether they were those of schedules: many at once, or by an operation that may have
    /// taken place although its answer did not come, and whose repeat does not say it again.
    pub(super) fn doubt_schedules(&mut self) {
        let s = &self.schedules;
        if s.recall.is_open() || s.entries.values().any(|e| e.row.live > 0) {
            self.replan_schedules();
        }
    }

    pub(super) fn pump_schedules(&mut self, out: &mut Vec<Command>) {
        if !self.may_fire() {
            return;
        }
        self.look_at_clock(out);
        self.pump_replacements(out);
        let (now, s) = (self.now.mono, &mut self.schedules);
        // Rows are read when no change of them is on its way, so that what is read is what is.
        if s.recall.is_due(now) && s.ticking == 0 && !s.writing.is_open() {
            s.recall.submitted();
            let after = s.behind.clone();
            self.submit(Pending::Schedules, Op::Schedules { after }, out);
        }
        self.write_changes(out);
        if self.schedules.is_blocked() {
            return;
        }
        while let Some((_, name)) = self.schedules.due.first().filter(|(at, _)| *at <= self.now.wall).cloned()
        {
            self.plan_next(&name, out);
        }
        self.write_changes(out);
        while let Some((_, name)) = self.schedules.again.first().filter(|(at, _)| *at <= now).cloned() {
            self.schedules.calm(&name);
            self.schedules.ready.insert(name);
        }
        while self.schedules.ticking < TICKS
            && !self.schedules.is_blocked()
            && let Some(name) = self.schedules.ready.pop_first()
        {
            self.fire(&name, out);
        }
    }

    pub(super) fn schedules_deadline(&self) -> Option<Mono> {
        if !self.may_fire() {
            return None;
        }
        let s = &self.schedules;
        let own = if s.is_blocked() {
            let recall = if s.ticking == 0 && !s.writing.is_open() { s.recall.deadline() } else { None };
            recall.into_iter().chain(s.writing.deadline()).min()
        } else {
            let due = s.due.first().map(|(at, _)| self.now.mono.plus(at.since(self.now.wall)));
            due.into_iter().chain(s.again.first().map(|(at, _)| *at)).min()
        };
        own.into_iter().chain(self.replacements_deadline()).min()
    }

    /// A clock that was set back plans everything anew: what has fired the store knows, what was jumped over
    /// before comes again.
    fn look_at_clock(&mut self, out: &mut Vec<Command>) {
        let wall = self.now.wall;
        let before = std::mem::replace(&mut self.schedules.wall, wall);
        if wall.plus(SET_BACK_MS) >= before {
            return;
        }
        let names: Vec<String> = self.schedules.entries.keys().cloned().collect();
        for name in names {
            let Some(plan) = self.plan.schedules.get(&name) else { continue };
            let shifted = Wall(wall.0.saturating_sub_unsigned(plan.offset_ms));
            if let Some(entry) = self.schedules.entries.get_mut(&name) {
                entry.from = entry.from.min(shifted);
            }
            self.plan_next(&name, out);
        }
    }

    /// Looks which planned times came, and waits for the next one.
    pub(super) fn plan_next(&mut self, name: &str, out: &mut Vec<Command>) {
        let Some(plan) = self.plan.schedules.get(name) else { return self.schedules.forget(name) };
        let wall = self.now.wall;
        let shifted = Wall(wall.0.saturating_sub_unsigned(plan.offset_ms));
        let counted = (COUNTED / self.schedules.entries.len().max(1)).clamp(2, 1_000);
        self.schedules.unplan(name);
        let Some(entry) = self.schedules.entries.get_mut(name) else { return };
        // What came is fired first: what comes meanwhile is late then, or missed.
        if !plan.enabled || entry.row.paused.is_some() || !entry.pending.is_empty() {
            return;
        }
        if shifted >= entry.row.until {
            // Beyond all that is done with, whatever the clock did meanwhile.
            entry.from = entry.from.max(entry.row.until);
        }
        match &plan.when {
            When::At(timing) => {
                let due = due(timing, plan.catch_up, entry.from, shifted, counted);
                entry.from = entry.from.max(shifted);
                entry.next = timing.next(entry.from).map(|planned| planned.at);
                entry.pending = due.fire.into();
                if let Some(latest) = due.missed {
                    if entry.pending.is_empty() {
                        entry.row.until = latest;
                        let name = name.to_owned();
                        self.schedules.changes.push_back(Change::Missed { name, until: latest });
                    }
                    let what = About::Missed { count: due.count, more: due.more, latest };
                    out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
                }
            }
            When::After { ms } => {
                if entry.row.live > 0 {
                    return;
                }
                let after = |at: Wall| at.plus(*ms);
                let next = entry.row.ended.map(after).max(Some(after(entry.row.until)));
                let came = next.filter(|next| *next <= shifted);
                entry.next = if came.is_some() { None } else { next };
                entry.pending.extend(came);
            }
        }
        let Some(entry) = self.schedules.entries.get_mut(name) else { return };
        entry.fires_at = entry.next.map(|next| next.plus(plan.offset_ms));
        if let Some(at) = entry.fires_at {
            self.schedules.due.insert((at, name.to_owned()));
        }
        if !entry.pending.is_empty() {
            self.schedules.ready.insert(name.to_owned());
        }
    }

    /// Puts the first planned time that came to the store.
    fn fire(&mut self, name: &str, out: &mut Vec<Command>) {
        let Some(plan) = self.plan.schedules.get(name) else { return self.schedules.forget(name) };
        let (overlap, pause_after) = (plan.overlap, plan.pause_after);
        let Some(entry) = self.schedules.entries.get(name) else { return };
        let Some(planned) = entry.pending.front().copied().filter(|_| !entry.under_way) else { return };
        let Some(fires) = self.firing(name, Some(planned)) else { return };
        let max_length = self.bounds_of(&fires);
        let (schedule, now) = (name.to_owned(), self.now.wall);
        if let Some(entry) = self.schedules.entries.get_mut(name) {
            entry.under_way = true;
        }
        self.schedules.ticking += 1;
        let tick = Tick { schedule, planned, fires, overlap, pause_after, max_length, now };
        self.submit(Pending::Tick(name.to_owned()), Op::Tick(Box::new(tick)), out);
    }

    pub(super) fn ticked(&mut self, name: &str, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        self.schedules.ticking = self.schedules.ticking.saturating_sub(1);
        let now = self.now;
        let Some(entry) = self.schedules.entries.get_mut(name) else { return };
        entry.under_way = false;
        let tries = entry.tries;
        let refused = match result {
            Ok(Reply::Ticked(ticked)) => {
                entry.tries = 0;
                let Some(planned) = entry.pending.pop_front() else { return };
                self.took_tick(name, planned, *ticked, tries > 0, out);
                return self.go_on_firing(name, out);
            }
            Err(Fault::Again(_) | Fault::Reconnect(_)) => None,
            Ok(other) => Some(format!("it answered something else: {other:?}")),
            Err(Fault::Refused(why) | Fault::Poison(why)) => Some(why),
        };
        if let Some(why) = refused {
            // Nothing took place, and nothing will: the time is given up, loudly.
            entry.tries = 0;
            let Some(planned) = entry.pending.pop_front() else { return };
            let what = About::Refused { planned, why };
            out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
            return self.go_on_firing(name, out);
        }
        entry.tries = tries.saturating_add(1);
        let at = now.mono.plus(backoff(tries));
        entry.again_at = Some(at);
        self.schedules.again.insert((at, name.to_owned()));
    }

    fn go_on_firing(&mut self, name: &str, out: &mut Vec<Command>) {
        let Some(entry) = self.schedules.entries.get(name) else { return };
        if entry.pending.is_empty() {
            self.plan_next(name, out);
        } else {
            self.schedules.ready.insert(name.to_owned());
        }
    }

    /// A message that was fired by hand was accepted.
    pub(super) fn fire_began(&mut self, message: &Message) {
        let entry = message.fired.as_ref().and_then(|f| self.schedules.entries.get_mut(&f.schedule));
        if let Some(entry) = entry {
            entry.row.live += 1;
            self.schedules.stale |= self.schedules.recall.is_open();
        }
    }

    /// A message reached a final state at this time, and the store has it.
    pub(super) fn fire_ended(&mut self, message: &Message, state: State, at: Wall, out: &mut Vec<Command>) {
        if let Some(fired) = &message.fired {
            self.count_end(&fired.schedule, &message.id, state, at, out);
        }
    }

    /// Whether what is told of an end now may stand in the rows already, or in those that are being read: answers do
    /// not come in the order of operations.
    fn is_unsure(&self) -> bool {
        let s = &self.schedules;
        let failed = self.store.failed_at.is_some_and(|at| self.now.mono.since(at) < UNSURE_MS);
        failed || s.recall.is_open() || self.store.completing < s.read
    }

    pub(super) fn count_end(
        &mut self,
        name: &str,
        id: &MessageId,
        state: State,
        at: Wall,
        out: &mut Vec<Command>,
    ) {
        // The end of a fire may be told before the fire itself, whose answer will not know that it is over.
        if self.is_unsure() || self.schedules.entries.get(name).is_some_and(|e| e.under_way) {
            self.replan_schedules();
            return self.raise_all();
        }
        let Some(entry) = self.schedules.entries.get_mut(name) else {
            // It is not declared any more, and what it fired may still wait for this end.
            return self.raise_all();
        };
        let row = &mut entry.row;
        let paused = row.paused.is_some();
        row.end(id, state, at);
        row.live = row.live.saturating_sub(1);
        let released = row.held > 0;
        row.held = row.held.saturating_sub(1);
        if row.paused.is_some() && !paused {
            let what = About::Paused { failures: row.failures };
            out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
        }
        if released {
            // The queue of the next one is the one that it was stored in.
            self.raise_all();
        }
        self.plan_next(name, out);
    }

    /// Rows came: what is planned goes on from there.
    pub(super) fn schedules_recalled(&mut self, result: Result<Reply, Fault>, out: &mut Vec<Command>) {
        let s = &mut self.schedules;
        s.recall.answered(self.now.mono, result.is_err());
        if std::mem::take(&mut s.stale) {
            s.behind.clear();
            s.recall.want();
            return;
        }
        let Ok(Reply::Schedules(rows)) = result else { return };
        s.read = self.store.completing;
        let whole = rows.len() < MAX_ROWS;
        let behind = std::mem::take(&mut s.behind);
        let last = rows.last().map(|row| row.name.clone()).filter(|_| !whole);
        let until = last.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let plan = std::sync::Arc::clone(&self.plan);
        // The names of this part: those of the plan, and of what is there though the plan has it no more.
        let within = (Bound::Excluded(behind.as_str()), until);
        let gone: Vec<String> =
            self.schedules.entries.range::<str, _>(within).map(|(n, _)| n.clone()).collect();
        for name in gone.into_iter().filter(|n| !plan.schedules.contains_key(n)) {
            self.schedules.forget(&name);
        }
        let mut rows: BTreeMap<String, Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, plan) in plan.schedules.range::<str, _>(within) {
            let row = rows.remove(name);
            self.take_row(name, plan, row, out);
        }
        for (_, row) in rows {
            self.leave_row(&row);
        }
        if let Some(last) = last {
            self.schedules.behind = last;
            self.schedules.recall.want();
        }
    }

    fn take_row(&mut self, name: &str, plan: &SchedulePlan, row: Option<Row>, out: &mut Vec<Command>) {
        let wall = self.now.wall;
        let rule = if plan.enabled { plan.rule.as_str() } else { "" };
        let mut row = match row {
            Some(row) => row,
            None if plan.enabled => Row::new(name, wall),
            None => Row { rule: String::new(), ..Row::new(name, wall) },
        };
        if row.rule != rule {
            let (name, rule) = (name.to_owned(), rule.to_owned());
            let change = Change::Plan { name, rule, until: beginning(plan, wall) };
            change.apply(&mut row);
            self.schedules.changes.push_back(change);
        }
        row.pause_after = plan.pause_after;
        if row.paused == Some(Pause::Failures)
            && self.schedules.entries.get(name).is_some_and(|known| known.row.paused.is_none())
        {
            let what = About::Paused { failures: row.failures };
            out.push(Command::Note(Note::Schedule { name: name.to_owned(), what }));
        }
        let ending = std::mem::take(&mut row.ending);
        // What this node plans already it goes on with; nothing of it is at the store now.
        let known =
            self.schedules.entries.get_mut(name).filter(|e| e.row.rule == row.rule && !rule.is_empty());
        let known = known.filter(|_| row.paused.is_none()).map(|e| (e.from, std::mem::take(&mut e.pending)));
        self.schedules.forget(name);
        let shifted = Wall(wall.0.saturating_sub_unsigned(plan.offset_ms));
        // A clock that is behind what was done goes on from where it is; the store knows what fired.
        let begins = row.until.min(shifted.max(beginning(plan, wall)));
        let (from, pending) = known.unwrap_or((begins, VecDeque::new()));
        let waits = row.held > 0 && plan.overlap == Overlap::Replace;
        if !pending.is_empty() {
            self.schedules.ready.insert(name.to_owned());
        }
        let (next, fires_at, again_at) = (None, None, None);
        let entry = Entry { row, from, next, pending, under_way: false, tries: 0, fires_at, again_at };
        self.schedules.entries.insert(name.to_owned(), entry);
        if plan.overlap == Overlap::Replace {
            ending.into_iter().for_each(|id| self.replace(Replaced::Workflow(id), out));
        }
        if waits {
            self.replace_all_of(name, out);
        }
        self.plan_next(name, out);
    }

    /// A row whose schedule is not declared: if it is declared again it begins anew, and in the end it is
    /// forgotten.
    fn leave_row(&mut self, row: &Row) {
        let (wall, name) = (self.now.wall, row.name.clone());
        let touched = row.ended.map_or(row.until, |ended| ended.max(row.until));
        if !row.rule.is_empty() {
            self.schedules.changes.push_back(Change::Plan { name, rule: String::new(), until: wall });
        } else if wall.since(touched) > FORGET_MS && row.live == 0 {
            self.schedules.changes.push_back(Change::Forget { name });
        }
    }

    fn write_changes(&mut self, out: &mut Vec<Command>) {
        let s = &mut self.schedules;
        if !s.changes.is_empty() && !s.writing.is_open() {
            s.writing.want();
        }
        if s.writing.is_due(self.now.mono) {
            s.writing.submitted();
            let changes: Vec<Change> = s.changes.iter().take(MAX_ROWS).cloned().collect();
            s.written = changes.len();
            self.submit(Pending::Schedule, Op::Schedule(changes), out);
        }
    }

    pub(super) fn schedules_changed(&mut self, result: &Result<Reply, Fault>) {
        let s = &mut self.schedules;
        s.writing.answered(self.now.mono, result.is_err());
        if result.is_ok() {
            s.changes.drain(..s.written.min(s.changes.len()));
        }
    }

    /// A client's change of a schedule is stored.
    pub(super) fn schedule_changed(&mut self, change: &Change, out: &mut Vec<Command>) {
        let name = change.name();
        let Some(entry) = self.schedules.entries.get_mut(name) else { return };
        change.apply(&mut entry.row);
        let wall = self.now.wall;
        if let Some(plan) = self.plan.schedules.get(name) {
            let shifted = Wall(wall.0.saturating_sub_unsigned(plan.offset_ms));
            entry.from = entry.row.until.min(shifted.max(beginning(plan, wall)));
        }
        // What is at the store stays, so that its answer finds it.
        let keep = usize::from(entry.under_way);
        entry.pending.truncate(keep);
        if keep == 0 {
            entry.tries = 0;
            self.schedules.calm(name);
        }
        self.plan_next(name, out);
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
