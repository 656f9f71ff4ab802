//! The thread that talks to Redis: what waits goes in one script, what takes several steps is done step by step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use super::args::Args;
use super::celery::Peer;
use super::decode::{self, No};
use super::flows;
use super::full::{Room, begins, says_full};
use super::guard::Guard;
use super::name::Name;
use super::reply::Reader;
use super::script::{self, Full};
use super::steps::fault;
use super::{Done, Options, Shared, Wake, Woken, encode};
use crate::broker::{Completion, rules};
use crate::link::redis::fault::Ask;
use crate::link::redis::{Backoff, Connection, LinkError, Server, Timeouts, classify, inspect, look};
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

/// Operations of one script at most: it holds up everybody else who talks to this server.
const MOST: usize = 64;

/// Bytes of arguments after which a script gets no further operation.
const BYTES: usize = 256 << 10;

/// How often this node says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How often the bindings of the queues are written: a server that was emptied has none.
const BIND_EVERY: Duration = Duration::from_secs(60);

/// What is asked of the thread.
pub(super) enum Request {
    /// Operations.
    Ops(Vec<(Ticket, Op)>),
    /// Finish.
    Close,
}

/// The thread's life.
pub(super) struct Store {
    options: Options,
    pub(super) shared: Shared,
    requests: Receiver<Request>,
    pub(super) done: Done,
    pub(super) wake: Wake,
    /// Whose this node's name is.
    pub(super) name: Name,
    /// Whether the server has memory left.
    pub(super) room: Room,
    /// What the server may have lost.
    pub(super) guard: Guard,
    /// The connection, while there is one.
    link: Option<Link>,
    /// Before the keys of results.
    metas: String,
    /// Laps of schedules that were rewound.
    laps: BTreeMap<String, u32>,
    waiting: VecDeque<(Ticket, Op)>,
    closing: bool,
    /// When this node says next that it lives.
    tell_at: Instant,
    /// When the bindings of the queues were written last.
    bound: Option<Instant>,
    backoff: Backoff,
    next_try: Instant,
}

/// A connection and the script that its server knows.
pub(super) struct Link {
    c: Connection,
    /// What is run however full the server is.
    script: Script,
    /// What is refused when it is full.
    careful: Script,
}

/// A script as the server knows it.
struct Script {
    sha: String,
    text: String,
}

impl Script {
    fn load(text: String, c: &mut Connection) -> Result<Self, RedisError> {
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(&text).query(c)?;
        Ok(Self { sha, text })
    }
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
        let fault = classify(e);
        let text = fault.to_string();
        match fault.ask() {
            _ if fault.ends_connection() => Self::Lost(text),
            Ask::Reconnect => Self::Lost(text),
            Ask::Again | Ask::NoScript => Self::Again(text),
            // A person can mend it, and then it goes on: nothing that waits is given up for it.
            Ask::Refused => Self::Lost(text),
            Ask::Wrong => Self::Refused(text),
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Lost(text) => Fault::Reconnect(text.clone()),
            Self::Again(text) => Fault::Again(text.clone()),
            Self::Refused(text) => Fault::Refused(format!("Redis: {text}")),
        }
    }
}

impl Link {
    /// Opens a connection, looks at the server, and makes the script known to it.
    pub(super) fn open(options: &Options) -> Result<Self, LinkError> {
        let mut c =
            crate::link::redis::open(&options.address, Timeouts::of(&options.address), &options.node)?;
        let server = inspect(&mut c, options.allow_eviction)?;
        for warning in server.warnings() {
            tracing::warn!("{}: {warning}", options.address.shown());
        }
        let major: u32 = server.version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut load = |full| Script::load(script::text(major >= 7, full), &mut c);
        let loaded = load(Full::Runs).and_then(|script| Ok((script, load(Full::Refused)?)));
        let (script, careful) = loaded.map_err(|e| LinkError::new(options.address.shown(), classify(&e)))?;
        Ok(Self { c, script, careful })
    }

    fn eval(&mut self, args: &Args, full: Full) -> Result<Value, RedisError> {
        let script = if full == Full::Runs { &self.script } else { &self.careful };
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.sha).arg(0);
        for arg in args.iter() {
            cmd.arg(arg);
        }
        // `query` makes an error of an error reply; whoever takes the bare reply takes it for an answer.
        match cmd.query(&mut self.c) {
            Err(e) if classify(&e).ask() == Ask::NoScript => {
                // A restarted server, or SCRIPT FLUSH: nothing took place.
                redis::cmd("SCRIPT").arg("LOAD").arg(&script.text).exec(&mut self.c)?;
                cmd.query(&mut self.c)
            }
            answer => answer,
        }
    }
}

impl Store {
    pub(super) fn new(
        options: Options,
        link: Option<Link>,
        requests: Receiver<Request>,
        done: Done,
        wake: Wake,
        shared: Shared,
    ) -> Self {
        let prefix = &options.address.prefix;
        // Celery's result store puts a mark between its prefix and what follows, where the prefix has none.
        let marked = prefix.is_empty() || prefix.ends_with([':', '_', '-', '.']);
        let metas = if marked { prefix.clone() } else { format!("{prefix}_") };
        let mut backoff = Backoff::default();
        if link.is_some() {
            backoff.opened(Instant::now());
        }
        Self {
            name: Name::new(options.identity.clone()),
            room: Room::default(),
            guard: Guard::default(),
            options,
            shared,
            requests,
            done,
            wake,
            link,
            metas,
            laps: BTreeMap::new(),
            waiting: VecDeque::new(),
            closing: false,
            tell_at: Instant::now(),
            bound: None,
            backoff,
            next_try: Instant::now(),
        }
    }

    /// What it is to Celery.
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.options.peer.as_ref()
    }

    /// How long after its last word what a node holds is given to others.
    pub(super) fn lease(&self) -> Duration {
        self.options.lease
    }

    /// This node's name.
    pub(super) fn node(&self) -> &str {
        &self.options.node
    }

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
            self.say_goodbye();
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
        let next = self.room.next().map_or(self.tell_at, |at| at.min(self.tell_at));
        next.saturating_duration_since(now)
    }

    /// Says that this node lives, where it is time to; opens the connection where there is none.
    fn alive(&mut self) {
        if self.link.is_none() {
            self.reconnect();
        }
        if self.link.is_none() {
            return;
        }
        self.probe();
        if Instant::now() < self.tell_at {
            return;
        }
        self.tell_at = self.live(ALIVE_EVERY);
        if !self.name.is_mine() {
            return;
        }
        let now = wall();
        if self.peer().is_some() {
            // Of an earlier life, or of a node that is gone.
            self.complain(|store| store.take_in_left(now));
        }
        if self.peer().is_some() && self.bound.is_none_or(|at| at.elapsed() >= BIND_EVERY) {
            self.bound = Some(Instant::now());
            self.complain(Self::bind);
        }
        self.look_for_losses();
        // What another life of this node, or one that is gone, did not tell.
        self.complain(|store| store.tell_all(now));
    }

    /// What nobody asked for is not answered to anybody: a fault of it is said, and it is done again later.
    fn complain(&mut self, what: impl FnOnce(&mut Self) -> Result<(), Fault>) {
        if self.link.is_some()
            && let Err(fault) = what(self)
        {
            tracing::warn!("{fault}");
        }
    }

    fn bind(&mut self) -> Result<(), Fault> {
        let queues = self.peer().map(|peer| peer.queues.clone()).unwrap_or_default();
        let mut args = Args::default();
        args.list(queues.into_iter());
        self.ask("bind", args).map(drop)
    }

    fn tell_all(&mut self, now: Wall) -> Result<(), Fault> {
        while self.peer().is_some() && self.tell(now)? {}
        Ok(())
    }

    fn reconnect(&mut self) {
        if Instant::now() < self.next_try {
            return;
        }
        match Link::open(&self.options) {
            Ok(link) => {
                self.link = Some(link);
                self.backoff.opened(Instant::now());
                self.shared.set_trouble(None);
                // Said at once: others may have taken over what this node held meanwhile.
                self.tell_at = Instant::now();
                self.wake.call(Woken::All);
            }
            Err(error) => self.lost(&error.to_string()),
        }
        self.done.wake();
    }

    /// There is no connection, and why; the next attempt is planned.
    fn lost(&mut self, why: &str) {
        self.link = None;
        self.shared.set_undecided(false);
        self.shared.set_trouble(Some(why.to_owned()));
        let now = Instant::now();
        self.next_try = now + self.backoff.wait(now);
    }

    /// Does what waits, a script at a time.
    fn work(&mut self) {
        if self.link.is_none() || !self.name.is_mine() {
            // Whoever asked decides when to ask again: what waits here could not be taken back.
            let why = self.shared.trouble().unwrap_or_else(|| "Redis: not connected".to_owned());
            let none = |(ticket, _)| (ticket, Err(Fault::Again(why.clone())));
            let answers = self.waiting.drain(..).map(none).collect();
            return self.done.call(answers);
        }
        self.take_in_first();
        let mut args = Args::default();
        let mut batch = Vec::new();
        let mut ends = false;
        let mut refused = Vec::new();
        while let Some((ticket, op)) = self.waiting.pop_front() {
            if let Err(fault) = sensible(&op) {
                refused.push((ticket, Err(fault)));
                continue;
            }
            let laps = &self.laps;
            let Some((name, one)) = encode::op(&op, |name| laps.get(name).copied().unwrap_or(0)) else {
                if batch.is_empty() {
                    self.done.call(refused);
                    self.room.careful = begins(&op);
                    self.in_steps(ticket, op);
                    self.room.careful = false;
                    return;
                }
                self.waiting.push_front((ticket, op));
                break;
            };
            // What a full server refuses must not hold up what it does not.
            let alike = batch.first().is_none_or(|(_, first): &(Ticket, Op)| begins(first) == begins(&op));
            if self.room.is_full() && !alike {
                self.waiting.push_front((ticket, op));
                break;
            }
            args.op(name, one);
            ends |= may_end(&op);
            self.room.careful |= begins(&op);
            batch.push((ticket, op));
            if batch.len() >= MOST || args.bytes() >= BYTES {
                break;
            }
        }
        self.done.call(refused);
        if batch.is_empty() {
            return;
        }
        let careful = self.room.careful;
        let result = self.eval(args);
        self.room.careful = false;
        let answers = match result {
            Ok(values) => self.answers(batch, values, careful),
            Err(trouble) if careful && says_full(&trouble.fault()) => self.without_room(batch, &trouble),
            Err(trouble) => batch.into_iter().map(|(ticket, _)| (ticket, Err(trouble.fault()))).collect(),
        };
        self.done.call(answers);
        if ends {
            self.complain(|store| store.tell_all(wall()));
        }
    }

    /// Messages of Celery's clients are taken in before what waits of their queues is handed out.
    fn take_in_first(&mut self) {
        if self.peer().is_none() {
            return;
        }
        let mut wanted: Vec<(String, u32, Wall)> = Vec::new();
        for (_, op) in self.waiting.iter().take(MOST) {
            if let Op::Lease { queue, credit, now, .. } = op
                && !wanted.iter().any(|(q, ..)| q == queue)
            {
                wanted.push((queue.clone(), *credit, *now));
            }
        }
        for (queue, credit, now) in wanted {
            self.complain(|store| store.take_in(&queue, credit, now));
        }
    }

    /// What a full server refused altogether: what begins something is answered so, the rest is done without it.
    fn without_room(&mut self, batch: Vec<(Ticket, Op)>, trouble: &Trouble) -> Vec<Completion> {
        self.became_full();
        let (new, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|(_, op)| begins(op));
        for entry in rest.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        new.into_iter().map(|(ticket, _)| (ticket, Err(trouble.fault()))).collect()
    }

    fn answers(&mut self, batch: Vec<(Ticket, Op)>, values: Reader, careful: bool) -> Vec<Completion> {
        let mut answers = Vec::with_capacity(batch.len());
        let (mut again, mut full, mut lost) = (Vec::new(), false, None);
        for ((ticket, op), value) in batch.into_iter().zip(values.each()) {
            match decode::item(value) {
                Ok(reply) => answers.push((ticket, Ok(reply))),
                // A server before Redis 7 says it within.
                Err(No::Fault(fault)) if careful && says_full(&fault) => {
                    full = true;
                    if begins(&op) {
                        answers.push((ticket, Err(fault)));
                    } else {
                        again.push((ticket, op));
                    }
                }
                Err(No::Fault(fault)) => {
                    if let Fault::Reconnect(why) = &fault {
                        lost.get_or_insert_with(|| why.clone());
                    }
                    answers.push((ticket, Err(fault)));
                }
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
        if full {
            self.became_full();
        } else if careful {
            self.has_room();
        }
        if let Some(why) = lost {
            self.lost(&why);
            self.done.wake();
        }
        answers
    }

    /// What the server says of itself; absent: nothing now.
    pub(super) fn look_at_server(&mut self) -> Option<Result<Server, LinkError>> {
        let allowed = self.options.allow_eviction;
        let looked = look(&mut self.link.as_mut()?.c, allowed);
        if let Err(error) = &looked
            && error.fault.ends_connection()
        {
            self.lost(&error.to_string());
            self.done.wake();
        }
        Some(looked)
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
            return Err(decode::script_fault(&told.text().map_err(fault)?));
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
        args.text(self.options.address.prefix.as_str()).text(self.metas.as_str());
        args.text(self.options.node.as_str()).join(ops);
        match link.eval(&args, self.room.script()) {
            Ok(value) => Reader::of(value).map_err(|odd| Trouble::Refused(odd.0)),
            Err(e) => {
                let trouble = Trouble::of(&e);
                if let Trouble::Lost(why) = &trouble {
                    self.lost(why);
                    self.done.wake();
                }
                Err(trouble)
            }
        }
    }
}

/// Whether a message may be over after it.
const fn may_end(op: &Op) -> bool {
    !matches!(op, Op::Lease { .. } | Op::Start { .. } | Op::Get { .. } | Op::Extend { .. } | Op::Count)
}

fn wall() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Refuses what makes no sense before it is sent.
fn sensible(op: &Op) -> Result<(), Fault> {
    match op {
        Op::Publish { messages, max_length, .. } => rules::check_bounds(messages.len(), max_length.len()),
        Op::Settle(settle) => rules::check_settle(settle),
        Op::Tick(tick) => rules::check_tick(tick),
        _ => Ok(()),
    }
}
