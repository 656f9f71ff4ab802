//! Schedules in the simulation: what a seed draws of them, and what must hold of every planned time.

use std::collections::BTreeMap;

use taskd::cron::Timing;
use taskd::engine::LATE_MS;
use taskd::engine::plan::{SchedulePlan, Target, When};
use taskd::model::message::{Message, Record};
use taskd::model::name::MessageId;
use taskd::model::op::{Fault, Op, Reply};
use taskd::model::schedule::{Became, CatchUp, Change, Fires, Overlap, Tick, Ticked, fire_id};
use taskd::model::state::State;
use taskd::model::time::Wall;
use taskd::model::workflow::{Declared, Workflow};

use crate::ledger::{Check, Violation, broken};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::world::World;

/// What comes so much later than it may is not the engine's fault: operations are late, the store is away.
const SLACK_MS: u64 = 30_000;

/// What truly happened to them.
#[derive(Default)]
pub struct Schedules {
    /// As the seed drew them.
    pub drawn: BTreeMap<String, SchedulePlan>,
    /// They are taken out of the settings.
    pub over: bool,
    /// The wall clock when the store first heard of each.
    seen: BTreeMap<String, Wall>,
    /// The message of each planned time.
    stored: BTreeMap<(String, Wall), MessageId>,
    /// Planned times that were put to the store.
    put: BTreeMap<(String, Wall), u32>,
    /// Workflows that were launched, by their schedules.
    flows: BTreeMap<MessageId, String>,
    /// Failures in a row.
    failures: BTreeMap<String, u32>,
    /// The order of acceptance of what each started last for the first time.
    started: BTreeMap<String, u64>,
    /// What the wall clock said when it was set, each time.
    pub jumps: Vec<Wall>,
    pub fires: u64,
    pub skips: u64,
    pub held: u64,
}

impl Schedules {
    pub fn of(seed: u64) -> Self {
        Self { drawn: draw(seed), ..Self::default() }
    }
}

/// The schedules of a seed: most have none.
fn draw(seed: u64) -> BTreeMap<String, SchedulePlan> {
    let mut r = Rng::new(seed ^ 0x5eed_5c4e_d01e);
    let mut all = BTreeMap::new();
    if !r.chance(450) {
        return all;
    }
    // Drawn from a source of its own: seeds without workflows are as they were.
    let mut flows = Rng::new(seed ^ 0x0057_0f10_3555);
    for _ in 0..r.between(1, 3) {
        let overlap = *r.pick(&[Overlap::Skip, Overlap::Queue, Overlap::Allow, Overlap::Replace]);
        let (name, when, catch_up) = match r.below(4) {
            0 => ("all", When::At(Timing::Every { ms: 30_000 }), CatchUp::All { max: 1_000 }),
            1 => ("last", When::At(Timing::Every { ms: 90_000 }), CatchUp::Last),
            2 => ("after", When::After { ms: r.between(200, 3_000) }, CatchUp::None),
            _ => ("none", When::At(Timing::Every { ms: 1_000 * r.between(2, 5) }), CatchUp::None),
        };
        let overlap = if name == "after" { Overlap::Skip } else { overlap };
        let plan = SchedulePlan {
            rule: format!("{when:?}"),
            when,
            target: target(&mut r, &mut flows, name),
            args: Vec::new(),
            kwargs: serde_json::Map::new(),
            queue: r.chance(200).then(|| "low".to_owned()),
            priority: None,
            expires_ms: r.chance(100).then_some(2_000),
            overlap,
            catch_up,
            offset_ms: if r.chance(300) { r.between(1, 4_000) } else { 0 },
            pause_after: r.chance(500).then(|| r.between(1, 2) as u32).filter(|_| name != "all"),
            enabled: true,
        };
        all.insert(name.to_owned(), plan);
    }
    all
}

fn target(r: &mut Rng, flows: &mut Rng, name: &str) -> Target {
    let task = (*r.pick(&["ok", "flaky", "limited", "spawny"])).to_owned();
    if !flows.chance(400) {
        return Target::Task(task);
    }
    let steps = crate::workflows::draw_small(flows);
    Target::Workflow(Declared { name: name.to_owned(), steps })
}

impl World {
    /// The schedules as the engine is told them.
    pub fn schedules_given(&self) -> BTreeMap<String, SchedulePlan> {
        if self.schedules.over {
            return BTreeMap::new();
        }
        let mut given = self.schedules.drawn.clone();
        if self.bug == Some(Planted::MissedFireAll) {
            for plan in given.values_mut() {
                plan.catch_up = CatchUp::All { max: 20 };
            }
        }
        given
    }

    /// 44: what is put to the store is planned, has come, and is late or missed as `catch_up` says.
    pub fn tick_is_right(&mut self, tick: &Tick) -> Check {
        let name = "44 missed_times_follow_catch_up";
        let Some(plan) = self.schedules.drawn.get(&tick.schedule) else {
            return broken("44 only_planned_times_fire", format!("{tick:?}"));
        };
        let put = self.schedules.put.entry((tick.schedule.clone(), tick.planned)).or_default();
        *put += 1;
        let When::At(timing) = &plan.when else { return Ok(()) };
        is_planned(timing, tick)?;
        let late = self.now.wall.since(tick.planned.plus(plan.offset_ms));
        if self.now.wall < tick.planned.plus(plan.offset_ms) && self.schedules.jumps.is_empty() {
            return broken("44 nothing_fires_early", format!("{tick:?} at {:?}", self.now.wall));
        }
        // What had come when the clock was set, and waited for the store, is late by that.
        let near = |at: &Wall| at.since(tick.planned).max(tick.planned.since(*at));
        let excused = self.schedules.jumps.iter().any(|at| near(at) <= LATE_MS + SLACK_MS);
        if *put > 1 || excused || late <= LATE_MS + SLACK_MS {
            return Ok(());
        }
        let until = Wall(self.now.wall.0 - (plan.offset_ms + LATE_MS + SLACK_MS) as i64);
        match plan.catch_up {
            CatchUp::None => broken(name, format!("{tick:?} is {late} ms late")),
            CatchUp::Last if timing.latest(tick.planned, until).is_some() => {
                broken(name, format!("{tick:?} is {late} ms late and not the last"))
            }
            _ => Ok(()),
        }
    }

    /// Planted: what is put to the store is something else.
    fn bend_tick(&mut self, tick: &mut Tick) {
        match self.bug {
            Some(Planted::OverlapIgnored) => tick.overlap = Overlap::Allow,
            Some(Planted::WorkflowsOverlap) if matches!(tick.fires, Fires::Workflow(_)) => {
                tick.overlap = Overlap::Allow;
            }
            Some(Planted::FailuresUncounted) => tick.pause_after = None,
            Some(Planted::RepeatedFireIsNew)
                if self.schedules.stored.contains_key(&(tick.schedule.clone(), tick.planned)) =>
            {
                tick.planned = tick.planned.plus(1);
            }
            _ => {}
        }
    }

    /// A planned time reaches the store.
    pub fn apply_tick(&mut self, mut tick: Tick) -> Result<Result<Reply, Fault>, Violation> {
        if self.bug == Some(Planted::ForgottenFire) && tick.planned.0 / 1_000 % 3 == 0 {
            let id = MessageId("forgotten".to_owned());
            let (running, revoked) = (Vec::new(), Vec::new());
            return Ok(Ok(Reply::Ticked(Box::new(Ticked {
                id,
                became: Became::Known,
                running,
                flows: Vec::new(),
                revoked,
            }))));
        }
        self.bend_tick(&mut tick);
        let op = Op::Tick(Box::new(tick.clone()));
        if self.bug == Some(Planted::WorkflowNotLaunched) && matches!(tick.fires, Fires::Workflow(_)) {
            let id = fire_id(&tick.schedule, tick.planned, 0);
            let (running, flows, revoked) = (Vec::new(), Vec::new(), Vec::new());
            let told = Ticked { id, became: Became::Fired, running, flows, revoked };
            self.fired(&op, &tick, &told)?;
            return Ok(Ok(Reply::Ticked(Box::new(told))));
        }
        let flows = &self.schedules.flows;
        let of = |r: &&Record| {
            let m = &r.message;
            let by_step = m.step.as_ref().and_then(|of| flows.get(&of.workflow));
            m.fired.as_ref().map(|f| &f.schedule).or(by_step) == Some(&tick.schedule)
        };
        let before: Vec<Record> =
            self.model.records().filter(of).filter(|r| !r.state.is_final()).cloned().collect();
        let reply = self.model.apply(op.clone());
        let told = match &reply {
            Ok(Reply::With(told, _)) => told.as_ref(),
            Ok(told) => told,
            Err(_) => return Ok(reply),
        };
        let Reply::Ticked(ticked) = told.clone() else { return Ok(reply) };
        let ticked = &ticked;
        for record in before {
            let after = self.get(&record.message.id);
            self.ledger.moves_are_legal(&op, Some(&record), after.as_ref())?;
        }
        if tick.overlap == Overlap::Replace {
            // What was replaced is canceled.
            let of = self.schedules.flows.iter().filter(|(id, s)| **s == tick.schedule && **id != ticked.id);
            self.flows.touched.extend(of.map(|(id, _)| id.clone()));
        }
        match ticked.became {
            Became::Fired | Became::Held => self.fired(&op, &tick, ticked)?,
            Became::Skipped(_) => self.schedules.skips += 1,
            Became::Known | Became::Paused => {}
        }
        Ok(reply)
    }

    /// 45: one message for a planned time, and none after too many failures.
    fn fired(&mut self, op: &Op, tick: &Tick, ticked: &Ticked) -> Check {
        match &tick.fires {
            Fires::Message(_) => {
                let after = self.get(&ticked.id);
                self.ledger.moves_are_legal(op, None, after.as_ref())?;
                self.ledger.accepted_is_kept(ticked.id.as_str(), after.as_ref())?;
            }
            Fires::Workflow(w) => self.launched_by(&tick.schedule, &ticked.id, w)?,
        }
        let s = &mut self.schedules;
        s.fires += 1;
        if ticked.became == Became::Held {
            s.held += 1;
            // It gets its place when it is released.
            if let Some(story) = self.ledger.stories.get_mut(ticked.id.as_str()) {
                story.moved = true;
            }
        }
        let name = "45 once_per_planned_time";
        let Some(plan) = s.drawn.get(&tick.schedule) else { return broken(name, format!("{tick:?}")) };
        if let When::At(timing) = &plan.when {
            is_planned(timing, tick)?;
        }
        if let Some(other) = s.stored.insert((tick.schedule.clone(), tick.planned), ticked.id.clone()) {
            return broken(name, format!("{tick:?} stored {other} before"));
        }
        let failures = s.failures.get(&tick.schedule).copied().unwrap_or(0);
        if plan.pause_after.is_some_and(|most| failures >= most) {
            return broken("47 failures_pause", format!("{} fires after {failures} failures", tick.schedule));
        }
        Ok(())
    }

    /// A schedule launched a workflow: it is stored as one, and what holds for others holds for it.
    fn launched_by(&mut self, schedule: &str, id: &MessageId, w: &Workflow) -> Check {
        if self.look(id).is_none_or(|seen| seen.head.fired.is_none_or(|f| f.schedule != schedule)) {
            return broken("1 accepted_is_kept", format!("the workflow {id} of {schedule} is not stored"));
        }
        let Ok(asked) = Workflow::new(id.clone(), &w.name, None, w.steps.clone()) else {
            return broken("45 once_per_planned_time", format!("{id} is no workflow"));
        };
        // All of it takes one place in the order of what the schedule fires.
        let ids: Vec<String> = asked.steps.iter().map(|s| s.message.id.0.clone()).collect();
        self.ledger.accepted_together(&ids);
        self.schedules.flows.insert(id.clone(), schedule.to_owned());
        self.flows.asked.insert(id.clone(), asked);
        Ok(())
    }

    /// What the store says that it did beside: workflows of schedules ended.
    pub fn note_fires(&mut self, fires: &[(String, MessageId, State)]) {
        for (schedule, _, state) in fires {
            let failures = self.schedules.failures.entry(schedule.clone()).or_default();
            match state {
                State::Success => *failures = 0,
                State::Failure => *failures += 1,
                _ => {}
            }
        }
    }

    /// What is one run of a schedule: a message, or all of a workflow.
    fn run_of(&self, m: &Message) -> Option<(String, MessageId)> {
        match (&m.fired, &m.step) {
            (Some(fired), _) => Some((fired.schedule.clone(), m.id.clone())),
            (None, Some(of)) => Some((self.schedules.flows.get(&of.workflow)?.clone(), of.workflow.clone())),
            _ => None,
        }
    }

    /// The store changes what it knows of schedules.
    pub fn note_changes(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Plan { name, rule, until } = change
                && !rule.is_empty()
            {
                self.schedules.seen.entry(name.clone()).or_insert(*until);
            }
        }
    }

    /// A message reached its end in the store.
    pub fn fire_ended(&mut self, before: &Record, end: State) {
        let Some(fired) = &before.message.fired else { return };
        let failures = self.schedules.failures.entry(fired.schedule.clone()).or_default();
        match end {
            State::Success => *failures = 0,
            State::Failure | State::Dead => *failures += 1,
            _ => {}
        }
    }

    /// 46: a child begins a message of a schedule: no other of it runs, and they go in their order.
    pub fn fire_begins(&mut self, id: &MessageId) -> Check {
        let Some(record) = self.get(id) else { return Ok(()) };
        let Some((schedule, run)) = self.run_of(&record.message) else { return Ok(()) };
        let Some(plan) = self.schedules.drawn.get(&schedule) else { return Ok(()) };
        let overlap = plan.overlap;
        // A new life waits for nobody.
        let reborn = |w: &Self, id: &str, run: &MessageId| {
            w.ledger.stories.get(id).is_some_and(|s| s.lives > 0) || w.flows.relived.contains(run)
        };
        if overlap == Overlap::Allow || reborn(self, id.as_str(), &run) {
            return Ok(());
        }
        let others: Vec<String> =
            self.children.values().flat_map(|c| c.runs.values()).map(|run| run.id.clone()).collect();
        for other in others.into_iter().filter(|other| other != id.as_str()) {
            let of = self.get(&MessageId(other.clone())).and_then(|r| self.run_of(&r.message));
            let Some((_, beside)) = of.filter(|(s, beside)| *s == schedule && *beside != run) else {
                continue;
            };
            if !reborn(self, &other, &beside) {
                let detail = format!("{id} begins while {other} runs ({overlap:?})");
                return broken("46 nothing_overlaps", detail);
            }
        }
        let Some(story) = self.ledger.stories.get(id.as_str()) else { return Ok(()) };
        let before = self.schedules.started.entry(schedule).or_default();
        if story.starts == 1 && story.seq < *before {
            return broken("46 queue_keeps_order", format!("{id} begins after a later one"));
        }
        *before = story.seq.max(*before);
        Ok(())
    }

    /// 49: what follows its own ends goes on after them, however they came to be known.
    pub fn ends_are_followed(&mut self) -> Check {
        let Ok(Reply::Schedules(rows)) = self.model.apply(Op::Schedules { after: String::new() }) else {
            return Ok(());
        };
        for row in rows {
            let Some(When::After { ms }) = self.schedules.drawn.get(&row.name).map(|p| &p.when) else {
                continue;
            };
            let next = row.ended.unwrap_or(row.until).plus(*ms).plus(SLACK_MS);
            if row.live == 0 && row.paused.is_none() && next.max(row.until.plus(*ms)) < self.now.wall {
                return broken("49 ends_are_followed", format!("{row:?} at {:?}", self.now.wall));
            }
        }
        Ok(())
    }

    /// 48: with `catch_up = "all"` no planned time is left out, whatever happened.
    pub fn nothing_was_missed(&mut self) -> Check {
        for (name, plan) in &self.schedules.drawn {
            let (When::At(timing), CatchUp::All { .. }) = (&plan.when, plan.catch_up) else { continue };
            let Some(seen) = self.schedules.seen.get(name) else { continue };
            let paused = plan.pause_after.is_some();
            let until = Wall(self.now.wall.0 - (plan.offset_ms + SLACK_MS) as i64);
            let ticks: Vec<Wall> = self.model.ticks(name).collect();
            let missing = timing.between(*seen, until, 10_000).into_iter().find(|p| !ticks.contains(&p.at));
            if let Some(missing) = missing.filter(|_| !paused) {
                return broken("48 all_means_all", format!("{name}: {missing:?} of {} ticks", ticks.len()));
            }
        }
        Ok(())
    }
}

fn is_planned(timing: &Timing, tick: &Tick) -> Check {
    if timing.next(Wall(tick.planned.0 - 1)).map(|p| p.at) != Some(tick.planned) {
        return broken("44 only_planned_times_fire", format!("{tick:?}"));
    }
    Ok(())
}
