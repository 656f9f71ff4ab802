//! Limits: what of them is drawn, the checkers over what truly starts and runs, and two longer stories: a
//! hundred minutes of limited arrivals, and many customers of one task.

use std::collections::{BTreeMap, BTreeSet};

use taskd::engine::command::RunOrder;
use taskd::engine::event::Ask;
use taskd::engine::plan::Plan;
use taskd::engine::rate::{Limited, NewRate};
use taskd::model::limit::{RateLimit, Take, Throttle, queue_rate};
use taskd::model::message::Message;
use taskd::model::op::{Op, Reply};
use taskd::model::params::{Param, ParamType};
use taskd::model::task::{Acks, Task};

use crate::clients::Action;
use crate::ledger::{Check, broken};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::scenario::Faults;
use crate::world::{Thing, World};

/// What kind of story a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// Everything, for most of a minute.
    Everything,
    /// A hundred minutes of limited tasks.
    Long,
    /// Many customers of one task.
    Crowd,
    /// So many chords, and nothing else.
    Chords(u64),
}

pub const LONG_MS: u64 = 100 * 60_000;

/// A start as it was decided.
#[derive(Clone)]
struct Start {
    /// On the monotonic clock.
    at: u64,
    /// How often the wall clock had jumped ahead.
    jumps: u64,
    interval_us: u64,
    burst: u32,
    /// How often the limits had changed.
    epoch: u64,
}

/// What is watched.
#[derive(Default)]
pub struct Watch {
    /// Starts of which the store was asked, as it was then, by token.
    asked: BTreeMap<i64, Vec<(String, Start)>>,
    /// Starts that the store has allowed and that no child was told of, by token.
    allowed: BTreeMap<i64, String>,
    starts: BTreeMap<String, Vec<Start>>,
    pub jumps: u64,
    pub epoch: u64,
    /// Rates that somebody set, as the engine has them, and those that are kept.
    now: BTreeMap<Limited, NewRate>,
    kept: BTreeMap<Limited, NewRate>,
    /// A customer's only message: how many started since it was accepted.
    pub passed: BTreeMap<String, u64>,
    pub most_passed: u64,
}

/// Some limit, or none.
fn rate(r: &mut Rng, odds: u64) -> Option<RateLimit> {
    let (count, period_ms) = *r.pick(&[(20, 1_000), (5, 1_000), (2, 1_000), (30, 60_000), (2_000, 1_000)]);
    let burst = r.between(1, 3) as u32;
    r.chance(odds).then_some(RateLimit { count, period_ms, burst })
}

/// Limits the tasks `paced` (as a whole) and `each` (by its argument), and sometimes a queue.
pub fn draw(r: &mut Rng, plan: &mut Plan) {
    let places = |r: &mut Rng, odds| r.chance(odds).then(|| r.between(1, 2) as u32);
    let (fast, paced, each) = (rate(r, 700), places(r, 400), places(r, 600));
    let (slow, of_queue) = (rate(r, 600), rate(r, 300));
    if let Some(task) = plan.tasks.get_mut("paced") {
        task.throttle = Throttle { rate: fast, concurrency: paced, ..Throttle::default() };
    }
    if let Some(task) = plan.tasks.get_mut("each") {
        task.throttle = Throttle {
            rate: slow,
            rate_each: true,
            concurrency: each,
            concurrency_each: true,
            key: Some("customer".into()),
        };
        task.params = vec![customer()];
    }
    if let Some(queue) = plan.queues.get_mut("low") {
        queue.rate = of_queue;
    }
}

fn customer() -> Param {
    Param {
        name: "customer".into(),
        kind: ParamType::Int,
        default: None,
        one_of: Vec::new(),
        min: None,
        max: None,
        max_length: None,
    }
}

impl Watch {
    fn rate_of(&self, whose: &Limited, config: Option<RateLimit>) -> Option<RateLimit> {
        match self.now.get(whose).or_else(|| self.kept.get(whose)) {
            Some(NewRate::Rate(rate)) => Some(*rate),
            Some(NewRate::None) => None,
            Some(NewRate::Default) | None => config,
        }
    }

    /// What this start takes of rates, told from the settings alone.
    fn rates(&self, message: &Message, plan: &Plan, customer: Option<&serde_json::Value>) -> Vec<Take> {
        let none = Task::new("", taskd::model::task::Program::Worker);
        let task = plan.tasks.get(&message.task).unwrap_or(&none);
        let rate = self.rate_of(&Limited::Task(task.name.clone()), task.throttle.rate);
        let lane = customer.filter(|_| task.throttle.rate_each).map(|c| format!("customer={c}"));
        let throttle = Throttle { rate, concurrency: None, ..task.throttle.clone() };
        let mut takes = throttle.takes(&task.name, lane.as_deref());
        let config = plan.queues.get(&message.queue).and_then(|q| q.rate);
        let of_queue = self.rate_of(&Limited::Queue(message.queue.clone()), config);
        takes.extend(of_queue.map(|rate| queue_rate(&message.queue, &rate)));
        takes
    }

    /// Whether the store was asked of this start.
    pub fn was_asked(&self, token: i64) -> bool {
        self.asked.contains_key(&token)
    }

    /// A daemon is gone, or was told of a reload: what was set for a while is not any more.
    pub fn forget_set(&mut self) {
        self.now.clear();
        self.epoch += 1;
    }

    /// 33: no window of any length has more starts than its share of the rate and one burst (and one for each
    /// time that the wall clock jumped ahead in it). How many windows were looked at.
    fn windows(&mut self) -> Result<u64, crate::ledger::Violation> {
        let mut windows = 0;
        for (key, starts) in &mut self.starts {
            starts.sort_by_key(|s| s.at);
            for (i, from) in starts.iter().enumerate() {
                for (n, to) in starts[i..].iter().enumerate() {
                    if (to.epoch, to.interval_us, to.burst) != (from.epoch, from.interval_us, from.burst) {
                        break;
                    }
                    windows += 1;
                    let bursts = u64::from(from.burst) * (1 + to.jumps - from.jumps);
                    let most = (to.at - from.at) * 1_000 / from.interval_us + bursts;
                    if n as u64 + 1 > most {
                        let detail = format!(
                            "{key}: {} starts from {} to {}, at most {most} (interval {} us, burst {})",
                            n + 1,
                            from.at,
                            to.at,
                            from.interval_us,
                            from.burst
                        );
                        broken("37 a_rate_is_a_rate", detail)?;
                    }
                }
            }
        }
        Ok(windows)
    }
}

impl World {
    /// A question to the store is decided by what it knows then.
    pub fn note_question(&mut self, op: &Op) {
        if let Op::Start { id, token, takes, .. } = op
            && !takes.list.is_empty()
            && let Some(record) = self.get(id)
        {
            let plan = std::sync::Arc::clone(&self.plan);
            // That of an `acks = "early"` task is decided before it is handed over, too.
            let early = plan.tasks.get(&record.message.task).is_some_and(|t| t.acks == Acks::Early);
            if takes.sure && !early || self.watch.asked.contains_key(&token.0) {
                return;
            }
            let starts = self.starts_of(&record.message, &plan, record.message.args.first());
            self.watch.asked.insert(token.0, starts);
        }
    }

    /// A start now, under each rate that holds for it.
    fn starts_of(
        &self,
        message: &Message,
        plan: &Plan,
        customer: Option<&serde_json::Value>,
    ) -> Vec<(String, Start)> {
        let (at, jumps, epoch) = (self.now.mono.0, self.watch.jumps, self.watch.epoch);
        let rates = self.watch.rates(message, plan, customer).into_iter();
        rates
            .filter_map(|take| match take {
                Take::Rate { key, interval_us, burst } => {
                    Some((key, Start { at, jumps, interval_us, burst, epoch }))
                }
                Take::Place { .. } => None,
            })
            .collect()
    }

    /// The store has allowed a start: a child may have it from then on, for all that a later daemon knows.
    pub fn note_allowed(&mut self, op: &Op, reply: &Result<Reply, taskd::model::op::Fault>) {
        if let (Op::Start { id, token, takes, .. }, Ok(Reply::Took(_) | Reply::Applied { applied: true, .. })) =
            (op, reply)
            && !takes.sure
            && self.watch.asked.contains_key(&token.0)
        {
            self.watch.allowed.insert(token.0, id.0.clone());
        }
    }

    /// A daemon is gone: what it was allowed to start and did not may count as an attempt.
    pub fn never_told(&mut self) {
        for id in std::mem::take(&mut self.watch.allowed).into_values() {
            if let Some(story) = self.ledger.stories.get_mut(&id) {
                story.slack += 1;
            }
        }
    }

    /// A run is handed over: a start, under whatever limits hold for it.
    pub fn note_start(&mut self, order: &RunOrder) {
        let plan = std::sync::Arc::clone(&self.plans[&order.generation]);
        let message = &order.message;
        let token = order.run.parse::<i64>().unwrap_or(-1);
        self.watch.allowed.remove(&token);
        let asked = self.watch.asked.get(&token).cloned();
        let starts = asked.unwrap_or_else(|| self.starts_of(message, &plan, message.args.first()));
        for (key, start) in starts {
            self.watch.starts.entry(key).or_default().push(start);
        }
        if self.story == Story::Crowd {
            let id = message.id.as_str();
            self.singles.remove(id);
            if let Some(passed) = self.watch.passed.remove(id) {
                self.watch.most_passed = self.watch.most_passed.max(passed);
            }
            for passed in self.watch.passed.values_mut() {
                *passed += 1;
            }
        }
    }

    /// 34: no task, and no value of its argument, runs more at once than it may.
    pub fn places_hold(&self, order: &RunOrder) -> Check {
        let plan = &self.plans[&order.generation];
        let Some(task) = plan.tasks.get(&order.message.task) else { return Ok(()) };
        let Some(most) = task.throttle.concurrency else { return Ok(()) };
        let value = order.message.args.first().filter(|_| task.throttle.concurrency_each);
        // A limit that a reload adds counts what starts from then on.
        let counts = |generation: u64| {
            let then = self.plans[&generation].tasks.get(&task.name).map(|t| &t.throttle);
            then.is_some_and(|t| {
                t.concurrency.is_some() && t.concurrency_each == task.throttle.concurrency_each
            })
        };
        let live = self.children.values().flat_map(|c| c.runs.values());
        let live = live.filter(|r| r.task == task.name && counts(r.generation));
        let alike = live.filter(|r| value.is_none() || r.customer.as_ref() == value).count();
        if alike >= most as usize {
            let detail = format!("{} runs {alike} (of {value:?}) and gets {}", task.name, order.message.id);
            return broken("38 a_place_is_a_place", detail);
        }
        Ok(())
    }

    /// The limits at the end of a story. 35: whoever has one message is not passed by many.
    pub fn limits_held(&mut self) -> Check {
        self.windows = self.watch.windows()?;
        // A window and what is leased with it may be before it, then one of each other customer.
        let bound = 2 * 64 + 64;
        let passed = self.watch.most_passed.max(self.watch.passed.values().copied().max().unwrap_or(0));
        if passed > bound {
            return broken("39 lanes_take_turns", format!("{passed} started before a customer's only one"));
        }
        Ok(())
    }

    /// Somebody changes a rate.
    pub fn rate_change(&mut self) -> Ask {
        let whose = match self.rng.below(3) {
            0 => Limited::Task("paced".into()),
            1 => Limited::Task("each".into()),
            _ => Limited::Queue("low".into()),
        };
        let rate = match self.rng.below(4) {
            0 => NewRate::None,
            1 => NewRate::Default,
            _ => NewRate::Rate(rate(&mut self.rng, 1_000).unwrap_or(RateLimit {
                count: 1,
                period_ms: 1,
                burst: 1,
            })),
        };
        Ask::Rate { whose, rate, keep: self.rng.chance(500) }
    }

    /// The engine has taken a change. What it does with it is as it says.
    pub fn rate_changed(&mut self, ask: &Ask) {
        let Ask::Rate { whose, rate, keep } = ask else { return };
        self.watch.epoch += 1;
        self.watch.now.remove(whose);
        if *rate == NewRate::Default {
            self.watch.kept.remove(whose);
        } else if *keep {
            self.watch.kept.insert(whose.clone(), *rate);
        } else {
            self.watch.now.insert(whose.clone(), *rate);
        }
    }

    /// What the store keeps is what a new daemon goes by: an answer may not have been heard.
    pub fn rates_as_stored(&mut self) {
        self.watch.forget_set();
        let Ok(Reply::Memos(memos)) =
            self.model.apply(Op::Recall { prefix: "rate:".into(), after: String::new() })
        else {
            return;
        };
        self.watch.kept = memos
            .into_iter()
            .filter_map(|memo| {
                let (kind, name) = memo.key.strip_prefix("rate:")?.split_once(':')?;
                let name = name.to_owned();
                let whose = if kind == "task" { Limited::Task(name) } else { Limited::Queue(name) };
                let rate: Option<RateLimit> = serde_json::from_str(&memo.value?).ok()?;
                Some((whose, rate.map_or(NewRate::None, NewRate::Rate)))
            })
            .collect();
    }

    /// A hundred minutes: some more messages than the limits let through at times, and restarts.
    pub fn long_script(&mut self) {
        for _ in 0..self.rng.between(250, 450) {
            let at = self.now.mono.0 + self.rng.below(LONG_MS - 600_000);
            // Some come in bursts.
            let n = if self.rng.chance(100) { self.rng.between(5, 30) } else { 1 };
            let messages = (0..n).map(|_| self.limited_message()).collect();
            self.at_time(at, Thing::Act(Action::Ask { ask: Ask::Enqueue(messages), insist: true }));
        }
        let mut all = Vec::new();
        for (n, action) in [
            (12, Action::KillDaemon),
            (5, Action::KillLauncher),
            (8, Action::KillChild),
            (3, Action::Jump(3_600_000)),
            (3, Action::Jump(-3_600_000)),
            (3, Action::Reload),
            (2, Action::Outage(3_000)),
            (2, Action::Stop { now: false }),
        ] {
            for _ in 0..self.rng.below(n + 1) {
                all.push(action.clone());
            }
        }
        for _ in 0..self.rng.below(3) {
            let ask = self.rate_change();
            all.push(Action::Ask { ask, insist: false });
        }
        for action in all {
            let at = self.now.mono.0 + self.rng.below(LONG_MS - 600_000);
            self.at_time(at, Thing::Act(action));
        }
        self.at_time(self.end, Thing::CalmDown);
    }

    fn limited_message(&mut self) -> Message {
        let mut m = self.message();
        m.task = if self.rng.chance(500) { "paced".into() } else { "each".into() };
        m.queue = if self.rng.chance(300) { "low".into() } else { String::new() };
        (m.eta, m.expires) = (None, None);
        m
    }

    /// One customer with very many messages, and later many with one.
    pub fn crowd_script(&mut self) {
        self.faults = Faults { op_late: 100, ..Faults::none() };
        let burst = 400;
        let crowd: Vec<Message> = (0..burst).map(|_| self.of_customer(0)).collect();
        self.at_time(10_500, Thing::Act(Action::Ask { ask: Ask::Enqueue(crowd), insist: true }));
        for customer in 1..40 {
            let at = self.rng.between(10_600, 30_000);
            let m = self.of_customer(customer);
            self.singles.insert(m.id.0.clone());
            self.at_time(at, Thing::Act(Action::Ask { ask: Ask::Enqueue(vec![m]), insist: true }));
        }
        self.at_time(self.end, Thing::CalmDown);
    }

    fn of_customer(&mut self, customer: u64) -> Message {
        let mut m = self.message();
        (m.task, m.queue) = ("each".into(), String::new());
        (m.eta, m.expires, m.priority) = (None, None, 0);
        m.args = vec![serde_json::Value::from(customer)];
        m
    }

    /// Planted: what of limits the store is told.
    pub fn bend_limits(&self, op: &mut Op) {
        match (self.bug, op) {
            (Some(Planted::SureStartsTakeNothing), Op::Start { takes, .. }) if takes.sure => {
                takes.list.clear()
            }
            (Some(Planted::PlacesUnasked), Op::Start { takes, .. }) => {
                takes.list.retain(|take| !matches!(take, Take::Place { .. }));
            }
            _ => {}
        }
    }

    /// Planted: what the engine hears of limits.
    pub fn bend_answer(&self, reply: &mut Reply) {
        let wall = self.now.wall.0 * 1_000;
        match (self.bug, reply) {
            (Some(Planted::RateLooksUnused), Reply::Took(tats)) => tats.fill(wall),
            (Some(Planted::LanesNeverOpen), Reply::Leased { opens, .. }) => *opens = None,
            (Some(Planted::LanesNeverOpen), Reply::Closed { until, .. }) => *until = None,
            _ => {}
        }
    }
}

/// Of a hundred minutes each.
const LONG_RUNS: u64 = 100;

#[test]
fn limits_hold_for_ten_thousand_minutes() {
    let runs = crate::number("LONG").unwrap_or(LONG_RUNS);
    let (mut windows, mut starts, mut minutes) = (0, 0, 0);
    for seed in 0..runs {
        let told = crate::world::tell(seed, None, false, Story::Long);
        let verdict = told.result.as_ref().err().map(|v| format!("{}: {}", v.name, v.detail));
        assert!(verdict.is_none(), "{}", crate::explain_story(seed, None, Story::Long));
        windows += told.windows;
        minutes += told.minutes;
        starts += told.ledger.stories.values().map(|s| u64::from(s.starts)).sum::<u64>();
    }
    println!(
        "{minutes} simulated minutes, {starts} starts, {windows} windows: none above its limit and burst"
    );
    assert!(runs < LONG_RUNS || minutes >= 10_000, "only {minutes} minutes");
}

#[test]
fn one_customer_cannot_hold_the_others_up() {
    for seed in 0..12 {
        let told = crate::world::tell(seed, None, false, Story::Crowd);
        assert!(told.result.is_ok(), "{}", crate::explain_story(seed, None, Story::Crowd));
    }
}

/// Bugs that show only where limited tasks are busy for long.
#[test]
fn planted_bugs_of_limits_are_caught() {
    for bug in [Planted::SureStartsTakeNothing, Planted::PlacesUnasked, Planted::RateLooksUnused] {
        let caught = (0..100).find_map(|seed| {
            let told = crate::world::tell(seed, Some(bug), false, Story::Long);
            told.result.err().map(|v| (seed, v))
        });
        let (seed, v) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("| {bug:?} | {} | {} |", v.name, seed + 1);
        assert!(v.name.starts_with("37") || v.name.starts_with("38"), "{bug:?}: {}", v.name);
    }
}

/// The messages that are a customer's only one.
pub type Singles = BTreeSet<String>;
