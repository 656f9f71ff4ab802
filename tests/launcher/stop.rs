//! The end: the ladder of signals, and that it is bounded.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use taskd::process::launch::ToLauncher;

use crate::rig::{PATIENCE, Rig, lives};

fn pid(value: &serde_json::Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn each_signal_is_one_step_down() {
    let mut rig = Rig::new();
    rig.options["same_wish"] = json!(0);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    rig.signal(Signal::SIGTERM);
    assert_eq!(daemon.hear_packet("stop")["packet"]["now"], false);
    rig.signal(Signal::SIGINT);
    assert_eq!(daemon.hear_packet("stop")["packet"]["now"], true);
    assert!(lives(pid(&runner["pid"])));
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.ended().code(), Some(1));
    assert!(!lives(pid(&runner["pid"])) && !lives(daemon.pid()));
    assert!(!rig.settings.taskd.socket.exists());
}

#[test]
fn sigquit_ends_everything_at_once() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (id, runner) = daemon.child("default", 0, "");
    daemon.order(id, "deaf");
    daemon.said(id, "deaf");
    rig.signal(Signal::SIGQUIT);
    assert_eq!(rig.ended().code(), Some(1));
    assert!(!lives(pid(&runner["pid"])) && !lives(daemon.pid()));
}

#[test]
fn a_storm_of_signals_is_one_graceful_stop() {
    let mut rig = Rig::new().with_notify();
    // Longer than any pause that a busy machine puts between two of them.
    rig.options["same_wish"] = json!(PATIENCE.as_millis());
    let mut daemon = rig.ready();
    rig.notified("READY=1");
    let storm = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];
    rig.signal(Signal::SIGTERM);
    assert_eq!(daemon.hear_packet("stop")["packet"]["now"], false);
    for n in 0..1_000 {
        rig.signal(storm[n % storm.len()]);
    }
    daemon.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(daemon.rest().iter().all(|v| v["packet"]["op"] != "stop"), "only one stop is told");
    rig.notifications.as_ref().unwrap().set_nonblocking(true).unwrap();
    let mut text = [0; 4096];
    let socket = rig.notifications.as_ref().unwrap();
    let mut all = Vec::new();
    while let Ok(length) = socket.recv(&mut text) {
        all.push(String::from_utf8_lossy(&text[..length]).into_owned());
    }
    assert_eq!(all.iter().filter(|t| t.starts_with("STOPPING=1")).count(), 1, "{all:?}");
    assert!(all.iter().all(|t| !t.starts_with("RELOADING=1")), "{all:?}");
}

#[test]
fn after_the_end_of_work_children_get_a_moment_and_then_none() {
    let mut rig = Rig::new();
    rig.options["kill_after"] = json!(300);
    let mut daemon = rig.ready();
    let (deaf, runner) = daemon.child("default", 0, "");
    daemon.order(deaf, "deaf");
    daemon.said(deaf, "deaf");
    daemon.order(deaf, "orphan");
    let orphan = pid(&daemon.said(deaf, "orphan")["orphan"]);
    rig.signal(Signal::SIGTERM);
    daemon.hear_packet("stop");
    let asked = Instant::now();
    daemon.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(300), "the deaf one had its time");
    assert!(!lives(pid(&runner["pid"])) && !lives(orphan) && !lives(daemon.pid()));
}

#[test]
fn a_daemon_that_never_finishes_is_ended() {
    let mut rig = Rig::new();
    rig.settings.taskd.shutdown_grace_ms = 100;
    rig.options["finish_margin"] = json!(100);
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.ended().code(), Some(1));
    assert!(!lives(pid(&runner["pid"])) && !lives(daemon.pid()));
    rig.logged("did not finish in time", 1);
}

#[test]
fn a_daemon_that_dies_while_stopping_is_replaced_and_told_again() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    rig.signal(Signal::SIGTERM);
    daemon.hear_packet("stop");
    daemon.command(&json!({ "exit": 1 }));
    let mut next = rig.daemon();
    next.hear_packet("go");
    assert_eq!(next.hear_packet("stop")["packet"]["now"], false);
    next.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn last_words_are_heard_although_the_daemon_is_gone() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    daemon.say(&ToLauncher::Finished);
    daemon.command(&json!({ "exit": 0 }));
    assert_eq!(rig.ended().code(), Some(0));
    assert!(!rig.log().contains("is being replaced"), "{}", rig.log());
}

#[test]
fn a_daemon_that_needs_a_person_ends_everything_with_its_code() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    daemon.say(&ToLauncher::Failed { code: 65, message: "the store is corrupt".to_owned() });
    assert_eq!(rig.ended().code(), Some(65));
    rig.logged("the store is corrupt", 1);
}
