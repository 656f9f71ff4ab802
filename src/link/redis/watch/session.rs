//! One connection of a watch, from its beginning to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use redis::{Cmd, PushKind, RedisError, Value, cmd};

use super::{PACE, QUIET, Shared, Told, Wanted};
use crate::link::redis::fault::{Fault, Reason, classify};
use crate::link::redis::{Connection, LinkError};

/// Values taken before there is a look at what else is to be done.
const ROUND: usize = 1_000;

/// What the next answers are about, in the order of their commands.
enum Awaited {
    Tracking,
    Length(String),
    Ping,
    /// Answered by a push, or by an error.
    Subscribe,
    Unsubscribe,
}

/// How far a key is.
#[derive(Clone, Copy)]
enum State {
    /// It was read, and has not changed since.
    Armed,
    /// It is being read. True: it changed meanwhile.
    Asked(bool),
    /// It changed, and is to be read then.
    Due(Instant),
}

struct Key {
    state: State,
    /// Nothing was in it when it was read last.
    empty: bool,
    /// When it was read last.
    asked: Instant,
}

/// What is known on this side of the connection.
pub(super) struct Session {
    connection: Connection,
    reply: Duration,
    awaited: VecDeque<Awaited>,
    /// By when the next answer must be there.
    overdue: Option<Instant>,
    heard: Instant,
    keys: BTreeMap<String, Key>,
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
    /// The version of what is wanted that the two above follow.
    version: Option<u64>,
    /// Commands to be sent at the end of the round.
    out: Vec<u8>,
}

impl Session {
    pub(super) fn new(connection: Connection, reply: Duration) -> Self {
        Self {
            connection,
            reply,
            awaited: VecDeque::new(),
            overdue: None,
            heard: Instant::now(),
            keys: BTreeMap::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            version: None,
            out: Vec::new(),
        }
    }

    /// Until the connection is lost, or the watch is dropped: then what it returns is of no interest.
    pub(super) fn run(mut self, shared: &Shared, tell: &mut dyn FnMut(Told)) -> LinkError {
        let ended = match self.rounds(shared, tell) {
            Ok(()) => Fault::new(Reason::Lost, ""),
            Err(fault) => fault,
        };
        LinkError::new(self.connection.server(), ended)
    }

    fn rounds(&mut self, shared: &Shared, tell: &mut dyn FnMut(Told)) -> Result<(), Fault> {
        self.send(cmd("CLIENT").arg("TRACKING").arg("ON"), Awaited::Tracking);
        while !shared.stopped() {
            self.follow(shared);
            let mut rest = ROUND;
            while rest > 0 {
                let Some(value) = self.connection.arrived().map_err(|e| classify(&e))? else { break };
                self.take(value, tell)?;
                rest -= 1;
            }
            let next = self.time()?;
            if !self.out.is_empty() {
                let sent = self.connection.send_packed_command(&self.out);
                sent.map_err(|e| classify(&e))?;
                self.out.clear();
            }
            if rest > 0 {
                let waited = shared.wait(Some(&self.connection), next);
                waited.map_err(|e| Fault::new(Reason::Lost, e.to_string()))?;
            }
        }
        Ok(())
    }

    /// Does what is wanted since the last look.
    fn follow(&mut self, shared: &Shared) {
        let wanted: Wanted = {
            let wanted = shared.wanted();
            if self.version == Some(wanted.version) {
                return;
            }
            wanted.clone()
        };
        self.version = Some(wanted.version);
        self.keys.retain(|key, _| wanted.keys.contains(key));
        let new: Vec<String> =
            wanted.keys.iter().filter(|key| !self.keys.contains_key(*key)).cloned().collect();
        for key in new {
            self.ask(&key);
        }
        for channel in wanted.channels.difference(&self.channels.clone()) {
            self.send(cmd("SUBSCRIBE").arg(channel), Awaited::Subscribe);
        }
        for channel in self.channels.clone().difference(&wanted.channels) {
            self.send(cmd("UNSUBSCRIBE").arg(channel), Awaited::Unsubscribe);
        }
        self.channels = wanted.channels;
        for pattern in wanted.patterns.difference(&self.patterns.clone()) {
            self.send(cmd("PSUBSCRIBE").arg(pattern), Awaited::Subscribe);
        }
        self.patterns = wanted.patterns;
    }

    fn send(&mut self, command: &Cmd, awaited: Awaited) {
        self.out.extend(command.get_packed_command());
        self.awaited.push_back(awaited);
        self.overdue.get_or_insert_with(|| Instant::now() + self.reply);
    }

    /// Reads a key, which has the server tell of its next change.
    fn ask(&mut self, key: &str) {
        self.send(cmd("LLEN").arg(key), Awaited::Length(key.to_owned()));
        let key_now = Key { state: State::Asked(false), empty: false, asked: Instant::now() };
        self.keys.insert(key.to_owned(), key_now);
    }

    /// A key may have changed. One that was empty has something in it then: that is told before it is read again, which
    /// takes a round trip.
    fn changed(&mut self, name: &str, tell: &mut dyn FnMut(Told)) {
        let Some(key) = self.keys.get_mut(name) else { return };
        if std::mem::take(&mut key.empty) && matches!(key.state, State::Armed) {
            tell(Told::Filled { key: name.to_owned() });
        }
        match key.state {
            State::Asked(_) => key.state = State::Asked(true),
            State::Due(_) => {}
            State::Armed => self.ask_again(name),
        }
    }

    /// Reads a key now, or when its pace allows it.
    fn ask_again(&mut self, name: &str) {
        let Some(key) = self.keys.get_mut(name) else { return };
        let due = key.asked + PACE;
        if due <= Instant::now() {
            self.ask(name);
        } else {
            key.state = State::Due(due);
        }
    }

    fn take(&mut self, value: Value, tell: &mut dyn FnMut(Told)) -> Result<(), Fault> {
        self.heard = Instant::now();
        if let Value::Push { kind, data } = value {
            self.pushed(&kind, data, tell);
            return Ok(());
        }
        let awaited = self.answered();
        if let Value::ServerError(error) = value {
            // Somebody keeps something else than a list there: it is told of as one that is not empty.
            if let (Some(Awaited::Length(key)), "WRONGTYPE") = (&awaited, error.code()) {
                let key = key.clone();
                self.length(&key, 1, tell);
                return Ok(());
            }
            return Err(classify(&RedisError::from(error)));
        }
        match awaited {
            Some(Awaited::Length(key)) => {
                let length = redis::from_redis_value::<u64>(value);
                let length = length.map_err(|e| Fault::new(Reason::Protocol, e.to_string()))?;
                self.length(&key, length, tell);
            }
            Some(Awaited::Tracking) => tell(Told::Up(self.connection.server().to_owned())),
            Some(Awaited::Ping) => {}
            // These are answered by a push: some other answer came before.
            Some(Awaited::Subscribe | Awaited::Unsubscribe) | None => {
                return Err(Fault::new(Reason::Protocol, "an answer came that nothing was asked for"));
            }
        }
        Ok(())
    }

    /// The oldest question is answered.
    fn answered(&mut self) -> Option<Awaited> {
        let awaited = self.awaited.pop_front();
        self.overdue = (!self.awaited.is_empty()).then(|| Instant::now() + self.reply);
        awaited
    }

    fn length(&mut self, name: &str, length: u64, tell: &mut dyn FnMut(Told)) {
        let Some(key) = self.keys.get_mut(name) else { return };
        let again = matches!(key.state, State::Asked(true));
        key.state = State::Armed;
        key.empty = length == 0;
        if length > 0 {
            tell(Told::Key { key: name.to_owned(), length });
        }
        if again {
            self.ask_again(name);
        }
    }

    fn pushed(&mut self, kind: &PushKind, data: Vec<Value>, tell: &mut dyn FnMut(Told)) {
        let mut data = data.into_iter();
        match kind {
            PushKind::Invalidate => match data.next() {
                Some(Value::Array(keys)) => {
                    for key in keys.iter().filter_map(text) {
                        self.changed(&key, tell);
                    }
                }
                // FLUSHALL: everything.
                _ => {
                    let all: Vec<String> = self.keys.keys().cloned().collect();
                    all.iter().for_each(|key| self.changed(key, tell));
                }
            },
            PushKind::Message => {
                if let (Some(channel), Some(Value::BulkString(payload))) =
                    (data.next().as_ref().and_then(text), data.next())
                    && self.channels.contains(&channel)
                {
                    tell(Told::Message { channel, payload });
                }
            }
            PushKind::PMessage => {
                let mut data = data.skip(1);
                if let (Some(channel), Some(Value::BulkString(payload))) =
                    (data.next().as_ref().and_then(text), data.next())
                {
                    tell(Told::Message { channel, payload });
                }
            }
            PushKind::Subscribe | PushKind::Unsubscribe | PushKind::PSubscribe => {
                if matches!(self.awaited.front(), Some(Awaited::Subscribe | Awaited::Unsubscribe)) {
                    self.answered();
                }
            }
            _ => {}
        }
    }

    /// Does what the time asks for; until when nothing is to be done.
    fn time(&mut self) -> Result<Instant, Fault> {
        let now = Instant::now();
        if self.overdue.is_some_and(|at| at <= now) {
            return Err(Fault::new(Reason::Silent, ""));
        }
        let due = |key: &Key| match key.state {
            State::Due(at) => Some(at),
            State::Armed | State::Asked(_) => None,
        };
        let ripe: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, key)| due(key).is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ripe {
            self.ask(&name);
        }
        if self.awaited.is_empty() && now.saturating_duration_since(self.heard) >= QUIET {
            self.send(&cmd("PING"), Awaited::Ping);
        }
        let quiet = if self.awaited.is_empty() { Some(self.heard + QUIET) } else { None };
        let next = self.keys.values().filter_map(due).chain(self.overdue).chain(quiet).min();
        Ok(next.unwrap_or(now + QUIET))
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
