//! The store that the settings chose.

use super::Broker;
use super::redis::Redis;
use super::sqlite::{Admin, Sqlite};
use crate::model::op::{Caps, Op, Ticket};

/// One of them.
#[derive(Debug)]
pub enum Store {
    /// This node's own file.
    Embedded(Sqlite),
    /// A Redis server that nodes share.
    Redis(Redis),
}

impl Store {
    /// Why nothing new can be written now, in a sentence; `None` while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => store.trouble(),
            Self::Redis(store) => store.trouble(),
        }
    }

    /// What was lost, or may be, though work goes on: a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match self {
            Self::Embedded(_) => Vec::new(),
            Self::Redis(store) => store.notes(),
        }
    }

    /// Whether it is still to be seen if this node may work at all: another process may have its name.
    #[must_use]
    pub fn undecided(&self) -> bool {
        matches!(self, Self::Redis(store) if store.undecided())
    }

    /// What only a file of one's own has: backup, export, verify.
    #[must_use]
    pub fn admin(&self) -> Option<Admin> {
        match self {
            Self::Embedded(store) => Some(store.admin()),
            Self::Redis(_) => None,
        }
    }

    /// What this node is to Celery from now on; nothing where Celery cannot reach the store.
    pub fn know(&self, peer: super::redis::celery::Peer) {
        match self {
            Self::Embedded(_) => {}
            Self::Redis(store) => store.know(peer),
        }
    }

    /// Finishes what was submitted and closes it. What this node holds of a shared store is given to others.
    pub fn close(self) {
        drop(self);
    }

    /// Finishes what was submitted and closes it for the daemon that comes next, whose everything is that is held.
    pub fn hand_over(self) {
        match self {
            Self::Embedded(store) => drop(store),
            Self::Redis(store) => store.hand_over(),
        }
    }
}

impl Broker for Store {
    fn submit(&mut self, ops: Vec<(Ticket, Op)>) {
        match self {
            Self::Embedded(store) => store.submit(ops),
            Self::Redis(store) => store.submit(ops),
        }
    }

    fn caps(&self) -> Caps {
        match self {
            Self::Embedded(store) => store.caps(),
            Self::Redis(store) => store.caps(),
        }
    }
}
