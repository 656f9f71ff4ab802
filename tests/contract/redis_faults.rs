//! The store on Redis while the server has its troubles: the real one brought into each, and a scripted one where it
//! cannot be. Nothing that was answered for is lost, what is wrong is said, and it goes on by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use taskd::broker::redis::{Options, Redis, Woken};
use taskd::broker::{Broker, Completion};
use taskd::config::redis::Address;
use taskd::model::op::{Fault, Op, Reply};
use taskd::model::state::State;

use crate::harness::*;

#[path = "../link/fake.rs"]
#[allow(dead_code, reason = "likewise")]
mod fake;
#[path = "../servers/redis.rs"]
#[allow(dead_code, reason = "each user of the servers needs another part of them")]
mod servers;

use fake::{Fake, Say, bulk};
use servers::Redis as Server;

/// A store, its answers, and what it made known.
struct Rig {
    store: Redis,
    done: Receiver<Completion>,
    woken: Arc<Mutex<Vec<Woken>>>,
    next: u64,
}

fn rig(address: &str, node: &str, identity: &str, allow_eviction: bool) -> Rig {
    let (send, done) = mpsc::channel();
    let on_done =
        move |completions: Vec<Completion>| completions.into_iter().for_each(|c| drop(send.send(c)));
    let woken = Arc::<Mutex<Vec<Woken>>>::default();
    let heard = woken.clone();
    let options = Options {
        address: Address::parse(address).unwrap(),
        allow_eviction,
        node: node.to_owned(),
        identity: identity.to_owned(),
        lease: Duration::from_secs(30),
        peer: None,
    };
    let on_wake = move |woken| heard.lock().unwrap().push(woken);
    let store = Redis::open(options, Box::new(on_done), Box::new(on_wake)).unwrap();
    Rig { store, done, woken, next: 0 }
}

fn plain(address: &str) -> Rig {
    rig(address, "node", "one", false)
}

impl Rig {
    fn one(&mut self, op: Op) -> Answer {
        self.all(vec![op]).remove(0)
    }

    fn all(&mut self, ops: Vec<Op>) -> Vec<Answer> {
        let (first, n) = (self.next + 1, ops.len());
        self.store.submit(ticketed(&mut self.next, ops));
        collect(&self.done, first, n)
    }

    /// Asks until it is done, as the engine does.
    fn at_last(&mut self, op: Op) -> Reply {
        until("it is done", || match self.one(op.clone()) {
            Ok(reply) => Some(reply),
            Err(Fault::Again(_) | Fault::Reconnect(_)) => None,
            Err(other) => panic!("{other}"),
        })
    }

    fn trouble(&self, with: &str) -> String {
        until(with, || self.store.trouble().filter(|text| text.contains(with)))
    }

    fn well(&self) {
        until("all is well", || self.store.trouble().is_none().then_some(()));
    }

    /// A publish that must be refused for now, and why.
    fn refused_for_now(&mut self, id: &str) -> String {
        match self.one(publish(vec![msg(id)])) {
            Err(Fault::Again(why) | Fault::Reconnect(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited a minute for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn counted(rig: &mut Rig) -> u64 {
    let Reply::Counts(counts) = rig.at_last(Op::Count) else { panic!() };
    counts.iter().map(|c| c.waiting + c.leased).sum()
}

/// With answers that are soon given up.
fn quick(server: &Server) -> String {
    format!("{}?socket_timeout=1", server.url())
}

#[test]
fn a_killed_server_that_comes_back_is_used_within_two_seconds() {
    let mut server = Server::durable();
    let mut rig = plain(&server.url());
    rig.at_last(publish(vec![msg("a")]));
    for round in 0..3 {
        server.kill();
        rig.trouble("Redis");
        let why = rig.refused_for_now("b");
        assert!(why.contains("Redis"), "{why}");
        server.start_again();
        let since = Instant::now();
        rig.at_last(publish(vec![msg(&format!("c{round}"))]));
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        rig.well();
    }
    assert_eq!(counted(&mut rig), 4, "what was answered for, and nothing else");
    assert!(rig.woken.lock().unwrap().contains(&Woken::All), "queues are looked at again");
}

#[test]
fn a_server_that_was_away_at_the_start_is_found() {
    let mut server = Server::durable();
    let address = server.url();
    server.kill();
    let mut rig = plain(&address);
    assert!(rig.store.trouble().is_some());
    assert!(!rig.refused_for_now("a").is_empty());
    server.start_again();
    rig.at_last(publish(vec![msg("a")]));
    rig.well();
}

#[test]
fn a_paused_server_loses_nothing() {
    let server = Server::durable();
    let mut rig = plain(&quick(&server));
    rig.at_last(publish(vec![msg("a")]));
    server.tell::<()>("CLIENT PAUSE 3000 ALL");
    let why = rig.refused_for_now("b");
    assert!(why.contains("does not answer"), "{why}");
    rig.trouble("Redis");
    rig.at_last(publish(vec![msg("b")]));
    rig.well();
    assert_eq!(counted(&mut rig), 2);
}

#[test]
fn a_connection_that_is_half_open_is_given_up() {
    let server = Server::durable();
    let mut rig = plain(&quick(&server));
    rig.at_last(publish(vec![msg("a")]));
    server.freeze();
    let since = Instant::now();
    rig.refused_for_now("b");
    assert!(since.elapsed() < Duration::from_secs(10));
    server.thaw();
    rig.at_last(publish(vec![msg("b")]));
    rig.well();
    assert_eq!(
        counted(&mut rig),
        2,
        "the one that was not answered for took place once, or was asked for again"
    );
}

#[test]
fn a_server_that_became_a_replica_is_said_and_left_until_it_is_a_master() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    rig.at_last(publish(vec![msg("a")]));
    server.tell::<()>("REPLICAOF 127.0.0.1 1");
    let why = rig.refused_for_now("b");
    assert!(why.contains("read-only replica"), "{why}");
    rig.trouble("replica");
    server.tell::<()>("REPLICAOF NO ONE");
    rig.at_last(publish(vec![msg("b")]));
    rig.well();
    assert_eq!(counted(&mut rig), 2);
}

#[test]
fn a_full_server_takes_nothing_new_and_everything_else_goes_on() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    rig.at_last(publish(vec![msg("a"), msg("b")]));
    let Reply::Leased { deliveries, .. } = rig.at_last(lease_op(1)) else { panic!() };
    server.tell::<()>("CONFIG SET maxmemory 1");
    let why = rig.refused_for_now("c");
    assert!(why.contains("out of memory"), "{why}");
    let trouble = rig.trouble("nothing can be enqueued");
    assert!(trouble.contains("raise maxmemory"), "{trouble}");
    // Together with what is refused: an end, and what is leased next.
    let mut answers = rig.all(vec![
        publish(vec![msg("d")]),
        Op::Settle(Box::new(settle("a", deliveries[0].token, State::Success))),
        lease_op(1),
    ]);
    assert!(matches!(answers.remove(0), Err(Fault::Again(why)) if why.contains("memory")));
    assert!(answers.remove(0).is_ok(), "an end is taken");
    let Ok(Reply::Leased { deliveries, .. }) = answers.remove(0) else { panic!("work goes on") };
    assert_eq!(deliveries.len(), 1);
    server.tell::<()>("CONFIG SET maxmemory 0");
    // It finds out by itself that there is room.
    rig.well();
    rig.at_last(publish(vec![msg("d")]));
    assert!(rig.woken.lock().unwrap().contains(&Woken::All));
}

fn lease_op(credit: u32) -> Op {
    Op::Lease { queue: "q".to_owned(), credit, now: at(0), skip: Vec::new() }
}

#[test]
fn a_server_without_its_scripts_is_given_them_again() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    for n in 0..3 {
        server.tell::<()>("SCRIPT FLUSH");
        assert!(rig.one(publish(vec![msg(&format!("m{n}"))])).is_ok());
        assert!(rig.one(Op::Count).is_ok());
    }
    assert_eq!(counted(&mut rig), 3);
}

#[test]
fn clients_that_are_cut_off_again_and_again_lose_nothing() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    for n in 0..30 {
        server.tell::<i64>("CLIENT KILL TYPE normal");
        rig.at_last(publish(vec![msg(&format!("m{n}"))]));
    }
    assert_eq!(counted(&mut rig), 30);
    rig.well();
}

#[test]
fn a_changed_password_is_said_and_read_anew() {
    let server = Server::durable();
    let file = server.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    server.tell::<()>("CONFIG SET requirepass old");
    let mut rig = plain(&format!("{}?password_file={}", server.url(), file.display()));
    rig.at_last(publish(vec![msg("a")]));
    let mut admin = ::redis::Client::open(format!("redis://:old@127.0.0.1:{}", server.port))
        .unwrap()
        .get_connection()
        .unwrap();
    let mut tell = |words: &[&str]| {
        let mut cmd = ::redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = cmd.arg(word));
        cmd.exec(&mut admin).unwrap();
    };
    tell(&["CONFIG", "SET", "requirepass", "new"]);
    tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    rig.trouble("refuses the user or the password");
    let why = rig.refused_for_now("b");
    assert!(!why.contains("old") && !why.contains("new"), "{why}");
    std::fs::write(&file, "new\n").unwrap();
    rig.at_last(publish(vec![msg("b")]));
    rig.well();
    assert_eq!(counted(&mut rig), 2);
}

#[test]
fn a_script_of_somebody_that_runs_too_long_is_waited_for() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    rig.at_last(publish(vec![msg("a")]));
    server.tell::<()>("CONFIG SET lua-time-limit 50");
    let mut other = server.client();
    let runs = std::thread::spawn(move || {
        let _ = ::redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut other);
    });
    let why = until("it is busy", || match rig.one(publish(vec![msg("b")])) {
        Err(Fault::Again(why) | Fault::Reconnect(why)) => Some(why),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    });
    assert!(why.contains("busy") || why.contains("answer"), "{why}");
    server.tell::<()>("SCRIPT KILL");
    runs.join().unwrap();
    rig.at_last(publish(vec![msg("c")]));
    rig.well();
}

#[test]
fn what_the_server_dropped_or_lost_is_said() {
    let server = Server::durable();
    server.tell::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    let mut rig = rig(&server.url(), "node", "one", true);
    rig.at_last(publish(vec![msg("a")]));
    until("it was looked at", || server.tell::<Option<String>>("HGET taskd.n born"));
    let mut client = server.client();
    let used: String = ::redis::cmd("INFO").arg("memory").query(&mut client).unwrap();
    let used: u64 =
        used.lines().find_map(|l| l.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    server.tell::<()>(&format!("CONFIG SET maxmemory {}", used + (1 << 20)));
    for n in 0..500 {
        ::redis::cmd("SET").arg(format!("filler{n}")).arg("x".repeat(8_192)).exec(&mut client).unwrap();
    }
    let has = |rig: &Rig, text: &str| rig.store.notes().iter().any(|note| note.contains(text));
    until("it says that keys were dropped", || has(&rig, "dropped").then_some(()));
    server.tell::<()>("FLUSHALL");
    until("it says that all is gone", || has(&rig, "vanished").then_some(()));
    // And goes on.
    rig.at_last(publish(vec![msg("b")]));
}

#[test]
fn a_name_is_one_processs_and_free_when_it_is_let_go() {
    let server = Server::durable();
    let mut first = rig(&server.url(), "web", "one", false);
    first.at_last(publish(vec![msg("a")]));
    let mut second = rig(&server.url(), "web", "two", false);
    assert!(second.refused_for_now("b").contains("\"web\""));
    assert!(second.store.undecided());
    let clash = |rig: &Rig| {
        rig.woken.lock().unwrap().iter().find_map(|woken| match woken {
            Woken::Clash(why) => Some(why.clone()),
            _ => None,
        })
    };
    let why = until("a clash", || clash(&second));
    assert!(why.contains("names of their own"), "{why}");
    assert!(first.one(Op::Count).is_ok() && clash(&first).is_none(), "who has it keeps it");
    drop(second);
    // A daemon that is replaced leaves what it holds to the next one; one that ends in order lets all go.
    let Reply::Leased { deliveries, .. } = first.at_last(lease_op(1)) else { panic!() };
    assert_eq!(deliveries.len(), 1);
    first.store.hand_over();
    assert!(server.tell::<f64>("ZSCORE taskd.alive web") > 1.0, "nobody may take it over");
    let mut next = rig(&server.url(), "web", "one", false);
    let Reply::Deliveries(held) = next.at_last(Op::Recover) else { panic!() };
    assert_eq!(held.len(), 1);
    next.store.close();
    assert_eq!(server.tell::<f64>("ZSCORE taskd.alive web"), 0.0);
    let mut third = rig(&server.url(), "web", "three", false);
    assert!(third.one(Op::Count).is_ok());
}

#[test]
fn what_a_node_that_is_gone_did_not_tell_is_inherited() {
    let server = Server::durable();
    let mut rig = plain(&server.url());
    rig.at_last(publish(vec![msg("a")]));
    for command in [
        "ZADD taskd.alive 1 gone",
        "HSET taskd.names gone somebody",
        "HSET taskd.in:gone tag q",
        "RPUSH taskd.out:gone x y",
        "RPUSH taskd.out:node z",
    ] {
        server.tell::<i64>(command);
    }
    rig.at_last(Op::Sweep { now: at(0), retention: keep() });
    assert_eq!(server.tell::<Option<String>>("HGET taskd.in:node tag").as_deref(), Some("q"));
    assert_eq!(server.tell::<Vec<String>>("LRANGE taskd.out:node 0 -1"), ["z", "x", "y"]);
    assert_eq!(server.tell::<i64>("EXISTS taskd.in:gone taskd.out:gone"), 0);
    assert_eq!(server.tell::<Option<f64>>("ZSCORE taskd.alive gone"), None);
    assert_eq!(server.tell::<Option<String>>("HGET taskd.names gone"), None);
}

/// What a scripted server answers to operations: a list, with nothing done beside.
fn told(words: &[&str]) -> Say {
    let words: String = words.iter().map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
    let n = words.matches("\r\n$").count() + 1;
    Say::Reply(format!("*1\r\n*2\r\n*{n}\r\n{words}$0\r\n\r\n"))
}

/// The operations of a script's arguments, behind EVALSHA, the digest, the number of keys, two prefixes and the node.
fn names(words: &[String]) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 6);
    while let (Some(name), Some(n)) = (words.get(at), words.get(at + 1)) {
        names.push(name.clone());
        at += 2 + n.parse::<usize>().unwrap();
    }
    names
}

/// A server that answers like a good one until `trouble` is set, and then so to every script of an operation of ours.
fn scripted(
    info: String,
    trouble: Arc<AtomicBool>,
    say: impl Fn(&str) -> Say + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |_, words| match words[0].as_str() {
        "INFO" => bulk(&info),
        "EVALSHA" if words.len() > 6 => {
            let name = names(words).remove(0);
            match name.as_str() {
                _ if trouble.load(Ordering::Acquire) => say(&name),
                "alive" => told(&["alive", "new"]),
                "born" => told(&["born", "1"]),
                "publish" => {
                    Say::Reply("*1\r\n*2\r\n*2\r\n$9\r\npublished\r\n*1\r\n$3\r\nnew\r\n$0\r\n\r\n".into())
                }
                _ => told(&["done"]),
            }
        }
        _ => fake::good(words),
    })
}

#[test]
fn what_the_server_says_for_now_is_asked_again_on_the_same_connection() {
    for (code, sentence) in [
        ("-LOADING Redis is loading the dataset in memory", "loading"),
        ("-BUSY Redis is busy running a script", "busy"),
        ("-MISCONF Redis is configured to save RDB snapshots", "cannot save"),
        ("-NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("-TRYAGAIN later", "at the moment"),
    ] {
        let on = Arc::new(AtomicBool::new(false));
        let server = scripted(fake::INFO.to_owned(), on.clone(), move |_| Say::line(code));
        let mut rig = plain(&server.url());
        rig.at_last(publish(vec![msg("a")]));
        // The store's connection, and the one that watches: it may come later.
        while server.accepted.load(Ordering::Acquire) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        on.store(true, Ordering::Release);
        let why = rig.refused_for_now("b");
        assert!(why.contains(sentence), "{code}: {why}");
        on.store(false, Ordering::Release);
        rig.at_last(publish(vec![msg("b")]));
        assert_eq!(server.accepted.load(Ordering::Acquire), 2, "{code}: no new connection");
    }
}

#[test]
fn a_server_before_redis_7_says_within_a_script_what_is_wrong() {
    let info = fake::INFO.replace("7.0.15", "6.2.14");
    let on = Arc::new(AtomicBool::new(false));
    let full = "OOM command not allowed when used memory > 'maxmemory'.";
    let server = scripted(info.clone(), on.clone(), move |name| match name {
        "publish" | "probe" => told(&["error", &format!("{name}: @user_script: 9: -{full}")]),
        "alive" => told(&["alive", "known"]),
        _ => told(&["done"]),
    });
    let mut store = plain(&server.url());
    store.at_last(publish(vec![msg("a")]));
    on.store(true, Ordering::Release);
    let why = store.refused_for_now("b");
    assert!(why.contains("out of memory"), "{why}");
    store.trouble("nothing can be enqueued");
    assert!(store.one(Op::QueueState { queue: "q".into(), paused: true }).is_ok(), "the rest goes on");
    on.store(false, Ordering::Release);
    store.well();
    // Its role, too.
    let on = Arc::new(AtomicBool::new(false));
    let server = scripted(info, on.clone(), move |name| {
        told(&[
            "error",
            &format!("{name}: @user_script: 9: -READONLY You can't write against a read only replica."),
        ])
    });
    let mut store = plain(&server.url());
    store.at_last(publish(vec![msg("a")]));
    let before = server.accepted.load(Ordering::Acquire);
    on.store(true, Ordering::Release);
    assert!(store.refused_for_now("b").contains("read-only"));
    until("a new connection", || (server.accepted.load(Ordering::Acquire) > before).then_some(()));
    on.store(false, Ordering::Release);
    store.at_last(publish(vec![msg("b")]));
}
