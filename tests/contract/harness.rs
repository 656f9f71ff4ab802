//! Adapters as the suite sees them: operations in, answers out, and a restart.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use taskd::broker::model::{Model, ModelBroker};
use taskd::broker::sqlite::{Options, Sqlite};
use taskd::broker::{Broker, Completion};
use taskd::model::message::{Delivery, Message, Record, Token};
use taskd::model::name::MessageId;
use taskd::model::op::{Fault, Filter, Op, QueueCount, Reply, Retention, Settle, Ticket};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;
use taskd::model::time::Wall;

pub type Answer = Result<Reply, Fault>;

/// The instant that every case begins at.
pub const T0: i64 = 1_800_000_000_000;

pub fn at(ms: i64) -> Wall {
    Wall(T0 + ms)
}

/// A store under test.
pub trait Harness {
    /// Submits together, answers in the order of the operations.
    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer>;

    /// Closes and opens it again.
    fn restart(&mut self);

    fn one(&mut self, op: Op) -> Answer {
        self.all(vec![op]).remove(0)
    }

    /// The answer alone, without what was done beside.
    fn ok(&mut self, op: Op) -> Reply {
        match self.one(op).unwrap() {
            Reply::With(reply, _) => *reply,
            reply => reply,
        }
    }
}

/// Waits for the answers of these tickets, whatever their order.
pub fn collect(done: &Receiver<Completion>, first: u64, n: usize) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = (0..n).map(|_| None).collect();
    for _ in 0..n {
        let (ticket, answer) =
            done.recv_timeout(Duration::from_secs(60)).expect("every operation is answered");
        let place = usize::try_from(ticket.0 - first).unwrap();
        assert!(answers[place].replace(answer).is_none(), "answered twice");
    }
    answers.into_iter().map(Option::unwrap).collect()
}

pub fn ticketed(next: &mut u64, ops: Vec<Op>) -> Vec<(Ticket, Op)> {
    ops.into_iter()
        .map(|op| {
            *next += 1;
            (Ticket(*next), op)
        })
        .collect()
}

/// The model.
pub struct InMemory {
    broker: ModelBroker,
    done: Receiver<Completion>,
    next: u64,
}

impl InMemory {
    pub fn new() -> Self {
        let (send, done) = mpsc::channel();
        Self { broker: ModelBroker::new(Model::new(), send), done, next: 0 }
    }
}

impl Harness for InMemory {
    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer> {
        let (first, n) = (self.next + 1, ops.len());
        self.broker.submit(ticketed(&mut self.next, ops));
        collect(&self.done, first, n)
    }

    fn restart(&mut self) {}
}

/// The embedded store in a directory of its own.
pub struct Embedded {
    pub dir: tempfile::TempDir,
    pub store: Option<Sqlite>,
    done: Receiver<Completion>,
    next: u64,
}

pub fn open(dir: &std::path::Path, options: Options) -> (Sqlite, Receiver<Completion>) {
    let (send, done) = mpsc::channel();
    let on_done =
        move |completions: Vec<Completion>| completions.into_iter().for_each(|c| drop(send.send(c)));
    let store = Sqlite::open(dir, options, Box::new(on_done)).unwrap_or_else(|e| panic!("{e}"));
    (store, done)
}

impl Embedded {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// Where an fsync costs nothing, for cases that are about something else.
    pub fn fast() -> Self {
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::within(memory.unwrap(), Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::within(tempfile::tempdir().unwrap(), options)
    }

    pub fn within(dir: tempfile::TempDir, options: Options) -> Self {
        let (store, done) = open(dir.path(), options);
        Self { dir, store: Some(store), done, next: 0 }
    }

    pub fn store(&self) -> &Sqlite {
        self.store.as_ref().unwrap()
    }

    pub fn assert_sound(&self) {
        assert_eq!(self.store().verify(), Vec::<String>::new());
    }
}

impl Harness for Embedded {
    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer> {
        let (first, n) = (self.next + 1, ops.len());
        let ops = ticketed(&mut self.next, ops);
        self.store.as_mut().unwrap().submit(ops);
        collect(&self.done, first, n)
    }

    fn restart(&mut self) {
        self.assert_sound();
        self.store.take().unwrap().close();
        let (store, done) = open(self.dir.path(), Options::default());
        (self.store, self.done) = (Some(store), done);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.store.is_some() {
            self.assert_sound();
        }
    }
}

/// A message of queue `q`.
pub fn msg(id: &str) -> Message {
    Message {
        id: MessageId(id.to_owned()),
        task: "t".to_owned(),
        queue: "q".to_owned(),
        args: vec![serde_json::json!({"user": 7})],
        enqueued: at(0),
        uid: Some(1000),
        ..Message::default()
    }
}

pub fn id(id: &str) -> MessageId {
    MessageId(id.to_owned())
}

pub fn publish_at(messages: Vec<Message>, ms: i64) -> Op {
    Op::Publish { messages, max_length: Vec::new(), now: at(ms) }
}

pub fn publish(messages: Vec<Message>) -> Op {
    publish_at(messages, 0)
}

pub fn lease_at(credit: u32, ms: i64) -> Op {
    Op::Lease { queue: "q".to_owned(), credit, now: at(ms), skip: Vec::new() }
}

pub fn deliveries(reply: Reply) -> Vec<Delivery> {
    let (Reply::Deliveries(deliveries) | Reply::Leased { deliveries, .. }) = reply else {
        panic!("{reply:?}")
    };
    deliveries
}

pub fn lease(h: &mut dyn Harness, credit: u32) -> Vec<Delivery> {
    deliveries(h.ok(lease_at(credit, 0)))
}

/// The ids that a lease hands out.
pub fn leased_ids(h: &mut dyn Harness, credit: u32, ms: i64) -> Vec<String> {
    deliveries(h.ok(lease_at(credit, ms))).into_iter().map(|d| d.message.id.0).collect()
}

/// Publishes and leases one message.
pub fn held(h: &mut dyn Harness, name: &str) -> Token {
    h.ok(publish(vec![msg(name)]));
    let d = lease(h, 1);
    assert_eq!(d[0].message.id, id(name));
    d[0].token
}

pub fn get(h: &mut dyn Harness, name: &str) -> Option<Record> {
    let Reply::Record(record) = h.ok(Op::Get { id: id(name) }) else { panic!() };
    record.map(|r| *r)
}

pub fn success() -> Outcome {
    Outcome {
        success: true,
        result: Some(serde_json::json!("done")),
        failure: None,
        ..Outcome::of_cause(Cause::Exit { code: 0 }, "")
    }
}

pub fn settle(name: &str, token: Token, state: State) -> Settle {
    Settle::new(id(name), token, state, success(), at(0))
}

pub fn end(h: &mut dyn Harness, s: Settle) -> (bool, Option<Record>) {
    applied(h.ok(Op::Settle(Box::new(s))))
}

/// Publishes, leases and ends one message.
pub fn finish(h: &mut dyn Harness, name: &str, ms: i64, expires_ms: Option<u64>) {
    let token = held(h, name);
    let s = Settle { now: at(ms), expires_ms, ..settle(name, token, State::Success) };
    assert!(end(h, s).0);
}

pub fn applied(reply: Reply) -> (bool, Option<Record>) {
    let Reply::Applied { applied, current } = reply else { panic!("{reply:?}") };
    (applied, current.map(|r| *r))
}

pub fn defer(name: &str, token: Token) -> Op {
    Op::Defer { id: id(name), token, until: None, counted: true, lost: false, now: at(0), takes: Vec::new() }
}

pub fn keep() -> Retention {
    Retention { age_ms: 86_400_000, count: 1_000, ..Retention::default() }
}

pub struct Swept {
    pub queues: Vec<String>,
    pub expired: Vec<MessageId>,
    pub next: Option<Wall>,
    pub more: bool,
}

pub fn sweep_keeping(h: &mut dyn Harness, ms: i64, retention: Retention) -> Swept {
    match h.ok(Op::Sweep { now: at(ms), retention }) {
        Reply::Swept { queues, expired, next, more } => Swept { queues, expired, next, more },
        other => panic!("{other:?}"),
    }
}

pub fn sweep(h: &mut dyn Harness, ms: i64) -> Swept {
    sweep_keeping(h, ms, keep())
}

pub fn counts(h: &mut dyn Harness) -> Vec<QueueCount> {
    let Reply::Counts(counts) = h.ok(Op::Count) else { panic!() };
    counts
}

/// Waiting, scheduled, leased and unknown messages of queue `q`.
pub fn count(h: &mut dyn Harness) -> (u64, u64, u64, u64) {
    counts(h)
        .iter()
        .find(|c| c.queue == "q")
        .map_or((0, 0, 0, 0), |c| (c.waiting, c.scheduled, c.leased, c.unknown))
}

pub fn list(h: &mut dyn Harness, filter: Filter) -> Vec<String> {
    let Reply::Records(records) = h.ok(Op::List(filter)) else { panic!() };
    records.into_iter().map(|r| r.message.id.0).collect()
}
