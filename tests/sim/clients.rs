//! People, and what befalls the machine: the script of one seed.

use std::sync::Arc;

use taskd::engine::Engine;
use taskd::engine::command::Told;
use taskd::engine::event::{Ask, AskKey, ChildKey, Event};
use taskd::engine::letters::LetterOrder;
use taskd::model::letters::{LetterAct, LetterFilter};
use taskd::model::message::Message;
use taskd::model::name::MessageId;
use taskd::model::state::State;
use taskd::model::time::{Mono, Wall};

use crate::ledger::{Canceled, Check, broken};
use crate::planted::Planted;
use crate::scenario::{self, Faults, QUEUES, TASKS};
use crate::world::{Thing, ToChild, World};

/// What somebody does.
#[derive(Clone)]
pub enum Action {
    Ask { ask: Ask, insist: bool },
    Again { ask: Ask },
    CancelSome,
    RetrySome,
    WhySome,
    Reload,
    Stop { now: bool },
    KillChild,
    KillDaemon,
    KillLauncher,
    Jump(i64),
    Outage(u64),
    Pressure(bool),
    EndSchedules,
}

/// Who waits for an answer.
pub struct Client {
    ask: Ask,
    insist: bool,
    /// With a cancel: how many lives its message had had.
    lives: u32,
}

impl World {
    /// Draws what happens until the faults stop.
    pub fn script(&mut self) {
        let end = self.end - 10_000;
        let burst = self.rng.chance(300);
        if self.chords > 0 {
            return self.script_faults(end);
        }
        for _ in 0..self.rng.between(4, 14) {
            let at = 10_000 + if burst { self.rng.below(500) } else { self.rng.below(30_000) };
            let n = self.rng.between(1, 3);
            let messages = (0..n).map(|_| self.message()).collect();
            let insist = !self.rng.chance(100);
            self.at_time(at, Thing::Act(Action::Ask { ask: Ask::Enqueue(messages), insist }));
        }
        self.script_faults(end);
    }

    /// What befalls the machine, and what people do to what is there.
    fn script_faults(&mut self, end: u64) {
        let f = &self.faults;
        let counts = [
            (f.child_kills, Action::KillChild),
            (f.daemon_kills, Action::KillDaemon),
            (f.launcher_kills, Action::KillLauncher),
            (f.reloads, Action::Reload),
        ];
        let f_pressure = self.faults.pressure > 0;
        let f = &self.faults;
        let (stops, jumps, outages) = (f.stops, f.jumps, f.outages);
        let mut all: Vec<Action> =
            counts.iter().flat_map(|(n, a)| std::iter::repeat_n(a.clone(), *n as usize)).collect();
        for _ in 0..stops {
            all.push(Action::Stop { now: self.rng.chance(500) });
            if self.rng.chance(300) {
                all.push(Action::Stop { now: true });
            }
        }
        for _ in 0..jumps {
            let hour = 3_600_000 * if self.rng.chance(500) { 1 } else { -1 };
            all.push(Action::Jump(hour));
        }
        for _ in 0..outages {
            all.push(Action::Outage(self.rng.between(200, 8_000)));
        }
        for on in [true, false] {
            if f_pressure {
                all.push(Action::Pressure(on));
            }
        }
        let some = if self.chords > 0 { 0 } else { 1 };
        for _ in 0..self.rng.below(5) * some {
            all.push(Action::CancelSome);
        }
        for _ in 0..self.rng.below(3) * some {
            all.push(Action::RetrySome);
            all.push(Action::WhySome);
        }
        if self.rng.chance(300) {
            let queue = (*self.rng.pick(&QUEUES)).to_owned();
            for paused in [true, false] {
                all.push(Action::Ask { ask: Ask::Pause { queue: queue.clone(), paused }, insist: false });
            }
        }
        if self.rng.chance(150) {
            let queue = (*self.rng.pick(&QUEUES)).to_owned();
            all.push(Action::Ask { ask: Ask::Purge { queue }, insist: false });
        }
        if self.rng.chance(250) {
            let filter = LetterFilter { failed: self.rng.chance(700), ..LetterFilter::default() };
            let act = LetterAct::Retry { due: None, queue: None };
            let order = LetterOrder { filter, act, most: self.rng.between(1, 20) };
            all.push(Action::Ask { ask: Ask::Letters(Box::new(order)), insist: false });
        }
        if self.rng.chance(150) {
            all.push(Action::Ask { ask: Ask::Drain { on: true }, insist: false });
            all.push(Action::Ask { ask: Ask::Drain { on: false }, insist: false });
        }
        for _ in 0..self.rng.below(3) {
            let ask = self.rate_change();
            all.push(Action::Ask { ask, insist: false });
        }
        for action in all {
            let at = self.rng.between(10_000, end);
            self.at_time(at, Thing::Act(action));
        }
        self.at_time(self.end, Thing::CalmDown);
    }

    pub fn message(&mut self) -> Message {
        let id = format!("m{}", self.ids.len());
        self.ids.push(id.clone());
        let wall = self.now.wall;
        let r = &mut self.rng;
        let task = if r.chance(300) { "ok" } else { r.pick(&TASKS) };
        Message {
            id: MessageId(id),
            task: task.to_owned(),
            queue: if r.chance(400) { (*r.pick(&QUEUES)).to_owned() } else { String::new() },
            args: vec![serde_json::Value::from(r.below(3))],
            priority: *r.pick(&[0, 0, 5]),
            // Set when it is sent; these are spans until then.
            eta: r.chance(200).then(|| Wall(r.between(0, 20_000) as i64)),
            expires: r.chance(150).then(|| Wall(r.between(20, 15_000) as i64)),
            enqueued: wall,
            ..Message::default()
        }
    }

    fn some_id(&mut self) -> MessageId {
        MessageId(self.rng.pick(&self.ids).clone())
    }

    pub fn act(&mut self, action: Action) -> Check {
        self.trace(8, self.seed, || "# somebody acts".to_owned());
        match action {
            Action::Ask { mut ask, insist } => {
                if let Ask::Enqueue(messages) = &mut ask {
                    for m in messages {
                        let wall = self.now.wall;
                        m.enqueued = wall;
                        m.eta = m.eta.map(|ms| Wall(wall.0 + ms.0));
                        m.expires = m.expires.map(|ms| Wall(wall.0 + ms.0));
                    }
                }
                self.send(ask, insist)
            }
            Action::Again { ask } => {
                self.open_insists -= 1;
                self.send(ask, true)
            }
            Action::CancelSome => {
                let id = self.some_id();
                self.send(Ask::Cancel(id), false)
            }
            Action::RetrySome => {
                let id = self.some_id();
                self.send(Ask::Retry(id), false)
            }
            Action::WhySome => {
                let id = self.some_id();
                self.send(Ask::Why(id), false)
            }
            Action::Reload => self.reload(false),
            Action::Stop { now } => {
                if self.engine.is_some() {
                    self.stopping = true;
                    self.step(Event::Stop { now })?;
                }
                Ok(())
            }
            Action::KillChild => {
                let all: Vec<u64> = self.children.keys().copied().collect();
                if !all.is_empty() {
                    let child = *self.rng.pick(&all);
                    self.child_dies(child);
                }
                Ok(())
            }
            Action::KillDaemon => {
                self.kill_daemon()?;
                let delay = self.rng.between(5, 1_500);
                self.at(delay, Thing::DaemonUp);
                Ok(())
            }
            Action::KillLauncher => {
                self.kill_daemon()?;
                self.restart_launcher();
                Ok(())
            }
            Action::Jump(ms) => {
                self.notices.jump();
                self.now.wall = Wall(self.now.wall.0 + ms);
                self.schedules.jumps.push(Wall(self.now.wall.0 - ms));
                self.watch.jumps += u64::from(ms > 0);
                self.step(Event::Tick)
            }
            Action::EndSchedules => {
                self.nothing_was_missed()?;
                self.ends_are_followed()?;
                self.schedules.over = true;
                self.reload(true)
            }
            Action::Pressure(on) => {
                self.pressed = on;
                self.give_pressure()
            }
            Action::Outage(ms) => {
                self.outage_until = Mono(self.now.mono.0 + ms);
                Ok(())
            }
        }
    }

    fn send(&mut self, ask: Ask, insist: bool) -> Check {
        if self.engine.is_none() {
            if insist {
                self.again(ask, 300);
            }
            return Ok(());
        }
        let lives = if let Ask::Cancel(id) = &ask { self.lives_of(id) } else { 0 };
        self.ask(ask.clone(), Client { ask, insist, lives })
    }

    fn lives_of(&self, id: &MessageId) -> u32 {
        self.ledger.stories.get(id.as_str()).map_or(0, |s| s.lives)
    }

    fn again(&mut self, ask: Ask, delay: u64) {
        self.open_insists += 1;
        self.at(delay, Thing::Act(Action::Again { ask }));
    }

    /// Every ask is answered exactly once, and the answer is true.
    pub fn answered(&mut self, key: AskKey, told: Told) -> Check {
        let Some(client) = self.clients.remove(&key) else {
            return broken("1 one_answer_each", format!("{key:?} was answered twice"));
        };
        let client_ask = client.ask.clone();
        match told {
            Told::Rate(_) => self.rate_changed(&client_ask),
            Told::Published(each) => {
                for (id, _, became) in each {
                    if let taskd::model::op::Published::Held(_) = became {
                        continue;
                    }
                    if self.singles.contains(id.as_str()) {
                        self.watch.passed.entry(id.0.clone()).or_insert(0);
                    }
                    let record = self.get(&id);
                    self.ledger.accepted_is_kept(id.as_str(), record.as_ref())?;
                }
            }
            Told::Canceled { record, ending, .. } => {
                let Ask::Cancel(id) = client_ask else { return Ok(()) };
                // Somebody else may have given it a new life before this answer came.
                if self.lives_of(&id) == client.lives {
                    self.cancel_is_true(&id, record.map(|r| *r), ending)?;
                }
            }
            Told::Launched { id, .. } if self.look(&id).is_none() => {
                return broken("1 accepted_is_kept", format!("the workflow {id} is not stored"));
            }
            Told::FlowCanceled(walked) => {
                let Ask::CancelWorkflow(id) = client_ask else { return Ok(()) };
                let canceled = walked.head.is_some_and(|h| h.canceled || h.finished.is_none());
                if canceled && walked.unsure == 0 && walked.ending == 0 && self.still_canceled(&id) {
                    self.flows.canceled.insert(id);
                }
            }
            Told::Fault(_) if client.insist => self.again(client.ask, 300),
            Told::Stopping if client.insist => self.again(client.ask, 1_000),
            _ => {}
        }
        Ok(())
    }

    fn cancel_is_true(
        &mut self,
        id: &MessageId,
        record: Option<taskd::model::message::Record>,
        ending: bool,
    ) -> Check {
        let Some(record) = record else { return Ok(()) };
        let life = self.life;
        if ending {
            if let Some(token) = record.token
                && !self.told_cancel.contains(&token.0)
                && record.state == State::Running
            {
                return broken("17 a_cancel_reaches_its_child", format!("{id}"));
            }
            if !record.state.is_final()
                && let Some(s) = self.ledger.stories.get_mut(id.as_str())
            {
                s.canceled = Some(Canceled::Running { life, token: record.token });
            }
        } else if record.state == State::Revoked {
            let now = self.get(id).map(|r| r.state);
            if now != Some(State::Revoked) && self.bug != Some(Planted::ForgottenRevoke) {
                return broken("17 canceled_is_kept", format!("{id} is {now:?}"));
            }
            if let Some(s) = self.ledger.stories.get_mut(id.as_str()) {
                s.canceled = Some(Canceled::Waiting);
            }
        }
        Ok(())
    }

    fn reload(&mut self, last: bool) -> Check {
        let generation = self.plan.generation + 1;
        let plan = Arc::new(scenario::plan_of(&mut self.rng, self.seed, generation, last, self.story));
        self.plans.insert(generation, Arc::clone(&plan));
        self.plan = plan;
        self.watch.forget_set();
        self.give_plan()
    }

    fn give_plan(&mut self) -> Check {
        let slots: u32 = self.plan.pools.values().map(|p| p.processes).sum();
        self.max_slots = self.max_slots.max(slots as usize);
        let mut plan = Arc::clone(&self.plan);
        if !self.schedules.drawn.is_empty() {
            let mut p = (*plan).clone();
            p.schedules = self.schedules_given();
            plan = Arc::new(p);
        }
        if self.bug == Some(Planted::NoConcurrency) {
            let mut p = (*plan).clone();
            for q in p.queues.values_mut() {
                q.concurrency = None;
            }
            plan = Arc::new(p);
        }
        if self.bug == Some(Planted::NoThrottle) {
            let mut p = (*plan).clone();
            for task in p.tasks.values_mut() {
                task.throttle = taskd::model::limit::Throttle::default();
            }
            plan = Arc::new(p);
        }
        if matches!(self.bug, Some(Planted::NoRunLimit | Planted::LimitsOfWorkersUnkept)) {
            let mut p = (*plan).clone();
            for pool in p.pools.values_mut() {
                if self.bug == Some(Planted::NoRunLimit) {
                    pool.recycle.max_tasks = None;
                } else {
                    pool.worker = false;
                }
            }
            plan = Arc::new(p);
        }
        if self.bug == Some(Planted::UnboundedNotices) {
            let mut p = (*plan).clone();
            self.bend_rules(&mut p);
            plan = Arc::new(p);
        }
        self.step(Event::Plan(plan))?;
        if self.bug == Some(Planted::ReloadKills) && self.engine.as_ref().is_some_and(|e| e.is_live()) {
            let all: Vec<u64> = self.children.keys().copied().collect();
            for child in all {
                let end = taskd::engine::command::Command::End { child: ChildKey(child), kill: false };
                self.launcher_ends_by(end)?;
            }
        }
        Ok(())
    }

    /// A daemon looks before anything starts, and again and again.
    fn give_pressure(&mut self) -> Check {
        if self.bug == Some(Planted::DeafToPressure) {
            return Ok(());
        }
        self.step(Event::Pressure(self.pressed.then_some(5_000)))
    }

    fn launcher_ends_by(&mut self, command: taskd::engine::command::Command) -> Check {
        match command {
            taskd::engine::command::Command::End { child, kill } => self.launcher_ends(child, kill),
            _ => Ok(()),
        }
    }

    /// The daemon is gone: what it had not handed on is lost, what others had not read of it too.
    fn kill_daemon(&mut self) -> Check {
        if self.engine.take().is_none() {
            return Ok(());
        }
        // What it was told of ends, and what the life before left, it may not have recorded.
        self.children_lost |= std::mem::take(&mut self.told_an_end) || self.first && !self.recovered;
        self.trace(9, self.life, || "# the daemon dies".to_owned());
        self.stopping = false;
        let old = self.life;
        self.life += 1;
        // What only the dead one knew is not known.
        self.ledger.delivered.clear();
        let things = std::mem::take(&mut self.things);
        let mut ops = Vec::new();
        let mut cut: std::collections::BTreeMap<u64, bool> = std::collections::BTreeMap::new();
        for (key, thing) in things {
            match *thing {
                Thing::ApplyOp { op, .. } => ops.push(op),
                Thing::ToChild { child, what } => {
                    // Once a line did not get through, no later one did.
                    let lost = *cut.get(&child).unwrap_or(&false) || self.rng.chance(200);
                    cut.insert(child, lost);
                    match what {
                        ToChild::Run(order) if lost => self.never_started(&order),
                        _ if lost => {}
                        what => {
                            self.things.insert(key, Box::new(Thing::ToChild { child, what }));
                        }
                    }
                }
                Thing::FromChild { life, child, event } if life == old => {
                    // Unread lines are still in the socket.
                    if self.rng.chance(500) {
                        let life = self.life;
                        self.things.insert(key, Box::new(Thing::FromChild { life, child, event }));
                    }
                }
                Thing::Spawn { .. } if self.rng.chance(500) => {}
                thing => {
                    self.things.insert(key, Box::new(thing));
                }
            }
        }
        let done = self.rng.below(ops.len() as u64 + 1) as usize;
        for op in ops.into_iter().take(done) {
            let _answer_nobody_hears = self.apply(op)?;
        }
        for (_, client) in std::mem::take(&mut self.clients) {
            if client.insist {
                self.again(client.ask, 500);
            }
        }
        let ids: Vec<String> = self.ledger.stories.keys().cloned().collect();
        for id in ids {
            self.ledger.blur(&id);
        }
        Ok(())
    }

    /// Everything dies and starts anew.
    pub fn restart_launcher(&mut self) {
        self.trace(10, self.life, || "# the launcher ends".to_owned());
        if self.engine.take().is_some() {
            self.life += 1;
            for (_, client) in std::mem::take(&mut self.clients) {
                if client.insist {
                    self.again(client.ask, 500);
                }
            }
        }
        let all: Vec<u64> = self.children.keys().copied().collect();
        for child in all {
            self.child_dies(child);
        }
        self.things.retain(|_, t| {
            !matches!(
                **t,
                // Nobody holds the sockets of the children any more, so nobody reads what is left in them.
                Thing::DaemonUp
                    | Thing::Spawn { .. }
                    | Thing::FromChild { .. }
                    | Thing::ToChild { what: ToChild::Hello, .. }
            )
        });
        self.fresh = true;
        let delay = self.rng.between(100, 2_000);
        self.at(delay, Thing::DaemonUp);
    }

    pub fn daemon_up(&mut self) -> Check {
        if self.engine.is_some() {
            return Ok(());
        }
        self.trace(11, self.life, || "# a daemon starts".to_owned());
        self.rates_as_stored();
        self.never_told();
        self.gone.clear();
        self.known = crate::replacing::Known::default();
        self.corpses.clear();
        self.last_op = 0;
        self.hear_again();
        self.engine = Some(Box::new(Engine::new(self.now, self.seed ^ self.life)));
        self.give_plan()?;
        self.give_pressure()?;
        let all: Vec<u64> = self.children.keys().copied().collect();
        for child in &all {
            let Some(c) = self.children.get(child) else { continue };
            let (slot, user, generation) = (c.slot.clone(), c.user.clone(), c.generation);
            let child = ChildKey(*child);
            self.known.told.insert(child.0);
            self.known.adopted.insert(child.0);
            self.step(Event::ChildUp { child, slot, user, generation, adopted: true, age_ms: 0 })?;
        }
        for child in all {
            self.tell(child, ToChild::Hello);
        }
        self.recovered = false;
        let fresh = std::mem::take(&mut self.fresh);
        self.first = fresh;
        let children_lost = self.children_lost;
        self.step(Event::Adopt { children_lost, fresh })
    }

    /// No more faults; everything is let go, so that everything can end.
    pub fn calm_down(&mut self) -> Check {
        self.trace(12, 0, || "# the faults stop".to_owned());
        self.faults = Faults::none();
        self.outage_until = Mono(0);
        self.calm = true;
        self.pressed = false;
        self.give_pressure()?;
        self.reload(true)?;
        if !self.schedules.drawn.is_empty() {
            self.at(60_000, Thing::Act(Action::EndSchedules));
        }
        for queue in QUEUES {
            self.send(Ask::Pause { queue: queue.to_owned(), paused: false }, true)?;
        }
        self.send(Ask::Drain { on: false }, true)
    }
}
