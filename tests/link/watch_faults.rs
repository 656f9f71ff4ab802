//! What a watch tells when its connection goes, and after it came back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use taskd::link::redis::fault::{Ask, Reason};
use taskd::link::redis::{LinkError, Timeouts, Told};

use super::fake::{Fake, Say, good};
use super::redis_server::{Redis, Sentinel};
use super::watch::Watched;
use super::{SHORT, TIMEOUTS};

fn down(watched: &Watched) -> LinkError {
    watched.until(|told| match told {
        Told::Down(error) => Some(error.clone()),
        _ => None,
    })
}

#[test]
fn after_a_kill_and_a_restart_all_that_waits_is_told() {
    let mut server = Redis::durable();
    let watched = Watched::start(&server.url());
    watched.watch.add_keys(["a", "b", "c"]);
    watched.watch.subscribe("wake");
    watched.up();
    let _: () = server.tell("RPUSH a 1 2");
    assert_eq!(watched.key("a"), 2);
    let _: () = server.tell("RPUSH b 1");
    server.kill();
    assert_eq!(down(&watched).ask(), Ask::Reconnect);
    // Wanted while there is no connection.
    watched.watch.add_keys(["d"]);
    watched.watch.remove_key("c");
    server.start_again();
    let _: () = server.tell("RPUSH c 1");
    let _: () = server.tell("RPUSH d 1");
    watched.up();
    let mut told = Vec::new();
    while told.len() < 3 {
        if let Told::Key { key, .. } = watched.next() {
            told.push(key);
        }
    }
    told.sort();
    told.dedup();
    assert_eq!(told, ["a", "b", "d"]);
    // And it goes on as before.
    let _: () = server.tell("RPUSH a 3");
    assert_eq!(watched.key("a"), 3);
    let heard: i64 = server.tell("PUBLISH wake x");
    assert_eq!(heard, 1);
    watched.until(|told| matches!(told, Told::Message { .. }).then_some(()));
}

#[test]
fn a_server_that_is_back_is_found_within_a_second_or_two() {
    let mut server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    watched.up();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        server.kill();
        down(&watched);
        server.start_again();
        let back = Instant::now();
        watched.up();
        slowest = slowest.max(back.elapsed());
    }
    println!("found again after {slowest:?} at most");
    // A second is what the waits allow; the rest is for a machine that is busy.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn a_killed_client_comes_back() {
    let server = Redis::start(&[]);
    let watched = Watched::start(&server.url());
    watched.watch.add_keys(["q"]);
    watched.up();
    for n in 1..4_u64 {
        let killed: i64 = server.tell("CLIENT KILL TYPE normal SKIPME yes");
        assert!(killed >= 1);
        assert_eq!(down(&watched).fault.reason, Reason::Lost);
        watched.up();
        let _: () = server.tell("RPUSH q 1");
        // What waited before is told too.
        while watched.key("q") < n {}
    }
}

#[test]
fn a_server_that_went_silent_is_noticed() {
    let server = Redis::start(&[]);
    let short = Timeouts { reply: Duration::from_millis(500), ..TIMEOUTS };
    let watched = Watched::with(&server.url(), short);
    watched.watch.add_keys(["q"]);
    watched.up();
    server.freeze();
    let begun = Instant::now();
    assert_eq!(down(&watched).fault.reason, Reason::Silent);
    assert!(begun.elapsed() >= Duration::from_millis(500));
    server.thaw();
    watched.up();
    let _: () = server.tell("RPUSH q 1");
    assert_eq!(watched.key("q"), 1);
}

#[test]
fn a_question_without_an_answer_ends_the_connection() {
    let fake = Fake::start(|number, words| match words[0].as_str() {
        "LLEN" if number == 0 => Say::Nothing,
        "LLEN" => Say::line(":7"),
        _ => good(words),
    });
    let watched = Watched::with(&fake.url(), SHORT);
    watched.watch.add_keys(["q"]);
    watched.up();
    assert_eq!(down(&watched).fault.reason, Reason::Silent);
    assert_eq!(watched.key("q"), 7);
}

#[test]
fn errors_are_told_once_and_tried_again_in_pace() {
    let fake = Fake::start(|_, words| match words[0].as_str() {
        "CLIENT" => Say::line("-NOPERM User x has no permissions to run the 'client|tracking' command"),
        _ => good(words),
    });
    let begun = Instant::now();
    let watched = Watched::start(&fake.url());
    let error = down(&watched);
    assert_eq!((error.fault.reason, error.ask()), (Reason::NoPerm, Ask::Refused));
    let during = Duration::from_millis(2_500);
    assert!(watched.told.recv_timeout(during).is_err(), "the same is told twice");
    let (made, seconds) = (fake.accepted.load(Ordering::Acquire), begun.elapsed().as_secs_f64());
    assert!(made >= 4 && made as f64 <= 10.0 * seconds.ceil(), "{made} connections in {seconds} s");
}

#[test]
fn answers_in_pieces_are_put_together_and_garbage_is_not() {
    let fake = Fake::start(|number, words| match (number, words[0].as_str()) {
        (0, "LLEN") => Say::Cut(":".to_owned()),
        (1, "LLEN") => Say::line("what?"),
        // An answer that nothing was asked for.
        (2, "LLEN") => Say::line(":1\r\n:2"),
        (3, "SUBSCRIBE") => Say::line("-NOPERM No permissions to access a channel"),
        (_, "SUBSCRIBE") => Say::line(">3\r\n+subscribe\r\n$1\r\nc\r\n:1"),
        (_, "LLEN") => Say::line(":9"),
        _ => good(words),
    });
    let watched = Watched::start(&fake.url());
    watched.watch.add_keys(["q"]);
    watched.watch.subscribe("c");
    assert_eq!(down(&watched).fault.reason, Reason::Lost);
    assert_eq!(down(&watched).fault.reason, Reason::Protocol);
    let third = down(&watched);
    assert_eq!(third.fault.reason, Reason::Protocol, "{third}");
    assert_eq!(down(&watched).fault.reason, Reason::NoPerm);
    watched.up();
    assert_eq!(watched.key("q"), 9);
}

#[test]
fn a_failover_takes_the_watch_along() {
    let first = Redis::start(&[]);
    let second = Redis::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    let sentinel = Sentinel::watching(&first, "");
    let url = format!("redis+sentinel://127.0.0.1:{}?master=main", sentinel.port);
    let watched = Watched::start(&url);
    watched.watch.add_keys(["q"]);
    let before = watched.until(|told| match told {
        Told::Up(server) => Some(server.clone()),
        _ => None,
    });
    sentinel.fail_over();
    let after = watched.until(|told| match told {
        Told::Up(server) if *server != before => Some(server.clone()),
        _ => None,
    });
    assert!(after.contains("now 127.0.0.1:"), "{after}");
    let _: () = second.tell("RPUSH q 1");
    assert_eq!(watched.key("q"), 1);
}
