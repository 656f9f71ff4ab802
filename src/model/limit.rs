//! Limits: how often messages of a task or a queue start (rates) and how many run at once (places), each
//! for all or for each value of an argument.
//!
//! A rate is kept by GCRA (the generic cell rate algorithm of ATM, a leaky bucket as one number): the
//! *theoretical arrival time* of the next start if all came evenly. Each start moves it on by one emission
//! interval; a start is due while it is less than `burst` intervals ahead. So in any window of length L at
//! most L / interval + burst starts lie, and one number per key is all that is kept.
//!
//! That number is wall-clock time, because nodes share it and because it outlives a reboot. It is read as
//! no earlier than now and no later than a full burst from now, so a clock that jumps back never freezes a
//! limit, and one that jumps ahead gives one burst at most.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::Message;
use super::task::Task;
use super::time::Wall;

/// Values of a limit's argument that are longer than this as JSON, in bytes, are named by a hash.
const LONGEST_VALUE: usize = 64;

/// The clock's resolution, in microseconds: what falls into one step of it cannot be told apart.
const RESOLUTION_US: u64 = 1_000;

/// Rates with an interval from here on, in microseconds, are never decided by a daemon alone and are on the
/// disk before the start: forgetting one start of "1/h" is another thing than forgetting one of "100/s".
pub const SLOW_US: u64 = 1_000_000;

/// `rate_limit` with `rate_limit_burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many starts, at least 1 …
    pub count: u32,
    /// … in so many milliseconds, at least 1.
    pub period_ms: u64,
    /// How many at once at most after idleness, at least 1.
    pub burst: u32,
}

impl RateLimit {
    /// The least time between two starts that come evenly, in microseconds; rounded up, so that the limit
    /// is one.
    #[must_use]
    pub fn interval_us(&self) -> u64 {
        self.period_ms.saturating_mul(1_000).div_ceil(u64::from(self.count.max(1))).max(1)
    }

    /// How many may start at once: `burst`, and what falls into one step of the clock.
    #[must_use]
    pub fn at_once(&self) -> u32 {
        let step = u32::try_from(RESOLUTION_US.div_ceil(self.interval_us())).unwrap_or(u32::MAX);
        self.burst.max(step).max(1)
    }

    fn take(&self, key: String) -> Take {
        Take::Rate { key, interval_us: self.interval_us(), burst: self.at_once() }
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.period_ms {
            1_000 => "s".to_owned(),
            60_000 => "m".to_owned(),
            3_600_000 => "h".to_owned(),
            86_400_000 => "d".to_owned(),
            ms => format!("{ms}ms"),
        };
        write!(f, "{}/{unit}", self.count)?;
        if self.burst > 1 { write!(f, " (burst {})", self.burst) } else { Ok(()) }
    }
}

/// What limits the messages of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// `rate_limit`.
    #[serde(default)]
    pub rate: Option<RateLimit>,
    /// Whether the rate counts for each value of [`Self::key`] (`rate_limit_key`).
    #[serde(default)]
    pub rate_each: bool,
    /// `concurrency`.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Whether it counts for each value of [`Self::key`] (`concurrency_key`).
    #[serde(default)]
    pub concurrency_each: bool,
    /// The parameter of `rate_limit_key` and `concurrency_key`, which name the same one.
    #[serde(default)]
    pub key: Option<String>,
}

impl Throttle {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rate.is_none() && self.concurrency.is_none()
    }

    /// Whether any limit counts for each value of the argument.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        self.rate.is_some() && self.rate_each || self.concurrency.is_some() && self.concurrency_each
    }

    /// The part of the task's messages that this one waits with: those for which every limit of the task is
    /// the same one. `None`: nothing is limited. Empty: all of them.
    #[must_use]
    pub fn lane(&self, task: &Task, message: &Message) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let Some(name) = self.key.as_deref().filter(|_| self.is_keyed()) else { return Some(String::new()) };
        let declared = task.params.iter().enumerate().find(|(_, p)| p.name == name);
        let given = declared.and_then(|(i, _)| message.args.get(i)).or_else(|| message.kwargs.get(name));
        let default = declared.and_then(|(_, p)| p.default.as_ref());
        let value = given.or(default).unwrap_or(&Value::Null);
        // As the program gets it, so that 42 and "42" are one customer; serde_json keeps the keys of objects
        // in order, so equal values have equal texts.
        let typed = declared.and_then(|(_, p)| p.accept(value).ok());
        let text = typed.as_ref().unwrap_or(value).to_string();
        let text = if text.len() > LONGEST_VALUE {
            format!("#{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()))
        } else {
            text
        };
        Some(format!("{name}={text}"))
    }

    /// What a start of a message of this task and lane takes.
    #[must_use]
    pub fn takes(&self, task: &str, lane: Option<&str>) -> Vec<Take> {
        let lane = lane.unwrap_or_default();
        let lane = lane.split_once(ONE).map_or(lane, |(lane, _)| lane);
        let of = |kind: &str, each: bool| match lane {
            value if each && !value.is_empty() => format!("{kind}:task:{task} {value}"),
            _ => format!("{kind}:task:{task}"),
        };
        let rate = self.rate.map(|r| r.take(of("rate", self.rate_each)));
        let place =
            self.concurrency.map(|limit| Take::Place { key: of("run", self.concurrency_each), limit });
        rate.into_iter().chain(place).collect()
    }
}

/// What stands between a lane and a key of which one message at a time may run; no JSON text has it.
const ONE: char = '\u{1f}';

/// The lane of messages of which one at a time may run: that of their task's limits, and their key.
#[must_use]
pub fn lane_of_one(lane: Option<&str>, key: &str) -> String {
    format!("{}{ONE}{key}", lane.unwrap_or_default())
}

/// The one place under a key that messages of a unique task claim while they run.
#[must_use]
pub fn one_at_a_time(key: &str) -> Take {
    Take::Place { key: format!("unique:{key}"), limit: 1 }
}

/// The rate of a queue.
#[must_use]
pub fn queue_rate(queue: &str, rate: &RateLimit) -> Take {
    rate.take(format!("rate:queue:{queue}"))
}

/// The places of a queue.
#[must_use]
pub fn queue_place(queue: &str, limit: u32) -> Take {
    Take::Place { key: format!("run:queue:{queue}"), limit }
}

/// What the start of a message takes; all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// One start under a rate.
    Rate {
        /// What is limited.
        key: String,
        /// Between two starts that come evenly, in microseconds, at least 1.
        interval_us: u64,
        /// How many at once at most, at least 1.
        burst: u32,
    },
    /// One of `limit` places, held by the message until its attempt has ended.
    Place {
        /// What is limited.
        key: String,
        /// How many may be held at once.
        limit: u32,
    },
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All messages of a queue.
    Queue,
    /// All messages of a task.
    Task,
    /// Those of a task with one value of an argument.
    Value,
}

/// The scope of a key that this module made.
#[must_use]
pub fn scope(key: &str) -> Scope {
    if key.starts_with("rate:queue:") || key.starts_with("run:queue:") {
        return Scope::Queue;
    }
    // No name holds a space.
    if key.contains(' ') { Scope::Value } else { Scope::Task }
}

impl Take {
    /// What is limited.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Rate { key, .. } | Self::Place { key, .. } => key,
        }
    }

    /// Whether it is a rate of less than one start a second.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        matches!(self, Self::Rate { interval_us, .. } if *interval_us >= SLOW_US)
    }
}

fn micros(now: Wall) -> i64 {
    now.0.saturating_mul(1_000)
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// The theoretical arrival time where it is later than it can be: before the clock went back. It must be
/// kept, or the limit would be frozen until the clock is where it was.
#[must_use]
pub fn set_right(tat: i64, now: Wall, interval_us: u64, burst: u32) -> Option<i64> {
    let most = micros(now).saturating_add(full(interval_us, burst));
    (tat > most).then_some(most)
}

fn full(interval_us: u64, burst: u32) -> i64 {
    signed(interval_us).saturating_mul(i64::from(burst.max(1)))
}

/// One start now, where the theoretical arrival time is `tat` (microseconds since 1970; absent: long ago).
/// Answers the next one.
///
/// # Errors
/// When one is free at the earliest.
pub fn take(tat: Option<i64>, now: Wall, interval_us: u64, burst: u32) -> Result<i64, Wall> {
    let (now, step) = (micros(now), signed(interval_us));
    let full = full(interval_us, burst);
    let tat = tat.unwrap_or(now).clamp(now, now.saturating_add(full));
    let next = tat.saturating_add(step);
    if next.saturating_sub(now) <= full {
        return Ok(next);
    }
    let free = next.saturating_sub(full);
    Err(Wall(free.saturating_add(999).div_euclid(1_000)))
}

/// A start that took place: counted whatever the limit says. Answers the next theoretical arrival time.
#[must_use]
pub fn charge(tat: Option<i64>, now: Wall, interval_us: u64) -> i64 {
    let now = micros(now);
    tat.unwrap_or(now).max(now).saturating_add(signed(interval_us))
}

/// Whether a theoretical arrival time says nothing any more.
#[must_use]
pub fn is_past(tat: i64, now: Wall) -> bool {
    tat <= micros(now)
}

#[cfg(test)]
mod tests {
    use super::super::params::{Param, ParamType};
    use super::super::task::Program;
    use super::*;
    use serde_json::json;

    fn rate(count: u32, period_ms: u64, burst: u32) -> RateLimit {
        RateLimit { count, period_ms, burst }
    }

    /// Starts wherever one is free, looked at each millisecond; the times of the starts.
    fn greedy(r: &RateLimit, ms: i64, from: i64) -> Vec<i64> {
        let mut tat = None;
        let mut starts = Vec::new();
        for now in from..from + ms {
            while let Ok(next) = take(tat, Wall(now), r.interval_us(), r.at_once()) {
                tat = Some(next);
                starts.push(now);
            }
        }
        starts
    }

    #[test]
    fn no_window_has_more_than_its_share_and_a_burst() {
        for r in [rate(10, 60_000, 1), rate(7, 1_000, 3), rate(100, 1_000, 20), rate(5_000, 1_000, 1)] {
            let starts = greedy(&r, 20_000, 1_000_000);
            // From start i to start j lie j - i + 1 starts in `to - from`, at most one for each interval and a burst. With
            // what a start is ahead of an even pace as one number, that is a bound on how far one may fall behind
            // any earlier one, so each is held against the best of those.
            let interval = i64::try_from(r.interval_us()).unwrap();
            let mut best = i64::MIN;
            for (n, at) in (0_i64..).zip(&starts) {
                let ahead = at * 1_000 - n * interval;
                best = best.max(ahead);
                assert!(ahead - best >= (1 - i64::from(r.at_once())) * interval, "{r}: at {at} ms");
            }
            // And it gives what it says.
            let fair = 20_000 * 1_000 / r.interval_us();
            assert!(starts.len() as u64 >= fair, "{r}: only {} of {fair}", starts.len());
        }
    }

    #[test]
    fn a_refusal_says_when_and_is_right() {
        let r = rate(10, 60_000, 2);
        let now = Wall(5_000);
        let take = |tat, now| take(tat, now, r.interval_us(), r.at_once());
        let first = take(None, now).unwrap();
        let second = take(Some(first), now).unwrap();
        assert_eq!(take(Some(second), now), Err(Wall(11_000)));
        assert_eq!(take(Some(second), Wall(10_999)), Err(Wall(11_000)));
        assert!(take(Some(second), Wall(11_000)).is_ok());
    }

    #[test]
    fn a_clock_that_jumps_neither_freezes_a_limit_nor_gives_more_than_a_burst() {
        let r = rate(1, 60_000, 2);
        let take = |tat, now| take(tat, now, r.interval_us(), r.at_once());
        let (day, mut tat) = (86_400_000, None);
        for _ in 0..2 {
            tat = Some(take(tat, Wall(10 * day)).unwrap());
        }
        let back = Wall(9 * day);
        assert_eq!(take(tat, back), Err(Wall(9 * day + 60_000)), "one interval, not a day");
        let right = tat.and_then(|tat| set_right(tat, back, r.interval_us(), r.at_once()));
        assert!(take(right, Wall(9 * day + 60_000)).is_ok());
        assert_eq!(right.and_then(|tat| set_right(tat, back, r.interval_us(), r.at_once())), None);
        let mut ahead = 0;
        while let Ok(next) = take(tat, Wall(11 * day)) {
            (tat, ahead) = (Some(next), ahead + 1);
        }
        assert_eq!(ahead, 2);
    }

    #[test]
    fn what_took_place_counts_also_beyond_the_limit() {
        let r = rate(1, 1_000, 1);
        let once = charge(None, Wall(0), r.interval_us());
        let twice = charge(Some(once), Wall(0), r.interval_us());
        assert_eq!(twice, 2_000_000);
        assert!(!is_past(twice, Wall(1_999)) && is_past(twice, Wall(2_000)));
    }

    fn task() -> Task {
        let param = |name: &str, default| Param {
            name: name.to_owned(),
            kind: ParamType::String,
            default,
            one_of: Vec::new(),
            min: None,
            max: None,
            max_length: None,
        };
        let params = vec![param("user", None), param("region", Some(json!("eu")))];
        Task { params, ..Task::new("mail", Program::Worker) }
    }

    #[test]
    fn a_lane_is_the_value_of_the_argument_however_it_was_given() {
        let throttle = |key: &str| Throttle {
            rate: Some(rate(1, 1_000, 1)),
            rate_each: true,
            key: Some(key.to_owned()),
            ..Throttle::default()
        };
        let positional = Message { args: vec![json!("a")], ..Message::default() };
        let named =
            Message { kwargs: json!({"user": "a"}).as_object().unwrap().clone(), ..Message::default() };
        for m in [&positional, &named] {
            assert_eq!(throttle("user").lane(&task(), m).as_deref(), Some("user=\"a\""));
            assert_eq!(throttle("region").lane(&task(), m).as_deref(), Some("region=\"eu\""));
        }
        assert_eq!(throttle("none").lane(&task(), &named).as_deref(), Some("none=null"));
        let long = Message { args: vec![json!("x".repeat(1_000))], ..Message::default() };
        let lane = throttle("user").lane(&task(), &long).unwrap();
        assert!(lane.starts_with("user=#") && lane.len() < 60, "{lane}");
        assert_eq!(Throttle::default().lane(&task(), &named), None);
        let all = Throttle { concurrency: Some(1), key: Some("user".into()), ..Throttle::default() };
        assert_eq!(all.lane(&task(), &named).as_deref(), Some(""));
    }

    #[test]
    fn the_keys_of_a_start_say_what_they_limit() {
        let throttle = Throttle {
            rate: Some(rate(10, 60_000, 1)),
            rate_each: true,
            concurrency: Some(3),
            concurrency_each: false,
            key: Some("user".into()),
        };
        let takes = throttle.takes("mail", Some("user=42"));
        assert_eq!(
            takes,
            [
                Take::Rate { key: "rate:task:mail user=42".into(), interval_us: 6_000_000, burst: 1 },
                Take::Place { key: "run:task:mail".into(), limit: 3 },
            ]
        );
        assert_eq!((scope(takes[0].key()), scope(takes[1].key())), (Scope::Value, Scope::Task));
        assert_eq!(scope(queue_rate("q", &rate(1, 1_000, 1)).key()), Scope::Queue);
        assert!(takes[0].is_slow());
        assert_eq!(rate(10, 60_000, 1).to_string(), "10/m");
        assert_eq!(rate(5, 1_000, 9).to_string(), "5/s (burst 9)");
    }
}
