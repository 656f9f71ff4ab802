//! The nodes of a shared store: this one tells of itself every few seconds, and is told of the others by the answer.
//!
//! No two clocks are compared: how long ago another node was seen is how long ago what it told changed, by this node's
//! own clock. Only of what was told before this node looked first is the other's word taken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::{Daemon, OWN_TICKETS};
use super::{broker, clock, handle};
use crate::broker::Broker;
use crate::control::api::{NodePoolView, NodeView};
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::time::{Mono, Now, Wall};

/// How often this node tells of itself, in milliseconds.
const EVERY_MS: u64 = 5_000;

/// A node that told nothing for so long is gone: others have taken over what it held, or do so now.
const GONE_MS: u64 = broker::LEASE.as_millis() as u64;

/// What a node tells that has ended in order.
const STOPPED: &str = "stopped";

/// What a node tells of itself, as JSON. Fields that are not there yet in an older taskd, or not any more in a newer
/// one, are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    version: String,
    host: String,
    state: String,
    since: i64,
    pools: Vec<NodePoolView>,
}

/// What is known of one node.
#[derive(Clone, Debug)]
struct Known {
    told: Told,
    /// When it told that, by its own clock: only looked at for a change.
    at: Wall,
    /// When that was seen first, by this node's clock.
    seen: Mono,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Nodes {
    known: BTreeMap<String, Known>,
    /// When this node tells of itself next; absent: the store is this node's own.
    next: Option<Mono>,
    under_way: bool,
}

impl Nodes {
    /// When there is something to do.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.next.filter(|_| !self.under_way)
    }

    /// What the store knows, now.
    fn heard(&mut self, rows: Vec<(String, String, Wall)>, now: Now) {
        let mut known = BTreeMap::new();
        for (name, told, at) in rows {
            let before = self.known.remove(&name);
            let row = match before {
                Some(same) if same.at == at => same,
                before => {
                    let told = serde_json::from_str(&told).unwrap_or_default();
                    // What was there at the first look may be old.
                    let age = if before.is_some() { 0 } else { now.wall.since(at) };
                    Known { told, at, seen: Mono(now.mono.0.saturating_sub(age)) }
                }
            };
            known.insert(name, row);
        }
        self.known = known;
    }

    /// As they are shown; `this` is this node's name.
    fn views(&self, this: &str, now: Now) -> Vec<NodeView> {
        let view = |(name, known): (&String, &Known)| {
            let age = now.mono.since(known.seen);
            let Told { version, host, state, since, pools } = known.told.clone();
            let gone = state != STOPPED && age >= GONE_MS && name != this;
            NodeView {
                name: name.clone(),
                this: name == this,
                version,
                host,
                state: if gone { "gone".to_owned() } else { state },
                since,
                seen: now.wall.0.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)),
                pools,
            }
        };
        self.known.iter().map(view).collect()
    }
}

/// To be called in each round.
pub fn turn(d: &mut Daemon, now: Now) {
    if !d.store.caps().shared || d.finished || d.handing_over {
        d.nodes.next = None;
        return;
    }
    if d.nodes.under_way || d.nodes.next.is_some_and(|at| at > now.mono) {
        return;
    }
    d.nodes.next = Some(now.mono.plus(EVERY_MS));
    d.nodes.under_way = true;
    let op = op(d, &handle::status::state(d));
    // A store that is away is told of elsewhere.
    d.read(op, Box::new(|d, reply| drop(answered(d, reply))));
}

/// Tells of this node and has `then` be told of all, as they are now; none, where the store is this node's own.
pub fn ask(d: &mut Daemon, then: impl FnOnce(&mut Daemon, Vec<NodeView>) + 'static) {
    if !d.store.caps().shared {
        return then(d, Vec::new());
    }
    let op = op(d, &handle::status::state(d));
    d.read(
        op,
        Box::new(move |d, reply| {
            let _ = answered(d, reply);
            let views = d.nodes.views(&d.settings.taskd.node, clock::now());
            then(d, views);
        }),
    );
}

/// Tells that this node ends in order, before the store is closed.
pub fn leave(d: &mut Daemon) {
    if d.store.caps().shared {
        let op = op(d, STOPPED);
        // Nobody is left to hear the answer.
        d.store.submit(vec![(Ticket(OWN_TICKETS - 1), op)]);
    }
}

fn answered(d: &mut Daemon, reply: Result<Reply, Fault>) -> Result<(), Fault> {
    d.nodes.under_way = false;
    if let Reply::Nodes(rows) = reply? {
        d.nodes.heard(rows, clock::now());
    }
    Ok(())
}

fn op(d: &Daemon, state: &str) -> Op {
    let view = d.engine.view();
    let busy = |name: &str| view.pools.iter().find(|p| p.name == name).map_or(0, |p| p.busy);
    let pools = d.settings.pools.values().map(|pool| NodePoolView {
        name: pool.name.clone(),
        processes: pool.processes,
        busy: u32::try_from(busy(&pool.name)).unwrap_or(u32::MAX),
    });
    let told = Told {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        state: state.to_owned(),
        since: d.start.since,
        pools: pools.collect(),
    };
    Op::Node {
        name: d.settings.taskd.node.clone(),
        announce: serde_json::to_string(&told).unwrap_or_default(),
        now: clock::now().wall,
    }
}

/// The machine's name: that of a node may be any other.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, wall: i64) -> Now {
        Now { mono: Mono(ms), wall: Wall(wall) }
    }

    fn row(name: &str, state: &str, wall: i64) -> (String, String, Wall) {
        (name.to_owned(), format!(r#"{{"state":"{state}","version":"1","newer":true}}"#), Wall(wall))
    }

    fn states(nodes: &Nodes, now: Now) -> Vec<(String, String, i64)> {
        nodes.views("a", now).into_iter().map(|n| (n.name, n.state, n.seen)).collect()
    }

    #[test]
    fn a_node_is_gone_when_its_word_does_not_change_whatever_its_clock_says() {
        let mut nodes = Nodes::default();
        let hour = 3_600_000;
        // b's clock is an hour behind, c's an hour ahead; c is dead.
        let rows =
            |t: i64| vec![row("a", "running", t), row("b", "draining", t - hour), row("c", "running", hour)];
        nodes.heard(rows(1_000), at(10_000_000, 1_000));
        nodes.heard(rows(6_000), at(10_005_000, 6_000));
        let told = |name: &str, state: &str, seen| (name.to_owned(), state.to_owned(), seen);
        let wanted = [told("a", "running", 6_000), told("b", "draining", 6_000), told("c", "running", 1_000)];
        assert_eq!(states(&nodes, at(10_005_000, 6_000)), wanted);
        nodes.heard(rows(31_000), at(10_030_000, 31_000));
        assert_eq!(states(&nodes, at(10_030_000, 31_000))[2], told("c", "gone", 1_000));
        // What the store forgot is forgotten.
        nodes.heard(vec![row("a", "running", 0)], at(10_030_000, 31_000));
        assert_eq!(nodes.known.len(), 1);
    }

    #[test]
    fn what_was_told_long_ago_is_old_at_the_first_look_and_what_ended_in_order_is_not_gone() {
        let mut nodes = Nodes::default();
        nodes.heard(vec![row("b", "running", 1_000), row("c", STOPPED, 1_000)], at(500_000, 91_000));
        let states = states(&nodes, at(500_000, 91_000));
        assert_eq!(states[0], ("b".to_owned(), "gone".to_owned(), 1_000));
        assert_eq!(states[1], ("c".to_owned(), "stopped".to_owned(), 1_000));
    }
}
