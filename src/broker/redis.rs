//! The store on a Redis server (or Valkey) that nodes share.
//!
//! Every operation is a script, so it is one step for whoever else talks to the server, and a lost answer leaves
//! nothing half done. What arrives while a script is on its way goes into the next one together. The rows of messages
//! and the indexes over them are those of the other stores (`lua/base.lua`); the suite in `tests/contract` judges all of
//! them by the same cases.

mod args;
mod decode;
mod encode;
mod flows;
mod message;
mod outcomes;
mod reply;
mod script;
mod steps;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Broker, Completion};
use crate::model::op::{Caps, Fault, Op, Ticket};
use store::Request;

/// What this store can do.
pub const CAPS: Caps = Caps { atomic_settle: true, permits: true, ticks: true, listing: true, shared: true };

/// Opens a connection.
pub type Open = Box<dyn FnMut() -> Result<redis::Connection, redis::RedisError> + Send>;

/// Takes completions; called on the store's thread, so it must not block. Without any where [`Redis::trouble`] changed.
pub type OnDone = Box<dyn Fn(Vec<Completion>) + Send>;

/// How a store is opened.
pub struct Options {
    /// Stands before every key, as Celery's `global_keyprefix` does.
    pub keyprefix: String,
    /// This node's name: no other one that talks to this server has it.
    pub node: String,
    /// How long after its last word what a node holds is given to others.
    pub lease: Duration,
}

/// The store. Dropping it ends it in order.
pub struct Redis {
    requests: Sender<Request>,
    done: Done,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

/// Where completions go.
#[derive(Clone)]
struct Done(Arc<Mutex<OnDone>>);

impl Done {
    fn wake(&self) {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (*done)(Vec::new());
    }

    fn call(&self, completions: Vec<Completion>) {
        if !completions.is_empty() {
            // A callback that panicked once is called again: losing answers would be worse.
            let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (*done)(completions);
        }
    }
}

/// What the thread tells beside answers.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Option<String>>>);

impl Shared {
    fn set_trouble(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("trouble", &self.trouble()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Begins to talk to the server behind `open`; where it is away, the store goes on trying.
    ///
    /// # Errors
    /// The system's, where there can be no further thread.
    pub fn open(options: Options, open: Open, on_done: OnDone) -> std::io::Result<Self> {
        let done = Done(Arc::new(Mutex::new(on_done)));
        let shared = Shared::default();
        let (requests, received) = mpsc::channel();
        let store = store::Store {
            open,
            shared: shared.clone(),
            requests: received,
            done: done.clone(),
            link: None,
            prefix: format!("{}taskd.", options.keyprefix),
            node: options.node,
            lease_ms: u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX),
            laps: BTreeMap::new(),
            waiting: VecDeque::new(),
            closing: false,
            told: None,
            tries: 0,
            next_try: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("taskd-store".to_owned()).spawn(move || store.run())?;
        Ok(Self { requests, done, shared, thread: Some(thread) })
    }

    /// Why nothing can be done now, in a sentence; `None` while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// Finishes what was submitted and says goodbye.
    pub fn close(self) {
        drop(self);
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
            let gone = || Err(Fault::Refused("the store's thread has ended; restart taskd".to_owned()));
            self.done.call(ops.into_iter().map(|(ticket, _)| (ticket, gone())).collect());
        }
    }

    fn caps(&self) -> Caps {
        CAPS
    }
}
