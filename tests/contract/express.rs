//! Plain messages of Celery clients on the store on Redis: handed out without being rows (`lua/express.lua`), and rows
//! as soon as anything else is asked of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ::redis::Commands as _;
use serde_json::{Value, json};
use taskd::broker::redis::Redis;
use taskd::broker::redis::celery::Peer;
use taskd::broker::{Broker as _, Completion};
use taskd::celery::call::{Call, Sending};
use taskd::celery::envelope::Address;
use taskd::celery::json::Raw;
use taskd::model::message::{Delivery, Message, Record};
use taskd::model::name::MessageId;
use taskd::model::op::{Filter, Op, Published, Reply, Retention, Settle, Takes};
use taskd::model::outcome::{Cause, Outcome};
use taskd::model::state::State;

use crate::harness::{Answer, Harness, at, collect, id, ticketed};
use crate::redis::{open_as, server};

/// A node, and a connection beside it.
struct Node {
    prefix: String,
    name: String,
    lease: Duration,
    store: Option<Redis>,
    done: Receiver<Completion>,
    next: u64,
    beside: ::redis::Connection,
}

fn peer() -> Peer {
    Peer {
        queues: vec!["q".to_owned()],
        route: Arc::new(|_| Some("q".to_owned())),
        result_seconds: 3_600,
        results: true,
        apps: std::collections::BTreeSet::new(),
        outside: taskd::broker::redis::outside::Outside::default(),
    }
}

impl Node {
    fn first() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("express{}.", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::of(&prefix, "one", Duration::from_secs(30))
    }

    fn of(prefix: &str, name: &str, lease: Duration) -> Self {
        let (store, done) = open_as(prefix, name, lease, Some(peer()));
        let beside = ::redis::Client::open(server()).unwrap().get_connection().unwrap();
        let (prefix, name) = (prefix.to_owned(), name.to_owned());
        Self { prefix, name, lease, store: Some(store), done, next: 0, beside }
    }

    fn other(&self, name: &str) -> Self {
        Self::of(&self.prefix, name, self.lease)
    }

    fn send_raw(&mut self, list: &str, call: &Call, tag: &str) {
        let envelope = call.write(Sending { tag, origin: "gen1@here", expiration_ms: None });
        let key = format!("{}{list}", self.prefix);
        let _: () = self.beside.lpush(key, envelope.write().text()).unwrap();
    }

    fn send(&mut self, id: &str) {
        self.send_raw("q", &call(id), &format!("tag-{id}"));
    }

    fn lease(&mut self, credit: u32) -> Vec<Delivery> {
        match self.ok(Op::Lease { queue: "q".into(), credit, now: at(0), skip: Vec::new() }) {
            Reply::Leased { deliveries, .. } => deliveries,
            other => panic!("{other:?}"),
        }
    }

    fn start(&mut self, d: &Delivery) -> Reply {
        let op = Op::Start { id: d.message.id.clone(), token: d.token, now: at(1), takes: Takes::default() };
        self.ok(op)
    }

    fn get(&mut self, id: &str) -> Option<Record> {
        match self.ok(Op::Get { id: MessageId(id.into()) }) {
            Reply::Record(record) => record.map(|record| *record),
            other => panic!("{other:?}"),
        }
    }

    fn meta(&mut self, id: &str) -> Option<Value> {
        let text: Option<String> = self.beside.get(format!("{}celery-task-meta-{id}", self.prefix)).unwrap();
        text.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// What clients are told follows the answer.
    fn told(&mut self, id: &str, status: &str) {
        until("the result is written", || self.meta(id).is_some_and(|meta| meta["status"] == status));
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Whether nothing is in any node's hand, in kombu's keys and in taskd's.
    fn assert_nothing_in_hand(&mut self) {
        for key in ["unacked", "unacked_index", "taskd.in:one", "taskd.in:two", "taskd.flying", "q"] {
            let there: bool = self.beside.exists(self.key(key)).unwrap();
            assert!(!there, "{key} is left");
        }
    }

    fn is_row(&mut self, id: &str) -> bool {
        self.beside.exists(self.key(&format!("taskd.m:{id}"))).unwrap()
    }
}

impl Harness for Node {
    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer> {
        let (first, n) = (self.next + 1, ops.len());
        let ops = ticketed(&mut self.next, ops);
        self.store.as_mut().unwrap().submit(ops);
        collect(&self.done, first, n)
    }

    fn restart(&mut self) {
        self.store.take().unwrap().close();
        let (store, done) = open_as(&self.prefix, &self.name, self.lease, Some(peer()));
        (self.store, self.done) = (Some(store), done);
    }
}

fn call(id: &str) -> Call {
    let mut call = Call::new("t", id);
    call.args = Raw::parse("[1, \"x\"]").unwrap();
    call.address = Address::queue("q");
    call
}

fn success(d: &Delivery) -> Op {
    let outcome = Outcome { result: Some(json!({"is": 5})), ..crate::harness::success() };
    Op::Settle(Box::new(Settle::new(d.message.id.clone(), d.token, State::Success, outcome, at(2))))
}

fn failure(d: &Delivery) -> Op {
    let outcome = Outcome::of_cause(Cause::Exit { code: 1 }, "exit code 1");
    Op::Settle(Box::new(Settle::new(d.message.id.clone(), d.token, State::Failure, outcome, at(2))))
}

fn applied(reply: &Reply) -> bool {
    match reply {
        Reply::Applied { applied, .. } => *applied,
        other => panic!("{other:?}"),
    }
}

fn ids(list: &[Delivery]) -> Vec<&str> {
    list.iter().map(|d| d.message.id.as_str()).collect()
}

#[test]
fn a_plain_message_runs_and_succeeds_without_being_a_row() {
    let mut node = Node::first();
    for id in ["a", "b", "c"] {
        node.send(id);
    }
    let got = node.lease(2);
    assert_eq!(ids(&got), ["a", "b"]);
    assert_eq!((got[0].message.args.as_slice(), got[0].attempt), ([json!(1), json!("x")].as_slice(), 1));
    assert!(got[0].token < got[1].token);
    assert!(applied(&node.start(&got[0])));
    assert!(!node.is_row("a"));
    let now = node.ok(success(&got[0]));
    assert!(applied(&now));
    assert!(!node.is_row("a"));
    let meta = node.meta("a").unwrap();
    assert_eq!((&meta["status"], &meta["result"]), (&json!("SUCCESS"), &json!({"is": 5})));
    let ttl: i64 = node.beside.ttl(node.key("celery-task-meta-a")).unwrap();
    assert!((3_590..=3_600).contains(&ttl), "{ttl}");
    // What is asked later is answered, as of a row.
    let record = node.get("a").unwrap();
    assert_eq!((record.state, record.attempt, record.started), (State::Success, 1, Some(at(1))));
    assert_eq!(record.outcome.unwrap().result, Some(json!({"is": 5})));
    assert_eq!(record.message.args, [json!(1), json!("x")]);
    // A repeat of the end is answered with what there is: the answer of the first may have been lost.
    assert!(matches!(node.ok(success(&got[0])), Reply::Applied { applied: false, current: Some(r) }
        if r.state == State::Success));
    let more = node.lease(9);
    assert_eq!(ids(&more), ["c"]);
    node.all(vec![success(&got[1]), success(&more[0])])
        .into_iter()
        .for_each(|a| assert!(applied(&a.unwrap())));
    node.assert_nothing_in_hand();
}

#[test]
fn a_start_and_an_end_may_arrive_together() {
    let mut node = Node::first();
    node.send("a");
    let got = node.lease(1);
    let start = Op::Start { id: id("a"), token: got[0].token, now: at(1), takes: Takes::default() };
    let said = node.all(vec![start, success(&got[0])]);
    assert!(said.iter().all(|a| applied(a.as_ref().unwrap())), "{said:?}");
    assert_eq!(node.get("a").unwrap().started, Some(at(1)));
    node.assert_nothing_in_hand();
}

#[test]
fn any_other_end_makes_it_a_row_first() {
    let mut node = Node::first();
    for id in ["fails", "back", "retries"] {
        node.send(id);
    }
    let got = node.lease(9);
    for d in &got {
        assert!(applied(&node.start(d)));
    }
    assert!(applied(&node.ok(failure(&got[0]))));
    node.told("fails", "FAILURE");
    assert_eq!(node.get("fails").unwrap().state, State::Failure);
    let back = Op::Defer {
        id: id("back"),
        token: got[1].token,
        until: None,
        counted: false,
        lost: false,
        takes: Vec::new(),
        now: at(3),
    };
    assert!(applied(&node.ok(back)));
    let Op::Settle(mut retry) = failure(&got[2]) else { unreachable!() };
    (retry.state, retry.due) = (State::Retry, Some(at(60_000)));
    assert!(applied(&node.ok(Op::Settle(retry))));
    let record = node.get("retries").unwrap();
    assert_eq!((record.state, record.message.retries, record.due), (State::Retry, 1, Some(at(60_000))));
    let again = node.lease(9);
    assert_eq!(ids(&again), ["back"]);
    assert_eq!(again[0].attempt, 1, "it was given back uncounted");
    assert!(applied(&node.ok(success(&again[0]))));
    node.told("back", "SUCCESS");
    node.assert_nothing_in_hand();
}

#[test]
fn the_same_id_is_run_once() {
    let mut node = Node::first();
    node.send("a");
    node.send_raw("q", &call("a"), "another");
    let got = node.lease(9);
    assert_eq!(ids(&got), ["a"]);
    node.send_raw("q", &call("a"), "a-third");
    assert_eq!(node.lease(9), []);
    // Nor by another node, nor by somebody who enqueues it otherwise.
    let mut other = node.other("two");
    node.send_raw("q", &call("a"), "a-fourth");
    assert_eq!(other.lease(9), []);
    let message = Message { id: id("a"), task: "t".into(), queue: "q".into(), ..Message::default() };
    let publish = Op::Publish { messages: vec![message], max_length: Vec::new(), now: at(0) };
    match other.ok(publish) {
        Reply::Published(list) => {
            assert!(matches!(&list[..], [Published::Known(r)] if r.token == Some(got[0].token)), "{list:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(applied(&node.ok(success(&got[0]))), "it became a row of the same lease");
    // It comes again after its end: its result is told again, it does not run.
    let _: () = node.beside.del(node.key("celery-task-meta-a")).unwrap();
    node.send_raw("q", &call("a"), "a-fifth");
    assert_eq!(node.lease(9), []);
    node.send("b");
    let b = node.lease(9);
    node.ok(success(&b[0]));
    node.send_raw("q", &call("b"), "b-second");
    assert_eq!(node.lease(9), []);
    drop(other);
    node.assert_nothing_in_hand();
}

#[test]
fn what_is_not_plain_becomes_a_row() {
    let mut node = Node::first();
    let mut later = call("later");
    later.eta = Some(taskd::celery::moment::Moment::of(at(60_000)));
    node.send_raw("q", &later, "1");
    let mut linked = call("linked");
    linked.callbacks = Some(vec![
        taskd::celery::signature::Signature::read(
            taskd::celery::json::Json::parse(r#"{"task": "next", "args": [], "kwargs": {}, "options": {}}"#)
                .unwrap(),
        )
        .unwrap(),
    ]);
    node.send_raw("q", &linked, "2");
    node.send("plain");
    let _: () = node.beside.lpush(node.key("q"), "{\"not\": \"a message\"").unwrap();
    let got = node.lease(9);
    assert_eq!(ids(&got), ["plain", "linked"]);
    assert!(node.is_row("later") && node.is_row("linked") && !node.is_row("plain"));
    assert_eq!(node.get("later").unwrap().state, State::Scheduled);
    for d in &got {
        assert!(applied(&node.ok(success(d))));
    }
    node.told("linked", "SUCCESS");
    let mut next = || node.beside.lrange::<_, Vec<String>>(format!("{}q", node.prefix), 0, -1).unwrap();
    until("what follows is sent", || next().len() == 1);
    assert!(next()[0].contains("\"next\""), "{:?}", next());
    let _: () = node.beside.del(node.key("q")).unwrap();
    let dead = node.ok(Op::List(Filter { states: vec![State::Dead], limit: 10, ..Filter::default() }));
    assert!(matches!(&dead, Reply::Records(list) if list.len() == 1), "{dead:?}");
    node.assert_nothing_in_hand();
}

#[test]
fn what_waits_as_a_row_has_its_turn() {
    let mut node = Node::first();
    let row = |n: u32| Message {
        id: id(&format!("row{n}")),
        task: "t".into(),
        queue: "q".into(),
        priority: 9,
        ..Message::default()
    };
    node.ok(Op::Publish { messages: (0..9).map(row).collect(), max_length: Vec::new(), now: at(0) });
    for n in 0..9 {
        node.send(&format!("c{n}"));
    }
    // Half of each, as long as there are both.
    let count = |got: &[Delivery]| {
        let rows = got.iter().filter(|d| d.message.id.as_str().starts_with("row")).count();
        (rows, got.len() - rows)
    };
    assert_eq!(count(&node.lease(6)), (3, 3));
    let singles: Vec<_> = (0..4).map(|_| count(&node.lease(1))).collect();
    assert_eq!(singles.iter().filter(|n| **n == (1, 0)).count(), 2, "{singles:?}");
    assert_eq!(count(&node.lease(30)), (4, 4));
    assert!(!node.is_row("c8"));
}

#[test]
fn kombus_priorities_go_lowest_first() {
    let mut node = Node::first();
    for (list, id) in [("q\u{6}\u{16}9", "nine"), ("q", "zero"), ("q\u{6}\u{16}3", "three")] {
        node.send_raw(list, &call(id), id);
    }
    assert_eq!(ids(&node.lease(2)), ["zero", "three"]);
    assert_eq!(ids(&node.lease(2)), ["nine"]);
}

#[test]
fn a_paused_queue_is_left_alone() {
    let mut node = Node::first();
    node.send("a");
    node.ok(Op::QueueState { queue: "q".into(), paused: true });
    assert_eq!(node.lease(9), []);
    let waits: usize = node.beside.llen(node.key("q")).unwrap();
    assert_eq!(waits, 1);
    node.ok(Op::QueueState { queue: "q".into(), paused: false });
    assert_eq!(ids(&node.lease(9)), ["a"]);
}

#[test]
fn everybody_sees_what_runs_and_what_ran() {
    let mut node = Node::first();
    for id in ["done", "runs", "waits"] {
        node.send(id);
    }
    let got = node.lease(2);
    node.ok(success(&got[0]));
    node.start(&got[1]);
    let count = |node: &mut Node| match node.ok(Op::Count) {
        Reply::Counts(list) => list.iter().map(|c| (c.waiting, c.leased)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&mut node), [(1, 1)]);
    let mut other = node.other("two");
    assert_eq!(count(&mut other), [(1, 1)]);
    let record = other.get("runs").unwrap();
    assert_eq!((record.state, record.token), (State::Running, Some(got[1].token)));
    let list = other.ok(Op::List(Filter { limit: 10, ..Filter::default() }));
    let Reply::Records(list) = list else { panic!("{list:?}") };
    let seen: BTreeMap<&str, State> = list.iter().map(|r| (r.message.id.as_str(), r.state)).collect();
    assert_eq!(seen, BTreeMap::from([("done", State::Success), ("runs", State::Running)]));
    assert!(other.get("nobody's").is_none());
    // Nobody may end what runs; its own node may.
    let revoke = other.ok(Op::Revoke { id: id("runs"), now: at(5) });
    assert!(matches!(revoke, Reply::Record(Some(r)) if r.state == State::Running));
    assert!(applied(&node.ok(success(&got[1]))));
    assert_eq!(other.get("runs").unwrap().state, State::Success);
    // What ran can run again.
    assert!(matches!(other.ok(Op::Requeue { id: id("done"), now: at(9) }), Reply::Record(Some(r))
        if r.state == State::Waiting));
    let again = other.lease(9);
    assert_eq!(ids(&again).into_iter().collect::<std::collections::BTreeSet<_>>(), ["done", "waits"].into());
}

/// Another node looks while a message is held and not started, and between its start and its end.
#[test]
fn what_others_look_at_ends_as_what_they_saw() {
    let mut node = Node::first();
    for id in ["held", "together", "started"] {
        node.send(id);
    }
    let got = node.lease(9);
    assert!(applied(&node.start(&got[2])));
    let mut other = node.other("two");
    let list = other.ok(Op::List(Filter { limit: 10, ..Filter::default() }));
    assert!(matches!(&list, Reply::Records(list) if list.len() == 3), "{list:?}");
    assert!(applied(&node.start(&got[0])));
    assert_eq!(other.get("held").unwrap().state, State::Running);
    let start = Op::Start { id: id("together"), token: got[1].token, now: at(1), takes: Takes::default() };
    let said = node.all(vec![start, success(&got[1]), success(&got[0]), success(&got[2])]);
    assert!(said.iter().all(|a| applied(a.as_ref().unwrap())), "{said:?}");
    for id in ["held", "together", "started"] {
        let record = other.get(id).unwrap();
        assert_eq!((record.state, record.token, record.started), (State::Success, None, Some(at(1))), "{id}");
        node.told(id, "SUCCESS");
    }
    let list = other.ok(Op::List(Filter { limit: 10, ..Filter::default() }));
    assert!(matches!(&list, Reply::Records(list) if list.len() == 3), "{list:?}");
    let leases: bool = node.beside.exists(node.key("taskd.nl:one")).unwrap();
    assert!(!leases);
    node.assert_nothing_in_hand();
}

#[test]
fn a_new_daemon_finds_what_the_old_one_had() {
    let mut node = Node::first();
    for id in ["started", "held", "waits"] {
        node.send(id);
    }
    let got = node.lease(2);
    node.start(&got[0]);
    node.restart();
    let found = match node.ok(Op::Recover) {
        Reply::Deliveries(list) => list,
        other => panic!("{other:?}"),
    };
    let found: Vec<_> =
        found.iter().map(|d| (d.message.id.as_str(), d.token, d.started, d.attempt)).collect();
    assert_eq!(found, [("started", got[0].token, true, 1), ("held", got[1].token, false, 1)]);
    assert!(applied(&node.ok(success(&got[0]))), "an adopted run ends under its token");
    node.told("started", "SUCCESS");
    assert_eq!(ids(&node.lease(9)), ["waits"]);
}

#[test]
fn what_a_node_that_is_gone_had_runs_elsewhere() {
    let prefix = Node::first().prefix;
    let mut gone = Node::of(&prefix, "one", Duration::from_millis(300));
    for id in ["started", "held"] {
        gone.send(id);
    }
    let got = gone.lease(9);
    gone.start(&got[0]);
    let mut there = gone.other("two");
    // It says that it lives while it does; then its time passes.
    let beside = &mut gone.beside;
    let _: () = beside.zadd(format!("{prefix}taskd.alive"), "one", 1).unwrap();
    let sweep = Op::Sweep { now: at(10), retention: Retention::default() };
    there.ok(sweep.clone());
    let again = until_leased(&mut there, 2);
    let seen: BTreeMap<&str, (u32, u32)> =
        again.iter().map(|d| (d.message.id.as_str(), (d.attempt, d.losses))).collect();
    assert_eq!(seen, BTreeMap::from([("started", (2, 1)), ("held", (1, 0))]), "one attempt was lost");
    // The old one's word does not count any more.
    for d in &got {
        let said = gone.ok(success(d));
        assert!(!applied(&said), "{said:?}");
    }
    for d in &again {
        assert!(applied(&there.ok(success(d))));
    }
    there.assert_nothing_in_hand();
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let last = std::time::Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(std::time::Instant::now() < last, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Leases until so many were handed out.
fn until_leased(node: &mut Node, n: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    until("the messages are handed out", || {
        all.extend(node.lease(9));
        all.len() >= n
    });
    all
}

#[test]
fn a_purge_ends_what_waits_in_kombus_lists() {
    let mut node = Node::first();
    for n in 0..450 {
        node.send(&format!("m{n}"));
    }
    let held = node.lease(2);
    assert!(matches!(node.ok(Op::Purge { queue: "q".into(), now: at(5) }), Reply::Purged(448)));
    node.told("m449", "REVOKED");
    assert_eq!(node.lease(9), []);
    for d in &held {
        assert!(applied(&node.ok(success(d))));
    }
    node.assert_nothing_in_hand();
}

#[test]
fn a_record_past_its_time_says_only_that_its_id_was_known() {
    let mut node = Node::first();
    node.send("a");
    let got = node.lease(1);
    let Op::Settle(mut settle) = success(&got[0]) else { unreachable!() };
    // T0 is in the past of the server's clock, or not: the end is told by what the server's clock says.
    settle.now = taskd::model::time::Wall(1_000);
    settle.expires_ms = Some(5);
    assert!(applied(&node.ok(Op::Settle(settle))));
    let record = node.get("a").unwrap();
    assert_eq!((record.state, record.outcome, record.message.args.len()), (State::Success, None, 0));
    node.send_raw("q", &call("a"), "again");
    assert_eq!(node.lease(9), [], "it is known for a day");
}

/// One that a Celery worker took an hour ago and that is in nobody's hand, beside one that a node runs.
#[test]
fn what_a_worker_never_acknowledged_goes_back_to_its_list() {
    let mut node = Node::first();
    for id in ["stuck", "runs"] {
        node.send(id);
    }
    let raw: String = node.beside.rpop(node.key("q"), None).unwrap();
    let (unacked, index) = (node.key("unacked"), node.key("unacked_index"));
    let _: () = node.beside.hset(&unacked, "tag-stuck", format!("[{raw}, \"\", \"q\"]")).unwrap();
    let _: () = node.beside.hset(&unacked, "tag-foreign", format!("[{raw}, \"\", \"else\"]")).unwrap();
    let got = node.lease(9);
    assert_eq!(ids(&got), ["runs"]);
    for tag in ["tag-stuck", "tag-foreign", "tag-runs"] {
        let _: () = node.beside.zadd(&index, tag, 1_000_000).unwrap();
    }
    // It looks when it begins, and every minute.
    let mut other = node.other("two");
    let mut again = Vec::new();
    until("it is handed out", || {
        again.extend(other.lease(9));
        !again.is_empty()
    });
    assert_eq!(ids(&again), ["stuck"]);
    let foreign: bool = node.beside.hexists(&unacked, "tag-foreign").unwrap();
    assert!(foreign, "it is of a queue that is not this node's");
    assert!(applied(&node.ok(success(&got[0]))));
    assert!(applied(&other.ok(success(&again[0]))));
    let left: Vec<String> = node.beside.hkeys(&unacked).unwrap();
    assert_eq!(left, ["tag-foreign"]);
}
