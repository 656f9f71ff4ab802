//! Lanes, rates and places in the model; what [`crate::broker::sqlite`] answers alike.
//!
//! A lane is what waits of one task in one queue under one value of its limits' argument. Its row is made
//! when something begins to wait in it, and dropped when a lease finds it open and empty, so there is no
//! count to keep. Its turn is the number of the lease that served it last.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use super::shelf::{LaneKey, Row};
use crate::broker::rules;
use crate::model::limit::{self, Scope, Take};
use crate::model::message::Token;
use crate::model::name::MessageId;
use crate::model::op::{Reply, Takes};
use crate::model::state::State;
use crate::model::time::Wall;

/// A lane that has something waiting, or is closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// The smallest goes next.
    pub turn: u64,
    /// When it was closed.
    pub since: Wall,
    /// Closed until then.
    pub open_at: Option<Wall>,
    /// Closed until a place under this key is released.
    pub blocked: Option<String>,
}

impl Lane {
    fn is_open(&self) -> bool {
        self.open_at.is_none() && self.blocked.is_none()
    }
}

/// What is taken now.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    rates: BTreeMap<String, i64>,
    places: BTreeMap<String, BTreeSet<u64>>,
}

impl Model {
    /// What a lease hands out of the open lanes, in order, and when the next closed one opens.
    pub(super) fn pick_lanes(
        &mut self,
        queue: &str,
        credit: usize,
        now: Wall,
        skip: &[String],
    ) -> (Vec<(i64, u64)>, Option<Wall>) {
        for (_, lane) in self.shelf.lanes_of_mut(queue) {
            // One that was closed later than now was closed before the clock went back.
            if lane.open_at.is_some_and(|at| at <= now || lane.since > now) {
                lane.open_at = None;
            }
        }
        for _ in 0..rules::LANE_PASSES {
            let mut lanes: Vec<(u64, LaneKey)> = self
                .shelf
                .lanes_of_mut(queue)
                .filter(|(key, lane)| lane.is_open() && !skip.contains(&key.1))
                .map(|(key, lane)| (lane.turn, key.clone()))
                .collect();
            lanes.sort();
            let cut = lanes.len() > credit;
            lanes.truncate(credit);
            let heads: Vec<Vec<(i64, u64)>> =
                lanes.iter().map(|(_, key)| self.shelf.fresh_of(key, credit, now)).collect();
            let mut dropped = false;
            for (_, key) in &lanes {
                dropped |= self.shelf.drop_if_empty(key);
            }
            let picks = rules::in_turn(&heads, credit);
            if picks.len() >= credit || !cut {
                let opens = self.shelf.lanes_of_mut(queue).filter_map(|(_, lane)| lane.open_at).min();
                return (picks, opens);
            }
            if !dropped {
                return (picks, Some(now));
            }
        }
        (Vec::new(), Some(now))
    }

    pub(super) fn start(&mut self, id: &MessageId, token: Token, now: Wall, takes: &Takes) -> Reply {
        let mut row = match self.held(id, token) {
            Ok(row) => row,
            Err(answer) => return answer,
        };
        // A repeat under the same token changes nothing.
        if row.record.state == State::Running {
            self.shelf.put(row);
            return rules::applied();
        }
        if !takes.sure
            && let Some((key, until)) = self.taken.missing(&takes.list, now)
        {
            let lane = row.record.message.lane.clone();
            return self.set_back(row, lane, Some((key, until)), now);
        }
        row.record.state = State::Running;
        row.record.started = Some(now);
        let tats = self.taken.take(&takes.list, row.seq, now, takes.sure);
        self.shelf.put(row);
        if takes.list.is_empty() { rules::applied() } else { Reply::Took(tats) }
    }

    pub(super) fn aside(
        &mut self,
        id: &MessageId,
        token: Token,
        lane: Option<String>,
        blocked: &[Take],
        now: Wall,
    ) -> Reply {
        let row = match self.held(id, token) {
            Ok(row) => row,
            Err(answer) => return answer,
        };
        if row.record.state == State::Running {
            let answer = rules::stale(Some(row.record.clone()));
            self.shelf.put(row);
            return answer;
        }
        let missing = self.taken.missing(blocked, now);
        self.set_back(row, lane, missing, now)
    }

    /// Gives a message back into its lane, which is closed where something of its own is missing.
    fn set_back(
        &mut self,
        mut row: Row,
        lane: Option<String>,
        missing: Option<(String, Option<Wall>)>,
        now: Wall,
    ) -> Reply {
        row.record.token = None;
        row.record.state = State::Waiting;
        row.counted = false;
        row.record.message.lane = lane;
        let key = row.lane_key();
        self.shelf.put(row);
        let Some((what, until)) = missing else { return rules::applied() };
        if limit::scope(&what) == Scope::Value
            && let Some(lane) = key.and_then(|key| self.shelf.lane_mut(&key))
        {
            lane.since = now;
            lane.open_at = until;
            lane.blocked = until.is_none().then(|| what.clone());
        }
        Reply::Closed { key: what, until }
    }

    /// The attempt of this row has ended: what it held is free, and the lanes that waited for it are open.
    /// `takes`: what it took, counted here where its start was not recorded.
    pub(super) fn release(&mut self, seq: u64, started: bool, takes: &[Take], now: Wall) {
        if !started {
            for take in takes {
                if let Take::Rate { key, interval_us, .. } = take {
                    let tat = self.taken.rates.get(key).copied();
                    self.taken.rates.insert(key.clone(), limit::charge(tat, now, *interval_us));
                }
            }
        }
        let mut free = Vec::new();
        self.taken.places.retain(|key, holders| {
            if holders.remove(&seq) {
                free.push(key.clone());
            }
            !holders.is_empty()
        });
        for key in free {
            for lane in self.shelf.all_lanes_mut().filter(|l| l.blocked.as_ref() == Some(&key)) {
                lane.blocked = None;
            }
        }
    }

    /// Forgets rates that say nothing any more.
    pub(super) fn forget_rates(&mut self, now: Wall, left: &mut usize) {
        let past = self.taken.rates.iter().filter(|(_, tat)| limit::is_past(**tat, now));
        let mut past: Vec<(i64, String)> = past.map(|(key, tat)| (*tat, key.clone())).collect();
        past.sort();
        past.truncate(*left);
        *left -= past.len();
        for (_, key) in past {
            self.taken.rates.remove(&key);
        }
    }

    pub(super) fn open_lanes(&mut self, task: Option<&str>) -> Reply {
        let closed = |(key, lane): &(&LaneKey, &mut Lane)| !lane.is_open() && task.is_none_or(|t| t == key.1);
        let mut queues = BTreeSet::new();
        let mut opened = 0;
        for (key, lane) in self.shelf.lanes_mut().filter(closed).take(rules::SWEEP_ROWS) {
            (lane.open_at, lane.blocked) = (None, None);
            queues.insert(key.0.clone());
            opened += 1;
        }
        let queues = queues.into_iter().collect();
        Reply::Swept { queues, expired: Vec::new(), next: None, more: opened == rules::SWEEP_ROWS }
    }
}

impl Taken {
    /// The first of these that is not free, and when it is.
    fn missing(&mut self, takes: &[Take], now: Wall) -> Option<(String, Option<Wall>)> {
        takes.iter().find_map(|take| match take {
            Take::Rate { key, interval_us, burst } => {
                let tat = self.rates.get_mut(key).map(|tat| {
                    *tat = limit::set_right(*tat, now, *interval_us, *burst).unwrap_or(*tat);
                    *tat
                });
                limit::take(tat, now, *interval_us, *burst).err().map(|at| (key.clone(), Some(at)))
            }
            Take::Place { key, limit } => {
                let held = self.places.get(key).map_or(0, BTreeSet::len);
                (held >= *limit as usize).then(|| (key.clone(), None))
            }
        })
    }

    /// Takes all of these, which are free or were taken before this.
    fn take(&mut self, takes: &[Take], holder: u64, now: Wall, sure: bool) -> Vec<i64> {
        let mut tats = Vec::new();
        for take in takes {
            match take {
                Take::Rate { key, interval_us, burst } => {
                    let tat = self.rates.get(key).copied();
                    let next = if sure { None } else { limit::take(tat, now, *interval_us, *burst).ok() };
                    let next = next.unwrap_or_else(|| limit::charge(tat, now, *interval_us));
                    self.rates.insert(key.clone(), next);
                    tats.push(next);
                }
                Take::Place { key, .. } => {
                    self.places.entry(key.clone()).or_default().insert(holder);
                }
            }
        }
        tats
    }
}
