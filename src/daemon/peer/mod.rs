//! The daemon as a peer of Celery's tools: what they ask is mapped to the requests of `taskd` itself, and what happens
//! to messages is told as Celery's events. The wire is `control::celery`'s.
//!
//! | file | what it answers or does |
//! |---|---|
//! | `inspect` | what only looks: active, reserved, scheduled, registered, stats, active_queues, conf, report, query_task |
//! | `act` | what changes something: revokes, limits, queues, pools, shutdown |
//! | `revokes` | what was revoked, kept over restarts |
//! | `happen` | notes of the engine as events |

mod act;
mod happen;
mod inspect;
mod revokes;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::state::Daemon;
use crate::celery::call::{Call, Order};
use crate::celery::control::reply::Reply;
use crate::config::settings::Settings;
use crate::control::celery::asked::Heard;
use crate::control::celery::server::Server;
use crate::control::celery::{Peer, Setup, name};
use crate::model::message::{Delivery, Message};
use crate::model::name::MessageId;
use crate::model::op;

pub use happen::note;

/// Exit code of a node whose name another one has, of sysexits(3): EX_CONFIG.
const CLASH: u8 = 78;

/// How long others are listened to at the start, as long as Celery's workers do.
const MEET: Duration = Duration::from_secs(1);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Most tasks that are counted by name: a pattern declares any number of them.
const MAX_COUNTED: usize = 1_000;

/// What the daemon knows beside its books because Celery's tools ask for it.
#[derive(Debug)]
pub struct Celery {
    peer: Peer,
    /// Messages under a lease of this node, by id: a child has the arguments by the time somebody asks for them.
    held: BTreeMap<String, Taken>,
    /// Attempts started, by task.
    started: BTreeMap<String, u64>,
    /// All of them.
    processed: u64,
    /// What was revoked before this start could not be read behind this key: the store was away.
    unread: Option<String>,
    /// Records that are being looked up for an event.
    looking: usize,
    /// Time limits in milliseconds of tasks that were given others than the config's: hard, soft.
    limits: BTreeMap<String, (Option<u64>, Option<u64>)>,
}

/// A message under a lease.
#[derive(Debug)]
struct Taken {
    message: Message,
    /// It was leased before.
    again: bool,
    /// Its `task-received` was sent.
    told: bool,
}

impl Taken {
    fn call(&self) -> Call {
        Call::of_message(&self.message, Order::LowFirst)
    }
}

/// Begins to be a peer on this server.
///
/// # Errors
/// A sentence, when the system has no thread left.
pub fn open(settings: &Settings, server: Server) -> Result<(Celery, Receiver<Heard>), String> {
    let node = name(&settings.taskd.node);
    let setup = Setup { node, control: settings.access.celery_control, meet: MEET };
    let (peer, hears) =
        Peer::open(server, setup).map_err(|e| format!("no thread for Celery's tools: {e}"))?;
    let celery = Celery {
        peer,
        held: BTreeMap::new(),
        started: BTreeMap::new(),
        processed: 0,
        looking: 0,
        unread: None,
        limits: BTreeMap::new(),
    };
    Ok((celery, hears))
}

/// To be called once the store takes operations: what was revoked before this start is read.
pub fn begin(d: &mut Daemon) {
    if d.celery.is_some() {
        revokes::load(d, String::new());
    }
}

/// To be called when the store is back.
pub fn again(d: &mut Daemon) {
    if let Some(after) = d.celery.as_mut().and_then(|celery| celery.unread.take()) {
        revokes::load(d, after);
    }
}

/// To be called in each round: what heartbeats say.
pub fn turn(d: &Daemon) {
    if let Some(celery) = &d.celery {
        celery.peer.vitals(u64::try_from(d.running()).unwrap_or(u64::MAX), celery.processed);
    }
}

/// To be called when the settings were replaced.
pub fn reloaded(d: &mut Daemon) {
    let control = d.settings.access.celery_control;
    if let Some(celery) = &mut d.celery {
        celery.peer.permit(control);
        celery.limits.clear();
    }
}

/// Says goodbye.
pub async fn close(d: &mut Daemon) {
    if let Some(celery) = d.celery.take() {
        let _ = tokio::task::spawn_blocking(move || celery.peer.close(GOODBYE)).await;
    }
}

/// What is wrong between this node and Celery's tools, for `taskd status`.
#[must_use]
pub fn notes(d: &Daemon) -> Vec<String> {
    d.celery.as_ref().map(|celery| celery.peer.notes()).unwrap_or_default()
}

/// Whether a message with this id is not to be run: its revoke came before it did. For whoever takes messages in.
#[must_use]
pub fn is_revoked(d: &Daemon, id: &MessageId) -> bool {
    d.celery.as_ref().is_some_and(|celery| celery.peer.is_revoked(id.as_str()))
}

/// Likewise of a call, whose stamps may be revoked too.
#[must_use]
pub fn is_revoked_call(d: &Daemon, call: &Call) -> bool {
    d.celery.as_ref().is_some_and(|celery| celery.peer.is_revoked_call(call))
}

/// Something was heard.
pub fn heard(d: &mut Daemon, heard: Heard) {
    match heard {
        Heard::Asked(asked) => {
            if d.finished || d.handing_over {
                return asked.answer.send(&Reply::Error("taskd is stopping".to_owned()));
            }
            if let Some(asked) = inspect::answer(d, asked) {
                act::answer(d, asked);
            }
        }
        Heard::Revoked(ids) => revokes::keep(d, &ids),
        Heard::Clash { node } => {
            let message = format!(
                "another process on {} answers as {node}: two nodes of one broker need names of their own ([taskd] node)",
                d.celery.as_ref().map(|celery| celery.peer.server().url()).unwrap_or_default()
            );
            d.failed = Some((CLASH, message));
        }
    }
}

/// The answer of a store came: what it handed out is held from now on.
pub fn taken(d: &mut Daemon, reply: &op::Reply) {
    if d.celery.is_none() {
        return;
    }
    match reply {
        op::Reply::Leased { deliveries, .. } | op::Reply::Deliveries(deliveries) => hold(d, deliveries),
        op::Reply::With(reply, _) => taken(d, reply),
        _ => {}
    }
}

fn hold(d: &mut Daemon, deliveries: &[Delivery]) {
    let Some(celery) = &mut d.celery else { return };
    for delivery in deliveries {
        let message = delivery.message.clone();
        let mut taken = Taken { message, again: delivery.attempt > 1, told: false };
        if celery.peer.wants_events() {
            happen::received(&celery.peer, &mut taken);
        }
        celery.held.insert(delivery.message.id.0.clone(), taken);
    }
    // What was given back without a word is not held any more.
    if celery.held.len() > 64 + 2 * d.engine.held() {
        let engine = &d.engine;
        let new = |id: &str| deliveries.iter().any(|delivery| delivery.message.id.as_str() == id);
        celery.held.retain(|id, _| new(id) || engine.holds(&MessageId(id.clone())));
    }
}
