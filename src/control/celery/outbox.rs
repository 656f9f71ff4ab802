//! What waits to be said. Whoever puts something in never waits, and never finds it larger than its bounds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lock;
use crate::celery::control::ReplyTo;
use crate::celery::json::Raw;

/// Most replies that wait.
const REPLIES: usize = 1_000;
/// Most task events that wait, and their bytes.
const EVENTS: usize = 10_000;
const BYTES: usize = 8 << 20;
/// Most events in one message, and their bytes.
const LOT: usize = 256;
const LOT_BYTES: usize = 256 << 10;
/// A task event waits so long for others to go with it.
const LINGER: Duration = Duration::from_millis(20);

/// What a worker says of itself when it is asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A heartbeat, at once.
    Heartbeat,
    /// The answer to an election.
    ElectAck(String),
}

/// What is to be said now.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Replies, and to whom.
    pub(super) replies: Vec<(ReplyTo, Raw)>,
    /// Task events, to go in one message.
    pub(super) events: Vec<Raw>,
    /// Of the worker itself.
    pub(super) words: Vec<Word>,
    /// Nothing comes any more: say goodbye.
    pub(super) closing: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: VecDeque<(ReplyTo, Raw)>,
    events: VecDeque<Raw>,
    bytes: usize,
    since: Option<Instant>,
    words: VecDeque<Word>,
    closing: bool,
    abandoned: bool,
    finished: bool,
}

impl Waiting {
    fn first(&mut self) -> Option<Raw> {
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(event.text().len());
        Some(event)
    }

    fn is_lot(&self) -> bool {
        self.events.len() >= LOT || self.bytes >= LOT_BYTES
    }
}

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    turn: Condvar,
    dropped: AtomicU64,
}

impl Outbox {
    /// A reply; beyond the bound the oldest goes, whose client has given up first.
    pub(super) fn reply(&self, to: ReplyTo, message: Raw) {
        let mut waiting = lock(&self.waiting);
        waiting.replies.push_back((to, message));
        if waiting.replies.len() > REPLIES {
            waiting.replies.pop_front();
        }
        self.turn.notify_all();
    }

    /// A task event; beyond the bounds the oldest go, so that what is shown in the end is true.
    pub(super) fn event(&self, event: Raw) {
        let mut waiting = lock(&self.waiting);
        let first = waiting.events.is_empty();
        waiting.bytes = waiting.bytes.saturating_add(event.text().len());
        waiting.events.push_back(event);
        while waiting.events.len() > EVENTS || waiting.bytes > BYTES {
            if waiting.first().is_none() {
                break;
            }
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if first {
            waiting.since = Some(Instant::now());
        }
        if first || waiting.is_lot() {
            self.turn.notify_all();
        }
    }

    /// A word of the worker; one of each kind of which there can be many is enough.
    pub(super) fn word(&self, word: Word) {
        let mut waiting = lock(&self.waiting);
        if waiting.words.len() < REPLIES && !waiting.words.contains(&word) {
            waiting.words.push_back(word);
        }
        self.turn.notify_all();
    }

    /// What was lost because it found no room, or the server went away with it.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Events that were taken and did not reach the server.
    pub(super) fn lost(&self, events: usize) {
        self.dropped.fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        lock(&self.waiting).closing = true;
        self.turn.notify_all();
    }

    /// Nobody is interested in what is left.
    pub(super) fn abandon(&self) {
        let mut waiting = lock(&self.waiting);
        (waiting.closing, waiting.abandoned) = (true, true);
        self.turn.notify_all();
    }

    /// Whether it was abandoned.
    pub(super) fn is_abandoned(&self) -> bool {
        lock(&self.waiting).abandoned
    }

    /// Who speaks is done.
    pub(super) fn finish(&self) {
        lock(&self.waiting).finished = true;
        self.turn.notify_all();
    }

    /// Waits until who speaks is done, at most until then.
    pub(super) fn wait_finished(&self, until: Instant) {
        let mut waiting = lock(&self.waiting);
        while !waiting.finished {
            let now = Instant::now();
            if now >= until {
                return;
            }
            waiting = self.wait(waiting, until - now);
        }
    }

    /// Rests so long, or until it is closed; whether it is.
    pub(super) fn rest(&self, how_long: Duration) -> bool {
        let until = Instant::now() + how_long;
        let mut waiting = lock(&self.waiting);
        while !waiting.closing {
            let now = Instant::now();
            if now >= until {
                return false;
            }
            waiting = self.wait(waiting, until - now);
        }
        true
    }

    fn wait<'a>(
        &self,
        waiting: std::sync::MutexGuard<'a, Waiting>,
        at_most: Duration,
    ) -> std::sync::MutexGuard<'a, Waiting> {
        self.turn.wait_timeout(waiting, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// What is to be said now, at the latest at that time.
    pub(super) fn take(&self, until: Instant) -> Work {
        let mut waiting = lock(&self.waiting);
        loop {
            let now = Instant::now();
            let at_once = !waiting.replies.is_empty() || !waiting.words.is_empty() || waiting.closing;
            let lingered = waiting.since.map(|since| since + LINGER);
            if at_once || now >= until || waiting.is_lot() || lingered.is_some_and(|at| now >= at) {
                break;
            }
            let next = lingered.map_or(until, |at| at.min(until));
            waiting = self.wait(waiting, next - now);
        }
        let mut work = Work {
            replies: waiting.replies.drain(..).collect(),
            words: waiting.words.drain(..).collect(),
            ..Work::default()
        };
        let mut bytes = 0;
        while work.events.len() < LOT
            && bytes < LOT_BYTES
            && let Some(event) = waiting.first()
        {
            bytes += event.text().len();
            work.events.push(event);
        }
        if waiting.events.is_empty() {
            waiting.since = None;
        }
        work.closing = waiting.closing && waiting.events.is_empty();
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn events_are_bounded_and_the_newest_stay() {
        let outbox = Outbox::default();
        for n in 0..EVENTS + 5 {
            outbox.event(Raw::of_int(i64::try_from(n).unwrap()));
        }
        assert_eq!(outbox.dropped(), 5);
        assert_eq!(outbox.take(soon()).events[0].text(), "5");
        let outbox = Outbox::default();
        for _ in 0..20 {
            outbox.event(Raw::of_text(&"x".repeat(1 << 20)));
        }
        assert_eq!(outbox.dropped(), 13);
        assert_eq!(outbox.take(soon()).events.len(), 1, "a message has a bound of its own");
        outbox.event(Raw::of_text(&"x".repeat(BYTES + 1)));
        assert_eq!(outbox.dropped(), 20, "one beyond the bound alone is dropped too");
    }

    #[test]
    fn events_go_together_and_replies_at_once() {
        let outbox = Outbox::default();
        for n in 0..10 {
            outbox.event(Raw::of_int(n));
        }
        let began = Instant::now();
        assert_eq!(outbox.take(soon()).events.len(), 10);
        assert!(began.elapsed() >= LINGER / 2);
        outbox.event(Raw::of_int(1));
        let to = ReplyTo { exchange: "e".into(), routing_key: "r".into() };
        outbox.reply(to, Raw::null());
        let work = outbox.take(soon());
        assert_eq!((work.replies.len(), work.events.len()), (1, 1));
        outbox.word(Word::Heartbeat);
        outbox.word(Word::Heartbeat);
        assert_eq!(outbox.take(soon()).words, [Word::Heartbeat]);
        assert!(outbox.take(Instant::now()).events.is_empty());
    }

    #[test]
    fn what_waits_is_said_before_the_goodbye() {
        let outbox = Outbox::default();
        for n in 0..i64::try_from(LOT).unwrap() + 1 {
            outbox.event(Raw::of_int(n));
        }
        outbox.close();
        assert!(!outbox.take(soon()).closing);
        assert!(outbox.take(soon()).closing);
        assert!(outbox.rest(Duration::from_secs(10)));
    }
}
