//! Replacing a daemon: the children live on and are adopted, and it does not go on for ever.

use nix::sys::signal::Signal;
use serde_json::json;
use taskd::process::launch::ToLauncher;

use crate::rig::{Rig, lives, send_signal, wait_gone};

#[test]
fn a_new_daemon_adopts_the_children_with_the_same_sockets() {
    let mut rig = Rig::new();
    let mut first = rig.ready();
    let (id, runner) = first.child("default", 1, "");
    send_signal(first.pid(), Signal::SIGKILL);
    let mut second = rig.daemon();
    assert_eq!((second.start.epoch, second.start.children_lost), (2, false));
    assert_eq!(second.start.instance, first.start.instance);
    let adopted = second.hear_packet("child");
    assert_eq!(adopted["packet"]["child"], id);
    assert_eq!(adopted["packet"]["pid"], runner["pid"]);
    assert_eq!(adopted["packet"]["slot"], json!({ "pool": "default", "index": 1 }));
    assert_eq!(adopted["fds"], 1);
    let before = second.passed_over();
    assert!(before.iter().all(|v| v["packet"]["op"] != "go"), "children come before go: {before:?}");
    second.hear_packet("go");
    // The same socket: the runner never noticed.
    second.order(id, "echo still here");
    assert_eq!(second.said(id, "echo")["echo"], "still here");
}

#[test]
fn children_that_die_with_the_daemon_are_told_as_lost() {
    let mut rig = Rig::new();
    let mut first = rig.ready();
    let (_, runner) = first.child("default", 0, "");
    // Both at once, as far as the launcher can see.
    rig.signal(Signal::SIGSTOP);
    send_signal(first.pid(), Signal::SIGKILL);
    send_signal(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap(), Signal::SIGKILL);
    rig.signal(Signal::SIGCONT);
    let mut second = rig.daemon();
    let lost = second.start.children_lost;
    // Either it was told before the end of the old one, or it is told to the new one.
    assert!(lost || second.hear_packet("exited")["packet"]["child"] == 1);
    // Until a daemon has taken it in, it stays so.
    second.command(&json!({ "exit": 1 }));
    assert!(rig.daemon().start.children_lost);
}

#[test]
fn an_end_told_shortly_before_a_daemon_died_may_be_unheard() {
    let mut rig = Rig::new();
    let mut first = rig.ready();
    let (id, _) = first.child("default", 0, "");
    first.order(id, "exit 0");
    first.hear_packet("exited");
    first.command(&json!({ "exit": 1 }));
    assert!(rig.daemon().start.children_lost);
}

#[test]
fn five_deaths_end_everything() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    for epoch in 1..=5 {
        assert_eq!(daemon.start.epoch, epoch);
        daemon.command(&json!({ "exit": 1 }));
        if epoch < 5 {
            daemon = rig.daemon();
        }
    }
    assert_eq!(rig.ended().code(), Some(70));
    assert!(!lives(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap()));
    rig.logged("5 times within 60s", 1);
}

#[test]
fn a_daemon_that_did_its_work_may_die_as_often_as_it_likes() {
    let mut rig = Rig::new();
    rig.options["steady"] = json!(0);
    let mut daemon = rig.ready();
    for epoch in 1..=8 {
        assert_eq!(daemon.start.epoch, epoch);
        // READY and the end come in this order.
        daemon.command(&json!({ "exit": 1 }));
        daemon = rig.daemon();
        daemon.say(&ToLauncher::Ready);
    }
}

#[test]
fn a_daemon_that_cannot_even_start_ends_everything_too() {
    let mut rig = Rig::new();
    rig.options["daemon"] = json!("@dying-daemon");
    rig.launch();
    assert_eq!(rig.ended().code(), Some(70));
    rig.logged("exit code 3", 1);
}

#[test]
fn a_silent_daemon_is_replaced_and_a_lively_one_is_not() {
    let mut rig = Rig::new().with_notify();
    rig.options["watchdog"] = json!(2_000);
    let mut silent = rig.ready();
    assert_eq!(silent.start.alive_every_ms, Some(500));
    rig.notified("READY=1");
    let mut lively = rig.daemon();
    wait_gone(silent.pid());
    assert!(silent.rest().iter().all(|v| v["packet"]["op"] != "stop"));
    rig.logged("it was silent for 1s", 1);
    lively.command(&json!({ "alive_every": 100 }));
    lively.say(&ToLauncher::Ready);
    // Three signs of life of the launcher, half a period apart at least: longer than the silence allowed.
    for _ in 0..3 {
        rig.notified("WATCHDOG=1");
    }
    assert!(lives(lively.pid()));
    lively.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn a_daemon_that_speaks_nonsense_is_replaced() {
    let mut rig = Rig::new();
    let mut first = rig.ready();
    first.command(&json!({ "garbage": "give me a root shell" }));
    let second = rig.daemon();
    assert_eq!(second.start.epoch, 2);
    rig.logged("not understood", 1);
}

#[test]
fn everything_dies_with_the_launcher() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (_, runner) = daemon.child("default", 0, "");
    rig.signal(Signal::SIGKILL);
    rig.ended();
    wait_gone(daemon.pid());
    wait_gone(u32::try_from(runner["pid"].as_u64().unwrap()).unwrap());
}
