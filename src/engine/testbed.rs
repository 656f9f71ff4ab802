//! For the unit tests of the sub-machines: an engine with a toy store, children that do as they are told,
//! and two clocks. The real fault simulation is `tests/sim`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Engine;
use super::command::{Command, RunOrder, Told};
use super::event::{Ask, AskKey, ChildKey, Event, SlotId};
use super::plan::{Plan, PoolPlan, QueuePlan};
use crate::model::limit::{self, Take};
use crate::model::message::{Delivery, Message, Record, Token};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Op, Published, QueueCount, Reply, Retention, Ticket};
use crate::model::outcome::{Cause, Outcome};
use crate::model::schedule::{Became, Fired, Fires, Row, Tick, Ticked, fire_id};
use crate::model::state::State;
use crate::model::task::{Program, Task};
use crate::model::time::{Mono, Now, Wall};

/// A task without anything special.
pub(super) fn task(name: &str) -> Task {
    Task::new(name, Program::Exec(vec!["true".into()]))
}

/// One pool, one queue, one task `t`.
pub(super) fn plan() -> Plan {
    let queue = QueuePlan {
        pool: "default".into(),
        weight: 1,
        strict: false,
        concurrency: None,
        rate: None,
        max_length: None,
    };
    Plan {
        generation: 1,
        pools: BTreeMap::from([("default".into(), PoolPlan::new(2, "run"))]),
        queues: BTreeMap::from([("default".into(), queue)]),
        tasks: BTreeMap::from([("t".into(), task("t"))]),
        routes: Vec::new(),
        schedules: BTreeMap::new(),
        shutdown_grace_ms: 30_000,
        max_memory_pressure: None,
        retention: Retention { count: 1_000, ..Retention::default() },
        shared: false,
        zone: jiff::tz::TimeZone::UTC,
    }
}

/// The engine and the world around it.
pub(super) struct Bed {
    pub(super) engine: Engine,
    pub(super) now: Now,
    plan: Plan,
    rows: BTreeMap<MessageId, Record>,
    /// What the store keeps of schedules, and the planned times that it was told of.
    pub(super) schedules: BTreeMap<String, Row>,
    pub(super) ticks: Vec<Tick>,
    /// Leases that another node took over.
    pub(super) taken_over: Vec<MessageId>,
    order: Vec<MessageId>,
    paused: Vec<String>,
    tats: BTreeMap<String, i64>,
    token: i64,
    children: u64,
    runs: BTreeMap<String, (ChildKey, Box<RunOrder>)>,
    alive: Vec<ChildKey>,
    log: Vec<Command>,
    answer: Option<Told>,
    asks: u64,
    answer_children: bool,
    /// What children say that they take at once.
    pub(super) capacity: u32,
    /// What children say that they serve.
    pub(super) serves: Vec<String>,
    fail: u32,
    refuse: u32,
}

impl Bed {
    /// Ready to work.
    pub(super) fn live() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub(super) fn with(change: impl FnOnce(&mut Plan)) -> Self {
        let mut bed = Self::build(change, true);
        bed.log.clear();
        bed
    }

    /// Before the children of an earlier daemon are told.
    pub(super) fn booting(change: impl FnOnce(&mut Plan)) -> Self {
        Self::made(change, false)
    }

    /// A child that was asked for comes and is ready.
    pub(super) fn come(&mut self, child: u64, index: u32) {
        let child = ChildKey(child);
        let (slot, generation) = (SlotId { pool: "default".into(), index }, self.plan.generation);
        self.step(Event::ChildUp { child, slot, user: "run".into(), generation, adopted: false, age_ms: 0 });
        self.alive.push(child);
        let ready = self.ready(child);
        self.step(ready);
    }

    /// A message as it is stored.
    pub(super) fn message(&self, id: &str) -> &Message {
        &self.rows[&MessageId(id.into())].message
    }

    /// The child that has this message.
    pub(super) fn child_of(&self, id: &str) -> ChildKey {
        self.runs.values().find(|(_, r)| r.message.id.0 == id).unwrap().0
    }

    /// Children are not started on their own.
    pub(super) fn bare(change: impl FnOnce(&mut Plan)) -> Self {
        Self::build(change, false)
    }

    fn build(change: impl FnOnce(&mut Plan), answer_children: bool) -> Self {
        let mut bed = Self::made(change, answer_children);
        bed.step(Event::Adopt { children_lost: false, fresh: true });
        bed
    }

    fn made(change: impl FnOnce(&mut Plan), answer_children: bool) -> Self {
        let now = Now { wall: Wall(1_700_000_000_000), mono: Mono(1_000) };
        let mut p = plan();
        change(&mut p);
        let mut bed = Self {
            engine: Engine::new(now, 1),
            now,
            plan: p.clone(),
            rows: BTreeMap::new(),
            schedules: BTreeMap::new(),
            ticks: Vec::new(),
            taken_over: Vec::new(),
            order: Vec::new(),
            paused: Vec::new(),
            tats: BTreeMap::new(),
            token: 0,
            children: 0,
            runs: BTreeMap::new(),
            alive: Vec::new(),
            log: Vec::new(),
            answer: None,
            asks: 0,
            answer_children,
            capacity: 1,
            serves: Vec::new(),
            fail: 0,
            refuse: 0,
        };
        bed.step(Event::Plan(Arc::new(p)));
        bed
    }

    pub(super) fn wall(&self) -> Wall {
        self.now.wall
    }

    pub(super) fn mono(&self) -> Mono {
        self.now.mono
    }

    /// Time passes; what is due is done on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.mono.plus(ms);
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.shift(at.since(self.now.mono));
            self.step(Event::Tick);
            assert!(self.engine.next_deadline().is_none_or(|d| d > self.now.mono), "the engine spins");
        }
        self.shift(end.since(self.now.mono));
        self.step(Event::Tick);
    }

    fn shift(&mut self, ms: u64) {
        self.now = Now { wall: self.now.wall.plus(ms), mono: self.now.mono.plus(ms) };
    }

    /// The wall clock alone goes back.
    pub(super) fn jump_back(&mut self, ms: u64) {
        self.now.wall = Wall(self.now.wall.0 - ms as i64);
    }

    /// The wall clock alone jumps.
    pub(super) fn jump(&mut self, ms: u64) {
        self.now.wall = self.now.wall.plus(ms);
    }

    /// The next operations of the store fail after they took place.
    pub(super) fn fail_after(&mut self, n: u32) {
        self.fail = n;
    }

    /// The store refuses this many ends of leases.
    pub(super) fn refuse_ends(&mut self, n: u32) {
        self.refuse = n;
    }

    /// Every command since the last call.
    pub(super) fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn log(&self) -> Vec<Command> {
        self.log.clone()
    }

    pub(super) fn running(&self) -> Vec<String> {
        self.runs.keys().cloned().collect()
    }

    pub(super) fn message_of(&self, run: &str) -> String {
        self.runs[run].1.message.id.0.clone()
    }

    pub(super) fn state(&self, id: &str) -> State {
        self.rows[&MessageId(id.into())].state
    }

    pub(super) fn losses(&self, id: &str) -> u32 {
        self.rows[&MessageId(id.into())].losses
    }

    pub(super) fn last_answer(&self) -> Option<Told> {
        self.answer.clone()
    }

    pub(super) fn succeed(&mut self, run: &str) {
        let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
        outcome.success = true;
        outcome.failure = None;
        self.end(run, outcome);
    }

    pub(super) fn end(&mut self, run: &str, outcome: Outcome) {
        let (child, _) = self.runs.remove(run).unwrap();
        self.step(Event::Ended { child, run: run.into(), outcome: Box::new(outcome) });
    }

    pub(super) fn kill_children(&mut self) {
        self.runs.clear();
        for child in std::mem::take(&mut self.alive) {
            self.step(Event::ChildDown { child, how: "signal 9".into(), out_of_memory: false });
        }
    }

    pub(super) fn reload(&mut self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan);
        self.plan.generation += 1;
        self.step(Event::Plan(Arc::new(self.plan.clone())));
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Option<Told> {
        self.answer = None;
        self.asks += 1;
        self.step(Event::Ask { key: AskKey(self.asks), ask });
        self.answer.clone()
    }

    fn publish(&mut self, change: impl FnOnce(&mut Message)) -> Option<Told> {
        let mut message = Message {
            id: MessageId(String::new()),
            task: "t".into(),
            queue: String::new(),
            enqueued: self.now.wall,
            ..Message::default()
        };
        change(&mut message);
        self.ask(Ask::Enqueue(vec![message]))
    }

    pub(super) fn enqueue(&mut self, id: &str) -> Option<Told> {
        self.publish(|m| m.id = MessageId(id.into()))
    }

    pub(super) fn enqueue_in(&mut self, id: &str, queue: &str) -> Option<Told> {
        self.publish(|m| {
            m.id = MessageId(id.into());
            m.queue = queue.into();
        })
    }

    pub(super) fn enqueue_at(&mut self, id: &str, eta: Option<Wall>) -> Option<Told> {
        self.publish(|m| {
            m.id = MessageId(id.into());
            m.eta = eta;
        })
    }

    pub(super) fn enqueue_expiring(&mut self, id: &str, expires: Wall) -> Option<Told> {
        self.publish(|m| {
            m.id = MessageId(id.into());
            m.expires = Some(expires);
        })
    }

    pub(super) fn enqueue_first(&mut self, id: &str, priority: u8) -> Option<Told> {
        self.publish(|m| {
            m.id = MessageId(id.into());
            m.priority = priority;
        })
    }

    pub(super) fn enqueue_task(&mut self, id: &str, task: &str) -> Option<Told> {
        self.publish(|m| {
            m.id = MessageId(id.into());
            m.task = task.into();
        })
    }

    /// One event, and everything that follows from it at once.
    pub(super) fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut out = Vec::new();
            self.engine.step(self.now, event, &mut out);
            for command in out {
                self.log.push(command.clone());
                self.perform(command, &mut events);
            }
        }
    }

    fn perform(&mut self, command: Command, events: &mut VecDeque<Event>) {
        match command {
            Command::Broker(ticket, op) => events.push_back(self.store(ticket, op)),
            Command::Spawn { slot, user } if self.answer_children => {
                self.children += 1;
                let child = ChildKey(self.children);
                self.alive.push(child);
                let generation = self.plan.generation;
                events.push_back(Event::ChildUp { child, slot, user, generation, adopted: false, age_ms: 0 });
                events.push_back(self.ready(child));
            }
            Command::End { child, kill: false } => {
                self.alive.retain(|c| *c != child);
                events.push_back(Event::ChildDown { child, how: "exit code 0".into(), out_of_memory: false });
            }
            Command::Run { child, run } => {
                self.runs.insert(run.run.clone(), (child, run));
            }
            Command::Answer { answer, .. } => self.answer = Some(answer),
            _ => {}
        }
    }

    /// What a child says when it is ready.
    pub(super) fn ready(&self, child: ChildKey) -> Event {
        Event::Ready { child, capacity: self.capacity, tasks: self.serves.clone(), resume: true }
    }

    fn store(&mut self, ticket: Ticket, op: Op) -> Event {
        if self.refuse > 0 && matches!(op, Op::Settle(_) | Op::Defer { .. } | Op::Move { .. }) {
            self.refuse -= 1;
            return Event::Broker { ticket, result: Err(Fault::Refused("too large".into())) };
        }
        let reply = self.apply(op);
        let fails = self.fail > 0;
        self.fail = self.fail.saturating_sub(1);
        let result = if fails { Err(Fault::Again("full".into())) } else { Ok(reply) };
        Event::Broker { ticket, result }
    }

    /// Allows every overlap: what a store does about it, the contract shows.
    fn tick(&mut self, tick: Tick) -> Ticked {
        let id = fire_id(&tick.schedule, tick.planned, 0);
        let known = self.rows.contains_key(&id);
        let row =
            self.schedules.entry(tick.schedule.clone()).or_insert_with(|| Row::new(&tick.schedule, Wall(0)));
        self.ticks.push(tick.clone());
        let became = match (known, row.paused) {
            (true, _) => Became::Known,
            (_, Some(_)) => Became::Paused,
            _ => Became::Fired,
        };
        if became == Became::Fired {
            row.tick(tick.planned, tick.pause_after, Some((id.clone(), false)));
            let fired = Some(Fired { schedule: tick.schedule, planned: Some(tick.planned), held: false });
            let Fires::Message(message) = tick.fires else { panic!("workflows are the contract's") };
            let messages = vec![Message { id: id.clone(), fired, ..*message }];
            self.apply(Op::Publish { messages, max_length: Vec::new(), now: tick.now });
        }
        Ticked { id, became, running: Vec::new(), flows: Vec::new(), revoked: Vec::new() }
    }

    fn held(&mut self, id: &MessageId, token: Token) -> Option<&mut Record> {
        self.rows.get_mut(id).filter(|r| r.token == Some(token))
    }

    fn apply(&mut self, op: Op) -> Reply {
        let applied = Reply::Applied { applied: true, current: None };
        let swept = Reply::Swept { queues: Vec::new(), expired: Vec::new(), next: None, more: false };
        match op {
            Op::Publish { messages, now, .. } => Reply::Published(
                messages
                    .into_iter()
                    .map(|message| match self.rows.get(&message.id) {
                        Some(r) => Published::Known(Box::new(r.clone())),
                        None => {
                            let due = message.eta.filter(|eta| *eta > now);
                            let state = if due.is_some() { State::Scheduled } else { State::Waiting };
                            self.order.push(message.id.clone());
                            let record = Record {
                                state,
                                attempt: 0,
                                losses: 0,
                                token: None,
                                due,
                                started: None,
                                finished: None,
                                outcome: None,
                                message,
                            };
                            self.rows.insert(record.message.id.clone(), record);
                            Published::New
                        }
                    })
                    .collect(),
            ),
            Op::Lease { queue, credit, skip, .. } => {
                let mut deliveries = Vec::new();
                let mut order: Vec<&MessageId> = self.order.iter().collect();
                order.sort_by_key(|id| -i64::from(self.rows[*id].message.priority));
                for id in order {
                    let r = self.rows.get_mut(id).unwrap();
                    let ready = r.state == State::Waiting && r.token.is_none() && r.message.queue == queue;
                    let ready = ready && !skip.contains(&r.message.task);
                    if ready && !self.paused.contains(&queue) && deliveries.len() < credit as usize {
                        self.token += 1;
                        r.token = Some(Token(self.token));
                        r.attempt += 1;
                        deliveries.push(Delivery {
                            message: r.message.clone(),
                            token: Token(self.token),
                            attempt: r.attempt,
                            losses: r.losses,
                            started: false,
                            rank: -i64::from(r.message.priority),
                        });
                    }
                }
                Reply::Leased { deliveries, opens: None }
            }
            Op::Start { id, token, now, takes } => {
                let mut tats = Vec::new();
                for take in &takes.list {
                    let Take::Rate { key, interval_us, burst } = take else { continue };
                    let tat = self.tats.get(key).copied();
                    match limit::take(tat, now, *interval_us, *burst) {
                        Err(until) if !takes.sure => {
                            let r = self.held(&id, token).unwrap();
                            r.token = None;
                            return Reply::Closed { key: key.clone(), until: Some(until) };
                        }
                        next => tats.push(next.unwrap_or_else(|_| limit::charge(tat, now, *interval_us))),
                    }
                    self.tats.insert(key.clone(), tats[tats.len() - 1]);
                }
                let r = self.held(&id, token).unwrap();
                r.state = State::Running;
                r.started = Some(now);
                if takes.list.is_empty() { applied } else { Reply::Took(tats) }
            }
            Op::Aside { id, token, lane, blocked, .. } => {
                let r = self.held(&id, token).unwrap();
                r.token = None;
                r.attempt -= 1;
                r.message.lane = lane;
                match blocked.first() {
                    Some(take) => Reply::Closed { key: take.key().to_owned(), until: None },
                    None => applied,
                }
            }
            Op::Recall { .. } => Reply::Memos(Vec::new()),
            Op::Remember(_) => Reply::Done,
            Op::Open { .. } => swept,
            Op::Settle(s) => {
                let r = self.held(&s.id, s.token).unwrap();
                r.state = s.state;
                r.token = None;
                r.due = s.due;
                r.losses += u32::from(s.lost);
                if let Some(again) = s.memory {
                    r.message.memory_retries += 1;
                    r.message.queue = again.queue.unwrap_or(r.message.queue.clone());
                } else if s.state == State::Retry {
                    r.message.retries += 1;
                }
                r.outcome = Some(s.outcome);
                applied
            }
            Op::Defer { id, token, until, lost, .. } => {
                let r = self.held(&id, token).unwrap();
                r.state = if until.is_some() { State::Scheduled } else { State::Waiting };
                r.token = None;
                r.due = until;
                r.losses += u32::from(lost);
                applied
            }
            Op::Revoke { id, now } => {
                if let Some(r) = self.rows.get_mut(&id).filter(|r| r.token.is_none() && !r.state.is_final()) {
                    r.state = State::Revoked;
                    r.finished = Some(now);
                }
                Reply::Record(self.rows.get(&id).cloned().map(Box::new))
            }
            Op::Get { id } => Reply::Record(self.rows.get(&id).cloned().map(Box::new)),
            Op::Count => Reply::Counts(
                self.paused
                    .iter()
                    .map(|queue| QueueCount { queue: queue.clone(), paused: true, ..QueueCount::default() })
                    .collect(),
            ),
            Op::QueueState { queue, paused } => {
                self.paused.retain(|q| *q != queue);
                if paused {
                    self.paused.push(queue);
                }
                Reply::Done
            }
            Op::Schedules { after } => {
                Reply::Schedules(self.schedules.values().filter(|r| r.name > after).cloned().collect())
            }
            Op::Schedule(changes) => {
                for change in changes {
                    let name = change.name().to_owned();
                    let new = || Row::new(&name, Wall(0));
                    change.apply(self.schedules.entry(name.clone()).or_insert_with(new));
                }
                Reply::Done
            }
            Op::Tick(tick) => Reply::Ticked(Box::new(self.tick(*tick))),
            Op::Recover => Reply::Deliveries(Vec::new()),
            Op::Sweep { .. } | Op::Known { .. } => swept,
            Op::Extend { .. } => Reply::Lost(self.taken_over.clone()),
            other => panic!("the toy store does not do {other:?}"),
        }
    }
}
