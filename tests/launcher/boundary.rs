//! The trust boundary: a daemon that somebody else took over asks for what it must not have. Everything is
//! refused and logged, and nothing else is disturbed.

use nix::sys::signal::Signal;
use serde_json::json;
use taskd::process::launch::{ChildId, MAX_PACKET, ToLauncher};

use crate::rig::{Rig, lives, pool, task};

fn pid(value: &serde_json::Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn a_fourth_child_of_a_place_is_refused_and_a_dead_one_makes_room() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (first, _) = daemon.child("default", 0, "");
    let (successor, _) = daemon.child("default", 0, "");
    daemon.child("default", 0, "");
    for _ in 0..50 {
        daemon.spawn("default", 0, "");
        let refused = daemon.hear_packet("spawn_failed");
        assert!(refused["packet"]["error"].as_str().unwrap().contains("one more"), "{refused}");
    }
    daemon.child("default", 1, "");
    daemon.say(&ToLauncher::End { child: ChildId(first), kill: true });
    daemon.hear_packet("exited");
    daemon.child("default", 0, "");
    daemon.order(successor, "echo here");
    daemon.said(successor, "echo");
    rig.logged("one more is refused", 50);
}

#[test]
fn keys_that_no_task_has_are_refused() {
    let mut rig = Rig::new();
    let mut hasty = task("hasty");
    hasty.surroundings.nice = Some(5);
    rig.settings.tasks.insert("hasty".to_owned(), hasty);
    let mut daemon = rig.ready();
    for key in
        ["root", ":root", ":+root", "#clean", "#hasty", "#no-such-task", "clean", "\0", &"x".repeat(9_000)]
    {
        daemon.spawn("default", 0, key);
        let refused = daemon.hear_packet("spawn_failed");
        assert_eq!(refused["packet"]["again"], false, "{key}");
    }
    daemon.child("default", 0, "");
}

#[test]
fn ids_that_are_no_childs_do_nothing() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (id, runner) = daemon.child("default", 0, "");
    let forged = [
        0,
        id + 1,
        u64::from(rig.pid()),
        u64::from(daemon.pid()),
        u64::from(pid(&runner["pid"])),
        1,
        u64::MAX,
    ];
    for child in forged.map(ChildId).into_iter().filter(|c| c.0 != id) {
        daemon.say(&ToLauncher::End { child, kill: true });
        daemon.say(&ToLauncher::End { child, kill: false });
        daemon.say(&ToLauncher::Measure { child });
    }
    // One that is its own, behind all those.
    daemon.say(&ToLauncher::Measure { child: ChildId(id) });
    assert_eq!(daemon.hear_packet("measured")["packet"]["child"], id);
    daemon.order(id, "echo here");
    daemon.said(id, "echo");
    assert!(lives(daemon.pid()) && lives(rig.pid()));
    assert!(daemon.rest().iter().all(|v| v["packet"]["op"] != "measured" && v["packet"]["op"] != "exited"));
    rig.logged("is refused to end child 0, which never was", 2);
    rig.logged("is refused to measure child", 1);
}

#[test]
fn packets_that_are_none_cost_the_daemon_its_life_and_nobody_else() {
    let spawn = json!({ "op": "spawn", "slot": { "pool": "default", "index": 1 }, "user": "" });
    for command in [
        json!({ "raw": "{\"op\":" }),
        json!({ "raw": "{\"op\":\"exec\",\"argv\":[\"id\"]}" }),
        json!({ "raw": "{\"op\":\"spawn\",\"slot\":{\"pool\":\"default\",\"index\":-1},\"user\":\"\"}" }),
        json!({ "raw": "\u{0}\u{1}" }),
        json!({ "oversized": MAX_PACKET + 1 }),
        json!({ "with_fds": 1, "text": spawn }),
        json!({ "with_fds": 200, "text": spawn }),
    ] {
        let mut rig = Rig::new();
        let mut daemon = rig.ready();
        let (id, runner) = daemon.child("default", 0, "");
        daemon.command(&command);
        let mut next = rig.daemon();
        assert_eq!(next.start.epoch, 2, "{command}");
        assert_eq!(next.hear_packet("child")["packet"]["child"], id);
        next.hear_packet("go");
        assert!(next.rest().iter().all(|v| v["packet"]["op"] != "child"), "nothing was started: {command}");
        assert!(lives(pid(&runner["pid"])));
        next.order(id, "echo here");
        next.said(id, "echo");
        rig.logged("the daemon is killed", 1);
    }
}

#[test]
fn words_for_the_service_manager_stay_words() {
    let mut rig = Rig::new().with_notify();
    let mut daemon = rig.ready();
    daemon.say(&ToLauncher::Status { text: "busy\nMAINPID=1\nSTOPPING=1".to_owned() });
    let all = rig.notified("STATUS=busy MAINPID=1 STOPPING=1");
    assert!(all.iter().all(|text| text.lines().all(|l| !l.starts_with("MAINPID="))), "{all:?}");
    rig.signal(Signal::SIGUSR1);
    daemon.child("default", 0, "");
}

#[test]
fn what_the_config_took_away_is_refused_from_then_on() {
    let mut rig = Rig::new();
    rig.settings.pools.insert("other".to_owned(), pool("other", 2));
    let mut daemon = rig.ready();
    daemon.child("other", 1, "");
    rig.settings.pools.get_mut("other").unwrap().processes = 1;
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    daemon.hear_packet("settings");
    daemon.spawn("other", 1, "");
    daemon.hear_packet("spawn_failed");
    daemon.child("other", 0, "");
}
