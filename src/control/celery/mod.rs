//! This node as a peer of Celery's tools on a Redis server: it answers `celery inspect`, `control` and `status` and
//! Flower, and sends the events that they and `celery events` listen to.
//!
//! Two threads with a connection each: one listens, one speaks. What needs no more than is known here (ping, clock,
//! hello, revoked, events) is answered at once, however busy the daemon is; everything else is handed to it as
//! [`Heard`] with an [`Answer`] that it may send whenever it has one. Nobody here ever waits for the daemon, nor it for
//! Redis: what is to be said goes into a bounded queue ([`outbox`]), and what finds no room is dropped and counted.
//!
//! | module | what it does |
//! |---|---|
//! | [`server`] | which Redis, and the names of kombu's channels and keys on it |
//! | [`listener`] | requests, and the events of other workers |
//! | [`speaker`] | replies, events, heartbeats |
//! | [`outbox`] | what waits to be said |
//! | [`asked`] | a request on its way to the daemon, and its one answer |
//! | [`permit`] | which commands `[access] celery_control` lets through |
//! | [`revoked`] | ids and stamps that were revoked |
//! | [`meet`] | is another node of this name there, and what do the others know as revoked |

pub mod asked;
mod listener;
pub mod meet;
mod outbox;
pub mod permit;
pub mod revoked;
pub mod server;
mod speaker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use self::asked::Heard;
use self::outbox::Outbox;
use self::revoked::Revoked;
use self::server::Server;
use crate::celery::call::Call;
use crate::celery::control;
use crate::celery::event::{Event, Source};
use crate::celery::json::Fields;
use crate::config::settings::CeleryControl;
use crate::model::time::Wall;

/// Requests that wait for the daemon; a further one is answered that it is busy.
const ASKED: usize = 256;

/// Of the heartbeats of two processes in turn one more than of its own is left each time: after this many there is
/// another process of the name.
const NAMESAKES: u64 = 4;

/// How the peer is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The name towards Celery, [`name`] of the node's.
    pub node: String,
    /// What remote control may do.
    pub control: CeleryControl,
    /// How long to listen for the answers of others before beginning ([`meet`]); zero: nobody is asked.
    pub meet: Duration,
}

/// A node's name towards Celery, whose tools want `name@host`.
#[must_use]
pub fn name(node: &str) -> String {
    format!("taskd@{node}")
}

/// Now, by the wall clock.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves them half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What both threads and the daemon share.
struct Shared {
    node: String,
    server: Server,
    meet: Duration,
    outbox: Outbox,
    clock: AtomicU64,
    control: AtomicU8,
    /// Task events are wanted.
    events: AtomicBool,
    closing: AtomicBool,
    /// Twice the heartbeats of others under this node's name, less its own.
    namesakes: AtomicU64,
    active: AtomicU64,
    processed: AtomicU64,
    revoked: Mutex<Revoked>,
    /// What is wrong, by thread.
    trouble: Mutex<BTreeMap<&'static str, String>>,
}

impl Shared {
    /// The logical clock before something is sent.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// The logical clock after something came.
    fn hear(&self, other: u64) {
        // Another's clock that is at its end must not end this one's.
        let other = other.min(u64::MAX / 2);
        let _ = self
            .clock
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |own| Some(control::clock(own, other)));
    }

    fn source(&self) -> Source<'_> {
        Source { node: &self.node, pid: std::process::id(), clock: self.tick(), at: wall() }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// A heartbeat came under this node's name: its own, or that of another process, of which a single one says
    /// nothing: it may be the last word of this node's process before this one.
    fn namesake(&self, own: bool) {
        let order = Ordering::Relaxed;
        let next = |n: u64| if own { n.saturating_sub(1) } else { (n + 2).min(2 * NAMESAKES) };
        let before = self.namesakes.fetch_update(order, order, |n| Some(next(n))).unwrap_or(0);
        if before <= NAMESAKES && next(before) > NAMESAKES {
            tracing::error!("{}", self.clash());
        }
    }

    fn clash(&self) -> String {
        format!("another process answers as {} on this broker: [taskd] node must be unique", self.node)
    }

    /// Takes note of what is wrong, or that nothing is; said once each.
    fn trouble(&self, who: &'static str, what: Option<&redis::RedisError>) {
        let mut trouble = lock(&self.trouble);
        let was = match what {
            Some(e) => trouble.insert(who, e.to_string()),
            None => trouble.remove(who),
        };
        match (what, was) {
            (Some(e), None) => {
                tracing::warn!("Celery's tools are not {who}: {e} (tried again until it works)");
            }
            (None, Some(_)) => tracing::info!("Celery's tools are {who} again"),
            _ => {}
        }
    }
}

/// The peer. Dropping it ends its threads without a word to anybody, as a death would; [`Peer::close`] says goodbye.
pub struct Peer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl Peer {
    /// Begins. It connects by itself, now and whenever the server was away; what is heard comes on the channel.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn open(server: Server, setup: Setup) -> std::io::Result<(Self, mpsc::Receiver<Heard>)> {
        let (heard, hears) = mpsc::channel(ASKED);
        let shared = Arc::new(Shared {
            node: setup.node,
            server,
            meet: setup.meet,
            outbox: Outbox::default(),
            clock: AtomicU64::new(0),
            control: AtomicU8::new(permit::number(setup.control)),
            events: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            namesakes: AtomicU64::new(0),
            active: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            revoked: Mutex::default(),
            trouble: Mutex::default(),
        });
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(512 << 10);
        let own = Arc::clone(&shared);
        thread("celery-speak").spawn(move || speaker::run(&own))?;
        let own = Arc::clone(&shared);
        let peer = Self { shared };
        thread("celery-listen").spawn(move || listener::run(&own, &heard))?;
        Ok((peer, hears))
    }

    /// The name towards Celery.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.shared.server
    }

    /// The logical clock.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.shared.clock.load(Ordering::Relaxed)
    }

    /// What remote control may do from now on.
    pub fn permit(&self, control: CeleryControl) {
        self.shared.control.store(permit::number(control), Ordering::Relaxed);
    }

    /// Whether anybody wants task events: [`Self::happened`] does nothing otherwise, and need not be called.
    #[must_use]
    pub fn wants_events(&self) -> bool {
        self.shared.events.load(Ordering::Relaxed)
    }

    /// Tells of something that happened to a task, if anybody wants it. Never waits.
    pub fn happened(&self, event: &Event<'_>) {
        if self.wants_events() {
            self.shared.outbox.event(event.write(self.shared.source()));
        }
    }

    /// What heartbeats say: attempts that run, and those that ended since the start.
    pub fn vitals(&self, active: u64, processed: u64) {
        self.shared.active.store(active, Ordering::Relaxed);
        self.shared.processed.store(processed, Ordering::Relaxed);
    }

    /// Takes over what was revoked before this start, with when; what is too old, or too much, is left out.
    pub fn remember(&self, ids: impl IntoIterator<Item = (String, Wall)>) {
        let mut revoked = lock(&self.shared.revoked);
        for (id, at) in ids {
            revoked.add(&id, at);
        }
    }

    /// Likewise of stamps.
    pub fn remember_stamps(&self, stamps: &Fields, at: Wall) {
        lock(&self.shared.revoked).add_stamps(stamps, at);
    }

    /// Whether this id was revoked: a message that arrives with it is not to be run.
    #[must_use]
    pub fn is_revoked(&self, id: &str) -> bool {
        lock(&self.shared.revoked).has(id, wall())
    }

    /// Whether a call was revoked, by its id or by one of its stamps.
    #[must_use]
    pub fn is_revoked_call(&self, call: &Call) -> bool {
        lock(&self.shared.revoked).means(call, wall())
    }

    /// Drops what was revoked too long ago, and says what: nobody need keep it any more.
    #[must_use]
    pub fn forget(&self) -> Vec<String> {
        lock(&self.shared.revoked).drain_old(wall())
    }

    /// Why Celery's tools do not see this node, or what was lost: a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let trouble = lock(&self.shared.trouble);
        let mut notes: Vec<String> =
            trouble.iter().map(|(who, why)| format!("Celery's tools are not {who}: {why}")).collect();
        if self.shared.namesakes.load(Ordering::Relaxed) > NAMESAKES {
            notes.push(self.shared.clash());
        }
        if let dropped @ 1.. = self.shared.outbox.dropped() {
            notes.push(format!(
                "{dropped} events for Celery's tools were dropped: the server was away or slower than they came"
            ));
        }
        notes
    }

    /// Says goodbye (`worker-offline`), after all that waits to be said; at most so long.
    pub fn close(self, patience: Duration) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.outbox.close();
        self.shared.outbox.wait_finished(std::time::Instant::now() + patience);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // After `close` this does nothing more.
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.outbox.abandon();
    }
}
