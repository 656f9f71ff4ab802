//! Rates changed while taskd runs (`taskd rate`): until the next reload or restart, or kept in the store.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Engine;
use super::command::Command;
use super::store::{Job, Pending};
use crate::model::limit::{RateLimit, Throttle};
use crate::model::op::{Fault, MAX_MEMOS, Memo, Op, Reply};
use crate::model::time::Mono;

/// What every key of a kept rate begins with.
const PREFIX: &str = "rate:";

/// Whose rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// A declared task's, by its name or pattern as it is declared.
    Task(String),
    /// A queue's.
    Queue(String),
}

impl Limited {
    fn key(&self) -> String {
        match self {
            Self::Task(name) => format!("{PREFIX}task:{name}"),
            Self::Queue(name) => format!("{PREFIX}queue:{name}"),
        }
    }

    fn of_key(key: &str) -> Option<Self> {
        let (kind, name) = key.strip_prefix(PREFIX)?.split_once(':')?;
        match kind {
            "task" => Some(Self::Task(name.to_owned())),
            "queue" => Some(Self::Queue(name.to_owned())),
            _ => None,
        }
    }
}

/// A rate to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewRate {
    /// This one.
    Rate(RateLimit),
    /// Without a limit.
    None,
    /// What the config says.
    Default,
}

/// Where a rate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The config.
    Config,
    /// `taskd rate`, until the next reload or restart.
    Now,
    /// `taskd rate --keep`.
    Kept,
}

/// The rate in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// It; absent: no limit.
    pub rate: Option<RateLimit>,
    /// Where it comes from.
    pub origin: Origin,
    /// What the config says.
    pub config: Option<RateLimit>,
    /// What is in force after the next reload or restart, as far as the config stays as it is.
    pub then: Option<RateLimit>,
    /// The argument for each value of which it counts.
    pub each: Option<String>,
}

/// Rates that are not the config's. `None`: without a limit.
#[derive(Debug, Default)]
pub(super) struct Rates {
    now: BTreeMap<Limited, Option<RateLimit>>,
    kept: BTreeMap<Limited, Option<RateLimit>>,
    recall: Job,
    recalled: bool,
    /// The last key that was recalled.
    after: String,
}

impl Rates {
    fn of(&self, whose: &Limited) -> Option<(Option<RateLimit>, Origin)> {
        let now = self.now.get(whose).map(|rate| (*rate, Origin::Now));
        now.or_else(|| self.kept.get(whose).map(|rate| (*rate, Origin::Kept)))
    }

    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.kept.is_empty()
    }
}

/// What is kept of a rate.
pub(super) fn rate_memo(whose: &Limited, rate: NewRate) -> Memo {
    let text = |rate: Option<RateLimit>| serde_json::to_string(&rate).unwrap_or_default();
    let value = match rate {
        NewRate::Rate(rate) => Some(text(Some(rate))),
        NewRate::None => Some(text(None)),
        NewRate::Default => None,
    };
    Memo { key: whose.key(), value }
}

impl Engine {
    /// What limits the messages of this task now.
    pub(super) fn throttle(&self, task: &str) -> Option<Cow<'_, Throttle>> {
        let task = self.plan.task(task)?;
        if self.limits.set.is_empty() {
            return Some(Cow::Borrowed(&task.throttle));
        }
        let set = self.limits.set.of(&Limited::Task(task.name.clone()));
        Some(match set {
            Some((rate, _)) => Cow::Owned(Throttle { rate, ..task.throttle.clone() }),
            None => Cow::Borrowed(&task.throttle),
        })
    }

    /// The rate of a queue now.
    pub(super) fn queue_rate(&self, queue: &str) -> Option<RateLimit> {
        let config = self.plan.queues.get(queue)?.rate;
        if self.limits.set.is_empty() {
            return config;
        }
        self.limits.set.of(&Limited::Queue(queue.to_owned())).map_or(config, |(rate, _)| rate)
    }

    /// The rate in force, if there is such a task or queue.
    #[must_use]
    pub fn rate(&self, whose: &Limited) -> Option<InForce> {
        let (config, each) = match whose {
            Limited::Task(name) => {
                let throttle = &self.plan.tasks.get(name)?.throttle;
                (throttle.rate, throttle.key.clone().filter(|_| throttle.rate_each))
            }
            Limited::Queue(name) => (self.plan.queues.get(name)?.rate, None),
        };
        let (rate, origin) = self.limits.set.of(whose).unwrap_or((config, Origin::Config));
        let then = self.limits.set.kept.get(whose).copied().unwrap_or(config);
        Some(InForce { rate, origin, config, then, each })
    }

    /// Whether the store must hear of this change.
    pub(super) fn is_rate_stored(&self, whose: &Limited, rate: NewRate, keep: bool) -> bool {
        keep || rate == NewRate::Default && self.limits.set.kept.contains_key(whose)
    }

    /// Sets a rate; what the old one had closed is looked at anew.
    pub(super) fn set_rate(&mut self, whose: &Limited, rate: NewRate, keep: bool, out: &mut Vec<Command>) {
        if self.rate(whose).is_none() {
            return;
        }
        let set = &mut self.limits.set;
        let value = match rate {
            NewRate::Rate(rate) => Some(Some(rate)),
            NewRate::None => Some(None),
            NewRate::Default => None,
        };
        set.now.remove(whose);
        match value {
            Some(value) if keep => set.kept.insert(whose.clone(), value),
            Some(value) => set.now.insert(whose.clone(), value),
            None => set.kept.remove(whose),
        };
        self.limits_changed(out);
    }

    fn limits_changed(&mut self, out: &mut Vec<Command>) {
        self.recount_places();
        self.reopen(None);
        self.screen_all(out);
        self.raise_all();
    }

    /// A reload ends what was set for now.
    pub(super) fn rates_reloaded(&mut self) {
        self.limits.set.now.clear();
        if self.is_live() {
            self.reopen(None);
        }
    }

    /// Whether kept rates are known.
    pub(super) const fn has_rates(&self) -> bool {
        self.limits.set.recalled
    }

    pub(super) fn want_rates(&mut self) {
        self.limits.set.recall.want();
    }

    pub(super) fn pump_rates(&mut self, out: &mut Vec<Command>) {
        if self.limits.set.recall.is_due(self.now.mono) {
            self.limits.set.recall.submitted();
            let after = self.limits.set.after.clone();
            self.submit(Pending::Rates, Op::Recall { prefix: PREFIX.to_owned(), after }, out);
        }
    }

    pub(super) fn rates_recalled(&mut self, result: Result<Reply, Fault>) {
        let set = &mut self.limits.set;
        set.recall.answered(self.now.mono, result.is_err());
        let Ok(Reply::Memos(memos)) = result else { return };
        let more = memos.len() >= MAX_MEMOS;
        for memo in memos {
            set.after.clone_from(&memo.key);
            let rate = memo.value.and_then(|value| serde_json::from_str(&value).ok());
            if let (Some(whose), Some(rate)) = (Limited::of_key(&memo.key), rate) {
                set.kept.insert(whose, rate);
            }
        }
        if more {
            set.recall.want();
        } else {
            set.recalled = true;
        }
    }

    pub(super) fn rates_deadline(&self) -> Option<Mono> {
        self.limits.set.recall.deadline()
    }
}
