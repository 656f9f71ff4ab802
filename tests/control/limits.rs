//! What a peer can hold is bounded, and what it holds too long is taken from it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use taskd::control::api::{Answer, ErrorKind, Request};
use taskd::control::server::Limits;

use crate::fake::Fake;

const SHORT: Duration = Duration::from_millis(150);

fn echo(limits: Limits) -> Fake {
    Fake::start(limits, |_| Some(Answer::Json("null".into())))
}

#[test]
fn a_body_that_says_it_is_too_large_is_not_even_read() {
    let fake = echo(Limits::default());
    let mut bare = fake.connect();
    bare.send(b"POST /v1/messages HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
    let reply = bare.reply().unwrap();
    assert_eq!((reply.status, reply.error().kind), (413, ErrorKind::TooLarge));
    assert!(bare.closed());
}

#[test]
fn a_body_that_grows_too_large_is_cut_off() {
    let fake = echo(Limits::default());
    let mut bare = fake.connect();
    bare.send(b"POST /v1/messages HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    // The server stops reading at 8 MiB and closes: then writing fails.
    let sent = (0..100).take_while(|_| bare.send(chunk.as_bytes()).is_ok()).count();
    assert!((8..20).contains(&sent), "{sent} MiB were taken");
    assert_eq!(bare.reply().unwrap().status, 413);
}

#[test]
fn one_message_has_a_smaller_bound_than_many() {
    let fake = echo(Limits::default());
    let message = |n: usize| format!("{{\"task\":\"t\",\"args\":[\"{}\"]}}", "x".repeat(n));
    assert_eq!(fake.ask("POST", "/v1/messages", message(1 << 20).as_bytes()).status, 200);
    assert_eq!(fake.ask("POST", "/v1/messages", message(2 << 20).as_bytes()).status, 413);
    let four = format!("[{0},{0},{0},{0}]", message(1 << 19));
    assert_eq!(fake.ask("POST", "/v1/messages", four.as_bytes()).status, 200);
    let one_too_large = format!("[{},{}]", message(1), message(2 << 20));
    assert_eq!(fake.ask("POST", "/v1/messages", one_too_large.as_bytes()).status, 413);
}

#[test]
fn json_of_any_depth_is_survived() {
    let fake = echo(Limits::default());
    let mut bare = fake.connect();
    for open in ["[", "{\"a\":"] {
        let body = open.repeat(100_000);
        bare.ask("POST", "/v1/messages", body.as_bytes());
        assert_eq!(bare.reply().unwrap().status, 400);
    }
    bare.ask("GET", "/v1/status", b"");
    assert_eq!(bare.reply().unwrap().status, 200);
}

#[test]
fn all_bodies_together_are_bounded() {
    let fake = echo(Limits { bodies: 1 << 20, ..Limits::default() });
    let mut slow = fake.connect();
    slow.send(b"POST /v1/messages HTTP/1.1\r\nhost: t\r\ncontent-length: 900000\r\n\r\n").unwrap();
    slow.send(&vec![b' '; 800_000]).unwrap();
    let half = format!("[{}]", " ".repeat(500_000));
    // How far the server has read the slow one cannot be seen: until then the other one fits.
    let refused = loop {
        let reply = fake.ask("POST", "/v1/messages", half.as_bytes());
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.error().kind), (503, ErrorKind::Unavailable));
    // Small requests of others go on, and what the slow one held comes back.
    assert_eq!(fake.ask("GET", "/v1/status", b"").status, 200);
    drop(slow);
    while fake.ask("POST", "/v1/messages", half.as_bytes()).status != 200 {}
}

#[test]
fn a_head_that_drips_is_cut_off_in_time() {
    let fake = echo(Limits { head: SHORT, ..Limits::default() });
    for first in [&b""[..], b"GET /v1/status HTTP/1.1\r\n"] {
        let mut bare = fake.connect();
        bare.send(first).unwrap();
        let began = Instant::now();
        // A byte now and then must not move the deadline.
        while bare.send(b"x").is_ok() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it is still there");
        assert_eq!(bare.reply().unwrap().status, 408);
        assert!(bare.closed());
    }
}

#[test]
fn a_head_that_drips_later_on_is_cut_off_too() {
    let fake = echo(Limits { head: SHORT, ..Limits::default() });
    let mut bare = fake.connect();
    for _ in 0..3 {
        bare.ask("GET", "/v1/status", b"");
        assert_eq!(bare.reply().unwrap().status, 200);
        // Longer than a head may take: it is idle, which is something else.
        std::thread::sleep(SHORT * 2);
    }
    bare.send(b"GET /v1/st").unwrap();
    assert_eq!(bare.reply().unwrap().status, 408);
    assert!(bare.closed());
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let fake = echo(Limits { body: SHORT, ..Limits::default() });
    let mut bare = fake.connect();
    bare.send(b"POST /v1/messages HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n{").unwrap();
    assert_eq!(bare.reply().unwrap().status, 408);
    assert!(bare.closed());
}

#[test]
fn an_idle_connection_ends_and_one_that_waits_for_a_stop_does_not() {
    let mut fake = echo(Limits { idle: SHORT, ..Limits::default() });
    let mut idle = fake.connect();
    let mut stopper = fake.connect();
    idle.ask("GET", "/v1/status", b"");
    stopper.ask("POST", "/v1/stop", b"");
    assert_eq!((idle.reply().unwrap().status, stopper.reply().unwrap().status), (200, 200));
    assert!(idle.closed());
    // It answers as often as it is asked, whatever time passes in between.
    std::thread::sleep(SHORT * 3);
    stopper.ask("GET", "/v1/status", b"");
    assert_eq!(stopper.reply().unwrap().status, 200);
    std::thread::sleep(SHORT * 3);
    stopper.0.get_ref().set_nonblocking(true).unwrap();
    assert_eq!(stopper.0.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    stopper.0.get_ref().set_nonblocking(false).unwrap();
    fake.stop();
    assert!(stopper.closed());
}

#[test]
fn who_does_not_read_is_not_waited_for() {
    let (sent, finished) = mpsc::channel();
    let fake = Fake::start_calls(Limits { unread: SHORT, ..Limits::default() }, move |call| {
        let (lines, stream) = tokio::sync::mpsc::channel(1);
        let _ = call.answer.send(Answer::Stream(stream));
        let sent = sent.clone();
        tokio::spawn(async move {
            while lines.send("x".repeat(60_000)).await.is_ok() {}
            let _ = sent.send(());
        });
    });
    let mut bare = fake.connect();
    bare.ask("GET", "/v1/store/export", b"");
    finished.recv_timeout(Duration::from_secs(20)).expect("the stream is held forever");
}

#[test]
fn a_stream_that_is_silent_is_no_fault() {
    let (lines, stream) = tokio::sync::mpsc::channel(1);
    let mut stream = Some(stream);
    let limits = Limits { idle: SHORT, head: SHORT, body: SHORT, unread: SHORT, ..Limits::default() };
    let fake = Fake::start(limits, move |_| stream.take().map(Answer::Stream));
    let mut bare = fake.connect();
    bare.ask("GET", "/v1/messages/i/logs?follow=true", b"");
    std::thread::sleep(SHORT * 3);
    lines.blocking_send("late".into()).unwrap();
    drop(lines);
    let mut all = String::new();
    while !all.ends_with("0\r\n\r\n") {
        let mut byte = [0];
        bare.0.read_exact(&mut byte).expect("it was cut off");
        all.push(char::from(byte[0]));
    }
    assert!(all.contains("application/x-ndjson") && all.contains("late\n"), "{all}");
}

#[test]
fn connections_are_bounded_and_places_come_back() {
    let fake = echo(Limits { connections: 4, reserved: 1, per_uid: 3, ..Limits::default() });
    let open = |n: usize| -> Vec<_> {
        (0..n)
            .map(|_| {
                let mut bare = fake.connect();
                bare.ask("GET", "/v1/status", b"");
                assert_eq!(bare.reply().unwrap().status, 200);
                bare
            })
            .collect()
    };
    // The owner is an administrator: all four places are his.
    let held = open(4);
    let refused = fake.ask("GET", "/v1/status", b"");
    assert_eq!((refused.status, refused.error().kind), (503, ErrorKind::Unavailable));
    assert!(refused.head.contains("connection: close"));
    drop(held);
    // The server sees the ends when it sees them.
    while fake.ask("GET", "/v1/status", b"").status != 200 {}
}

#[test]
fn thousands_of_refused_connections_leave_the_others_alone() {
    let fake = echo(Limits { connections: 8, ..Limits::default() });
    let mut held = fake.connect();
    held.ask("GET", "/v1/status", b"");
    assert_eq!(held.reply().unwrap().status, 200);
    let mut swarm = Vec::new();
    for _ in 0..500 {
        swarm.extend(UnixStream::connect(&fake.socket));
        held.ask("GET", "/v1/status", b"");
        assert_eq!(held.reply().unwrap().status, 200);
    }
}

#[test]
fn a_call_that_nobody_answers_is_503() {
    let fake = Fake::start(Limits::default(), |_| None);
    let reply = fake.ask("GET", "/v1/status", b"");
    assert_eq!((reply.status, reply.error().kind), (503, ErrorKind::Stopping));
}

#[test]
fn a_client_that_goes_away_is_seen_by_the_handler() {
    let (seen, gone) = mpsc::channel();
    let (called, calls) = mpsc::channel();
    let fake = Fake::start_calls(Limits::default(), move |mut call| {
        called.send(()).unwrap();
        let seen = seen.clone();
        tokio::spawn(async move {
            call.answer.closed().await;
            let _ = seen.send(());
        });
    });
    let mut bare = fake.connect();
    bare.ask("GET", "/v1/messages/i/result?wait_ms=60000", b"");
    calls.recv().unwrap();
    drop(bare);
    gone.recv_timeout(Duration::from_secs(20)).expect("the handler still waits");
}

#[test]
fn an_answer_under_way_is_finished_at_a_stop() {
    let (called, calls) = mpsc::channel();
    let mut fake = Fake::start_calls(Limits { farewell: Duration::from_secs(20), ..Limits::default() }, {
        move |call| called.send(call).unwrap()
    });
    let mut bare = fake.connect();
    bare.ask("GET", "/v1/status", b"");
    let call = calls.recv().unwrap();
    let mut idle = fake.connect();
    let stopping = std::thread::spawn(move || fake.stop());
    // It is stopping once a connection without a request has been ended.
    assert!(idle.closed());
    call.answer.send(Answer::Json("1".into())).unwrap();
    assert_eq!(bare.reply().unwrap().body, "1");
    assert!(bare.closed());
    stopping.join().unwrap();
}

#[test]
fn garbage_is_answered_or_closed_never_followed() {
    let fake = echo(Limits::default());
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        &[b'x'; 40_000],
    ] {
        let mut stream = UnixStream::connect(&fake.socket).unwrap();
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert!(fake.seen.lock().unwrap().is_empty());
}

/// Run by the test below in a process of its own, whose descriptors are few.
#[test]
#[ignore = "a part of accept_waits_out_a_lack_of_descriptors"]
fn few_descriptors() {
    let fake = echo(Limits::default());
    let mut first = fake.connect();
    first.ask("GET", "/v1/status", b"");
    assert_eq!(first.reply().unwrap().status, 200);
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    // One descriptor for our end; none is left for the server's.
    hoard.pop();
    let mut waiting = fake.connect();
    waiting.ask("GET", "/v1/status", b"");
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        (usage.user_time() + usage.system_time()).num_milliseconds()
    };
    let before = cpu();
    first.ask("GET", "/v1/status", b"");
    assert_eq!(first.reply().unwrap().status, 200, "the others go on");
    // Long enough for a loop without a pause to show.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu() - before;
    assert!(used < 100, "accept spins: {used} ms of CPU in a second");
    hoard.clear();
    assert_eq!(waiting.reply().unwrap().status, 200, "it recovers");
    assert!(matches!(fake.seen.lock().unwrap().last(), Some(Request::Status)));
}

#[test]
fn accept_waits_out_a_lack_of_descriptors() {
    let me = std::env::current_exe().unwrap();
    let line = format!("ulimit -n 40; exec '{}' --ignored --exact limits::few_descriptors", me.display());
    let out = Command::new("/bin/sh").arg("-c").arg(line).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}
