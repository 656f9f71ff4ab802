//! Where a store's completions go, from whichever of its threads.

use std::sync::{Arc, Mutex, PoisonError};

use super::Completion;
use crate::model::op::{Fault, Op, Ticket};

/// Takes completions; called on the store's threads, so it must not block. Without any where its trouble changed.
pub type OnDone = Box<dyn Fn(Vec<Completion>) + Send>;

/// Calls it.
#[derive(Clone)]
pub(super) struct Done(Arc<Mutex<OnDone>>);

impl Done {
    pub(super) fn new(on_done: OnDone) -> Self {
        Self(Arc::new(Mutex::new(on_done)))
    }

    /// The store's trouble changed.
    pub(super) fn wake(&self) {
        self.tell(Vec::new());
    }

    /// These are done; nothing is told of none.
    pub(super) fn call(&self, completions: Vec<Completion>) {
        if !completions.is_empty() {
            self.tell(completions);
        }
    }

    /// Nobody is there to do these any more.
    pub(super) fn gone(&self, ops: Vec<(Ticket, Op)>) {
        let gone = || Err(Fault::Refused("the store's thread has ended; restart taskd".to_owned()));
        self.call(ops.into_iter().map(|(ticket, _)| (ticket, gone())).collect());
    }

    fn tell(&self, completions: Vec<Completion>) {
        // A callback that panicked once is called again: losing answers would be worse.
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (*done)(completions);
    }
}
