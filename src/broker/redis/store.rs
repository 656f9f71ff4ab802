//! The thread that talks to Redis: what waits goes in one script, what takes several steps is done step by step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redis::{ConnectionLike, ErrorKind, RedisError, ServerErrorKind, Value};

use super::args::Args;
use super::decode::{self, No};
use super::flows;
use super::reply::Reader;
use super::steps::fault;
use super::{Done, Open, Shared, encode, script};
use crate::broker::Completion;
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::workflow::Fallout;

/// Operations of one script at most: it holds up everybody else who talks to this server.
const MOST: usize = 64;

/// Bytes of arguments after which a script gets no further operation.
const BYTES: usize = 256 << 10;

/// How often this node says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// What is asked of the thread.
pub(super) enum Request {
    /// Operations.
    Ops(Vec<(Ticket, Op)>),
    /// Finish.
    Close,
}

/// The thread's life.
pub(super) struct Store {
    pub(super) open: Open,
    pub(super) shared: Shared,
    pub(super) requests: Receiver<Request>,
    pub(super) done: Done,
    /// The connection, while there is one.
    pub(super) link: Option<Link>,
    pub(super) prefix: String,
    pub(super) node: String,
    pub(super) lease_ms: u64,
    /// Laps of schedules that were rewound.
    pub(super) laps: BTreeMap<String, u32>,
    pub(super) waiting: VecDeque<(Ticket, Op)>,
    pub(super) closing: bool,
    pub(super) told: Option<Instant>,
    pub(super) tries: u32,
    pub(super) next_try: Instant,
}

/// A connection and the script that its server knows.
pub(super) struct Link {
    pub(super) c: redis::Connection,
    sha: String,
    text: String,
}

/// What went wrong with a script.
pub(super) enum Trouble {
    /// The connection: whether it took place is not known.
    Lost(String),
    /// The server says no, for now: it did not take place.
    Again(String),
    /// The server says no.
    Refused(String),
}

impl Trouble {
    fn of(e: &RedisError) -> Self {
        let text = e.to_string();
        match e.kind() {
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly => Self::Again(text),
                ServerErrorKind::NoPerm => Self::Refused(text),
                _ => Self::of_code(e.code().unwrap_or_default(), text),
            },
            ErrorKind::Extension => Self::of_code(e.code().unwrap_or_default(), text),
            _ => Self::Lost(text),
        }
    }

    fn of_code(code: &str, text: String) -> Self {
        match code {
            "OOM" | "BUSY" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED" => Self::Again(text),
            _ => Self::Refused(text),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Lost(text) => Fault::Reconnect(format!("Redis: {text}")),
            Self::Again(text) => Fault::Again(format!("Redis: {text}")),
            Self::Refused(text) => Fault::Refused(format!("Redis: {text}")),
        }
    }
}

impl Link {
    /// Makes the script known to the server behind a new connection.
    pub(super) fn new(mut c: redis::Connection) -> Result<Self, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query(&mut c)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
        let major: u32 = version.split('.').next().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        let text = script::text(major >= 7);
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(&text).query(&mut c)?;
        Ok(Self { c, sha, text })
    }

    fn eval(&mut self, args: &Args) -> Result<Value, RedisError> {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.sha).arg(0);
        for arg in args.iter() {
            cmd.arg(arg);
        }
        match self.c.req_command(&cmd) {
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // A restarted server, or SCRIPT FLUSH: nothing took place.
                redis::cmd("SCRIPT").arg("LOAD").arg(&self.text).exec(&mut self.c)?;
                self.c.req_command(&cmd)
            }
            answer => answer,
        }
    }
}

impl Store {
    /// Until it is closed.
    pub(super) fn run(mut self) {
        self.alive();
        loop {
            if self.waiting.is_empty() {
                if self.closing {
                    break;
                }
                match self.requests.recv_timeout(self.pause()) {
                    Ok(request) => self.take(request),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => self.closing = true,
                }
            }
            while let Ok(request) = self.requests.try_recv() {
                self.take(request);
            }
            self.alive();
            if !self.waiting.is_empty() {
                self.work();
            }
        }
        if self.link.is_some() {
            // Others take over at once what this node held.
            let _ = self.ask("gone", Args::default());
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Ops(ops) => self.waiting.extend(ops),
            Request::Close => self.closing = true,
        }
    }

    fn pause(&self) -> Duration {
        let now = Instant::now();
        if self.link.is_none() {
            return self.next_try.saturating_duration_since(now).max(Duration::from_millis(1));
        }
        self.told.map_or(Duration::ZERO, |at| (at + ALIVE_EVERY).saturating_duration_since(now))
    }

    /// Says that this node lives, where it is time to; opens the connection where there is none.
    fn alive(&mut self) {
        if self.link.is_none() {
            self.reconnect();
        }
        if self.link.is_none() || self.told.is_some_and(|at| at.elapsed() < ALIVE_EVERY) {
            return;
        }
        let mut args = Args::default();
        args.num(self.lease_ms).flag(self.told.is_none());
        self.told = Some(Instant::now());
        let _ = self.ask("alive", args);
    }

    fn reconnect(&mut self) {
        if Instant::now() < self.next_try {
            return;
        }
        match (self.open)().and_then(Link::new) {
            Ok(link) => {
                self.link = Some(link);
                self.tries = 0;
                self.shared.set_trouble(None);
            }
            Err(e) => self.trouble(&Trouble::of(&e)),
        }
        self.done.wake();
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let fault = trouble.fault();
        self.shared.set_trouble(Some(fault.to_string()));
        if matches!(trouble, Trouble::Lost(_)) {
            self.link = None;
        }
        let wait = 50_u64.saturating_mul(1 << self.tries.min(5)).min(1_000);
        self.tries = self.tries.saturating_add(1);
        self.next_try = Instant::now() + Duration::from_millis(wait);
    }

    /// Does what waits, a script at a time.
    fn work(&mut self) {
        if self.link.is_none() {
            // Whoever asked decides when to ask again: what waits here could not be taken back.
            let why = self.shared.trouble().unwrap_or_else(|| "Redis: not connected".to_owned());
            let none = |(ticket, _)| (ticket, Err(Fault::Again(why.clone())));
            let answers = self.waiting.drain(..).map(none).collect();
            return self.done.call(answers);
        }
        let mut args = Args::default();
        let mut batch = Vec::new();
        while let Some((ticket, op)) = self.waiting.pop_front() {
            let laps = &self.laps;
            let Some((name, one)) = encode::op(&op, |name| laps.get(name).copied().unwrap_or(0)) else {
                if batch.is_empty() {
                    return self.in_steps(ticket, op);
                }
                self.waiting.push_front((ticket, op));
                break;
            };
            args.op(name, one);
            batch.push((ticket, op));
            if batch.len() >= MOST || args.bytes() >= BYTES {
                break;
            }
        }
        let answers = match self.eval(args) {
            Ok(values) => self.answers(batch, values),
            Err(trouble) => batch.into_iter().map(|(ticket, _)| (ticket, Err(trouble.fault()))).collect(),
        };
        self.done.call(answers);
    }

    fn answers(&mut self, batch: Vec<(Ticket, Op)>, values: Reader) -> Vec<Completion> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut again = Vec::new();
        for ((ticket, op), value) in batch.into_iter().zip(values.each()) {
            match decode::item(value) {
                Ok(reply) => answers.push((ticket, Ok(reply))),
                Err(No::Fault(fault)) => answers.push((ticket, Err(fault))),
                Err(No::Lap(lap)) => {
                    if let Op::Tick(tick) = &op {
                        self.laps.insert(tick.schedule.clone(), lap);
                    }
                    again.push((ticket, op));
                }
            }
        }
        for entry in again.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        answers
    }

    /// One operation alone, its answer behind its word.
    pub(super) fn ask(&mut self, name: &str, args: Args) -> Result<Reader, Fault> {
        self.ask_beside(name, args).map(|(told, _)| told)
    }

    /// One operation alone, with what it did beside.
    pub(super) fn ask_beside(&mut self, name: &str, args: Args) -> Result<(Reader, Fallout), Fault> {
        let mut all = Args::default();
        all.op(name, args);
        let mut values = self.eval(all).map_err(|t| t.fault())?;
        let mut item = values.list().map_err(fault)?;
        let mut told = item.list().map_err(fault)?;
        let word = told.text().map_err(fault)?;
        if word == "error" {
            return Err(Fault::Refused(told.text().map_err(fault)?));
        }
        let beside = item.value().and_then(flows::fallout).map_err(fault)?;
        Ok((told, beside))
    }

    /// One operation alone, as a reply.
    pub(super) fn answer(&mut self, name: &str, args: Args) -> Result<Reply, Fault> {
        let mut all = Args::default();
        all.op(name, args);
        let mut values = self.eval(all).map_err(|t| t.fault())?;
        let value = values.value().map_err(No::from);
        match value.and_then(decode::item) {
            Ok(reply) => Ok(reply),
            Err(No::Fault(fault)) => Err(fault),
            Err(No::Lap(_)) => Err(Fault::Again("the schedule was rewound".to_owned())),
        }
    }

    fn eval(&mut self, ops: Args) -> Result<Reader, Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::Again("not connected".to_owned())) };
        let mut args = Args::default();
        args.text(self.prefix.as_str()).text(self.node.as_str()).join(ops);
        match link.eval(&args) {
            Ok(value) => Reader::of(value).map_err(|odd| Trouble::Refused(odd.0)),
            Err(e) => {
                let trouble = Trouble::of(&e);
                self.trouble(&trouble);
                Err(trouble)
            }
        }
    }
}
