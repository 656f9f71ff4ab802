//! The thread that talks to Redis: what waits goes in one script, what takes several steps is done step by step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::args::Args;
use super::celery::Peer;
use super::decode::{self, No};
use super::dial::{Link, Trouble, Which};
use super::express::Express;
use super::flows;
use super::full::{Room, begins, says_full};
use super::guard::Guard;
use super::name::Name;
use super::outside::Progress;
use super::reply::Reader;
use super::steps::fault;
use super::{Done, Options, Shared, Wake, Woken, encode};
use crate::broker::{Completion, rules};
use crate::link::redis::{Backoff, LinkError, Server, look};
use crate::model::op::{Fault, Op, Reply, Ticket};
use crate::model::time::Wall;
use crate::model::workflow::Fallout;

/// Operations of one script at most: it holds up everybody else who talks to this server.
const MOST: usize = 64;

/// Bytes of arguments after which a script gets no further operation.
const BYTES: usize = 256 << 10;

/// How often this node says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How often the bindings of the queues are written (a server that was emptied has none), and how often it is looked
/// for messages that a Celery worker never acknowledged.
const BIND_EVERY: Duration = Duration::from_secs(60);

/// What is asked of the thread.
pub(super) enum Request {
    /// Operations.
    Ops(Vec<(Ticket, Op)>),
    /// A result of this id was published.
    Result(String),
    /// What this node is to Celery from now on.
    Peer(Box<Peer>),
    /// Finish.
    Close,
}

/// The thread's life.
pub(super) struct Store {
    pub(super) options: Options,
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
    /// Where it is with what Celery workers run.
    pub(super) progress: Progress,
    /// The connection, while there is one.
    link: Option<Link>,
    /// Before the keys of results.
    metas: String,
    /// Laps of schedules that were rewound.
    laps: BTreeMap<String, u32>,
    pub(super) waiting: VecDeque<(Ticket, Op)>,
    pub(super) express: Express,
    /// Messages may have been taken off the lists of kombu that nobody has in hand.
    pub(super) left: bool,
    /// What an earlier life of this node had in hand was not looked at yet.
    pub(super) fresh: bool,
    closing: bool,
    /// When this node says next that it lives.
    tell_at: Instant,
    /// When the bindings of the queues were written last.
    bound: Option<Instant>,
    backoff: Backoff,
    next_try: Instant,
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
        let metas = metas(&options);
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
            progress: Progress::default(),
            link,
            metas,
            laps: BTreeMap::new(),
            waiting: VecDeque::new(),
            express: Express::default(),
            left: false,
            fresh: false,
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

    /// The channel of Celery's remote control.
    pub(super) fn pidbox(&self) -> String {
        let address = &self.options.address;
        format!("{}/{}.{}", address.prefix, address.db, crate::celery::control::EXCHANGE)
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
            self.complain(|store| store.take_results(wall()));
            self.rested();
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
            Request::Result(id) => self.progress.hear(id),
            Request::Peer(peer) => self.options.peer = Some(*peer),
            Request::Close => self.closing = true,
        }
    }

    fn pause(&self) -> Duration {
        let now = Instant::now();
        if self.link.is_none() {
            return self.next_try.saturating_duration_since(now).max(Duration::from_millis(1));
        }
        let next = [Some(self.tell_at), self.room.next(), self.progress.next()].into_iter().flatten().min();
        next.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
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
            if std::mem::take(&mut self.fresh) {
                // Of an earlier life: its runs go on, and end as rows.
                self.complain(|store| store.unfold("all", None));
            }
            self.left = true;
            self.take_in_lost();
        }
        if self.peer().is_some() && self.bound.is_none_or(|at| at.elapsed() >= BIND_EVERY) {
            self.bound = Some(Instant::now());
            self.complain(Self::bind);
            self.complain(Self::give_back_stale);
        }
        self.look_for_losses();
        // What another life of this node, or one that is gone, did not tell.
        self.complain(|store| store.tell_all(now));
        self.complain(|store| store.send_out(now));
        self.complain(|store| store.look_outside(now));
    }

    /// Others took over what this node held: it looks what is left.
    pub(super) fn lapsed(&mut self) {
        self.tell_at = Instant::now();
        self.express.forget();
        self.alive();
    }

    /// Makes rows of what was taken off the lists and is in nobody's hand.
    fn take_in_lost(&mut self) {
        if self.left && self.peer().is_some() && self.link.is_some() {
            self.left = false;
            if let Err(fault) = self.take_in_left("left", None, wall()) {
                self.left = true;
                tracing::warn!("{fault}");
            }
        }
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
        self.take_in_lost();
        self.express();
        if self.waiting.is_empty() || self.link.is_none() {
            return;
        }
        let mut args = Args::default();
        let mut batch = Vec::new();
        let mut ends = false;
        let mut refused = Vec::new();
        while let Some((ticket, op)) = self.waiting.pop_front() {
            if self.is_express(ticket, &op) {
                self.waiting.push_front((ticket, op));
                break;
            }
            if let Err(fault) = sensible(&op) {
                refused.push((ticket, Err(fault)));
                continue;
            }
            if let Op::Lease { queue, .. } = &op
                && self.is_shared(queue)
            {
                // What Celery workers run is sent before the rest is handed out: it must not be handed out here.
                if !batch.is_empty() {
                    self.waiting.push_front((ticket, op));
                    break;
                }
                self.complain(|store| store.send_out(wall()));
            }
            if let Err(fault) = self.unfold_for(&op) {
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
                    return self.complain(|store| store.tell_all(wall()));
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
            Err(trouble) => {
                let fail = |(ticket, _)| (ticket, self.express.ahead(ticket, Err(trouble.fault())));
                batch.into_iter().map(fail).collect()
            }
        };
        self.done.call(answers);
        if ends {
            self.complain(|store| store.tell_all(wall()));
            self.complain(|store| store.send_out(wall()));
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
                // It may be on the express way of another node: then it is looked for as a row once more.
                Ok(Reply::Record(None)) if self.peer().is_some() && self.unfold_named(&op) => {
                    again.push((ticket, op));
                }
                Ok(reply) => {
                    // What a sweep took over is not a row yet.
                    self.left |= matches!(op, Op::Sweep { .. });
                    answers.push((ticket, self.express.ahead(ticket, Ok(reply))));
                }
                Err(No::Flying(id)) => {
                    if let Err(fault) = self.unfold("nodes", Some(&id)) {
                        answers.push((ticket, Err(fault)));
                    } else {
                        again.push((ticket, op));
                    }
                }
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
                    answers.push((ticket, self.express.ahead(ticket, Err(fault))));
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
            Err(No::Lap(_) | No::Flying(_)) => Err(Fault::Again("it changed meanwhile".to_owned())),
        }
    }

    fn eval(&mut self, ops: Args) -> Result<Reader, Trouble> {
        self.eval_on(Which::Ops(self.room.script()), ops)
    }

    /// Runs a script with what stands before the arguments of both.
    pub(super) fn eval_on(&mut self, which: Which, ops: Args) -> Result<Reader, Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::Again("not connected".to_owned())) };
        let mut args = Args::default();
        args.text(self.options.address.prefix.as_str()).text(self.metas.as_str());
        args.text(self.options.node.as_str()).join(ops);
        match link.eval(which, &args) {
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

/// What keys of results begin with. Celery's result store puts a mark between its prefix and what follows, where the
/// prefix has none.
pub(super) fn metas(options: &Options) -> String {
    let prefix = &options.address.prefix;
    let marked = prefix.is_empty() || prefix.ends_with([':', '_', '-', '.']);
    if marked { prefix.clone() } else { format!("{prefix}_") }
}

/// Whether a message may be over after it.
const fn may_end(op: &Op) -> bool {
    !matches!(op, Op::Lease { .. } | Op::Start { .. } | Op::Get { .. } | Op::Extend { .. } | Op::Count)
}

pub(super) fn wall() -> Wall {
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
