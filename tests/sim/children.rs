//! Children and the launcher that starts, ends and reaps them.

use std::collections::BTreeMap;

use taskd::engine::command::RunOrder;
use taskd::engine::event::{ChildKey, Event, OwnLimits, SlotId};
use taskd::model::outcome::{CancelReason, Cause, Failure, NewCall, Outcome, RetryAsked};
use taskd::model::time::Wall;

use crate::ledger::{Check, Excuse, broken};
use crate::planted::Planted;
use crate::world::{Thing, ToChild, World};

pub struct Child {
    pub slot: SlotId,
    pub user: String,
    pub generation: u64,
    pub ready: bool,
    pub capacity: u32,
    /// What runs in it.
    pub runs: BTreeMap<String, Run>,
    /// Outcomes that no daemon said `settled` to yet: message and outcome.
    pub outcomes: BTreeMap<String, (String, Outcome)>,
    pub ending: bool,
    pub mute: bool,
    /// Of it and all below it.
    pub memory: u64,
    /// Runs that began, by the life of the daemon that handed them over.
    pub begun: BTreeMap<u64, u64>,
    pub last_to: u64,
    pub last_from: u64,
}

pub struct Run {
    pub id: String,
    pub task: String,
    pub queue: String,
    pub customer: Option<serde_json::Value>,
    /// What it was called with.
    pub args: Vec<serde_json::Value>,
    pub kwargs: serde_json::Map<String, serde_json::Value>,
    /// Generation of the settings that it started with.
    pub generation: u64,
    pub canceled: Option<CancelReason>,
    pub limited: bool,
    /// Nothing but a kill of its child ends it, in this life of the daemon.
    pub deaf: bool,
    pub started: Wall,
    /// When it began.
    pub began: u64,
    /// The life of the daemon that handed it over.
    pub life: u64,
    /// A program of the user's runs it: the daemon keeps its limits.
    pub worker: bool,
    pub limit_ms: Option<u64>,
}

/// A child that died, until a daemon is told.
#[derive(Default)]
pub struct Corpse {
    /// Runs without an outcome.
    pub lost: Vec<(String, String)>,
    pub killed_by_daemon: bool,
    pub out_of_memory: bool,
}

impl World {
    pub fn spawn(&mut self, _life: u64, slot: SlotId, user: String) -> Check {
        self.next_child += 1;
        let id = self.next_child;
        let generation = self.plan.generation;
        let capacity = if slot.pool == "other" { self.rng.between(1, 3) as u32 } else { 1 };
        let mute = self.rng.chance(self.faults.mute_child / 8);
        self.children.insert(
            id,
            Child {
                slot: slot.clone(),
                user: user.clone(),
                generation,
                ready: false,
                capacity,
                runs: BTreeMap::new(),
                outcomes: BTreeMap::new(),
                ending: false,
                mute,
                memory: 0,
                begun: BTreeMap::new(),
                last_to: 0,
                last_from: 0,
            },
        );
        self.slot_of.insert(id, slot.clone());
        let delay = self.rng.between(2, 60);
        self.at(delay, Thing::ChildReady { child: id });
        if self.engine.is_some() {
            self.known.asked.remove(&slot);
            self.known.told.insert(id);
        }
        self.step(Event::ChildUp { child: ChildKey(id), slot, user, generation, adopted: false, age_ms: 0 })
    }

    /// From a child to the daemon of this life, in order.
    fn say(&mut self, child: u64, event: Event) {
        let delay = if self.rng.chance(self.faults.op_late / 2) {
            self.rng.between(20, 400)
        } else {
            self.rng.below(3)
        };
        let Some(c) = self.children.get_mut(&child) else { return };
        c.last_from = c.last_from.max(self.now.mono.0 + delay);
        let (at, life) = (c.last_from, self.life);
        self.at_time(at, Thing::FromChild { life, child, event });
    }

    /// To a child, in order.
    pub fn tell(&mut self, child: u64, what: ToChild) {
        let delay = self.rng.below(4);
        let Some(c) = self.children.get_mut(&child) else {
            if let ToChild::Run(order) = what {
                self.never_started(&order);
            }
            return;
        };
        c.last_to = c.last_to.max(self.now.mono.0 + delay);
        let at = c.last_to;
        self.at_time(at, Thing::ToChild { child, what });
    }

    pub fn never_started(&mut self, order: &RunOrder) {
        if let Some(s) = self.ledger.stories.get_mut(order.message.id.as_str()) {
            s.slack += 1;
        }
    }

    pub fn hand_over(&mut self, child: ChildKey, order: Box<RunOrder>) -> Check {
        let token = order.run.parse::<i64>().unwrap_or(-1);
        self.generations.insert(token, order.generation);
        if let Some(record) = self.get(&order.message.id)
            // The start of an `acks = "early"` task is recorded before it is handed over.
            && record.message.expires.is_some_and(|e| e <= record.started.unwrap_or(self.now.wall))
        {
            return broken("16 expired_never_starts", format!("{}", order.message.id));
        }
        self.hand_over_is_right(child.0, &order)?;
        self.note_start(&order);
        self.step_is_right(&order)?;
        let plan = std::sync::Arc::clone(&self.plans[&order.generation]);
        // What the store was asked of comes in the order of its answers.
        if !self.watch.was_asked(token) {
            self.ledger.order_is_kept(&order.message, &plan)?;
        }
        if self.bug == Some(Planted::DoubleRun)
            && let Some(other) = self.children.keys().find(|c| **c != child.0).copied()
        {
            self.tell(other, ToChild::Run(order.clone()));
        }
        self.tell(child.0, ToChild::Run(order));
        Ok(())
    }

    pub fn tell_cancel(&mut self, child: ChildKey, run: String, reason: CancelReason) -> Check {
        if self.bug == Some(Planted::ForgottenCancel) && reason == CancelReason::Revoked {
            return Ok(());
        }
        let token = run.parse::<i64>().unwrap_or(-1);
        let leased = self.model.leased().any(|r| r.token.is_some_and(|t| t.0 == token));
        if reason == CancelReason::Interrupted && !self.stopping && leased {
            return broken("23 only_a_stop_interrupts", run);
        }
        self.told_cancel.insert(token);
        self.tell(child.0, ToChild::Cancel(run, reason));
        Ok(())
    }

    /// The child may forget an outcome only when the store has it.
    pub fn tell_settled(&mut self, child: ChildKey, run: String) -> Check {
        let token = run.parse::<i64>().unwrap_or(-1);
        if self.model.leased().any(|r| r.token.is_some_and(|t| t.0 == token)) {
            return broken("7 settled_means_committed", format!("run {run} is still leased"));
        }
        self.tell(child.0, ToChild::Settled(run));
        Ok(())
    }

    pub fn launcher_ends(&mut self, child: ChildKey, kill: bool) -> Check {
        let Some(c) = self.children.get_mut(&child.0) else { return Ok(()) };
        if kill {
            self.note_companions(child.0);
            self.corpses.entry(child.0).or_default().killed_by_daemon = true;
            self.child_dies(child.0);
            return Ok(());
        }
        if !c.runs.is_empty() {
            return broken("23 no_end_under_a_run", format!("child {}", child.0));
        }
        c.ending = true;
        if !c.mute {
            let delay = self.rng.between(1, 30);
            self.at(delay, Thing::ChildDies { child: child.0 });
        }
        Ok(())
    }

    pub fn child_ready(&mut self, child: u64) {
        if let Some(c) = self.children.get_mut(&child) {
            c.ready = true;
            self.name_all(child);
        }
    }

    /// The answer to a hello.
    fn name_all(&mut self, child: u64) {
        let Some(c) = self.children.get(&child) else { return };
        if c.mute {
            return;
        }
        let key = ChildKey(child);
        let mut lines =
            vec![Event::Ready { child: key, capacity: c.capacity, tasks: Vec::new(), resume: true }];
        lines.extend(c.runs.keys().map(|run| Event::Running { child: key, run: run.clone() }));
        lines.extend(c.outcomes.iter().map(|(run, (_, o))| Event::Ended {
            child: key,
            run: run.clone(),
            outcome: Box::new(o.clone()),
        }));
        lines.push(Event::Resumed { child: key });
        for line in lines {
            self.say(child, line);
        }
    }

    pub fn child_hears(&mut self, child: u64, what: ToChild) -> Check {
        let known = self.children.contains_key(&child);
        match what {
            ToChild::Run(order) if known => self.begin(child, *order),
            ToChild::Run(order) => {
                self.never_started(&order);
                Ok(())
            }
            ToChild::Cancel(run, reason) => {
                self.canceled(child, run, reason);
                Ok(())
            }
            ToChild::Settled(run) => {
                if let Some(c) = self.children.get_mut(&child) {
                    c.outcomes.remove(&run);
                }
                Ok(())
            }
            ToChild::Hello => {
                if self.rng.chance(self.faults.mute_child) {
                    if self.bug == Some(Planted::SilenceMeansNothing) {
                        let child = ChildKey(child);
                        self.say(
                            child.0,
                            Event::Ready { child, capacity: 1, tasks: Vec::new(), resume: true },
                        );
                        self.say(child.0, Event::Resumed { child });
                    }
                    // Some come to it later, some never.
                    if self.rng.chance(500) {
                        let delay = self.rng.between(50, 12_000);
                        self.at(delay, Thing::ToChild { child, what: ToChild::Hello });
                    } else if let Some(c) = self.children.get_mut(&child) {
                        c.mute = true;
                    }
                    return Ok(());
                }
                if self.children.get(&child).is_some_and(|c| c.ready) {
                    self.name_all(child);
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, child: u64, order: RunOrder) -> Check {
        let key = ChildKey(child);
        let id = order.message.id.as_str().to_owned();
        if self.rng.chance(self.faults.refuses) {
            self.never_started(&order);
            self.say(child, Event::Refused { child: key, run: order.run, why: "unknown task".into() });
            return Ok(());
        }
        self.limits_hold(child, &order)?;
        self.places_hold(&order)?;
        self.runs_are_counted(child, &order)?;
        let token = taskd::engine::token_of(&order.run).ok_or_else(|| crate::ledger::Violation {
            name: "4 no_start_without_lease",
            detail: format!("run {}", order.run),
        })?;
        let record = self.get(&order.message.id);
        let plan = std::sync::Arc::clone(&self.plans[&order.generation]);
        let life = self.life;
        self.ledger.start_is_right(&order.message, order.attempt, token, record.as_ref(), life, &plan)?;
        self.fire_begins(&order.message.id)?;
        self.trace(5, child, || format!("      child {child} begins {id} ({})", order.message.task));
        let task = order.message.task.as_str();
        let mut ms = match self.rng.below(10) {
            0..=5 => self.rng.between(1, 80),
            6..=8 => self.rng.between(80, 900),
            _ => self.rng.between(900, 5_000),
        };
        if task == "soft" {
            ms = self.rng.between(100, 1_500);
        }
        let worker = self.plans[&order.generation].has_worker(&order.message.queue);
        let limited = !worker && order.deadline_ms.is_some_and(|d| ms >= d);
        if let Some(d) = order.deadline_ms.filter(|_| !worker) {
            ms = ms.min(d);
        }
        let hangs = order.deadline_ms.is_some() && self.rng.chance(self.faults.hang);
        let run = Run {
            id,
            task: task.to_owned(),
            queue: order.message.queue.clone(),
            customer: order.message.args.first().cloned(),
            args: order.message.args.clone(),
            kwargs: order.message.kwargs.clone(),
            generation: order.generation,
            canceled: None,
            limited,
            deaf: false,
            started: self.now.wall,
            began: self.now.mono.0,
            life: self.order_life.get(&token.0).map_or(u64::MAX, |l| l - 1),
            worker,
            limit_ms: order.deadline_ms,
        };
        let deadly = task == "poison" || self.rng.chance(self.faults.run_kills_child);
        if let Some(c) = self.children.get_mut(&child) {
            c.runs.insert(order.run.clone(), run);
        }
        self.say(
            child,
            Event::Started {
                child: key,
                run: order.run.clone(),
                pid: 4_000 + child as u32,
                limits: OwnLimits::default(),
            },
        );
        if deadly && worker && self.rng.chance(300) {
            self.corpses.entry(child).or_default().out_of_memory = true;
        }
        if deadly {
            self.at(ms, Thing::ChildDies { child });
        } else if !hangs {
            self.at(ms, Thing::RunEnds { child, run: order.run });
        }
        Ok(())
    }

    /// 5 and 11: one live child per message, queues and children within their limits, the right user.
    fn limits_hold(&self, child: u64, order: &RunOrder) -> Check {
        let id = order.message.id.as_str();
        let live = || self.children.values().flat_map(|c| c.runs.values());
        if live().any(|r| r.id == id) {
            return broken("5 one_live_child_per_message", format!("{id} runs already"));
        }
        let plan = &self.plans[&order.generation];
        let queue = &order.message.queue;
        let q = &plan.queues[queue];
        let running = live().filter(|r| r.queue == *queue).count();
        // What was decided before a reload starts by the settings of then, beside what started by those of now.
        let raised = self
            .plan
            .queues
            .get(queue)
            .is_none_or(|now| now.concurrency.is_none_or(|n| running < n as usize));
        if q.concurrency.is_some_and(|c| running >= c as usize) && !raised {
            return broken("11 a_limit_is_a_limit", format!("{queue} runs {running} and gets {id}"));
        }
        let Some(c) = self.children.get(&child) else { return Ok(()) };
        if c.runs.len() >= c.capacity as usize {
            return broken("11 a_limit_is_a_limit", format!("child {child} is full and gets {id}"));
        }
        let pool = plan.pools.get(&q.pool);
        let user = plan.tasks.get(&order.message.task).and_then(|t| t.user.clone());
        let user = user.or_else(|| pool.map(|p| p.user.clone())).unwrap_or_default();
        if c.user != user || c.slot.pool != q.pool {
            return broken(
                "11 the_right_child",
                format!("{id} of {user} in {} goes to {} {:?}", q.pool, c.user, c.slot),
            );
        }
        Ok(())
    }

    /// Whether a run of this child has reached its hard limit: it is killed whatever else happens just then.
    pub fn is_overdue(&self, child: u64) -> bool {
        // The engine counts from the hand-over, which is some milliseconds before the child begins.
        let late = |r: &Run| r.limit_ms.is_some_and(|limit| r.began + limit <= self.now.mono.0 + 50);
        self.children.get(&child).is_some_and(|c| c.runs.values().any(late))
    }

    fn canceled(&mut self, child: u64, run: String, reason: CancelReason) {
        let stubborn = self.rng.chance(if reason == CancelReason::TimeLimit { 500 } else { 150 });
        // It stopped its own runner, say.
        let deaf = reason == CancelReason::Revoked && self.rng.chance(300);
        let delay = self.rng.between(1, 150);
        let Some(r) = self.children.get_mut(&child).and_then(|c| c.runs.get_mut(&run)) else { return };
        if stubborn {
            r.deaf |= deaf;
            return;
        }
        r.canceled = Some(reason);
        self.at(delay, Thing::RunEnds { child, run });
    }

    /// A new daemon knows of no cancel: what ignored one must end by itself.
    pub fn hear_again(&mut self) {
        let mut ends = Vec::new();
        for (child, c) in &mut self.children {
            for (run, r) in c.runs.iter_mut().filter(|(_, r)| r.deaf) {
                r.deaf = false;
                ends.push((*child, run.clone()));
            }
        }
        for (child, run) in ends {
            let delay = self.rng.between(5, 500);
            self.at(delay, Thing::RunEnds { child, run });
        }
    }

    pub fn run_ends(&mut self, child: u64, run: &str) {
        if self.children.get(&child).and_then(|c| c.runs.get(run)).is_some_and(|r| r.deaf) {
            return;
        }
        let Some(r) = self.children.get_mut(&child).and_then(|c| c.runs.remove(run)) else { return };
        let outcome = self.outcome(&r);
        let event =
            Event::Ended { child: ChildKey(child), run: run.to_owned(), outcome: Box::new(outcome.clone()) };
        if matches!(&outcome.failure, Some(f) if f.kind == "SpawnAgain")
            && let Some(s) = self.ledger.stories.get_mut(&r.id)
        {
            // Nothing ran.
            s.ran = s.ran.saturating_sub(1);
        }
        self.trace(6, child, || format!("      child {child} ends {} with {}", r.id, outcome.cause));
        let grows = self.rng.between(0, 60);
        if let Some(c) = self.children.get_mut(&child) {
            c.memory += grows;
            c.outcomes.insert(run.to_owned(), (r.id, outcome));
        }
        self.say(child, event);
        if self.children.get(&child).is_some_and(|c| c.ending && c.runs.is_empty()) {
            self.child_dies(child);
        }
    }

    fn outcome(&mut self, r: &Run) -> Outcome {
        let told = |cause| Outcome { started: Some(r.started), ..Outcome::of_cause(cause, "x") };
        match r.canceled {
            // All that a program of the user's says is that it failed.
            Some(CancelReason::Revoked | CancelReason::TimeLimit) if r.worker => {
                return told(Cause::Exit { code: 1 });
            }
            Some(CancelReason::Revoked) => return told(Cause::Revoked),
            Some(CancelReason::Interrupted) => return told(Cause::Interrupted),
            Some(CancelReason::TimeLimit) => return told(Cause::TimeLimit { soft: false }),
            None => {}
        }
        if r.limited {
            return told(Cause::TimeLimit { soft: false });
        }
        if r.worker && matches!(r.task.as_str(), "ok" | "flaky" | "hungry") && self.rng.chance(250) {
            let mut o = told(Cause::Error { fatal: false });
            o.retry = asked_by_a_program(r, self.rng.chance(400));
            return o;
        }
        let (code, retry) = match (r.task.as_str(), self.rng.below(10)) {
            ("flaky", 0..=3) | ("ok" | "root" | "early", 0) => (1, None),
            ("flaky", 4..=5) => (75, Some(RetryAsked { delay_ms: Some(300), ..RetryAsked::default() })),
            ("backoff", 0..=4) => (3, Some(RetryAsked::default())),
            ("backoff", 5) => (4, None),
            ("hungry", 0..=6) => return told(Cause::Memory),
            ("spawny", 0..=4) if !self.calm => {
                let mut o = Outcome::of_cause(Cause::SpawnFailed, "EAGAIN");
                o.failure = Some(Failure { kind: "SpawnAgain".into(), ..Failure::default() });
                return o;
            }
            _ => (0, None),
        };
        let mut o = told(Cause::Exit { code });
        o.retry = retry;
        if code == 0 {
            o.success = true;
            o.failure = None;
            // So that a step that is given it knows whose it is.
            o.result = Some(serde_json::Value::from(r.id.clone()));
        }
        o
    }

    /// It is gone with everything it started; whoever lives is told later.
    pub fn child_dies(&mut self, child: u64) {
        let Some(c) = self.children.remove(&child) else { return };
        self.trace(7, child, || format!("      child {child} dies"));
        if self.engine.is_some() {
            self.told_an_end = true;
        } else {
            self.children_lost = true;
        }
        let corpse = self.corpses.entry(child).or_default();
        for (run, r) in c.runs {
            corpse.lost.push((run, r.id.clone()));
            self.ledger.excuse(&r.id, Excuse::Unclear);
        }
        for (_, (id, _)) in c.outcomes {
            self.ledger.excuse(&id, Excuse::Unclear);
        }
        // What it wrote before is read before its end is seen, unless the reader is slow.
        let slow = self.rng.chance(200);
        let at = if slow { self.now.mono.0 } else { c.last_from.max(self.now.mono.0) };
        let delay = self.rng.between(1, 40);
        let life = self.life;
        self.at_time(at + delay, Thing::ChildGone { life, child });
    }

    pub fn daemon_hears(&mut self, child: u64, event: Event) -> Check {
        // A daemon that saw the child's end reads no more of it, and one that came after it reads nothing.
        if self.gone.contains(&child) || !self.known.told.contains(&child) || self.engine.is_none() {
            return Ok(());
        }
        if let Event::Ended { run, outcome, .. } = &event {
            let (run, outcome) = (run.clone(), outcome.clone());
            let heard = self.ledger.delivered.contains_key(&run.parse::<i64>().unwrap_or(-1));
            self.delivered(&run, &outcome);
            let back = match (&outcome.cause, &outcome.failure) {
                (Cause::Interrupted, _) => Some(Excuse::Counted),
                (_, Some(f)) if f.kind == "SpawnAgain" => Some(Excuse::Uncounted),
                _ if outcome.retry.as_ref().is_some_and(|asked| asked.back) => Some(Excuse::Counted),
                _ => None,
            };
            let id = self.children.get(&child).and_then(|c| c.outcomes.get(&run)).map(|(id, _)| id.clone());
            if let (Some(id), Some(excuse), false) = (id, back, heard) {
                self.ledger.excuse(&id, excuse);
            }
            if self.bug == Some(Planted::SettledTooEarly) {
                self.tell(child, ToChild::Settled(run));
            }
        }
        match &event {
            Event::Ready { .. } => {
                self.known.ready.insert(child);
            }
            Event::Resumed { .. } => {
                self.known.named.insert(child);
            }
            Event::Refused { .. } => {
                self.known.refused.insert(child);
            }
            _ => {}
        }
        if self.bug == Some(Planted::ForgottenRunning) && matches!(event, Event::Running { .. }) {
            return Ok(());
        }
        self.step(event)
    }

    pub fn daemon_sees_gone(&mut self, child: u64) -> Check {
        if self.engine.is_none() {
            return Ok(());
        }
        self.gone.insert(child);
        let mut out_of_memory = false;
        if let Some(corpse) = self.corpses.remove(&child) {
            out_of_memory = corpse.out_of_memory;
            let live = self.engine.as_ref().is_some_and(|e| e.is_live());
            // What a silent one held is known by the store's word alone.
            let live = live && (self.known.named.contains(&child) || !self.known.adopted.contains(&child));
            for (_, id) in corpse.lost.iter().filter(|_| live && !corpse.killed_by_daemon) {
                self.ledger.certain(id, Excuse::Counted);
            }
        }
        self.step(Event::ChildDown { child: ChildKey(child), how: "signal 9".into(), out_of_memory })
    }
}

/// What a program asks for that counts its retries itself: three of them, each with another argument, or to be put back.
fn asked_by_a_program(r: &Run, back: bool) -> Option<RetryAsked> {
    let before = r.kwargs.get("again").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if back {
        return Some(RetryAsked { delay_ms: Some(200), back, ..RetryAsked::default() });
    }
    if before >= 3 {
        return None;
    }
    let mut kwargs = r.kwargs.clone();
    kwargs.insert("again".to_owned(), (before + 1).into());
    let call = Some(Box::new(NewCall { args: r.args.clone(), kwargs }));
    Some(RetryAsked { delay_ms: Some(200), own: true, back, call })
}
