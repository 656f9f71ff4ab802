//! The seam to a store of messages: operations as data go in, completions come out in any order.
//!
//! Every adapter, the model of the simulation included, passes the one suite in `tests/contract`.

use crate::model::op::{Caps, Fault, Op, Reply, Ticket};

pub mod admission;
mod done;
pub mod joins;
pub mod model;
pub mod redis;
pub mod rules;
pub mod sqlite;
pub mod store;

/// One completed operation.
pub type Completion = (Ticket, Result<Reply, Fault>);

/// A store of messages.
pub trait Broker: Send {
    /// Takes operations and returns at once; each is answered by exactly one [`Completion`].
    ///
    /// Operations of one call, and of calls after one another, take effect in their order where they
    /// touch the same message.
    fn submit(&mut self, ops: Vec<(Ticket, Op)>);

    /// What this store can do.
    fn caps(&self) -> Caps;
}
