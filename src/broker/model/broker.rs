//! The model behind the broker seam.

use std::sync::mpsc::Sender;

use super::{CAPS, Model};
use crate::broker::{Broker, Completion};
use crate::model::op::{Caps, Op, Ticket};

/// Answers every operation at once, through a channel.
#[derive(Debug)]
pub struct ModelBroker {
    /// The store.
    pub model: Model,
    done: Sender<Completion>,
}

impl ModelBroker {
    /// A broker over this model.
    #[must_use]
    pub fn new(model: Model, done: Sender<Completion>) -> Self {
        Self { model, done }
    }
}

impl Broker for ModelBroker {
    fn submit(&mut self, ops: Vec<(Ticket, Op)>) {
        for (ticket, op) in ops {
            // Nobody listens any more: the submitter is gone, and with it whoever could miss the answer.
            let _ = self.done.send((ticket, self.model.apply(op)));
        }
    }

    fn caps(&self) -> Caps {
        CAPS
    }
}
