//! A request on its way to the daemon, and its one answer.

use std::sync::Arc;

use super::{Shared, wall};
use crate::celery::control::reply::{self, Reply};
use crate::celery::control::{Command, Request};
use crate::celery::moment::unix;

/// The one exchange that replies go to: a request must not choose the key that is written.
const REPLIES: &str = "reply.celery.pidbox";

/// What the daemon is told.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a request is handed on at once, few are ever queued")]
pub enum Heard {
    /// Somebody asks.
    Asked(Asked),
    /// These were revoked, and are so from now on; they are to be kept over a restart.
    Revoked(Vec<String>),
    /// Another process answers under this node's name.
    Clash {
        /// The name.
        node: String,
    },
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub command: Command,
    /// Where the answer goes.
    pub answer: Answer,
}

/// Where the one answer to a request goes. One that is dropped says that there is none.
pub struct Answer {
    to: Option<(Request, Arc<Shared>)>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Answer {
    pub(super) fn new(request: Request, shared: &Arc<Shared>) -> Self {
        Self { to: Some((request, Arc::clone(shared))) }
    }

    /// Sends the answer. Never waits.
    pub fn send(mut self, reply: &Reply) {
        self.put(reply);
    }

    /// Says nothing, as to a shutdown.
    pub fn silent(mut self) {
        self.to = None;
    }

    fn put(&mut self, reply: &Reply) {
        let Some((request, shared)) = self.to.take() else { return };
        let waits = |to: &&crate::celery::control::ReplyTo| to.exchange == REPLIES && !is_late(&request);
        let Some(to) = request.reply_to.as_ref().filter(waits) else { return };
        let tag = uuid::Uuid::new_v4().to_string();
        if let Some(message) = reply::message(&request, &shared.node, reply, shared.tick(), &tag) {
            shared.outbox.reply(to.clone(), message.write());
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.put(&Reply::Error("taskd could not answer this: it is stopping, or overloaded".to_owned()));
    }
}

/// Whether nobody waits for a request any more.
pub(super) fn is_late(request: &Request) -> bool {
    request.expires.is_some_and(|at| at < unix(wall()))
}
