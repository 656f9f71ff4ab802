//! What the service manager is told.

use nix::sys::signal::Signal;
use serde_json::json;
use taskd::process::launch::ToLauncher;

use crate::rig::Rig;

fn status(rig: &Rig, text: &str) -> Vec<String> {
    rig.notified(&format!("STATUS={text}"))
}

#[test]
fn ready_comes_once_and_only_from_the_daemon() {
    let mut rig = Rig::new().with_notify();
    let mut daemon = rig.started();
    status(&rig, "starting");
    daemon.say(&ToLauncher::Status { text: "opening the store".to_owned() });
    assert!(!status(&rig, "opening the store").concat().contains("READY"));
    daemon.say(&ToLauncher::Ready);
    rig.notified("READY=1");
    daemon.command(&json!({ "exit": 1 }));
    let mut next = rig.daemon();
    next.say(&ToLauncher::Ready);
    next.say(&ToLauncher::Status { text: "up again".to_owned() });
    assert!(!status(&rig, "up again").concat().contains("READY"), "it never was not ready");
}

#[test]
fn a_status_cannot_carry_another_notification() {
    let mut rig = Rig::new().with_notify();
    let mut daemon = rig.started();
    daemon.say(&ToLauncher::Status { text: "one\nREADY=1\r\nMAINPID=1".to_owned() });
    let told = status(&rig, "one READY=1 MAINPID=1");
    assert!(told.iter().all(|t| t.lines().all(|l| l.starts_with("STATUS="))), "{told:?}");
}

#[test]
fn a_reload_is_bracketed_good_or_bad() {
    let mut rig = Rig::new().with_notify();
    let mut daemon = rig.ready();
    rig.notified("READY=1");
    for text in [None, Some("faulty")] {
        if let Some(text) = text {
            std::fs::write(rig.file("settings.json"), text).unwrap();
        }
        rig.signal(Signal::SIGHUP);
        let reloading = rig.notification();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert!(rig.notification().starts_with("READY=1\n"));
    }
    daemon.hear_packet("settings_refused");
}

#[test]
fn a_stop_is_told_and_extended_within_bounds() {
    let mut rig = Rig::new().with_notify();
    rig.settings.taskd.shutdown_grace_ms = 60_000;
    let mut daemon = rig.ready();
    rig.notified("READY=1");
    rig.signal(Signal::SIGTERM);
    rig.notified("STOPPING=1");
    daemon.hear_packet("stop");
    daemon.say(&ToLauncher::Draining { extend_ms: 7_000, running: 3 });
    rig.notified("EXTEND_TIMEOUT_USEC=7000000");
    status(&rig, "stopping: waiting for 3 running tasks");
    daemon.say(&ToLauncher::Draining { extend_ms: u64::MAX, running: 2 });
    let told = rig.notification();
    let micros: u64 = told.trim().strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!((70_000_000..=80_000_000).contains(&micros), "{told}");
    daemon.say(&ToLauncher::Finished);
    assert_eq!(rig.ended().code(), Some(0));
}

#[test]
fn the_watchdog_of_systemd_is_answered() {
    let mut rig = Rig::new().with_notify();
    rig.environment.insert("WATCHDOG_USEC".to_owned(), "400000".to_owned());
    let mut daemon = rig.ready();
    assert_eq!(daemon.start.alive_every_ms, Some(100));
    daemon.command(&json!({ "alive_every": 20 }));
    for _ in 0..3 {
        rig.notified("WATCHDOG=1");
    }
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_answered() {
    let mut rig = Rig::new().with_notify();
    rig.environment.insert("WATCHDOG_USEC".to_owned(), "400000".to_owned());
    rig.environment.insert("WATCHDOG_PID".to_owned(), "1".to_owned());
    assert_eq!(rig.started().start.alive_every_ms, None);
}
