//! Everything the daemon holds, and the two ways anything gets done: a step of the engine, an operation of
//! the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::adopted::Adopted;
use super::child::Link;
use super::clock;
use super::launcher::Launcher;
use super::peer::Celery;
use super::pressure::{Look, Pressure};
use super::spool::Spool;
use super::waiters::Waiters;
use super::worker_output::Printed;
use crate::broker::Broker;
use crate::broker::redis::Woken;
use crate::broker::store::Store;
use crate::config::settings::Settings;
use crate::control::access::Policy;
use crate::control::api::Call;
use crate::engine::Engine;
use crate::engine::command::{Command, Note, Told};
use crate::engine::event::{Ask, AskKey, ChildKey, Event};
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::outcome::CancelReason;
use crate::model::time::{Mono, Wall};
use crate::observe::log::Log;
use crate::process::launch::{Child, Start};
use crate::process::output_sink::Sink;
use crate::process::protocol::ToChild;

/// Ends and starts of attempts wait so long for others to share a commit with, in milliseconds, while more
/// runs. Whoever waits for one is answered at once, and a child keeps an outcome until it is committed.
const LINGER_MS: u64 = 10;

/// A busy child hears that an outcome is committed with its next line, or after this, in milliseconds.
const TELL_MS: u64 = 20;

/// The engine counts its tickets from 1; the daemon's own begin here.
pub const OWN_TICKETS: u64 = 1 << 62;

/// What is done with the answer of an own store operation.
pub type Then = Box<dyn FnOnce(&mut Daemon, Result<Reply, Fault>)>;

/// What is done with the engine's answer to a client.
pub type ThenTold = Box<dyn FnOnce(&mut Daemon, Told)>;

/// One attempt that was handed to a child here.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The message.
    pub id: String,
    /// Its task.
    pub task: String,
    /// Its queue.
    pub queue: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// A later step of its workflow is given its result.
    pub passes: bool,
    /// The child.
    pub child: ChildKey,
    /// Its process, once it started.
    pub pid: Option<u32>,
    /// When it was handed over, or when a resident worker said that it started it.
    pub since: Mono,
    /// The same by the wall clock.
    pub began: Wall,
    /// The two above are not to be changed any more.
    pub begun: bool,
    /// Why its child was told to end it.
    pub canceled: Option<CancelReason>,
    /// Something of its output may be in the spool.
    pub printed: bool,
    /// Bytes of a resident worker's output for it that were dropped.
    pub dropped: u64,
    /// How far it is.
    pub progress: Option<crate::control::api::ProgressView>,
    /// Its end was heard and is on its way to the store.
    pub ended: bool,
}

/// One child and its connection.
#[derive(Debug)]
pub struct Living {
    /// What the launcher said of it.
    pub child: Child,
    /// Its socket.
    pub link: Link,
    /// A resident worker's output.
    pub printed: Option<Printed>,
    /// Why it is being ended: what its end will be put down to.
    pub broke: Option<String>,
    /// A resident worker that closed its socket is ended at this time.
    pub deaf_until: Option<Mono>,
}

/// Totals since the daemon started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Attempts that ended in success.
    pub succeeded: u64,
    /// Attempts that ended otherwise.
    pub failed: u64,
    /// Bytes that tasks and workers printed and that were dropped.
    pub dropped_output: u64,
}

/// The daemon.
pub struct Daemon {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// What the launcher said at the start.
    pub start: Start,
    /// How the kernel confines this process; absent where it has no AppArmor.
    pub confinement: Option<String>,
    /// All decisions.
    pub engine: Engine,
    /// Where messages wait.
    pub store: Store,
    /// The way to the launcher.
    pub launcher: Launcher,
    /// Children by key.
    pub children: BTreeMap<ChildKey, Living>,
    /// Attempts by run key.
    pub runs: BTreeMap<String, RunInfo>,
    /// Attempts of a daemon before this one, until store and child agree on them.
    pub adopted: Adopted,
    /// Calls that wait for a message's end.
    pub waiters: Waiters,
    /// Output of attempts.
    pub spool: Arc<Spool>,
    /// Where lines that resident workers print go beside it: the journal, or stderr.
    pub sink: Sink,
    /// Who may do what; the server holds the same.
    pub policy: tokio::sync::watch::Sender<Arc<Policy>>,
    /// Calls of the API that a task of their own sends back to the loop.
    pub later: mpsc::Sender<Call>,
    /// Told when an import put messages into the store.
    pub imported: Arc<tokio::sync::Notify>,
    /// The reload under way and its callers.
    pub reloads: super::handle::reload::Reloads,
    /// Memory pressure.
    pub pressure: Pressure,
    /// Totals.
    pub totals: Totals,
    /// Why work is paused: shown in status and STATUS=.
    pub trouble: Option<String>,
    /// A stop was asked for.
    pub stopping: bool,
    /// Nothing new is started (`taskd drain`).
    pub draining: bool,
    /// Everything is settled after a stop.
    pub finished: bool,
    /// The daemon of a new program comes: no more clients, and then the end.
    pub handing_over: bool,
    /// READY was told.
    pub ready: bool,
    /// The store has the end of everything that ended while no daemon lived, and the launcher knows.
    pub recovered: bool,
    /// Exit code, once it is over.
    pub failed: Option<(u8, String)>,
    /// Keeps the log; absent where it could not be started.
    pub log: Option<Log>,
    /// The nodes of a shared store.
    pub nodes: super::nodes::Nodes,
    /// What Celery's tools see; absent where the broker is none that they share.
    pub celery: Option<Celery>,
    ops: Vec<(Ticket, Op)>,
    /// Operations that the store has and did not answer yet.
    under_way: usize,
    /// One of `ops` cannot wait.
    urgent: bool,
    /// When `ops` are submitted at the latest, where all of them can wait.
    linger: Option<Mono>,
    /// When children are told what was kept back for their next line.
    tell_at: Option<Mono>,
    then: BTreeMap<Ticket, Then>,
    told: BTreeMap<AskKey, ThenTold>,
    next_ticket: u64,
    next_ask: u64,
    commands: Vec<Command>,
}

/// What a daemon is made of at its start.
pub struct Parts {
    /// See [`Daemon::settings`].
    pub settings: Arc<Settings>,
    /// See [`Daemon::start`].
    pub start: Start,
    /// See [`Daemon::confinement`].
    pub confinement: Option<String>,
    /// See [`Daemon::store`].
    pub store: Store,
    /// See [`Daemon::launcher`].
    pub launcher: Launcher,
    /// See [`Daemon::spool`].
    pub spool: Spool,
    /// See [`Daemon::policy`].
    pub policy: tokio::sync::watch::Sender<Arc<Policy>>,
    /// See [`Daemon::later`].
    pub later: mpsc::Sender<Call>,
    /// See [`Daemon::log`].
    pub log: Option<Log>,
    /// See [`Daemon::celery`].
    pub celery: Option<Celery>,
}

impl Daemon {
    /// A daemon that has done nothing yet. `seed` is for retry jitter only.
    #[must_use]
    pub fn new(parts: Parts, seed: u64) -> Self {
        let sink = Sink::new(parts.start.journal);
        Self {
            engine: Engine::new(clock::now(), seed),
            settings: parts.settings,
            start: parts.start,
            confinement: parts.confinement,
            store: parts.store,
            launcher: parts.launcher,
            children: BTreeMap::new(),
            runs: BTreeMap::new(),
            adopted: Adopted::default(),
            waiters: Waiters::default(),
            spool: Arc::new(parts.spool),
            sink,
            policy: parts.policy,
            later: parts.later,
            imported: Arc::default(),
            reloads: super::handle::reload::Reloads::default(),
            pressure: Pressure::default(),
            totals: Totals::default(),
            trouble: None,
            stopping: false,
            draining: false,
            finished: false,
            handing_over: false,
            ready: false,
            recovered: false,
            failed: None,
            log: parts.log,
            nodes: super::nodes::Nodes::default(),
            celery: parts.celery,
            ops: Vec::new(),
            under_way: 0,
            urgent: false,
            linger: None,
            tell_at: None,
            then: BTreeMap::new(),
            told: BTreeMap::new(),
            next_ticket: OWN_TICKETS,
            next_ask: 1,
            commands: Vec::new(),
        }
    }

    /// One step of the engine, and everything it wants done.
    pub fn step(&mut self, event: Event) {
        let mut commands = std::mem::take(&mut self.commands);
        self.engine.step(clock::now(), event, &mut commands);
        for command in commands.drain(..) {
            super::perform::perform(self, command);
        }
        // Performing may have stepped again (an answer that asks): keep the larger buffer.
        if commands.capacity() > self.commands.capacity() {
            self.commands = commands;
        }
    }

    /// Asks the engine; `then` gets its one answer.
    pub fn ask(&mut self, ask: Ask, then: ThenTold) {
        let key = AskKey(self.next_ask);
        self.next_ask += 1;
        self.told.insert(key, then);
        self.step(Event::Ask { key, ask });
    }

    /// The engine's answer came.
    pub fn answer(&mut self, key: AskKey, told: Told) {
        if let Some(then) = self.told.remove(&key) {
            then(self, told);
        }
    }

    /// An operation of the engine, submitted at the end of this round.
    pub fn submit(&mut self, ticket: Ticket, op: Op) {
        self.urgent |= !self.can_wait(&op);
        self.ops.push((ticket, op));
    }

    /// An operation of the daemon's own (reads); `then` gets its one answer.
    pub fn read(&mut self, op: Op, then: Then) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.then.insert(ticket, then);
        self.urgent = true;
        self.ops.push((ticket, op));
    }

    /// Attempts that run now; those whose end is on its way to the store do not.
    #[must_use]
    pub fn running(&self) -> usize {
        self.runs.values().filter(|r| !r.ended).count()
    }

    /// An operation was completed.
    pub fn completed(&mut self, ticket: Ticket, result: Result<Reply, Fault>) {
        self.under_way = self.under_way.saturating_sub(1);
        if ticket.0 >= OWN_TICKETS {
            if let Some(then) = self.then.remove(&ticket) {
                then(self, result);
            }
            return;
        }
        if let Ok(Reply::Deliveries(list)) = &result
            && !self.engine.is_live()
        {
            super::perform::recovered(self, list);
        }
        if let Ok(reply) = &result {
            super::peer::taken(self, reply);
        }
        self.step(Event::Broker { ticket, result });
    }

    /// Other nodes, or clients of Celery, made something known.
    pub fn woken(&mut self, woken: Woken) {
        match woken {
            Woken::Queues(queues, due) => self.step(Event::Woken { queues, due }),
            Woken::All => {
                super::peer::again(self);
                let queues = self.settings.queues.keys().cloned().collect();
                self.step(Event::Woken { queues, due: Some(clock::now().wall) });
            }
            Woken::Cancel(id) => self.ask(Ask::Cancel(id), Box::new(|_, _| {})),
            Woken::Lapsed => self.step(Event::Lapsed),
            Woken::Clash(why) => self.failed = Some((super::broker::REFUSED, why)),
            Woken::Over(ended, fallout) => {
                self.step(Event::Over { ended, fallout: Box::new(fallout) });
            }
        }
    }

    /// Whether a broker that other machines have is away: this node is ready all the same, and says so.
    #[must_use]
    pub fn waits_for_broker(&self) -> bool {
        matches!(self.store, Store::Redis(_)) && self.trouble.is_some() && !self.store.undecided()
    }

    /// Says once that the store fails, and once that it does not any more. A full disk still takes small
    /// writes: the store's own word lasts, the engine's comes and goes with each operation.
    pub fn look_at_store(&mut self) {
        let now = self.store.trouble().or_else(|| self.engine.store_fault().map(str::to_owned));
        if self.trouble.is_some() != now.is_some() {
            super::notes::log(&Note::Store(now.clone()));
        }
        self.trouble = now;
    }

    /// Looks at the memory pressure, if it is time.
    pub fn look_at_pressure(&mut self, now: Mono) {
        let bound = self.settings.taskd.max_memory_pressure;
        match self.pressure.look(now, bound, bound.is_some() && !self.engine.is_idle()) {
            Look::Same => {}
            Look::Changed(above) => self.step(Event::Pressure(above)),
            Look::Fault(why) => tracing::error!(
                "max_memory_pressure has no effect: {why} (a kernel with CONFIG_PSI, booted with psi=1, has it)"
            ),
        }
    }

    /// Whether nobody waits for this operation but the engine's books: the end of an attempt, the start of
    /// one that its child has already.
    fn can_wait(&self, op: &Op) -> bool {
        match op {
            Op::Settle(settle) => !self.waiters.has(settle.id.as_str()),
            Op::Start { token, .. } => self.runs.contains_key(&crate::engine::run_key(*token)),
            _ => false,
        }
    }

    /// Hands the operations of this round (and of those before that could wait) to the store, all in one go
    /// so that they share a commit.
    pub fn flush(&mut self, now: Mono) {
        if self.ops.is_empty() {
            return;
        }
        if !self.urgent && !self.stopping && self.engine.running() > 0 {
            let at = *self.linger.get_or_insert(now.plus(LINGER_MS));
            if at > now {
                return;
            }
        }
        self.urgent = false;
        self.linger = None;
        self.under_way += self.ops.len();
        self.store.submit(std::mem::take(&mut self.ops));
    }

    /// Hands everything to the store that is there, whether it could wait or not. Whether the store has
    /// something left to answer.
    pub fn flush_all(&mut self) -> bool {
        self.urgent = true;
        self.flush(clock::now().mono);
        self.under_way > 0
    }

    /// An outcome is committed. A child that is busy need not be woken for it.
    pub fn tell_settled(&mut self, child: ChildKey, run: String) {
        let busy = self.runs.values().any(|r| r.child == child);
        let Some(living) = self.children.get(&child) else { return };
        living.link.later(&ToChild::Settled { run });
        if busy {
            self.tell_at.get_or_insert_with(|| clock::now().mono.plus(TELL_MS));
        } else {
            living.link.flush();
        }
    }

    /// Tells children what was kept back for their next line, if it is time.
    pub fn tell_late(&mut self, now: Mono) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            for living in self.children.values() {
                living.link.flush();
            }
        }
    }

    /// When the loop must turn again for what was kept back.
    #[must_use]
    pub fn kept_until(&self) -> Option<Mono> {
        let workers = self.children.values().filter(|c| c.child.worker);
        let paused =
            workers.filter_map(|c| [c.deaf_until, c.printed.as_ref()?.paused()].into_iter().flatten().min());
        let own = [self.linger, self.tell_at, self.pressure.next(), self.nodes.next()];
        own.into_iter().flatten().chain(paused).min()
    }
}
