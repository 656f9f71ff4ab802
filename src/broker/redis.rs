//! The store on a Redis server (or Valkey) that nodes share.
//!
//! Every operation is a script, so it is one step for whoever else talks to the server, and a lost answer leaves
//! nothing half done. What arrives while a script is on its way goes into the next one together. The rows of messages
//! and the indexes over them are those of the other stores (`lua/base.lua`); the suite in `tests/contract` judges all of
//! them by the same cases.

mod app;
mod args;
pub mod celery;
mod decode;
mod dial;
mod encode;
mod express;
mod flows;
mod full;
mod guard;
mod message;
mod name;
mod outcomes;
pub mod outside;
mod reply;
mod script;
mod stale;
mod steps;
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Broker;
use super::done::Done;
pub use super::done::OnDone;
use crate::link::redis::fault::Ask;
use crate::link::redis::{Address, LinkError, Timeouts, Told, Watch};
use crate::model::name::MessageId;
use crate::model::op::{Caps, Op, Ticket};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::Fallout;
use store::Request;

/// What this store can do.
pub const CAPS: Caps = Caps { atomic_settle: true, permits: true, ticks: true, listing: true, shared: true };

/// What other nodes, clients of Celery and the server make known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Messages may wait in these queues, and something may be due at this time.
    Queues(Vec<String>, Option<Wall>),
    /// These ended, which Celery workers ran; what else that did.
    Over(Vec<(MessageId, State)>, Fallout),
    /// Somebody at another node wants this message to end, which this one holds.
    Cancel(MessageId),
    /// Whatever was said may have been missed.
    All,
    /// This node could not say for too long that it lives: others may have taken over what it holds.
    Lapsed,
    /// Another process has this node's name, and lives: why nothing can be done, in a sentence.
    Clash(String),
}

/// Takes what was made known; called on the store's threads, so it must not block.
pub type OnWake = Box<dyn Fn(Woken) + Send>;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is, its credentials resolved.
    pub address: Address,
    /// A server that drops keys when its memory is full is taken all the same.
    pub allow_eviction: bool,
    /// This node's name: no other one that talks to this server has it.
    pub node: String,
    /// What only one process at a time can be, whatever it is called, and what it is again when it is started anew.
    pub identity: String,
    /// How long after its last word what a node holds is given to others.
    pub lease: Duration,
    /// What it is to Celery; absent: nothing.
    pub peer: Option<celery::Peer>,
}

/// The store. Dropping it ends it in order.
pub struct Redis {
    requests: Sender<Request>,
    done: Done,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
    watch: Watch,
    prefix: String,
    metas: String,
    lists: Lists,
}

/// The keys of kombu's lists, and the queues that they are of.
type Lists = Arc<Mutex<BTreeMap<String, String>>>;

/// Where it goes what others make known.
#[derive(Clone)]
struct Wake(Arc<Mutex<OnWake>>);

impl Wake {
    fn call(&self, woken: Woken) {
        (*self.0.lock().unwrap_or_else(PoisonError::into_inner))(woken);
    }

    /// What another node published: its name, when something is due, and queues, a line each.
    fn call_for(&self, node: &str, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let mut lines = text.lines();
        if lines.next() == Some(node) {
            return;
        }
        let due = lines.next().and_then(|due| due.parse().ok()).map(Wall);
        self.call(Woken::Queues(lines.map(str::to_owned).collect(), due));
    }
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server is there and cannot be the broker until a person changes something.
    #[error("{error}{}", hint(error))]
    Refused {
        /// Why.
        error: LinkError,
    },
    /// The system's.
    #[error("no thread for the store: {0}")]
    Thread(std::io::Error),
}

fn hint(error: &LinkError) -> String {
    if error.help().is_empty() { String::new() } else { format!(" ({})", error.help()) }
}

/// What the thread tells beside answers, and is told beside operations.
#[derive(Clone, Default)]
struct Shared(Arc<Beside>);

#[derive(Default)]
struct Beside {
    trouble: Mutex<Option<String>>,
    /// Whose this node's name is, is not known yet.
    undecided: AtomicBool,
    /// What a person should know though work goes on.
    notes: Mutex<Vec<String>>,
    /// What is held stays held when the thread ends: the next daemon goes on with it.
    stays: AtomicBool,
}

impl Shared {
    fn set_trouble(&self, trouble: Option<String>) {
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_notes(&self, notes: Vec<String>) {
        *self.0.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    fn set_undecided(&self, undecided: bool) {
        self.0.undecided.store(undecided, Ordering::Release);
    }

    fn undecided(&self) -> bool {
        self.0.undecided.load(Ordering::Acquire)
    }

    fn stays(&self) -> bool {
        self.0.stays.load(Ordering::Acquire)
    }
}

/// Watches the lists of kombu and what other nodes say.
fn watch(options: &Options, lists: &Lists, wake: Wake, requests: Sender<Request>) -> std::io::Result<Watch> {
    let prefix = options.address.prefix.clone();
    let (node, channel) = (options.node.clone(), format!("{prefix}taskd.wake"));
    let (over, metas) = (format!("{prefix}taskd.over"), store::metas(options));
    let (ends, cancel) = (over.clone(), format!("{prefix}taskd.cancel:{node}"));
    let cancels = cancel.clone();
    let lists = lists.clone();
    let timeouts = Timeouts::of(&options.address);
    let tell = move |told: Told| match told {
        Told::Filled { key } | Told::Key { key, .. } => {
            let queue = lists.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
            wake.call(Woken::Queues(queue.into_iter().collect(), None));
        }
        Told::Message { channel, payload } if channel == ends => {
            outside::told(&node, &payload).into_iter().for_each(|woken| wake.call(woken));
        }
        Told::Message { channel, payload } if channel == cancels => {
            wake.call(Woken::Cancel(MessageId(String::from_utf8_lossy(&payload).into_owned())));
        }
        Told::Message { channel, payload } => match outside::ended(&metas, &channel, &payload) {
            // The thread is gone only when the store is.
            Some(id) => drop(requests.send(Request::Result(id))),
            None if channel.ends_with("taskd.wake") => wake.call_for(&node, &payload),
            None => {}
        },
        // What was said while nobody listened is not said again.
        Told::Up(_) => wake.call(Woken::All),
        Told::Down(_) => {}
    };
    let watch = Watch::start(options.address.clone(), timeouts, &options.node, tell)?;
    watch.subscribe(&channel);
    watch.subscribe(&over);
    watch.subscribe(&cancel);
    Ok(watch)
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("trouble", &self.trouble()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Begins to talk to the server; where it is away, the store goes on trying.
    ///
    /// # Errors
    /// Why this server can never be the broker; or there can be no further thread.
    pub fn open(options: Options, on_done: OnDone, on_wake: OnWake) -> Result<Self, OpenError> {
        let done = Done::new(on_done);
        let wake = Wake(Arc::new(Mutex::new(on_wake)));
        let shared = Shared::default();
        let link = match dial::Link::open(&options) {
            Ok(link) => Some(link),
            Err(error) if error.ask() == Ask::Refused => return Err(OpenError::Refused { error }),
            Err(error) => {
                shared.set_trouble(Some(error.to_string()));
                None
            }
        };
        let (requests, received) = mpsc::channel();
        let lists = Lists::default();
        let watch = watch(&options, &lists, wake.clone(), requests.clone()).map_err(OpenError::Thread)?;
        let (prefix, metas) = (options.address.prefix.clone(), store::metas(&options));
        let peer = options.peer.clone();
        let store = store::Store::new(options, link, received, done.clone(), wake, shared.clone());
        let thread = std::thread::Builder::new().name("taskd-store".to_owned());
        let thread = thread.spawn(move || store.run()).map_err(OpenError::Thread)?;
        let store = Self { requests, done, shared, thread: Some(thread), watch, prefix, metas, lists };
        if let Some(peer) = peer {
            store.listen(&peer);
        }
        Ok(store)
    }

    /// What this node is to Celery from now on: its settings were replaced.
    pub fn know(&self, peer: celery::Peer) {
        self.listen(&peer);
        // The thread is gone only where every answer says so.
        let _ = self.requests.send(Request::Peer(Box::new(peer)));
    }

    /// Hears of the lists of these queues, and of results where there are any of others to wait for.
    fn listen(&self, peer: &celery::Peer) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in &peer.queues {
            for list in celery::lists(queue) {
                lists.insert(format!("{}{list}", self.prefix), queue.clone());
            }
        }
        self.watch.add_keys(lists.keys().map(String::as_str));
        if !peer.outside.queues.is_empty() {
            self.watch.subscribe_pattern(&outside::results(&self.metas));
        }
    }

    /// Why nothing can be done now, in a sentence; `None` while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// What was lost, or may be: a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.shared.0.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is still to be seen if this node's name is its own.
    #[must_use]
    pub fn undecided(&self) -> bool {
        self.shared.undecided()
    }

    /// Finishes what was submitted and says goodbye: what this node holds is given to others.
    pub fn close(self) {
        drop(self);
    }

    /// Finishes what was submitted; what this node holds stays its own, for the daemon that comes next.
    pub fn hand_over(self) {
        self.shared.0.stays.store(true, Ordering::Release);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The thread is gone already only if it panicked.
        let _ = self.requests.send(Request::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Broker for Redis {
    fn submit(&mut self, ops: Vec<(Ticket, Op)>) {
        if let Err(mpsc::SendError(Request::Ops(ops))) = self.requests.send(Request::Ops(ops)) {
            self.done.gone(ops);
        }
    }

    fn caps(&self) -> Caps {
        CAPS
    }
}
