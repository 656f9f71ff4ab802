//! Every decision of taskd as a pure state machine: events and time in, commands out. No tokio, no clock,
//! no I/O, no hash maps: the same seed gives the same trace.
//!
//! This file only routes. Each noun has its file: [`held`] the leased messages and their stages, `store`
//! the tickets and the patience with a failing store, `sweep` what time brings, `schedule` what is planned, `route` where a message
//! goes, `ask` what clients want, `letters` what they want of the dead, `unique` what messages claim, `dispatch` which message gets which slot, `retry` what an outcome leads
//! to, `pool` what becomes of children, `slot` who takes runs in a place, `recycle` who is replaced, `adopt` what an earlier daemon left behind, `limit` whether limits let it start, `lane` what waits for one, `rate` rates that people change, `doubt` what of it a silent child may hold, `shutdown` the end, `workflow` what follows from
//! the ends of steps, `tell` who is told of an end, `streak` what that follows from, `expected` what did not run.

mod adopt;
mod ask;
mod attempt;
mod cancel;
mod child;
pub mod command;
mod dispatch;
mod doubt;
pub mod event;
mod expected;
mod held;
mod jitter;
mod lane;
mod lease;
pub mod letters;
mod limit;
mod peers;
pub mod plan;
mod pool;
mod publish;
mod queue;
pub mod rate;
mod recycle;
mod retry;
mod route;
mod schedule;
mod schedule_ask;
mod schedule_fire;
mod schedule_replace;
mod schedule_times;
mod settle;
mod shutdown;
mod slot;
mod store;
mod streak;
mod sweep;
mod tell;
#[cfg(test)]
mod testbed;
pub mod unique;
pub mod view;
mod why;
mod workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use attempt::CANCEL_MS;
pub use doubt::NAMING_MS;
pub use held::{run_key, token_of};
pub use pool::{END_MS, READY_MS};
pub use recycle::{Reason, Replaced};
pub use retry::{Counts, MAX_LOSSES, Verdict, verdict};
pub use route::route;
pub use schedule_ask::ScheduleView;
pub use schedule_times::LATE_MS;
pub use workflow::Walked;

use crate::model::message::Token;
use crate::model::name::MessageId;
use crate::model::time::{Mono, Now};
use command::Command;
use event::{AskKey, ChildKey, Event, SlotId};
use plan::Plan;

/// The state machine. One per life of the daemon.
#[derive(Debug)]
pub struct Engine {
    now: Now,
    rng: jitter::Rng,
    plan: Arc<Plan>,
    phase: adopt::Phase,
    store: store::Store,
    sweep: sweep::Sweep,
    schedules: schedule::Schedules,
    pools: BTreeMap<String, pool::Pool>,
    slots: BTreeMap<SlotId, slot::Slot>,
    children: BTreeMap<ChildKey, child::Child>,
    doubts: doubt::Doubts,
    /// READY waits for children until then.
    up_by: Option<Mono>,
    /// What ended while no daemon lived: the leases of it.
    leftovers: Vec<Token>,
    /// Children with a bound of memory that had a run since they were measured.
    unmeasured: BTreeSet<ChildKey>,
    /// Memory pressure above the bound, in hundredths of a percent: nothing new starts.
    pressure: Option<u32>,
    queues: BTreeMap<String, queue::Queue>,
    limits: limit::Limits,
    held: BTreeMap<Token, held::Held>,
    by_id: BTreeMap<MessageId, Token>,
    asks: BTreeMap<AskKey, ask::Asking>,
    stop: Option<shutdown::Stop>,
    tell: tell::Telling,
    draining: bool,
    succeeded: u64,
    failed: u64,
}

impl Engine {
    /// An engine that waits for its first [`Event::Plan`]. `seed` feeds the jitter of retries.
    #[must_use]
    pub fn new(now: Now, seed: u64) -> Self {
        Self {
            now,
            rng: jitter::Rng::new(seed),
            plan: Arc::new(Plan::default()),
            phase: adopt::Phase::boot(),
            store: store::Store::default(),
            sweep: sweep::Sweep::default(),
            schedules: schedule::Schedules::default(),
            pools: BTreeMap::new(),
            slots: BTreeMap::new(),
            children: BTreeMap::new(),
            doubts: doubt::Doubts::default(),
            up_by: None,
            leftovers: Vec::new(),
            unmeasured: BTreeSet::new(),
            pressure: None,
            queues: BTreeMap::new(),
            limits: limit::Limits::default(),
            held: BTreeMap::new(),
            by_id: BTreeMap::new(),
            asks: BTreeMap::new(),
            stop: None,
            tell: tell::Telling::default(),
            draining: false,
            succeeded: 0,
            failed: 0,
        }
    }

    /// Takes one event; appends what is to be done.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Command>) {
        self.now = now;
        match event {
            Event::Plan(plan) => self.take_plan(plan, out),
            Event::Tick => {}
            Event::ChildUp { child, slot, user, generation, adopted, age_ms } => {
                self.child_up(pool::Arrival { child, slot, user, generation, adopted, age_ms });
            }
            Event::Adopt { children_lost, fresh } => self.adopt(children_lost, fresh, out),
            Event::Ready { child, capacity, tasks, resume } => {
                self.child_ready(child, capacity, tasks, resume, out);
            }
            Event::Running { child, run } => self.child_holds(child, run, out),
            Event::Resumed { child } => self.child_resumed(child),
            Event::Started { child, run, pid, limits } => self.run_started(child, &run, (pid, limits), out),
            Event::Ended { child, run, outcome } => self.run_ended(child, run, outcome, out),
            Event::Refused { child, run, why } => self.run_refused(child, &run, &why, out),
            Event::Broken { child, why } => self.child_broken(child, &why, out),
            Event::ChildDown { child, how, out_of_memory } => {
                self.child_down(child, &how, out_of_memory, out);
            }
            Event::Measured { child, bytes } => self.measured(child, bytes),
            Event::Pressure(pressure) => self.pressure = pressure,
            Event::SpawnFailed { slot, error } => self.spawn_failed(&slot, &error, out),
            Event::Broker { ticket, result } => self.completed(ticket, result, out),
            Event::Woken { queues, due } => self.woken(&queues, due),
            Event::Lapsed => self.lapsed(),
            Event::Over { ended, fallout } => self.over(ended, *fallout, out),
            Event::Ask { key, ask } => self.ask(key, ask, out),
            Event::Stop { now } => self.stop(now, out),
        }
        self.pump(out);
    }

    /// Does all that became due or possible. Each part is cheap when nothing is.
    fn pump(&mut self, out: &mut Vec<Command>) {
        self.pump_adoption(out);
        self.pump_doubts(out);
        self.pump_settling(out);
        self.pump_telling(out);
        self.pump_asks(out);
        self.pump_shutdown(out);
        self.pump_lanes(out);
        self.pump_overdue(out);
        self.pump_measures(false, out);
        self.dispatch(out);
        self.pump_measures(true, out);
        self.pump_children(out);
        self.pump_sweep(out);
        self.pump_schedules(out);
        self.pump_extend(out);
        self.pump_leases(out);
        self.pump_finish(out);
    }

    /// When [`Event::Tick`] is wanted at the latest, if nothing else happens. Wall-clock deadlines are
    /// converted with the clocks of the latest step, so a jump of the wall clock needs a step of its own.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        [
            self.adoption_deadline(),
            self.doubts_deadline(),
            self.up_deadline(),
            self.settling_deadline(),
            self.telling_deadline(),
            self.asks_deadline(),
            self.shutdown_deadline(),
            self.overdue_deadline(),
            self.dispatch_deadline(),
            self.children_deadline(),
            self.measures_deadline(),
            self.sweep_deadline(),
            self.schedules_deadline(),
            self.leases_deadline(),
            self.lanes_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
