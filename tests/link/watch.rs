//! Being told of lists and channels, while nothing goes wrong.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use taskd::link::redis::{Timeouts, Told, Watch};

use super::redis_server::{PATIENCE, Redis};
use super::{TIMEOUTS, address};

/// A watch, and what it told.
pub struct Watched {
    pub watch: Watch,
    pub told: Receiver<Told>,
}

impl Watched {
    pub fn start(url: &str) -> Self {
        Self::with(url, TIMEOUTS)
    }

    pub fn with(url: &str, timeouts: Timeouts) -> Self {
        let (send, told) = channel();
        let watch = Watch::start(address(url), timeouts, "node1", move |one| _ = send.send(one)).unwrap();
        Self { watch, told }
    }

    pub fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("nothing is told")
    }

    /// Waits for what is looked for; what comes before is of no interest.
    pub fn until<T>(&self, look: impl Fn(&Told) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(&self.next()) {
                return found;
            }
        }
    }

    pub fn up(&self) {
        self.until(|told| matches!(told, Told::Up(_)).then_some(()));
    }

    pub fn key(&self, wanted: &str) -> u64 {
        self.until(|told| match told {
            Told::Key { key, length } if key == wanted => Some(*length),
            _ => None,
        })
    }

    fn nothing(&self, during: Duration) {
        match self.told.recv_timeout(during) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn lists_are_told_of_when_something_is_in_them() {
    let server = Redis::start(&[]);
    let _: () = server.tell("RPUSH full 1 2 3");
    let watched = Watched::start(&server.url());
    watched.up();
    watched.watch.add_keys(["full", "empty", "a b\x06\x16é"]);
    assert_eq!(watched.key("full"), 3);
    let _: () = server.tell("RPUSH empty 1");
    // At once, and how much there is behind.
    let filled = |told: &Told| matches!(told, Told::Filled { key } if key == "empty");
    assert!(filled(&watched.next()));
    assert_eq!(watched.next(), Told::Key { key: "empty".into(), length: 1 });
    let _: () = server.tell("RPUSH full 4");
    assert_eq!(watched.next(), Told::Key { key: "full".into(), length: 4 }, "it was not empty");
    let mut client = server.client();
    redis::cmd("LPUSH").arg("a b\x06\x16é").arg(1).exec(&mut client).unwrap();
    assert_eq!(watched.key("a b\x06\x16é"), 1);
    // One that became empty is no news, and is still watched.
    let _: () = server.tell("DEL empty full");
    watched.nothing(Duration::from_millis(200));
    let _: () = server.tell("RPUSH empty 1 2");
    assert_eq!(watched.key("empty"), 2);
    // Of one that is not wanted any more nothing is told.
    watched.watch.remove_key("empty");
    watched.watch.add_keys(["marker"]);
    let _: () = server.tell("RPUSH marker 1");
    assert_eq!(watched.key("marker"), 1);
    let _: () = server.tell("RPUSH empty 3");
    watched.nothing(Duration::from_millis(200));
    // Everything goes at once.
    let _: () = server.tell("FLUSHALL");
    let _: () = server.tell("RPUSH full 1");
    assert_eq!(watched.key("full"), 1);
    // What is no list is there, or it is not.
    let _: () = server.tell("DEL full");
    let _: () = server.tell("SET full text");
    assert_eq!(watched.key("full"), 1);
}

#[test]
fn no_push_between_two_looks_is_missed() {
    let server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    let keys: Vec<String> = (0..40).map(|n| format!("queue{n}")).collect();
    watched.watch.add_keys(keys.iter().map(String::as_str));
    watched.up();
    std::thread::scope(|scope| {
        for round in 0..60 {
            // All at once, from several sides, while the looks of the round before are under way.
            for part in keys.chunks(10) {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.client();
                    for key in part {
                        redis::cmd("RPUSH").arg(key).arg(round).exec(&mut client).unwrap();
                    }
                });
            }
            let mut missing: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
            while !missing.is_empty() {
                if let Told::Key { key, length } = watched.next()
                    && length > round
                {
                    missing.remove(key.as_str());
                }
            }
        }
    });
}

#[test]
fn a_list_that_always_changes_is_looked_at_in_its_pace() {
    let server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    watched.up();
    watched.watch.add_keys(["busy"]);
    let mut client = server.client();
    let looks = |client: &mut redis::Connection| -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(client).unwrap();
        let line = stats.lines().find(|l| l.starts_with("cmdstat_llen:")).unwrap_or("calls=0,");
        line.split(['=', ',']).nth(1).unwrap().parse().unwrap()
    };
    let begun = std::time::Instant::now();
    for n in 1..=3_000_u64 {
        redis::cmd("RPUSH").arg("busy").arg(n).exec(&mut client).unwrap();
    }
    let most = begun.elapsed().as_millis() / 10 + 2;
    let made = looks(&mut client);
    assert!(u128::from(made) <= most, "{made} looks in {:?}", begun.elapsed());
    // The last state is told all the same.
    watched.until(|told| matches!(told, Told::Key { length: 3_000, .. }).then_some(()));
}

#[test]
fn what_is_published_is_told() {
    let server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    watched.watch.subscribe("/0.celery.pidbox");
    watched.watch.subscribe("wake");
    watched.watch.add_keys(["q"]);
    watched.up();
    let subscribed = || server.tell::<Vec<(String, i64)>>("PUBSUB NUMSUB wake /0.celery.pidbox");
    let until = |wanted: i64| {
        let end = std::time::Instant::now() + PATIENCE;
        while subscribed().iter().any(|(_, n)| *n != wanted) {
            assert!(std::time::Instant::now() < end, "{:?}", subscribed());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until(1);
    let mut client = server.client();
    for n in 0..500 {
        redis::cmd("PUBLISH").arg("wake").arg(vec![n as u8, 0, 255]).exec(&mut client).unwrap();
    }
    for n in 0..500 {
        let message = Told::Message { channel: "wake".to_owned(), payload: vec![n as u8, 0, 255] };
        assert_eq!(watched.next(), message);
    }
    // Lists are watched beside it.
    let _: () = server.tell("RPUSH q 1");
    assert_eq!(watched.key("q"), 1);
    watched.watch.unsubscribe("wake");
    watched.watch.unsubscribe("/0.celery.pidbox");
    until(0);
    let _: () = server.tell("RPUSH q 1");
    assert_eq!(watched.key("q"), 2);
}

#[test]
fn a_watch_that_is_dropped_is_gone() {
    let server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    watched.up();
    drop(watched.watch);
    // The sender goes with the thread.
    let end = watched.told.recv_timeout(PATIENCE);
    assert_eq!(end, Err(RecvTimeoutError::Disconnected));
}
