//! Whether a message may start under its limits: decided here where this daemon alone writes the store, by the
//! store where it does not know.
//!
//! *Places* (concurrency). While no other node shares the store, everybody who holds a place is among the
//! messages that this engine holds, so it counts them itself. A place is free for it as soon as the attempt
//! has ended; the store hears of that in the settle, before it hears of the next start.
//!
//! *Rates*. After one answered start under a key the engine knows what the store knows of it, and decides by
//! itself from then on: it starts at once and sends [`Op::Start`] behind, which the store records whatever
//! its own limits say ([`Takes::sure`]). Of a key that it does not know (yet, or any more: it keeps the
//! [`KEYS`] it used last) it asks: the message waits with its slot until the store has answered, and
//! meanwhile nothing else of that key starts. Slow rates are asked of each time, because each of their starts
//! is on the disk before it takes place.
//!
//! What can go wrong:
//! - *The daemon dies before a start sent behind is stored.* The child names the run to the next daemon, which
//!   sends the start again before it asks anything of that key ([`Gauge::behind`]). If it has ended
//!   meanwhile, its settle carries what it took. If the child is silent, nothing of the key is asked before
//!   it is known whether it runs. If the child never got it, it did not start.
//! - *The store fails such a start.* It is repeated; what ends the attempt carries the takes until it is
//!   known to be stored, and the store charges them only where it has no start. The key is not forgotten.
//! - *The store fails a question.* It may have taken place: the message goes back, and nobody knows the key's
//!   state until the next answer. A start of a rate may be lost by that, never gained.
//! - *The daemon dies while a question is under way.* Its lease is found and given back, which frees places.
//! - *Daemon and child die together before such a start is stored.* The next daemon finds a message that was
//!   leased and not started, and children that are gone: it charges what the start would have taken. That may
//!   be one start too few, never one too many.
//! - *The machine loses power.* Commits are lost from the end only, and everything of this boot with them;
//!   slow rates were on the disk.
//! - *The clock jumps.* See [`crate::model::limit`].

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::held::{Held, Stage};
use super::rate::Rates;
use crate::model::limit::{self, Scope, Take};
use crate::model::message::{Message, Token};
use crate::model::op::{Fault, Reply, Takes};
use crate::model::time::Wall;

/// Rates whose state is remembered.
const KEYS: usize = 4_096;

/// A message whose limit is free again so soon, in milliseconds, waits for it in the window.
const SHORT_MS: u64 = 20;

/// Limits as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Limits {
    rates: BTreeMap<String, Gauge>,
    /// Keys of `rates` by when they were used.
    used: BTreeMap<u64, String>,
    stamp: u64,
    /// Places held by messages of this node.
    places: BTreeMap<String, u32>,
    pub(super) closed: super::lane::Closings,
    pub(super) set: Rates,
}

/// What is known of a rate.
#[derive(Debug, Default)]
struct Gauge {
    stamp: u64,
    /// Its theoretical arrival time, while nobody else can change it.
    tat: Option<i64>,
    /// Questions under way.
    asked: u32,
    /// Starts that the store does not have yet.
    behind: u32,
}

impl Gauge {
    const fn is_busy(&self) -> bool {
        self.asked > 0 || self.behind > 0
    }
}

/// What a message took, or asks for.
#[derive(Debug)]
pub(super) struct Grip {
    takes: Takes,
    /// The store has not answered the start yet.
    open: bool,
}

/// Whether a message may start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Open,
    /// The store knows.
    Ask,
    /// The store was asked of the same limit and has not answered yet.
    Wait,
    /// No: this is used up, until then (absent: until an attempt ends).
    Closed(Take, Option<Wall>),
}

impl Limits {
    fn gauge(&mut self, key: &str) -> &mut Gauge {
        self.stamp += 1;
        let stamp = self.stamp;
        let gauge = self.rates.entry(key.to_owned()).or_default();
        self.used.remove(&gauge.stamp);
        gauge.stamp = stamp;
        self.used.insert(stamp, key.to_owned());
        gauge
    }

    /// Forgets what was not used for longest, unless something of it is under way.
    fn trim(&mut self) {
        let excess = self.rates.len().saturating_sub(KEYS);
        if excess == 0 {
            return;
        }
        let idle = self.used.iter().filter(|(_, key)| self.rates.get(*key).is_none_or(|g| !g.is_busy()));
        let old: Vec<(u64, String)> = idle.take(excess).map(|(at, key)| (*at, key.clone())).collect();
        for (at, key) in old {
            self.used.remove(&at);
            self.rates.remove(&key);
        }
    }

    fn hold_places(&mut self, takes: &[Take], hold: bool) {
        for take in takes {
            let Take::Place { key, .. } = take else { continue };
            let n = self.places.entry(key.clone()).or_default();
            *n = if hold { *n + 1 } else { n.saturating_sub(1) };
            if *n == 0 {
                self.places.remove(key);
            }
        }
    }

    /// Whether these may be taken now.
    fn gate(&mut self, takes: Vec<Take>, now: Wall, shared: bool) -> Gate {
        let (mut ask, mut wait) = (false, false);
        for take in takes {
            match &take {
                _ if shared => ask = true,
                Take::Place { key, limit } => {
                    if self.places.get(key).is_some_and(|n| n >= limit) {
                        return Gate::Closed(take, None);
                    }
                }
                Take::Rate { key, interval_us, burst } => match self.rates.get_mut(key) {
                    None => ask = true,
                    Some(gauge) if gauge.asked > 0 => wait = true,
                    Some(Gauge { tat: None, behind, .. }) => {
                        ask |= *behind == 0;
                        wait |= *behind > 0;
                    }
                    Some(Gauge { tat: Some(tat), .. }) => {
                        *tat = limit::set_right(*tat, now, *interval_us, *burst).unwrap_or(*tat);
                        match limit::take(Some(*tat), now, *interval_us, *burst) {
                            Err(until) => return Gate::Closed(take, Some(until)),
                            Ok(_) => ask |= take.is_slow(),
                        }
                    }
                },
            }
        }
        match (wait, ask) {
            (true, _) => Gate::Wait,
            (_, true) => Gate::Ask,
            _ => Gate::Open,
        }
    }

    /// A start that took place, or is to: counts it.
    fn commit(&mut self, takes: &[Take], now: Wall, sure: bool) {
        for take in takes {
            let Take::Rate { key, interval_us, burst } = take else { continue };
            let gauge = self.gauge(key);
            if sure {
                gauge.behind += 1;
                gauge.tat = gauge.tat.map(|tat| {
                    let next = limit::take(Some(tat), now, *interval_us, *burst);
                    next.unwrap_or_else(|_| limit::charge(Some(tat), now, *interval_us))
                });
            } else {
                gauge.asked += 1;
                gauge.tat = None;
            }
        }
        self.trim();
    }

    /// The store has answered a start, or will not. `tats`: what it said of the rates.
    fn answered(&mut self, grip: &Grip, tats: &[i64], shared: bool) {
        let keys = grip.takes.list.iter().filter_map(|take| match take {
            Take::Rate { key, .. } => Some(key),
            Take::Place { .. } => None,
        });
        for (n, key) in keys.enumerate() {
            let Some(gauge) = self.rates.get_mut(key) else { continue };
            if grip.takes.sure {
                gauge.behind = gauge.behind.saturating_sub(1);
                continue;
            }
            gauge.asked = gauge.asked.saturating_sub(1);
            if !gauge.is_busy() && !shared {
                gauge.tat = tats.get(n).copied();
            }
        }
    }
}

impl Held {
    /// What its attempt took of which the store may not know.
    pub(super) fn unrecorded(&self) -> Vec<Take> {
        let open = self.grip.as_ref().filter(|grip| grip.open && grip.takes.sure);
        let rates = open.into_iter().flat_map(|grip| &grip.takes.list);
        rates.filter(|take| matches!(take, Take::Rate { .. })).cloned().collect()
    }

    /// Whether the store may refuse its start.
    pub(super) fn asks(&self) -> bool {
        self.grip.as_ref().is_some_and(|grip| !grip.takes.sure)
    }

    /// What its start says of limits.
    pub(super) fn takes(&self) -> Takes {
        self.grip.as_ref().map(|grip| grip.takes.clone()).unwrap_or_default()
    }
}

impl Engine {
    /// What a start of this message takes.
    pub(super) fn takes_of(&self, message: &Message) -> Vec<Take> {
        let throttle = self.throttle(&message.task).filter(|t| !t.is_empty());
        let mut takes = throttle.map(|t| t.takes(&message.task, message.lane.as_deref())).unwrap_or_default();
        takes.extend(super::unique::place_of(message).map(|key| limit::one_at_a_time(&key)));
        let queue = &message.queue;
        takes.extend(self.queue_rate(queue).map(|rate| limit::queue_rate(queue, &rate)));
        if self.plan.shared {
            let places = self.plan.queues.get(queue).and_then(|q| q.concurrency);
            takes.extend(places.map(|n| limit::queue_place(queue, n)));
        }
        takes
    }

    /// Whether a message in a window may start now. One that may not is dealt with; false then.
    pub(super) fn may_start(
        &mut self,
        queue: &str,
        token: Token,
        passed_over: &mut BTreeSet<Token>,
        out: &mut Vec<super::command::Command>,
    ) -> bool {
        let Some(held) = self.held.get(&token) else { return false };
        let takes = self.takes_of(&held.message);
        if takes.is_empty() {
            return true;
        }
        match self.limits.gate(takes, self.now.wall, self.plan.shared) {
            Gate::Open | Gate::Ask => return true,
            Gate::Wait => {}
            Gate::Closed(take, until) => {
                let wait = until.map(|at| at.since(self.now.wall).max(1));
                let at = wait.map(|ms| self.now.mono.plus(ms));
                match (limit::scope(take.key()), at) {
                    (Scope::Queue, Some(at)) => self.limits.closed.hold_queue(queue, at),
                    (_, Some(at)) if wait.is_some_and(|ms| ms <= SHORT_MS) => {
                        self.limits.closed.wake(at);
                    }
                    _ => {
                        self.turn_away(queue, token, take, at, out);
                        return false;
                    }
                }
            }
        }
        passed_over.insert(token);
        false
    }

    /// A message gets a slot: takes what its start takes. Whether the store is to be asked first.
    pub(super) fn grasp(&mut self, token: Token) -> bool {
        let Some(held) = self.held.get(&token) else { return false };
        let list = self.takes_of(&held.message);
        if list.is_empty() {
            return false;
        }
        let gate = self.limits.gate(list.clone(), self.now.wall, self.plan.shared);
        let sure = gate == Gate::Open;
        self.limits.commit(&list, self.now.wall, sure);
        if let Some(held) = self.held.get_mut(&token) {
            held.grip = Some(Box::new(Grip { takes: Takes { list, sure }, open: true }));
        }
        !sure
    }

    /// A run of an earlier daemon holds what its start took. `started`: the store has that start.
    pub(super) fn grasp_adopted(&mut self, token: Token, started: bool) {
        let Some(held) = self.held.get(&token).filter(|held| held.grip.is_none()) else { return };
        let list = self.takes_of(&held.message);
        if list.is_empty() {
            return;
        }
        if !started {
            self.limits.commit(&list, self.now.wall, true);
        }
        if let Some(held) = self.held.get_mut(&token) {
            held.grip = Some(Box::new(Grip { takes: Takes { list, sure: true }, open: !started }));
        }
    }

    /// Nobody knows whether a message was started: what a start decided here would have taken is counted.
    pub(super) fn charge_unsure(&mut self, token: Token) {
        let Some(held) = self.held.get(&token).filter(|_| !self.plan.shared) else { return };
        let list: Vec<Take> = self.takes_of(&held.message).into_iter().filter(|t| !t.is_slow()).collect();
        self.limits.commit(&list, self.now.wall, true);
        if let Some(held) = self.held.get_mut(&token) {
            held.grip = Some(Box::new(Grip { takes: Takes { list, sure: true }, open: true }));
        }
    }

    /// Limits changed: what runs holds the places of the new ones.
    pub(super) fn recount_places(&mut self) {
        let running = |held: &Held| matches!(held.stage, Stage::Running(_) | Stage::Starting { .. });
        let tokens: Vec<Token> = self.held.iter().filter(|(_, h)| running(h)).map(|(t, _)| *t).collect();
        self.limits.places.clear();
        for token in tokens {
            let Some(held) = self.held.get(&token) else { continue };
            let mut places = self.takes_of(&held.message);
            places.retain(|take| matches!(take, Take::Place { .. }));
            self.limits.hold_places(&places, true);
            let Some(held) = self.held.get_mut(&token) else { continue };
            let fresh = || Box::new(Grip { takes: Takes { list: Vec::new(), sure: true }, open: false });
            if !places.is_empty() || held.grip.is_some() {
                let list = &mut held.grip.get_or_insert_with(fresh).takes.list;
                list.retain(|take| matches!(take, Take::Rate { .. }));
                list.extend(places);
            }
        }
    }

    /// Whether the start of an adopted run is to be sent (again).
    pub(super) fn is_unrecorded(&self, token: Token) -> bool {
        self.held.get(&token).is_some_and(|held| held.grip.as_ref().is_some_and(|grip| grip.open))
    }

    /// Counts its places, or counts them no more.
    pub(super) fn hold_places(&mut self, token: Token, hold: bool) {
        let Some(grip) = self.held.get(&token).and_then(|held| held.grip.as_ref()) else { return };
        self.limits.hold_places(&grip.takes.list, hold);
        if !hold && grip.takes.list.iter().any(|take| matches!(take, Take::Place { .. })) {
            // Lanes that waited for it open with the settle.
            if self.limits.closed.place_free() {
                self.raise_laned();
            }
        }
    }

    /// The store answered a start.
    pub(super) fn grip_answered(&mut self, token: Token, result: &Result<Reply, Fault>) {
        let Ok(reply) = result else { return };
        let Some(held) = self.held.get_mut(&token) else { return };
        let Some(grip) = held.grip.as_mut().filter(|grip| grip.open) else { return };
        grip.open = false;
        let tats = if let Reply::Took(tats) = reply { tats.as_slice() } else { &[] };
        self.limits.answered(grip, tats, self.plan.shared);
    }

    /// This message is not in the books any more: nobody waits for its start.
    pub(super) fn grip_gone(&mut self, held: &Held) {
        if let Some(grip) = held.grip.as_ref().filter(|grip| grip.open) {
            self.limits.answered(grip, &[], self.plan.shared);
        }
    }

    /// The store refused a start: the message waits in its lane again.
    pub(super) fn start_refused(&mut self, token: Token, key: &str, until: Option<Wall>) -> bool {
        let Some(Stage::Starting { .. }) = self.held.get(&token).map(|held| &held.stage) else {
            return false;
        };
        self.free(token);
        self.limit_closed(token, key, until);
        if let Some(held) = self.forget(token) {
            if let Some(expires) = held.message.expires {
                self.sweep.note(expires);
            }
            for key in held.cancels {
                self.cancel_again(key);
            }
        }
        true
    }

    /// That a limit keeps this message from starting, for people, as far as this node knows.
    pub(super) fn why_limited(&mut self, message: &Message) -> Option<String> {
        let takes = self.takes_of(message);
        let now = self.now;
        let (take, wait) = match self.limits.gate(takes.clone(), now.wall, false) {
            Gate::Closed(take, until) => (take, until.map(|at| at.since(now.wall))),
            // Of what it does not know it knows only that it was closed.
            _ => {
                let until = self.limits.closed.until(message)?;
                (takes.into_iter().next()?, until.map(|at| at.since(now.mono)))
            }
        };
        let (task, queue) = (&message.task, &message.queue);
        let whose = match limit::scope(take.key()) {
            Scope::Queue => format!("the queue {queue}"),
            Scope::Task => format!("the task {task}"),
            Scope::Value => {
                let value = message.lane.as_deref().unwrap_or_default().replacen('=', " = ", 1);
                format!("the task {task} ({value})")
            }
        };
        let throttle = self.throttle(task);
        Some(match (&take, wait) {
            (Take::Place { limit, .. }, _) => {
                format!("it waits for a place: {whose} runs {limit} of at most {limit} at once (concurrency)")
            }
            (Take::Rate { key, .. }, wait) => {
                let queue_rate = self.queue_rate(queue).filter(|_| limit::scope(key) == Scope::Queue);
                let rate = queue_rate.or_else(|| throttle.and_then(|t| t.rate));
                let rate = rate.map(|rate| rate.to_string()).unwrap_or_default();
                let next =
                    wait.map(|ms| format!(": its next start is in {}", seconds(ms))).unwrap_or_default();
                format!("it waits for the rate_limit {rate} of {whose}{next}")
            }
        })
    }
}

/// A short time for people.
fn seconds(ms: u64) -> String {
    if ms < 60_000 { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) } else { super::why::span(ms) }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
