//! The world of one seed: the queue of what happens next, the clocks, and the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taskd::broker::model::Model;
use taskd::engine::Engine;
use taskd::engine::command::{Command, RunOrder};
use taskd::engine::event::{Ask, AskKey, ChildKey, Event, SlotId};
use taskd::engine::plan::Plan;
use taskd::model::op::{Fault, Op, Reply, Ticket};
use taskd::model::outcome::CancelReason;
use taskd::model::time::{Mono, Now, Wall};

use crate::children::{Child, Corpse};
use crate::clients::{Action, Client};
use crate::ledger::{Check, Ledger, Violation, broken};
use crate::limits::{self, Story};
use crate::planted::Planted;
use crate::replacing::Known;
use crate::rng::Rng;
use crate::scenario::{self, Faults};
use crate::schedules::Schedules;
use crate::workflows::Flows;
use taskd::model::message::Record;
use taskd::model::state::State;

/// After the last fault everything must be over within this time (plus what clocks that went back cost).
const LIVENESS_MS: u64 = 600_000;

/// What happens at some time.
#[allow(clippy::large_enum_variant, reason = "nearly all of it is operations")]
pub enum Thing {
    ApplyOp { life: u64, ticket: Ticket, op: Op },
    Complete { life: u64, ticket: Ticket, result: Result<Reply, Fault> },
    ToChild { child: u64, what: ToChild },
    FromChild { life: u64, child: u64, event: Event },
    ChildReady { child: u64 },
    RunEnds { child: u64, run: String },
    ChildDies { child: u64 },
    ChildGone { life: u64, child: u64 },
    Measured { life: u64, child: u64 },
    Spawn { life: u64, slot: SlotId, user: String },
    SpawnFailed { life: u64, slot: SlotId },
    DaemonUp,
    Act(Action),
    CalmDown,
}

pub enum ToChild {
    Run(Box<RunOrder>),
    Cancel(String, CancelReason),
    Settled(String),
    Hello,
}

pub struct World {
    pub rng: Rng,
    pub seed: u64,
    pub now: Now,
    pub things: BTreeMap<(u64, u64), Box<Thing>>,
    seq: u64,
    pub model: Model,
    pub engine: Option<Box<Engine>>,
    pub life: u64,
    pub fresh: bool,
    /// As the launcher keeps them: a child ended, and no daemon has recorded it or none may have.
    pub children_lost: bool,
    pub told_an_end: bool,
    /// The daemon is the first one of its launcher.
    pub first: bool,
    pub recovered: bool,
    pub children: BTreeMap<u64, Child>,
    pub next_child: u64,
    pub plan: Arc<Plan>,
    pub plans: BTreeMap<u64, Arc<Plan>>,
    pub faults: Faults,
    pub outage_until: Mono,
    pub ledger: Ledger,
    pub clients: BTreeMap<AskKey, Client>,
    pub open_insists: u64,
    pub next_ask: u64,
    pub ids: Vec<String>,
    pub bug: Option<Planted>,
    pub last_op: u64,
    pub calm: bool,
    pub stopping: bool,
    pub steps: u64,
    hash: u64,
    pub lines: Option<Vec<String>>,
    pub max_slots: usize,
    pub max_held: usize,
    /// The settings each run was handed over with, by token.
    pub generations: BTreeMap<i64, u64>,
    /// Runs whose child was told to end them.
    pub told_cancel: BTreeSet<i64>,
    pub corpses: BTreeMap<u64, Corpse>,
    /// Children whose end this daemon saw.
    pub gone: BTreeSet<u64>,
    /// What only this daemon knows of.
    pub known: Known,
    /// The slot of every child that ever was.
    pub slot_of: BTreeMap<u64, SlotId>,
    /// The life of the daemon (from 1) that handed a run over, by token.
    pub order_life: BTreeMap<i64, u64>,
    /// Runs whose child was killed for another run of it.
    pub companions: BTreeSet<i64>,
    /// Memory pressure is above its bound.
    pub pressed: bool,
    pub schedules: Schedules,
    pub story: Story,
    /// When faults stop, on the monotonic clock.
    pub end: u64,
    pub watch: limits::Watch,
    pub singles: limits::Singles,
    /// Windows of rates that were looked at.
    pub windows: u64,
    pub notices: crate::notices::Notices,
    /// Operations may fail in this seed.
    pub faults_of_the_store: bool,
    /// Who claimed which key.
    pub keys: crate::unique::Keys,
    pub flows: Flows,
    /// Instead of everything else: so many chords.
    pub chords: u64,
}

/// How a seed went.
pub struct Told {
    pub hash: u64,
    pub steps: u64,
    pub ledger: Ledger,
    pub result: Result<(), Violation>,
    pub lines: Vec<String>,
    pub windows: u64,
    pub minutes: u64,
    /// Bodies of chords: the state of each and how often it began.
    pub bodies: BTreeMap<String, (State, u32)>,
}

/// Plays one seed. `verbose` keeps the trace as text.
pub fn play(seed: u64, bug: Option<Planted>, verbose: bool) -> Told {
    tell(seed, bug, verbose, Story::Everything)
}

/// Plays one seed with nothing but so many chords, and its faults.
pub fn play_chords(seed: u64, chords: u64) -> Told {
    tell(seed, None, false, Story::Chords(chords))
}

/// Plays one seed of this kind of story.
pub fn tell(seed: u64, bug: Option<Planted>, verbose: bool, story: Story) -> Told {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng);
    let plan = Arc::new(scenario::plan_of(&mut rng, seed, 1, false, story));
    let start = Now { wall: Wall(1_700_000_000_000), mono: Mono(10_000) };
    let mut w = World {
        rng,
        seed,
        now: start,
        things: BTreeMap::new(),
        seq: 0,
        model: Model::new(),
        engine: None,
        life: 0,
        fresh: true,
        children_lost: false,
        told_an_end: false,
        first: false,
        recovered: false,
        children: BTreeMap::new(),
        next_child: 0,
        plans: BTreeMap::from([(1, Arc::clone(&plan))]),
        plan,
        faults,
        outage_until: Mono(0),
        ledger: Ledger::default(),
        clients: BTreeMap::new(),
        open_insists: 0,
        next_ask: 0,
        ids: Vec::new(),
        bug,
        last_op: 0,
        calm: false,
        stopping: false,
        steps: 0,
        hash: 0xcbf2_9ce4_8422_2325,
        lines: verbose.then(Vec::new),
        max_slots: 0,
        max_held: 0,
        generations: BTreeMap::new(),
        told_cancel: BTreeSet::new(),
        corpses: BTreeMap::new(),
        gone: BTreeSet::new(),
        known: Known::default(),
        slot_of: BTreeMap::new(),
        order_life: BTreeMap::new(),
        companions: BTreeSet::new(),
        pressed: false,
        schedules: Schedules::of(seed),
        story,
        end: 10_000 + if story == Story::Long { limits::LONG_MS } else { 40_000 },
        watch: limits::Watch::default(),
        singles: limits::Singles::new(),
        windows: 0,
        notices: crate::notices::Notices::default(),
        faults_of_the_store: false,
        keys: crate::unique::Keys::default(),
        flows: Flows::default(),
        chords: if let Story::Chords(n) = story { n } else { 0 },
    };
    w.faults_of_the_store = w.faults.op_lost + w.faults.op_unclear + w.faults.outages > 0;
    let result = w.run();
    let s = &w.schedules;
    w.ledger.scheduled = [s.fires, s.skips, s.held];
    let minutes = (w.now.mono.0 - start.mono.0) / 60_000;
    let bodies = w.bodies();
    Told {
        windows: w.windows,
        minutes,
        hash: w.hash,
        steps: w.steps,
        ledger: w.ledger,
        result,
        lines: w.lines.unwrap_or_default(),
        bodies,
    }
}

impl World {
    pub fn at(&mut self, delay: u64, thing: Thing) {
        self.at_time(self.now.mono.0 + delay, thing);
    }

    pub fn at_time(&mut self, at: u64, thing: Thing) {
        self.seq += 1;
        self.things.insert((at, self.seq), Box::new(thing));
    }

    /// Into the trace: always hashed, kept as text on demand.
    pub fn trace(&mut self, kind: u64, a: u64, text: impl FnOnce() -> String) {
        for n in [kind, a, self.now.mono.0] {
            self.hash = (self.hash ^ n).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9} {}", self.now.mono.0, text()));
        }
    }

    /// The last steps of the chords.
    fn bodies(&self) -> BTreeMap<String, (State, u32)> {
        let is_body = |r: &&Record| {
            self.chords > 0
                && r.message
                    .step
                    .as_ref()
                    .and_then(|of| Some((self.flows.asked.get(&of.workflow)?, of.no)))
                    .is_some_and(|(w, no)| no as usize + 1 == w.steps.len())
        };
        let of = |r: &Record| {
            let starts = self.ledger.stories.get(r.message.id.as_str()).map_or(0, |s| s.starts);
            (r.message.id.0.clone(), (r.state, starts))
        };
        self.model.records().filter(is_body).map(of).collect()
    }

    fn run(&mut self) -> Check {
        match self.story {
            Story::Everything | Story::Chords(_) => {
                self.script();
                self.script_workflows();
            }
            Story::Long => self.long_script(),
            Story::Crowd => self.crowd_script(),
        }
        self.at(0, Thing::DaemonUp);
        loop {
            self.steps += 1;
            let most = if self.story == Story::Everything { 60_000 } else { 600_000 };
            if self.steps > most {
                return broken("10 no_hot_loop", format!("{most} steps and no end"));
            }
            let next = self.things.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.engine.as_ref().and_then(|e| e.next_deadline()).map(|m| m.0);
            let at = match (next, deadline) {
                (Some(n), Some(d)) => n.min(d),
                (Some(n), None) => n,
                (None, Some(d)) => d,
                (None, None) => return self.everything_is_over(),
            };
            let ms = at.saturating_sub(self.now.mono.0);
            self.now = Now { wall: self.now.wall.plus(ms), mono: Mono(self.now.mono.0 + ms) };
            if self.now.mono.0 > self.deadline() {
                return self.everything_is_over();
            }
            if next == Some(at) {
                if let Some((_, thing)) = self.things.pop_first() {
                    self.happen(*thing)?;
                }
            } else {
                self.step(Event::Tick)?;
            }
            if self.calm && self.is_over() {
                return self.everything_is_over();
            }
        }
    }

    fn deadline(&self) -> u64 {
        // Clocks went back three hours at most.
        self.end + LIVENESS_MS + 4 * 3_600_000
    }

    fn is_over(&self) -> bool {
        self.steps.is_multiple_of(16)
            && self.open_insists == 0
            && self.clients.is_empty()
            && !self.stopping
            && (self.schedules.over || self.schedules.drawn.is_empty())
            && self.engine.as_ref().is_some_and(|e| e.is_live() && e.held() == 0)
            && self.model.records().all(|r| r.state.is_final())
            && self.model.workflows().all(|f| f.head.open == 0)
    }

    fn happen(&mut self, thing: Thing) -> Check {
        match thing {
            Thing::ApplyOp { life, ticket, op } => self.apply_op(life, ticket, op),
            Thing::Complete { life, ticket, result } if life == self.life => {
                self.step(Event::Broker { ticket, result })
            }
            Thing::ToChild { child, what } => self.child_hears(child, what),
            Thing::FromChild { life, child, event } if life == self.life => self.daemon_hears(child, event),
            Thing::ChildReady { child } => {
                self.child_ready(child);
                Ok(())
            }
            Thing::RunEnds { child, run } => {
                self.limit_was_kept(child, &run)?;
                self.run_ends(child, &run);
                Ok(())
            }
            Thing::Measured { life, child } if life == self.life => self.measured(child),
            Thing::ChildDies { child } => {
                self.child_dies(child);
                Ok(())
            }
            Thing::ChildGone { life, child } if life == self.life => self.daemon_sees_gone(child),
            Thing::Spawn { life, slot, user } => self.spawn(life, slot, user),
            Thing::SpawnFailed { life, slot } if life == self.life => {
                self.known.asked.remove(&slot);
                self.known.foreign.remove(&slot);
                self.step(Event::SpawnFailed { slot, error: "EAGAIN".into() })
            }
            Thing::DaemonUp => self.daemon_up(),
            Thing::Act(action) => self.act(action),
            Thing::CalmDown => self.calm_down(),
            // Meant for a daemon that is dead.
            _ => Ok(()),
        }
    }

    /// One step of the engine, and what it commands.
    pub fn step(&mut self, event: Event) -> Check {
        self.ledger.latest_wall = self.ledger.latest_wall.max(self.now.wall);
        let Some(mut engine) = self.engine.take() else { return Ok(()) };
        // What is due in the same step ends what it ends, reload or not.
        let due = engine.next_deadline().is_some_and(|d| d <= self.now.mono);
        let reload = matches!(event, Event::Plan(_)) && !due;
        self.trace(1, kind_of(&event), || match &event {
            Event::Plan(p) => format!("> Plan {:?} {:?} {:?}", p.pools, p.queues, p.tasks.keys()),
            event => format!("> {event:?}"),
        });
        let mut out = Vec::new();
        engine.step(self.now, event, &mut out);
        let held = engine.held();
        if !self.recovered && engine.has_recovered() {
            self.recovered = true;
            self.children_lost = false;
        }
        let spins = engine.next_deadline().is_some_and(|d| d <= self.now.mono);
        self.engine = Some(engine);
        if spins {
            return broken("10 no_hot_loop", "the next deadline is not after the step");
        }
        self.memory_is_bounded(held)?;
        for command in out {
            self.trace(2, number_of(&command), || format!("  < {command:?}"));
            if reload {
                self.reload_touches_no_run(&command)?;
            }
            self.perform(command)?;
            if self.engine.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// 21: leased messages are bounded by slots and windows, never by backlog.
    fn memory_is_bounded(&mut self, held: usize) -> Check {
        self.max_held = self.max_held.max(held);
        let windows = (scenario::QUEUES.len() + 1) * (3 + 2);
        // Windows, runs (children that are being replaced included), unsettled outcomes, and one window
        // on its way per queue, or given back by a fault before that.
        let bound = windows * 4 + self.max_slots.max(4) * 8;
        if held > bound {
            return broken("21 memory_is_bounded", format!("{held} messages held, bound {bound}"));
        }
        Ok(())
    }

    /// 23: a reload ends no run.
    fn reload_touches_no_run(&self, command: &Command) -> Check {
        let hit = match command {
            Command::Cancel { .. } => true,
            Command::End { child, kill } => {
                *kill && !self.is_overdue(child.0)
                    || !*kill && self.children.get(&child.0).is_some_and(|c| !c.runs.is_empty())
            }
            _ => false,
        };
        if hit { broken("23 reload_touches_no_run", format!("{command:?}")) } else { Ok(()) }
    }

    /// What the shell of the daemon does with a command.
    fn perform(&mut self, command: Command) -> Check {
        match command {
            Command::Broker(ticket, op) => {
                self.note_question(&op);
                self.submit(ticket, op)
            }
            Command::Spawn { slot, user } => {
                self.spawn_is_right(&slot, &user)?;
                let delay = self.rng.between(1, 60);
                if self.rng.chance(self.faults.spawn_fails) {
                    self.at(delay, Thing::SpawnFailed { life: self.life, slot });
                } else {
                    self.at(delay, Thing::Spawn { life: self.life, slot, user });
                }
                Ok(())
            }
            Command::End { child, kill } => {
                if !kill {
                    self.end_is_right(child.0)?;
                }
                self.launcher_ends(child, kill)
            }
            Command::Run { child, run } => self.hand_over(child, run),
            Command::Cancel { child, run, reason } => self.tell_cancel(child, run, reason),
            Command::Settled { child, run } => self.tell_settled(child, run),
            Command::Answer { key, answer } => self.answered(key, answer),
            Command::Measure { child } => self.measure(child),
            Command::Note(_) => Ok(()),
            Command::Finished => self.finished(),
        }
    }

    /// 22: after a clean stop nothing is leased and nothing runs.
    fn finished(&mut self) -> Check {
        let leased = self.model.leased().count();
        let running = self.children.values().map(|c| c.runs.len()).sum::<usize>();
        if leased + running > 0 {
            return broken("22 clean_stop", format!("{leased} leased, {running} running"));
        }
        self.stopping = false;
        self.restart_launcher();
        Ok(())
    }

    /// 1 and 20: after the faults everything reaches one final state, and nothing is left anywhere.
    fn everything_is_over(&mut self) -> Check {
        self.alarms_came()?;
        if let Some(r) = self.model.records().find(|r| !r.state.is_final()) {
            let detail = format!("{} is {} (token {:?}) at the end", r.message.id, r.state, r.token);
            return broken("1 everything_ends", detail);
        }
        self.workflows_are_over()?;
        for (id, story) in &self.ledger.stories {
            if story.accepted && !self.model.records().any(|r| r.message.id.as_str() == id) {
                return broken("1 accepted_is_kept", format!("{id} is gone"));
            }
        }
        self.limits_held()?;
        let held = self.engine.as_ref().map_or(0, |e| e.held());
        let leased = self.model.leased().count();
        let asks = self.clients.len() as u64 + self.open_insists;
        if held + leased > 0 || asks > 0 {
            let detail = format!("{held} held, {leased} leased, {asks} asks without an answer");
            return broken("20 nothing_is_left", detail);
        }
        Ok(())
    }

    pub fn ask(&mut self, ask: Ask, client: Client) -> Check {
        self.next_ask += 1;
        let key = AskKey(self.next_ask);
        self.clients.insert(key, client);
        self.step(Event::Ask { key, ask })
    }
}

fn kind_of(event: &Event) -> u64 {
    match event {
        Event::Plan(p) => p.generation,
        Event::Tick => 1,
        Event::ChildUp { child, .. } => 2 + child.0 * 32,
        Event::Adopt { .. } => 3,
        Event::Ready { child, .. } => 4 + child.0 * 32,
        Event::Running { child, .. } => 5 + child.0 * 32,
        Event::Resumed { child } => 6 + child.0 * 32,
        Event::Started { child, .. } => 7 + child.0 * 32,
        Event::Ended { child, .. } => 8 + child.0 * 32,
        Event::Refused { child, .. } => 9 + child.0 * 32,
        Event::ChildDown { child, .. } => 10 + child.0 * 32,
        Event::SpawnFailed { slot, .. } => 11 + u64::from(slot.index) * 32,
        Event::Broker { ticket, result } => 12 + u64::from(result.is_ok()) + ticket.0 * 32,
        Event::Ask { key, .. } => 14 + key.0 * 32,
        Event::Broken { child, .. } => 16 + child.0 * 32,
        Event::Measured { child, .. } => 17 + child.0 * 32,
        Event::Pressure(p) => 18 + u64::from(p.is_some()) * 32,
        Event::Woken { queues, .. } => 19 + queues.len() as u64 * 32,
        Event::Lapsed => 20,
        Event::Over { ended, .. } => 21 + ended.len() as u64 * 32,
        Event::Stop { now } => 15 + u64::from(*now) * 32,
    }
}

fn number_of(command: &Command) -> u64 {
    match command {
        Command::Broker(ticket, _) => ticket.0 * 16,
        Command::Spawn { slot, .. } => 1 + u64::from(slot.index) * 16,
        Command::End { child, .. } => 2 + child.0 * 16,
        Command::Run { child, run } => 3 + child.0 * 16 + run.run.parse::<u64>().unwrap_or(0) * 4096,
        Command::Cancel { child: ChildKey(c), .. } => 4 + c * 16,
        Command::Settled { child, .. } => 5 + child.0 * 16,
        Command::Answer { key, .. } => 6 + key.0 * 16,
        Command::Note(_) => 7,
        Command::Finished => 8,
        Command::Measure { child } => 9 + child.0 * 16,
    }
}
