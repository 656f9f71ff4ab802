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

    /// Finishes what was submitted and closes it.
    pub fn close(self) {
        drop(self);
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
